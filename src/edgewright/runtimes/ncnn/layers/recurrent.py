"""LSTM, GRU and RNN: a sequence of vectors is a blob of two axes, time outermost.

Source: Tencent/ncnn, docs/developer-guide/operators.md for sizes; src/layer/lstm.cpp (gates I, F, O, G) and
src/layer/gru.cpp (gates R, U, N; biases R, U, WN, RN) for their order. ONNX has i, o, f, c and z, r, h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.ncnn.writing import Param
from edgewright.runtimes.ncnn.network import (
    Network,
    UnsupportedError,
    constant,
    given,
    name_of,
    require_constant,
    shape_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

_DIRECTIONS = {"forward": 0, "reverse": 1, "bidirectional": 2}
#: ncnn's gates by their place among ONNX's.
_GATES = {"LSTM": (0, 2, 1, 3), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
_LENGTHS, _HIDDEN, _CELL, _PEEPHOLES = 4, 5, 6, 7


def _lower_recurrent(network: Network, node: ir.Node) -> None:
    """What ncnn makes, [T, directions H], holds in order what ONNX calls [T, directions, 1, H]."""
    data, kind = node.inputs[0], node.op_type
    assert data is not None
    steps, batch, width = shape_of(data)
    direction = node.attributes.get_string("direction", "forward")
    directions, size = 2 if direction == "bidirectional" else 1, node.attributes.get_int("hidden_size", 0)
    _require_plain(node, steps, directions)
    if batch != 1:
        raise UnsupportedError(f"ncnn takes one sequence, not {batch}")
    weights = [network.weight(part) for part in _weights(node, size)]
    states = [given(node, index) for index in ((_HIDDEN, _CELL) if kind == "LSTM" else (_HIDDEN,))]
    inputs = [network.read(data, (steps, width))]
    if any(value is not None and not _zero(value) for value in states):
        inputs += [_state(network, value, directions, size, node) for value in states]
    params: dict[int, Param] = {0: size, 1: weights[0].array.size, 2: _DIRECTIONS[direction]}
    last = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    dims = [(steps, directions * size)] + [(directions, size)] * len(states if last or len(inputs) > 1 else ())
    network.add_several(kind, inputs, node.outputs, params, weights, dims=dims)


def _weights(node: ir.Node, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights of the input, biases, weights of the state, each by direction, in ncnn's order of gates."""
    kind, gates = node.op_type, list(_GATES[node.op_type])
    inward = require_constant(node.inputs[1], "weight")
    state = require_constant(node.inputs[2], "weight")
    directions = len(inward)
    by_gate = inward.reshape(directions, len(gates), size, -1)[:, gates]
    state_by_gate = state.reshape(directions, len(gates), size, size)[:, gates]
    bias = np.zeros((directions, 2, len(gates), size), np.float32)
    if given(node, 3) is not None:
        bias = require_constant(node.inputs[3], "bias").reshape(bias.shape)
    bias = bias[:, :, gates]
    if kind == "GRU":  # the candidate's two biases stay apart, since the reset gate scales one of them
        both = bias.sum(axis=1)
        return by_gate, np.stack([both[:, 0], both[:, 1], bias[:, 0, 2], bias[:, 1, 2]], axis=1), state_by_gate
    return by_gate, bias.sum(axis=1), state_by_gate


def _state(network: Network, value: ir.Value | None, directions: int, size: int, node: ir.Node) -> str:
    if value is None:
        zeros = np.zeros((directions, size), np.float32)
        return network.memory(zeros, zeros.shape, f"{name_of(node.outputs[0])}:zeros").name
    return network.read(value, (directions, size))


def _zero(value: ir.Value) -> bool:
    array = constant(value)
    return array is not None and not array.any()


def _require_plain(node: ir.Node, steps: int, directions: int) -> None:
    """Refuse what ncnn's layers cannot do."""
    kind = node.op_type
    named = [name.lower() for name in node.attributes.get_strings("activations", _ACTIVATIONS[kind] * directions)]
    lengths = given(node, _LENGTHS)
    if named != _ACTIVATIONS[kind] * directions:
        raise UnsupportedError(f"ncnn has no {kind} with activations {', '.join(named)}")
    if kind == "GRU" and not node.attributes.get_int("linear_before_reset", 0):
        raise UnsupportedError("ncnn's GRU applies the reset gate after the product (linear_before_reset = 1)")
    if node.attributes.get_int("layout", 0) or node.attributes.get_float("clip", 0.0):
        raise UnsupportedError("ncnn has no clipped cells and takes time first")
    if node.attributes.get_int("input_forget", 0):
        raise UnsupportedError("ncnn does not couple the input and forget gates")
    if lengths is not None and not np.array_equal(constant(lengths), [steps]):  # type: ignore[arg-type]
        raise UnsupportedError("ncnn takes no lengths of sequences")
    peepholes = given(node, _PEEPHOLES)
    if peepholes is not None and not _zero(peepholes):
        raise UnsupportedError("ncnn has no peepholes")


LOWERINGS = dict.fromkeys(_GATES, _lower_recurrent)
