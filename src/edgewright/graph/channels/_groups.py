"""Groups: channels that can be removed, and what stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.graph.channels._ties import Ids, Role
from edgewright.graph.channels._walk import Walk
from edgewright.graph.naming import require_known


@dataclass(frozen=True)
class Member:
    """One axis of one tensor that a group's channels run along.

    Attributes:
        tensor: Name of a value, or of a constant.
        axis: The axis.
        role: "made" for the axis of a layer's weights that makes the channels, "read" for one that consumes them, "along"
            for anything else: activations, biases, parameters of norms, slopes, scales, depthwise weights.
        places: For each of the group's channels the indices along the axis that belong to it.
    """

    tensor: str
    axis: int
    role: Role
    places: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Group:
    """Channels that run through the same tensors; each can be removed by itself.

    Attributes:
        name: Output of the first layer that makes them; where several groups share one, with the range of its channels.
        width: How many there are.
        members: Everything that shrinks with them.
    """

    name: str
    width: int
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Barrier:
    """Channels that have to stay.

    Attributes:
        tensor: Output of the layer that makes them.
        axis: Along which.
        reason: Why.
    """

    tensor: str
    axis: int
    reason: str


@dataclass(frozen=True)
class Plan:
    """What `remove` needs to know of the walk.

    Attributes:
        walk: Sizes, constants and labels of the network as it was.
        channels: For each of the walk's numbers the channel that it belongs to, counted over all groups; -1 stays.
        starts: By group's name, the number of its first channel.
        total: Channels of all groups.
    """

    walk: Walk
    channels: Ids
    starts: Mapping[str, int]
    total: int


@dataclass(frozen=True)
class Groups:
    """What can be removed from a network.

    Attributes:
        groups: In graph order.
        barriers: Layers whose channels stay.
        refusal: Why nothing at all can be removed, or None.
        plan: For `remove`.
    """

    groups: tuple[Group, ...]
    barriers: tuple[Barrier, ...]
    refusal: str | None
    plan: Plan | None = field(default=None, repr=False, compare=False)

    def __getitem__(self, name: str) -> Group:
        """The group called `name`."""
        return next(group for group in self.groups if group.name == name)

    def gone(self, removed: Mapping[str, Sequence[int]]) -> np.ndarray:
        """bool[channels of all groups], True for those in `removed`, channels by group's name.

        Raises:
            EdgewrightError: E103 for a group that is not there, or a channel beyond its width.
        """
        widths = {group.name: group.width for group in self.groups}
        require_known(tuple(removed), set(widths), option="removed", what="a channel group")
        gone = np.zeros(0 if self.plan is None else self.plan.total, bool)
        for name, places in removed.items():
            for place in places:
                if not 0 <= place < widths[name]:
                    raise EdgewrightError(
                        "E103", f"channel {place} of group `{name}` does not exist, it has {widths[name]}"
                    )
            if self.plan is not None:
                gone[self.plan.starts[name] + np.array(places, np.int64)] = True
        return gone
