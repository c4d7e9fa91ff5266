"""Faults to inject into a network: what importers, converters and runtimes really get wrong.

Each changes one node of an `onnx_ir.Model` in place, chosen at random among those that it fits, and says at which tensor
the network leaves the original and which words the cause must contain. Used by tests and by `benchmarks/locate_faults.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir


@dataclass(frozen=True)
class Injected:
    """Where a fault is, and the words of which the cause must contain one."""

    tensor: str
    words: tuple[str, ...]


Fault = Callable[[ir.Model, np.random.Generator], Injected | None]


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer or Constant node."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def replace_input(node: ir.Node, index: int, array: np.ndarray) -> None:
    """Give the node a constant of its own."""
    old = node.inputs[index]
    tensor = ir.tensor(np.asarray(array, constant(old).dtype, order="C"), name=f"{node.outputs[0].name}:fault{index}")
    new = ir.Value(name=tensor.name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
    node.graph.register_initializer(new)
    node.replace_input_with(index, new)


def _nodes(model: ir.Model, ops: Sequence[str], fits: Callable[[ir.Node], Any] = lambda node: True) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type in ops and node.domain in ("", "ai.onnx") and fits(node)]


def _weight(node: ir.Node) -> np.ndarray | None:
    weight = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return weight if weight is not None and weight.ndim >= 2 and weight.dtype.kind == "f" else None


def _pick(rng: np.random.Generator, nodes: list[ir.Node]) -> ir.Node | None:
    return nodes[int(rng.integers(len(nodes)))] if nodes else None


def _on_weight(
    words: tuple[str, ...],
    change: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    fits: Callable[[np.ndarray], Any],
) -> Fault:
    def inject(model: ir.Model, rng: np.random.Generator) -> Injected | None:
        node = _pick(rng, _nodes(model, ["Conv"], lambda node: _weight(node) is not None and fits(_weight(node))))
        if node is None:
            return None
        replace_input(node, 1, change(_weight(node), rng))
        return Injected(node.outputs[0].name, words)

    return inject


def _swapped(axis: int) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    def change(weight: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        order = np.arange(weight.shape[axis])
        first, second = rng.choice(order.size, 2, replace=False)
        order[[first, second]] = second, first
        return np.take(weight, order, axis)

    return change


def _one_channel(weight: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    factors = np.ones((weight.shape[0],) + (1,) * (weight.ndim - 1))
    factors[int(rng.integers(weight.shape[0]))] = 3.0
    return weight * factors


def _bf16(weight: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    import ml_dtypes

    return weight.astype(ml_dtypes.bfloat16).astype(np.float32)


def epsilon(factor: float) -> Fault:
    """A batch norm with another epsilon."""

    def inject(model: ir.Model, rng: np.random.Generator) -> Injected | None:
        node = _pick(rng, _nodes(model, ["BatchNormalization", "LayerNormalization"]))
        if node is None:
            return None
        now = node.attributes["epsilon"].value if "epsilon" in node.attributes else 1e-5
        node.attributes["epsilon"] = ir.AttrFloat32("epsilon", now * factor)
        return Injected(node.outputs[0].name, ("epsilon",))

    return inject


def no_bias(model: ir.Model, rng: np.random.Generator) -> Injected | None:
    """A convolution or Gemm without its bias."""
    node = _pick(rng, _nodes(model, ["Conv", "Gemm"], lambda n: len(n.inputs) > 2 and np.any(constant(n.inputs[2]))))
    if node is None:
        return None
    replace_input(node, 2, np.zeros_like(constant(node.inputs[2])))
    return Injected(node.outputs[0].name, ("bias", "plus", "offset", "more than"))


def swish_for_relu(model: ir.Model, rng: np.random.Generator) -> Injected | None:
    """Swish in the place of a rectifier."""
    node = _pick(rng, _nodes(model, ["Relu", "Clip", "LeakyRelu"], lambda n: constant(n.inputs[0]) is None))
    if node is None or node.outputs[0].is_graph_output():
        return None
    source, out = node.inputs[0], node.outputs[0]
    sigmoid = ir.Node("", "Sigmoid", [source], name=f"{out.name}:gate")
    sigmoid.outputs[0].name = f"{out.name}:gate"
    product = ir.Node("", "Mul", [source, sigmoid.outputs[0]], name=f"{out.name}:swish")
    product.outputs[0].type, product.outputs[0].shape = out.type, out.shape
    node.graph.insert_before(node, [sigmoid, product])
    out.replace_all_uses_with(product.outputs[0])
    node.graph.remove(node, safe=True)
    name, out.name = out.name, f"{out.name}:gone"
    product.outputs[0].name = name
    return Injected(name, ("swish",))


def transposed(model: ir.Model, rng: np.random.Generator) -> Injected | None:
    """A square map with height and width exchanged."""

    def square(node: ir.Node) -> bool:
        shape = node.outputs[0].shape
        return (
            shape is not None and len(shape) == 4 and shape[2] == shape[3] and isinstance(shape[2], int) and shape[2] > 2
            and not node.outputs[0].is_graph_output()
        )  # fmt: skip

    node = _pick(rng, _nodes(model, ["Conv", "Relu", "Clip", "LeakyRelu", "Add", "MaxPool", "HardSwish"], square))
    if node is None:
        return None
    out = node.outputs[0]
    turn = ir.Node("", "Transpose", [out], [ir.AttrInt64s("perm", [0, 1, 3, 2])], name=f"{out.name}:turn")
    turn.outputs[0].type, turn.outputs[0].shape = out.type, out.shape
    node.graph.insert_after(node, turn)
    for use in tuple(out.uses()):
        if use.node is not turn:
            use.node.replace_input_with(use.idx, turn.outputs[0])
    name = out.name
    out.name = f"{name}:before_turn"
    turn.outputs[0].name = name
    return Injected(name, ("height and width are swapped",))


def padding(model: ir.Model, rng: np.random.Generator) -> Injected | None:
    """The padding on the other side."""

    def movable(node: ir.Node) -> bool:
        pads = node.attributes["pads"].value if "pads" in node.attributes else ()
        window = node.attributes["kernel_shape"].value if "kernel_shape" in node.attributes else (0, 0)
        # a window may not lie in the padding alone
        return len(pads) == 4 and any(pads) and pads[0] + pads[2] < window[0] and pads[1] + pads[3] < window[1]

    node = _pick(rng, _nodes(model, ["Conv", "MaxPool"], movable))
    if node is None:
        return None
    pads = list(node.attributes["pads"].value)
    moved = [0, 0, pads[0] + pads[2], pads[1] + pads[3]]
    if moved == pads:
        moved = moved[2:] + moved[:2]
    node.attributes["pads"] = ir.AttrInt64s("pads", moved)
    return Injected(node.outputs[0].name, ("padding",))


def slope(model: ir.Model, rng: np.random.Generator) -> Injected | None:
    """A leaky slope of 0.01 for another, or the other way round."""
    node = _pick(rng, _nodes(model, ["LeakyRelu"]))
    if node is None:
        return None
    now = node.attributes["alpha"].value if "alpha" in node.attributes else 0.01
    node.attributes["alpha"] = ir.AttrFloat32("alpha", 0.1 if now < 0.05 else 0.01)
    return Injected(node.outputs[0].name, ("slope", "leaky"))


def no_shift(model: ir.Model, rng: np.random.Generator) -> Injected | None:
    """A batch norm without its shift, which Darknet calls the bias."""
    node = _pick(rng, _nodes(model, ["BatchNormalization"], lambda n: np.any(constant(n.inputs[2]))))
    if node is None:
        return None
    replace_input(node, 2, np.zeros_like(constant(node.inputs[2])))
    return Injected(node.outputs[0].name, ("the shift of", "is missing"))


def scale_for_shift(model: ir.Model, rng: np.random.Generator) -> Injected | None:
    """Scale and shift of a batch norm read in the wrong order."""
    node = _pick(rng, _nodes(model, ["BatchNormalization"]))
    if node is None:
        return None
    scale, shift = constant(node.inputs[1]), constant(node.inputs[2])
    replace_input(node, 1, shift)
    replace_input(node, 2, scale)
    return Injected(node.outputs[0].name, ("scale and shift",))


def reorg(model: ir.Model, rng: np.random.Generator) -> Injected | None:
    """Plain space-to-depth for Darknet's reorg, which reads the map in another size first."""

    def rereads(node: ir.Node) -> bool:
        before = node.inputs[0].producer()
        return before is not None and before.op_type == "Reshape"

    node = _pick(rng, _nodes(model, ["SpaceToDepth"], rereads))
    if node is None:
        return None
    wide = node.inputs[0].producer()
    node.replace_input_with(0, wide.inputs[0])
    node.graph.remove(wide, safe=True)
    return Injected(node.outputs[0].name, ("Darknet's reorg",))


def upsample(model: ir.Model, rng: np.random.Generator) -> Injected | None:
    """Linear for nearest interpolation."""

    def nearest(node: ir.Node) -> bool:
        return "mode" not in node.attributes or node.attributes["mode"].value == "nearest"

    node = _pick(rng, _nodes(model, ["Resize"], nearest))
    if node is None:
        return None
    node.attributes["mode"] = ir.AttrString("mode", "linear")
    return Injected(node.outputs[0].name, ("`mode`",))


def route_order(model: ir.Model, rng: np.random.Generator) -> Injected | None:
    """Two sources of a join exchanged."""
    node = _pick(rng, _nodes(model, ["Concat"], lambda n: len(n.inputs) > 1 and n.inputs[0] is not n.inputs[1]))
    if node is None:
        return None
    first, second = node.inputs[:2]
    node.replace_input_with(0, second)
    node.replace_input_with(1, first)
    return Injected(node.outputs[0].name, ("are exchanged", "permuted", "reverse order"))


def route_source(model: ir.Model, rng: np.random.Generator) -> Injected | None:
    """One source of a join dropped: another of its size stands there twice."""

    def alike(node: ir.Node) -> bool:
        first, *others = (value.shape for value in node.inputs)
        return first is not None and len(others) > 0 and others[0] == first and node.inputs[0] is not node.inputs[1]

    node = _pick(rng, _nodes(model, ["Concat"], alike))
    if node is None:
        return None
    node.replace_input_with(0, node.inputs[1])
    return Injected(node.outputs[0].name, ("input 0 of",))


def route_index(model: ir.Model, rng: np.random.Generator) -> Injected | None:
    """A join that reads the output of another layer of the same size."""
    places = []
    for number, node in enumerate(nodes := list(model.graph)):
        if (
            node.op_type in ("Concat", "Add")
            and node.outputs[0].name.startswith("layer_")
            and "." not in node.outputs[0].name
        ):
            wanted = node.inputs[1]
            others = [
                value
                for earlier in nodes[:number]
                for value in earlier.outputs
                if "." not in value.name and value.shape == wanted.shape and value not in node.inputs
            ]
            places += [(node, other) for other in others]
    if not places:
        return None
    node, other = places[int(rng.integers(len(places)))]
    node.replace_input_with(1, other)
    return Injected(node.outputs[0].name, ("reads `", "input 1 of"))


def route_group(model: ir.Model, rng: np.random.Generator) -> Injected | None:
    """The first group of channels for the second."""

    def later(node: ir.Node) -> bool:
        arrays = [constant(value) for value in node.inputs[1:4]]
        return (
            len(arrays) == 3
            and all(a is not None and a.size == 1 for a in arrays)
            and arrays[0][0] > 0
            and arrays[2][0] == 1
        )

    node = _pick(rng, _nodes(model, ["Slice"], later))
    if node is None:
        return None
    start, stop = constant(node.inputs[1]), constant(node.inputs[2])
    replace_input(node, 1, np.zeros_like(start))
    replace_input(node, 2, stop - start)
    return Injected(node.outputs[0].name, ("takes channels 0",))


def cell_scale(model: ir.Model, rng: np.random.Generator) -> Injected | None:
    """`scale_x_y` of a YOLO head forgotten: times 1, minus 0."""

    def scaled(node: ir.Node) -> bool:
        before, after = node.inputs[0].producer(), [use.node.op_type for use in node.outputs[0].uses()]
        return (
            before is not None
            and before.op_type == "Sigmoid"
            and after == ["Sub"]
            and constant(node.inputs[1]) is not None
        )

    node = _pick(rng, _nodes(model, ["Mul"], scaled))
    if node is None:
        return None
    subtract = node.outputs[0].uses()[0].node
    replace_input(node, 1, np.ones_like(constant(node.inputs[1])))
    replace_input(subtract, 1, np.zeros_like(constant(subtract.inputs[1])))
    return Injected(node.outputs[0].name, ("x the original's", "scale_x_y"))


#: Name -> fault. The words of a swap also allow the layer's own words for it: "channels 3 and 7", "input channels ...".
FAULTS: dict[str, Fault] = {
    "scale": _on_weight(("0.5 x",), lambda w, rng: w * 0.5, lambda w: True),
    "one channel": _on_weight(("3 x", "factor", "differs"), _one_channel, lambda w: len(w) > 1),
    "swapped channels": _on_weight(("are swapped",), _swapped(0), lambda w: len(w) > 1),
    "swapped inputs": _on_weight(("are swapped",), _swapped(1), lambda w: w.shape[1] > 2),
    "bgr": _on_weight(("as RGB for BGR",), lambda w, rng: w[:, ::-1], lambda w: w.shape[1] == 3),
    "transposed kernel": _on_weight(
        ("kernels", "OIHW"), lambda w, rng: w.swapaxes(2, 3), lambda w: w.ndim == 4 and w.shape[2] == w.shape[3] > 1
    ),
    "kernel layout": _on_weight(
        ("OIHW",),
        lambda w, rng: np.ascontiguousarray(w.transpose(2, 3, 1, 0)).reshape(w.shape),
        lambda w: w.ndim == 4 and max(w.shape[:2]) > 1 and w.shape[1:] != (1, 1, 1),
    ),
    "bfloat16 weights": _on_weight(("bfloat16",), _bf16, lambda w: True),
    "epsilon x 10": epsilon(10.0),
    "epsilon x 100": epsilon(100.0),
    "no bias": no_bias,
    "swish for relu": swish_for_relu,
    "transposed map": transposed,
    "padding side": padding,
    "leaky slope": slope,
    "no shift": no_shift,
    "scale for shift": scale_for_shift,
    "reorg": reorg,
    "upsample mode": upsample,
    "route order": route_order,
    "route source": route_source,
    "route group": route_group,
    "route index": route_index,
    "cell scale": cell_scale,
}
