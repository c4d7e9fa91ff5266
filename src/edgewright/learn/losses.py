"""Losses: how far a student is from its teacher, and from labels where there are any.

Classifiers are compared as probabilities (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2),
everything else by the squared distance over the teacher's power, so that outputs of any scale count alike. Inner tensors
are compared by the latter too (Romero et al. 2014, "FitNets", section 2.2, without regressors: the tensors have one shape).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.errors import EdgewrightError
from edgewright.learn.pairing import Pair

#: The task whose outputs are scores of classes; it alone has labels to learn from.
CLASSIFY = "classify"
_LEAST_POWER = 1e-12


@dataclass(frozen=True)
class Loss:
    """What is minimized.

    Attributes:
        task: The network's task.
        outputs: Pairs of outputs.
        features: Pairs of inner tensors.
        temperature: Of the probabilities.
        weight: What inner tensors count, against 1 for the outputs.
    """

    task: str
    outputs: tuple[Pair, ...]
    features: tuple[Pair, ...]
    temperature: float
    weight: float

    def teacher_names(self) -> tuple[str, ...]:
        """Tensors of the teacher that it reads."""
        return tuple(dict.fromkeys(pair.teacher for pair in (*self.outputs, *self.features)))

    def student_names(self) -> tuple[str, ...]:
        """Tensors of the student that it reads."""
        return tuple(dict.fromkeys(pair.student for pair in (*self.outputs, *self.features)))

    def __call__(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], labels: Tensor | None = None
    ) -> Tensor:
        """The loss of one batch, f32[]; with `labels` i64[N], their cross-entropy is added."""
        total = self.of_outputs(student, teacher)
        if self.features and self.weight:
            distances = [distance(student[p.student], _channels(teacher[p.teacher], p)) for p in self.features]
            total = total + self.weight * torch.stack(distances).mean()
        if labels is not None:
            total = total + functional.cross_entropy(_rows(student[self.outputs[0].student]), labels)
        return total

    def of_outputs(self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
        """The part of the outputs, f32[]."""
        one = divergence if self.task == CLASSIFY else lambda x, y, _: distance(x, y)
        parts = [one(student[p.student], teacher[p.teacher], self.temperature) for p in self.outputs]
        return torch.stack(parts).mean()


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the student's probabilities from the teacher's, times temperature squared, f32[]."""
    x, y = (functional.log_softmax(_rows(logits) / temperature, dim=1) for logits in (student, teacher))
    return functional.kl_div(x, y, reduction="batchmean", log_target=True) * temperature**2


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance over the teacher's power, f32[]: 0 where they are equal, 1 for a student that says 0."""
    power = teacher.square().sum().clamp(min=_LEAST_POWER)
    return functional.mse_loss(student, teacher, reduction="sum") / power


def class_labels(labels: Sequence[object], task: str, ids: Sequence[str]) -> Tensor:
    """Labels as class indices, i64[N].

    Raises:
        EdgewrightError: E305 where a sample has none, or the task's labels are no classes.
    """
    if task != CLASSIFY:
        raise EdgewrightError("E305", f"labels of task `{task}` cannot be learnt from, only those of `{CLASSIFY}`")
    for label, name in zip(labels, ids, strict=True):
        if not isinstance(label, int):
            raise EdgewrightError("E305", f"sample `{name}` has no label to learn from", hint="distil.labels = false")
    return torch.tensor(labels, dtype=torch.int64)


def _rows(logits: Tensor) -> Tensor:
    return logits.reshape(len(logits), -1)


def _channels(x: Tensor, pair: Pair) -> Tensor:
    """The teacher's tensor with the channels that the student has left."""
    for axis, places in pair.kept.items():
        x = x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))
    return x
