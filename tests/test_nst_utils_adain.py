"""The AdaIN network of nst_utils: its transforms, its structure, its pictures."""
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import nst_utils as nst


@pytest.fixture(scope="module")
def adain():
    """The shipped encoder, with a decoder that may as well be untrained, in float32."""
    return nst.AdaIN(precision="float32", seed=3).eval()


@pytest.fixture(scope="module")
def styles():
    """Three seeded style pictures of different size and palette."""
    draw = torch.Generator().manual_seed(11)
    coarse = [torch.rand(1, 3, 5, 5, generator=draw) * torch.rand(1, 3, 1, 1, generator=draw) for _ in range(3)]
    return [nn.functional.interpolate(one, (40, 40 + 8 * k), mode="bicubic").clamp(0, 1) for k, one in enumerate(coarse)]


# --- the transforms ---------------------------------------------------------------------------------------------------


def some_maps(seed, size=(6, 9)):
    """Seeded maps (1, 4, H, W) whose channels are correlated and differ in mean and scale."""
    draw = torch.Generator().manual_seed(seed)
    mixed = torch.randn(4, 4, generator=draw) @ torch.randn(4, size[0] * size[1], generator=draw)
    return (mixed + torch.randn(4, 1, generator=draw)).view(1, 4, *size)


def test_adain_gives_each_channel_the_mean_and_deviation_of_the_style():
    content, style = some_maps(0), some_maps(1, (5, 13))
    result = nst.adain(content, style).flatten(2)
    assert torch.allclose(result.mean(2), style.flatten(2).mean(2), atol=1e-5)
    assert torch.allclose(result.std(2, correction=0), style.flatten(2).std(2, correction=0), rtol=1e-3)
    assert torch.allclose(nst.adain(content, style), nst.adain(content, nst.mean_std(style)))
    assert torch.allclose(nst.adain(content, content), content, atol=1e-5)


def test_adain_keeps_the_pattern_of_each_channel():
    content = some_maps(0)
    result = nst.adain(content, some_maps(1))
    for before, after in zip(content[0].flatten(1), result[0].flatten(1)):
        assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.9999


def test_adain_survives_a_constant_channel():
    flat = torch.ones(1, 4, 6, 9)
    assert nst.adain(flat, some_maps(1)).isfinite().all()
    assert torch.allclose(nst.adain(some_maps(0), flat).mean((2, 3)), torch.ones(1, 4), atol=1e-4)


def test_wct_gives_the_whole_covariance_of_the_style():
    content, style = some_maps(0, (20, 9)), some_maps(1, (8, 13))
    result = nst.wct(content, style)
    assert result.shape == content.shape
    assert torch.allclose(result.flatten(2).mean(2), style.flatten(2).mean(2), atol=1e-4)
    assert torch.allclose(torch.cov(result[0].flatten(1), correction=0), torch.cov(style[0].flatten(1), correction=0), rtol=1e-3,
                          atol=1e-3)
    assert not torch.allclose(torch.cov(nst.adain(content, style)[0].flatten(1)), torch.cov(style[0].flatten(1)), rtol=0.05)


def test_wct_leaves_out_directions_without_variance():
    content = some_maps(0)
    content[:, 3] = content[:, 2] + 1e-4 * torch.randn(6, 9, generator=torch.Generator().manual_seed(2))
    result = nst.wct(content, some_maps(1))  # whitening must not blow up this noise to the size of a channel
    assert torch.linalg.matrix_rank(torch.cov(result[0].flatten(1)), rtol=1e-3) == 3
    assert nst.wct(torch.ones(1, 4, 6, 9), some_maps(1)).isfinite().all()


def test_wct_refuses_statistics_and_can_replace_adain(adain, picture, painting):
    maps = adain.encoder(nst.with_margin(picture))["relu4_1"]
    decoded = adain.decode(nst.wct(maps, adain.encoder(painting)["relu4_1"])).clamp(0, 1)
    result = adain.stylize(picture, painting, transform=nst.wct)
    assert torch.allclose(result, decoded[..., nst.MARGIN:, nst.MARGIN:][..., : picture.shape[2], : picture.shape[3]], atol=1e-5)
    with pytest.raises(ValueError, match="needs the style's maps"):
        adain.stylize(picture, adain.statistics(painting), transform=nst.wct)


# --- stylising --------------------------------------------------------------------------------------------------------


def test_alpha_0_is_the_decoded_content(adain, picture, painting):
    margin = nst.MARGIN
    height, width = picture.shape[-2:]
    padded = nn.functional.pad(picture, [margin] * 4, mode="replicate")
    decoded = adain.decode(adain.encoder(padded)["relu4_1"])[..., margin:margin + height, margin:margin + width].clamp(0, 1)
    assert torch.allclose(adain.stylize(picture, painting, alpha=0), decoded, atol=1e-6)


def test_alpha_goes_from_content_to_style(adain, picture, painting):
    images = [adain.stylize(picture, painting, alpha=alpha) for alpha in (0, 0.5, 1)]
    distances = [(image - images[0]).square().mean() for image in images]
    assert 0 == distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("transform", [nst.adain, nst.wct])
def test_autocast_around_a_pass_changes_nothing(adain, picture, painting, transform):
    expected = adain.stylize(picture, painting, transform=transform)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(adain.stylize(picture, painting, transform=transform), expected)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_out_of_range_is_refused(adain, picture, painting, alpha):
    with pytest.raises(ValueError, match="alpha is between 0 and 1"):
        adain.stylize(picture, painting, alpha=alpha)


@pytest.mark.parametrize("height, width", [(48, 64), (37, 51), (8, 8), (1, 1), (100, 3)])
def test_a_picture_of_any_size_keeps_it(adain, painting, height, width):
    picture = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    result = adain.stylize(picture, painting, keep_colours=True)
    assert result.shape == picture.shape and result.isfinite().all() and 0 <= result.min() and result.max() <= 1


def test_statistics_can_be_kept_instead_of_the_style(adain, picture, painting):
    statistics = adain.statistics(painting)
    assert statistics.shape == (1, 2, 192) and not statistics.requires_grad
    assert torch.equal(adain.stylize(picture, statistics), adain.stylize(picture, painting))


def test_a_picture_in_its_own_style_is_its_decoded_self(adain, picture):
    own = nst.mean_std(adain.encoder(nst.with_margin(picture))["relu4_1"])
    assert torch.allclose(adain.stylize(picture, own), adain.stylize(picture, own, alpha=0), atol=1e-4)


def test_all_weight_on_one_style_is_that_style(adain, picture, styles):
    for index, style in enumerate(styles):
        weights = [float(index == other) * 5 for other in range(3)]
        assert torch.allclose(adain.stylize(picture, styles, weights=weights), adain.stylize(picture, style), atol=1e-6)


def test_only_the_ratio_of_weights_counts(adain, picture, styles):
    even = adain.stylize(picture, styles)
    assert torch.allclose(adain.stylize(picture, styles, weights=[2, 2, 2]), even, atol=1e-6)
    assert not torch.allclose(adain.stylize(picture, styles, weights=[1, 2, 3]), even, atol=1e-3)
    same = adain.stylize(picture, [styles[0]] * 3, weights=[1, 2, 3])
    assert torch.allclose(same, adain.stylize(picture, styles[0]), atol=1e-5)


@pytest.mark.parametrize("options, message", [
    ({"weights": [1, 2]}, "3 styles, but 2 weights"), ({"masks": [torch.ones(1, 1, 4, 4)]}, "3 styles, but 1 masks"),
    ({"weights": [0, 0, 0]}, "not all 0"), ({"weights": [1, -1, 1]}, "at least 0"),
    ({"weights": [1, float("nan"), 1]}, "finite"), ({"weights": [1, 1, float("inf")]}, "finite"),
    ({"weights": [1, 1, 1], "masks": [torch.ones(1, 1, 4, 4)] * 3}, "not by both")])
def test_unusable_weights_and_masks_are_refused(adain, picture, styles, options, message):
    with pytest.raises(ValueError, match=message):
        adain.stylize(picture, styles, **options)


def test_no_style_at_all_is_refused(adain, picture):
    with pytest.raises(ValueError, match="There are 0 styles"):
        adain.stylize(picture, [])


def test_masks_give_each_side_its_own_style(adain, styles):
    picture = nst.sample("chelsea", 200)
    height, width = picture.shape[-2:]
    left = torch.zeros(1, 1, height, width)
    left[..., : width // 2] = 1
    both = adain.stylize(picture, styles[:2], masks=[left, 1 - left])
    one, other = (adain.stylize(picture, style) for style in styles[:2])
    far = 48  # what a decoded pixel sees of relu4_1
    assert torch.allclose(both[..., : width // 2 - far], one[..., : width // 2 - far], atol=1e-5)
    assert torch.allclose(both[..., width // 2 + far:], other[..., width // 2 + far:], atol=1e-5)
    assert not torch.allclose(one, other, atol=0.01)


def test_masks_need_neither_the_picture_s_size_nor_a_sum_of_1(adain, picture, styles):
    for small, large, alpha in ((0.5, 1.0, 1), (0.3, 0.6, 0.9)):  # what they leave stays the photograph
        masks = [torch.full((1, 1, 6, 8), small), torch.full((1, 1, 96, 128), large)]
        weighted = adain.stylize(picture, styles[:2], weights=[1, 2], alpha=alpha)
        assert torch.allclose(adain.stylize(picture, styles[:2], masks=masks), weighted, atol=1e-5)
    with pytest.raises(ValueError, match="80 x 99 pixels has another shape than the picture of 64 x 48"):
        adain.stylize(picture, styles[:2], masks=[torch.ones(99, 80)] * 2)


def test_where_no_mask_reaches_the_photograph_stays(adain, styles):
    picture, corner = nst.sample("chelsea", 200), torch.zeros(20, 30)
    corner[:2, :2] = 1
    far = 48  # what a decoded pixel sees of relu4_1, and the corner
    plain = adain.stylize(picture, styles[0], alpha=0)
    for chosen, masks in ((styles[0], corner), (styles[:2], [corner, corner])):  # a lone mask needs no list
        result = adain.stylize(picture, chosen, masks=masks)
        assert torch.allclose(result[..., 20 + far:, 20 + far:], plain[..., 20 + far:, 20 + far:], atol=1e-5)
        assert not torch.allclose(result[..., :8, :8], plain[..., :8, :8], atol=0.01)


def test_a_picture_without_its_first_dimension_is_no_statistics(adain, picture, styles):
    assert torch.equal(adain.stylize(picture[0], styles[0][0]), adain.stylize(picture, styles[0]))


def test_colours_can_be_kept(adain, picture, painting):
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    plain, kept = (adain.stylize(picture, painting, keep_colours=keep) for keep in (False, True))
    inside = ((kept > 0.001) & (kept < 0.999)).all(1)  # where nothing was cut off
    assert inside.float().mean() > 0.3
    difference = kept - picture
    assert difference.std(1)[inside].max() < 1e-5  # the same in red, green and blue: colours stay
    assert torch.allclose((kept * luma).sum(1)[inside], (plain * luma).sum(1)[inside], atol=1e-5)  # brightness is the style's


def test_the_result_has_no_frame(adain):
    """A flat picture stays flat up to its border, where padding with zeros would make a frame."""
    result = adain.stylize(torch.full((1, 3, 40, 56), 0.4), nst.sample("mosaic", 96))
    assert result.std((2, 3)).max() < 0.6 * adain_without_margin(adain).std((2, 3)).max()


def adain_without_margin(adain):
    maps = adain.encoder(torch.full((1, 3, 40, 56), 0.4))["relu4_1"]
    return adain.decode(nst.adain(maps, adain.statistics(nst.sample("mosaic", 96)))).clamp(0, 1)


# --- the network ------------------------------------------------------------------------------------------------------


def test_the_decoder_mirrors_the_encoder():
    network = nst.AdaIN("vgg19", weights=None, precision="float32")
    widths = [(m.in_channels, m.out_channels) for m in network.decoder if isinstance(m, nn.Conv2d)]
    assert widths == [(512, 256), (256, 256), (256, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64), (64, 3)]
    kinds = {type(module) for module in network.decoder}
    assert kinds == {nn.Conv2d, nn.ReLU, nn.ReflectionPad2d, nn.Upsample}  # no normalisation
    assert not any(parameter.requires_grad for parameter in network.encoder.parameters())


def test_the_decoder_mirrors_bottlenecks_too_and_any_depth(picture):
    network = nst.AdaIN("vgg16_compact", weights=None, layer="relu3_1", precision="float32")
    shapes = [tuple(m.weight.shape[:3]) for m in network.decoder if isinstance(m, nn.Conv2d)]
    assert shapes == [(32, 256, 1), (128, 32, 3), (24, 128, 1), (128, 24, 3), (16, 128, 1), (64, 16, 3),
                      (16, 64, 1), (64, 16, 3), (3, 64, 3)]
    assert network.layers == ("relu1_1", "relu2_1", "relu3_1") and network.stride == 4
    for layer in nst.STYLE_LAYERS:
        network = nst.AdaIN("vgg16_compact", weights=None, layer=layer, precision="float32")
        mask = torch.full((1, 1, 6, 8), 0.3)
        assert network.stylize(picture, [picture, picture], masks=[mask, 1 - mask]).shape == picture.shape
    with pytest.raises(ValueError, match="layer is one of relu1_1, .* not 'relu4_2'"):
        nst.AdaIN("vgg16_compact", weights=None, layer="relu4_2")


def test_only_a_vgg_can_be_the_encoder():
    with pytest.raises(ValueError, match="alexnet|relu4_1"):
        nst.AdaIN("alexnet", weights=None)


def test_a_decoder_that_can_t_be_had_is_a_clear_error(tmp_path):
    with pytest.raises(ValueError, match="No decoder for vgg19 is shipped: train_adain .*published_adain"):
        nst.AdaIN.pretrained("vgg19")
    with pytest.raises(FileNotFoundError, match="no weights file at .*absent.pt"):
        nst.AdaIN.pretrained(path=tmp_path / "absent.pt")
    torch.save({"0.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="other.pt does not hold the weights of a decoder for vgg19_compact"):
        nst.AdaIN.pretrained(path=tmp_path / "other.pt")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_threads_may_share_a_network(picture, painting, precision):
    """A slider's preview and the whole picture are computed at once; the check of memory runs the encoder without numbers."""
    network = nst.AdaIN(weights=None, precision=precision)
    expected, before = network.stylize(picture, painting), [value.clone() for value in network.parameters()]
    with ThreadPoolExecutor(4) as threads:
        images = list(threads.map(lambda _: network.stylize(picture, painting), range(24)))
    assert all(torch.equal(image, expected) for image in images)
    assert torch.equal(network.stylize(picture, painting), expected)
    assert all(one.dtype == other.dtype and torch.equal(one, other) for one, other in zip(network.parameters(), before))


def test_shapes_are_told_while_another_thread_computes(picture, network):
    expected = network(picture)
    with ThreadPoolExecutor(4) as threads:
        told = [threads.submit(network.shapes, 48, 64) for _ in range(40)]
        maps = list(threads.map(lambda _: network(picture), range(40)))
    assert all(torch.equal(one[layer], expected[layer]) for one in maps for layer in expected)
    assert {tuple(sorted(one.result().items())) for one in told} == {tuple(sorted(
        (layer, tuple(found.shape[1:])) for layer, found in expected.items()))}
