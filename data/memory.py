"""How much memory there is, and how much a step of an optimisation takes of it: said before it starts, not by a crash.

nst_utils runs this file when the first objective is made; it is no part of the two methods.
"""
import bisect
import functools
import gc
import math
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

import nst_utils as nst

BASE = 350 * 2**20  # what Python and PyTorch take themselves


def available_memory(device: torch.device) -> float:
    """Free memory in bytes; infinite where nobody knows."""
    if device.type == "cuda":  # what PyTorch has in its cache is free for it
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(psutil.virtual_memory().available, container_memory()) if device.type == "cpu" else math.inf


def container_memory(folder=Path("/sys/fs/cgroup")) -> float:
    """The bytes that a container, a control group of Linux, leaves to its processes; infinite where there is no limit."""
    try:
        limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
        cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())["inactive_file"]
        return limit - used + int(cached)  # files that the system would drop
    except (OSError, ValueError, KeyError):
        return math.inf


def lbfgs_history(numbers: int) -> int:
    """How many pairs of vectors of so many numbers L-BFGS remembers: half a gigabyte of them at most."""
    return min(20, max(4, 2**26 // numbers))


def step_memory(extractor: nst.FeatureExtractor, height: int, width: int, count: int = 1) -> int:
    """About how many bytes a step of L-BFGS takes at its peak for `count` images of height x width pixels: what autograd keeps,
    three float32 copies of the largest map (its gradients), L-BFGS, and what Python and PyTorch take themselves."""
    kept, pixels = {}, 3 * height * width
    # detached: a map that the graph holds and that holds the graph would never be freed
    keep = lambda tensor: kept.setdefault(tensor.untyped_storage()._cdata, tensor.detach())  # noqa: E731
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        largest = max(map(math.prod, extractor.shapes(height, width).values()))
    sizes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return BASE + count * (sizes + 12 * largest + 4 * pixels * (2 * lbfgs_history(pixels) + 10))


def pass_memory(network: nst.AdaIN, height: int, width: int) -> int:
    """About how many bytes AdaIN takes at its peak for a content of height x width pixels: the encoder's maps, twice the largest
    of the encoder and the decoder, and what Python and PyTorch take themselves."""
    maps = [math.prod(shape) for shape in network.encoder.shapes(height, width).values()]
    area, largest = height * width / network.stride**2, max(maps)
    for module in network.decoder:
        area *= 4 if isinstance(module, torch.nn.Upsample) else 1
        largest = max(largest, area * getattr(module, "out_channels", 0))
    return int((sum(maps) + 2 * largest) * network.encoder.dtype.itemsize) + BASE


def forget_last_error() -> None:
    """A notebook keeps the last error, and with it all that was in its frames."""
    traceback.clear_frames(getattr(sys, "last_traceback", None))
    gc.collect()


def check_memory(extractor: nst.FeatureExtractor, image: torch.Tensor, count: int) -> None:
    """Refuse so many pictures of that shape if their optimisation can't fit, and say which size can."""
    _check(extractor, image, lambda height, width: step_memory(extractor, height, width, count))


def check_pass(network: nst.AdaIN, content: torch.Tensor) -> None:
    """Refuse a content of that shape if a pass of AdaIN can't fit, and say which size can."""
    _check(network.encoder, content, functools.partial(pass_memory, network))


def _check(extractor: nst.FeatureExtractor, image: torch.Tensor, bytes_for: Callable[[int, int], int]) -> None:
    (height, width), long = image.shape[-2:], max(image.shape[-2:])
    if min(height, width) < extractor.min_size or bytes_for(height, width) <= available_memory(image.device):
        return  # or the network itself says what is too small
    forget_last_error()
    free = available_memory(image.device)
    need = lambda side: bytes_for(*(max(extractor.min_size, side * n // long) for n in (height, width)))  # noqa: E731
    if need(long) > free:
        largest = bisect.bisect_right(range(extractor.min_size, long), free, key=need) + extractor.min_size - 1
        raise ValueError(f"{width} x {height} pixels with {extractor.arch} take about {need(long) / 1e9:.1f} GB, but "
                         f"{free / 1e9:.1f} GB are free: the largest size that can fit is {largest} pixels on the long side.")
