"""Layers without an input: Input, MemoryData.

Source: Tencent/ncnn, src/layer/input.cpp and memorydata.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.importers.ncnn._layer import Layer, Sizes

if TYPE_CHECKING:
    import onnx_ir as ir

#: Numbers of the parameters w, h, d and c.
_W, _H, _D, _C = 0, 1, 11, 2


def entry(layer: Layer) -> ir.Value:
    """Input: the graph input, f32[N, *sizes].

    Raises:
        EdgewrightError: E209 where neither the line nor an option says its sizes.
    """
    given = _sizes(layer)
    sizes = layer.network.input_sizes or given
    if len(layer.line.tops) != 1:
        raise layer.refuse(f"it makes {len(layer.line.tops)} blobs")
    if not sizes:
        problem = layer.line.refuse("it does not say its sizes, and what follows needs them", code="E209")
        raise EdgewrightError("E209", problem.message, hint="--set ncnn.input_shape=1,3,224,224")
    return layer.graph.input(layer.line.tops[0], (layer.graph.batch, *layer.shaped(*sizes)[1:]))


def memory(layer: Layer) -> ir.Value:
    """MemoryData: a constant, f32[1, *sizes]."""
    sizes = _sizes(layer)
    plain = layer.integer(21, 1, low=0, high=1) == 1
    if not sizes:
        raise layer.refuse("it does not say its sizes")
    array = layer.plain(*sizes) if plain else layer.tagged(*sizes)
    return layer.graph.weight("value", array[np.newaxis])


def _sizes(layer: Layer) -> Sizes:
    """Sizes that the line gives, outermost first; those that are 0 do not exist."""
    w, h, d, c = (layer.integer(key, 0, low=0) for key in (_W, _H, _D, _C))
    given = tuple(size for size in (c, d, h, w) if size)
    if (given and not w) or ((c or d) and not h) or (d and not c):
        raise layer.refuse(f"sizes w, h, d, c are {w}, {h}, {d}, {c}: inner ones are missing")
    return given
