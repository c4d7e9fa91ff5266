"""Recipes that the search makes: a base recipe with pruning before it, or with some layers in float.

The one place that knows passes by name: a search over two passes must know which two.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgewright import registry
from edgewright.model import Model, Step
from edgewright.recipe import Recipe, RecipeStep

#: The recipe that prunes, and its step that decides how much.
PRUNE, PRUNING = "prune", "prune_channels"
#: The step that makes int8 of layers.
QUANTIZING = "quantize_static"
_TARGETS = ("macs", "size", "latency", "ratios", "spread")


def pruning(base: Recipe, options: Mapping[str, Any], name: str = "") -> Recipe:
    """`base` behind the recipe `prune`, whose pruning step has these options in place of its own target."""
    prune = Recipe.named(PRUNE)
    steps = [
        replace(step, config={**{k: v for k, v in step.config.items() if k not in _TARGETS}, **options})
        if step.name == PRUNING
        else step
        for step in prune.steps
    ]
    known = {step.name for step in steps}
    steps += [step for step in base.steps if step.name not in known]
    return replace(base, name=name or base.name, steps=tuple(steps))


def pruned(base: Recipe, runtime: str, asked: float, small: Model) -> Recipe | None:
    """The recipe that prunes as `small` was pruned, by widths and without a clock; None where nothing was removed."""
    groups = _last(small.history, PRUNING).stats["groups"]
    # all groups are named, those that lose nothing too: what is ranked together is ranked alike
    ratios = {glob.escape(item["group"]): 1 - item["width"][1] / item["width"][0] for item in groups}
    if not any(ratios.values()):
        return None
    recipe = pruning(base, {"spread": "given", "ratios": ratios}, f"{base.name}-pruned-{100 * asked:.3g}")
    removed = sum(1 for ratio in ratios.values() if ratio)
    return replace(
        recipe,
        description=f"{base.name} with channels of {removed} of {len(ratios)} groups removed for {100 * asked:.3g} % of "
        f"its time on {runtime}",
        runtimes=(runtime,),
        deploy=False,
    )


def mixed(base: Recipe, runtime: str, keep: Sequence[str]) -> Recipe:
    """`base` with the layers `keep` in float."""
    steps = tuple(
        RecipeStep(step.name, {**step.config, "keep": [*step.config.get("keep", ()), *keep]})
        if step.name == QUANTIZING
        else step
        for step in base.steps
    )
    text = f"{base.name} with {len(keep)} layers in float, where int8 saves no time on {runtime}"
    return replace(base, name=f"{base.name}-mixed", description=text, steps=steps, runtimes=(runtime,), deploy=False)


def quantizes(recipe: Recipe) -> bool:
    """True where a recipe makes int8 of layers."""
    return any(step.name == QUANTIZING for step in recipe.steps)


def quantizing_step(recipe: Recipe) -> RecipeStep:
    """The step that makes int8 of layers."""
    return next(step for step in recipe.steps if step.name == QUANTIZING)


def before_quantizing(recipe: Recipe) -> Recipe:
    """The recipe's lossless steps before that one which do not read samples: what changes the graph's structure."""
    steps: list[RecipeStep] = []
    for step in recipe.steps:
        if step.name == QUANTIZING:
            break
        if not registry.get("passes", step.name).NEEDS_SAMPLES:
            steps.append(step)
    return replace(recipe, steps=tuple(steps))


def roughly(step: RecipeStep, keep: Sequence[str]) -> RecipeStep:
    """The quantizing step with `keep` in float, as a clock needs it: right in time, whatever the answers."""
    rough = registry.get("passes", step.name).ROUGH
    return replace(step, config={**step.config, **rough, "keep": [*step.config.get("keep", ()), *keep]})


def int8_layers(history: Sequence[Step]) -> tuple[str, ...]:
    """Layers that a network has in int8, in graph order."""
    return tuple(item["name"] for item in _last(history, QUANTIZING).stats["layers"] if item["state"] == "int8")


def _last(history: Sequence[Step], name: str) -> Step:
    return next(step for step in reversed(history) if step.name == name)
