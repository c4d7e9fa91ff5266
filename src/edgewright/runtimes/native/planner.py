"""Planning: a graph's nodes become steps, one rule an operator, and what follows a layer becomes part of its step.

Values are kept in the order of memory: floats of four axes as [N, H, W, C], so that signs pack cheaply and a row of a window is
one run; all others as ONNX has them. A value may have both forms; `planner.plain` and `planner.last` make the one that lacks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import constant_array
from edgewright.ops.packing import bytes_for
from edgewright.runtimes.native.memory import Life, arrange
from edgewright.runtimes.native.plan import KERNELS, Plan, Step, Tensor, memory_shape

if TYPE_CHECKING:
    import onnx_ir as ir

#: How far a step's work goes, in the order in which kernels do it; what comes later may still join.
SCALED, JOINED, SLOPED, LIMITED, POOLED = range(5)
_FINISHING = ("conv", "depthwise", "pointwise", "binary_conv")


class UnsupportedError(Exception):
    """A node that this runtime cannot run; the message says why."""


@dataclass(frozen=True)
class Held:
    """A value as it lies in a buffer.

    Attributes:
        buffer: Which one; reshaped values share it.
        shape: ONNX's.
        last: True where memory holds [N, H, W, C].
        channels: Of packed signs; 0 for floats.
    """

    buffer: int
    shape: tuple[int, ...]
    last: bool = False
    channels: int = 0

    @property
    def memory(self) -> tuple[int, ...]:
        """Sizes in the order of memory."""
        return memory_shape(self.shape, self.last)

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes."""
        return math.prod(self.shape) * (1 if self.channels else 4)


@dataclass
class Draft:
    """A step that later nodes may still join.

    Attributes:
        kernel: A key of `KERNELS`.
        sizes: By name, in the kernel's order.
        reads: Values by name.
        writes: Values by name.
        constants: Arrays by name.
        low: The least result.
        high: The largest.
        fill: What stands in the place of values that are not there.
        stage: How far its work goes.
    """

    kernel: str
    sizes: dict[str, int]
    reads: dict[str, Held]
    writes: dict[str, Held]
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    low: float = -math.inf
    high: float = math.inf
    fill: float = 0.0
    stage: int = SCALED


Rule = Callable[["Planner", "ir.Node"], None]


class Planner:
    """A graph that is becoming a plan."""

    def __init__(self) -> None:
        self.steps: list[Draft] = []
        self.values: dict[str, Held] = {}
        self.sizes: list[int] = []  # bytes of each buffer
        self._names: list[int] = []  # of values in each buffer
        self._plain: dict[Held, Held] = {}
        self._last: dict[Held, Held] = {}

    # --- values ---

    def value(self, value: ir.Value | None) -> Held:
        """What was planned for `value`.

        Raises:
            UnsupportedError: It is a constant, or absent.
        """
        if value is None or value.name not in self.values:
            raise UnsupportedError("it computes with a constant where a tensor is needed")
        return self.values[value.name]

    def floats(self, value: ir.Value | None) -> Held:
        """The same for floats.

        Raises:
            UnsupportedError: as `value`, and for packed signs.
        """
        held = self.value(value)
        if held.channels:
            raise UnsupportedError("it computes with packed signs")
        return held

    def name(self, value: ir.Value, held: Held) -> None:
        """`held` is what `value` is."""
        assert value.name is not None
        self.values[value.name] = held
        self._names[held.buffer] += 1

    def fresh(self, shape: tuple[int, ...], *, last: bool | None = None, channels: int = 0) -> Held:
        """A new buffer for a value of this shape; floats of four axes have channels last unless `last` says otherwise."""
        held = Held(len(self.sizes), shape, (len(shape) == 4 and not channels) if last is None else last, channels)
        self.sizes.append(held.size_bytes)
        self._names.append(0)
        return held

    def signs(self, places: tuple[int, ...], channels: int) -> Held:
        """A new buffer for the signs of so many channels at these places, N first."""
        return self.fresh((*places, bytes_for(channels)), channels=channels)

    def plain(self, held: Held) -> Held:
        """The value in ONNX's order."""
        if not held.last:
            return held
        batch, channels, *places = held.shape
        if channels == 1 or math.prod(places) == 1:
            return Held(held.buffer, held.shape)
        if held not in self._plain:
            made = self.fresh(held.shape, last=False)
            self._add_transpose(held, made, (batch, math.prod(places), channels))
            self._plain[held], self._last[made] = made, held
        return self._plain[held]

    def last(self, held: Held) -> Held:
        """The value with channels last, where it has four axes."""
        if held.last or len(held.shape) != 4 or held.channels:
            return held
        batch, channels, *places = held.shape
        if channels == 1 or math.prod(places) == 1:
            return Held(held.buffer, held.shape, last=True)
        if held not in self._last:
            made = self.fresh(held.shape)
            self._add_transpose(held, made, (batch, channels, math.prod(places)))
            self._last[held], self._plain[made] = made, held
        return self._last[held]

    def reshaped(self, held: Held, shape: tuple[int, ...]) -> Held:
        """The same values in ONNX's order under another shape."""
        if math.prod(shape) != math.prod(held.shape):
            raise UnsupportedError(f"it makes {list(shape)} of {list(held.shape)}")
        if held.channels:
            if shape[-1] != held.shape[-1]:
                raise UnsupportedError("it reshapes the words of packed signs")
            return Held(held.buffer, shape, channels=held.channels)
        return self.last(Held(self.plain(held).buffer, shape))

    def _add_transpose(self, held: Held, made: Held, sizes: tuple[int, int, int]) -> None:
        names = KERNELS["transpose"].sizes
        self.steps.append(
            Draft("transpose", dict(zip(names, sizes, strict=True)), {"x": held}, {"y": made}, stage=LIMITED)
        )

    # --- steps ---

    def add(self, output: ir.Value, step: Draft) -> None:
        """A step that makes `output`."""
        self.steps.append(step)
        self.name(output, next(iter(step.writes.values())))

    def joinable(self, value: ir.Value | None, stage: int) -> Draft | None:
        """The step that made `value` and may still do work of this stage: nobody else sees what it made so far."""
        if value is None or value.is_graph_output() or len(tuple(value.uses())) != 1 or value.name not in self.values:
            return None
        held = self.values[value.name]
        if self._names[held.buffer] > 1:
            return None
        for step in reversed(self.steps):
            if step.writes.get("y") == held:
                free = step.kernel in _FINISHING and (step.stage < stage or step.stage == stage == SCALED)
                return step if free else None
        return None

    def join(self, step: Draft, before: ir.Value, after: ir.Value, stage: int) -> None:
        """`step`, which made `before`, now makes `after`."""
        assert before.name is not None
        step.stage = stage
        held = self.values.pop(before.name)
        self._names[held.buffer] -= 1
        self.name(after, step.writes["y"])

    # --- the whole ---

    def plan(self, inputs: list[str], outputs: list[str], *, open_batch: bool) -> Plan:
        """The plan, with its memory laid out."""
        lives = self._lives([self.values[name] for name in inputs])
        places, arena_bytes = arrange([lives[buffer] for buffer in sorted(lives)])
        numbers = {buffer: number for number, buffer in enumerate(sorted(lives))}  # joining left some unused
        tensors: list[Tensor] = []
        index: dict[Held, int] = {}
        for name, held in self.values.items():
            index.setdefault(held, len(tensors))
            tensors.append(_tensor(name, held, numbers))
        for held in (held for step in self.steps for held in (*step.reads.values(), *step.writes.values())):
            if held not in index:  # a form of a value that only steps see
                index[held] = len(tensors)
                tensors.append(_tensor("", held, numbers))
        constants: list[np.ndarray] = []
        steps = tuple(_step(draft, index, constants) for draft in self.steps)
        named = {tensor.name: number for number, tensor in enumerate(tensors)}
        ends = [tuple(named[name] for name in names) for names in (inputs, outputs)]
        return Plan(arena_bytes, tuple(places), tuple(tensors), steps, tuple(constants), ends[0], ends[1], open_batch)

    def _lives(self, inputs: list[Held]) -> dict[int, Life]:
        first = {held.buffer: -1 for held in inputs}
        last = dict(first)
        for number, step in enumerate(self.steps):
            for held in step.writes.values():
                first.setdefault(held.buffer, number)
                last[held.buffer] = number
            for held in step.reads.values():
                last[held.buffer] = number
        return {buffer: Life(self.sizes[buffer], first[buffer], last[buffer]) for buffer in first}


def _tensor(name: str, held: Held, numbers: dict[int, int]) -> Tensor:
    dtype = "uint8" if held.channels else "float32"
    return Tensor(name, dtype, held.shape, held.last, held.channels, numbers[held.buffer])


def _step(draft: Draft, index: dict[Held, int], constants: list[np.ndarray]) -> Step:
    fields = KERNELS[draft.kernel]

    def stored(array: np.ndarray | None) -> int | None:
        if array is None:
            return None
        constants.append(array)
        return len(constants) - 1

    def found(names: tuple[str, ...], values: dict[str, Held]) -> tuple[int | None, ...]:
        keys = tuple(values) if "..." in names else tuple(name.rstrip("?") for name in names)
        return tuple(index[values[key]] if key in values else None for key in keys)

    return Step(
        kernel=draft.kernel,
        sizes=tuple(draft.sizes.values()),
        numbers=tuple(getattr(draft, name) for name in fields.numbers),
        reads=found(fields.reads, draft.reads),
        writes=found(fields.writes, draft.writes),
        constants=tuple(stored(draft.constants.get(name.rstrip("?"))) for name in fields.constants),
    )


def constant(value: ir.Value | None, what: str) -> np.ndarray:
    """A constant of the node.

    Raises:
        UnsupportedError: It is computed.
    """
    array = constant_array(value)
    if array is None:
        raise UnsupportedError(f"its {what} is no constant")
    return array
