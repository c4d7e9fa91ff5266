"""Operators that leave positions where they are, or sum them up, for random networks."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper
from random_blocks import Builder, rule


@rule(5)
def activation(b: Builder) -> str | None:
    x = b.value()
    kind = b.draw(
        ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "Softplus", "Elu", "Abs", "Neg", "Cos", "Identity")
    )
    return None if x is None else b.add(kind, [x], b.shapes[x])


@rule()
def prelu(b: Builder) -> str | None:
    x = b.value(2)
    if x is None:
        return None
    rank, c = len(b.shapes[x]), b.shapes[x][1]
    return b.add("PRelu", [x, b.weight(c, *([1] * (rank - 2)))], b.shapes[x])


def _joined(b: Builder, x: str) -> list[str]:
    """Activations of the same sizes, or that repeat to them; an open batch is the first axis of both."""
    shape = b.shapes[x]
    ranks = (len(shape),) if b.open else range(1, len(shape) + 1)
    return [
        name
        for name, other in b.shapes.items()
        if len(other) in ranks and all(o in (s, 1) for o, s in zip(other[::-1], shape[::-1], strict=False))
    ]


@rule(5)
def join(b: Builder) -> str | None:
    x = b.value()
    if x is None:
        return None
    pair = [x, b.draw(_joined(b, x))]
    kind = b.draw(("Add", "Add", "Mul", "Sub", "Max", "Min", "Sum", "Mean"))
    return b.add(kind, pair if b.chance(0.5) else pair[::-1], b.shapes[x])


@rule(3)
def with_constant(b: Builder) -> str | None:
    x = b.value()
    if x is None:
        return None
    shape = [size if b.chance(0.5) else 1 for size in b.shapes[x]]
    shape[0] = 1 if b.open else shape[0]
    shape = shape[int(b.rng.integers(0, len(shape) + 1)) :]
    kind = b.draw(("Add", "Mul", "Sub", "Div", "Max"))
    return b.add(kind, [x, b.weight(*shape, positive=kind == "Div")], b.shapes[x])


@rule()
def gated(b: Builder) -> str | None:
    x = b.value()
    if x is None:
        return None
    y, limit = b.draw(_joined(b, x)), b.constant(np.array(0.123, np.float32))  # 0 is a matter of rounding
    condition = f"q{len(b.shapes)}"
    b.nodes.append(helper.make_node("Greater", [x, limit], [condition]))
    return b.add("Where", [condition, x, y], b.shapes[x])


@rule()
def picked_at_run_time(b: Builder) -> str | None:
    """The largest of an axis, or what indices that are computed pick."""
    x = b.value(2)
    at = None if x is None else b.axis(x, 2)
    if x is None or at is None:
        return None
    shape = b.shapes[x]
    if b.chance(0.5):
        made = tuple(2 if axis == at else size for axis, size in enumerate(shape))
        b.nodes.append(helper.make_node("TopK", [x, b.sizes([2])], [f"v{len(b.shapes)}", f"k{len(b.shapes)}"], axis=at))
        name = f"v{len(b.shapes)}"
        b.shapes[name] = made
        b.unread = [other for other in b.unread if other != x] + [name]
        return name
    best = f"k{len(b.shapes)}"
    b.nodes.append(helper.make_node("ArgMax", [x], [best], axis=at, keepdims=1))
    return b.add(
        "GatherElements", [x, best], tuple(1 if axis == at else size for axis, size in enumerate(shape)), axis=at
    )


@rule()
def others(b: Builder) -> str | None:
    """Rarer operators by elements and over neighbours."""
    x = b.value(4, 4)
    if x is None:
        return None
    kind = b.draw(("LRN", "Pow", "Cast", "Dropout", "Mod", "Erf", "Gelu", "Exp"))
    if kind == "Pow":
        return b.add(kind, [x, b.constant(np.array(2, np.float32))], b.shapes[x])
    if kind == "Mod":
        return b.add(kind, [x, b.constant(np.array(0.75, np.float32))], b.shapes[x], fmod=1)
    if kind == "Exp":
        small = b.add("Tanh", [x], b.shapes[x])
        return None if small is None else b.add(kind, [small], b.shapes[x])
    options = {"LRN": {"size": 3}, "Cast": {"to": TensorProto.FLOAT}}.get(kind, {})
    return b.add(kind, [x], b.shapes[x], **options)


@rule()
def clip(b: Builder) -> str | None:
    x = b.value()
    low, high = b.draw(((0.0, 6.0), (-1.0, 1.0), (0.5, 2.0)))
    limits = [b.constant(np.array(limit, np.float32)) for limit in (low, high)]
    return None if x is None else b.add("Clip", [x, *limits], b.shapes[x])


# --- norms ------------------------------------------------------------------------------------------------------------


@rule(2)
def norm(b: Builder) -> str | None:
    x = b.value(3, 5)
    if x is None:
        return None
    c = b.shapes[x][1]
    kind = b.draw(("BatchNormalization", "InstanceNormalization", "GroupNormalization"))
    inputs = [x, b.weight(c, positive=True), b.weight(c)]
    if kind == "BatchNormalization":
        return b.add(kind, [*inputs, b.weight(c), b.weight(c, positive=True)], b.shapes[x])
    if kind == "InstanceNormalization":  # of a few equal values it divides rounding by the root of epsilon
        return b.add(kind, inputs, b.shapes[x], epsilon=0.1)
    return b.add(
        kind, inputs, b.shapes[x], epsilon=0.1, num_groups=int(b.draw([g for g in (1, 2, 3, c) if c % g == 0]))
    )


@rule()
def norm_of_the_last(b: Builder) -> str | None:
    x = b.value(2)
    if x is None:
        return None
    last = b.shapes[x][-1]
    kind = b.draw(("LayerNormalization", "Softmax", "LogSoftmax", "LpNormalization"))
    inputs = [x, b.weight(last, positive=True), b.weight(last)] if kind == "LayerNormalization" else [x]
    axis = -1 if kind == "LayerNormalization" else b.axis(x)
    options = {"epsilon": 0.1} if kind == "LayerNormalization" else {}  # as above
    return None if axis is None else b.add(kind, inputs, b.shapes[x], axis=axis, **options)


# --- windows and sums -------------------------------------------------------------------------------------------------


@rule(2)
def pool(b: Builder) -> str | None:
    x = b.value(3, 4)
    if x is None:
        return None
    n, c, *sides = b.shapes[x]
    kind = b.draw(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"))
    if kind.startswith("Global"):
        return b.add(kind, [x], (n, c, *(1 for _ in sides)))
    kernel = [int(b.draw((1, 2))) for _ in sides]
    made = [(side - k) // k + 1 for side, k in zip(sides, kernel, strict=True)]
    return b.add(kind, [x], (n, c, *made), kernel_shape=kernel, strides=kernel)


@rule(2)
def reduction(b: Builder) -> str | None:
    x = b.value(2)
    if x is None:
        return None
    kind = b.draw(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"))
    rank, at = len(b.shapes[x]), b.axis(x)
    if at is None:
        return None
    axes = sorted({at, *([b.axis(x)] if b.chance(0.3) else [])})
    keep = b.chance(0.5)
    shape = tuple(1 if a in axes else size for a, size in enumerate(b.shapes[x]) if keep or a not in axes)
    named = b.sizes([axis - rank if b.chance(0.5) else axis for axis in axes])
    return b.add(kind, [x, named], shape, keepdims=int(keep)) if shape else None


@rule()
def cumulative(b: Builder) -> str | None:
    x = b.value()
    at = None if x is None else b.axis(x)
    return (
        None if x is None or at is None else b.add("CumSum", [x, b.constant(np.array(at, np.int64), "i")], b.shapes[x])
    )


@rule()
def resize(b: Builder) -> str | None:
    x = b.value(4, 4)
    if x is None:
        return None
    n, c, h, w = b.shapes[x]
    mode = b.draw(("nearest", "linear"))
    if b.chance(0.5):
        scales = b.constant(np.array([1, 1, 2, 2], np.float32))
        return b.add("Resize", [x, "", scales], (n, c, 2 * h, 2 * w), mode=mode)
    if b.open:
        return b.add("Resize", [x, "", "", b.sizes([h + 1, w * 2])], (n, c, h + 1, w * 2), mode=mode, axes=[2, 3])
    return b.add("Resize", [x, "", "", b.sizes([n, c, h + 1, w * 2])], (n, c, h + 1, w * 2), mode=mode)
