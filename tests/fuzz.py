"""fuzz.py KIND FOLDER RUNS: atheris feeds changed files to load_image or to the loading of weights and checkpoints, RUNS of them.

KIND: "pictures" or "weights and checkpoints". Whatever raises anything else than ValueError ends it with a traceback, and the
input is kept in FOLDER. Coverage guides it: what reaches new lines of Pillow, of torch's unpickler or of this project is changed
further. The same seed tries the same inputs.
"""
import importlib
import sys
from contextlib import suppress
from pathlib import Path

import atheris

kind, folder, runs = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
root = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(root), str(root / "notebooks")]
with atheris.instrument_imports(include=["PIL"]):  # before torchvision imports it unseen
    from PIL import Image
    Image.init()  # all its formats
import numpy as np
import torch

import nst_utils as nst
import training

with atheris.instrument_imports(include=["torch._weights_only_unpickler"]):
    importlib.reload(torch._weights_only_unpickler)

decoded = nst.beside("pictures")["decoded"]
decoded.__globals__["MAX_PIXELS"] = 10_000  # a few bytes can declare a canvas that takes a second to fill with zeros


def pictures(data: bytes) -> None:
    with suppress(ValueError):
        decoded(data)


def weights(data: bytes) -> None:
    path = folder / "input.pt"
    path.write_bytes(data)
    for read in (nst.load_state, lambda path: training.read_checkpoint(path, "an AdaIN")):
        with suppress(ValueError):
            read(path)


if __name__ == "__main__":
    corpus = folder / "corpus"
    corpus.mkdir()
    if kind == "pictures":
        for suffix in ("png", "jpeg", "gif", "webp", "tiff", "bmp", "ppm"):
            Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)).save(corpus / f"seed.{suffix}")
    else:
        checkpoint = {"arch": "an AdaIN", "step": 1, "weights": {"a": torch.ones(1)}, "optimizer": [1, {"b": "c"}]}
        for name, state in (("state", {"a": torch.ones(2)}), ("checkpoint", checkpoint)):
            torch.save(state, corpus / f"{name}.zip", pickle_protocol=2)
            torch.save(state, corpus / f"{name}.old", _use_new_zipfile_serialization=False)
    # no limit of memory: Linux counts the peak of the process that started this one as its own
    options = [f"-runs={runs}", "-seed=1", "-max_len=8192", "-timeout=60", "-rss_limit_mb=0", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], pictures if kind == "pictures" else weights)
    atheris.Fuzz()
