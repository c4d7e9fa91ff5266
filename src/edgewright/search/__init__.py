"""search: how far a network can be pruned, and which layers belong in int8, by latency measured per answer lost.

For each runtime and base recipe the smallest time is looked for at which the select samples still find the network
within the budget: a few targets in time, each allocated over groups by measured savings, pruned, refitted, quantized,
scored and timed. Everything found out is kept in the run's folder, so a search that was stopped goes on.

runs/x/memo/                         what was found out
runs/x/search/RUNTIME/RECIPE.toml    every recipe that was tried
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.bundle import Bundle
from edgewright.errors import EdgewrightError
from edgewright.memo import Memo
from edgewright.model import Model
from edgewright.progress import SILENT, Progress
from edgewright.recipe import Recipe
from edgewright.records import Frontier
from edgewright.search.exploring import Explorer, SearchPlan, Start, Work
from edgewright.search.recipes import PRUNING
from edgewright.search.scoring import Scorer
from edgewright.target import Target

if TYPE_CHECKING:
    from edgewright.samples import Samples

__all__ = ["FOLDER", "Found", "SearchPlan", "Start", "check", "search"]

#: Inside the run's folder.
FOLDER = "search"
_TARGETS = ("macs", "size", "latency", "ratios", "spread")


@dataclass(frozen=True)
class Found:
    """What a search hands on.

    Attributes:
        frontier: Everything that was tried; None where nothing was searched.
        candidates: Recipes within the budget on the select samples and faster than their parents, with their targets.
        parents: By candidate, the name of the candidate that it must beat.
    """

    frontier: Frontier | None = None
    candidates: tuple[tuple[Recipe, Target], ...] = ()
    parents: Mapping[str, str] = field(default_factory=dict)


def check(overrides: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse options that a search decides itself.

    Raises:
        EdgewrightError: E103.
    """
    for option in _TARGETS:
        if option in overrides.get(PRUNING, {}):
            raise EdgewrightError(
                "E103",
                f"option `{PRUNING}.{option}` is set, but the search decides how much is pruned",
                hint="leave it out, or leave --search out and name a recipe: --recipe prune",
            )


def search(
    model: Model,
    samples: Samples,
    starts: Sequence[Start],
    make: Callable[[Recipe, Target], Bundle],
    *,
    required: float,
    max_drop: float | None,
    plan: SearchPlan,
    folder: Path,
    memo: Memo,
    threads: int = 1,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Found:
    """Everything that was tried from `starts`, and what may be deployed of it.

    Args:
        model: The original.
        samples: The select role scores; compression reads calibrate and select as ever.
        starts: Where to begin: base recipes on runtimes, with what they made.
        make: The bundle of a recipe on a target; it is made once.
        required: Agreement with the original, 0..1.
        max_drop: Largest drop of the task's metric, where labels decide.
        plan: How long.
        folder: Where to keep the recipes that were tried.
        memo: What was found out before.
        threads: Threads that time is measured with.
        overrides: Plugin name -> option -> value.
        seed: Seed of every random choice.
        progress: Told of points, and when the search should be over.

    Raises:
        EdgewrightError: E103 for options that a search decides itself, E301 without select samples, E105 when the
            folder cannot be written.
    """
    check(overrides or {})
    scorer = Scorer(model, samples, required=required, max_drop=max_drop, threads=threads)
    work = Work(model, samples, scorer, make, memo, plan, folder, threads, overrides or {}, seed, progress)
    explorer = Explorer(work)
    explorer.run(starts)
    frontier = Frontier(
        points=tuple(explorer.points.values()), required=scorer.required, max_drop=max_drop, samples=scorer.samples,
        minutes=explorer.deadline.spent, notes=tuple(explorer.notes),
    )  # fmt: skip
    return Found(frontier, tuple(explorer.candidates), explorer.parents)
