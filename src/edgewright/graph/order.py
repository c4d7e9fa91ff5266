"""Order of nodes: dependencies before what depends on them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def stable_order(needs: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """An order in which item i comes after all of `needs[i]`, and the items of one cycle (then the order is short).

    The order keeps the original one wherever it can: of the items that are ready, the first comes first.

    Source: A. B. Kahn, "Topological sorting of large networks", CACM 5 (1962).
    """
    waiting = [len(set(items)) for items in needs]
    followers: list[list[int]] = [[] for _ in needs]
    for index, items in enumerate(needs):
        for item in set(items):
            followers[item].append(index)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for follower in followers[index]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heapq.heappush(ready, follower)
    return order, _cycle(needs, waiting) if len(order) < len(needs) else []


def _cycle(needs: Sequence[Sequence[int]], waiting: Sequence[int]) -> list[int]:
    """One cycle among the items that still wait: each waits for one that waits, so walking back must meet itself."""
    index = next(i for i, count in enumerate(waiting) if count > 0)
    seen: dict[int, int] = {}
    path: list[int] = []
    while index not in seen:
        seen[index] = len(path)
        path.append(index)
        index = next(i for i in needs[index] if waiting[i] > 0)
    return path[seen[index] :][::-1]
