"""What `compress` gives a pass: samples of the roles it may read, exact runs, agreement, a clock, what was found before."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright import registry
from edgewright import session as sessions
from edgewright.channel_map import Kept
from edgewright.contracts import Clock, QuantFormat, Role, Sample, SampleSource
from edgewright.errors import EdgewrightError
from edgewright.memo import Memo
from edgewright.metrics import rel_l2
from edgewright.model import Arrays, Model
from edgewright.progress import Progress
from edgewright.records import Environment
from edgewright.spec import Spec
from edgewright.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir

#: The exact runtime and the numpy reference differ by the order of sums alone; 100 times the float32 limit of
#: docs/architecture.md, "Tolerances", is no rounding any more.
_REL_L2_MAX = 1e-3
_CHECKED_RUNS = 2
#: Of a session; more help little while statistics are made of what it shows.
_THREADS = 4


class _Recorded:
    """Samples that note the groups of those that are read."""

    def __init__(self, source: SampleSource, used: set[str]) -> None:
        self._source = source
        self._used = used

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Sample]:
        for sample in self._source:
            self._used.add(sample.group)
            yield sample

    @property
    def groups(self) -> tuple[str, ...]:
        return self._source.groups

    def role(self, *roles: Role) -> _Recorded:
        return _Recorded(self._source.role(*roles), self._used)

    def spread(self, most: int) -> _Recorded:
        return _Recorded(self._source.spread(most), self._used)


@dataclass(eq=False)
class _Opened:
    """A session over one state of a graph. What it holds keeps the ids of its key from being given out again."""

    key: tuple[object, ...]
    held: tuple[object, ...]
    model: Model
    session: Any


class PassContext:
    """`contracts.Context`: what passes may use. Close it to free sessions."""

    def __init__(
        self,
        samples: SampleSource | None,
        target: Target,
        spec: Spec,
        min_agreement: float,
        progress: Progress,
        seed: int,
        memo: Memo | None = None,
    ) -> None:
        self.samples: SampleSource | None = None
        self.clock: Clock | None = None
        self._memo = memo
        self.target = target
        self._min_agreement = min_agreement
        self._spec = spec
        self.progress = progress
        self.seed = seed
        self.original: ir.Model | None = None
        self.done = 0  # steps that were made before the first lossy one
        self.kept: Mapping[str, Kept] = {}
        self.source = samples
        self._opened: list[_Opened] = []
        self._reference: Any = None
        self.checks_left = _CHECKED_RUNS

    def start(self, model: Model) -> set[str]:
        """Begin a step on `model`: the set that fills with the groups of the samples it reads."""
        self._model, self._used = model, set[str]()
        self.samples = None if self.source is None else _Recorded(self.source, self._used)
        return self._used

    def remember(self, what: object, make: Callable[[], Any]) -> Any:
        """What `make` returns, or returned before for the same network, samples, seed and `what`."""
        if self._memo is None:
            return make()
        samples = None if self.source is None else getattr(self.source, "hash", self.source.groups)
        key = [what, self._model.hash, samples, self.seed, Environment.here().versions.get("edgewright")]
        found = self._memo.get(key)
        if found is None:
            value = make()
            found = {"used": sorted(self._used), "value": value}
            self._memo.put(key, found)
        self._used.update(found["used"])
        return found["value"]

    @property
    def spec(self) -> Spec:
        """What the network's inputs expect and its outputs mean."""
        return self._spec

    @property
    def quant_format(self) -> QuantFormat:
        """The int8 arithmetic of the target.

        Raises:
            EdgewrightError: E211 where the target's runtime has none.
        """
        found: QuantFormat | None = registry.get("runtimes", self.target.runtime).quant_format(self.target)
        if found is None:
            raise EdgewrightError(
                "E211",
                f"runtime `{self.target.runtime}` runs no int8 networks on `{self.target.cpu}`",
                hint="edgewright list",
            )
        return found

    def required(self, samples: int) -> float:
        """The agreement, 0..1, that so many select samples must show.

        One sample alone never decides: one of twenty that differs is no sign of less than 98 %.
        """
        if not registry.get("tasks", self._spec.task).PROPORTION:
            return self._min_agreement
        return min(self._min_agreement, 1 - 1 / max(samples, 1))

    def agreement(self, reference: Sequence[Arrays], results: Sequence[Arrays]) -> float:
        """How far outputs say the same as the original's by the network's task, 0..1; one `Arrays` for each sample."""
        task = registry.get("tasks", self._spec.task)
        with np.errstate(all="ignore"):  # a NaN agrees with nothing
            decoded = [[task.postprocess(item, self._spec) for item in items] for items in (reference, results)]
            return float(task.agreement(*decoded, self._spec))

    def run(self, ir_model: ir.Model, inputs: Arrays, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Tensors `outputs` (default: the graph's outputs) of a float graph, on the exact runtime.

        The first two runs are checked against the numpy reference, where that can run the graph.

        Raises:
            EdgewrightError: E230 for inputs that do not fit, E231 unknown tensors, E232 when the runtime fails or does
                not agree with the reference.
        """
        return self.runner(ir_model, outputs)(inputs)

    def runner(
        self, ir_model: ir.Model, outputs: Sequence[str] | None = None
    ) -> Callable[[Arrays], dict[str, np.ndarray]]:
        """The same for many inputs; the graph must not change meanwhile."""
        opened = self._open(ir_model)

        def run(inputs: Arrays) -> dict[str, np.ndarray]:
            nonlocal opened
            if opened not in self._opened:  # others were opened in between
                opened = self._open(ir_model)
            if self.checks_left:
                self.checks_left -= 1
                self._check(opened, inputs)
            results: dict[str, np.ndarray] = opened.session.run(inputs, outputs)
            return results

        return run

    def close(self) -> None:
        """Close every session."""
        for opened in self._opened:
            opened.session.close()
        self._opened.clear()
        if self._reference is not None:
            self._reference.session.close()
            self._reference = None

    def _open(self, ir_model: ir.Model) -> _Opened:
        key, held = _state(ir_model)
        for opened in self._opened:
            if opened.key == key:
                return opened
        while len(self._opened) > 1:  # a pass compares two graphs at most, usually before and after
            self._opened.pop(0).session.close()
        self._opened.append(_open(ir_model, (key, held), None))
        return self._opened[-1]

    def _check(self, opened: _Opened, inputs: Arrays) -> None:
        name = opened.session.bundle.runtime
        if name == "reference" or "reference" not in registry.installed("runtimes"):
            return
        try:
            if self._reference is None or self._reference.key != opened.key:
                if self._reference is not None:
                    self._reference.session.close()
                self._reference = _open(opened.model.ir, (opened.key, opened.held), "reference")
            expected = self._reference.session.run(inputs)
        except EdgewrightError as problem:
            if problem.code != "E210":
                raise
            self.checks_left = 0
            self.progress.note(f"`{name}` is not checked against the reference runtime: {problem.message}")
            return
        got = opened.session.run(inputs)
        for output, array in expected.items():
            distance = rel_l2(array, got[output]) if array.dtype.kind == "f" else 0.0
            if not distance <= _REL_L2_MAX:
                raise EdgewrightError(
                    "E232",
                    f"`{name}` does not agree with the reference runtime on `{output}`: "
                    f"rel-L2 {distance:.1e}, limit {_REL_L2_MAX:.0e}",
                    hint="edgewright doctor",
                )


def _open(ir_model: ir.Model, state: tuple[tuple[object, ...], tuple[object, ...]], runtime: str | None) -> _Opened:
    model = Model(ir_model.clone(), origin="compress")  # the hash of a graph in work is nobody's origin
    return _Opened(
        *state, model, sessions.open(model, runtime=runtime, threads=min(Environment.here().cores, _THREADS))
    )


def _state(ir_model: ir.Model) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """A key that changes with nodes, wiring, attributes and weights (by identity), and the objects it identifies."""
    parts: list[object] = []
    held: list[object] = [ir_model]
    for graph in itertools.chain(ir_model.graphs(), ir_model.functions.values()):
        parts.append(tuple(value.name for value in (*graph.inputs, *graph.outputs)))
        for value in getattr(graph, "initializers", {}).values():
            held.append(value.const_value)
            parts.append((value.name, id(value.const_value)))
        for node in graph:
            attributes = tuple(node.attributes.values())
            held.extend(attributes)
            parts.append(
                (
                    node.domain,
                    node.op_type,
                    *(value.name if value is not None else "" for value in node.inputs),
                    "->",
                    *(value.name for value in node.outputs),
                    *map(id, attributes),
                )
            )
    return tuple(parts), tuple(held)
