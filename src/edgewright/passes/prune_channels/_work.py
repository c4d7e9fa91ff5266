"""The work of the pass: groups, curves, allocation, removal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright import channel_map
from edgewright.contracts import Context
from edgewright.errors import EdgewrightError
from edgewright.graph import channels
from edgewright.graph.channels import Group, Groups
from edgewright.graph.dataflow import lift_constants
from edgewright.graph.shapes import infer
from edgewright.passes.prune_channels import _costs as costing
from edgewright.passes.prune_channels._allocation import Costs, Room, by_error, uniform
from edgewright.passes.prune_channels._elimination import Curve, eliminate
from edgewright.passes.prune_channels._options import matching
from edgewright.passes.prune_channels._readers import Reading, batches, moments, reader, readings
from edgewright.passes.prune_channels._sensitivity import corrected

if TYPE_CHECKING:
    import onnx_ir as ir

#: Shares of what a group may lose at which the whole network is tried.
_LEVELS = (0.3, 0.6, 1.0)
#: The prediction of what a removal saves is exact up to layers that no group describes: aim lower until it is reached.
_ATTEMPTS = 8
_ROUNDING = 1e-3


def prune(ir_model: ir.Model, config: Any, context: Context) -> dict[str, Any]:
    """Remove channels in place; see `apply`."""
    lift_constants(ir_model)
    infer(ir_model)
    found = channels.find(ir_model)
    rooms = _rooms(found, config)
    chosen = {group.name: group for group in found.groups if group.name in rooms}
    goal = None if config.spread == "given" else _goal(ir_model, found, rooms, config)
    curves, predicted = _curves(ir_model, chosen, rooms, config, context)
    measured: dict[str, dict[int, float]] = {}
    if goal is None:
        lost = {name: room.choices[-1] for name, room in rooms.items()}
    else:
        if config.spread == "sensitivity":
            predicted, measured = corrected(ir_model, curves, config.max_trials, context)
        lost = _allocate(ir_model, found, goal, rooms, predicted if config.spread == "sensitivity" else None)
    removed = {name: sorted(curves[name].order[: lost[name]]) for name in rooms if lost[name]}
    before = _cost(ir_model)
    kept = _remove(ir_model, found, removed)
    return {
        "remains": {key: now / max(before[key], 1) for key, now in _cost(ir_model).items()},
        "groups": [
            {
                "group": name,
                "width": [room.width, room.width - lost[name]],
                "predicted_error": float(predicted[name][lost[name]]) if name in predicted else None,
                "measured": {str(level): error for level, error in measured.get(name, {}).items()},
            }
            for name, room in rooms.items()
        ],
        channel_map.KEY: kept,
    }


def _rooms(found: Groups, config: Any) -> dict[str, Room]:
    """What each group may lose.

    Raises:
        EdgewrightError: E103 for a pattern that fits no group, E212 where nothing can be removed.
    """
    if found.refusal is not None:
        raise EdgewrightError("E212", f"`prune_channels` cannot work on this graph: {found.refusal}")
    kept = matching(config.keep, (group.name for group in found.groups), option="keep")
    rooms = {}
    for group in found.groups:
        least = max(config.multiple, int(np.ceil(group.width * (1 - config.most))))
        room = Room(group.width, config.multiple, least)
        if group.name not in kept and len(room.choices) > 1:
            rooms[group.name] = room
    if rooms and config.spread == "given":
        wanted = matching(config.ratios, rooms, option="ratios")
        losing = {name: rooms[name].nearest(config.ratios[pattern]) for name, pattern in wanted.items()}
        rooms = {name: replace(rooms[name], least=rooms[name].width - lost) for name, lost in losing.items() if lost}
    if not rooms:
        raise EdgewrightError(
            "E212",
            f"`prune_channels` finds no channels to remove: {len(found.groups)} groups, of which {len(kept)} are kept "
            f"and none of the others has more than {config.multiple} channels to spare{_barriers(found)}",
            hint="edgewright inspect MODEL --groups",
        )
    return rooms


def _barriers(found: Groups) -> str:
    few = [f"`{barrier.tensor}` ({barrier.reason})" for barrier in found.barriers[:3]]
    more = f" and {len(found.barriers) - 3} more" if len(found.barriers) > 3 else ""
    return f"; what must stay: {', '.join(few)}{more}" if few else ""


# --- which channels first ---------------------------------------------------------------------------------------------


def _curves(
    ir_model: ir.Model, groups: Mapping[str, Group], rooms: Mapping[str, Room], config: Any, context: Context
) -> tuple[dict[str, Curve], dict[str, np.ndarray]]:
    """For each group the order in which its channels go, and the predicted errors."""
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
    found = {name: found[name] for name in groups}
    return found, {name: curve.losses for name, curve in found.items()}


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


# --- how many ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """What the network may cost.

    Attributes:
        costs: How that depends on widths.
        limit: The cost to reach.
        measure: What a graph really costs.
    """

    costs: Costs
    limit: float
    measure: Callable[[ir.Model], float]


def _goal(ir_model: ir.Model, found: Groups, rooms: Mapping[str, Room], config: Any) -> Goal:
    """The target, known to be within reach before anything is learnt.

    Raises:
        EdgewrightError: E103 for a target that cannot be reached, E212 where sizes are not known.
    """
    what, share = ("macs", config.macs) if config.macs is not None else ("size", config.size)
    costs = _costs(ir_model, found, what)
    measure = costing.measured_macs if what == "macs" else costing.measured_bytes
    goal = Goal(costs, share * measure(ir_model), measure)
    widest = {name: room.choices[-1] for name, room in rooms.items()}
    least = _without(ir_model, found, goal, widest)
    if least > goal.limit:
        raise EdgewrightError(
            "E103",
            f"option `prune_channels.{what}` is {share}, but at least {least / goal.limit * share:.3f} remains when every "
            f"group keeps {1 - config.most:.0%} of its channels, or one multiple of {config.multiple}{_barriers(found)}",
            hint="edgewright inspect MODEL --groups",
        )
    return goal


def _without(ir_model: ir.Model, found: Groups, goal: Goal, lost: Mapping[str, int]) -> float:
    """What the network costs without so many channels of each group, whichever."""
    copy = ir_model.clone()
    _remove(copy, found, {name: range(count) for name, count in lost.items() if count})
    return goal.measure(copy)


def _allocate(
    ir_model: ir.Model,
    found: Groups,
    goal: Goal,
    rooms: Mapping[str, Room],
    errors: Mapping[str, np.ndarray] | None,
) -> dict[str, int]:
    """Channels lost by each group so that the graph costs no more than it may; the same share without `errors`."""
    aim = goal.limit
    for _ in range(_ATTEMPTS):
        lost = uniform(rooms, goal.costs, aim) if errors is None else by_error(rooms, goal.costs, aim, errors)
        over = _without(ir_model, found, goal, lost) - goal.limit
        if over <= _ROUNDING * goal.limit:
            return lost
        aim -= over
    return {name: room.choices[-1] for name, room in rooms.items()}


def _cost(ir_model: ir.Model) -> dict[str, float]:
    """Multiply-adds, as far as sizes tell, and bytes of weights."""
    return {"macs": costing.measured_macs(ir_model), "size": costing.measured_bytes(ir_model)}


def _costs(ir_model: ir.Model, found: Groups, what: str) -> Costs:
    if what == "size":
        return costing.weight_bytes(ir_model, found.groups)
    costs = costing.macs(ir_model, found.groups)
    if costs is None:
        raise EdgewrightError(
            "E212",
            "`prune_channels` cannot count multiply-adds: the size of a tensor is not known",
            hint="fix the sizes of the network's inputs, or give --set prune_channels.size=0.75 instead of macs",
        )
    return costs


def _remove(ir_model: ir.Model, found: Groups, removed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Remove in place; the channel map of what is no weight."""
    sizes = {value.name: value.shape for node in ir_model.graph for value in node.outputs if value.shape is not None}
    sizes = {name: tuple(shape) for name, shape in sizes.items()}
    kept = channels.remove(ir_model, found, removed)
    infer(ir_model)
    lines: dict[str, tuple[int, int, tuple[int, ...]]] = {}
    for name, (axis, indices) in kept.items():
        if name in sizes:
            before = sizes[name][axis]
            lines[name] = (
                axis % len(sizes[name]),
                int(before) if isinstance(before, int) else max(indices) + 1,
                indices,
            )
    return channel_map.encode(lines)
