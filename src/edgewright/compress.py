"""compress: a Model becomes a smaller or simpler Model, by the passes of a recipe.

The whole recipe is checked before its first step: names, options, installed packages, samples, target. Each step works
on a copy of the graph and adds one line to the Model's history.

    >>> small = compress(model, "fp16")                                  # doctest: +SKIP
    >>> small.history[-1].name                                           # doctest: +SKIP
    'to_float16'
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright import registry
from edgewright import session as sessions
from edgewright.channel_map import Kept, decode
from edgewright.contracts import QuantFormat, Role, Sample, SampleSource
from edgewright.errors import EdgewrightError
from edgewright.graph.shapes import infer
from edgewright.metrics import rel_l2
from edgewright.model import Arrays, Model, Step
from edgewright.options import build, dump, require_agreement
from edgewright.progress import SILENT, Progress
from edgewright.recipe import Recipe
from edgewright.records import Environment
from edgewright.spec import Spec
from edgewright.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir

Overrides = Mapping[str, Mapping[str, Any]]

#: The exact runtime and the numpy reference differ by the order of sums alone; 100 times the float32 limit of
#: docs/architecture.md, "Tolerances", is no rounding any more.
_REL_L2_MAX = 1e-3
_CHECKED_RUNS = 2
#: Of a session; more help little while statistics are made of what it shows.
_THREADS = 4


def compress(
    model: Model,
    recipe: str | Path | Recipe,
    samples: SampleSource | None = None,
    *,
    target: Target | None = None,
    original: Model | None = None,
    overrides: Overrides | None = None,
    min_agreement: float = 0.98,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Model:
    """The Model that the recipe's passes make of `model`.

    Args:
        model: The network; it is not changed.
        recipe: A built-in name, a TOML file or a Recipe.
        samples: What passes may learn from; they see the calibrate and select roles only.
        target: Runtime and CPU the result is for; by default the recipe's first runtime on this CPU.
        original: What passes such as `distil` learn toward, where `model` is a lossy copy of it already; by default the
            network before the recipe's first lossy step.
        overrides: Options by pass name, over the recipe's own.
        min_agreement: What passes that may leave layers in float should reach on the select samples, 0..1.
        seed: Seed of every random choice.
        progress: Told of each step.

    Raises:
        EdgewrightError: E101 unknown recipe, pass or runtime, E102 a package is missing, E103 a malformed option, a
            `min_agreement` that is none, or a target that the recipe is not for, E222 an `original` that `model` does not
            come from, E301 a pass needs samples, E212 a pass cannot work on this graph.
    """
    require_agreement(min_agreement)
    _require_origin(model, original)
    recipe = Recipe.named(recipe)
    target = _target(recipe, target)
    learnt_from = None if samples is None else samples.role("calibrate", "select")
    steps = _plan(recipe, overrides or {}, learnt_from)
    inputs, outputs = model.inputs, model.outputs
    with closing(_Context(learnt_from, target, model.spec, min_agreement, progress, seed)) as context:
        context.original = None if original is None else original.ir
        for number, step in enumerate(steps):
            progress.update("compress", number, len(steps))
            model = _apply(model, step, context)
        progress.update("compress", len(steps), len(steps))
    assert [info.name for info in model.inputs] == [info.name for info in inputs], f"`{recipe.name}` changed the inputs"
    assert [info.name for info in model.outputs] == [info.name for info in outputs], (
        f"`{recipe.name}` changed the outputs"
    )
    return model


# --- before the first step --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Planned:
    """One step whose name and options are known to be right."""

    name: str
    plugin: Any
    config: Any


def _require_origin(model: Model, original: Model | None) -> None:
    if original is None or (original.origin == model.origin and not original.lossy):
        return
    what = "is a lossy copy itself" if original.lossy else f"is the network {original.origin[:12]}"
    raise EdgewrightError(
        "E222", f"`{model.name}` was made from the network {model.origin[:12]}, but the original given {what}"
    )


def _target(recipe: Recipe, target: Target | None) -> Target:
    if target is None:
        target = Target(recipe.runtimes[0]) if recipe.runtimes else Target()
    elif recipe.runtimes and target.runtime not in recipe.runtimes:
        raise EdgewrightError(
            "E103",
            f"recipe `{recipe.name}` is for {_list(recipe.runtimes)}, but the target is `{target.runtime}`",
            hint="edgewright list recipes",
        )
    if target.runtime not in registry.names("runtimes"):
        raise registry.unknown("runtime", target.runtime, registry.names("runtimes"))
    return target


def _plan(recipe: Recipe, overrides: Overrides, samples: SampleSource | None) -> tuple[_Planned, ...]:
    """The recipe's steps, every one of them checked."""
    known = {step.name for step in recipe.steps}
    for name in overrides:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            tail = f"; did you mean `{near[0]}`?" if near else f"; its passes: {_list(known) or 'none'}"
            raise EdgewrightError("E103", f"recipe `{recipe.name}` has no pass `{name}` to set options of{tail}")
    planned = []
    for step in recipe.steps:
        plugin = registry.get("passes", step.name)
        config = build(plugin.Config, {**step.config, **overrides.get(step.name, {})}, where=step.name)
        if plugin.NEEDS_SAMPLES and (samples is None or len(samples) == 0):
            had = "none were given" if samples is None else "the samples hold none with the roles calibrate and select"
            raise EdgewrightError(
                "E301",
                f"pass `{step.name}` of recipe `{recipe.name}` needs samples, but {had}",
                hint="--samples FOLDER",
            )
        planned.append(_Planned(step.name, plugin, config))
    return tuple(planned)


def _apply(model: Model, step: _Planned, context: _Context) -> Model:
    ir_model = model.clone_ir()
    used = context.start()
    context.kept = decode(line.stats for line in model.history[context.done :])
    stats = step.plugin.apply(ir_model, step.config, context)
    if step.plugin.LOSSY and context.original is None:
        context.original, context.done = model.ir, len(model.history)
    infer(ir_model)
    line = Step(
        kind="pass",
        name=step.name,
        config=dump(step.config),
        lossy=step.plugin.LOSSY,
        samples=tuple(sorted(used)),
        stats=stats or {},
    )
    return model.with_ir(ir_model, line)


# --- what a pass gets -------------------------------------------------------------------------------------------------


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


@dataclass(eq=False)
class _Opened:
    """A session over one state of a graph. What it holds keeps the ids of its key from being given out again."""

    key: tuple[object, ...]
    held: tuple[object, ...]
    model: Model
    session: Any


class _Context:
    """`contracts.Context`: what passes may use. Close it to free sessions."""

    def __init__(
        self,
        samples: SampleSource | None,
        target: Target,
        spec: Spec,
        min_agreement: float,
        progress: Progress,
        seed: int,
    ) -> None:
        self.samples: SampleSource | None = None
        self.target = target
        self._min_agreement = min_agreement
        self._spec = spec
        self.progress = progress
        self.seed = seed
        self.original: ir.Model | None = None
        self.done = 0  # steps that were made before the first lossy one
        self.kept: Mapping[str, Kept] = {}
        self._source = samples
        self._opened: list[_Opened] = []
        self._reference: Any = None
        self._checks_left = _CHECKED_RUNS

    def start(self) -> set[str]:
        """Begin a step: the set that fills with the groups of the samples it reads."""
        used: set[str] = set()
        self.samples = None if self._source is None else _Recorded(self._source, used)
        return used

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
            if self._checks_left:
                self._checks_left -= 1
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
            self._checks_left = 0
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


def _list(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)
