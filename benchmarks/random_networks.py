"""Random small networks: operators put together as no hand would, with what they read and make checked by ONNX Runtime.

    network, feeds = random_network(seed)

Each network has one input, 6 to 24 operators with seeded weights, and layers at its ends, so that channels in front of these
can go. Half of the networks leave the batch open and are fed with two samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
_MOST = 6000  # elements of a tensor
_FAR = 2**40  # behind the end of any axis
_INPUTS = ((2, 6, 8, 8), (2, 6, 4, 12), (2, 8, 12), (2, 6, 5), (2, 12))

Shape = tuple[int, ...]
Rule = Callable[["Builder"], "str | None"]
RULES: list[tuple[Rule, int]] = []


def rule(weight: int = 1) -> Callable[[Rule], Rule]:
    """A decorator that enters an operator, to be drawn `weight` times as often as others."""

    def register(function: Rule) -> Rule:
        RULES.append((function, weight))
        return function

    return register


@dataclass
class Builder:
    """A network under way.

    Attributes:
        rng: What decides.
        open: Whether the first axis is the batch, of unknown size, which nothing moves.
        shapes: Of every activation.
        unread: Activations that nothing has read.
    """

    rng: np.random.Generator
    open: bool
    shapes: dict[str, Shape] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    # --- drawing ------------------------------------------------------------------------------------------------------

    def draw(self, things: Any) -> Any:
        things = list(things)
        return things[int(self.rng.integers(len(things)))]

    def chance(self, part: float) -> bool:
        return bool(self.rng.random() < part)

    def value(self, least: int = 1, most: int = 6) -> str | None:
        """An activation with that many axes, rather a late one."""
        fits = [name for name, shape in self.shapes.items() if least <= len(shape) <= most]
        if not fits:
            return None
        late = [name for name in fits if name in self.unread]
        return str(self.draw(late if late and self.chance(0.7) else fits))

    def axis(self, name: str, least_size: int = 1) -> int | None:
        axes = [a for a, size in enumerate(self.shapes[name]) if size >= least_size and (a > 0 or not self.open)]
        return self.draw(axes) if axes else None

    # --- writing ------------------------------------------------------------------------------------------------------

    def weight(self, *shape: int, fan: int | None = None, positive: bool = False) -> str:
        """A seeded weight; now and then one that there is, so that layers share it."""
        same = [name for name, array in self.weights.items() if array.shape == shape and name.startswith("w")]
        if same and not positive and self.chance(0.1):
            return str(self.draw(same))
        array = self.rng.standard_normal(shape) / math.sqrt(fan or 1)
        array = np.abs(array) + 0.5 if positive else array
        return self.constant(array.astype(np.float32), "p" if positive else "w")

    def derived(self, weight: str) -> str:
        """A weight that the graph computes from what it holds, now and then; else itself."""
        shape, number = self.weights[weight].shape, len(self.weights)
        name = f"d{number}"
        kind = self.draw(("", "", "", "", "Identity", "Transpose", "Reshape", "DequantizeLinear", "Mul"))
        if not kind:
            return weight
        inputs, attributes = [weight], {}
        if kind == "Transpose":
            inputs = [self.constant(np.ascontiguousarray(self.weights[weight].T))]
        elif kind == "Reshape":
            inputs = [self.constant(self.weights[weight].reshape(-1)), self.sizes(shape)]
        elif kind == "Mul":  # as weights are normed in the graph
            inputs.append(
                self.constant(
                    np.abs(self.rng.standard_normal((shape[0], *([1] * (len(shape) - 1))))).astype(np.float32)
                )
            )
        elif kind == "DequantizeLinear":
            whole = np.clip(np.round(self.weights[weight] * 40), -128, 127).astype(np.int8)
            inputs = [self.constant(whole), self.constant(np.full(shape[0], 1 / 40, np.float32))]
            attributes = {"axis": 0}
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, array: Any, prefix: str = "c") -> str:
        name = f"{prefix}{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name

    def sizes(self, numbers: Any) -> str:
        return self.constant(np.asarray(numbers, np.int64), "i")

    def add(self, op_type: str, inputs: list[str], *shapes: Shape, **attributes: Any) -> str | None:
        """A node that makes tensors of these sizes; None, and nothing is added, where they are too large or empty."""
        if any(math.prod(shape) > _MOST or 0 in shape for shape in shapes):
            return None
        if self.open and any(not shape or shape[0] != 2 for shape in shapes):
            return None
        outputs = [f"v{len(self.shapes) + number}" for number in range(len(shapes))]
        self.nodes.append(helper.make_node(op_type, inputs, outputs, **attributes))
        self.shapes |= dict(zip(outputs, shapes, strict=True))
        self.unread = [name for name in self.unread if name not in inputs] + outputs
        return outputs[0]


# --- layers -----------------------------------------------------------------------------------------------------------


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


# --- by elements ------------------------------------------------------------------------------------------------------


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
    return None if axis is None else b.add(kind, inputs, b.shapes[x], axis=axis)


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


# --- moves ------------------------------------------------------------------------------------------------------------


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


# --- networks ---------------------------------------------------------------------------------------------------------


def random_network(seed: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A network, and an input for it."""
    rng = np.random.default_rng(seed)
    shape = _INPUTS[int(rng.integers(len(_INPUTS)))]
    b = Builder(rng, open=bool(rng.random() < 0.5), shapes={"x": shape}, unread=["x"])
    rules, weights = zip(*RULES, strict=True)
    part = np.array(weights) / sum(weights)
    (conv if len(shape) > 2 else gemm)(b)
    for _ in range(int(rng.integers(6, 25))):
        rules[int(rng.choice(len(rules), p=part))](b)
    ends = [name for name in b.unread if name != "x"] or [next(reversed(b.shapes))]
    outputs = [_end(b, name) for name in ends]
    return _model(b, outputs, shape), {"x": rng.standard_normal(shape).astype(np.float32)}


def _end(b: Builder, name: str) -> str:
    """Mostly a layer behind what nothing has read."""
    shape = b.shapes[name]
    if len(shape) < 2 or b.chance(0.1):
        return name
    if 2 < len(shape) < 6 and b.chance(0.5):
        w = b.weight(3, shape[1], *([1] * (len(shape) - 2)), fan=shape[1])
        return b.add("Conv", [name, w], (shape[0], 3, *shape[2:])) or name
    return b.add("MatMul", [name, b.weight(shape[-1], 3, fan=shape[-1])], (*shape[:-1], 3)) or name


def _model(b: Builder, outputs: list[str], shape: Shape) -> onnx.ModelProto:
    first = ["N", *shape[1:]] if b.open else list(shape)
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in dict.fromkeys(outputs)]
    read = helper.make_tensor_value_info("x", TensorProto.FLOAT, first)
    held = [numpy_helper.from_array(array, name) for name, array in b.weights.items()]
    graph = helper.make_graph(b.nodes, "random", [read], made, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
