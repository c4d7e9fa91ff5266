"""Convolutions: plain, grouped, dilated, shared, binarized, with a blur behind; and pjreddie's transposed one.

Source: AlexeyAB/darknet, parser.c (parse_convolutional) and convolutional_layer.c; pjreddie/darknet, deconvolutional_layer.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.darknet._layer import Layer, Parameters, chw
from edgewright.importers.darknet._layers.activations import activate

if TYPE_CHECKING:
    import onnx_ir as ir

#: Darknet's .00001f.
NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Window:
    """How a kernel moves: size, strides (y, x), padding on each side and dilation."""

    size: int
    strides: tuple[int, int] = (1, 1)
    padding: int = 0
    dilation: int = 1

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what it makes; below 1 where it does not fit."""
        extent = self.dilation * (self.size - 1) + 1
        pad = 2 * self.padding * self.dilation
        return (height + pad - extent) // self.strides[0] + 1, (width + pad - extent) // self.strides[1] + 1


def convolutional(layer: Layer) -> ir.Value:
    """[convolutional]: convolution, batch-norm, activation, blur."""
    section = layer.section
    activation = section.text("activation", "logistic")
    window = read_window(layer)
    blur_mode, strides = section.integer("antialiasing", 0), window.strides
    if blur_mode:
        window = Window(window.size, (1, 1), window.padding, window.dilation)
    filters, groups = section.integer("filters", 1, low=1), max(section.integer("groups", 1), 1)
    # Cross-iteration batch-norm is plain batch-norm at inference, and turns it on.
    norm = section.flag("cbn") | section.flag("batch_normalize")
    x, binary = layer.x, section.flag("binary") | section.flag("xnor")
    if section.flag("xnor"):
        x, groups = _signs(layer, x), 1  # Darknet has no groups here
    parameters = _parameters(layer, filters, window, groups, norm, binary)
    y = convolve(layer, x, parameters, window, groups)
    y = activate(layer, y, activation)
    return blurred(layer, y, strides, blur_mode) if blur_mode else y


def read_window(layer: Layer, default_size: int = 1) -> Window:
    """The kernel that a section's options describe; `pad` stands for padding that keeps the size."""
    section = layer.section
    size = section.integer("size", default_size, low=1)
    stride = section.integer("stride", 1, low=1)
    across = section.integer("stride_x", 0) or stride
    down = section.integer("stride_y", 0) or stride
    dilation = section.integer("dilation", 1, low=1) if size > 1 else 1
    section.has("dilation")
    padding = section.integer("padding", 0)
    return Window(size, (down, across), size // 2 if section.flag("pad") else padding, dilation)


def read_convolution(
    layer: Layer, channels: int, filters: int, window: Window, groups: int, norm: bool, part: str = ""
) -> Parameters:
    """Biases, [scales, mean, variance,] weights of one convolution; `part` names it inside a layer that has several.

    Raises:
        EdgewrightError: E202 where the file has too few bytes left, E214 where groups do not divide the channels.
    """
    if channels % groups or filters % groups:
        raise layer.refuse(
            f"option `groups` is {groups}, but must divide its {channels} channels and {filters} filters", "groups"
        )
    shape = (filters, channels // groups, window.size, window.size)
    flipped = layer.section.flag("flipped") and not part
    stored = (shape[1] * window.size * window.size, filters) if flipped else shape
    arrays = layer.read({"bias": (filters,), **norm_shapes(layer, filters, norm, part), "weight": stored})
    if flipped:
        arrays["weight"] = arrays["weight"].T.reshape(shape)
    return entered(layer, arrays, filters, norm, part)


def entered(layer: Layer, arrays: dict[str, np.ndarray], outputs: int, norm: bool, part: str) -> Parameters:
    """Arrays as constants of the graph. With batch-norm the biases are those of the norm."""
    dot = f"{part}." if part else ""
    weight = layer.graph.weight(f"{dot}weight", arrays["weight"])
    if not norm:
        return Parameters(weight, layer.graph.weight(f"{dot}bias", arrays["bias"]), None)
    names = ("scale", "bias", "mean", "variance")
    given = [arrays[name] if name in arrays else layer.initial(name, (outputs,)) for name in names]
    norms = tuple(layer.graph.weight(f"{dot}bn.{name}", array) for name, array in zip(names, given, strict=True))
    return Parameters(weight, None, norms)


def norm_shapes(layer: Layer, outputs: int, norm: bool, part: str = "") -> dict[str, tuple[int, ...]]:
    """The batch-norm triple, where the file has it; layers inside a recurrent one always do."""
    if norm and not part and layer.section.flag("dontloadscales"):
        layer.warn("dontloadscales=1: Darknet's initial scale 1, mean 0 and variance 0 stand", "dontloadscales")
        return {}
    layer.section.has("dontloadscales")
    return dict.fromkeys(("scale", "mean", "variance"), (outputs,)) if norm else {}


def convolve(layer: Layer, x: ir.Value, parameters: Parameters, window: Window, groups: int) -> ir.Value:
    """Convolution and batch-norm.

    Raises:
        EdgewrightError: E214 where the kernel is larger than what it moves over.
    """
    assert parameters.weight.shape is not None
    filters = int(parameters.weight.shape[0])
    _, height, width = chw(x)
    layer.sized(filters, *window.output(height, width))
    pad = window.padding * window.dilation
    y = layer.graph.node(
        "Conv", x, parameters.weight, *([parameters.bias] if parameters.bias is not None else []),
        shape=(layer.graph.shape(x)[0], filters, *window.output(height, width)),
        kernel_shape=[window.size] * 2, strides=list(window.strides), pads=[pad] * 4,
        dilations=[window.dilation] * 2, group=groups,
    )  # fmt: skip
    return normalized(layer, y, parameters)


def normalized(layer: Layer, y: ir.Value, parameters: Parameters) -> ir.Value:
    """(y - mean) / sqrt(variance + 1e-5) * scale + bias, where the layer has batch-norm."""
    if parameters.norm is None:
        return y
    return layer.graph.node("BatchNormalization", y, *parameters.norm, epsilon=NORM_EPSILON)


def blurred(layer: Layer, x: ir.Value, strides: tuple[int, int], mode: int) -> ir.Value:
    """antialiasing: [1 2 1] x [1 2 1] / 16 with padding 1, or with 2 a box of 2 x 2, each channel by itself."""
    row = np.array([1, 2, 1] if mode != 2 else [1, 1], np.float32)
    kernel = np.outer(row, row) / row.sum() ** 2
    channels, height, width = chw(x)
    window = Window(len(row), strides, 1 if mode != 2 else 0)
    shape = layer.sized(channels, *window.output(height, width))
    weight = layer.graph.weight("blur", np.tile(kernel.astype(np.float32), (channels, 1, 1, 1)))
    return layer.graph.node(
        "Conv", x, weight, shape=shape, kernel_shape=[window.size] * 2, strides=list(strides),
        pads=[window.padding] * 4, group=channels,
    )  # fmt: skip


def deconvolutional(layer: Layer) -> ir.Value:
    """[deconvolutional] of pjreddie/darknet: transposed convolution; `padding` is cut off the result."""
    section, (channels, height, width) = layer.section, layer.chw
    window = read_window(layer)
    filters, norm = section.integer("filters", 1, low=1), section.flag("batch_normalize")
    shape = (channels, filters, window.size, window.size)
    outputs = [
        (side - 1) * stride + window.size - 2 * window.padding
        for side, stride in zip((height, width), window.strides, strict=True)
    ]
    sized = layer.sized(filters, *outputs)
    arrays = layer.read({"bias": (filters,), **norm_shapes(layer, filters, norm), "weight": shape})
    parameters = entered(layer, arrays, filters, norm, "")
    y = layer.graph.node(
        "ConvTranspose", layer.x, parameters.weight, *([parameters.bias] if parameters.bias is not None else []),
        shape=sized, kernel_shape=[window.size] * 2, strides=list(window.strides), pads=[window.padding] * 4,
    )  # fmt: skip
    return activate(layer, normalized(layer, y, parameters), section.text("activation", "logistic"))


def _parameters(layer: Layer, filters: int, window: Window, groups: int, norm: bool, binary: bool) -> Parameters:
    """The layer's own parameters, or those of the layer that share_index names.

    Raises:
        EdgewrightError: E214 where that layer has none, or of another form.
    """
    form = (layer.chw[0], filters, window.size, groups, int(norm), int(binary))
    if layer.section.has("share_index"):
        other = layer.resolve(layer.section.signed("share_index", 0), "share_index")
        parameters, theirs = layer.network.shared.get(other, (None, ()))
        if parameters is None or theirs != form:
            raise layer.refuse(
                f"option `share_index` names layer {other}, which is no [convolutional] of the same size and form",
                "share_index",
            )
    else:
        parameters = read_convolution(layer, layer.chw[0], filters, window, groups, norm)
        if binary:
            _binarize(parameters.weight)
    layer.network.shared[layer.index] = (parameters, form)
    return parameters


def _binarize(weight: ir.Value) -> None:
    """Each filter becomes its signs times the mean of its absolute values."""
    import onnx_ir as ir

    assert weight.const_value is not None
    array = weight.const_value.numpy()
    mean = np.abs(array).mean(axis=(1, 2, 3), keepdims=True)
    weight.const_value = ir.Tensor(np.where(array > 0, mean, -mean).astype(np.float32), name=weight.name)


def _signs(layer: Layer, x: ir.Value) -> ir.Value:
    """1 above 0, else -1."""
    graph = layer.graph
    positive = graph.typed(graph.node("Greater", x, graph.scalar(0)), np.bool_)
    return graph.node("Where", positive, graph.scalar(1), graph.scalar(-1), shape=graph.shape(x))
