"""Detection heads: what Darknet stores as their output. Boxes are decoded by the task `detect`, which is told how.

Source: AlexeyAB/darknet, yolo_layer.c, gaussian_yolo_layer.c, region_layer.c and detection_layer.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewright.importers.darknet._layer import Layer
from edgewright.importers.darknet._layers.tree import read_tree, tree_softmax

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class _Run:
    """Entries of a box in a row that are treated alike: the logistic or not, then x * scale - (scale - 1) / 2."""

    count: int
    logistic: bool = True
    scale: float = 1.0


def yolo(layer: Layer) -> ir.Value:
    """[yolo]: logistic on x, y, objectness and classes (not with new_coords), then scale_x_y on x and y."""
    classes, anchors = layer.section.integer("classes", 20, low=1), _masked_anchors(layer)
    scale, new = layer.section.number("scale_x_y", 1.0), layer.section.flag("new_coords")
    runs = (_Run(2, not new, scale), _Run(2, logistic=False), _Run(1 + classes, not new))
    y = _treated(layer, runs, len(anchors))
    _record(layer, "yolo", classes, anchors=anchors, scale_x_y=scale, new_coords=new)
    return y


def gaussian_yolo(layer: Layer) -> ir.Value:
    """[Gaussian_yolo]: mean and deviation of x, y, w, h, then objectness and classes.

    Raises:
        EdgewrightError: E204 for boxes that are not given by their centre.
    """
    classes, anchors = layer.section.integer("classes", 20, low=1), _masked_anchors(layer)
    scale, point = layer.section.number("scale_x_y", 1.0), layer.section.text("yolo_point", "center")
    if point != "center":
        raise layer.refuse(
            f"option `yolo_point` is `{point[:40]}`; only `center` can be decoded", "yolo_point", code="E204"
        )
    mean, deviation, raw = _Run(1, scale=scale), _Run(1), _Run(1, logistic=False)
    runs = (mean, deviation, mean, deviation, raw, deviation, raw, _Run(2 + classes))
    y = _treated(layer, runs, len(anchors))
    _record(layer, "gaussian_yolo", classes, anchors=anchors, scale_x_y=scale, new_coords=False)
    return y


def _treated(layer: Layer, runs: tuple[_Run, ...], boxes: int) -> ir.Value:
    """The runs of entries of every box, each treated its way, in the shape of the input."""
    graph, (channels, height, width) = layer.graph, layer.chw
    entries = sum(run.count for run in runs)
    if channels != boxes * entries:
        raise layer.refuse(
            f"its input has {channels} channels, but {boxes} anchors of {entries} entries make {boxes * entries}: "
            "filters= of the layer before, classes= or mask= are wrong"
        )
    if all(not run.logistic and run.scale == 1 for run in runs):
        return layer.x
    batch = graph.shape(layer.x)[0]
    rows = graph.reshape(layer.x, boxes, entries, height * width)
    counts = graph.ints(*(run.count for run in runs))
    shapes = [(batch, boxes, run.count, height * width) for run in runs]
    parts = graph.nodes("Split", rows, counts, shapes=shapes, axis=2)
    done = []
    for run, part in zip(runs, parts, strict=True):
        value = graph.node("Sigmoid", part) if run.logistic else part
        if run.scale != 1:
            value = graph.node("Mul", value, graph.scalar(run.scale))
            value = graph.node("Sub", value, graph.scalar(0.5 * (run.scale - 1)))
        done.append(value)
    whole = graph.node("Concat", *done, shape=(batch, boxes, entries, height * width), axis=2)
    return graph.reshape(whole, channels, height, width)


def region(layer: Layer) -> ir.Value:
    """[region]: memory in the order cell, anchor, entry; logistic on objectness, softmax over classes where asked for."""
    graph, section, (channels, height, width) = layer.graph, layer.section, layer.chw
    classes, boxes = section.integer("classes", 20, low=1), section.integer("num", 1, low=1)
    coordinates = section.integer("coords", 4)
    if coordinates != 4:
        raise layer.refuse(f"option `coords` is {coordinates}, but boxes have 4", "coords")
    entries = coordinates + 1 + classes
    if channels != boxes * entries:
        raise layer.refuse(
            f"its input has {channels} channels, but {boxes} anchors of {entries} entries make {boxes * entries}: "
            "filters= of the layer before, classes= or num= are wrong"
        )
    batch = graph.shape(layer.x)[0]
    cells = graph.node("Transpose", layer.x, shape=(batch, height, width, channels), perm=[0, 2, 3, 1])
    rows = graph.reshape(cells, height * width * boxes, entries)
    shapes = [(batch, height * width * boxes, count) for count in (4, 1, classes)]
    box, objectness, scores = graph.nodes("Split", rows, graph.ints(4, 1, classes), shapes=shapes, axis=2)
    parents = read_tree(layer, classes) if section.has("tree") else []
    if parents:
        scores = tree_softmax(graph, scores, parents)
    elif section.flag("softmax"):
        scores = graph.node("Softmax", scores, axis=-1)
    parts = (box, graph.node("Sigmoid", objectness), scores)
    whole = graph.node("Concat", *parts, shape=graph.shape(rows), axis=2)
    floor = 0.5 if section.integer("classfix", 0) == -1 else 0.0
    _record(layer, "region", classes, anchors=_anchors(layer, boxes, 0.5), scale_x_y=1.0, new_coords=False,
            parents=parents, least_objectness=floor)  # fmt: skip
    return graph.reshape(whole, channels, height, width)


def detection(layer: Layer) -> ir.Value:
    """[detection] of YOLO: classes of every cell, then confidences, then boxes; with `softmax` over a cell's classes."""
    graph, section, (channels, height, width) = layer.graph, layer.section, layer.chw
    classes, boxes = section.integer("classes", 1, low=1), section.integer("num", 1, low=1)
    coordinates, side = section.integer("coords", 1), section.integer("side", 7, low=1)
    wanted = side * side * ((1 + coordinates) * boxes + classes)
    if channels * height * width != wanted:
        raise layer.refuse(
            f"its input has {channels * height * width} values, but side= {side}, num= {boxes} and classes= {classes} "
            f"make {wanted}"
        )
    _record(layer, "detection", classes, anchors=[], scale_x_y=1.0, new_coords=False, side=side, boxes=boxes,
            sqrt=section.flag("sqrt"))  # fmt: skip
    if not section.flag("softmax"):
        return layer.x
    batch, count = graph.shape(layer.x)[0], side * side * classes
    rows = graph.reshape(layer.x, wanted)
    scores = graph.reshape(graph.slice(rows, 0, count), side * side, classes)
    scores = graph.reshape(graph.node("Softmax", scores, axis=-1), count)
    whole = graph.node("Concat", scores, graph.slice(rows, count, wanted), shape=(batch, wanted), axis=1)
    return graph.reshape(whole, channels, height, width)


def _masked_anchors(layer: Layer) -> list[list[float]]:
    """Width and height of the anchors that `mask` names, in its order; all `num` without a mask."""
    total = layer.section.integer("num", 1, low=1, high=10_000)
    anchors = _anchors(layer, total, 0.5)
    mask = layer.section.integers("mask") or range(total)
    wrong = [number for number in mask if not 0 <= number < total]
    if wrong:
        raise layer.refuse(f"option `mask` names anchor {wrong[0]}, but `num` is {total}", "mask")
    return [anchors[number] for number in mask]


def _anchors(layer: Layer, count: int, default: float) -> list[list[float]]:
    """`count` pairs of the option `anchors`; Darknet fills up with `default`."""
    if count > 10_000:
        raise layer.refuse(f"option `num` is {count}, at most 10000", "num")
    numbers = layer.section.numbers("anchors")
    if numbers and len(numbers) < 2 * count:
        layer.warn(f"option `anchors` has {len(numbers)} numbers, but `num` asks for {2 * count}; the rest is {default}",
                   "anchors")  # fmt: skip
    filled = [*numbers, *[default] * (2 * count)]
    return [[filled[2 * number], filled[2 * number + 1]] for number in range(count)]


def _record(layer: Layer, kind: str, classes: int, **more: Any) -> None:
    layer.network.heads.append({"kind": kind, "output": layer.name, "classes": classes, **more})
