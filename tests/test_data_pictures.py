"""What people bring as pictures: profiles, broken rotation, other formats, arrays; and what is written."""
import html
import io
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import nst_utils as nst
import panels
import training

RED = Image.new("RGB", (4, 3), (255, 0, 0))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def tags(profile: bytes) -> dict[bytes, tuple[int, int]]:
    count, = struct.unpack_from(">I", profile, 128)
    return {profile[at:at + 4]: struct.unpack_from(">II", profile, at + 4) for at in range(132, 132 + 12 * count, 12)}


def with_primaries(**primaries: tuple[float, float, float]) -> bytes:
    """An sRGB profile with other primaries: rXYZ, gXYZ, bXYZ, in the profile's connection space."""
    profile = bytearray(SRGB.tobytes())
    for name, xyz in primaries.items():
        at, _ = tags(bytes(profile))[name.encode()]
        profile[at + 8:at + 20] = struct.pack(">3i", *(round(value * 65536) for value in xyz))
    return bytes(profile)


def primary(name: str) -> tuple[float, ...]:
    profile = SRGB.tobytes()
    return tuple(value / 65536 for value in struct.unpack_from(">3i", profile, tags(profile)[name.encode()][0] + 8))


SWAPPED = with_primaries(rXYZ=primary("gXYZ"), gXYZ=primary("rXYZ"))
P3 = with_primaries(rXYZ=(0.51512, 0.2412, -0.00105), gXYZ=(0.29198, 0.69225, 0.04189), bXYZ=(0.1571, 0.06657, 0.78407))


def loaded(picture: Image.Image, suffix: str, **options) -> list[int]:
    """The first pixel of a picture written and read again, as 8-bit numbers."""
    stream = io.BytesIO()
    picture.save(stream, suffix, **options)
    return (nst.load_image(stream.getvalue())[0, :, 0, 0] * 255).round().int().tolist()


def test_a_dark_picture_of_16_bits_stays_dark(tmp_path):
    Image.fromarray(np.full((8, 8), 200, dtype=np.uint16)).save(tmp_path / "dark.png")
    assert nst.load_image(tmp_path / "dark.png").max().item() == pytest.approx(200 / 65535)


@pytest.mark.parametrize("source", [None, 3])
def test_what_is_no_picture_at_all_is_named(source):
    with pytest.raises(ValueError, match=f"not {type(source).__name__}"):
        nst.load_image(source)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_a_profile_that_swaps_red_and_green_swaps_them(suffix):
    assert loaded(RED, suffix, icc_profile=SWAPPED) == [0, 255, 0]
    assert loaded(RED.convert("RGBA"), suffix, icc_profile=SWAPPED) == [0, 255, 0]


def test_display_p3_arrives_in_srgb():
    pixel = loaded(Image.new("RGB", (4, 3), (200, 120, 60)), "png", icc_profile=P3)
    assert max(abs(a - b) for a, b in zip(pixel, (213, 115, 42))) <= 1


@pytest.mark.parametrize("profile", [b"no profile", SRGB.tobytes()[:90]], ids=["none", "cut off"])  # the second has a date
def test_a_profile_that_can_t_be_read_is_left_out(profile):
    assert loaded(RED, "png", icc_profile=profile) == [255, 0, 0]


def test_broken_exif_costs_the_rotation_at_most(tmp_path):
    """Orientation 6 beside a resolution written as a signed whole number, which Pillow can't write back."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHIi", 0x011A, 9, 1, -5)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    Image.new("RGB", (6, 4), "white").save(tmp_path / "a.jpg", exif=exif)
    assert sorted(nst.load_image(tmp_path / "a.jpg").shape[-2:]) == [4, 6]


@pytest.mark.parametrize("head, what", [
    (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC picture: install pillow-heif"), (b"%PDF-1.7 " + bytes(40), "PDF document"),
    (b"<svg xmlns='x'></svg>", "SVG drawing"), (b"<!DOCTYPE html><html></html>", "web page"), (b"\n<html>", "web page"),
    (b"PK\x03\x04" + bytes(40), "ZIP archive"), (b"\0\0\0\x18ftypisom" + bytes(40), "a film")])
def test_what_is_no_picture_is_named(tmp_path, head, what):
    (tmp_path / "a.jpg").write_bytes(head)
    for source in (tmp_path / "a.jpg", head, io.BytesIO(head)):
        with pytest.raises(ValueError, match=rf"can't be read as a picture \(it is .*{what}"):
            nst.load_image(source)


def test_bytes_of_any_kind_and_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = nst.save_image(torch.rand(1, 3, 4, 5), "~/deep/a.png")
    assert path == tmp_path / "deep" / "a.png" and path.exists()
    for source in (bytearray(path.read_bytes()), memoryview(path.read_bytes()), "~/deep/a.png"):
        assert torch.equal(nst.load_image(source), nst.load_image(path))


LEVELS = torch.arange(90, dtype=torch.uint8).view(3, 6, 5) * 2


@pytest.mark.parametrize("numbers", [
    LEVELS, LEVELS[None], LEVELS.permute(1, 2, 0), LEVELS / 255, LEVELS.double() / 255, LEVELS.float(), LEVELS.numpy(),
    LEVELS.permute(1, 2, 0).numpy(), (LEVELS.permute(1, 2, 0) / 255).numpy(), LEVELS.permute(1, 2, 0).numpy()[:, ::-1][:, ::-1],
    torch.cat([LEVELS, torch.full((1, 6, 5), 255, dtype=torch.uint8)])])
def test_numbers_of_any_layout(numbers):
    assert torch.allclose(nst.load_image(numbers).float(), LEVELS[None] / 255, atol=1e-6)


def test_grey_and_opacity_in_numbers():
    assert torch.equal(nst.load_image(np.full((4, 5), 51, np.uint8)), torch.full((1, 3, 4, 5), 0.2))
    assert torch.equal(nst.load_image(torch.zeros(4, 4, 5)), torch.ones(1, 3, 4, 5))  # nothing to be seen, on white


@pytest.mark.parametrize("numbers, shown", [
    (torch.rand(2, 3, 8, 8), r"\(2, 3, 8, 8\)"), (torch.rand(8, 8, 8), r"\(8, 8, 8\)"), (torch.rand(3, 0, 8), r"\(3, 0, 8\)"),
    (torch.ones(3, 8, 8, dtype=torch.int64), "8 or 16 bits"), (torch.full((3, 8, 8), 300.0), "values from 300 to 300"),
    (torch.full((3, 8, 8), -9.0), "from -9"), (torch.full((3, 8, 8), torch.nan), "from nan")])
def test_numbers_that_are_no_picture(numbers, shown):
    with pytest.raises(ValueError, match=r"A picture has shape \(1, 3, H, W\) and values in \[0, 1\], not .*" + shown):
        nst.load_image(numbers)


def test_a_picture_that_is_one_already_is_handed_on(picture):
    picture.requires_grad_(True)
    nst.load_image(picture).sum().backward()
    assert torch.equal(picture.grad, torch.ones_like(picture))


@pytest.mark.parametrize("suffix, error", [(".png", 0), (".webp", 0), (".jpg", 12)])
def test_what_is_written_keeps_fine_colours_and_says_srgb(tmp_path, suffix, error):
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[:, 0, :, ::2] = stripes[:, 2, :, 1::2] = 1  # red and blue, one pixel each
    paths = [nst.save_image(stripes, tmp_path / f"{name}{suffix}") for name in "ab"]
    assert ((nst.load_image(paths[0]) - stripes).abs().max() * 255).round() <= error
    assert ImageCms.getProfileName(ImageCms.ImageCmsProfile(io.BytesIO(Image.open(paths[0]).info["icc_profile"])))
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
def test_sixteen_bits_hold_what_eight_would_round(tmp_path, suffix):
    ramp = torch.linspace(0, 1, 3 * 40 * 50, dtype=torch.float64).view(1, 3, 40, 50)
    path = nst.save_image(ramp, tmp_path / f"a{suffix}", bits=16)
    content = path.read_bytes()
    if suffix == ".png":
        at = content.index(b"IDAT")
        length, = struct.unpack_from(">I", content, at - 4)
        rows = np.frombuffer(zlib.decompress(content[at + 4:at + 4 + length]), np.uint8).reshape(40, -1)
        assert not rows[:, 0].any()
        numbers = rows[:, 1:].copy().view(">u2").reshape(40, 50, 3)
        profile = Image.open(path).info["icc_profile"]
    else:
        tifffile = pytest.importorskip("tifffile")
        numbers, profile = tifffile.imread(path), tifffile.TiffFile(path).pages[0].iccprofile
    wanted = (ramp[0].permute(1, 2, 0) * 65535).round().numpy()
    assert np.array_equal(numbers, wanted) and len(np.unique(numbers)) == 6000
    assert ImageCms.getProfileName(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    assert (nst.load_image(path) - ramp).abs().max() < 1 / 200  # as far as Pillow reads it


def test_sixteen_bits_where_a_format_has_none(tmp_path):
    with pytest.raises(ValueError, match="16 bits are for .tiff and .png, not for .jpg"):
        nst.save_image(torch.rand(1, 3, 4, 5), tmp_path / "a.jpg", bits=16)
    with pytest.raises(ValueError, match="bits is one of 8, 16, not 12"):
        nst.save_image(torch.rand(1, 3, 4, 5), tmp_path / "a.png", bits=12)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a" * 240 + ".png", "run.GIF", "run.JPG", "b c.png"])
def test_names_that_people_give(tmp_path, name):
    assert nst.load_image(nst.save_image(torch.rand(1, 3, 4, 5), tmp_path / name)).shape == (1, 3, 4, 5)


def corpus(folder):
    """Files of every format cut at every tenth, with single bits of their first bytes turned over, with the suffix of another
    format, in unusual modes, turned, animated, empty, or far larger than they look: (path, whether it is whole)."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))
    formats, number = ("png", "jpeg", "gif", "webp", "tiff", "bmp", "ppm"), 0
    for suffix in formats:
        stream = io.BytesIO()
        noise.save(stream, suffix)
        whole = stream.getvalue()
        broken = [whole[:len(whole) * tenth // 10] for tenth in range(10)]
        broken += [whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1:] for at in range(0, 40, 2) for bit in (0, 4)]
        for content, sound in [*((content, False) for content in broken), (whole, True)]:
            path = folder / f"{number} {suffix}.{formats[number % len(formats)]}"
            path.write_bytes(content)
            number += 1
            yield path, sound
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "RGBX"):
        for suffix in ("png", "tiff"):
            path = folder / f"{mode.replace(';', '')} {suffix}.{suffix}"
            try:
                noise.convert("I" if mode == "I;16" else mode).convert(mode).save(path)
            except (OSError, ValueError, KeyError):
                continue  # not in this format
            yield path, True
    for turn in range(10):
        exif = Image.Exif()
        exif[0x0112] = turn
        noise.save(folder / f"turn {turn}.jpg", exif=exif)
        yield folder / f"turn {turn}.jpg", True
    for suffix in ("gif", "png", "webp", "tiff"):
        noise.save(folder / f"film {suffix}.{suffix}", save_all=True, append_images=[noise.rotate(90), noise.rotate(180)])
        yield folder / f"film {suffix}.{suffix}", True
    for name, content in bombs():
        (folder / name).write_bytes(content)
        yield folder / name, False


def bombs():
    """Small files that claim, or unpack to, far more than fits: (name, bytes)."""
    chunk = nst.beside("pictures")["png_chunk"]
    png = lambda width, height, *chunks: b"\x89PNG\r\n\x1a\n" + b"".join(  # noqa: E731
        [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *chunks, chunk(b"IEND", b"")])
    zeros, huge = zlib.compress(bytes(10**8), 9), struct.pack("<HH", 65535, 65535)  # a hundred megabytes in a hundred kilobytes
    yield "wide bomb.png", png(60_000, 60_000, chunk(b"IDAT", zeros))
    yield "long bomb.png", png(1, 2**31 - 1, chunk(b"IDAT", zeros))
    yield "unpacked bomb.png", png(32, 24, chunk(b"zTXt", b"a\0\0" + zeros), chunk(b"IDAT", zeros[:99]))
    yield "bomb.gif", b"GIF89a" + huge + bytes(3) + b",\0\0\0\0" + huge + bytes(9)
    head = struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
    yield "bomb.bmp", b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head
    yield "bomb.ppm", b"P6 99999 99999 255 " + bytes(99)


def peak_memory():
    """The most bytes that this process has ever had in memory; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def test_bad_pictures_are_read_or_named(tmp_path, reliability):
    files, read, before = list(corpus(tmp_path)), 0, peak_memory()
    for path, sound in files:
        started = time.monotonic()
        try:
            low, high = nst.load_image(path).aminmax()  # NaN if any is
            assert 0 <= low and high <= 1, path
            read += 1
        except ValueError as error:
            assert not sound and str(path) in str(error) and "\n" not in str(error), path
        assert time.monotonic() - started < 5, f"{path} hangs"
    assert peak_memory() - before < 10**9
    reliability("pictures cut off, damaged, misnamed, huge or odd", f"{len(files)} files",
                f"{read} read, {len(files) - read} refused in a sentence that names the file")


def test_bad_pictures_that_are_uploaded_or_trained_on(tmp_path, picture, painting):
    panel = panels.steer(picture, painting, size=48)
    refused = set()
    for path, sound in corpus(tmp_path):
        panel.message.value = ""
        panel._try(panel._take, "style", {"name": path.name, "content": memoryview(path.read_bytes())})
        assert html.escape(path.name) in panel.message.value, path
        refused |= {path} if "can't be read" in panel.message.value or "too large" in panel.message.value else set()
        assert not (sound and path in refused), panel.message.value
    panel.close()
    crops = training.PictureCrops(tmp_path, 24, 16)
    files = set(crops.folders[0])
    for number in range(len(crops.folders[0])):
        assert crops[number].shape == (3, 16, 16)
    assert refused & files and crops.skipped >= len(refused & files)


@pytest.mark.parametrize("what", ["pictures", "weights and checkpoints"])
def test_a_fuzzer_finds_no_other_error(tmp_path, what, reliability):
    pytest.importorskip("atheris", reason="atheris, which has no build for this system, is not installed")
    runs = 20_000 if what == "pictures" else 10_000
    done = subprocess.run([sys.executable, Path(__file__).with_name("fuzz.py"), what, tmp_path, str(runs)],
                          capture_output=True, text=True, timeout=500, env=os.environ | {"PYTHONHASHSEED": "0"})
    assert done.returncode == 0 and f"Done {runs} runs" in done.stderr, done.stderr[-3000:]
    reliability(f"{what}, changed by a fuzzer that sees which code they reach (atheris)", f"{runs:,} inputs",
                "all read, or refused in one sentence")
