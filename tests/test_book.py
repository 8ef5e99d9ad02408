"""The report as one thing: its notebooks run with other settings, its site in a browser, its PDF."""
import hashlib
import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import nbformat
import numpy as np
import pytest
from PIL import Image

for name in ("sphinx", "myst_nb", "sphinx_book_theme", "sphinxcontrib.bibtex", "ziamath", "papermill"):
    pytest.importorskip(name, reason=f"{name}, with which the report becomes a site, is not installed")

import book  # noqa: E402
from report import figure_info  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FORMULAS = [tex for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"
            for pair in re.findall(r"\$\$(.+?)\$\$|(?<!\$)\$([^$\n]+)\$", cell.source, re.DOTALL) for tex in pair if tex]
SMALL = {"SIZE": 96, "SKETCH_SIZE": 64, "STEPS": 6}  # of the quickstart


# --- Run


@pytest.fixture
def little(tmp_path, monkeypatch):
    """A function of a name and cells that makes a notebook; the first cell is that of its parameters."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))

    def write(name, *sources):
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        cells[0].metadata["tags"] = ["parameters"]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / f"{name}.ipynb")
        return tmp_path / f"{name}.ipynb"
    return write


def test_a_run_goes_on_after_a_failure_and_resumes_with_what_is_not_done(little, tmp_path):
    log = tmp_path / "log"
    good = little("01_good", "SIZE, ARCH = 8, 'a'", f"open({str(log)!r}, 'a').write(f'{{SIZE}} {{ARCH}};')")
    bad = little("02_bad", "SIZE = 8", "if SIZE > 20:\n    raise ValueError(f'{SIZE} is too large')")
    before = [path.read_bytes() for path in (good, bad)]
    parameters = {"SIZE": 32, "ARCH": "b"}
    first = list(book.run([good, bad], tmp_path / "out", parameters))
    assert [outcome.name for outcome in first] == ["01_good", "02_bad"] and not first[0].failed and first[0].seconds > 0
    assert first[1].failed == "in cell [3]: ValueError: 32 is too large" and "FAILED" in str(first[1])
    assert [path.read_bytes() for path in (good, bad)] == before and log.read_text() == "32 b;"
    little("02_bad", "SIZE = 8", "if SIZE > 40:\n    raise ValueError(f'{SIZE} is too large')")
    second = list(book.run([good, bad], tmp_path / "out", parameters))
    assert second[0].seconds == 0 and "done before" in str(second[0]) and not second[1].failed and log.read_text() == "32 b;"
    assert not list(book.run([good], tmp_path / "out", {"SIZE": 16}))[0].failed and log.read_text() == "32 b;16 a;"
    assert "NST_FIGURES" not in os.environ or str(tmp_path / "out") not in os.environ["NST_FIGURES"]


def test_a_setting_that_no_notebook_has(little, tmp_path):
    with pytest.raises(ValueError, match="No notebook has the setting SEIZE; there are ARCH, SIZE."):
        list(book.run([little("01_one", "SIZE, ARCH = 8, 'a'")], tmp_path / "out", {"SEIZE": 1}))


def test_a_kernel_that_dies_fails_alone_and_is_run_again(little, tmp_path):
    dies, good = little("01_dies", "SIZE = 8", "import os\nos._exit(9)"), little("02_good", "SIZE = 8")
    for _ in range(2):
        first, second = book.run([dies, good], tmp_path / "out")
        assert first.failed.startswith("DeadKernelError") and first.seconds > 0 and not second.failed
    assert not (tmp_path / "out" / "notebooks" / "01_dies.ipynb").exists() and second.seconds == 0


def test_what_ctrl_c_broke_off_is_not_done(little, tmp_path, monkeypatch):
    def interrupted(path, target, *_, **__):
        target.write_bytes(path.read_bytes())
        raise KeyboardInterrupt
    monkeypatch.setattr("papermill.execute_notebook", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(book.run([little("01_one", "SIZE = 8")], tmp_path / "out"))
    assert not list((tmp_path / "out" / "notebooks").iterdir())


@pytest.mark.parametrize("arguments, said", [
    (["SIZE=64"], "add --run"), (["--run", "ARCH"], "a setting is NAME=VALUE, not ARCH"), (["--run", "ARCH="], "NAME=VALUE, not"),
    (["--only", "zz"], "no notebook's name begins with zz")])
def test_a_command_that_means_nothing_is_refused(arguments, said, capsys):
    with pytest.raises(SystemExit):
        book.main(arguments)
    assert said in capsys.readouterr().err


def pixels(folder):
    """SHA-256 of the pixels of each exported figure."""
    pictures = {path.name: np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.iterdir())
                if path.suffix in (".png", ".jpg")}
    return {name: hashlib.sha256(str(array.shape).encode() + array.tobytes()).hexdigest() for name, array in pictures.items()}


def test_two_fresh_runs_give_the_same_pixels_and_say_how(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    notebook, = (path for path in NOTEBOOKS if path.stem == "00_quickstart")
    before = notebook.read_bytes()
    for folder in ("one", "two"):
        outcome, = book.run([notebook], tmp_path / folder, SMALL)
        assert not outcome.failed, outcome
    one, two = (pixels(tmp_path / folder / "figures") for folder in ("one", "two"))
    assert one == two and len(one) == 5
    info = figure_info(tmp_path / "one" / "figures" / "quickstart.jpg")
    assert info["notebook"] == notebook.name and info["parameters"]["SIZE"] == 96 and info["arch"] == "vgg16_compact"
    assert notebook.read_bytes() == before


# --- From notebooks to chapters


def test_names_and_years_become_links(tmp_path):
    (tmp_path / "a.bib").write_text("""@misc{one, author={Doe, Jane and Roe, Ann and Poe, Al}, title={A {VGG}}, year={2015}}
@misc{two, author={Doe, Jane and Roe, Ann and Poe, Al}, title={Another}, year={2015}}
@misc{three, author={Lee, Kim and van Gogh, Vincent}, title={Third}, year={2019}}""")
    cite = book.citer(tmp_path / "a.bib")
    assert cite("Lee and van\nGogh (2019), Lee & van Gogh 2019, p. 3", "") == (
        "Lee and van\nGogh ({cite:year}`three`), Lee & van Gogh {cite:year}`three`, p. 3")
    assert cite("Doe et al. 2015", "see *A\nVGG*") == "Doe et al. {cite:year}`one`"
    assert cite("*Another* (2015) by Doe, Roe and Poe (2015)", "Another").count("`two`") == 2
    assert cite("Lee et al. 2019 or Doe 2015", "") == "Lee et al. 2019 or Doe 2015"
    with pytest.raises(ValueError, match='"Doe et al. 2015" may be one or two: name the title'):
        cite("Doe et al. 2015", "")


def test_links_to_figures_equations_and_notebooks():
    link = book.linker({"04": "04_grid.ipynb"}, {"a_b": Path("a_b.png")}, lambda text, page: text)
    text = "[Figure 4.2](../figures/a_b.png), [Figure 9.1](../figures/c.png), ![x](../figures/a_b.png) ![y](../figures/c.png)"
    assert link(text, "") == "{numref}`Figure %s <figure-a_b>`, Figure 9.1, ![x](figures/a_b.png) "
    assert link("notebooks 04 and 05; notebook\n04", "") == "notebooks [04](04_grid.ipynb) and 05; notebook\n[04](04_grid.ipynb)"
    assert link("[equation 3.1](03.ipynb#1), [data/README.md](../data/README.md)", "") == "{eq}`equation-3-1`, data/README.md"


def test_a_chapter_has_no_progress_bars_and_no_sliders():
    stream = [nbformat.v4.new_output("stream", text=text) for text in ("\r  0% |  |", "\r100% |##|", "\ndone in 3 s\n", "all\n")]
    slider = nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "Panel()"})
    shown = list(book._outputs([*stream, slider], str, drop_images=False))
    assert [output.get("text") for output in shown] == ["done in 3 s\nall"]


@pytest.mark.parametrize("tex", dict.fromkeys(FORMULAS))
def test_every_formula_can_be_drawn(tex):
    drawn = book.svg(tex)
    assert drawn.startswith("<svg") and drawn.count("<path") >= 1 and "currentColor" in drawn and "symbol" not in drawn
    assert len(re.findall(r"<(path|rect)", drawn)) >= len(re.findall(r"\\(sum|frac|top|alpha|beta|mu|sigma)|[A-Za-z](?![A-Za-z])",
                                                                     re.sub(r"\\(text|mathrm|mathcal)\w*|\\q*quad", "", tex))) / 2


# --- The site and the PDF


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as driver:
        try:
            with book.open_browser(driver):
                pass
        except RuntimeError as error:
            pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("book")
    assert book.build(NOTEBOOKS, ROOT / "figures", folder) == []  # no warnings
    return folder


@pytest.fixture(scope="module")
def pages(built):
    """A function of a width and a colour scheme that opens each page; yields the tab and what went wrong on it."""
    from playwright.sync_api import sync_playwright
    with sync_playwright() as driver, book.open_browser(driver) as browser:
        def visit(width, scheme):
            tab, wrong = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme), []
            tab.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
            tab.on("pageerror", lambda error: wrong.append(str(error)))
            tab.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else wrong.append(request.url))
            for page in sorted((built / "html").glob("*.html")):
                tab.goto(page.as_uri())
                yield page, tab, wrong
            tab.close()
        yield visit


def test_a_site_without_faults_and_readable_at_any_width_and_light(pages):
    for width, scheme in ((1280, "light"), (390, "dark")):
        for page, tab, wrong in pages(width, scheme):
            images = tab.evaluate("Promise.all([...document.images].map(one => one.decode().then(() => '', () => one.src)))")
            assert not any(images) and not wrong, (page.name, images, wrong)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, page.name
            text = tab.evaluate("document.querySelector('article, main').innerText")
            assert not re.search(r"\$\$|\\[a-z]+\{|\{(cite|numref|eq)|vnd\.jupyter|Text\(", text), page.name
            dark = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] < 80")
            assert dark == (scheme == "dark"), page.name


def test_a_search_finds_pages_without_a_server(pages, built):
    _, tab, wrong = next(pages(1280, "light"))
    tab.goto((built / "html" / "search.html").as_uri() + "?q=Wasserstein")
    tab.locator("#search-results li a").first.wait_for()
    assert not wrong


def test_figures_that_no_run_makes_are_the_committed_ones(tmp_path):
    playground, = (path for path in NOTEBOOKS if path.stem == "12_playground")
    (tmp_path / "figures").mkdir()
    book.write_sources([playground], tmp_path / "figures", tmp_path / "source")
    assert "figures/playground_panel.png" in (tmp_path / "source" / playground.name).read_text(encoding="utf-8")
    assert (tmp_path / "source" / "figures" / "playground_panel.png").exists()


def test_every_link_leads_somewhere(built):
    pages = {page.name: page.read_text(encoding="utf-8") for page in (built / "html").glob("*.html")}
    ids = {name: set(re.findall(r'\sid="([^"]+)"', page)) for name, page in pages.items()}
    for name, page in pages.items():
        for link in re.findall(r'href="([^"]+)"', page):
            address = urlparse(link)
            if not address.scheme:
                target = unquote(address.path) or name
                assert (built / "html" / target).exists(), (name, link)
                assert not address.fragment or target not in ids or unquote(address.fragment) in ids[target], (name, link)


def test_figures_and_equations_are_numbered_by_notebook_as_the_prose_says(built):
    numbers = {}
    for page in (built / "html").glob("[0-9]*.html"):
        found = re.findall(r'(?s)<figure [^>]*id="figure-([\w-]+)">.*?caption-number">Figure ([\d.]+)', page.read_text("utf-8"))
        assert [number for _, number in found] == [f"{int(page.name[:2])}.{k}" for k in range(1, len(found) + 1)], page.name
        numbers |= {name.replace("-", "_"): number for name, number in found}
        equations = re.findall(r'class="number">\(([\d.]+)\)', page.read_text(encoding="utf-8"))
        assert equations == [f"{int(page.name[:2])}.{k}" for k in range(1, len(equations) + 1)], page.name
    captions = {path.stem for path in (ROOT / "figures").glob("*.txt")}
    assert captions - numbers.keys() <= {"benchmarks"}  # drawn by tests/benchmarks/speed.py
    written = [cell.source for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells]
    written.append((book.PAGES / "index.md").read_text(encoding="utf-8"))
    references = re.findall(r"\[Figure ([\d.]+)\]\([./]+figures/([\w-]+)\.\w+\)", "\n".join(written))
    assert len(references) >= 10
    for number, name in references:
        assert numbers[name.replace("-", "_")] == number, name


def test_the_bibliography_has_what_is_cited_and_nothing_else(built):
    from pybtex.database import parse_file
    page = (built / "html" / "references.html").read_text(encoding="utf-8")
    entries = parse_file(str(book.PAGES / "references.bib")).entries
    assert page.count('class="citation"') == len(entries)
    for path in NOTEBOOKS:
        prose = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
        linked = book.citer(book.PAGES / "references.bib")(prose, prose)
        assert not re.findall(r"\w+(?: and [A-Z]\w+| et al\.),? \(?(?:19|20)\d\d", linked), path.name


def test_the_pdf_has_contents_with_pages_and_all_chapters(built):
    from pypdf import PdfReader
    pdf = PdfReader(built / "report.pdf")
    titles = book._pages(pdf)
    text = [" ".join(page.extract_text().split()) for page in pdf.pages]
    for path in NOTEBOOKS:
        title = f"{int(path.name[:2])}. " + nbformat.read(path, 4).cells[0].source.splitlines()[0].removeprefix("# ")
        number = titles["".join(title.split())]
        assert re.search(re.escape(title) + rf" {number}\b", text[1]) and title in text[number - 1], title
    assert not any("Show code" in page for page in text[1:]) and " ".join(text).count("Figure 3.4") >= 2
