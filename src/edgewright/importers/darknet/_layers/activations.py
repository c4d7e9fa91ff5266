"""Darknet's 23 activations in standard operators.

Source: AlexeyAB/darknet, activations.h and activations.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgewright.graph.building import Graph
from edgewright.importers.darknet._layer import Layer

if TYPE_CHECKING:
    import onnx_ir as ir

Activation = Callable[[Graph, "ir.Value"], "ir.Value"]
#: Added to sums over channels.
_NORM_EPSILON = 1e-4


def activate(layer: Layer, x: ir.Value, name: str) -> ir.Value:
    """`name` of x, elementwise or over channels. Unknown names are relu, as in Darknet, with a warning."""
    if name not in ACTIVATIONS:
        layer.warn(f"activation `{name[:40]}` is not known; Darknet takes relu for it", "activation")
        name = "relu"
    return ACTIVATIONS[name](layer.graph, x)


def _unary(op_type: str, **attributes: Any) -> Activation:
    return lambda graph, x: graph.node(op_type, x, **attributes)


def _linear(graph: Graph, x: ir.Value) -> ir.Value:
    del graph
    return x


def _clip(graph: Graph, x: ir.Value, low: float, high: float) -> ir.Value:
    return graph.node("Clip", x, graph.scalar(low), graph.scalar(high))


def _scaled(graph: Graph, x: ir.Value, factor: float) -> ir.Value:
    return graph.node("Mul", x, graph.scalar(factor))


def _relu6(graph: Graph, x: ir.Value) -> ir.Value:
    return _clip(graph, x, 0, 6)


def _hardtan(graph: Graph, x: ir.Value) -> ir.Value:
    return _clip(graph, x, -1, 1)


def _loggy(graph: Graph, x: ir.Value) -> ir.Value:
    return graph.node("Sub", _scaled(graph, graph.node("Sigmoid", x), 2), graph.scalar(1))


def _ramp(graph: Graph, x: ir.Value) -> ir.Value:
    return graph.node("Add", graph.node("Relu", x), _scaled(graph, x, 0.1))


def _swish(graph: Graph, x: ir.Value) -> ir.Value:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


def _gelu(graph: Graph, x: ir.Value) -> ir.Value:
    """0.5 x (1 + tanh(0.797885 x + 0.035677 x^3)); Gelu's own constants have more digits."""
    square = graph.node("Mul", x, x)
    factor = graph.node("Add", _scaled(graph, square, 0.035677), graph.scalar(0.797885))
    curve = graph.node("Add", graph.node("Tanh", graph.node("Mul", x, factor)), graph.scalar(1))
    return graph.node("Mul", _scaled(graph, x, 0.5), curve)


def _slopes(graph: Graph, x: ir.Value, low: float, high: float, inner: tuple[float, float], outer: float) -> ir.Value:
    """`slope * x + offset` (`inner`) from low to high, and the slope `outer` beyond both."""
    slope, offset = inner
    middle = _clip(graph, x, low, high)
    beyond = _scaled(graph, graph.node("Sub", x, middle), outer)
    line = _scaled(graph, middle, slope) if slope != 1 else middle
    line = graph.node("Add", line, graph.scalar(offset)) if offset else line
    return graph.node("Add", line, beyond)


def _plse(graph: Graph, x: ir.Value) -> ir.Value:
    return _slopes(graph, x, -4, 4, (0.125, 0.5), 0.01)


def _lhtan(graph: Graph, x: ir.Value) -> ir.Value:
    return _slopes(graph, x, 0, 1, (1, 0), 0.001)


def _stair(graph: Graph, x: ir.Value) -> ir.Value:
    """n = floor(x): floor(x / 2) where n is even, and x - n more where it is odd."""
    whole = graph.node("Floor", x)
    step = graph.node("Floor", _scaled(graph, x, 0.5))
    odd = graph.node("Sub", whole, _scaled(graph, step, 2))
    return graph.node("Add", graph.node("Mul", graph.node("Sub", x, whole), odd), step)


def _hard_mish(graph: Graph, x: ir.Value) -> ir.Value:
    """x above 0, x^2 / 2 + x down to -2, then 0."""
    low = _clip(graph, x, -2, 0)
    curve = graph.node("Add", _scaled(graph, graph.node("Mul", low, low), 0.5), low)
    return graph.node("Add", graph.node("Relu", x), curve)


def _over_channels(graph: Graph, positive: ir.Value) -> ir.Value:
    batch, _, *places = graph.shape(positive)
    total = graph.node("ReduceSum", positive, graph.ints(1), shape=(batch, 1, *places), keepdims=1)
    return graph.node("Div", positive, graph.node("Add", total, graph.scalar(_NORM_EPSILON)))


def _norm_chan(graph: Graph, x: ir.Value) -> ir.Value:
    return _over_channels(graph, graph.node("Relu", x))


def _norm_chan_softmax(graph: Graph, x: ir.Value) -> ir.Value:
    return _over_channels(graph, graph.node("Exp", x))


def _norm_chan_softmax_maxval(graph: Graph, x: ir.Value) -> ir.Value:
    batch, _, *places = graph.shape(x)
    highest = graph.node("ReduceMax", x, graph.ints(1), shape=(batch, 1, *places), keepdims=1)
    return _norm_chan_softmax(graph, graph.node("Sub", x, highest))


#: Name in the cfg -> nodes.
ACTIVATIONS: dict[str, Activation] = {
    "linear": _linear,
    "logistic": _unary("Sigmoid"),
    "loggy": _loggy,
    "relu": _unary("Relu"),
    "relu6": _relu6,
    "relie": _unary("LeakyRelu", alpha=0.01),
    "ramp": _ramp,
    "tanh": _unary("Tanh"),
    "plse": _plse,
    "leaky": _unary("LeakyRelu", alpha=0.1),
    "revleaky": _unary("LeakyRelu", alpha=0.1),
    "elu": _unary("Elu", alpha=1.0),
    "selu": _unary("Selu", alpha=1.6732, gamma=1.0507),
    "gelu": _gelu,
    "stair": _stair,
    "hardtan": _hardtan,
    "lhtan": _lhtan,
    "swish": _swish,
    "mish": _unary("Mish"),
    "hard_mish": _hard_mish,
    "normalize_channels": _norm_chan,
    "normalize_channels_softmax": _norm_chan_softmax,
    "normalize_channels_softmax_maxval": _norm_chan_softmax_maxval,
}
