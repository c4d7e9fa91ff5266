"""Judging a student on the select samples: how far it says what the original says, then its loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from edgewright.contracts import Sample
from edgewright.learn.feeding import tensors
from edgewright.learn.losses import Loss, class_labels
from edgewright.learn.running import Runner, Teacher
from edgewright.model import Arrays

Agreement = Callable[[Sequence[Arrays], Sequence[Arrays]], float]
#: Samples that are judged together.
_BATCH = 16


@dataclass(frozen=True)
class Judgement:
    """What the select samples say.

    Attributes:
        agreement: With the original, by the task, 0..1.
        loss: Mean loss of the outputs.
        right: Part of the labels that are right, None where labels are not asked.
    """

    agreement: float
    loss: float
    right: float | None = None

    @property
    def share(self) -> float:
        """What counts first: labels where they are learnt from, else agreement."""
        return self.agreement if self.right is None else self.right


@dataclass(frozen=True)
class Best:
    """The weights that are kept, by what the select samples said of them.

    Attributes:
        highest: The highest share that any weights had.
        share: The share of those that are kept.
        loss: Their loss.
    """

    highest: float
    share: float
    loss: float

    def after(self, judgement: Judgement, samples: int) -> Best | None:
        """What is kept now that other weights are judged so; None where it stays as it is.

        Shares within one sample of the highest are alike: one sample of fifty that changes its class says less than the
        loss of all fifty.
        """
        highest = max(self.highest, judgement.share)
        least = highest - (1 + 1e-6) / max(samples, 1)
        if judgement.share < least or (self.share >= least and not judgement.loss < self.loss):
            return None
        return Best(highest, judgement.share, judgement.loss)


@dataclass(frozen=True)
class Judge:
    """The select samples and what is asked of them.

    Attributes:
        samples: The samples, held in memory.
        loss: What is minimized.
        outputs: Names of the graph's outputs.
        agreement: How far outputs say the same as the original's.
        labels: True where labels count.
    """

    samples: tuple[Sample, ...]
    loss: Loss
    outputs: tuple[str, ...]
    agreement: Agreement
    labels: bool

    def __call__(self, student: Runner, teacher: Teacher) -> Judgement:
        """The judgement of the student as it is."""
        losses, right = [], 0
        wanted: list[Arrays] = []
        got: list[Arrays] = []
        for start in range(0, len(self.samples), _BATCH):
            samples = self.samples[start : start + _BATCH]
            inputs = tensors(samples)
            with torch.no_grad():
                answers = teacher(inputs, [sample.id for sample in samples])
                made = student(inputs)
                losses.append(float(self.loss.of_outputs(made, answers)) * len(samples))
            if self.labels:
                labels = class_labels([s.label for s in samples], self.loss.task, [s.id for s in samples])
                scores = made[self.loss.outputs[0].student].reshape(len(samples), -1).cpu()
                right += int((scores.argmax(1) == labels).sum())
            wanted += [self._arrays(answers, teacher.runner, i) for i in range(len(samples))]
            got += [self._arrays(made, student, i) for i in range(len(samples))]
        count = len(self.samples)
        loss = float(np.sum(losses)) / count
        return Judgement(
            self.agreement(wanted, got), loss if np.isfinite(loss) else np.inf, right / count if self.labels else None
        )

    def _arrays(self, made: dict[str, torch.Tensor], runner: Runner, index: int) -> Arrays:
        """The outputs of one sample, as a session would give them."""
        at = slice(index, index + 1) if runner.batched else index
        return {name: made[name][at].cpu().contiguous().numpy() for name in self.outputs}
