"""Layers with weights.

Source: tensorflow/lite/kernels/internal/reference/conv.h, depthwiseconv_float.h, transpose_conv.h, fully_connected.h, padding.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.importers.tflite._graph import Size
from edgewright.importers.tflite._site import Site

if TYPE_CHECKING:
    import onnx_ir as ir

#: [O, H, W, I] and, of depthwise weights, [1, H, W, O]: to what Conv wants, [O, I, H, W].
_DENSE, _DEPTHWISE = (0, 3, 1, 2), (3, 0, 1, 2)
#: Largest integer bias that leaves room for the products.
_LARGEST_BIAS = 2**31 - 2**24
_TRANSPOSED = (3, 0, 1, 2)  # to [I, O, H, W]


def conv_2d(site: Site) -> None:
    """CONV_2D: weights [O, H, W, I]; fewer input channels than the image has mean groups."""
    image, weights = site.shape(0), _weights(site, 1)
    channels = image[3] if len(image) == 4 else None
    groups = 1
    if isinstance(channels, int):
        if weights[3] < 1 or channels % weights[3]:
            raise site.refuse(f"weights for {weights[3]} channels, but the input has {channels}")
        groups = channels // weights[3]
    _convolve(site, _DENSE, weights[1:3], groups)


def depthwise_conv_2d(site: Site) -> None:
    """DEPTHWISE_CONV_2D: weights [1, H, W, O], `depth_multiplier` outputs of each channel side by side."""
    image, weights = site.shape(0), _weights(site, 1)
    channels = image[3] if len(image) == 4 else None
    if not isinstance(channels, int):
        channels = weights[3] // site.positive("depth_multiplier")
    if channels < 1 or weights[3] % channels or weights[0] != 1:
        raise site.refuse(f"weights of shape {list(weights)} for {channels} channels")
    _convolve(site, _DEPTHWISE, weights[1:3], channels)


def transpose_conv(site: Site) -> None:
    """TRANSPOSE_CONV: the size that comes out is an input; weights [O, H, W, I].

    Padding is that of the convolution whose gradient this is: the side that is cut off follows from the output's size.
    """
    size, weights = site.integers(0), _weights(site, 1)
    image = site.shape(2)
    if len(size) != 4 or len(image) != 4 or not all(isinstance(side, int) for side in image[1:3]):
        raise site.refuse("it needs an image of a known size, and the four sizes of its output", "E209")
    strides = _pair(site, "stride")
    same, starts, ends, extra = site.option("padding") == 0, [], [], []
    for wide, narrow, kernel, stride in zip(size[1:3], image[1:3], weights[1:3], strides, strict=True):
        full = (int(narrow or 0) - 1) * stride + kernel
        if not 0 < wide < full + stride:
            raise site.refuse(f"an output side of {wide} cannot come from {narrow} with stride {stride}")
        cut = max(full - wide, 0)
        starts.append(cut // 2 if same else 0)
        ends.append(cut - starts[-1])
        extra.append(max(wide - full, 0))
    made = site.graph.node(
        "ConvTranspose",
        site.real(2, "nchw"),
        site.network.arranged(site.index(1), _TRANSPOSED),
        bias(site, 3, 2, 1),
        strides=strides,
        pads=[*starts, *ends],
        output_padding=extra,
    )
    site.done(made, "nchw")


def fully_connected(site: Site) -> None:
    """FULLY_CONNECTED: weights [O, I]; the input's last axis, or all but the first together, are the I."""
    if site.option("weights_format") != 0:
        raise site.refuse("its weights are shuffled for one CPU's kernels", "E204")
    if site.rank(1) != 2:
        raise site.refuse(f"{site.describe(1)} has {site.rank(1)} axes, but must have 2")
    sizes, width = site.shape(0), site.shape(1)[1]
    value = site.real(0)
    if len(sizes) > 2 and site.option("keep_num_dims"):
        made = site.graph.node("MatMul", value, site.network.arranged(site.index(1), (1, 0)))
        offset = bias(site, 2, 0, 1)
        site.done(made if offset is None else site.graph.node("Add", made, offset))
        return
    if len(sizes) != 2:
        value = site.graph.node("Reshape", value, site.graph.numbers(_rows(sizes, width)))
    site.done(site.graph.node("Gemm", value, site.real(1), bias(site, 2, 0, 1), transB=1))


def batch_matmul(site: Site) -> None:
    """BATCH_MATMUL: matrices in the last two axes, each transposed where an option says so."""
    operands = []
    for number, name in enumerate(("adj_x", "adj_y")):
        order = list(range(site.rank(number)))
        if len(order) < 2:
            raise site.refuse(f"{site.describe(number)} is no matrix")
        order[-2:] = [order[-1], order[-2]] if site.option(name) else order[-2:]
        plain = order == sorted(order)
        operands.append(site.real(number) if plain else site.network.arranged(site.index(number), order))
    site.done(site.graph.node("MatMul", *operands))


def padding(
    site: Site, sizes: Sequence[Size], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int] = (1, 1)
) -> dict[str, Any]:
    """Attributes for the padding of a window over two axes.

    SAME: as many outputs as steps fit, the missing border split in two, the larger part behind.
    """
    if site.option("padding") not in (0, 1):
        raise site.refuse(f"option `padding` is {site.option('padding')}, but must be 0 or 1")
    if len(sizes) != 2:
        raise site.refuse(f"{site.describe(0)} has {site.rank()} axes, but must have 4")
    if site.option("padding") == 1:
        return {}
    if not all(isinstance(size, int) for size in sizes):
        return {"auto_pad": "SAME_UPPER"}
    starts, ends = [], []
    for size, length, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        assert isinstance(size, int)
        missing = max((-(-size // stride) - 1) * stride + (length - 1) * dilation + 1 - size, 0)
        starts.append(missing // 2)
        ends.append(missing - missing // 2)
    return {"pads": [*starts, *ends]}


def strides_of(site: Site) -> list[int]:
    """Height and width of the step."""
    return _pair(site, "stride")


def bias(site: Site, number: int, data: int, weights: int) -> ir.Value | None:
    """The bias in real numbers: integers count in steps of input times weights, whatever the file says of them."""
    if not site.has(number):
        return None
    index = site.index(number)
    array, steps = site.network.array(index), site.network.steps
    of_data, of_weights = steps(site.index(data)), steps(site.index(weights))
    if array is None or array.dtype.kind != "i":
        return site.network.real(index)
    if of_data is None or of_weights is None or len(of_data.scale) != 1:
        raise site.refuse(f"{site.describe(number)} holds integers, but its layer is not quantized")
    site.network.parameters(site.index(data))
    site.network.parameters(site.index(weights))
    scale = of_data.scale * of_weights.scale
    if scale.size not in (1, array.size) or array.ndim != 1:
        raise site.refuse(f"{site.describe(number)} has {array.size} numbers for {scale.size} channels")
    if array.size and np.abs(array.astype(np.float64)).max() >= _LARGEST_BIAS and array.dtype == np.int32:
        site.network.warnings.append(
            f"`{site.network.file_name}`: operator {site.operator.index} {site.operator.kind}: {site.describe(number)} is "
            "near the limit of int32, where LiteRT's own sums overflow and the import's do not; channels whose weights are "
            "all but 0 are the usual cause"
        )
    if array.dtype != np.int32:  # of layers with int16 activations: beyond what DequantizeLinear takes
        return site.graph.constant((array * scale).astype(np.float32), site.graph.fresh(f"{site.graph.scope}:bias"))
    shape = () if scale.size == 1 else scale.shape
    return site.graph.node(
        "DequantizeLinear", site.network.stored(index), site.graph.numbers(scale.reshape(shape), np.float32), axis=0
    )


def _convolve(site: Site, order: Sequence[int], kernel: Sequence[int], groups: int) -> None:
    strides, dilations = _pair(site, "stride"), _pair(site, "dilation", "_factor")
    sizes = site.shape(0)
    made = site.graph.node(
        "Conv",
        site.real(0, "nchw"),
        site.network.arranged(site.index(1), order),
        bias(site, 2, 0, 1),
        kernel_shape=list(kernel),
        strides=strides,
        dilations=dilations,
        group=groups,
        **padding(site, sizes[1:3], kernel, strides, dilations),
    )
    site.done(made, "nchw")


def _weights(site: Site, number: int) -> tuple[int, ...]:
    """Sizes of weights of four axes."""
    sizes = site.shape(number)
    if len(sizes) != 4 or not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise site.refuse(
            f"{site.describe(number)} has the shape {list(sizes)}, but must have four sizes of at least 1"
        )
    return tuple(int(size or 0) for size in sizes)


def _pair(site: Site, stem: str, end: str = "") -> list[int]:
    return [site.positive(f"{stem}_{side}{end}") for side in ("h", "w")]


def _rows(sizes: Sequence[Size], width: Size) -> list[int]:
    """Target of the reshape to rows of `width`, with the batch as it is where it is the rows."""
    if not isinstance(width, int):
        return [0, -1]
    inner = 1
    for size in sizes[1:]:
        inner = inner * size if isinstance(size, int) else -1
    return [0, width] if inner == width else [-1, width]
