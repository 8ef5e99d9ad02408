import matplotlib
import pytest
import torch

import nst_utils as nst

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_grid_has_its_labels_and_pictures(picture, painting):
    figure = nst.image_grid([[picture, painting], [painting, None]], row_labels=["a", "b"], col_labels=["1", "2"], title="t")
    assert [axis.get_title() for axis in figure.axes[:2]] == ["1", "2"]
    assert [figure.axes[i].get_ylabel() for i in (0, 2)] == ["a", "b"]
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 0]


def test_strip_of_steps_is_labelled_by_index(picture, painting, network):
    objective = nst.StyleObjective(picture, painting, extractor=network)
    steps = [step for step in nst.optimize_image(picture, objective, steps=4) if step.index % 2 == 0]
    assert [axis.get_title() for axis in nst.image_strip(steps).axes] == ["0 steps", "2 steps", "4 steps"]


def test_loss_curves_of_one_and_of_several_runs():
    history = [{"content": 1.0, "style": 2.0}, {"content": 0.5, "style": 1.0}]
    assert list(nst.plot_losses(history).axes[1].lines[0].get_ydata()) == [2.0, 1.0]
    assert len(nst.plot_losses({"a": history, "b": history}, terms=("style",)).axes[0].lines) == 2


def test_export_writes_png_pdf_caption_and_gallery(tmp_path, picture):
    path = nst.export_figure(nst.image_grid([[picture]]), "one", "A caption.", folder=tmp_path)
    nst.export_figure(nst.image_grid([[picture]]), "two", "Another.", folder=tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["README.md", "one.pdf", "one.png", "one.txt", "two.pdf",
                                                                 "two.png", "two.txt"]
    gallery = (tmp_path / "README.md").read_text()
    assert "one.png" in gallery and "A caption." in gallery and "two.png" in gallery
    assert nst.load_image(path).std() > 0


def test_export_is_byte_stable(tmp_path, picture):
    paths = [nst.export_figure(nst.image_grid([[picture]]), "a", "c", folder=tmp_path / folder) for folder in "xy"]
    for suffix in (".png", ".pdf", ".txt"):
        assert paths[0].with_suffix(suffix).read_bytes() == paths[1].with_suffix(suffix).read_bytes()


def test_export_into_a_place_that_cannot_be_written(tmp_path, picture):
    (tmp_path / "file").write_text("in the way")
    figure = nst.image_grid([[picture]])
    with pytest.raises(OSError, match="can't be written"):
        nst.export_figure(figure, "a", "c", folder=tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert torch.equal(torch.tensor(figure.axes[0].images[0].get_size()), torch.tensor([48, 64]))  # still in memory
