import hashlib
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import types
import warnings
import zlib
from pathlib import Path

import imageio.v3 as iio
import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

import nst_utils as nst

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib import font_manager  # noqa: E402

import report  # noqa: E402
from report import (  # noqa: E402
    FIGURES,
    animate,
    claim_table,
    export_figure,
    figure_info,
    figures_in,
    image_grid,
    image_of,
    image_strip,
    plot_losses,
    print_claims,
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def steps(picture, network):
    objective = nst.StyleObjective(picture, picture.flip(1), extractor=network)
    return list(nst.optimize_image(picture, objective, steps=5))


@pytest.fixture
def ideographs(tmp_path):
    """A font named so that the report finds it, which draws the one ideograph that it has as a square."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    pen = TTGlyphPen(None)
    for k, corner in enumerate([(100, 0), (100, 800), (900, 800), (900, 0)]):
        pen.lineTo(corner) if k else pen.moveTo(corner)
    pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "ideograph"])
    font.setupCharacterMap({ord("画"): "ideograph"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "ideograph": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (500, 0), "ideograph": (1000, 100)})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Test CJK", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "test_cjk.ttf")
    known = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(tmp_path / "test_cjk.ttf")
    yield "画"
    font_manager.fontManager.ttflist[:] = known


def moved(one, other):
    """Mean difference of two images in steps of 1/255."""
    return ((one - other).abs().mean() * 255).item()


def noise(height, width, seed=0):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def pixels(image):
    return np.asarray(nst.to_pil(image))


def found(page, cell):
    """How often a cell stands in a page, each of its pixels on one of the page (arrays of (H, W, 3))."""
    windows = np.lib.stride_tricks.sliding_window_view(page[..., 0], cell.shape[:2])
    places = np.argwhere((windows[..., 0, 0] == cell[0, 0, 0]) & (windows[..., -1, -1] == cell[-1, -1, 0]))
    return sum(np.array_equal(page[y:y + len(cell), x:x + cell.shape[1]], cell) for y, x in places)


def embedded(path):
    """Sizes of the images in a PDF."""
    objects = re.findall(rb"<<[^>]*/Subtype /Image[^>]*>>", path.read_bytes()) or re.findall(
        rb"<<[^>]*/Width[^>]*>>", path.read_bytes())
    return sorted(tuple(int(re.search(side + rb" (\d+)", one)[1]) for side in (rb"/Width", rb"/Height")) for one in objects)


# ----------------------------------------------------------------------------------------------------------------
# Grids, strips, curves


def test_what_a_bench_measured_is_drawn_with_its_interval_and_each_pair():
    figure, axis = plt.subplots()
    values = np.array([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0], [2.0, 5.0, 9.0]])
    interval = np.array([[2.0, 3.0, 4.0], [1.0, 2.0, 3.0], [3.0, 5.0, 9.0]])
    report.plot_bench(axis, ["a", "b", 3], values, interval, name="all")
    lines = [line.get_ydata().tolist() for line in axis.lines]
    assert values.tolist() == lines[:3] and [2.0, 3.0, 4.0] in lines[3:]
    ends = [segment[:, 1].tolist() for segment in axis.containers[0].lines[2][0].get_segments()]
    assert ends == [[1.0, 3.0], [2.0, 5.0], [3.0, 9.0]]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "b", "3"]
    plt.close(figure)


ROWS = [{"id": "VS3", "report": "Zhao", "sentence": "more | style", "asked": "Below 0.9.", "notebook": "05",
         "vgg16_compact": "0.5 [0.4, 0.6], n = 12: holds", "vgg16_compact verdict": "holds", "vgg16": "not recorded",
         "vgg16 verdict": ""}]


def test_verdicts_stand_in_a_table_and_are_printed_without_numbers(capsys):
    table = report.verdict_table(ROWS).data.splitlines()
    assert table[0] == "| id | sentence | what is asked | vgg16_compact | vgg16 |" and table[1].count("---") == 5
    assert table[2] == r"| VS3 | “more \| style” (Zhao) | Below 0.9. | **holds** 0.5 \[0.4, 0.6\], n = 12: holds | not recorded |"
    told = {**ROWS[0], "sentence": "[more style]", "notebook": "06"}
    both = report.verdict_table([*ROWS, told], where=True).data.splitlines()
    assert both[0].endswith("| notebook |") and both[2].endswith("| [05](05_layers.ipynb) |")
    assert r"| \[more style\] (Zhao) |" in both[3]
    report.print_verdicts(ROWS)
    assert capsys.readouterr().out == "VS3   vgg16_compact: holds, vgg16: not recorded\n"


def test_grid_has_its_labels_and_pictures(picture, painting):
    figure = image_grid([[picture, painting], [painting, None]], row_labels=["a", "b"], col_labels=["1", "2"], title="t")
    assert [axis.get_title() for axis in figure.axes[:2]] == ["1", "2"]
    assert [figure.axes[i].get_ylabel() for i in (0, 2)] == ["a", "b"]
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 0]


def test_grid_with_a_short_row_and_without_pictures(picture):
    assert [len(axis.images) for axis in image_grid([[picture, picture], [picture]]).axes] == [1, 1, 1, 0]
    for nothing in ([], [[]], [[None]]):
        with pytest.raises(ValueError, match="no pictures to show"):
            image_grid(nothing)


def test_strip_of_steps_is_labelled_by_index(picture, painting, network):
    objective = nst.StyleObjective(picture, painting, extractor=network)
    steps = [step for step in nst.optimize_image(picture, objective, steps=4) if step.index % 2 == 0]
    assert [axis.get_title() for axis in image_strip(steps).axes] == ["0 steps", "2 steps", "4 steps"]
    assert [axis.get_title() for axis in image_strip(iter([picture, steps[1]])).axes] == ["", "2 steps"]
    assert image_of(steps[1]) is steps[1].image and image_of(picture) is picture
    assert len(image_grid([steps]).axes) == 3


def test_strip_in_lines_and_a_label_above_each_picture(picture):
    figure = image_strip([picture] * 5, [f"no {k}" for k in range(5)], columns=3)
    assert [axis.get_title() for axis in figure.axes] == [f"no {k}" for k in range(5)] + [""]
    assert [len(axis.images) for axis in figure.axes] == [1] * 5 + [0]
    figure = image_grid([[picture] * 2] * 2, labels=[["a", "b"], ["", "d"]])
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "", "d"]


def test_loss_curves_of_one_and_of_several_runs():
    history = [{"content": 1.0, "style": 2.0}, {"content": 0.5, "style": 1.0}]
    assert list(plot_losses(history).axes[1].lines[0].get_ydata()) == [2.0, 1.0]
    assert len(plot_losses({"a": history, "b": history}, terms=("style",)).axes[0].lines) == 2
    labels = plot_losses({"_a": history, "b": history}).axes[0].get_legend().get_texts()
    assert [text.get_text() for text in labels] == ["_a", "b"]


def test_claims_become_a_table(capsys):
    claims = [("smoother", "Gatys", "TV 0.1", True), ("|a|\nfaster $1", "all", "relu4_1 3 s", False), ("c", "d", "e", None)]
    assert claim_table(claims).data.splitlines()[2:] == [
        "| smoother | Gatys | TV 0.1 | yes |", r"| \|a\| faster \$1 | all | relu4_1 3 s | **no** |", "| c | d | e | undecided |"]
    print_claims([("smoother", "Gatys", "TV 0.1", np.True_), ("faster", "all", "3 s", False), ("equal", "all", "3 s", None)])
    assert capsys.readouterr().out.splitlines() == ["holds:          smoother", "does not hold: faster", "undecided:      equal"]


@pytest.mark.parametrize("cell", [1.05, 2.2, 4.5])
def test_labels_are_inside_the_figure_and_apart(picture, tmp_path, cell):
    long = "a label of many words that is much longer than the picture is wide"
    figure = image_grid([[nst.resize(picture, 128)] * 3] * 2, row_labels=[long, "b"],
                        col_labels=[long, "Donaudampfschifffahrtsgesellschaft", "c"], title=long + " " + long, cell=cell)
    for axis in figure.axes[3:]:
        axis.set_title("set later\non two lines")
    export_figure(figure, "a", "c", folder=tmp_path)
    figure.draw_without_rendering()
    texts = [figure.axes[0].yaxis.label, figure.axes[3].yaxis.label, *figure.texts, *(axis.title for axis in figure.axes)]
    boxes = [text.get_window_extent() for text in texts] + [axis.bbox for axis in figure.axes]
    assert all(figure.bbox.padded(1).contains(*point) for box in boxes for point in (box.min, box.max))
    apart = [one.padded(-1).overlaps(other.padded(-1)) for k, one in enumerate(boxes) for other in boxes[:k]]
    assert not any(apart)


def test_figure_is_no_wider_than_its_cells_on_screen():
    figure = image_strip([noise(240, 320)] * 5, cell=1.6)
    assert figure.dpi == 100 and figure.get_size_inches()[0] < 5 * 1.6 + 0.5
    assert image_strip([noise(512, 512)], cell=50).get_size_inches()[0] < 5.5  # never under 100 pixels an inch


# ----------------------------------------------------------------------------------------------------------------
# Export


def test_export_writes_png_pdf_caption_and_gallery(tmp_path, picture):
    path = export_figure(image_grid([[picture]]), "one", "A caption.", folder=tmp_path)
    export_figure(plot_losses([{"content": 1.0, "style": 2.0}] * 2), "two", "Another.", folder=tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["README.md", "figures.tex", "one.jpg", "one.print.pdf",
                                                                 "one.print.png", "one.txt", "two.pdf", "two.png", "two.txt"]
    gallery = (tmp_path / "README.md").read_text()
    assert "one.jpg" in gallery and "A caption." in gallery and "two.png" in gallery
    assert nst.load_image(path).std() > 0
    assert (tmp_path / "one.txt").read_text() == "A caption.\n"
    assert FIGURES.is_absolute() and export_figure.__kwdefaults__["folder"] == FIGURES


def test_export_is_byte_stable(tmp_path, picture, monkeypatch):
    history = [{"content": 1.0, "style": 2.0}] * 2
    for folder, seconds in (("x", "1000000000"), ("y", "1700000000")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", seconds)  # another day
        export_figure(image_grid([[picture]], title="t"), "a", "c", folder=tmp_path / folder)
        export_figure(plot_losses(history), "b", "c", folder=tmp_path / folder)
    for name in ("a.jpg", "a.print.png", "a.print.pdf", "a.txt", "b.png", "b.pdf", "b.txt", "README.md", "figures.tex"):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes(), name


def test_export_is_byte_stable_from_one_process_to_the_next(tmp_path):
    code = """import sys, torch, report
report.export_figure(report.image_grid([[torch.zeros(1, 3, 8, 8)]], title="title"), "a", "c", folder=sys.argv[1])
report.export_figure(report.plot_losses([{"content": 1.0, "style": 2.0}] * 2), "b", "c", folder=sys.argv[1])"""
    for seed in "12":  # of the order of sets
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed, "MPLBACKEND": "agg"}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / seed)], env=env, check=True, timeout=120)
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes(), path.name


def test_export_again_gives_the_same_and_leaves_the_figure_as_it_was(tmp_path, picture):
    figure = image_grid([[picture, picture]], col_labels=["a", "a longer label"], title="t", cell=0.4)
    before = figure.dpi, figure.axes[0].images[0].get_interpolation(), tuple(figure.get_size_inches().round(1))
    one = export_figure(figure, "a", "c", folder=tmp_path).read_bytes()
    figure.draw_without_rendering()
    assert before == (figure.dpi, figure.axes[0].images[0].get_interpolation(), tuple(figure.get_size_inches().round(1)))
    assert export_figure(figure, "a", "c", folder=tmp_path).read_bytes() == one


def test_export_into_a_place_that_cannot_be_written(tmp_path, picture):
    (tmp_path / "file").write_text("in the way")
    figure = image_grid([[picture]])
    with pytest.raises(OSError, match="can't be written"):
        export_figure(figure, "a", "c", folder=tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert torch.equal(torch.tensor(figure.axes[0].images[0].get_size()), torch.tensor([48, 64]))  # still in memory


@pytest.mark.parametrize("shape", [(213, 320), (320, 320), (341, 512), (97, 131), (48, 64)])
@pytest.mark.parametrize("cell", [1.05, 1.3, 2.2, 4.5])
def test_exported_pictures_are_exact_in_every_pixel(tmp_path, shape, cell):
    images = [[noise(*shape, seed=3 * i + k) for k in range(3)] for i in range(2)]
    figure = image_grid(images, row_labels=["one", "two"], col_labels=["a", "b", "c"], title="t", cell=cell)
    page = np.asarray(Image.open(export_figure(figure, "a", "c", folder=tmp_path)))
    assert page.ndim == 3 and page.shape[2] == 3
    assert all(found(page, pixels(image)) == 1 for row in images for image in row)
    assert embedded(tmp_path / "a.print.pdf") == [shape[::-1]] * 6


def test_pictures_of_different_size_each_have_their_own_resolution(tmp_path):
    large, portrait, other, small = noise(200, 320, 1), noise(320, 180, 2), noise(90, 170, 3), noise(50, 80, 4)
    for magnify, times in (False, 1), (True, 4):  # a whole number of times
        figure = image_grid([[large, portrait], [other, small]], col_labels=["a", "b"], cell=1.7, magnify=magnify)
        page = np.asarray(Image.open(export_figure(figure, "a", "c", folder=tmp_path)))
        assert all(found(page, pixels(image)) == 1 for image in (large, portrait, other))
        assert found(page, pixels(small).repeat(times, 0).repeat(times, 1)) == 1
        assert embedded(tmp_path / "a.print.pdf") == [(80, 50), (170, 90), (180, 320), (320, 200)]


def test_magnified_maps_fill_their_cells(tmp_path):
    maps = [noise(8, 8, seed) for seed in range(3)]
    page = np.asarray(Image.open(export_figure(image_strip(maps, cell=1, magnify=True), "a", "c", folder=tmp_path)))
    assert all(found(page, pixels(one).repeat(12, 0).repeat(12, 1)) == 1 for one in maps)


def test_a_pdf_holds_the_very_pixels(tmp_path):
    image = noise(60, 80)
    export_figure(image_grid([[image]], title="t"), "a", "c", folder=tmp_path)
    stream = re.search(rb"/Width.*?stream\r?\n(.*?)\r?\nendstream", (tmp_path / "a.print.pdf").read_bytes(), re.DOTALL)[1]
    png = b"\x89PNG\r\n\x1a\n"  # the stream is that of a PNG
    for kind, data in (b"IHDR", struct.pack(">IIBBBBB", 80, 60, 8, 2, 0, 0, 0)), (b"IDAT", stream), (b"IEND", b""):
        png += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png)))[::-1], pixels(image))  # PDF counts rows upwards


def test_a_label_set_later_moves_pictures_by_whole_pixels(tmp_path):
    images = [noise(120, 160, seed) for seed in range(4)]
    figure = image_grid([images[:2], images[2:]], cell=1.3)
    figure.axes[3].set(title="later", xlabel="and below")
    page = np.asarray(Image.open(export_figure(figure, "a", "c", folder=tmp_path)))
    assert all(found(page, pixels(image)) == 1 for image in images)


def test_fonts_of_a_pdf_are_truetype(tmp_path, picture):
    export_figure(image_grid([[picture]], title="title"), "a", "c", folder=tmp_path)
    export_figure(plot_losses([{"content": 1.0, "style": 2.0}] * 2), "b", "c", folder=tmp_path)
    for name in ("a.print.pdf", "b.pdf"):
        data = (tmp_path / name).read_bytes()
        assert b"/FontFile2" in data and b"/Subtype /Type3" not in data
    assert matplotlib.rcParams["pdf.fonttype"] == matplotlib.rcParamsDefault["pdf.fonttype"]


def test_dollars_underscores_and_backslashes_are_text(tmp_path, picture):
    odd = [r"$x^2$", r"\frac{1} $", "_private_$"]
    figure = image_grid([[picture] * 3] * 3, row_labels=odd, col_labels=odd, title=r"$\nonsense{$")
    history = [{"content": 1.0, "style": 2.0}] * 2
    curves = plot_losses(dict.fromkeys(odd, history), title=r"$\nonsense{$")
    for name, one in ("a", figure), ("b", curves):
        export_figure(one, name, r"costs $5, not $6, a_b *c* \d <e>", folder=tmp_path)
    texts = [*figure.texts, *curves.texts, *curves.axes[0].get_legend().get_texts(),
             *(axis.title for axis in figure.axes[:3]), *(axis.yaxis.label for axis in figure.axes[::3])]
    assert len(texts) == 11 and not any(text.get_parse_math() for text in texts)
    assert [text.get_text() for text in curves.axes[0].get_legend().get_texts()] == odd
    assert r"costs \$5, not \$6, a_b \*c\* \\d \<e\>" in (tmp_path / "README.md").read_text()
    powers = [text for text in curves.axes[0].get_yticklabels(which="both") if text.get_text()]
    assert powers and all(text.get_parse_math() and "mathdefault" in text.get_text() for text in powers)


def test_texts_of_a_plot_drawn_by_hand_are_text_too(tmp_path):
    figure, axis = plt.subplots(figsize=(3, 2))
    axis.bar(["$a$", "b_c"], [1, 2], label="$d$")
    axis.set_title(r"\e $f$")
    axis.legend()
    export_figure(figure, "a", "c", folder=tmp_path)
    texts = [axis.title, *axis.get_xticklabels(), *axis.get_legend().get_texts()]
    assert [text.get_text() for text in texts] == [r"\e $f$", "$a$", "b_c", "$d$"]
    assert not any(text.get_parse_math() for text in texts)


def test_ideographs_are_drawn_where_a_font_has_them(tmp_path, picture, ideographs):
    figure = image_grid([[picture]], col_labels=["style " + ideographs], row_labels=[ideographs], title=ideographs)
    curves = plot_losses({ideographs: [{"content": 1.0, "style": 2.0}] * 2}, title=ideographs)
    plot, axis = plt.subplots()
    axis.set_xlabel(ideographs)
    with warnings.catch_warnings(action="error"):  # matplotlib warns of glyphs that it draws as boxes
        for name, one in ("a", figure), ("b", curves), ("c", plot):
            page = np.asarray(Image.open(export_figure(one, name, ideographs, folder=tmp_path)))
            assert found(page, np.zeros((5, 5, 3), dtype=np.uint8))  # the square
    assert ideographs in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert b"Type3" not in (tmp_path / "b.pdf").read_bytes() and b"Test" not in (tmp_path / "b.pdf").read_bytes()  # outlines


def test_characters_without_a_font_are_named_once(picture, monkeypatch):
    latin = [entry for entry in font_manager.fontManager.ttflist if entry.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", latin)
    with pytest.warns(UserWarning) as said:
        for _ in range(2):
            image_grid([[picture]], title="a 文").savefig(io.BytesIO())
    assert [str(one.message)[:30] for one in said] == ["No font of this machine has 文,"]


@pytest.mark.parametrize("name", ["a.b", "two words", "画 ü", ".dot", "50 % (#1) [x]", "a.png", 'quote"'])
def test_any_name_that_the_system_allows(tmp_path, picture, name):
    path = export_figure(image_grid([[picture]]), name, "c", folder=tmp_path)
    assert path == tmp_path / f"{name}.print.png" and path.exists()
    suffixes = ".jpg", ".print.png", ".print.pdf", ".txt"
    assert {file.name for file in tmp_path.iterdir()} == {"README.md", "figures.tex", *(name + suffix for suffix in suffixes)}
    from urllib.parse import unquote
    link = re.search(r'<img src="(\S+)"', (tmp_path / "README.md").read_text(encoding="utf-8"))[1]
    assert unquote(link) == f"{name}.jpg" and not re.search("[()<>\"# ]", link)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a/", "a\0b"])
def test_a_name_that_is_a_path_is_refused(tmp_path, picture, name):
    with pytest.raises(ValueError, match="a file name without folders and suffix, not"):
        export_figure(image_grid([[picture]]), name, "c", folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_files_are_renamed_when_pictures_become_a_plot(tmp_path, picture):
    plot, pictures = plot_losses([{"content": 1.0, "style": 2.0}] * 2), image_grid([[picture]])
    kinds = {"a.png", "a.pdf"}, {"a.jpg", "a.print.png", "a.print.pdf"}
    for figure, kept in (plot, kinds[0]), (pictures, kinds[1]), (plot, kinds[0]):
        export_figure(figure, "a", "c", folder=tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == kept | {"a.txt", "README.md", "figures.tex"}


def test_the_light_copy_has_the_same_pixels_but_for_what_jpeg_loses(tmp_path):
    path = export_figure(image_strip([nst.sample("chelsea", 256)] * 2), "a", "c", folder=tmp_path)
    exact, light = (np.asarray(Image.open(one), dtype=float) for one in (path, tmp_path / "a.jpg"))
    assert exact.shape == light.shape and 0 < abs(exact - light).mean() < 2
    assert (tmp_path / "a.jpg").stat().st_size < path.stat().st_size / 2


def test_a_table_drawn_as_an_image_is_a_plot_and_a_picture_is_not(tmp_path, picture):
    for name, values in ("table", np.eye(5)), ("picture", nst.to_pil(nst.resize(picture, 128))):
        figure, axis = plt.subplots(figsize=(4, 2), layout="constrained")
        axis.imshow(values)
        path = export_figure(figure, name, "c", folder=tmp_path)
        assert Image.open(path).size == (600, 300)
    assert {path.name for path in tmp_path.glob("*.pdf")} == {"table.pdf", "picture.print.pdf"}


def test_a_failing_drawing_leaves_nothing(tmp_path, picture, monkeypatch):
    figure = image_grid([[picture]])
    layout = figure.get_layout_engine()
    save = figure.savefig

    def no_pdf(stream, *, format, **options):
        if format == "pdf":
            raise RuntimeError("no paper")
        save(stream, format=format, **options)
    monkeypatch.setattr(figure, "savefig", no_pdf)
    with pytest.raises(RuntimeError, match="no paper"):
        export_figure(figure, "a", "c", folder=tmp_path / "new")
    assert not (tmp_path / "new").exists() and figure.get_layout_engine() is layout and figure.dpi == 100


def test_sixty_exports_leave_few_figures_open_and_the_last_one_shown(tmp_path, picture):
    kept = plt.figure()  # never exported: not ours to close
    with warnings.catch_warnings(action="error", category=RuntimeWarning):
        for k in range(60):
            figure = image_grid([[picture]])
            export_figure(figure, f"{k % 3}", "c", folder=tmp_path)
            assert plt.fignum_exists(figure.number)  # shows at the end of its cell
            assert len(plt.get_fignums()) <= 20
    assert plt.fignum_exists(kept.number)


def test_a_notebook_shows_figures_before_they_are_closed(tmp_path, picture, monkeypatch):
    import IPython.display
    shown, figures = [], [image_grid([[picture]]) for _ in range(4)]
    monkeypatch.setattr(IPython.display, "display", shown.append)
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "inline")
    monkeypatch.setattr(report, "MAX_OPEN", 3)
    for k, figure in enumerate(figures):
        export_figure(figure, f"{k}", "c", folder=tmp_path)
    assert shown == figures[:2] and [plt.fignum_exists(figure.number) for figure in figures] == [False] * 2 + [True] * 2


# ----------------------------------------------------------------------------------------------------------------
# Films


# ----------------------------------------------------------------------------------------------------------------
# How a figure was made


@pytest.mark.parametrize("suffix", [".print.png", ".print.pdf", ".jpg"])
def test_a_figure_says_how_it_was_made(tmp_path, picture, suffix):
    export_figure(image_grid([[picture]]), "a", "Größe (5 \\times) and ×.", folder=tmp_path, notebook="05_layers.ipynb", seed=3,
                  arch="vgg16_compact", layers=("relu1_1", "relu2_1"), photo=str(tmp_path / "me.jpg"), mask=None,
                  rates={"Adam": 0.1})
    info = figure_info(tmp_path / f"a{suffix}")
    weights = hashlib.sha256((nst.DATA / "weights" / "vgg16_compact.pt").read_bytes()).hexdigest()
    assert tuple(info) == report.RECORD and str(tmp_path) not in str(info)
    assert info["parameters"] == {"seed": 3, "arch": "vgg16_compact", "layers": ["relu1_1", "relu2_1"], "photo": "me.jpg",
                                  "mask": None, "rates": {"Adam": 0.1}}
    assert info["caption"] == "Größe (5 \\times) and ×." and info["notebook"] == "05_layers.ipynb" and info["seed"] == 3
    assert info["weights"] == weights and info["versions"]["torch"] == torch.__version__ and info["versions"]["nst-report"]


def test_the_record_stands_where_each_format_keeps_such_things(tmp_path, picture):
    from pypdf import PdfReader
    export_figure(image_grid([[picture]]), "a", "A caption.", folder=tmp_path)
    assert Image.open(tmp_path / "a.print.png").text["Description"] == "A caption."
    assert PdfReader(tmp_path / "a.print.pdf").metadata.subject == "A caption."
    assert Image.open(tmp_path / "a.print.png").text["Comment"].encode() == Image.open(tmp_path / "a.jpg").info["comment"]


def test_a_notebook_need_not_say_what_it_is(tmp_path):
    """Run as nbclient, nbval and papermill do, which tell a kernel nothing of the notebook."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cells = ["SIZE, STYLES, ARCH, SEEDS = 32, ('swirls', 'mosaic'), 'vgg16_compact', (1, 2)\nDATA = object()",
             "import report, torch\n_ = report.export_figure(report.image_grid([[torch.rand(1, 3, SIZE, SIZE)]]), 'a', 'c')"]
    for name, parts in {"05_mine": cells, "05_mine-Copy1": cells, "06_other": cells[:1]}.items():
        nbformat.write(nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, parts))), tmp_path / f"{name}.ipynb")
    (tmp_path / "damaged.ipynb").write_text("{")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "NST_FIGURES": str(tmp_path / "figures"),
                                "JPY_SESSION_NAME": "the_one_that_started_this_one.ipynb"}
    nbclient.NotebookClient(nbformat.read(tmp_path / "05_mine.ipynb", 4), resources={"metadata": {"path": str(tmp_path)}}
                            ).execute(env=environment)
    info = figure_info(tmp_path / "figures" / "a.jpg")
    assert info["notebook"] == "05_mine.ipynb" and info["seed"] == [1, 2] and info["arch"] == "vgg16_compact"
    assert info["parameters"] == {"SIZE": 32, "STYLES": ["swirls", "mosaic"], "ARCH": "vgg16_compact", "SEEDS": [1, 2]}
    assert "[05_mine](../notebooks/05_mine.ipynb)" in (tmp_path / "figures" / "README.md").read_text()


def test_a_cell_that_is_not_saved_has_the_name_that_the_front_end_tells(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    shell = types.SimpleNamespace(user_ns={}, history_manager=types.SimpleNamespace(input_hist_raw=["", "x = 1"]))
    assert report._running_notebook(shell) is None and report._running_notebook(None) is None
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "lab.ipynb"))
    assert report._running_notebook(shell) == "lab.ipynb"
    shell.user_ns["__vsc_ipynb_file__"] = str(tmp_path / "code.ipynb")
    assert report._running_notebook(shell) == "code.ipynb"


def test_parameters_of_another_kind_are_refused(tmp_path, picture):
    with pytest.raises(ValueError, match="of figure 'a' are numbers, texts, lists and dicts of them, not Tensor"):
        export_figure(image_grid([[picture]]), "a", "c", folder=tmp_path / "new", content=picture)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".pdf"])
def test_a_file_that_tells_nothing(tmp_path, picture, suffix):
    nst.to_pil(picture).save(tmp_path / f"a{suffix}")
    with pytest.raises(ValueError, match=f"a{suffix} does not say how it was made: export_figure has not written it, or"):
        figure_info(tmp_path / f"a{suffix}")
    (tmp_path / f"a{suffix}").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=f"a{suffix} can't be read as a picture or a PDF: "):
        figure_info(tmp_path / f"a{suffix}")
    with pytest.raises(FileNotFoundError):
        figure_info(tmp_path / f"b{suffix}")


def test_figures_for_latex_compile(tmp_path):
    """All committed ones, and a caption with everything that means something to TeX."""
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex (Debian: texlive-latex-base) is not installed, so that figures.tex can't be compiled")
    from pypdf import PdfReader
    figure = plot_losses([{"content": 1.0, "style": 2.0}] * 2)
    export_figure(figure, "a_b", "50 % of $5 & #1 {x} a_b^2 ~ \\relax ü", folder=tmp_path)
    committed = Path(__file__).resolve().parents[1] / "figures"
    page = (r"\documentclass{article}\usepackage{graphicx}\begin{document}\graphicspath{{%s/}}\input{%s}\clearpage"
            r"\graphicspath{{./}}\input{figures}Figure~\ref{fig:a_b}\end{document}")
    (tmp_path / "paper.tex").write_text(page % (committed.as_posix(), (committed / "figures").as_posix()))
    done = [subprocess.run(["pdflatex", "-interaction=batchmode", "-halt-on-error", "paper"], cwd=tmp_path, timeout=300,
                           stdout=subprocess.DEVNULL).returncode for _ in range(2)]
    log, number = (tmp_path / "paper.log").read_text(errors="replace"), len(list(committed.glob("*.txt"))) + 1
    assert done == [0, 0] and "undefined" not in log, log[-2000:]
    text = "\n".join(page.extract_text() for page in PdfReader(tmp_path / "paper.pdf").pages)
    assert f"Figure {number}: 50 % of $5 & #1" in text and f"\nFigure {number}\n" in text


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".WEBP"])
def test_a_film_has_all_frames_and_stays_on_the_last(picture, tmp_path, suffix):
    images = [picture * (1 - 0.1 * k) for k in range(5)] + [nst.resize(picture * 0.5, 32)]
    path = animate(iter(images), tmp_path / f"new/run{suffix}", rate=10, hold=2)
    with Image.open(path) as film:
        assert film.n_frames == 6 and film.size == (32, 24) and film.info["loop"] == 0
        durations, frames = [], []
        for index in range(film.n_frames):
            film.seek(index)
            film.load()
            durations.append(film.info["duration"])
            frames.append(nst.load_image(film.convert("RGB")))
    assert durations == [100] * 5 + [2000]
    assert all(moved(frame, nst.resize(image, 32)) < 6 for frame, image in zip(frames, images))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_no_film_can_be_made_of(steps, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.delitem(sys.modules, "imageio.plugins.ffmpeg", raising=False)
    with pytest.raises(ValueError, match="ffmpeg.*not installed"):
        animate(steps, tmp_path / "run.mp4")
    with pytest.raises(ValueError, match="run.avi needs"):
        animate(steps, tmp_path / "run.avi")
    with pytest.raises(ValueError, match="at least one picture"):
        animate([], tmp_path / "run.gif")
    for impossible in {"rate": 0}, {"hold": -1}:
        with pytest.raises(ValueError, match="rate is above 0"):
            animate(steps, tmp_path / "run.gif", **impossible)
    assert not list(tmp_path.iterdir())


def test_mp4(steps, tmp_path):
    path = animate([nst.resize(step.image, 33) for step in steps], tmp_path / "run.mp4")  # an odd side
    assert path.read_bytes()[4:8] == b"ftyp" and path.stat().st_size > 500


def test_mp4_is_padded_and_not_resampled_and_stays_on_the_last(picture, tmp_path):
    images = [nst.resize(picture * (1 - 0.1 * k), (75, 99)) for k in range(5)]
    frames = iio.imread(animate(images, tmp_path / "run.mp4", rate=10, hold=2), plugin="FFMPEG")
    assert frames.shape == (5 + 20, 76, 100, 3)
    shown = [nst.load_image(Image.fromarray(frame[:75, :99])) for frame in frames]
    assert all(moved(frame, image) < 6 for frame, image in zip(shown, images + images[-1:] * 20))


def test_a_failing_ffmpeg_leaves_nothing(steps, tmp_path, monkeypatch):
    import imageio_ffmpeg
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!{sys.executable}\nraise SystemExit('no such option')")
    program.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg._io, "get_ffmpeg_exe", lambda: str(program))
    with pytest.raises(OSError, match="ffmpeg failed"):
        animate(steps, tmp_path / "new/run.mp4")
    assert not list((tmp_path / "new").iterdir())


def test_report_needs_no_display():
    code = "import io, sys; import report, torch; report.image_grid([[torch.zeros(1, 3, 8, 8)]]).savefig(io.BytesIO())"
    env = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=120)


def test_a_paper_tells_how_its_figures_were_made(tmp_path, picture):
    """A PDF that holds them as pdfTeX does: JPEGs as they are, of a plot the dictionary with its keywords."""
    from pypdf import PdfReader, PdfWriter
    from pypdf.generic import DictionaryObject, NameObject, NumberObject, StreamObject
    export_figure(image_grid([[picture]]), "a", "A cat.", folder=tmp_path, seed=3)
    export_figure(plot_losses([{"content": 1.0, "style": 2.0}] * 2), "b", "A plot.", folder=tmp_path)
    image, form, foreign, writer = StreamObject(), StreamObject(), StreamObject(), PdfWriter()
    image._data, foreign._data = (tmp_path / "a.jpg").read_bytes(), b"no picture"
    image[NameObject("/Filter")] = NameObject("/DCTDecode")
    form[NameObject("/PTEX.InfoDict")] = DictionaryObject(PdfReader(tmp_path / "b.pdf").metadata)
    foreign[NameObject("/Length")] = NumberObject(9)
    found = {NameObject(f"/{name}"): writer._add_object(one) for name, one in (("I", image), ("F", form), ("X", foreign))}
    page = writer.add_blank_page(200, 200)
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/XObject"): DictionaryObject(found)})
    writer.write(tmp_path / "paper.pdf")
    one, other = figures_in(tmp_path / "paper.pdf")
    assert (one["caption"], one["seed"], other["caption"]) == ("A cat.", 3, "A plot.")
    with pytest.raises(ValueError, match="figures_in"):
        figure_info(tmp_path / "paper.pdf")
    (tmp_path / "paper.pdf").write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(ValueError, match="paper.pdf can't be read as a PDF"):
        figures_in(tmp_path / "paper.pdf")
