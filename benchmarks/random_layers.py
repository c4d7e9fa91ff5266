"""Operators with weights, for random networks."""

from __future__ import annotations

import math

from random_blocks import Builder, rule


def _groups(b: Builder, inputs: int) -> tuple[int, int]:
    """Groups and channels that a convolution makes."""
    outputs = int(b.draw((2, 4, 6, 8, 12)))
    groups = int(b.draw([g for g in (1, 1, 1, 2, 3, 4, inputs) if inputs % g == 0]))
    return groups, outputs if outputs % groups == 0 else groups * int(b.draw((1, 2)))


@rule(6)
def conv(b: Builder) -> str | None:
    x = b.value(3, 5)
    if x is None:
        return None
    n, c, *sides = b.shapes[x]
    groups, outputs = _groups(b, c)
    kernel = [int(b.draw([k for k in (1, 1, 3, side) if k <= side])) for side in sides]
    stride = [int(b.draw((1, 1, 2))) for _ in sides]
    w = b.weight(outputs, c // groups, *kernel, fan=c // groups * math.prod(kernel))
    inputs = [x, b.derived(w), *([b.weight(outputs)] if b.chance(0.5) else [])]
    if b.chance(0.2):
        made = [-(-side // s) for side, s in zip(sides, stride, strict=True)]
        way = b.draw(("SAME_UPPER", "SAME_LOWER"))
        return b.add("Conv", inputs, (n, outputs, *made), group=groups, strides=stride, auto_pad=way)
    apart = [int(b.draw([d for d in (1, 1, 2) if d * (k - 1) < side])) for side, k in zip(sides, kernel, strict=True)]
    wide = [d * (k - 1) + 1 for d, k in zip(apart, kernel, strict=True)]
    pad = [int(b.draw((0, k // 2))) for k in kernel]
    made = [(side + 2 * p - k) // s + 1 for side, p, k, s in zip(sides, pad, wide, stride, strict=True)]
    return b.add(
        "Conv",
        inputs,
        (n, outputs, *made),
        group=groups,
        strides=stride,
        pads=pad + pad,
        dilations=apart,
        kernel_shape=kernel,
    )


@rule()
def conv_transpose(b: Builder) -> str | None:
    x = b.value(3, 4)
    if x is None:
        return None
    n, c, *sides = b.shapes[x]
    groups, outputs = _groups(b, c)
    w = b.weight(c, outputs // groups, *([2] * len(sides)), fan=c // groups)
    made = (n, outputs, *(2 * side for side in sides))
    bias = [b.weight(outputs)] if b.chance(0.5) else []
    return b.add("ConvTranspose", [x, w, *bias], made, group=groups, strides=[2] * len(sides))


@rule(3)
def matmul(b: Builder) -> str | None:
    x = b.value(2)
    if x is None:
        return None
    *front, k = b.shapes[x]
    n = int(b.draw((2, 4, 6, 8, 12)))
    return b.add("MatMul", [x, b.derived(b.weight(k, n, fan=k))], (*front, n))


@rule()
def matmul_from_the_left(b: Builder) -> str | None:
    x = b.value(3)
    if x is None:
        return None
    *front, k, n = b.shapes[x]
    m = int(b.draw((2, 4, 6)))
    return b.add("MatMul", [b.weight(m, k, fan=k), x], (*front, m, n))


@rule(2)
def gemm(b: Builder) -> str | None:
    x = b.value(2, 2)
    if x is None:
        return None
    n, k = b.shapes[x]
    m, turned = int(b.draw((3, 4, 6, 8))), b.chance(0.5)
    w = b.weight(*((m, k) if turned else (k, m)), fan=k)
    bias = b.draw(([], [b.weight(m)], [b.weight(1, m)], [b.weight(1)]))
    return b.add("Gemm", [x, b.derived(w), *bias], (n, m), transB=int(turned), alpha=0.5)


@rule()
def products(b: Builder) -> str | None:
    """Two activations: x times the transposed of another that has as many columns."""
    x = b.value(3)
    if x is None:
        return None
    *front, m, k = b.shapes[x]
    fits = [
        name for name, shape in b.shapes.items() if shape[:-2] == tuple(front) and shape[-1] == k and len(shape) > 2
    ]
    y = b.draw(fits)
    n = b.shapes[y][-2]
    order = [*range(len(front)), len(front) + 1, len(front)]
    turned = b.add("Transpose", [y], (*front, k, n), perm=order)
    return None if turned is None else b.add("MatMul", [x, turned], (*front, m, n))


@rule()
def einsum(b: Builder) -> str | None:
    x = b.value(3, 4)
    if x is None:
        return None
    letters = "abcd"[: len(b.shapes[x])]
    at = b.axis(x)
    if at is None:
        return None
    size, made = b.shapes[x][at], int(b.draw((3, 4, 6)))
    shape = tuple(made if axis == at else side for axis, side in enumerate(b.shapes[x]))
    equation = f"{letters},{letters[at]}z->{letters.replace(letters[at], 'z')}"
    return b.add("Einsum", [x, b.weight(size, made, fan=size)], shape, equation=equation)


@rule()
def recurrent(b: Builder) -> str | None:
    x = b.value(3, 3)
    if x is None or b.open:
        return None
    kind, gates = b.draw((("LSTM", 4), ("GRU", 3), ("RNN", 1)))
    steps, n, size = b.shapes[x]
    hidden, ways = 4, int(b.draw((1, 2)))
    inputs = [x, b.weight(ways, gates * hidden, size, fan=size), b.weight(ways, gates * hidden, hidden, fan=hidden)]
    way = "forward" if ways == 1 else "bidirectional"
    return b.add(kind, inputs, (steps, ways, n, hidden), hidden_size=hidden, direction=way)


@rule(2)
def attention(b: Builder) -> str | None:
    """Queries, keys and values by one projection, in two heads."""
    x = b.value(3, 3)
    if x is None:
        return None
    n, length, size = b.shapes[x]
    heads, width = 2, int(b.draw((2, 3, 4)))
    first = -1 if b.open else n
    joint = b.add("MatMul", [x, b.weight(size, 3 * heads * width, fan=size)], (n, length, 3 * heads * width))
    laid = joint and b.add("Reshape", [joint, b.sizes([first, length, 3, heads, width])], (n, length, 3, heads, width))
    if laid is None:
        return None
    parts = []
    for number in range(3):
        picked = b.add("Gather", [laid, b.sizes(number)], (n, length, heads, width), axis=2)
        order, shape = (
            ([0, 2, 1, 3], (n, heads, length, width)) if number != 1 else ([0, 2, 3, 1], (n, heads, width, length))
        )
        parts.append(b.add("Transpose", [str(picked)], shape, perm=order) or "")
    scores = b.add("MatMul", parts[:2], (n, heads, length, length))
    shares = scores and b.add("Softmax", [scores], (n, heads, length, length), axis=-1)
    mixed = shares and b.add("MatMul", [shares, parts[2]], (n, heads, length, width))
    if mixed is None or mixed == "":
        return None
    back = b.add("Transpose", [mixed], (n, length, heads, width), perm=[0, 2, 1, 3])
    return b.add("Reshape", [str(back), b.sizes([first, length, heads * width])], (n, length, heads * width))
