"""The loss of a binary student: labels, the logits of a float teacher, or both."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.errors import EdgewrightError
from edgewright.learn.losses import divergence


def imitation(
    student: Tensor,
    teacher: Tensor | None,
    labels: Tensor | None,
    *,
    share: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """How far logits f32[N, K] are from a teacher's and from labels i64[N], f32[].

    share * divergence from the teacher + (1 - share) * cross-entropy of the labels; what is missing is left out, and the
    other then counts in full. With a share of 1 and temperature 1 this is the distributional loss of Liu et al. 2020,
    "ReActNet", section 4.3, but for the teacher's own entropy, which has no gradient.

    Raises:
        EdgewrightError: E103 where there is neither, or the share is not in 0..1.
    """
    if not 0 <= share <= 1:
        raise EdgewrightError("E103", f"the teacher's share of the loss is {share}, but must be 0..1")
    parts = []
    if teacher is not None:
        parts.append((share if labels is not None else 1.0, divergence(student, teacher, temperature)))
    if labels is not None:
        weight = 1 - share if teacher is not None else 1.0
        parts.append((weight, functional.cross_entropy(student, labels)))
    if not parts:
        raise EdgewrightError("E103", "a loss needs a teacher, labels or both")
    return torch.stack([weight * part for weight, part in parts if weight]).sum()
