"""Many runs and what is measured on them: sweeps over settings, starts of noise, distances between pictures.

For notebooks and scripts that compare: `sweep` runs `stylize` for many settings, here in batches or on any executor, and the
measures tell in numbers what the eye sees. Not for: one run (nst_utils.stylize), drawing (report), sliders (panels), training.
"""
from __future__ import annotations

import csv
import functools
import inspect
import os
import pickle
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.color import rgb2lab
from skimage.measure import block_reduce
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import nst_utils as nst

# --- Sweeps -----------------------------------------------------------------------------------------------------------

DEFAULTS = {name: parameter.default for function in (nst.StyleObjective, nst.stylize)
            for name, parameter in inspect.signature(function).parameters.items()}
RUN = ("steps", "optimizer", "learning_rate", "tolerance")  # settings of optimize_image
WEIGHTS = tuple(name for name in DEFAULTS if name.endswith("_weight"))
PLAIN = (str, int, float, tuple, list, dict, Path, type(None))


@dataclass(frozen=True, eq=False)
class _Cell:
    """A run with its pictures read; cells of one kind can run as one batch."""

    label: Any
    content: Tensor | None
    style: Tensor | None
    start: Tensor
    weights: dict[str, float]
    layer_weights: Mapping[str, float] | None
    network: tuple  # cells of one network share its extractor
    objective: dict[str, Any]  # the other settings of StyleObjective
    run: dict[str, Any]
    kind: tuple


@contextmanager
def _named(*labels) -> Iterator[None]:
    """An error in here says in which cell, or in which of a batch."""
    try:
        yield
    except (ValueError, TypeError) as error:
        error.add_note(f"In the cell {' or '.join(map(repr, labels))} of a sweep.")
        raise


def _key(settings: Mapping) -> tuple:
    """Plain settings are equal if they read alike; tensors and networks only if they are the same object."""
    return tuple(sorted((name, repr(value) if isinstance(value, PLAIN) else id(value)) for name, value in settings.items()))


def _read(source, place: Mapping, pictures: dict) -> Tensor | None:
    """The picture that a setting names, read once for all cells."""
    key = _key({"source": source, **place})
    if key not in pictures:
        pictures[key], = nst.load_images(source, **place)
    return pictures[key]


def _cell(label, settings: dict, pictures: dict) -> _Cell:
    """Read the pictures of a cell; what `settings` holds in the end goes to StyleObjective."""
    take = lambda *names: {name: settings.pop(name, DEFAULTS[name]) for name in names}  # noqa: E731
    run, start, place = take(*RUN), take("start", "seed"), take("size", "device")
    weights = {name: float(weight) for name, weight in take(*WEIGHTS).items()}
    layer_weights = settings.pop("style_layer_weights", None)
    content, style = (_read(settings.pop(name, None), place, pictures) for name in ("content", "style"))
    image = nst.initial_image(content, start["start"], style=style, seed=start["seed"])
    if not callable(run["optimizer"]):
        nst.one_of("optimizer", run["optimizer"], nst.OPTIMIZERS)
    # an own optimiser or statistic may be made for one picture
    own = callable(run["optimizer"]) or callable(settings.get("statistic"))
    network, shapes = (_key(settings), content is None, style is None), [None if x is None else x.shape for x in (content, style)]
    terms = weights["tv_weight"] > 0, weights["range_weight"] > 0
    kind = network, _key(run), image.shape, image.dtype, *shapes, *terms, label if own else None
    return _Cell(label, content, style, image, weights, layer_weights, network, settings, run, kind)


def largest_batch(image: Tensor, extractor: Callable[[], nst.FeatureExtractor]) -> int:
    """How many pictures of this shape to optimise at once: as many as a GPU holds, or as pay on a CPU."""
    (height, width), memory = image.shape[-2:], nst.beside("memory")
    if image.device.type == "cuda":
        return max(1, int(memory["available_memory"](image.device) // memory["step_memory"](extractor(), height, width)))
    return max(1, 2**18 // (height * width))  # measured on two cores: twice as fast at 96 px, 1.2 times at 256, equal at 512


def _stacked(images: Sequence[Tensor | None]) -> Tensor | None:
    """One for all if it is the same, else one for each."""
    return images[0] if all(image is images[0] for image in images) else torch.cat(list(images))


def _objective(cells: Sequence[_Cell], extractors: dict) -> nst.StyleObjective:
    """What judges a batch: its pictures stacked (or one for all), each weight one number per picture."""
    first = cells[0]
    shared = {"extractor": extractors[first.network]} if first.network in extractors else {}
    pictures = (_stacked([getattr(cell, name) for cell in cells]) for name in ("content", "style"))
    weights = {name: [cell.weights[name] for cell in cells] for name in WEIGHTS}
    with _named(*(cell.label for cell in cells)):
        objective = nst.StyleObjective(*pictures, **weights, **first.objective | shared)
        each = [cell.layer_weights or objective.style_layer_weights for cell in cells]
        names = dict.fromkeys(layer for one in each for layer in one)
        for layer in names:
            nst.one_of("a key of style_layer_weights", layer, objective.style_layers)
        objective.style_layer_weights = {layer: [one.get(layer, 0.0) for one in each] for layer in names}
        objective.weights()  # refuse bad ones
    extractors[first.network] = objective.extractor
    return objective


def _batches(settings: Mapping[Any, Mapping], together: int | None, extractors: dict) -> Iterator[list[_Cell]]:
    """The cells in lists of one kind."""
    kinds, pictures = {}, {}
    for label, one in settings.items():
        with _named(label):
            cell = _cell(label, dict(one), pictures)
        kinds.setdefault(cell.kind, []).append(cell)
    for cells in kinds.values():
        count = together or largest_batch(cells[0].start, lambda: _objective(cells[:1], extractors).extractor)  # noqa: B023
        yield from (cells[first:first + count] for first in range(0, len(cells), count))


def _fits_no_batch(settings: Mapping) -> bool:
    """Whether a cell has several sizes, or is asked of its style what a batch of pictures isn't."""
    return bool(len(settings.get("sizes", ())) or isinstance(settings.get("style"), list | tuple)
                or any(name in settings for name in ("masks", "style_scale")))


def _here(settings: Mapping[Any, Mapping], together: int | None) -> Iterator[tuple[Any, nst.Step]]:
    """The Steps of all cells, batch by batch; an interrupt ends the sweep after the batch that it ended."""
    extractors, alone = {}, {label: one for label, one in settings.items() if _fits_no_batch(one)}
    alike = {label: one for label, one in settings.items() if label not in alone}
    batches = [(batch, _objective(batch, extractors)) for batch in _batches(alike, together, extractors)]
    for batch, objective in batches:
        for step in nst.optimize_image(torch.cat([cell.start for cell in batch]), objective, **batch[0].run):
            yield batch[step.picture].label, replace(step, seconds=step.seconds / len(batch))
        if step.reason == "interrupted":
            return
    for label, one in alone.items():
        size, sizes = (one.get(name, DEFAULTS[name]) for name in ("size", "sizes"))
        chain = {"steps": DEFAULTS["steps"]} | one | {"sizes": sizes if len(sizes) else [size]}
        with _named(label):
            for step in nst.coarse_to_fine(**{name: value for name, value in chain.items() if name != "size"}):
                yield label, step
        if step.reason == "interrupted":
            return


def _elsewhere(waiting: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """The labels and results of futures as they come in, whatever the executor; Dask's aren't those of the standard library.

    An error is raised at the end, when what the others found has been handed over."""
    failed = None
    try:
        while waiting:
            done = [future for future in waiting if future.done()]
            for label, future in [(waiting.pop(future), future) for future in done]:
                if error := future.exception():
                    error.add_note(f"In the cell {label!r}.")
                    failed = failed or error
                else:
                    yield label, future.result()
            time.sleep(0.02 if waiting and not done else 0)
    finally:
        for future in waiting:
            future.cancel()
    if failed:
        raise failed


def _check_sendable(label, settings: Mapping) -> None:
    """Refuse what another process can't be sent, a lambda say, before it fails there."""
    for name, value in settings.items():
        try:
            pickle.dumps(value if callable(value) else None)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(f"The {name} of the cell {label!r} can't be sent to another process: define it with def, in a "
                             f"module.") from error


def sweep(cells: Mapping[Any, Mapping], *, executor=None, together: int | None = None, show_progress: bool = True,
          **common) -> dict[Any, nst.Step]:
    """Run `stylize` once for each cell and return label -> its last Step, under one progress bar over all of them.

    cells: label -> the keywords in which this run differs from `common`; both take those of `stylize`, content and style among
    them. A cell with `sizes`, several styles, masks or a `style_scale` runs by itself, after the others.
    executor: a concurrent.futures.Executor (a pool of processes, or of a cluster) runs the cells; None runs them here.
    together: so many cells, if alike in network, size, steps and optimiser, run as one batch, each with an L-BFGS of its
    own; None takes as many as a GPU's memory holds, or as are faster so on a CPU. 1 gives the very bits of `stylize`, while
    batches round in another order. The seconds of a Step are its share of the batch's. An interrupt returns the cells that
    are finished. Settings are checked before the first step. With threads as executor only VGGs can be built; a pool of processes
    starts them by "spawn", since forked ones hang once torch has computed here.
    """
    context = getattr(executor, "_mp_context", None)
    if context and context.get_start_method() == "fork":
        raise ValueError('Forked processes hang once torch has computed in this one: make the pool with '
                         'mp_context=multiprocessing.get_context("spawn").')
    if together is not None and together < 1:
        raise ValueError(f"together is a number of cells of at least 1, not {together}.")
    settings = {label: dict(common) | dict(cell) for label, cell in cells.items()}
    for label, one in settings.items():
        if "show_progress" in one or not (isinstance(one.get("steps", 1), Integral) or len(one.get("sizes", ()))):
            raise ValueError(f"A cell has one number of steps unless it has sizes, and no bar of its own: {label!r} has.")
        if context:
            _check_sendable(label, one)
    steps = {label: sum(nst.step_counts(one.get("steps", DEFAULTS["steps"]), list(one.get("sizes", ())) or [None]))
             for label, one in settings.items()}
    made, results = dict.fromkeys(settings, 0), {}
    with tqdm(total=sum(steps.values()), file=sys.stdout, mininterval=0.5, disable=not show_progress, bar_format=nst.BAR) as bar:
        try:
            if executor:
                submit = functools.partial(executor.submit, nst.stylize, show_progress=False)
                runs = _elsewhere({submit(**one): label for label, one in settings.items()})
            else:
                runs = _here(settings, together)
            for label, step in runs:
                if step.reason == "interrupted":
                    continue
                made[label] = steps[label] if step.reason else step.index  # a run may stop early
                if step.reason:
                    results[label] = step
                bar.update(sum(made.values()) - bar.n)
        except KeyboardInterrupt:
            pass
    return {label: results[label] for label in settings if label in results}


# --- Pictures to compare ----------------------------------------------------------------------------------------------


def square(name: str, size: int) -> Tensor:
    """The middle of a built-in picture as a square of `size` pixels."""
    picture = nst.sample(name)
    side = min(picture.shape[-2:])
    top, left = ((length - side) // 2 for length in picture.shape[-2:])
    return nst.resize(picture[..., top:top + side, left:left + side], size)


def faint_noise(canvas: Tensor, contrast: float = 1.0, *, seed: int = 0) -> Tensor:
    """Uniform noise of the canvas's shape around grey; a contrast of 1 fills [0, 1], as `nst.initial_image` does."""
    return 0.5 + contrast * (nst.initial_image(canvas, "noise", seed=seed) - 0.5)


# --- Measures ---------------------------------------------------------------------------------------------------------

RIM = 12  # pixels at each border that no measure looks at


def pixels(image: Tensor) -> np.ndarray:
    """The first picture as 8-bit numbers (H, W, 3), as it would be saved."""
    return np.asarray(nst.to_pil(image))


def grey(image: Tensor) -> np.ndarray:
    """The first picture in grey, (H, W) from 0 to 1, without a border of RIM pixels: what padding does is no style."""
    picture = np.asarray(nst.to_pil(image).convert("L"), dtype=np.float64) / 255
    return picture[RIM:-RIM, RIM:-RIM]


def roughness(image: Tensor, style: Tensor) -> float:
    """Total variation (L1) of a picture in grey as a share of what the style has at the same size: below 1 it is smoother."""
    variations = [sum(np.abs(np.diff(picture, axis=axis)).mean() for axis in (0, 1)) for picture in map(grey, (image, style))]
    return float(variations[0] / variations[1])


def _waves(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies, in cycles per pixel, and the amplitude at each; a Hann window takes the edges of the picture off."""
    window = np.hanning(picture.shape[0])[:, None] * np.hanning(picture.shape[1])
    amplitudes = np.fft.fft2((picture - picture.mean()) * window)
    return np.hypot(*np.meshgrid(*map(np.fft.fftfreq, picture.shape), indexing="ij")), amplitudes


def _spectrum(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies, in cycles per pixel, and the power at each."""
    frequencies, amplitudes = _waves(picture)
    return frequencies, np.abs(amplitudes) ** 2


def stroke_size(image: Tensor, *, longest: float = 64.0) -> float:
    """The mean wavelength in pixels, up to `longest`, of what can be seen of a picture: waves count by power times frequency,
    since strokes and not shadows are meant. A picture enlarged twice has strokes twice as long."""
    frequencies, power = _spectrum(grey(image))
    power = power * frequencies * (frequencies > 1 / longest)
    return float(power.sum() / (power * frequencies).sum())


def octaves(image: Tensor, count: int = 6) -> np.ndarray:
    """The share of a picture's power in each octave of wavelengths, 2-4, 4-8, ... pixels."""
    frequencies, power = _spectrum(grey(image))
    shares = np.array([power[(frequencies <= 0.5**k) & (frequencies > 0.5 ** (k + 1))].sum() for k in range(1, count + 1)])
    return shares / shares.sum()


def sharpness(image: Tensor, photograph: Tensor) -> float:
    """What a picture has of waves shorter than 8 pixels, as a share of what the photograph has; grain counts as well."""
    fine = [np.sqrt(power[frequencies > 1 / 8].mean()) for frequencies, power in map(_spectrum, map(grey, (image, photograph)))]
    return float(fine[0] / fine[1])


def detail(image: Tensor, photograph: Tensor) -> float:
    """How much of the photograph's waves shorter than 8 pixels a picture has in the photograph's places, 1 for all: grain is
    somewhere else, and does not count."""
    own, wanted = (amplitudes[frequencies > 1 / 8] for frequencies, amplitudes in map(_waves, map(grey, (image, photograph))))
    return float((own * wanted.conj()).real.sum() / (np.abs(wanted) ** 2).sum())


def coarse_correlation(image: Tensor, other: Tensor, *, block: int = 8) -> float:
    """Correlation of two pictures of one shape once all that is finer than a block is averaged away, in grey."""
    height, width = (side // block * block for side in grey(image).shape)
    means = [block_reduce(grey(one)[:height, :width], block, np.mean).ravel() for one in (image, other)]
    return float(np.corrcoef(*means)[0, 1])


def psnr(image: Tensor, other: Tensor) -> float:
    """Peak signal-to-noise ratio of two pictures of one shape in dB: 30 can hardly be told apart."""
    inside = (slice(RIM, -RIM), slice(RIM, -RIM))
    with np.errstate(divide="ignore"):  # infinite for equal pictures
        return float(peak_signal_noise_ratio(pixels(image)[inside], pixels(other)[inside]))


def ssim(image: Tensor, other: Tensor) -> float:
    """Structural similarity of two pictures in grey, 1 if equal: scikit-image's, with windows of 7 x 7 pixels."""
    return float(structural_similarity(*(grey(one) for one in (image, other)), data_range=1.0))


def lab(image: Tensor) -> np.ndarray:
    """CIELAB colours (H, W, 3) of a picture: a distance of 2 or so can just be seen."""
    return rgb2lab(pixels(image))


def colour_distance(image: Tensor, other: Tensor, *, block: int = 1) -> float:
    """Mean CIELAB distance of two pictures of one shape, pixel by pixel or of their means over blocks."""
    image, other = (F.avg_pool2d(one[..., RIM:-RIM, RIM:-RIM].cpu(), block) for one in (image, other))
    return float(np.linalg.norm(lab(image) - lab(other), axis=2).mean())


class Judge(nn.Module):
    """A trained network that nothing was optimised against, and what it says of style and content.

    arch: "alexnet", or "vgg16", which taught the compact networks and is no independent judge. weights: as in FeatureExtractor.
    heads: the five weight vectors (C,) of LPIPS; None takes the published ones, see data/fetch.py.
    """

    LAYERS = {"alexnet": ("relu1_1", "relu2_1", "relu3_1", "relu3_2", "relu3_3"),
              "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")}  # of LPIPS

    def __init__(self, arch: str = "alexnet", *, weights="DEFAULT", heads: Sequence[Tensor] | None = None, device=None):
        super().__init__()
        self.perceived = self.LAYERS[nst.one_of("arch", arch, self.LAYERS)]
        self.style_layers = self.perceived if arch == "alexnet" else nst.STYLE_LAYERS
        self.network = nst.FeatureExtractor(arch, (*self.perceived, *self.style_layers), weights=weights, precision="float32",
                                            device=device)
        self.heads = list(heads or nst.beside("fetch")["lpips_heads"](arch, nst.load_state, nst.replacing))

    @torch.no_grad()
    def _maps(self, image: Tensor) -> dict[str, Tensor]:
        return self.network(image[..., RIM:-RIM, RIM:-RIM].to(self.network.mean))

    def style_distance(self, image: Tensor, style: Tensor) -> float:
        """Mean relative error of the Gram matrices of two pictures (1, 3, H, W) of any sizes; 0 if equal."""
        maps, wanted = self._maps(image), self._maps(style)
        errors = [nst.relative_error(nst.gram(maps[layer]), nst.gram(wanted[layer])) for layer in self.style_layers]
        return float(torch.stack(errors).mean())

    def share_closed(self, image: Tensor, photograph: Tensor, style: Tensor) -> float:
        """How much of the way from the photograph to the style a picture has gone: 0 for the photograph, 1 for the style."""
        return 1 - self.style_distance(image, style) / self.style_distance(photograph, style)

    def lpips(self, image: Tensor, other: Tensor) -> float:
        """How different two pictures of one shape look (Zhang et al. 2018, eq. 1); 0 if equal, 0.7 if nothing is left."""
        maps, others, total = self._maps(image), self._maps(other), 0.0
        for layer, head in zip(self.perceived, self.heads):
            ours, theirs = (F.normalize(one[layer], dim=1, eps=1e-10) for one in (maps, others))
            total += ((ours - theirs).square() * head.to(ours).view(1, -1, 1, 1)).sum(1).mean().item()
        return total


# --- The bench, and what follows from it ------------------------------------------------------------------------------

BENCH = (("astronaut", "swirls"), ("chelsea", "ink_hatching"), ("coffee", "mosaic"), ("rocket", "aurora_wash"),
         ("chelsea", "autumn_knife"), ("coffee", "facets"), ("astronaut", "woodblock_waves"), ("astronaut", "pointillism"),
         ("chelsea", "swirls"), ("coffee", "ikat"), ("rocket", "stained_glass"), ("rocket", "woodblock_waves"))
SIX, SEEDS = BENCH[:6], (0, 1, 2)  # SIX where several settings are swept at once; seeds where noise or a start matters


@dataclass(frozen=True)
class Verdict:
    """What a bench says of a claim."""

    median: float
    low: float  # the 95 % bootstrap interval of the median
    high: float
    count: int  # pairs
    answer: str  # "holds", "fails", "undecided", or "report" where nothing is asked
    what: str = ""  # of what, where a claim has several such numbers

    def __str__(self) -> str:
        what = f"{self.what} " if self.what else ""
        found = f"{what}{self.median:.3g}"
        found += f" [{self.low:.3g}, {self.high:.3g}], n = {self.count}" if self.count != 1 else ""
        return found if self.answer == "report" else f"{found}: {self.answer}"


def verdict(values: Sequence[float], *, above: float | None = None, below: float | None = None, what: str = "",
            seed: int = 0) -> Verdict:
    """Judge one number per pair: a claim holds if the whole 95 % bootstrap interval of their median lies above (or below) what
    is asked, fails if it lies wholly on the other side, and is undecided otherwise. Where nothing is asked, it is reported."""
    if above is not None and below is not None:
        raise ValueError("A claim asks for values above or below one threshold.")
    values, threshold = np.asarray(values, dtype=float), above if below is None else below
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"A verdict needs at least two finite numbers, not {values.tolist()}.")
    median, low, high = median_interval(values, seed=seed).tolist()
    if threshold is None:
        answer = "report"
    else:
        holds, fails = (low > threshold, high <= threshold) if below is None else (high < threshold, low >= threshold)
        answer = "holds" if holds else "fails" if fails else "undecided"
    return Verdict(median, low, high, len(values), answer, what)


def median_interval(values: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """(3, ...): the median over the first axis, the units of a bench, and the ends of its 95 % bootstrap interval."""
    values = np.asarray(values, dtype=float)
    chosen = np.random.default_rng(seed).integers(len(values), size=(10_000, len(values)))
    low, high = np.percentile(np.median(values[chosen], axis=1), (2.5, 97.5), axis=0)
    return np.stack([np.median(values, axis=0), low, high])


# --- Recorded measurements --------------------------------------------------------------------------------------------


def keep_memory() -> None:
    """Let processes that are started from here keep the memory that they free. The C library of Linux would give it back and ask
    for it again at each step, which takes a sixth of the time; other systems don't read these names."""
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        os.environ.setdefault(name, str(2**30))


MEASUREMENTS = nst.DATA / "measurements"
TEXTS = ("arch", "unit", "commit", "day", "torch", "machine")  # never numbers: some names of commits look like one


class Lab:
    """A network, a size and the judges: what the runs of a recording share.

    arch, pooling and other keywords: of the FeatureExtractor that is optimised against. size: long side of all pictures.
    judges: "alexnet" and "vgg16" -> Judge; None loads the trained ones. device: None takes an accelerator if there is one.
    """

    def __init__(self, arch: str = "vgg16_compact", *, size: int = 256, judges: Mapping[str, Judge] | None = None, device=None,
                 **network):
        self.arch, self.size = arch, size
        self.device = device or torch.accelerator.current_accelerator(check_available=True) or "cpu"
        self.network = {"arch": arch, **network}
        self.judges = dict(judges or {name: Judge(name, device=self.device) for name in Judge.LAYERS})

    def runs(self, cells: Mapping[Any, Mapping], *, marks: Sequence[int] = (), together: int | None = None,
             **common) -> dict[Any, dict[int, nst.Step]]:
        """`sweep` that keeps more of each run: label -> number of updates -> the Step after so many, for `marks` and the last
        one, which is the best picture of the run."""
        common = {"size": self.size, "device": self.device, **self.network} | common
        kept = {label: {} for label in cells}
        for label, step in _here({label: common | dict(cell) for label, cell in cells.items()}, together):
            if step.reason == "interrupted":
                raise KeyboardInterrupt
            if step.reason or step.index in marks:
                kept[label][step.index] = step
        return kept

    def judged(self, step: nst.Step, content: Tensor | None, style: Tensor | None) -> dict[str, float]:
        """The losses of a step and every measure of its picture beside a photograph and a style (1, 3, H, W), of one size."""
        image, numbers = step.image.cpu(), {name: step.losses[name] for name in ("total", "content", "style")}
        if content is not None:
            numbers |= {"lpips": self.judges["alexnet"].lpips(image, content), "ssim": ssim(image, content),
                        "colour": colour_distance(image, content, block=8), "psnr": psnr(image, content),
                        "coarse": coarse_correlation(image, content), "sharpness": sharpness(image, content),
                        "detail": detail(image, content)}
        if style is not None:
            alexnet, vgg = (judge.style_distance(image, style) for judge in (self.judges["alexnet"], self.judges["vgg16"]))
            numbers |= {"alexnet": alexnet, "vgg16": vgg, "roughness": roughness(image, nst.resize(style, image.shape[-2:]))}
        if content is not None and style is not None:
            numbers["share"] = self.judges["alexnet"].share_closed(image, content, style)
        return numbers | {"strokes": stroke_size(image), "seconds": step.seconds}


@dataclass(frozen=True)
class Recording:
    """Runs whose numbers several claims may ask for.

    units: what is recorded at a stroke, so that it can be compared with each other, mostly one pair of the bench.
    measure: a function of a Lab and a unit that yields rows, dicts of names and numbers that read the same in all units; what
        stands under "picture" (1, 3, H, W) is saved in a folder beside the file, which has its name.
    apart: whether its numbers don't depend on the network of the lab, so that one recording answers for all of them.
    """

    units: Sequence[Any]
    measure: Callable[[Lab, Any], Iterator[dict[str, Any]]]
    apart: bool = False


def measurements(name: str, *, arch: str | None = None, folder: Path = MEASUREMENTS) -> list[dict[str, Any]]:
    """The rows recorded under a name, of one network or of all, with numbers as numbers; none if there is no file."""
    path = folder / f"{name}.csv"
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [{key: value if key in TEXTS else _number(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return [row for row in rows if arch in (None, row["arch"])]


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def record(recordings: Mapping[str, Recording], lab: Lab, *, folder: Path = MEASUREMENTS, executor=None) -> Iterator[str]:
    """Measure every unit that is not in `folder` yet and add its rows to NAME.csv; yields what was done. Stopped at any moment
    it leaves whole units, and goes on from there. executor: as in `sweep`, for units side by side; None measures them here."""
    rows = [(name, row) for name in recordings for row in measurements(name, arch=lab.arch, folder=folder)]
    for name, row in rows:
        if row["size"] != lab.size:
            raise ValueError(f"{name} was recorded with {lab.arch} at {row['size']:g} px: {lab.size} px can't be added to it.")
    done = {(name, row["unit"]) for name, row in rows}
    missing = {(name, _label(unit)): (recording.measure, lab, unit) for name, recording in recordings.items()
               for unit in recording.units if (name, _label(unit)) not in done}
    if executor:
        results = _elsewhere({executor.submit(_measured, *job): key for key, job in missing.items()})
    else:
        results = ((key, _measured(*job)) for key, job in missing.items())
    for (name, label), (rows, seconds, how) in results:
        where = {"arch": lab.arch, "size": lab.size, "unit": label}
        found = [where | _filed(row, folder / name, f"{lab.arch}_{label.replace(' ', '_')}_{number:02d}") | how
                 for number, row in enumerate(rows)]
        _write_rows(folder / f"{name}.csv", [*measurements(name, folder=folder), *found])
        yield f"{name}: {label} with {lab.arch} in {seconds:.0f} s"


def _measured(measure: Callable, lab: Lab, unit: Any) -> tuple[list[dict[str, Any]], float, dict[str, str]]:
    """The rows of a unit, the seconds that it took, and where: by the process that measured, maybe on another machine."""
    start = time.perf_counter()
    return list(measure(lab, unit)), time.perf_counter() - start, _provenance()


def _label(unit: Any) -> str:
    return unit if isinstance(unit, str) else " x ".join(map(str, unit))


def _filed(row: dict[str, Any], folder: Path, stem: str) -> dict[str, Any]:
    """The row with its picture, if it has one, saved and named."""
    if "picture" not in row:
        return row
    return row | {"picture": nst.save_image(row["picture"], folder / f"{stem}.jpg").name}


def _provenance() -> dict[str, str]:
    """With which code and on what kind of machine a row came about."""
    git = shutil.which("git")
    asked = git and subprocess.run([git, "-C", str(Path(nst.__file__).parent), "rev-parse", "--short", "HEAD"],
                                   capture_output=True, text=True)
    unit = torch.cuda.get_device_name() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
    return {"commit": asked.stdout.strip() if asked else "", "day": time.strftime("%Y-%m-%d"), "torch": torch.__version__,
            "machine": f"{platform.system()} {unit}"}


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(key for row in rows for key in row))
    with nst.replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})


if __name__ == "__main__":
    from claims import main  # it imports this module under its own name
    main()
