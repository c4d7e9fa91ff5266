"""RNN, GRU and LSTM, step by step: one product for all inputs, then a few small operators for each step.

Gate orders: ONNX keeps LSTM's gates as i, o, f, c and GRU's as z, r, h. Source: ONNX operator specification.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.tflite.writing import Operator, Tensor
from edgewright.runtimes.litert.drafting import sizes_of
from edgewright.runtimes.litert.layouts import Batch, arranged, identity
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused, rule
from edgewright.runtimes.litert.rules.joining import several
from edgewright.runtimes.litert.rules.linear import fully_connected

if TYPE_CHECKING:
    import onnx_ir as ir

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_FUNCTIONS = {"Sigmoid": "LOGISTIC", "Tanh": "TANH", "Relu": "RELU"}
#: Steps that are written one by one; longer sequences would make files of hundreds of thousands of operators.
_LONGEST = 1024


@dataclass
class Direction:
    """One direction's weights, ready for the file.

    Attributes:
        inputs: W of all gates, f32[G H, I].
        recurrence: R of all gates, f32[G H, H].
        bias: Of W, with that of R where they are added anyway, f32[G H].
        extra: Bias of R where it is not; None elsewhere.
        functions: Activations.
    """

    inputs: np.ndarray
    recurrence: np.ndarray
    bias: np.ndarray
    extra: np.ndarray | None
    functions: list[str]


class Steps:
    """Small operators on one step."""

    def __init__(self, lowering: Lowering) -> None:
        self.lowering = lowering

    def act(self, name: str, x: Tensor) -> Tensor:
        """An activation."""
        return self.lowering.op(_FUNCTIONS[name], [x], sizes_of(x))

    def two(self, kind: str, x: Tensor, y: Tensor) -> Tensor:
        """An operator on two tensors of one shape."""
        return self.lowering.op(kind, [x, y], sizes_of(x))

    def parts(self, x: Tensor, count: int) -> list[Tensor]:
        """Equal parts of the last axis."""
        if count == 1:
            return [x]
        axis = self.lowering.array(np.array(len(x.shape) - 1, np.int32), "axis")
        sizes = (*sizes_of(x)[:-1], x.shape[-1] // count)
        return several(self.lowering, "SPLIT", [axis, x], x, [sizes] * count, numSplits=count)


Cell = Callable[[Steps, Tensor, list[Tensor], Direction], list[Tensor]]


def _rnn(steps: Steps, x: Tensor, state: list[Tensor], weights: Direction) -> list[Tensor]:
    total = steps.two("ADD", x, _recurrent(steps, state[0], weights.recurrence))
    return [steps.act(weights.functions[0], total)]


def _lstm(steps: Steps, x: Tensor, state: list[Tensor], weights: Direction) -> list[Tensor]:
    total = steps.two("ADD", x, _recurrent(steps, state[0], weights.recurrence))
    f, g, h = weights.functions
    gates, candidate = _at(steps, total, 3)
    i, o, forget = steps.parts(steps.act(f, gates), 3)
    kept = steps.two("MUL", forget, state[1])
    cell = steps.two("ADD", kept, steps.two("MUL", i, steps.act(g, candidate)))
    return [steps.two("MUL", o, steps.act(h, cell)), cell]


def _gru(steps: Steps, x: Tensor, state: list[Tensor], weights: Direction) -> list[Tensor]:
    """h' = (1 - z) n + z h = n + z (h - n)."""
    f, g = weights.functions
    hidden = state[0].shape[-1]
    first, candidate = _at(steps, x, 2)
    if weights.extra is not None:
        hidden_part = _recurrent(steps, state[0], weights.recurrence, weights.extra)
        gates, inner = _at(steps, hidden_part, 2)
        z, r = steps.parts(steps.act(f, steps.two("ADD", first, gates)), 2)
        total = steps.two("ADD", candidate, steps.two("MUL", r, inner))
    else:
        gates = _recurrent(steps, state[0], weights.recurrence[: 2 * hidden])
        z, r = steps.parts(steps.act(f, steps.two("ADD", first, gates)), 2)
        product = _recurrent(steps, steps.two("MUL", r, state[0]), weights.recurrence[2 * hidden :])
        total = steps.two("ADD", candidate, product)
    new = steps.act(g, total)
    return [steps.two("ADD", new, steps.two("MUL", z, steps.two("SUB", state[0], new)))]


_CELLS: dict[str, Cell] = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}


@rule("RNN", "GRU", "LSTM")
def recurrent(lowering: Lowering, node: ir.Node) -> None:
    """Both directions, states at the start and at the end."""
    kind, data = node.op_type, node.inputs[0]
    assert data is not None
    _refuse(lowering, node)
    held = lowering.get(data)
    first = bool(node.attributes.get_int("layout", 0))
    x = lowering.ordered(held, (1, 0, 2) if first else (0, 1, 2))
    length, batch, _ = sizes_of(x)
    if isinstance(length, Batch) or length > _LONGEST:
        raise Refused(f"sequences are written step by step, up to {_LONGEST} steps")
    states = 2 if kind == "LSTM" else 1
    backwards = {"forward": [False], "reverse": [True]}.get(
        node.attributes.get_string("direction", "forward"), [False, True]
    )
    outputs, finals = [], []
    for index, turned in enumerate(backwards):
        weights = _direction(lowering, node, index)
        start = [_initial(lowering, node, 5 + n, index, batch, weights.recurrence.shape[1]) for n in range(states)]
        made, last = _scan(lowering, _CELLS[kind], x, start, weights, turned=turned)
        outputs.append(made)
        finals.append(last)
    _hand_out(lowering, node, outputs, finals, first=first)


def _refuse(lowering: Lowering, node: ir.Node) -> None:
    attributes = node.attributes
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        lengths = lowering.required(node.inputs[4], "lengths")
        data = node.inputs[0]
        assert data is not None
        whole = lowering.sizes(data)[1 if attributes.get_int("layout", 0) else 0]
        if (lengths != whole).any():
            raise Refused("sequences of a batch differ in length")
    if len(node.inputs) > 7 and node.inputs[7] is not None and lowering.required(node.inputs[7], "peepholes").any():
        raise Refused("it has peepholes")
    if attributes.get_float("clip", 0.0) or attributes.get_int("input_forget", 0):
        raise Refused("it clips or couples its gates")


def _direction(lowering: Lowering, node: ir.Node, index: int) -> Direction:
    w, r = (lowering.required(value, "weights")[index].astype(np.float32) for value in node.inputs[1:3])
    value = node.inputs[3] if len(node.inputs) > 3 else None
    bias = np.zeros(2 * len(w), np.float32)
    if value is not None:
        bias = lowering.required(value, "bias")[index].astype(np.float32)
    names = node.attributes.get_strings("activations", [])
    defaults = _DEFAULTS[node.op_type]
    functions = list(names[index * len(defaults) : (index + 1) * len(defaults)]) if names else defaults
    if any(name not in _FUNCTIONS for name in functions):
        raise Refused(f"activations {', '.join(functions)}; known are {', '.join(_FUNCTIONS)}")
    if node.op_type == "GRU" and node.attributes.get_int("linear_before_reset", 0):
        return Direction(w, r, bias[: len(w)], bias[len(w) :], functions)
    return Direction(w, r, bias[: len(w)] + bias[len(w) :], None, functions)


def _initial(lowering: Lowering, node: ir.Node, place: int, index: int, batch: int, hidden: int) -> Tensor | None:
    """The state at the start, f32[N, H]; None for zeros."""
    value = node.inputs[place] if place < len(node.inputs) else None
    if value is None:
        return None
    if not lowering.is_held(value):
        array = lowering.anyhow(value)
        if array is not None and not array.any():
            return None
    turned = bool(node.attributes.get_int("layout", 0))
    held = lowering.get(value)
    tensor = lowering.ordered(held, (1, 0, 2) if turned else (0, 1, 2))
    if tensor.shape[0] > 1:
        begin = lowering.array(np.array([index, 0, 0], np.int32))
        size = lowering.array(np.array([1, -1, hidden], np.int32))
        tensor = lowering.op("SLICE", [tensor, begin, size], (1, batch, hidden))
    return lowering.reshaped(tensor, (batch, hidden))


def _scan(
    lowering: Lowering, cell: Cell, x: Tensor, start: list[Tensor | None], weights: Direction, *, turned: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """What each step makes, in the order of the sequence, and the states at the end."""
    steps = Steps(lowering)
    length, batch, _ = sizes_of(x)
    kernel = lowering.array(weights.inputs, "weight")
    all_ = fully_connected(lowering, x, kernel, lowering.array(weights.bias, "bias"))
    each = [lowering.tensor("step", "float32", (batch, all_.shape[2])) for _ in range(length)]
    lowering.operators.append(Operator("UNPACK", [all_], each, {"num": length, "axis": 0}))
    hidden = weights.recurrence.shape[1]
    states = [_zeros(lowering, batch, hidden) if state is None else state for state in start]
    made = {}
    for place in range(length)[:: -1 if turned else 1]:
        states = cell(steps, each[place], states, weights)
        made[place] = states[0]
    return [made[place] for place in range(length)], states


def _zeros(lowering: Lowering, batch: int, hidden: int) -> Tensor:
    if not isinstance(batch, Batch):
        return lowering.array(np.zeros((batch, hidden), np.float32), "zeros")
    one = lowering.array(np.zeros((1, hidden), np.float32), "zeros")
    return lowering.op("BROADCAST_TO", [one, lowering.size_vector((batch, hidden))], (batch, hidden), version=2)


def _recurrent(steps: Steps, state: Tensor, rows: np.ndarray, bias: np.ndarray | None = None) -> Tensor:
    lowering = steps.lowering
    kernel = lowering.shared(rows, "recurrence")
    added = None if bias is None else lowering.array(bias, "bias")
    return fully_connected(lowering, state, kernel, added)


def _at(steps: Steps, x: Tensor, gates: int) -> tuple[Tensor, Tensor]:
    """The first `gates` gates, and the last one."""
    lowering = steps.lowering
    width = x.shape[-1] // (gates + 1)
    lengths = lowering.array(np.array([gates * width, width], np.int32), "sizes")
    axis = lowering.array(np.array(1, np.int32), "axis")
    sizes = [(sizes_of(x)[0], gates * width), (sizes_of(x)[0], width)]
    first, second = several(lowering, "SPLIT_V", [x, lengths, axis], x, sizes, numSplits=2)
    return first, second


def _hand_out(
    lowering: Lowering, node: ir.Node, outputs: list[list[Tensor]], finals: list[list[Tensor]], *, first: bool
) -> None:
    """Y [T, D, N, H] (first: [N, T, D, H]) and the last states [D, N, H] (first: [N, D, H])."""
    whole = node.outputs[0]
    if whole.name and (whole.uses() or whole.is_graph_output()):
        sizes = lowering.sizes(whole)
        if first:
            sizes = (sizes[1], sizes[2], sizes[0], sizes[3])
        flat = [tensor for step in zip(*outputs, strict=True) for tensor in step]
        small = (sizes[0] * sizes[1], sizes[2], sizes[3])
        packed = lowering.op("PACK", flat, small, valuesCount=len(flat), axis=0)
        tensor = lowering.reshaped(packed, sizes)
        lowering.hold(whole, tensor, (1, 2, 0, 3) if first else identity(4))
    for number, value in enumerate(node.outputs[1:]):
        if value.name and (value.uses() or value.is_graph_output()):
            parts = [states[number] for states in finals]
            order = (1, 0, 2) if first else identity(3)
            sizes = arranged(lowering.sizes(value), order)
            lowering.hold(value, lowering.op("PACK", parts, sizes, valuesCount=len(parts), axis=0), order)
