"""Layers with constant weights as linear maps, y = W x + b over patches of what they read, to learn from and to rewrite."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import (
    Names,
    add_initializer,
    constant_array,
    is_standard,
    replace_constant,
    sole_consumer,
)

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, eq=False)
class Linear:
    """A Conv, Gemm or MatMul with constant weights of a graph; hold it no longer than the graph stays.

    Attributes:
        node: The node.
        result: The value that holds its sums with the bias: made by the Add after it for a MatMul with one.
        bias: (node, index) of the input that holds the bias, or None where it has none.
        weight: Its weights, in the node's own layout.
        groups: Groups of a convolution, else 1.
        transposed: True for weights stored as [O, K], False for [K, O].
    """

    node: ir.Node
    result: ir.Value
    bias: tuple[ir.Node, int] | None
    weight: np.ndarray
    groups: int
    transposed: bool

    @property
    def name(self) -> str:
        """The tensor that it makes, bias included."""
        return self.result.name or ""

    @property
    def data(self) -> ir.Value:
        """What it reads."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def axis(self) -> int:
        """Axis of the channels in what it makes, from the end where it is no convolution."""
        return 1 if self.node.op_type == "Conv" else -1

    @property
    def rows(self) -> np.ndarray:
        """Weights as f32[G, O / G, K], one linear map for each group."""
        matrix = self.weight if self.transposed else self.weight.T
        rows: np.ndarray = matrix.reshape(self.groups, matrix.shape[0] // self.groups, -1)
        return rows

    @property
    def offsets(self) -> np.ndarray:
        """Bias, f32[O]; zeros where there is none."""
        outputs = self.rows.shape[0] * self.rows.shape[1]
        if self.bias is None:
            return np.zeros(outputs, np.float32)
        array = constant_array(self.bias[0].inputs[self.bias[1]])
        assert array is not None
        return np.broadcast_to(array.reshape(-1), (outputs,))

    @property
    def can_take_bias(self) -> bool:
        """True where a bias can be written: only a MatMul without an Add after it has no place for one."""
        return self.bias is not None or self.node.op_type != "MatMul"

    def write(self, rows: np.ndarray, offsets: np.ndarray, names: Names) -> None:
        """Give it new weights f[G, O / G, K] and a new bias f[O], which is left where it cannot take one."""
        matrix = rows.reshape(rows.shape[0] * rows.shape[1], -1)
        matrix = matrix if self.transposed else matrix.T
        replace_constant(self.node, 1, matrix.reshape(self.weight.shape).astype(np.float32), names=names)
        if self.can_take_bias:
            self.write_bias(offsets, names)

    def write_bias(self, offsets: np.ndarray, names: Names) -> None:
        """Give it a new bias, f[O]."""
        if self.bias is not None:
            replace_constant(*self.bias, offsets.astype(np.float32), names=names)
            return
        graph = self.node.graph
        assert graph is not None
        value = add_initializer(graph, names.fresh(f"{self.name}.bias"), offsets.astype(np.float32))
        self.node.resize_inputs(3)
        self.node.replace_input_with(2, value)

    def positions(self, made: tuple[int, ...]) -> int:
        """How many vectors it maps for an output of this shape."""
        return math.prod(made) // made[self.axis]

    def places(self, data: np.ndarray) -> int:
        """How many vectors it maps where it reads `data`."""
        if self.node.op_type != "Conv":
            return math.prod(data.shape[:-1])
        view = self._windows(data)
        sizes: tuple[int, ...] = (view.shape[0], *view.shape[2 : data.ndim])
        return math.prod(sizes)

    def outputs(self, made: np.ndarray, picked: np.ndarray) -> np.ndarray:
        """What it makes at the places `picked`, f32[P, O]."""
        rows: np.ndarray = np.moveaxis(made, self.axis, -1).reshape(-1, made.shape[self.axis])[picked]
        return rows

    def patches(self, data: np.ndarray, picked: np.ndarray) -> np.ndarray:
        """The vectors that its linear maps see at the places `picked`, f32[G, P, K]."""
        if self.node.op_type != "Conv":
            vectors: np.ndarray = data.reshape(-1, data.shape[-1])[picked][None]
            return vectors
        view = self._windows(data)  # [N, C, *out, *kernel]
        spatial = data.ndim - 2
        sizes = (view.shape[0], *view.shape[2 : 2 + spatial])
        where = np.unravel_index(picked, sizes)
        moved: np.ndarray = np.moveaxis(view, 1, 1 + spatial)[where]  # [P, C, *kernel]
        return moved.reshape(len(moved), self.groups, -1).transpose(1, 0, 2)

    def _windows(self, data: np.ndarray) -> np.ndarray:
        """A view of `data`, padded, as [N, C, *out, *kernel]."""
        spatial = data.ndim - 2
        ones = (1,) * spatial
        attributes = self.node.attributes
        strides, dilations = (tuple(attributes.get_ints(key, ones)) for key in ("strides", "dilations"))
        kernel = self.weight.shape[2:]
        extent = [(size - 1) * apart + 1 for size, apart in zip(kernel, dilations, strict=True)]
        rule = attributes.get_string("auto_pad", "NOTSET")
        given = tuple(attributes.get_ints("pads", (0,) * (2 * spatial)))
        pads = []
        for axis in range(spatial):
            if rule in ("SAME_UPPER", "SAME_LOWER"):
                size, step = data.shape[2 + axis], strides[axis]
                total = max((-(-size // step) - 1) * step + extent[axis] - size, 0)
                less, more = total // 2, total - total // 2
                pads.append((less, more) if rule == "SAME_UPPER" else (more, less))
            else:
                pads.append((0, 0) if rule == "VALID" else (given[axis], given[spatial + axis]))
        padded = np.pad(data, [(0, 0), (0, 0), *pads]) if any(map(any, pads)) else data
        view = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=tuple(range(2, data.ndim)))
        picks = [slice(None, None, step) for step in (*strides, *dilations)]
        result: np.ndarray = view[(slice(None), slice(None), *picks)]
        return result


def find_linear(ir_model: ir.Model) -> dict[str, Linear]:
    """Layers whose weights are constant float32 matrices of their own, by the tensor they make, in graph order."""
    found: dict[str, Linear] = {}
    for node in ir_model.graph:
        layer = _linear(node)
        if layer is not None and layer.name:
            found[layer.name] = layer
    return found


def _linear(node: ir.Node) -> Linear | None:
    if not is_standard(node, "Conv", "Gemm", "MatMul"):
        return None
    weight = constant_array(node.inputs[1])
    if weight is None or weight.dtype != np.float32 or constant_array(node.inputs[0]) is not None:
        return None
    attributes, made = node.attributes, node.outputs[0]
    if node.op_type == "Conv":
        own = len(node.inputs) > 2 and node.inputs[2] is not None
        if own and constant_array(node.inputs[2]) is None:
            return None
        return Linear(node, made, (node, 2) if own else None, weight, attributes.get_int("group", 1) or 1, True)
    if weight.ndim != 2:
        return None
    if node.op_type == "MatMul":
        adder = _adder(made, weight.shape[1])
        result = made if adder is None else adder[0].outputs[0]
        return Linear(node, result, adder, weight, 1, False)
    scaled = attributes.get_float("alpha", 1.0) != 1 or attributes.get_float("beta", 1.0) != 1
    if scaled or attributes.get_int("transA", 0):
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    array = constant_array(bias)
    if bias is not None and (array is None or array.ndim > 2 or (array.ndim == 2 and array.shape[0] != 1)):
        return None
    return Linear(
        node, made, (node, 2) if array is not None else None, weight, 1, bool(attributes.get_int("transB", 0))
    )


def _adder(made: ir.Value, outputs: int) -> tuple[ir.Node, int] | None:
    """The Add that gives a MatMul its bias, and which of its inputs holds it."""
    adder = sole_consumer(made)
    if adder is None or not is_standard(adder, "Add"):
        return None
    index = 1 if adder.inputs[0] is made else 0
    array = constant_array(adder.inputs[index])
    if array is None or array.size != outputs or array.shape[-1:] != (outputs,):
        return None
    return adder, index
