"""Saturation: do this CPU's int8 kernels change what a bundle says? Measured, never only suspected.

x86 CPUs without VNNI add pairs of products in 16 bits and cut off what does not fit. Where a bundle's weights could make that
happen here (`Bundle.may_saturate`), the same files are run twice: on the kernels that ship, and without saturation. Values on
the edge of a step may go either way, which moves both answers, but neither away from the original. Saturation is named where
the kernels that ship are much farther from the original than exact ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgewright import metrics, original, registry, session
from edgewright.bundle import Bundle
from edgewright.contracts import SampleSource
from edgewright.errors import EdgewrightError
from edgewright.model import Arrays, Model
from edgewright.progress import Progress
from edgewright.records import Saturation
from edgewright.target import EXACT_INT8, Target
from edgewright.verify.gates import percent
from edgewright.verify.seen import Seen

#: Judge samples that are run without saturation, which is slow.
MOST_SAMPLES = 64
#: Median rel-L2 between the two up to which it may be rounding (40 dB). Rounding alone may make more (EfficientNet-Lite0 on
#: OpenVINO: 0.045), but not farther from the original.
ROUNDING_REL_L2 = 0.01
#: So often the median distance of exact evaluation from the original is no rounding any more. Of a full-range
#: EfficientNet-Lite0 rounding makes 1.0, saturation 3.7.
NAMED_FROM_RATIO = 2.0


@dataclass
class _Both:
    """Results and distances of the same files on the kernels that ship, and without saturation."""

    fast: list[Any] = field(default_factory=list)
    exact: list[Any] = field(default_factory=list)
    fast_error: list[float] = field(default_factory=list)  # from the original
    exact_error: list[float] = field(default_factory=list)
    apart: list[float] = field(default_factory=list)  # from each other


def measure(
    answers: original.Answers,
    bundle: Bundle,
    judges: SampleSource,
    seen: Seen,
    task: Any,
    *,
    threads: int,
    progress: Progress,
) -> Saturation | None:
    """What saturation does to the bundle's answers on this CPU; None where it does nothing or cannot happen.

    Args:
        answers: The original's.
        bundle: What is judged.
        judges: The samples that `seen` comes from, in the same order.
        seen: The original's results.
        task: What results are.
        threads: Threads of both runs.
        progress: Told of each sample, and where the files could not be run without saturation.
    """
    if not bundle.may_saturate or not registry.peek("runtimes", bundle.runtime).TRAITS.saturates or not seen.comparable:
        return None
    both, total, model = _Both(), min(seen.count, MOST_SAMPLES), answers.model
    try:
        for outputs in _runs(answers, bundle, judges, threads, total):
            progress.update("look for saturation", len(both.apart), total)
            _note(both, outputs, task, bundle)
    except EdgewrightError as problem:
        progress.note(f"`{bundle.name}` may saturate on this CPU, but cannot be run without: {problem.message}")
        return None
    expected = seen.expected[: len(both.apart)]
    agreements = [float(task.agreement(expected, results, model.spec)) for results in (both.exact, both.fast)]
    apart, exact_error, fast_error = (float(np.median(x)) for x in (both.apart, both.exact_error, both.fast_error))
    far = apart > ROUNDING_REL_L2 and NAMED_FROM_RATIO * exact_error <= fast_error and math.isfinite(exact_error)
    if not far or agreements[0] < agreements[1]:
        return None
    message, command = _words(model, bundle, agreements, [exact_error, fast_error], len(both.apart))
    return Saturation(
        rel_l2=apart,
        exact_agreement=agreements[0],
        agreement=agreements[1],
        exact_sqnr_db=metrics.decibel(exact_error),
        sqnr_db=metrics.decibel(fast_error),
        samples=len(both.apart),
        message=message,
        command=command,
    )


def _runs(
    answers: original.Answers, bundle: Bundle, judges: SampleSource, threads: int, most: int
) -> Iterator[tuple[Arrays, Arrays, Arrays]]:
    """Outputs of (the original, the kernels that ship, the same files without saturation) for the first samples."""
    with (
        answers,
        session.open(bundle, threads=threads) as fast,
        session.open(bundle, threads=threads, exact=True) as exact,
    ):
        for sample in itertools.islice(judges, most):
            yield answers.run(sample), fast.run(sample.arrays), exact.run(sample.arrays)


def _note(both: _Both, outputs: tuple[Arrays, Arrays, Arrays], task: Any, bundle: Bundle) -> None:
    expected, fast, exact = outputs
    with np.errstate(all="ignore"):
        both.fast.append(task.postprocess(fast, bundle.spec))
        both.exact.append(task.postprocess(exact, bundle.spec))
    both.fast_error.append(_distance(expected, fast))
    both.exact_error.append(_distance(expected, exact))
    both.apart.append(_distance(exact, fast))


def _distance(reference: Arrays, other: Arrays) -> float:
    """rel-L2 of the worst float output; infinite where no output can be compared."""
    worst = -math.inf
    for name, value in reference.items():
        error = metrics.tensor_error(name, value, other.get(name))
        if value.dtype.kind == "f" and not error.problem:
            worst = max(worst, 0.0 if error.max_abs <= original.ROUNDING_ABS else error.rel_l2)
    return worst if worst >= 0 else math.inf


def _words(model: Model, bundle: Bundle, agreements: list[float], errors: list[float], count: int) -> tuple[str, str]:
    """The finding in one sentence, and the command that makes weights which do not saturate."""
    form = registry.get("runtimes", bundle.runtime).quant_format(Target(bundle.runtime))
    weights = f"{form.weight_bits}-bit weights" if form is not None else "float"
    network, advice = "MODEL", f"use {weights}"
    if model.precision == "int8":
        network, advice = "FLOAT_MODEL", f"the original itself is quantized so: make {weights} of the float network"
    command = (
        f"edgewright compress {network} --recipe int8 --runtime {bundle.runtime} --cpu host --samples PHOTOS "
        "--out FILE.onnx"
    )
    exact, fast = (
        f"{percent(share)} (SQNR {metrics.decibel(error):.1f} dB)"
        for share, error in zip(agreements, errors, strict=True)
    )
    message = (
        f"computed exactly, the same files agree {exact} with the original, on this CPU's kernels {fast}, on "
        f"{'1 sample' if count == 1 else f'{count} samples'}: products of 8-bit weights saturate in 16 bits, since the CPU "
        f"has none of {', '.join(EXACT_INT8)}; {advice}: {command}"
    )
    return message, command
