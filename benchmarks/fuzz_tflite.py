"""Mutates .tflite files many times: the importer loads what comes out, or refuses it with an EdgewrightError.

    python benchmarks/fuzz_tflite.py [--count N] [--seed S] FILE...

Files are cut short, bytes are changed, and the numbers that lead from place to place are set to others: small ones, huge ones,
those of another place. Every other mutation is of what the file says: options, shapes, types, kinds and operands of operators
take other values, by the classes that LiteRT's package has for the schema. Prints how many were loaded and how many refused, by
code, the most memory that one load took and the longest time; any other exception stops it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
from fuzzing import Outcome, load_all

import edgewright as ew

_SIZES = (0, 1, 2, 3, 6, 9, 1000, 2**31 - 1)
_OPTIONS = (-(2**31), -100, -3, -2, -1, 0, 1, 2, 3, 5, 100, 2**16, 2**31 - 1)
_NUMBERS = (0, 1, 2, 3, 4, 8, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 4)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """The file cut short, or with a few bytes or numbers changed."""
    broken = bytearray(data)
    kind = int(rng.integers(0, 8))
    if kind == 0:
        return bytes(broken[: int(rng.integers(0, len(broken)))])
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, len(broken) - 8))
        if kind <= 3:
            broken[at] = int(rng.integers(0, 256))
        elif kind <= 5:  # a number, where numbers lie
            at -= at % 4
            broken[at : at + 4] = int(_NUMBERS[int(rng.integers(len(_NUMBERS)))]).to_bytes(4, "little")
        elif kind == 6:  # an offset that leads a little further or less far
            at -= at % 4
            moved = int.from_bytes(broken[at : at + 4], "little") + 4 * int(rng.integers(-8, 9))
            broken[at : at + 4] = (moved % 2**32).to_bytes(4, "little")
        else:  # one place copied over another
            other = int(rng.integers(0, len(broken) - 8))
            broken[at : at + 8] = broken[other : other + 8]
    return bytes(broken)


def mutate_network(data: bytes, rng: np.random.Generator) -> bytes:
    """A well-formed file in which a few operators and tensors say something else."""
    import ai_edge_litert.schema_py_generated as schema
    import flatbuffers

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    graph = model.subgraphs[0]
    for _ in range(int(rng.integers(1, 4))):
        operator = graph.operators[int(rng.integers(len(graph.operators)))]
        tensor = graph.tensors[int(rng.integers(len(graph.tensors)))]
        kind = int(rng.integers(0, 7))
        if kind == 0 and operator.builtinOptions is not None:
            _change_option(operator.builtinOptions, rng)
        elif kind == 1 and len(operator.inputs):
            operator.inputs = list(operator.inputs)
            operator.inputs[int(rng.integers(len(operator.inputs)))] = int(rng.integers(-1, len(graph.tensors)))
        elif kind == 2:
            operator.opcodeIndex = int(rng.integers(len(model.operatorCodes)))
        elif kind == 3:
            tensor.type = int(rng.integers(0, 19))
        elif kind == 4:
            tensor.shape = [int(rng.choice(_SIZES)) for _ in range(int(rng.integers(0, 6)))]
            tensor.shapeSignature = None
        elif kind == 5:
            _change_constant(model, tensor, rng)
        elif kind == 6:
            steps = tensor.quantization = schema.QuantizationParametersT()
            steps.scale = rng.choice([0.5, 1e-30, 0.0, -1.0, np.nan, np.inf], 1).astype(np.float32)
            steps.zeroPoint = rng.choice([0, -128, 255, 2**40], 1).astype(np.int64)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _change_option(options: object, rng: np.random.Generator) -> None:
    names = [name for name, value in vars(options).items() if isinstance(value, int | float)]
    if names:
        name = names[int(rng.integers(len(names)))]
        integral = isinstance(getattr(options, name), int)
        narrow = name.endswith(("Type", "Format", "Function", "padding", "mode"))
        value = int(rng.choice([-1, 0, 1, 2, 5, 100] if narrow else _OPTIONS))
        setattr(
            options,
            name,
            bool(value) if isinstance(getattr(options, name), bool) else value if integral else float(value),
        )


def _change_constant(model: object, tensor: object, rng: np.random.Generator) -> None:
    """Other values, of small integers where the constant is of integers."""
    buffer = model.buffers[tensor.buffer]  # type: ignore[attr-defined]
    if buffer.data is not None and len(buffer.data) % 4 == 0:
        values = np.array(buffer.data, np.uint8).view(np.int32).copy()
        values[int(rng.integers(len(values)))] = int(rng.choice(_OPTIONS))
        buffer.data = values.view(np.uint8)


def fuzz(data: bytes, folder: Path, *, count: int, seed: int) -> Outcome:
    """What became of `count` mutations of a file, the last of which is left in `folder`.

    Raises:
        AssertionError: A load took more memory than a few times the file.
    """
    rng, path = np.random.default_rng(seed), folder / "fuzz.tflite"
    path.write_bytes(data)
    ew.load(path)  # what is imported along the way is no memory of a load

    def load(number: int) -> ew.Model:
        path.write_bytes((mutate, mutate_network)[number % 2](data, rng))
        tracemalloc.reset_peak()  # nor is what the mutation took
        return ew.load(path)

    return load_all(load, count, limit_bytes=64_000_000 + 16 * len(data), files=folder)


def main() -> int:
    """Mutate and print the tally."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="valid .tflite files")
    parser.add_argument("--count", type=int, default=2_000, help="mutations of each")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="edgewright-"))
    for file in arguments.files:
        outcome = fuzz(file.read_bytes(), folder, count=arguments.count, seed=arguments.seed)
        print(f"{file.name}: {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
