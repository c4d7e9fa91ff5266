"""How a search joins a deployment: where it begins, and what becomes of what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgewright.bench.pairs import ratio
from edgewright.bench.stopwatch import Stopwatch
from edgewright.bundle import Bundle
from edgewright.deploy.choice import ORIGINAL
from edgewright.deploy.run import Planned, Run
from edgewright.errors import EdgewrightError
from edgewright.records import BenchResult, Candidate
from edgewright.search import FOLDER, Found, SearchPlan, Start, check, search
from edgewright.search.scoring import selecting
from edgewright.target import Target

if TYPE_CHECKING:
    from edgewright.recipe import Recipe
    from edgewright.samples import Samples


def check_searchable(
    planned: Sequence[Planned], overrides: Mapping[str, Mapping[str, Any]], samples: Samples | None = None
) -> None:
    """Refuse a search that has nowhere to begin or nothing to look at, or whose target this machine cannot measure.

    Raises:
        EdgewrightError: E103, or E301 for samples of which none selects.
    """
    if samples is not None:
        selecting(samples)
    check(overrides)
    if not any(item.recipe.search for item in planned):
        raise EdgewrightError(
            "E103",
            "there is nothing to search from: none of the recipes has `search = true`",
            hint="--recipe float --recipe int8, or leave --recipe out",
        )
    for item in planned:
        if not Stopwatch.can_measure(item.target):
            raise EdgewrightError(
                "E103",
                f"a search measures time, and this machine lacks what CPU `{item.target.cpu}` has",
                hint="leave --cpu out, or search on such a machine",
            )


def explore(
    run: Run, planned: Sequence[Planned], judged: Sequence[Candidate], budget: Mapping[str, Any], plan: SearchPlan
) -> Found:
    """Search from every base recipe that was made, on each runtime that runs the unmodified network."""
    aim = run.aim(budget["min_agreement"])
    made = {item.name: run.bundles[item.name] for item in judged if item.name in run.bundles and item.state != "failed"}
    starts = []
    for item in planned:
        unmodified = made.get(f"{ORIGINAL}-{item.target.runtime}")
        if item.recipe.search and item.name in made and unmodified is not None:
            starts.append(Start(item.recipe, item.target, made[item.name], unmodified))

    def make(recipe: Recipe, target: Target) -> Bundle:
        return run.make(Planned(recipe, target), aim)

    return search(
        run.model, run.samples, starts, make, required=aim, max_drop=budget["max_drop"], plan=plan,
        folder=run.out / FOLDER, memo=run.memo, threads=run.threads, overrides=run.overrides,
        seed=run.seed, progress=run.progress,
    )  # fmt: skip


def roll_back(
    judged: Sequence[Candidate], measured: Mapping[str, BenchResult], parents: Mapping[str, str]
) -> list[Candidate]:
    """The candidates, those of a search rejected that are not faster than what they were made from, beyond noise."""
    found = []
    for item in judged:
        parent = parents.get(item.name)
        if item.state == "verified" and parent is not None and {parent, item.name} <= set(measured):
            value, low, high = ratio(measured[item.name], measured[parent])
            if high >= 1:
                reason = f"rolled back: takes {value:.2f} x the time of {parent} ({low:.2f} to {high:.2f}), so it is not faster"
                found.append(replace(item, state="rejected", reason=reason))
                continue
        found.append(item)
    return found
