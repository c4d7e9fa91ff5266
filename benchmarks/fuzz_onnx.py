"""Mutates an ONNX file many times: the importer loads what comes out, or refuses it with an EdgewrightError.

    python benchmarks/fuzz_onnx.py [--count N] [--seed S] [FILE]

Every third mutation flips, cuts or doubles bytes; the others change fields of the messages, so that what comes out is
still protobuf and reaches the deeper checks. Prints how many were loaded and how many refused, by code; any other
exception stops it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import edgewright as ew


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """`data` cut short, with bytes flipped, doubled or removed."""
    broken = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, max(len(broken), 1)))
        kind = int(rng.integers(0, 6))
        if kind == 0:
            del broken[at:]
        elif kind == 1:
            del broken[at : at + int(rng.integers(1, 9))]
        elif kind == 2:
            broken[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 9)), dtype=np.uint8))
        elif kind == 3:
            end = at + int(rng.integers(1, 40))
            broken[at:at] = broken[at:end]
        elif broken:
            broken[min(at, len(broken) - 1)] = int(rng.integers(0, 256))
    return bytes(broken)


def mutate_message(data: bytes, rng: np.random.Generator) -> bytes:
    """`data` with a few fields of its messages changed: what stays a ModelProto reaches the deeper checks."""
    proto = onnx.ModelProto.FromString(data)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(proto))
        message, field = places[int(rng.integers(len(places)))]
        texts = [
            getattr(m, f.name) for m, f in places if f.type == f.TYPE_STRING and isinstance(getattr(m, f.name), str)
        ]
        _change(message, field, texts, rng)
    return proto.SerializePartialToString()


def _places(message: Any) -> Iterator[tuple[Any, Any]]:
    for field, value in message.ListFields():
        yield message, field
        if field.type == field.TYPE_MESSAGE:
            for inner in value if hasattr(value, "add") else (value,):
                yield from _places(inner)


def _change(message: Any, field: Any, texts: list[str], rng: np.random.Generator) -> None:
    value = getattr(message, field.name)
    if hasattr(value, "append") or hasattr(value, "add"):  # repeated
        at, kind = int(rng.integers(len(value))), int(rng.integers(0, 4))
        if kind == 0:
            del value[at]
        elif kind == 1 and field.type == field.TYPE_MESSAGE:
            value.add().CopyFrom(value[at])
        elif kind == 1:
            value.append(value[at])
        elif field.type == field.TYPE_MESSAGE:
            items = [
                type(value[0]).FromString(value[i].SerializePartialToString()) for i in rng.permutation(len(value))
            ]
            del value[:]
            value.extend(items)
        else:
            value[at] = _other(field, value[at], texts, rng)
    elif field.type == field.TYPE_MESSAGE or rng.integers(0, 5) == 0:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _other(field, value, texts, rng))


def _other(field: Any, value: Any, texts: list[str], rng: np.random.Generator) -> Any:
    if field.type == field.TYPE_STRING:
        return [*texts, "", "../x", "\u00e9", "a\0b"][int(rng.integers(len(texts) + 4))]
    if field.type == field.TYPE_BYTES:
        return [value[: len(value) // 2], value + b"\0", b"", b"\xff" * len(value)][int(rng.integers(4))]
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return [float("nan"), float("inf"), -1.0, 0.0][int(rng.integers(4))]
    if field.type == field.TYPE_ENUM:
        return int(rng.integers(0, 15)) % (max(field.enum_type.values_by_number) + 1)
    if field.type in (field.TYPE_INT32, field.TYPE_UINT32):
        return [0, 1, 2, 7, 16, 21, 22, 99, 2**31 - 1][int(rng.integers(9))]
    small = int(rng.integers(-4, 30))
    if field.type == field.TYPE_UINT64:
        return abs(small)
    return [0, -1, 1, 2**31, 2**62, -(2**63), 2**63 - 1, small, small][int(rng.integers(9))]


def fuzz(data: bytes, path: Path, *, count: int, seed: int) -> Counter[str]:
    """What became of `count` mutations of a file: error code or `loaded`; anything else is raised.

    Every third flips bytes, the others change fields.
    """
    rng = np.random.default_rng(seed)
    outcome: Counter[str] = Counter()
    for number in range(count):
        path.write_bytes(mutate_message(data, rng) if number % 3 else mutate(data, rng))
        try:
            model = ew.load(path)
        except ew.EdgewrightError as problem:
            outcome[problem.code] += 1
        else:
            model.to_proto()
            outcome["loaded"] += 1
    return outcome


def small_file() -> bytes:
    """A valid file with a bit of everything: weights, a subgraph, a function, metadata, an old opset."""
    proto = onnx.parser.parse_model(SMALL)
    weight = np.arange(3 * 2 * 3 * 3, dtype=np.float32).reshape(3, 2, 3, 3)
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.helper.set_model_props(proto, {"edgewright.spec": '{"task": "tensor"}', "author": "nobody"})
    return proto.SerializeToString()


SMALL = """
<ir_version: 8, opset_import: ["" : 12, "local" : 1]>
small (float[N, 2, 8, 8] x) => (float[N, M] y)
<float[1] half = {0.5}, int64[2] flat = {0, -1}>
{
  c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
  r = local.scaled (c, half)
  total = ReduceSum <keepdims = 0> (r)
  zero = Constant <value = float {0}> ()
  positive = Greater (total, zero)
  b = If (positive) <
    then_branch = yes () => (float[N, 3, 8, 8] t) { t = Relu (r) },
    else_branch = no () => (float[N, 3, 8, 8] e) { e = Neg (r) }
  >
  v = Reshape (b, flat)
  y = Softmax <axis = 1> (v)
}
<domain: "local", opset_import: ["" : 12]>
scaled (a, s) => (o) { o = Mul (a, s) }
"""


def main() -> int:
    """Mutate and print the tally."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="a valid ONNX file; a small one by default")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data = arguments.file.read_bytes() if arguments.file else small_file()
    with tempfile.TemporaryDirectory() as folder:
        outcome = fuzz(data, Path(folder) / "fuzz.onnx", count=arguments.count, seed=arguments.seed)
    for result, count in outcome.most_common():
        print(f"{result:>8} {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
