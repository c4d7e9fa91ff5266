"""Layers that multiply by matrices: InnerProduct, Gemm, MatMul, MultiHeadAttention, SDPA.

Source: Tencent/ncnn, src/layer/innerproduct.cpp, gemm.cpp, matmul.cpp and multiheadattention.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.ncnn._layer import Layer, Sizes
from edgewright.importers.ncnn._layers import quantization
from edgewright.importers.ncnn._layers.pointwise import activate

if TYPE_CHECKING:
    import onnx_ir as ir


def inner_product(layer: Layer) -> ir.Value:
    """InnerProduct: of all values, or of each row of a blob with two sizes.

    Raises:
        EdgewrightError: E215 where the weights are for another number of values.
    """
    outputs, has_bias, size, term = layer.count(0), layer.flag(1), layer.integer(2, 0), layer.integer(8, 0)
    if size < 1 or size % outputs:
        raise layer.refuse(f"{size} weights are not those of {outputs} outputs")
    return multiplied(layer, outputs, size // outputs, has_bias, term)


def multiplied(layer: Layer, outputs: int, inputs: int, has_bias: bool, term: int) -> ir.Value:
    """x * weight + bias and the layer's activation."""
    graph, sizes = layer.graph, layer.sizes
    rows = sizes[:-1] if len(sizes) == 2 and sizes[-1] == inputs else ()
    if not rows and math.prod(sizes) != inputs:
        raise layer.refuse(f"its weights are for {inputs} values, its input has {math.prod(sizes)}")
    shape = layer.shaped(*rows, outputs)
    x = layer.x if rows else layer.reshape(layer.x, inputs)
    if x is not layer.x and layer.x in layer.network.positive:
        layer.network.positive.add(x)
    if term not in (0, 1, 2):
        raise layer.unsupported(f"int8_scale_term {term}")
    array = layer.stored(outputs, inputs)
    offset = graph.weight("bias", layer.plain(outputs)) if has_bias else None
    if term:
        scales = layer.plain(outputs)
        x = quantization.rounded(layer, x, float(layer.plain(1)[0]))
        weight = quantization.weight(layer, array, scales)
    elif array.dtype == np.int8:
        raise layer.refuse("its weights are int8, but it has no scales (parameter 8)")
    else:
        weight = graph.weight("weight", array)
    if not rows:
        y = graph.node("Gemm", x, weight, *([offset] if offset is not None else []), shape=shape, transB=1)
        return activate(layer, y)
    turned = graph.node("Transpose", weight, shape=(inputs, outputs), perm=[1, 0])
    y = graph.node("MatMul", x, turned, shape=shape)
    return activate(layer, graph.node("Add", y, offset) if offset is not None else y)


# --- Gemm, MatMul -------------------------------------------------------------------------------------------------------


def gemm(layer: Layer) -> ir.Value:
    """Gemm: (a * b + beta * c) * alpha, of which any may be constant.

    Raises:
        EdgewrightError: E204 for int8, E215 where the sizes do not go together.
    """
    graph = layer.graph
    alpha, beta, turned_a, turned_b = layer.number(0, 1.0), layer.number(1, 1.0), layer.flag(2), layer.flag(3)
    fixed = [layer.flag(key) for key in (4, 5, 6)]
    m, n, k, kind = (layer.integer(key, 0) for key in (7, 8, 9, 10))
    wide, turned = layer.flag(11), layer.flag(14)
    for key in (12, 13, 20, 21, 22):
        layer.has(key)  # how ncnn lays values out, not what they are
    if layer.flag(18):
        raise layer.unsupported("int8")
    given = list(layer.inputs)
    if len(given) < 2 - fixed[0] - fixed[1]:
        raise layer.refuse(f"it reads {len(given)} blobs, but needs {2 - fixed[0] - fixed[1]}")
    stored_a = layer.tagged(1, *((k, m) if turned_a else (m, k))) if fixed[0] else None
    stored_b = layer.tagged(1, *((n, k) if turned_b else (k, n))) if fixed[1] else None
    a = graph.weight("a", stored_a) if stored_a is not None else _matrix(layer, given.pop(0))
    b = graph.weight("b", stored_b) if stored_b is not None else _matrix(layer, given.pop(0))
    a, b = _turned(layer, a, turned_a), _turned(layer, b, turned_b)
    (rows, inner), (depth, columns) = layer.sizes_of(a), layer.sizes_of(b)
    if inner != depth:
        raise layer.refuse(f"its matrices of {rows} x {inner} and {depth} x {columns} do not go together")
    y = graph.node("MatMul", a, b, shape=layer.shaped(rows, columns))
    c = _addend(layer, fixed[2], kind, given, rows, columns)
    if c is not None:
        y = graph.node("Add", y, c if beta == 1 else graph.node("Mul", c, graph.scalar(beta)))
    if alpha != 1:
        y = graph.node("Mul", y, graph.scalar(alpha))
    y = _turned(layer, y, turned)
    return layer.reshape(y, layer.sizes_of(y)[0], 1, layer.sizes_of(y)[1]) if wide else y


def _matrix(layer: Layer, x: ir.Value) -> ir.Value:
    """A blob of two sizes, or of three with one row in each channel."""
    sizes = layer.sizes_of(x)
    if len(sizes) == 3 and sizes[1] == 1:
        return layer.reshape(x, sizes[0], sizes[2])
    if len(sizes) == 1:
        return layer.reshape(x, 1, sizes[0])
    if len(sizes) != 2:
        raise layer.refuse(f"it multiplies a blob of {len(sizes)} sizes")
    return x


def _turned(layer: Layer, x: ir.Value, turn: bool) -> ir.Value:
    if not turn:
        return x
    batch, rows, columns = layer.graph.shape(x)
    return layer.graph.node("Transpose", x, shape=(batch, columns, rows), perm=[0, 2, 1])


def _addend(layer: Layer, fixed: bool, kind: int, given: list[ir.Value], rows: int, columns: int) -> ir.Value | None:
    """What is added, with sizes that broadcast: one number, one for each row or column, or for each value."""
    graph = layer.graph
    if fixed:
        shapes = {0: (1, 1), 1: (rows, 1), 2: (rows, 1), 3: (rows, columns), 4: (1, columns)}
        if kind == -1:
            return None
        if kind not in shapes:
            raise layer.refuse(f"its constant addend is of kind {kind}")
        return graph.weight("c", layer.tagged(1, *shapes[kind]))
    if not given:
        return None
    sizes = layer.sizes_of(given[0])
    fitting: dict[Sizes, Sizes] = {(1,): (1, 1), (rows,): (rows, 1), (columns,): (1, columns)}
    fitting |= {size: size for size in ((rows, 1), (rows, columns), (1, columns))}
    if sizes not in fitting:
        raise layer.refuse(f"its addend of {sizes} fits no result of {rows} x {columns}")
    return layer.reshape(given[0], *fitting[sizes])


def matmul(layer: Layer) -> ir.Value:
    """MatMul, as numpy multiplies, each sample by itself.

    Raises:
        EdgewrightError: E215 where the sizes do not go together.
    """
    turned, graph = layer.flag(0), layer.graph
    if len(layer.inputs) != 2:
        raise layer.refuse(f"it reads {len(layer.inputs)} blobs, but needs 2")
    a, b = layer.inputs
    left, right = layer.sizes_of(a), layer.sizes_of(b)
    rank = max(len(left), len(right), 2)
    vector_a, vector_b = len(left) == 1, len(right) == 1
    left = (1,) * (rank - len(left)) + left
    right = (1,) * (rank - len(right)) + right
    if vector_b and not turned:
        right = (*right[:-2], right[-1], right[-2])
    a, b = layer.reshape(a, *left), layer.reshape(b, *right)
    if turned:
        right = (*right[:-2], right[-1], right[-2])
        perm = [*range(rank - 1), rank, rank - 1]
        b = graph.node("Transpose", b, shape=(graph.shape(b)[0], *right), perm=perm)
    outer = zip(left[:-2], right[:-2], strict=True)
    if left[-1] != right[-2] or any(1 not in pair and pair[0] != pair[1] for pair in outer):
        raise layer.refuse(f"its inputs of {left} and {right} cannot be multiplied")
    sizes = [max(pair) for pair in zip(left[:-2], right[:-2], strict=True)]
    y = graph.node("MatMul", a, b, shape=layer.shaped(*sizes, left[-2], right[-1]))
    kept = sizes + ([] if vector_a else [left[-2]]) + ([] if vector_b else [right[-1]])
    return layer.reshape(y, *(kept or [1]))


# --- attention ----------------------------------------------------------------------------------------------------------


def attention(layer: Layer) -> ir.Value:
    """MultiHeadAttention: softmax(q * k^T * scale + mask) * v between four affine maps.

    Raises:
        EdgewrightError: E204 for int8 or a cache, E215 where the sizes do not go together.
    """
    width, heads, size = layer.count(0), layer.integer(1, 1, low=1), layer.integer(2, 0)
    key_width, value_width = layer.integer(3, width, low=1), layer.integer(4, width, low=1)
    masked, cached, term = layer.flag(5), layer.flag(7), layer.flag(18)
    if cached or term:
        raise layer.unsupported("a cache, or int8,")
    if width % heads or size < 1 or size % width:
        raise layer.refuse(f"{size} weights and {heads} heads do not go together with a width of {width}")
    scale = layer.number(6, 1 / math.sqrt(width // heads))
    blobs = list(layer.inputs)
    mask = blobs.pop() if masked and len(blobs) > 1 else None
    q, k, v = (blobs + [blobs[-1]] * 2)[:3] if len(blobs) < 3 else blobs[:3]
    rows = [layer.sizes_of(x) for x in (q, k, v)]
    if [len(sizes) for sizes in rows] != [2] * 3 or rows[1][0] != rows[2][0]:
        raise layer.refuse(f"its inputs of {rows[0]}, {rows[1]} and {rows[2]} cannot be attended to")
    query_width = size // width
    parts = {"q": (q, query_width), "k": (k, key_width), "v": (v, value_width)}
    split = [_heads(layer, _affine(layer, x, part, inputs, width), heads) for part, (x, inputs) in parts.items()]
    y = _attended(layer, split, mask, scale)
    y = layer.reshape(_moved(layer, y, (0, 2, 1, 3)), rows[0][0], width)
    return _affine(layer, y, "out", width, query_width)


def scaled_attention(layer: Layer) -> ir.Value:
    """SDPA: the same without the maps, of blobs that have heads for channels; fewer of keys and values serve several.

    Raises:
        EdgewrightError: E204 for int8 or a cache, E215 where the sizes do not go together.
    """
    masked, cached, term = layer.flag(5), layer.flag(7), layer.flag(18)
    scale = layer.number(6, 0.0)
    if cached or term:
        raise layer.unsupported("a cache, or int8,")
    if len(layer.inputs) != 3 + masked or any(len(layer.sizes_of(x)) != 3 for x in layer.inputs[:3]):
        raise layer.refuse(f"it reads {len(layer.inputs)} blobs, but needs {3 + masked}, three of them with heads")
    q, k, v = layer.inputs[:3]
    (heads, _, width), (groups, rows, depth), other = (layer.sizes_of(x) for x in (q, k, v))
    if depth != width or other[:2] != (groups, rows) or heads % groups:
        raise layer.refuse(f"its inputs of {layer.sizes}, {layer.sizes_of(k)} and {other} cannot be attended to")
    shared = [_repeated(layer, x, heads // groups) for x in (k, v)]
    return _attended(layer, [q, *shared], layer.inputs[3] if masked else None, scale or 1 / math.sqrt(width))


def _repeated(layer: Layer, x: ir.Value, times: int) -> ir.Value:
    """Every head `times` times, one beside the other."""
    if times == 1:
        return x
    groups, rows, width = layer.sizes_of(x)
    apart, shape = layer.reshape(x, groups, 1, rows, width), (layer.graph.shape(x)[0], groups, times, rows, width)
    tiled = layer.graph.node("Tile", apart, layer.graph.ints(1, 1, times, 1, 1), shape=shape)
    return layer.reshape(tiled, groups * times, rows, width)


def _attended(layer: Layer, blobs: Sequence[ir.Value], mask: ir.Value | None, scale: float) -> ir.Value:
    """softmax(q * k^T * scale + mask) * v, each head by itself."""
    graph, (q, k, v) = layer.graph, blobs
    (heads, queries, _), (_, keys, width) = layer.sizes_of(q), layer.sizes_of(v)
    scaled = graph.node("Mul", q, graph.scalar(scale))
    scores = graph.node("MatMul", scaled, _moved(layer, k, (0, 1, 3, 2)), shape=layer.shaped(heads, queries, keys))
    if mask is not None:
        sizes = layer.sizes_of(mask)
        mask = layer.reshape(mask, *(1,) * (3 - len(sizes)), *sizes)
        if layer.sizes_of(mask) not in ((1, queries, keys), (heads, queries, keys)):
            raise layer.refuse(f"its mask of {sizes} does not fit {heads} x {queries} x {keys}")
        scores = graph.node("Add", scores, mask)
    return graph.node("MatMul", graph.node("Softmax", scores, axis=-1), v, shape=layer.shaped(heads, queries, width))


def _affine(layer: Layer, x: ir.Value, part: str, inputs: int, outputs: int) -> ir.Value:
    """x * weight^T + bias of rows."""
    graph = layer.graph
    if layer.sizes_of(x)[-1] != inputs:
        raise layer.refuse(f"its {part} has rows of {layer.sizes_of(x)[-1]}, but weights for {inputs}")
    weight = graph.weight(f"{part}.weight", np.ascontiguousarray(layer.tagged(outputs, inputs).T))
    shape = (graph.shape(x)[0], layer.sizes_of(x)[0], outputs)
    y = graph.node("MatMul", x, weight, shape=shape)
    return graph.node("Add", y, graph.weight(f"{part}.bias", layer.plain(outputs)))


def _heads(layer: Layer, x: ir.Value, heads: int) -> ir.Value:
    """Rows with the heads before them."""
    rows, width = layer.sizes_of(x)
    return _moved(layer, layer.reshape(x, rows, heads, width // heads), (0, 2, 1, 3))


def _moved(layer: Layer, x: ir.Value, perm: tuple[int, ...]) -> ir.Value:
    shape = layer.graph.shape(x)
    return layer.graph.node("Transpose", x, shape=[shape[axis] for axis in perm], perm=perm)
