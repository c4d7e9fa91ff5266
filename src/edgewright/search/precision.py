"""Which layers int8 does not make faster: found by halving stretches of the graph, each timed in the whole network.

Stretches are neighbours in the graph: between int8 and float numbers must be converted, at the two ends of a stretch but
around each of as many scattered layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgewright.contracts import TimeRatio

Layers = tuple[str, ...]
Measure = Callable[[Mapping[str, Layers]], Mapping[str, TimeRatio]]

#: A stretch of fewer layers is not halved any further, nor one that is less than this part of all.
_FEWEST, _PART = 2, 1 / 12


def not_slower(layers: Sequence[str], measure: Measure) -> Layers:
    """Layers that may be float without making the network slower, as one set that was measured together; () for none.

    Args:
        layers: All that are int8, in graph order.
        measure: Time of the network with each of these sets in float, over the time with none.
    """
    fewest = max(_FEWEST, int(len(layers) * _PART))
    found: list[Layers] = []
    waiting: list[Layers] = [tuple(layers)]
    while waiting:
        named = {f"{stretch[0]} and {len(stretch) - 1} more": stretch for stretch in waiting}
        times = measure(named)
        waiting = []
        for name, stretch in named.items():
            if times[name].value <= 1:
                found.append(stretch)
            elif len(stretch) >= 2 * fewest:
                middle = len(stretch) // 2
                waiting += [stretch[:middle], stretch[middle:]]
    chosen = tuple(name for name in layers if any(name in stretch for stretch in found))
    if len(found) > 1 and measure({"together": chosen})["together"].value > 1:
        return max(found, key=len)
    return chosen
