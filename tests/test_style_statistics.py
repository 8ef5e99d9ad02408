"""The statistics beside the Gram matrix: closed forms, invariances, and pictures that bring them to their limits."""
import math

import pytest
import torch

import nst_utils as nst
import style_statistics
from style_statistics import STATISTICS, gaussian, mmd, mmd_rbf, quantiles, sliced, wasserstein


def some_maps(seed, channels=6, size=(8, 9), dtype=torch.float64):
    """Seeded maps (1, C, H, W) with correlated channels of different means."""
    draw = torch.Generator().manual_seed(seed)
    mix, noise, centre = (torch.randn(channels, count, generator=draw, dtype=dtype) for count in (channels, math.prod(size), 1))
    return (mix @ noise + centre).view(1, channels, *size)


def flat(maps):
    return maps.flatten(2).mT


def difference(statistic, one, other):
    return (statistic(one) - statistic(other)).square().flatten(1).sum(1)


@pytest.mark.parametrize("statistic, kernel", [
    (nst.gram, lambda x, y: (x @ y.mT) ** 2), (style_statistics.mean, lambda x, y: x @ y.mT),
    (style_statistics.polynomial, lambda x, y: (x @ y.mT + 1) ** 2 - 1)])
def test_moments_are_maximum_mean_discrepancies(statistic, kernel):
    one, other = some_maps(0), some_maps(1, size=(5, 7))
    assert difference(statistic, one, other).item() == pytest.approx(mmd(flat(one), flat(other), kernel).item(), rel=1e-9)


def test_the_unbiased_estimate_is_right_on_the_mean_and_the_full_one_too_large():
    one, other = some_maps(0, size=(40, 40)), some_maps(1, size=(40, 40))
    kernel = lambda x, y: x @ y.mT  # noqa: E731
    true, parts, draw = mmd(flat(one), flat(other), kernel), [], torch.Generator().manual_seed(2)
    for _ in range(400):
        few = [flat(maps)[:, torch.randint(1600, (12,), generator=draw)] for maps in (one, other)]
        parts.append(torch.cat([mmd(*few, kernel, unbiased=True), mmd(*few, kernel)]))
    unbiased, full = torch.stack(parts).mean(0)
    error = torch.stack(parts).std(0)[0] / 400**0.5
    assert abs(unbiased - true) < 3 * error and full - true > 3 * error


def test_wasserstein_has_its_closed_form_for_diagonal_covariances():
    draw = torch.Generator().manual_seed(0)
    deviations, centres = (torch.rand(2, 6, generator=draw, dtype=torch.float64) for _ in range(2))
    one, other = (torch.cat([deviation.square().diag(), centre[None]])[None] for deviation, centre in zip(deviations, centres))
    wanted = (centres[0] - centres[1]).square().sum() + (deviations[0] - deviations[1]).square().sum()
    size = deviations[1].square().sum() + centres[1].square().sum()
    assert wasserstein(one, other).item() == pytest.approx((wanted / size).item(), rel=1e-3)
    assert wasserstein(other, other).item() == pytest.approx(0, abs=1e-5)


def test_wasserstein_agrees_with_matrix_roots():
    one, other = gaussian(some_maps(0)), gaussian(some_maps(1))

    def root(matrix):
        values, vectors = torch.linalg.eigh(matrix)
        return vectors * values.clamp_min(0).sqrt() @ vectors.mT
    (first, centre), (second, aim) = ((moments[0, :-1], moments[0, -1]) for moments in (one, other))
    wanted = (centre - aim).square().sum() + (first + second - 2 * root(root(second) @ first @ root(second))).trace()
    size = second.trace() + aim.square().sum()
    assert wasserstein(one, other).item() == pytest.approx((wanted / size).item(), rel=1e-3)


def test_sliced_wasserstein_is_that_of_sorted_projections():
    one, other = some_maps(0, size=(16, 32)), some_maps(1, size=(16, 32))  # as many positions as quantiles
    along = style_statistics.directions(6, 6).double()
    by_hand = (torch.sort(flat(one)[0] @ along, 0).values - torch.sort(flat(other)[0] @ along, 0).values).square().mean()
    assert (sliced(one) - sliced(other)).square().mean().item() == pytest.approx(by_hand.item(), rel=1e-9)
    assert torch.allclose(along.norm(dim=0), torch.ones(6).double())


@pytest.mark.parametrize("name", STATISTICS)
def test_positions_don_t_matter(name):
    statistic, maps = STATISTICS[name], some_maps(0, size=(8, 8))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    mixed = maps.flatten(2)[..., order].view_as(maps)
    if name == "MMD, RBF":  # of which all 64 are drawn, eight times each
        assert mmd_rbf(statistic(mixed), statistic(maps)).item() == pytest.approx(0, abs=1e-9)
    else:
        assert torch.allclose(statistic(mixed), statistic(maps), atol=1e-9)


def test_quantiles_hardly_feel_how_many_values_there_are():
    values = torch.randn(1, 20000, 1, generator=torch.Generator().manual_seed(0))
    few, many = quantiles(values[:, :5000]), quantiles(values)
    assert (few - many)[..., 5:-5].abs().max() < 0.25 and few.shape == many.shape == (1, 1, style_statistics.COUNT)


@pytest.mark.parametrize("name", STATISTICS)
def test_every_statistic_paints(name, picture, painting, network):
    objective = nst.StyleObjective(picture, painting, extractor=network, statistic=STATISTICS[name])
    *_, last = nst.optimize_image(picture, objective, steps=12)
    start = objective(picture)[1]["style"].item()
    assert last.image.isfinite().all() and last.losses["style"] < 0.8 * start
    itself = nst.StyleObjective(None, painting, extractor=network, statistic=STATISTICS[name])
    assert itself(painting)[1]["style"].item() < 0.01 * start


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("style", [torch.full((1, 3, 48, 64), 0.5), torch.linspace(0, 1, 64).expand(1, 3, 48, 64)])
def test_flat_and_grey_styles_give_no_nan(name, style, picture, network):
    objective = nst.StyleObjective(picture, style, extractor=network, statistic=STATISTICS[name])
    image = picture.clone().requires_grad_(True)
    objective(image)[0].sum().backward()
    assert image.grad.isfinite().all()
    assert all(step.image.isfinite().all() for step in nst.optimize_image(style, objective, steps=3))


@pytest.mark.parametrize("name", STATISTICS)
def test_a_batch_is_judged_as_its_pictures_alone(name, picture, painting, network):
    batch = torch.cat([picture, picture.flip(2)])
    objective = nst.StyleObjective(None, painting, extractor=network, statistic=STATISTICS[name])
    alone = torch.cat([objective(one)[0] for one in batch.split(1)])
    assert torch.allclose(objective(batch)[0], alone, rtol=1e-3)
