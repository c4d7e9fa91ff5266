"""Mutates a Darknet cfg and its weights many times: the importer loads what comes out, or refuses it with an EdgewrightError.

    python benchmarks/fuzz_darknet.py [--count N] [--seed S] [CFG]

Mutations change numbers, options and sections of the cfg, cut both files short, or change bytes; weights are made to fit the
mutated cfg where that takes at most 1 MB, so that the deeper checks are reached too. Prints how many were loaded and how many
refused, by code, and the most memory that one load took; any other exception stops it.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from fuzzing import Outcome, load_all

import edgewright as ew

#: A bit of everything.
SMALL = """[net]
width=16
height=16
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
filters=8
size=1
groups=2
activation=mish
[shortcut]
from=-2
weights_type=per_channel
weights_normalization=softmax
activation=linear
[route]
layers=-1,1
groups=2
group_id=1
[upsample]
stride=2
[reorg3d]
stride=2
[local]
filters=2
size=3
pad=1
activation=relu
[lrn]
size=3
[crnn]
size=3
pad=1
hidden=2
output=8
[implicit]
filters=8
[scale_channels]
from=-2
[convolutional]
filters=14
size=1
activation=linear
[yolo]
mask=0,1
anchors=1,2,3,4
classes=2
num=2
scale_x_y=1.1
[connected]
output=18
[region]
num=2
classes=4
[avgpool]
[softmax]
"""
_VALUES = ("0", "-1", "1", "2", "3", "1000000000", "2147483647", "99999999999999999999", "-2147483648", "1.5", "nan", "",
           "1,2", "abc", "-3", "7", "16", "0x10", "1e9", "-1,-2,-3", "\xff")  # fmt: skip
_SECTIONS = ("gru", "lstm", "rnn", "conv_lstm", "history", "reorg", "sam", "crop", "batchnorm", "detection", "Gaussian_yolo",
             "local_avgpool", "activation", "dropout", "cost", "deconvolutional", "nonsense", "net", "l2norm")  # fmt: skip
_NEEDS = re.compile(r"needs (\d+) bytes, (\d+) left")
_LEFT = re.compile(r"(\d+) bytes are left")
_LARGEST_FIT = 1_000_000
_MOST_BYTES = 64_000_000


def mutate(text: str, rng: np.random.Generator) -> str:
    """A cfg with a few numbers, lines or sections changed."""
    lines = text.split("\n")
    for _ in range(int(rng.integers(1, 4))):
        at, kind = int(rng.integers(0, len(lines))), int(rng.integers(0, 8))
        if kind <= 3 and "=" in lines[at]:
            lines[at] = lines[at].partition("=")[0] + "=" + _VALUES[int(rng.integers(len(_VALUES)))]
        elif kind == 4:
            del lines[at]
        elif kind == 5:
            lines.insert(at, lines[int(rng.integers(0, len(lines)))])
        elif kind == 6:
            lines.insert(at, f"[{_SECTIONS[int(rng.integers(len(_SECTIONS)))]}]")
        elif kind == 7:
            lines[at] = lines[at][: int(rng.integers(0, len(lines[at]) + 1))]
        lines = lines or [""]
    return "\n".join(lines)


def mutate_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes cut short, changed or doubled."""
    broken = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at, kind = int(rng.integers(0, max(len(broken), 1))), int(rng.integers(0, 3))
        if kind == 0:
            del broken[at:]
        elif kind == 1:
            broken[at:at] = broken[at : at + 8]
        elif broken:
            broken[min(at, len(broken) - 1)] = int(rng.integers(0, 256))
    return bytes(broken)


def fit(cfg: Path, weights: Path, payload: int = 0) -> ew.Model:
    """The network, with zeros for weights as many as it asks for; the last refusal where it asks for too many.

    How many is learned from the refusals alone, beginning with `payload` bytes.
    """
    header = b"\0\0\0\0\2\0\0\0\5\0\0\0" + bytes(8)
    for _ in range(60):
        weights.write_bytes(header + bytes(payload))
        try:
            return ew.load(cfg, weights=weights)
        except ew.EdgewrightError as problem:
            needs, left = _NEEDS.search(problem.message), _LEFT.search(problem.message)
            if problem.code != "E202" or not (needs or left):
                raise
            payload += int(needs[1]) - int(needs[2]) if needs else -int(left[1]) if left else 0
            if payload > _LARGEST_FIT:
                raise
    raise AssertionError("sizes do not settle")


def fuzz(text: str, folder: Path, *, count: int, seed: int) -> Outcome:
    """What became of `count` mutations, which are left in `folder` as they were made."""
    rng = np.random.default_rng(seed)
    cfg, weights = folder / "fuzz.cfg", folder / "fuzz.weights"
    cfg.write_text(text, encoding="latin-1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ew.EdgewrightWarning)
        fit(cfg, weights)
    whole = weights.read_bytes()

    def load(number: int) -> ew.Model:
        if number % 4:
            cfg.write_text(mutate(text, rng), encoding="latin-1")
            return fit(cfg, weights, len(whole) - 20)
        cfg.write_text(text, encoding="latin-1")  # the bytes of either file
        weights.write_bytes(whole)
        target, data = (cfg, text.encode()) if number % 8 else (weights, whole)
        target.write_bytes(mutate_bytes(data, rng))
        return ew.load(cfg, weights=weights)

    return load_all(load, count, limit_bytes=_MOST_BYTES, files=folder)


def main() -> int:
    """Mutate and print the tally."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", nargs="?", type=Path, help="a valid cfg; a small one by default")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    text = arguments.cfg.read_text(encoding="latin-1") if arguments.cfg else SMALL
    # Kept: it holds the mutation that stopped the run, if one did.
    print(fuzz(text, Path(tempfile.mkdtemp(prefix="edgewright-")), count=arguments.count, seed=arguments.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
