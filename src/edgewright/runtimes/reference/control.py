"""Control flow, sequences (Python lists) and optional values (None where empty)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgewright.runtimes.reference.operators import Array, Subgraph, axis_of, operator, scalar


@operator("If")
def if_(condition: Array, *, then_branch: Subgraph, else_branch: Subgraph) -> tuple[Any, ...]:
    """The outputs of the branch that the condition picks; the other is not evaluated."""
    return tuple((then_branch if scalar(condition) else else_branch)())


@operator("Loop")
def loop(trip_count: Array | None, condition: Array | None, *initial: Any, body: Subgraph) -> tuple[Any, ...]:
    """The loop's last state, then what each turn put out, stacked.

    The body takes (turn, condition, state ...) and gives (condition, state ..., outputs ...).
    """
    limit = None if trip_count is None else int(scalar(trip_count))
    going = True if condition is None else bool(scalar(condition))
    state, collected, turn = list(initial), None, 0
    while going and (limit is None or turn < limit):
        results = body(np.array(turn, np.int64), np.array(going), *state)
        going, state = bool(scalar(results[0])), results[1 : 1 + len(state)]
        collected = [[value] for value in results[1 + len(state) :]] if collected is None else collected
        if turn:
            for values, value in zip(collected, results[1 + len(state) :], strict=True):
                values.append(value)
        turn += 1
    return (*state, *_stacked(collected, body, 1 + len(state)))


def _stacked(collected: list[list[Array]] | None, body: Subgraph, first: int) -> list[Array]:
    if collected is not None:
        return [np.stack(values) for values in collected]
    return [body.empty(index) for index in range(first, body.output_count)]


@operator("Scan")
def scan(
    *inputs: Array,
    body: Subgraph,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_input_directions: Sequence[int] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    scan_output_directions: Sequence[int] | None = None,
) -> tuple[Any, ...]:
    """The last state, then the stacked outputs of a body that sees one slice of each scan input at each step."""
    states, sources = list(inputs[: len(inputs) - num_scan_inputs]), inputs[len(inputs) - num_scan_inputs :]
    axes = scan_input_axes or (0,) * len(sources)
    slices = [np.moveaxis(x, axis_of(axis, x.ndim), 0) for x, axis in zip(sources, axes, strict=True)]
    backwards = scan_input_directions or (0,) * len(sources)
    slices = [x[::-1] if back else x for x, back in zip(slices, backwards, strict=True)]
    lengths = {len(x) for x in slices}
    if len(lengths) != 1:
        raise ValueError(f"the scanned axes have different sizes: {sorted(lengths)}")
    collected: list[list[Array]] | None = None
    for step in range(lengths.pop()):
        results = body(*states, *(x[step] for x in slices))
        states, outputs = results[: len(states)], results[len(states) :]
        collected = collected or [[] for _ in outputs]
        for values, value in zip(collected, outputs, strict=True):
            values.append(value)
    stacked = _stacked(collected, body, len(states))
    turned = scan_output_directions or (0,) * len(stacked)
    stacked = [x[::-1] if back else x for x, back in zip(stacked, turned, strict=True)]
    targets = scan_output_axes or (0,) * len(stacked)
    return (*states, *(np.moveaxis(x, 0, axis_of(axis, x.ndim)) for x, axis in zip(stacked, targets, strict=True)))


@operator("SequenceConstruct")
def sequence_construct(*tensors: Array) -> list[Array]:
    """The inputs as a sequence."""
    return list(tensors)


@operator("SequenceEmpty")
def sequence_empty(*, dtype: int = 1) -> list[Array]:
    """A sequence of nothing."""
    return []


@operator("SequenceLength")
def sequence_length(sequence: list[Array]) -> Array:
    """The number of tensors in a sequence, int64[]."""
    return np.array(len(sequence), np.int64)


@operator("SequenceAt")
def sequence_at(sequence: list[Array], position: Array) -> Array:
    """The tensor at a position (negative: from the end)."""
    return sequence[_position(position, sequence, len(sequence) - 1)]


@operator("SequenceInsert")
def sequence_insert(sequence: list[Array], tensor: Array, position: Array | None = None) -> list[Array]:
    """The sequence with `tensor` before `position`, at the end by default."""
    where = len(sequence) if position is None else _position(position, sequence, len(sequence))
    return [*sequence[:where], tensor, *sequence[where:]]


@operator("SequenceErase")
def sequence_erase(sequence: list[Array], position: Array | None = None) -> list[Array]:
    """The sequence without the tensor at `position`, the last by default."""
    where = len(sequence) - 1 if position is None else _position(position, sequence, len(sequence) - 1)
    return [*sequence[:where], *sequence[where + 1 :]]


def _position(position: Array, sequence: list[Array], last: int) -> int:
    where = int(scalar(position))
    if not -len(sequence) <= where <= last:
        raise ValueError(f"position {where} is outside a sequence of {len(sequence)}")
    return where + len(sequence) if where < 0 else where


@operator("ConcatFromSequence")
def concat_from_sequence(sequence: list[Array], *, axis: int, new_axis: int = 0) -> Array:
    """The tensors of a sequence behind each other along `axis`, or stacked on a new one."""
    return np.stack(sequence, axis=axis) if new_axis else np.concatenate(sequence, axis=axis)


@operator("SplitToSequence")
def split_to_sequence(x: Array, sizes: Array | None = None, *, axis: int = 0, keepdims: int = 1) -> list[Array]:
    """x cut along `axis`: into slices of 1, into parts of one size (the last may be smaller), or into `sizes`."""
    axis = axis_of(axis, x.ndim)
    length = x.shape[axis]
    if sizes is None:
        parts = np.split(x, length, axis=axis) if length else []
        return parts if keepdims else [part.squeeze(axis) for part in parts]
    edges = range(int(sizes), length, int(sizes)) if sizes.ndim == 0 else np.cumsum(sizes)[:-1]
    return list(np.split(x, list(edges), axis=axis))


@operator("SequenceMap")
def sequence_map(sequence: list[Array], *others: Any, body: Subgraph) -> tuple[list[Any], ...]:
    """The sequences of the body's outputs for each tensor; further sequences go along, tensors stay the same."""
    rows = [
        body(tensor, *(other[i] if isinstance(other, list) else other for other in others))
        for i, tensor in enumerate(sequence)
    ]
    return tuple([row[i] for row in rows] for i in range(body.output_count))


@operator("Optional")
def optional(value: Any = None, *, type: Any = None) -> Any:
    """The value, or None."""
    return value


@operator("OptionalHasElement")
def optional_has_element(value: Any = None) -> Array:
    """Whether there is a value."""
    return np.array(value is not None)


@operator("OptionalGetElement")
def optional_get_element(value: Any) -> Any:
    """The value that is there."""
    if value is None:
        raise ValueError("the optional value is empty")
    return value
