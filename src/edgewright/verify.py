"""verify: does a bundle still give the original's answers? Judged on the shipped files, untouched.

    report = ew.verify(model, bundle, samples, min_agreement=0.98)
    report.decision   # "pass", "fail" or "undecided"

Each sample's arrays are made once and go through both networks. Only results and error sums are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgewright import metrics, original, registry, session
from edgewright.bundle import Bundle
from edgewright.contracts import Sample, SampleSource
from edgewright.errors import EdgewrightError
from edgewright.model import Arrays, Model
from edgewright.progress import SILENT, Progress
from edgewright.records import Decision, Environment, Gate, TensorError, VerifyReport

#: Resamplings of a metric that is computed anew over all samples each time.
RESAMPLES = 500
_MOST_DISAGREEMENTS = 50


def verify(
    model: Model,
    bundle: Bundle | str | Path,
    samples: SampleSource,
    *,
    min_agreement: float = 0.98,
    max_drop: float | None = None,
    threads: int = 1,
    seed: int = 0,
    progress: Progress = SILENT,
) -> VerifyReport:
    """The verdict on `bundle`; it is also appended to the bundle's evidence.

    Args:
        model: The original network, as it was loaded.
        bundle: What to judge, or its folder; every file's hash is checked first.
        samples: Only the role judge is read.
        min_agreement: Least agreement with the original, above 0 and at most 1. No labels are needed.
        max_drop: Largest drop of the task's metric, 0..1; needs labels.
        threads: Threads of both networks.
        seed: Seed of the bootstrap.
        progress: Told of each sample.

    Raises:
        EdgewrightError: E103 for limits outside their range, E222 when the bundle was made from another network, E301
            without judge samples, E304 for samples that made the file, E305 when `max_drop` lacks labels.
    """
    _check_limits(min_agreement, max_drop)
    bundle = original.open_bundle(bundle)
    original.require_original(model, bundle)
    judges = original.judges(samples)
    original.refuse_used(judges, bundle)
    task = registry.get("tasks", model.spec.task)
    if max_drop is not None and not task.METRIC:
        raise EdgewrightError("E305", f"task `{model.spec.task}` has no metric, so there is no drop to limit")
    noise = original.noise_floor(model, judges, threads=threads)
    needs = task.METRIC if max_drop is not None else None
    seen = _compare(model, bundle, judges, task, threads=threads, progress=progress, labelled_for=needs)
    numeric = _numeric_gate(bundle, seen, noise)
    settled = numeric.decision == "pass" and not bundle.lossy
    gates = [*_original_gate(model, noise), numeric]
    needed = 0
    if seen.comparable:
        gate, needed = _agreement_gate(model, bundle, seen, task, required=min_agreement, settled=settled, seed=seed)
        gates.append(gate)
        if max_drop is not None:
            gates.append(_drop_gate(model, bundle, seen, task, limit=max_drop, settled=settled, seed=seed))
    report = VerifyReport(
        bundle_hash=bundle.hash,
        bundle_name=bundle.name,
        origin=model.origin,
        decision=_overall(gates),
        gates=tuple(gates),
        outputs=tuple(seen.errors.values()),
        samples=seen.count,
        samples_needed=needed,
        agreement=task.AGREEMENT,
        metric=_metric(model, bundle, seen, task),
        disagreements=_disagreements(model, seen, task, min_agreement),
        seed=seed,
        environment=Environment.here(),
    )
    bundle.add_evidence("verify", report.to_json())
    return report


@dataclass
class _Seen:
    """What is kept of all samples: results, labels and the worst errors."""

    ids: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    expected: list[Any] = field(default_factory=list)
    got: list[Any] = field(default_factory=list)
    errors: dict[str, TensorError] = field(default_factory=dict)
    not_finite: list[str] = field(default_factory=list)  # samples for which the original itself is not finite
    count: int = 0

    @property
    def comparable(self) -> bool:
        """False where an output is missing or of another shape: such a bundle has no results."""
        return not any(error.problem for error in self.errors.values())


def _compare(
    model: Model,
    bundle: Bundle,
    judges: SampleSource,
    task: Any,
    *,
    threads: int,
    progress: Progress,
    labelled_for: str | None,
) -> _Seen:
    seen = _Seen()
    with (
        session.open(model, runtime=session.exact_runtime(), threads=threads) as reference,
        session.open(bundle, threads=threads) as shipped,
    ):
        progress.update("verify", 0, len(judges))
        for sample in judges:
            if labelled_for and sample.label is None:
                raise _unlabelled(sample, labelled_for)
            expected = reference.run(sample.arrays)
            got = shipped.run(sample.arrays)
            _note_errors(seen, sample, expected, got)
            if seen.comparable:
                _note_results(seen, sample, _decode(task, expected, model), _decode(task, got, model, bundle))
            progress.update("verify", seen.count, len(judges))
            if not seen.comparable:
                break  # every further sample would say the same
    if not seen.count:
        raise EdgewrightError("E301", f"none of {len(judges)} judge samples could be read")
    return seen


def _unlabelled(sample: Sample, metric: str) -> EdgewrightError:
    return EdgewrightError(
        "E305",
        f"judge sample `{sample.id}` has no label, but a drop of {metric} needs one for each",
        hint="judge by agreement, which needs none: edgewright verify MODEL BUNDLE --min-agreement 0.98",
    )


def _note_errors(seen: _Seen, sample: Sample, expected: Arrays, got: Arrays) -> None:
    seen.count += 1
    for name, value in expected.items():
        error = metrics.tensor_error(name, value, got.get(name), sample=sample.id)
        seen.errors[name] = metrics.worse(seen.errors.get(name), error)
    if any(value.dtype.kind == "f" and not np.isfinite(value).all() for value in expected.values()):
        seen.not_finite.append(sample.id)


def _note_results(seen: _Seen, sample: Sample, expected: Any, got: Any) -> None:
    seen.ids.append(sample.id)
    seen.labels.append(sample.label)
    seen.expected.append(expected)
    seen.got.append(got)


def _decode(task: Any, outputs: Arrays, model: Model, bundle: Bundle | None = None) -> Any:
    """The task's result; the bundle's outputs are read by the spec that ships with it."""
    with np.errstate(all="ignore"):  # NaN in outputs is judged by the numeric gate
        return task.postprocess(outputs, bundle.spec if bundle else model.spec)


# --- gates ----------------------------------------------------------------------------------------------------


def _original_gate(model: Model, noise: Any) -> Iterator[Gate]:
    if not noise:
        return
    worst = max(noise.values())
    limit = original.ORIGINAL_REL_L2
    yield Gate(
        name="original",
        decision="pass" if worst <= limit else "fail",
        value=worst,
        low=worst,
        high=worst,
        required=limit,
        message=f"two exact evaluations of `{model.name}`, by {session.exact_runtime()} and by "
        f"{original.reference_runtime()}, differ by rel-L2 {worst:.1e}, limit {limit:.0e}",
    )


def _numeric_gate(bundle: Bundle, seen: _Seen, noise: Any) -> Gate:
    """Equal within float rounding for a lossless bundle; finite and of the right shape for a lossy one."""
    broken = [error for error in seen.errors.values() if error.problem or error.nans]
    if broken:
        first = broken[0]
        what = first.problem or f"{first.nans} values are NaN or infinite where the original's are not"
        where = f" (worst sample: {first.worst_sample})" if first.worst_sample else ""
        message = f"output `{first.name}`: {what}{where}"
        return Gate(
            name="numeric", decision="fail", value=math.inf, low=math.inf, high=math.inf, required=0.0, message=message
        )
    allowed = original.limits(bundle)
    tail = _not_finite_text(seen)
    if bundle.lossy:
        return _finite_gate(seen, allowed, tail)
    worst = max(
        seen.errors.values(), key=lambda error: error.rel_l2 / allowed.cumulative_at(noise.get(error.name, 0.0))
    )
    limit = allowed.cumulative_at(noise.get(worst.name, 0.0))
    return Gate(
        name="numeric",
        decision="pass" if worst.rel_l2 <= limit else "fail",
        value=worst.rel_l2,
        low=worst.rel_l2,
        high=worst.rel_l2,
        required=limit,
        message=f"output `{worst.name}` is rel-L2 {worst.rel_l2:.1e} from the original's, limit {limit:.1e} "
        f"({_samples(seen.count)}, worst: {worst.worst_sample}){tail}",
    )


def _finite_gate(seen: _Seen, allowed: original.Limits, tail: str) -> Gate:
    worst = min(seen.errors.values(), key=lambda error: error.sqnr_db)
    usual = ""
    if allowed.cumulative is not None:
        usual = (
            f" ({allowed.precision} usually reaches {-20 * math.log10(allowed.cumulative):.0f} dB; the results decide)"
        )
    return Gate(
        name="numeric",
        decision="pass",
        value=0.0,
        low=0.0,
        high=0.0,
        required=0.0,
        message=f"no NaN, no infinity, shapes equal; lowest SQNR {worst.sqnr_db:.1f} dB at output `{worst.name}`"
        f"{usual}{tail}",
    )


def _not_finite_text(seen: _Seen) -> str:
    if not seen.not_finite:
        return ""
    return (
        f"; the original itself gives NaN or infinity for {_samples(len(seen.not_finite))}, first: {seen.not_finite[0]}"
    )


def _agreement_gate(
    model: Model, bundle: Bundle, seen: _Seen, task: Any, *, required: float, settled: bool, seed: int
) -> tuple[Gate, int]:
    """The gate, and how many more samples would decide it (0 where it is decided, -1 where none would)."""
    value = float(task.agreement(seen.expected, seen.got, model.spec))
    if task.PROPORTION:
        successes = round(value * seen.count)
        low, high = metrics.clopper_pearson(successes, seen.count)
        more = metrics.samples_to_decide(successes, seen.count, required)
    else:
        low, high = _agreement_bounds(model, seen, task, seed)
        more = _more_by_width(value, low, high, required, seen.count)
        low = min(low, 1 - metrics.unseen_share(seen.count))
    decision: Decision = "pass" if low >= required else "fail" if high < required else "undecided"
    text = (
        f"agreement ({task.AGREEMENT}) is {_percent(value)} (bounds {_percent(low)} to {_percent(high)}), "
        f"required {_percent(required)}, on {_samples(seen.count)}"
    )
    if decision == "undecided" and settled:
        decision = "pass"
        text += (
            "; the samples alone would not prove it, but every step is lossless and the numbers equal the original's"
        )
    elif decision == "undecided":
        text += "; " + _more_text(more)
    needed = (-1 if more is None else more) if decision == "undecided" else 0
    return Gate(
        name="agreement", decision=decision, value=value, low=low, high=high, required=required, message=text
    ), needed


def _agreement_bounds(model: Model, seen: _Seen, task: Any, seed: int) -> tuple[float, float]:
    def resampled(indices: np.ndarray) -> float:
        return float(task.agreement([seen.expected[i] for i in indices], [seen.got[i] for i in indices], model.spec))

    return metrics.bootstrap_paired(seen.count, resampled, resamples=RESAMPLES, seed=seed)


def _drop_gate(model: Model, bundle: Bundle, seen: _Seen, task: Any, *, limit: float, settled: bool, seed: int) -> Gate:
    def drop(indices: Sequence[int] | np.ndarray) -> float:
        labels = [seen.labels[i] for i in indices]
        before = task.metric([seen.expected[i] for i in indices], labels, model.spec)[task.METRIC]
        after = task.metric([seen.got[i] for i in indices], labels, bundle.spec)[task.METRIC]
        return float(before - after)

    value = drop(range(seen.count))
    low, high = metrics.bootstrap_paired(seen.count, drop, resamples=RESAMPLES, seed=seed)
    high = max(high, metrics.unseen_share(seen.count))
    decision: Decision = "pass" if high <= limit else "fail" if low > limit else "undecided"
    text = (
        f"drop of {task.METRIC} is {_points(value)} (bounds {_points(low)} to {_points(high)}), "
        f"allowed {_points(limit)}, on {_samples(seen.count)}"
    )
    if decision == "undecided" and settled:
        decision = "pass"
        text += (
            "; the samples alone would not prove it, but every step is lossless and the numbers equal the original's"
        )
    elif decision == "undecided":
        text += "; more samples would decide"
    return Gate(name="metric drop", decision=decision, value=value, low=low, high=high, required=limit, message=text)


def _more_by_width(value: float, low: float, high: float, required: float, count: int) -> int | None:
    """How many more samples narrow the bounds down to one side of `required`; widths fall as 1 / sqrt(samples)."""
    distance = abs(value - required)
    if not distance:
        return None
    width = value - low if value > required else high - value
    total = math.ceil(count * (width / distance) ** 2)
    if value > required:  # above, no bound is better than that of as many samples without any difference
        total = max(total, metrics.trials_needed(required))
    return max(total - count, 1)


def _more_text(more: int | None) -> str:
    if more is None:
        return "no number of samples would decide at this agreement: it is too near to the limit"
    return f"about {more} more samples would decide at this agreement"


def _overall(gates: Sequence[Gate]) -> Decision:
    decisions = {gate.decision for gate in gates}
    return "fail" if "fail" in decisions else "undecided" if "undecided" in decisions else "pass"


def _metric(model: Model, bundle: Bundle, seen: _Seen, task: Any) -> dict[str, tuple[float, float]]:
    """The task's scores of (original, bundle) over the samples that have a label."""
    known = [i for i, label in enumerate(seen.labels) if label is not None]
    if not known or not task.METRIC:
        return {}
    labels = [seen.labels[i] for i in known]
    before = task.metric([seen.expected[i] for i in known], labels, model.spec)
    after = task.metric([seen.got[i] for i in known], labels, bundle.spec)
    return {name: (float(before[name]), float(after[name])) for name in before}


def _disagreements(model: Model, seen: _Seen, task: Any, required: float) -> tuple[str, ...]:
    limit = 1.0 if task.PROPORTION else required
    different = (
        name
        for name, expected, got in zip(seen.ids, seen.expected, seen.got, strict=True)
        if task.agreement([expected], [got], model.spec) < limit
    )
    return tuple(name for name, _ in zip(different, range(_MOST_DISAGREEMENTS), strict=False))


def _check_limits(min_agreement: float, max_drop: float | None) -> None:
    if not 0 < min_agreement <= 1:
        raise EdgewrightError("E103", f"`min_agreement` is {min_agreement}, but must be above 0 and at most 1")
    if max_drop is not None and not 0 <= max_drop <= 1:
        raise EdgewrightError("E103", f"`max_drop` is {max_drop}, but must be from 0 to 1")


def _percent(share: float) -> str:
    """A share without rounding up to a limit it does not reach: 0.97999 is 97.99 %, never 98 %."""
    return f"{math.floor(share * 10_000 + 1e-6) / 100:g} %"


def _points(difference: float) -> str:
    return f"{difference * 100:.2f} points"


def _samples(count: int) -> str:
    return f"{count} sample" if count == 1 else f"{count} samples"
