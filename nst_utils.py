"""Neural style transfer in one module: the optimisation of Gatys et al. (2016) and the network of Huang & Belongie (2017).

Conventions, the same in every function:

* An image is a float32 RGB tensor in [0, 1] of shape (N, 3, H, W). Normalisation with the ImageNet mean
  happens inside `FeatureExtractor` and nowhere else.
* A feature map is (N, C, H, W) with P = H * W positions.
* Layers have names: conv4_2, bn4_2, relu4_2, pool4 in the VGG family, torchvision's node names elsewhere.
* Sizes are in pixels, times in seconds, and random numbers come from a generator with an explicit seed.

The sections follow the data: images, features, statistics and losses, objective and optimisation, the feed-forward
network, figures, widgets.

References:
  Gatys, Ecker, Bethge: Image Style Transfer Using Convolutional Neural Networks, CVPR 2016 ("Gatys" below).
  Huang, Belongie: Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization, ICCV 2017.
"""
from __future__ import annotations

import atexit
import bisect
import copy
import ctypes
import difflib
import functools
import html
import inspect
import io
import itertools
import math
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm


def _import_torchvision():
    """Import torchvision also where its compiled operators do not match this torch.

    On Linux the package index serves torchvision as a CUDA build. Beside a CPU-only torch its import fails because
    two detection operators are missing. Nothing here calls them, so declaring their schemas is enough.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
        torchvision._declared_schemas = library  # the schemas live as long as this object
    return torchvision


torchvision = _import_torchvision()
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names  # noqa: E402

DATA = Path(__file__).resolve().parent / "data"
FIGURES = Path(os.environ.get("NST_FIGURES") or Path(__file__).resolve().parent / "figures")  # where figures are exported


# ---------------------------------------------------------------------------------------------------------------
# 1. Images
# ---------------------------------------------------------------------------------------------------------------

MAX_PIXELS = 100_000_000  # what load_image decodes at most; 1.2 GB as float32
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")  # they come with scikit-image
CLASSICS = {  # name -> file on Wikimedia Commons and whom to credit
    "tuebingen": ("Tuebingen Neckarfront.jpg", "Andreas Praefcke, CC BY 3.0"),
    "starry_night": ("Van Gogh - Starry Night - Google Art Project.jpg", "Vincent van Gogh, 1889"),
    "composition_vii": ("Vassily Kandinsky, 1913 - Composition 7.jpg", "Wassily Kandinsky, 1913"),
    "shipwreck": ("Shipwreck of the Minotaur William Turner.jpg", "J. M. W. Turner, c. 1805-1810"),
    "the_scream": ("Edvard Munch, 1893, The Scream, oil, tempera and pastel on cardboard, 91 x 73 cm, "
                   "National Gallery of Norway.jpg", "Edvard Munch, 1893"),
    "great_wave": ("Tsunami by hokusai 19th century.jpg", "Katsushika Hokusai, c. 1831"),
}


def load_image(source, size: int | None = None, side: str = "long") -> Tensor:
    """Read a picture as a (1, 3, H, W) tensor in [0, 1].

    source: a path, an open binary file, bytes, or a PIL picture. EXIF rotation is applied, transparency is laid on
    white, grey, palette, CMYK and 16-bit pictures become 8-bit RGB, and of an animation the first frame is taken.
    size, side: if given, the long (or short) side in pixels after resizing; the aspect ratio is kept.
    Raises FileNotFoundError, or ValueError in one sentence if the data is no picture or too large to decode.
    """
    if isinstance(source, Image.Image):
        return resize(_pixels(source), size, side)
    name, stream = ("these bytes", io.BytesIO(source)) if isinstance(source, bytes) else (str(source), source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the check in _pixels is stricter
            with Image.open(stream) as picture:
                pixels = _pixels(picture)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no picture at {name}.") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} is too large to decode ({error}); shrink it first.") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{name} can't be read as a picture (empty, truncated or another format): {error}") from error
    return resize(pixels, size, side)


def _pixels(picture: Image.Image) -> Tensor:
    """A PIL picture of any mode as a (1, 3, H, W) tensor in [0, 1]."""
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"The picture has {width} x {height} pixels, more than {MAX_PIXELS:,}: shrink it first.")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):  # PIL would clip 16-bit and float greys at 255
        grey = torch.from_numpy(np.array(picture, dtype=np.float32))
        top = 1.0 if grey.max() <= 1 else 255.0 if grey.max() <= 255 else 65535.0
        return (grey / top).clamp(0, 1).repeat(1, 3, 1, 1)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).unsqueeze(0).contiguous().float() / 255


def to_pil(image: Tensor) -> Image.Image:
    """The first picture of a (N, 3, H, W) or (3, H, W) tensor as an 8-bit PIL picture; values are clamped to [0, 1]."""
    image = image.detach().float().cpu()
    image = image[0] if image.ndim == 4 else image
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"An image has shape (N, 3, H, W) or (3, H, W), not {tuple(image.shape)}.")
    if not torch.isfinite(image).all():
        raise ValueError("The image holds NaN or infinite values, so it can't be shown or saved.")
    return Image.fromarray((image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def save_image(image: Tensor, path) -> Path:
    """Write an image to `path` (format by suffix, folders are made) and return the path.

    The file appears whole or not at all: it is written under a temporary name and renamed.
    """
    picture, path = to_pil(image), Path(path)
    if path.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"{path.name} needs the suffix of an image format, such as .png or .jpg.")
    with _replacing(path) as temporary:
        picture.save(temporary, quality=95) if path.suffix.lower() in (".jpg", ".jpeg") else picture.save(temporary)
    return path


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path with the same suffix; renamed to `path` at the end, removed if anything fails."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"{path} can't be written ({error.strerror or error}); nothing was changed there.") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def resize(image: Tensor, size: int | None, side: str = "long") -> Tensor:
    """Resize (N, 3, H, W) so that its long or short side has `size` pixels (None: unchanged); antialiased bicubic."""
    if size is None:
        return image
    if side not in ("long", "short"):
        raise ValueError(f'side is "long" or "short", not {side!r}.')
    if size < 1:
        raise ValueError(f"size is a number of pixels, at least 1, not {size}.")
    height, width = image.shape[-2:]
    factor = size / (max if side == "long" else min)(height, width)
    target = max(1, round(height * factor)), max(1, round(width * factor))
    if target == (height, width):
        return image
    return F.interpolate(image, target, mode="bicubic", antialias=True).clamp(0, 1)


def sample(name: str | None = None, size: int | None = None) -> Tensor | dict[str, str]:
    """A built-in picture as (1, 3, H, W), or, without a name, a dict of all names with where they come from.

    Photographs come with scikit-image, styles with this project (data/style); both work offline. Famous pictures
    are fetched from Wikimedia Commons once and kept in data/cache.
    """
    styles = {path.stem: path for path in sorted((DATA / "style").glob("*.jpg"))}
    if name is None:
        return ({photo: "photograph, scikit-image" for photo in PHOTOGRAPHS}
                | {style: "style, made by this project" for style in styles}
                | {classic: f"download, {credit}" for classic, (_, credit) in CLASSICS.items()})
    if name in PHOTOGRAPHS:
        from skimage import data
        return load_image(Image.fromarray(getattr(data, name)()), size)
    if name in styles:
        return load_image(styles[name], size)
    if name in CLASSICS:
        return load_image(_fetch_classic(name), size)
    raise ValueError(f"There is no sample {name!r}{_did_you_mean(name, sample())}; sample() lists all.")


def _fetch_classic(name: str, *, timeout: float = 20.0, tries: int = 2) -> Path:
    """The cached copy of a famous picture, downloaded if it is not there yet."""
    path = DATA / "cache" / f"{name}.jpg"
    if path.exists():
        return path
    url = "https://commons.wikimedia.org/wiki/Special:FilePath/" + urllib.parse.quote(CLASSICS[name][0]) + "?width=1024"
    request = urllib.request.Request(url, headers={"User-Agent": "nst-report/1.0 (course report; python-urllib)"})
    for attempt in range(tries):
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                content = response.read()
            load_image(content)  # a proxy may answer with a web page: keep only what is a picture
        except (OSError, ValueError) as error:
            if attempt + 1 == tries:
                raise ConnectionError(f"{name!r} could not be downloaded from Wikimedia Commons ({error}); put the "
                                      f"picture at {path}, or use one of the offline samples.") from error
        else:
            with _replacing(path) as temporary:
                temporary.write_bytes(content)
            return path
    raise AssertionError("unreachable")


def initial_image(content: Tensor, kind: str = "content", *, style: Tensor | None = None, seed: int = 0) -> Tensor:
    """Where an optimisation starts: a copy of the content, of the style (resized to it), or uniform white noise.

    kind: "content", "noise" or "style". Returns an image of the content's shape. The noise is drawn on the CPU from
    `seed`, so that it is the same on every device.
    """
    if kind == "content":
        return content.clone()
    if kind == "noise":
        noise = torch.rand(content.shape, generator=torch.Generator().manual_seed(seed))
        return noise.to(content)
    if kind == "style" and style is not None:
        return _fitted(style, content)
    raise ValueError(f'kind is "content", "noise" or "style" (with a style image), not {kind!r}.')


def _fitted(image: Tensor, canvas: Tensor) -> Tensor:
    """The image in the height and width of another, whatever its own shape."""
    return F.interpolate(image, canvas.shape[-2:], mode="bicubic", antialias=True).clamp(0, 1)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    return f" (nearest: {', '.join(near)})" if near else ""


# ---------------------------------------------------------------------------------------------------------------
# 2. Features
# ---------------------------------------------------------------------------------------------------------------

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYERS = ("relu4_2",)
COMPACT_WIDTHS = (16, 16, "M", 48, 32, "M", 96, 64, 64, 64, "M", 192, 128, 128, 128, "M", 256)
CHAIN_KINDS = {nn.Conv2d: "conv", nn.BatchNorm2d: "bn", nn.ReLU: "relu", nn.MaxPool2d: "pool", nn.AvgPool2d: "pool"}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


class FeatureExtractor(nn.Module):
    """A frozen network that turns an image into a dict layer name -> feature map.

    arch: "vgg19_compact" (shipped, no download) or any classification network of torchvision.
    layers: names in any order; `FeatureExtractor.names(arch)` lists them. The network is cut off after the last one.
    weights: "DEFAULT" (shipped or torchvision's), a path to a state dict, or None for random ones drawn from `seed`.
    pooling: None keeps the network's own; "max" or "avg" swaps the other kind with the same kernel, stride, padding
        and ceil_mode. `swapped_pools` names those that were swapped, `kept_pools` those that could not be.
    precision: "auto" (bfloat16 where the hardware multiplies it natively, else float32), "float32", "bfloat16" or
        "float64". The environment variable NST_PRECISION overrides "auto".
    Calling it with (N, 3, H, W) in [0, 1] gives feature maps (N, C, H', W') in the network's precision. Pictures
    smaller than `min_size` are refused before anything is computed.
    """

    def __init__(self, arch: str = "vgg19_compact", layers: Sequence[str] = STYLE_LAYERS, *, weights="DEFAULT",
                 pooling: str | None = None, precision: str = "auto", device=None, seed: int = 0):
        super().__init__()
        self._rebuild = functools.partial(FeatureExtractor, arch, layers, weights=weights, pooling=pooling,
                                          precision=precision, device=device, seed=seed)
        model = load_network(arch, weights=weights, seed=seed)
        nodes = layer_nodes(model)
        self.arch, self.layers = arch, tuple(dict.fromkeys(layers))
        _check_layers(arch, self.layers, nodes)
        self.swapped_pools, self.kept_pools = _swap_pooling(model, pooling)
        self.body = _cut(model.eval(), {nodes.get(name, name): name for name in self.layers})
        _out_of_place(self.body)
        left = dict(self.body.named_modules())  # the cut network has fewer pools than the whole one
        self.swapped_pools = [name for name in self.swapped_pools if name in left]
        self.kept_pools = [name for name in self.kept_pools if name in left]
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
        self.dtype = _dtype(precision, torch.device(device or "cpu"))
        self.requires_grad_(False).eval().to(device or "cpu", memory_format=torch.channels_last)
        for module in self.body.modules():  # batch normalisation keeps float32 statistics
            if isinstance(module, nn.Conv2d | nn.Linear) or self.dtype == torch.float64:
                module.to(self.dtype)
        if self.dtype == torch.float64:
            self.double()
        self.min_size = self._smallest_side()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"An image has shape (N, 3, H, W), not {tuple(image.shape)}.")
        if min(image.shape[-2:]) < self.min_size:
            raise ValueError(f"The image has {image.shape[-1]} x {image.shape[-2]} pixels, but {self.arch} needs at "
                             f"least {self.min_size} on each side to reach {', '.join(self.layers)}.")
        normalised = (image - self.mean) / self.std
        # channels_last is the layout in which convolutions are fastest; the optimised image itself stays contiguous
        return self.body(normalised.to(self.dtype, memory_format=torch.channels_last))

    def __reduce_ex__(self, protocol):  # a traced graph can't be pickled: build it again from the same arguments
        traced = isinstance(self.body, torch.fx.GraphModule)
        return (self._rebuild, ()) if traced else super().__reduce_ex__(protocol)

    def shapes(self, height: int, width: int) -> dict[str, tuple[int, int, int]]:
        """Layer name -> (C, H', W') for an image of height x width pixels, without computing anything."""
        return {layer: tuple(feature.shape[1:]) for layer, feature in self._without_numbers(height, width).items()}

    def memory(self, height: int, width: int) -> int:
        """About how many bytes a step of L-BFGS takes at its peak for an image of height x width pixels.

        Counted are the tensors that autograd keeps, by a run without numbers, weights among them; on top of them three
        float32 copies of the largest map (its gradients), L-BFGS, and what Python and PyTorch take themselves.
        """
        kept = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features = self._without_numbers(height, width, requires_grad=True)
        sizes = [tensor.untyped_storage().nbytes() for tensor in kept.values()]
        largest = max(feature.numel() for feature in features.values())
        pixels = 3 * height * width
        return sum(sizes) + 12 * largest + 4 * pixels * (2 * _history(pixels) + 10) + 350 * 2**20

    def _without_numbers(self, height: int, width: int, requires_grad: bool = False) -> dict[str, Tensor]:
        empty = {key: value.to("meta") for key, value in (*self.body.named_parameters(), *self.body.named_buffers())}
        image = torch.empty(1, 3, height, width, dtype=self.dtype, device="meta", requires_grad=requires_grad)
        return torch.func.functional_call(self.body, empty, (image.to(memory_format=torch.channels_last),))

    def _smallest_side(self) -> int:
        low, high = 0, 512  # low fails, high works
        while high - low > 1:
            middle = (low + high) // 2
            try:
                self.shapes(middle, middle)
                high = middle
            except RuntimeError:  # a pool or a convolution would have an empty output
                low = middle
        return high

    @staticmethod
    def names(arch: str = "vgg19_compact") -> list[str]:
        """All layer names of an architecture, in order of evaluation."""
        with torch.device("meta"):  # names need no numbers
            return list(layer_nodes(load_network(arch, weights=None)))


def load_network(arch: str, *, weights="DEFAULT", seed: int = 0) -> nn.Module:
    """A classification network with the weights asked for; see FeatureExtractor for the values of `weights`."""
    known = ["vgg19_compact", *torchvision.models.list_models(module=torchvision.models)]
    if arch not in known:
        raise ValueError(f"There is no architecture {arch!r}{_did_you_mean(arch, known)}.")
    if weights == "DEFAULT" and arch != "vgg19_compact":
        return _published_network(arch)
    if weights == "DEFAULT":
        weights = DATA / "weights" / "vgg19_compact.pt"
    with torch.random.fork_rng(devices=[]), _quiet():  # torchvision draws from the global generator
        torch.manual_seed(seed)
        network = _CompactVGG() if arch == "vgg19_compact" else torchvision.models.get_model(arch, weights=None)
    if weights is not None:
        _load_weights(network, arch, Path(weights))
    return network.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torchvision's notes on initialisation and on graphs that differ in training: of no interest here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _CompactVGG(nn.Module):
    """VGG-19 up to relu5_1 with narrow layers: the same topology and layer names, no classifier."""

    def __init__(self):
        super().__init__()
        self.features = torchvision.models.vgg.make_layers(list(COMPACT_WIDTHS))
        for module in self.features:
            if isinstance(module, nn.Conv2d):  # torchvision's initialisation of VGG
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


def _load_state(path: Path) -> dict:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no weights file at {path}.") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} can't be read as weights (truncated, or more than a plain state dict): "
                         f"{(str(error) or 'it is empty').splitlines()[0]}") from error


def _load_weights(network: nn.Module, arch: str, path: Path) -> None:
    state = _load_state(path)
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold the weights of {arch}: {' '.join(str(error).split())[:200]}") from error
    if hasattr(network, "transform_input"):  # GoogLeNet and Inception: torchvision's weights expect this switch
        network.transform_input = True


def _published_network(arch: str) -> nn.Module:
    entry = torchvision.models.get_model_weights(arch).DEFAULT
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urllib.parse.urlparse(entry.url).path).name
    try:
        with _safe_loading():
            return torchvision.models.get_model(arch, weights=entry, progress=False).eval()
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        if cached.exists():
            raise ValueError(f"{cached} is damaged or does not belong to {arch} ({reason}); delete it, and it will be "
                             f"downloaded again.") from error
        raise ConnectionError(f"The weights of {arch} could not be downloaded ({reason}): put {entry.url} at {cached}, "
                              f'or use arch="vgg19_compact", which needs no download.') from error


@contextmanager
def _safe_loading(timeout: float = 20.0) -> Iterator[None]:
    """Inside, torchvision's loader reads tensors only (no pickled code), and a dead connection fails in time."""
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD"), socket.getdefaulttimeout()
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    socket.setdefaulttimeout(timeout)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before[1])
        del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        if before[0] is not None:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before[0]


def layer_nodes(network: nn.Module) -> dict[str, str]:
    """Layer name -> node of torchvision's graph, in order of evaluation.

    Where `network.features` is a plain chain of convolutions, normalisations, ReLUs and pools (VGG, AlexNet), layers
    are counted per block as in the papers; a pool ends a block. Elsewhere the names are the nodes.
    """
    if not _is_chain(network):
        with _quiet():
            return {node: node for node in get_graph_node_names(network)[1][1:]}
    names, block, depth = {}, 1, 0
    for index, module in enumerate(network.features):
        kind = CHAIN_KINDS[type(module)]
        depth += kind == "conv"
        names[f"pool{block}" if kind == "pool" else f"{kind}{block}_{depth}"] = f"features.{index}"
        if kind == "pool":
            block, depth = block + 1, 0
    return names


def _cut(network: nn.Module, wanted: Mapping[str, str]) -> nn.Module:
    """A module image -> dict of maps that computes no more of the network than the wanted nodes need."""
    if _is_chain(network):
        return _Chain(network.features, {int(node.split(".")[1]): name for node, name in wanted.items()})
    with _quiet():
        return create_feature_extractor(network, dict(wanted))


def _is_chain(network: nn.Module) -> bool:
    features = getattr(network, "features", None)
    return isinstance(features, nn.Sequential) and all(type(module) in CHAIN_KINDS for module in features)


class _Chain(nn.Module):
    """The `features` of a VGG up to the last wanted index. Unlike a traced graph it may be built beside running threads."""

    def __init__(self, features: nn.Sequential, wanted: Mapping[int, str]):
        super().__init__()
        self.features, self.wanted = features[: max(wanted) + 1], dict(wanted)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = {}
        for index, module in enumerate(self.features):
            x = module(x)
            if index in self.wanted:
                maps[self.wanted[index]] = x
        return maps


def _check_layers(arch: str, layers: Sequence[str], nodes: Mapping[str, str]) -> None:
    if not layers:
        raise ValueError("At least one layer is needed.")
    for name in layers:
        if name not in nodes and not any(node.startswith(f"{name}.") for node in nodes):
            raise ValueError(f"{arch} has no layer {name!r}{_did_you_mean(name, nodes)}.")


def _swap_pooling(network: nn.Module, pooling: str | None) -> tuple[list[str], list[str]]:
    """Swap every pool of the other kind in place; return the names of the swapped and of those that must stay."""
    if pooling not in (None, "max", "avg"):
        raise ValueError(f'pooling is None, "max" or "avg", not {pooling!r}.')
    old = {None: (), "max": nn.AvgPool2d, "avg": nn.MaxPool2d}[pooling]
    pools = [(name, module) for name, module in network.named_modules() if isinstance(module, old)]
    kept = [name for name, module in pools if getattr(module, "dilation", 1) not in (1, (1, 1))]
    for name, module in pools:
        geometry = module.kernel_size, module.stride, module.padding
        # a padded position counts as absent: max pooling ignores it as well
        new = (nn.AvgPool2d(*geometry, ceil_mode=module.ceil_mode, count_include_pad=False) if pooling == "avg"
               else nn.MaxPool2d(*geometry, ceil_mode=module.ceil_mode))
        if name not in kept:
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, new)
    return [name for name, _ in pools if name not in kept], kept


def _out_of_place(body: nn.Module) -> None:
    """Make every operation leave its input alone: an in-place ReLU would overwrite the convolution kept before it."""
    for module in body.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    if isinstance(body, torch.fx.GraphModule):
        for node in body.graph.nodes:
            if node.kwargs.get("inplace"):
                node.kwargs = {**node.kwargs, "inplace": False}
        body.recompile()


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        precision = os.environ.get("NST_PRECISION") or ("bfloat16" if _multiplies_bfloat16(device) else "float32")
    if precision not in PRECISIONS:
        raise ValueError(f'precision is "auto" or one of {", ".join(PRECISIONS)}, not {precision!r}.')
    return PRECISIONS[precision]


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))


# ---------------------------------------------------------------------------------------------------------------
# 3. Statistics and losses
# ---------------------------------------------------------------------------------------------------------------


class _Gram(torch.autograd.Function):
    """F^T F / P of flat maps (N, P, C), in at least float32 whatever the precision of the maps.

    Written out because the matrix is symmetric, so that one product gives the gradient where autograd would take two,
    and because that product may be rounded to the precision of the maps: the network's gradient is so in any case.
    """

    @staticmethod
    def forward(ctx, flat: Tensor) -> Tensor:
        ctx.save_for_backward(flat)
        exact = _full(flat)
        return exact.transpose(1, 2) @ exact / flat.shape[1]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        flat, = ctx.saved_tensors
        return flat @ ((gradient + gradient.transpose(1, 2)) / flat.shape[1]).to(flat.dtype)


def _full(maps: Tensor) -> Tensor:
    """Statistics and losses are computed in float32 (or float64), whatever the network computes in."""
    return maps if maps.dtype == torch.float64 else maps.float()


def gram(features: Tensor) -> Tensor:
    """Gram matrix (N, C, C) of feature maps (N, C, H, W): G = F F^T / P, the mean outer product over positions.

    Gatys eq. 3 is F F^T; dividing by P makes it independent of the picture's size.
    """
    return _Gram.apply(features.permute(0, 2, 3, 1).flatten(1, 2))  # how a channels_last map lies in memory: no copy


def mean_std(features: Tensor) -> Tensor:
    """Mean and standard deviation over positions, (N, 2, C), of feature maps (N, C, H, W); Huang & Belongie eq. 5-6."""
    flat = _full(features).permute(0, 2, 3, 1).flatten(1, 2)  # positions first, as a channels_last map lies in memory
    mean = flat.mean(1, keepdim=True)
    deviation = ((flat - mean).square().mean(1) + 1e-5).sqrt()  # 1e-5: finite gradient where constant
    return torch.stack([mean.squeeze(1), deviation], dim=1)


STYLE_STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {"gram": gram, "mean_std": mean_std}


def relative_error(value: Tensor, target: Tensor) -> Tensor:
    """Squared error divided by the squared norm of the target, per picture (N,): 0 is equal, 1 as far as zeros."""
    difference = (value - target).flatten(1).square().sum(1)
    return difference / target.flatten(1).square().sum(1).clamp_min(1e-12)


def content_loss(features: Tensor, target: Tensor, *, scale: str = "relative") -> Tensor:
    """Distance of feature maps (N, C, H, W), per picture (N,).

    scale="relative": sum (F - F_c)^2 / sum F_c^2. scale="gatys": 1/2 sum (F - F_c)^2, Gatys eq. 1.
    """
    if _checked_scale(scale) == "relative":
        return relative_error(features, target)
    return (features - target).flatten(1).square().sum(1) / 2


def style_loss(statistic: Tensor, target: Tensor, *, scale: str = "relative") -> Tensor:
    """Distance of style statistics of one layer, per picture (N,).

    scale="relative": sum (G - A)^2 / sum A^2, for any statistic. scale="gatys": 1/(4 C^2 P^2) sum (P G - P A)^2,
    Gatys eq. 4, for Gram matrices (N, C, C); P cancels because `gram` divides by it, so that pictures of different
    size can be compared.
    """
    if _checked_scale(scale) == "relative":
        return relative_error(statistic, target)
    if statistic.ndim != 3 or statistic.shape[1] != statistic.shape[2]:
        raise ValueError(f'scale="gatys" is defined for Gram matrices (N, C, C), not {tuple(statistic.shape)}.')
    return (statistic - target).flatten(1).square().sum(1) / (4 * statistic.shape[1] ** 2)


def _checked_scale(scale: str) -> str:
    if scale not in ("relative", "gatys"):
        raise ValueError(f'scale is "relative" or "gatys", not {scale!r}.')
    return scale


def total_variation(image: Tensor, *, power: int = 2) -> Tensor:
    """Mean |difference of vertical neighbours|^power plus the same for horizontal ones, per picture (N,).

    power=2 is the smooth regulariser that L-BFGS can use, power=1 the measure of noise in tables.
    """
    down = (image[..., 1:, :] - image[..., :-1, :]).abs().pow(power).flatten(1).mean(1)
    across = (image[..., 1:] - image[..., :-1]).abs().pow(power).flatten(1).mean(1)
    return down + across


# ---------------------------------------------------------------------------------------------------------------
# 4. Objective and optimisation
# ---------------------------------------------------------------------------------------------------------------


class StyleObjective:
    """What an image is asked to be: content_weight * content + style_weight * style + tv_weight * total variation, and
    values in [0, 1].

    content, style: images (1, 3, H, W), not necessarily of one size. content=None is texture synthesis, style=None is
    content reconstruction. The targets are computed once, here.
    content_layers, style_layers: None takes the defaults of the VGG family (relu4_2; relu1_1 ... relu5_1).
    style_layer_weights: layer -> w_l of Gatys eq. 5; None gives each of L layers 1/L.
    statistic: a name in STYLE_STATISTICS or a function of feature maps, which come in the network's precision.
    scale: see content_loss and style_loss.
    range_weight: weight of the mean squared distance of the values from [0, 1], in units of the loss that an image without
    any features has: content_weight + style_weight with scale="relative". A departure from Gatys: without it (0) L-BFGS
    leaves the values free, and clamping them at the end undoes much of what it reached.
    extractor: a FeatureExtractor to share between objectives, instead of arch, weights, pooling and precision.

    The four weights and `style_layer_weights` are plain attributes: changing them between two steps of
    `optimize_image` steers a running optimisation.
    """

    def __init__(self, content: Tensor | None = None, style: Tensor | None = None, *, arch: str = "vgg19_compact",
                 weights="DEFAULT", pooling: str | None = None, precision: str = "auto",
                 content_layers: Sequence[str] | None = None, style_layers: Sequence[str] | None = None,
                 content_weight: float = 1.0, style_weight: float = 100.0, tv_weight: float = 0.0,
                 range_weight: float = 10.0, style_layer_weights: Mapping[str, float] | None = None,
                 statistic="gram", scale: str = "relative", extractor: FeatureExtractor | None = None):
        if content is None and style is None:
            raise ValueError("An objective needs a content image, a style image or both.")
        self.content, self.style = content, style
        self.content_layers = tuple(content_layers or CONTENT_LAYERS) if content is not None else ()
        self.style_layers = tuple(style_layers or STYLE_LAYERS) if style is not None else ()
        self.content_weight, self.style_weight, self.tv_weight = content_weight, style_weight, tv_weight
        self.range_weight, self.blank = range_weight, {}  # losses of an image without features, not yet known
        self.style_layer_weights = dict(style_layer_weights or
                                        {layer: 1 / len(self.style_layers) for layer in self.style_layers})
        self.statistic, self.scale = _statistic(statistic), _checked_scale(scale)
        self.weights()  # refuse bad ones before the network is built
        device = (style if content is None else content).device
        self.extractor = extractor or FeatureExtractor(arch, (*self.content_layers, *self.style_layers), weights=weights,
                                                       pooling=pooling, precision=precision, device=device)
        _keep_freed_memory()
        _check_memory(self.extractor, style if content is None else content)
        _check_layers("The extractor", (*self.content_layers, *self.style_layers), dict.fromkeys(self.extractor.layers))
        with torch.no_grad():
            content_maps = {} if content is None else self.extractor(content)
            style_maps = {} if style is None else self.extractor(style)
            self.content_targets = {layer: _full(content_maps[layer]) for layer in self.content_layers}
            self.style_targets = {layer: self.statistic(style_maps[layer]) for layer in self.style_layers}
            blank = self._losses(*({layer: torch.zeros_like(target) for layer, target in targets.items()}
                                   for targets in (self.content_targets, self.style_targets)))
            self.blank = {name: float(loss) for name, loss in blank.items()}

    def reweighted(self, **weights) -> StyleObjective:
        """The same objective with other weights; network and targets are shared, not copied."""
        other = copy.copy(self)
        for name, weight in weights.items():
            if not hasattr(self, name):
                raise TypeError(f"There is no {name}{_did_you_mean(name, vars(self))}.")
            setattr(other, name, weight)
        other.weights()
        return other

    def weights(self) -> dict[str, float]:
        """The weights now in force, by term; raises ValueError unless all are finite and not negative."""
        layers = {f"style {layer}": weight for layer, weight in self.style_layer_weights.items()}
        blank = (self.content_weight * self.blank.get("content", 0.0)
                 + self.style_weight * sum(weight * self.blank.get(layer, 0.0) for layer, weight in layers.items()))
        weights = {"content": self.content_weight, "style": self.style_weight, "tv": self.tv_weight,
                   "range": self.range_weight * blank} | layers
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"The weight of {name} is a finite number of at least 0, not {weight}.")
        return weights

    def __call__(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The total to minimise and its terms, per picture (N,), for images (N, 3, H, W).

        The terms "content", "style", "tv" (and "range" if it is weighted) are without their weights; "style relu1_1"
        etc. are the single layers.
        """
        maps, weights, zero = self.extractor(image), self.weights(), image.new_zeros(len(image))
        losses = self._losses({layer: _full(maps[layer]) for layer in self.content_targets},
                              {layer: self.statistic(maps[layer]) for layer in self.style_targets})
        layers = {name: loss for name, loss in losses.items() if name != "content"}
        terms = {"content": losses["content"] + zero, "tv": total_variation(image) if self.tv_weight else zero,
                 "style": sum((weights.get(name, 0.0) * loss for name, loss in layers.items()), zero)}
        if self.range_weight:
            terms["range"] = (image - image.clamp(0, 1)).square().flatten(1).mean(1)
        total = sum(weights[term] * loss for term, loss in terms.items())
        return total, {"total": total} | terms | layers

    def _losses(self, maps: Mapping[str, Tensor], statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The content loss and that of each style layer, per picture (N,)."""
        content = [content_loss(maps[layer], target, scale=self.scale) for layer, target in self.content_targets.items()]
        style = {f"style {layer}": style_loss(statistics[layer], target, scale=self.scale)
                 for layer, target in self.style_targets.items()}
        return {"content": sum(content) / max(1, len(content))} | style


class _Together(StyleObjective):
    """Several objectives of one network, size and set of terms as one: objective n judges picture n of a batch."""

    def __init__(self, objectives: Sequence[StyleObjective]):
        vars(self).update(vars(objectives[0]))
        each = [objective.weights() for objective in objectives]
        numbers = {name: [weights.get(name, 0.0) for weights in each] for weights in each for name in weights}
        self._each = {name: _canvas(self).new_tensor(row) for name, row in numbers.items()}
        self.content_targets = _stacked([objective.content_targets for objective in objectives])
        self.style_targets = _stacked([objective.style_targets for objective in objectives])

    def weights(self) -> dict[str, Tensor]:
        return self._each


def _stacked(targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {layer: torch.cat([of_one[layer] for of_one in targets]) for layer in targets[0]}


@functools.cache
def _keep_freed_memory() -> None:
    """Let the C library keep freed buffers of up to 256 MB: getting them anew each time is a tenth of an evaluation.

    Linux with glibc only; elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(-3, 2**28)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**30)  # M_TRIM_THRESHOLD


def _check_memory(extractor: FeatureExtractor, image: Tensor) -> None:
    """Refuse a picture whose optimisation can't fit, and say which size can."""
    (height, width), free = image.shape[-2:], _available_memory(image.device)
    if min(height, width) < extractor.min_size or extractor.memory(height, width) <= free:
        return
    long = max(height, width)
    need = lambda side: extractor.memory(*(max(extractor.min_size, side * n // long) for n in (height, width)))  # noqa: E731
    largest = bisect.bisect_right(range(extractor.min_size, long), free, key=need) + extractor.min_size - 1
    raise ValueError(f"{width} x {height} pixels with {extractor.arch} take about {need(long) / 1e9:.1f} GB, but "
                     f"{free / 1e9:.1f} GB are free: the largest size that can fit is {largest} pixels on the long side.")


def _available_memory(device: torch.device) -> float:
    """Free memory in bytes; infinite where nobody knows."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        import psutil
    except ImportError:
        return math.inf
    return psutil.virtual_memory().available if device.type == "cpu" else math.inf


def _statistic(statistic) -> Callable[[Tensor], Tensor]:
    if callable(statistic):
        return statistic
    if statistic not in STYLE_STATISTICS:
        raise ValueError(f"There is no style statistic {statistic!r}{_did_you_mean(statistic, STYLE_STATISTICS)}.")
    return STYLE_STATISTICS[statistic]


@dataclass(frozen=True)
class Step:
    """One step of an optimisation: an image with its own losses.

    L-BFGS may step outside [0, 1]; its losses are those of the pixels before they are clamped to be shown.
    """

    index: int  # updates made before this image; 0 is the start
    evaluations: int  # of objective and gradient so far
    losses: dict[str, float]  # "total", "content", "style", "tv", "range", and one entry per style layer
    image: Tensor  # (1, 3, H, W), clamped to [0, 1]
    seconds: float  # since the start
    reason: str = ""  # why the run stopped, on the last step only


class _LBFGS(torch.optim.Optimizer):
    """L-BFGS on a batch of pictures (N, ...) that have nothing to do with each other, with one evaluation a step.

    The direction is that of the two-loop recursion, Nocedal & Wright, algorithm 7.4, for each picture by itself. torch's own
    takes a single picture, and stalls or leaps where the objective is badly scaled: its first step and the smallest
    curvature that it believes are absolute numbers. Here a step is FIRST_STEP per value (root mean square) until a
    curvature is known, and never above LONGEST_STEP, which stands in for a line search. A curvature is believed if
    gradient change and step are not all but orthogonal: random ones are, true ones have a cosine above 0.1.
    """

    FIRST_STEP, LONGEST_STEP, ORTHOGONAL = 1 / 64, 1 / 32, 0.02

    def __init__(self, pixels: list[Tensor], *, lr: float, history: int):
        super().__init__(pixels, {"lr": lr, "history": history})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        with torch.enable_grad():
            total = closure()
        group, = self.param_groups
        pixels, = group["params"]
        gradient, state = pixels.grad.flatten(1), self.state[pixels]
        if not state:
            state.update(pairs=deque(maxlen=group["history"]), scale=torch.full_like(gradient[:, :1], math.nan))
        else:
            self._learn(state, state["step"], gradient - state["gradient"])
        step = self._direction(state, gradient).mul_(group["lr"])
        step *= (self.LONGEST_STEP / _root_mean_square(step)).clamp_max(1.0)
        state.update(step=step, gradient=gradient.clone())
        pixels.add_(step.view_as(pixels))
        return total

    def _learn(self, state: dict, step: Tensor, change: Tensor) -> None:
        product, square = _dot(step, change), _dot(change, change)
        believed = product > self.ORTHOGONAL * (_dot(step, step) * square).sqrt()
        state["scale"] = torch.where(believed, product / square, state["scale"])
        state["pairs"].append((step, change, torch.where(believed, 1 / product, 0.0)))  # 0: the pair changes nothing

    def _direction(self, state: dict, gradient: Tensor) -> Tensor:
        direction, shares = -gradient, []
        for step, change, weight in reversed(state["pairs"]):
            shares.append(weight * _dot(step, direction))
            direction.addcmul_(shares[-1], change, value=-1)
        first = self.FIRST_STEP / _root_mean_square(gradient).clamp_min(1e-30)
        direction *= torch.where(state["scale"].isnan(), first, state["scale"])
        for (step, change, weight), share in zip(state["pairs"], reversed(shares)):
            direction.addcmul_(share - weight * _dot(change, direction), step)
        return direction


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)


def _root_mean_square(rows: Tensor) -> Tensor:
    return rows.square().mean(1, keepdim=True).sqrt()


OPTIMIZERS: dict[str, tuple[Callable, float]] = {  # name -> (factory of pixels and learning rate, its default)
    "lbfgs": (lambda pixels, rate: _LBFGS(pixels, lr=rate, history=_history(pixels[0][0].numel())), 1.0),
    "adam": (lambda pixels, rate: torch.optim.Adam(pixels, lr=rate), 0.02),
    # the gradient of a relative loss at one pixel falls with the number of pixels, so the rate grows with it
    "sgd": (lambda pixels, rate: torch.optim.SGD(pixels, lr=rate * pixels[0][0].numel(), momentum=0.9), 2e-5),
}


def _history(numbers: int) -> int:
    """How many pairs of vectors L-BFGS remembers: half a gigabyte of them at most."""
    return min(20, max(4, 2**26 // numbers))


def optimize_image(image: Tensor, objective, *, optimizer="lbfgs", steps: int = 200, learning_rate: float | None = None,
                   tolerance: float = 0.0) -> Iterator[Step]:
    """Minimise objective(image) over the pixels and yield a Step before each update, and one more at the end.

    objective: a StyleObjective, or any function image -> (total, dict of terms).
    optimizer: "lbfgs" (Gatys), "adam", "sgd", or a function of (list of pixels, learning rate) that makes one.
    steps: updates; a run makes steps + 1 evaluations (with L-BFGS as well: one evaluation an update, no line search).
    tolerance: stop when the total fell by less than this share over the last 20 steps; 0 never does.

    The last Step holds the best image of the run and says in `reason` why it stopped: all steps made, tolerance
    reached, a loss that is not finite, or an interrupt (Ctrl-C, the stop button). If the objective's weights change
    between two steps, the run goes on from the current image with a fresh optimiser state.
    """
    for step, in _optimize(image, objective, optimizer=optimizer, steps=steps, learning_rate=learning_rate,
                           tolerance=tolerance):
        yield step


def _optimize(images: Tensor, objective, *, optimizer="lbfgs", steps: int, learning_rate: float | None = None,
              tolerance: float = 0.0) -> Iterator[list[Step]]:
    """`optimize_image` for N images at once: yields the Steps of all; an image that has stopped repeats its last one."""
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps is a whole number of at least 1, not {steps} (several numbers need as many sizes).")
    pixels = images.detach().clone(memory_format=torch.contiguous_format).requires_grad_(True)
    make, rate = _optimizer(optimizer, learning_rate)
    mover, weights, evaluations, start = None, None, 0, time.perf_counter()
    for index in range(steps + 1):
        if mover is None or _weights(objective) != weights:  # another function: its curvature and best value are unknown
            mover, weights, runs = make([pixels], rate), _weights(objective), [_Run(tolerance) for _ in images]
        shown = [picture.clamp(0, 1) for picture in pixels.detach().split(1)]
        try:
            terms, *more = _evaluate(objective, pixels, mover, move=index < steps)
        except KeyboardInterrupt:
            if any(run.best is None for run in runs):
                raise
            for run in runs:
                run.stop("interrupted", index, evaluations, time.perf_counter() - start)
            yield [run.step for run in runs]
            return
        evaluations += 1 + len(more)
        for run, losses, picture in zip(runs, terms, shown):
            run.take(Step(index, evaluations, losses, picture, time.perf_counter() - start), steps)
        yield [run.step for run in runs]
        if all(run.done for run in runs):
            return


class _Run:
    """What one image has come to: the Step to show, the best so far, and the last totals."""

    def __init__(self, tolerance: float):
        self.tolerance, self.step, self.best, self.recent = tolerance, None, None, []

    @property
    def done(self) -> bool:
        return self.step is not None and self.step.reason != ""

    def take(self, step: Step, steps: int) -> None:
        if self.done:
            return
        total, reason = step.losses["total"], ""
        if not math.isfinite(total):
            reason = f"the loss is not finite after {step.index} steps ({_summary(step.losses)})"
            if self.best is None:
                raise FloatingPointError(f"Nothing to optimise: {reason}; check the image, the weights and the rate.")
        else:
            self.step = step
            self.best = step if self.best is None or total <= self.best.losses["total"] else self.best
            self.recent = [*self.recent[-20:], total]
            if self.tolerance and len(self.recent) == 21 and self.recent[0] - total < self.tolerance * self.recent[0]:
                reason = f"the loss fell by less than {self.tolerance:g} of itself in 20 steps"
            elif step.index == steps:
                reason = f"all {steps} steps made"
        if reason:
            self.stop(reason, step.index, step.evaluations, step.seconds)

    def stop(self, reason: str, index: int, evaluations: int, seconds: float) -> None:
        """The last step shows the best image and says why it is the last."""
        if not self.done:
            self.step = replace(self.best, reason=reason, index=index, evaluations=evaluations, seconds=seconds)


def coarse_to_fine(content=None, style=None, *, sizes: Sequence[int] = (256, 512), steps: int | Sequence[int] = (100, 40),
                   start: str | Tensor | None = None, seed: int = 0, optimizer="lbfgs", learning_rate: float | None = None,
                   tolerance: float = 0.0, device=None, **objective) -> Iterator[Step]:
    """Optimise at growing sizes, each from the enlarged picture of the size before; yields the Steps of all of them.

    Large strokes and colours settle where an evaluation is cheap (Gatys et al. 2017, "Controlling Perceptual Factors").
    sizes: long sides in pixels, ascending. steps: updates at each size, one number for all or one for each. The other
    keywords are those of `stylize`. Index, evaluations and seconds run on through the sizes; losses are those of the
    size at hand, so compare them within one size only. The last Step says in `reason` why the run stopped.
    """
    counts = [steps] * len(sizes) if isinstance(steps, int) else list(steps)
    if not sizes or list(sizes) != sorted(set(sizes)) or len(counts) != len(sizes):
        raise ValueError(f"sizes ascend, and steps is one number or one for each size: not {list(sizes)} with steps {steps}.")
    begin, before, last = time.perf_counter(), None, None
    for size, count in zip(sizes, counts):
        target = StyleObjective(*_as_images(content, style, size=size, device=device), **objective)
        objective["extractor"] = target.extractor  # built once
        image = _fitted(_start_image(target, start if last is None else last.image, seed), _canvas(target))
        for step in optimize_image(image, target, optimizer=optimizer, steps=count, learning_rate=learning_rate,
                                   tolerance=tolerance):
            last = replace(step, index=step.index + (before.index if before else 0), seconds=time.perf_counter() - begin,
                           evaluations=step.evaluations + (before.evaluations if before else 0))
            stop = size == sizes[-1] or step.reason.startswith(("interrupted", "the loss is not finite"))
            yield last if stop else replace(last, reason="")
        if stop:
            return
        before = last


def _evaluate(objective, pixels: Tensor, mover: torch.optim.Optimizer, *, move: bool) -> list[list[dict[str, float]]]:
    """Evaluate the objective and its gradient, and let the optimiser move the pixels if `move`.

    Returns the loss terms of each picture for every evaluation; an optimiser's step evaluates first, so the first are
    those of the images as they came.
    """
    terms = []

    def closure() -> Tensor:
        mover.zero_grad()
        totals, losses = objective(pixels)
        total = totals.sum()
        total.backward()
        table = torch.stack([loss.detach().to(total).expand(len(pixels)) for loss in losses.values()], 1)
        terms.append([dict(zip(losses, row)) for row in table.tolist()])  # a GPU is waited for once, not once for each term
        return total

    mover.step(closure) if move else closure()
    if not isinstance(mover, (_LBFGS, torch.optim.LBFGS)):  # clamping would falsify the curvature that it has gathered
        pixels.data.clamp_(0, 1)
    return terms


def _weights(objective) -> dict | None:
    return objective.weights() if isinstance(objective, StyleObjective) else None


def _optimizer(optimizer, learning_rate: float | None) -> tuple[Callable, float]:
    if not callable(optimizer) and optimizer not in OPTIMIZERS:
        raise ValueError(f"There is no optimiser {optimizer!r}{_did_you_mean(optimizer, OPTIMIZERS)}.")
    make, default = (optimizer, 1.0) if callable(optimizer) else OPTIMIZERS[optimizer]
    rate = default if learning_rate is None else learning_rate
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"learning_rate is a finite number above 0, not {rate}.")
    return make, rate


def _summary(losses: Mapping[str, float]) -> str:
    return ", ".join(f"{term} {losses[term]:.4g}" for term in ("content", "style") if term in losses)


PLAIN = (str, int, float, tuple, list, dict, Path, type(None))
BAR = "{percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} steps, {elapsed}<{remaining}"


def progress(steps: Iterable[Step], total: int) -> Iterator[Step]:
    """Pass steps through and show a bar with their number, content loss, style loss and seconds per step."""
    # on stdout: a notebook shows anything on stderr as a warning
    with tqdm(total=total, file=sys.stdout, mininterval=0.5, bar_format=BAR + "{postfix}") as bar:
        for step in steps:
            pace = step.seconds / max(1, step.index)
            bar.set_postfix_str(f"{_summary(step.losses)}, {pace:.3f} s/step", refresh=False)
            bar.update(step.index - bar.n)
            yield step


@dataclass
class Result:
    """What `stylize` returns; `image` is (1, 3, H, W) in [0, 1], `history` the loss terms of each evaluated image."""

    image: Tensor
    history: list[dict[str, float]] = field(repr=False)
    seconds: float
    reason: str

    def __repr__(self) -> str:
        height, width = self.image.shape[-2:]
        return f"{width} x {height} pixels in {self.seconds:.1f} s: {_summary(self.history[-1])} ({self.reason})"


def stylize(content=None, style=None, *, size: int | None = 512, sizes: Sequence[int] = (),
            start: str | Tensor | None = None, seed: int = 0, steps: int | Sequence[int] = 200, optimizer="lbfgs",
            learning_rate: float | None = None, tolerance: float = 0.0, device=None, show_progress: bool = True,
            **objective) -> Result:
    """Paint `content` in the style of `style`: the front door to everything above.

    content, style: paths, PIL pictures or tensors (1, 3, H, W); either may be None, see StyleObjective, which also
    takes all other keywords (arch, content_weight, style_weight, ...). size: long side in pixels of both, None keeps
    them. sizes: several of them instead, ascending, for coarse_to_fine; then steps may be one number for each.
    start: "content" (default), "noise" (default without a content), "style", or an image tensor.
    device: None takes an accelerator if there is one. An interrupt returns the best image so far.
    """
    how = {"optimizer": optimizer, "steps": steps, "learning_rate": learning_rate, "tolerance": tolerance}
    if sizes:
        run = coarse_to_fine(content, style, sizes=sizes, start=start, seed=seed, device=device, **how, **objective)
    else:
        target = StyleObjective(*_as_images(content, style, size=size, device=device), **objective)
        run = optimize_image(_start_image(target, start, seed), target, **how)
    total = sum(steps) if isinstance(steps, Sequence) else steps * max(1, len(sizes))
    return _collect(progress(run, total) if show_progress else run)


def _as_images(*sources, size: int | None, device=None) -> list[Tensor | None]:
    device = device or torch.accelerator.current_accelerator(check_available=True) or "cpu"
    read = lambda source: resize(source, size) if isinstance(source, Tensor) else load_image(source, size)  # noqa: E731
    return [None if source is None else read(source).to(device) for source in sources]


def _start_image(objective: StyleObjective, start: str | Tensor | None, seed: int) -> Tensor:
    canvas = _canvas(objective)
    if isinstance(start, Tensor):
        return start.to(canvas.device)
    kind = start or ("noise" if objective.content is None else "content")
    return initial_image(canvas, kind, style=objective.style, seed=seed)


def _canvas(objective: StyleObjective) -> Tensor:
    return objective.style if objective.content is None else objective.content


def _collect(steps: Iterable[Step]) -> Result:
    """Run through the steps to the Result; an interrupt between two of them keeps the best image."""
    history, best, last = [], None, None
    try:
        for last in steps:
            history.append(last.losses)
            best = best if best is not None and best.image.shape == last.image.shape else None  # losses of two sizes differ
            best = last if best is None or last.losses["total"] <= best.losses["total"] else best
    except KeyboardInterrupt:  # inside a step, optimize_image has handled it
        if best is None:
            raise
        last = replace(best, seconds=last.seconds, reason="interrupted")
    return Result(last.image, history, last.seconds, last.reason)


def sweep(cells: Mapping[Any, Mapping], *, executor=None, together: int | None = None, size: int | None = 512, device=None,
          show_progress: bool = True, **common) -> dict[Any, Result]:
    """Run `stylize` once for each cell and return label -> Result, under one progress bar over all of them.

    cells: label -> the keywords (of stylize, content and style among them) in which this run differs from `common`.
    executor: a concurrent.futures.Executor (a pool of processes, or of a cluster) runs the cells; None runs them here.
    together: so many cells, if alike in network, size, steps and optimiser, run as one batch, each with an L-BFGS of its
    own; None takes as many as a GPU's memory holds, or as are faster so on a CPU. 1 gives the very bits of `stylize`, while
    batches round in another order. Cells share network and targets where they can. The seconds of a Result are its
    share of the batch's. An interrupt returns the cells that are finished.
    """
    if together is not None and together < 1:
        raise ValueError(f"together is a number of cells of at least 1, not {together}.")
    jobs = _jobs(cells, common, size=size, device=device)
    return _run_jobs(jobs, executor, [] if executor else _batches(jobs, together), show_progress)


@dataclass(frozen=True)
class _Job:
    """A cell of a sweep, ready to run; jobs of one kind can run as one batch."""

    start: Tensor
    objective: StyleObjective
    run: dict[str, Any]  # the keywords of optimize_image
    kind: tuple


def _jobs(cells: Mapping[Any, Mapping], common: Mapping, *, size: int | None, device) -> dict[Any, _Job]:
    networks, objectives, jobs = {}, {}, {}
    for label, cell in cells.items():
        settings = common | dict(cell)
        take = lambda *names: {name: settings.pop(name) for name in names if name in settings}  # noqa: B023, E731
        run = {"steps": 200} | take("steps", "optimizer", "learning_rate", "tolerance")
        begin = {"start": None, "seed": 0} | take("start", "seed")
        weights = take(*(name for name in list(settings) if name.endswith(("_weight", "_weights"))))
        pictures = settings.pop("content", None), settings.pop("style", None)
        network, key = _key(settings, *(picture is None for picture in pictures)), _key(settings, *pictures)
        if key not in objectives:
            images = _as_images(*pictures, size=size, device=device)
            objectives[key] = StyleObjective(*images, **settings | networks.get(network, {}))
            networks[network] = {"extractor": objectives[key].extractor}
        objective = objectives[key].reweighted(**weights)
        start = _start_image(objective, **begin)
        custom = callable(run.get("optimizer")) or objective.statistic not in STYLE_STATISTICS.values()  # made for one picture?
        terms = objective.tv_weight > 0, objective.range_weight > 0
        kind = (network, _key(run), start.shape, _canvas(objective).shape, terms, label if custom else None)
        jobs[label] = _Job(start, objective, run, kind)
    return jobs


def _key(settings: Mapping, *more) -> tuple:
    """Plain settings are equal if they read alike; tensors and networks only if they are the same object."""
    name = lambda value: repr(value) if isinstance(value, PLAIN) else id(value)  # noqa: E731
    return tuple(sorted((key, name(value)) for key, value in settings.items())), *map(name, more)


def _batches(jobs: Mapping[Any, _Job], together: int | None) -> list[list]:
    """The labels of the jobs, those of one kind in lists of at most `together`."""
    kinds = {}
    for label, job in jobs.items():
        kinds.setdefault(job.kind, []).append(label)
    batches = []
    for labels in kinds.values():
        count = together or _largest_batch(jobs[labels[0]])
        batches += [labels[first:first + count] for first in range(0, len(labels), count)]
    return batches


def _largest_batch(job: _Job) -> int:
    height, width = job.start.shape[-2:]
    if job.start.device.type == "cuda":
        return max(1, int(_available_memory(job.start.device) // job.objective.extractor.memory(height, width)))
    return max(1, 2**18 // (height * width))  # measured on two cores: twice as fast at 96 px, 1.2 times at 256, equal at 512


def _run_jobs(jobs: Mapping[Any, _Job], executor, batches: Iterable[list], show_progress: bool) -> dict[Any, Result]:
    results = {}
    waiting = {executor.submit(_run_together, [job]): label for label, job in jobs.items()} if executor else {}
    total = lambda labels: sum(jobs[label].run["steps"] for label in labels)  # noqa: E731
    with tqdm(total=total(jobs), file=sys.stdout, mininterval=0.5, disable=not show_progress, bar_format=BAR) as bar:
        try:
            for labels in batches:
                before = bar.n
                done = _run_together([jobs[label] for label in labels], lambda made: bar.update(before + made - bar.n))  # noqa: B023
                results |= {label: result for label, result in zip(labels, done) if result.reason != "interrupted"}
                if any(result.reason == "interrupted" for result in done):
                    break
                bar.update(total(results) - bar.n)  # the runs may have stopped early
            for future in _as_completed(waiting):
                results[waiting[future]], = future.result()
                bar.update(total([waiting[future]]))
        except KeyboardInterrupt:
            for future in waiting:
                future.cancel()
    return {label: results[label] for label in jobs if label in results}


def _run_together(jobs: Sequence[_Job], show: Callable[[int], Any] = lambda made: None) -> list[Result]:
    """Run jobs of one kind as one batch, and show the number of steps made."""
    objective = jobs[0].objective if len(jobs) == 1 else _Together([job.objective for job in jobs])
    last, histories = [None] * len(jobs), [[] for _ in jobs]
    for steps in _optimize(torch.cat([job.start for job in jobs]), objective, **jobs[0].run):
        for step, shown, history in zip(steps, last, histories):
            if step is not shown:  # one that has stopped is repeated
                history.append(step.losses)
        last = steps
        show(sum(step.index for step in steps))
    return [Result(step.image, history, step.seconds / len(jobs), step.reason) for step, history in zip(last, histories)]


def _as_completed(futures: Iterable) -> Iterator:
    """Like concurrent.futures.as_completed, for futures of any executor, Dask's among them."""
    left = list(futures)
    while left:
        done = [future for future in left if future.done()]
        yield from done
        left = [future for future in left if future not in done]
        time.sleep(0.02 if left and not done else 0)


# ---------------------------------------------------------------------------------------------------------------
# 5. Feed-forward: the AdaIN network
# ---------------------------------------------------------------------------------------------------------------

ADAIN_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
# VGG-19 in reverse, but wide where the maps are small and a channel costs little; "U" doubles height and width
COMPACT_DECODER = (192, 160, "U", 128, 96, 96, 64, "U", 48, 32, "U", 16, 3)
MARGIN = 16  # pixels put around a picture and cut off its result, where the networks' own padding would show as a frame


def adain(content: Tensor, style: Tensor) -> Tensor:
    """Content maps (N, C, H, W) with the mean and deviation that each channel has in the style; Huang & Belongie eq. 8.

    style: feature maps (N, C, H', W'), or their statistics (N, 2, C) as `mean_std` gives them. Returns float32.
    """
    wanted, own = (mean_std(style) if style.ndim == 4 else style), mean_std(content)
    scale = wanted[:, 1] / own[:, 1]
    shift = wanted[:, 0] - own[:, 0] * scale
    return _full(content) * scale[..., None, None] + shift[..., None, None]


def wct(content: Tensor, style: Tensor, *, floor: float = 1e-5) -> Tensor:
    """Content maps (N, C, H, W) with the mean and the whole covariance of style maps (N, C, H', W'): whitening and colouring.

    Li et al., Universal Style Transfer via Feature Transforms, NeurIPS 2017, eq. 1-2. floor: eigenvalues below this share of
    the largest one count as noise and are left out. Returns float32.
    """
    if style.ndim != 4:
        raise ValueError("wct needs the style's maps (N, C, H, W): means and deviations don't hold its covariance.")
    flat, wanted = _full(content).flatten(2), _full(style).flatten(2)
    centred, reference = (maps - maps.mean(2, keepdim=True) for maps in (flat, wanted))
    coloured = _covariance_power(reference, 0.5, floor) @ _covariance_power(centred, -0.5, floor) @ centred
    return (coloured + wanted.mean(2, keepdim=True)).view_as(content)


def _covariance_power(centred: Tensor, exponent: float, floor: float) -> Tensor:
    values, vectors = torch.linalg.eigh(centred @ centred.mT / centred.shape[2])
    powers = torch.where(values > floor * values[:, -1:], values.clamp_min(1e-12) ** exponent, 0)
    return vectors * powers[:, None] @ vectors.mT


def with_colours_of(image: Tensor, content: Tensor) -> Tensor:
    """The brightness of an image with the colours of another of the same shape (Gatys et al. 2017, luminance only)."""
    luma = torch.tensor([0.299, 0.587, 0.114], device=image.device).view(3, 1, 1)
    return (content + ((image - content) * luma).sum(-3, keepdim=True)).clamp(0, 1)


class AdaIN(nn.Module):
    """Arbitrary style transfer in one pass: encode, give the content's maps the style's statistics, decode.

    arch: a VGG; its layers up to relu4_1 are the fixed encoder. The decoder mirrors them with nearest-neighbour
    up-sampling and reflection padding, and without normalisation layers (Huang & Belongie 2017, section 5). It is
    untrained here: `AdaIN.pretrained` loads a trained one, `train_adain` trains one.
    weights, precision, device: as in FeatureExtractor. seed: of the untrained decoder.
    """

    def __init__(self, arch: str = "vgg19_compact", *, weights="DEFAULT", precision: str = "auto", device=None, seed: int = 0):
        super().__init__()
        self.arch = arch
        self.encoder = FeatureExtractor(arch, ADAIN_LAYERS, weights=weights, precision=precision, device=device)
        self.decoder = _decoder(_decoder_widths(self.encoder), seed).to(device or "cpu", memory_format=torch.channels_last)

    @classmethod
    def pretrained(cls, arch: str = "vgg19_compact", *, path=None, **options) -> AdaIN:
        """A network with the decoder at `path`; None takes the one that this project trained for vgg19_compact."""
        if path is None and arch != "vgg19_compact":
            raise ValueError(f"No decoder for {arch} is shipped, only for vgg19_compact: train one with train_adain, or "
                             f"load the published one for VGG-19 with AdaIN.from_published(folder).")
        network = cls(arch, **options)
        _load_weights(network.decoder, f"a decoder for {arch}", Path(path or DATA / "weights" / f"adain_{arch}.pt"))
        return network.eval()

    @classmethod
    def from_published(cls, folder, *, precision: str = "auto", device=None) -> AdaIN:
        """The VGG-19 network of Huang & Belongie from `vgg_normalised.pth` and `decoder.pth` in `folder`.

        These are the files of naoto0804/pytorch-AdaIN: plain state dicts of one chain each, in which a 1x1
        convolution normalises the pixels and every convolution pads by reflection.
        """
        network = cls("vgg19", weights=None, precision=precision, device="cpu")
        chain = _published_encoder()
        _load_weights(chain, "the normalised VGG-19", Path(folder) / "vgg_normalised.pth")
        _load_weights(network.decoder, "a decoder for VGG-19", Path(folder) / "decoder.pth")
        encoder = network.encoder
        encoder.body = _Chain(chain, dict(zip((3, 10, 17, 30), ADAIN_LAYERS))).to(encoder.dtype).requires_grad_(False)
        encoder.mean.zero_()  # its first convolution normalises
        encoder.std.fill_(1)
        encoder.min_size = 9  # smaller pictures leave relu4_1 one position, which reflection can't pad
        return network.eval().to(device or "cpu", memory_format=torch.channels_last)

    def save(self, path) -> Path:
        """Write the decoder as a plain state dict in half precision; `pretrained(path=...)` reads it."""
        path = Path(path)
        with _replacing(path) as temporary:
            temporary.write_bytes(_as_bytes({name: value.cpu().half() for name, value in self.decoder.state_dict().items()}))
        return path

    def decode(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W) at relu4_1 -> images (N, 3, 8 H, 8 W), not clamped."""
        # not by autocast, which on a CPU pads in float32
        rounded = {name: value.to(self.encoder.dtype) for name, value in self.decoder.named_parameters()}
        maps = maps.to(self.encoder.dtype, memory_format=torch.channels_last)
        return _full(torch.func.functional_call(self.decoder, rounded, (maps,)))

    @torch.no_grad()
    def statistics(self, style: Tensor) -> Tensor:
        """What is kept of a style image (1, 3, H, W): mean and deviation (1, 2, C) at relu4_1. Compute once, use often."""
        return mean_std(self.encoder(style)["relu4_1"])

    @torch.no_grad()
    def stylize(self, content: Tensor, style, *, alpha: float = 1.0, weights: Sequence[float] | None = None,
                masks: Sequence[Tensor] | None = None, keep_colours: bool = False, transform: Callable = adain) -> Tensor:
        """`content` (1, 3, H, W) in the style of `style`: an image (1, 3, H, W) in [0, 1].

        style: an image of any size, its `statistics`, or a list of these. alpha: from 0 (the decoded content) to 1
        (all of the style). weights: how much of each of several styles; None takes equal parts. masks: instead of
        weights, one (1, 1, h, w) per style with values from 0 to 1: where in the picture it is used.
        keep_colours: take only the brightness from the result, see `with_colours_of`. transform: `adain`, or `wct`, which
        wants the style images themselves.
        """
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is between 0 and 1, not {alpha}.")
        styles = [style] if isinstance(style, Tensor) else list(style)
        shares = _shares(len(styles), weights, masks, content)
        maps = _full(self.encoder(_with_margin(content))["relu4_1"])
        wanted = [self.encoder(one)["relu4_1"] if one.ndim == 4 else one for one in styles]
        target = sum(share * transform(maps, one) for share, one in zip(shares, wanted))
        height, width = content.shape[-2:]
        image = self.decode(maps + alpha * (target - maps))[..., MARGIN:MARGIN + height, MARGIN:MARGIN + width].clamp(0, 1)
        return with_colours_of(image, content) if keep_colours else image


def _with_margin(image: Tensor) -> Tensor:
    """The image with its edge repeated around it, so that both sides are multiples of the encoder's stride of 8."""
    height, width = image.shape[-2:]
    return F.pad(image, (MARGIN, MARGIN + -width % 8, MARGIN, MARGIN + -height % 8), mode="replicate")


def _shares(count: int, weights, masks, content: Tensor) -> list:
    """How much of each style: numbers, or maps (1, 1, H, W) at relu4_1; they add up to 1 everywhere."""
    if weights is not None and masks is not None:
        raise ValueError("Several styles are mixed by weights or by masks, not by both.")
    parts = [1.0] * count if weights is None and masks is None else list(weights if masks is None else masks)
    if len(parts) != count or not count:
        raise ValueError(f"There are {count} styles, but {len(parts)} {'weights' if masks is None else 'masks'}.")
    if masks is not None:
        shrink = functools.partial(F.interpolate, mode="bilinear", antialias=True)
        parts = [_with_margin(shrink(mask.to(content), content.shape[-2:])) for mask in parts]
        parts = [shrink(mask, scale_factor=1 / 8) for mask in parts]
        total = sum(parts)
        return [torch.where(total > 1e-3, part / total.clamp_min(1e-3), 1 / count) for part in parts]
    if min(parts) < 0 or not 0 < sum(parts) < math.inf:
        raise ValueError(f"The weights of styles are finite, at least 0 and not all 0, not {parts}.")
    return [part / sum(parts) for part in parts]


def _decoder_widths(encoder: FeatureExtractor) -> tuple:
    if encoder.arch == "vgg19_compact":
        return COMPACT_DECODER
    if not isinstance(encoder.body, _Chain):
        raise ValueError(f"AdaIN needs a VGG as its encoder, not {encoder.arch}.")
    convolutions = [module for module in encoder.body.features if not isinstance(module, nn.ReLU | nn.BatchNorm2d)]
    mirrored = [m.in_channels if isinstance(m, nn.Conv2d) else "U" for m in reversed(convolutions)]
    return convolutions[-1].out_channels, *mirrored


def _decoder(widths: Sequence, seed: int) -> nn.Sequential:
    modules = _padded_chain(*widths)
    generator = torch.Generator().manual_seed(seed)
    for module in modules:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(module.bias)
    with torch.no_grad():  # begin with a nearly grey picture: anything wilder has to be unlearnt first
        modules[-2].weight.mul_(0.1)
        modules[-2].bias.fill_(0.5)
    return nn.Sequential(*modules[:-1])  # no ReLU on the pixels


def _published_encoder() -> nn.Sequential:
    widths = 64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512
    return nn.Sequential(nn.Conv2d(3, 3, 1), *_padded_chain(3, *widths))


def _padded_chain(channels: int, *widths) -> list[nn.Module]:
    """Convolutions that pad by reflection, each with its ReLU; "M" halves height and width, "U" doubles them."""
    modules = []
    for width in widths:
        if width == "M":
            modules.append(nn.MaxPool2d(2, ceil_mode=True))
        elif width == "U":
            modules.append(nn.Upsample(scale_factor=2, mode="nearest"))
        else:
            modules += [nn.ReflectionPad2d(1), nn.Conv2d(channels, width, 3), nn.ReLU()]
            channels = width
    return modules


@dataclass(frozen=True)
class TrainingStep:
    """One update of a decoder."""

    index: int  # updates made so far, this one included
    losses: dict[str, float]  # "total", "content", "style", "identity" of this batch, before the update
    seconds: float  # of training so far, those before a resumption included
    skipped: int  # pictures left out so far because they can't be read or are smaller than a crop
    note: str = ""  # on the first step after a resumption: from where


def train_adain(network: AdaIN, contents, styles, *, steps: int = 8000, batch: int = 8, size: int = 288, crop: int = 128,
                learning_rate: float = 5e-4, style_weight: float = 10.0, identity_weight: float = 20.0,
                checkpoint=None, checkpoint_every: int = 500, seed: int = 0, accelerator=None) -> Iterator[TrainingStep]:
    """Train the decoder of `network` and yield a TrainingStep after each update.

    contents, styles: a folder of pictures each, or several, which are then drawn from equally often.
    size, crop: the short side to which pictures are reduced and the side of the square crops, in pixels.
    style_weight, identity_weight: weights beside the content loss, see `_AdaINLosses`.
    checkpoint: a file, written every `checkpoint_every` steps and at the end. If it is there, training goes on from it
    and gives on a CPU the same bits as a run without a break; the one before it is kept as `NAME.previous`.

    accelerator: a Hugging Face Accelerator; None makes one, which takes a GPU if there is one and moves the network there.
    Under `accelerate launch` or `notebook_launcher` the same call runs on several, each with its own `batch` of the draws,
    which are functions of seed and step.
    Raises ValueError if a folder has fewer than two usable pictures or the checkpoint does not fit,
    FloatingPointError if a loss or its gradient is not finite (the last checkpoint stays as it is).
    The paper takes size 512, crop 256, 160,000 steps, Adam at 1e-4, and no identity loss.
    """
    from accelerate import Accelerator
    if not 16 <= crop <= size:
        raise ValueError(f"crop is at least 16 and at most size, not {crop} with a size of {size}.")
    photographs, paintings = (_Pictures(source, size, crop, seed + stream) for stream, source in enumerate((contents, styles)))
    accelerator = accelerator or Accelerator()
    optimizer = torch.optim.Adam(network.decoder.parameters(), lr=learning_rate)
    done, before, note = _resume(checkpoint, network, optimizer)
    model, optimizer = accelerator.prepare(_AdaINLosses(network), optimizer)
    start = time.perf_counter()
    for step in range(done, steps):
        for group in optimizer.param_groups:  # constant, then falling to 0 over the last half
            group["lr"] = learning_rate * min(1.0, 2 * (1 - step / steps))
        first = (step * accelerator.num_processes + accelerator.process_index) * batch
        losses = model(*(pictures.batch(first, batch).to(accelerator.device) for pictures in (photographs, paintings)))
        losses["total"] = losses["content"] + style_weight * losses["style"] + identity_weight * losses["identity"]
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
            _write_checkpoint(Path(checkpoint), {
                "arch": network.arch, "step": step + 1, "seconds": seconds, "decoder": network.decoder.state_dict(),
                "optimizer": optimizer.state_dict()})
        yield TrainingStep(step + 1, dict(zip(losses, values)), seconds, len(photographs.skipped) + len(paintings.skipped), note)
        note = ""


class _AdaINLosses(nn.Module):
    """The terms of the training loss, means over the batch: a module, so that Accelerate can distribute it.

    content: relative error of the result's maps against t = AdaIN(f(c), f(s)) at relu4_1 (Huang & Belongie eq. 12).
    style: relative error of means and deviations, averaged over ADAIN_LAYERS (eq. 13). Relative errors instead of the
        paper's norms make the terms comparable and independent of the encoder.
    identity: squared error of decoded photographs against themselves (Park & Lee 2019, eq. 7), on half of each process's
        batch to save time. Not in the paper; it gives the decoder a target per pixel, and an hour of training goes much further.
    """

    def __init__(self, network: AdaIN):
        super().__init__()
        self.network = network

    def forward(self, content: Tensor, style: Tensor) -> dict[str, Tensor]:
        encoder = self.network.encoder
        with torch.no_grad():
            photograph = _full(encoder(content)["relu4_1"])
            wanted = {layer: mean_std(maps) for layer, maps in encoder(style).items()}
            target = adain(photograph, wanted["relu4_1"])
        half = (len(content) + 1) // 2
        result, same = self.network.decode(torch.cat([target, photograph[:half]])).split([len(content), half])
        maps = encoder(result)
        style_terms = [relative_error(mean_std(maps[layer]), wanted[layer]).mean() for layer in ADAIN_LAYERS]
        return {"content": relative_error(_full(maps["relu4_1"]), target).mean(),
                "style": torch.stack(style_terms).mean(), "identity": F.mse_loss(same, content[:half])}


class _Pictures:
    """Endless draws of square crops from folders; draw number k is the same whenever and wherever it is made."""

    def __init__(self, source, size: int, crop: int, seed: int):
        folders = [source] if isinstance(source, str | Path) else list(source)
        self.folders = [_picture_files(Path(folder)) for folder in folders]
        self.size, self.crop, self.seed, self.skipped = size, crop, seed, set()
        self.read = functools.lru_cache(maxsize=2048)(self._read)  # 8-bit and reduced: 0.7 GB at a size of 288

    def batch(self, first: int, count: int) -> Tensor:
        return torch.stack([self.draw(number) for number in range(first, first + count)])

    def draw(self, number: int) -> Tensor:
        """A window of 1 to 1.5 times `crop` pixels a side, shrunk to (3, crop, crop), half of them mirrored."""
        picture, generator = self.picture(number), _generator(self.seed, 1, number)
        height, width = picture.shape[-2:]
        side = _random_int(self.crop, min(height, width, self.crop * 3 // 2), generator)
        top, left = _random_int(0, height - side, generator), _random_int(0, width - side, generator)
        window = picture[:, top:top + side, left:left + side].float().div(255)
        window = window.flip(-1) if _random_int(0, 1, generator) else window
        return resize(window[None], self.crop)[0]

    def picture(self, number: int) -> Tensor:
        """The picture of a draw, 8-bit (3, H, W): folders in turn, each in a new random order when it is used up."""
        files = self.folders[number % len(self.folders)]
        turn, place = divmod(number // len(self.folders), len(files))
        order = torch.randperm(len(files), generator=_generator(self.seed, 0, turn, number % len(self.folders))).tolist()
        for path in (files[index] for index in order[place:] + order[:place]):
            if path not in self.skipped:
                try:
                    return self.read(path)
                except (OSError, ValueError):
                    self.skipped.add(path)
            if len(self.skipped.intersection(files)) > len(files) - 2:
                break
        raise ValueError(f"{files[0].parent} has fewer than two pictures that can be read and have {self.crop} pixels or more "
                         f"on each side.")

    def _read(self, path: Path) -> Tensor:
        picture = load_image(path)
        if min(picture.shape[-2:]) < self.crop:
            raise ValueError("smaller than a crop")
        picture = resize(picture, self.size, "short")
        return (picture[0] * 255).round().to(torch.uint8)


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


def _as_bytes(state: Mapping) -> memoryview:
    """What torch.save writes: made in memory first, so that a full disk is an OSError like any other."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")


def _write_checkpoint(path: Path, state: Mapping) -> None:
    """Killed at any moment, this leaves the old checkpoint, the new one, or the old one under the previous one's name."""
    with _replacing(path) as temporary:
        temporary.write_bytes(_as_bytes(state))
        if path.exists():
            os.replace(path, _previous(path))


def _resume(checkpoint, network: AdaIN, optimizer: torch.optim.Optimizer) -> tuple[int, float, str]:
    """Load what a checkpoint holds; return the steps and seconds behind it and a note on where it came from."""
    paths = [] if checkpoint is None else [path for path in (Path(checkpoint), _previous(Path(checkpoint))) if path.exists()]
    problems = []
    for path in paths:
        try:
            state = _load_state(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        if state.get("arch") != network.arch:
            other = state.get("arch", "something else")
            raise ValueError(f"{path} is no checkpoint of an AdaIN on {network.arch}, but of {other}.")
        network.decoder.load_state_dict(state["decoder"])
        optimizer.load_state_dict(state["optimizer"])
        return state["step"], state["seconds"], " ".join([*problems, f"Resumed at step {state['step']} from {path.name}."])
    if problems:
        raise ValueError(" ".join(problems))
    return 0, 0.0, ""


# ---------------------------------------------------------------------------------------------------------------
# 6. Figures
# ---------------------------------------------------------------------------------------------------------------


def image_grid(images: Sequence[Sequence[Tensor]], *, row_labels: Sequence[str] = (), col_labels: Sequence[str] = (),
               title: str = "", cell: float = 2.2):
    """A matplotlib figure of rows of images (1, 3, H, W) with labels; `cell` is a column's width in inches.

    None leaves a cell empty.
    """
    import matplotlib.pyplot as plt
    rows, columns = len(images), max(map(len, images))
    ratios = [max((image.shape[-2] / image.shape[-1] for image in row if image is not None), default=1) for row in images]
    figure, axes = plt.subplots(rows, columns, squeeze=False, layout="constrained", height_ratios=ratios,
                                figsize=(cell * columns, cell * sum(ratios) + 0.3 * (bool(col_labels) + bool(title))))
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], anchor="N")  # pictures of different shape hang from one line
        axis.spines[:].set_visible(False)
    for row, line in zip(axes, images):
        for axis, image in zip(row, line):
            if image is not None:
                axis.imshow(to_pil(image))
    for axis, label in zip(axes[0], col_labels):
        axis.set_title(label, fontsize=9)
    for axis, label in zip(axes[:, 0], row_labels):
        axis.set_ylabel(label, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def image_strip(images: Sequence[Step | Result | Tensor], labels: Sequence[str] | None = None, *, title: str = "",
                cell: float = 2.2):
    """A figure of images side by side; steps are labelled with their number unless labels are given."""
    if labels is None:
        labels = [f"{item.index} steps" for item in images if isinstance(item, Step)]
    return image_grid([[_image_of(item) for item in images]], col_labels=labels, title=title, cell=cell)


def _image_of(item: Step | Result | Tensor) -> Tensor:
    return item if isinstance(item, Tensor) else item.image


def plot_losses(histories: Mapping[str, Sequence[Mapping[str, float]]] | Sequence[Mapping[str, float]],
                terms: Sequence[str] = ("content", "style"), *, title: str = ""):
    """A figure of loss terms against steps on a logarithmic axis, for one history or for several by label."""
    import matplotlib.pyplot as plt
    if not isinstance(histories, Mapping):
        histories = {"": histories}
    figure, axes = plt.subplots(1, len(terms), figsize=(4.2 * len(terms), 2.8), layout="constrained", squeeze=False)
    for axis, term in zip(axes[0], terms):
        for label, history in histories.items():
            axis.plot([losses[term] for losses in history], label=label or term, linewidth=1.5)
        axis.set(xlabel="steps", title=f"{term} loss", yscale="log")
        axis.grid(alpha=0.3)
        if any(histories):
            axis.legend(fontsize=8)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def export_figure(figure, name: str, caption: str, *, folder: Path | str = FIGURES) -> Path:
    """Write a figure as PNG and PDF with its caption, renew the gallery page of the folder, return the PNG's path.

    name: file name without suffix. The files carry no date, so that the same figure gives the same bytes.
    """
    folder = Path(folder)
    with _replacing(folder / f"{name}.png") as path:
        figure.savefig(path, dpi=120, metadata={"Software": None})
    with _replacing(folder / f"{name}.pdf") as path:
        figure.savefig(path, dpi=120, metadata={"CreationDate": None, "Producer": None, "Creator": None})
    with _replacing(folder / f"{name}.txt") as path:
        path.write_text(caption + "\n", encoding="utf-8")
    entries = [f"## {text.stem}\n\n![{text.stem}]({text.stem}.png)\n\n{text.read_text(encoding='utf-8')}"
               for text in sorted(folder.glob("*.txt"))]
    with _replacing(folder / "README.md") as path:
        path.write_text("# Figures\n\nMade by the notebooks; each is here as PNG and PDF.\n\n" + "\n".join(entries),
                        encoding="utf-8")
    return folder / f"{name}.png"


def claim_table(claims: Sequence[tuple[str, str, str, bool]]):
    """A Markdown table of (claim, who made it, what was measured, whether it holds), for the end of a notebook."""
    from IPython.display import Markdown
    lines = [f"| {claim} | {who} | {measured} | {'yes' if holds else '**no**'} |" for claim, who, measured, holds in claims]
    return Markdown("\n".join(["| claim | made by | measured | holds |", "|---|---|---|---|", *lines]))


# ---------------------------------------------------------------------------------------------------------------
# 7. Widgets
# ---------------------------------------------------------------------------------------------------------------

LIVE_WEIGHTS = ("content_weight", "style_weight", "tv_weight", "style_layer_weights")  # change without a new run
LIVE_RUN = ("start", "seed", "optimizer", "learning_rate", "goal", "round")  # change with the network and targets kept
LOSS_COLOURS = {"content": "#1976d2", "style": "#e65100"}
WIDE = {"layout": {"width": "auto"}, "style": {"description_width": "104px"}}
EVEN = {"width": "auto", "flex": "1 1 auto"}


class LiveRun:
    """An optimisation in a thread of its own that obeys while it runs. Needs no widgets and no notebook.

    content, style, start, seed, steps, optimizer, learning_rate, device and `objective` are those of `stylize`.
    on_change: called without arguments after every step and every change of state, mostly in the worker's thread.

    Read at any time: `state` ("ready", "running", "paused", "finished", "failed" or "stopped"), `image` (1, 3, H, W),
    `history` (loss terms of every step), `pace` (seconds per step), `reason` (why it finished), `error` (why it failed)
    and `objective`. There is a worker only while the state is "running" or "paused".
    """

    def __init__(self, content=None, style=None, *, size: int | None = 256, start: str | Tensor | None = None, seed: int = 0,
                 steps: int = 500, optimizer="lbfgs", learning_rate: float | None = None, device=None,
                 on_change: Callable[[], None] = lambda: None, **objective):
        self.steps, self.on_change = steps, on_change
        self.state, self.error, self.reason, self.pace, self.history = "ready", None, "", 0.0, []
        self.settings = {"content": content, "style": style, "size": size, "device": device, "start": start, "seed": seed,
                         "optimizer": optimizer, "learning_rate": learning_rate, "goal": steps, "round": object()} | objective
        self._changed, self._worker, self._built = threading.Condition(), None, {}
        self._obey(self.settings, None)  # bad settings are refused here, not in the thread

    def start(self) -> None:
        """Begin from the start picture, or begin again."""
        with self._changed:
            self._begin_anew()
            self._go()
        self.on_change()

    restart = start

    def pause(self) -> None:
        """Wait after the step now being made."""
        with self._changed:
            self.state = "paused" if self.state == "running" else self.state
        self.on_change()

    def resume(self) -> None:
        """Go on from the current picture; a finished run makes another `steps` steps."""
        with self._changed:
            if self.state == "finished":
                self.settings = self.settings | {"goal": len(self.history) + self.steps}
            self._go()
        self.on_change()

    def stop(self, timeout: float | None = None) -> None:
        """End the worker and wait for it (at most `timeout` seconds); the picture and the history stay."""
        with self._changed:
            worker, self.state = self._worker, "stopped"
            self._changed.notify_all()
        if worker not in (None, threading.current_thread()):
            worker.join(timeout)
        self.on_change()

    def configure(self, **settings) -> None:
        """Change any of the constructor's settings; in force from the next step on, and the caller does not wait for it.

        Weights change the objective of the run under way. Another network, pooling, size, style or optimiser goes on
        from the current picture, resized if need be. Another content or start begins again. A failed run tries again.
        Raises ValueError or TypeError where a weight is none; other errors end the run and are kept in `error`.
        """
        unknown = sorted(settings.keys() - self.settings.keys() - inspect.signature(StyleObjective).parameters.keys())
        if unknown:
            raise TypeError(f"There is no setting {unknown[0]!r}{_did_you_mean(unknown[0], self.settings)}.")
        self.objective.reweighted(**{name: settings[name] for name in LIVE_WEIGHTS if name in settings})
        if settings.keys() & {"arch", "pooling", "weights", "precision"}:
            settings = {"extractor": None} | settings  # a shared one would hide the change
        with self._changed:
            self.settings = self.settings | settings  # never changed in place: the worker may be reading the old one
            if settings.keys() & {"content", "start"}:
                self._begin_anew()
            if self.state == "failed":
                self._go()

    def wait(self, steps: int | None = None, timeout: float | None = None) -> bool:
        """Wait for so many steps in the history, or for the run to end or pause; False if `timeout` seconds were too few."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self.state != "running" or steps is not None and len(self.history) >= steps, timeout)

    def _begin_anew(self) -> None:
        self.history, self.settings = [], self.settings | {"goal": self.steps, "round": object()}

    def _go(self) -> None:
        self.state, self.error, self.reason = "running", None, ""
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="LiveRun", daemon=True)
            self._worker.start()
            atexit.register(self.stop)  # a thread inside torch must not outlive the interpreter
        self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.state != "paused")
                if self.state != "running":
                    self._worker = None
                    atexit.unregister(self.stop)
                    return
                wanted, picture = self.settings, self.image if self.history else None
            try:
                began = time.perf_counter()
                self._obey(wanted, picture)
                self._publish(next(self._steps), wanted, time.perf_counter() - began)
                self.on_change()
            except Exception as error:  # nobody waits for this thread: the error is kept for those who look at the run
                self._fail(error)

    def _obey(self, wanted: Mapping, picture: Tensor | None) -> None:
        """Bring objective and optimiser to the wanted settings, from `picture` if any; build no more than has changed."""
        changed = {name for name in wanted if name not in LIVE_WEIGHTS and wanted[name] is not self._built.get(name, self)}
        if changed - set(LIVE_RUN):
            options = {name: value for name, value in wanted.items() if name not in LIVE_RUN}
            content, style, size, device = map(options.pop, ("content", "style", "size", "device"))
            self.objective = StyleObjective(*_as_images(content, style, size=size, device=device), **options)
        if changed:
            self.image = _start_image(self.objective, wanted["start"], wanted["seed"])
            if picture is not None:
                self.image = _fitted(picture.to(self.image.device), self.image)
            left = max(1, wanted["goal"] - len(self.history))
            self._steps = optimize_image(self.image, self.objective, optimizer=wanted["optimizer"], steps=left,
                                         learning_rate=wanted["learning_rate"])
        self._built = wanted
        for name in LIVE_WEIGHTS:
            setattr(self.objective, name, wanted.get(name, getattr(self.objective, name)))

    def _publish(self, step: Step, wanted: Mapping, seconds: float) -> None:
        with self._changed:
            if wanted["round"] is not self.settings["round"]:
                return  # begun again while this step was made
            self.image, self.pace = step.image, 0.8 * self.pace + 0.2 * seconds if self.history else seconds
            self.history.append(step.losses)
            if step.reason and self.state in ("running", "paused"):
                self.state, self.reason = "finished", step.reason
            self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._built = {}  # build everything again, should the run be resumed
            self.error = error
            self.state = "failed" if self.state != "stopped" else self.state
            self._changed.notify_all()
        with suppress(Exception):  # it may be on_change itself that failed
            self.on_change()


class Panel:
    """Widgets in a notebook: `box` shows them, `controls` holds them by name; a cell that ends with a panel displays it.

    Running a cell again closes the panels that it had made before (where the notebook tells its cells apart, as
    JupyterLab and VS Code do). `close` ends whatever works behind the panel.
    """

    opened: list[Panel] = []

    def __init__(self, box, controls: Mapping[str, Any]):
        self.box, self.controls, self.message = box, dict(controls), _widgets().HTML()
        box.children = (*box.children, self.message)
        self.cell, self.execution = _this_cell()
        for panel in list(Panel.opened):
            if panel.cell == self.cell is not None and panel.execution != self.execution:
                panel.close()
        Panel.opened.append(self)

    def close(self) -> None:
        if self in Panel.opened:
            Panel.opened.remove(self)
        self.box.close()

    def _repr_mimebundle_(self, **options) -> dict:
        return self.box._repr_mimebundle_(**options) | {"text/plain": "(sliders: run this cell in Jupyter to move them)"}

    def _try(self, action: Callable, *arguments, **options) -> None:
        """Act, and show an error as a sentence in the panel: nobody else hears of it when a widget's callback fails."""
        self.message.value = ""
        try:
            action(*arguments, **options)
        except Exception as error:
            self.complain(error)

    def complain(self, error: Exception) -> None:
        self.message.value = f'<span style="color: #c62828">{html.escape(str(error))}</span>'


def _widgets():
    import ipywidgets  # only here, so that the module works without it
    return ipywidgets


def _this_cell() -> tuple[str | None, str | None]:
    """The identity of the notebook cell that is running and of this run of it, if there is one."""
    kernel = getattr(getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)(), "kernel", None)
    parent = kernel.get_parent("shell") if kernel else {}
    return parent.get("metadata", {}).get("cellId"), parent.get("header", {}).get("msg_id")


def steer(content, style, **settings) -> SteerPanel:
    """A panel that steers an optimisation while it runs; nothing runs before Start is pressed.

    content, style, settings: as in LiveRun. A weight is 0 at the far left end of its slider. JupyterLab delivers moves
    when the running cell has ended: beside another cell the optimisation goes on, but obeys only after it. A picture to
    upload may have some 10 MB, which is Jupyter's limit for a message.
    """
    return SteerPanel(LiveRun(content, style, **settings))


class SteerPanel(Panel):
    """What `steer` returns. `run` is its LiveRun; `obey` and `save` are what its `controls` and `buttons` call."""

    SLIDERS = {"content_weight": "content weight", "style_weight": "style weight", "tv_weight": "total variation"}
    NETWORKS = dict.fromkeys(("vgg19_compact", "vgg16", "vgg19"), (CONTENT_LAYERS, STYLE_LAYERS)) | {
        "alexnet": (("relu3_2",), ("relu1_1", "relu2_1", "relu3_1", "relu3_2", "relu3_3"))}
    MENUS = {"arch": "network", "pooling": "pooling", "size": "size, pixels", "start": "start from", "optimizer": "optimiser",
             "style": "style"}

    def __init__(self, run: LiveRun):
        widgets, objective = _widgets(), run.objective
        self.run, self._drawn, self._drawing = run, 0.0, threading.Lock()
        # only chains: to trace another network patches torch's modules, which a running optimisation would notice
        self.networks = self.NETWORKS | {objective.extractor.arch: (objective.content_layers, objective.style_layers)}
        self.options = _options(self.networks, run.settings | {"arch": objective.extractor.arch})
        self.picture, self.bar = widgets.Image(format="jpeg"), widgets.IntProgress(layout={"width": "auto", "height": "14px"})
        self.curves, self.status, self.layers = widgets.HTML(), widgets.HTML(), widgets.VBox()
        actions = {"Start": run.start, "Pause": run.pause, "Resume": run.resume, "Restart": run.restart, "Save figure": self.save}
        self.buttons = {name: widgets.Button(description=name, layout=EVEN) for name in actions}
        sliders, menus, uploads = self._controls()
        super().__init__(self._arranged(sliders, menus, uploads), sliders | menus | uploads)
        for name, button in self.buttons.items():
            button.on_click(lambda _, act=actions[name]: self._try(act))
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self._try(self._move, name, change.new), "value")
        self._offer_layers(objective.style_layer_weights)
        run.on_change = self.draw
        self.draw()

    def _controls(self) -> tuple[dict[str, Any], ...]:
        """The sliders of weights, the menus, and the uploads, by the name of what they change."""
        widgets = _widgets()
        return ({name: widgets.FloatLogSlider(getattr(self.run.objective, name), min=-2, max=4, step=0.05, description=text,
                                              readout_format=".3g", **WIDE) for name, text in self.SLIDERS.items()},
                {name: widgets.Dropdown(options=list(options), value=current, description=self.MENUS[name], **WIDE)
                 for name, (options, current) in self.options.items()},
                {name: widgets.FileUpload(accept="image/*", description=text, layout=EVEN)
                 for name, text in (("own_content", "own photograph"), ("own_style", "own style"))})

    def _arranged(self, sliders, menus, uploads):
        widgets = _widgets()
        column = {"width": "420px", "margin": "0 20px 0 0"}
        left = widgets.VBox([self.picture, self.bar, self.status, self.curves], layout=column)
        right = widgets.VBox([widgets.HBox([*self.buttons.values()]), *sliders.values(), self.layers, *menus.values(),
                              widgets.HBox([*uploads.values()])], layout=column)
        return widgets.VBox([widgets.HBox([left, right], layout={"flex_flow": "row wrap"})])

    def _offer_layers(self, weights: Mapping[str, float]) -> None:
        self.layers.children = [_widgets().FloatSlider(weight, min=0, max=1, step=0.05, description=layer, **WIDE)
                                for layer, weight in weights.items()]
        for slider in self.layers.children:
            slider.observe(lambda _: self._try(self.obey, style_layer_weights=self.layer_weights()), "value")

    def layer_weights(self) -> dict[str, float]:
        return {slider.description: slider.value for slider in self.layers.children}

    def _move(self, name: str, value) -> None:
        if name in self.options:
            self.obey(**{name: self.options[name][0][value]})
        elif name in self.SLIDERS:
            self.obey(**{name: value if value > 10 ** self.controls[name].min else 0.0})
        elif value:
            self._take(name.removeprefix("own_"), value[0])

    def _take(self, name: str, file: Mapping) -> None:
        """Use an uploaded picture as content or as style."""
        try:
            picture = load_image(bytes(file["content"]))
        except ValueError as error:  # with the name of the file, without the address of its bytes
            raise ValueError(str(error).partition(": cannot identify")[0].replace("these bytes", file["name"])) from error
        self.message.value = f"{html.escape(file['name'])} is in use from the next step on."
        if name == "content":
            self.obey(content=picture)
        else:
            options, menu = self.options["style"][0], self.controls["style"]
            options[file["name"]] = picture
            menu.options = list(options)
            menu.value = file["name"]
            self.obey(style=picture)  # the menu does not stir if a file of this name was there before

    def obey(self, **settings) -> None:
        """`LiveRun.configure`; another network comes with its own layers."""
        if "arch" in settings:
            content_layers, style_layers = self.networks[settings["arch"]]
            if style_layers != tuple(self.layer_weights()):
                self._offer_layers(dict.fromkeys(style_layers, 1 / len(style_layers)))
            settings |= {"content_layers": content_layers, "style_layers": style_layers,
                         "style_layer_weights": self.layer_weights()}
        self.run.configure(**settings)

    def save(self, name: str | None = None, *, folder: Path | str = FIGURES) -> Path:
        """Export content, style and picture as a figure whose caption tells the weights, and the picture alone.

        name: None takes the first of steered_1, steered_2, ... that is free. Returns the figure's path, see export_figure.
        """
        import matplotlib.pyplot as plt
        objective, image, count = self.run.objective, self.run.image, len(self.run.history)
        free = (f"steered_{k}" for k in itertools.count(1) if not Path(folder, f"steered_{k}.png").exists())
        name = name or next(free)
        figure = image_strip([objective.content, objective.style, image], ["content", "style", f"{count} steps"], cell=3)
        weights = ", ".join(f"{term} {weight:.3g}" for term, weight in objective.weights().items())
        path = export_figure(figure, name, f"{count} steps with {objective.extractor.arch}; weights: {weights}.", folder=folder)
        plt.close(figure)  # or the next cell would show it
        save_image(image, path.with_name(f"{name}_picture.png"))
        self.message.value = f"Saved as {html.escape(str(path))}, the picture alone as {name}_picture.png."
        return path

    def draw(self) -> None:
        """Show the run as it is; while it runs at most ten times a second, for a step may take less than a drawing."""
        run, now = self.run, time.perf_counter()
        if run.state == "running" and now - self._drawn < 0.1:
            return
        with self._drawing:
            self._drawn = now
            self.picture.value, self.curves.value = _jpeg(run.image), _loss_curves(run.history)
            done, goal = len(run.history), run.settings["goal"]
            self.bar.max, self.bar.value = goal, done
            self.status.value = f"{run.state}, {min(done, goal)} of {goal} steps, {run.pace:.3f} s per step"
            if run.error:
                self.complain(run.error)
            usable = {"Start": run.state == "ready", "Pause": run.state == "running", "Restart": run.state != "ready",
                      "Resume": run.state not in ("ready", "running")}
            for name, button in self.buttons.items():
                button.disabled = not usable.get(name, True)

    def close(self) -> None:
        """End the worker and take the widgets off the page."""
        self.run.on_change = lambda: None
        self.run.stop()
        super().close()


def _options(networks: Iterable[str], settings: Mapping) -> dict[str, tuple[dict[str, Any], str]]:
    """For each menu of SteerPanel: its options, label -> value, and the label of the setting now in force."""
    offers = {"arch": {name: name for name in networks},
              "pooling": {"as trained": None, "max": "max", "average": "avg"},
              "size": {str(size): size for size in (128, 192, 256, 384, 512, 768)},
              "start": {"content": None, "noise": "noise", "style": "style"},
              "optimizer": {name: name for name in OPTIMIZERS},
              "style": {path.stem: path for path in sorted((DATA / "style").glob("*.jpg"))}}
    menus = {}
    for name, offer in offers.items():
        value = settings.get(name)
        own = str(value) if isinstance(value, int | str) else "as given"
        known = [label for label, option in offer.items() if own in (label, option) or value is option]
        menus[name] = (offer, known[0]) if known else ({own: value} | offer, own)
    return menus


def _jpeg(image: Tensor) -> bytes:
    stream = io.BytesIO()
    to_pil(image).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _loss_curves(history: Sequence[Mapping[str, float]], *, width: int = 400, height: int = 90) -> str:
    """Content and style loss against steps as a small SVG, logarithmic: cheaper to draw and to send than a figure."""
    some = history[::1 + len(history) // width]
    positive = [losses[term] for losses in some for term in LOSS_COLOURS if losses[term] > 0]
    if not positive:
        return ""
    low, high = math.log10(min(positive)), math.log10(max(positive))
    svg, legend = "", ""
    for term, colour in LOSS_COLOURS.items():
        heights = [(high - math.log10(max(losses[term], 10**low))) / (high - low or 1) * height for losses in some]
        points = " ".join(f"{k * width / max(1, len(some) - 1):.0f},{y:.1f}" for k, y in enumerate(heights))
        svg += f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        legend += f'<span style="color: {colour}; margin-right: 16px">{term} loss {history[-1][term]:.3g}</span>'
    return f'{legend}<br><svg viewBox="-2 -2 {width + 4} {height + 4}" width="{width}" height="{height}">{svg}</svg>'


def style_mix(content: Tensor, styles: Iterable[Tensor], *, network: AdaIN | None = None) -> Callable[..., Tensor]:
    """A function mix(alpha, weights, keep_colours, size) -> image (1, 3, H, W) of AdaIN; each style is encoded once, here.

    content, styles: images (1, 3, H, W). mix takes what `AdaIN.stylize` takes, and a long side in pixels for a preview.
    """
    network = network or AdaIN.pretrained()
    statistics = [network.statistics(style) for style in styles]

    def mix(alpha: float = 1.0, weights: Sequence[float] | None = None, keep_colours: bool = False,
            size: int | None = None) -> Tensor:
        picture = resize(content, min(size, max(content.shape[-2:])) if size else None)  # a preview is never larger
        return network.stylize(picture, statistics, alpha=alpha, weights=weights, keep_colours=keep_colours)

    return mix


def adain_panel(content: Tensor, styles: Mapping[str, Tensor], *, preview: int = 160, network: AdaIN | None = None) -> MixPanel:
    """A panel that mixes styles (name -> image) while the hand is on the slider; see style_mix and MixPanel."""
    return MixPanel(style_mix(content, styles.values(), network=network), list(styles), preview)


class MixPanel(Panel):
    """What `adain_panel` returns: a picture of `preview` pixels at once, the whole one when the sliders have rested."""

    def __init__(self, mix: Callable[..., Tensor], names: Sequence[str], preview: int, *, rest: float = 0.3):
        widgets = _widgets()
        self.mix, self.preview, self.rest, self._timer = mix, preview, rest, threading.Timer(0, lambda: None)
        self.picture = widgets.Image(format="jpeg", layout={"width": "420px", "margin": "0 20px 0 0"})
        self.styles = [widgets.FloatSlider(float(k == 0), min=0, max=1, step=0.02, description=name, **WIDE)
                       for k, name in enumerate(names)]
        controls = {"alpha": widgets.FloatSlider(1, min=0, max=1, step=0.02, description="alpha", **WIDE)}
        controls |= dict(zip(names, self.styles))
        controls["keep_colours"] = widgets.Checkbox(description="keep the photograph's colours")
        column = widgets.VBox(list(controls.values()), layout={"width": "420px"})
        super().__init__(widgets.VBox([widgets.HBox([self.picture, column], layout={"flex_flow": "row wrap"})]), controls)
        for control in controls.values():
            control.observe(lambda _: self._try(self.follow), "value")
        self._try(self.finish)

    def numbers(self) -> dict[str, Any]:
        return {"alpha": self.controls["alpha"].value, "weights": [slider.value for slider in self.styles],
                "keep_colours": self.controls["keep_colours"].value}

    def follow(self) -> None:
        self._timer.cancel()
        self.picture.value = _jpeg(self.mix(**self.numbers(), size=self.preview))
        self._timer = threading.Timer(self.rest, self._try, (self.finish,))
        self._timer.daemon = True
        self._timer.start()

    def finish(self) -> None:
        numbers = self.numbers()
        picture = _jpeg(self.mix(**numbers))
        if numbers == self.numbers():  # else the hand has moved on meanwhile
            self.picture.value = picture

    def close(self) -> None:
        self._timer.cancel()
        super().close()


def frame_slider(steps: Iterable[Step | Result | Tensor]) -> Panel:
    """A panel to scrub and play through the pictures of a run; they are encoded once, here, and never computed again."""
    widgets, frames = _widgets(), [_jpeg(_image_of(step)) for step in steps]
    if not frames:
        raise ValueError("There are no frames to show.")
    image = widgets.Image(value=frames[0], format="jpeg", layout={"width": "420px"})
    slider = widgets.IntSlider(max=len(frames) - 1, description="frame")
    play = widgets.Play(max=len(frames) - 1, interval=80)
    widgets.jslink((play, "value"), (slider, "value"))
    slider.observe(lambda change: setattr(image, "value", frames[change.new]), "value")
    return Panel(widgets.VBox([image, widgets.HBox([play, slider])]), {"image": image, "frame": slider, "play": play})


def animate(steps: Iterable[Step | Result | Tensor], path, *, rate: float = 12.0, hold: float = 1.5) -> Path:
    """Write the pictures of a run as .gif, .webp or .mp4 and return the path; whole or not at all, as `save_image` does.

    rate: pictures per second. hold: seconds for which the last one stays. Pictures of different sizes are resized to
    that of the last. MP4 needs the program ffmpeg.
    """
    path, pictures = Path(path), [to_pil(_image_of(step)) for step in steps]
    if not pictures or path.suffix not in (".gif", ".webp", ".mp4"):
        raise ValueError(f"{path.name} needs at least one picture and the suffix .gif, .webp or .mp4.")
    pictures = [picture.resize(pictures[-1].size) for picture in pictures]
    with _replacing(path) as temporary:
        if path.suffix == ".mp4":
            _write_mp4(pictures + pictures[-1:] * round(hold * rate), temporary, rate)
        else:
            pace = [round(1000 / rate)] * (len(pictures) - 1) + [round(1000 * (hold or 1 / rate))]
            pictures[0].save(temporary, save_all=True, append_images=pictures[1:], duration=pace, loop=0)
    return path


def _write_mp4(pictures: Sequence[Image.Image], path: Path, rate: float) -> None:
    program = shutil.which("ffmpeg")
    if not program:
        raise ValueError("To write .mp4 needs ffmpeg, which is not installed here; .gif and .webp need nothing.")
    width, height = pictures[0].size
    command = [program, "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate), "-i", "-",
               "-pix_fmt", "yuv420p", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", str(path)]  # the format wants even sides
    done = subprocess.run(command, input=b"".join(picture.tobytes() for picture in pictures), capture_output=True)
    if done.returncode:
        raise OSError(f"ffmpeg failed: {done.stderr.decode(errors='replace').strip().splitlines()[-1]}")
