"""What `pip install .` and `pip install git+...` bring: the module with its weights and styles, usable from any folder."""
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
USE = """
import nst_utils as nst
print(nst.__file__)
assert len([name for name, origin in nst.sample().items() if origin.startswith("style")]) >= 10
photo, style = nst.sample("chelsea", 64), nst.sample("swirls", 64)
assert nst.stylize(photo, style, size=None, steps=2, device="cpu", show_progress=False).image.shape == photo.shape
assert nst.AdaIN.pretrained().stylize(photo, style).shape == photo.shape
assert (nst.DATA / "fetch.py").is_file()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, built from the files that git would carry over and unpacked into a folder that can't be written to."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    source.mkdir()
    for name in ("nst_utils.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "data", source / "data", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source],
                          capture_output=True, text=True)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("setuptools, which builds the wheel, can't be downloaded here")
    assert not done.returncode, done.stderr
    wheel, = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    for path in (folder / "site").rglob("*"):
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    return folder / "site"


def test_an_installed_module_works_from_any_folder_and_writes_nothing_there(installed, tmp_path):
    before = sorted(path.relative_to(installed) for path in installed.rglob("*") if "__pycache__" not in path.parts)
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert Path(done.stdout.strip()).parent == installed
    assert not list(tmp_path.iterdir())
    assert sorted(path.relative_to(installed) for path in installed.rglob("*") if "__pycache__" not in path.parts) == before


def test_the_wheel_holds_the_module_and_its_data_and_nothing_else(installed):
    top = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert top == {"nst_utils.py", "nst_utils_data"}
    files = {"fetch.py", "masks.py", "memory.py", "pictures.py"}
    assert {path.name for path in (installed / "nst_utils_data").iterdir()} == files | {"style", "weights"}
