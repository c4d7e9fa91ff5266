"""Layers with weights, each as a set of linear maps: y = W x + b over patches of what it reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.contracts import QuantFormat
from edgewright.graph.dataflow import constant_array, is_standard, sole_consumer
from edgewright.graph.int8 import Room, neighbours

if TYPE_CHECKING:
    import onnx_ir as ir

#: Of int8, symmetric.
_LARGEST = 127
#: int32 holds the sum of this many products of a full uint8 and a full int8.
_LONGEST_SUM = (2**31 - 1) // (255 * 127)


@dataclass(frozen=True, eq=False)
class Layer:
    """A node with constant weights that may run in int8.

    Attributes:
        name: The tensor it makes.
        node: The node's name.
        op: Conv, Gemm or MatMul.
        data: The tensor it reads.
        weight: Its weights, in the node's own layout.
        bias: f32[O], or None where it has none.
        adder: The tensor made by the Add that gives a MatMul its bias, or None.
        groups: Groups of a convolution.
        transposed: True for weights stored as [O, K], False for [K, O].
        strides: By spatial axis; so are `dilations`.
        dilations: See `strides`.
        pads: (before, after) by spatial axis; None for "same" padding at the end (upper) or at the start (lower).
        pad_rule: The attribute auto_pad.
    """

    name: str
    node: str
    op: str
    data: str
    weight: np.ndarray
    bias: np.ndarray | None
    adder: str | None = None
    groups: int = 1
    transposed: bool = True
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[tuple[int, int], ...] = ()
    pad_rule: str = "NOTSET"

    @property
    def axis(self) -> int:
        """Axis of the output channels in `weight`."""
        return 0 if self.transposed else 1

    @property
    def result(self) -> str:
        """The tensor that holds its sums with the bias."""
        return self.adder or self.name

    def room(self, form: QuantFormat) -> Room:
        """The integers that its weights may be."""
        if form.pairs:
            shape = self.weight.shape if self.op == "Conv" else self.rows(self.weight).shape[:0:-1]
            numbers = neighbours(shape, convolution=self.op == "Conv", groups=self.groups)
            if numbers is not None:
                return Room(_LARGEST, numbers)
        return Room(2 ** (form.weight_bits - 1) - 1)

    @property
    def can_shift(self) -> bool:
        """True where the bias can take a correction: a MatMul without an Add after it has none."""
        return self.op != "MatMul" or self.adder is not None

    def rows(self, weight: np.ndarray) -> np.ndarray:
        """Weights as f32[G, O / G, K], one linear map for each group."""
        matrix = weight if self.transposed else weight.T
        outputs = matrix.shape[0]
        return matrix.reshape(self.groups, outputs // self.groups, -1)

    def from_rows(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of `rows`."""
        if self.transposed:
            return rows.reshape(self.weight.shape)
        return rows.reshape(self.weight.shape[::-1]).T

    def patches(self, data: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
        """Up to `limit` of the vectors that the linear maps see, drawn at random: f32[G, P, K]."""
        if self.op != "Conv":
            vectors = data.reshape(-1, data.shape[-1])
            picked: np.ndarray = vectors[_drawn(len(vectors), limit, rng)][None]
            return picked
        view = self._windows(data)  # [N, C, *out, *kernel]
        spatial = len(self.strides)
        sizes = (view.shape[0], *view.shape[2 : 2 + spatial])
        where = np.unravel_index(_drawn(math.prod(sizes), limit, rng), sizes)
        moved: np.ndarray = np.moveaxis(view, 1, 1 + spatial)[where]  # [P, C, *kernel]
        return moved.reshape(len(moved), self.groups, -1).transpose(1, 0, 2)

    def mean_patch(self, data: np.ndarray) -> np.ndarray:
        """Mean of all vectors that the linear maps see, f64[G, K]."""
        if self.op != "Conv":
            mean: np.ndarray = data.reshape(-1, data.shape[-1]).mean(axis=0, dtype=np.float64)
            return mean[None]
        means = self._padded(data)  # [N, C, *in] becomes [N, C, *kernel], one axis after the other
        for place in reversed(range(len(self.strides))):
            axis, step, apart = 2 + place, self.strides[place], self.dilations[place]
            size = self.weight.shape[axis]
            last = (means.shape[axis] - (size - 1) * apart - 1) // step * step
            moved = np.moveaxis(means, axis, -1)
            picks = [moved[..., at : at + last + 1 : step].mean(axis=-1) for at in range(0, size * apart, apart)]
            means = np.stack(picks, axis=axis)
        over_samples: np.ndarray = means.mean(axis=0, dtype=np.float64).reshape(self.groups, -1)
        return over_samples

    def _padded(self, data: np.ndarray) -> np.ndarray:
        extent = self._extent()
        sizes = zip(data.shape[2:], extent, self.strides, self.pads, strict=True)
        pads = [self._pad(size, reach, stride, around) for size, reach, stride, around in sizes]
        return np.pad(data, [(0, 0), (0, 0), *pads]) if any(map(any, pads)) else data

    def _extent(self) -> list[int]:
        return [(size - 1) * step + 1 for size, step in zip(self.weight.shape[2:], self.dilations, strict=True)]

    def _windows(self, data: np.ndarray) -> np.ndarray:
        """A view of `data` as [N, C, *out, *kernel]."""
        axes = tuple(range(2, data.ndim))
        view = np.lib.stride_tricks.sliding_window_view(self._padded(data), self._extent(), axis=axes)
        picks = [slice(None, None, step) for step in (*self.strides, *self.dilations)]
        result: np.ndarray = view[(slice(None), slice(None), *picks)]
        return result

    def _pad(self, size: int, extent: int, stride: int, pads: tuple[int, int]) -> tuple[int, int]:
        if self.pad_rule not in ("SAME_UPPER", "SAME_LOWER"):
            return pads
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        less, more = total // 2, total - total // 2
        return (less, more) if self.pad_rule == "SAME_UPPER" else (more, less)


def find_layers(ir_model: ir.Model, form: QuantFormat) -> tuple[dict[str, Layer], dict[str, str]]:
    """Layers that may run in int8, by the tensor they make, in graph order; and why others may not, likewise."""
    layers: dict[str, Layer] = {}
    refused: dict[str, str] = {}
    for node in ir_model.graph:
        if not is_standard(node, "Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"):
            continue
        name = next(value.name for value in node.outputs if value.name)
        found = _layer(node, form) if node.op_type in form.layers else "the runtime has no static int8 form of it"
        if isinstance(found, Layer):
            layers[name] = found
        elif found:
            refused[name] = found
    return layers, refused


def absorbed(value: ir.Value) -> ir.Value:
    """What a quantized layer really hands on: `value`, or what the Relu or Clip from 0 that alone reads it makes of it.

    Quantization to a range that starts at 0 does what they do, so runtimes fuse them.
    """
    reader = sole_consumer(value)
    if reader is None:
        return value
    if is_standard(reader, "Relu"):
        return reader.outputs[0]
    if is_standard(reader, "Clip") and reader.inputs[0] is value and len(reader.inputs) > 1:
        low = constant_array(reader.inputs[1])
        if low is not None and low.size == 1 and float(low.reshape(())) == 0:
            return reader.outputs[0]
    return value


def _layer(node: ir.Node, form: QuantFormat) -> Layer | str:
    """The layer, or why the node cannot be one; empty for a product of two activations, which is no layer."""
    weight = constant_array(node.inputs[1])
    if weight is None or constant_array(node.inputs[0]) is not None:
        return "" if node.op_type == "MatMul" else "its weights are computed"
    if weight.dtype != np.float32:
        return f"its weights are {weight.dtype}"
    if not np.isfinite(weight).all():
        return "its weights hold NaN or infinity"
    if node.op_type == "Conv":
        return _convolution(node, weight, form)
    return _linear(node, weight)


def _common(node: ir.Node) -> dict[str, Any]:
    data, result = node.inputs[0], node.outputs[0]
    assert data is not None
    assert data.name is not None
    assert result.name is not None
    return {"name": result.name, "node": node.name or result.name, "op": node.op_type, "data": data.name}


def _convolution(node: ir.Node, weight: np.ndarray, form: QuantFormat) -> Layer | str:
    spatial = weight.ndim - 2
    if spatial not in form.spatial_axes:
        return f"the runtime has no int8 convolution of {spatial} spatial axes"
    if not form.grouped and _groups(node) > 1 and weight.shape[:2] != (_groups(node), 1):
        return "the runtime has no int8 convolution of groups of several channels"
    bias = _bias(node)
    if isinstance(bias, str):
        return bias
    if math.prod(weight.shape[1:]) > _LONGEST_SUM:
        return "its sums may leave int32"
    flat = node.attributes.get_ints("pads", [0] * 2 * spatial)
    return Layer(
        **_common(node),
        weight=weight,
        bias=bias,
        groups=_groups(node),
        strides=tuple(node.attributes.get_ints("strides", [1] * spatial)),
        dilations=tuple(node.attributes.get_ints("dilations", [1] * spatial)),
        pads=tuple(zip(flat[:spatial], flat[spatial:], strict=True)),
        pad_rule=node.attributes.get_string("auto_pad", "NOTSET"),
    )


def _groups(node: ir.Node) -> int:
    groups: int = node.attributes.get_int("group", 1)
    return groups


def _linear(node: ir.Node, weight: np.ndarray) -> Layer | str:
    if weight.ndim != 2:
        return f"its weights have {weight.ndim} axes"
    if node.op_type == "MatMul":
        adder, added = _added(node, weight.shape[1])
        return Layer(**_common(node), weight=weight, bias=added, adder=adder, transposed=False)
    if node.attributes.get_int("transA", 0):
        return "it transposes its input"
    if node.attributes.get_float("alpha", 1.0) != 1 or node.attributes.get_float("beta", 1.0) != 1:
        return "its alpha or beta is not 1"
    transposed = bool(node.attributes.get_int("transB", 0))
    outputs = weight.shape[0 if transposed else 1]
    if weight.size // outputs > _LONGEST_SUM:
        return "its sums may leave int32"
    bias = _bias(node)
    if isinstance(bias, str):
        return bias
    if bias is not None and bias.size not in (1, outputs):
        return "its bias differs by row"
    spread = None if bias is None else np.broadcast_to(bias.reshape(-1), (outputs,))
    return Layer(**_common(node), weight=weight, bias=spread, transposed=transposed)


def _bias(node: ir.Node) -> np.ndarray | str | None:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return None
    bias = constant_array(value)
    if bias is None:
        return "its bias is computed"
    return bias if np.isfinite(bias).all() else "its bias holds NaN or infinity"


def _added(node: ir.Node, outputs: int) -> tuple[str | None, np.ndarray | None]:
    """The Add of a constant vector that alone reads the product, and the vector."""
    reader = sole_consumer(node.outputs[0])
    if reader is None or not is_standard(reader, "Add") or reader.graph is not node.graph:
        return None, None
    bias = constant_array(reader.inputs[1 if reader.inputs[0] is node.outputs[0] else 0])
    if bias is None or bias.shape != (outputs,) or bias.dtype != np.float32 or not np.isfinite(bias).all():
        return None, None
    return reader.outputs[0].name, bias


def _drawn(count: int, limit: int, rng: np.random.Generator) -> np.ndarray:
    """Up to `limit` of `count` indices, sorted."""
    if count <= limit:
        return np.arange(count)
    return np.sort(rng.choice(count, limit, replace=False))
