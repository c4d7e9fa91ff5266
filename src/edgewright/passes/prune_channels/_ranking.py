"""Which channels of each group go first, and what their loss costs: found out once for a network, remembered after."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.contracts import Context
from edgewright.graph.channels import Group
from edgewright.passes.prune_channels._allocation import Room
from edgewright.passes.prune_channels._elimination import Curve, eliminate
from edgewright.passes.prune_channels._readers import Reading, batches, moments, reader, readings
from edgewright.passes.prune_channels._sensitivity import corrected

if TYPE_CHECKING:
    import onnx_ir as ir

#: Shares of what a group may lose at which the whole network is tried.
_LEVELS = (0.3, 0.6, 1.0)
#: Options that decide how many channels go, not which ones or at what price.
_TARGETS = ("macs", "size", "latency", "ratios", "spread", "keep")


@dataclass(frozen=True, eq=False)
class Ranking:
    """What is known of each group.

    Attributes:
        orders: Its channels, the first to go first.
        errors: Predicted error after n were lost, f64[n + 1], never falling.
        measured: Error of the whole network's outputs without so many of them, where that was tried.
    """

    orders: Mapping[str, tuple[int, ...]]
    errors: Mapping[str, np.ndarray]
    measured: Mapping[str, Mapping[int, float]]


def rank(
    ir_model: ir.Model, groups: Mapping[str, Group], rooms: Mapping[str, Room], config: Any, context: Context
) -> Ranking:
    """The ranking of `groups`; errors are scaled to measured ones where these decide how many each loses.

    Raises:
        EdgewrightError: E212 for activations that are NaN or infinite, E301 without calibrate samples.
    """
    options = {name: str(value) for name, value in vars(config).items() if name not in _TARGETS}
    key = [options, {name: [room.width, room.least] for name, room in rooms.items()}]

    @functools.cache
    def curves() -> dict[str, Curve]:
        return _curves_of(ir_model, groups, rooms, config, context)

    def ordered() -> dict[str, Any]:
        return {name: [list(curve.order), curve.losses.tolist()] for name, curve in curves().items()}

    def tried() -> dict[str, Any]:
        errors, measured = corrected(ir_model, curves(), config.max_trials, context)
        return {name: [errors[name].tolist(), list(measured[name].items())] for name in errors}

    known = context.remember(["order", key], ordered)
    orders = {name: tuple(order) for name, (order, _) in known.items()}
    if config.spread != "sensitivity":
        return Ranking(orders, {name: np.array(losses) for name, (_, losses) in known.items()}, {})
    sensitive = context.remember(["sensitivity", key], tried)
    errors = {name: np.array(values) for name, (values, _) in sensitive.items()}
    return Ranking(orders, errors, {name: dict(pairs) for name, (_, pairs) in sensitive.items()})


def _curves_of(
    ir_model: ir.Model, groups: Mapping[str, Group], rooms: Mapping[str, Room], config: Any, context: Context
) -> dict[str, Curve]:
    """For each group the order in which its channels go, and at what predicted cost."""
    found: dict[str, Curve] = {}
    read = readings(ir_model, list(groups.values()))
    total = len(groups)
    for batch in batches(read):
        layers = {part.layer.name: part.layer for name in batch for part in read[name] or ()}
        seconds = moments(ir_model, list(layers.values()), config.max_samples, config.max_vectors, context)
        for name in batch:
            context.progress.update("rank channels", len(found), total)
            found[name] = _curve(ir_model, groups[name], read[name], seconds, rooms[name], config)
    context.progress.update("rank channels", total, total)
    return {name: found[name] for name in groups}


def _curve(
    ir_model: ir.Model,
    group: Group,
    parts: list[Reading] | None,
    seconds: Mapping[str, np.ndarray],
    room: Room,
    config: Any,
) -> Curve:
    most = room.choices[-1]
    levels = sorted({room.nearest(share * most / room.width) for share in _LEVELS} - {0})
    if parts is None:  # what its readers lose cannot be told: by the weights that make the channels
        scores = _l1(ir_model, group)
        order = np.argsort(scores, kind="stable")
        total = np.concatenate([[0.0], np.cumsum(np.square(scores[order]))])
        return Curve(tuple(order[:most].tolist()), total[: most + 1] / (total[-1] or 1.0))
    readers = [reader(part, seconds[part.layer.name]) for part in parts]
    order_given = None
    if config.criterion == "l1":
        order_given = np.argsort(_l1(ir_model, group), kind="stable").tolist()
    elif config.criterion == "activation":
        order_given = np.argsort(_activation(parts, seconds), kind="stable").tolist()
    return eliminate(readers, group.width, most, levels, order_given)


def _l1(ir_model: ir.Model, group: Group) -> np.ndarray:
    """Sum of the absolute weights that make each channel, each layer's relative to its mean, f64[channels]."""
    scores = np.zeros(group.width)
    for member in group.members:
        value = ir_model.graph.initializers.get(member.tensor)
        if member.role != "made" or value is None or value.const_value is None:
            continue
        array = np.abs(value.const_value.numpy().astype(np.float64))
        sums = np.moveaxis(array, member.axis, 0).reshape(array.shape[member.axis], -1).sum(axis=1)
        mine = np.array([sums[list(place)].sum() for place in member.places])
        scores += mine / (mine.mean() or 1.0)
    return scores


def _activation(parts: list[Reading], seconds: Mapping[str, np.ndarray]) -> np.ndarray:
    """Power of each channel where it is read, times that of the weights that read it, f64[channels]."""
    scores = np.zeros(len(parts[0].units))
    for part in parts:
        power = np.einsum("gkk->gk", seconds[part.layer.name])[:, :-1]
        mine = (np.square(part.layer.rows, dtype=np.float64).sum(axis=1) * power).sum(axis=0)
        scores += mine[part.units].sum(axis=1) / (mine.sum() or 1.0)
    return scores
