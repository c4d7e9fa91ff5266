"""From float weights to two values for each filter: a sign times a scale, plus an offset.

sign     sign(w)
scaled   sign(w) mean(|w|): Rastegari et al. 2016, "XNOR-Net", section 3.1; the scale has no gradient, as in ReActNet
libra    Libra-PB: w_std = (w - mean) / std, unbiased; sign(w_std) 2^s, s = round(log2(mean(|w_std|))) without gradient
         Source: Qin et al. 2020, "Forward and Backward Information Retention", section 3.2, and the authors' code for
         the unbiased std
adabin   sign(w - mean) scale + mean, scale = |w - mean|_2 / sqrt(n): Tu et al. 2022, "AdaBin", section 3.2
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgewright.learn.binary.method import Estimator, Weights
from edgewright.learn.binary.signs import sign

#: Below the spread of any filter that has learnt something: equal weights are divided by this, not by 0.
_LEAST = 2.0**-20


@dataclass(frozen=True)
class Binarized:
    """Two values for each filter.

    Attributes:
        signs: +1 and -1, of the shape of the weights.
        scale: f32[M], above 0.
        offset: f32[M], or None where it is 0.
    """

    signs: Tensor
    scale: Tensor
    offset: Tensor | None = None

    def values(self) -> Tensor:
        """signs * scale + offset."""
        made = self.signs * _rows(self.scale, self.signs)
        return made if self.offset is None else made + _rows(self.offset, self.signs)


def binarize(
    weight: Tensor, kind: Weights, estimator: Estimator = "ste", t: Tensor | float = 1.0, k: Tensor | float = 1.0
) -> Binarized:
    """The two values of each filter.

    Args:
        weight: f32[M, ...]: M filters.
        kind: How they are made.
        estimator: What stands for the gradient of the sign.
        t: Of EDE.
        k: Of EDE.
    """
    flat = weight.flatten(1)
    offset = None
    if kind == "libra":
        flat = standardized(flat)
        scale = torch.exp2(torch.log2(flat.abs().mean(1).clamp(min=_LEAST)).round()).detach()
    elif kind == "adabin":
        offset = flat.mean(1)
        flat = flat - offset[:, None]
        scale = flat.square().mean(1).clamp(min=_LEAST**2).sqrt()
        flat = flat / scale[:, None]
    elif kind == "scaled":
        scale = flat.abs().mean(1).clamp(min=_LEAST).detach()
    else:
        scale = flat.new_ones(len(flat))
    return Binarized(sign(flat, estimator, t=t, k=k).view_as(weight), scale, offset)


def standardized(flat: Tensor) -> Tensor:
    """Filters f32[M, K] with mean 0 and spread 1 each: what Libra-PB takes the signs of."""
    centred = flat - flat.mean(1, keepdim=True)
    made: Tensor = centred / centred.std(1, keepdim=True).clamp(min=_LEAST)
    return made


def _rows(vector: Tensor, like: Tensor) -> Tensor:
    return vector.view(-1, *[1] * (like.ndim - 1))
