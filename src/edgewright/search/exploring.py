"""The way through the points of a search: base recipes, then layers in float, then targets in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.bench.deadline import Deadline
from edgewright.bench.stopwatch import Stopwatch
from edgewright.bundle import Bundle
from edgewright.clocks import Few
from edgewright.compress import compress
from edgewright.contracts import TimeRatio
from edgewright.errors import EdgewrightError
from edgewright.files import write_whole
from edgewright.memo import Memo
from edgewright.model import Model
from edgewright.progress import Progress
from edgewright.recipe import Recipe
from edgewright.records import SearchPoint
from edgewright.search import recipes
from edgewright.search.bisection import next_target
from edgewright.search.precision import Layers, not_slower
from edgewright.search.scoring import Scorer
from edgewright.target import Target

if TYPE_CHECKING:
    from edgewright.samples import Samples

#: What a target that cannot be reached, or a network that cannot be pruned, raises: the search goes on without.
_EXPECTED = ("E103", "E210", "E211", "E212", "E232", "E301", "E302", "E401")


@dataclass(frozen=True)
class SearchPlan:
    """How long to search.

    Attributes:
        minutes: A point that was begun is finished; no further one is begun after so many.
        points: Most targets in time for each runtime and base recipe.
        seconds: Timed runs of each network that is compared with another.
    """

    minutes: float = 30.0
    points: int = 6
    seconds: float = 1.5

    def __post_init__(self) -> None:
        for name in ("minutes", "seconds"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise EdgewrightError("E103", f"`{name}` is {value}, but must be a number above 0")
        if self.points < 1:
            raise EdgewrightError("E103", f"`points` is {self.points}, but must be at least 1")


@dataclass(frozen=True)
class Start:
    """Where a search begins: a base recipe on a target, its bundle, and that of the unmodified network there."""

    recipe: Recipe
    target: Target
    bundle: Bundle
    original: Bundle

    @property
    def name(self) -> str:
        """RECIPE-RUNTIME."""
        return f"{self.recipe.name}-{self.target.runtime}"


@dataclass(frozen=True)
class Work:
    """What every point of a search needs."""

    model: Model
    samples: Samples
    scorer: Scorer
    make: Callable[[Recipe, Target], Bundle]
    memo: Memo
    plan: SearchPlan
    folder: Path
    threads: int
    overrides: Mapping[str, Mapping[str, Any]]
    seed: int
    progress: Progress


class Explorer:
    """Goes through the points; its attributes fill.

    Attributes:
        points: By name, everything that was tried.
        notes: What was found out, in sentences.
        candidates: Recipes that may be deployed.
        parents: By candidate, what it must beat.
        deadline: When no further point is begun.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self.deadline = Deadline(work.plan.minutes)
        self.points: dict[str, SearchPoint] = {}
        self.notes: list[str] = []
        self.candidates: list[tuple[Recipe, Target]] = []
        self.parents: dict[str, str] = {}
        self._watches: dict[str, Stopwatch] = {}
        self._end = work.plan.minutes
        self._targets = 0

    def run(self, starts: Sequence[Start]) -> None:
        """Search from each of `starts`, the fastest first, each with its share of the minutes that are left."""
        begun: list[tuple[SearchPoint, Start]] = []
        for start in starts:
            with self._noting(start.name):
                begun.append((self._point(start, start.recipe, start.bundle, "", None), start))
        begun.sort(key=lambda pair: pair[0].latency_ms)
        for number, (point, start) in enumerate(begun):
            self._end = self.deadline.spent + self.deadline.left / (len(begun) - number)
            if not point.within:
                self.notes.append(
                    f"{start.name} agrees on {100 * point.agreement:.1f} % of the select samples, required "
                    f"{100 * self._work.scorer.required:.1f} %: pruning would only lose more, so it was not pruned"
                )
                continue
            with self._noting(start.name):
                self._explore(start, point)

    @contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        """Go on after what may be expected of one network, with its reason among the notes."""
        try:
            yield
        except EdgewrightError as problem:
            if problem.code not in _EXPECTED:
                raise
            self.notes.append(f"{name}: {problem.message}")

    def _explore(self, start: Start, parent: SearchPoint) -> None:
        base = start.recipe
        if recipes.quantizes(base) and "keep" not in self._work.overrides.get(recipes.QUANTIZING, {}):
            base, parent = self._with_float_layers(start, parent)
        self._prune(start, base, parent)

    # --- which layers in int8 ---------------------------------------------------------------------------------------

    def _with_float_layers(self, start: Start, parent: SearchPoint) -> tuple[Recipe, SearchPoint]:
        """The recipe and its point, with those layers in float that int8 does not make faster, where that is no loss."""
        layers = recipes.int8_layers(start.bundle.history)
        keep = self._not_slower(start, layers)
        if not keep or len(keep) == len(layers):
            what = "every one of its int8 layers is needed for speed" if not keep else "int8 saves no time at all"
            self.notes.append(f"{start.name}: {what}, by halving stretches of {len(layers)} layers")
            return start.recipe, parent
        recipe = recipes.mixed(start.recipe, start.target.runtime, keep)
        point = self._made(start, recipe, parent.name, None)
        better = point.within and point.relative[0] < parent.relative[0]
        self.notes.append(
            f"{point.name}: {len(keep)} of {len(layers)} int8 layers save no time in int8; with these in float it takes "
            f"{point.relative[0] / parent.relative[0]:.3f} x the time of {parent.name} and agrees on "
            f"{100 * point.agreement:.1f} % instead of {100 * parent.agreement:.1f} %"
            + ("" if better else ": rolled back")
        )
        if not better:
            return start.recipe, parent
        self._propose(recipe, start.target, parent.name)
        return recipe, point

    def _not_slower(self, start: Start, layers: Layers) -> Layers:
        """Layers that may be float without making the network slower, by its times with rough weights."""
        work, watch = self._work, self._watch(start.target)
        quantizing = recipes.quantizing_step(start.recipe)
        prepared: list[Model] = []

        def rough(keep: Layers) -> Model:
            if not prepared:
                prepared.append(self._compressed(start, recipes.before_quantizing(start.recipe)))
            return compress(
                prepared[0],
                Recipe("rough", steps=(recipes.roughly(quantizing, keep),)),
                Few.of(work.samples),
                target=start.target,
                seed=work.seed,
            )

        def measure(sets: Mapping[str, Layers]) -> dict[str, TimeRatio]:
            work.progress.update(f"time {start.name} with layers in float", 0, None)
            key = ["float layers", start.bundle.hash, watch.label, {name: list(keep) for name, keep in sets.items()}]
            found = work.memo.get(key)
            if found is None:
                times = watch.ratios(rough(()), {name: rough(keep) for name, keep in _some(sets, layers).items()})
                if len(times) < len(sets):  # nothing is left to quantize: the float network itself
                    whole = next(name for name in sets if name not in times)
                    times |= watch.ratios(rough(()), {whole: prepared[0]})
                found = {name: [item.value, item.low, item.high] for name, item in times.items()}
                work.memo.put(key, found)
            return {name: TimeRatio(*numbers) for name, numbers in found.items()}

        return not_slower(layers, measure)

    # --- how much is pruned -----------------------------------------------------------------------------------------

    def _prune(self, start: Start, base: Recipe, parent: SearchPoint) -> None:
        """Try targets in time until the smallest that is within the budget is known, or the minutes are over."""
        work = self._work
        tried: dict[float, bool] = {}
        best: tuple[SearchPoint, Recipe] | None = None
        problems: dict[str, str] = {}
        while (asked := next_target(tried)) is not None and len(tried) < work.plan.points:
            if self.deadline.spent >= self._end:
                self.notes.append(f"{parent.name}: its share of the minutes was over after {len(tried)} targets")
                break
            self._say(f"search from {parent.name}: {100 * asked:.3g} % of its time", work.plan.points - len(tried))
            tried[asked] = False
            try:
                recipe = self._allocated(start, base, asked)
                point = self._made(start, recipe, parent.name, asked) if recipe else None
            except EdgewrightError as problem:
                if problem.code not in _EXPECTED:
                    raise
                problems.setdefault(problem.code, problem.message)
                if problem.code == "E212":  # no target changes that
                    break
                continue
            self._targets += 1
            if recipe is None or point is None:
                continue
            tried[asked] = point.within
            faster = point.relative[0] < min(parent.relative[0], best[0].relative[0] if best else 1e9)
            if point.within and faster:
                best = (point, recipe)
        self._conclude(start, parent, best, problems, tried)

    def _say(self, task: str, further: int) -> None:
        """Progress in minutes, and when the targets that are left should be done by the pace so far."""
        deadline = self.deadline
        eta = deadline.eta(self._targets, self._targets + further)
        done, total = round(min(deadline.spent, deadline.minutes)), round(deadline.minutes)
        self._work.progress.update(f"{task}, at most {eta:.0f} min more", done, max(total, 1))

    def _conclude(
        self,
        start: Start,
        parent: SearchPoint,
        best: tuple[SearchPoint, Recipe] | None,
        problems: Mapping[str, str],
        tried: Mapping[float, bool],
    ) -> None:
        """Hand on the best, or say what came nearest."""
        self.notes += [f"{parent.name}: {message}" for message in problems.values()]
        if best is not None:
            self._propose(best[1], start.target, parent.name)
            return
        if not tried:
            return
        mine = [point for point in self.points.values() if point.parent == parent.name and point.asked is not None]
        text = f"{parent.name}: no pruning was found that is faster and within the budget"
        if mine:
            near = max(mine, key=lambda point: point.agreement)
            text += (
                f"; nearest: {near.name} takes {near.relative[0] / parent.relative[0]:.3f} x its time and agrees on "
                f"{100 * near.agreement:.1f} %, required {100 * self._work.scorer.required:.1f} %"
            )
        self.notes.append(text)

    def _allocated(self, start: Start, base: Recipe, asked: float) -> Recipe | None:
        """The recipe that prunes `base` to this share of its time; None where that removes nothing."""
        work, watch = self._work, self._watch(start.target)
        key = ["allocated", base.to_mapping(), work.overrides, work.model.hash, work.samples.hash, watch.label, asked]
        found = work.memo.get(key)
        if found is None:
            found = self._allocate(start, base, asked)
            work.memo.put(key, found)
        if "problem" in found:
            raise EdgewrightError(*found["problem"])
        return Recipe.from_mapping(found["name"], found["recipe"]) if found else None

    def _allocate(self, start: Start, base: Recipe, asked: float) -> dict[str, Any]:
        """What `_allocated` remembers, a target that cannot be reached too."""
        try:
            small = self._compressed(start, recipes.pruning(base, {"latency": asked}), last=recipes.PRUNING)
        except EdgewrightError as problem:
            if problem.code not in ("E103", "E212"):
                raise
            return {"problem": [problem.code, problem.message]}
        recipe = recipes.pruned(base, start.target.runtime, asked, small)
        return {"name": recipe.name, "recipe": recipe.to_mapping()} if recipe else {}

    def _compressed(self, start: Start, recipe: Recipe, last: str | None = None) -> Model:
        work = self._work
        passes = {step.name for step in recipe.steps}
        return compress(
            work.model,
            recipe,
            work.samples,
            target=start.target,
            overrides={name: values for name, values in work.overrides.items() if name in passes},
            seed=work.seed,
            last=last,
            clock=self._watch(start.target),
            memo=work.memo,
            progress=work.progress,
        )

    # --- one point ----------------------------------------------------------------------------------------------------

    def _made(self, start: Start, recipe: Recipe, parent: str, asked: float | None) -> SearchPoint:
        """The point of a recipe of the search, which is kept as a file."""
        folder = self._work.folder / start.target.runtime
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{recipe.name}.toml", recipe.to_toml())
        return self._point(start, recipe, self._work.make(recipe, start.target), parent, asked)

    def _point(self, start: Start, recipe: Recipe, bundle: Bundle, parent: str, asked: float | None) -> SearchPoint:
        """Score and time a bundle, unless that was done before."""
        work, name = self._work, f"{recipe.name}-{start.target.runtime}"
        key = ["point", bundle.hash, start.original.hash, work.samples.hash, self._watch(start.target).label]
        key.append("agreement" if work.scorer.max_drop is None else "agreement and drop")
        found = work.memo.get(key)
        if found is None:
            work.progress.update(f"score and time {name}", 0, None)
            agreement, drop = work.scorer.score(bundle)
            ratio, unmodified_ms = self._timed(start, bundle)
            found = {
                "agreement": agreement,
                "drop": drop,
                "relative": [ratio.value, ratio.low, ratio.high],
                "latency_ms": ratio.value * unmodified_ms,
            }
            work.memo.put(key, found)
        self.points[name] = SearchPoint(
            name=name, recipe=recipe.name, runtime=start.target.runtime, parent=parent, asked=asked,
            relative=tuple(found["relative"]), latency_ms=found["latency_ms"], agreement=found["agreement"],
            drop=found["drop"], within=work.scorer.within(found["agreement"], found["drop"]),
            size_bytes=bundle.size_bytes, macs=bundle.macs,
            file=f"search/{start.target.runtime}/{recipe.name}.toml" if parent else "",
        )  # fmt: skip
        return self.points[name]

    def _timed(self, start: Start, bundle: Bundle) -> tuple[TimeRatio, float]:
        """Time over that of the unmodified network, and that network's median in ms, once for all points."""
        watch = self._watch(start.target)
        key = ["unmodified", start.original.hash, watch.label]
        known = self._work.memo.get(key)
        if bundle.hash == start.original.hash:
            ratio, results = TimeRatio(1.0, 1.0, 1.0), watch.measure([bundle]) if known is None else []
        else:
            ratios, results = watch.compare(start.original, {"point": bundle})
            ratio = ratios["point"]
        if known is None:
            known = {"ms": results[0].infer.median_ms}
            self._work.memo.put(key, known)
        return ratio, known["ms"]

    def _watch(self, target: Target) -> Stopwatch:
        if target.runtime not in self._watches:
            work = self._work
            self._watches[target.runtime] = Stopwatch(
                target, work.samples, threads=work.threads, options=work.overrides.get(target.runtime),
                seconds=work.plan.seconds, seed=work.seed,
            )  # fmt: skip
        return self._watches[target.runtime]

    def _propose(self, recipe: Recipe, target: Target, parent: str) -> None:
        self.candidates.append((recipe, target))
        self.parents[f"{recipe.name}-{target.runtime}"] = parent


def _some(sets: Mapping[str, Layers], layers: Layers) -> dict[str, Layers]:
    """Those sets that leave something to quantize."""
    return {name: keep for name, keep in sets.items() if len(keep) < len(layers)}
