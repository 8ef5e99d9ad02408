"""What else than a Gram matrix may stand for style: statistics of feature maps, as StyleObjective takes them.

For whoever asks which statistic is style. Each is a function of maps (N, C, H, W) that gives a tensor (N, ...) of one shape for
pictures of any size; where the squared difference of two such tensors, divided by the square of the target, is not the measure,
the function carries its own in the attribute `distance`. A statistic of your own is a function like these: pass it to
`nst_utils.StyleObjective(statistic=...)`.
"""
from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

import nst_utils as nst

COUNT = 512  # directions, quantiles, and positions at most, of those statistics that would otherwise grow with the picture


def _positions_first(maps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, P, C), in at least float32."""
    return nst.full(maps).permute(0, 2, 3, 1).flatten(1, 2)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


# --- Moments ----------------------------------------------------------------------------------------------------------


def mean(maps: Tensor) -> Tensor:
    """(N, C). Its squared difference is the maximum mean discrepancy with the linear kernel x.y."""
    return nst.full(maps).mean((2, 3))


def polynomial(maps: Tensor) -> Tensor:
    """(N, C + 1, C): the Gram matrix, and sqrt(2) times the mean. The squared difference is the maximum mean discrepancy with
    the kernel (x.y + 1)^2 - 1; without the mean, of the Gram matrix alone, that with (x.y)^2 (Li et al. 2017, section 3)."""
    return torch.cat([nst.gram(maps), 2**0.5 * mean(maps)[:, None]], 1)


def gaussian(maps: Tensor) -> Tensor:
    """(N, C + 1, C): covariance and mean. Compared by `wasserstein`."""
    flat = _positions_first(maps)
    centre = flat.mean(1, keepdim=True)
    centred = flat - centre
    return torch.cat([centred.mT @ centred / flat.shape[1], centre], 1)


def wasserstein(value: Tensor, target: Tensor) -> Tensor:
    """The squared 2-Wasserstein distance of two normal distributions, (N,), from covariances and means (N, C + 1, C), divided by
    the mean square of the target: |m - m'|^2 + tr(S + S' - 2 (R S R)^(1/2)) with R R = S' (Dowson and Landau 1982, eq. 16)."""
    (covariance, centre), (wanted, aim) = ((moments[:, :-1], moments[:, -1]) for moments in (value, target))
    spread, size = (matrix.diagonal(dim1=1, dim2=2).sum(1) for matrix in (covariance, wanted))
    with torch.no_grad():  # any R with R R^T = S' gives R^T S R the same eigenvalues
        floor = 1e-6 * size[:, None, None] / wanted.shape[1] + 1e-8  # a flat style has none but rounding, on which eigh gives up
        regular = wanted + floor * torch.eye(wanted.shape[1]).to(wanted)
        values, vectors = (part.to(wanted) for part in torch.linalg.eigh(regular.cpu()))  # not all devices have eigenvalues
        factor = vectors * values.clamp_min(0).sqrt()[:, None]
    values = torch.linalg.eigvalsh((factor.mT @ covariance @ factor).cpu()).to(value)
    # what is nearly 0 is rounding, where the positions are fewer than the channels; the derivative of its root would be huge
    there = values > 1e-6 * values[:, -1:].clamp_min(1e-12)
    common = torch.where(there, torch.where(there, values, 1).sqrt(), 0).sum(1)
    distance = (centre - aim).square().sum(1) + spread + size - 2 * common
    return distance / (size + aim.square().sum(1)).clamp_min(1e-12)


gaussian.distance = wasserstein


# --- Kernels ----------------------------------------------------------------------------------------------------------


def samples(maps: Tensor) -> Tensor:
    """(N, COUNT, C): maps at so many positions, drawn with a fixed seed, in turn where there are fewer. Compared by `mmd_rbf`."""
    flat = _positions_first(maps)
    order = torch.randperm(flat.shape[1], generator=_generator()).repeat(-(-COUNT // flat.shape[1]))[:COUNT]
    return flat[:, order.to(flat.device)]


def mmd(value: Tensor, target: Tensor, kernel: Callable[[Tensor, Tensor], Tensor], *, unbiased: bool = False) -> Tensor:
    """The squared maximum mean discrepancy, (N,), of samples (N, P, C) and (N, Q, C) (Gretton et al. 2012, eq. 5, and eq. 3 if
    unbiased: pairs of a sample with itself left out). kernel: of (N, P, C) and (N, Q, C), gives (N, P, Q)."""
    def average(one: Tensor, other: Tensor) -> Tensor:
        table = kernel(one, other)
        if one is other and unbiased:
            count = table.shape[1]
            return (table.sum((1, 2)) - table.diagonal(dim1=1, dim2=2).sum(1)) / (count * (count - 1))
        return table.mean((1, 2))
    return average(value, value) + average(target, target) - 2 * average(value, target)


def mmd_rbf(value: Tensor, target: Tensor) -> Tensor:
    """With the kernel exp(-|x - y|^2 / 2 s^2), s the median distance within the target (Gretton et al. 2012, section 8)."""
    with torch.no_grad():
        width = torch.cdist(target, target).flatten(1).median(1).values.clamp_min(1e-6)[:, None, None]

    def kernel(one: Tensor, other: Tensor) -> Tensor:
        squares = one.square().sum(2)[:, :, None] + other.square().sum(2)[:, None] - 2 * one @ other.mT
        return (-squares.clamp_min(0) / (2 * width**2)).exp()
    return mmd(value, target, kernel)


samples.distance = mmd_rbf


# --- Sorted values ----------------------------------------------------------------------------------------------------


def quantiles(flat: Tensor) -> Tensor:
    """(N, P, D) -> (N, D, COUNT): each of D columns sorted, at evenly spaced quantiles."""
    return F.interpolate(flat.mT.sort(2).values, COUNT, mode="linear", align_corners=False)


def histogram(maps: Tensor) -> Tensor:
    """(N, C, COUNT): the distribution of each channel by itself, as its quantiles (Risser et al. 2017 match histograms)."""
    return quantiles(_positions_first(maps))


@functools.cache
def directions(channels: int, count: int = COUNT, *, seed: int = 0) -> Tensor:
    """(C, D): unit vectors drawn evenly from all directions; the same ones at each call, so that a run has one objective."""
    return F.normalize(torch.randn(channels, count, generator=_generator(seed)), dim=0)


def sliced(maps: Tensor) -> Tensor:
    """(N, D, COUNT): the distributions along min(C, COUNT) fixed directions, as quantiles. The mean squared difference is the
    sliced 2-Wasserstein distance (Heitz et al. 2021, eq. 5, who draw new directions for each step)."""
    flat = _positions_first(maps)
    return quantiles(flat @ directions(flat.shape[2], min(flat.shape[2], COUNT)).to(flat))


STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "Gram matrix": nst.gram, "mean and deviation": nst.mean_std, "mean (MMD, linear)": mean, "MMD, polynomial": polynomial,
    "MMD, RBF": samples, "covariance and mean (Wasserstein)": gaussian, "sliced Wasserstein": sliced, "histograms": histogram}
