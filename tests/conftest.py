"""Small pictures and networks that the tests share; nothing here needs a network connection."""
import functools
import importlib.util
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

# notebooks that run as tests export their figures into a folder of their own, not over the committed ones
os.environ.setdefault("NST_FIGURES", tempfile.mkdtemp(prefix="nst-figures-"))

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # tests in several processes share the cores; kernels of notebooks inherit this
    shares = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(shares))

import pytest
import torch

import nst_utils as nst


@functools.cache
def processes():
    """What makes child processes: forked from one that has imported everything but computed nothing, so that they begin quickly
    and no threads are torn apart; on Windows fresh ones."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing.forkserver import ensure_running, set_forkserver_preload
    set_forkserver_preload(["nst_utils", "training", "experiments", "pytest", "nbformat", "conftest"])
    with pytest.MonkeyPatch.context() as patch:  # before Python 3.14 the process that forks does not know our sys.path
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        ensure_running()
    return multiprocessing.get_context("forkserver")


def has_trained_judge(arch):
    """Whether a trained `experiments.Judge` needs no download: its weights and LPIPS's heads lie in torch's cache."""
    cache = Path(torch.hub.get_dir(), "checkpoints")
    return (cache / f"{arch}_lpips.pt").exists() and any(cache.glob(f"{arch}[-_][!l]*"))


def kill_at_a_random_moment(target, arguments, within):
    """Run target(*arguments, event) in a process until it has set the event, and at most so many seconds longer: kill -9."""
    started = processes().Event()
    child = processes().Process(target=target, args=(*arguments, started))
    child.start()
    assert started.wait(120)
    time.sleep(random.uniform(0, within))
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL, "it was done before it could be killed"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One process more than there are cores, since many tests wait for a page, a message or a clock."""
    return (os.cpu_count() or 1) + 1


NEEDS = {  # packages that no other notebook imports
    "20_survey.ipynb": ("filelock", "krippendorff", "pingouin"), "21_telegram_bot.ipynb": ("telegram", "aiolimiter")}


def pytest_collection_modifyitems(items):
    """In the tests a notebook runs with the small settings that its parameters cell has for them, under "quick" in its metadata.
    What it finds so is not compared, but for what comes from data/measurements (tagged "recorded"). With NST_FULL in the
    environment all run, and are compared, as they stand. A notebook is skipped if packages of its own are not installed."""
    shortened = set()
    for item in items:
        if lacking := [name for name in NEEDS.get(item.path.name, ()) if not importlib.util.find_spec(name)]:
            item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(lacking)}"))
        cell = getattr(item, "cell", None)
        if cell is None or os.environ.get("NST_FULL"):
            continue
        if quick := cell.metadata.get("quick"):
            shortened.add(item.path)
            cell.source += f"\n{quick}"
        if item.path in shortened and "recorded" not in cell.metadata.get("tags", []):
            item.options["check"] = False


@pytest.fixture
def reliability():
    """A function of what was tried, on how many, and what came of it: the README's table of reliability says the same. With
    NST_WRITE in the environment that line of the table is written instead."""
    readme = Path(__file__).resolve().parents[1] / "README.md"

    def say(what, *cells):
        text = readme.read_text(encoding="utf-8")
        before, line = re.search(rf"(?m)^\| {re.escape(what)} \|.*$", text), f"| {' | '.join([what, *cells])} |"
        assert before, f"The README's table of reliability has no line {what!r}."
        if os.environ.get("NST_WRITE"):
            readme.write_text(text.replace(before[0], line), encoding="utf-8", newline="\n")
        else:
            assert before[0] == line
    return say


@pytest.fixture
def picture():
    """A seeded, smooth colour picture (1, 3, 48, 64) away from 0 and 1."""
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(7))
    return torch.nn.functional.interpolate(coarse, (48, 64), mode="bicubic").clamp(0, 1) * 0.6 + 0.2


@pytest.fixture
def painting():
    """A seeded picture of stripes (1, 3, 56, 48)."""
    x = torch.linspace(0, 12, 48)
    y = torch.linspace(0, 9, 56)[:, None]
    return torch.stack([(x + y).sin(), (x - 2 * y).cos(), (3 * y + 0 * x).sin()])[None] * 0.3 + 0.5


@pytest.fixture(scope="session")
def network():
    """A float32 extractor with seeded random weights: the mathematics does not depend on training."""
    layers = (*nst.STYLE_LAYERS, *nst.CONTENT_LAYERS)
    return nst.FeatureExtractor(layers=layers, weights=None, precision="float32")


@pytest.fixture
def interrupt_at(monkeypatch):
    """A function of n: the n-th evaluation from now on is a Ctrl-C."""
    def at(count):
        left, evaluate = [count], nst._evaluate

        def interrupted(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return evaluate(*arguments, **options)
        monkeypatch.setattr(nst, "_evaluate", interrupted)
    return at


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No web, and an empty cache of torch.hub; gives its folder of checkpoints."""
    def no_network(*_, **__):
        raise urllib.error.URLError("no network in tests")
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"
