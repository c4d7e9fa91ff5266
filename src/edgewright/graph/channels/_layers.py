"""Layers: operators that make channels from others by weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.graph.channels._ties import Ids
from edgewright.graph.channels._walk import Axes, Rule, Walk
from edgewright.graph.dataflow import is_standard

if TYPE_CHECKING:
    import onnx_ir as ir

Places = list[tuple[int, int]]  # input and axis


def _conv(node: ir.Node, walk: Walk) -> None:
    """Conv: f32[N, C, ...] by weights f32[M, C / groups, ...]."""
    source, kernel = node.inputs[0], node.inputs[1]
    if not _usual(node, walk):
        return
    groups = node.attributes.get_int("group", 1)
    outputs, depth = walk.shape(kernel)[:2]
    read = walk.labels(source).get(1)
    if groups > 1 and depth == 1:
        if read is None:
            return  # channels of the graph's input, each filtered by itself
        made = np.repeat(read, outputs // groups)
        walk.use(node, 1, 0, made, "along")
    else:
        if read is not None:
            walk.use(node, 1, 1, _tied_groups(read, groups, walk), "read")
        made = np.tile(walk.ties.fresh(outputs // groups), groups)
        walk.use(node, 1, 0, made, "made")
    _finish(node, walk, made)


def _conv_transpose(node: ir.Node, walk: Walk) -> None:
    """ConvTranspose: weights f32[C, M / groups, ...]."""
    if not _usual(node, walk):
        return
    groups = node.attributes.get_int("group", 1)
    inputs, outputs = walk.shape(node.inputs[1])[:2]
    read = walk.labels(node.inputs[0]).get(1)
    if groups == inputs and groups > 1:
        if read is None:
            return
        walk.use(node, 1, 0, read, "along")
        made = np.repeat(read, outputs)
    else:
        if read is not None:
            _tied_groups(read, groups, walk)
            walk.use(node, 1, 0, read, "read")
        fresh = walk.ties.fresh(outputs)
        walk.use(node, 1, 1, fresh, "made")
        made = np.tile(fresh, groups)
    _finish(node, walk, made)


def _usual(node: ir.Node, walk: Walk) -> bool:
    """False, and everything stays, where weights are computed from activations or sizes are unknown."""
    source, kernel = node.inputs[0], node.inputs[1]
    whole = [axis for axis in _spatial(walk, source) if _covers(node, walk, axis)]
    along = tuple(axis for axis in _spatial(walk, source) if axis not in whole)
    walk.freeze(source, f"{node.op_type} convolves along them", along)
    if not walk.known(kernel, source):
        walk.freeze_all(node, f"the sizes of what {node.op_type} `{node.outputs[0].name}` reads are unknown")
        return False
    if not walk.is_constant(kernel):
        walk.freeze_all(node, f"{node.op_type} `{node.outputs[0].name}` has weights that are computed at run time")
        return False
    for axis in whole:
        walk.use(node, 1, axis, walk.labels(source)[axis], "read")
    return True


def _covers(node: ir.Node, walk: Walk, axis: int) -> bool:
    """True where a window takes in all positions of an axis at once, as over words and the width of their embedding."""
    source, kernel = walk.view.shape(node.inputs[0]), walk.view.shape(node.inputs[1])
    if not is_standard(node, "Conv") or source is None or kernel is None or kernel[axis] != source[axis]:
        return False
    pads = node.attributes.get_ints("pads", None) or [0] * (2 * len(source) - 4)
    padded = pads[axis - 2] or pads[axis - 2 + len(source) - 2]
    plain = node.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    return plain and not padded and walk.shape(node.outputs[0])[axis] == 1 if walk.known(node.outputs[0]) else False


def _spatial(walk: Walk, value: ir.Value | None) -> tuple[int, ...]:
    return tuple(axis for axis in walk.labels(value) if axis != 1)


def _tied_groups(read: Ids, groups: int, walk: Walk) -> Ids:
    """Each group of inputs loses the same places: their weights lie in one array."""
    rows = read.reshape(groups, -1)
    for row in rows[1:]:
        walk.ties.tie(rows[0], row)
    first: Ids = rows[0]
    return first


def _finish(node: ir.Node, walk: Walk, made: Ids) -> None:
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        walk.meet(node, 2, 0, made)
    walk.label(node.outputs[0], {1: made})


# --- products ---------------------------------------------------------------------------------------------------------


def contract(node: ir.Node, walk: Walk, terms: list[str], result: str) -> None:
    """A sum of products over named axes, as einsum writes it; each letter is an axis."""
    if not walk.known(*node.inputs[: len(terms)]):
        walk.freeze_all(node, f"the sizes of what {node.op_type} `{node.outputs[0].name}` reads are unknown")
        return
    axes: Axes = {}
    for letter in dict.fromkeys("".join(terms)):
        places = [(i, term.index(letter)) for i, term in enumerate(terms) if letter in term]
        size = max(walk.shape(node.inputs[i])[axis] for i, axis in places)
        ids = _joined(node, walk, places, size, made=letter in result)
        if ids is not None and letter in result:
            axes[result.index(letter)] = ids
    walk.label(node.outputs[0], axes)


def _joined(node: ir.Node, walk: Walk, places: Places, size: int, *, made: bool) -> Ids | None:
    """Numbers of one axis of a product, where it has channels."""
    for index, axis in places:
        if walk.shape(node.inputs[index])[axis] < size:
            walk.freeze(node.inputs[index], f"{node.op_type} repeats them", (axis,))
    places = [(i, axis) for i, axis in places if walk.shape(node.inputs[i])[axis] == size]
    fed = [place for place in places if not walk.is_constant(node.inputs[place[0]])]
    found = [ids for i, axis in fed if (ids := walk.labels(node.inputs[i]).get(axis)) is not None]
    if fed and not found:
        return None
    if not found and (not made or size == 1):
        return None
    ids = found[0] if found else walk.ties.fresh(size)
    for index, axis in places:
        walk.meet(node, index, axis, ids, ("along" if made else "read") if fed else "made")
    return ids


def _matmul(node: ir.Node, walk: Walk) -> None:
    ranks = [len(walk.view.shape(value) or ()) for value in node.inputs[:2]]
    if 0 in ranks:
        walk.freeze_all(node, f"the sizes of what MatMul `{node.outputs[0].name}` reads are unknown")
        return
    batch = "abcdefgh"[: max(max(ranks) - 2, 0)]
    first = "k" if ranks[0] == 1 else batch[len(batch) - ranks[0] + 2 :] + "mk"
    second = "k" if ranks[1] == 1 else batch[len(batch) - ranks[1] + 2 :] + "kn"
    result = batch + ("m" if ranks[0] > 1 else "") + ("n" if ranks[1] > 1 else "")
    contract(node, walk, [first, second], result)


def _gemm(node: ir.Node, walk: Walk) -> None:
    first = "km" if node.attributes.get_int("transA", 0) else "mk"
    second = "nk" if node.attributes.get_int("transB", 0) else "kn"
    contract(node, walk, [first, second], "mn")
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return
    shape = walk.view.shape(node.inputs[2])
    result = walk.labels(node.outputs[0])
    for axis, ids in result.items():
        own = None if shape is None else axis - (2 - len(shape))
        if shape is None:
            walk.ties.freeze(ids, f"the bias of Gemm `{node.outputs[0].name}` has unknown sizes")
        elif own is not None and own >= 0 and shape[own] > 1:
            walk.meet(node, 2, own, ids)
    for axis in walk.labels(node.inputs[2]):
        if shape is not None and axis + 2 - len(shape) not in result:
            walk.freeze(node.inputs[2], "Gemm adds them to what stays", (axis,))


def _einsum(node: ir.Node, walk: Walk) -> None:
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    ranks = [len(walk.view.shape(value) or ()) for value in node.inputs]
    plain = arrow and "." not in equation and [len(term) for term in terms] == ranks
    if not plain or any(len(set(term)) < len(term) for term in terms):
        walk.freeze_all(node, f"Einsum `{equation}` is not one of the forms that are followed")
        return
    contract(node, walk, terms, result)


def _recurrent(node: ir.Node, walk: Walk) -> None:
    """LSTM, GRU, RNN: the size of the input may shrink, the state stays."""
    source = node.inputs[0]
    read = walk.labels(source).get(2)
    if read is not None and walk.is_constant(node.inputs[1]):
        walk.use(node, 1, 2, read, "read")
        walk.freeze(source, f"{node.op_type} runs along them", (0, 1))
    else:
        walk.freeze(source, f"{node.op_type} reads them")
    for value in node.inputs[1:]:
        walk.freeze(value, f"they are the state of {node.op_type} `{node.outputs[0].name}`")


RULES: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}
