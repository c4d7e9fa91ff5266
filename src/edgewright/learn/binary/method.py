"""Methods: what weights, activations and gradients of a binary layer are.

Sources: Qin et al. 2020, "Forward and Backward Information Retention for Accurate Binary Neural Networks" (IR-Net);
Courbariaux et al. 2016, "Binarized Neural Networks" (straight-through signs); Liu et al. 2018, "Bi-Real Net"; Liu et al. 2020,
"ReActNet"; Tu et al. 2022, "AdaBin".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgewright.errors import EdgewrightError

Estimator = Literal["ste", "ede", "polynomial"]
Weights = Literal["sign", "scaled", "libra", "adabin"]


@dataclass(frozen=True)
class Method:
    """One way to make layers binary.

    Attributes:
        weights: What a filter's weights become: see `weights`.
        weight_gradient: What stands for the gradient of their sign: see `signs`.
        gradient: The same for activations.
        thresholds: Activations are compared with a learnt number for each channel (RSign), not with 0.
        activation: What follows a layer in the networks of this package.
        shortcuts: In residual networks, one around every convolution (Bi-Real), not around every two.
        pad_value: The sign that stands in the padding, +1 or -1.
    """

    weights: Weights = "libra"
    weight_gradient: Estimator = "ede"
    gradient: Estimator = "ede"
    thresholds: bool = False
    activation: Literal["hardtanh", "rprelu", "none"] = "hardtanh"
    shortcuts: bool = True
    pad_value: int = 1

    def __post_init__(self) -> None:
        if self.pad_value not in (1, -1):
            raise EdgewrightError("E103", f"padding is {self.pad_value}, but must be a sign, +1 or -1")


#: The published combinations, by name.
METHODS = {
    "irnet": Method(),
    "sign-ste": Method("sign", "ste", "ste"),
    "bireal": Method("scaled", "ste", "polynomial", activation="none"),
    "reactnet": Method("scaled", "ste", "polynomial", thresholds=True, activation="rprelu"),
    "adabin": Method("adabin", "ste", "polynomial"),
}


def method(name: str) -> Method:
    """The method called `name`.

    Raises:
        EdgewrightError: E101 where there is none.
    """
    if name not in METHODS:
        raise EdgewrightError("E101", f"there is no method `{name}`; there are {', '.join(METHODS)}")
    return METHODS[name]
