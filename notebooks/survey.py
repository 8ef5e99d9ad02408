"""A survey of people: pictures rated on a 10-point scale, and answers that are safe in a CSV file.

For whoever asks people instead of networks. The pictures of all methods are painted once (`python notebooks/survey.py pictures`),
participants rate them on a page of their own (`python notebooks/survey.py page`) or in a cell that ends with `Survey()`. Not
here: what follows from the answers (ratings), measures (experiments), figures (report). Each participant has a Python process of
their own, which would take several times the memory with torch: it is imported where pictures are painted.
"""
from __future__ import annotations

import argparse
import csv
import errno
import functools
import hashlib
import html
import inspect
import io
import os
import random
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from urllib.parse import parse_qs

import ipywidgets as widgets
import skimage
from filelock import FileLock, Timeout
from PIL import Image

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("NST_SURVEY") or HERE.parent / "data" / "survey")  # the pictures and, beside them, the answers
STYLES = HERE.parent / "data" / "style"
# pairs of the bench (experiments.py), each of the ten styles once
PAIRS = (("astronaut", "swirls"), ("chelsea", "ink_hatching"), ("coffee", "mosaic"), ("rocket", "aurora_wash"),
         ("chelsea", "autumn_knife"), ("coffee", "facets"), ("astronaut", "woodblock_waves"), ("astronaut", "pointillism"),
         ("coffee", "ikat"), ("rocket", "stained_glass"))
METHODS = {"optimisation, compact": "vgg16_compact", "optimisation, VGG-16": "vgg16", "AdaIN": "adain", "WCT": "wct"}
PICTURES = ("item", "pair", "content", "style", "method", "file", "share_closed", "lpips", "seconds", "settings")
# the last column has a fixed form: a row that was torn off is told by it
ANSWERS = ("participant", "position", "pair", "method", "rating", "item")
# the letter keeps spreadsheet programs from taking them for numbers
CODE, ITEM = re.compile(r"p[0-9a-f]{8}"), re.compile(r"r[0-9a-f]{10}")

Row = dict[str, str]

# --- 1. The pictures --------------------------------------------------------------------------------------------------


def pictures(folder: Path = FOLDER) -> list[Row]:
    """The rows of `pictures.csv` of a folder, one for each result; none if nothing has been painted there."""
    path = Path(folder) / "pictures.csv"
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def paint(folder: Path = FOLDER, *, pairs: Sequence[tuple[str, str]] = PAIRS, methods: Sequence[str] = tuple(METHODS),
          size: int = 384, steps: int = 100, judge=None) -> Iterator[str]:
    """Paint every result that `folder` lacks, judge it, and yield what was done; stopped at any moment, it goes on from there.

    size: long side in pixels. steps: of the optimisation at half the size; a third as many follow at the whole size. judge: an
    experiments.Judge; None takes the trained AlexNet. Where the weights of a method or of the judge can't be had, a sentence says
    so, and the next call makes up for it. A result painted with other settings, or with another decoder, is painted again.
    """
    folder, lacking = Path(folder), set()
    for pair, method in product(pairs, methods):
        row = _row(pair, method, size, steps)
        known = {(one["pair"], one["method"], one["settings"]) for one in pictures(folder) if (folder / one["file"]).exists()}
        if method in lacking or (row["pair"], method, row["settings"]) in known:
            continue
        try:
            yield _painted(folder, row, size, steps)
        except ConnectionError as error:
            lacking.add(method)
            yield f"{method} is left out. {error}"
    yield from _judged(folder, size, judge)


def _row(pair: tuple[str, str], method: str, size: int, steps: int) -> Row:
    import nst_utils as nst
    content, style = pair
    arch = METHODS[nst.one_of("method", method, METHODS)]
    encoder = inspect.signature(nst.AdaIN.pretrained).parameters["arch"].default
    decoder = hashlib.sha256((nst.DATA / "weights" / f"adain_{encoder}.pt").read_bytes()).hexdigest()[:8]
    how = (f"{encoder}, decoder {decoder}, {arch}, {size} px" if arch in ("adain", "wct") else
           f"{arch}, {size // 2} and {size} px, {steps} and {max(1, steps // 3)} steps, style weight 50, total variation 10")
    return {"pair": f"{content} x {style}", "content": content, "style": style, "method": method, "settings": how}


def _painted(folder: Path, row: Row, size: int, steps: int) -> str:
    """Paint one result and enter it; the name of its file, which tells nothing of the method, is also that of the item."""
    import nst_utils as nst
    content, style = (nst.sample(row[key], size) for key in ("content", "style"))
    arch, clock = METHODS[row["method"]], time.perf_counter()
    if arch in ("adain", "wct"):
        image = nst.AdaIN.pretrained().stylize(content, style, transform=getattr(nst, arch))
    else:
        image = nst.stylize(content, style, sizes=(size // 2, size), steps=(steps, max(1, steps // 3)), arch=arch,
                            style_weight=50, tv_weight=10, show_progress=False).image
    shown, seconds = _jpeg(nst.to_pil(image), size), time.perf_counter() - clock
    item = f"r{hashlib.sha256(f'{row}'.encode() + shown).hexdigest()[:10]}"
    row = row | {"item": item, "file": f"{item}.jpg", "seconds": f"{seconds:.1f}"}
    with nst.replacing(folder / row["file"]) as temporary:
        temporary.write_bytes(shown)
    before = pictures(folder)
    others = [one for one in before if (one["pair"], one["method"]) != (row["pair"], row["method"])]
    _write(folder, [*others, row])
    for old in {one["file"] for one in before} - {one["file"] for one in [*others, row]}:
        (folder / old).unlink(missing_ok=True)
    return f"{row['pair']}, {row['method']}: {row['seconds']} s"


def _judged(folder: Path, size: int, judge) -> Iterator[str]:
    """Measure the files that are not measured yet, as people see them: share closed, and LPIPS from the photograph."""
    import nst_utils as nst
    from experiments import Judge
    rows = pictures(folder)
    try:
        judge = judge or (Judge() if any(not row["lpips"] for row in rows) else None)
    except ConnectionError as error:
        yield f"Nothing is judged. {error}"
        return
    for row in (row for row in rows if not row["lpips"]):
        content, style = (nst.sample(row[key], size) for key in ("content", "style"))
        image = nst.resize(nst.load_image(folder / row["file"]), content.shape[-2:])
        row |= {"share_closed": f"{judge.share_closed(image, content, style):.4f}", "lpips": f"{judge.lpips(image, content):.4f}"}
        _write(folder, rows)
        yield f"{row['pair']}, {row['method']}: share closed {row['share_closed']}, LPIPS {row['lpips']}"


def _write(folder: Path, rows: Sequence[Row]) -> None:
    import nst_utils as nst
    with nst.replacing(folder / "pictures.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, PICTURES, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _jpeg(picture: Image.Image, size: int) -> bytes:
    stream = io.BytesIO()
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    picture.convert("RGB").save(stream, "JPEG", quality=88)
    return stream.getvalue()


@functools.cache
def reference(name: str, size: int = 384) -> bytes:
    """A photograph or a style of `nst.sample()` as a JPEG, long side `size`; read without torch."""
    style = STYLES / f"{name}.jpg"
    return _jpeg(Image.open(style) if style.exists() else Image.fromarray(getattr(skimage.data, name)()), size)


# --- 2. The answers ---------------------------------------------------------------------------------------------------


def append(path: Path, rows: Sequence[Mapping]) -> None:
    """Add answers, all of them or none, whoever else writes at the same moment.

    A row that a killed process left unfinished is cut off first. Raises OSError if the file can't be written, or is locked for
    20 seconds, and ValueError if it is no file of this survey any more: one that a spreadsheet program has turned round, say.
    """
    path, stream = Path(path), io.StringIO()
    csv.DictWriter(stream, ANSWERS, lineterminator="\n").writerows(rows)
    with _alone(path), open(path, "ab+", buffering=0) as file:
        file.seek(0)
        before, header = file.read(), ",".join(ANSWERS)
        first = before.decode("utf-8-sig", "replace").splitlines()[:1]
        if before.count(b"\n") and first != [header]:
            raise ValueError(f"{path.name} begins with {first[0][:80]!r} instead of {header!r}: it was edited. Give it another "
                             f"name; then a new one is begun, and nothing is lost.")
        whole = before if _complete(before) else before[:before.rfind(b"\n") + 1]
        start = "" if whole.endswith(b"\n") else "\n" if whole else f"{header}\n"
        new = f"{start}{stream.getvalue()}".encode()
        try:
            file.truncate(len(whole))
            if file.write(new) != len(new):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(len(whole))
            raise


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """In here no other process writes to the file; the system frees the lock of one that dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{path}.lock", timeout=20):
            yield
    except Timeout as error:
        raise OSError(f"{path.name} has been in use by another process for 20 seconds.") from error


def _complete(content: bytes) -> bool:
    """Whether the last row is whole: ended, or, without the end of its line, as long as a row is."""
    return content.endswith(b"\n") or bool(ITEM.fullmatch(content[-11:].decode("ascii", "replace")))


def answers(path: Path) -> list[Row]:
    """The answers in a file, the last one of each participant to each item, ratings as whole numbers in their text.

    Reads what a spreadsheet program saves as well: a byte order mark, semicolons or tabs, columns in another order, more of them.
    An unfinished last row and an empty rating count as no answer. ValueError names what else is wrong and its line.
    """
    path = Path(path)
    content = path.read_bytes() if path.exists() else b""
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is no text in UTF-8; save it as CSV (UTF-8).") from error
    if not lines or len(lines) == 1 and not _complete(content):
        return []
    reader = csv.DictReader(lines, delimiter=max(",;\t", key=lines[0].count))
    if missing := [name for name in ANSWERS if name not in reader.fieldnames]:
        raise ValueError(f"{path.name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}.")
    last, found = None if _complete(content) else len(lines), {}
    for row in reader:
        if reader.line_num != last and (row["rating"] or "").strip() != "":
            row["rating"] = _whole(row["rating"], f"{path.name}, line {reader.line_num}")
            found[row["participant"], row["item"]] = row
    return list(found.values())


def _whole(text: str, where: str) -> str:
    try:
        rating = float(text.replace(",", "."))
    except ValueError:
        rating = 0
    if rating not in range(1, 11):
        raise ValueError(f"{where}: a rating is a whole number from 1 to 10, not {text!r}.")
    return str(int(rating))


# --- 3. The instrument ------------------------------------------------------------------------------------------------

WELCOME = """<h2>How well is the style carried over?</h2>
<p>You will see {count} results, each with the photograph and the style picture that it was made from. Rate how well the style has
been transferred, from 1 (badly) to 10 (excellently), with a click or with a key (0 stands for 10). It takes about {minutes}
minutes. You may stop at any time and go on later with your code.</p>
<p>Stored are your ratings under a random code, and nothing else: no name, no time, no address.</p>"""

QUESTION = ("How well has the style been transferred? <b>1</b> badly, <b>10</b> excellently. Click, or type a digit in the "
            "field: 0 for 10.")


def order(participant: str, rows: Sequence[Row]) -> list[Row]:
    """The results as one participant sees them: shuffled anew for each, the same whenever asked for again.

    They come in rounds. A round shows every pair once, with a method drawn by lot, so that whoever stops early has seen all pairs
    equally often; the same pair never comes twice in succession, since people would then rate the difference.
    """
    lot, pairs, sequence = random.Random(participant), {}, []
    for row in sorted(rows, key=lambda row: row["item"]):
        pairs.setdefault(row["pair"], []).append(row)
    for results in pairs.values():
        lot.shuffle(results)
    while pairs:
        turn = lot.sample(sorted(pairs), len(pairs))
        if sequence and turn[0] == sequence[-1]["pair"]:
            turn.append(turn.pop(0))
        sequence += [pairs[pair].pop() for pair in turn]
        pairs = {pair: results for pair, results in pairs.items() if results}
    return sequence


class Survey(widgets.VBox):
    """The instrument: photograph, style and result side by side, ten buttons, a field for keys, progress. A cell that ends with
    it displays it.

    folder: where `paint` put the pictures; answers go to `answers.csv` there. participant: a code ("p" and 8 hexadecimal digits)
    to begin or go on with; None draws one and asks. pause: seconds for which a new picture takes no answer, so that a double
    click is one. `rate`, `back` and `begin` are what buttons and keys call; `controls` holds the widgets by name.
    """

    def __init__(self, folder: Path = FOLDER, *, participant: str | None = None, pause: float = 0.5):
        self.folder, self.pause, self._rows, self._since = Path(folder), pause, pictures(folder), 0.0
        self._given, self._unsaved = [], []  # answers of this page
        if not self._rows:
            raise ValueError(f"There are no pictures in {self.folder.name}: `python notebooks/survey.py pictures` paints them.")
        self.path, asked = self.folder / "answers.csv", parse_qs(os.environ.get("QUERY_STRING", "")).get("code", [""])[0]
        self.fresh = participant or (asked if CODE.fullmatch(asked) else f"p{secrets.token_hex(4)}")
        self.sequence, self.at, self.participant = [], 0, None
        self.message, self.status, self.bar = widgets.HTML(), widgets.HTML(), widgets.IntProgress(layout={"width": "auto"})
        # of one size, so that the buttons stay in place
        frame = {"width": "100%", "height": "min(420px, 33vw)", "object_fit": "contain"}
        self.images = [widgets.Image(format="jpeg", layout=frame) for _ in range(3)]
        code = widgets.Text(self.fresh, description="your code")
        actions = {"Begin": self.begin, "Back": self.back, "Save again": self.save}
        actions |= {str(rating): lambda rating=rating: self.rate(rating) for rating in range(1, 11)}
        self.controls = {"code": code, "keys": widgets.Text(placeholder="1 ... 9, 0", layout={"width": "90px"})}
        layouts = [{}] * 3 + [{"width": "auto", "flex": "1 1 50px"}] * 10
        self.controls |= {name: widgets.Button(description=name, layout=layout) for name, layout in zip(actions, layouts)}
        for name, action in actions.items():
            self.controls[name].on_click(lambda _, action=action: self._try(action))
        keys = self.controls["keys"]
        keys.observe(self._key, "value")
        keys._view_count = 0  # not None: then the page says when the field is there and can take the focus
        keys.observe(lambda change: change.new and keys.focus(), "_view_count")
        super().__init__()
        if participant:
            self.begin()
        else:
            self._welcome()

    def _welcome(self) -> None:
        count = len(self._rows)
        text = widgets.HTML(WELCOME.format(count=count, minutes=max(2, round(count * 8 / 60))))
        self.children = [text, widgets.HBox([self.controls["code"], self.controls["Begin"]]), self.message]

    def begin(self) -> None:
        """Start or go on with the code in the field. ValueError for a code that nobody was given."""
        code, given = self.controls["code"].value.strip().lower(), {row["participant"] for row in answers(self.path)}
        if not CODE.fullmatch(code) or code not in given | {self.fresh}:
            raise ValueError(f"Nobody was given the code {code!r}. A code is p and 8 digits or letters; yours is {self.fresh}.")
        self.participant, self.sequence = code, order(code, self._rows)
        columns = [widgets.VBox([widgets.HTML(f"<b>{name}</b>"), image], layout={"width": "33%"})
                   for name, image in zip(("photograph", "style", "result"), self.images)]
        wrap = {"flex_flow": "row wrap"}  # for the narrow page of a telephone
        scale = widgets.HBox([self.controls["keys"], *(self.controls[str(rating)] for rating in range(1, 11))], layout=wrap)
        foot = widgets.HBox([self.controls["Back"], self.status], layout=wrap)
        self.children = [self.bar, widgets.HBox(columns), widgets.HTML(QUESTION), scale, foot, self.message]
        self._next()

    def done(self) -> dict[str, int]:
        """Item -> rating of this participant, in the file and on this page; another page with the same code counts as well."""
        try:
            rows = answers(self.path)
        except (OSError, ValueError):  # edited, or gone, since this page began: then the page knows what it has asked
            rows = []
        return {row["item"]: int(row["rating"]) for row in [*rows, *self._given] if row["participant"] == self.participant}

    def rate(self, rating: int) -> None:
        """Answer with 1 to 10 and go on to the next picture. Another answer to the same picture replaces the one before."""
        if rating not in range(1, 11):
            raise ValueError(f"A rating is a whole number from 1 to 10, not {rating!r}.")
        if self.at == len(self.sequence) or time.monotonic() - self._since < self.pause:
            return
        row = self.sequence[self.at]
        answer = {"participant": self.participant, "position": self.at + 1, "rating": rating}
        answer |= {key: row[key] for key in ("pair", "method", "item")}
        self._given.append(answer)
        self._unsaved.append(answer)
        self.save()

    def save(self) -> None:
        """Write what is not written yet, and go on; what can't be written is kept for the next time."""
        try:
            append(self.path, self._unsaved)
            self._unsaved = []
        except (OSError, ValueError) as error:
            reason, count = str(getattr(error, "strerror", None) or error).rstrip("."), len(self._unsaved)
            raise OSError(f"Not saved: {reason}. Nothing is lost as long as this page stays open: {count} "
                          f"answer{'s' * (count > 1)} will be saved with the next one, or by Save again at the end.") from error
        finally:
            self._next()

    def back(self) -> None:
        """Show the picture before, to correct its rating."""
        self._show(max(0, self.at - 1))

    def _next(self) -> None:
        """Show the first picture in order that has no answer."""
        known = self.done()
        self.bar.max, self.bar.value = len(self.sequence), len(known.keys() & {row["item"] for row in self.sequence})
        self._show(next((k for k, row in enumerate(self.sequence) if row["item"] not in known), len(self.sequence)))

    def _show(self, at: int) -> None:
        self.at, over, shown = at, at == len(self.sequence), (b"", b"", b"")
        if not over:
            row = self.sequence[at]
            shown = (reference(row["content"]), reference(row["style"]), (self.folder / row["file"]).read_bytes())
            self.controls["keys"].focus()
        for image, content in zip(self.images, shown):
            image.value = content
        for widget in self.children[1:4]:
            widget.layout.display = "none" if over else None
        link = f' <a href="?code={self.participant}">Link to go on later</a>' if "SERVER_SOFTWARE" in os.environ else ""
        self.children[-2].children = [self.controls["Save again" if over and self._unsaved else "Back"], self.status]
        self.status.value = ("<b>That was the last picture. Thank you!</b>" if over else
                             f"Picture {at + 1} of {len(self.sequence)}. Your code: <b>{self.participant}</b>.{link}")
        self._since = time.monotonic()

    def _key(self, change) -> None:
        pressed, self.controls["keys"].value = change.new.strip()[-1:], ""
        if pressed.isdecimal():
            self._try(lambda: self.rate(int(pressed) or 10))

    def _try(self, action: Callable[[], None]) -> None:
        """Act, and show an error as a sentence: nobody else hears of it when a widget's callback fails."""
        self.message.value = ""
        try:
            action()
        except Exception as error:
            self.message.value = f'<span style="color: #c62828">{html.escape(str(error))}</span>'

    def _repr_mimebundle_(self, **options) -> dict:
        return super()._repr_mimebundle_(**options) | {"text/plain": "(a survey: run this cell in Jupyter to fill it in)"}


# --- 4. The command ---------------------------------------------------------------------------------------------------


def page(folder: Path = FOLDER, *options: str) -> None:
    """Serve the survey, and nothing else of this project, as a web page by Voilà until Ctrl-C.

    options: Voilà's. Only this machine can open the page unless `--Voila.ip=0.0.0.0` is among them. SystemExit if there are no
    pictures.
    """
    if not pictures(folder):
        raise SystemExit(f"There are no pictures in {folder}: `python notebooks/survey.py pictures` paints them.")
    import nbformat
    from voila.app import Voila
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("from survey import Survey\n\nSurvey()")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    os.environ["NST_SURVEY"] = str(Path(folder).resolve())  # what the processes of the participants inherit
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as place:
        nbformat.write(notebook, Path(place, "survey.ipynb"))
        # a page that was closed leaves a process behind, which ends after ten minutes; that of an open page stays
        usual = {"--Voila.ip": "127.0.0.1", "--MappingKernelManager.cull_idle_timeout": "600"}
        named = {option.partition("=")[0] for option in options}
        Voila.launch_instance([str(Path(place, "survey.ipynb")), *options,
                               *(f"{name}={value}" for name, value in usual.items() if name not in named)])


def main(arguments: Sequence[str] | None = None) -> None:
    """`pictures` paints what is not painted yet, `page` serves the survey; what else is given to `page` goes to Voilà."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["pictures", "page"])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where pictures and answers lie (default: data/survey)")
    parser.add_argument("--pairs", type=int, default=len(PAIRS), help="so many of the ten pairs (default: %(default)s)")
    parser.add_argument("--size", type=int, default=384, help="long side of the pictures (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="of the optimisation at half the size (default: %(default)s)")
    options, more = parser.parse_known_args(arguments)
    if options.command == "page":
        page(options.folder, *more)
        return
    for line in paint(options.folder, pairs=PAIRS[:options.pairs], size=options.size, steps=options.steps):
        print(line, flush=True)


if __name__ == "__main__":
    main()
