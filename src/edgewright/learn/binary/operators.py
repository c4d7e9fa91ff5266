"""A binary layer as operators of an ONNX graph that is being trained, until standard ones take their place.

    LearntSigns(x, threshold, spread, ede) -> signs      x f32[N, C, ...], threshold and spread f32[C], ede f32[2]: t and k
    LearntWeights(weight, ede) -> values                 two values for each filter, by Libra-PB

Both have EDE's gradient. The spread is that of the channel in the original: EDE is made for activations of about 1, and
measures in units of it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgewright.learn.binary.signs import sign
from edgewright.learn.binary.weights import binarize
from edgewright.learn.operators.table import along, operator


@operator("edgewright.LearntSigns")
def learnt_signs(x: Tensor, threshold: Tensor, spread: Tensor, ede: Tensor) -> Tensor:
    """-1 where x lies below the channel's threshold, else +1."""
    limit, unit = along(threshold, 1, x.ndim), along(spread, 1, x.ndim)
    return sign(x, "ede", threshold=limit, spread=unit, t=ede[0], k=ede[1])


@operator("edgewright.LearntWeights")
def learnt_weights(weight: Tensor, ede: Tensor) -> Tensor:
    """The two values of each filter f32[M, ...]."""
    return binarize(weight, "libra", "ede", ede[0], ede[1]).values()


def values(weight: np.ndarray) -> np.ndarray:
    """What `LearntWeights` makes of weights, f32 of their shape."""
    with torch.no_grad():
        made: np.ndarray = binarize(torch.from_numpy(np.array(weight)), "libra").values().numpy()
    return made
