"""Prune channels: remove whole channels, in every layer that they run through, until a target is reached.

Which channels go together follows from the graph (`graph/channels`). Which of them go first is decided by the size of
the weights that make them (`l1`), by how much of what their readers add up comes from them (`activation`), or by what
the readers lose once their other weights have made up for it (`loss`, the default). How many each group loses is the
same share everywhere (`uniform`), given (`ratios`), or where it hurts the whole network's outputs least (`sensitivity`).
The weights that are left are not changed here: that is what `refit` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from edgewright.contracts import Context
from edgewright.passes.prune_channels._options import TARGETS, check
from edgewright.passes.prune_channels._work import prune

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = None
LOSSY = True
NEEDS_SAMPLES = True
EXCLUSIVE = TARGETS


@dataclass(frozen=True)
class Config:
    """Options. One target at most; none where `ratios` say it all.

    Attributes:
        macs: Share of the network's multiply-adds that remains, above 0 and at most 1: 0.75 removes a quarter.
        size: Share of the bytes of its weights that remains, likewise.
        latency: Share of the measured time that remains, on the target's runtime and after the recipe's further steps.
        criterion: Which channels go first: `loss`, `activation` or `l1`.
        spread: How many each group loses: `sensitivity`, `uniform`, or `given` by `ratios`.
        ratios: Pattern of group names -> share of the group's channels to remove, 0 to below 1.
        keep: Patterns of names of groups that lose nothing.
        multiple: Widths that are left are a multiple of this many channels, and at least one of it.
        most: Largest share of a group's channels that goes, above 0 and below 1.
        max_samples: Calibrate samples that are looked at, evenly spaced, 1 or more.
        max_vectors: Places of a layer's input that are looked at, over all samples, 1 or more.
        max_trials: Samples on which the whole network is tried, 1 or more.
    """

    macs: float | None = None
    size: float | None = None
    latency: float | None = None
    criterion: Literal["loss", "activation", "l1"] = "loss"
    spread: Literal["sensitivity", "uniform", "given"] = "sensitivity"
    ratios: Mapping[str, float] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    multiple: int = 8
    most: float = 0.8
    max_samples: int = 256
    max_vectors: int = 2**17
    max_trials: int = 48


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Remove channels in place; returns what remains, each group's widths, and the channel map.

    Raises:
        EdgewrightError: E103 for an option, or a target that cannot be reached, E212 for a graph that has no channels to
            remove or whose sizes are not known, or activations that are NaN or infinite, E301 without calibrate samples.
    """
    check(config)
    return prune(ir_model, config, context)
