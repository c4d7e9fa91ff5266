"""Backward elimination: which inputs a linear map can lose at the least squared error, the others making up for it.

With A^T A the second moments of the vectors that the map sees, losing the inputs S of a channel costs
w_S^T ((A^T A)^-1_SS)^-1 w_S, summed over outputs, once the weights that are left are moved to their new optimum.
Source: Hassibi and Stork 1992, "Second Order Derivatives for Network Pruning: Optimal Brain Surgeon", section 2, for
one weight; here for all weights of a channel together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

#: Part of the mean power of inputs, and of the diagonal, added to second moments of few vectors.
_DAMPING = 1e-4


@dataclass
class Reader:
    """A linear map that reads a group's channels, as elimination changes it.

    Attributes:
        name: The layer.
        weights: What it has left, f64[G, O, K + 1], the bias last.
        inverse: Inverse of its inputs' second moments, f64[G, K + 1, K + 1].
        units: Inputs of each channel, i64[channels, m].
        scale: What squared errors are divided by, so that those of several readers may be added.
    """

    name: str
    weights: np.ndarray
    inverse: np.ndarray
    units: np.ndarray
    scale: float

    @classmethod
    def of(cls, name: str, weights: np.ndarray, moments: np.ndarray, units: np.ndarray) -> Reader:
        """From weights f[G, O, K + 1] and second moments f64[G, K + 1, K + 1] of inputs and a constant 1."""
        energy = float(np.sum((weights @ moments) * weights)) or 1.0
        diagonal = np.einsum("gkk->gk", moments)
        damped = moments.copy()
        inputs = np.einsum("gkk->gk", damped)
        inputs[:, :-1] += _DAMPING * diagonal[:, :-1].mean(axis=1, keepdims=True) + 1e-9
        return cls(name, weights.astype(np.float64), np.linalg.inv(damped), units, energy)

    def losses(self) -> np.ndarray:
        """What losing each channel costs now, f64[channels], as a share of what the map makes."""
        if self.units.shape[1] == 1:
            at = self.units[:, 0]
            power = np.square(self.weights[:, :, at]).sum(axis=1)
            diagonal = np.einsum("gkk->gk", self.inverse)[:, at]
            single: np.ndarray = np.sum(power / np.maximum(diagonal, 1e-300), axis=0) / self.scale
            return single
        total = np.zeros(len(self.units))
        for weights, inverse in zip(self.weights, self.inverse, strict=True):
            blocks = inverse[self.units[:, :, None], self.units[:, None, :]]
            rows = weights[:, self.units].transpose(1, 2, 0)  # [channels, m, O]
            empty = np.einsum("cmm->cm", blocks) == 0
            np.einsum("cmm->cm", blocks)[empty] = 1  # inputs that are gone
            total += np.sum(rows * np.linalg.solve(blocks, rows), axis=(1, 2))
        return total / self.scale

    def lose(self, channel: int) -> None:
        """Remove a channel's inputs; the other weights move to their new optimum."""
        gone = self.units[channel]
        for group in range(len(self.weights)):
            weights, inverse = self.weights[group], self.inverse[group]  # views: what follows changes them in place
            step = np.linalg.solve(inverse[np.ix_(gone, gone)], inverse[gone])
            weights[...] -= weights[:, gone] @ step
            inverse[...] -= inverse[:, gone] @ step
            weights[:, gone] = 0
            inverse[gone] = inverse[:, gone] = 0


@dataclass(frozen=True, eq=False)
class Curve:
    """In which order a group loses its channels, and at what predicted cost.

    Attributes:
        order: Channels, the first to go first.
        losses: Predicted squared error after the first n were lost, f64[n + 1], as shares, summed over readers.
        snapshots: By number of lost channels, each reader's weights then, f32[G, O, K + 1].
    """

    order: tuple[int, ...]
    losses: np.ndarray
    snapshots: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)


def eliminate(
    readers: Sequence[Reader], width: int, most: int, levels: Sequence[int], order: Sequence[int] | None = None
) -> Curve:
    """Remove `most` of `width` channels one by one: those of `order`, or always the one that costs least.

    Args:
        readers: The maps; they are changed.
        width: Channels of the group.
        most: How many to remove.
        levels: Numbers of removed channels at which the readers' weights are kept.
        order: Channels in the order of removal, where that is known.
    """
    gone: list[int] = []
    losses = [0.0]
    snapshots: dict[int, dict[str, np.ndarray]] = {}
    alive = np.ones(width, bool)
    for number in range(most):
        costs = np.sum([reader.losses() for reader in readers], axis=0)
        channel = order[number] if order is not None else int(np.argmin(np.where(alive, costs, np.inf)))
        for reader in readers:
            reader.lose(channel)
        alive[channel] = False
        gone.append(channel)
        losses.append(losses[-1] + max(float(costs[channel]), 0.0))
        if number + 1 in levels:
            snapshots[number + 1] = {reader.name: reader.weights.astype(np.float32) for reader in readers}
    return Curve(tuple(gone), np.array(losses), snapshots)
