"""The work of the pass: groups, curves, allocation, removal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright import channel_map
from edgewright.contracts import Context
from edgewright.errors import EdgewrightError
from edgewright.graph import channels
from edgewright.graph.channels import Groups
from edgewright.graph.dataflow import lift_constants
from edgewright.graph.shapes import infer
from edgewright.passes.prune_channels import _costs as costing
from edgewright.passes.prune_channels._allocation import Cost, Costs, Room, by_error, uniform
from edgewright.passes.prune_channels._options import TARGETS, matching
from edgewright.passes.prune_channels._ranking import rank
from edgewright.passes.prune_channels._timing import TIME_TOLERANCE, Times, measure_times

if TYPE_CHECKING:
    import onnx_ir as ir

#: The prediction of what a removal saves is exact up to layers that no group describes: aim lower until it is reached.
_ATTEMPTS = 8
_TIMED_ATTEMPTS = 5
_ROUNDING = 1e-3
#: Part of the time by which a network may be faster than asked before the aim is raised again.
_WASTE = 0.03


def prune(ir_model: ir.Model, config: Any, context: Context) -> dict[str, Any]:
    """Remove channels in place; see `apply`."""
    lift_constants(ir_model)
    infer(ir_model)
    found = channels.find(ir_model)
    rooms = _rooms(found, config)
    chosen = {group.name: group for group in found.groups if group.name in rooms}
    goal = None if config.spread == "given" else _goal(ir_model, found, rooms, config, context)
    ranking = rank(ir_model, chosen, rooms, config, context)
    cost = 1.0
    if goal is None:
        lost = _given(rooms, config)
    else:
        lost, cost = _allocate(ir_model, found, goal, rooms, ranking.errors if config.spread == "sensitivity" else None)
    removed = {name: sorted(ranking.orders[name][: lost[name]]) for name in rooms if lost[name]}
    before = _cost(ir_model)
    kept = _remove(ir_model, found, removed)
    remains = {key: now / max(before[key], 1) for key, now in _cost(ir_model).items()}
    if goal is not None and goal.times is not None:
        remains["latency"] = cost
    return {
        "remains": remains,
        "groups": [
            {
                "group": name,
                "width": [room.width, room.width - lost[name]],
                "predicted_error": float(ranking.errors[name][lost[name]]),
                "measured": {str(level): error for level, error in ranking.measured.get(name, {}).items()},
                **({} if goal is None or goal.times is None else {"saves": goal.times.told(name)}),
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
        wanted = matching(
            config.ratios, rooms, option="ratios"
        )  # ranked whole, as for a target: ratios may come from one
        rooms = {name: rooms[name] for name in rooms if name in wanted}
        if not any(_given(rooms, config).values()):
            rooms = {}
    if not rooms:
        raise EdgewrightError(
            "E212",
            f"`prune_channels` finds no channels to remove: {len(found.groups)} groups, of which {len(kept)} are kept "
            f"and none of the others has more than {config.multiple} channels to spare{_barriers(found)}",
            hint="edgewright inspect MODEL --groups",
        )
    return rooms


def _given(rooms: Mapping[str, Room], config: Any) -> dict[str, int]:
    """Channels lost by each group as `ratios` say."""
    wanted = matching(config.ratios, rooms, option="ratios")
    return {name: rooms[name].nearest(config.ratios[pattern]) for name, pattern in wanted.items()}


def _barriers(found: Groups) -> str:
    few = [f"`{barrier.tensor}` ({barrier.reason})" for barrier in found.barriers[:3]]
    more = f" and {len(found.barriers) - 3} more" if len(found.barriers) > 3 else ""
    return f"; what must stay: {', '.join(few)}{more}" if few else ""


# --- how many ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """What the network may cost.

    Attributes:
        costs: How that depends on widths.
        limit: The cost to reach.
        measure: What a graph really costs.
        tolerance: Part of the limit by which it may be missed.
        times: Where the cost is time, what each group saves.
        clock: And the label of the clock that says so.
    """

    costs: Cost
    limit: float
    measure: Callable[[ir.Model], float]
    tolerance: float = _ROUNDING
    times: Times | None = None
    clock: str | None = None


def _goal(ir_model: ir.Model, found: Groups, rooms: Mapping[str, Room], config: Any, context: Context) -> Goal:
    """The target, known to be within reach before anything is learnt.

    Raises:
        EdgewrightError: E103 for a target that cannot be reached, E212 where sizes are not known.
    """
    what = next(option for option in TARGETS if getattr(config, option) is not None)
    share = getattr(config, what)
    goal = _time_goal(ir_model, found, rooms, share, context) if what == "latency" else None
    if goal is None:
        measure = costing.measured_macs if what == "macs" else costing.measured_bytes
        goal = Goal(_costs(ir_model, found, what), share * measure(ir_model), measure)
    able = rooms if goal.times is None else goal.times.saving
    widest = {name: rooms[name].choices[-1] for name in able}

    def left() -> float:
        return _without(ir_model, found, goal, widest)

    least = 1.0 if not able else left() if goal.clock is None else context.remember(["least", goal.clock, widest], left)
    if least > goal.limit * (1 + goal.tolerance):
        idle = f" of {len(rooms)} groups, {len(able)} save time when they lose channels;" if goal.times else ""
        raise EdgewrightError(
            "E103",
            f"option `prune_channels.{what}` is {share}, but at least {least / goal.limit * share:.3f} remains:{idle} when "
            f"every group keeps {1 - config.most:.0%} of its channels, or one multiple of {config.multiple}"
            f"{_barriers(found)}",
            hint="edgewright inspect MODEL --groups",
        )
    return goal


def _time_goal(ir_model: ir.Model, found: Groups, rooms: Mapping[str, Room], share: float, context: Context) -> Goal:
    """The target as a share of measured time.

    Raises:
        EdgewrightError: E103 without a clock.
    """
    clock = context.clock
    if clock is None:
        raise EdgewrightError(
            "E103",
            "option `prune_channels.latency` needs a clock, and none was given: time is measured on the target's runtime, "
            "which needs a CPU like the target's",
            hint="leave --cpu out, or give macs instead: --set prune_channels.macs=0.75 --set prune_channels.latency=none",
        )

    def without(lost: Mapping[str, int]) -> ir.Model:
        copy = ir_model.clone()
        _remove(
            copy, found, {name: range(rooms[name].width - count, rooms[name].width) for name, count in lost.items()}
        )
        return copy

    macs = costing.macs(ir_model, found.groups) or costing.weight_bytes(ir_model, found.groups)
    times = measure_times(ir_model, rooms, without, macs, clock, context)

    def measure(graph: ir.Model) -> float:
        context.progress.update("time the pruned network on the runtime", 0, None)
        return clock.ratios(ir_model, {"pruned": graph})["pruned"].value

    return Goal(times, share, measure, TIME_TOLERANCE, times, clock.label)


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
) -> tuple[dict[str, int], float]:
    """Channels lost by each group so that the graph costs no more than it may, and what it then costs.

    All lose about the same share without `errors`.
    """
    able = rooms if goal.times is None else {name: rooms[name] for name in goal.times.saving}
    lost, cost = _reach(ir_model, found, goal, able, errors)
    return {**dict.fromkeys(rooms, 0), **lost}, cost


def _reach(
    ir_model: ir.Model,
    found: Groups,
    goal: Goal,
    rooms: Mapping[str, Room],
    errors: Mapping[str, np.ndarray] | None,
) -> tuple[dict[str, int], float]:
    """Aim at the limit, then lower until what is left really costs no more, or higher where far more than asked went."""
    aim = goal.limit
    best: tuple[dict[str, int], float] | None = None
    for _ in range(_ATTEMPTS if goal.times is None else _TIMED_ATTEMPTS):
        lost = uniform(rooms, goal.costs, aim) if errors is None else by_error(rooms, goal.costs, aim, errors)
        cost = _without(ir_model, found, goal, lost)
        over = cost - goal.limit
        if over <= goal.tolerance * goal.limit:
            best = max(best or (lost, cost), (lost, cost), key=lambda item: item[1])
            if goal.times is None or over >= -_WASTE * goal.limit:
                break
        aim -= over
    widest = {name: room.choices[-1] for name, room in rooms.items()}
    return best or (widest, _without(ir_model, found, goal, widest))


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
            hint="fix them with --set onnx.sizes=NAME=1x3x224x224, or give --set prune_channels.size=0.75 instead of macs",
        )
    return costs


def _remove(ir_model: ir.Model, found: Groups, removed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Remove in place; the channel map of what is no weight."""
    sizes = {value.name: value.shape for node in ir_model.graph for value in node.outputs if value.shape is not None}
    sizes = {name: tuple(shape) for name, shape in sizes.items()}
    kept = channels.remove(ir_model, found, removed)
    infer(ir_model)
    lines: dict[str, dict[int, tuple[int, tuple[int, ...]]]] = {}
    for name in (name for name in kept if name in sizes):
        befores = [(axis, sizes[name][axis], indices) for axis, indices in kept[name].items()]
        lines[name] = {axis: (size if isinstance(size, int) else max(left) + 1, left) for axis, size, left in befores}
    return channel_map.encode(lines)
