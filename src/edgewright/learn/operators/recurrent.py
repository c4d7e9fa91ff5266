"""RNN, GRU and LSTM. Shapes: x f32[T, N, I], states f32[D, N, H]; with layout 1 the batch comes first everywhere.

Source: ONNX operator specification; Hochreiter and Schmidhuber 1997, Gers et al. 2000 (peepholes), Cho et al. 2014.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgewright.learn.operators.activation import RECURRENT
from edgewright.learn.operators.shape import reverse_sequence
from edgewright.learn.operators.table import operator

Activation = Callable[[Tensor], Tensor]
Cell = Callable[[Tensor, list[Tensor]], list[Tensor]]  # (W x of one step, states) -> states; the first is the output


@dataclass(frozen=True)
class Attributes:
    """What the three recurrent operators have in common."""

    activations: Sequence[str] | None
    activation_alpha: Sequence[float] | None
    activation_beta: Sequence[float] | None
    clip: float | None
    direction: str
    layout: int

    @property
    def directions(self) -> tuple[bool, ...]:
        """For each direction whether it runs backwards."""
        return {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[self.direction]

    def functions(self, defaults: Sequence[str], clipped: int) -> list[list[Activation]]:
        """The activations of each direction; the first `clipped` of them clip their input."""
        count = len(defaults)
        names = list(self.activations or [*defaults] * len(self.directions))
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
    function: Callable[[Tensor, float, float], Tensor], alpha: float, beta: float, limit: float | None
) -> Activation:
    def apply(x: Tensor) -> Tensor:
        return function(x if limit is None else x.clamp(-limit, limit), alpha, beta)

    return apply


def _run(
    x: Tensor,
    attributes: Attributes,
    *,
    lengths: Tensor | None,
    initial: Sequence[Tensor | None],
    inputs: Sequence[Callable[[Tensor], Tensor]],
    cells: Sequence[Cell],
    hidden: int,
) -> tuple[Tensor, ...]:
    """Y f32[T, D, N, H] (layout 1: [N, T, D, H]) and each state at the end, f32[D, N, H] (layout 1: [N, D, H])."""
    value = x.transpose(0, 1) if attributes.layout else x
    steps, batch = value.shape[:2]
    counts = None if lengths is None else lengths.to(x.device)
    outputs, finals = [], []
    for index, (backwards, given, cell) in enumerate(zip(attributes.directions, inputs, cells, strict=True)):
        states = [
            x.new_zeros(batch, hidden) if s is None else s[:, index] if attributes.layout else s[index] for s in initial
        ]
        seen = given(_turned(value, counts) if backwards else value)
        made = []
        for step in range(steps):
            new = cell(seen[step], states)
            if counts is not None:  # a sequence that has ended keeps its state and puts out zeros
                running = (step < counts)[:, None]
                new = [torch.where(running, a, b) for a, b in zip(new, states, strict=True)]
                made.append(torch.where(running, new[0], torch.zeros_like(new[0])))
            else:
                made.append(new[0])
            states = new
        y = torch.stack(made)
        outputs.append(_turned(y, counts) if backwards else y)
        finals.append(states)
    sequence = torch.stack(outputs, dim=1)
    last = [torch.stack([states[i] for states in finals]) for i in range(len(initial))]
    if attributes.layout:
        return (sequence.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in last))
    return (sequence, *last)


def _turned(x: Tensor, counts: Tensor | None) -> Tensor:
    return x.flip(0) if counts is None else reverse_sequence(x, counts)


def _weights(w: Tensor, r: Tensor, b: Tensor | None, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of one direction: W f32[gates H, I], R f32[gates H, H], and the biases of W and of R, f32[gates H]."""
    rows = w.shape[1]
    bias = w.new_zeros(2 * rows) if b is None else b[index]
    return w[index], r[index], bias[:rows], bias[rows:]


def _given(w: Tensor, bias: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.nn.functional.linear(x, w, bias)


@operator("RNN")
def rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    """h' = f(x W^T + h R^T + b); outputs Y, Y_h."""
    shared = Attributes(activations, activation_alpha, activation_beta, clip, direction, layout)
    inputs, cells = [], []
    for index, (function,) in enumerate(shared.functions(("Tanh",), 1)):
        wt, rt, wb, rb = _weights(w, r, b, index)
        inputs.append(_given(wt, wb + rb))
        cells.append(_rnn_cell(rt, function))
    return _run(x, shared, lengths=sequence_lens, initial=[initial_h], inputs=inputs, cells=cells, hidden=r.shape[2])


def _rnn_cell(r: Tensor, function: Activation) -> Cell:
    return lambda step, states: [function(step + states[0] @ r.t())]


@operator("GRU")
def gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Tensor, ...]:
    """Gates in the order update z, reset r, hidden: h' = (1 - z) g + z h; outputs Y, Y_h.

    g = tanh(x W_h + (r h) R_h + b), or with `linear_before_reset` tanh(x W_h + r (h R_h + b_R) + b_W).
    """
    shared = Attributes(activations, activation_alpha, activation_beta, clip, direction, layout)
    inputs, cells = [], []
    for index, (gate, candidate) in enumerate(shared.functions(("Sigmoid", "Tanh"), 2)):
        wt, rt, wb, rb = _weights(w, r, b, index)
        inputs.append(_given(wt, wb))
        cells.append(_gru_cell(rt, rb, gate, candidate, bool(linear_before_reset)))
    return _run(x, shared, lengths=sequence_lens, initial=[initial_h], inputs=inputs, cells=cells, hidden=r.shape[2])


def _gru_cell(r: Tensor, bias: Tensor, gate: Activation, candidate: Activation, linear_first: bool) -> Cell:
    size = r.shape[1]

    def cell(step: Tensor, states: list[Tensor]) -> list[Tensor]:
        h = states[0]
        both = h @ r[: 2 * size].t() + bias[: 2 * size] + step[:, : 2 * size]
        update, reset = gate(both[:, :size]), gate(both[:, size:])
        if linear_first:
            recurrent = reset * (h @ r[2 * size :].t() + bias[2 * size :])
        else:
            recurrent = (reset * h) @ r[2 * size :].t() + bias[2 * size :]
        return [(1 - update) * candidate(step[:, 2 * size :] + recurrent) + update * h]

    return cell


@operator("LSTM")
def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    peepholes: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    """Gates in the order input i, output o, forget f, cell g: c' = f c + i g, h' = o tanh(c'); outputs Y, Y_h, Y_c.

    Peepholes f32[D, 3 H] let i and f see c, and o see c'. `input_forget` couples them: f = 1 - i.
    """
    shared = Attributes(activations, activation_alpha, activation_beta, clip, direction, layout)
    inputs, cells = [], []
    for index, functions in enumerate(shared.functions(("Sigmoid", "Tanh", "Tanh"), 2)):
        wt, rt, wb, rb = _weights(w, r, b, index)
        inputs.append(_given(wt, wb + rb))
        cells.append(_lstm_cell(rt, None if peepholes is None else peepholes[index], functions, bool(input_forget)))
    return _run(
        x, shared, lengths=sequence_lens, initial=[initial_h, initial_c], inputs=inputs, cells=cells, hidden=r.shape[2]
    )


def _lstm_cell(r: Tensor, peep: Tensor | None, functions: list[Activation], coupled: bool) -> Cell:
    gate, candidate, squash = functions
    size = r.shape[1]
    into, out, keep = (0, 0, 0) if peep is None else (peep[:size], peep[size : 2 * size], peep[2 * size :])

    def cell(step: Tensor, states: list[Tensor]) -> list[Tensor]:
        h, c = states
        i, o, f, g = (step + h @ r.t()).chunk(4, dim=1)
        i = gate(i + into * c)
        f = 1 - i if coupled else gate(f + keep * c)
        c = f * c + i * candidate(g)
        return [gate(o + out * c) * squash(c), c]

    return cell
