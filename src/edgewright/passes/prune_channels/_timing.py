"""What each group's channels save in time: measured in the whole network at a few widths, by MACs in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.contracts import Clock, Context, TimeRatio
from edgewright.passes.prune_channels._allocation import Costs, Room

if TYPE_CHECKING:
    import onnx_ir as ir

#: Times repeat to about one per cent, so a target is reached when it is missed by no more.
TIME_TOLERANCE = 0.01
#: Shares of what a group may lose at which the whole network is timed.
_LEVELS = (0.5, 1.0)
#: Groups that are measured side by side.
_AT_ONCE = 3


@dataclass(frozen=True, eq=False)
class Times:
    """The time that is left, as a share of the whole network's, when groups lose channels: their savings add up.

    That counts the product of two groups that meet in one layer twice, so allocations are measured afterwards.

    Attributes:
        curves: By group, (share of its channels that is left, share of the time that is saved), the first rising.
        measured: By group and number of channels lost, what the clock said.
    """

    curves: Mapping[str, tuple[np.ndarray, np.ndarray]]
    measured: Mapping[str, Mapping[int, TimeRatio]]

    @property
    def saving(self) -> tuple[str, ...]:
        """Groups that save something beyond the noise of measurement; the others are left alone."""
        return tuple(name for name, (_, saved) in self.curves.items() if saved.max() > 0)

    def at(self, left: Mapping[str, float]) -> float:
        """The time with these shares, 0..1, of each group's channels left; 1 where not said."""
        return 1.0 + sum(self.of(name, left) for name in left)

    def of(self, group: str, left: Mapping[str, float]) -> float:
        """Of that time the part that changes with this group, 0 or below: what it saves."""
        share = left.get(group, 1.0)
        return -float(np.interp(share, *self.curves[group])) if group in self.curves and share < 1 else 0.0

    def told(self, name: str) -> dict[str, list[float]]:
        """What the clock said of a group, JSON-ready: channels lost -> time, low, high."""
        return {str(lost): [item.value, item.low, item.high] for lost, item in self.measured[name].items()}


def measure_times(
    ir_model: ir.Model,
    rooms: Mapping[str, Room],
    without: Callable[[Mapping[str, int]], ir.Model],
    macs: Costs,
    clock: Clock,
    context: Context,
) -> Times:
    """Times of the network when one group at a time loses channels.

    Args:
        ir_model: The network.
        rooms: What groups may lose.
        without: Makes the network without so many channels of some groups, whichever: values do not matter for time.
        macs: What the network computes, or the bytes of its weights where that is not known: the shape of a curve
            between the widths that are measured.
        clock: Measures.
        context: Remembers.
    """
    measured: dict[str, dict[int, TimeRatio]] = {}
    for start in range(0, len(rooms), _AT_ONCE):
        names = list(rooms)[start : start + _AT_ONCE]
        context.progress.update("time groups on the runtime", len(measured), len(rooms))
        tried = {(name, lost): without({name: lost}) for name in names for lost in _lost(rooms[name])}
        variants = {f"{name} {lost}": (name, lost) for name, lost in tried}

        def ask(tried: Mapping[tuple[str, int], ir.Model] = tried) -> dict[str, list[float]]:
            found = clock.ratios(ir_model, {f"{name} {lost}": graph for (name, lost), graph in tried.items()})
            return {key: [item.value, item.low, item.high] for key, item in found.items()}

        for key, numbers in context.remember(["times", clock.label, list(variants)], ask).items():
            name, lost = variants[key]
            measured.setdefault(name, {})[lost] = TimeRatio(*numbers)
    context.progress.update("time groups on the runtime", len(rooms), len(rooms))
    curves = {name: _curve(name, rooms[name], found, macs) for name, found in measured.items()}
    return Times(curves, measured)


def _lost(room: Room) -> list[int]:
    """Numbers of lost channels at which a group is measured, rising."""
    most = room.choices[-1]
    return sorted({room.nearest(level * most / room.width) for level in _LEVELS} - {0})


def _curve(name: str, room: Room, found: Mapping[int, TimeRatio], macs: Costs) -> tuple[np.ndarray, np.ndarray]:
    """(shares left, time saved), one for each width that the group may have; flat at 0 where noise is all there is."""
    places = sorted(found)
    widest = found[places[-1]].saved
    # never falling with what is lost: a smaller removal saves no more than a larger one
    saved = (
        np.minimum.accumulate([found[lost].saved for lost in reversed(places)])[::-1] if widest else [0.0] * len(places)
    )
    whole = macs.at({})
    choices = np.array(room.choices)
    gone = np.array([whole - macs.at({name: 1 - lost / room.width}) for lost in choices])
    at = np.array([whole - macs.at({name: 1 - lost / room.width}) for lost in (0, *places)])
    if not np.all(np.diff(at) > 0):  # nothing is computed with it: by channels
        gone, at = choices.astype(float), np.array([0.0, *places])
    values = np.interp(gone, at, [0.0, *saved])
    return (1 - choices / room.width)[::-1], values[::-1]
