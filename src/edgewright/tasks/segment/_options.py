"""What a map means: the options of a Spec, and how they fit the network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgewright.errors import EdgewrightError
from edgewright.options import build
from edgewright.spec import Spec

#: Classes a map can hold; the highest index stands for a pixel without a class.
MOST_CLASSES = 255
NONE = 255


@dataclass(frozen=True)
class Options:
    """What the map means.

    Attributes:
        labels: Names of the classes in order, where known.
        threshold: Score from which a pixel of a single map is class 1.
        background: Class that does not count in the agreement where both networks give it; `auto` is 0 for a single map
            and none for others.
        ignore: Index in label maps that means "not labelled", besides 255; such pixels are left out of the scores.
        output: Name of the output with the map, where there are several.
        boundary: Width of the band inside a class's outline that the boundary score looks at, in parts of the label
            map's diagonal, above 0 and at most 0.5.
    """

    labels: tuple[str, ...] | None = None
    threshold: float = 0.5
    background: Literal["auto", "none"] | int = "auto"
    ignore: int = NONE
    output: str | None = None
    boundary: float = 0.02  # source: Cheng et al. 2021, section 5

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise EdgewrightError("E103", f"option `threshold` is {self.threshold}, but must be a number")
        for name, value in (("background", self.background), ("ignore", self.ignore)):
            if isinstance(value, int) and not 0 <= value <= NONE:
                raise EdgewrightError("E103", f"option `{name}` is {value}, but must be 0..{NONE}")
        if not 0 < self.boundary <= 0.5:
            raise EdgewrightError("E103", f"option `boundary` is {self.boundary}, but must be above 0 and at most 0.5")


#: The last options read, the original's and the bundle's: bounds ask for them a thousand times.
_read: list[tuple[Mapping[str, Any], Options]] = []
_KEPT = 2


def read_options(spec: Spec) -> Options:
    """The Spec's options, checked."""
    for source, options in _read:
        if source is spec.options:
            return options
    made = build(Options, spec.options, where="segment")
    _read[:] = [(spec.options, made), *_read[: _KEPT - 1]]
    return made


def output_name(options: Options, names: Sequence[str]) -> str:
    """The output with the map.

    Raises:
        EdgewrightError: E303 where the options do not single one out.
    """
    listed = ", ".join(f"`{name}`" for name in names) or "none"
    if options.output is not None and options.output not in names:
        raise EdgewrightError("E303", f"the spec's option `output` is `{options.output}`, but outputs are {listed}")
    if options.output is None and len(names) != 1:
        raise EdgewrightError("E303", f"task `segment` needs the option `output`: the network gives {listed}")
    return options.output or names[0]


def check_count(options: Options, name: str, count: int) -> None:
    """Refuse more classes than the Spec names.

    Raises:
        EdgewrightError: E303.
    """
    if options.labels is not None and count > len(options.labels):
        raise EdgewrightError(
            "E303", f"the spec has {len(options.labels)} labels, but output `{name}` has {count} classes"
        )
