r"""The report as one thing: runs the notebooks, and makes a browsable site and a PDF of what they hold.

    python notebooks/book.py                         a site and a PDF of the notebooks as they are committed
    python notebooks/book.py --run                   the same of all notebooks, run anew and in order
    python notebooks/book.py --run ARCH=vgg16 SIZE=512 --to build/vgg16      with other settings, where a notebook has them

All that is written goes into one folder: notebooks/ and figures/ of a run, source/ (what Sphinx reads), html/ (open index.html),
report.pdf. A run that was broken off goes on with the notebooks that are not done; nothing in notebooks/ or figures/ changes.

A notebook stays plain Markdown. On its way to the site its figures get their captions and numbers (a cell that exports a figure
by its name, or has the tag figure:NAME, shows that figure), its equations numbers, and these words become links: "notebook 04";
names and years as in pages/references.bib, such as "Gatys et al. 2016"; links to a picture of figures/ as "Figure 4.2".
"""
# Sphinx with MyST-NB, the engine of the first Jupyter Book: of the tools for this it alone is whole as it comes from the package
# index. Jupyter Book 2 fetches its theme while it builds, and Quarto its program while it is installed. Equations become SVG
# while the site is built, so that no page needs MathJax; the PDF is the site on one page, printed by the Chromium that the
# tests of the panels need anyway, instead of a LaTeX of a gigabyte.
from __future__ import annotations

import argparse
import ast
import io
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import nbformat

import nst_utils as nst
import report

HERE = Path(__file__).resolve().parent
PAGES = HERE / "pages"
BROWSERS = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge"

# --- 1. Run -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of a notebook: the seconds it took, 0 if it was done before, and where it failed and why, "" if it did not."""

    name: str
    seconds: float
    failed: str = ""

    def __str__(self) -> str:
        state = f"FAILED {self.failed}" if self.failed else "ran" if self.seconds else "was done before"
        return f"{self.name:28} {self.seconds:6.0f} s  {state}"


def run(notebooks: Sequence[Path], folder: Path, parameters: Mapping[str, object] | None = None) -> Iterator[Outcome]:
    """Run notebooks into folder/notebooks and their figures into folder/figures, each with those of the parameters that it has.

    Yields an Outcome after each. One that ran to its end before, the same cells with the same parameters, is not run again; one
    that fails, or whose kernel is killed, does not keep the others from running. Raises ValueError for a parameter that none of
    them has.
    """
    import papermill

    from experiments import keep_memory
    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns of settings that are set in pairs, but sets them
    known, parameters = {path: _settings(path) for path in notebooks}, parameters or {}
    if lacking := set(parameters).difference(*known.values()):
        raise ValueError(f"No notebook has the setting {' or '.join(sorted(lacking))}; there are "
                         f"{', '.join(sorted(set().union(*known.values())))}.")
    before = os.environ.get("NST_FIGURES")
    os.environ["NST_FIGURES"] = str(folder.resolve() / "figures")  # kernels inherit it
    keep_memory()
    try:
        for path in notebooks:
            own, target = {name: parameters[name] for name in parameters if name in known[path]}, folder / "notebooks" / path.name
            started, failed, done = time.monotonic(), "", _is_done(path, target, own)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                if not done:
                    papermill.execute_notebook(path, target, own, cwd=path.parent, progress_bar=False)
            except papermill.PapermillExecutionError as error:
                failed = f"in cell [{error.exec_count}]: {error.ename}: {' '.join(error.evalue.split())[:300]}"
            except (RuntimeError, TimeoutError) as error:  # the kernel died, of too little memory, say
                failed = f"{type(error).__name__}: {error}"
                target.unlink(missing_ok=True)
            except BaseException:  # Ctrl-C: papermill has written what there is as if it were complete
                target.unlink(missing_ok=True)
                raise
            yield Outcome(path.stem, 0 if done else time.monotonic() - started, failed)
    finally:
        os.environ.pop("NST_FIGURES") if before is None else os.environ.update(NST_FIGURES=before)


def _settings(path: Path) -> set[str]:
    """The names that the parameters cell of a notebook sets."""
    sources = [cell.source for cell in nbformat.read(path, 4).cells if "parameters" in cell.metadata.get("tags", [])]
    return {node.id for source in sources for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _is_done(path: Path, target: Path, parameters: Mapping[str, object]) -> bool:
    if not target.exists():
        return False
    try:
        done, sources = nbformat.read(target, 4), [cell.source for cell in nbformat.read(path, 4).cells]
    except ValueError:  # papermill was killed while it wrote
        return False
    told = done.metadata.get("papermill", {})
    return bool(told.get("end_time")) and not told.get("exception") and told.get("parameters", {}) == json.loads(
        json.dumps(parameters)) and sources == [cell.source for cell in done.cells
                                                if "injected-parameters" not in cell.metadata.get("tags", [])]


# --- 2. From notebooks to chapters ------------------------------------------------------------------------------------


def citer(bibliography: Path) -> Callable[[str, str], str]:
    """A function of a text and the page that it is from, which makes links of names and years, such as Gatys et al. 2016.

    It raises ValueError for a phrase that may mean several entries, unless the page has the title of one of them.
    """
    from pybtex.database import parse_file
    meant = {}  # phrase as a pattern: {key: title}
    for key, entry in parse_file(str(bibliography)).entries.items():
        names = [" ".join(person.prelast_names + person.last_names) for person in entry.persons["author"]]
        title = entry.fields["title"].translate(str.maketrans("", "", "{}"))
        spelled = [f"{', '.join(names[:-1])} {link} {names[-1]}" for link in ("and", "&")] if names[1:] else names
        for phrase in [f"*{title}*", *spelled, f"{names[0]} et al."][:None if names[2:] else -1]:
            pattern = re.escape(phrase).replace(r"\ ", r"\s+") + rf"((?:'s [\w-]+)?,?\s+\(?){entry.fields['year']}\b"
            meant.setdefault(pattern, {})[key] = title

    def cite(text: str, page: str) -> str:
        for pattern, titles in meant.items():
            for phrase in {found[0] for found in re.finditer(pattern, text)}:
                keys = [key for key, title in titles.items() if title in " ".join(page.split())] if len(titles) > 1 else [*titles]
                if len(keys) != 1:
                    raise ValueError(f'"{phrase}" may be {" or ".join(titles)}: name the title of the one that is meant.')
                text = text.replace(phrase, f"{phrase[:-4]}{{cite:year}}`{keys[0]}`")
        return text
    return cite


def chapter(notebook: nbformat.NotebookNode, number: int, link: Callable[[str, str], str],
            figures: Mapping[str, Path]) -> nbformat.NotebookNode:
    """A notebook as the site reads it: code folded, figures with captions, numbered equations, links."""
    page, equations, cells = "\n".join(cell.source for cell in notebook.cells), count(1), []
    for cell in (cell for cell in notebook.cells if "print_claims(" not in cell.source):  # which repeats a table for the tests
        cells.append(cell)
        if cell.cell_type == "markdown":
            labelled = lambda tex: f"{tex[0]} (equation-{number}-{next(equations)})"  # noqa: E731
            cell.source = re.sub(r"(?s)\$\$.+?\$\$", labelled, link(cell.source, page))
        elif cell.cell_type == "code":
            name, tags = figure_of(cell), cell.metadata.setdefault("tags", [])
            tags += [] if {"parameters", "injected-parameters"} & {*tags} else ["hide-input"]
            cell.outputs = list(_outputs(cell.outputs, partial(link, page=page), drop_images=name in figures))
            cells += [nbformat.v4.new_markdown_cell(_figure(figures[name]))] if name in figures else []
    notebook.metadata.pop("widgets", None)  # for these a page would fetch programs from the web
    notebook.cells = cells
    return notebook


def figure_of(cell: nbformat.NotebookNode) -> str | None:
    """The name of the exported figure that a code cell shows: the one in its tag figure:NAME, else the one it exports."""
    tagged = [tag.removeprefix("figure:") for tag in cell.metadata.get("tags", []) if tag.startswith("figure:")]
    return (tagged + re.findall(r'export_figure\(\w+, "([^"]+)"', cell.get("outputs") and cell.source or "") + [None])[0]


def _figure(path: Path) -> str:
    text = path.with_suffix(".txt")
    caption = report._markdown(text.read_text(encoding="utf-8")) if text.exists() else "The panel, with its sliders."
    return f"```{{figure}} figures/{path.name}\n:name: figure-{path.stem}\n:alt: {path.stem}\n\n{caption}\n```"


def _outputs(outputs: Sequence[nbformat.NotebookNode], link: Callable[[str], str], *,
             drop_images: bool) -> Iterator[nbformat.NotebookNode]:
    """The outputs that a page shows: no progress bars, no sliders without a kernel, no picture that stands below as a figure."""
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    if printed := re.sub(r"[^\n]*\r[^\n\r]*(\n|$)|[^\n]*\r", "", printed).strip("\n"):
        yield nbformat.v4.new_output("stream", name="stdout", text=printed)
    for output in (output for output in outputs if output.output_type != "stream"):
        kinds = set(output.get("data", {}))
        if "text/markdown" in kinds:
            output.data["text/markdown"] = link(output.data["text/markdown"])
        if not any("widget" in kind or drop_images and kind.startswith("image/") for kind in kinds):
            yield output


def linker(chapters: Mapping[str, str], figures: Mapping[str, Path],
           cite: Callable[[str, str], str]) -> Callable[[str, str], str]:
    """A function of a text and its page that makes links: of works, figures, equations, and notebooks (number: file name)."""
    def image(found: re.Match) -> str:
        return f"{found[1]}(figures/{found[2]})" if Path(found[2]).stem in figures else ""

    def figure(found: re.Match) -> str:
        return f"{{numref}}`Figure %s <figure-{found[2]}>`" if found[2] in figures else found[1]

    def notebook(found: re.Match) -> str:
        return re.sub(r"\d\d", lambda one: f"[{one[0]}]({chapters[one[0]]})" if one[0] in chapters else one[0], found[0])

    def link(text: str, page: str) -> str:
        text = re.sub(r"(!\[[^]]*\])\((?:\.\./)+figures/([^)]+)\)", image, cite(text, page))
        text = re.sub(r"(?<!!)\[(Figure [\d.]+)\]\((?:\.\./)+figures/([^)]+)\.\w+\)", figure, text)
        text = re.sub(r"\[[Ee]quation (\d+)\.(\d+)\]\([^)]*\)", r"{eq}`equation-\1-\2`", text)
        text = re.sub(r"(?<!!)\[([^]]+)\]\(\.\./[^)]*\)", r"\1", text)  # a file that the site does not have
        return re.sub(r"\b[Nn]otebooks?\s\d\d(?: and \d\d)?\b", notebook, text)
    return link


def write_sources(notebooks: Sequence[Path], figures: Path, folder: Path) -> None:
    """Write what Sphinx reads: chapters, pages, figures. ValueError names the notebook if something in it can't be linked.

    A figure that no run makes, such as the photograph of the sliders, is the committed one.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PAGES, folder)
    books = {path: nbformat.read(path, 4) for path in notebooks}
    shown = {figure_of(cell) for book in books.values() for cell in book.cells if cell.cell_type == "code"}
    kept = shutil.ignore_patterns("*.print.*", "*.pdf", "*.webp", "README.md")
    for source in dict.fromkeys((HERE.parent / "figures", figures)):  # mostly one and the same
        shutil.copytree(source, folder / "figures", ignore=kept, dirs_exist_ok=True)
    pictures = {path.stem: path for suffix in (".png", ".jpg") for path in (folder / "figures").glob(f"*{suffix}")
                if path.stem in shown}
    link = linker({path.name[:2]: path.name for path in notebooks}, pictures, citer(PAGES / "references.bib"))
    for path, book in books.items():
        try:
            nbformat.write(chapter(book, int(path.name[:2]), link, pictures), folder / path.name)
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    (folder / "index.md").write_text(link(index, index), encoding="utf-8")


# --- 3. From chapters to pages: an extension of Sphinx ----------------------------------------------------------------


def setup(app) -> dict[str, bool]:
    """What Sphinx calls, as this module is one of its extensions."""
    app.add_html_math_renderer("svg", (_visit_math, None), (_visit_equation, None))
    app.connect("env-get-updated", _number_by_notebook, priority=900)  # after Sphinx has numbered chapters and figures
    return {"parallel_read_safe": True}


def _number_by_notebook(app, env) -> list[str]:
    """Chapters, figures and equations are counted by the number of the notebook, 0 to 91, instead of 1 to 15."""
    from docutils.nodes import reference
    for name in env.toc_secnumbers:
        if name[:2].isdigit():
            number = lambda old: (int(name[:2]), *old[1:])  # noqa: B023, E731
            env.titles[name]["secnumber"] = number(env.titles[name]["secnumber"])
            env.toc_secnumbers[name] = {place: old and number(old) for place, old in env.toc_secnumbers[name].items()}
            env.toc_fignumbers[name] = {kind: {place: number(old) for place, old in places.items()}
                                        for kind, places in env.toc_fignumbers.get(name, {}).items()}
            for entry in env.tocs[name].findall(reference):
                if entry.get("secnumber"):
                    entry["secnumber"] = number(entry["secnumber"])
    return []


def svg(tex: str, *, inline: bool = False) -> str:
    """A formula as SVG in the size and colour of the text around it; its LaTeX is there for whoever can't see it."""
    import ziamath
    ziamath.config.svg2 = False  # or the glyphs of all formulas of a page share their ids
    plain = re.sub(r"\\text\w*\{[^}]*\}", lambda text: text[0].replace(r"\_", "_"), " ".join(tex.split()))
    plain = plain.replace(r"\lVert", r"\left\|").replace(r"\rVert", r"\right\|")  # else as high as the whole line
    formula = ziamath.Latex(plain, size=24, inline=inline, color="currentColor")
    node, (width, height) = formula.svgxml(), formula.getsize()
    node.attrib |= {"width": f"{width / 24:.3f}em", "height": f"{height / 24:.3f}em", "role": "img", "aria-label": tex,
                    "style": f"vertical-align: {formula.getyofst() / 24:.3f}em"}
    from xml.etree import ElementTree
    return ElementTree.tostring(node, encoding="unicode")


def _visit_math(writer, node) -> None:
    from docutils.nodes import SkipNode
    writer.body.append(svg(node.astext(), inline=True))
    raise SkipNode


def _visit_equation(writer, node) -> None:
    from docutils.nodes import SkipNode
    from sphinx.util.math import get_node_equation_number
    writer.body.append(writer.starttag(node, "div", CLASS="equation"))
    writer.body.append(f'<div class="formula">{svg(node.astext())}</div>')
    if node["number"]:
        writer.body.append(f'<span class="number">({get_node_equation_number(writer, node)})</span>')
    writer.body.append("</div>\n")
    raise SkipNode


# --- 4. Site and PDF --------------------------------------------------------------------------------------------------

SPHINX = {
    "project": "Neural style transfer, measured", "author": "", "html_title": "Neural style transfer, measured", "language": "en",
    "extensions": ["myst_nb", "sphinxcontrib.bibtex", "book"], "html_math_renderer": "svg",
    "nb_execution_mode": "off", "nb_render_markdown_format": "myst", "nb_code_prompt_show": "Show code",
    "nb_code_prompt_hide": "Hide code", "myst_enable_extensions": ["dollarmath"],
    "numfig": True, "numfig_format": {"figure": "Figure %s"}, "math_numfig": True, "math_eqref_format": "Equation {number}",
    "bibtex_bibfiles": ["references.bib"], "bibtex_default_style": "plain",
    "html_show_copyright": False, "html_show_sphinx": False, "html_copy_source": False, "html_show_sourcelink": False,
    "html_static_path": ["style"], "html_use_index": False, "html_show_search_summary": False,
    "html_context": {"default_mode": "auto"},
}
SITE = {"html_theme": "sphinx_book_theme", "html_css_files": ["site.css"], "html_theme_options": {
    "use_download_button": False, "use_fullscreen_button": False, "home_page_in_toc": True, "navbar_persistent": []}}
PAPER = {"html_theme": "basic", "html_css_files": ["paper.css"], "html_sidebars": {"**": ["globaltoc.html"]}}


def build(notebooks: Sequence[Path], figures: Path, folder: Path) -> list[str]:
    """Make folder/html and folder/report.pdf of notebooks as they are; returns the warnings, such as that of a dead link.

    Raises ValueError for what can't be linked, and RuntimeError if no browser can print the PDF: the site is there then.
    """
    write_sources(notebooks, figures, folder / "source")
    warnings = _sphinx("html", folder, SITE) + _sphinx("singlehtml", folder, PAPER)
    print_pdf(folder / "singlehtml" / "index.html", folder / "report.pdf")
    return list(dict.fromkeys(warnings))


def _sphinx(builder: str, folder: Path, settings: Mapping[str, object]) -> list[str]:
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils
    said = io.StringIO()
    with patch_docutils(), docutils_namespace():
        Sphinx(folder / "source", None, folder / builder, folder / "doctrees" / builder, builder, SPHINX | dict(settings),
               status=None, warning=said, freshenv=True).build()
    return [line for line in said.getvalue().splitlines() if line.strip()]


CONTENTS = """pages => {
    const lists = document.querySelectorAll(".sphinxsidebar ul, ul.contents")
    lists.forEach(list => { list.className = "contents"; document.querySelector(".toctree-wrapper").before(list) })
    for (const link of document.querySelectorAll("ul.contents a"))
        link.dataset.page = pages[link.textContent.replace(/\\s+/g, "")] ?? ""
}"""


def print_pdf(page: Path, pdf: Path) -> None:
    """Print a page with the first Chromium that is found, twice: the contents need the numbers of pages. See `open_browser`."""
    from playwright.sync_api import sync_playwright
    from pypdf import PdfReader
    with sync_playwright() as driver, open_browser(driver) as browser, nst.replacing(pdf) as temporary:
        tab = browser.new_page()
        tab.goto(page.resolve().as_uri())
        for numbers in ({}, None):
            tab.evaluate(CONTENTS, _pages(PdfReader(temporary)) if numbers is None else numbers)
            tab.pdf(path=temporary, prefer_css_page_size=True, outline=True, tagged=True)


def _pages(reader) -> dict[str, int]:
    """The page, from 1, of each title in the outline of a PDF; the titles without spaces, for a browser loses some."""
    entries, titles = [reader.outline], {}
    for entry in entries:
        if isinstance(entry, list):
            entries += entry
        else:
            titles.setdefault("".join(entry.title.split()), reader.get_destination_page_number(entry) + 1)
    return titles


@contextmanager
def open_browser(driver) -> Iterator:
    """A headless Chromium, Chrome or Edge of this machine, or the one that Playwright has installed."""
    from playwright.sync_api import Error
    paths = [{"executable_path": path} for path in filter(None, map(shutil.which, BROWSERS))]
    for place in [*paths, {"channel": "chrome"}, {"channel": "msedge"}, {}]:
        try:
            browser = driver.chromium.launch(args=["--no-sandbox", "--disable-gpu"], **place)
        except Error:
            continue
        try:
            yield browser
        finally:
            browser.close()
        return
    raise RuntimeError("No Chromium, Chrome or Edge was found to print report.pdf; `playwright install chromium` brings one.")


# --- 5. The command ---------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit status is 1 if a notebook failed or something on a page is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help="settings of a run, such as ARCH=vgg16 SIZE=512")
    parser.add_argument("--run", action="store_true", help="run the notebooks first")
    parser.add_argument("--only", action="append", metavar="NN", help="only notebooks whose names begin so, such as 05; may be "
                                                                      "given several times")
    parser.add_argument("--to", type=Path, default=HERE.parent / "build" / "report", metavar="FOLDER")
    options = parser.parse_args(arguments)
    if options.parameters and not options.run:
        parser.error("settings are those of a run: add --run")
    if unnamed := [text for text in options.parameters if not text.partition("=")[2]]:
        parser.error(f"a setting is NAME=VALUE, not {unnamed[0]}")
    notebooks = sorted(path for path in HERE.glob("*.ipynb") if path.name.startswith(tuple(options.only or [""])))
    if not notebooks:
        parser.error(f"no notebook's name begins with {' or '.join(options.only)}")
    figures, outcomes = report.FIGURES, []
    if options.run:
        for outcome in run(notebooks, options.to, dict(map(_parameter, options.parameters))):
            outcomes.append(outcome)
            print(outcome, flush=True)
        notebooks = [options.to / "notebooks" / f"{outcome.name}.ipynb" for outcome in outcomes if not outcome.failed]
        figures = options.to / "figures"
    failed = [outcome for outcome in outcomes if outcome.failed]
    warnings = build(notebooks, figures, options.to)
    print(*warnings, *failed, f"{len(outcomes) - len(failed)} notebooks ran, {len(failed)} failed; "
          f"{options.to / 'html' / 'index.html'} and {options.to / 'report.pdf'} show {len(notebooks)}.", sep="\n")
    return bool(failed or warnings)


def _parameter(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):  # a word
        return name, value


if __name__ == "__main__":
    sys.exit(main())
