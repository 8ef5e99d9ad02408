"""What holds for all pictures, sizes, layers and networks, tried by hypothesis on inputs that it draws, the same every time."""
import functools

import pytest
import torch

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
from hypothesis import Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import nst_utils as nst  # noqa: E402
import style_statistics  # noqa: E402

ARCHS = ("vgg16_compact", "vgg11", "vgg16", "alexnet", "resnet18", "googlenet", "densenet121", "squeezenet1_1",
         "mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0", "regnet_y_400mf", "mnasnet0_5", "convnext_tiny")
SEEDS = st.integers(0, 2**31)
TRIED = []


def tried(count):
    """So many examples, the same on every machine, however long each takes; one that fails is shown as it is."""
    TRIED.append(count)
    return settings(max_examples=count, derandomize=True, deadline=None, database=None, phases=[Phase.generate])


def drawn(seed, *shape, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@functools.cache
def untrained(arch):
    """A network and its layers."""
    network = nst.load_network(arch, weights=None)
    return network, list(nst.layer_nodes(network))


def pixels_of(data, least, most=700, area=10_000):
    """A height and a width from `least` to `most`, odd ones and strips among them, of at most so many pixels in all."""
    one = data.draw(st.integers(least, most))
    other = data.draw(st.integers(least, max(least, min(most, area // one))))
    return data.draw(st.permutations((one, other)))


@tried(20)
@given(data=st.data(), arch=st.sampled_from(ARCHS), seed=SEEDS)
def test_losses_are_finite_and_gradients_have_the_shape_of_the_picture(data, arch, seed):
    network, names = untrained(arch)
    layer, count = data.draw(st.sampled_from(names)), data.draw(st.integers(1, 3))
    try:
        extractor = nst.FeatureExtractor(network, [layer], precision="float32")
    except ValueError as error:  # what comes after the global pool, and what cuts maps into pieces
        assert str(error) == f"The layer {layer!r} of {type(network).__name__} gives no maps (N, C, H, W)."
        return
    content, style = (drawn(seed + k, 1, 3, *pixels_of(data, extractor.min_size)) for k in range(2))
    objective = nst.StyleObjective(content, style, content_layers=layer, style_layers=layer, tv_weight=1, extractor=extractor)
    images = drawn(seed, count, 3, *content.shape[-2:]).requires_grad_(True)
    total, terms = objective(images)
    total.sum().backward()
    assert total.shape == (count,) and all(loss.isfinite().all() and (loss >= 0).all() for loss in terms.values())
    assert images.grad.shape == images.shape and images.grad.isfinite().all()


@tried(15)
@given(data=st.data(), seed=SEEDS, optimizer=st.sampled_from(("lbfgs", "adam", "sgd")),
       start=st.sampled_from(("content", "noise")), weight=st.sampled_from((0.0, 1e-3, 1.0, 100.0, 1e6)))
def test_the_best_loss_is_never_above_the_first(data, seed, optimizer, start, weight):
    content, style = (drawn(seed + k, 1, 3, *pixels_of(data, 32, most=200, area=6_000)) for k in range(2))
    extractor = nst.FeatureExtractor(untrained("vgg16_compact")[0], (*nst.STYLE_LAYERS, *nst.CONTENT_LAYERS), precision="float32")
    step = nst.stylize(content, style, size=None, start=start, seed=seed, steps=4, optimizer=optimizer, style_weight=weight,
                       extractor=extractor, show_progress=False, device="cpu")
    assert step.image.shape == content.shape and step.losses["total"] <= step.history[0]["total"]
    assert 0 <= step.image.min() and step.image.max() <= 1


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12))


@tried(60)
@given(shape=SHAPES, seed=SEEDS, factor=st.floats(-8, 8))
def test_gram_matrices_know_no_positions_and_grow_with_the_square(shape, seed, factor):
    maps = drawn(seed, *shape, dtype=torch.float64) - 0.3
    matrix = nst.gram(maps)
    order = torch.randperm(shape[2] * shape[3], generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(nst.gram(maps.flatten(2)[:, :, order].view(shape)), matrix)
    torch.testing.assert_close(nst.gram(maps.mT.flip(-1)), matrix)
    torch.testing.assert_close(nst.gram(maps * factor), matrix * factor**2)
    torch.testing.assert_close(nst.gram(maps.repeat(1, 1, 2, 3)), matrix)  # twice as high, thrice as wide
    torch.testing.assert_close(torch.cat([nst.gram(one[None]) for one in maps]), matrix)
    torch.testing.assert_close(matrix, matrix.mT)
    assert (torch.linalg.eigvalsh(matrix) > -1e-12).all()


@tried(40)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=SEEDS,
       suffix=st.sampled_from((".png", ".webp", ".tiff", ".bmp", ".ppm")))
def test_what_is_saved_is_loaded(tmp_path_factory, height, width, seed, suffix):
    image = (drawn(seed, 1, 3, height, width) * 255).round() / 255
    path = nst.save_image(image, tmp_path_factory.getbasetemp() / f"saved{suffix}")
    assert torch.equal(nst.load_image(path), image)


@tried(40)
@given(shape=SHAPES, seed=SEEDS)
def test_maps_with_their_own_statistics_are_themselves(shape, seed):
    maps = drawn(seed, *shape) * 3
    torch.testing.assert_close(nst.adain(maps, maps), maps, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(nst.adain(maps, maps.flip(-1)), maps, rtol=1e-3, atol=1e-4)


@functools.cache
def untrained_adain():
    return nst.AdaIN(weights=None, precision="float32", seed=1).eval()


@tried(10)
@given(data=st.data(), seed=SEEDS)
def test_a_picture_in_its_own_style_is_what_the_decoder_makes_of_it(data, seed):
    image, network = drawn(seed, 1, 3, *pixels_of(data, 16, most=160, area=6_000)), untrained_adain()
    style = nst.with_margin(image, network.stride)  # the network sees the picture with its margin
    torch.testing.assert_close(network.stylize(image, style), network.stylize(image, style, alpha=0), rtol=1e-3, atol=1e-3)
    assert network.stylize(image, style).shape == image.shape


BOUNDS = {"float32": 1e-4, "bfloat16": 0.05}  # of the value in float64: 24 and 8 bits, added up over a few hundred numbers


@tried(30)
@given(seed=SEEDS, channels=st.integers(2, 8), side=st.integers(4, 24),
       name=st.sampled_from(sorted(nst.STYLE_STATISTICS | style_statistics.STATISTICS)))
def test_every_loss_in_every_precision(seed, channels, side, name):
    statistic = (nst.STYLE_STATISTICS | style_statistics.STATISTICS)[name]
    distance = getattr(statistic, "distance", nst.style_loss)
    maps, others = (drawn(seed + k, 1, channels, side, side, dtype=torch.float64) * (1 + k) for k in range(2))

    def losses(dtype):
        one, other = maps.to(dtype), others.to(dtype)
        return torch.cat([distance(statistic(one), statistic(other)), nst.content_loss(nst.full(one), nst.full(other)),
                          nst.total_variation(nst.full(one))]).double()
    exact = losses(torch.float64)
    for precision, bound in BOUNDS.items():
        torch.testing.assert_close(losses(nst.PRECISIONS[precision]), exact, rtol=bound, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam", "sgd"])
def test_constant_and_tiny_pictures_become_no_nan(value, optimizer):
    extractor = nst.FeatureExtractor(untrained("vgg16_compact")[0], (*nst.STYLE_LAYERS, *nst.CONTENT_LAYERS), precision="float32")
    flat = torch.full((1, 3, extractor.min_size, extractor.min_size), value)
    for content, style in ((flat, flat), (flat, drawn(0, 1, 3, 33, 47)), (drawn(0, 1, 3, 33, 47), flat)):
        step = nst.stylize(content, style, size=None, steps=3, optimizer=optimizer, extractor=extractor, show_progress=False,
                           device="cpu")
        assert step.image.isfinite().all() and all(loss == loss for loss in step.losses.values())
        assert untrained_adain().stylize(content, style).isfinite().all()
        assert untrained_adain().stylize(content, style, transform=nst.wct).isfinite().all()


def test_how_much_is_drawn(reliability):
    reliability("sizes from 1 x 1 to 700 pixels, batches, layers of 14 networks, weights, maps (hypothesis)",
                f"{sum(TRIED)} drawn inputs", "losses finite, gradients in shape, the best never worse than the first")
