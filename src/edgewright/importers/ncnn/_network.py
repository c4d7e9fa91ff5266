"""Line by line to the graph: one table from a layer's type to the function that builds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgewright.errors import EdgewrightError
from edgewright.formats.ncnn.reading import Line
from edgewright.importers.ncnn._layer import Layer, Network
from edgewright.importers.ncnn._layers import (
    convolution,
    dense,
    detection,
    joining,
    normalization,
    pointwise,
    pooling,
    recurrent,
    resizing,
    shaping,
    sources,
)

if TYPE_CHECKING:
    import onnx_ir as ir

Builder = Callable[[Layer], "ir.Value | Sequence[ir.Value]"]
#: Type of a layer -> its builder, which returns a value for every blob that it makes.
BUILDERS: dict[str, Builder] = {
    "AbsVal": pointwise.absolute,
    "BNLL": pointwise.softplus,
    "BatchNorm": normalization.batch_norm,
    "Bias": pointwise.bias,
    "BinaryOp": joining.binary,
    "CELU": pointwise.celu,
    "Clip": pointwise.clip,
    "Concat": joining.concat,
    "Convolution": convolution.convolution(2),
    "Convolution1D": convolution.convolution(1),
    "Convolution3D": convolution.convolution(3),
    "ConvolutionDepthWise": convolution.convolution(2, grouped=True),
    "ConvolutionDepthWise1D": convolution.convolution(1, grouped=True),
    "ConvolutionDepthWise3D": convolution.convolution(3, grouped=True),
    "Crop": shaping.crop,
    "CumulativeSum": shaping.cumulative_sum,
    "Deconvolution": convolution.deconvolution(2),
    "Deconvolution1D": convolution.deconvolution(1),
    "Deconvolution3D": convolution.deconvolution(3),
    "DeconvolutionDepthWise": convolution.deconvolution(2, grouped=True),
    "DeconvolutionDepthWise1D": convolution.deconvolution(1, grouped=True),
    "DeconvolutionDepthWise3D": convolution.deconvolution(3, grouped=True),
    "DetectionOutput": detection.cut,
    "Dropout": pointwise.dropout,
    "ELU": pointwise.elu,
    "Eltwise": joining.eltwise,
    "Erf": pointwise.erf,
    "Exp": pointwise.exponential,
    "ExpandDims": shaping.expand_dims,
    "Flatten": shaping.flatten,
    "GELU": pointwise.gelu,
    "GLU": shaping.glu,
    "GRU": recurrent.gru,
    "Gemm": dense.gemm,
    "GroupNorm": normalization.group_norm,
    "HardSigmoid": pointwise.hard_sigmoid,
    "HardSwish": pointwise.hard_swish,
    "InnerProduct": dense.inner_product,
    "Input": sources.entry,
    "InstanceNorm": normalization.instance_norm,
    "Interp": resizing.interp,
    "LRN": normalization.local_response,
    "LSTM": recurrent.lstm,
    "LayerNorm": normalization.layer_norm,
    "Log": pointwise.logarithm,
    "MatMul": dense.matmul,
    "MemoryData": sources.memory,
    "Mish": pointwise.mish,
    "MultiHeadAttention": dense.attention,
    "Noop": pointwise.same,
    "Normalize": normalization.normalize,
    "PReLU": pointwise.prelu,
    "Padding": shaping.padding,
    "Permute": shaping.permute,
    "PixelShuffle": resizing.pixel_shuffle,
    "Pooling": pooling.pooling(2),
    "Pooling1D": pooling.pooling(1),
    "Pooling3D": pooling.pooling(3),
    "Power": pointwise.power,
    "PriorBox": detection.prior_box,
    "RMSNorm": normalization.rms_norm,
    "RNN": recurrent.rnn,
    "ReLU": pointwise.relu,
    "Reduction": shaping.reduction,
    "Reorg": resizing.reorg,
    "Reshape": shaping.reshape,
    "SDPA": dense.scaled_attention,
    "SELU": pointwise.selu,
    "Scale": pointwise.scale,
    "Shrink": pointwise.shrink,
    "ShuffleChannel": resizing.shuffle_channel,
    "Sigmoid": pointwise.sigmoid,
    "Slice": shaping.slices,
    "Softmax": pointwise.softmax,
    "Softplus": pointwise.softplus,
    "Split": pointwise.split,
    "Squeeze": shaping.squeeze,
    "Swish": pointwise.swish,
    "TanH": pointwise.tanh,
    "Threshold": pointwise.threshold,
    "Tile": shaping.tile,
    "UnaryOp": pointwise.unary,
    "YoloDetectionOutput": detection.cut,
    "Yolov3DetectionOutput": detection.cut,
}
#: Layers without an input.
_SOURCES = ("Input", "MemoryData")


def check_kinds(lines: Sequence[Line]) -> None:
    """Refuse layers that are not known, before any weight is read.

    Raises:
        EdgewrightError: E201 where there is no layer, E204 for one that nobody knows, E215 for one without blobs.
    """
    if not lines:
        raise EdgewrightError("E201", "the .param has no layer")
    for line in lines:
        if line.kind not in BUILDERS:
            hint = "known: " + ", ".join(sorted(BUILDERS))
            if "." in line.kind:
                hint = "this is pnnx's own file; take the one that ends in .ncnn.param"
            problem = line.refuse("no layer of this type can be read here", code="E204")
            raise EdgewrightError("E204", problem.message, hint=hint)
        if not line.tops or bool(line.bottoms) == (line.kind in _SOURCES):
            raise line.refuse(f"it reads {len(line.bottoms)} blobs and makes {len(line.tops)}")


def build(lines: Sequence[Line], network: Network) -> None:
    """Add every layer to the network's graph, and its outputs: the blobs that nothing reads.

    Raises:
        EdgewrightError: E202, E204, E209 and E215, each with the layer's line.
    """
    for line in lines:
        for name in line.bottoms:
            if name in network.gone:
                raise line.refuse(
                    f"it reads blob `{name}` of {network.gone[name].label}, which is left out", code="E204"
                )
        network.graph.scope = line.tops[0]
        layer = Layer(line, network, [network.blobs[name] for name in line.bottoms])
        if any(isinstance(value, str) for value in line.values.values()):
            raise layer.unsupported("a parameter that is computed, or any other text,")
        made = BUILDERS[line.kind](layer)
        values = made if isinstance(made, Sequence) else [made]
        _enter(layer, values)
        for key in layer.unknown:
            layer.warn(f"parameter {key} is not known and has no effect")
    _finish(lines, network)


def _enter(layer: Layer, values: Sequence[ir.Value]) -> None:
    """Give the layer's blobs their names."""
    line, network = layer.line, layer.network
    if line.tops[0] in network.gone:
        return
    if len(values) != len(line.tops):
        raise layer.refuse(f"it makes {len(line.tops)} blobs, but can make {len(values)}")
    for name, value in zip(line.tops, values, strict=True):
        # What is handed on as it is, and what no node makes, keeps its own name.
        handed_on = value.producer() is None or any(value is given for given in layer.inputs)
        network.blobs[name] = value if handed_on else network.graph.named(value, name)


def _finish(lines: Sequence[Line], network: Network) -> None:
    """Graph outputs, in the order of the lines."""
    read = {name for line in lines for name in line.bottoms}
    graph, count = network.graph, 0
    for line in lines:
        for name in line.tops:
            if name in network.gone or line.kind == "Input" or (name in read and name not in network.cut):
                continue
            value = network.blobs[name]
            graph.scope = name
            graph.output(value if value.name == name else graph.named(graph.node("Identity", value), name))
            count += 1
    if not count:
        raise lines[-1].refuse("no layer of the network makes an output")
