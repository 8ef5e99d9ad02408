"""What the five course reports say, and what follows from the recorded measurements.

A rule judges one sentence from its recording, see recordings.py, and `verdicts` says what came out; the sentences with what is
asked of them stand in data/measurements/claims.csv. Nothing here runs, draws or judges by eye: notebooks show.
"""
from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import torch
from scipy.stats import beta as beta_distribution
from scipy.stats import spearmanr
from tqdm import tqdm

import nst_utils as nst
import style_statistics
from experiments import MEASUREMENTS, SEEDS, SIX, Lab, Recording, Verdict, keep_memory, measurements, record, verdict
from recordings import BETAS, CONVOLUTIONS, COUNTS, FIRSTS, MATCHED, NUMBERS, RATIOS, RECORDINGS, RELUS, STRIDES, WEIGHTS, Row

DEFAULT_ARCH = "vgg16_compact"
ENOUGH = 4  # units of a recording with the real VGG-16
ALONE = ("up to relu1_1", *nst.STYLE_LAYERS[1:])  # the textures of single layers, as `textures` names them

# --- Rules ------------------------------------------------------------------------------------------------------------


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


def enough(values: Sequence[float], *, least: int = 2, **asked) -> Verdict:
    """`verdict` of what could be compared, undecided if that is less than `least` pairs."""
    if len(values) < 2:
        return Verdict(math.nan, math.nan, math.nan, len(values), "undecided", asked.get("what", ""))
    found = verdict(values, **asked)
    return found if len(values) >= least else replace(found, answer="undecided")


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
    """Is something so in at least such a share of cases? A smaller share is a no only if Clopper and Pearson's 95 % interval lies
    below what is asked: one of four photographs says little of the next ones."""
    count, hits = flags.size, int(flags.sum())
    low = beta_distribution.ppf(0.025, hits, count - hits + 1) if hits else 0.0
    high = beta_distribution.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    answer = "holds" if hits >= least * count else "fails" if high < least else "undecided"
    return Verdict(hits / count, float(low), float(high), count, answer, what)


def _settled(starts: Table, *kinds: str) -> Table:
    """The pairs whose runs from such starts came to rest, each of them; the others say nothing of where runs end."""
    return Table([row for unit in starts.units() if all(run["needed"] < math.inf for run in unit.where(
        level="settled", start=kinds).rows) for row in unit.rows])


@rule("VS1", "starts")
def vs1(starts: Table) -> list[Verdict]:
    """The picture from noise against the one from the photograph: style distance, and LPIPS to the photograph."""
    end = _settled(starts, "noise", "content").final()
    noise, content = (end.where(start=start) for start in ("noise", "content"))
    return [enough(noise.per_unit("alexnet") / content.per_unit("alexnet"), least=len(SIX), below=1.1, what="style distance"),
            enough(noise.per_unit("lpips") - content.per_unit("lpips"), least=len(SIX), below=0.05, what="LPIPS")]


@rule("VS2", "starts")
def vs2(starts: Table) -> list[Verdict]:
    """The mean over seeds of a pair's ratios; what never arrives counts as a thousand evaluations."""
    needed = {start: _finite(starts.where(start=f"{start}, to the lower of content and noise", level=1.1).series(
        "needed", "seed", SEEDS)) for start in ("noise", "content")}
    ratios = (needed["noise"] / needed["content"]).mean(1)
    return [verdict(ratios, above=1.2, what="evaluations"), *vs1(starts)]  # "simply": the picture is the same


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


@rule("PR3", "single_textures")
def pr3(single_textures: Table) -> list[Verdict]:
    layers = CONVOLUTIONS[:6]
    errors = np.stack([single_textures.series(f"at {layer}", "layer", layers) for layer in layers], axis=2)
    own = errors.diagonal(axis1=1, axis2=2)  # of (style, texture, at)
    return [share_of(((own <= errors.min(1)) & (own <= errors.min(2))).all(1), 1.0)]


def _grid(table: Table, column: str, down: tuple[str, Sequence], along: tuple[str, Sequence]) -> np.ndarray:
    """The column as (units, rows, columns)."""
    return np.stack([table.where(**{down[0]: value}).series(column, *along) for value in down[1]], axis=1)


def _more_style(grid: np.ndarray, what: str = "") -> Verdict:
    """In how many of the steps along rows and down columns does a number fall? One share for each pair: the steps of a grid are
    no independent cases."""
    falls = [(np.diff(grid, axis=axis) < 0).reshape(len(grid), -1) for axis in (1, 2)]
    return verdict(np.concatenate(falls, axis=1).mean(1), above=0.9 - 1e-9, what=what)  # 0.9 itself is enough


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


@rule("PR7b", "weights")
def pr7b(weights: Table) -> list[Verdict]:
    both = {row["unit"] for row in weights.where(content_layer="relu2_1").rows}
    at_ten = weights.where(unit=list(both), style_weight=10).series("alexnet", "content_layer", ("relu4_2", "relu2_1"))
    return [verdict(at_ten[:, 0] / at_ten[:, 1], below=0.9)]


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


@rule("ZH4b", "textures")
def zh4b(textures: Table) -> list[Verdict]:
    alone = textures.where(seed=0).series("alexnet", "layers", ALONE)
    return [verdict(textures.where(seed=0, layers="up to relu5_1").per_unit("alexnet") / alone.min(1), below=0.9)]


def octave_shares(textures: Table) -> tuple[np.ndarray, np.ndarray]:
    """The share of power in each octave of wavelengths, of the styles (styles, octaves) and of the textures of single layers
    (styles, layers, octaves)."""
    names = [f"octave {k}" for k in range(1, 7)]
    return (np.stack([textures.where(layers="the style").per_unit(name) for name in names], axis=1),
            np.stack([textures.series(name, "layers", ALONE) for name in names], axis=2))


@rule("ZH5", "textures")
def zh5(textures: Table) -> list[Verdict]:
    own, met = octave_shares(textures)
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


@rule("TC1", "starts")
def tc1(starts: Table) -> list[Verdict]:
    """By how much the picture from noise is further from the photograph, in LPIPS and in structural similarity."""
    def gap(column: str, evaluations: int) -> np.ndarray:
        now = starts.where(evaluations=evaluations + 1)
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


@rule("TC5", "starts")
def tc5(starts: Table) -> list[Verdict]:
    along = starts.where(start="noise").series("lpips", "evaluations", (101, 401, 1001))
    return [steadily(along, falls=True)]


@rule("TC6", "painters")
def tc6(painters: Table) -> list[Verdict]:
    along = painters.series("share", "evaluations", (101, 801))
    return [verdict(along[:, 0] / along[:, 1], above=0.8)]


@rule("G15a", "textures")
def g15a(textures: Table) -> list[Verdict]:
    rough = textures.series("roughness", "layers", [f"up to {layer}" for layer in nst.STYLE_LAYERS])
    return [*tc4(textures), steadily(rough, falls=True, what="smoother in")]


@rule("G16a", "starts")
def g16a(starts: Table) -> list[Verdict]:
    ends = _settled(starts, "content", "style", "noise")
    seeds = ends.where(start="noise against noise")
    others = ends.where(start=["content against style", "content against noise", "style against noise"])
    return [enough(others.per_unit(column) / seeds.per_unit(column), least=len(SIX), below=1.2, what=what)
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
    """Learning rate 0.01 over 1, means over seeds: after 30 steps, where it stops as soon as the loss has grown, and after
    the long run."""
    ends = {"in equal evaluations": [], "stopped at a rise": [], "to convergence": []}
    for unit in rates.units():
        slow, fast = ([[row["content"] for row in unit.where(rate=rate, seed=seed).rows] for seed in SEEDS]
                      for rate in (0.01, 1.0))
        # a run that is not finite any more ends early, and counts with its last loss
        ends["in equal evaluations"].append(np.mean([a[:31][-1] / b[:31][-1] for a, b in zip(slow, fast)]))
        ends["stopped at a rise"].append(np.mean([_before_a_rise(a) / _before_a_rise(b) for a, b in zip(slow, fast)]))
        ends["to convergence"].append(slow[0][-1] / fast[0][-1])
    return [verdict(ratios, below=0.9, what=what) for what, ratios in ends.items()]


def _before_a_rise(losses: Sequence[float]) -> float:
    """The loss before the first rise, or the last of all."""
    return next((a for a, b in zip(losses, losses[1:]) if not b <= a), losses[-1])


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
            row[f"{arch} verdict"] = "same run" if alike else answer(parts) if parts else ""
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
        for name in [name for name, recording in wanted.items() if recording.apart]:
            print(f"{name} does not depend on the network: it is recorded without --arch.")
            del wanted[name]
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
        keep_memory()
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
