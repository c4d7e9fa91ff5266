"""Which target to try next, so that few points find the smallest time that is within the budget."""

from __future__ import annotations

from collections.abc import Mapping

#: The first target, and the smallest that is ever asked for.
_FIRST, _LEAST = 0.88, 0.25
#: While nothing has failed the gap to 1 is widened by this factor.
_STRIDE = 1.8
#: Targets that are nearer than this are the same within the noise of measuring.
_CLOSE = 0.025


def next_target(tried: Mapping[float, bool]) -> float | None:
    """Share of the time to ask for next; None where nothing that is worth it is left to ask.

    Args:
        tried: Targets -> whether the network was within the budget. Its error is taken to rise as the time falls.
    """
    good = min((target for target, within in tried.items() if within), default=1.0)
    bad = max((target for target, within in tried.items() if not within and target < good), default=None)
    if bad is None:
        wanted = _FIRST if good == 1.0 else 1 - _STRIDE * (1 - good)
        return round(wanted, 3) if wanted >= _LEAST else None
    if good - bad <= 2 * _CLOSE:
        return None
    return round((good + bad) / 2, 3)
