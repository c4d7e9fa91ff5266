"""Operators that treat every value alike: activations, unary and binary arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.ncnn.writing import Param, Weight
from edgewright.graph.dataflow import is_standard, sole_consumer
from edgewright.runtimes.ncnn.network import (
    PLACES,
    Blob,
    Lowering,
    Network,
    UnsupportedError,
    clip_bounds,
    constant,
    dims_of,
    require_constant,
    shape_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

#: Source: Tencent/ncnn, src/layer/unaryop.h.
_UNARY = {
    **{"Abs": 0, "Neg": 1, "Floor": 2, "Ceil": 3, "Sqrt": 5, "Exp": 7, "Log": 8, "Sin": 9, "Cos": 10, "Tan": 11},
    **{"Asin": 12, "Acos": 13, "Atan": 14, "Reciprocal": 15, "Round": 18},
}
#: Source: Tencent/ncnn, src/layer/binaryop.h; the second number is that with the operands exchanged.
_BINARY = {
    **{"Add": (0, 0), "Sub": (1, 7), "Mul": (2, 2), "Div": (3, 8), "Max": (4, 4), "Min": (5, 5), "Pow": (6, 9)},
    **{"Sum": (0, 0)},
}
_SQUARE = 4
#: Source: the ONNX operator Selu.
_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def _attributes(node: ir.Node, *named: tuple[str, float]) -> dict[int, Param]:
    return {number: node.attributes.get_float(name, default) for number, (name, default) in enumerate(named)}


#: ncnn's layer and its parameters for activations.
_ACTIVATIONS: dict[str, tuple[str, Callable[[ir.Node], dict[int, Param]]]] = {
    "Relu": ("ReLU", lambda node: {}),
    "LeakyRelu": ("ReLU", lambda node: _attributes(node, ("alpha", 0.01))),
    "Elu": ("ELU", lambda node: _attributes(node, ("alpha", 1.0))),
    "Celu": ("CELU", lambda node: _attributes(node, ("alpha", 1.0))),
    "Selu": ("SELU", lambda node: _attributes(node, ("alpha", _SELU_ALPHA), ("gamma", _SELU_GAMMA))),
    "Tanh": ("TanH", lambda node: {}),
    "HardSigmoid": ("HardSigmoid", lambda node: _attributes(node, ("alpha", 0.2), ("beta", 0.5))),
    "HardSwish": ("HardSwish", lambda node: {0: 1 / 6, 1: 0.5}),
    "Mish": ("Mish", lambda node: {}),
    "Softplus": ("Softplus", lambda node: {}),
    "Erf": ("Erf", lambda node: {}),
    "Gelu": ("GELU", lambda node: {0: int(node.attributes.get_string("approximate", "none") == "tanh")}),
}


def _lower_activation(network: Network, node: ir.Node) -> None:
    kind, params = _ACTIVATIONS[node.op_type]
    _one(network, node, kind, params(node))


def _lower_sigmoid(network: Network, node: ir.Node) -> None:
    """Sigmoid, or Swish where x times its sigmoid is all that becomes of it."""
    data, reader = node.inputs[0], sole_consumer(node.outputs[0])
    if reader is None or not is_standard(reader, "Mul") or not any(value is data for value in reader.inputs):
        _one(network, node, "Sigmoid", {})
        return
    network.done.add(id(reader))
    assert data is not None
    blob = network.blob(data)
    network.add("Swish", (blob.name,), reader.outputs[0], dims=blob.dims)


def _lower_unary(network: Network, node: ir.Node) -> None:
    _one(network, node, "UnaryOp", {0: _UNARY[node.op_type]})


def _lower_clip(network: Network, node: ir.Node) -> None:
    bounds = clip_bounds(node)
    if bounds is None:
        raise UnsupportedError("its bounds are computed, ncnn takes constants")
    _one(network, node, "Clip", {0: bounds[0], 1: bounds[1]})


def _lower_sign(network: Network, node: ir.Node) -> None:
    """The value times the largest number there is, cut to -1 and 1: only subnormal numbers are not what they should be."""
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    blob = network.blob(data)
    large = network.add_inner("BinaryOp", (blob.name,), made, {0: 2, 1: 1, 2: float(np.finfo(np.float32).max)})
    network.add("Clip", (large,), made, {0: -1.0, 1: 1.0}, dims=blob.dims)


def _one(network: Network, node: ir.Node, kind: str, params: dict[int, Param]) -> None:
    """A layer that makes of each value another one, whatever the blob's sizes."""
    data = node.inputs[0]
    assert data is not None
    blob = network.blob(data)
    network.add(kind, (blob.name,), node.outputs[0], params, dims=blob.dims)


def _lower_prelu(network: Network, node: ir.Node) -> None:
    slope = require_constant(node.inputs[1], "slope")
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    dims = dims_of(shape_of(made))
    kept = _operand_dims(slope.shape, shape_of(made))
    if slope.size > 1 and (kept[0] != slope.size or dims[0] != slope.size):
        raise UnsupportedError(f"its slopes {list(slope.shape)} differ by more than the channel")
    weights = (Weight(slope.reshape(-1)),)
    network.add("PReLU", (network.read(data, dims),), made, {0: slope.size}, weights, dims=dims)


def _lower_binary(network: Network, node: ir.Node) -> None:
    """Add and its like, of two operands or more."""
    values = [value for value in node.inputs if value is not None]
    if node.op_type == "Pow" and _scalar(values[1]) == 2 and shape_of(values[0]) == shape_of(node.outputs[0]):
        _one(network, node, "UnaryOp", {0: _SQUARE})
        return
    if len(values) == 1:
        network.alias(node.outputs[0], network.blob(values[0]))
        return
    blob = None
    for number, value in enumerate(values[1:], start=1):
        first: ir.Value | Blob = values[0] if blob is None else blob
        blob = _pair(network, node, first, value, last=number == len(values) - 1)


def _pair(network: Network, node: ir.Node, first: ir.Value | Blob, second: ir.Value, *, last: bool) -> Blob:
    """One BinaryOp layer; it makes the node's result where it is the `last`."""
    made = node.outputs[0]
    shape = shape_of(made)
    forward, backward = _BINARY[node.op_type]
    operands = [first, second]
    scalars = [None if isinstance(item, Blob) else _scalar(item) for item in operands]
    number = 1 if scalars[1] is not None else 0 if scalars[0] is not None else None
    if number is not None:
        other = operands[1 - number]
        blob = other if isinstance(other, Blob) else network.blob(other)
        if math.prod(blob.dims) == math.prod(shape):
            params: dict[int, Param] = {0: forward if number == 1 else backward, 1: 1, 2: scalars[number] or 0.0}
            return _layer(network, (blob.name,), made, params, blob.dims, last=last)
    known = [item for item in operands if isinstance(item, Blob) or constant(item) is None]
    blobs = [item if isinstance(item, Blob) else network.blob(item) for item in known]
    if len(blobs) == 2 and blobs[0].dims == blobs[1].dims and math.prod(blobs[0].dims) == math.prod(shape):
        names: list[str] = [blob.name for blob in blobs]  # values meet in order, whatever the sizes
        return _layer(network, names, made, {0: forward}, blobs[0].dims, last=last)
    names = [_operand(network, item, shape) for item in operands]
    return _layer(network, names, made, {0: forward}, dims_of(shape), last=last)


def _layer(
    network: Network,
    names: tuple[str, ...] | list[str],
    made: ir.Value,
    params: dict[int, Param],
    dims: tuple[int, ...],
    *,
    last: bool,
) -> Blob:
    if last:
        network.add("BinaryOp", names, made, params, dims=dims)
        return network.blob(made)
    return Blob(network.add_inner("BinaryOp", names, made, params), dims)


def _operand(network: Network, item: ir.Value | Blob, shape: tuple[int, ...]) -> str:
    """The operand with as many axes as the result."""
    if isinstance(item, Blob):
        return network.reshaped(item, dims_of(shape)).name
    array = constant(item)
    dims = _operand_dims(shape_of(item), shape)
    if array is not None:
        return network.reshaped(network.blob(item), dims).name
    return network.read(item, dims)


def _operand_dims(shape: tuple[int, ...], result: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of an operand under those of the result, which broadcasts to the right.

    Raises:
        UnsupportedError: Where the result has more axes than ncnn.
    """
    aligned = (1,) * (len(result) - len(shape)) + tuple(shape)
    dims = dims_of(result)
    kept = aligned[len(aligned) - len(dims) :]
    if len(aligned) - len(dims) > 1 or math.prod(kept) != math.prod(shape):
        if tuple(shape) == tuple(result):
            return dims
        raise UnsupportedError(f"ncnn cannot broadcast {list(shape)} to {list(result)}")
    return kept


def _scalar(value: ir.Value) -> float | None:
    array = constant(value)
    return float(array.reshape(())) if array is not None and array.size == 1 and np.isfinite(array).all() else None


def _lower_same(network: Network, node: ir.Node) -> None:
    """What hands its input on; Cast between floats, which the file knows no difference of."""
    data = node.inputs[0]
    assert data is not None
    if node.op_type in ("Cast", "CastLike"):
        kinds = {"FLOAT", "FLOAT16"}
        producer = data.producer()
        places = producer is not None and is_standard(producer, *PLACES)
        types = {value.dtype.name for value in (data, node.outputs[0])[places:] if value.dtype is not None}
        if not types <= kinds:
            raise UnsupportedError("ncnn has float tensors only")
    if is_standard(node, "Dropout") and len(node.outputs) > 1 and node.outputs[1].uses():
        raise UnsupportedError("its mask is used")
    network.alias(node.outputs[0], network.blob(data))


LOWERINGS: dict[str, Lowering] = {
    **dict.fromkeys(_ACTIVATIONS, _lower_activation),
    **dict.fromkeys(_UNARY, _lower_unary),
    **dict.fromkeys(_BINARY, _lower_binary),
    **dict.fromkeys(("Cast", "CastLike", "Dropout", "Identity"), _lower_same),
    "Clip": _lower_clip,
    "Sigmoid": _lower_sigmoid,
    "Sign": _lower_sign,
    "PRelu": _lower_prelu,
}
