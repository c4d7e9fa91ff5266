"""Operators that put positions elsewhere, and blocks of such, for random networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import helper
from random_blocks import Builder, rule

_FAR = 2**40  # behind the end of any axis


@rule(4)
def transpose(b: Builder) -> str | None:
    x = b.value(2)
    if x is None:
        return None
    rank = len(b.shapes[x])
    order = [0, *(1 + b.rng.permutation(rank - 1))] if b.open else [*b.rng.permutation(rank)]
    order = [int(axis) for axis in order]
    return b.add("Transpose", [x], tuple(b.shapes[x][axis] for axis in order), perm=order)


def _factors(b: Builder, count: int) -> list[int]:
    """Some sizes whose product is `count`."""
    found: list[int] = []
    while count > 1 and len(found) < 4 and b.chance(0.75):
        size = int(b.draw([d for d in range(1, count + 1) if count % d == 0 and d <= 64] or [1]))
        found.append(size)
        count //= size
    return [*found, count]


@rule(5)
def reshape(b: Builder) -> str | None:
    x = b.value()
    if x is None:
        return None
    shape = b.shapes[x]
    begin = int(b.rng.integers(int(b.open), len(shape) + 1))  # axes in front of it and behind `end` stay
    end = int(b.rng.integers(begin, len(shape) + 1))
    middle = _factors(b, math.prod(shape[begin:end]))
    made = (*shape[:begin], *middle, *shape[end:])
    target = list(made)
    for axis in range(begin):
        if b.open or b.chance(0.3):
            target[axis] = 0
    if b.chance(0.4):
        target[int(b.rng.integers(begin, len(made)))] = -1
    return b.add("Reshape", [x, b.sizes(target)], made)


@rule()
def reshape_by_sizes(b: Builder) -> str | None:
    """To [batch, -1] or [batch, channels, -1], as exporters write it: sizes read from the tensor."""
    x = b.value(3)
    if x is None:
        return None
    shape, number = b.shapes[x], len(b.shapes)
    names = [f"{kind}{number}" for kind in ("s", "t", "u")]
    kept = int(b.draw((1, 2)))
    b.nodes.append(helper.make_node("Shape", [x], [names[0]]))
    b.nodes.append(helper.make_node("Slice", [names[0], b.sizes([0]), b.sizes([kept])], [names[1]]))
    b.nodes.append(helper.make_node("Concat", [names[1], b.sizes([-1])], [names[2]], axis=0))
    return b.add("Reshape", [x, names[2]], (*shape[:kept], math.prod(shape[kept:])))


@rule()
def flatten(b: Builder) -> str | None:
    x = b.value(2)
    if x is None:
        return None
    at = 1 if b.open else int(b.rng.integers(0, len(b.shapes[x]) + 1))
    return b.add("Flatten", [x], (math.prod(b.shapes[x][:at]), math.prod(b.shapes[x][at:])), axis=at)


@rule()
def squeeze(b: Builder) -> str | None:
    x = b.value(2)
    ones = [] if x is None else [a for a, size in enumerate(b.shapes[x]) if size == 1]
    if x is None or not ones or len(ones) == len(b.shapes[x]):
        return None
    at = b.draw(ones)
    return b.add("Squeeze", [x, b.sizes([at])], tuple(s for a, s in enumerate(b.shapes[x]) if a != at))


@rule()
def unsqueeze(b: Builder) -> str | None:
    x = b.value(1, 4)
    if x is None:
        return None
    at = int(b.rng.integers(int(b.open), len(b.shapes[x]) + 1))
    return b.add("Unsqueeze", [x, b.sizes([at])], (*b.shapes[x][:at], 1, *b.shapes[x][at:]))


@rule(4)
def concat(b: Builder) -> str | None:
    x = b.value()
    at = None if x is None else b.axis(x)
    if x is None or at is None:
        return None
    shape = b.shapes[x]
    fits = [
        n
        for n, o in b.shapes.items()
        if len(o) == len(shape) and all(o[a] == shape[a] for a in range(len(o)) if a != at)
    ]
    parts = [x, *(b.draw(fits) for _ in range(int(b.draw((1, 1, 2)))))]
    if b.chance(0.15) and not b.open:
        parts.append(b.weight(*(int(b.draw((1, 3))) if a == at else size for a, size in enumerate(shape))))
    b.rng.shuffle(parts)
    total = sum((b.shapes[name] if name in b.shapes else b.weights[name].shape)[at] for name in parts)
    made = tuple(total if a == at else size for a, size in enumerate(shape))
    return b.add("Concat", [str(name) for name in parts], made, axis=at - len(shape) if b.chance(0.3) else at)


@rule(3)
def split(b: Builder) -> str | None:
    x = b.value()
    at = None if x is None else b.axis(x, 2)
    if x is None or at is None:
        return None
    shape = b.shapes[x]
    if shape[at] % 2 == 0 and b.chance(0.6):
        sizes = [shape[at] // 2] * 2
    else:
        first = int(b.rng.integers(1, shape[at]))
        sizes = [first, shape[at] - first]
    parts = [tuple(size if a == at else s for a, s in enumerate(shape)) for size in sizes]
    return b.add("Split", [x, b.sizes(sizes)], *parts, axis=at)


@rule(2)
def slices(b: Builder) -> str | None:
    x = b.value()
    at = None if x is None else b.axis(x, 2)
    if x is None or at is None:
        return None
    shape = b.shapes[x]
    start, end, step = b.draw(((0, _FAR, 2), (1, _FAR, 1), (0, -1, 1), (-1, -_FAR, -1), (1, _FAR, 2), (-2, _FAR, 1)))
    size = len(range(shape[at])[slice(start, None if end == -_FAR else end, step)])
    inputs = [x, *(b.sizes([number]) for number in (start, end, at, step))]
    return b.add("Slice", inputs, tuple(size if a == at else s for a, s in enumerate(shape)))


@rule(2)
def gather(b: Builder) -> str | None:
    x = b.value(2)
    at = None if x is None else b.axis(x)
    if x is None or at is None:
        return None
    shape = b.shapes[x]
    size = int(b.rng.integers(1, shape[at] + 1))
    places: Any = b.rng.choice(shape[at], size, replace=b.chance(0.3))
    alone = b.chance(0.2)
    places = places[0] if alone else np.where(b.rng.random(size) < 0.2, places - shape[at], places)
    return b.add("Gather", [x, b.sizes(places)], (*shape[:at], *(() if alone else (size,)), *shape[at + 1 :]), axis=at)


@rule()
def pad(b: Builder) -> str | None:
    x = b.value()
    at = None if x is None else b.axis(x)
    if x is None or at is None:
        return None
    before, after = (int(b.draw((0, 1, 2))) for _ in range(2))
    shape = tuple(size + before + after if a == at else size for a, size in enumerate(b.shapes[x]))
    pads = np.zeros((2, len(shape)), int)  # without `axes`, behind which ONNX Runtime 1.32 moves a Transpose wrongly
    pads[:, at] = before, after
    return b.add("Pad", [x, b.sizes(pads.reshape(-1))], shape, mode=b.draw(("constant", "constant", "edge")))


@rule()
def expand(b: Builder) -> str | None:
    x = b.value(2)
    ones = [] if x is None else [a for a, size in enumerate(b.shapes[x]) if size == 1]
    if x is None or not ones:
        return None
    at, size = b.draw(ones), int(b.draw((2, 3)))
    target = [size if a == at else 1 for a in range(len(b.shapes[x]))]
    return b.add("Expand", [x, b.sizes(target)], tuple(size if a == at else s for a, s in enumerate(b.shapes[x])))


@rule()
def tile(b: Builder) -> str | None:
    x = b.value()
    at = None if x is None else b.axis(x)
    if x is None or at is None:
        return None
    counts = [2 if a == at else 1 for a in range(len(b.shapes[x]))]
    return b.add("Tile", [x, b.sizes(counts)], tuple(s * k for s, k in zip(b.shapes[x], counts, strict=True)))


@rule()
def shuffled_space(b: Builder) -> str | None:
    x = b.value(4, 4)
    if x is None:
        return None
    n, c, h, w = b.shapes[x]
    if c % 4 == 0 and b.chance(0.6):
        return b.add("DepthToSpace", [x], (n, c // 4, 2 * h, 2 * w), blocksize=2, mode=b.draw(("DCR", "CRD")))
    even = h % 2 == 0 and w % 2 == 0
    return b.add("SpaceToDepth", [x], (n, 4 * c, h // 2, w // 2), blocksize=2) if even else None


@rule(2)
def channel_shuffle(b: Builder) -> str | None:
    x = b.value(3, 4)
    if x is None:
        return None
    n, c, *sides = b.shapes[x]
    groups = b.draw([g for g in (2, 3, 4) if c % g == 0] or [1])
    first = -1 if b.open else n
    front = b.add("Reshape", [x, b.sizes([first, groups, c // groups, *sides])], (n, groups, c // groups, *sides))
    order = [0, 2, 1, *range(3, 3 + len(sides))]
    turned = None if front is None else b.add("Transpose", [front], (n, c // groups, groups, *sides), perm=order)
    return None if turned is None else b.add("Reshape", [turned, b.sizes([first, c, *sides])], (n, c, *sides))


@rule(2)
def excite(b: Builder) -> str | None:
    x = b.value(4, 4)
    if x is None:
        return None
    n, c, *_ = b.shapes[x]
    mean = b.add("GlobalAveragePool", [x], (n, c, 1, 1))
    if mean is None:
        return None
    small = b.add("Conv", [mean, b.weight(4, c, 1, 1, fan=c)], (n, 4, 1, 1))
    wide = None if small is None else b.add("Conv", [small, b.weight(c, 4, 1, 1, fan=4)], (n, c, 1, 1))
    gate = None if wide is None else b.add("Sigmoid", [wide], (n, c, 1, 1))
    return None if gate is None else b.add("Mul", [x, gate], b.shapes[x])
