"""Recognising binary layers: the signs that they read, their weights, and how they go over their input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.graph.dataflow import constant_array, is_standard

if TYPE_CHECKING:
    import onnx_ir as ir

#: What numpy calls float32: weights of other types are computed in other types.
_FLOAT = np.dtype(np.float32)


@dataclass(frozen=True)
class Signs:
    """`Where(Less(source, threshold), -1, 1)`.

    Attributes:
        value: What `Where` makes.
        node: That node.
        less: The node that compares.
        threshold: f32[1] or f32[C].
    """

    value: ir.Value
    node: ir.Node
    less: ir.Node
    threshold: np.ndarray

    @property
    def source(self) -> ir.Value:
        """What is compared, as it is now: a layer that was lowered makes another value."""
        source = self.less.inputs[0]
        assert source is not None
        return source


@dataclass(frozen=True, eq=False)
class Layer:
    """One binary layer.

    Attributes:
        node: The Conv, Gemm or MatMul.
        operator: What it becomes: BinaryConv or BinaryLinear.
        signs: What it reads.
        weight: Its float weights.
        bits: bool[M, kh, kw, C / group] or bool[M, C], true for -1.
        magnitude: f32[M], absolute value of each filter's weights.
        bias: f32[M], or None.
        channels: C.
        attributes: Of the operator.
    """

    node: ir.Node
    operator: str
    signs: Signs
    weight: ir.Value
    bits: np.ndarray
    magnitude: np.ndarray
    bias: np.ndarray | None
    channels: int
    attributes: dict[str, Any]

    @property
    def filters(self) -> int:
        """M."""
        return len(self.bits)

    @property
    def terms(self) -> int:
        """Products in a dot product."""
        return int(np.prod(self.bits.shape[1:]))


def per_channel(value: ir.Value | None, rank: int) -> np.ndarray | None:
    """A constant f32 as f32[1] or f32[C], where it broadcasts along nothing but axis 1 of a tensor of `rank` axes."""
    array = constant_array(value)
    if array is None or array.dtype != _FLOAT or array.ndim > rank or not array.size:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    return array.reshape(-1)


def signs_of(value: ir.Value | None) -> Signs | None:
    """The signs that `value` is, or, where it is compared by one reader alone, that are made of it; else None."""
    node = None if value is None else value.producer()
    if value is None or node is None:
        return None
    if not is_standard(node, "Where"):
        return _signs_made_of(value)
    less = None if node.inputs[0] is None else node.inputs[0].producer()
    values = [constant_array(item) for item in node.inputs[1:]]
    if less is None or not is_standard(less, "Less") or not _are(values, (-1.0, 1.0)):
        return None
    source = less.inputs[0]
    rank = None if source is None or source.shape is None else source.shape.rank()
    threshold = None if rank is None else per_channel(less.inputs[1], rank)
    if source is None or threshold is None or constant_array(source) is not None:
        return None
    return Signs(value, node, less, threshold)


def _signs_made_of(value: ir.Value) -> Signs | None:
    for _ in range(2):  # Less, Where
        uses = tuple(value.uses())
        if len(uses) != 1 or value.is_graph_output() or uses[0].idx != 0:
            return None
        value = uses[0].node.outputs[0]
    node = value.producer()
    return signs_of(value) if node is not None and is_standard(node, "Where") else None


def _are(arrays: list[np.ndarray | None], wanted: tuple[float, ...]) -> bool:
    return all(
        array is not None and array.dtype == _FLOAT and array.size == 1 and float(array.reshape(-1)[0]) == number
        for array, number in zip(arrays, wanted, strict=True)
    )


def readers(value: ir.Value) -> Iterator[ir.Node]:
    """Who reads signs, at once or through a padding; a graph that returns them counts as `Where` itself."""
    producer = value.producer()
    if value.is_graph_output() and producer is not None:
        yield producer
    for use in value.uses():
        if is_standard(use.node, "Pad") and use.idx == 0:
            yield from readers(use.node.outputs[0])
        else:
            yield use.node


def layer_of(node: ir.Node) -> Layer | str | None:
    """The binary layer that `node` is; why it is none although it reads signs; None for everything else."""
    if not is_standard(node, "Conv", "Gemm", "MatMul"):
        return None
    pad, value = None, node.inputs[0]
    producer = None if value is None else value.producer()
    if is_standard(node, "Conv") and producer is not None and is_standard(producer, "Pad"):
        pad, value = producer, producer.inputs[0]
    signs = signs_of(value) if value is not None and _is_where(value) else None
    weight = node.inputs[1]
    array = constant_array(weight)
    if signs is None or weight is None:
        return None
    if array is None or array.dtype != _FLOAT:
        return "its weights are computed in the graph, or are not float32"
    made = _conv(node, pad, array) if is_standard(node, "Conv") else _linear(node, array)
    if isinstance(made, str):
        return made
    filters, channels, attributes = made
    magnitude = np.abs(filters.reshape(len(filters), -1))
    if not (magnitude == magnitude[:, :1]).all() or not (magnitude[:, 0] > 0).all():
        return "its weights have several absolute values in a filter"
    if len(signs.threshold) not in (1, channels) or signs.source.shape is None or signs.source.shape[1] != channels:
        return "what it compares has not as many channels as it multiplies"
    bias = _bias(node, len(filters))
    if isinstance(bias, str):
        return bias
    return Layer(
        node, "BinaryConv" if is_standard(node, "Conv") else "BinaryLinear", signs, weight, filters < 0,
        magnitude[:, 0], bias, channels, attributes,
    )  # fmt: skip


def _is_where(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and is_standard(producer, "Where")


def _conv(node: ir.Node, pad: ir.Node | None, array: np.ndarray) -> tuple[np.ndarray, int, dict[str, Any]] | str:
    """(weights f32[M, kh, kw, C / group], C, attributes), or why not."""
    if array.ndim != 4:
        return f"it has {array.ndim - 2} spatial axes, and binary convolutions have 2"
    get = node.attributes
    if get.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or any(get.get_ints("pads", (0,) * 4) or ()):
        return "zeros are padded between signs: pad with +1 or -1"
    pads, value = ((0,) * 4, 1.0) if pad is None else _padding(pad)
    if value not in (1.0, -1.0):
        return "its padding is no constant sign: pad with +1 or -1"
    group = int(get.get_int("group", 1))
    attributes = {
        "channels": [array.shape[1] * group], "group": group, "strides": [int(n) for n in get.get_ints("strides", (1, 1))],
        "dilations": [int(n) for n in get.get_ints("dilations", (1, 1))], "pads": [int(n) for n in pads],
        "pad_value": float(value),
    }  # fmt: skip
    return np.moveaxis(array, 1, -1), array.shape[1] * group, attributes


def _padding(pad: ir.Node) -> tuple[tuple[int, ...], float]:
    """Pads (top, left, bottom, right) and the value; a value of 0 where they are not constant, or not of pixels alone."""
    inputs = [*pad.inputs, None, None][1:4]
    sizes, value, axes = (constant_array(item) for item in inputs)
    if axes is None and inputs[2] is None:
        axes = np.arange(4)
    constant = pad.attributes.get_string("mode", "constant") == "constant"
    if not constant or sizes is None or value is None or axes is None or value.size != 1:
        return (), 0.0
    around = np.zeros((2, 4), np.int64)
    around[:, axes % 4] = sizes.reshape(2, -1)
    if around[:, :2].any() or (around < 0).any():
        return (), 0.0
    return (*around[0, 2:].tolist(), *around[1, 2:].tolist()), float(value.reshape(-1)[0])


def _linear(node: ir.Node, array: np.ndarray) -> tuple[np.ndarray, int, dict[str, Any]] | str:
    """(weights f32[M, C], C, attributes), or why not."""
    source, get = node.inputs[0], node.attributes
    if array.ndim != 2 or source is None or source.shape is None or source.shape.rank() != 2:
        return "it multiplies by several matrices, or tensors of more than two axes"
    gemm = is_standard(node, "Gemm")
    if gemm and (get.get_int("transA", 0) or get.get_float("alpha", 1.0) != 1 or get.get_float("beta", 1.0) != 1):
        return "it is a Gemm with factors, or of a transposed input"
    filters = array if gemm and get.get_int("transB", 0) else array.T
    return filters, filters.shape[1], {"channels": [filters.shape[1]]}


def _bias(node: ir.Node, filters: int) -> np.ndarray | str | None:
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return None
    # A Conv has a vector, a Gemm what broadcasts to its matrix.
    array = per_channel(node.inputs[2], 2)
    if array is None or len(array) not in (1, filters):
        return "its bias is computed in the graph, or is no number for each filter"
    return np.broadcast_to(array, (filters,))
