"""compress: a Model becomes a smaller or simpler Model, by the passes of a recipe.

The whole recipe is checked before its first step: names, options, installed packages, samples, target. Each step works
on a copy of the graph and adds one line to the Model's history.

    >>> small = compress(model, "fp16")                                  # doctest: +SKIP
    >>> small.history[-1].name                                           # doctest: +SKIP
    'to_float16'
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright import registry
from edgewright.channel_map import decode
from edgewright.clocks import Few, FollowingClock
from edgewright.context import PassContext
from edgewright.contracts import SampleSource, Stopwatch
from edgewright.errors import EdgewrightError
from edgewright.graph.shapes import infer
from edgewright.memo import Memo
from edgewright.model import Model, Step
from edgewright.options import build, dump, require_agreement
from edgewright.progress import SILENT, Progress
from edgewright.recipe import Recipe
from edgewright.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir

Overrides = Mapping[str, Mapping[str, Any]]


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
    last: str | None = None,
    clock: Stopwatch | None = None,
    memo: Memo | None = None,
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
        last: Stop after the pass of this name; clocks still measure what the whole recipe makes.
        clock: What passes may measure time with.
        memo: Where passes find what they found out before.
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
    with closing(PassContext(learnt_from, target, model.spec, min_agreement, progress, seed, memo)) as context:
        context.original = None if original is None else original.ir
        for number, step in enumerate(steps):
            progress.update("compress", number, len(steps))
            context.clock = None if clock is None else _following(clock, steps[number + 1 :], context)
            model = _apply(model, step, context)
            if step.name == last:
                break
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
        config = build(plugin.Config, _merged(plugin, step.config, overrides.get(step.name, {})), where=step.name)
        if plugin.NEEDS_SAMPLES and (samples is None or len(samples) == 0):
            had = "none were given" if samples is None else "the samples hold none with the roles calibrate and select"
            raise EdgewrightError(
                "E301",
                f"pass `{step.name}` of recipe `{recipe.name}` needs samples, but {had}",
                hint="--samples FOLDER",
            )
        planned.append(_Planned(step.name, plugin, config))
    return tuple(planned)


def _merged(plugin: Any, config: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's options with those of the caller over them, which replace all that exclude them."""
    exclusive = set(getattr(plugin, "EXCLUSIVE", ()))
    replaced = exclusive - set(over) if exclusive & set(over) else set()
    return {**{key: value for key, value in config.items() if key not in replaced}, **over}


def _apply(model: Model, step: _Planned, context: PassContext) -> Model:
    ir_model = model.clone_ir()
    used = context.start(model)
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


def _following(clock: Stopwatch, steps: Sequence[_Planned], context: PassContext) -> FollowingClock:
    """A clock that measures networks as they are after `steps`, made roughly: only those that time depends on."""
    rough = [
        replace(step, config=build(step.plugin.Config, {**dump(step.config), **step.plugin.ROUGH}, where=step.name))
        for step in steps
        if hasattr(step.plugin, "ROUGH")
    ]

    def finish(ir_model: ir.Model) -> Model:
        model = Model(ir_model, context.spec, name="timed")
        samples = Few.of(context.source) if rough and context.source is not None else None
        with closing(PassContext(samples, context.target, context.spec, 1.0, SILENT, context.seed)) as inner:
            inner.checks_left = 0  # the answers do not matter
            for step in rough:
                model = _apply(model, step, inner)
        return model

    label = json.dumps([clock.label, [(step.name, dump(step.config)) for step in rough]], sort_keys=True)
    return FollowingClock(clock, finish, label)


def _list(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)
