"""What is trained: pictures as a data set, the decoders of AdaIN, checkpoints, files of weights.

For whoever makes new weights, on a CPU, a GPU or several (Hugging Face Accelerate). Not for using them: the networks live in
nst_utils, curves and contact sheets in report, many runs to compare in experiments. A new training loss is a term of
`AdaINLosses`; another kind of network to train gets a function beside `train_adain`, on the same pictures and checkpoints.
"""
from __future__ import annotations

import io
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping
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

    source: a folder of pictures, or several, which are then drawn from in turn. Every picture of a folder is drawn once before
    any is drawn twice. Pictures that can't be read or are smaller than a crop are passed over.
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
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in Image.registered_extensions())
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
        if state.get("arch") != arch:
            raise ValueError(f"{one} is no checkpoint of an AdaIN on {arch}, but of {state.get('arch', 'something else')}.")
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


# --- Decoders of AdaIN ------------------------------------------------------------------------------------------------


class AdaINLosses(nn.Module):
    """The terms of the training loss of content and style crops (N, 3, H, W), means over the batch; a module, so that
    Accelerate can distribute it.

    content: relative error of the result's maps against t = AdaIN(f(c), f(s)) at relu4_1 (Huang & Belongie eq. 12).
    style: relative error of means and deviations, averaged over ADAIN_LAYERS (eq. 13).
    identity: squared error of decoded photographs against themselves (Park & Lee 2019, eq. 7).
    """

    def __init__(self, network: nst.AdaIN):
        super().__init__()
        self.network = network

    def forward(self, content: Tensor, style: Tensor) -> dict[str, Tensor]:
        encoder = self.network.encoder
        with torch.no_grad():
            photograph = nst.full(encoder(content)["relu4_1"])
            wanted = {layer: nst.mean_std(maps) for layer, maps in encoder(style).items()}
            target = nst.adain(photograph, wanted["relu4_1"])
        # Not in the paper: the identity gives the decoder a target per pixel, and an hour of training goes much further;
        # half of each process's batch, to save time.
        half = (len(content) + 1) // 2
        result, same = self.network.decode(torch.cat([target, photograph[:half]])).split([len(content), half])
        maps = encoder(result)
        # Relative errors instead of the paper's norms: the terms are comparable and independent of the encoder.
        layers = [nst.relative_error(nst.mean_std(maps[layer]), wanted[layer]).mean() for layer in nst.ADAIN_LAYERS]
        return {"content": nst.relative_error(nst.full(maps["relu4_1"]), target).mean(),
                "style": torch.stack(layers).mean(), "identity": F.mse_loss(same, content[:half])}


@dataclass(frozen=True)
class TrainingStep:
    """One update of a decoder."""

    index: int  # updates made so far, this one included
    losses: dict[str, float]  # "total", "content", "style", "identity" of this batch, before the update
    seconds: float  # of training so far, those before a resumption included
    skipped: int  # pictures left out so far because they can't be read or are smaller than a crop
    note: str = ""  # on the first step after a resumption: from where

    @property
    def summary(self) -> str:
        """For a bar over the steps, see nst_utils.progress."""
        return f"content {self.losses['content']:.4g}, style {self.losses['style']:.4g}"


def train_adain(network: nst.AdaIN, contents, styles, *, steps: int = 8000, batch: int = 8, size: int = 288, crop: int = 128,
                learning_rate: float = 5e-4, style_weight: float = 10.0, identity_weight: float = 20.0, checkpoint=None,
                checkpoint_every: int = 500, seed: int = 0, workers: int | None = None,
                accelerator: Accelerator | None = None) -> Iterator[TrainingStep]:
    """Train the decoder of `network` and yield a TrainingStep after each update.

    contents, styles, size, crop: folders of pictures and what is cut from them, see PictureCrops.
    style_weight, identity_weight: weights beside the content loss, see AdaINLosses.
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
    if workers is None:
        able = multiprocessing.get_start_method() == "fork" and not multiprocessing.current_process().daemon
        workers = min(4, (os.cpu_count() or 1) // 2) if able else 0
    photographs, paintings = (PictureCrops(source, size, crop, seed + stream) for stream, source in enumerate((contents, styles)))
    accelerator = accelerator or Accelerator()
    optimizer = torch.optim.Adam(network.decoder.parameters(), lr=learning_rate)
    state, note = read_checkpoint(checkpoint, network.arch)
    done, before = state.get("step", 0), state.get("seconds", 0.0)
    if state:
        network.decoder.load_state_dict(state["decoder"])
        optimizer.load_state_dict(state["optimizer"])
    together = batch * accelerator.num_processes  # crops of a step: Accelerate deals out batches to processes in turn
    loader = DataLoader(StackDataset(photographs, paintings), batch, sampler=range(done * together, steps * together),
                        num_workers=workers, generator=_generator(seed))  # else it draws from the global one
    model, optimizer, loader = accelerator.prepare(AdaINLosses(network), optimizer, loader)
    weights = {"content": 1.0, "style": style_weight, "identity": identity_weight}  # a new term of AdaINLosses needs its weight
    start = time.perf_counter()
    for step, crops in enumerate(loader, done):
        for group in optimizer.param_groups:  # constant, then falling to 0 over the last half; the paper's stays constant
            group["lr"] = learning_rate * min(1.0, 2 * (1 - step / steps))
        losses = model(*crops)
        losses["total"] = sum(weights[term] * loss for term, loss in losses.items())
        values = accelerator.reduce(torch.stack([*losses.values()]).detach(), "mean").tolist()
        optimizer.zero_grad()
        accelerator.backward(losses["total"])
        gradient = torch.nn.utils.get_total_norm([value.grad for value in network.decoder.parameters()]).item()
        if not all(map(math.isfinite, [*values, gradient])):  # before the update: the decoder stays as good as it was
            raise FloatingPointError(f"The loss of step {step + 1} or its gradient is not finite: training stopped; lower the "
                                     f"learning rate and go on from the last checkpoint.")
        optimizer.step()
        seconds = before + time.perf_counter() - start
        if checkpoint and accelerator.is_main_process and ((step + 1) % checkpoint_every == 0 or step + 1 == steps):
            write_checkpoint(checkpoint, {"arch": network.arch, "step": step + 1, "seconds": seconds,
                                          "decoder": network.decoder.state_dict(), "optimizer": optimizer.state_dict()})
        yield TrainingStep(step + 1, dict(zip(losses, values)), seconds, photographs.skipped + paintings.skipped, note)
        note = ""


def save_decoder(network: nst.AdaIN, path) -> Path:
    """Write the decoder as a plain state dict in half precision, which `AdaIN.pretrained(path=...)` reads; return the path."""
    path = Path(path)
    with nst.replacing(path) as temporary:
        temporary.write_bytes(_as_bytes({name: value.cpu().half() for name, value in network.decoder.state_dict().items()}))
    return path


def published_adain(folder, *, precision: str = "auto", device=None) -> nst.AdaIN:
    """The VGG-19 network of Huang & Belongie from `vgg_normalised.pth` and `decoder.pth` in `folder`.

    These are the files of naoto0804/pytorch-AdaIN: plain state dicts of one chain each, in which a 1x1 convolution normalises
    the pixels and every convolution pads by reflection. precision, device: as in FeatureExtractor.
    """
    from torchvision.models._utils import IntermediateLayerGetter  # not above nst_utils, which makes torchvision importable
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
    body = IntermediateLayerGetter(chain, dict(zip(("3", "10", "17", "30"), nst.ADAIN_LAYERS)))
    encoder.body = body.to(encoder.mean.device, encoder.dtype, memory_format=torch.channels_last).requires_grad_(False)
    encoder.mean.zero_()  # the first convolution normalises
    encoder.std.fill_(1)
    encoder.min_size = 9  # smaller pictures leave relu4_1 one position, which reflection can't pad
    return network.eval()
