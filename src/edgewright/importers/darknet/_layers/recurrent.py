"""Layers with a memory: rnn, gru, lstm, crnn, conv_lstm, history.

Every layer's state comes in as the graph input `layer_NNN_state` and goes out as `layer_NNN_state_next`; with several steps
in one run the first axis of all tensors counts them, and the steps are written out one after the other.

Source: AlexeyAB/darknet, rnn_layer.c, gru_layer.c, lstm_layer.c, crnn_layer.c, conv_lstm_layer.c and history_layer.c.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.darknet._layer import Layer, Parameters, chw
from edgewright.importers.darknet._layers.activations import activate
from edgewright.importers.darknet._layers.convolution import Window, convolve, read_convolution, read_window
from edgewright.importers.darknet._layers.dense import flat, multiply, read_connected, square

if TYPE_CHECKING:
    import onnx_ir as ir

Apply = Callable[["ir.Value", Parameters], "ir.Value"]
#: `self` layer's activation by the option `logistic`; 0 takes the layer's own.
_SELF_ACTIVATIONS = {1: "logistic", 2: "loggy"}


def rnn(layer: Layer) -> ir.Value:
    """[rnn]: state = act(input(x)) + act(self(state)) [+ state]; its output act(output(state))."""
    section = layer.section
    hidden, outputs = section.integer("hidden", 1, low=1), section.integer("output", 1, low=1)
    norm, inputs = section.flag("batch_normalize"), math.prod(layer.chw)
    sizes = (("input", inputs, hidden), ("self", hidden, hidden), ("output", hidden, outputs))
    parameters = [read_connected(layer, before, after, norm, part) for part, before, after in sizes]
    own = section.text("activation", "logistic")
    activations = (own, _SELF_ACTIVATIONS.get(section.integer("logistic", 0), own), own)
    y = _simple(layer, flat(layer, layer.x), parameters, activations, _dense(layer), (hidden,))
    return square(layer, y)


def crnn(layer: Layer) -> ir.Value:
    """[crnn]: the same with convolutions, which must keep the size of the map."""
    section, (channels, height, width) = layer.section, layer.chw
    hidden, outputs = section.integer("hidden", 1, low=1), section.integer("output", 1, low=1)
    norm, groups, window = section.flag("batch_normalize"), max(section.integer("groups", 1), 1), _same(layer)
    sizes = (("input", channels, hidden), ("self", hidden, hidden), ("output", hidden, outputs))
    parameters = [read_convolution(layer, before, after, window, groups, norm, part) for part, before, after in sizes]
    own = section.text("activation", "logistic")
    return _simple(
        layer, layer.x, parameters, (own, own, own), _convolved(layer, window, groups), (hidden, height, width)
    )


def _simple(
    layer: Layer, x: ir.Value, parameters: Sequence[Parameters], activations: Sequence[str], apply: Apply,
    hidden: tuple[int, ...],
) -> ir.Value:  # fmt: skip
    graph, keeps = layer.graph, layer.section.flag("shortcut")
    into, again, out = parameters
    (state,) = _states(layer, {"state": hidden})
    rows = _steps(layer, activate(layer, apply(x, into), activations[0]))
    states = []
    for row in rows:
        echo = activate(layer, apply(state, again), activations[1])
        new = graph.node("Add", row, echo)
        state = graph.node("Add", new, state) if keeps else new
        states.append(state)
    _give_states(layer, state=state)
    return activate(layer, apply(_joined(layer, states), out), activations[2])


def gru(layer: Layer) -> ir.Value:
    """[gru]: z and r logistic, and h too, where others have tanh; state = z * state + (1 - z) * h."""
    section, graph = layer.section, layer.graph
    outputs, norm, inputs = section.integer("output", 1, low=1), section.flag("batch_normalize"), math.prod(layer.chw)
    into = [read_connected(layer, inputs, outputs, norm, f"input.{part}") for part in "zrh"]
    again = [read_connected(layer, outputs, outputs, norm, f"state.{part}") for part in "zrh"]
    x, apply = flat(layer, layer.x), _dense(layer)
    (state,) = _states(layer, {"state": (outputs,)})
    columns = [_steps(layer, apply(x, parameters)) for parameters in into]
    states = []
    for in_z, in_r, in_h in zip(*columns, strict=True):
        z = graph.node("Sigmoid", graph.node("Add", in_z, apply(state, again[0])))
        r = graph.node("Sigmoid", graph.node("Add", in_r, apply(state, again[1])))
        h = graph.node("Sigmoid", graph.node("Add", in_h, apply(graph.node("Mul", r, state), again[2])))
        rest = graph.node("Mul", graph.node("Sub", graph.scalar(1), z, shape=graph.shape(z)), h)
        state = graph.node("Add", graph.node("Mul", z, state), rest)
        states.append(state)
    _give_states(layer, state=state)
    return square(layer, _joined(layer, states))


def lstm(layer: Layer) -> ir.Value:
    """[lstm]: gates f, i, g, o; in the file those of the state come first."""
    section = layer.section
    outputs, norm, inputs = section.integer("output", 1, low=1), section.flag("batch_normalize"), math.prod(layer.chw)
    again = [read_connected(layer, outputs, outputs, norm, f"w{part}") for part in "figo"]
    into = [read_connected(layer, inputs, outputs, norm, f"u{part}") for part in "figo"]
    apply, x = _dense(layer), flat(layer, layer.x)
    hidden, cell = _states(layer, {"hidden": (outputs,), "cell": (outputs,)})
    columns = [_steps(layer, apply(x, parameters)) for parameters in into]
    states = []
    for row in zip(*columns, strict=True):
        gates = [
            layer.graph.node("Add", given, apply(hidden, parameters))
            for given, parameters in zip(row, again, strict=True)
        ]
        cell = _cell(layer, cell, gates, "tanh")
        hidden = _output(layer, cell, gates[3], "tanh")
        states.append(hidden)
    _give_states(layer, hidden=hidden, cell=cell)
    return square(layer, _joined(layer, states))


def conv_lstm(layer: Layer) -> ir.Value:
    """[conv_lstm]: the same with convolutions; `peephole` lets gates see the cell, `bottleneck` makes x and state one.

    Raises:
        EdgewrightError: E214 where the kernels change the size of the map, or a bottleneck its channels.
    """
    section, (channels, height, width) = layer.section, layer.chw
    outputs, norm = section.integer("output", 1, low=1), section.flag("batch_normalize")
    groups, window, narrow = max(section.integer("groups", 1), 1), _same(layer), section.flag("bottleneck")
    if narrow and section.flag("shortcut"):
        raise layer.refuse("option `shortcut` with `bottleneck` is not supported", "shortcut", code="E204")
    if narrow and channels != outputs:
        raise layer.refuse(
            f"with `bottleneck` its {channels} input channels must be its {outputs} outputs", "bottleneck"
        )

    def stored(names: str, before: int, kind: str) -> dict[str, Parameters]:
        return {name: read_convolution(layer, before, outputs, window, groups, norm, f"{kind}{name}") for name in names}

    peep = stored("fio", outputs, "v") if section.flag("peephole") else {}
    again = stored("f", 2 * outputs, "w") if narrow else stored("figo", outputs, "w")
    into = stored("figo", channels, "u")
    apply = _gate(layer, window, groups)
    hidden, cell = _states(layer, {"hidden": (outputs, height, width), "cell": (outputs, height, width)})
    curve, limit = section.text("lstm_activation", "tanh"), section.integer("state_constrain", 32 * layer.network.steps)
    given = {} if narrow else {name: _steps(layer, apply(layer.x, into[name])) for name in "figo"}
    states = []
    for step, x in enumerate(_steps(layer, layer.x)):
        if narrow:
            both = _stacked(layer, hidden, x)
            mixed = activate(layer, apply(both, again["f"]), curve)
            gates = {name: apply(mixed, into[name]) for name in "figo"}
        else:
            gates = {name: layer.graph.node("Add", given[name][step], apply(hidden, again[name])) for name in "figo"}
        for name in "fi" if peep else "":
            gates[name] = layer.graph.node("Add", gates[name], apply(cell, peep[name]))
        cell = _cell(layer, cell, [gates[name] for name in "figo"], curve)
        if peep:
            gates["o"] = layer.graph.node("Add", gates["o"], apply(cell, peep["o"]))
        hidden = _output(layer, cell, gates["o"], curve)
        if limit:
            cell = layer.graph.node("Clip", cell, layer.graph.scalar(-limit), layer.graph.scalar(limit))
        states.append(hidden)
    _give_states(layer, hidden=hidden, cell=cell)
    return _joined(layer, states)


def history(layer: Layer) -> ir.Value:
    """[history]: the last `history_size` inputs behind each other, the newest first."""
    size, (channels, height, width) = layer.section.integer("history_size", 4, low=1), layer.chw
    shape = layer.sized(size * channels, height, width)
    if size == 1:
        return layer.x
    older = (size - 1) * channels
    (state,) = _states(layer, {"state": (older, height, width)})
    states = []
    for x in _steps(layer, layer.x):
        if layer.graph.shape(state)[0] != layer.graph.shape(x)[0]:  # zeros for every image alike
            state = _zeros_like(layer, x, state)
        whole = layer.graph.node("Concat", x, state, shape=(layer.graph.shape(x)[0], *shape[1:]), axis=1)
        states.append(whole)
        state = layer.graph.slice(whole, 0, older)
    _give_states(layer, state=state)
    return _joined(layer, states)


# --- cells -------------------------------------------------------------------------------------------------------------


def _cell(layer: Layer, cell: ir.Value, gates: Sequence[ir.Value], curve: str) -> ir.Value:
    """s(f) * cell + s(i) * curve(g)."""
    graph = layer.graph
    kept = graph.node("Mul", graph.node("Sigmoid", gates[0]), cell)
    new = graph.node("Mul", graph.node("Sigmoid", gates[1]), activate(layer, gates[2], curve))
    return graph.node("Add", kept, new)


def _output(layer: Layer, cell: ir.Value, gate: ir.Value, curve: str) -> ir.Value:
    """s(o) * curve(cell)."""
    return layer.graph.node("Mul", layer.graph.node("Sigmoid", gate), activate(layer, cell, curve))


def _dense(layer: Layer) -> Apply:
    return lambda x, parameters: multiply(layer, x, parameters)


def _convolved(layer: Layer, window: Window, groups: int) -> Apply:
    return lambda x, parameters: convolve(layer, x, parameters, window, groups)


def _gate(layer: Layer, window: Window, groups: int) -> Apply:
    """A convolution with the section's activation, which is linear unless given."""
    name = layer.section.text("activation", "linear")
    return lambda x, parameters: activate(layer, convolve(layer, x, parameters, window, groups), name)


def _same(layer: Layer) -> Window:
    """The kernel of a recurrent layer.

    Raises:
        EdgewrightError: E214 where it changes the size of the map, which the state could not follow.
    """
    window, (_, height, width) = read_window(layer, default_size=3), layer.chw
    if window.output(height, width) != (height, width):
        rows, columns = window.output(height, width)
        raise layer.refuse(
            f"its kernel makes {rows} x {columns} of {height} x {width}; a recurrent layer must keep the size"
        )
    if layer.section.flag("xnor"):
        raise layer.refuse("option `xnor` of a recurrent layer is not supported", "xnor", code="E204")
    return window


# --- steps and states --------------------------------------------------------------------------------------------------


def _states(layer: Layer, sizes: dict[str, tuple[int, ...]]) -> list[ir.Value]:
    """The states before the first step, as graph inputs or as zeros."""
    graph = layer.graph
    if layer.network.state == "inputs":
        batch = graph.batch if layer.network.steps == 1 else 1
        return [graph.input(f"{layer.name}_{name}", (batch, *size)) for name, size in sizes.items()]
    return [graph.weight(f"zero.{name}", layer.initial(name, (1, *size))) for name, size in sizes.items()]


def _give_states(layer: Layer, **values: ir.Value) -> None:
    """Remember the states after the last step, which become graph outputs."""
    if layer.network.state == "inputs":
        layer.network.next_states += [(f"{layer.name}_{name}_next", value) for name, value in values.items()]


def _steps(layer: Layer, x: ir.Value) -> list[ir.Value]:
    """The rows of every step: all of them at once where a run is one step, else one row each."""
    steps = layer.network.steps
    if steps == 1:
        return [x]
    shape = (1, *layer.graph.shape(x)[1:])
    return layer.graph.nodes("Split", x, layer.graph.ints(*[1] * steps), shapes=[shape] * steps, axis=0)


def _joined(layer: Layer, rows: Sequence[ir.Value]) -> ir.Value:
    """The rows of all steps behind each other."""
    if len(rows) == 1:
        return rows[0]
    return layer.graph.node("Concat", *rows, shape=(len(rows), *layer.graph.shape(rows[0])[1:]), axis=0)


def _stacked(layer: Layer, hidden: ir.Value, x: ir.Value) -> ir.Value:
    """State and input as one map."""
    graph, (channels, height, width) = layer.graph, chw(x)
    if graph.shape(hidden)[0] != graph.shape(x)[0]:
        hidden = _zeros_like(layer, x, hidden)
    shape = (graph.shape(x)[0], chw(hidden)[0] + channels, height, width)
    return graph.node("Concat", hidden, x, shape=shape, axis=1)


def _zeros_like(layer: Layer, x: ir.Value, zeros: ir.Value) -> ir.Value:
    """`zeros` for each image of x."""
    graph = layer.graph
    batch = graph.typed(graph.node("Shape", x, shape=(1,), start=0, end=1), np.int64)
    sizes = graph.node("Concat", batch, graph.ints(*chw(zeros)), shape=(4,), axis=0)
    return graph.node("Expand", zeros, graph.typed(sizes, np.int64), shape=(graph.shape(x)[0], *chw(zeros)))
