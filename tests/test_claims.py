"""The runs behind the claims, at a size at which nothing is worth judging: that they run, and what they record."""
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import claims
import nst_utils as nst
from experiments import Judge, Lab, Recording, measurements, record


@pytest.fixture(scope="module")
def lab():
    channels = {"alexnet": (64, 192, 384, 256, 256), "vgg16": (64, 128, 256, 512, 512)}
    judges = {arch: Judge(arch, weights=None, heads=[torch.ones(count) for count in counts]) for arch, counts in channels.items()}
    return Lab("vgg16_compact", size=112, weights=None, precision="float32", judges=judges, device="cpu")


@pytest.fixture
def short(monkeypatch):
    """Two steps instead of all."""
    runs = Lab.runs
    monkeypatch.setattr(Lab, "runs", lambda self, cells, **options: runs(self, cells, **options | {"steps": 2, "marks": (1,)}))


@pytest.mark.parametrize("name", claims.RECORDINGS)
def test_each_recording_runs_and_tells_its_runs_apart(name, lab, short, tmp_path):
    recording = claims.RECORDINGS[name]
    list(record({name: Recording(recording.units[:1], recording.measure)}, lab, folder=tmp_path))
    rows = measurements(name, folder=tmp_path)
    conditions = [tuple(value for key, value in row.items() if key not in claims.NUMBERS) for row in rows]
    assert len(rows) > 1 and len(set(conditions)) == len(conditions)
    assert all(isinstance(row[key], float) or row[key] == "" for row in rows for key in row.keys() & claims.NUMBERS)


def test_the_command_lists_what_is_recorded(lab, tmp_path, capsys):
    list(record({"starts": Recording([("a", "b")], lambda *_: iter([{"x": 1}]))}, lab, folder=tmp_path))
    claims.main(["record", "starts", "weights", "--list"], folder=tmp_path)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("starts: 1 of 12 with vgg16_compact, 112.0 px") and second == "weights: nothing of 12"
    with pytest.raises(ValueError, match="recording is|no recording 'startz' .nearest: starts"):
        claims.main(["record", "startz"], folder=tmp_path)


def test_the_command_is_there():
    script = Path(nst.__file__).with_name("notebooks") / "experiments.py"
    shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True).stdout
    assert "record" in shown and "--list" in shown
