"""Pictures on paper: grids and strips of pictures, curves, tables of claims, films, and their export with caption and gallery.

For whoever shows what a run has made, in a notebook and in a report. Not here: making pictures (nst_utils), many of them and
what is measured on them (experiments), what moves under the hand (panels). A new type of figure is a function here that takes
pictures or numbers and returns a matplotlib figure, like `plot_losses`; `export_figure` writes whatever such a function
returns. A figure that only one notebook draws stays in that notebook.

Text is text: labels, titles and captions stand as they are written, `$`, `_` and `\\` included. There is no mathtext; write α,
not `$\\alpha$`.
"""
from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import sys
import tomllib
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from math import ceil
from pathlib import Path
from urllib.parse import quote

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib._pylab_helpers import Gcf
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.image import AxesImage
from matplotlib.layout_engine import LayoutEngine
from matplotlib.patheffects import Normal
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

import nst_utils as nst

FIGURES = Path(os.environ.get("NST_FIGURES") or Path(__file__).resolve().parents[1] / "figures")  # where figures are exported
MAX_OPEN = 20  # figures that stay open; matplotlib warns when one more is opened
LABEL, TITLE = 9, 11  # sizes of text in points
RECORD = ("figure", "caption", "notebook", "parameters", "seed", "arch", "weights", "versions")  # what a figure says about itself
_EXPORTED = weakref.WeakSet()  # figures

# --- 1. Pictures ------------------------------------------------------------------------------------------------------


def image_of(item: nst.Step | Tensor) -> Tensor:
    """The image (1, 3, H, W) of a step of a run, or of what is an image already."""
    return item if isinstance(item, Tensor) else item.image


def image_grid(images: Sequence[Sequence[nst.Step | Tensor | None]], *, row_labels: Sequence[str] = (),
               col_labels: Sequence[str] = (), labels: Sequence[Sequence[str]] = (), title: str = "", cell: float = 2.2,
               magnify: bool = False) -> Figure:
    """A figure of rows of pictures, images (1, 3, H, W) or steps; None leaves a cell empty, rows may differ in length.

    row_labels: texts beside the rows. col_labels: texts above the columns, or labels: rows of texts, one above each picture.
    What is too long for a picture goes on in the next line. cell: width of the widest picture in inches on paper and on the
    screen, less if that were below 100 pixels to the inch. Exported, each picture has its very pixels, one for one, so that a
    smaller one is drawn smaller. magnify: draw it as large as its neighbours, each pixel as a block of 2 x 2, 3 x 3, ... of
    them, and all pictures larger if `cell` leaves room. Raises ValueError if there is no picture.
    """
    pictures = {(row, column): np.asarray(nst.to_pil(image_of(item)))
                for row, line in enumerate(images) for column, item in enumerate(line) if item is not None}
    if not pictures:
        raise ValueError("There are no pictures to show.")
    boxes = np.zeros((len(images), max(map(len, images)), 2), dtype=int)  # width and height in pixels, 0 where there is nothing
    for place, picture in pictures.items():
        boxes[place] = picture.shape[1::-1]
    if magnify:
        room = boxes.max((0, 1)) * max(1, 100 * cell / boxes[..., 0].max())
        boxes *= np.maximum(1, (room / np.maximum(1, boxes) + 1e-9).min(2, keepdims=True).astype(int))
    dpi = max(100, ceil(boxes[..., 0].max() / cell))
    wide = np.maximum(0.8, boxes[..., 0].max(0) / dpi)  # inches that labels may take above a column and beside a row
    high = np.maximum(0.8, np.where(boxes[:, 0, 1], boxes[:, 0, 1], boxes[..., 1].max(1)) / dpi)
    figure, axes = plt.subplots(*boxes.shape[:2], squeeze=False, subplot_kw={"xticks": [], "yticks": [], "frame_on": False})
    for place, picture in pictures.items():
        axes[place].imshow(picture, aspect="auto")
    for line, texts in zip(axes, labels or [col_labels]):
        for axis, text, inches in zip(line, texts, wide):
            axis.set_title(_wrapped(text, inches, LABEL), fontsize=LABEL)
    for axis, text, inches in zip(axes[:, 0], row_labels, high):
        axis.set_ylabel(_wrapped(text, inches, LABEL), fontsize=LABEL)
    heading = figure.suptitle(_wrapped(title, max(3, wide.sum()), TITLE), fontsize=TITLE, va="top")
    figure.set_layout_engine(_PixelLayout(axes, boxes, dpi, heading))
    figure.get_layout_engine().execute(figure)
    return figure


def image_strip(images: Iterable[nst.Step | Tensor], labels: Iterable[str] | None = None, *, title: str = "", cell: float = 2.2,
                columns: int | None = None, magnify: bool = False) -> Figure:
    """A figure of pictures side by side, in lines of `columns`, each with a label; see `image_grid`.

    Without labels, steps are labelled with their number.
    """
    images = list(images)
    labels = [f"{item.index} steps" if isinstance(item, nst.Step) else "" for item in images] if labels is None else list(labels)
    starts = range(0, len(images), columns or len(images) or 1)
    lines, texts = ([items[start:start + starts.step] for start in starts] for items in (images, labels))
    return image_grid(lines, labels=texts, title=title, cell=cell, magnify=magnify)


class _PixelLayout(LayoutEngine):
    """Puts the pictures of a grid on whole pixels of the page, and as far apart as their texts ask for, whenever it is drawn.

    boxes: width and height of each picture in pixels (rows, columns, 2), 0 for none. dpi: pixels to the inch on export.
    """

    _adjust_compatible = _colorbar_gridspec = False

    def __init__(self, axes: np.ndarray, boxes: np.ndarray, dpi: int, heading: Text) -> None:
        super().__init__()
        self.axes, self.boxes, self.dpi, self.heading = axes, boxes, dpi, heading

    def execute(self, figure: Figure) -> None:
        _as_text(figure)
        above, left, below = (np.array([[self._extent(text(axis)) for axis in line] for line in self.axes]) for text in (
            lambda axis: axis.title, lambda axis: axis.yaxis.label, lambda axis: axis.xaxis.label))
        widths = np.maximum.reduce([self.boxes[..., 0], above[..., 0], below[..., 0]]).max(0)
        heights = np.maximum(self.boxes[..., 1], left[..., 0]).max(1)
        gap, (head_width, head_height) = ceil(0.05 * self.dpi), self._extent(self.heading)
        x = gap + np.cumsum(left[..., 1].max(0) + widths + gap) - widths - gap
        y = gap + head_height + np.cumsum(above[..., 1].max(1) + heights + below[..., 1].max(1) + gap)
        height, width = y[-1], x[-1] + widths[-1] + gap
        y -= heights + below[..., 1].max(1) + gap
        more = max(0, head_width + 2 * gap - width)  # for a title that is wider than the pictures
        x, width = x + more // 2, width + more
        for (row, column), axis in np.ndenumerate(self.axes):
            wide, high = self.boxes[row, column] if axis.images else (widths[column], heights[row])
            start = x[column] + (widths[column] - wide) // 2
            axis.set_position([start / width, 1 - (y[row] + high) / height, wide / width, high / height])
        middle = width / 2 if more else (x[0] + x[-1] + widths[-1]) / 2
        self.heading.set_position((middle / width, 1 - gap / height))
        figure.set_size_inches((width + 1e-6) / self.dpi, (height + 1e-6) / self.dpi, forward=False)  # never a pixel less

    def _extent(self, text: Text) -> tuple[int, int]:
        """Length and height of a text in pixels of the page, with the space to its picture; nothing for no text."""
        lines, size = text.get_text().split("\n"), text.get_fontsize()
        length = max(_length(line, text.get_fontproperties()) for line in lines)
        return (ceil(length * self.dpi), ceil((5 + 1.35 * size * len(lines)) / 72 * self.dpi)) if any(lines) else (0, 0)


# --- 2. Text ----------------------------------------------------------------------------------------------------------


def _length(line: str, font: FontProperties) -> float:
    """Length of a line in inches."""
    return text_to_path.get_text_width_height_descent(line, font, False)[0] / 72 * 1.03  # hinting makes it a little longer


def _wrapped(text: str, inches: float, size: float) -> str:
    """The text in lines no longer than that, broken at spaces, else after -_/.,:, else anywhere."""
    font, lines = FontProperties(family=[*FontProperties().get_family(), *_fonts_for(text)], size=size), []
    for line in str(text).split("\n"):
        while len(line) > 1 and _length(line, font) > inches:
            fitting = next((count for count in range(len(line) - 1, 1, -1) if _length(line[:count], font) <= inches), 1)
            space = line.rfind(" ", 1, fitting + 1)
            cut = space if space > 0 else 1 + max(line.rfind(mark, 1, fitting) for mark in "-_/.,:") or fitting
            lines.append(line[:cut])
            line = line[cut:].lstrip(" ")
        lines.append(line)
    return "\n".join(lines)


def _as_text(figure: Figure) -> None:
    """Set the texts of a figure as they are written, without mathtext, in fonts of this machine that have their characters."""
    for axis in figure.axes:
        axis.get_xticklabels(which="both"), axis.get_yticklabels(which="both")  # they come into being when asked for
    for text in figure.findobj(Text):
        if written := text.get_text():
            text.set_parse_math(written.startswith(r"$\mathdefault"))  # so matplotlib writes the powers on logarithmic axes
            if more := _fonts_for(written):
                text.set_fontfamily(list(dict.fromkeys([*text.get_fontfamily(), *more])))
                text.set_path_effects([Normal()])  # outlines: in matplotlib's PDFs fonts like Noto Sans CJK (CFF) are invisible


def _fonts_for(text: str) -> list[str]:
    """Names of fonts of this machine for the characters that the usual one lacks, such as Chinese: the fewest, sans first."""
    usual = fontManager.findfont(FontProperties())
    missing = {ord(character) for character in text if character.isprintable()} - _characters(usual, usual.face_index)
    if not missing:
        return []
    fonts, names = {entry.name: entry for entry in fontManager.ttflist if "Last Resort" not in entry.name}, []
    known = sorted(fonts, key=lambda name: ("Sans" not in name, "Serif" in name, "Mono" in name, "SC" not in name, name))
    while missing:
        best = max(known, key=lambda name: len(missing & _characters(fonts[name].fname, fonts[name].index)))
        if not missing & (found := _characters(fonts[best].fname, fonts[best].index)):
            _say_missing("".join(sorted(map(chr, missing))))
            break
        names.append(best)
        missing -= found
    return names


@functools.cache
def _say_missing(characters: str) -> None:
    """Say it once, where matplotlib would say it of each character whenever it is drawn."""
    warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
    warnings.warn(f"No font of this machine has {characters}, so boxes stand for them; Noto Sans CJK has Chinese.", stacklevel=2)


@functools.cache
def _characters(font: str, index: int) -> frozenset[int]:
    try:
        return frozenset(FT2Font(font, face_index=index).get_charmap())
    except (OSError, RuntimeError):  # a damaged font is no reason to fail
        return frozenset()


# --- 3. Curves and tables ---------------------------------------------------------------------------------------------


def plot_losses(histories: Mapping[str, Sequence[Mapping[str, float]]] | Sequence[Mapping[str, float]],
                terms: Sequence[str] = ("content", "style"), *, title: str = "") -> Figure:
    """A figure of loss terms against steps on a logarithmic axis, for one history or for several by label."""
    if not isinstance(histories, Mapping):
        histories = {"": histories}
    figure, axes = plt.subplots(1, len(terms), figsize=(4.2 * len(terms), 2.8), layout="constrained", squeeze=False)
    for axis, term in zip(axes[0], terms):
        lines = [axis.plot([losses[term] for losses in history], linewidth=1.5, label=label or term)[0]
                 for label, history in histories.items()]
        axis.set(xlabel="steps", title=f"{term} loss", yscale="log")
        axis.grid(alpha=0.3)
        if any(histories):
            axis.legend(lines, list(histories), fontsize=8)
    if title:
        figure.suptitle(title, fontsize=TITLE)
    _as_text(figure)
    return figure


def plot_bench(axis, labels: Sequence, values: np.ndarray, interval: np.ndarray, *, color: str = "C0", name: str = "") -> None:
    """Draw what was measured of the pairs of a bench, (pairs, conditions), over the conditions: a thin line for each pair, and
    the median with its interval (3, conditions), see `experiments.median_interval`."""
    places, (median, low, high) = np.arange(len(labels)), interval
    for row in values:
        axis.plot(places, row, color=color, linewidth=0.6, alpha=0.35)
    axis.errorbar(places, median, [median - low, high - median], color=color, marker="o", markersize=4, capsize=3, linewidth=1.8,
                  label=name or None)
    axis.set_xticks(places, [str(label) for label in labels])
    axis.grid(alpha=0.3)


def verdict_table(rows: Sequence[Mapping[str, str]], *, where: bool = False):
    """A Markdown table of what `claims.verdicts` says: the sentence and whose it is, what is asked of the measurements, and for
    each network what was measured and the verdict; with `where` also the notebook."""
    from IPython.display import Markdown
    networks = [key.removesuffix(" verdict") for key in rows[0] if key.endswith(" verdict")]
    files = {path.name[:2]: path.name for path in Path(__file__).parent.glob("*.ipynb")}
    head = ["id", "sentence", "what is asked", *networks, *["notebook"] * where]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        said = ((row[f"{network} verdict"], _markdown(row[network])) for network in networks)
        found = [f"**{verdict}** {measured}" if verdict else measured for verdict, measured in said]
        sentence = row["sentence"] if row["sentence"].startswith("[") else f"“{row['sentence']}”"
        place = [f"[{row['notebook']}]({files[row['notebook']]})"] * where
        lines.append([row["id"], f"{_markdown(sentence)} ({_markdown(row['report'])})", _markdown(row["asked"]), *found, *place])
    return Markdown("\n".join(f"| {' | '.join(cells)} |" for cells in lines))


def print_verdicts(rows: Sequence[Mapping[str, str]]) -> None:
    """Print the verdicts of a `verdict_table` without numbers: what a test of the notebook compares."""
    for row in rows:
        said = {key.removesuffix(" verdict"): value or "not recorded" for key, value in row.items() if key.endswith(" verdict")}
        print(f"{row['id']:5s}", ", ".join(f"{network}: {verdict}" for network, verdict in said.items()))


def claim_table(claims: Sequence[tuple[str, str, str, bool | None]]):
    """A Markdown table of (claim, who made it, what was measured, whether it holds), for the end of a notebook.

    None stands for a claim that the measurement can't decide, such as one whose answer hangs on how numbers are rounded.
    """
    from IPython.display import Markdown
    words = {True: "yes", False: "**no**", None: "undecided"}
    lines = [f"| {_markdown(claim)} | {_markdown(who)} | {_markdown(measured)} | {words[holds]} |"
             for claim, who, measured, holds in claims]
    return Markdown("\n".join(["| claim | made by | measured | holds |", "|---|---|---|---|", *lines]))


def print_claims(claims: Sequence[tuple[str, str, str, bool | None]]) -> None:
    """Print which claims of a `claim_table` hold, without numbers: what a test of the notebook compares."""
    words = {True: "holds:         ", False: "does not hold:", None: "undecided:     "}
    for claim, _, _, holds in claims:
        print(words[holds], claim)


def _markdown(text: str) -> str:
    """The text as Markdown that shows it as it is written, in one paragraph; an underscore inside a word needs nothing."""
    return re.sub(r"([\\`*\[\]<>#$|~]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(text.split()))


# --- 4. Export --------------------------------------------------------------------------------------------------------

GALLERY = """# Figures

Made by the notebooks. Plots are here as PNG and PDF; figures of pictures as JPEG, while running the notebook writes
`NAME.print.png` and `NAME.print.pdf`, which lose nothing. [figures.tex](figures.tex) has lines for LaTeX. `figure_info` in
`notebooks/report.py` reads from a file how its figure was made.

| figure | name and caption | notebook |
|---|---|---|
"""
ROW = '| <a href="{0}"><img src="{0}" width="280" alt=""></a> | **{1}** {2} | {3} |\n'
LATEX = r"""% Copy the lines of a figure, or \input them all; they need \usepackage{graphicx} and \graphicspath{{figures/}}.
\extrafloats{200}\maxdeadcycles=1000  % so many figures in a row are more than TeX expects
"""
SIGNS = dict(zip("αβγδελμπσφω×±≤≥≈→∞", ("alpha beta gamma delta epsilon lambda mu pi sigma phi omega times pm leq geq approx "
                                       "rightarrow infty").split()))  # what pdfTeX knows in formulas only
FLOAT = r"""
\begin{figure}[htbp]
  \centering
  \includegraphics[width=\linewidth, height=0.8\textheight, keepaspectratio]{%s}
  \caption{%s}
  \label{fig:%s}
\end{figure}
"""


def export_figure(figure: Figure, name: str, caption: str, *, folder: Path | str = FIGURES, notebook: str | None = None,
                  **parameters) -> Path:
    """Write a figure as PNG and PDF with its caption, renew the gallery page of the folder, return the PNG's path.

    name: file name without folder and suffix. A plot becomes NAME.png, 150 pixels to the inch, and NAME.pdf. A figure with colour
    pictures becomes NAME.print.png, in which a grid or strip has the very pixels of its pictures, NAME.print.pdf, which embeds
    them at their own resolution, and NAME.jpg, the same pixels for the gallery and for git, which ignores the large ones: running
    the notebook writes them. NAME.txt is the caption, README.md the gallery, figures.tex the same for LaTeX. Fonts are TrueType,
    no file carries a date, so that the same figure gives the same bytes, and each is written whole or not at all. The figure
    stays open for the notebook to show it; when MAX_OPEN figures are open, the oldest of those that were exported are closed (in
    a notebook they are shown first).

    Picture and PDF carry what `figure_info` reads. In a notebook that is its name and all its settings, the CAPITALS; `notebook`
    and `parameters` (numbers, texts, None, lists and dicts of them) say what is not in them, or say it better. Of a text that is
    a path with its folders only the file's name is kept.

    Raises ValueError for a name that is no file name and for a parameter of another kind, OSError if the folder can't be written.
    """
    if Path(name).name != name or name in ("", "..") or "\0" in name:
        raise ValueError(f"A figure's name is a file name without folders and suffix, not {name!r}.")
    folder, layout, record = Path(folder), figure.get_layout_engine(), _record(name, caption, notebook, parameters)
    grid = isinstance(layout, _PixelLayout)
    pictures, kinds = bool(_colour_pictures(figure)), ((".png", ".pdf"), (".print.png", ".print.pdf", ".jpg"))
    with matplotlib.rc_context({"pdf.fonttype": 42, "savefig.bbox": "standard", "savefig.transparent": False}):
        _as_text(figure)
        png, pdf = io.BytesIO(), io.BytesIO()
        with _own_pixels(figure) if grid else nullcontext():
            figure.savefig(png, format="png", dpi=layout.dpi if grid else 150)
        with _own_pixels(figure):
            figure.savefig(pdf, format="pdf", metadata={"Title": name, "Subject": caption, "Keywords": record,
                                                        "CreationDate": None, "Producer": None, "Creator": None})
    page, dpi, small, light = Image.open(png).convert("RGB"), Image.open(png).info["dpi"], io.BytesIO(), io.BytesIO()
    chunks = PngInfo()
    chunks.add_itxt("Description", caption)
    chunks.add_text("Comment", record)
    page.save(small, "PNG", dpi=dpi, optimize=True, pnginfo=chunks)  # without alpha an eighth smaller
    page.save(light, "JPEG", dpi=dpi, quality=90, subsampling=0, comment=record)
    for suffix, stream in zip(kinds[pictures], (small, pdf, light)):
        _write(folder / f"{name}{suffix}", stream.getvalue())
    for suffix in kinds[not pictures]:  # of a figure that was of the other kind
        (folder / f"{name}{suffix}").unlink(missing_ok=True)
    _write(folder / f"{name}.txt", f"{caption}\n".encode(errors="replace"))
    for page, text in gallery(folder).items():
        _write(folder / page, text.encode(errors="replace"))
    _close_oldest(figure)
    return folder / f"{name}{kinds[pictures][0]}"


def _colour_pictures(figure: Figure) -> list[AxesImage]:
    return [image for image in figure.findobj(AxesImage) if image.get_array().ndim == 3]  # not tables drawn in colours


@contextmanager
def _own_pixels(figure: Figure) -> Iterator[None]:
    """In here the colour pictures of a figure are drawn with the pixels they have (a PDF embeds them), not interpolated."""
    before = {image: image.get_interpolation() for image in _colour_pictures(figure)}
    try:
        plt.setp(list(before), interpolation="none")
        yield
    finally:
        for image, interpolation in before.items():
            image.set_interpolation(interpolation)


def _write(path: Path, content: bytes) -> None:
    try:
        with nst.replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise OSError(f"{error} The environment variable NST_FIGURES names another folder for figures.") from error


def gallery(folder: Path | str = FIGURES) -> dict[str, str]:
    """The pages of all exported figures of a folder, by file name: README.md shows them, figures.tex has lines for LaTeX."""
    rows, floats = [], []
    for text in sorted(Path(folder).glob("*.txt")):
        name, caption = text.stem, text.read_text(encoding="utf-8").strip()
        for shown in (path for path in (text.with_name(f"{name}{suffix}") for suffix in (".jpg", ".png")) if path.exists()):
            link, notebook = quote(shown.name, errors="surrogateescape"), _notebook_of(shown)
            made_by = f"[{_markdown(notebook)}](../notebooks/{quote(notebook)}.ipynb)" if notebook else ""
            rows.append(ROW.format(link, _markdown(name), _markdown(caption), made_by))
            drawn = next(filter(Path.exists, (text.with_name(f"{name}.pdf"), shown)))  # of pictures git ignores the PDF
            floats.append(FLOAT % (drawn.name, _latex(caption), name))
    return {"README.md": GALLERY + "".join(rows), "figures.tex": LATEX + "".join(floats)}


def _latex(text: str) -> str:
    """The text as LaTeX that shows it as it is written."""
    marks = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    marks |= {sign: rf"\ensuremath{{\{name}}}" for sign, name in SIGNS.items()}
    return re.sub(rf"[\\~^{{}}$&#_%{''.join(SIGNS)}]", lambda mark: marks.get(mark[0], f"\\{mark[0]}"), " ".join(text.split()))


def _close_oldest(exported: Figure) -> None:
    """Close exported figures, the oldest first, so that one more can be opened without a warning."""
    _EXPORTED.add(exported)
    figures = [manager.canvas.figure for manager in Gcf.figs.values()]
    for figure in [figure for figure in figures if figure in _EXPORTED][:max(0, len(figures) + 1 - MAX_OPEN)]:
        if "inline" in matplotlib.get_backend():  # a notebook would have shown it at the end of the cell
            from IPython.display import display
            display(figure)
        plt.close(figure)


# --- 5. How a figure was made -----------------------------------------------------------------------------------------


def figure_info(path: Path | str) -> dict:
    """How an exported figure was made, read from its .png, .jpg or .pdf.

    Keys: figure, caption, notebook (file name, None if nothing told it), parameters (dict), seed, arch, weights (SHA-256 of the
    weights file, None if there is none at hand), versions (of nst-report and torch). Raises ValueError if the file does not say
    how it was made, and if it is neither a picture nor a PDF.
    """
    record = _known(_comment(Path(path)))
    if record is None:
        raise ValueError(f"{Path(path).name} does not say how it was made: export_figure has not written it, or did so before "
                         "figures carried a record, or another program has saved it since. `figures_in` reads a whole paper.")
    return record


def figures_in(paper: Path | str) -> list[dict]:
    """What `figure_info` says of each exported figure in a PDF, in the order of its pages: pdfTeX keeps the comment of a JPEG and
    the keywords of a plot. Figures that say nothing are left out; ValueError if the file can't be read."""
    from pypdf import PdfReader
    try:
        objects = [one.get_object() for page in PdfReader(paper).pages
                   for one in page.get("/Resources", {}).get("/XObject", {}).values()]
        kept = [_jpeg_comment(one) if one.get("/Filter") == "/DCTDecode" else one.get("/PTEX.InfoDict", {}).get("/Keywords")
                for one in objects]
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{Path(paper).name} can't be read as a PDF: {error}.") from error
    return [record for record in map(_known, kept) if record]


def _jpeg_comment(stream) -> str | None:
    return Image.open(io.BytesIO(stream._data)).info.get("comment")  # as it lies in the file; pypdf itself would decode it


def _known(record: str | bytes | None) -> dict | None:
    """What an exported figure says of itself, None if it is something else."""
    with suppress(json.JSONDecodeError, TypeError, KeyError, UnicodeDecodeError):
        told = json.loads(record)
        return {key: told[key] for key in RECORD}
    return None


def _comment(path: Path) -> str | None:
    """The text where each format keeps a note: PDF's keywords, PNG's and JPEG's comment."""
    try:
        if path.suffix.lower() == ".pdf":
            from pypdf import PdfReader
            return (PdfReader(path).metadata or {}).get("/Keywords")
        with Image.open(path) as picture:
            return picture.info.get("Comment", picture.info.get("comment"))
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged files make each library raise errors of its own
        raise ValueError(f"{path.name} can't be read as a picture or a PDF: {error}.") from error


def _notebook_of(path: Path) -> str | None:
    """The notebook that made a figure, without its suffix, if the file says so."""
    try:
        return Path(figure_info(path)["notebook"] or "").stem or None
    except ValueError:
        return None


def _record(name: str, caption: str, notebook: str | None, parameters: Mapping) -> str:
    """What a figure says about itself, as JSON in ASCII, which every format can hold."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    try:
        parameters = _settings(shell) | {key: _plain(value) for key, value in parameters.items()}
    except TypeError as error:
        raise ValueError(f"Parameters of figure {name!r} are numbers, texts, lists and dicts of them, not {error}.") from error
    low = {key.lower(): value for key, value in parameters.items()}
    seed, arch = low.get("seed", low.get("seeds")), low.get("arch")
    project = tomllib.loads(Path(__file__).resolve().parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = {project["name"]: project["version"], "torch": torch.__version__}
    values = name, caption, notebook or _running_notebook(shell), parameters, seed, arch, _weights_hash(arch), versions
    return json.dumps(dict(zip(RECORD, values, strict=True)))


def _plain(value):
    """The value as JSON holds it, a path without its folders, which tell of the machine; TypeError names another kind."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    value = value.item() if isinstance(value, np.generic) else str(value) if isinstance(value, Path) else value
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(type(value).__name__)


def _settings(shell) -> dict:
    """The CAPITALS of the running notebook that JSON can hold; those of more than 2,000 characters are data."""
    settings = {}
    for name, value in shell.user_ns.items() if shell else ():
        with suppress(TypeError):
            if name.isupper() and not name.startswith("_") and len(json.dumps(plain := _plain(value))) <= 2000:
                settings[name] = plain
    return settings


def _running_notebook(shell) -> str | None:
    """File name of the running notebook: the one here that has the running cell. That holds in every front end, as nbclient,
    papermill and nbval tell no name; else (a cell not yet saved) what JupyterLab or VS Code say. None outside of notebooks."""
    if not shell:
        return None
    told = Path(shell.user_ns.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME") or "").name
    cell, found = shell.history_manager.input_hist_raw[-1].strip(), []
    for path in sorted(Path.cwd().glob("*.ipynb")):
        with suppress(ValueError, KeyError, OSError):  # a damaged notebook beside this one
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            found += [path.name] * any("".join(part["source"]).strip() == cell for part in cells)
    return told if told in found or not found and told.endswith(".ipynb") else min(found, key=len, default=None)


def _weights_hash(arch) -> str | None:
    """SHA-256 of the file with a network's weights: shipped, or in torch's cache; None where there is none."""
    with suppress(ValueError, TypeError):
        cache = Path(torch.hub.get_dir(), "checkpoints")
        shipped = nst.DATA / "weights" / f"{arch}.pt"
        files = [shipped] if shipped.exists() else [cache / Path(nst.models.get_model_weights(arch).DEFAULT.url).name,
                                                    cache / f"{arch}_convolutions.pt"]
        return next((_sha256(path, path.stat().st_mtime_ns) for path in files if path.exists()), None)


@functools.cache
def _sha256(path: Path, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- 6. Films ---------------------------------------------------------------------------------------------------------


def animate(steps: Iterable[nst.Step | Tensor], path, *, rate: float = 12.0, hold: float = 1.5) -> Path:
    """Write the pictures of a run as .gif, .webp or .mp4 and return the path; whole or not at all, as `save_image` does.

    rate: pictures per second. hold: seconds for which the last one stays. Pictures of different sizes are resized to that of
    the last. MP4 (H.264) needs even sides: an odd one is continued by a row of pixels, nothing is resized.
    """
    path, pictures = Path(path), [nst.to_pil(image_of(step)) for step in steps]
    if not pictures or path.suffix.lower() not in (".gif", ".webp", ".mp4"):
        raise ValueError(f"{path.name} needs at least one picture and the suffix .gif, .webp or .mp4.")
    if rate <= 0 or hold < 0:
        raise ValueError(f"rate is above 0 pictures per second and hold is 0 seconds or more, not {rate} and {hold}.")
    pictures = [picture.resize(pictures[-1].size) for picture in pictures]
    with nst.replacing(path) as temporary:
        if path.suffix.lower() == ".mp4":
            _write_mp4(pictures + pictures[-1:] * round(hold * rate), temporary, rate)
        else:
            pace = [round(1000 / rate)] * (len(pictures) - 1) + [round(1000 * (hold or 1 / rate))]
            pictures[0].save(temporary, save_all=True, append_images=pictures[1:], duration=pace, loop=0)
    return path


def _write_mp4(pictures: Sequence[Image.Image], path: Path, rate: float) -> None:
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg
        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ValueError("To write .mp4 needs imageio and imageio-ffmpeg with its ffmpeg, which are not installed here; "
                         ".gif and .webp need nothing.") from error
    width, height = pictures[0].size
    try:
        with imageio.get_writer(path, format="FFMPEG", fps=rate, codec="libx264", pixelformat="yuv420p", macro_block_size=1,
                                quality=None, output_params=["-crf", "18", "-movflags", "+faststart"]) as film:
            for picture in pictures:
                film.append_data(np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
        written = imageio_ffmpeg.count_frames_and_secs(path)[0]
    except (OSError, RuntimeError) as error:  # ffmpeg may end early and say nothing: hence the counting
        raise OSError(f"ffmpeg failed: {str(error).strip().splitlines()[-1]}") from error
    if written != len(pictures):
        raise OSError(f"ffmpeg failed: it wrote {written} of {len(pictures)} pictures")
