"""What people bring as a picture, decoded, and how a picture is written: profiles, rotations, formats, arrays of any layout.

nst_utils runs this file when the first picture is read or written; it is no part of the two methods.
"""
import contextlib
import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps

with contextlib.suppress(ImportError):  # pictures of phones, if it is installed
    import pillow_heif
    pillow_heif.register_heif_opener()

MAX_PIXELS = 100_000_000  # what is decoded at most; 1.2 GB as float32
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
PROFILE = SRGB.tobytes()[:24] + bytes(12) + SRGB.tobytes()[36:]  # without its date: the same picture gives the same bytes
OPTIONS = {".jpg": {"quality": 95, "subsampling": 0}, ".jpeg": {"quality": 95, "subsampling": 0}, ".webp": {"lossless": True}}
SIGNS = {  # how files begin that are often taken for pictures, at which byte, and what helps
    (4, b"ftyphei"): "a HEIC picture: install pillow-heif, which is then used, or export it as JPEG",
    (4, b"ftypmif1"): "a HEIC picture: install pillow-heif, which is then used, or export it as JPEG",
    (4, b"ftypcrx"): "a camera's raw file: develop it to JPEG or TIFF",
    (0, b"FUJIFILMCCD-RAW"): "a camera's raw file: develop it to JPEG or TIFF",
    (0, b"%PDF"): "a PDF document: export the page as PNG", (0, b"<svg"): "an SVG drawing: export it as PNG",
    (0, b"<?xml"): "an XML file, perhaps an SVG drawing: export it as PNG", (0, b"<!doctype html"): "a web page, not a picture",
    (0, b"<html"): "a web page, not a picture", (0, b"PK\x03\x04"): "a ZIP archive: unpack it", (4, b"ftyp"): "a film"}


def decoded(source) -> torch.Tensor:
    """A picture (1, 3, H, W) in [0, 1], float32, of what `opened` opens."""
    return opened(source, _pixels)


def opened(source, read):
    """What `read` makes of a PIL picture, or of one in a path, an open binary file or bytes of any kind.

    Raises FileNotFoundError, or ValueError with one sentence that says what the file is and what would help.
    """
    if isinstance(source, Image.Image):
        name, stream = getattr(source, "filename", "") or "this picture", None
    elif isinstance(source, bytes | bytearray | memoryview):
        name, stream = "these bytes", io.BytesIO(bytes(source))
    elif not (isinstance(source, str | os.PathLike) or hasattr(source, "read")):
        raise ValueError(f"A picture is a path, an open file, bytes, a PIL picture, an array or a tensor, not "
                         f"{type(source).__name__}.")
    else:
        name, stream = str(source), source if hasattr(source, "read") else Path(os.path.expanduser(source))  # "~$a.png" is a name
    try:
        with (warnings.catch_warnings(action="ignore"),  # _pixels has a limit of its own
              contextlib.nullcontext(source) if stream is None else Image.open(stream) as picture):
            return read(picture)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no picture at {name}.") from None
    except (Image.DecompressionBombError, TooLarge) as error:
        raise ValueError(f"{name} is too large to decode ({error}); shrink it first.") from None
    except Exception as error:  # a damaged file makes Pillow raise anything
        what = _kind(stream)
        reason = f"it is {what}" if what else f"empty, truncated or another format: {error}"
        raise ValueError(f"{name} can't be read as a picture ({reason}).") from error


class TooLarge(ValueError):
    """A picture of more than MAX_PIXELS."""


def _kind(stream) -> str:
    """What a file seems to be that is no picture, if that can be told."""
    if stream is None:
        return ""
    try:
        with contextlib.nullcontext(stream) if hasattr(stream, "read") else stream.open("rb") as file:
            file.seek(0)
            head = file.read(64).lstrip()
    except OSError:
        return ""
    return next((what for (place, sign), what in SIGNS.items() if head[place:place + len(sign)].lower() == sign.lower()), "")


def _pixels(picture: Image.Image) -> torch.Tensor:
    """A PIL picture of any mode, upright, on white, in sRGB."""
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise TooLarge(f"{width} x {height} pixels, more than {MAX_PIXELS:,}")
    profile = picture.info.get("icc_profile")
    picture.load()
    with contextlib.suppress(Exception):  # a broken EXIF block leaves the picture as it lies
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):  # PIL would clip 16-bit and float greys at 255
        grey = torch.from_numpy(np.array(picture, dtype=np.float32))
        # of 16 bits the format says so; of 32 bits and floats nothing says what white is
        top = 65535.0 if picture.mode.startswith("I;16") else 1.0 if grey.max() <= 1 else 255.0 if grey.max() <= 255 else 65535.0
        return (grey / top).clamp(0, 1).repeat(1, 3, 1, 1)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    numbers = torch.from_numpy(np.array(_in_srgb(picture, profile)))
    return numbers.permute(2, 0, 1)[None].to(torch.float32, memory_format=torch.contiguous_format).div_(255)  # 12 bytes a pixel


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """In RGB, by the picture's own profile if it has one that can be read."""
    if profile:
        known = picture if picture.mode in ("RGB", "CMYK", "L", "LAB") else picture.convert("RGB")
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            return ImageCms.profileToProfile(known, ImageCms.ImageCmsProfile(io.BytesIO(profile)), SRGB, outputMode="RGB")
    return picture.convert("RGB")


def picture_of(numbers) -> torch.Tensor:
    """A picture (1, 3, H, W) in [0, 1] from an array or a tensor, with or without the 1: grey, RGB, or RGB with opacity, which is
    laid on white; channels first or last (where both could be meant, last in an array and first in a tensor, as is usual there);
    8 or 16 bits, or floats, from 0 to 1 or from 0 to 255. ValueError for any other."""
    array = isinstance(numbers, np.ndarray)
    tensor = torch.from_numpy(np.ascontiguousarray(numbers)) if array else numbers
    wrong = f"A picture has shape (1, 3, H, W) and values in [0, 1], not {tuple(tensor.shape)} of {tensor.dtype}"
    maps = tensor[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor
    maps = maps[None] if maps.ndim == 2 else maps
    if maps.ndim == 3 and maps.shape[2] in (1, 3, 4) and (array and numbers.ndim == 3 or maps.shape[0] not in (1, 3, 4)):
        maps = maps.permute(2, 0, 1)
    if maps.ndim != 3 or maps.shape[0] not in (1, 3, 4) or not maps.numel() or maps.is_complex():
        raise ValueError(f"{wrong}.")
    if not maps.is_floating_point():
        if maps.dtype not in (torch.uint8, torch.uint16, torch.bool):
            raise ValueError(f"{wrong}; whole numbers have 8 or 16 bits without a sign.")
        maps = maps.float() / {torch.uint8: 255, torch.uint16: 65535, torch.bool: 1}[maps.dtype]
    else:
        low, high = (value.item() for value in maps.detach().aminmax())
        if 0 <= low and 2 < high <= 255:
            maps = maps / 255
        elif not (-1 <= low and high <= 2):  # pictures that are being optimised leave the range a little
            raise ValueError(f"{wrong} with values from {low:.4g} to {high:.4g}.")
    if len(maps) == 4:
        maps = 1 + (maps[:3] - 1) * maps[3:]
    return maps.expand(3, -1, -1)[None]


def write(picture: Image.Image | torch.Tensor, path: Path) -> None:
    """Write an 8-bit RGB picture, or a tensor (1, 3, H, W) in [0, 1] with 16 bits for each number, with its profile and the
    resolution of its colours, in the format of the suffix."""
    stream, suffix = io.BytesIO(), path.suffix.lower()  # Pillow itself may not notice that its last write met a full disk
    if isinstance(picture, torch.Tensor):
        _save_deep(picture, stream, suffix)
    else:
        picture.save(stream, Image.registered_extensions()[suffix], icc_profile=PROFILE, **OPTIONS.get(suffix, {}))
    path.write_bytes(stream.getbuffer())


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _save_deep(image: torch.Tensor, stream: io.BytesIO, suffix: str) -> None:
    """Write 16 bits for each number, which Pillow can't."""
    numbers = (image[0] if image.ndim == 4 else image).detach().cpu().double().clamp(0, 1).mul(65535).round()
    numbers = numbers.permute(1, 2, 0).numpy().astype(np.uint16)
    if suffix in (".tif", ".tiff"):
        import tifffile
        tifffile.imwrite(stream, numbers, photometric="rgb", iccprofile=PROFILE, metadata=None, compression=None)
    elif suffix == ".png":
        height, width = numbers.shape[:2]
        rows = np.pad(numbers.astype(">u2").reshape(height, -1).view(np.uint8), ((0, 0), (1, 0)))  # begin with their filter, 0
        chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0),
                  b"iCCP": b"sRGB\0\0" + zlib.compress(PROFILE), b"IDAT": zlib.compress(rows.tobytes()), b"IEND": b""}
        stream.write(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks.items()))
    else:
        raise ValueError(f"16 bits are for .tiff and .png, not for {suffix}.")
