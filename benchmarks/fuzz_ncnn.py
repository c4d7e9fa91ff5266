"""Mutates an ncnn .param and its .bin many times: the importer loads what comes out, or refuses it with an EdgewrightError.

    python benchmarks/fuzz_ncnn.py [--count N] [--seed S] [PARAM]

Mutations change numbers, names and lines of the .param, cut both files short, or change bytes and tags; weights are made to fit
the mutated .param where that takes at most 1 MB, so that the deeper checks are reached too. Prints how many were loaded and how
many refused, by code, and the most memory that one load took; any other exception stops it.
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from fuzzing import Outcome, load_all

import edgewright as ew

#: A bit of everything.
SMALL = """7767517
34 36
Input data 0 1 data 0=16 1=16 2=3
Convolution conv1 1 1 data c1 0=8 1=3 3=2 4=1 5=1 6=216 9=2 -23310=1,0.1
ConvolutionDepthWise conv2 1 1 c1 c2 0=8 1=3 4=1 6=72 7=8 9=1
BatchNorm bn 1 1 c2 c3 0=8 1=1e-3
Split split 1 2 c3 c4 c5
Pooling pool 1 1 c4 p1 1=3 2=2 3=1 5=1
Convolution int8 1 1 p1 p2 0=4 1=1 5=1 6=32 8=101
Interp up 1 1 p2 p3 0=2 1=2.0 2=2.0
Concat cat 2 1 c5 p3 j1
ShuffleChannel shuffle 1 1 j1 j2 0=2
Slice slice 1 2 j2 j3 j4 -23300=2,4,-233
PReLU prelu 1 1 j4 j5 0=8
Padding pad 1 1 j5 j6 0=1 1=1 2=1 3=1 5=0.5
Crop crop 1 1 j6 j7 -23309=2,1,1 -23310=2,9,-1 -23311=2,1,2
Deconvolution deconv 1 1 j7 j8 0=4 1=2 3=2 6=128
PixelShuffle shuffle2 1 1 j8 j9 0=2
Reorg reorg 1 1 j9 k1 0=4
Reduction mean 1 1 k1 k2 0=3 1=0 -23303=1,0 4=1 5=1
Reshape reshape 1 1 k2 k3 0=8 1=-1
Permute permute 1 1 k3 k4 0=1
LSTM lstm 1 1 k4 k5 0=4 1=256 2=2
GRU gru 1 1 k5 k6 0=3 1=72
InnerProduct fc 1 1 k6 k7 0=6 1=1 2=144 9=1
MemoryData memory 0 1 m1 0=6 1=1
BinaryOp add 2 1 k7 m1 k8 0=0
Gemm gemm 1 1 k8 k9 3=1 5=1 6=1 8=6 9=6 10=4
LayerNorm ln 1 1 k9 l1 0=6 1=1e-3
Softmax softmax 1 1 l1 l2 0=-1 1=1
MultiHeadAttention attention 1 1 l2 l3 0=6 1=2 2=36
Squeeze squeeze 1 1 l3 l4 -23303=1,0
Clip clip 1 1 l4 l5 0=-1.0 1=1.0
PriorBox prior 2 1 j3 data boxes -23300=1,4.0 -23302=1,2.0 9=-233 10=-233 13=0.5
Flatten flatten 1 1 l5 l6
DetectionOutput out 2 1 l6 boxes det 0=2
"""
_VALUES = ("0", "-1", "1", "2", "3", "7", "16", "100", "-233", "-234", "1000000000", "2147483647", "-2147483648", "1.5", "nan",
           "1e38", "-1e-38", "", "1,2", "2,1", "abc", '"0w,1"', "3,1,1,1", "99999999999", "-0.5", "0x10", "\xff")  # fmt: skip
_TAGS = (0x01306B47, 0x01348B83, 0x000D4B38, 0x0002C056, 1, 0xFFFFFFFF)
_NEEDS = re.compile(r"needs (\d+) bytes at byte \d+, (\d+) left")
_LEFT = re.compile(r"(\d+) bytes are left")
_LARGEST_FIT = 1_000_000
_MOST_BYTES = 64_000_000


def mutate(text: str, rng: np.random.Generator) -> str:
    """A .param with a few numbers, names or lines changed, and counts that fit it again, mostly."""
    lines = text.split("\n")
    kinds = [line.split()[0] for line in text.split("\n")[2:] if line]
    for _ in range(int(rng.integers(1, 4))):
        at, kind = int(rng.integers(2, len(lines))), int(rng.integers(0, 9))
        words = lines[at].split(" ")
        word = int(rng.integers(0, len(words)))
        if kind <= 3 and "=" in lines[at]:
            pairs = [number for number, part in enumerate(words) if "=" in part]
            word = pairs[int(rng.integers(len(pairs)))]
            key = words[word].partition("=")[0] if kind else str(int(rng.integers(-23312, 34)))
            words[word] = f"{key}={_VALUES[int(rng.integers(len(_VALUES)))]}"
            lines[at] = " ".join(words)
        elif kind == 4:
            del lines[at]
        elif kind == 5:
            lines.insert(at, lines[int(rng.integers(0, len(lines)))])
        elif kind == 6:
            words[0] = kinds[int(rng.integers(len(kinds)))]
            lines[at] = " ".join(words)
        elif kind == 7:
            lines[at] = lines[at][: int(rng.integers(0, len(lines[at]) + 1))]
        else:
            words[word] = f"{words[word]} {int(rng.integers(0, 24))}={_VALUES[int(rng.integers(len(_VALUES)))]}"
            lines[at] = " ".join(words)
        if len(lines) < 4:
            return "\n".join(lines)
    if rng.random() < 0.9:
        layers = [line.split() for line in lines[2:] if len(line.split()) > 3]
        tops = sum(int(words[3]) for words in layers if words[3].isdecimal())
        lines[1] = f"{len([line for line in lines[2:] if line.strip()])} {tops}"
    return "\n".join(lines)


def mutate_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes cut short, changed or doubled, and tags of other types of weights."""
    broken = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at, kind = int(rng.integers(0, max(len(broken), 1))), int(rng.integers(0, 4))
        if kind == 0:
            del broken[at:]
        elif kind == 1:
            broken[at:at] = broken[at : at + 8]
        elif kind == 2:
            at -= at % 4
            broken[at : at + 4] = struct.pack("<I", _TAGS[int(rng.integers(len(_TAGS)))])
        elif broken:
            broken[min(at, len(broken) - 1)] = int(rng.integers(0, 256))
    return bytes(broken)


def fit(param: Path, payload: int = 0) -> ew.Model:
    """The network, with as many bytes of weights as it asks for; the last refusal where it asks for too many.

    How many is learned from the refusals alone, beginning with `payload` bytes. All are 0 but scales of int8, which 0 would
    not be: bytes of 64 are the number 3.0, and as a tag they announce a table, which is read as well.
    """
    for filler in (b"\0", b"@"):
        for _ in range(100):
            param.with_suffix(".bin").write_bytes(filler * payload)
            try:
                return ew.load(param)
            except ew.EdgewrightError as problem:
                needs, left = _NEEDS.search(problem.message), _LEFT.search(problem.message)
                if problem.code != "E202" or not (needs or left):
                    if "scale" in problem.message and filler == b"\0":
                        break
                    raise
                payload += int(needs[1]) - int(needs[2]) if needs else -int(left[1]) if left else 0
                if payload > _LARGEST_FIT:
                    raise
    raise AssertionError("sizes do not settle")


def fuzz(text: str, folder: Path, *, count: int, seed: int) -> Outcome:
    """What became of `count` mutations, which are left in `folder` as they were made."""
    rng = np.random.default_rng(seed)
    param, weights = folder / "fuzz.param", folder / "fuzz.bin"
    param.write_text(text, encoding="latin-1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ew.EdgewrightWarning)
        fit(param)
    whole = weights.read_bytes()

    def load(number: int) -> ew.Model:
        if number % 4:
            param.write_text(mutate(text, rng), encoding="latin-1")
            return fit(param, len(whole))
        param.write_text(text, encoding="latin-1")  # the bytes of either file
        weights.write_bytes(whole)
        target, data = (param, text.encode()) if number % 8 else (weights, whole)
        target.write_bytes(mutate_bytes(data, rng))
        return ew.load(param)

    return load_all(load, count, limit_bytes=_MOST_BYTES, files=folder)


def main() -> int:
    """Mutate and print the tally."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("param", nargs="?", type=Path, help="a valid .param; a small one by default")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    text = arguments.param.read_text(encoding="latin-1") if arguments.param else SMALL
    # Kept: it holds the mutation that stopped the run, if one did.
    print(fuzz(text, Path(tempfile.mkdtemp(prefix="edgewright-")), count=arguments.count, seed=arguments.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
