"""Writing of `model.tflite`: a network of named tensors and operators as a flatbuffer.

Source: the TensorFlow Lite schema (`schema.fbs`, version 3), as `ai_edge_litert.schema_py_generated` has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.errors import EdgewrightError

_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
#: Constants start at multiples of this, as the schema's `force_align` asks: kernels load whole vectors from them.
_ALIGNMENT = 16
#: Offsets of a flatbuffer are signed 32-bit numbers.
_LARGEST_FILE = 2**31 - 2**20
#: Room for all that is not constants, before the builder has to move what it has.
_SLACK = 2**20
#: Numpy dtype name -> name in the schema's TensorType.
TYPES = {
    "float32": "FLOAT32", "float16": "FLOAT16", "int32": "INT32", "uint8": "UINT8", "int64": "INT64", "bool": "BOOL",
    "int16": "INT16", "int8": "INT8",
}  # fmt: skip
#: Operators whose options are not called like themselves: CONV_2D has Conv2DOptions, but MEAN has ReducerOptions.
_OPTIONS = {
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), "Pool2D"),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"), "Reducer"),
    **dict.fromkeys(("MINIMUM", "MAXIMUM"), "MaximumMinimum"),
    "PADV2": "PadV2",
    "TOPK_V2": "TopKV2",
    "SELECT_V2": "SelectV2",
}
#: Fields whose numbers have names.
_ENUMERATIONS = {"padding": "Padding", "fusedActivationFunction": "ActivationFunctionType", "mode": "MirrorPadMode"}


@dataclass(frozen=True, eq=False)
class Quantization:
    """real = (integer - zero_point) * scale; one of each for all, or for each index of `axis`.

    Attributes:
        scale: f32[1] or f32[C].
        zero_point: i64[1] or i64[C].
        axis: Of the tensor as it lies in the file.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0


@dataclass(eq=False)
class Tensor:
    """A tensor of the file.

    Attributes:
        name: Its name; need not be unique for the format, but is where people ask for tensors by name.
        dtype: numpy's name of its type.
        shape: Sizes, those that may change at their first value.
        signature: The same with -1 for sizes that may change; None where none may.
        data: The values of a constant.
        quantization: What its integers mean.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    signature: tuple[int, ...] | None = None
    data: np.ndarray | None = None
    quantization: Quantization | None = None


@dataclass(eq=False)
class Operator:
    """One builtin operator, by its name in the schema ("CONV_2D"), with its options by their field names."""

    kind: str
    inputs: Sequence[Tensor | None]
    outputs: Sequence[Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1


@dataclass
class Network:
    """What a file holds: operators in the order in which they run, and text by key beside them."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    operators: list[Operator]
    metadata: dict[str, bytes] = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        """Every tensor once, inputs first, then in the order in which operators name them."""
        found = dict.fromkeys(self.inputs)
        for operator in self.operators:
            found |= dict.fromkeys(tensor for tensor in (*operator.inputs, *operator.outputs) if tensor is not None)
        return list(found | dict.fromkeys(self.outputs))


def write(network: Network, path: Path) -> None:
    """Write `network`; memory beside the constants themselves is about their size once more.

    Raises:
        EdgewrightError: E105 where the file cannot be written, or would be larger than the format's 2 GiB.
    """
    packed = pack(as_document(network))
    try:
        with path.open("wb") as file:
            file.write(packed)
    except OSError as problem:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise EdgewrightError("E105", f"`{path}` cannot be written: {problem.strerror or problem}") from None


def pack(document: Any) -> memoryview:
    """The bytes of a file, from a `ModelT` of the schema's object interface.

    Raises:
        EdgewrightError: E105 for more than the format's 2 GiB.
    """
    import flatbuffers

    arrays = [buffer.data for buffer in document.buffers]
    total = sum(len(data) + _ALIGNMENT for data in arrays if data is not None)
    if total > _LARGEST_FILE:
        raise EdgewrightError("E105", f"a .tflite file holds at most 2 GiB, but the constants alone have {total} bytes")
    shallow = type(document)()
    shallow.__dict__.update(document.__dict__)
    shallow.buffers = [_Buffer(data) for data in arrays]
    builder = flatbuffers.Builder(total + _SLACK)
    builder.Finish(shallow.Pack(builder), file_identifier=_IDENTIFIER)
    return memoryview(builder.Bytes)[builder.Head() :]


def as_document(network: Network) -> Any:
    """`network` as a `ModelT` of the schema's object interface; constants are shared, not copied."""
    from ai_edge_litert import schema_py_generated as schema

    document = schema.ModelT(version=_SCHEMA_VERSION, description="edgewright")
    document.buffers = [schema.BufferT()]  # the first one is empty, for all that is no constant
    tensors = network.tensors()
    numbers = {tensor: number for number, tensor in enumerate(tensors)}
    graph = schema.SubGraphT(name="main")
    graph.tensors = [_tensor(tensor, document, schema) for tensor in tensors]
    graph.inputs = [numbers[tensor] for tensor in network.inputs]
    graph.outputs = [numbers[tensor] for tensor in network.outputs]
    codes: dict[tuple[str, int], int] = {}
    graph.operators = [_operator(operator, numbers, codes, schema) for operator in network.operators]
    document.operatorCodes = [_code(kind, version, schema) for kind, version in codes]
    document.subgraphs = [graph]
    document.metadata = []
    for key, text in network.metadata.items():
        document.metadata.append(schema.MetadataT(name=key, buffer=len(document.buffers)))
        document.buffers.append(schema.BufferT(data=np.frombuffer(text, np.uint8)))
    return document


class _Buffer:
    """A constant's bytes, aligned; the generated code aligns them to single bytes."""

    def __init__(self, data: np.ndarray | None) -> None:
        self._data = data

    def Pack(self, builder: Any) -> int:  # noqa: N802 (the generated code calls it so)
        from ai_edge_litert import schema_py_generated as schema

        place = None
        if self._data is not None:
            count = len(self._data)
            builder.StartVector(1, count, _ALIGNMENT)
            builder.head -= count
            memoryview(builder.Bytes)[builder.head : builder.head + count] = self._data.data
            place = builder.EndVector()
        schema.BufferStart(builder)
        if place is not None:
            schema.BufferAddData(builder, place)
        end: int = schema.BufferEnd(builder)
        return end


def _tensor(tensor: Tensor, document: Any, schema: Any) -> Any:
    made = schema.TensorT(
        name=tensor.name,
        type=getattr(schema.TensorType, TYPES[tensor.dtype]),
        shape=np.array(tensor.shape, np.int32),
        hasRank=True,
    )
    if tensor.signature is not None:
        made.shapeSignature = np.array(tensor.signature, np.int32)
    if tensor.data is not None:
        made.buffer = len(document.buffers)
        flat = np.ascontiguousarray(tensor.data).reshape(-1).view(np.uint8)
        document.buffers.append(schema.BufferT(data=flat))
    if tensor.quantization is not None:
        made.quantization = schema.QuantizationParametersT(
            scale=tensor.quantization.scale.astype(np.float32),
            zeroPoint=tensor.quantization.zero_point.astype(np.int64),
            quantizedDimension=tensor.quantization.axis,
        )
    return made


def _operator(operator: Operator, numbers: Mapping[Tensor, int], codes: dict[tuple[str, int], int], schema: Any) -> Any:
    made = schema.OperatorT(opcodeIndex=codes.setdefault((operator.kind, operator.version), len(codes)))
    made.inputs = np.array([-1 if tensor is None else numbers[tensor] for tensor in operator.inputs], np.int32)
    made.outputs = np.array([numbers[tensor] for tensor in operator.outputs], np.int32)
    stem = _OPTIONS.get(operator.kind) or "".join(part.capitalize() for part in operator.kind.split("_"))
    stem = {name.lower(): name for name in dir(schema) if name.endswith("OptionsT")}.get(f"{stem.lower()}optionst", "")
    assert stem or not operator.options, f"{operator.kind} has no options"
    if stem:
        made.builtinOptionsType = getattr(schema.BuiltinOptions, stem.removesuffix("T"))
        made.builtinOptions = getattr(schema, stem)()
        for key, value in operator.options.items():
            assert hasattr(made.builtinOptions, key), f"{stem} has no field {key}"
            named = isinstance(value, str) and key in _ENUMERATIONS
            setattr(made.builtinOptions, key, getattr(getattr(schema, _ENUMERATIONS[key]), value) if named else value)
    return made


def _code(kind: str, version: int, schema: Any) -> Any:
    number = getattr(schema.BuiltinOperator, kind)
    # The old field holds one byte; readers take the larger of the two.
    return schema.OperatorCodeT(deprecatedBuiltinCode=min(number, 127), builtinCode=number, version=version)
