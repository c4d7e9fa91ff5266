"""deploy: recipes x runtimes, each verified, measured side by side, the fastest within the budget handed back.

runs/x/outcome.json        the DeployOutcome
runs/x/report.html         the same for people, one file
runs/x/bundles/RECIPE-RUNTIME/
runs/x/run.json            what was made from what, so that a stopped run goes on where it was
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright import registry
from edgewright.bench import BenchPlan, bench
from edgewright.bundle import Bundle
from edgewright.deploy.choice import ORIGINAL, pick, rank, speedup
from edgewright.deploy.run import Planned, Run
from edgewright.deploy.searching import check_searchable, explore, roll_back
from edgewright.errors import EdgewrightError
from edgewright.files import write_whole
from edgewright.inspect import inspect
from edgewright.locate import locate
from edgewright.model import Model
from edgewright.options import require_agreement
from edgewright.progress import SILENT, Progress
from edgewright.recipe import Recipe
from edgewright.recipe import names as recipe_names
from edgewright.records import BenchResult, Candidate, DeployOutcome, Environment
from edgewright.report import report
from edgewright.search import Found, SearchPlan
from edgewright.target import Target

if TYPE_CHECKING:
    from edgewright.samples import Samples

__all__ = ["Planned", "SearchPlan", "candidates", "deploy"]


def deploy(
    model: Model,
    samples: Samples,
    *,
    runtimes: Sequence[str] = (),
    recipes: Sequence[str | Path | Recipe] = (),
    min_agreement: float = 0.98,
    max_drop: float | None = None,
    threads: int = 1,
    cpu: str = "host",
    out: str | Path,
    plan: BenchPlan | None = None,
    layers: bool = True,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    search: SearchPlan | None = None,
    command: str = "",
    seed: int = 0,
    progress: Progress = SILENT,
) -> DeployOutcome:
    """The fastest deployment of `model` that is verified to give the same answers.

    Args:
        model: The network.
        samples: Photos or arrays with their roles; the judge role decides.
        runtimes: Public names; by default those that are proposed for the model's operators, or that a recipe names.
        recipes: Names, TOML files or Recipes; every recipe marked for deploy by default. The unmodified model is always
            among them.
        min_agreement: Least agreement with the original, 0..1.
        max_drop: Largest allowed drop of the task's metric, 0..1; needs labels.
        threads: Threads of the measurement that decides.
        cpu: The CPU to make files for.
        out: Folder of the run. One that holds an unfinished run of the same work is continued.
        plan: How to measure, as a race (see `bench`); its `threads` give way to `threads`.
        layers: Also locate the chosen bundle's layers and their times, for the report page.
        overrides: Plugin name -> option -> value, over every recipe.
        search: How long to also look for the most pruning and the layers in float that the budget allows (`search`).
        command: The command line, for the report.
        seed: Seed of every random choice.
        progress: Where progress goes.

    Raises:
        EdgewrightError: E101 or E102 for a name, E103 for a limit, E105 when `out` holds something else, E301 without
            judges, E305 for `max_drop` without labels.
    """
    _check_budget(samples, min_agreement, max_drop)
    planned = candidates(runtimes=runtimes, recipes=recipes, cpu=cpu, domains=model.domains)
    if search:
        check_searchable(planned, overrides or {}, samples)
    run = Run(Path(out), model, samples, overrides or {}, seed, progress, threads)
    budget = {"min_agreement": min_agreement, "max_drop": max_drop, "threads": threads}
    judged = [run.judge(item, budget, step, len(planned)) for step, item in enumerate(planned)]
    found = Found() if search is None else explore(run, planned, judged, budget, search)
    judged += [
        run.judge(Planned(*pair), budget, step, len(found.candidates)) for step, pair in enumerate(found.candidates)
    ]
    plan = replace(plan or BenchPlan(seed=seed), threads=(threads,))
    outcome = replace(_decide(run, judged, budget, plan, found, layers=layers), command=command)
    write_whole(run.out / "outcome.json", json.dumps(outcome.to_json(), indent=1))
    report(run.out)
    return outcome


def _decide(
    run: Run, judged: Sequence[Candidate], budget: Mapping[str, Any], plan: BenchPlan, found: Found, *, layers: bool
) -> DeployOutcome:
    """Measure the candidates side by side, roll back what a search found in vain, and choose."""
    model, samples = run.model, run.samples
    measured, notes = _measure(judged, run.bundles, samples, plan, run.progress, found.parents)
    judged = roll_back(judged, measured, found.parents)
    chosen = pick(judged, measured)
    if chosen and layers:
        notes += _examine(model, run.bundles[chosen], samples, run.threads, run.progress)
    return DeployOutcome(
        model_name=model.name, origin=model.origin, chosen=chosen, candidates=rank(judged, measured, chosen),
        speedup=speedup(chosen, judged, measured), budget=budget, threads=run.threads, samples=dict(samples.counts),
        skipped=tuple(samples.skipped), command="", seed=run.seed, environment=Environment.here(), notes=notes,
        frontier=found.frontier,
    )  # fmt: skip


def candidates(
    *,
    runtimes: Sequence[str] = (),
    recipes: Sequence[str | Path | Recipe] = (),
    cpu: str = "host",
    domains: Collection[str] = (),
) -> tuple[Planned, ...]:
    """What `deploy` would try, the unmodified model first; everything it needs is checked here, before the first step.

    Where no runtimes are given, those for networks with operators of some domain are tried for a model that has such
    operators (`domains`), and for a recipe that names them.

    Raises:
        EdgewrightError: E101 unknown name, E102 a package is missing.
    """
    chosen = tuple(dict.fromkeys(runtimes))
    for name in chosen:
        registry.get("runtimes", name)
    wanted = [Recipe.named(recipe) for recipe in recipes or recipe_names()]
    if not recipes:
        wanted = [recipe for recipe in wanted if recipe.deploy]
    ordered = {recipe.name: recipe for recipe in (Recipe.named(ORIGINAL), *wanted)}
    for recipe in ordered.values():
        for step in recipe.steps:
            registry.get("passes", step.name)
    return tuple(
        Planned(recipe, Target(runtime, cpu))
        for recipe in ordered.values()
        for runtime in chosen or _proposed(recipe, domains)
        if not recipe.runtimes or runtime in recipe.runtimes
    )


def _proposed(recipe: Recipe, domains: Collection[str]) -> tuple[str, ...]:
    """Runtimes for a recipe where none are given."""
    general = registry.proposed(domains)
    named = (name for name in registry.installed("runtimes") if name in recipe.runtimes and name not in general)
    return (*general, *(name for name in named if registry.peek("runtimes", name).TRAITS.deployable))


def _measure(
    judged: Sequence[Candidate],
    bundles: Mapping[str, Bundle],
    samples: Samples,
    plan: BenchPlan,
    progress: Progress,
    parents: Mapping[str, str],
) -> tuple[dict[str, BenchResult], tuple[str, ...]]:
    """Measurements by candidate, rejected ones too (the page shows what the budget costs), and notes on their quality.

    Two races: the fastest verified candidate is handed back, the fastest unmodified one is what its speed is told against.
    What a search found and its parent race each other too, since one of them is rolled back.
    """
    verified = {item.name for item in judged if item.state == "verified"}
    originals = {item.name for item in judged if item.recipe == ORIGINAL}
    duels = [{name, parent} for name, parent in parents.items() if name in verified]
    compared = tuple(bundles[item.name] for item in judged if item.verify is not None)
    if not compared:
        return {}, ()
    notes: list[str] = []

    def lost(bundle: Bundle, threads: int, problem: EdgewrightError) -> None:
        notes.append(f"{bundle.name} could not be measured at {threads} thread(s): {problem.message}")

    results = bench(compared, samples, plan, race=(verified, originals, *duels), on_failure=lost, progress=progress)
    for result in results:
        notes += [f"{result.bundle_name} is {result.trust}: {reason}" for reason in result.reasons]
    return {result.bundle_name: result for result in results}, tuple(notes)


def _examine(model: Model, bundle: Bundle, samples: Samples, threads: int, progress: Progress) -> tuple[str, ...]:
    """Put errors and times by layer into the bundle's evidence; a problem becomes a note, since the choice stands."""
    notes = []
    try:
        locate(model, bundle, samples, threads=threads, progress=progress)
    except EdgewrightError as problem:
        notes.append(f"layers were not compared: {problem.message}")
    try:
        found = inspect(
            bundle, runtime=bundle.runtime, threads=threads, roofline=True, samples=samples, progress=progress
        )
        bundle.add_evidence("inspect", found.to_json())
    except EdgewrightError as problem:
        notes.append(f"layers were not timed: {problem.message}")
    return tuple(notes)


def _check_budget(samples: Samples, min_agreement: float, max_drop: float | None) -> None:
    require_agreement(min_agreement)
    if max_drop is not None and not 0 <= max_drop < 1:
        raise EdgewrightError("E103", f"`max_drop` is {max_drop}, but must be at least 0 and below 1")
    if max_drop is not None and not samples.labelled:
        raise EdgewrightError(
            "E305",
            "`max_drop` needs labels, and the samples have none",
            hint="leave --max-drop out: agreement with the original (--min-agreement) needs no labels",
        )
    if not len(samples.role("judge")):
        raise EdgewrightError(
            "E301",
            f"none of {len(samples)} sample{'' if len(samples) == 1 else 's'} has the role judge",
            hint="give more samples, or add --roles judge: then all of them judge, and none calibrates",
        )
