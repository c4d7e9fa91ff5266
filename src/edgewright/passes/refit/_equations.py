"""Normal equations of linear maps, streamed, and the ridge regression that solves them.

For each group of a layer, A = [x, 1] are the vectors that it sees and T what it should make of them. Only the sums
A^T A, A^T T and T^T T are held, so memory does not grow with the samples. The solution is drawn towards the weights
that are there: min |A P - T|^2 + s |P - P0|^2 has P = P0 + (A^T A + s I)^-1 (A^T T - A^T A P0).
Source: Hoerl and Kennard 1970, "Ridge Regression: Biased Estimation for Nonorthogonal Problems".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Strengths that are tried, in units of the mean power of the inputs; the last of them leaves nearly all as it is.
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass
class Sums:
    """Sums over vectors, f64.

    Attributes:
        moments: A^T A, [G, K + 1, K + 1].
        products: A^T T, [G, K + 1, O].
        power: T^T T of each output, [G, O].
        count: How many vectors.
    """

    moments: np.ndarray
    products: np.ndarray
    power: np.ndarray
    count: int = 0

    @classmethod
    def empty(cls, groups: int, inputs: int, outputs: int) -> Sums:
        """Nothing added yet."""
        return cls(
            np.zeros((groups, inputs + 1, inputs + 1)),
            np.zeros((groups, inputs + 1, outputs)),
            np.zeros((groups, outputs)),
        )

    def add(self, vectors: np.ndarray, targets: np.ndarray) -> None:
        """Count vectors f32[G, P, K] and what should be made of them, f32[G, P, O]."""
        ones = np.ones((*vectors.shape[:2], 1), np.float32)
        full = np.concatenate([vectors, ones], axis=2)
        turned = full.transpose(0, 2, 1)
        self.moments += turned @ full
        self.products += turned @ targets
        self.power += np.square(targets, dtype=np.float64).sum(axis=1)
        self.count += vectors.shape[1]

    def merged(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(
            self.moments + other.moments,
            self.products + other.products,
            self.power + other.power,
            self.count + other.count,
        )

    def error(self, maps: np.ndarray) -> float:
        """Mean over the vectors of the squared distance |A P - T|^2 for maps P, f64[G, K + 1, O]."""
        squared = np.sum(maps * (self.moments @ maps - 2 * self.products)) + self.power.sum()
        return float(max(squared, 0.0)) / max(self.count, 1)

    def solve(self, before: np.ndarray, strength: float) -> np.ndarray:
        """Maps of least squared error, drawn towards `before`, f64[G, K + 1, O]."""
        diagonal = np.einsum("gkk->gk", self.moments)
        damped = self.moments.copy()
        weight = strength * diagonal[:, :-1].mean(axis=1) + 1e-12 * (1 + diagonal[:, -1])
        inputs = np.einsum("gkk->gk", damped)
        inputs[:, :-1] += weight[:, None]
        inputs[:, -1] += 1e-9 * diagonal[:, -1]  # the bias is known from all vectors, and is free
        moved: np.ndarray = before + np.linalg.solve(damped, self.products - self.moments @ before)
        return moved


@dataclass(frozen=True, eq=False)
class Solution:
    """A layer's new maps.

    Attributes:
        maps: f64[G, K + 1, O], the last row the bias.
        strength: The ridge that held-out samples chose; infinite where they chose the maps as they were.
        before: Squared error of the old maps on held-out samples, as a share of the targets' power.
        after: That of maps learnt from the other half.
    """

    maps: np.ndarray
    strength: float
    before: float
    after: float


def solve(halves: tuple[Sums, Sums], before: np.ndarray) -> Solution:
    """The maps learnt from both halves, with the strength of which each half, judged by the other, has least error."""
    power = sum(float(half.power.sum()) / max(half.count, 1) for half in halves) or 1.0
    errors = {float("inf"): sum(half.error(before) for half in halves)}
    for strength in STRENGTHS:
        errors[strength] = sum(
            judged.error(learnt.solve(before, strength)) for learnt, judged in (halves, halves[::-1])
        )
    best = min(errors, key=lambda strength: errors[strength])
    whole = halves[0].merged(halves[1])
    maps = before if best == float("inf") else whole.solve(before, best / 2)  # twice the vectors: half the ridge
    return Solution(maps, best, errors[float("inf")] / power, errors[best] / power)
