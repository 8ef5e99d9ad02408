"""What the five course reports say, and the runs that put it to the test.

A recording is a set of runs that several claims ask for; `python notebooks/experiments.py record` makes them, on the bench of
experiments.py, and keeps their numbers in data/measurements. Nothing here draws or judges by eye: notebooks show.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

import nst_utils as nst
from experiments import BENCH, MEASUREMENTS, SEEDS, SIX, Lab, Recording, faint_noise, measurements, octaves, record

Row = dict[str, Any]
STYLES = tuple(dict.fromkeys(style for _, style in BENCH))
CONVOLUTIONS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
                "conv5_1")  # up to where the compact network ends; PR counts them from 0
NUMBERS = frozenset(  # columns that are measured; the others say of what
    ("total", "content", "style", "lpips", "coarse lpips", "ssim", "colour", "psnr", "coarse", "sharpness", "alexnet", "vgg16",
     "roughness", "share", "strokes", "seconds", *nst.STYLE_LAYERS, *(f"octave {k}" for k in range(1, 7))))
STYLE_SETS = tuple(nst.STYLE_LAYERS[:count] for count in range(1, 6))


def _pictures(lab: Lab, *names: str) -> list[Tensor]:
    return [nst.sample(name, lab.size) for name in names]


def _rows(lab: Lab, runs: Mapping[Row | tuple, Mapping[int, nst.Step]], content: Tensor | None, style: Tensor | None,
          *names: str) -> Iterator[Row]:
    """A row for every kept step of every run: the label of the run under `names`, evaluations, and what is judged of it."""
    for label, steps in runs.items():
        for step in steps.values():
            yield dict(zip(names, label)) | {"evaluations": step.evaluations} | lab.judged(step, content, style)


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
    runs = lab.runs(cells, content=content, style=style, steps=400, tolerance=1e-3, marks=(25, 50, 100, 200))
    yield from _rows(lab, runs, content, style, "start", "seed")
    for (one, a), (other, b) in combinations(runs.items(), 2):
        images = _last(a), _last(b)
        yield {"start": f"{one[0]} against {other[0]}", "seed": one[1] + 10 * other[1],
               "lpips": lab.judges["alexnet"].lpips(*images), "coarse lpips": lab.judges["alexnet"].lpips(*map(_coarse, images))}


def curves(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Every total of a run from the photograph and of one from noise, for counting evaluations."""
    content, style = _pictures(lab, *pair)
    cells = {("content",): {"start": "content"}, ("noise",): {"start": "noise"}}
    runs = lab.runs(cells, content=content, style=style, steps=400)
    for (start,), steps in runs.items():
        for index, losses in enumerate(steps[max(steps)].history):
            yield {"start": start, "evaluations": index + 1, "total": losses["total"]}


def epochs(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """A long run from noise and one from the photograph."""
    content, style = _pictures(lab, *pair)
    cells = {(start,): {"start": start} for start in ("noise", "content")}
    runs = lab.runs(cells, content=content, style=style, steps=1000, marks=(100, 200, 400, 600, 800))
    yield from _rows(lab, runs, content, style, "start")


# --- Weights and layers -----------------------------------------------------------------------------------------------


def weights(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Five style weights, with the content compared at a shallow and at the usual depth."""
    content, style = _pictures(lab, *pair)
    cells = {(layer, weight): {"content_layers": [layer], "style_weight": weight}
             for layer in ("relu2_1", "relu4_2") for weight in (1.0, 10.0, 100.0, 1e3, 1e4)}
    runs = lab.runs(cells, content=content, style=style, steps=150)
    yield from _rows(lab, runs, content, style, "content_layer", "style_weight")


def content_layers(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """Each layer as the content layer, from noise; relu4_2 with a second seed."""
    content, style = _pictures(lab, *pair)
    layers = [layer.replace("conv", "relu") for layer in CONVOLUTIONS]
    cells = {(layer, 0): {"content_layers": [layer], "seed": 0} for layer in layers}
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
             for count in range(1, 6) for beta in (1e2, 1e3, 1e4, 1e5, 1e6)}
    runs = lab.runs(cells, content=content, style=style, content_layers=["conv3_1"], scale="gatys", steps=150)
    yield from _rows(lab, runs, content, style, "indices", "beta")


def grid_ratio(lab: Lab, pair: tuple[str, str]) -> Iterator[Row]:
    """The grid of TC from noise: alpha/beta from 1e-5 to 1e-2, style at conv1_1, and on to conv5_1, both poolings."""
    content, style = _pictures(lab, *pair)
    sets = [tuple(layer.replace("relu", "conv") for layer in layers) for layers in STYLE_SETS]
    for pooling in ("max", "avg"):
        cells = {(pooling, len(layers), ratio): {"style_layers": layers, "content_weight": ratio}
                 for layers in sets for ratio in (1e-5, 1e-4, 1e-3, 1e-2)}
        runs = lab.runs(cells, content=content, style=style, start="noise", scale="gatys", style_weight=1.0, pooling=pooling,
                        content_layers=["conv4_2"], steps=200)
        yield from _rows(lab, runs, content, style, "pooling", "layers", "ratio")


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
    """The photograph back from each convolution, from faint and from full noise."""
    content, = _pictures(lab, photograph)
    for contrast in (0.2, 1.0):
        cells = {(contrast, layer): {"content_layers": [layer]} for layer in CONVOLUTIONS}
        runs = lab.runs(cells, content=content, start=faint_noise(content, contrast), steps=300, tolerance=1e-3)
        yield from _rows(lab, runs, content, None, "contrast", "content_layer")


def textures(lab: Lab, name: str) -> Iterator[Row]:
    """The style's texture from each layer alone and from layers up to each, with two seeds, and its error at all five."""
    style, = _pictures(lab, name)
    judge = nst.StyleObjective(None, style, **lab.network)
    sets = {f"up to {layers[-1]}": layers for layers in STYLE_SETS} | {layer: [layer] for layer in nst.STYLE_LAYERS[1:]}
    cells = {(label, seed): {"style_layers": layers, "seed": seed} for label, layers in sets.items() for seed in SEEDS[:2]}
    runs = lab.runs(cells, style=style, start="noise", steps=200)
    for (label, seed), steps in runs.items():
        image = _last(steps)
        with torch.no_grad():
            errors = {layer: judge(image)[1][f"style {layer}"].item() for layer in nst.STYLE_LAYERS}
        waves = {f"octave {k + 1}": share for k, share in enumerate(octaves(image))}
        yield {"layers": label, "seed": seed} | lab.judged(steps[max(steps)], None, style) | errors | waves
    for label in sets:
        yield {"layers": f"{label}, seeds", "lpips": lab.judges["alexnet"].lpips(*(_last(runs[label, seed]) for seed in (0, 1)))}
    halves = style[..., :style.shape[-1] // 2], style[..., style.shape[-1] - style.shape[-1] // 2:]
    yield {"layers": "the style's halves", "lpips": lab.judges["alexnet"].lpips(*halves)}
    yield {"layers": "the style"} | {f"octave {k + 1}": share for k, share in enumerate(octaves(style))}


RECORDINGS = {
    "starts": Recording(BENCH, starts), "curves": Recording(BENCH, curves), "epochs": Recording(BENCH, epochs),
    "weights": Recording(BENCH, weights), "content_layers": Recording(BENCH, content_layers),
    "style_layers": Recording(BENCH, style_layers), "grid_beta": Recording(SIX, grid_beta),
    "grid_ratio": Recording(SIX, grid_ratio), "pooling": Recording(BENCH, pooling),
    "reconstructions": Recording(nst.PHOTOGRAPHS, reconstructions), "textures": Recording(STYLES, textures)}


# --- The command ------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None, *, folder=MEASUREMENTS) -> None:
    """`record` what is not recorded yet, or --list what is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["record"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECORDINGS)}; none means all")
    parser.add_argument("--arch", default="vgg16_compact", help="the network to optimise against (default: %(default)s)")
    parser.add_argument("--size", type=int, default=256, help="long side of the pictures (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="say what is recorded, and record nothing")
    options = parser.parse_args(arguments)
    wanted = {name: RECORDINGS[nst.one_of("recording", name, RECORDINGS)] for name in options.names or RECORDINGS}
    if options.list:
        print("\n".join(listed(wanted, folder=folder)))
        return
    units = sum(len(recording.units) for recording in wanted.values())
    done = sum(len({row["unit"] for row in measurements(name, arch=options.arch, folder=folder)}) for name in wanted)
    with tqdm(total=units, initial=done, unit="unit", file=sys.stdout, smoothing=0) as bar:
        for line in record(wanted, Lab(options.arch, size=options.size), folder=folder):
            bar.write(line, file=sys.stdout)
            bar.update()


def listed(recordings: Mapping[str, Recording], *, folder=MEASUREMENTS) -> Iterator[str]:
    """For each recording and network: how many of its units are recorded, at which size, with which commits, and when."""
    for name, recording in recordings.items():
        rows = measurements(name, folder=folder)
        for arch in dict.fromkeys(row["arch"] for row in rows):
            own = [row for row in rows if row["arch"] == arch]
            sizes, commits, days = (sorted({str(row[key]) for row in own}) for key in ("size", "commit", "day"))
            yield (f"{name}: {len({row['unit'] for row in own})} of {len(recording.units)} with {arch}, "
                   f"{'/'.join(sizes)} px, commit {', '.join(commits)}, {days[0]} to {days[-1]}")
        if not rows:
            yield f"{name}: nothing of {len(recording.units)}"
