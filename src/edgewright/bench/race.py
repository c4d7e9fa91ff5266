"""Who may leave a measurement early, where only the fastest of a group is looked for.

All start, side by side, and who is clearly not the fastest is not measured any further: that time belongs to those that
are hard to tell apart. Rounds are the blocks, since what disturbs one bundle of a round disturbs the others alike.
Source: Maron and Moore 1994 (races between models), Birattari et al. 2002 (F-Race: races in blocks).

    >>> clearly_slower([[1.5]] * 12, [[1.0]] * 12), clearly_slower([[1.05]] * 99, [[1.0]] * 99)
    (True, False)
"""

from __future__ import annotations

import math

import numpy as np

from edgewright.bench.statistics import Rounds

#: Who takes so much longer than the fastest is not worth its seconds. Far above what `deploy` calls equally fast (1.02),
#: so that a disturbance that meets one kind of arithmetic more than another does not decide a race.
MARGIN = 1.10
#: Probability, at most, that a bundle ever loses to a rival although it takes less than `MARGIN` x as long. With ten
#: rivals that makes 1 %, however the machine scatters; one that is as fast is far from the margin, and safer still.
_ERROR = 0.001
#: Part of the rounds in which a clear loser is expected to be slower by the margin: 12 rounds of 12, or 15 of 16, decide.
_EXPECTED = 0.9


def clearly_slower(rounds: Rounds, base: Rounds) -> bool:
    """True where `rounds` certainly take more than `MARGIN` x the time of `base`, by the rounds that both took part in.

    A round votes: is the median more than `MARGIN` x the other's? Where bundles are less far apart, at most every second
    round says so, whatever the distribution, since the order within a round is random. The likelihood ratio of
    `_EXPECTED` against one half is then a supermartingale that starts at 1, and the probability that it ever exceeds
    1 / `_ERROR` is at most `_ERROR`: one may look after every round, as a fixed interval would not allow.
    Source: Wald 1945 (sequential probability ratio test), Ville 1939 (the bound at any time).
    """
    votes = [np.median(ours) > MARGIN * np.median(theirs) for ours, theirs in zip(rounds, base, strict=False)]
    slower = sum(map(bool, votes))
    evidence = slower * math.log(_EXPECTED / 0.5) + (len(votes) - slower) * math.log((1 - _EXPECTED) / 0.5)
    return evidence >= -math.log(_ERROR)
