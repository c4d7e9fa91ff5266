"""Operators between real numbers and integers."""

from __future__ import annotations

import numpy as np

from edgewright.importers.tflite._site import Site


def quantize(site: Site) -> None:
    """QUANTIZE: real numbers to integers, or integers to other steps."""
    layout = site.layout(0)
    site.done(site.real(0, layout), layout)


def dequantize(site: Site) -> None:
    """DEQUANTIZE: integers to real numbers. Weights in float16 become float32 here, once and for all; those in integers
    are given to their layer as such.
    """
    index = site.index(0)
    array = site.network.array(index)
    if array is not None and array.dtype == np.float16 and site.operator.outputs:
        site.network.set_array(site.operator.outputs[0], array.astype(np.float32))
        return
    if array is not None and site.network.steps(index) is not None and site.operator.outputs:
        site.network.decoded[site.operator.outputs[0]] = index
        return
    layout = site.layout(0)
    if site.network.steps(index) is None:
        site.done(site.graph.node("Cast", site.real(0, layout), to=1), layout)
        return
    site.done(site.network.dequantized_again(index, layout), layout)
