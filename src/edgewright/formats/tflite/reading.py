"""A .tflite file as records: tensors, their data, and operators with their options.

Nothing is copied: data of tensors are views of the file's bytes. Sizes are checked against the data before anything is made.

Source: tensorflow/lite/schema/schema.fbs, version 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.files import read_whole
from edgewright.formats.tflite.flatbuffer import Buffer, Table
from edgewright.formats.tflite.schema import OPERATORS, OPTIONS, TYPES

IDENTIFIER = b"TFL3"
VERSION = 3
#: A mebibyte over the 2 GiB that offsets reach, where buffers may lie beyond; more is no network for a phone.
_LARGEST_BYTES = 2**33
_BITS = {"int4": 4, "uint4": 4, "int2": 2, "bfloat16": 16, "bool": 8, "complex64": 64, "complex128": 128,
         "float8_e4m3fn": 8, "float8_e5m2": 8}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Quantization:
    """real = scale * (stored - zero_point).

    Attributes:
        scale: f32[1], or one for each index of `axis`.
        zero_point: i64 of the same size.
        axis: The quantized dimension where there are several scales.
        special: True for schemes beyond this, such as by blocks.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int
    special: bool


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a subgraph.

    Attributes:
        index: Its number.
        name: As stored: may be empty, or another tensor's as well.
        dtype: Of `schema.TYPES`.
        shape: Sizes.
        signature: The same with -1 where a size may change; `shape` where the file has none.
        data: Its bytes, u8; None where it is computed or fed.
        quantization: Steps, where it is quantized.
        variable: True for a state that outlives a run.
        sparse: True where only the values that are not zero are stored.
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    data: np.ndarray | None
    quantization: Quantization | None
    variable: bool
    sparse: bool

    def __str__(self) -> str:
        return f"`{self.name}`" if self.name else f"tensor {self.index}"


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator: what it reads, makes and is told.

    Attributes:
        index: Its number, in the order in which operators run.
        kind: Of `schema.OPERATORS`, or `operator 210` for one that is newer.
        custom: Name of a custom operator, else empty.
        inputs: Indices of tensors; -1 for one that is left out.
        outputs: Indices of tensors.
        options: The fields that are stored, by name.
        options_name: Which options these are; empty without any.
    """

    index: int
    kind: str
    custom: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    options_name: str = ""


@dataclass(frozen=True, eq=False)
class File:
    """What a .tflite file holds; of its subgraphs the first, which is the one that runs.

    Attributes:
        description: What the writer says of itself.
        subgraphs: How many there are.
        tensors: By index.
        operators: In order.
        inputs: Indices of tensors.
        outputs: Indices of tensors.
        signatures: Signature key -> name of an input or output -> index of the tensor.
        metadata: What else is stored: name -> its bytes, u8.
        content: The whole file: what is packed behind the FlatBuffer is for `metadata.labels`.
    """

    description: str
    subgraphs: int
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    signatures: Mapping[str, Mapping[str, int]]
    metadata: Mapping[str, np.ndarray]
    content: bytes


def read(path: Path) -> File:
    """The contents of the file at `path`.

    Raises:
        EdgewrightError: E104 when it cannot be read, E201 when it is no TFLite file or cut short, E202 when a tensor's size
            does not fit its data.
    """
    data = read_whole(
        path, "a .tflite file", _LARGEST_BYTES, lambda why: EdgewrightError("E201", f"`{path.name}`: {why}")
    )
    buffer = Buffer(data, path.name, "TFLite")
    if len(buffer.data) < 8 or buffer.data[4:8] != IDENTIFIER:
        raise buffer.refuse(f"it does not say {IDENTIFIER.decode()} at byte 4")
    root = buffer.root()
    version = root.integer(0, "uint32")
    if version != VERSION:
        raise buffer.refuse(f"its schema has version {version}, not {VERSION}")
    subgraphs = root.tables(2)
    if not subgraphs:
        raise buffer.refuse("it has no subgraph")
    main = subgraphs[0]
    buffers = [_data(table, buffer) for table in root.tables(4)]
    tensors = tuple(_tensor(index, table, buffers, buffer) for index, table in enumerate(main.tables(0)))
    codes = [_code(table) for table in root.tables(1)]
    operators = tuple(
        _operator(index, table, codes, len(tensors), buffer) for index, table in enumerate(main.tables(3))
    )
    inputs, outputs = (_indices(main.integers(slot), len(tensors), "the subgraph", buffer) for slot in (1, 2))
    return File(
        description=root.text(3),
        subgraphs=len(subgraphs),
        tensors=tensors,
        operators=operators,
        inputs=inputs,
        outputs=outputs,
        signatures=_signatures(root, len(tensors), buffer),
        metadata=_metadata(root, buffers),
        content=data,
    )


def _data(table: Table, buffer: Buffer) -> np.ndarray:
    """The bytes of one buffer, which may lie behind the FlatBuffer in files beyond 2 GiB."""
    data = table.array(0, "uint8")
    start, size = table.integer(1, "uint64"), table.integer(2, "uint64")
    if len(data) or start <= 1:  # 0 and 1 are what writers put there before they know
        return data
    if start + size > len(buffer.data):
        raise buffer.refuse(f"a buffer's {size} bytes from byte {start} end behind the file")
    return np.frombuffer(buffer.data, np.uint8, size, start)


def _metadata(root: Table, buffers: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Entries by name; those that name no buffer are empty."""
    found = {}
    for table in root.tables(6):
        at = table.integer(1, "uint32")
        found[table.text(0)] = buffers[at] if at < len(buffers) else np.zeros(0, np.uint8)
    return found


def _tensor(index: int, table: Table, buffers: list[np.ndarray], buffer: Buffer) -> Tensor:
    number = table.integer(1, "int8")
    if not 0 <= number < len(TYPES):
        raise buffer.refuse(f"tensor {index} is of type {number}, the schema ends at {len(TYPES) - 1}")
    shape = table.integers(0)
    at = table.integer(2, "uint32")
    if at and at >= len(buffers):
        raise buffer.refuse(f"tensor {index} has buffer {at} of {len(buffers)}")
    data = buffers[at] if at and len(buffers[at]) else None
    if table.integer(10, "uint32"):
        raise EdgewrightError("E206", f"`{buffer.name}`: tensor {index} has its data in another file")
    sparse = table.table(6) is not None
    dtype, name = TYPES[number], table.text(3)
    if any(size < 0 for size in shape):
        raise EdgewrightError("E202", f"`{buffer.name}`: tensor {index} `{name}` has the shape {list(shape)}")
    if data is not None and dtype not in ("string", "resource", "variant") and not sparse:
        bits = _BITS.get(dtype) or np.dtype(dtype).itemsize * 8
        size_bytes = (math.prod(shape) * bits + 7) // 8
        if size_bytes != len(data):
            sizes = ", ".join(str(size) for size in shape)
            raise EdgewrightError(
                "E202",
                f"`{buffer.name}`: tensor {index} `{name}`, {dtype}[{sizes}], needs {size_bytes} bytes, but has {len(data)}",
            )
    return Tensor(
        index=index,
        name=name,
        dtype=dtype,
        shape=shape,
        signature=signature if len(signature := table.integers(7)) == len(shape) else shape,
        data=data,
        quantization=_quantization(index, table.table(4), shape, buffer),
        variable=table.integer(5, "bool") != 0,
        sparse=sparse,
    )


def _quantization(index: int, table: Table | None, shape: tuple[int, ...], buffer: Buffer) -> Quantization | None:
    if table is None:
        return None
    special = table.integer(4, "uint8") != 0
    scale, zero = table.array(2, "float32"), table.array(3, "int64")
    if not len(scale) and not special:
        return None  # ranges that a tool has noted down
    axis = table.integer(6, "int32")
    if len(zero) not in (0, 1, len(scale)):
        raise EdgewrightError(
            "E202", f"`{buffer.name}`: tensor {index} has {len(scale)} scales, {len(zero)} zero points"
        )
    if len(scale) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scale)):
        raise EdgewrightError(
            "E202", f"`{buffer.name}`: tensor {index} of shape {list(shape)} has {len(scale)} scales along axis {axis}"
        )
    if not len(zero):
        zero = np.zeros(len(scale), np.int64)
    return Quantization(scale, np.broadcast_to(zero, scale.shape), axis, special)


def _code(table: Table) -> tuple[str, str]:
    """Kind and custom name. Old writers know only the narrow field, new ones fill both."""
    number = max(table.integer(0, "int8"), table.integer(3, "int32"))
    kind = OPERATORS[number] if 0 <= number < len(OPERATORS) else f"operator {number}"
    return kind, table.text(1)


def _operator(index: int, table: Table, codes: list[tuple[str, str]], tensors: int, buffer: Buffer) -> Operator:
    at = table.integer(0, "uint32")
    if at >= len(codes):
        raise buffer.refuse(f"operator {index} has code {at} of {len(codes)}")
    kind, custom = codes[at]
    what = f"operator {index} {kind}"
    options_name, fields = OPTIONS.get(table.integer(3, "uint8"), ("", ()))
    stored = table.table(4) if fields else None
    return Operator(
        index=index,
        kind=kind,
        custom=custom,
        inputs=_indices(table.integers(1), tensors, what, buffer, lowest=-1),
        outputs=_indices(table.integers(2), tensors, what, buffer),
        options=_options(stored, fields) if stored else {},
        options_name=options_name,
    )


def _options(table: Table, fields: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for slot, (name, kind) in enumerate(fields):
        if kind == "[int32]":
            found[name] = table.integers(slot)
        elif kind == "float32":
            found[name] = table.number(slot, kind)
        else:
            default = 1 if name.startswith("dilation") else 0
            found[name] = table.integer(slot, kind, default)
    return found


def _indices(values: tuple[int, ...], tensors: int, what: str, buffer: Buffer, *, lowest: int = 0) -> tuple[int, ...]:
    for value in values:
        if not lowest <= value < tensors:
            raise buffer.refuse(f"{what} names tensor {value} of {tensors}")
    return values


def _signatures(root: Table, tensors: int, buffer: Buffer) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for table in root.tables(7):
        if table.integer(4, "uint32") == 0:
            maps = [*table.tables(0), *table.tables(1)]
            pairs = {item.text(0): item.integer(1, "uint32") for item in maps}
            _indices(tuple(pairs.values()), tensors, f"signature `{table.text(2)}`", buffer)
            found[table.text(2)] = pairs
    return found
