"""verify: does a bundle still give the original's answers? Judged on the shipped files, untouched.

    report = ew.verify(model, bundle, samples, min_agreement=0.98)
    report.decision   # "pass", "fail" or "undecided"

Each sample's arrays are made once and go through both networks. Kept are results, error sums and, within limits, the
original's outputs (`original.Answers`), which the next bundle of the same network is judged by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewright import metrics, original, registry, session
from edgewright.bundle import Bundle
from edgewright.contracts import Sample, SampleSource
from edgewright.errors import EdgewrightError
from edgewright.model import Arrays, Model
from edgewright.options import require_agreement
from edgewright.progress import SILENT, Progress
from edgewright.records import Decision, Environment, Gate, VerifyReport
from edgewright.verify import coverage, gates, saturation
from edgewright.verify.seen import Distances, Seen

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
    answers: original.Answers | None = None,
    progress: Progress = SILENT,
) -> VerifyReport:
    """The verdict on `bundle`; it is also appended to the bundle's evidence.

    Args:
        model: The original network, as it was loaded.
        bundle: What to judge, or its folder; every file's hash is checked first.
        samples: Only the role judge is judged by; calibrate samples that made the bundle are compared with them.
        min_agreement: Least agreement with the original, above 0 and at most 1. No labels are needed.
        max_drop: Largest drop of the task's metric, 0..1; needs labels.
        threads: Threads of both networks.
        seed: Seed of the bootstrap.
        answers: The original's, where several bundles of one network are judged: what is known is not computed again.
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
    task = _task(model, max_drop)
    noise = original.noise_floor(model, judges, threads=threads)
    needs = task.METRIC if max_drop is not None else None
    answers = answers or original.Answers(model, threads=threads)
    assert answers.model is model
    watch = coverage.Watch(bundle, samples, judges, task)
    seen = _compare(answers, bundle, judges, task, watch, threads=threads, progress=progress, labelled_for=needs)
    numeric = _numeric(model, bundle, judges, seen, noise, threads)
    settled = numeric.decision == "pass" and (not bundle.lossy or _unchanged(model, bundle, seen))
    asked = [*gates.original_gate(model, noise), numeric]
    needed = 0
    if seen.comparable:
        agreed, needed = gates.agreement_gate(model, seen, task, required=min_agreement, settled=settled, seed=seed)
        asked.append(agreed)
        if max_drop is not None:
            asked.append(gates.drop_gate(model, bundle, seen, task, limit=max_drop, settled=settled, seed=seed))
    report = VerifyReport(
        bundle_hash=bundle.hash, bundle_name=bundle.name, origin=model.origin, decision=_overall(asked),
        gates=tuple(asked), outputs=tuple(seen.errors.values()), samples=seen.count, samples_needed=needed,
        agreement=task.AGREEMENT, metric=_metric(model, bundle, seen, task),
        disagreements=_disagreements(model, seen, task, min_agreement), seed=seed, environment=Environment.here(),
        saturation=saturation.measure(answers, bundle, judges, seen, task, threads=threads, progress=progress),
        coverage=watch.coverage(answers, seed=seed) if seen.comparable else None,
    )  # fmt: skip
    bundle.add_evidence("verify", report.to_json())
    return report


def _task(model: Model, max_drop: float | None) -> Any:
    task = registry.get("tasks", model.spec.task)
    if max_drop is not None and not task.METRIC:
        raise EdgewrightError("E305", f"task `{model.spec.task}` has no metric, so there is no drop to limit")
    return task


def _compare(
    answers: original.Answers,
    bundle: Bundle,
    judges: SampleSource,
    task: Any,
    watch: coverage.Watch,
    *,
    threads: int,
    progress: Progress,
    labelled_for: str | None,
) -> Seen:
    seen, model = Seen(decided=original.decided(bundle)), answers.model
    with answers, session.open(bundle, threads=threads) as shipped:
        progress.update("verify", 0, len(judges))
        for sample in judges:
            if labelled_for and sample.label is None:
                raise _unlabelled(sample, labelled_for)
            expected = answers.run(sample)
            got = shipped.run(sample.arrays)
            _note_errors(seen, sample, expected, got)
            if seen.comparable:
                result = _decode(task, expected, model)
                watch.note(sample, expected, result)
                _note_results(seen, sample, result, _decode(task, got, model, bundle))
            progress.update("verify", seen.count, len(judges))
            if not seen.comparable:
                break  # every further sample would say the same
    if not seen.count:
        raise EdgewrightError("E301", f"none of {len(judges)} judge samples could be read")
    return seen


def _numeric(
    model: Model,
    bundle: Bundle,
    judges: SampleSource,
    seen: Seen,
    noise: Mapping[str, original.Noise],
    threads: int,
) -> Gate:
    """The numeric gate. Rounding depends on the sample, so one that is beyond the limit is held against its own noise too."""
    gate = gates.numeric_gate(bundle, seen, noise)
    if gate.decision == "pass" or bundle.lossy or not noise or not seen.comparable:
        return gate
    beyond = {item.worst[1] for item in seen.distances.values()}
    for sample in judges:
        if sample.id in beyond:
            own = original.noise_floor(model, [sample], threads=threads)
            noise = {name: item.worse(own[name]) for name, item in noise.items()}
    return gates.numeric_gate(bundle, seen, noise)


def _unlabelled(sample: Sample, metric: str) -> EdgewrightError:
    return EdgewrightError(
        "E305",
        f"judge sample `{sample.id}` has no label, but a drop of {metric} needs one for each",
        hint="judge by agreement, which needs none: edgewright verify MODEL BUNDLE --min-agreement 0.98",
    )


def _note_errors(seen: Seen, sample: Sample, expected: Arrays, got: Arrays) -> None:
    seen.count += 1
    for name, scores in expected.items():
        axis = seen.decided.get(name)
        value = scores if axis is None else np.argmax(scores, axis)
        error = metrics.tensor_error(name, value, got.get(name), sample=sample.id)
        seen.errors[name] = metrics.worse(seen.errors.get(name), error)
        seen.distances.setdefault(name, Distances()).note(sample.id, error, value, got.get(name))
    if any(value.dtype.kind == "f" and not np.isfinite(value).all() for value in expected.values()):
        seen.not_finite.append(sample.id)


def _note_results(seen: Seen, sample: Sample, expected: Any, got: Any) -> None:
    seen.ids.append(sample.id)
    seen.groups.append(sample.group)
    seen.labels.append(sample.label)
    seen.expected.append(expected)
    seen.got.append(got)


def _decode(task: Any, outputs: Arrays, model: Model, bundle: Bundle | None = None) -> Any:
    """The task's result; the bundle's outputs are read by the spec that ships with it."""
    with np.errstate(all="ignore"):  # NaN in outputs is judged by the numeric gate
        return task.postprocess(outputs, bundle.spec if bundle else model.spec)


def _unchanged(model: Model, bundle: Bundle, seen: Seen) -> bool:
    """True for an original of narrow arithmetic that was only converted, and whose numbers are the same everywhere."""
    converted = bundle.precision == model.precision and not any(step.lossy for step in bundle.history)
    return converted and all(item.worst[0] <= original.FP32_REL_L2 for item in seen.distances.values())


def _overall(asked: Sequence[Gate]) -> Decision:
    decisions = {gate.decision for gate in asked}
    return "fail" if "fail" in decisions else "undecided" if "undecided" in decisions else "pass"


def _metric(model: Model, bundle: Bundle, seen: Seen, task: Any) -> dict[str, tuple[float, float]]:
    """The task's scores of (original, bundle) over the samples that have a label."""
    known = [i for i, label in enumerate(seen.labels) if label is not None]
    if not known or not task.METRIC:
        return {}
    labels = [seen.labels[i] for i in known]
    before = task.metric([seen.expected[i] for i in known], labels, model.spec)
    after = task.metric([seen.got[i] for i in known], labels, bundle.spec)
    return {name: (float(before[name]), float(after[name])) for name in before}


def _disagreements(model: Model, seen: Seen, task: Any, required: float) -> tuple[str, ...]:
    limit = 1.0 if task.PROPORTION else required
    different = (
        name
        for name, expected, got in zip(seen.ids, seen.expected, seen.got, strict=True)
        if task.agreement([expected], [got], model.spec) < limit
    )
    return tuple(name for name, _ in zip(different, range(_MOST_DISAGREEMENTS), strict=False))


def _check_limits(min_agreement: float, max_drop: float | None) -> None:
    require_agreement(min_agreement)
    if max_drop is not None and not 0 <= max_drop <= 1:
        raise EdgewrightError("E103", f"`max_drop` is {max_drop}, but must be from 0 to 1")
