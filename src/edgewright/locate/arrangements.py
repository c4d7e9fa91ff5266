"""Alternatives of nodes that move values: reorganized maps, routes and their groups, and the cells of a YOLO head."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.dataflow import add_initializer, constant_array, is_standard, sole_consumer
from edgewright.graph.shapes import static_shape
from edgewright.locate.changes import Alternative, attribute, in_turn, label_of, set_attribute, set_input

if TYPE_CHECKING:
    import onnx_ir as ir

#: Of longer joins and finer slices not every exchange is tried.
_MOST_JOINED, _MOST_PIECES, _MOST_AXES = 8, 64, 6
#: What `scale_x_y` is in the cfgs of AlexeyAB/darknet.
CELL_SCALES = (1.0, 1.05, 1.1, 1.2, 1.5, 2.0)


def arrangements(node: ir.Node) -> Iterator[Alternative]:
    """Everything that is worth trying on one standard node that moves values."""
    yield from _reorgs(node)
    yield from _transposes(node)
    yield from _joins(node)
    yield from _pieces(node)
    yield from _cell_scales(node)


# --- blocks of places as channels -------------------------------------------------------------------------------------


def _space_to_depth(x: np.ndarray, block: int) -> np.ndarray:
    channels, height, width = x.shape
    cells = x.reshape(channels, height // block, block, width // block, block)
    return cells.transpose(2, 4, 0, 1, 3)


def _darknet_reorg(x: np.ndarray, block: int) -> np.ndarray:
    channels, height, width = x.shape
    return _space_to_depth(x.reshape(channels // block**2, height * block, width * block), block)


#: Variant -> what it makes of f32[C, H, W], in the order of the memory; blocks are `block` x `block`.
#: Source: AlexeyAB/darknet, reorg_old_layer.c; ONNX, SpaceToDepth; PyTorch, pixel_unshuffle.
REORGS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "space-to-depth": _space_to_depth,
    "Darknet's reorg": _darknet_reorg,
    "pixel unshuffle (the channel slowest)": lambda x, block: np.moveaxis(_space_to_depth(x, block), 2, 0),
    "space-to-depth with the column of the block slowest": lambda x, block: _space_to_depth(x, block).swapaxes(0, 1),
}


def _reorgs(node: ir.Node) -> Iterator[Alternative]:
    """The other variants of a SpaceToDepth; Darknet's own is one over a map that was reshaped before."""
    if node.op_type != "SpaceToDepth" or node.inputs[0] is None:
        return
    source, block, now = node.inputs[0], int(attribute(node, "blocksize", 0)), "space-to-depth"
    before = source.producer()
    if before is not None and is_standard(before, "Reshape") and before.inputs[0] is not None:
        source, now = before.inputs[0], "Darknet's reorg"
    sizes = source.shape.dims[1:] if source.shape is not None else ()
    if len(sizes) != 3 or not all(isinstance(size, int) for size in sizes):
        return
    channels, height, width = (int(size) for size in sizes if isinstance(size, int))
    if channels % block**2 or height % block or width % block:
        return
    places = np.arange(channels * height * width).reshape(channels, height, width)
    made = (channels * block**2, height // block, width // block)
    for name, variant in REORGS.items():
        if name != now:
            order = np.ascontiguousarray(variant(places, block)).reshape(-1)
            yield f"`{label_of(node)}` is {name} instead of {now}", _gathered(node, source, order, made)


def _gathered(node: ir.Node, source: ir.Value, order: np.ndarray, sizes: tuple[int, ...]) -> Callable[[ir.Node], None]:
    """The change to `order` of the values of `source`, which is the node's input or that of the node before."""
    direct = source is node.inputs[0]

    def change(copy: ir.Node) -> None:
        import onnx_ir as ir

        graph, out = copy.graph, copy.outputs[0]
        before = copy.inputs[0] if direct else copy.inputs[0].producer().inputs[0]
        assert graph is not None
        constants = [
            add_initializer(graph, f"{out.name}:{part}", np.asarray(array, np.int64))
            for part, array in (("flat", (0, order.size)), ("order", order), ("sizes", (0, *sizes)))
        ]
        flat = ir.node("Reshape", [before, constants[0]])
        taken = ir.node("Gather", [flat.outputs[0], constants[1]], {"axis": 1})
        whole = ir.node("Reshape", [taken.outputs[0], constants[2]])
        graph.insert_before(copy, [flat, taken, whole])
        name = out.name
        out.replace_all_uses_with(whole.outputs[0], replace_graph_outputs=True)
        out.name, whole.outputs[0].name = f"{name}:before", name
        whole.outputs[0].type = out.type
        graph.remove(copy, safe=True)

    return change


def _transposes(node: ir.Node) -> Iterator[Alternative]:
    """Axes in another order that leaves the same shape."""
    shape = node.inputs[0].shape if node.inputs and node.inputs[0] is not None else None
    now = tuple(attribute(node, "perm", ()))
    if node.op_type != "Transpose" or shape is None or not now or len(now) > _MOST_AXES:
        return
    for order in itertools.permutations(range(len(now))):
        if order != now and [shape[axis] for axis in order] == [shape[axis] for axis in now]:
            yield f"`{label_of(node)}` has the axes {list(order)} instead of {list(now)}", set_attribute("perm", order)


# --- routes -----------------------------------------------------------------------------------------------------------


def _joins(node: ir.Node) -> Iterator[Alternative]:
    """Concat in another order, or with one input in the place of another of its size."""
    count = len(node.inputs)
    if node.op_type != "Concat" or not 2 <= count <= _MOST_JOINED:
        return
    label = label_of(node)
    if count > 2:
        yield f"the inputs of `{label}` are in reverse order", _taking(range(count - 1, -1, -1))
    for first, second in itertools.combinations(range(count), 2):
        order = list(range(count))
        order[first], order[second] = second, first
        yield f"inputs {first} and {second} of `{label}` are exchanged", _taking(order)
    for place, other in itertools.permutations(range(count), 2):
        mine, theirs = node.inputs[place], node.inputs[other]
        if mine is None or theirs is None or mine is theirs or mine.shape is None or mine.shape != theirs.shape:
            continue
        order = list(range(count))
        order[place] = other
        yield f"input {place} of `{label}` is `{theirs.name}` instead of `{mine.name}`", _taking(order)


def _taking(order: range | list[int]) -> Callable[[ir.Node], None]:
    def change(node: ir.Node) -> None:
        inputs = node.inputs
        for place, index in enumerate(order):
            node.replace_input_with(place, inputs[index])

    return change


def _pieces(node: ir.Node) -> Iterator[Alternative]:
    """Another of the equal pieces of an axis, as the groups of a [route]."""
    if node.op_type != "Slice" or len(node.inputs) < 4 or node.inputs[0] is None:
        return
    arrays = [constant_array(value) for value in node.inputs[1:4]]
    shape = node.inputs[0].shape
    if shape is None or any(array is None or array.size != 1 for array in arrays):
        return
    start, stop, axis = (int(np.asarray(array).reshape(-1)[0]) for array in arrays)
    total = shape[axis]
    if not isinstance(total, int) or not 0 <= start < stop <= total or total // (stop - start) > _MOST_PIECES:
        return
    noun, size = "channels" if axis == 1 else f"axis {axis} from", stop - start
    for begin in range(0, total - size + 1, size):
        if begin != start:
            text = f"`{label_of(node)}` takes {noun} {begin} to {begin + size - 1} instead of {start} to {stop - 1}"
            ends = np.array([begin], np.int64), np.array([begin + size], np.int64)
            yield text, in_turn(set_input(1, ends[0]), set_input(2, ends[1]))


# --- cells of a YOLO head ---------------------------------------------------------------------------------------------


def _cell_scales(node: ir.Node) -> Iterator[Alternative]:
    """Another `scale_x_y` s: x s - (s - 1) / 2 behind the logistic, or none at all.

    Source: AlexeyAB/darknet, yolo_layer.c.
    """
    if node.op_type != "Sigmoid":
        return
    scaled, after = _scaling(node)
    if scaled is None and (after is None or not is_standard(after, "Concat")):
        return
    now = 1.0 if scaled is None else float(np.asarray(constant_array(scaled.inputs[1])))
    for scale in CELL_SCALES:
        if not np.isclose(scale, now, rtol=1e-4, atol=0):
            yield f"`scale_x_y` of `{label_of(node)}` is {scale:g} instead of {now:g}", _scale_cells(scale)


def _scaling(node: ir.Node) -> tuple[ir.Node | None, ir.Node | None]:
    """(the Mul, the Sub) by scalars behind a logistic, or (None, the one node that reads it)."""
    multiply = sole_consumer(node.outputs[0])
    if multiply is None or not is_standard(multiply, "Mul") or static_shape(multiply.inputs[1]) != ():
        return None, multiply
    subtract = sole_consumer(multiply.outputs[0])
    if constant_array(multiply.inputs[1]) is None or subtract is None or not is_standard(subtract, "Sub"):
        return None, None
    return multiply, subtract


def _scale_cells(scale: float) -> Callable[[ir.Node], None]:
    factor, offset = np.float32(scale), np.float32(0.5 * (scale - 1))

    def change(node: ir.Node) -> None:
        import onnx_ir as ir

        multiply, after = _scaling(node)
        assert node.graph is not None
        assert after is not None
        if multiply is not None:
            set_input(1, np.asarray(factor))(multiply)
            set_input(1, np.asarray(offset))(after)
            return
        out = node.outputs[0]
        constants = [
            add_initializer(node.graph, f"{out.name}:{part}", np.asarray(number))
            for part, number in (("factor", factor), ("offset", offset))
        ]
        multiply = ir.node("Mul", [out, constants[0]])
        subtract = ir.node("Sub", [multiply.outputs[0], constants[1]])
        node.graph.insert_after(node, [multiply, subtract])
        for index, value in enumerate(after.inputs):
            if value is out:
                after.replace_input_with(index, subtract.outputs[0])

    return change
