"""The questions that verify asks, each with its bounds and its answer.

Bounds count sources, not samples: samples of one source (crops of a photo, clips of a speaker) are alike, and counting
them one by one would claim a certainty that is not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgewright import metrics, original, session
from edgewright.bundle import Bundle
from edgewright.model import EXACT, Model
from edgewright.records import Decision, Gate
from edgewright.verify.seen import Seen

#: Resamplings of a metric that is computed anew over all samples each time.
RESAMPLES = 500


def original_gate(model: Model, noise: Mapping[str, original.Noise]) -> Iterator[Gate]:
    """Whether the runtime that stands for the original agrees with the reference; nothing where no other could say."""
    if not noise:
        return
    worst = max(noise.values(), key=lambda item: item.rel_l2 if item.max_abs > original.ROUNDING_ABS else 0.0)
    limit = original.ORIGINAL_REL_L2 if model.precision in EXACT else original.QUANTIZED_REL_L2
    equal = worst.rel_l2 <= limit or worst.max_abs <= original.ROUNDING_ABS
    text = (
        f"two exact evaluations of `{model.name}`, by {session.exact_runtime()} and by {original.reference_runtime()}, "
        f"differ by rel-L2 {worst.rel_l2:.1e} (largest difference {worst.max_abs:.1e}), limit {limit:.0e}"
    )
    if not equal:
        text += "; one of them is wrong, so nothing can be judged: please report the network"
    yield Gate(
        name="original",
        decision="pass" if equal else "fail",
        value=worst.rel_l2,
        low=worst.rel_l2,
        high=worst.rel_l2,
        required=limit,
        message=text,
    )


def numeric_gate(bundle: Bundle, seen: Seen, noise: Mapping[str, original.Noise]) -> Gate:
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
    found = {name: item.worst for name, item in seen.distances.items()}
    limits = {name: allowed.cumulative_at(noise.get(name, original.Noise()).rel_l2) for name in found}
    name = max(found, key=lambda output: found[output][0] / limits[output])
    (value, sample), limit = found[name], limits[name]
    return Gate(
        name="numeric",
        decision="pass" if value <= limit else "fail",
        value=value,
        low=value,
        high=value,
        required=limit,
        message=f"output `{name}` is rel-L2 {value:.1e} from the original's, limit {limit:.1e} "
        f"({seen.size}, worst: {sample}){tail}",
    )


def _finite_gate(seen: Seen, allowed: original.Limits, tail: str) -> Gate:
    numbers = [error for name, error in seen.errors.items() if name not in seen.decided]  # classes have no noise
    worst = min(numbers, key=lambda error: error.sqnr_db, default=None)
    usual = ""
    if worst and allowed.cumulative is not None:
        usual = (
            f" ({allowed.precision} usually reaches {-20 * math.log10(allowed.cumulative):.0f} dB; the results decide)"
        )
    lowest = f"; lowest SQNR {worst.sqnr_db:.1f} dB at output `{worst.name}`" if worst else ""
    return Gate(
        name="numeric",
        decision="pass",
        value=0.0,
        low=0.0,
        high=0.0,
        required=0.0,
        message=f"no NaN, no infinity, shapes equal{lowest}{usual}{tail}",
    )


def _not_finite_text(seen: Seen) -> str:
    if not seen.not_finite:
        return ""
    return (
        f"; the original itself gives NaN or infinity for {_samples(len(seen.not_finite))}, first: {seen.not_finite[0]}"
    )


def agreement_gate(
    model: Model, seen: Seen, task: Any, *, required: float, settled: bool, seed: int
) -> tuple[Gate, int]:
    """The gate, and how many more samples (or sources) would decide it: 0 where it is decided, -1 where none would."""
    value = float(task.agreement(seen.expected, seen.got, model.spec))
    sources = len(seen.by_source)
    if task.PROPORTION:
        each = [_agreement_of(model, seen, task, indices) for indices in seen.by_source]
        successes = math.floor(sum(each) + 1e-9)
        low, high = metrics.clopper_pearson(successes, sources)
        high = max(high, value)
        more = metrics.samples_to_decide(successes, sources, required)
    else:
        low, high = _agreement_bounds(model, seen, task, seed)
        more = _more_by_width(value, low, high, required, sources)
        low = min(low, 1 - metrics.unseen_share(sources))
    decision: Decision = "pass" if low >= required else "fail" if high < required else "undecided"
    text = (
        f"agreement ({task.AGREEMENT}) is {percent(value)} (bounds {percent(low)} to {percent(high)}), "
        f"required {percent(required)}, on {seen.size}"
    )
    if decision == "undecided" and settled:
        decision = "pass"
        text += (
            "; the samples alone would not prove it, but every step is lossless and the numbers equal the original's"
        )
    elif decision == "undecided":
        text += "; " + _more_text(more, "samples" if sources == seen.count else "sources")
    needed = (-1 if more is None else more) if decision == "undecided" else 0
    return Gate(
        name="agreement", decision=decision, value=value, low=low, high=high, required=required, message=text
    ), needed


def _agreement_of(model: Model, seen: Seen, task: Any, indices: np.ndarray) -> float:
    return float(task.agreement([seen.expected[i] for i in indices], [seen.got[i] for i in indices], model.spec))


def _agreement_bounds(model: Model, seen: Seen, task: Any, seed: int) -> tuple[float, float]:
    return _bounds(seen, lambda indices: _agreement_of(model, seen, task, indices), seed)


def _bounds(seen: Seen, statistic: Callable[[np.ndarray], float], seed: int) -> tuple[float, float]:
    """Bootstrap bounds of a statistic of sample indices, whole sources drawn at a time."""
    sources = seen.by_source

    def drawn(chosen: np.ndarray) -> float:
        return statistic(np.concatenate([sources[i] for i in chosen]))

    return metrics.bootstrap_paired(len(sources), drawn, resamples=RESAMPLES, seed=seed)


def drop_gate(model: Model, bundle: Bundle, seen: Seen, task: Any, *, limit: float, settled: bool, seed: int) -> Gate:
    """Whether the task's metric falls by more than `limit`, on the same labelled samples."""

    def drop(indices: Sequence[int] | np.ndarray) -> float:
        labels = [seen.labels[i] for i in indices]
        before = task.metric([seen.expected[i] for i in indices], labels, model.spec)[task.METRIC]
        after = task.metric([seen.got[i] for i in indices], labels, bundle.spec)[task.METRIC]
        return float(before - after)

    value = drop(range(seen.count))
    low, high = _bounds(seen, drop, seed)
    high = max(high, metrics.unseen_share(len(seen.by_source)))
    decision: Decision = "pass" if high <= limit else "fail" if low > limit else "undecided"
    text = (
        f"drop of {task.METRIC} is {_points(value)} (bounds {_points(low)} to {_points(high)}), "
        f"allowed {_points(limit)}, on {seen.size}"
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


#: Nobody has as many.
_MANY = 10_000


def _more_text(more: int | None, what: str) -> str:
    if more is None:
        return "no number of samples would decide at this agreement: it is too near to the limit"
    if more > _MANY:
        return f"more than {_MANY} more {what} would have to decide: this agreement is too near to the limit"
    return f"about {more} more {what} would decide at this agreement"


def percent(share: float) -> str:
    """A share without rounding up to a limit it does not reach: 0.97999 is 97.99 %, never 98 %."""
    return f"{math.floor(share * 10_000 + 1e-6) / 100:g} %"


def _points(difference: float) -> str:
    return f"{difference * 100:.2f} points"


def _samples(count: int) -> str:
    return f"{count} sample" if count == 1 else f"{count} samples"
