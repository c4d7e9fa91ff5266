"""What is done to each value alone or by channel; where it follows a layer it becomes part of the layer's step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.graph.dataflow import constant_array
from edgewright.runtimes.native.plan import KERNELS
from edgewright.runtimes.native.planner import (
    JOINED,
    LIMITED,
    SCALED,
    SLOPED,
    Draft,
    Held,
    Planner,
    Rule,
    UnsupportedError,
    constant,
)
from edgewright.runtimes.native.rules.windows import number

if TYPE_CHECKING:
    import onnx_ir as ir


def by_channel(array: np.ndarray, held: Held) -> np.ndarray:
    """A constant that broadcasts against `held`, as f32 of the axes that end memory from the first one along which it varies.

    Raises:
        UnsupportedError: It makes the tensor larger.
    """
    if array.ndim > len(held.shape):
        raise UnsupportedError(f"a constant of {array.ndim} axes meets a tensor of {len(held.shape)}")
    try:
        whole = np.broadcast_to(array.reshape((1,) * (len(held.shape) - array.ndim) + array.shape), held.shape)
    except ValueError:
        raise UnsupportedError(f"a constant of shape {list(array.shape)} makes {list(held.shape)} larger") from None
    sizes = (1,) * (len(held.shape) - array.ndim) + array.shape
    order = (0, 2, 3, 1) if held.last else tuple(range(len(held.shape)))
    varying = [place for place, axis in enumerate(order) if sizes[axis] > 1]
    first = min([*varying, len(order) - 1])
    return np.asarray(whole.transpose(order)[(0,) * first], np.float32).reshape(-1)


def _pointwise(planner: Planner, held: Held, channels: int, **more: Any) -> Draft:
    sizes = {"batch": 1, "pixels": math.prod(held.shape) // channels, "channels": channels}
    reads = {"x": held, **more.pop("reads", {})}
    return Draft("pointwise", sizes, reads, {"y": planner.fresh(held.shape, last=held.last)}, **more)


def scale_and_shift(
    planner: Planner, node: ir.Node, scale: np.ndarray | None, shift: np.ndarray | None, at: int = 0
) -> None:
    """x * scale + shift; part of the layer before where the two go by its channels."""
    value = node.inputs[at]
    held = planner.floats(value)
    for array in (array for array in (scale, shift) if array is not None):
        try:
            held = expanded(planner, held, np.broadcast_shapes(held.shape, array.shape))
        except ValueError:
            raise UnsupportedError(f"it joins {list(held.shape)} and a constant of {list(array.shape)}") from None
    made = {name: by_channel(array, held) for name, array in (("scale", scale), ("shift", shift)) if array is not None}
    channels = max(len(array) for array in made.values())
    made = {name: np.tile(array, channels // len(array)) for name, array in made.items()}
    step = planner.joinable(value, SCALED)
    if step is not None and step.writes["y"] == held and channels == _channels(step):
        assert value is not None
        _fold(step, made)
        planner.join(step, value, node.outputs[0], SCALED)
        return
    planner.add(node.outputs[0], _pointwise(planner, held, channels, constants=made))


def _channels(step: Draft) -> int:
    return step.sizes["channels" if step.kernel == "pointwise" else "filters"]


def _fold(step: Draft, made: dict[str, np.ndarray]) -> None:
    """Scale and shift of a step that has done no more than these."""
    constants = step.constants
    if "scale" in made:
        scale = made["scale"]
        name = "scale" if step.kernel in ("pointwise", "binary_conv") else "weights"
        old = constants.get(name, np.ones(len(scale), np.float32))
        constants[name] = old * scale.reshape(-1, *(1,) * (old.ndim - 1))
        if "shift" in constants:
            constants["shift"] = constants["shift"] * scale
    if "shift" in made:
        constants["shift"] = constants["shift"] + made["shift"] if "shift" in constants else made["shift"]


def _slope(planner: Planner, node: ir.Node, slope: np.ndarray) -> None:
    """x * slope where x is negative."""
    held = planner.floats(node.inputs[0])
    made = by_channel(slope, held)
    step = planner.joinable(node.inputs[0], SLOPED)
    if step is not None and len(made) in (held.memory[-1], 1) and _channels(step) == held.memory[-1]:
        assert node.inputs[0] is not None
        step.constants["slope"] = np.broadcast_to(made, held.memory[-1])
        planner.join(step, node.inputs[0], node.outputs[0], SLOPED)
        return
    planner.add(node.outputs[0], _pointwise(planner, held, len(made), constants={"slope": made}, stage=SLOPED))


def _limits(planner: Planner, node: ir.Node, low: float, high: float) -> None:
    value = node.inputs[0]
    step = planner.joinable(value, LIMITED)
    if step is None:
        held = planner.floats(value)
        channels = held.memory[-1]
        planner.add(node.outputs[0], _pointwise(planner, held, channels, low=low, high=high, stage=LIMITED))
        return
    assert value is not None
    step.low, step.high = low, high
    planner.join(step, value, node.outputs[0], LIMITED)


def _relu(planner: Planner, node: ir.Node) -> None:
    _limits(planner, node, 0.0, math.inf)


def _clip(planner: Planner, node: ir.Node) -> None:
    ends = [-math.inf, math.inf]
    for place, value in enumerate(node.inputs[1:3]):
        if value is not None:
            ends[place] = float(constant(value, "limit").reshape(-1)[0])
    if not ends[0] <= ends[1]:
        raise UnsupportedError(f"its limits {ends} are no range")
    _limits(planner, node, *ends)


def _prelu(planner: Planner, node: ir.Node) -> None:
    _slope(planner, node, constant(node.inputs[1], "slope"))


def _leaky_relu(planner: Planner, node: ir.Node) -> None:
    _slope(planner, node, np.array([number(node, "alpha", 0.01)], np.float32))


def _abs(planner: Planner, node: ir.Node) -> None:
    held = planner.floats(node.inputs[0])
    planner.add(
        node.outputs[0], _pointwise(planner, held, 1, constants={"slope": np.array([-1], np.float32)}, stage=SLOPED)
    )


def _neg(planner: Planner, node: ir.Node) -> None:
    held = planner.floats(node.inputs[0])
    planner.add(
        node.outputs[0], _pointwise(planner, held, 1, constants={"scale": np.array([-1], np.float32)}, stage=LIMITED)
    )


def _hard_sigmoid(planner: Planner, node: ir.Node) -> None:
    _hard(planner, node, number(node, "alpha", 0.2), number(node, "beta", 0.5))


def _hard(planner: Planner, node: ir.Node, alpha: float, beta: float) -> None:
    held = planner.floats(node.inputs[0])
    channels = held.memory[-1]
    made = {"scale": np.full(channels, alpha, np.float32), "shift": np.full(channels, beta, np.float32)}
    planner.add(node.outputs[0], _pointwise(planner, held, channels, constants=made, low=0.0, high=1.0, stage=LIMITED))


def _hard_swish(planner: Planner, node: ir.Node) -> None:
    held = planner.floats(node.inputs[0])
    _hard(planner, node, 1 / 6, 0.5)
    _product(planner, node, held, planner.steps[-1].writes["y"])


def _add(planner: Planner, node: ir.Node) -> None:
    for at in (0, 1):
        array = constant_array(node.inputs[1 - at])
        if array is not None:
            scale_and_shift(planner, node, None, array, at)
            return
    one, other = (planner.floats(value) for value in node.inputs)
    if one.shape == other.shape and one.last == other.last:
        _sum(planner, node, one, other)
        return
    one, other = _alike(planner, one, other)
    planner.add(node.outputs[0], _pointwise(planner, one, one.memory[-1], reads={"residual": other}, stage=JOINED))


def _sum(planner: Planner, node: ir.Node, one: Held, other: Held) -> None:
    """The sum of two tensors; part of the step that made the later of them."""
    if one != other:
        order = {id(step): number for number, step in enumerate(planner.steps)}
        steps = [(planner.joinable(value, JOINED), value) for value in node.inputs]
        for place in sorted((0, 1), key=lambda i: -order.get(id(steps[i][0]), -1)):
            step, value = steps[place]
            rest = planner.floats(node.inputs[1 - place])
            if step is None or value is None or order[id(step)] < _made(planner, rest):
                continue
            step.reads["residual"] = rest
            planner.join(step, value, node.outputs[0], JOINED)
            return
    step = _pointwise(planner, one, one.memory[-1], reads={"residual": other}, stage=JOINED)
    planner.add(node.outputs[0], step)


def _alike(planner: Planner, one: Held, other: Held) -> tuple[Held, Held]:
    """Two tensors, each repeated until it has the shape that they broadcast to."""
    rank = max(len(one.shape), len(other.shape))
    raised = [
        planner.last(planner.reshaped(held, (1,) * (rank - len(held.shape)) + held.shape)) for held in (one, other)
    ]
    try:
        shape = np.broadcast_shapes(one.shape, other.shape)
    except ValueError:
        raise UnsupportedError(f"it joins {list(one.shape)} and {list(other.shape)}") from None
    first, second = (expanded(planner, held, shape) for held in raised)
    return first, second


def expanded(planner: Planner, held: Held, shape: tuple[int, ...]) -> Held:
    """The tensor repeated along its axes of one value until it has this shape."""
    if held.shape == shape:
        return held
    if len(shape) > 4 or len(shape) != len(held.shape):
        raise UnsupportedError(f"it repeats values along {len(shape)} axes, not up to 4")
    made = planner.fresh(shape, last=held.last)
    ones = (1,) * (4 - len(shape))
    repeats = (int(size != new) for size, new in zip((*ones, *held.memory), (*ones, *made.memory), strict=True))
    sizes = dict(zip(KERNELS["expand"].sizes, (*ones, *made.memory, *repeats), strict=True))
    planner.steps.append(Draft("expand", sizes, {"x": held}, {"y": made}, stage=LIMITED))
    return made


def _made(planner: Planner, held: Held) -> int:
    """The number of the step that makes a buffer; -1 for a graph's input."""
    numbers = [n for n, step in enumerate(planner.steps) if any(w.buffer == held.buffer for w in step.writes.values())]
    return max(numbers, default=-1)


def _sub(planner: Planner, node: ir.Node) -> None:
    arrays = [constant_array(value) for value in node.inputs]
    if arrays[1] is not None:
        scale_and_shift(planner, node, None, -arrays[1])
    elif arrays[0] is not None:
        scale_and_shift(planner, node, np.array([-1], np.float32), arrays[0], 1)
    else:
        one, other = _alike(planner, *(planner.floats(value) for value in node.inputs))
        minus = np.full(one.memory[-1], -1, np.float32)
        step = _pointwise(
            planner, other, one.memory[-1], reads={"residual": one}, constants={"scale": minus}, stage=JOINED
        )
        planner.add(node.outputs[0], step)


def _mul(planner: Planner, node: ir.Node) -> None:
    for at in (0, 1):
        array = constant_array(node.inputs[1 - at])
        if array is not None:
            scale_and_shift(planner, node, array, None, at)
            return
    one, other = (planner.floats(value) for value in node.inputs)
    _product(planner, node, *((one, other) if math.prod(one.shape) >= math.prod(other.shape) else (other, one)))


def _product(planner: Planner, node: ir.Node, held: Held, factor: Held) -> None:
    """A tensor times another one, which may have one value for each image and channel."""
    if held.last and factor.shape == (*held.shape[:2], 1, 1):
        sizes = (held.shape[0], math.prod(held.shape[2:]), held.shape[1])
    else:
        held, factor = _alike(planner, held, factor)
        sizes = (1, 1, math.prod(held.shape))
    step = _pointwise(planner, held, 1, reads={"factor": factor})
    step.sizes = dict(zip(("batch", "pixels", "channels"), sizes, strict=True))
    step.stage = LIMITED
    planner.add(node.outputs[0], step)


def _div(planner: Planner, node: ir.Node) -> None:
    scale_and_shift(planner, node, 1 / constant(node.inputs[1], "divisor"), None)


def _map(function: int) -> Rule:
    def rule(planner: Planner, node: ir.Node) -> None:
        held = planner.floats(node.inputs[0])
        sizes = {"function": function, "count": math.prod(held.shape)}
        result = planner.fresh(held.shape, last=held.last)
        planner.add(node.outputs[0], Draft("map", sizes, {"x": held}, {"y": result}, stage=LIMITED))

    return rule


RULES: dict[str, Rule] = {
    "Abs": _abs,
    "Add": _add,
    "Clip": _clip,
    "Div": _div,
    "Exp": _map(2),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LeakyRelu": _leaky_relu,
    "Mul": _mul,
    "Neg": _neg,
    "PRelu": _prelu,
    "Relu": _relu,
    "Sigmoid": _map(0),
    "Sub": _sub,
    "Tanh": _map(1),
}
