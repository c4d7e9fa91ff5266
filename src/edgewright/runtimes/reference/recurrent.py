"""RNN, GRU and LSTM. Shapes: x f32[T, N, I], states f32[D, N, H]; with layout 1 the batch comes first everywhere.

Source: ONNX operator specification; Hochreiter and Schmidhuber 1997, Gers et al. 2000 (peepholes), Cho et al. 2014.
Narrow floats are computed in float32 and rounded once to the type of x, not at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.runtimes.reference.activation import RECURRENT
from edgewright.runtimes.reference.operators import Array, operator, widen
from edgewright.runtimes.reference.shape import reverse_sequence

Activation = Callable[[Array], Array]
Cell = Callable[[Array, list[Array]], list[Array]]  # (input of one step, states) -> states; the first is the output


@dataclass(frozen=True)
class Attributes:
    """What the three recurrent operators have in common."""

    activations: Sequence[str] | None
    activation_alpha: Sequence[float] | None
    activation_beta: Sequence[float] | None
    clip: float | None
    direction: str
    hidden_size: int | None
    layout: int

    @property
    def directions(self) -> tuple[bool, ...]:
        """For each direction whether it runs backwards."""
        known = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
        if self.direction not in known:
            raise ValueError(f"`direction` is `{self.direction}`, but must be {', '.join(known)}")
        return known[self.direction]

    def functions(self, defaults: Sequence[str], clipped: int) -> list[list[Activation]]:
        """The activations of each direction; the first `clipped` of them clip their input."""
        count = len(defaults)
        names = list(self.activations or [*defaults] * len(self.directions))
        if len(names) != count * len(self.directions):
            raise ValueError(f"`activations` has {len(names)} names, but needs {count * len(self.directions)}")
        alphas, betas = list(self.activation_alpha or ()), list(self.activation_beta or ())
        found = []
        for index, name in enumerate(names):
            if name.lower() not in RECURRENT:
                raise ValueError(f"activation `{name}` is not known")
            function, alpha, beta = RECURRENT[name.lower()]
            # Each list holds values only for the functions that take them, in the functions' order.
            alpha = alphas.pop(0) if alphas and alpha else alpha
            beta = betas.pop(0) if betas and name.lower() in ("affine", "hardsigmoid", "scaledtanh") else beta
            found.append(_bound(function, alpha, beta, self.clip if index % count < clipped else None))
        return [found[i : i + count] for i in range(0, len(found), count)]


def _bound(
    function: Callable[[Array, float, float], Array], alpha: float, beta: float, limit: float | None
) -> Activation:
    def apply(x: Array) -> Array:
        return function(x if limit is None else np.clip(x, -limit, limit), alpha, beta)

    return apply


def _run(
    x: Array,
    attributes: Attributes,
    *,
    lengths: Array | None,
    initial: Sequence[Array | None],
    cells: Sequence[Cell],
    hidden: int,
) -> tuple[Array, ...]:
    """Y f32[T, D, N, H] (layout 1: [N, T, D, H]) and each state at the end, f32[D, N, H] (layout 1: [N, D, H])."""
    value = widen(x).swapaxes(0, 1) if attributes.layout else widen(x)
    steps, batch = value.shape[:2]
    counts = np.full(batch, steps) if lengths is None else np.asarray(lengths).astype(np.int64)
    outputs, finals = [], []
    for index, (backwards, cell) in enumerate(zip(attributes.directions, cells, strict=True)):
        states = [_initial(state, index, attributes.layout, (batch, hidden), value.dtype) for state in initial]
        inputs = reverse_sequence(value, counts) if backwards else value
        y, states = _scan(inputs, states, counts, cell)
        outputs.append(reverse_sequence(y, counts) if backwards else y)
        finals.append(states)
    sequence = np.stack(outputs, axis=1)
    last = [np.stack([states[i] for states in finals]) for i in range(len(initial))]
    if attributes.layout:
        sequence, last = sequence.transpose(2, 0, 1, 3), [state.swapaxes(0, 1) for state in last]
    return tuple(tensor.astype(x.dtype) for tensor in (sequence, *last))


def _scan(x: Array, states: list[Array], counts: Array, cell: Cell) -> tuple[Array, list[Array]]:
    y = np.zeros((len(x), *states[0].shape), x.dtype)
    for step in range(len(x)):
        running = (step < counts)[:, None]  # a sequence that has ended keeps its state and puts out zeros
        states = [np.where(running, new, old) for new, old in zip(cell(x[step], states), states, strict=True)]
        y[step] = np.where(running, states[0], 0)
    return y, states


def _initial(
    state: Array | None, index: int, layout: int, shape: tuple[int, int], dtype: np.dtype[np.float32]
) -> Array:
    if state is None:
        return np.zeros(shape, dtype)
    return widen(state[:, index] if layout else state[index])


def _weights(w: Array, r: Array, b: Array | None, index: int, gates: int) -> tuple[Array, Array, Array, Array]:
    """Of one direction: W^T f32[I, gates H], R^T f32[H, gates H], and the biases of W and of R, f32[gates H]."""
    rows = w.shape[1]
    if rows != gates * r.shape[2]:
        raise ValueError(f"weights {list(w.shape)} and recurrence {list(r.shape)} do not fit: {gates} gates are needed")
    bias = np.zeros(2 * rows, np.float32) if b is None else widen(b[index])
    return widen(w[index]).T, widen(r[index]).T, bias[:rows], bias[rows:]


@operator("RNN")
def rnn(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> tuple[Array, ...]:
    """h' = f(x W^T + h R^T + b); outputs Y, Y_h."""
    shared = Attributes(activations, activation_alpha, activation_beta, clip, direction, hidden_size, layout)

    def cell_of(index: int, functions: list[Activation]) -> Cell:
        wt, rt, wb, rb = _weights(w, r, b, index, 1)
        return lambda step, states: [functions[0](step @ wt + states[0] @ rt + wb + rb)]

    cells = [cell_of(index, functions) for index, functions in enumerate(shared.functions(("Tanh",), 1))]
    return _run(x, shared, lengths=sequence_lens, initial=[initial_h], cells=cells, hidden=r.shape[2])


@operator("GRU")
def gru(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Array, ...]:
    """Gates in the order update z, reset r, hidden: h' = (1 - z) g + z h; outputs Y, Y_h.

    g = tanh(x W_h + (r h) R_h + b), or with `linear_before_reset` tanh(x W_h + r (h R_h + b_R) + b_W).
    """
    shared = Attributes(activations, activation_alpha, activation_beta, clip, direction, hidden_size, layout)
    size = r.shape[2]

    def cell_of(index: int, functions: list[Activation]) -> Cell:
        wt, rt, wb, rb = _weights(w, r, b, index, 3)
        gate, candidate = functions

        def cell(step: Array, states: list[Array]) -> list[Array]:
            h, given = states[0], step @ wt + wb
            both = h @ rt[:, : 2 * size] + rb[: 2 * size] + given[:, : 2 * size]
            update, reset = gate(both[:, :size]), gate(both[:, size:])
            if linear_before_reset:
                recurrent = reset * (h @ rt[:, 2 * size :] + rb[2 * size :])
            else:
                recurrent = (reset * h) @ rt[:, 2 * size :] + rb[2 * size :]
            return [(1 - update) * candidate(given[:, 2 * size :] + recurrent) + update * h]

        return cell

    cells = [cell_of(index, functions) for index, functions in enumerate(shared.functions(("Sigmoid", "Tanh"), 2))]
    return _run(x, shared, lengths=sequence_lens, initial=[initial_h], cells=cells, hidden=size)


@operator("LSTM")
def lstm(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    peepholes: Array | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Array, ...]:
    """Gates in the order input i, output o, forget f, cell g: c' = f c + i g, h' = o tanh(c'); outputs Y, Y_h, Y_c.

    Peepholes f32[D, 3 H] let i and f see c, and o see c'. `input_forget` couples them: f = 1 - i.
    `clip` bounds what goes into the gates and the candidate, not the cell state on its way to h', as in ONNX Runtime.
    """
    shared = Attributes(activations, activation_alpha, activation_beta, clip, direction, hidden_size, layout)
    size = r.shape[2]

    def cell_of(index: int, functions: list[Activation]) -> Cell:
        wt, rt, wb, rb = _weights(w, r, b, index, 4)
        gate, candidate, squash = functions
        peep = np.zeros(3 * size, np.float32) if peepholes is None else widen(peepholes[index])
        peep_i, peep_o, peep_f = peep[:size], peep[size : 2 * size], peep[2 * size :]

        def cell(step: Array, states: list[Array]) -> list[Array]:
            h, c = states
            i, o, f, g = np.split(step @ wt + h @ rt + wb + rb, 4, axis=1)
            i = gate(i + peep_i * c)
            f = 1 - i if input_forget else gate(f + peep_f * c)
            c = f * c + i * candidate(g)
            return [gate(o + peep_o * c) * squash(c), c]

        return cell

    cells = [
        cell_of(index, functions) for index, functions in enumerate(shared.functions(("Sigmoid", "Tanh", "Tanh"), 2))
    ]
    return _run(x, shared, lengths=sequence_lens, initial=[initial_h, initial_c], cells=cells, hidden=size)
