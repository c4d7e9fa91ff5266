"""A binary layer as operators of an ONNX graph that is being trained, until standard ones take their place.

    LearntSigns(x, threshold, spread, stage) -> signs    x f32[N, C, ...], threshold and spread f32[C]
    LearntWeights(weight, stage) -> values               two values for each filter, by Libra-PB

Both have EDE's gradient. The stage is f32[3]: EDE's t and k, and 1, or 0 while weights are still float: Libra-PB's, before
their sign is taken. The spread is that of the channel in the original: EDE is made for activations of about 1, and
measures in units of it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgewright.learn.binary.signs import sign
from edgewright.learn.binary.weights import binarize, standardized
from edgewright.learn.operators.table import along, operator


@operator("edgewright.LearntSigns")
def learnt_signs(x: Tensor, threshold: Tensor, spread: Tensor, stage: Tensor) -> Tensor:
    """-1 where x lies below the channel's threshold, else +1."""
    limit, unit = along(threshold, 1, x.ndim), along(spread, 1, x.ndim)
    return sign(x, "ede", threshold=limit, spread=unit, t=stage[0], k=stage[1])


@operator("edgewright.LearntWeights")
def learnt_weights(weight: Tensor, stage: Tensor) -> Tensor:
    """The two values of each filter f32[M, ...]."""
    if not stage[2]:
        return standardized(weight.flatten(1)).view_as(weight)
    return binarize(weight, "libra", "ede", stage[0], stage[1]).values()


def values(weight: np.ndarray) -> np.ndarray:
    """What `LearntWeights` makes of weights, f32 of their shape."""
    with torch.no_grad():
        made: np.ndarray = binarize(torch.from_numpy(np.array(weight)), "libra").values().numpy()
    return made
