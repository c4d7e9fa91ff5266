"""An opened plan: arrays in, arrays out, on the C++ steps or, where there are none, on their definition in numpy."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewright import kernels
from edgewright.contracts import Cut
from edgewright.errors import EdgewrightError
from edgewright.graph.cut import unknown_tensor
from edgewright.model import Arrays
from edgewright.ops.packing import check_packed
from edgewright.runtimes.native.defined import Defined
from edgewright.runtimes.native.plan import KERNELS, Plan, Step, Tensor

_FEED, _TAKE, _PACK = "feed", "take", "pack"


@dataclass(frozen=True)
class Order:
    """What is done, in order.

    Attributes:
        rows: ("step", number), ("feed", tensor), ("take", tensor), or ("pack", number) for a step of which only the packing
            of signs is left to do, its floats being fed. Tensors are indices.
    """

    rows: tuple[tuple[str, int], ...]

    def tensors(self, what: str) -> list[int]:
        """Those that are fed, or taken."""
        return [index for kind, index in self.rows if kind == what]


def order(plan: Plan, inputs: Sequence[str], outputs: Sequence[str]) -> Order:
    """The steps that lead from `inputs` to `outputs`, each input written when its memory is its own.

    A tensor that lies inside the network is fed in the place of the step that makes it: before, others may use its memory.

    Raises:
        EdgewrightError: E231 for a tensor that is not there, or inputs that do not determine the outputs.
    """
    if not outputs:
        raise EdgewrightError("E231", "a cut must name at least one output tensor")
    for name in (*inputs, *outputs):
        if name not in plan.names:
            raise unknown_tensor(name, plan.names, where="the network")
    makers = plan.makers()
    fed, taken = ([plan.names[name] for name in dict.fromkeys(names)] for names in (inputs, outputs))
    steps, packs = _needed(plan, makers, {_buffer(plan, index) for index in fed}, taken)
    missing = sorted(plan.tensors[plan.inputs[-1 - number]].name for number in steps if number < 0)
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        raise EdgewrightError(
            "E231", f"the cut's {len(inputs)} inputs do not determine its outputs: {names} must be given too"
        )
    rows: list[tuple[str, int]] = []
    for number in (*range(-len(plan.inputs), 0), *range(len(plan.steps))):
        rows += [("step", number)] if number in steps else []
        rows += [(_FEED, index) for index in fed if makers[_buffer(plan, index)] == number]
        rows += [(_PACK, number)] if number in packs else []
        rows += [(_TAKE, index) for index in taken if makers[_buffer(plan, index)] == number]
    return Order(tuple(rows))


def _buffer(plan: Plan, index: int) -> int:
    return plan.tensors[index].buffer


def _needed(plan: Plan, makers: dict[int, int], fed: set[int], taken: Sequence[int]) -> tuple[set[int], set[int]]:
    """Numbers of the steps that must run (negative ones are inputs), and of those that only pack what is fed."""
    steps: set[int] = set()
    packs: set[int] = set()
    seen = set(fed)
    stack = [_buffer(plan, index) for index in taken]
    while stack:
        buffer = stack.pop()
        if buffer in seen:
            continue
        seen.add(buffer)
        number = makers[buffer]
        step = None if number < 0 else plan.steps[number]
        if step is not None and step.kernel == "binary_conv" and _buffer(plan, step.writes[0] or 0) in fed:
            packs.add(number)
            continue
        steps.add(number)
        stack += [_buffer(plan, index) for index in (step.reads if step else ()) if index is not None]
    return steps, packs


def _packing(plan: Plan, step: Step) -> Step:
    """What packs the signs of a binary layer's floats, without the layer."""
    channels = dict(zip(KERNELS[step.kernel].sizes, step.sizes, strict=True))["filters"]
    floats = step.writes[0]
    assert floats is not None, "a plan's step has all that it must have"
    pixels = plan.tensors[floats].size_bytes // (4 * channels)
    return Step("pack", (pixels, channels), (), (floats,), step.writes[1:], step.constants[4:])


def _exchange(index: int, tensor: Tensor) -> list[int]:
    """The sizes of a feed or take step: outside an array is [batch, rows, columns], inside its columns come first."""
    batch, rows, columns = 1, 1, tensor.size_bytes // (1 if tensor.channels else 4)
    if tensor.channels_last:
        batch, rows = tensor.shape[:2]
        columns //= batch * rows
    return [index, 1 if tensor.channels else 4, batch, rows, columns]


class PlanRunner:
    """A plan, or a part of it, ready to run."""

    def __init__(self, path: Path, plan: Plan, inputs: Sequence[str], outputs: Sequence[str], threads: int) -> None:
        self._plan, self._path = plan, path
        self.order = order(plan, inputs, outputs)
        self._inputs = [plan.tensors[index] for index in self.order.tensors(_FEED)]
        self._outputs = [plan.tensors[index] for index in self.order.tensors(_TAKE)]
        self._named = tuple(dict.fromkeys(outputs))
        self._lock = threading.Lock()
        variant, module = kernels.chosen(None, threads), kernels.native()
        self._pool = None if module is None else kernels.pool(threads)
        self._network: Any = self._made(module, variant, threads)

    def _made(self, module: Any | None, variant: str, threads: int) -> Any:
        """The network with its steps, in C++ where there is the module.

        Raises:
            EdgewrightError: E232 for a step that cannot be.
        """
        plan = self._plan
        counts = {_FEED: 0, _TAKE: 0}
        what = "the plan"
        try:
            arena_bytes = plan.arena_bytes
            network: Any = Defined(arena_bytes) if module is None else module.Network(arena_bytes, variant, threads)
            for kind, index in self.order.rows:
                if kind in ("step", _PACK):
                    step = plan.steps[index] if kind == "step" else _packing(plan, plan.steps[index])
                    what = f"step {index} (`{step.kernel}`)"
                    weights = [None if i is None else _as_bytes(plan.constants[i]) for i in step.constants]
                    spans = [[self._span(i) for i in indices] for indices in (step.reads, step.writes)]
                    network.add(step.kernel, list(step.sizes), list(step.numbers), *spans, weights)
                    continue
                what = f"tensor `{plan.tensors[index].name}`"
                sizes = _exchange(counts[kind], plan.tensors[index])
                spans = [[self._span(index)], []]
                network.add(kind, sizes, [], *(spans[::-1] if kind == _FEED else spans), [])
                counts[kind] += 1
            network.finish()
        except (ValueError, IndexError, TypeError, MemoryError, ArithmeticError) as problem:
            raise EdgewrightError("E232", f"`{self._path}` cannot be run: {what}: {problem}") from None
        return network

    def _span(self, index: int | None) -> tuple[int, int]:
        if index is None:
            return (-1, 0)
        tensor = self._plan.tensors[index]
        return (self._plan.offsets[tensor.buffer], tensor.size_bytes)

    def run(self, inputs: Arrays, /) -> dict[str, np.ndarray]:
        """All outputs by ONNX name, in memory of their own.

        Raises:
            EdgewrightError: E230 for an array of another type or shape, E202 for packed signs with bits beyond their
                channels.
        """
        count = self._count(inputs)
        if count == 1:
            return self._sample([inputs[tensor.name] for tensor in self._inputs])
        parts = []
        for number in range(count):
            rows = ((inputs[t.name], t.shape[0]) for t in self._inputs)
            parts.append(self._sample([array[number * length : (number + 1) * length] for array, length in rows]))
        return {name: np.concatenate([part[name] for part in parts]) for name in self._named}

    def close(self) -> None:
        """Free the network."""
        with self._lock:
            self._network = None

    def times(self, inputs: Arrays, runs: int) -> dict[str, float]:
        """Milliseconds of each step over so many runs, by the tensor that it makes."""
        arrays = [_as_bytes(inputs[tensor.name]) for tensor in self._inputs]
        outputs = [_as_bytes(np.empty(t.shape, t.dtype)) for t in self._outputs]
        seconds = np.zeros(len(self.order.rows))
        self._network.run(arrays, outputs, None, self._pool)
        for _ in range(runs):
            self._network.run(arrays, outputs, seconds, self._pool)
        found: dict[str, float] = {}
        for (kind, index), taken in zip(self.order.rows, seconds, strict=True):
            made = next(i for i in self._plan.steps[index].writes if i is not None) if kind == "step" else index
            name = self._plan.tensors[made].name
            found[name] = found.get(name, 0.0) + float(taken) / runs * 1e3
        return found

    def _sample(self, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
        outputs = [np.empty(tensor.shape, tensor.dtype) for tensor in self._outputs]
        with self._lock:
            assert self._network is not None, "the runner was closed"
            try:
                self._network.run(
                    [_as_bytes(array) for array in arrays], [_as_bytes(array) for array in outputs], None, self._pool
                )
            except (ValueError, IndexError, TypeError, MemoryError, ArithmeticError) as problem:  # numpy looks only now
                raise EdgewrightError("E232", f"`{self._path}` cannot be run: {problem}") from None
        found = {tensor.name: array for tensor, array in zip(self._outputs, outputs, strict=True)}
        return {name: found[name] for name in self._named}

    def _count(self, inputs: Arrays) -> int:
        """Samples in `inputs`."""
        counts = set()
        for tensor in self._inputs:
            array, shape = inputs[tensor.name], tensor.shape
            open_batch = (
                self._plan.open_batch and array.ndim == len(shape) and array.shape[0] and array.shape[0] % shape[0] == 0
            )
            if array.dtype != tensor.dtype or array.shape != (array.shape[0] if open_batch else shape[0], *shape[1:]):
                raise EdgewrightError(
                    "E230",
                    f"input `{tensor.name}` is {array.dtype.name}{list(array.shape)}, but the network takes "
                    f"{tensor.dtype}{list(shape)}",
                )
            if tensor.channels:
                check_packed(array, tensor.channels, name=tensor.name)
            counts.add(array.shape[0] // shape[0])
        if len(counts) > 1:
            raise EdgewrightError("E230", f"inputs hold different numbers of samples: {sorted(counts)}")
        return counts.pop() if counts else 1


def _as_bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def open_plan(path: Path, plan: Plan, cut: Cut | None, threads: int) -> PlanRunner:
    """The plan, or the part that `cut` names."""
    own = [plan.tensors[index].name for index in plan.inputs]
    if cut is None:
        return PlanRunner(path, plan, own, [plan.tensors[index].name for index in plan.outputs], threads)
    return PlanRunner(path, plan, own if cut.inputs is None else cut.inputs, cut.outputs, threads)
