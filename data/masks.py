"""Masks: where something applies in a picture, and which positions of a feature map that concerns.

nst_utils runs this file when the first mask is read; it is no part of the two methods.
"""
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import nst_utils as nst


def mask_of(source) -> Tensor:
    """See nst_utils.load_mask."""
    if isinstance(source, Tensor | np.ndarray):
        mask = torch.as_tensor(source).float()
        if mask.numel() != mask.shape[-2:].numel() or mask.ndim < 2 or not ((0 <= mask) & (mask <= 1)).all():
            raise ValueError(f"A mask has a number from 0 to 1, or true or false, for each pixel (H, W), not {tuple(mask.shape)} "
                             f"of {source.dtype} up to {mask.max().item() if mask.numel() else 'nothing'}.")
        mask = mask.view(1, 1, *mask.shape[-2:])
    else:
        mask = nst.beside("pictures")["opened"](source, _of_picture)
    if not mask.any():
        raise ValueError(f"A mask of {mask.shape[-1]} x {mask.shape[-2]} pixels is 0 everywhere, so that it names no place.")
    return mask


def _of_picture(picture: Image.Image) -> Tensor:
    opacity = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
    opaque = opacity is None or opacity.getextrema() == (255, 255)
    return nst.load_image(picture if opaque else opacity)[:, :1]


def fitted(masks: Sequence, count: int, image: Tensor) -> list[Tensor]:
    """A mask (1, 1, H, W) of the image's size for each of `count` styles; a mask that is in no list is one."""
    stacked = isinstance(masks, Tensor | np.ndarray) and masks.ndim > 2 and len(masks) == count
    masks = masks if isinstance(masks, list | tuple) or stacked else [masks]
    if len(masks) != count or not count:
        raise ValueError(f"There are {count} styles, but {len(masks)} masks.")
    (height, width), masks = image.shape[-2:], [mask_of(mask).to(image) for mask in masks]
    for rows, columns in (mask.shape[-2:] for mask in masks):
        if 2 * abs(rows * width - columns * height) > max(height, width) + max(rows, columns):  # more than the rounding of both
            raise ValueError(f"A mask of {columns} x {rows} pixels has another shape than the picture of {width} x {height}.")
    return [F.interpolate(mask, (height, width), mode="bilinear", antialias=True) for mask in masks]


def regions(masks: Sequence, count: int, image: Tensor, shapes: Mapping[str, tuple[int, int, int]]) -> tuple[list[float], dict]:
    """The share of the image that lies in each mask, and layer -> the numbers of the positions in each mask, see `inside`."""
    masks = fitted(masks, count, image)
    return ([mask.mean().item() for mask in masks],
            {layer: [inside(mask, height, width) for mask in masks] for layer, (_, height, width) in shapes.items()})


def inside(mask: Tensor, height: int, width: int) -> Tensor:
    """The numbers of those of height x width positions that lie in a mask (1, 1, h, w), where it is more than a half, and so far
    from its edge that they see little else; where none is so far, the farthest."""
    small = F.interpolate(mask, (height, width), mode="area")
    # In every layer of a VGG a position sees four others on each side, but what counts of it is about half as wide (Luo et al.
    # 2016): with four positions left out at an edge, narrow regions such as a head would get no style at all
    for radius in (2, 1, 0):
        deep = -F.max_pool2d(-small, 2 * radius + 1, 1, radius) > 0.5
        if deep.any():
            return deep.flatten().nonzero().squeeze(1)
    return small.flatten().argmax().view(1)
