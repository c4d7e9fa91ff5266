"""LSTM, GRU and RNN: a sequence of vectors is a blob of two axes, time outermost.

Source: Tencent/ncnn, docs/developer-guide/operators.md for sizes; src/layer/lstm.cpp (gates I, F, O, G) and
src/layer/gru.cpp (gates R, U, N; biases R, U, WN, RN) for their order. ONNX has i, o, f, c and z, r, h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.runtimes.ncnn.network import Blob, Network, Refusal, constant, given, name_of, require_constant, shape_of

if TYPE_CHECKING:
    import onnx_ir as ir

_DIRECTIONS = {"forward": 0, "reverse": 1, "bidirectional": 2}
#: ncnn's gates by their place among ONNX's.
_GATES = {"LSTM": (0, 2, 1, 3), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
_LENGTHS, _HIDDEN, _CELL, _PEEPHOLES = 4, 5, 6, 7


def _lower_recurrent(network: Network, node: ir.Node) -> None:
    data = node.inputs[0]
    assert data is not None
    kind, (steps, batch, width) = node.op_type, shape_of(data)
    direction = node.attributes.get_string("direction", "forward")
    _require_plain(node, steps, 2 if direction == "bidirectional" else 1)
    if batch != 1:
        raise Refusal(f"ncnn takes one sequence, not {batch}")
    size = node.attributes.get_int("hidden_size", 0)
    weights = [network.weight(part) for part in _weights(node, size)]
    directions = 2 if direction == "bidirectional" else 1
    states = [given(node, index) for index in ((_HIDDEN, _CELL) if kind == "LSTM" else (_HIDDEN,))]
    inputs = [network.read(data, (steps, width))]
    if any(value is not None and not _zero(value) for value in states):
        inputs += [_state(network, value, directions, size, node) for value in states]
    params = {0: size, 1: weights[0].array.size, 2: _DIRECTIONS[direction]}
    dims = [(steps, directions * size), (directions, size), (directions, size)]
    used = [number for number, value in enumerate(node.outputs) if value.uses() or value.is_graph_output()]
    count = 1 + len(states) if max(used, default=0) or len(inputs) > 1 else 1
    _add(network, node, kind, inputs, params, weights, dims[:count])
    if used and directions == 2 and 0 in used:
        _by_direction(network, node.outputs[0], steps, size)


def _add(network, node, kind, inputs, params, weights, dims):  # type: ignore[no-untyped-def]
    from edgewright.formats.ncnn.writing import Layer

    names = []
    for number, sizes in enumerate(dims):
        value = node.outputs[number] if number < len(node.outputs) and node.outputs[number].name else None
        name = network.fresh(name_of(value) if value is not None else f"{name_of(node.outputs[0])}:state{number}")
        names.append(name)
        if value is not None:
            network.alias(value, Blob(name, sizes))
    network.layers.append(Layer(kind, tuple(inputs), tuple(names), params, tuple(weights)))


def _by_direction(network: Network, value: ir.Value, steps: int, size: int) -> None:
    """Nothing: [T, 2 H] holds in order what ONNX calls [T, 2, 1, H]."""


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
        raise Refusal(f"ncnn has no {kind} with activations {', '.join(named)}")
    if kind == "GRU" and not node.attributes.get_int("linear_before_reset", 0):
        raise Refusal("ncnn's GRU applies the reset gate after the product (linear_before_reset = 1)")
    if node.attributes.get_int("layout", 0) or node.attributes.get_float("clip", 0.0):
        raise Refusal("ncnn has no clipped cells and takes time first")
    if node.attributes.get_int("input_forget", 0):
        raise Refusal("ncnn does not couple the input and forget gates")
    if lengths is not None and (constant(lengths) is None or (constant(lengths) != steps).any()):
        raise Refusal("ncnn takes no lengths of sequences")
    peepholes = given(node, _PEEPHOLES)
    if peepholes is not None and not _zero(peepholes):
        raise Refusal("ncnn has no peepholes")


LOWERINGS = dict.fromkeys(_GATES, _lower_recurrent)
