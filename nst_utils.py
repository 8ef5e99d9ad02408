"""Neural style transfer in one module: the optimisation of Gatys et al. (2016) and the network of Huang & Belongie (2017).

An image is a float32 RGB tensor in [0, 1] of shape (N, 3, H, W); normalisation with the ImageNet mean happens inside
`FeatureExtractor` and nowhere else. A feature map is (N, C, H, W) with P = H * W positions. Layers have names: conv4_2,
bn4_2, relu4_2, pool4 in the VGG family, torchvision's node names elsewhere. Sizes are in pixels, times in seconds, and
random numbers come from a generator with an explicit seed.

The sections follow the data: images, features, statistics and losses, objective and optimisation, the feed-forward network.
Figures, sweeps, training and sliders have rooms of their own beside the notebooks.

Gatys, Ecker, Bethge: Image Style Transfer Using Convolutional Neural Networks, CVPR 2016 ("Gatys" below).
Huang, Belongie: Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization, ICCV 2017.
"""
from __future__ import annotations

import bisect
import copy
import csv
import difflib
import functools
import inspect
import math
import os
import runpy
import sys
import threading
import time
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

try:
    from torchvision import models
except RuntimeError as error:
    # The CUDA build of torchvision misses two operators beside a CPU-only torch; nobody calls them: their schemas are enough
    if "torchvision::nms" not in str(error):
        raise
    _schemas = torch.library.Library("torchvision", "FRAGMENT")  # they live as long as this object
    for operator in ("nms", "qnms"):
        _schemas.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision import models
from torchvision.models._utils import IntermediateLayerGetter  # noqa: E402
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names  # noqa: E402

# what is shipped: `data` in a clone, `nst_utils_data` beside an installed module
DATA = next(filter(Path.is_dir, map(Path(__file__).resolve().with_name, ("nst_utils_data", "data"))))


# --- 1. Images --------------------------------------------------------------------------------------------------------

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")  # they come with scikit-image


@functools.cache
def beside(file: str) -> dict:
    """What a file of `data` defines that is no part of the methods: "pictures", "masks", "memory", and "fetch" from elsewhere."""
    return runpy.run_path(str(DATA / f"{file}.py"))


def nearest(name: str, names: Iterable[str]) -> str:
    """What an error about an unknown name says of the known ones that read like it: " (nearest: ...)", or nothing."""
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.4)
    return f" (nearest: {', '.join(near)})" if near else ""


def one_of(kind: str, value, options: Collection):
    """The value if it is one of the options, else a ValueError that lists them (of many, the nearest)."""
    if value not in options:
        near, names = nearest(str(value), map(str, options)), ", ".join(map(str, options))
        raise ValueError(f"{kind} is one of {names}, not {value!r}{near}." if len(options) < 9 else
                         f"There is no {kind} {value!r}{near}.")
    return value


def _names(several: str | Iterable[str]) -> tuple[str, ...]:
    """Each name once; a lone name is one name, not its letters."""
    return (several,) if isinstance(several, str) else tuple(dict.fromkeys(several))


def resize(image: Tensor, size: int | tuple[int, int] | None, side: str = "long") -> Tensor:
    """Resize (N, 3, H, W) to `size` pixels on its long or short side, or to a height and a width; antialiased bicubic."""
    if size is None:
        return image
    height, width = image.shape[-2:]
    if not isinstance(size, Sequence):
        if size < 1:
            raise ValueError(f"size is a number of pixels, at least 1, not {size}.")
        factor = size / (max if one_of("side", side, ("long", "short")) == "long" else min)(height, width)
        size = max(1, round(height * factor)), max(1, round(width * factor))
    if tuple(size) == (height, width):
        return image
    return F.interpolate(image, tuple(size), mode="bicubic", antialias=True).clamp(0, 1)


def load_image(source, size: int | None = None, side: str = "long") -> Tensor:
    """Read a picture as a (1, 3, H, W) tensor in [0, 1], in sRGB.

    source: a path, an open binary file, bytes, a PIL picture, or numbers: an array or a tensor, grey or RGB, of 8 or 16 bits or
    floats, channels first or last. Rotation and colour profile of a file are applied, transparency is laid on white, of an
    animation the first frame is taken. size, side: if given, the long (or short) side in pixels after resizing; the aspect ratio
    is kept. Raises FileNotFoundError, or ValueError for what is no picture.
    """
    read = "picture_of" if isinstance(source, Tensor | np.ndarray) else "decoded"
    return resize(beside("pictures")[read](source), size, side)


def load_mask(source) -> Tensor:
    """Where something applies, (1, 1, H, W) from 0 to 1: of a picture its opacity if any of it is transparent, else how light it
    is; of an array or tensor, boolean or from 0 to 1, its values. ValueError if it is none of these, or 0 everywhere."""
    return beside("masks")["mask_of"](source)


def load_images(*sources, size: int | None, device=None) -> list[Tensor | None]:
    """Pictures as `load_image` reads them (None stays None), on `device`; without one, on an accelerator if there is any."""
    device = device or torch.accelerator.current_accelerator(check_available=True) or "cpu"
    return [None if source is None else load_image(source, size).to(device) for source in sources]


def to_pil(image: Tensor) -> Image.Image:
    """The first picture of a (N, 3, H, W) or (3, H, W) tensor as an 8-bit PIL picture; values are clamped to [0, 1]."""
    image = (image[0] if image.ndim == 4 else image).detach().float().cpu()
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"An image has shape (N, 3, H, W) or (3, H, W), not {tuple(image.shape)}.")
    if not torch.isfinite(image).all():
        raise ValueError("The image holds NaN or infinite values, so it can't be shown or saved.")
    return Image.fromarray((image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path with the same suffix; renamed to `path` at the end, removed if anything fails."""
    temporary = path.with_name(f".{path.stem[:99]}.{os.getpid()}-{threading.get_ident()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"{path} can't be written ({error.strerror or error}); nothing was changed there.") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def save_image(image: Tensor, path, *, bits: int = 8) -> Path:
    """Write an image to `path`, whole or not at all, and return the path; format by suffix, of 16 bits only TIFF and PNG."""
    picture, path = to_pil(image), Path(os.path.expanduser(path))
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"{path.name} needs the suffix of an image format, such as .png or .jpg.")
    with replacing(path) as temporary:
        beside("pictures")["write"](picture if one_of("bits", bits, (8, 16)) == 8 else image, temporary)
    return path


def sample(name: str | None = None, size: int | None = None) -> Tensor | dict[str, str]:
    """A built-in picture as (1, 3, H, W), or, without a name, a dict of all names with where they come from.

    Photographs (scikit-image) and styles (this project) work offline; famous pictures are downloaded once and kept.
    """
    styles = {path.stem: path for path in sorted((DATA / "style").glob("*.jpg"))}
    table = (DATA / "style" / "classics.csv").read_text(encoding="utf-8").splitlines()
    classics = {row["name"]: row for row in csv.DictReader(table)}
    if name is None:
        return (dict.fromkeys(PHOTOGRAPHS, "photograph, scikit-image") | dict.fromkeys(styles, "style, made by this project")
                | {classic: f"download, {row['credit']}" for classic, row in classics.items()})
    if name in PHOTOGRAPHS:
        import skimage
        return load_image(Image.fromarray(getattr(skimage.data, name)()), size)
    if name in classics:
        return load_image(beside("fetch")["picture"](name, classics[name]["url"], load_image), size)
    return load_image(styles[one_of("sample", name, sample())], size)


def initial_image(content: Tensor | None, start=None, *, style: Tensor | None = None, seed: int = 0) -> Tensor:
    """Where an optimisation starts, in the shape of the content or, without one, of the style.

    start: "content", "style" or an image tensor, resized if need be, or "noise": uniform and white, drawn on the CPU from
    `seed`, so that it is the same on every device. None is "content" or, without one, "noise".
    """
    canvas = style if content is None else content
    start = start if start is not None else "noise" if content is None else "content"
    if isinstance(start, Tensor):
        return resize(load_image(start).to(canvas), canvas.shape[-2:])
    pictures = {name: picture for name, picture in (("content", content), ("style", style)) if picture is not None}
    if one_of("start", start, ("noise", *pictures)) == "noise":
        generator = torch.Generator("cpu").manual_seed(seed)
        return torch.rand(canvas.shape, generator=generator, device="cpu", dtype=torch.float32).to(canvas)
    return resize(pictures[start], canvas.shape[-2:]).clone()


# --- 2. Features ------------------------------------------------------------------------------------------------------

STYLE_LAYERS, CONTENT_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"), ("relu4_2",)
COMPACT = {  # channels of a convolution, or (channels of a linear bottleneck before it, its own); "M" is a pool
    "vgg16_compact": (64, (16, 64), "M", (16, 128), (24, 128), "M", (32, 256), (48, 256), (64, 256), "M",
                      (80, 512), (128, 512), (128, 512), "M", (128, 512)),
    "vgg19_compact": (16, 16, "M", 48, 32, "M", 96, 64, 64, 64, "M", 192, 128, 128, 128, "M", 256)}
CHAIN_KINDS = {nn.Conv2d: "conv", nn.Sequential: "conv", nn.BatchNorm2d: "bn", nn.ReLU: "relu", nn.MaxPool2d: "pool"}
ONE_AT_A_TIME = threading.Lock()  # builds a network
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def load_state(path: Path) -> dict:
    """A state dict from a file: tensors and plain containers only, never code. ValueError says what is wrong with a file."""
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no weights file at {path}.") from None
    except Exception as error:  # a damaged file makes torch raise anything
        reason = (str(error) or "it is empty").splitlines()[0]
        raise ValueError(f"{path} can't be read as weights (truncated, or no plain state dict): {reason}") from error


def _is_chain(network: nn.Module) -> bool:
    chain = getattr(network, "features", None)
    return isinstance(chain, nn.Sequential) and all(type(module) in CHAIN_KINDS for module in chain)


def load_weights(network: nn.Module, arch: str, path: Path) -> None:
    """Load the state dict at `path` into a network (of a VGG the convolutions will do); ValueError says what it is not."""
    spare = {name: value for name, value in network.state_dict().items() if _is_chain(network) and name.startswith("classifier.")}
    try:
        network.load_state_dict(spare | load_state(path))  # a classifier is cut off anyway
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold the weights of {arch}: {' '.join(str(error).split())[:200]}") from error


def _compact_vgg(arch: str) -> nn.Sequential:
    """A VGG up to relu5_1 with few weights, the same layer names and no classifier. vgg16_compact has all channels of VGG-16, but
    from layer to layer only some linear combinations of them; it pads by reflection, so that no frame shows."""
    modules, channels, padding_mode = [], 3, "reflect" if arch == "vgg16_compact" else "zeros"
    for entry in COMPACT[arch]:
        if entry == "M":
            modules.append(nn.MaxPool2d(2))
            continue
        narrow, width = entry if isinstance(entry, tuple) else (channels, entry)
        bottleneck = [nn.Conv2d(channels, narrow, 1, bias=False)] if narrow != channels else []
        convolution = nn.Conv2d(narrow, width, 3, padding=1, padding_mode=padding_mode)
        convolution = nn.Sequential(*bottleneck, convolution) if bottleneck else convolution
        modules, channels = [*modules, convolution, nn.ReLU()], width
    network = nn.Sequential(OrderedDict(features=nn.Sequential(*modules)))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):  # torchvision's initialisation of VGG
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def load_network(arch: str, *, weights="DEFAULT", seed: int = 0) -> nn.Module:
    """A classification network with the weights asked for; see FeatureExtractor for the values of `weights`."""
    one_of("arch", arch, [*COMPACT, *models.list_models(module=models)])
    if weights == "DEFAULT" and arch not in COMPACT:
        return beside("fetch")["network"](arch, load_network, replacing)
    weights = DATA / "weights" / f"{arch}.pt" if weights == "DEFAULT" else weights
    with ONE_AT_A_TIME, torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"), torch.device("cpu"):
        torch.manual_seed(seed)  # torchvision draws from the global generator, which threads share
        network = _compact_vgg(arch) if arch in COMPACT else models.get_model(arch, weights=None)
    if weights is not None:
        load_weights(network, arch, Path(weights))
        if hasattr(network, "transform_input"):
            network.transform_input = True  # GoogLeNet and Inception: torchvision's weights expect this switch
    return network.eval()


def layer_nodes(network: nn.Module) -> dict[str, str]:
    """Layer name -> node of torchvision's graph, in order of evaluation. In a plain chain of convolutions, normalisations,
    ReLUs and pools (VGG, AlexNet) layers are counted per block as in the papers; elsewhere the names are the nodes."""
    if not _is_chain(network):
        with warnings.catch_warnings(action="ignore"):
            return {node: node for node in get_graph_node_names(network)[1][1:]}
    names, block, depth = {}, 1, 0
    for index, module in enumerate(network.features):
        kind = CHAIN_KINDS[type(module)]
        depth += kind == "conv"
        names[f"pool{block}" if kind == "pool" else f"{kind}{block}_{depth}"] = f"features.{index}"
        if kind == "pool":
            block, depth = block + 1, 0
    return names


def _swap_pooling(body: nn.Module, pooling: str | None) -> list[str]:
    """Swap every pool of the other kind in place; return the names of the swapped."""
    old = {None: (), "max": nn.AvgPool2d, "avg": nn.MaxPool2d}[one_of("pooling", pooling, (None, "max", "avg"))]
    pools = {name: module for name, module in body.named_modules() if isinstance(module, old)}
    # a padded position counts as absent in an average: max pooling ignores it as well
    new = {"max": nn.MaxPool2d, "avg": functools.partial(nn.AvgPool2d, count_include_pad=False)}
    for name, pool in pools.items():
        geometry = pool.kernel_size, pool.stride, pool.padding
        body.set_submodule(name, new[pooling](*geometry, ceil_mode=pool.ceil_mode))
    return list(pools)


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
        able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        native = (torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda"
                  else able.get("amx_bf16") or able.get("avx512_bf16"))
        precision = os.environ.get("NST_PRECISION") or ("bfloat16" if native else "float32")
    return PRECISIONS[one_of("precision", precision, ("auto", *PRECISIONS))]


class FeatureExtractor(nn.Module):
    """A frozen network that turns an image into a dict layer name -> feature map.

    arch: "vgg16_compact" (shipped, no download), any classification network of torchvision, or one that you built (nn.Module),
        which is copied with the weights that it has.
    layers: names of `layer_nodes` or of modules with such nodes inside, in any order. The network is cut off after the last.
    weights: "DEFAULT" (shipped or torchvision's), a path to a state dict, or None for random ones drawn from `seed`.
    pooling: None keeps the network's own; "max" or "avg" swaps the other kind, see `swapped_pools`.
    precision: "float32", "bfloat16", "float64" or "auto": what the environment variable NST_PRECISION says, else bfloat16
        where the hardware multiplies it natively, else float32.
    Calling it with (N, 3, H, W) in [0, 1] gives maps (N, C, H', W') in that precision; `min_size` is the smallest side it takes.
    """

    def __init__(self, arch: str | nn.Module = "vgg16_compact", layers: Sequence[str] = STYLE_LAYERS, *, weights="DEFAULT",
                 pooling: str | None = None, precision: str = "auto", device=None, seed: int = 0):
        super().__init__()
        self._rebuild = functools.partial(FeatureExtractor, arch, layers, weights=weights, pooling=pooling,
                                          precision=precision, device=device, seed=seed)
        network = load_network(arch, weights=weights, seed=seed) if isinstance(arch, str) else copy.deepcopy(arch).eval()
        nodes = layer_nodes(network)
        self.arch, self.layers = arch if isinstance(arch, str) else type(arch).__name__, _names(layers)
        known = {*nodes, *(node[:k] for node in nodes for k, sign in enumerate(node) if sign == ".")}
        if not [one_of(f"layer of {self.arch}", layer, known) for layer in self.layers]:
            raise ValueError("At least one layer is needed.")
        wanted = {nodes.get(name, name): name for name in self.layers}
        if _is_chain(network):  # unlike a traced graph it may be built beside running threads
            wanted = {node.removeprefix("features."): name for node, name in wanted.items()}
            self.body = IntermediateLayerGetter(network.features, wanted)
        else:
            with warnings.catch_warnings(action="ignore"):  # graphs that differ in training are of no interest here
                self.body = create_feature_extractor(network, wanted)
        self.swapped_pools = _swap_pooling(self.body, pooling)
        _out_of_place(self.body)
        for name, numbers in (("mean", [0.485, 0.456, 0.406]), ("std", [0.229, 0.224, 0.225])):
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.float32, device="cpu").view(3, 1, 1))
        self.dtype = _dtype(precision, torch.device(device or "cpu"))
        self.requires_grad_(False).eval().to(device or "cpu", memory_format=torch.channels_last)
        for module in self.modules():  # batch normalisation keeps float32 statistics
            if isinstance(module, nn.Conv2d | nn.Linear) or self.dtype == torch.float64:
                module.to(self.dtype)
        self.min_size = 1 + bisect.bisect_left(range(1, 512), True, key=self._accepts)
        for (layer, shape), other in zip(self.shapes(512, 512).items(), self.shapes(640, 512).values()):
            if len(shape) != 3 or shape[0] != other[0]:  # some networks put the channels last
                raise ValueError(f"The layer {layer!r} of {self.arch} gives no maps (N, C, H, W).")

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise ValueError(f"An image has shape (N, 3, H, W) and values in [0, 1], not {tuple(image.shape)} of {image.dtype}.")
        height, width = image.shape[-2:]
        if min(height, width) < self.min_size:
            raise ValueError(f"It has {width} x {height} pixels, but {self.arch} needs at least {self.min_size} on each side.")
        with torch.autocast(image.device.type, enabled=False):  # the network has a precision of its own
            # channels_last is the layout in which convolutions are fastest; the optimised image itself stays contiguous
            return self.body(((image - self.mean) / self.std).to(self.dtype, memory_format=torch.channels_last))

    def __reduce_ex__(self, protocol):  # a traced graph can't be pickled: build it again, and give it its weights
        traced = isinstance(self.body, torch.fx.GraphModule)
        return (self._rebuild, (), {"traced": self.state_dict()}) if traced else super().__reduce_ex__(protocol)

    def __setstate__(self, state: dict) -> None:
        self.load_state_dict(state["traced"], assign=True) if "traced" in state else super().__setstate__(state)

    def shapes(self, height: int, width: int) -> dict[str, tuple[int, int, int]]:
        """Layer name -> (C, H', W') for an image of height x width pixels, by a run without numbers."""
        empty = {id(value): value.to("meta") for value in (*self.body.parameters(), *self.body.buffers())}
        image = torch.empty(1, 3, height, width, dtype=self.dtype, device="meta", requires_grad=True)
        maps = copy.deepcopy(self.body, empty).eval()(image.to(memory_format=torch.channels_last))  # threads may share the body
        return {layer: tuple(getattr(feature, "shape", ())[1:]) for layer, feature in maps.items()}

    def _accepts(self, side: int) -> bool:
        with suppress(RuntimeError):  # a pool or a convolution would have an empty output
            return bool(self.shapes(side, side))
        return False


# --- 3. Statistics and losses -----------------------------------------------------------------------------------------

class _Gram(torch.autograd.Function):
    """F^T F / P of flat maps (N, P, C), in at least float32 whatever the precision of the maps.

    Written out since the matrix is symmetric, so that one product gives the gradient where autograd would take two, and
    since that product may be rounded to the precision of the maps, as the network's gradient is in any case.
    """

    @staticmethod
    def forward(ctx, flat: Tensor) -> Tensor:
        ctx.save_for_backward(flat)
        exact = full(flat)
        return exact.transpose(1, 2) @ exact / flat.shape[1]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        flat, = ctx.saved_tensors
        return flat @ ((gradient + gradient.transpose(1, 2)) / flat.shape[1]).to(flat.dtype)


def full(maps: Tensor) -> Tensor:
    """Maps in float32 (or float64): so statistics and losses are computed, whatever the network computes in."""
    return maps if maps.dtype == torch.float64 else maps.float()


def gram(features: Tensor) -> Tensor:
    """Gram matrix (N, C, C) of maps (N, C, H, W): F F^T of Gatys eq. 3, here divided by P so that size doesn't matter."""
    return _Gram.apply(features.permute(0, 2, 3, 1).flatten(1, 2))  # how a channels_last map lies in memory: no copy


def mean_std(features: Tensor) -> Tensor:
    """Mean and standard deviation over positions, (N, 2, C), of feature maps (N, C, H, W); Huang & Belongie eq. 5-6."""
    flat = full(features).permute(0, 2, 3, 1).flatten(1, 2)  # positions first, as a channels_last map lies in memory
    variance, mean = torch.var_mean(flat, 1, correction=0)
    return torch.stack([mean, (variance + 1e-5).sqrt()], 1)  # 1e-5: finite gradient where constant


# maps (N, C, H, W) in the network's precision -> (N, ...), compared by `style_loss`, or by the function's attribute `distance`
STYLE_STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {"gram": gram, "mean_std": mean_std}


def relative_error(value: Tensor, target: Tensor) -> Tensor:
    """Squared error divided by the squared norm of the target, per picture (N,): 0 is equal, 1 as far as zeros."""
    difference = (value - target).flatten(1).square().sum(1)
    return difference / target.flatten(1).square().sum(1).clamp_min(1e-12)


def content_loss(features: Tensor, target: Tensor, *, scale: str = "relative") -> Tensor:
    """Of maps (N, C, H, W), per picture (N,): sum (F - F_c)^2 / sum F_c^2; "gatys": 1/2 sum (F - F_c)^2, Gatys eq. 1."""
    return _distance(features, target, scale, 2)


def style_loss(statistic: Tensor, target: Tensor, *, scale: str = "relative") -> Tensor:
    """Of one layer's statistics, per picture (N,): sum (G - A)^2 / sum A^2; "gatys", for Gram matrices (N, C, C): Gatys eq. 4,
    1/(4 C^2 P^2) sum (P G - P A)^2, where each picture has a P of its own (`gram` has divided by it)."""
    if scale == "gatys" and (statistic.ndim != 3 or statistic.shape[1] != statistic.shape[2]):
        raise ValueError(f'scale="gatys" is defined for Gram matrices (N, C, C), not {tuple(statistic.shape)}.')
    return _distance(statistic, target, scale, 4 * statistic.shape[1] ** 2)


def _distance(value: Tensor, target: Tensor, scale: str, divisor: float) -> Tensor:
    if one_of("scale", scale, ("relative", "gatys")) == "relative":
        return relative_error(value, target)
    return (value - target).flatten(1).square().sum(1) / divisor


def total_variation(image: Tensor, *, power: int = 2) -> Tensor:
    """Mean |difference of neighbours|^power, vertical plus horizontal, per picture (N,): 2 to optimise, 1 to measure noise."""
    steps = (image.diff(dim=side).abs().pow(power).flatten(1) for side in (-2, -1))
    return sum(values.sum(1) / max(1, values.shape[1]) for values in steps)  # one pixel wide: no steps, 0


# --- 4. Objective and optimisation ------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, tuple[Callable, float]] = {  # name -> (factory of pixels and learning rate, its default)
    "lbfgs": (lambda pixels, rate: LBFGS(pixels, rate), 1.0),
    "adam": (lambda pixels, rate: torch.optim.Adam(pixels, lr=rate), 0.02),
    # the gradient of a relative loss at one pixel falls with the number of pixels, so the rate grows with it
    "sgd": (lambda pixels, rate: torch.optim.SGD(pixels, lr=rate * pixels[0][0].numel(), momentum=0.9), 2e-5)}
BAR = "{percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} steps, {elapsed}<{remaining}"


def _several(style) -> list:
    return [] if style is None else list(style) if isinstance(style, list | tuple) else [style]


def _parts(shares: Sequence[float], count: int) -> list[float]:
    """How much of each of `count` styles, adding up to 1."""
    if len(shares) != count or not count:
        raise ValueError(f"There are {count} styles, but {len(shares)} weights.")
    if min(shares) < 0 or not 0 < sum(shares) < math.inf:
        raise ValueError(f"The weights of styles are finite, at least 0 and not all 0, not {list(shares)}.")
    return [share / sum(shares) for share in shares]


def _numbers(weight) -> Tensor:
    """A weight, one number or one per picture, as float64 numbers (1,) or (N,) on the CPU: Apple's accelerators know none."""
    return torch.as_tensor(weight.cpu() if isinstance(weight, Tensor) else weight, dtype=torch.float64, device="cpu").reshape(-1)


class StyleObjective:
    """What pictures are asked to be: content_weight * content + style_weight * style + tv_weight * total variation, in [0, 1].

    content, style: images (N, 3, H, W), one for each picture to be judged, or one (1, 3, H, W) for all of them, not necessarily
    of one size; None for the content is texture synthesis, for the style content reconstruction. A list of styles is blended,
    or, with `masks`, one for each, what `load_mask` reads, held apart: a style is asked of those positions of a layer that lie in
    its mask and see little else (Gatys et al. 2017, section 4). style_shares: the weight of each; None: alike, or by area.
    content_layers, style_layers: None takes the defaults of the VGG family (relu4_2; relu1_1 ... relu5_1), and each of the L
    style layers weighs 1/L without `style_layer_weights` (layer -> w_l of Gatys eq. 5).
    statistic: a name in STYLE_STATISTICS or a function of maps, see there. scale: see content_loss, style_loss.
    range_weight: weight of the mean squared distance of the values from [0, 1], in units of the loss of an image without any
    features. A departure from Gatys: without it (0) L-BFGS leaves the values free, and clamping them undoes much of its work.
    network: arch, weights, pooling and precision of a FeatureExtractor; extractor: one to share instead of these.
    The four weights and those of the layers, each a number or one per picture, are plain attributes: changing them between
    two steps of `optimize_image` steers a running optimisation.
    """

    def __init__(self, content: Tensor | None = None, style: Tensor | None = None, *,
                 content_layers: Sequence[str] | None = None, style_layers: Sequence[str] | None = None,
                 content_weight=1.0, style_weight=10.0, tv_weight=0.0, range_weight=10.0,
                 style_layer_weights: Mapping[str, float] | None = None, style_shares: Sequence[float] | None = None,
                 masks: Sequence | None = None, statistic="gram", scale: str = "relative",
                 extractor: FeatureExtractor | None = None, **network):
        self.content, self.style, self.scale, styles = content, style, scale, _several(style)
        if content is None and not styles:
            raise ValueError("An objective needs a content image, a style image or both.")
        self.content_layers = _names(content_layers or CONTENT_LAYERS) if content is not None else ()
        self.style_layers = _names(style_layers or STYLE_LAYERS) if styles else ()
        self.content_weight, self.style_weight = content_weight, style_weight
        self.tv_weight, self.range_weight = tv_weight, range_weight
        self.style_layer_weights = dict(style_layer_weights or {layer: 1 / len(self.style_layers) for layer in self.style_layers})
        for layer in self.style_layer_weights:
            one_of("a key of style_layer_weights", layer, self.style_layers)
        self.statistic = statistic if callable(statistic) else STYLE_STATISTICS[one_of("statistic", statistic, STYLE_STATISTICS)]
        canvas, layers = styles[0] if content is None else content, (*self.content_layers, *self.style_layers)
        inspect.signature(FeatureExtractor).bind_partial(**network)  # also beside an extractor: no typo goes unnoticed
        self.extractor = extractor or FeatureExtractor(layers=layers, device=canvas.device, **network)
        beside("memory")["check_memory"](self.extractor, canvas, max(len(image) for image in (canvas, *styles)))
        for layer in layers:
            one_of("layer of the extractor", layer, self.extractor.layers)
        with torch.no_grad(), torch.autocast(canvas.device.type, enabled=False):
            content_maps, *style_maps = ({} if image is None else self.extractor(image) for image in (content, *styles))
            self.content_targets = {layer: full(content_maps[layer]) for layer in self.content_layers}
            self.style_targets = {layer: torch.cat([self._describe(maps[layer]) for maps in style_maps], 1)
                                  for layer in self.style_layers}  # (N, S, ...) of S styles
        areas, self.regions = [1.0] * len(styles), dict.fromkeys(layers, ())  # layer -> the positions in each mask
        if masks is not None:
            shapes = self.extractor.shapes(*canvas.shape[-2:])
            areas, self.regions = beside("masks")["regions"](masks, len(styles), canvas, shapes)
        self.shares = _parts(areas if style_shares is None else style_shares, len(styles)) if styles else []
        blank = self._losses(*({layer: torch.zeros_like(target) for layer, target in targets.items()}
                               for targets in (self.content_targets, self.style_targets)))
        self.blank = {name: _numbers(loss) for name, loss in blank.items()}  # what an image without features costs
        self.weights()  # refuse bad ones

    def weights(self) -> dict[str, Tensor]:
        """The weights now in force, by term, in float64, (1,) or (N,); ValueError unless finite, at least 0, not all 0."""
        layers = {f"style {layer}": _numbers(weight) for layer, weight in self.style_layer_weights.items()}
        content, style, tv, limit = map(_numbers, (self.content_weight, self.style_weight, self.tv_weight, self.range_weight))
        blank = (content * self.blank.get("content", 0.0)
                 + style * sum(weight * self.blank.get(layer, 0.0) for layer, weight in layers.items()))
        weights = {"content": content, "style": style, "tv": tv} | layers | {"range": limit * blank}
        for name, numbers in weights.items():
            if not (numbers.isfinite() & (numbers >= 0)).all():
                raise ValueError(f"The weight of {name} is a finite number of at least 0, not {numbers.squeeze().tolist()}.")
        if not (blank + tv > 0).all():
            raise ValueError("All weights are 0, so that nothing is asked of the picture.")
        return weights

    def __call__(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The total to minimise and its terms, per picture (N,), for images (N, 3, H, W): "total", and without their weights
        "content", "style", "tv" (0 if it weighs nothing), "range" (if it weighs), and "style relu1_1" etc., the single layers."""
        maps, weights, zero = self.extractor(image), self.weights(), image.new_zeros(len(image))
        losses = self._losses({layer: full(maps[layer]) for layer in self.content_targets},
                              {layer: self._describe(maps[layer], self.regions[layer], target)
                               for layer, target in self.style_targets.items()})
        terms = {"content": losses.pop("content", zero), "tv": total_variation(image) if weights["tv"].any() else zero}
        if weights["range"].any():
            terms["range"] = (image - image.clamp(0, 1)).square().flatten(1).mean(1)
        # all weights at once: a GPU is waited for at each copy
        weights = dict(zip(weights, torch.stack(torch.broadcast_tensors(*weights.values())).to(image)))
        terms["style"] = sum((weights[name] * loss for name, loss in losses.items() if name in weights), zero)
        total = sum(weights[term] * terms[term] for term in ("content", "tv", "style", "range") if term in terms)
        return total, {"total": total} | terms | losses

    def _describe(self, maps: Tensor, regions: Sequence[Tensor] = (), like: Tensor | None = None) -> Tensor:
        """The statistics of each region, (N, S, ...), or without any those of the whole maps, (N, 1, ...)."""
        parts = [maps.permute(0, 2, 3, 1).flatten(1, 2)[:, inside].transpose(1, 2)[..., None] for inside in regions] or [maps]
        values = [self.statistic(part) for part in parts]
        for shape in (tuple(getattr(value, "shape", ())) for value in values):
            if shape[:1] != maps.shape[:1] or like is not None and shape[1:] != like.shape[2:]:
                raise ValueError(f"A statistic is ({len(maps)}, ...) for {len(maps)} pictures of any size, not {shape}.")
        return torch.stack(values, 1)

    def _losses(self, maps: Mapping[str, Tensor], statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The content loss, the mean over its layers, and that of each style layer, per picture (N,)."""
        content = [content_loss(maps[layer], target, scale=self.scale) for layer, target in self.content_targets.items()]
        style = {f"style {layer}": self._style_loss(statistics[layer], target) for layer, target in self.style_targets.items()}
        return {"content": sum(content) / len(content)} | style if content else style

    def _style_loss(self, value: Tensor, target: Tensor) -> Tensor:
        """Of statistics (N, S, ...) against those of S styles, or of one for all."""
        value, target = torch.broadcast_tensors(value, target)
        distance = getattr(self.statistic, "distance", None) or functools.partial(style_loss, scale=self.scale)
        each = distance(value.flatten(0, 1), target.flatten(0, 1)).view(len(value), -1)
        return sum(share * loss for share, loss in zip(self.shares, each.unbind(1)))


@dataclass(frozen=True, eq=False)
class Step:
    """One step of an optimisation: an image with its own losses (those before it is clamped). The last one is the result."""

    index: int  # updates made before this image; 0 is the start
    evaluations: int  # of objective and gradient so far
    losses: dict[str, float]  # "total", "content", "style", "tv", "range", and one entry per style layer
    image: Tensor  # (1, 3, H, W), clamped to [0, 1]
    seconds: float  # since the start
    reason: str = ""  # why the run stopped, on the last step only
    picture: int = 0  # which one of a batch
    history: list[dict[str, float]] = field(default_factory=list)  # losses since the weights last changed; it grows with the run

    @property
    def summary(self) -> str:
        return ", ".join(f"{term} {self.losses[term]:.4g}" for term in ("content", "style") if term in self.losses)

    def __repr__(self) -> str:
        height, width = self.image.shape[-2:]
        return f"{width} x {height} pixels in {self.seconds:.1f} s: {self.summary} ({self.reason or f'step {self.index}'})"


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)


class LBFGS:
    """L-BFGS on a batch of pictures (N, ...) that have nothing to do with each other, with one evaluation a step.

    The direction is that of the two-loop recursion, Nocedal & Wright, algorithm 7.4. torch's own takes one picture, and stalls or
    leaps where the objective is badly scaled: its first step and smallest curvature are absolute. Here a step is FIRST_STEP per
    value (root mean square) until a curvature is known, and at most LONGEST_STEP, in place of a line search. A first step that
    raised the total is taken back. A curvature is believed unless gradient change and step are all but orthogonal.

    metric: "pixels" is the recursion as it stands, that of Gatys et al.: before any curvature is known all pixels are alike.
    "frequencies" departs from it for images (N, C, H, W): the initial matrix divides each spatial frequency f, in cycles per
    pixel, by f + SOFT. Coarse structure, which pixels move last, moves first; a given total takes about two thirds of the steps.
    """

    FIRST_STEP, LONGEST_STEP, ORTHOGONAL, SOFT = 1 / 64, 1 / 32, 0.02, 0.02

    def __init__(self, pixels: list[Tensor], lr: float = 1.0, *, history: int | None = None, metric: str = "frequencies"):
        self.pixels, = pixels
        self.response = None  # of the initial matrix to each frequency
        if one_of("metric", metric, ("frequencies", "pixels")) == "frequencies":
            (height, width), like = self.pixels.shape[-2:], {"dtype": self.pixels.dtype, "device": self.pixels.device}
            waves = torch.hypot(torch.fft.fftfreq(height, **like)[:, None], torch.fft.rfftfreq(width, **like))
            self.response = 1 / (waves + self.SOFT)
        self.lr, self.pairs = lr, deque(maxlen=history or beside("memory")["lbfgs_history"](self.pixels[0].numel()))
        self.scale, self.moved, self.gradient = torch.full_like(self.pixels.flatten(1)[:, :1], math.nan), None, None

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        with torch.enable_grad():
            total = closure()
        gradient = self.pixels.grad.flatten(1)
        if self.moved is not None:
            self._learn(gradient - self.gradient)
        if len(self.pairs) == 1:  # the first step was a guess; what it taught of the curvature stays
            risen = _dot(self.moved, gradient + self.gradient) > 0  # by the trapezoidal rule
            self.pixels.sub_((self.moved * risen).view_as(self.pixels))
            gradient = torch.where(risen, self.gradient, gradient)
        step = self._direction(gradient).mul_(self.lr)
        step *= (self.LONGEST_STEP / step.square().mean(1, keepdim=True).sqrt()).clamp_max(1.0)
        self.moved, self.gradient = step, gradient.clone()
        self.pixels.add_(step.view_as(self.pixels))
        return total

    def _learn(self, change: Tensor) -> None:
        product, square = _dot(self.moved, change), _dot(change, change)
        believed = product > self.ORTHOGONAL * (_dot(self.moved, self.moved) * square).sqrt()
        self.scale = torch.where(believed, product / _dot(change, self._initial(change)), self.scale)
        self.pairs.append((self.moved, change, torch.where(believed, 1 / product, 0.0)))  # 0: the pair changes nothing

    def _initial(self, vectors: Tensor) -> Tensor:
        """The initial matrix, up to a scale, times each vector."""
        if self.response is None:
            return vectors
        waves = torch.fft.rfft2(vectors.view_as(self.pixels)) * self.response
        return torch.fft.irfft2(waves, s=self.pixels.shape[-2:]).flatten(1)

    def _direction(self, gradient: Tensor) -> Tensor:
        direction, shares = -gradient, []
        for step, change, weight in reversed(self.pairs):
            shares.append(weight * _dot(step, direction))
            direction.addcmul_(shares[-1], change, value=-1)
        direction = self._initial(direction)
        first = self.FIRST_STEP / direction.square().mean(1, keepdim=True).sqrt().clamp_min(1e-30)
        direction *= torch.where(self.scale.isnan(), first, self.scale)
        for (step, change, weight), share in zip(self.pairs, reversed(shares)):
            direction.addcmul_(share - weight * _dot(change, direction), step)
        return direction


@torch.enable_grad()
def _evaluate(objective, pixels: Tensor, mover, *, move: bool) -> list[list[dict[str, float]]]:
    """Let it evaluate and move; the terms of all pictures at each evaluation, first those of the pixels as they came."""
    terms = []

    def closure() -> Tensor:
        pixels.grad = None
        with torch.autocast(pixels.device.type, enabled=False):  # which would round Gram matrices
            totals, losses = objective(pixels)
            total = totals.sum()
            total.backward()
        table = torch.stack([loss.detach().to(total).expand(len(pixels)) for loss in losses.values()], 1)
        terms.append([dict(zip(losses, row)) for row in table.tolist()])  # a GPU is waited for once, not once for each term
        return total

    mover.step(closure) if move else closure()
    if not isinstance(mover, LBFGS | torch.optim.LBFGS):  # clamping would falsify the curvature that it has gathered
        pixels.data.clamp_(0, 1)
    return terms


class _Run:
    """What one picture has come to: the losses of its steps, the best of them, and whether it is done."""

    def __init__(self, steps: int, tolerance: float):
        self.steps, self.tolerance, self.history, self.best, self.done = steps, tolerance, [], None, False

    def record(self, step: Step) -> Step:
        """The step as it came; the last one with the best image and why it is the last."""
        total, reason = step.losses["total"], step.reason
        self.history.append(step.losses)
        if not math.isfinite(total):
            reason = f"the loss is not finite after {step.index} steps ({step.summary})"
        elif self.best is None or total <= self.best.losses["total"]:
            self.best = step
        before = self.history[-21]["total"] if self.tolerance and len(self.history) > 20 else math.nan
        if not reason and before - total < self.tolerance * before:
            reason = f"the loss fell by less than {self.tolerance:g} of itself in 20 steps"
        if self.best is None:
            raise FloatingPointError(f"Nothing to optimise in picture {step.picture}: {reason}; check image, weights and rate.")
        reason = reason or (f"all {self.steps} steps made" if step.index == self.steps else "")
        if not reason:
            return replace(step, history=self.history)
        self.done, self.history[-1] = True, self.best.losses
        return replace(step, image=self.best.image, losses=self.best.losses, reason=reason, history=self.history)


def optimize_image(image: Tensor, objective, *, optimizer="lbfgs", steps: int = 200, learning_rate: float | None = None,
                   tolerance: float = 0.0) -> Iterator[Step]:
    """Minimise objective(image) over the pixels and yield a Step before each update, and one more at the end.

    image: where to start, (1, 3, H, W), or N pictures (N, 3, H, W) that have nothing to do with each other: then there is a
    Step of each at every update, with its number in `picture`, until that picture stops.
    objective: a StyleObjective, or any function image -> (total, terms with "total" among them), both per picture.
    optimizer: "lbfgs" (Gatys), "adam", "sgd", or a function of (list of pixels, learning rate) that makes one.
    steps: updates; a run makes steps + 1 evaluations (with L-BFGS as well: one evaluation an update, no line search).
    tolerance: stop when the total fell by less than this share over the last 20 steps; 0 never does.
    The last Step of a picture holds its best image and says in `reason` why it stopped: all steps made, tolerance reached, a
    loss that is not finite, or an interrupt. Weights that change between two steps let all pictures begin anew as they are then.
    """
    if not isinstance(steps, Integral) or steps < 1:
        raise ValueError(f"steps is a whole number of at least 1, not {steps} (several numbers need as many sizes).")
    make, default = (optimizer, 1.0) if callable(optimizer) else OPTIMIZERS[one_of("optimizer", optimizer, OPTIMIZERS)]
    rate = default if learning_rate is None else learning_rate
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"learning_rate is a finite number above 0, not {rate}.")
    pixels = image.detach().clone(memory_format=torch.contiguous_format).requires_grad_(True)
    mover, weights, evaluations, start = None, None, 0, time.perf_counter()
    for index in range(steps + 1):
        now = {name: numbers.tolist() for name, numbers in getattr(objective, "weights", dict)().items()}
        if mover is None or now != weights:  # another function: its curvature and best value are unknown
            mover, weights, runs = make([pixels], rate), now, [_Run(steps, tolerance) for _ in image]
        shown, reason = [picture.clamp(0, 1) for picture in pixels.detach().split(1)], ""
        try:
            terms, *more = _evaluate(objective, pixels, mover, move=index < steps)
            evaluations += 1 + len(more)
        except KeyboardInterrupt:
            if any(run.best is None for run in runs):
                raise
            reason, terms, shown = "interrupted", [run.best.losses for run in runs], [run.best.image for run in runs]
        seconds = time.perf_counter() - start
        for number in [number for number, run in enumerate(runs) if not run.done]:
            yield runs[number].record(Step(index, evaluations, terms[number], shown[number], seconds, reason, number))
        if all(run.done for run in runs):
            return


def step_counts(steps: int | Sequence[int], sizes: Sequence) -> list[int]:
    """How many updates at each size."""
    return list(steps) if isinstance(steps, Sequence) else [steps] * len(sizes)


def coarse_to_fine(content=None, style=None, *, sizes: Sequence[int | None] = (256, 512), steps: int | Sequence[int] = (100, 40),
                   start: str | Tensor | None = None, seed: int = 0, optimizer="lbfgs", learning_rate: float | None = None,
                   tolerance: float = 0.0, style_scale: float = 1.0, device=None, **objective) -> Iterator[Step]:
    """Optimise at growing sizes, each from the enlarged picture of the size before; yields the Steps of all of them.

    Large strokes and colours settle where an evaluation is cheap (Gatys et al. 2017, "Controlling Perceptual Factors").
    sizes: long sides in pixels, ascending. steps: updates at each size, one number for all or one for each. The others are
    those of `stylize`. Index, evaluations and seconds run on through the sizes; losses compare within one size only.
    """
    sizes, counts = list(sizes), step_counts(steps, sizes)
    if not sizes or sizes != sorted(set(sizes)) or len(counts) != len(sizes):
        raise ValueError(f"sizes ascend, and steps is one number or one for each size: not {sizes} with steps {steps}.")
    begin, index, evaluations, history = time.perf_counter(), 0, 0, []
    for size, count in zip(sizes, counts):
        canvas, *styles = load_images(content, *_several(style), size=size, device=device)
        styles = [resize(one, max(1, round(max(one.shape[-2:]) * style_scale))) for one in styles]
        target = StyleObjective(canvas, styles or None, **objective)
        objective["extractor"] = target.extractor  # built once
        image = initial_image(canvas, start, style=styles[0] if styles else None, seed=seed)
        for step in optimize_image(image, target, optimizer=optimizer, steps=count, learning_rate=learning_rate,
                                   tolerance=tolerance):
            last = size == sizes[-1] or step.reason.startswith(("interrupted", "the loss is not finite"))
            so_far = replace(step, index=index + step.index, evaluations=evaluations + step.evaluations,
                             history=history + step.history, seconds=time.perf_counter() - begin)
            yield so_far if last else replace(so_far, reason="")
        if last:
            return
        start, index, evaluations, history = step.image, so_far.index, so_far.evaluations, so_far.history


def progress(steps: Iterable[Step], total: int) -> Iterator[Step]:
    """Pass steps through under a bar with their losses and pace; on stdout, since a notebook takes stderr for warnings."""
    with tqdm(total=total, file=sys.stdout, mininterval=0.5, bar_format=BAR + "{postfix}") as bar:
        for step in steps:
            bar.set_postfix_str(f"{step.summary}, {step.seconds / max(1, step.index):.3f} s/step", refresh=False)
            bar.update(step.index - bar.n)
            yield step


@torch.inference_mode(False)
def stylize(content=None, style=None, *, size: int | None = 512, sizes: Sequence[int] = (),
            start: str | Tensor | None = None, seed: int = 0, steps: int | Sequence[int] = 200, optimizer="lbfgs",
            learning_rate: float | None = None, tolerance: float = 0.0, style_scale: float = 1.0, device=None,
            show_progress: bool = True, **objective) -> Step:
    """Paint `content` in the style of `style`: the front door to everything above. Returns the last Step, with the best image.

    content, style: what `load_image` reads; either may be None, see StyleObjective, which also takes all other keywords
    (arch, content_weight, style_weight, ...). size: long side in pixels of both, None keeps them. sizes: several of them
    instead, ascending, for coarse_to_fine; then steps may be one number for each. style_scale: the style's long side over the
    size; strokes grow with it. start, seed: see `initial_image`; the others: `optimize_image`. device: None takes an accelerator
    if there is one. An interrupt returns the best image of its size."""
    sizes = list(sizes) or [size]
    run = coarse_to_fine(content, style, sizes=sizes, steps=steps, start=start, seed=seed, optimizer=optimizer,
                         learning_rate=learning_rate, tolerance=tolerance, style_scale=style_scale, device=device, **objective)
    best, total = None, sum(step_counts(steps, sizes))
    try:
        for step in progress(run, total) if show_progress else run:
            if best is None or best.image.shape != step.image.shape or step.losses["total"] <= best.losses["total"]:
                best = step  # of the size being painted; the last Step is the best of its run anyway
    except KeyboardInterrupt:  # between two steps; inside one, optimize_image ends the run
        if best is None:
            raise
    return replace(best, history=step.history, seconds=step.seconds, reason=step.reason or "interrupted")


# --- 5. Feed-forward: the AdaIN network -------------------------------------------------------------------------------

COMPACT_DECODER = ((160, 3), (0, 0), (128, 3), (96, 3), (96, 3), (64, 3), (0, 0), (48, 3), (32, 3), (0, 0), (16, 3), (3, 3))
MARGIN = 16  # pixels put around a picture and cut off its result, where the networks' own padding would show as a frame


def adain(content: Tensor, style: Tensor) -> Tensor:
    """Content maps (N, C, H, W) in float32 with the mean and deviation that each channel has in the style, which is maps
    (N, C, H', W') or their `mean_std` (N, 2, C); Huang & Belongie eq. 8."""
    wanted, own = (mean_std(style) if style.ndim == 4 else style), mean_std(content)
    scale = (wanted[:, 1] / own[:, 1])[..., None, None]
    return (full(content) - own[:, 0, :, None, None]) * scale + wanted[:, 0, :, None, None]


def wct(content: Tensor, style: Tensor, *, floor: float = 1e-5) -> Tensor:
    """Content maps (N, C, H, W), in float32, with the mean and the whole covariance of style maps (N, C, H', W'): whitening and
    colouring, Li et al., NeurIPS 2017, section 3. Eigenvalues, found on the CPU as not all devices can, are left out as noise if
    they are below the share `floor` of the largest."""
    if style.ndim != 4:
        raise ValueError("wct needs the style's maps (N, C, H, W): means and deviations don't hold its covariance.")
    flat, wanted = full(content).flatten(2), full(style).flatten(2)
    centred, reference = (maps - maps.mean(2, keepdim=True) for maps in (flat, wanted))
    coloured = _covariance_power(reference, 0.5, floor) @ _covariance_power(centred, -0.5, floor) @ centred
    return (coloured + wanted.mean(2, keepdim=True)).view_as(content)


def _covariance_power(centred: Tensor, exponent: float, floor: float) -> Tensor:
    values, vectors = (part.to(centred) for part in torch.linalg.eigh((centred @ centred.mT / centred.shape[2]).cpu()))
    powers = torch.where(values > floor * values[:, -1:], values.clamp_min(1e-12) ** exponent, 0)
    return vectors * powers[:, None] @ vectors.mT


def with_colours_of(image: Tensor, content: Tensor) -> Tensor:
    """The brightness of an image with the colours of another of the same shape (Gatys et al. 2017, luminance only)."""
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float32, device=image.device).view(3, 1, 1)
    return (content + ((image - content) * luma).sum(-3, keepdim=True)).clamp(0, 1)


def _decoder(encoder: FeatureExtractor, seed: int) -> nn.Sequential:
    """The layers of a VGG in reverse, with its bottlenecks if it has any, padding by reflection, untrained."""
    if not isinstance(encoder.body, IntermediateLayerGetter):
        raise ValueError(f"AdaIN needs a VGG as its encoder, not {encoder.arch}.")
    channels, entries, modules = encoder.shapes(64, 64)[encoder.layers[-1]][0], [], []
    generator = torch.Generator().manual_seed(seed)
    for module in reversed(encoder.body.values()):  # (channels, side of the kernel), or (0, 0) for what doubles height and width
        widths = [part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d)]
        entries += [(0, 0)] * isinstance(module, nn.MaxPool2d | nn.AvgPool2d)
        entries += [*((width, 1) for width in widths[:0:-1]), *((width, 3) for width in widths[:1])]
    for width, side in COMPACT_DECODER if encoder.arch == "vgg19_compact" else entries:  # wider where it costs little
        if not side:
            modules.append(nn.Upsample(scale_factor=2, mode="nearest"))
            continue
        convolution, channels = nn.Conv2d(channels, width, side, bias=side > 1), width
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu" if side > 1 else "linear", generator=generator)
        modules += [convolution] if side == 1 else [nn.ReflectionPad2d(1), convolution, nn.ReLU()]
        if side > 1:
            nn.init.zeros_(convolution.bias)
    convolution.weight.detach().mul_(0.1)  # begin with a nearly grey picture: anything wilder has to be unlearnt first
    nn.init.constant_(convolution.bias, 0.5)
    return nn.Sequential(*modules[:-1])  # no ReLU on the pixels


def with_margin(image: Tensor, stride: int = 8) -> Tensor:
    """The image with its edge repeated around it, so that both sides are multiples of the encoder's stride."""
    height, width = image.shape[-2:]
    return F.pad(image, (MARGIN, MARGIN + -width % stride, MARGIN, MARGIN + -height % stride), mode="replicate")


def _shares(count: int, weights, masks, content: Tensor, stride: int) -> list:
    """How much of each style: numbers that add up to 1, or maps (1, 1, H, W) at the encoder's stride, up to 1 at each place."""
    if masks is None:
        return _parts([1.0] * count if weights is None else weights, count)
    if weights is not None:
        raise ValueError("Several styles are mixed by weights or by masks, not by both.")
    parts = [F.interpolate(with_margin(mask, stride), scale_factor=1 / stride, mode="bilinear", antialias=True)
             for mask in beside("masks")["fitted"](masks, count, content)]
    return list(torch.stack(parts) / sum(parts).clamp_min(1))


class AdaIN(nn.Module):
    """Arbitrary style transfer in one pass: encode, give the content's maps the style's statistics, decode.

    arch: a VGG; its layers up to `layer`, one of STYLE_LAYERS, are the fixed encoder. The decoder mirrors them with
    nearest-neighbour up-sampling and reflection padding, without normalisation (Huang & Belongie 2017, section 5). `pretrained`
    loads a trained one. layers: those of STYLE_LAYERS up to `layer`, whose statistics are compared in training.
    seed: of the untrained decoder. device, network: as in FeatureExtractor.
    """

    def __init__(self, arch: str = "vgg19_compact", *, layer: str = "relu4_1", seed: int = 0, device=None, **network):
        super().__init__()
        self.layer, depth = layer, STYLE_LAYERS.index(one_of("layer", layer, STYLE_LAYERS))
        self.layers, self.stride = STYLE_LAYERS[:depth + 1], 2**depth
        self.encoder = FeatureExtractor(arch, self.layers, device=device, **network)
        self.arch = self.encoder.arch
        self.decoder = _decoder(self.encoder, seed).to(device or "cpu", memory_format=torch.channels_last)

    @classmethod
    def pretrained(cls, arch: str = "vgg19_compact", *, path=None, **options) -> AdaIN:
        """A network with the decoder at `path`; None takes the one that this project trained for vgg19_compact."""
        if path is None and arch != "vgg19_compact":
            raise ValueError(f"No decoder for {arch} is shipped: train_adain in notebooks/training.py trains one, and "
                             f"published_adain reads the published one for VGG-19.")
        network = cls(arch, **options)
        load_weights(network.decoder, f"a decoder for {arch}", Path(path or DATA / "weights" / f"adain_{arch}.pt"))
        return network.eval()

    def decode(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W) of `layer` -> images (N, 3, 8 H, 8 W) at its stride, for relu4_1 8; not clamped."""
        dtype = self.encoder.dtype  # not by autocast, which on a CPU pads in float32
        kept = {id(one): one.to(dtype) for one in self.decoder.parameters()} | {id(one): one for one in self.decoder.buffers()}
        return full(copy.deepcopy(self.decoder, kept)(maps.to(dtype, memory_format=torch.channels_last)))  # threads may share it

    @torch.no_grad()
    def statistics(self, style: Tensor) -> Tensor:
        """What is kept of a style image (1, 3, H, W): mean and deviation (1, 2, C) of `layer`. Compute once, use often."""
        return mean_std(self.encoder(style)[self.layer])

    @torch.no_grad()
    def stylize(self, content, style, *, alpha: float = 1.0, weights: Sequence[float] | None = None,
                masks: Sequence[Tensor] | None = None, keep_colours: bool = False, transform: Callable = adain) -> Tensor:
        """`content` in the style of `style`: an image (1, 3, H, W) in [0, 1]. Both are what `load_image` reads.

        style: an image of any size, its `statistics`, or a list of these. alpha: from 0 (the decoded content) to 1 (all of the
        style). weights: how much of each of several styles; None takes equal parts. masks: instead of weights, what `load_mask`
        reads, one per style: how much of it where; what they leave stays the photograph. keep_colours: take only the brightness
        from the result, see `with_colours_of`. transform: `adain`, or `wct`, which wants the style images themselves.
        """
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is between 0 and 1, not {alpha}.")
        device, styles = self.encoder.mean.device, _several(style)
        content, *styles = (one.to(device) if isinstance(one, Tensor) and one.shape[:-1] == (1, 2) else load_image(one).to(device)
                            for one in (content, *styles))
        shares = _shares(len(styles), weights, masks, content, self.stride)
        beside("memory")["check_pass"](self, content)
        with torch.autocast(device.type, enabled=False):
            maps = full(self.encoder(with_margin(content, self.stride))[self.layer])
            wanted = [self.encoder(one)[self.layer] if one.ndim == 4 else one for one in styles]
            change = sum(share * (transform(maps, one) - maps) for share, one in zip(shares, wanted))
            height, width = content.shape[-2:]
            image = self.decode(maps + alpha * change)[..., MARGIN:MARGIN + height, MARGIN:MARGIN + width].clamp(0, 1)
        return with_colours_of(image, content) if keep_colours else image
