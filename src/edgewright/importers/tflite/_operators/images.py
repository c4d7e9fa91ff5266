"""Operators on images that have no weights: pools, resizing, blocks, normalization over channels.

Source: tensorflow/lite/kernels/internal/reference/pooling.h, resize_bilinear.h, resize_nearest_neighbor.h, reference_ops.h.
"""

from __future__ import annotations

import numpy as np

from edgewright.importers.tflite._operators.layers import padding, strides_of
from edgewright.importers.tflite._site import Site


def average_pool_2d(site: Site) -> None:
    """AVERAGE_POOL_2D: the mean of what lies inside the image."""
    _pool(site, "AveragePool", count_include_pad=0)


def max_pool_2d(site: Site) -> None:
    """MAX_POOL_2D."""
    _pool(site, "MaxPool")


def resize_bilinear(site: Site) -> None:
    """RESIZE_BILINEAR, with any of the three ways to place pixels."""
    _resize(site, mode="linear")


def resize_nearest_neighbor(site: Site) -> None:
    """RESIZE_NEAREST_NEIGHBOR: rounds down, or to the nearest where pixels are placed by centres or corners."""
    plain = not site.option("align_corners") and not site.option("half_pixel_centers")
    _resize(site, mode="nearest", nearest_mode="floor" if plain else "round_prefer_ceil")


def space_to_depth(site: Site) -> None:
    """SPACE_TO_DEPTH."""
    site.done(site.graph.node("SpaceToDepth", site.real(0, "nchw"), blocksize=site.positive("block_size")), "nchw")


def depth_to_space(site: Site) -> None:
    """DEPTH_TO_SPACE: the block's place is the slower part of the channel, which ONNX calls DCR."""
    made = site.graph.node("DepthToSpace", site.real(0, "nchw"), blocksize=site.positive("block_size"), mode="DCR")
    site.done(made, "nchw")


def local_response_normalization(site: Site) -> None:
    """LOCAL_RESPONSE_NORMALIZATION: over `radius` channels to each side; ONNX divides alpha by their number."""
    size = 2 * int(site.option("radius")) + 1
    if not 1 <= size <= 2**16:
        raise site.refuse(f"option `radius` is {size // 2}")
    alpha, beta, offset = (float(site.option(name)) for name in ("alpha", "beta", "bias"))
    made = site.graph.node("LRN", site.real(0, "nchw"), size=size, alpha=alpha * size, beta=beta, bias=offset)
    site.done(made, "nchw")


def l2_normalization(site: Site) -> None:
    """L2_NORMALIZATION: over the last axis; a length below 1e-6 counts as 1e-6."""
    layout = site.layout(0)
    axis = site.place(site.rank() - 1, layout)
    value = site.real(0, layout)
    length = site.graph.node("ReduceL2", value, site.graph.numbers([axis]), keepdims=1)
    length = site.graph.node("Max", length, site.graph.numbers(1e-6, np.float32))
    site.done(site.graph.node("Div", value, length), layout)


def _pool(site: Site, op_type: str, **attributes: int) -> None:
    kernel, strides = [site.positive(f"filter_{side}") for side in ("height", "width")], strides_of(site)
    pads = padding(site, site.shape(0)[1:3], kernel, strides)
    made = site.graph.node(op_type, site.real(0, "nchw"), kernel_shape=kernel, strides=strides, **pads, **attributes)
    site.done(made, "nchw")


def _resize(site: Site, **attributes: str) -> None:
    sides = site.integers(1)
    if len(sides) != 2 or not all(1 <= side <= 2**20 for side in sides):
        raise site.refuse(f"the new size {sides} is none")
    corners, centres = site.option("align_corners"), site.option("half_pixel_centers")
    where = "align_corners" if corners else "half_pixel" if centres else "asymmetric"
    image = site.real(0, "nchw")
    batch, _, _, channels = site.shape(0)
    if isinstance(batch, int) and isinstance(channels, int):
        sizes, axes = [batch, channels, *sides], {}
    else:
        sizes, axes = sides, {"axes": [2, 3]}
    made = site.graph.node(
        "Resize",
        image,
        None,
        None,
        site.graph.numbers(sizes),
        coordinate_transformation_mode=where,
        **attributes,
        **axes,
    )
    site.done(made, "nchw")
