"""EDE's schedule: the gradient of the sign is flat at first, so that all weights learn, and ends up close to the sign's own.

t = least (most / least)^part,  k = max(1 / t, 1)
Source: Qin et al. 2020, "Forward and Backward Information Retention", section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgewright.errors import EdgewrightError
from edgewright.learn.binary.layers import Binary


@dataclass(frozen=True)
class EdeSchedule:
    """How t and k change.

    Attributes:
        least: t at the start, above 0. The paper has 0.1, the authors' code for ResNet-20 on CIFAR-10 has 0.001.
        most: t at the end, at least that.
    """

    least: float = 0.1
    most: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.most:
            raise EdgewrightError("E103", f"EDE from t = {self.least} to {self.most}: above 0, and not falling")

    def at(self, part: float) -> tuple[float, float]:
        """(t, k) when this part of the training is done, 0..1: epoch i of N is part i / N."""
        t = self.least * (self.most / self.least) ** part
        return t, max(1 / t, 1.0)

    def apply(self, network: torch.nn.Module, part: float) -> None:
        """Set t and k of every binary layer of the network."""
        t, k = self.at(part)
        for layer in network.modules():
            if isinstance(layer, Binary):
                layer.t.fill_(t)
                layer.k.fill_(k)
