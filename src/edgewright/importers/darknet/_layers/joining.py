"""Layers that read several others: route, shortcut, scale_channels, sam.

Source: AlexeyAB/darknet, parser.c, route_layer.c, shortcut_layer.c and blas.c (shortcut_multilayer_cpu).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewright.importers.darknet._layer import Layer, chw
from edgewright.importers.darknet._layers.activations import activate

if TYPE_CHECKING:
    import onnx_ir as ir

#: Added to the sum of weights when they are normalized.
_WEIGHT_EPSILON = 1e-4


def route(layer: Layer) -> ir.Value:
    """[route]: channels of several layers behind each other, of each only slice `group_id` of `groups`."""
    graph, section = layer.graph, layer.section
    groups, group = section.integer("groups", 1, low=1), section.integer("group_id", 0)
    if group >= groups:
        raise layer.refuse(f"option `group_id` is {group}, but must be below `groups`, which is {groups}", "group_id")
    parts = layer.sources("layers")
    _, height, width = chw(parts[0])
    slices = []
    for part in parts:
        channels, *place = chw(part)
        if place != [height, width]:
            raise layer.refuse(f"it joins {part.name} of {place[0]} x {place[1]} with {parts[0].name} of {height} x {width}",
                               "layers")  # fmt: skip
        if channels % groups:
            raise layer.refuse(f"option `groups` is {groups}, but {part.name} has {channels} channels", "groups")
        each = channels // groups
        slices.append(graph.slice(part, group * each, (group + 1) * each) if groups > 1 else part)
    if len(slices) == 1:
        return slices[0]
    total = sum(chw(part)[0] for part in slices)
    shape = (graph.shape(parts[0])[0], *layer.sized(total, height, width)[1:])
    return graph.node("Concat", *slices, shape=shape, axis=1)


def shortcut(layer: Layer) -> ir.Value:
    """[shortcut]: the sum of its input and other layers, weighted or not, then the activation."""
    graph, (channels, height, width) = layer.graph, layer.chw
    others = layer.sources("from")
    for other in others:
        if chw(other)[1:] != (height, width):
            c, h, w = chw(other)
            raise layer.refuse(f"{other.name} is {c} x {h} x {w}, which cannot be added to {channels} x {height} x {width}",
                               "from")  # fmt: skip
    terms = [layer.x, *(_fitted(layer, other, channels) for other in others)]
    factors = _factors(layer, len(terms), channels)
    if factors is not None:
        terms = [
            graph.node("Mul", term, graph.weight(f"factor.{number}", factors[number].reshape(1, -1, 1, 1)))
            for number, term in enumerate(terms)
        ]
    total = terms[0]
    for term in terms[1:]:
        total = graph.node("Add", total, term)
    return activate(layer, total, layer.section.text("activation", "linear"))


def _fitted(layer: Layer, other: ir.Value, channels: int) -> ir.Value:
    """`other` with that many channels: the surplus is dropped, what is missing adds nothing."""
    graph, (have, height, width) = layer.graph, chw(other)
    if have > channels:
        return graph.slice(other, 0, channels)
    if have < channels:
        shape = (graph.shape(other)[0], channels, height, width)
        return graph.node("Pad", other, graph.ints(0, 0, 0, 0, 0, channels - have, 0, 0), shape=shape)
    return other


def _factors(layer: Layer, count: int, channels: int) -> np.ndarray | None:
    """f32[inputs, 1 or C]: what each input is multiplied with, the layer's own first; None where nothing is."""
    section = layer.section
    kind = section.text("weights_type", "none")
    # Until 2020 Darknet had the option under a misspelled name.
    rule = section.text("weights_normalization", section.text("weights_normalizion", "none"))
    widths = {"none": 0, "per_feature": 1, "per_layer": 1, "per_channel": channels}
    rules = {"none": "none", "relu": "relu", "avg_relu": "relu", "softmax": "softmax"}
    if kind not in widths:
        raise layer.refuse(
            f"option `weights_type` is `{kind[:40]}`, but must be one of {', '.join(widths)}", "weights_type"
        )
    if rule not in rules:
        raise layer.refuse(f"option `weights_normalization` is `{rule[:40]}`, but must be one of {', '.join(rules)}",
                           "weights_normalization")  # fmt: skip
    if kind == "none":
        return None
    weights = layer.read({"scale": (count, widths[kind])})["scale"].astype(np.float64)
    if rules[rule] == "none":
        return weights.astype(np.float32)
    if rules[rule] == "relu":
        positive = np.maximum(weights, 0)
    else:
        positive = np.exp(weights - weights.max(axis=0))
    return np.asarray(positive / (positive.sum(axis=0) + _WEIGHT_EPSILON), np.float32)


def scale_channels(layer: Layer) -> ir.Value:
    """[scale_channels]: the map `from` times the input, which has one number for each channel (or place: scale_wh)."""
    (source,) = _one(layer)
    channels, height, width = chw(source)
    wanted = (1, height, width) if layer.section.flag("scale_wh") else (channels, 1, 1)
    if layer.chw != wanted:
        c, h, w = layer.chw
        raise layer.refuse(
            f"its input is {c} x {h} x {w}, but {source.name} of {channels} x {height} x {width} needs "
            f"{wanted[0]} x {wanted[1]} x {wanted[2]}"
        )
    return activate(layer, layer.graph.node("Mul", source, layer.x), layer.section.text("activation", "linear"))


def sam(layer: Layer) -> ir.Value:
    """[sam]: its input times the map `from`, element by element."""
    (source,) = _one(layer)
    if chw(source) != layer.chw:
        raise layer.refuse(f"{source.name} is {chw(source)}, but its input is {layer.chw}", "from")
    return activate(layer, layer.graph.node("Mul", layer.x, source), layer.section.text("activation", "linear"))


def _one(layer: Layer) -> list[ir.Value]:
    sources = layer.sources("from")
    if len(sources) != 1:
        raise layer.refuse(f"option `from` names {len(sources)} layers, but must name one", "from")
    return sources
