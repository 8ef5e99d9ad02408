"""The mathematics, with cases a person can compute, and against an independent reference in double precision."""
import pytest
import torch
from torch.nn import functional as F

import nst_utils as nst

# two channels at two positions: channel 1 is (1, 2), channel 2 is (3, 4)
MAPS = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 2, 1, 2)


def random_maps(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gram_by_hand():
    assert nst.gram(MAPS).tolist() == [[[2.5, 5.5], [5.5, 12.5]]]


def test_gram_keeps_the_batch_apart():
    both = torch.cat([MAPS, 2 * MAPS])
    assert torch.equal(nst.gram(both), torch.cat([nst.gram(MAPS), 4 * nst.gram(MAPS)]))


def test_gram_ignores_where_things_are():
    maps = random_maps(1, 4, 5, 6)
    shuffled = maps.flatten(2)[..., torch.randperm(30, generator=torch.Generator().manual_seed(1))].view_as(maps)
    assert torch.allclose(nst.gram(maps), nst.gram(shuffled))


def test_gram_does_not_depend_on_memory_layout():
    maps = random_maps(2, 4, 5, 6)
    assert torch.allclose(nst.gram(maps), nst.gram(maps.contiguous(memory_format=torch.channels_last)))


def test_mean_std_by_hand():
    assert torch.allclose(nst.mean_std(MAPS), torch.tensor([[[1.5, 3.5], [0.5, 0.5]]]), atol=1e-4)


def test_gram_distance_is_a_maximum_mean_discrepancy():
    """Li et al. 2017: sum (G - A)^2 = mean k(x, x') - 2 mean k(x, y) + mean k(y, y') with k(x, y) = (x . y)^2."""
    a, b = random_maps(1, 5, 4, 4), random_maps(1, 5, 3, 7, seed=1)
    x, y = a.flatten(2)[0].T, b.flatten(2)[0].T
    kernel = lambda u, v: ((u @ v.T) ** 2).mean()  # noqa: E731
    expected = kernel(x, x) - 2 * kernel(x, y) + kernel(y, y)
    assert torch.allclose((nst.gram(a) - nst.gram(b)).square().sum(), expected)


def test_relative_error_is_zero_for_equal_and_one_for_black():
    assert nst.relative_error(MAPS, MAPS).item() == 0
    assert nst.relative_error(torch.zeros_like(MAPS), MAPS).item() == 1
    assert nst.relative_error(MAPS, torch.zeros_like(MAPS)).isfinite()


def test_content_loss_by_hand():
    assert nst.content_loss(MAPS + 1, MAPS, scale="gatys").item() == 2  # half of four ones
    assert nst.content_loss(MAPS + 1, MAPS).item() == pytest.approx(4 / 30)


def test_gatys_style_loss_is_equation_4():
    a, b = random_maps(1, 3, 4, 5), random_maps(1, 3, 4, 5, seed=1)
    flat_a, flat_b = a.flatten(2)[0], b.flatten(2)[0]
    expected = (flat_a @ flat_a.T - flat_b @ flat_b.T).square().sum() / (4 * 3**2 * 20**2)
    assert torch.allclose(nst.style_loss(nst.gram(a), nst.gram(b), scale="gatys"), expected)


def test_losses_are_per_picture():
    a, b = random_maps(2, 3, 4, 5), random_maps(2, 3, 4, 5, seed=1)
    for scale in ("relative", "gatys"):
        each = torch.cat([nst.content_loss(a[i : i + 1], b[i : i + 1], scale=scale) for i in range(2)])
        assert torch.allclose(nst.content_loss(a, b, scale=scale), each)


def test_total_variation_by_hand():
    checkerboard = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).expand(1, 3, 2, 2)
    assert nst.total_variation(checkerboard).item() == 2
    assert nst.total_variation(checkerboard / 2, power=2).item() == 0.5
    assert nst.total_variation(checkerboard / 2, power=1).item() == 1
    assert nst.total_variation(torch.full((1, 3, 4, 4), 0.3)).item() == 0


def test_unknown_scale_and_statistic():
    with pytest.raises(ValueError, match="relative"):
        nst.content_loss(MAPS, MAPS, scale="absolute")
    with pytest.raises(ValueError, match="Gram matrices"):
        nst.style_loss(*[nst.mean_std(random_maps(1, 3, 2, 2))] * 2, scale="gatys")
    with pytest.raises(ValueError, match="nearest: gram"):
        nst.StyleObjective(style=torch.rand(1, 3, 32, 32), statistic="grim")


@pytest.mark.parametrize("function", [
    nst.gram, nst.mean_std,
    lambda maps: nst.content_loss(maps, random_maps(2, 3, 3, 4, seed=5)),
    lambda maps: nst.content_loss(maps, random_maps(2, 3, 3, 4, seed=5), scale="gatys"),
    lambda maps: nst.style_loss(nst.gram(maps), nst.gram(random_maps(2, 3, 3, 4, seed=5))),
    lambda maps: nst.style_loss(nst.gram(maps), nst.gram(random_maps(2, 3, 3, 4, seed=5)), scale="gatys"),
    lambda maps: nst.style_loss(nst.mean_std(maps), nst.mean_std(random_maps(2, 3, 3, 4, seed=5))),
    nst.total_variation,
])
def test_gradients(function):
    assert torch.autograd.gradcheck(function, random_maps(2, 3, 3, 4).requires_grad_(True))


def reference_gatys_loss(image, content, style, state, content_weight, style_weight):
    """Equations 1-7 of Gatys et al. 2016, written from the paper with functional calls only."""
    def features(x):
        x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1).double()) \
            / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1).double()
        maps, index = {}, 0
        for block, depth in enumerate((2, 2, 3, 3, 1), start=1):
            for layer in range(1, depth + 1):
                x = F.relu(F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1))
                maps[block, layer], index = x[0].flatten(1), index + 2  # N_l x M_l, as in the paper
            x, index = F.max_pool2d(x, 2), index + 1
        return maps

    ours, photograph, painting = features(image), features(content), features(style)
    content_loss = ((ours[4, 2] - photograph[4, 2]) ** 2).sum() / 2
    style_loss = 0
    for block in range(1, 6):
        f, s = ours[block, 1], painting[block, 1]
        n, m = f.shape
        # the paper has one M for both pictures; per position, G M / M_s makes pictures of two sizes comparable
        style_loss = style_loss + ((f @ f.T - s @ s.T * m / s.shape[1]) ** 2).sum() / (4 * n**2 * m**2) / 5
    return content_weight * content_loss + style_weight * style_loss


def test_loss_and_gradient_against_the_reference(picture, painting):
    extractor = nst.FeatureExtractor("vgg16", (*nst.STYLE_LAYERS, "relu4_2"), weights=None, precision="float64", seed=3)
    picture, painting = picture.double(), painting.double()
    objective = nst.StyleObjective(picture, painting, extractor=extractor, scale="gatys", content_weight=1e-2,
                                   style_weight=1e3)
    state = {name.replace("body.", "features."): value for name, value in extractor.state_dict().items()}
    image = random_maps(1, 3, 48, 64, seed=2).requires_grad_(True)
    ours, theirs = objective(image)[0], reference_gatys_loss(image, picture, painting, state, 1e-2, 1e3)
    assert torch.allclose(ours, theirs, rtol=1e-6)  # the ImageNet mean is stored in float32
    gradients = torch.autograd.grad(ours, image)[0], torch.autograd.grad(theirs, image)[0]
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[1].norm()
    assert gradients[1].norm() > 0


def test_terms_add_up_to_the_total(picture, painting, network):
    weights = dict(zip(nst.STYLE_LAYERS, (0.4, 0.3, 0.2, 0.1, 0.0)))
    objective = nst.StyleObjective(picture, painting, extractor=network, content_weight=2, style_weight=3, tv_weight=5,
                                   style_layer_weights=weights)
    total, terms = objective(picture * 0.9)
    assert terms["style"].item() == pytest.approx(sum(weights[n] * terms[f"style {n}"].item() for n in weights))
    assert total.item() == pytest.approx(2 * terms["content"].item() + 3 * terms["style"].item() + 5 * terms["tv"].item())


def test_the_target_itself_costs_nothing(picture, network):
    objective = nst.StyleObjective(picture, picture, extractor=network)
    assert objective(picture)[0].item() < 1e-9


def test_an_own_statistic_can_be_passed(picture, painting, network):
    objective = nst.StyleObjective(style=painting, extractor=network, statistic=lambda maps: maps.mean((2, 3)))
    assert objective(picture)[1]["style"].item() > 0 and objective(painting)[1]["style"].item() == 0
