"""Channels: which channels of a network can be removed together, and removing them.

Layers make channels, and operators tie them: what a residual sum adds goes together, a concatenation puts channels behind
one another, a reshape spreads each over several positions. Every operator's rule is an index map between positions along
the axes of what it reads, of its weights and of what it makes; tied positions are one channel, and channels that run
through the same tensors are one group. Channels that reach an operator for which zero is not the same as absent (a
softmax or a mean over channels, an output of the graph, an operator without a rule) stay: a barrier, with its reason.

    groups = find(ir_model)
    remove(ir_model, groups, {groups.groups[0].name: [0, 3]})

The proof of a removal is the same network with those channels set to zero wherever they are, which `mask` makes.
"""

from __future__ import annotations

from edgewright.graph.channels._costs import costs
from edgewright.graph.channels._find import find
from edgewright.graph.channels._groups import Barrier, Group, Groups, Member
from edgewright.graph.channels._mask import mask
from edgewright.graph.channels._remove import remove

__all__ = ["Barrier", "Group", "Groups", "Member", "costs", "find", "mask", "remove"]
