"""The walk over all stages: values of the original, of the whole bundle and of each stretch alone, chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgewright import metrics, original, registry, session
from edgewright.bundle import Bundle
from edgewright.contracts import Cut, Sample
from edgewright.errors import EdgewrightError
from edgewright.locate.stages import Plan, Stage, batches, fragment
from edgewright.locate.thinning import WHOLE, Thinning
from edgewright.model import Arrays, Model
from edgewright.progress import Progress
from edgewright.records import TensorError
from edgewright.session import Session

#: Originals, the bundle's values and the values of the stretches are held at once.
_SHARES = 12
#: A cut that the bundle's graph does not close is begun earlier, at most so many boundaries.
_MOST_STEPS_UP = 4
_CANNOT_SHOW = ("E231", "E232")


@dataclass(frozen=True)
class Failure:
    """The first stretch that fails alone, with the values that show it.

    Attributes:
        stage: The stretch, as it was cut.
        model: The original network.
        inputs: The original's values at its start.
        expected: What the original makes of them, or the part of it that `thinned` looks at.
        got: The bundle's value there, fed `inputs`, or the source's; None where it could not be read.
        error: The distance.
        noise: rel-L2 between two exact evaluations of this stretch.
        thinned: Which values of the end are compared.
        source: The file of the source's tensors, where these are what `got` comes from.
        sample: The network's inputs.
    """

    stage: Stage
    model: Model
    inputs: Arrays
    expected: np.ndarray
    got: np.ndarray | None
    error: TensorError
    noise: float
    thinned: Thinning = WHOLE
    source: Path | None = None
    sample: Arrays = field(default_factory=dict)


class Walk:
    """Compares stage by stage; `run` fills the attributes.

    Attributes:
        isolated: Error of each stretch alone, the worst over the samples.
        cumulative: Error of the whole bundle up to each tensor.
        noise: rel-L2 between two exact evaluations of the original up to each tensor, where there are two.
        failing: Names of the stages that fail alone.
        failure: The first of them in graph order, or None.
        limits: What the bundle's precision allows.
        model: The original.
    """

    def __init__(
        self,
        model: Model,
        bundle: Bundle,
        stages: Plan,
        samples: Sequence[Sample],
        differences: Mapping[str, Sequence[str]],
        *,
        budget_bytes: int,
        threads: int,
        progress: Progress,
    ) -> None:
        self.isolated: dict[str, TensorError] = {}
        self.cumulative: dict[str, TensorError] = {}
        self.noise: dict[str, float] = {}
        self.failing: dict[str, None] = {}
        self.failure: Failure | None = None
        self.limits = original.limits(bundle)
        self.model, self._bundle, self._stages, self._samples = model, bundle, stages, samples
        self._differences, self._budget = differences, budget_bytes // _SHARES
        self._threads, self._progress = threads, progress
        self._reference = original.reference_runtime()
        if self._reference and registry.peek("runtimes", self._reference).supports(model.ir):
            self._reference = None
        self._dtypes: dict[str, np.dtype[Any]] = {}  # of the bundle's tensors
        self._kept = bundle.kept

    def run(self) -> None:
        """Compare everything."""
        total = len(self._stages.stages)
        self._progress.update("locate", 0, total)
        with ExitStack() as stack:
            exact = stack.enter_context(
                session.open(self.model, runtime=session.exact_runtime(), threads=self._threads)
            )
            shipped = stack.enter_context(session.open(self._bundle, threads=self._threads))
            second = self._second(stack)
            self._compare_outputs(exact, shipped)
            done = 0
            for chunk in self._stages.chunks(self._budget):
                self._compare_chunk(chunk, exact, shipped, second)
                done += len(chunk)
                self._progress.update("locate", done, total)

    def _second(self, stack: ExitStack) -> Session | None:
        """The other exact evaluation of the original, for the noise floor."""
        if self._reference is None:
            self._progress.note("no second exact runtime can run this network: the noise floor is taken as 0")
            return None
        return stack.enter_context(session.open(self.model, runtime=self._reference, threads=self._threads))

    def _compare_outputs(self, exact: Session, shipped: Session) -> None:
        """Graph outputs are read from the untouched network."""
        for sample in self._samples:
            expected, got = exact.run(sample.arrays), shipped.run(sample.arrays)
            for name, value in expected.items():
                self._note(self.cumulative, name, value, got.get(name), sample)
                if name in got:
                    self._dtypes[name] = got[name].dtype

    def _compare_chunk(
        self, chunk: tuple[Stage, ...], exact: Session, shipped: Session, second: Session | None
    ) -> None:
        names = tuple(stage.name for stage in chunk)
        with ExitStack() as stack:
            pieces = None
            for number, sample in enumerate(self._samples):
                values = self._originals(exact, chunk, sample)
                self._compare_whole(shipped, names, values, sample)
                if number == 0:
                    self._measure_noise(second, names, values, sample)
                if pieces is None:  # cuts need the types that the bundle's own values have
                    pieces = list(self._open_pieces(chunk, stack))
                for members, runner in pieces:
                    self._compare_alone(members, runner, values, sample)

    def _originals(self, exact: Session, chunk: tuple[Stage, ...], sample: Sample) -> dict[str, np.ndarray]:
        """The original's values of a chunk's tensors and of what feeds them."""
        wanted = dict.fromkeys(name for stage in chunk for name in (*stage.inputs, stage.name))
        inner = tuple(name for name in wanted if name not in sample.arrays)
        return dict(sample.arrays) | exact.run(sample.arrays, inner)

    def _compare_whole(self, shipped: Session, names: tuple[str, ...], values: Arrays, sample: Sample) -> None:
        untouched = {info.name for info in self._bundle.outputs}
        inner = tuple(name for name in names if name not in untouched)
        for name, got in self._tap(shipped, inner, sample):
            self._note(self.cumulative, name, values[name], got, sample)
            if got is not None:
                self._dtypes[name] = got.dtype

    def _tap(self, shipped: Session, names: tuple[str, ...], sample: Sample) -> Iterator[tuple[str, np.ndarray | None]]:
        """Each tensor's value in the whole bundle; None for those that cannot be shown, found by halving."""
        if not names:
            return
        try:
            yield from shipped.run(sample.arrays, names).items()
        except EdgewrightError as problem:
            if problem.code not in _CANNOT_SHOW:
                raise
            if len(names) == 1:
                yield names[0], None
                return
            middle = len(names) // 2
            yield from self._tap(shipped, names[:middle], sample)
            yield from self._tap(shipped, names[middle:], sample)

    def _measure_noise(self, second: Session | None, names: tuple[str, ...], values: Arrays, sample: Sample) -> None:
        if second is None:
            return
        for name, other in second.run(sample.arrays, names).items():
            distance = metrics.tensor_error(name, values[name], other).rel_l2
            self.noise[name] = math.inf if math.isnan(distance) else distance

    # --- each stretch alone -------------------------------------------------------------------------------------------

    def _open_pieces(self, chunk: Sequence[Stage], stack: ExitStack) -> Iterator[tuple[tuple[Stage, ...], Any]]:
        """(stages, runner of the bundle's part that holds them), None as runner where no cut works."""
        for batch in batches(chunk):
            yield from self._open_piece(batch, stack)

    def _open_piece(self, batch: tuple[Stage, ...], stack: ExitStack) -> Iterator[tuple[tuple[Stage, ...], Any]]:
        try:
            yield batch, self._open_cut(batch, stack)
        except EdgewrightError as problem:
            if problem.code not in _CANNOT_SHOW:
                raise
            if len(batch) > 1:
                middle = len(batch) // 2
                yield from self._open_piece(batch[:middle], stack)
                yield from self._open_piece(batch[middle:], stack)
            else:
                yield self._open_further_up(batch[0], problem, stack)

    def _open_cut(self, batch: tuple[Stage, ...], stack: ExitStack) -> Any:
        plugin = registry.get("runtimes", self._bundle.runtime)
        inputs = tuple(dict.fromkeys(name for stage in batch for name in stage.inputs))
        cut = Cut(inputs, tuple(stage.name for stage in batch))
        runner = plugin.open(self._bundle, threads=self._threads, cut=cut)
        stack.callback(runner.close)
        return runner

    def _open_further_up(
        self, stage: Stage, problem: EdgewrightError, stack: ExitStack
    ) -> tuple[tuple[Stage, ...], Any]:
        """The stage begun earlier, because its inputs do not close the cut in the bundle's graph."""
        for _ in range(_MOST_STEPS_UP):
            wider = self._stages.upstream(stage)
            if wider.inputs == stage.inputs:
                break
            stage = wider
            try:
                return (stage,), self._open_cut((stage,), stack)
            except EdgewrightError as again:
                problem = again
        self.isolated[stage.name] = TensorError(name=stage.name, problem=f"cannot be cut out: {problem.message}")
        return (stage,), None

    def _compare_alone(self, members: tuple[Stage, ...], runner: Any, values: Arrays, sample: Sample) -> None:
        values = self._complete(members, values, sample)
        results = self._run_piece(members, runner, values, sample)
        for stage in members:
            got = results.get(stage.name)
            if isinstance(got, str):
                error = TensorError(name=stage.name, problem=got, worst_sample=sample.id)
                got = None
            else:
                expected = self._thinning(stage.name, values[stage.name]).of(values[stage.name])
                error = metrics.tensor_error(stage.name, expected, got, sample=sample.id)
            if runner is not None:  # else the reason is there already
                self.isolated[stage.name] = metrics.worse(self.isolated.get(stage.name), error)
            self._judge(stage, values, got, error)

    def _complete(self, members: tuple[Stage, ...], values: Arrays, sample: Sample) -> Arrays:
        """`values` with what feeds a stage that was begun earlier."""
        missing = tuple(name for stage in members for name in stage.inputs if name not in values)
        if not missing:
            return values
        with session.open(self.model, runtime=session.exact_runtime(), threads=self._threads) as exact:
            return {**values, **exact.run(sample.arrays, tuple(dict.fromkeys(missing)))}

    def _run_piece(
        self, members: tuple[Stage, ...], runner: Any, values: Arrays, sample: Sample
    ) -> Mapping[str, np.ndarray | str]:
        """The value of each stage's end, or why there is none."""
        if runner is None:
            return {}
        names = dict.fromkeys(name for stage in members for name in stage.inputs)
        try:
            results: Mapping[str, np.ndarray | str] = runner.run(
                {name: self._as_bundle(name, values[name]) for name in names}
            )
            return results
        except EdgewrightError as problem:
            if len(members) == 1:
                return {members[0].name: f"cannot be run alone: {problem.message}"}
        alone: dict[str, np.ndarray | str] = {}
        for stage in members:  # one of them spoils the batch
            with ExitStack() as stack:
                for piece, single in self._open_piece((stage,), stack):
                    alone |= self._run_piece(piece, single, self._complete(piece, values, sample), sample)
        return alone

    def _as_bundle(self, name: str, value: np.ndarray) -> np.ndarray:
        """The original's value in the type that the bundle's tensor has; of one that was pruned, the channels left."""
        if name in self._kept:
            value = self._kept[name].take(value)
        wanted = self._dtypes.get(name, value.dtype)
        if wanted == value.dtype or value.dtype.kind != "f":
            return value
        with np.errstate(over="ignore"):  # a value beyond float16 becomes infinite, and shows as that
            return value.astype(wanted)

    def _thinning(self, name: str, value: np.ndarray) -> Thinning:
        """Which of the original's values the bundle's tensor has: all, or those of the channels that are left."""
        if name not in self._kept:
            return WHOLE
        return Thinning(1, self._kept[name].take(np.arange(value.size).reshape(value.shape)))

    def _judge(self, stage: Stage, values: Arrays, got: np.ndarray | None, error: TensorError) -> None:
        """Whether a stretch fails alone; the first that does is kept with its values."""
        if got is None:
            error = self.isolated[stage.name]
        differs = bool(self._differences.get(stage.name)) and self.limits.exact
        limit = self.limits.isolated
        if not error.problem and error.rel_l2 <= limit and not (differs and error.rel_l2 > limit / 100):
            return
        inputs = {name: values[name] for name in stage.inputs}
        noise = self._own_noise(stage, inputs, values[stage.name]) if self._may_be_noise(error) else 0.0
        allowed = original.NOISE_FACTOR * noise if differs and self._reference else self.limits.isolated_at(noise)
        if not error.problem and error.rel_l2 <= allowed:
            return
        self.failing[stage.name] = None
        if self.failure is None or self._before(stage.name, self.failure.stage.name):
            sample = {info.name: values[info.name] for info in self.model.inputs}
            expected = values[stage.name]
            thinned = self._thinning(stage.name, expected)
            self.failure = Failure(
                stage, self.model, inputs, thinned.of(expected), got, error, noise, thinned, sample=sample
            )

    def _may_be_noise(self, error: TensorError) -> bool:
        """False where no rounding can be the excuse, so that it need not be measured."""
        return (
            self.limits.exact and not error.problem and error.rel_l2 <= original.NOISE_FACTOR * original.ORIGINAL_REL_L2
        )

    def _own_noise(self, stage: Stage, inputs: Arrays, expected: np.ndarray) -> float:
        """rel-L2 of a second exact evaluation of the original's stretch; 0 where there is none."""
        if self._reference is None:
            return 0.0
        with session.open(fragment(self.model, stage, inputs), runtime=self._reference) as second:
            other = second.run(inputs)[stage.name]
        distance = metrics.tensor_error(stage.name, expected, other).rel_l2
        return distance if math.isfinite(distance) else 0.0

    def _before(self, name: str, other: str) -> bool:
        order = [stage.name for stage in self._stages.stages]
        return order.index(name) < order.index(other)

    def _note(
        self, errors: dict[str, TensorError], name: str, expected: np.ndarray, got: np.ndarray | None, sample: Sample
    ) -> None:
        expected = self._thinning(name, expected).of(expected)
        error = metrics.tensor_error(name, expected, got, sample=sample.id)
        errors[name] = metrics.worse(errors.get(name), error)
