"""Machines that are not at hand, forced: no float64, no bfloat16, one core, old sliders, no home, nowhere to write."""
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import nst_utils as nst
import training

ROOT = Path(__file__).resolve().parents[1]


class FewDoubles(TorchDispatchMode):
    """As on Apple's accelerators: float64 is for a few weights, which stay on the processor, and for nothing else."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for tensor in tree_leaves(result):
            assert not (isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64 and tensor.numel() > 99), function
        return result


@pytest.mark.parametrize("options", [
    {}, {"optimizer": "adam"}, {"optimizer": "sgd"}, {"start": "noise", "sizes": (48, 64)}, {"statistic": "mean_std"},
    {"scale": "gatys", "tv_weight": 1.0}, {"masks": [torch.ones(48, 64)]}])
def test_no_float64_on_the_way(picture, painting, options):
    network = {"weights": None, "precision": "float32"}
    with FewDoubles():
        step = nst.stylize(picture, painting, steps=2, device="cpu", show_progress=False, **{"size": 64} | options, **network)
    assert step.image.dtype == torch.float32


@pytest.mark.parametrize("transform", [nst.adain, nst.wct])
def test_no_float64_in_one_pass(picture, painting, transform):
    network = nst.AdaIN(weights=None, precision="float32")
    with FewDoubles():
        network.stylize(picture, [painting, picture], weights=[1, 2], transform=transform, keep_colours=True)
        network.stylize(picture, [painting, picture], masks=[picture[:, :1], 1 - picture[:, :1]], transform=transform)


@pytest.mark.parametrize("able, precision", [
    ({}, "float32"), ({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16")])
def test_bfloat16_only_where_the_processor_has_it(monkeypatch, able, precision):
    monkeypatch.delenv("NST_PRECISION", raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert nst.FeatureExtractor(weights=None).dtype == nst.PRECISIONS[precision]
    monkeypatch.setenv("NST_PRECISION", "float32")
    assert nst.FeatureExtractor(weights=None).dtype == torch.float32


@pytest.mark.parametrize("cores", [1, None])
def test_one_core_trains_without_helpers(tmp_path, monkeypatch, cores):
    """Also where the system does not say how many there are."""
    for number in range(2):
        nst.save_image(torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(number)), tmp_path / f"{number}.png")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(training.multiprocessing, "get_start_method", lambda: "fork")
    workers = []
    monkeypatch.setattr(training, "DataLoader", lambda *arguments, num_workers, **options: (
        workers.append(num_workers) or torch.utils.data.DataLoader(*arguments, num_workers=num_workers, **options)))
    network = nst.AdaIN(weights=None, precision="float32")
    list(training.train_adain(network, tmp_path, tmp_path, steps=1, batch=1, size=20, crop=16))
    assert workers == [0]


def run(code, *, prefix=(), **environment):
    """A fresh Python with this code, in a temporary folder; its last lines of output and of errors."""
    variables = {name: value for name, value in (os.environ | environment).items() if value is not None}
    done = subprocess.run([*prefix, sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    return done.stdout.strip().splitlines(), done.stderr.strip().splitlines()


def test_the_sliders_of_an_old_ipywidgets():
    code = "import ipywidgets; ipywidgets.__version__ = '7.7.1'\nimport panels"
    _, errors = run(code, PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'notebooks'}")
    assert errors[-1] == "ImportError: The sliders need ipywidgets 8, not 7.7.1: pip install 'ipywidgets>=8', then restart."


USE = """
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
import nst_utils as nst, report
photo, style = nst.sample("chelsea", 48), nst.sample("swirls", 48)
image = nst.stylize(photo, style, size=None, steps=2, device="cpu", show_progress=False).image
nst.AdaIN.pretrained().stylize(photo, style)
print("painted")
try:
    print("exported", report.export_figure(report.image_strip([photo, image]), "a", "A caption.", notebook="n"))
except OSError as error:
    print(error)
try:
    nst.sample("starry_night")
except ConnectionError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the project in which nothing can be written."""
    folder = tmp_path_factory.mktemp("clone") / "read only"
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns("*.ipynb", "__pycache__", "pages"))
    shutil.copytree(ROOT / "data", folder / "data", ignore=shutil.ignore_patterns("__pycache__", "survey"))
    for name in ("nst_utils.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / "figures").mkdir()
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


def without_privileges():
    """What must stand before a command so that even root is held by the permissions of files."""
    if not hasattr(os, "geteuid") or os.geteuid():
        return []
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
@pytest.mark.skipif(bool(without_privileges() and not shutil.which("setpriv")), reason="root without setpriv writes anywhere")
def test_a_clone_that_can_t_be_written_without_a_home(clone, tmp_path):
    where = {"PYTHONPATH": f"{clone}{os.pathsep}{clone / 'notebooks'}", "HOME": f"{os.devnull}/none", "XDG_CACHE_HOME": None,
             "NST_FIGURES": None, "MPLCONFIGDIR": str(tmp_path / "mpl"), "https_proxy": "http://127.0.0.1:9"}
    (painted, exported, classic), errors = run(USE, prefix=without_privileges(), **where)
    assert painted == "painted" and not any("Traceback" in line for line in errors)
    assert exported == (f"{clone / 'figures' / 'a.print.png'} can't be written (Permission denied); nothing was changed there. "
                        "The environment variable NST_FIGURES names another folder for figures.")
    assert classic.startswith("'starry_night' could not be downloaded (") and classic.endswith("one of the offline samples.")
    (_, exported, _), _ = run(USE, prefix=without_privileges(), **where | {"NST_FIGURES": str(tmp_path / "figures")})
    assert exported == f"exported {tmp_path / 'figures' / 'a.print.png'}"


def test_a_folder_for_figures_that_is_none(tmp_path):
    (tmp_path / "file").touch()
    (_, exported, *_), _ = run(USE, PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'notebooks'}", NST_FIGURES=str(tmp_path / "file"))
    assert "can't be written (" in exported and exported.endswith("names another folder for figures.")


def test_names_that_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nst.save_image(torch.rand(1, 3, 4, 5), "~$a.png")  # as offices name what they have open; no user is called so
    assert nst.load_image("~$a.png").shape == (1, 3, 4, 5) and (tmp_path / "~$a.png").exists()
