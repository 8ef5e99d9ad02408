"""endurance.py USE COUNT: the resident memory of this process in MiB while one of USES is done COUNT times, at ten marks, as CSV.

With --all, everything as often as a long day asks for, into data/measurements/endurance.csv (a quarter of an hour on two cores).
"""
import csv
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]

import nst_utils as nst  # noqa: E402
import panels  # noqa: E402

TABLE = nst.DATA / "measurements" / "endurance.csv"


def steps() -> Iterator[None]:
    content, style = nst.sample("chelsea", 64), nst.sample("swirls", 64)
    for _ in nst.optimize_image(content, nst.StyleObjective(content, style), steps=sys.maxsize):
        yield


def opened() -> Iterator[None]:
    content, style = nst.sample("chelsea", 64), nst.sample("swirls", 64)
    network, extractor = nst.AdaIN.pretrained(), nst.StyleObjective(content, style).extractor
    while True:
        steered = panels.steer(content, style, size=64, extractor=extractor)
        steered.run.start()
        steered.run.wait(2)
        mixed = panels.adain_panel(content, {"a": style, "b": content}, network=network)
        framed = panels.frame_slider([content, style])
        for panel in (steered, mixed, framed):
            panel.close()
        yield


def passes() -> Iterator[None]:
    network, content, style = nst.AdaIN.pretrained(), nst.sample("chelsea", 96), nst.sample("swirls", 96)
    while True:
        network.stylize(content, style)
        yield


USES: dict[str, tuple[Callable[[], Iterator[None]], int]] = {  # what is done, and how often on a long day
    "steps of an optimisation": (steps, 10_000), "panels opened and closed": (opened, 200), "pictures by AdaIN": (passes, 5_000)}


def memory(use: str, count: int) -> Iterator[tuple[int, float]]:
    """How often it was done, and the MiB then, at ten marks from a tenth of the count to all of it."""
    for done, _ in zip(range(1, count + 1), USES[use][0]()):
        if done % (count // 10) == 0:
            gc.collect()
            yield done, psutil.Process().memory_info().rss / 2**20


if __name__ == "__main__":
    if sys.argv[1] == "--all":
        import subprocess
        rows = []
        for use, (_, count) in USES.items():  # each in a process of its own
            done = subprocess.run([sys.executable, __file__, use, str(count)], capture_output=True, text=True, check=True)
            rows += list(csv.reader(done.stdout.splitlines()))
        with nst.replacing(TABLE) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("use", "count", "mebibytes"), *rows])
    else:
        writer = csv.writer(sys.stdout)
        for done, mebibytes in memory(sys.argv[1], int(sys.argv[2])):
            writer.writerow((sys.argv[1], done, f"{mebibytes:.1f}"))
            sys.stdout.flush()
