"""Places in one block of memory: tensors that are not needed at the same time may lie at the same place."""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.runtimes.native.plan import ALIGNMENT


@dataclass(frozen=True)
class Life:
    """A buffer: its bytes, and the first and last step (both included) that it must outlive."""

    size_bytes: int
    first: int
    last: int


def arrange(lives: list[Life]) -> tuple[list[int], int]:
    """An offset for each buffer, and the bytes of the whole.

    The largest buffer is placed first, each at the lowest offset where it meets none that lives at the same time.

    Source: greedy by size, as in Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020.
    """
    offsets = [0] * len(lives)
    placed: list[int] = []
    for index in sorted(range(len(lives)), key=lambda i: (-lives[i].size_bytes, lives[i].first)):
        life, offset = lives[index], 0
        for other in sorted(placed, key=lambda i: offsets[i]):
            beside = lives[other].first <= life.last and life.first <= lives[other].last
            if beside and offset + life.size_bytes > offsets[other]:
                offset = max(offset, _end(offsets[other], lives[other]))
        offsets[index] = offset
        placed.append(index)
    return offsets, max((_end(offsets[i], life) for i, life in enumerate(lives)), default=0)


def _end(offset: int, life: Life) -> int:
    return -(-(offset + life.size_bytes) // ALIGNMENT) * ALIGNMENT
