"""Layers with a memory over the rows of a blob: LSTM, GRU, RNN.

ncnn's gates stand in another order than ONNX's: LSTM i, f, o, g against i, o, f, g; GRU r, z, n against z, r, n.

Source: Tencent/ncnn, src/layer/lstm.cpp, gru.cpp and rnn.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.ncnn._layer import Layer

if TYPE_CHECKING:
    import onnx_ir as ir

_DIRECTIONS = ("forward", "reverse", "bidirectional")


def lstm(layer: Layer) -> Sequence[ir.Value]:
    """LSTM; its states come in and go out where the line names blobs for them."""
    outputs, hidden = layer.count(0), layer.integer(3, 0) or layer.integer(0, 0)
    if hidden != outputs:
        raise layer.unsupported(f"a projection ({hidden} to {outputs})")
    count, inputs = _begin(layer, 4, outputs)
    order = [0, 2, 1, 3]
    w = _ordered(layer.tagged(count, 4, outputs, inputs), order)
    bias = _ordered(layer.tagged(count, 4, outputs), order)
    r = _ordered(layer.tagged(count, 4, outputs, outputs), order)
    b = np.concatenate([bias, np.zeros_like(bias)], axis=1)
    return _run(layer, "LSTM", w, r, b, states=2)


def gru(layer: Layer) -> Sequence[ir.Value]:
    """GRU, whose reset gate works on the product of the state."""
    outputs = layer.count(0)
    count, inputs = _begin(layer, 3, outputs)
    order = [1, 0, 2]
    w = _ordered(layer.tagged(count, 3, outputs, inputs), order)
    stored = layer.tagged(count, 4, outputs)
    r = _ordered(layer.tagged(count, 3, outputs, outputs), order)
    ours, states = stored[:, [1, 0, 2]], stored[:, [3]]
    b = np.concatenate([ours, np.zeros_like(ours[:, :2]), states], axis=1).reshape(count, -1)
    return _run(layer, "GRU", w, r, b, states=1, linear_before_reset=1)


def rnn(layer: Layer) -> Sequence[ir.Value]:
    """RNN: tanh."""
    outputs = layer.count(0)
    count, inputs = _begin(layer, 1, outputs)
    w = layer.tagged(count, outputs, inputs)
    bias = layer.tagged(count, outputs)
    r = layer.tagged(count, outputs, outputs)
    return _run(layer, "RNN", w, r, np.concatenate([bias, np.zeros_like(bias)], axis=1), states=1)


def _begin(layer: Layer, gates: int, outputs: int) -> tuple[int, int]:
    """Directions, and values of each row.

    Raises:
        EdgewrightError: E204 for int8, E215 where the weights are for other rows.
    """
    size, direction = layer.integer(1, 0), layer.integer(2, 0, low=0, high=2)
    count = 2 if direction == 2 else 1
    if layer.flag(8):
        raise layer.unsupported("int8")
    if len(layer.sizes) != 2:
        raise layer.refuse(f"its input has {len(layer.sizes)} sizes, but needs rows of values")
    inputs = layer.sizes[1]
    if size != count * gates * outputs * inputs:
        needed = count * gates * outputs * inputs
        raise layer.refuse(f"it has {size} weights for its input, but rows of {inputs} need {needed}")
    return count, inputs


def _ordered(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Gates in ONNX's order and joined with their rows: [directions, gates * outputs, ...]."""
    return array[:, order].reshape(array.shape[0], -1, *array.shape[3:])


def _run(
    layer: Layer, op_type: str, w: np.ndarray, r: np.ndarray, b: np.ndarray, *, states: int, **attributes: int
) -> Sequence[ir.Value]:
    """The rows that come out, and the states after the last of them."""
    graph, (steps, _), (count, _, hidden) = layer.graph, layer.sizes, r.shape
    batch = graph.shape(layer.x)[0]
    if len(layer.inputs) not in (1, 1 + states) or len(layer.line.tops) not in (1, 1 + states):
        raise layer.refuse(f"it reads {len(layer.inputs)} blobs and makes {len(layer.line.tops)}")
    rows = graph.node("Transpose", layer.x, shape=(steps, batch, layer.sizes[1]), perm=[1, 0, 2])
    weights = [graph.weight(name, array) for name, array in (("w", w), ("r", r), ("b", b))]
    given = [_state(layer, value, count, hidden) for value in layer.inputs[1:]]
    ends = [(count, batch, hidden)] * states
    made = graph.nodes(
        op_type, rows, *weights, *([None, *given] if given else []), shapes=[(steps, count, batch, hidden), *ends],
        hidden_size=hidden, direction=_DIRECTIONS[layer.integer(2, 0)], **attributes,
    )  # fmt: skip
    turned = graph.node("Transpose", made[0], shape=(batch, steps, count, hidden), perm=[2, 0, 1, 3])
    y = layer.reshape(turned, steps, count * hidden)
    if len(layer.line.tops) == 1:
        return [y]
    after = [graph.node("Transpose", end, shape=(batch, count, hidden), perm=[1, 0, 2]) for end in made[1:]]
    return [y, *after]


def _state(layer: Layer, value: ir.Value, count: int, hidden: int) -> ir.Value:
    """A state with the directions before the batch."""
    if layer.sizes_of(value) not in ((count, hidden), (hidden,)[: 2 - count]):
        raise layer.refuse(f"its state has sizes {layer.sizes_of(value)}, but must have {(count, hidden)}")
    value = layer.reshape(value, count, hidden)
    shape = (count, layer.graph.shape(value)[0], hidden)
    return layer.graph.node("Transpose", value, shape=shape, perm=[1, 0, 2])
