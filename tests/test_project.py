"""What is committed: notebooks run top to bottom, figures that exist, weights of known size, nothing private."""
import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import torch

import nst_utils as nst
from report import gallery

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def code(path):
    return ["".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code"]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_notebook_was_run_top_to_bottom_without_errors(notebook):
    parts = [cell for cell in cells(notebook) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in parts] == list(range(1, len(parts) + 1))
    for output in (output for cell in parts for output in cell["outputs"]):
        assert output["output_type"] != "error" and output.get("name") != "stderr", output
        assert "\r" not in "".join(output.get("text", "")), "a progress bar is kept in its last state only"


def test_notebook_has_parameters_and_a_checked_cell(notebook):
    tags = [tag for cell in cells(notebook) for tag in cell["metadata"].get("tags", [])]
    assert tags.count("parameters") == 1 and "nbval-check-output" in tags


def test_small_settings_for_tests_are_settings(notebook):
    """What stands under "quick" in a parameters cell's metadata changes settings of that cell, and nothing else."""
    def names(source):
        return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for cell in cells(notebook):
        if quick := cell["metadata"].get("quick"):
            assert "parameters" in cell["metadata"]["tags"] and names(quick) <= names("".join(cell["source"]))


def test_cells_and_functions_are_short(notebook):
    for source in code(notebook):
        assert len(source.splitlines()) <= 20, source
        plain = "\n".join(line for line in source.splitlines() if not line.startswith("%"))
        for node in ast.walk(ast.parse(plain)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 11, node.name


def test_nothing_private_in_text_files():
    private = re.compile(r"/(home|root|work|Users)/|C:\\\\|hf_[A-Za-z0-9]{20}|ghp_[A-Za-z0-9]{20}")
    files = [*NOTEBOOKS, *ROOT.glob("*.md"), *ROOT.glob("*.py"), *ROOT.glob("notebooks/*.py"), *ROOT.glob("tests/**/*.py"),
             *ROOT.glob("data/*.md"), *ROOT.glob("figures/*.md")]
    for path in (path for path in files if path != Path(__file__).resolve()):  # which spells out what is private
        text = path.read_text(encoding="utf-8")
        text = re.sub(r'"image/(png|jpeg)": "[^"]*"', "", text)
        assert not private.search(text), (path.name, private.search(text).group())


def test_the_gallery_is_complete_and_current():
    for page, text in gallery(ROOT / "figures").items():
        assert (ROOT / "figures" / page).read_text(encoding="utf-8") == text, f"report.gallery() says how {page} should read"
    letters = {mark for mark in (ROOT / "figures" / "figures.tex").read_text(encoding="utf-8") if ord(mark) > 255}
    assert not letters, "pdfTeX does not know these; report.SIGNS says how to write them"
    captions = {path.stem for path in (ROOT / "figures").glob("*.txt")}
    shown = {path.stem for path in (ROOT / "figures").iterdir() if path.suffix in (".jpg", ".png") and ".print" not in path.name}
    assert shown - captions <= {"quickstart_result", "playground_panel"}  # a picture alone, a photograph of the screen


def test_the_citation_is_that_of_this_version():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


def test_every_picture_that_a_page_shows_exists_and_shows_something():
    for page in (ROOT / "README.md", ROOT / "figures" / "README.md"):
        shown = re.findall(r'!\[[^\]]*\]\(([^)]+)\)|src="([^"]+)"', page.read_text(encoding="utf-8"))
        assert shown, page
        for name in (first or second for first, second in shown):
            image = nst.load_image(page.parent / name, 256)
            assert image.std() > 0.02, name


@pytest.mark.parametrize("folder, megabytes", [("figures", 30), ("notebooks", 12)])
def test_clones_stay_light(folder, megabytes):
    try:
        listed = subprocess.run(["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, check=True, timeout=60).stdout
        files = [ROOT / name for name in listed.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):  # no git, or no clone: then everything counts
        files = list((ROOT / folder).rglob("*"))
    sizes = {path.name: path.stat().st_size for path in files if path.is_file()}
    assert sum(sizes.values()) <= megabytes * 2**20, sorted(sizes.items(), key=lambda one: -one[1])[:5]


def test_shipped_weights_are_small_plain_and_documented():
    described = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "data" / "weights").glob("*.pt"):
        assert path.stat().st_size <= 6_000_000 and path.name in described
        assert all(isinstance(value, torch.Tensor) for value in torch.load(path, weights_only=True).values())


def test_style_pictures_come_from_their_script():
    import importlib.util
    spec = importlib.util.spec_from_file_location("make_styles", ROOT / "data" / "style" / "make_styles.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert {path.stem for path in (ROOT / "data" / "style").glob("*.jpg")} == set(module.PICTURES)
