"""What is trained: pictures as a data set, encoders taught by VGG-16, the decoders of AdaIN, checkpoints, files of weights.

For whoever makes new weights, on a CPU, a GPU or several (Hugging Face Accelerate). Not for using them: the networks live in
nst_utils, curves and contact sheets in report, many runs to compare in experiments. A new training loss is a term of
`AdaINLosses` or `EncoderLosses`; another kind of network to train gets a function beside `train_adain`, on the same loop.
"""
from __future__ import annotations

import copy
import functools
import io
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, StackDataset

import nst_utils as nst

# --- Pictures ---------------------------------------------------------------------------------------------------------

KEPT = 1024  # pictures that each process keeps decoded: 0.4 GB at a size of 288


class PictureCrops(Dataset):
    """Endless square crops (3, crop, crop) in [0, 1]; item k is a function of (seed, k), in whichever process it is made.

    Under a DataLoader, `sampler=range(first, end)` says which ones to make.

    source: a folder of pictures, with what is in folders inside it, or several, which are then drawn from in turn. Every picture
    of a folder is drawn once before any is drawn twice. Pictures that can't be read or are smaller than a crop are passed over.
    size, crop: the short side to which pictures are reduced and the side of the crops, in pixels. Each is a window of 1 to 1.5
    crops a side, shrunk, and half of them are mirrored.
    Raises ValueError if a folder is absent or, at the latest when they are drawn, has fewer than two usable pictures.
    """

    def __init__(self, source, size: int, crop: int, seed: int = 0):
        self.size, self.crop, self.seed, self._kept = size, crop, seed, {}
        self.folders = [_picture_files(Path(one)) for one in ([source] if isinstance(source, str | Path) else source)]
        # in memory shared with the workers of a DataLoader, so that what one of them finds is known to all
        self._unusable = [torch.zeros(len(files), dtype=torch.bool).share_memory_() for files in self.folders]

    @property
    def skipped(self) -> int:
        """How many pictures turned out to be unusable so far, in all processes."""
        return sum(int(marks.sum()) for marks in self._unusable)

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, number: int) -> Tensor:
        picture, generator = self.picture(number), _generator(self.seed, 1, number)
        height, width = picture.shape[-2:]
        side = _random_int(self.crop, min(height, width, self.crop * 3 // 2), generator)
        top, left = _random_int(0, height - side, generator), _random_int(0, width - side, generator)
        window = picture[:, top:top + side, left:left + side].float().div(255)
        window = window.flip(-1) if _random_int(0, 1, generator) else window
        return nst.resize(window[None], self.crop)[0]

    def picture(self, number: int) -> Tensor:
        """The whole picture from which crop `number` is cut, 8-bit (3, H, W)."""
        turn, folder = divmod(number, len(self.folders))
        files, unusable = self.folders[folder], self._unusable[folder]
        turn, place = divmod(turn, len(files))
        order = torch.randperm(len(files), generator=_generator(self.seed, 0, turn, folder)).tolist()
        for index in order[place:] + order[:place]:
            if not unusable[index]:
                try:
                    return self._read(files[index])
                except (OSError, ValueError):
                    unusable[index] = True
            if unusable.sum() > len(files) - 2:
                break
        raise ValueError(f"{files[0].parent} has fewer than two pictures that can be read and have {self.crop} pixels or more "
                         f"on each side.")

    def _read(self, path: Path) -> Tensor:
        if path in self._kept:
            return self._kept[path]
        picture = nst.load_image(path)
        if min(picture.shape[-2:]) < self.crop:
            raise ValueError("smaller than a crop")
        picture = (nst.resize(picture, self.size, "short")[0] * 255).round().to(torch.uint8)
        if len(self._kept) < KEPT:
            self._kept[path] = picture
        return picture


def _picture_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in Image.registered_extensions())
    if len(files) < 2:
        raise ValueError(f"{folder} holds {len(files)} picture{'s' * (len(files) != 1)}; training needs at least two.")
    return files


def _generator(*numbers: int) -> torch.Generator:
    """A generator of random numbers that belongs to these numbers and to no others."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1))


def _random_int(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


# --- Checkpoints ------------------------------------------------------------------------------------------------------


def write_checkpoint(path, state: Mapping) -> None:
    """Killed at any moment, this leaves the old checkpoint, the new one, or the old one under the name of `previous(path)`."""
    path = Path(path)
    with nst.replacing(path) as temporary:
        temporary.write_bytes(_as_bytes(state))
        if path.exists():
            os.replace(path, previous(path))


def read_checkpoint(path, arch: str) -> tuple[dict, str]:
    """The last whole checkpoint, empty if there is none, and a note on where it came from.

    arch: what the state's entry of this name must be. ValueError if it is another or if there are files but none is whole.
    """
    problems, paths = [], [] if path is None else [Path(path), previous(path)]
    for one in filter(Path.exists, paths):
        try:
            state = nst.load_state(one)
        except ValueError as error:
            problems.append(str(error))
            continue
        if state.get("arch") == arch and not {"step", "weights", "optimizer"} <= state.keys():
            raise ValueError(f"{one} is no checkpoint of {arch}: step, weights or optimizer is missing.")
        if state.get("arch") != arch:
            raise ValueError(f"{one} is no checkpoint of {arch}, but of {state.get('arch', 'something else')}.")
        return state, " ".join([*problems, f"Resumed at step {state['step']} from {one.name}."])
    if problems:
        raise ValueError(" ".join(problems))
    return {}, ""


def previous(path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return Path(f"{path}.previous")


def _as_bytes(state: Mapping) -> memoryview:
    """What torch.save writes: made in memory first, so that a full disk is an OSError like any other."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


# --- The loop of every training ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingStep:
    """One update of what is trained."""

    index: int  # updates made so far, this one included
    losses: dict[str, float]  # "total" and its terms for this batch, before the update
    seconds: float  # of training so far, those before a resumption included
    skipped: int  # pictures left out so far because they can't be read or are smaller than a crop
    note: str = ""  # on the first step after a resumption: from where

    @property
    def summary(self) -> str:
        """The first two terms, for a bar over the steps, see nst_utils.progress."""
        return ", ".join(f"{term} {value:.4g}" for term, value in list(self.losses.items())[:2])


def _updates(losses: nn.Module, trained: nn.Module, pictures: Sequence[PictureCrops], weights: Mapping[str, float], *, arch: str,
             steps: int, batch: int, rate: Callable[[float], float], clip: float, checkpoint, checkpoint_every: int, seed: int,
             workers: int | None, accelerator: Accelerator | None) -> Iterator[TrainingStep]:
    """Minimise the weighted terms that `losses` gives for a batch of each of `pictures`, over the parameters of `trained`.

    rate: the learning rate of Adam after a share of the steps. clip: the largest norm of a gradient. The others: `train_adain`.
    """
    if workers is None:
        able = multiprocessing.get_start_method() == "fork" and not multiprocessing.current_process().daemon
        workers = min(4, (os.cpu_count() or 1) // 2) if able else 0
    accelerator = accelerator or Accelerator()
    optimizer = torch.optim.Adam(trained.parameters())
    state, note = read_checkpoint(checkpoint, arch)
    done, before = state.get("step", 0), state.get("seconds", 0.0)
    if state:
        trained.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
    together = batch * accelerator.num_processes  # crops of a step: Accelerate deals out batches to processes in turn
    loader = DataLoader(StackDataset(*pictures), batch, sampler=range(done * together, steps * together),
                        num_workers=workers, generator=_generator(seed))  # else it draws from the global one
    model, optimizer, loader = accelerator.prepare(losses, optimizer, loader)
    start = time.perf_counter()
    for step, crops in enumerate(loader, done):
        for group in optimizer.param_groups:
            group["lr"] = rate(step / steps)
        terms = model(*crops)
        terms["total"] = sum(weights[term] * loss for term, loss in terms.items())
        values = accelerator.reduce(torch.stack([*terms.values()]).detach(), "mean").tolist()
        optimizer.zero_grad()
        accelerator.backward(terms["total"])
        gradient = torch.nn.utils.clip_grad_norm_(trained.parameters(), clip).item()
        if not all(map(math.isfinite, [*values, gradient])):  # before the update: what is trained stays as good as it was
            raise FloatingPointError(f"The loss of step {step + 1} or its gradient is not finite: training stopped; lower the "
                                     f"learning rate and go on from the last checkpoint.")
        optimizer.step()
        seconds = before + time.perf_counter() - start
        if checkpoint and accelerator.is_main_process and ((step + 1) % checkpoint_every == 0 or step + 1 == steps):
            write_checkpoint(checkpoint, {"arch": arch, "step": step + 1, "seconds": seconds,
                                          "weights": trained.state_dict(), "optimizer": optimizer.state_dict()})
        yield TrainingStep(step + 1, dict(zip(terms, values)), seconds, sum(source.skipped for source in pictures), note)
        note = ""


def save_weights(network: nn.Module, path) -> Path:
    """Write a plain state dict in half precision, which `AdaIN.pretrained(path=...)` and `weights=...` read; return the path."""
    path = Path(path)
    with nst.replacing(path) as temporary:
        temporary.write_bytes(_as_bytes({name: value.cpu().half() for name, value in network.state_dict().items()}))
    return path


# --- Encoders ---------------------------------------------------------------------------------------------------------

ENCODER_LAYERS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
                  "conv5_1")
SLOPE = 0.2  # of the ReLU through which maps are compared: where a channel is off, its error still has a gradient


def encoder_teacher(weights="DEFAULT", *, precision: str = "auto", device=None) -> nst.FeatureExtractor:
    """VGG-16 with the maps of ENCODER_LAYERS and what each of these reads; it pads by reflection, as its students do."""
    names = list(nst.layer_nodes(nst.load_network("vgg16_compact", weights=None)))
    read = [names[names.index(layer) - 1] for layer in ENCODER_LAYERS[1:]]
    teacher = nst.FeatureExtractor("vgg16", [*ENCODER_LAYERS, *read], weights=weights, precision=precision, device=device)
    for convolution in filter(lambda module: isinstance(module, nn.Conv2d), teacher.modules()):
        convolution.padding_mode = "reflect"
    return teacher


def _convolutions(extractor: nst.FeatureExtractor) -> list[nn.Module]:
    """The modules of ENCODER_LAYERS in order: convolutions, of a student most with a bottleneck before them."""
    return [module for module in extractor.body.children() if isinstance(module, nn.Conv2d | nn.Sequential)]


class EncoderLosses(nn.Module):
    """How far the maps of a student are from those of its teacher, for crops (N, 3, H, W), summed over `layers`.

    error: squared error through a leaky ReLU, as a share of the teacher's variance. gram: relative error of Gram matrices after
    the ReLU. `learner` is a copy of the student, in which the maps of each layer are divided by the teacher's root mean square
    there (`units`): all layers then learn at the same rate. `hand_back` gives the student what the learner has learnt.
    """

    layers = ENCODER_LAYERS

    def __init__(self, student: nst.FeatureExtractor, teacher: nst.FeatureExtractor, pictures: Sequence[Tensor]):
        super().__init__()
        self.student, self.teacher, self.learner = student, teacher, copy.deepcopy(student).requires_grad_(True)
        squares, variances = torch.zeros(2, len(self.layers), dtype=torch.float64)
        with torch.no_grad():
            for picture in pictures:
                maps = teacher(picture)
                for k, layer in enumerate(self.layers):
                    flat = nst.full(maps[layer])[0].flatten(1)
                    squares[k] += flat.relu().square().mean().item() / len(pictures)
                    variances[k] += F.leaky_relu(flat, SLOPE).var(1).mean().item() / len(pictures)
        device = teacher.mean.device
        self.learner.register_buffer("units", squares.sqrt().float().to(device))
        self.learner.register_buffer("variances", (variances / squares).float().to(device))
        self.take_over()

    @torch.no_grad()
    def take_over(self) -> None:
        """Give the learner the student's weights, in its own units."""
        self._copy(self.student, self.learner, 1 / self.learner.units)

    @torch.no_grad()
    def hand_back(self) -> None:
        self._copy(self.learner, self.student, self.learner.units)

    def _copy(self, source: nst.FeatureExtractor, target: nst.FeatureExtractor, factors: Tensor) -> None:
        """Copy weights so that the maps of layer k come out multiplied by factors[k]."""
        target.body.load_state_dict(source.body.state_dict())
        for convolution, factor, before in zip(_convolutions(target), factors, [1.0, *factors]):
            convolution = convolution[-1] if isinstance(convolution, nn.Sequential) else convolution
            convolution.weight.mul_(factor / before)
            convolution.bias.mul_(factor)

    def forward(self, crops: Tensor) -> dict[str, Tensor]:
        units, variances = self.learner.units, self.learner.variances
        with torch.no_grad():
            wanted = [nst.full(maps) / unit for maps, unit in zip(map(self.teacher(crops).get, self.layers), units)]
        rounded = {f"{place}.{name}": value.to(self.teacher.dtype) for place, module in self.learner.body.named_modules()
                   if isinstance(module, nn.Conv2d) for name, value in module.named_parameters()}
        normalised = ((crops - self.learner.mean) / self.learner.std).to(self.teacher.dtype, memory_format=torch.channels_last)
        maps = torch.func.functional_call(self.learner.body, rounded, (normalised,))
        maps = self._compared(maps)
        errors = [(F.leaky_relu(own, SLOPE) - F.leaky_relu(other, SLOPE)).square().mean() for own, other in zip(maps, wanted)]
        grams = [nst.relative_error(nst.gram(own.relu()), nst.gram(other.relu())).mean() for own, other in zip(maps, wanted)]
        return {"error": (torch.stack(errors) / variances).sum(), "gram": sum(grams)}

    def _compared(self, maps: Mapping[str, Tensor]) -> list[Tensor]:
        """What the learner has for each of `layers`, in units."""
        return [nst.full(maps[layer]) for layer in self.layers]


class FamilyLosses(EncoderLosses):
    """The same for a student of FAMILIES. A linear head for each layer of the teacher, of which the student keeps nothing, reads
    the student's layer at the same stride; what the teacher has at a stride of one pixel, no family has."""

    layers = ENCODER_LAYERS[2:]

    def __init__(self, student: nst.FeatureExtractor, teacher: nst.FeatureExtractor, pictures: Sequence[Tensor]):
        super().__init__(student, teacher, pictures)
        self.learner.heads = self._fitted(pictures)
        for module in self.learner.body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train().momentum = 0.05  # normalised by the batch it learns three times as fast as by constants

    @torch.no_grad()
    def _fitted(self, pictures: Sequence[Tensor]) -> nn.ModuleDict:
        """Heads that read over pictures (1, 3, H, W) what can be read by least squares; random ones would take hundreds of steps
        to get there."""
        squares, products = (dict.fromkeys(self.layers, 0) for _ in range(2))
        for picture in pictures:
            picture = picture[..., :picture.shape[-2] // 16 * 16, :picture.shape[-1] // 16 * 16]  # else some round strides up
            own, learnt = self.student(picture), self.teacher(picture)
            for layer, unit in zip(self.layers, self.learner.units):
                read = F.pad(own[self._source(layer)][0].flatten(1).double(), (0, 0, 0, 1), value=1)  # the last for the bias
                squares[layer] = squares[layer] + read @ read.T
                products[layer] = products[layer] + read @ learnt[layer][0].flatten(1).double().T / unit
        heads = nn.ModuleDict()
        for layer, matrix in squares.items():
            ridge = 1e-3 * matrix.diagonal().mean() * torch.eye(len(matrix)).to(matrix)
            solution = torch.linalg.solve(matrix + ridge, products[layer]).float()
            heads[layer] = torch.nn.utils.skip_init(nn.Conv2d, len(solution) - 1, solution.shape[1], 1, device=solution.device)
            heads[layer].weight.copy_(solution[:-1].T[..., None, None])
            heads[layer].bias.copy_(solution[-1])
        return heads

    def _source(self, layer: str) -> str:
        return self.student.layers[int(layer[4]) - 2]  # conv2_1: a stride of 2 pixels, the first of four

    def _copy(self, source: nst.FeatureExtractor, target: nst.FeatureExtractor, factors: Tensor) -> None:
        target.body.load_state_dict(source.body.state_dict())

    def _compared(self, maps: Mapping[str, Tensor]) -> list[Tensor]:
        return [self.learner.heads[layer](nst.full(maps[self._source(layer)])) for layer in self.layers]


FAMILIES = {  # layers at strides of 2, 4, 8 and 16 pixels
    "resnet_compact": ("relu", "layer1", "layer2", "layer3"),
    "googlenet_compact": ("conv1", "conv3", "inception3b", "inception4c")}


def family(arch: str, *, weights="DEFAULT", seed: int = 0) -> nn.Module:
    """One of FAMILIES, as `arch` for nst_utils: torchvision's ResNet with few blocks, or its GoogLeNet, up to a stride of 16
    pixels, padding by reflection. weights: as in FeatureExtractor; the default ones were taught like vgg16_compact."""
    from torchvision.models import GoogLeNet, ResNet  # not above nst_utils, which makes torchvision importable
    from torchvision.models.resnet import BasicBlock
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = (ResNet(BasicBlock, [2, 2, 1, 1]) if nst.one_of("arch", arch, FAMILIES) == "resnet_compact" else
                   GoogLeNet(aux_logits=False, init_weights=False))
    for name, module in list(network.named_modules()):
        if name in ("layer4", "inception4d", "inception4e", "inception5a", "inception5b", "fc"):
            setattr(network, name, nn.Identity())
        elif isinstance(module, nn.Conv2d):
            module.padding_mode = "reflect"
    if weights is not None:
        nst.load_weights(network, arch, nst.DATA / "weights" / f"{arch}.pt" if weights == "DEFAULT" else Path(weights))
    return network.eval()


@torch.no_grad()
def start_normalised(student: nst.FeatureExtractor, pictures: Sequence[Tensor]) -> None:
    """Let each batch normalisation take over mean and variance of what it reads from pictures (1, 3, H, W): constants, until a
    training moves them, so that a map depends on its own picture only."""
    normalisations = [module for module in student.body.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in normalisations:
        module.reset_running_stats()
        module.momentum = None  # the mean over all pictures
        module.train()
    for picture in pictures:
        student(picture)
    student.eval()


@torch.no_grad()
def second_moments(teacher: nst.FeatureExtractor, pictures: Sequence[Tensor]) -> dict[str, Tensor]:
    """For each of ENCODER_LAYERS but the first the matrix (C, C) of second moments of what the `encoder_teacher` reads there,
    summed over pictures (1, 3, H, W), in float64."""
    moments = dict.fromkeys(ENCODER_LAYERS[1:], 0)
    for picture in pictures:
        maps = teacher(picture)
        for layer, before in zip(moments, teacher.layers[len(ENCODER_LAYERS):]):
            moments[layer] = moments[layer] + nst.gram(maps[before])[0].double()
    return moments


@torch.no_grad()
def start_from_teacher(student: nst.FeatureExtractor, teacher: nst.FeatureExtractor, pictures: Sequence[Tensor]) -> None:
    """Give a student of shape "vgg16_compact" its teacher's convolutions, each reading the first principal directions (of the
    `second_moments` over pictures) of what the teacher's reads."""
    moments = second_moments(teacher, pictures)
    for layer, own, learnt in zip(ENCODER_LAYERS, _convolutions(student), _convolutions(teacher)):
        kernel, bias = learnt.weight.float(), learnt.bias.float()
        if isinstance(own, nn.Sequential):
            bottleneck, own = own
            directions = torch.linalg.eigh(moments[layer]).eigenvectors[:, -bottleneck.out_channels:].float()
            bottleneck.weight.copy_(directions.T[..., None, None])
            kernel = torch.einsum("ochw, ck -> okhw", kernel, directions)
        own.weight.copy_(kernel)
        own.bias.copy_(bias)


def train_encoder(student: nst.FeatureExtractor, sources, *, teacher: nst.FeatureExtractor | None = None, steps: int = 16000,
                  batch: int = 4, size: int = 320, crop: int = 128, learning_rate: float = 1e-3, gram_weight: float = 0.5,
                  begin: int = 140, checkpoint=None, checkpoint_every: int = 200, seed: int = 0, workers: int | None = None,
                  accelerator: Accelerator | None = None) -> Iterator[TrainingStep]:
    """Train `student`, a float32 FeatureExtractor "vgg16_compact" with ENCODER_LAYERS, or one of FAMILIES with its layers, and
    yield a TrainingStep after each update; the student has learnt what the step says whenever the caller looks.

    sources: a folder of pictures, or several, drawn from in turn. teacher: None takes `encoder_teacher()`.
    gram_weight: weight beside the error, see EncoderLosses. learning_rate: rises over 100 steps, then falls to 0 along a cosine.
    crop: small ones are cheaper in the first layers, but in the deep ones they are all border, which whole pictures are not.
    begin: from so many pictures the student takes its first weights (`start_from_teacher`), a family the statistics of its batch
    normalisations (`start_normalised`); 0 lets it go on from those it has.
    The others, and what is raised: as in `train_adain`; a checkpoint carries a training through a break as there.
    """
    teacher = teacher or encoder_teacher()
    whole = PictureCrops(sources, size, min(size, 224), seed)
    pictures = [whole[number][None].to(teacher.mean.device) for number in range(begin or 140)]
    chain = student.arch == "vgg16_compact"
    if begin:
        start_from_teacher(student, teacher, pictures) if chain else start_normalised(student, pictures)
    losses = (EncoderLosses if chain else FamilyLosses)(student, teacher, pictures[::7])
    # the first steps of Adam are as long as any, whatever the gradient: at full rate they would throw a good start back
    rate = lambda share: learning_rate * min(1, 0.01 + share * steps / 100) * (1 + math.cos(math.pi * share)) / 2  # noqa: E731
    crops, weights = PictureCrops(sources, size, crop, seed + 1), {"error": 1.0, "gram": gram_weight}
    for step in _updates(losses, losses.learner, [crops], weights, arch=student.arch, steps=steps, batch=batch, rate=rate,
                         clip=5.0, checkpoint=checkpoint, checkpoint_every=checkpoint_every, seed=seed, workers=workers,
                         accelerator=accelerator):
        losses.hand_back()
        yield step
    losses.hand_back()  # of a training that was finished before


@torch.no_grad()
def encoder_errors(student: nst.FeatureExtractor, teacher: nst.FeatureExtractor, crops: Tensor) -> dict[str, tuple[float, float]]:
    """Layer -> the share of the teacher's variance after the ReLU that the student leaves unexplained over crops (N, 3, H, W),
    and the mean relative error of its Gram matrices."""
    sums = {layer: torch.zeros(3, dtype=torch.float64) for layer in ENCODER_LAYERS}
    for part in crops.split(8):
        own, learnt = student(part), teacher(part)
        for layer, sum_ in sums.items():
            maps, wanted = nst.full(own[layer]).relu(), nst.full(learnt[layer]).relu()
            grams = nst.relative_error(nst.gram(maps), nst.gram(wanted))
            spread = wanted - wanted.mean((0, 2, 3), keepdim=True)
            sum_ += torch.stack([(maps - wanted).square().sum(), spread.square().sum(), grams.sum()]).cpu().double()
    return {layer: ((error / variance).item(), gram.item() / len(crops)) for layer, (error, variance, gram) in sums.items()}


# --- Decoders of AdaIN ------------------------------------------------------------------------------------------------


class AdaINLosses(nn.Module):
    """The terms of the training loss of content and style crops (N, 3, H, W), means over the batch; a module, so that
    Accelerate can distribute it.

    content: relative error of the result's maps against t = AdaIN(f(c), f(s)) at its layer (Huang & Belongie eq. 12).
    style: relative error of means and deviations, averaged over its layers (eq. 13).
    gram: relative error of Gram matrices, averaged over these layers (Gatys et al. 2016, eq. 4).
    identity: squared error of decoded photographs against themselves (Park & Lee 2019, eq. 7).
    """

    def __init__(self, network: nst.AdaIN):
        super().__init__()
        self.network = network

    def forward(self, content: Tensor, style: Tensor) -> dict[str, Tensor]:
        encoder, deepest = self.network.encoder, self.network.layer
        with torch.no_grad():
            photograph = nst.full(encoder(content)[deepest])
            wanted = encoder(style)
            target = nst.adain(photograph, wanted[deepest])
        # Not in the paper: the identity gives the decoder a target per pixel, and an hour of training goes much further;
        # half of each process's batch, to save time.
        half = (len(content) + 1) // 2
        result, same = self.network.decode(torch.cat([target, photograph[:half]])).split([len(content), half])
        maps = encoder(result)

        def error(statistic: Callable) -> Tensor:
            layers = [nst.relative_error(statistic(maps[layer]), statistic(wanted[layer])).mean() for layer in wanted]
            return torch.stack(layers).mean()
        # Relative errors instead of the paper's norms: the terms are comparable and independent of the encoder.
        return {"content": nst.relative_error(nst.full(maps[deepest]), target).mean(), "style": error(nst.mean_std),
                "gram": error(nst.gram), "identity": F.mse_loss(same, content[:half])}


def train_adain(network: nst.AdaIN, contents, styles, *, steps: int = 8000, batch: int = 8, size: int = 288, crop: int = 128,
                learning_rate: float = 5e-4, style_weight: float = 10.0, gram_weight: float = 0.0, identity_weight: float = 20.0,
                checkpoint=None, checkpoint_every: int = 500, seed: int = 0, workers: int | None = None,
                accelerator: Accelerator | None = None) -> Iterator[TrainingStep]:
    """Train the decoder of `network` and yield a TrainingStep after each update.

    contents, styles, size, crop: folders of pictures and what is cut from them, see PictureCrops.
    style_weight, gram_weight, identity_weight: weights beside the content loss, see AdaINLosses.
    checkpoint: a file, written every `checkpoint_every` steps and at the end. If it is there, training goes on from it
    and gives on a CPU the same bits as a run without a break; the one before it is kept as `NAME.previous`.
    workers: processes that read pictures while the network trains; the crops are the same for any number. None takes half
    of the cores, at most 4, where processes can be forked, else 0: spawned ones import the calling script, which must be
    ready for that (`if __name__ == "__main__"`), and a daemonic process (of a multiprocessing.Pool, say) may have none.
    accelerator: None makes one, which takes a GPU if there is one and moves the network there. Under `accelerate launch` or
    `notebook_launcher` the same call runs on several, each with its own `batch` of the crops.
    Raises ValueError if a folder has fewer than two usable pictures or the checkpoint does not fit,
    FloatingPointError if a loss or its gradient is not finite (the last checkpoint stays as it is).
    """
    # The paper takes size 512, crop 256, 160,000 steps, Adam at 1e-4, and no identity loss.
    if not 16 <= crop <= size:
        raise ValueError(f"crop is at least 16 and at most size, not {crop} with a size of {size}.")
    photographs, paintings = (PictureCrops(source, size, crop, seed + stream) for stream, source in enumerate((contents, styles)))
    weights = {"content": 1.0, "style": style_weight, "gram": gram_weight,  # a new term of AdaINLosses needs its weight
               "identity": identity_weight}
    # constant, then falling to 0 over the last half; the paper's stays constant
    rate = lambda share: learning_rate * min(1.0, 2 * (1 - share))  # noqa: E731
    yield from _updates(AdaINLosses(network), network.decoder, [photographs, paintings], weights, steps=steps, batch=batch,
                        arch=f"an AdaIN on {network.arch}", rate=rate, clip=math.inf, checkpoint=checkpoint,
                        checkpoint_every=checkpoint_every, seed=seed, workers=workers, accelerator=accelerator)


def with_normalisation(network: nst.AdaIN, kind: str) -> nst.AdaIN:
    """A copy of an untrained network whose decoder normalises before every ReLU, by "instance" or "batch": what Huang & Belongie,
    section 7.1, advise against, since either gives all pictures the statistics of one style."""
    makers = {"instance": functools.partial(nn.InstanceNorm2d, affine=True), "batch": nn.BatchNorm2d}
    make, modules, network = makers[nst.one_of("kind", kind, makers)], [], copy.deepcopy(network)
    for before, module in zip([None, *network.decoder], network.decoder):
        modules += [make(before.out_channels), module] if isinstance(module, nn.ReLU) else [module]
    network.decoder = nn.Sequential(*modules)
    return network


def published_adain(folder, *, precision: str = "auto", device=None) -> nst.AdaIN:
    """The VGG-19 network of Huang & Belongie from `vgg_normalised.pth` and `decoder.pth` in `folder`.

    These are the files of naoto0804/pytorch-AdaIN: plain state dicts of one chain each, in which a 1x1 convolution normalises
    the pixels and every convolution pads by reflection. precision, device: as in FeatureExtractor.
    """
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.vgg import cfgs
    network, chain, channels = nst.AdaIN("vgg19", weights=None, precision=precision, device=device), [nn.Conv2d(3, 3, 1)], 3
    for width in cfgs["E"][:-1]:  # VGG-19 up to relu5_4; "M" halves height and width
        if width == "M":
            chain.append(nn.MaxPool2d(2, ceil_mode=True))
        else:
            chain += [nn.ReflectionPad2d(1), nn.Conv2d(channels, width, 3), nn.ReLU()]
            channels = width
    chain, encoder = nn.Sequential(*chain), network.encoder
    nst.load_weights(chain, "the normalised VGG-19", Path(folder) / "vgg_normalised.pth")
    nst.load_weights(network.decoder, "a decoder for VGG-19", Path(folder) / "decoder.pth")
    body = IntermediateLayerGetter(chain, dict(zip(("3", "10", "17", "30"), network.layers)))
    encoder.body = body.to(encoder.mean.device, encoder.dtype, memory_format=torch.channels_last).requires_grad_(False)
    encoder.mean.zero_()  # the first convolution normalises
    encoder.std.fill_(1)
    encoder.min_size = 9  # smaller pictures leave relu4_1 one position, which reflection can't pad
    return network.eval()
