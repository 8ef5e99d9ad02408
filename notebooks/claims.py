"""What the five course reports say, and the runs that put it to the test.

A recording is a set of runs that several claims ask for; `python notebooks/experiments.py record` makes them, on the bench of
experiments.py, and keeps their numbers in data/measurements. Nothing here draws or judges by eye: notebooks show.
"""
from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import combinations
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from scipy.stats import beta as beta_distribution
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

import nst_utils as nst
import style_statistics
from experiments import (
    BENCH,
    MEASUREMENTS,
    SEEDS,
    SIX,
    Lab,
    Recording,
    Verdict,
    faint_noise,
    measurements,
    octaves,
    record,
    verdict,
)

Row = dict[str, Any]
STYLES = tuple(dict.fromkeys(style for _, style in BENCH))
CONVOLUTIONS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
                "conv5_1")  # up to where the compact network ends; PR counts them from 0
WEIGHTS, BETAS, RATIOS = (1.0, 10.0, 100.0, 1e3, 1e4), (1e2, 1e3, 1e4, 1e5, 1e6), (1e-5, 1e-4, 1e-3, 1e-2)
COUNTS, FACTORS = (1, 2, 3, 4, 5), (0.1, 1.0, 10.0)
SPOTS = (0, *dict.fromkeys(np.geomspace(1, 1000, 40).round().astype(int).tolist()))  # steps whose totals are kept
LEVELS = (2.0, 1.5, 1.2, 1.1, 1.05)  # of the total, over the lowest
RELUS = tuple(layer.replace("conv", "relu") for layer in CONVOLUTIONS)
STRIDES = (2, 4, 8, 16)  # pixels between two positions of a map
MATCHED = {"vgg16_compact": ("relu2_1", "relu3_1", "relu4_1", "relu5_1"),  # layers at STRIDES; those of training.FAMILIES
           "resnet_compact": ("relu", "layer1", "layer2", "layer3"),
           "googlenet_compact": ("conv1", "conv3", "inception3b", "inception4c")}
PAINTED = tuple(("rocket", style) for style in ("swirls", "facets", "aurora_wash"))  # for van Gogh, Kandinsky and Turner
FIRSTS = tuple(layer for layer in CONVOLUTIONS if layer.endswith("_1"))
NUMBERS = frozenset(  # columns that are measured; the others say of what
    ("total", "content", "style", "lpips", "coarse lpips", "ssim", "colour", "psnr", "coarse", "sharpness", "detail", "alexnet",
     "vgg16", "roughness", "share", "strokes", "seconds", "needed", "touched", "difference", "same", "fine", "pass", "evaluation",
     "megapixels", "memory", "points", *nst.STYLE_LAYERS, *(f"octave {k}" for k in range(1, 7)),
     *(f"stride {k}" for k in STRIDES), *(f"by {name}" for name in style_statistics.STATISTICS)))


def _pictures(lab: Lab, *names: str) -> list[Tensor]:
    return [nst.sample(name, lab.size) for name in names]


def _rows(lab: Lab, runs: Mapping[tuple, Mapping[int, nst.Step]], content: Tensor | None, style: Tensor | None, *names: str,
          shown: bool = False) -> Iterator[Row]:
    """A row for every kept step of every run: the label of the run under `names`, evaluations, and what is judged of it; and the
    picture itself if it is to be shown."""
    for label, steps in runs.items():
        for step in steps.values():
            row = dict(zip(names, label)) | {"evaluations": step.evaluations} | lab.judged(step, content, style)
            yield row | ({"picture": step.image.cpu()} if shown else {})


def _last(steps: Mapping[int, nst.Step]) -> Tensor:
    return steps[max(steps)].image


def _coarse(image: Tensor) -> Tensor:
    """The picture without all that is finer than 8 pixels, in its size."""
    return F.interpolate(F.avg_pool2d(image, 8, ceil_mode=True, count_include_pad=False), image.shape[-2:])


# --- From noise or from the photograph --------------------------------------------------------------------------------


def starts(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Each pair from photograph, style and noise, until the total falls by less than 0.1 % in 20 steps."""
    content, style = _pictures(lab, *pair)
    cells = {("content", 0): {"start": "content"}, ("style", 0): {"start": "style"}}
    cells |= {("noise", seed): {"start": "noise", "seed": seed} for seed in SEEDS}
    runs = lab.runs(cells, content=content, style=style, steps=1200, tolerance=1e-3, marks=(3, 6, 12, 25, 50, 100, 200, 400))
    yield from _rows(lab, runs, content, style, "start", "seed")
    for (one, a), (other, b) in combinations(runs.items(), 2):
        images = _last(a), _last(b)
        yield {"start": f"{one[0]} against {other[0]}", "seed": one[1] + 10 * other[1],
               "lpips": lab.judges["alexnet"].lpips(*images), "coarse lpips": lab.judges["alexnet"].lpips(*map(_coarse, images))}


def epochs(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """A long run from the photograph and one from noise: totals on the way, some of the pictures judged, and how many evaluations
    it took to so many times the lower of the two last totals."""
    content, style = _pictures(lab, *pair)
    runs = lab.runs({start: {"start": start} for start in ("content", "noise")}, content=content, style=style, steps=1000,
                    marks=(25, 50, 100, 200, 400, 600, 800))
    totals = {start: [losses["total"] for losses in steps[max(steps)].history] for start, steps in runs.items()}
    for start, steps in runs.items():
        for index in sorted({*steps, *(spot for spot in SPOTS if spot < len(totals[start]))}):
            seen = lab.judged(steps[index], content, style) if index in steps else {}
            yield {"start": start, "evaluations": index + 1} | seen | {"total": totals[start][index]}
    lowest = min(map(min, totals.values()))
    for start, run in totals.items():
        for level in LEVELS:
            needed = next((count for count, total in enumerate(run, 1) if total <= level * lowest), math.inf)
            yield {"start": start, "level": level, "needed": needed}


# --- Weights and layers -----------------------------------------------------------------------------------------------


def weights(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Five style weights; with six of the pairs the content compared at a shallow depth as well."""
    content, style = _pictures(lab, *pair)
    cells = {(layer, weight): {"content_layers": [layer], "style_weight": weight}
             for layer in ("relu4_2", *["relu2_1"] * (pair in SIX)) for weight in WEIGHTS}
    runs = lab.runs(cells, content=content, style=style, steps=150)
    yield from _rows(lab, runs, content, style, "content_layer", "style_weight")


def painters(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """The settings of Thakrar and Chen for three painters' styles: 800 epochs at a learning rate of 0.05, alpha 1, beta 1e4. They
    name no optimiser; Adam is one of which a step is an epoch."""
    content, style = _pictures(lab, *pair)
    runs = lab.runs({("adam",): {}}, content=content, style=style, scale="gatys", content_weight=1.0, style_weight=1e4,
                    content_layers=["conv4_2"], style_layers=FIRSTS, optimizer="adam", learning_rate=0.05, steps=800,
                    marks=(25, 100, 400))
    yield from _rows(lab, runs, content, style, "optimizer", shown=True)


def content_layers(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Each layer as the content layer, from noise; relu4_2 with a second seed."""
    content, style = _pictures(lab, *pair)
    cells = {(layer, 0): {"content_layers": [layer], "seed": 0} for layer in RELUS}
    cells["relu4_2", 1] = {"content_layers": ["relu4_2"], "seed": 1}
    runs = lab.runs(cells, content=content, style=style, start="noise", steps=200)
    yield from _rows(lab, runs, content, style, "content_layer", "seed")
    for (one, a), (other, b) in combinations(runs.items(), 2):
        yield {"content_layer": f"{one[0]} against {other[0]}", "seed": one[1] + 10 * other[1],
               "lpips": lab.judges["alexnet"].lpips(_last(a), _last(b))}


def style_layers(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Each style layer alone, and all five."""
    content, style = _pictures(lab, *pair)
    cells = {(layer,): {"style_layers": [layer]} for layer in nst.STYLE_LAYERS} | {("all",): {}}
    yield from _rows(lab, lab.runs(cells, content=content, style=style, steps=150), content, style, "style_layer")


def grid_beta(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """The grid of PR: content at index 4, beta from 1e2 to 1e6, style at the first one to five convolutions."""
    content, style = _pictures(lab, *pair)
    cells = {(count, beta): {"style_layers": CONVOLUTIONS[:count], "style_weight": beta}
             for count in COUNTS for beta in BETAS}
    runs = lab.runs(cells, content=content, style=style, content_layers=["conv3_1"], scale="gatys", steps=150)
    yield from _rows(lab, runs, content, style, "indices", "beta", shown=pair == SIX[0])


def grid_ratio(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """The grid of TC: alpha/beta from 1e-5 to 1e-2, style at conv1_1, and on to conv5_1, both poolings, from faint noise (of full
    contrast a grain is left that no layer minds, and it would cover the strokes)."""
    content, style = _pictures(lab, *pair)
    start = faint_noise(content, 0.2)
    for pooling in ("max", "avg"):
        cells = {(pooling, count, ratio): {"style_layers": FIRSTS[:count], "content_weight": ratio}
                 for count in COUNTS for ratio in RATIOS}
        runs = lab.runs(cells, content=content, style=style, start=start, scale="gatys", style_weight=1.0, pooling=pooling,
                        content_layers=["conv4_2"], steps=200)
        yield from _rows(lab, runs, content, style, "pooling", "layers", "ratio", shown=pair == SIX[0])


def pooling(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Max and average pooling, from the photograph and from three noises."""
    content, style = _pictures(lab, *pair)
    for kind in ("max", "avg"):
        cells = {(kind, "content", 0): {"start": "content"}}
        cells |= {(kind, "noise", seed): {"start": "noise", "seed": seed} for seed in SEEDS}
        runs = lab.runs(cells, content=content, style=style, pooling=kind, steps=200)
        yield from _rows(lab, runs, content, style, "pooling", "start", "seed")


# --- One picture alone ------------------------------------------------------------------------------------------------


def reconstructions(lab: Lab, photograph: str) -> Iterator[Row]:
    """The photograph back from each convolution, from faint noise."""
    content, = _pictures(lab, photograph)
    cells = {(layer,): {"content_layers": [layer]} for layer in CONVOLUTIONS}
    runs = lab.runs(cells, content=content, start=faint_noise(content, 0.2), steps=300)
    yield from _rows(lab, runs, content, None, "content_layer")


def first_convolutions(lab: Lab, photograph: str) -> Iterator[Row]:
    """The photograph back from the first two convolutions, from faint and from full noise, until the total falls by less than
    0.1 % in 20 steps."""
    content, = _pictures(lab, photograph)
    for contrast in (0.2, 1.0):
        cells = {(contrast, layer): {"content_layers": [layer]} for layer in CONVOLUTIONS[:2]}
        runs = lab.runs(cells, content=content, start=faint_noise(content, contrast), steps=2000, tolerance=1e-3)
        yield from _rows(lab, runs, content, None, "contrast", "content_layer")


def textures(lab: Lab, name: str) -> Iterator[Row]:
    """The style's texture from each layer alone and from layers up to each, with two seeds, and its error at all five."""
    style, = _pictures(lab, name)
    judge = nst.StyleObjective(None, style.to(lab.device), **lab.network)
    sets = {f"up to {nst.STYLE_LAYERS[count - 1]}": nst.STYLE_LAYERS[:count] for count in COUNTS}
    sets |= {layer: [layer] for layer in nst.STYLE_LAYERS[1:]}
    cells = {(label, seed): {"style_layers": layers, "seed": seed} for label, layers in sets.items() for seed in SEEDS[:2]}
    runs = lab.runs(cells, style=style, start="noise", steps=200, together=1)  # a batch would round otherwise than one alone
    for (label, seed), steps in runs.items():
        image = _last(steps)
        with torch.no_grad():
            terms = judge(image)[1]
        errors = {layer: terms[f"style {layer}"].item() for layer in nst.STYLE_LAYERS}
        yield {"layers": label, "seed": seed} | lab.judged(steps[max(steps)], None, style) | errors | _waves(image)
    for label in sets:
        yield {"layers": f"{label}, seeds", "lpips": lab.judges["alexnet"].lpips(*(_last(runs[label, seed]) for seed in (0, 1)))}
    (seed, steps), = lab.runs({0: {"style_layers": sets["up to relu5_1"]}}, style=style, start="noise", steps=200).items()
    yield {"layers": "seed 0 again", "same": float(torch.equal(_last(steps), _last(runs["up to relu5_1", seed])))}
    halves = style[..., :style.shape[-1] // 2], style[..., style.shape[-1] - style.shape[-1] // 2:]
    yield {"layers": "the style's halves", "lpips": lab.judges["alexnet"].lpips(*halves)}
    yield {"layers": "the style"} | _waves(style)


def _waves(image: Tensor) -> Row:
    return {f"octave {k}": share for k, share in enumerate(octaves(image), 1)}


# --- What a style is --------------------------------------------------------------------------------------------------


def statistics(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """From the photograph with each statistic of style, weighed so that all begin alike; each last picture is judged by all."""
    content, style = (picture.to(lab.device) for picture in _pictures(lab, *pair))
    extractor = nst.FeatureExtractor(layers=(*nst.STYLE_LAYERS, *nst.CONTENT_LAYERS), device=lab.device, **lab.network)
    objectives = {name: nst.StyleObjective(content, style, extractor=extractor, statistic=statistic)
                  for name, statistic in style_statistics.STATISTICS.items()}
    with torch.no_grad():
        begin = {name: objective(content)[1]["style"].item() for name, objective in objectives.items()}
    cells = {(name,): {"statistic": statistic, "style_weight": 100 * begin["Gram matrix"] / begin[name]}
             for name, statistic in style_statistics.STATISTICS.items()}
    for (name,), steps in lab.runs(cells, content=content, style=style, steps=300).items():
        last = steps[max(steps)]
        totals = [losses["total"] for losses in last.history]
        with torch.no_grad():
            others = {f"by {other}": objective(last.image)[1]["style"].item() / begin[other]
                      for other, objective in objectives.items()}
        needed = next(k for k, total in enumerate(totals, 1) if total <= 1.1 * min(totals))
        yield {"statistic": name, "evaluations": last.evaluations, "needed": needed} | others | lab.judged(last, content, style)


def kernels(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """At 256 positions of each style layer, in float64: the squared distance of two Gram matrices against the maximum mean
    discrepancy with the kernel (x.y)^2."""
    images, exact = _pictures(lab, *pair), {**lab.network, "precision": "float64"}
    extractor, draw = nst.FeatureExtractor(**exact), torch.Generator().manual_seed(0)
    one, other = (extractor(image.cpu()) for image in images)
    for layer in nst.STYLE_LAYERS:
        x, y = (maps[layer].flatten(2)[..., torch.randint(maps[layer][0, 0].numel(), (256,), generator=draw)]
                for maps in (one, other))
        gram = (nst.gram(x[..., None]) - nst.gram(y[..., None])).square().sum()
        mmd = sum(sign * (a[0].T @ b[0]).square().mean() for sign, a, b in ((1, x, x), (1, y, y), (-2, x, y)))
        yield {"layer": layer, "difference": (gram - mmd).abs().item() / gram.item()}


def gradients(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """The share of the numbers before each pool that receive a gradient of the style loss at relu5_1, with both poolings."""
    content, style = (picture.to(lab.device) for picture in _pictures(lab, *pair))
    before = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    for kind in ("max", "avg"):
        extractor = nst.FeatureExtractor(layers=(*before, "relu5_1"), device=lab.device, **{**lab.network, "pooling": kind})
        maps = extractor(content.requires_grad_(True))
        loss = nst.style_loss(nst.gram(maps["relu5_1"]), nst.gram(extractor(style)["relu5_1"])).sum()
        for layer, gradient in zip(before, torch.autograd.grad(loss, [maps[layer] for layer in before])):
            yield {"pooling": kind, "layer": layer, "touched": (gradient != 0).float().mean().item()}


# --- Other networks ---------------------------------------------------------------------------------------------------


def _matched(arch: str, weights) -> dict[str, Any]:
    """Settings of a run on one of MATCHED: style at strides of 2 to 16 pixels, content at 8."""
    import training  # Accelerate, which it needs, is wanted here only
    network = training.family(arch, weights=weights) if arch in training.FAMILIES else arch
    return {"arch": network, "style_layers": MATCHED[arch], "content_layers": [MATCHED[arch][2]]}


def families(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Networks of three families that VGG-16 taught: from the photograph in both metrics, and from two noises."""
    content, style = _pictures(lab, *pair)
    metrics, weights = {"frequencies": "lbfgs", "pixels": _pixel_lbfgs}, lab.network.get("weights", "DEFAULT")
    cells = {}
    for arch in MATCHED:
        network = _matched(arch, weights)
        cells |= {(arch, metric, "content", 0): network | {"optimizer": optimizer} for metric, optimizer in metrics.items()}
        cells |= {(arch, "frequencies", "noise", seed): network | {"start": "noise", "seed": seed} for seed in SEEDS[:2]}
    runs = lab.runs(cells, content=content, style=style, steps=150)
    yield from _rows(lab, runs, content, style, "family", "metric", "start", "seed", shown=pair in SIX[:2])
    from_noise = [(label, kept) for label, kept in runs.items() if "noise" in label]
    for (one, a), (other, b) in combinations(from_noise, 2):
        yield {"family": f"{one[0]} against {other[0]}", "start": "noise", "seed": one[-1] + 10 * other[-1],
               "lpips": lab.judges["alexnet"].lpips(_last(a), _last(b))}


def family_layers(lab: Lab, unit: tuple[str, str]) -> Iterator[Row]:
    """What PR1 to PR3 ask, at the strides that all families have: the photograph back from each layer, from faint noise, and the
    style's texture from each layer, with its error at the others."""
    content, style = _pictures(lab, *unit)
    for arch, layers in MATCHED.items():
        network = _matched(arch, lab.network.get("weights", "DEFAULT"))
        cells = {layer: network | {"content_layers": [layer]} for layer in layers}
        runs = lab.runs(cells, content=content, start=faint_noise(content, 0.2), steps=200)
        for stride, (layer, kept) in zip(STRIDES, runs.items()):
            yield {"family": arch, "of": "photograph", "stride": stride} | lab.judged(kept[max(kept)], content, None)
        judge = nst.StyleObjective(None, style.to(lab.device), **{**lab.network, **network})
        cells = {layer: network | {"style_layers": [layer]} for layer in layers}
        for stride, kept in zip(STRIDES, lab.runs(cells, style=style, start="noise", steps=150).values()):
            with torch.no_grad():
                terms = judge(_last(kept))[1]
            errors = {f"stride {k}": terms[f"style {layer}"].item() for k, layer in zip(STRIDES, layers)}
            yield {"family": arch, "of": "texture", "stride": stride} | errors | lab.judged(kept[max(kept)], None, style)


def _pixel_lbfgs(pixels: list[Tensor], rate: float) -> nst.LBFGS:
    return nst.LBFGS(pixels, rate, metric="pixels")


# --- In one pass ------------------------------------------------------------------------------------------------------


def sizes(lab: Lab, unit: str) -> Iterator[Row]:
    """AdaIN on a photograph and on a style of such a size, "WIDTH x HEIGHT", beside one of 256 x 256 pixels."""
    width, height = map(int, unit.split(" x "))
    network, usual = nst.AdaIN.pretrained(), {kind: nst.resize(nst.sample(name, 256), (256, 256))
                                              for kind, name in (("content", "chelsea"), ("style", "swirls"))}
    for kind in usual:
        pictures = usual | {kind: nst.resize(usual[kind], (height, width))}
        image = network.stylize(**pictures)
        fine = image.shape == pictures["content"].shape and bool(image.isfinite().all()) and image.std() > 0.01
        yield {"odd": kind, "fine": float(fine)}


def progress(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """AdaIN by its decoder after each fifth of the training."""
    content, style = _pictures(lab, *pair)
    for share in (20, 40, 60, 80, 100):
        name = "adain_vgg19_compact.pt" if share == 100 else f"adain_vgg19_compact_{share}.pt"
        image = nst.AdaIN.pretrained(path=nst.DATA / "weights" / name).stylize(content, style)
        judge = lab.judges["alexnet"]
        yield {"trained": share, "share": judge.share_closed(image, content, style), "lpips": judge.lpips(image, content)}


def passes(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """AdaIN, and WCT with the same decoder, at half and at full strength."""
    content, style = _pictures(lab, *pair)
    network, judge = nst.AdaIN.pretrained(device=lab.device), lab.judges["alexnet"]
    for name, transform in (("AdaIN", nst.adain), ("WCT", nst.wct)):
        for alpha in (0.5, 1.0):
            image = network.stylize(content, style, alpha=alpha, transform=transform).cpu()
            yield {"method": name, "alpha": alpha, "share": judge.share_closed(image, content, style),
                   "lpips": judge.lpips(image, content)}


def speed(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Seconds of a pass of AdaIN and of an evaluation with its encoder, and how many evaluations come as near to the style."""
    content, style = _pictures(lab, *pair)
    network, clocks = nst.AdaIN.pretrained(device=lab.device), [time.perf_counter()]
    for _ in range(8):
        image = network.stylize(content, style).cpu()
        clocks.append(time.perf_counter())
    away = lambda image: lab.judges["alexnet"].style_distance(image, style)  # noqa: E731
    goal, runs = away(image), {0: {"arch": "vgg19_compact"}}
    (steps,) = lab.runs(runs, content=content, style=style, steps=150, marks=range(1, 150)).values()
    needed = next((index for index, step in steps.items() if away(step.image) <= goal), math.inf)
    last = steps[max(steps)]
    yield {"pass": float(np.median(np.diff(clocks)[1:])), "evaluation": last.seconds / last.evaluations, "needed": needed}


def resolution(lab: Lab, arch: str) -> Iterator[Row]:
    """What a network costs at two sizes: seconds of an evaluation by megapixel, megapixels, and GiB of memory."""
    for size in (lab.size, 2 * lab.size):
        content, style = (nst.sample(name, size).to(lab.device) for name in ("coffee", "mosaic"))
        extractor = nst.FeatureExtractor(arch, (*nst.STYLE_LAYERS, *nst.CONTENT_LAYERS), weights=None, device=lab.device)
        *_, last = nst.optimize_image(content, nst.StyleObjective(content, style, extractor=extractor), steps=6)
        height, width = content.shape[-2:]
        need = nst.beside("memory")["step_memory"](extractor, height, width) / 2**30
        yield {"pixels": size, "seconds": 1e6 * last.seconds / last.evaluations / height / width,
               "megapixels": height * width / 1e6, "memory": need}


def opinions(lab: Lab, unit: str) -> Iterator[Row]:
    """What a survey of 52 simulated people can tell apart, in points of ten, four times in five."""
    import ratings  # what it needs is installed for the survey only
    found = ratings.simulate(52, seed=int(unit.split()[1]))
    methods = [ratings.differences(found.values, *pair) for pair in combinations(range(len(found.methods)), 2)]
    pictures = [one - other for one, other in combinations(np.moveaxis(found.values[:, :, 0], 1, 0), 2)]
    for what, gaps in (("methods", methods), ("pictures", pictures)):
        spread = ratings.deviation(*gaps)
        yield {"compared": what, "points": ratings.smallest_difference(spread)}


# --- Optimisers -------------------------------------------------------------------------------------------------------


def _torch_lbfgs(pixels: list[Tensor], rate: float) -> torch.optim.Optimizer:
    """As a user calls it: up to 20 evaluations in each step."""
    return torch.optim.LBFGS(pixels, lr=rate)


def optimisers(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Four optimisers at three style weights, with the usual learning rate and a tenth and ten times of it; the lowest total of
    some 160 evaluations."""
    content, style = _pictures(lab, *pair)
    usual = {"sgd": ("sgd", 2e-5, 160), "adam": ("adam", 0.02, 160), "torch's L-BFGS": (_torch_lbfgs, 1.0, 8),
             "L-BFGS": ("lbfgs", 1.0, 160)}
    for name, (optimizer, rate, steps) in usual.items():
        cells = {(name, factor, weight): {"learning_rate": factor * rate, "style_weight": weight}
                 for factor in FACTORS for weight in WEIGHTS[1:4]}
        runs = lab.runs(cells, content=content, style=style, optimizer=optimizer, steps=steps)
        for (_, factor, weight), kept in runs.items():
            last = kept[max(kept)]
            totals = [losses["total"] for losses in last.history if math.isfinite(losses["total"])]
            yield {"optimizer": name, "factor": factor, "style_weight": weight, "evaluations": last.evaluations,
                   "total": min(totals)}


def rates(lab: Lab, unit: tuple[str, int]) -> Iterator[Row]:
    """A photograph from its conv4_1, by torch's L-BFGS with two learning rates: the loss before each step of 20 evaluations."""
    name, seed = unit
    content, = _pictures(lab, name)
    cells = {rate: {"learning_rate": rate} for rate in (1.0, 0.01)}
    runs = lab.runs(cells, content=content, content_layers=["conv4_1"], start="noise", seed=seed, optimizer=_torch_lbfgs,
                    steps=30)
    for rate, steps in runs.items():
        for index, losses in enumerate(steps[max(steps)].history):
            yield {"rate": rate, "step": index, "content": losses["content"]}


SIDES = ("64 x 64", "63 x 97", "127 x 128", "511 x 255", "33 x 512", "1000 x 40", "1023 x 1025", "2048 x 1536", "4096 x 2304")
ENOUGH = 4  # units of a recording with the real VGG-16
DEFAULT_ARCH = "vgg16_compact"
RECORDINGS = {
    "optimisers": Recording(SIX, optimisers),
    "rates": Recording([(name, seed) for name in nst.PHOTOGRAPHS for seed in SEEDS], rates),
    "starts": Recording(BENCH, starts), "epochs": Recording(BENCH, epochs), "weights": Recording(BENCH, weights),
    "painters": Recording(PAINTED, painters), "content_layers": Recording(BENCH, content_layers),
    "style_layers": Recording(BENCH, style_layers), "grid_beta": Recording(SIX, grid_beta),
    "grid_ratio": Recording(SIX, grid_ratio), "pooling": Recording(BENCH, pooling),
    "reconstructions": Recording(nst.PHOTOGRAPHS, reconstructions),
    "first_convolutions": Recording(nst.PHOTOGRAPHS, first_convolutions), "textures": Recording(STYLES, textures),
    "statistics": Recording(SIX, statistics), "kernels": Recording(SIX, kernels), "gradients": Recording(BENCH, gradients),
    "families": Recording(BENCH, families, apart=True), "family_layers": Recording(SIX, family_layers, apart=True),
    "sizes": Recording(SIDES, sizes, apart=True), "progress": Recording(BENCH, progress, apart=True),
    "passes": Recording(BENCH, passes, apart=True), "speed": Recording(SIX, speed, apart=True),
    "resolution": Recording(("vgg16_compact", "vgg16", "vgg19"), resolution, apart=True),
    "opinions": Recording([f"survey {seed}" for seed in range(10)], opinions, apart=True)}


# --- What follows from them -------------------------------------------------------------------------------------------


class Table:
    """Recorded rows: pick those that fit, and get a number for each unit."""

    def __init__(self, rows: Sequence[Row]):
        self.rows = list(rows)

    def where(self, **wanted) -> Table:
        """The rows in which each of these columns has the value, or one of a list of values."""
        fits = lambda value, want: value in want if isinstance(want, list | tuple) else value == want  # noqa: E731
        return Table([row for row in self.rows if all(fits(row.get(key), want) for key, want in wanted.items())])

    def units(self) -> list[Table]:
        """The rows of each unit, in the order in which units were recorded."""
        parts = {}
        for row in self.rows:
            parts.setdefault(row["unit"], []).append(row)
        return [Table(rows) for rows in parts.values()]

    def per_unit(self, column: str) -> np.ndarray:
        """The column's mean for each unit."""
        return np.array([np.mean([row[column] for row in unit.rows]) for unit in self.units()])

    def series(self, column: str, by: str, order: Sequence) -> np.ndarray:
        """The column along `order`, the values of another column: (units, len(order))."""
        return np.stack([self.where(**{by: value}).per_unit(column) for value in order], axis=1)

    def final(self) -> Table:
        """Of each run the step with most evaluations; rows that are no steps are left out."""
        last = {}
        for row in self.rows:
            run = tuple(value for key, value in row.items() if key not in NUMBERS | {"evaluations", "picture"})
            if row.get("evaluations", "") != "" and row["evaluations"] >= last.get(run, row)["evaluations"]:
                last[run] = row
        return Table(list(last.values()))


def enough(values: Sequence[float], **asked) -> Verdict:
    """`verdict` of what could be compared, undecided if that is less than two pairs."""
    return verdict(values, **asked) if len(values) > 1 else Verdict(math.nan, math.nan, math.nan, len(values), "undecided")


RULES: dict[str, tuple[str, Callable[[Table], list[Verdict]]]] = {}  # claim -> its recording and what follows from that


def rule(claim: str, recording: str) -> Callable:
    """The decorated function judges a claim from a recording, in as many parts as the claim has."""
    def enter(function: Callable[[Table], list[Verdict]]) -> Callable:
        RULES[claim] = recording, function
        return function
    return enter


def steadily(series: np.ndarray, *, falls: bool, least: float = 0.9, what: str = "") -> Verdict:
    """Does a number fall (or grow) at each step? The share of units in which it does, judged against `least`."""
    steps = np.diff(series, axis=1)
    return share_of((steps < 0 if falls else steps > 0).all(1), least, what=what)


def share_of(flags: np.ndarray, least: float, *, what: str = "") -> Verdict:
    """Is something so in at least such a share of cases? Clopper and Pearson's 95 % interval of that share stands beside it."""
    count, hits = flags.size, int(flags.sum())
    low = beta_distribution.ppf(0.025, hits, count - hits + 1) if hits else 0.0
    high = beta_distribution.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return Verdict(hits / count, float(low), float(high), count, "holds" if hits >= least * count else "fails", what)


@rule("VS1", "starts")
def vs1(starts: Table) -> list[Verdict]:
    """The picture from noise against the one from the photograph: style distance, and LPIPS to the photograph."""
    end = starts.final()
    noise, content = (end.where(start=start) for start in ("noise", "content"))
    return [verdict(noise.per_unit("alexnet") / content.per_unit("alexnet"), below=1.1, what="style distance"),
            verdict(noise.per_unit("lpips") - content.per_unit("lpips"), below=0.05, what="LPIPS")]


@rule("VS2", "epochs")
def vs2(epochs: Table) -> list[Verdict]:
    needed = {start: epochs.where(start=start, level=1.1).per_unit("needed") for start in ("noise", "content")}
    ratios = np.minimum(needed["noise"] / needed["content"], 1e3)  # what never arrives counts as a thousand times as long
    return [verdict(ratios, above=1.2, what="evaluations"), *vs1(epochs)]  # "simply": the picture is the same


@rule("VS3", "weights")
def vs3(weights: Table) -> list[Verdict]:
    return [steadily(weights.where(content_layer="relu4_2").series("alexnet", "style_weight", WEIGHTS), falls=True)]


@rule("VS4", "content_layers")
def vs4(content_layers: Table) -> list[Verdict]:
    against = [row for row in content_layers.rows if " against " in row["content_layer"]]
    seeds = Table([row for row in against if row["content_layer"] == "relu4_2 against relu4_2"])
    layers = Table([row for row in against if row["seed"] == 0])
    rough = content_layers.where(seed=0, content_layer=RELUS).series("roughness", "content_layer", RELUS)
    return [verdict(layers.per_unit("lpips") / seeds.per_unit("lpips"), above=2, what="LPIPS"),
            verdict(rough.max(1) / rough.min(1), above=1.5, what="total variation")]


@rule("VS5", "content_layers")
def vs5(content_layers: Table) -> list[Verdict]:
    away = content_layers.where(seed=0).series("lpips", "content_layer", RELUS)
    worse = (away[:, 1:-1] > 1.1 * away[:, :-2]) & (away[:, 1:-1] > 1.1 * away[:, 2:])
    return [share_of(worse[:, worse.sum(0).argmax()], 0.5 + 1e-9)]  # in more than half of the pairs


@rule("VS6", "style_layers")
def vs6(style_layers: Table) -> list[Verdict]:
    alone = style_layers.series("alexnet", "style_layer", nst.STYLE_LAYERS)
    return [verdict(alone[:, :2].mean(1) / alone[:, 3:].mean(1), below=0.9)]


@rule("PR1", "first_convolutions")
def pr1(first_convolutions: Table) -> list[Verdict]:
    """Each of the two layers, from each noise; 100 dB stand for equal pictures."""
    end = first_convolutions.final()
    return [verdict(np.minimum(end.where(contrast=contrast, content_layer=layer).per_unit("psnr"), 100), above=30,
                    what=f"{layer}, {name} noise")
            for layer in CONVOLUTIONS[:2] for contrast, name in ((0.2, "faint"), (1.0, "full"))]


@rule("PR2", "reconstructions")
def pr2(reconstructions: Table) -> list[Verdict]:
    return [steadily(reconstructions.series("psnr", "content_layer", CONVOLUTIONS[:6]), falls=True, what="falls in"),
            verdict(reconstructions.where(content_layer=CONVOLUTIONS[5]).per_unit("coarse"), above=0.7, what="correlation")]


@rule("PR3", "textures")
def pr3(textures: Table) -> list[Verdict]:
    alone = ["up to relu1_1", *nst.STYLE_LAYERS[1:]]
    errors = np.stack([textures.series(layer, "layers", alone) for layer in nst.STYLE_LAYERS], axis=2)  # (style, texture, at)
    matrix = np.median(errors, axis=0)
    return [share_of((matrix.diagonal() <= matrix.min(0)) & (matrix.diagonal() <= matrix.min(1)), 1.0)]


def _grid(table: Table, column: str, down: tuple[str, Sequence], along: tuple[str, Sequence]) -> np.ndarray:
    """The column as (units, rows, columns)."""
    return np.stack([table.where(**{down[0]: value}).series(column, *along) for value in down[1]], axis=1)


def _more_style(grid: np.ndarray, what: str = "") -> Verdict:
    return share_of(np.concatenate([(np.diff(grid, axis=axis) < 0).ravel() for axis in (1, 2)]), 0.9, what=what)


def _swallowed(grid: np.ndarray, what: str = "") -> Verdict:
    count = min(grid.shape[1:])
    return steadily(np.stack([grid[:, k, k] for k in range(count)], axis=1), falls=False, what=what)


@rule("PR4", "grid_beta")
def pr4(grid_beta: Table) -> list[Verdict]:
    return [_more_style(_grid(grid_beta, "alexnet", ("indices", COUNTS), ("beta", BETAS)))]


@rule("PR5", "grid_beta")
def pr5(grid_beta: Table) -> list[Verdict]:
    return [_swallowed(_grid(grid_beta, "lpips", ("indices", COUNTS), ("beta", BETAS)))]


@rule("PR7", "weights")
def pr7(weights: Table) -> list[Verdict]:
    """Style distances at LPIPS in the middle of what both depths reach; pairs in which they have none in common are left out."""
    ratios = []
    shallow_too = {row["unit"] for row in weights.where(content_layer="relu2_1").rows}
    for unit in weights.where(unit=list(shallow_too)).units():
        lines = [sorted((row["lpips"], row["alexnet"]) for row in unit.where(content_layer=layer).rows)
                 for layer in ("relu2_1", "relu4_2")]
        lowest, highest = max(line[0][0] for line in lines), min(line[-1][0] for line in lines)
        shallow, deep = (np.interp((lowest + highest) / 2, *zip(*line)) for line in lines)
        ratios += [deep / shallow] if lowest <= highest else []
    return [enough(ratios, below=0.9)]


@rule("ZH2", "reconstructions")
def zh2(reconstructions: Table) -> list[Verdict]:
    return [steadily(reconstructions.series("sharpness", "content_layer", FIRSTS), falls=True)]


@rule("ZH2b", "reconstructions")
def zh2b(reconstructions: Table) -> list[Verdict]:
    return [steadily(reconstructions.series("detail", "content_layer", FIRSTS), falls=True)]


@rule("ZH3", "reconstructions")
def zh3(reconstructions: Table) -> list[Verdict]:
    colour = reconstructions.series("colour", "content_layer", FIRSTS)
    return [share_of(colour.argmin(1) == 1, 0.9)]


@rule("ZH4", "style_layers")
def zh4(style_layers: Table) -> list[Verdict]:
    alone = style_layers.series("alexnet", "style_layer", nst.STYLE_LAYERS)
    return [verdict(style_layers.where(style_layer="all").per_unit("alexnet") / alone.min(1), below=0.9)]


@rule("ZH5", "textures")
def zh5(textures: Table) -> list[Verdict]:
    names = [f"octave {k}" for k in range(1, 7)]
    own = np.stack([textures.where(layers="the style").per_unit(name) for name in names], axis=1)
    alone = ["up to relu1_1", *nst.STYLE_LAYERS[1:]]
    met = np.stack([textures.series(name, "layers", alone) for name in names], axis=2)  # (styles, layers, octaves)
    best = np.abs(np.log((met + 1e-6) / (own[:, None] + 1e-6))).argmin(2)
    ranks = [spearmanr(range(5), row).statistic if len(set(row)) > 1 else 0.0 for row in best]
    return [verdict(ranks, above=0.8)]


@rule("ZH6", "textures")
def zh6(textures: Table) -> list[Verdict]:
    """The same seed gives the same bits, and seeds differ at least half as much as the two halves of the style do."""
    seeds, halves = (textures.where(layers=name).per_unit("lpips") for name in ("up to relu5_1, seeds", "the style's halves"))
    return [share_of(textures.where(layers="seed 0 again").per_unit("same") == 1, 1.0, what="same seed"),
            verdict(seeds / halves, above=0.5, what="seeds")]


@rule("ZH7", "starts")
def zh7(starts: Table) -> list[Verdict]:
    """At the style distance that the worse of the two ends with, for each of the seeds that both pass it; a pair without is left
    out."""
    differences = []
    for unit in starts.units():
        line = lambda **run: sorted((row["alexnet"], row["colour"]) for row in unit.where(**run).rows  # noqa: E731
                                    if row["alexnet"] != "")  # noqa: B023
        content, each = line(start="content"), []
        for seed in SEEDS:
            noise = line(start="noise", seed=seed)
            equal = max(content[0][0], noise[0][0])
            if equal <= min(content[-1][0], noise[-1][0]):
                each.append(np.interp(equal, *zip(*content)) - np.interp(equal, *zip(*noise)))
        differences += [np.mean(each)] if each else []
    return [enough(differences, below=-2)]


@rule("TC1", "epochs")
def tc1(epochs: Table) -> list[Verdict]:
    """By how much the picture from noise is further from the photograph, in LPIPS and in structural similarity."""
    def gap(column: str, evaluations: int) -> np.ndarray:
        now = epochs.where(evaluations=evaluations + 1)
        noise, content = (now.where(start=start).per_unit(column) for start in ("noise", "content"))
        return noise - content if column == "lpips" else content - noise
    return [part for column in ("lpips", "ssim")
            for part in (verdict(gap(column, 25), above=0, what=f"{column} at 25"),
                         verdict(gap(column, 200) - gap(column, 25), below=0, what=f"{column} from 25 to 200"))]


@rule("TC2", "pooling")
def tc2(pooling: Table) -> list[Verdict]:
    end = pooling.final()
    return [verdict(end.where(start=start, pooling="avg").per_unit("roughness")
                    / end.where(start=start, pooling="max").per_unit("roughness"), below=0.95, what=f"from {start}")
            for start in ("content", "noise")]


@rule("TC3", "grid_ratio")
def tc3(grid_ratio: Table) -> list[Verdict]:
    parts = []
    for kind in ("max", "avg"):
        place = ("layers", COUNTS), ("ratio", RATIOS[::-1])
        table = grid_ratio.where(pooling=kind)
        parts += [_more_style(_grid(table, "alexnet", *place), f"style, {kind}"),
                  _swallowed(_grid(table, "lpips", *place), f"content, {kind}")]
    return parts


@rule("TC4", "textures")
def tc4(textures: Table) -> list[Verdict]:
    return [steadily(textures.series("strokes", "layers", [f"up to {layer}" for layer in nst.STYLE_LAYERS]), falls=False,
                     what="strokes grow in")]


@rule("TC5", "epochs")
def tc5(epochs: Table) -> list[Verdict]:
    along = epochs.where(start="noise").series("lpips", "evaluations", (101, 401, 1001))
    return [steadily(along, falls=True)]


@rule("TC6", "epochs")
def tc6(epochs: Table) -> list[Verdict]:
    along = epochs.where(start="content").series("share", "evaluations", (101, 801))
    return [verdict(along[:, 0] / along[:, 1], above=0.8)]


@rule("G15a", "textures")
def g15a(textures: Table) -> list[Verdict]:
    rough = textures.series("roughness", "layers", [f"up to {layer}" for layer in nst.STYLE_LAYERS])
    return [*tc4(textures), steadily(rough, falls=True, what="smoother in")]


@rule("G16a", "starts")
def g16a(starts: Table) -> list[Verdict]:
    seeds = starts.where(start="noise against noise")
    others = starts.where(start=["content against style", "content against noise", "style against noise"])
    return [verdict(others.per_unit(column) / seeds.per_unit(column), below=1.2, what=what)
            for column, what in (("lpips", "whole"), ("coarse lpips", "means of 8 px"))]


@rule("G16b", "gradients")
def g16b(gradients: Table) -> list[Verdict]:
    return [verdict(gradients.where(pooling=kind).per_unit("touched"), what=name)
            for kind, name in (("max", "max pooling"), ("avg", "average pooling"))]


@rule("PR8", "kernels")
def pr8(kernels: Table) -> list[Verdict]:
    return [verdict([max(row["difference"] for row in unit.rows) for unit in kernels.units()], below=1e-9)]


@rule("PR9", "statistics")
def pr9(statistics: Table) -> list[Verdict]:
    """How many evaluations each needs to 1.1 of its own last total, over those of the Gram matrix."""
    needed = statistics.series("needed", "statistic", list(style_statistics.STATISTICS))
    return [verdict(needed[:, k] / needed[:, 0], what=name) for k, name in enumerate(style_statistics.STATISTICS) if k]


@rule("VS7", "families")
def vs7(families: Table) -> list[Verdict]:
    """The share closed by each family from the photograph, and LPIPS between families, of one noise, over that between noises."""
    from_noise = families.where(start="noise")
    others = Table([row for row in from_noise.rows if _compared(row) == "families" and row["seed"] in (0, 11)])
    seeds = Table([row for row in from_noise.rows if _compared(row) == "seeds"])
    shares = families.where(start="content", metric="frequencies")
    return [*(verdict(shares.where(family=arch).per_unit("share"), above=0.3, what=arch) for arch in MATCHED),
            verdict(others.per_unit("lpips") / seeds.per_unit("lpips"), above=1, what="LPIPS over that of seeds")]


def _compared(row: Row) -> str:
    """Which two pictures a row of `families` compares: of two families or of two seeds; nothing if it is one run."""
    one, _, other = row["family"].partition(" against ")
    return "" if not other else "seeds" if one == other else "families"


@rule("DI1", "families")
def di1(families: Table) -> list[Verdict]:
    """By how much more of the way is closed in the Fourier metric."""
    end = families.where(start="content")
    return [verdict(end.where(family=arch, metric="frequencies").per_unit("share")
                    - end.where(family=arch, metric="pixels").per_unit("share"), above=0.1, what=arch)
            for arch in MATCHED if arch != DEFAULT_ARCH]


@rule("PR11", "family_layers")
def pr11(family_layers: Table) -> list[Verdict]:
    """PR1 at the first stride; PR2's order, in the share of strides at which the picture gets worse, and its correlation at the
    last stride; PR3 in the share of layers whose own texture has the lowest error there."""
    parts = []
    for arch in MATCHED:
        photographs, textures = (family_layers.where(family=arch, of=what) for what in ("photograph", "texture"))
        quality = photographs.series("psnr", "stride", STRIDES)
        errors = np.stack([textures.series(f"stride {k}", "stride", STRIDES) for k in STRIDES], axis=2)  # (unit, texture, at)
        numbers = {"dB at stride 2": quality[:, 0], "falls": (np.diff(quality) < 0).mean(1),
                   "correlation at stride 16": photographs.where(stride=16).per_unit("coarse"),
                   "own texture": (errors.argmin(1) == np.arange(4)).mean(1)}
        parts += [verdict(values, what=f"{arch} {what}") for what, values in numbers.items()]
    return parts


@rule("SO4", "sizes")
def so4(sizes: Table) -> list[Verdict]:
    return [share_of(np.array([row["fine"] == 1 for row in sizes.rows]), 1.0)]


@rule("SO3", "progress")
def so3(progress: Table) -> list[Verdict]:
    return [verdict(progress.where(trained=share).per_unit("share"), what=f"share closed at {share} %")
            for share in (20, 40, 60, 80, 100)]


@rule("SO5", "speed")
def so5(speed: Table) -> list[Verdict]:
    return [verdict(speed.per_unit("pass"), what="s in one pass"),
            verdict(_finite(speed.per_unit("needed")) * speed.per_unit("evaluation"), what="s of optimisation for as much style")]


@rule("HB1", "speed")
def hb1(speed: Table) -> list[Verdict]:
    times = speed.per_unit("evaluation") / speed.per_unit("pass")
    return [verdict(500 * times, what="500 evaluations over a pass"),
            verdict(_finite(speed.per_unit("needed")) * times, what="for as much style")]


def _finite(needed: np.ndarray) -> np.ndarray:
    return np.minimum(needed, 1e3)  # what never arrives counts as a thousand evaluations


@rule("SO6", "opinions")
def so6(opinions: Table) -> list[Verdict]:
    return [verdict(opinions.where(compared=what).per_unit("points"), what=f"points between two {what}")
            for what in ("methods", "pictures")]


@rule("PR10", "resolution")
def pr10(resolution: Table) -> list[Verdict]:
    """At the larger of two sizes; megapixels by GiB count what is added from one to the other, not what Python itself takes."""
    parts = []
    for unit in resolution.units():
        small, large = unit.rows
        more = (large["megapixels"] - small["megapixels"]) / (large["memory"] - small["memory"])
        parts += [Verdict(value, value, value, 1, "report", f"{what}, {large['unit']}") for value, what in
                  ((large["seconds"], "s per megapixel"), (more, "megapixels per GiB"))]
    return parts


@rule("PR6", "optimisers")
def pr6(optimisers: Table) -> list[Verdict]:
    """The share of runs that come within 1.2 of the best of their pair and weight: torch's L-BFGS against the better of Adam and
    gradient descent."""
    differences = []
    for unit in optimisers.units():
        shares = {}
        for weight in WEIGHTS[1:4]:
            best = min(row["total"] for row in unit.where(style_weight=weight).rows)
            for row in unit.where(style_weight=weight).rows:
                shares.setdefault(row["optimizer"], []).append(row["total"] <= 1.2 * best)
        share = {name: np.mean(flags) for name, flags in shares.items()}
        differences.append(share["torch's L-BFGS"] - max(share["adam"], share["sgd"]))
    return [verdict(differences, above=0.2)]


@rule("ZH1", "rates")
def zh1(rates: Table) -> list[Verdict]:
    """Learning rate 0.01 over 1: at the end of the run, and where it stops as soon as the loss has grown."""
    ends = {"to the end": [], "stopped at a rise": []}
    for unit in rates.units():
        losses = {rate: [row["content"] for row in unit.where(rate=rate).rows] for rate in (0.01, 1.0)}
        ends["to the end"].append(min(losses[0.01]) / min(losses[1.0]))
        stopped = {rate: next((a for a, b in zip(run, run[1:]) if not b <= a), run[-1]) for rate, run in losses.items()}
        ends["stopped at a rise"].append(stopped[0.01] / stopped[1.0])
    return [verdict(ratios, below=0.9, what=what) for what, ratios in ends.items()]


def answer(parts: Sequence[Verdict]) -> str:
    """A claim with several parts holds if all of them hold, and fails if one fails; "report" where nothing is asked."""
    answers = {part.answer for part in parts}
    if answers == {"report"}:
        return "report"
    return "fails" if "fails" in answers else "holds" if answers == {"holds"} else "undecided"


def judged(claim: str, *, arch: str = DEFAULT_ARCH, folder=MEASUREMENTS) -> list[Verdict]:
    """The parts of a claim as recorded with a network; none unless all units are there, or ENOUGH of another network than the
    default, which takes hours for each."""
    name, function = RULES[nst.one_of("claim", claim, RULES)]
    arch = DEFAULT_ARCH if RECORDINGS[name].apart else arch
    rows, units = measurements(name, arch=arch, folder=folder), len(RECORDINGS[name].units)
    wanted = units if arch == DEFAULT_ARCH else min(units, ENOUGH)
    return function(Table(rows)) if len({row["unit"] for row in rows}) >= wanted else []


def register() -> dict[str, dict[str, str]]:
    """What is put to the test, by id: whose sentence (in brackets if it is told, not quoted), what is asked of the measurements,
    with the threshold that was set before them, and the number of the notebook that shows it."""
    with open(MEASUREMENTS / "claims.csv", newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def verdicts(*claims: str, archs: Sequence[str] = (DEFAULT_ARCH, "vgg16"), folder=MEASUREMENTS) -> list[dict[str, str]]:
    """For each claim (all of the register if none is named) its line there, and for each network what was measured and what
    follows: rows for `report.verdict_table`."""
    entries, table = register(), []
    for claim in claims or entries:
        row = dict(entries[nst.one_of("claim", claim, entries)])
        for arch in archs:
            parts = judged(claim, arch=arch, folder=folder) if claim in RULES else []
            alike = parts and arch != archs[0] and RECORDINGS[RULES[claim][0]].apart
            row[arch] = "as on the left" if alike else "; ".join(map(str, parts)) or "not recorded"
            row[f"{arch} verdict"] = answer(parts) if parts else ""
        table.append(row)
    return table


# --- The command ------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None, *, folder=MEASUREMENTS) -> None:
    """`record` what is not recorded yet, or --list what is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["record"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECORDINGS)}, or claims such as VS3; none means "
                                                                 "all")
    parser.add_argument("--arch", default=DEFAULT_ARCH, help="the network to optimise against (default: %(default)s)")
    parser.add_argument("--size", type=int, default=256, help="long side of the pictures (default: %(default)s)")
    parser.add_argument("--units", type=int, metavar="N", help="only the first N of each recording (default: all)")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="so many units at a time (default: %(default)s)")
    parser.add_argument("--dask", metavar="ADDRESS", help="the scheduler of a Dask cluster that measures instead")
    parser.add_argument("--list", action="store_true", help="say what is recorded, and record nothing")
    options = parser.parse_args(arguments)
    names = (RULES[name][0] if name in RULES else name for name in options.names or RECORDINGS)
    wanted = {name: RECORDINGS[nst.one_of("recording", name, RECORDINGS)] for name in names}
    if options.arch != DEFAULT_ARCH:
        wanted = {name: recording for name, recording in wanted.items() if not recording.apart}
    if options.units:
        wanted = {name: replace(recording, units=recording.units[:options.units]) for name, recording in wanted.items()}
    if options.list:
        print("\n".join(listed(wanted, folder=folder)))
        return
    units = sum(len(recording.units) for recording in wanted.values())
    done = sum(len({row["unit"] for row in measurements(name, arch=options.arch, folder=folder)}) for name in wanted)
    with _executor(options) as executor, tqdm(total=units, initial=done, unit="unit", file=sys.stdout, smoothing=0) as bar:
        for line in record(wanted, Lab(options.arch, size=options.size), folder=folder, executor=executor):
            bar.write(line, file=sys.stdout)
            bar.update()


def _executor(options: argparse.Namespace) -> AbstractContextManager:
    """What measures: this process, some others with their share of the cores each, or a cluster."""
    if options.dask:
        from distributed import Client
        return Client(options.dask)
    if options.processes > 1:
        threads = max(1, torch.get_num_threads() // options.processes)
        return ProcessPoolExecutor(options.processes, get_context("spawn"), torch.set_num_threads, (threads,))
    return nullcontext()


def listed(recordings: Mapping[str, Recording], *, folder=MEASUREMENTS) -> Iterator[str]:
    """For each recording, the claims that ask for it and each network: how many of its units are recorded, at which size, with
    which commits, and when."""
    columns = "size", "commit", "day"
    for name, recording in recordings.items():
        rows = measurements(name, folder=folder)
        name = f"{name} ({', '.join(claim for claim, (asked, _) in RULES.items() if asked == name)})"
        for arch in dict.fromkeys(row["arch"] for row in rows):
            own = [row for row in rows if row["arch"] == arch]
            sizes, commits, days = (sorted({str(row[key]).removesuffix(".0") for row in own}) for key in columns)
            yield (f"{name}: {len({row['unit'] for row in own})} of {len(recording.units)} with {arch}, "
                   f"{'/'.join(sizes)} px, commit {', '.join(commits)}, {days[0]} to {days[-1]}")
        if not rows:
            yield f"{name}: nothing of {len(recording.units)}"
