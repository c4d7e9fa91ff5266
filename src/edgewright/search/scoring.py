"""How far networks say the same as the original on the select samples: what a search may look at, unlike the judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgewright import original, registry, session
from edgewright.bundle import Bundle
from edgewright.contracts import Sample, SampleSource
from edgewright.errors import EdgewrightError
from edgewright.model import Arrays, Model


def selecting(samples: SampleSource) -> SampleSource:
    """The select role of `samples`.

    Raises:
        EdgewrightError: E301 when it is empty.
    """
    chosen = samples.role("select")
    if not len(chosen):
        raise EdgewrightError(
            "E301",
            "the search needs samples with the role select, and there are none",
            hint="give more samples: roles are drawn by content, about one of seven selects",
        )
    return chosen


class Scorer:
    """Scores bundles of one network; the original answers each sample once.

    Attributes:
        samples: Number of select samples.
        required: Agreement that is within the budget, 0..1.
        max_drop: Largest drop of the metric that is, where labels decide.
    """

    def __init__(
        self, model: Model, samples: SampleSource, *, required: float, max_drop: float | None, threads: int
    ) -> None:
        self._model, self._threads = model, threads
        self._samples = selecting(samples)
        self.samples = len(self._samples)
        self._task = registry.get("tasks", model.spec.task)
        # One sample alone never decides: one of twenty that differs is no sign of less than 98 %.
        self.required = min(required, 1 - 1 / self.samples) if self._task.PROPORTION else required
        self.max_drop = max_drop
        self._expected: list[Any] = []
        self._labels: list[Any] = []

    def score(self, bundle: Bundle) -> tuple[float, float | None]:
        """Agreement with the original, and the drop of the task's metric where labels decide.

        Raises:
            EdgewrightError: E232 when the runtime fails, E305 for a sample without a label.
        """
        if not self._expected:
            self._ask_original()
        with session.open(bundle, threads=self._threads) as shipped:
            got = [self._decoded(bundle, shipped.run(sample.arrays)) for sample in self._samples]
        agreement = float(self._task.agreement(self._expected, got, self._model.spec))
        if self.max_drop is None:
            return agreement, None
        return agreement, self._metric(self._expected) - self._metric(got)

    def within(self, agreement: float, drop: float | None) -> bool:
        """True where these are within the budget."""
        return agreement >= self.required and (drop is None or self.max_drop is None or drop <= self.max_drop)

    def _ask_original(self) -> None:
        with original.open_original(self._model, threads=self._threads) as answers:
            for sample in self._samples:
                self._expected.append(self._decoded(self._model, answers.run(sample.arrays)))
                self._labels.append(self._label(sample))

    def _label(self, sample: Sample) -> Any:
        if self.max_drop is not None and sample.label is None:
            raise EdgewrightError("E305", f"select sample `{sample.id}` has no label, but a drop needs one for each")
        return sample.label

    def _decoded(self, network: Model | Bundle, outputs: Arrays) -> Any:
        with np.errstate(all="ignore"):  # a NaN agrees with nothing
            return self._task.postprocess(outputs, network.spec)

    def _metric(self, results: Sequence[Any]) -> float:
        return float(self._task.metric(results, self._labels, self._model.spec)[self._task.METRIC])
