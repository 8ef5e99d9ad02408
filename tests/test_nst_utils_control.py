"""What a user asks of an objective beyond one style for the whole picture: several styles, masks, other statistics."""
import math

import numpy as np
import pytest
import torch
from PIL import Image

import nst_utils as nst

LAYERS = ("relu1_1", "relu2_1", "relu3_1")


def objective(content, style, network, **options):
    return nst.StyleObjective(content, style, extractor=network, style_layers=LAYERS, **options)


def style_of(image, objective):
    return objective(image)[1]["style"].item()


# --- several styles ---------------------------------------------------------------------------------------------------


def test_several_styles_are_weighed(picture, painting, network):
    styles = painting, painting.flip(1)
    alone = [style_of(picture, objective(picture, style, network)) for style in styles]
    for shares, wanted in ((None, (alone[0] + alone[1]) / 2), ([3, 1], (3 * alone[0] + alone[1]) / 4), ([0, 2], alone[1])):
        mixed = objective(picture, list(styles), network, style_shares=shares)
        assert style_of(picture, mixed) == pytest.approx(wanted, rel=1e-5)
    assert style_of(picture, objective(picture, [painting], network)) == alone[0]


def test_several_styles_paint_a_batch_as_alone(picture, painting, network):
    batch, styles = torch.cat([picture, picture.flip(3)]), [painting, painting.flip(1)]
    together = objective(batch, styles, network)(batch)[0]
    alone = [objective(one, styles, network)(one)[0] for one in batch.split(1)]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-4)


def test_stylize_takes_several_styles_and_their_scale(picture, painting, network):
    result = nst.stylize(picture, [painting, painting.flip(1)], style_shares=[1, 2], size=48, steps=2, extractor=network,
                         style_layers=LAYERS, style_scale=0.9, show_progress=False)
    assert result.image.shape == (1, 3, 36, 48)
    small = nst.stylize(picture, nst.resize(painting, 42), size=None, steps=1, extractor=network, show_progress=False)
    scaled = nst.stylize(picture, painting, size=None, style_scale=42 / 56, steps=1, extractor=network, show_progress=False)
    assert torch.equal(small.image, scaled.image)


@pytest.mark.parametrize("options, message", [
    ({"style_shares": [1]}, "2 styles, but 1 weights"), ({"style_shares": [0, 0]}, "not all 0"),
    ({"style_shares": [2, -1]}, "at least 0"), ({"masks": [torch.ones(48, 64)]}, "2 styles, but 1 masks"),
    ({"masks": [torch.ones(48, 64), torch.zeros(48, 64)]}, "64 x 48 pixels is 0 everywhere"),
    ({"masks": [torch.ones(48, 64)] * 2, "style_shares": [1, math.nan]}, "finite"),
    ({"masks": [torch.ones(64, 48)] * 2}, "48 x 64 pixels has another shape than the picture of 64 x 48"),
    ({"masks": [torch.ones(3, 3)] * 2}, "3 x 3 pixels has another shape than"), ({"masks": torch.ones(48, 64)}, "but 1 masks"),
    ({"masks": [None, None]}, "not NoneType"), ({"content_weight": 0, "style_weight": 0}, "All weights are 0"),
    ({"style_layer_weights": dict.fromkeys(LAYERS, 0), "content_weight": [0.0]}, "All weights are 0")])
def test_what_does_not_fit_several_styles_is_refused(picture, painting, network, options, message):
    with pytest.raises(ValueError, match=message):
        objective(picture, [painting, painting], network, **options)


# --- masks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def halves():
    left = torch.zeros(1, 1, 48, 64)
    left[..., :32] = 1
    return left, 1 - left


def test_a_style_is_asked_of_its_region_alone(picture, painting, network, halves):
    both = objective(picture, [painting, painting.flip(1)], network, masks=halves)
    image = picture.clone().requires_grad_(True)
    only_left = objective(picture, painting, network, masks=halves[:1])
    only_left(image)[1]["style"].sum().backward()
    inside, edge, outside = (part.abs().mean() for part in image.grad.split([32, 4, 28], 3))
    assert outside == 0 and edge < inside / 10  # a position at the edge of relu3_1 still sees a little of the other side
    other = picture.clone()
    other[..., 36:] = 0.5
    assert style_of(other, only_left) == style_of(picture, only_left) and style_of(other, both) != style_of(picture, both)


def test_a_mask_of_ones_is_no_mask(picture, painting, network):
    ones = np.ones((48, 64), bool)
    plain, *masked = (objective(picture, painting, network, masks=masks) for masks in (None, [ones], ones, ones[None]))
    assert [style_of(picture, one) for one in masked] == pytest.approx([style_of(picture, plain)] * 3, rel=1e-5)


def test_a_region_weighs_as_much_as_its_area(picture, painting, network):
    quarter = torch.zeros(48, 64)
    quarter[:, :16] = 1
    both = objective(picture, [painting, painting.flip(1)], network, masks=[quarter, 1 - quarter])
    assert both.shares == pytest.approx([0.25, 0.75])
    alone = [style_of(picture, objective(picture, style, network, masks=[mask]))
             for style, mask in ((painting, quarter), (painting.flip(1), 1 - quarter))]
    assert style_of(picture, both) == pytest.approx(alone[0] / 4 + alone[1] * 3 / 4, rel=1e-5)


def test_positions_near_the_edge_of_a_mask_see_both_sides_and_are_left_out():
    inside = nst.beside("masks")["inside"]
    mask = torch.zeros(1, 1, 40, 60)
    mask[..., :30] = 1
    for height, width, depth in ((40, 60, 28), (20, 30, 13), (10, 15, 5)):  # two positions; the border of the picture is no edge
        columns = {position % width for position in inside(mask, height, width).tolist()}
        assert columns == set(range(depth))


@pytest.mark.parametrize("height, width", [(40, 60), (5, 7), (2, 3), (1, 1)])
def test_a_region_of_one_pixel_is_somewhere_in_every_layer(height, width):
    mask = torch.zeros(1, 1, 40, 60)
    mask[..., 17, 23] = 1
    positions = nst.beside("masks")["inside"](mask, height, width)
    assert positions.tolist() == [17 * height // 40 * width + 23 * width // 60]


def test_a_region_of_one_pixel_can_be_painted(picture, painting, network):
    mask = torch.zeros(48, 64)
    mask[20, 20] = 1
    *_, last = nst.optimize_image(picture, objective(picture, painting, network, masks=[mask]), steps=3)
    assert last.image.isfinite().all()


def test_masks_are_read_from_what_people_have(tmp_path):
    grey = Image.new("L", (64, 48), 0)
    grey.paste(255, (0, 0, 32, 48))
    cut_out = Image.new("RGBA", (64, 48), (90, 120, 200, 255))
    cut_out.putalpha(grey)
    grey.save(tmp_path / "grey.png")
    cut_out.save(tmp_path / "cut_out.png")
    wanted = torch.zeros(1, 1, 48, 64)
    wanted[..., :32] = 1
    numbers = wanted[0, 0].numpy()
    for source in (grey, cut_out, tmp_path / "grey.png", str(tmp_path / "cut_out.png"), (tmp_path / "cut_out.png").read_bytes(),
                   numbers, numbers > 0, wanted, wanted[0].bool(), wanted.double()):
        assert torch.equal(nst.load_mask(source), wanted)
    assert nst.load_mask(Image.new("RGB", (5, 4), "white")).shape == (1, 1, 4, 5)


@pytest.mark.parametrize("source, message", [
    (np.ones((4, 4, 3)), r"number from 0 to 1, .* not \(4, 4, 3\)"), (torch.full((4, 4), 255.0), "up to 255"),
    (np.ones(4), r"\(4,\)"), (torch.full((4, 4), math.nan), "number from 0 to 1"),
    (np.zeros((3, 5)), "5 x 3 pixels is 0 everywhere"), (b"%PDF-1", "PDF")])
def test_what_is_no_mask_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        nst.load_mask(source)


# --- other statistics -------------------------------------------------------------------------------------------------


def test_a_statistic_may_bring_its_own_distance(picture, painting, network):
    def mean(maps):
        return maps.float().mean((2, 3))

    mean.distance = lambda value, target: (value - target).abs().sum(1)
    own = objective(picture, painting, network, statistic=mean)
    maps, wanted = network(picture), network(painting)
    by_hand = sum((mean(maps[layer]) - mean(wanted[layer])).abs().sum().item() for layer in LAYERS) / 3
    assert style_of(picture, own) == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("statistic, shape", [
    (lambda maps: maps.mean(), r"\(\)"), (lambda maps: 3.0, r"\(\)"), (lambda maps: maps[0], r"\(64, "),
    (lambda maps: maps.flatten(1), r"\(1, \d+\)")])
def test_a_statistic_of_another_shape_is_refused(picture, painting, network, statistic, shape):
    with pytest.raises(ValueError, match=rf"A statistic is \(1, ...\) for 1 pictures of any size, not {shape}"):
        objective(picture, painting, network, statistic=statistic)(picture)


def test_a_style_has_its_colours_matched_by_wct(picture, painting):
    grey = painting.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    for style in (painting, grey):
        matched = nst.wct(style, picture)
        assert matched.isfinite().all() and torch.allclose(matched.mean((2, 3)), picture.mean((2, 3)), atol=1e-4)
    assert torch.allclose(torch.cov(nst.wct(painting, picture)[0].flatten(1)), torch.cov(picture[0].flatten(1)), atol=1e-3)
    assert nst.wct(painting, grey).std(1).max() < 1e-4  # a grey photograph keeps its grey
