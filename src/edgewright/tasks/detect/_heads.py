"""From a head's outputs to boxes and scores, for every kind of head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.model import Arrays
from edgewright.tasks.detect._boxes import from_centres
from edgewright.tasks.detect._options import Head


@dataclass(frozen=True)
class Candidates:
    """Boxes before any is dropped.

    Attributes:
        boxes: Corners in parts of the input's sides, f64[n, 4].
        scores: Of every class, f64[n, classes].
        objectness: Where scores do not hold it: f64[n], what has to be above the threshold as well.
    """

    boxes: np.ndarray
    scores: np.ndarray
    objectness: np.ndarray | None = None


def decode(head: Head, outputs: Arrays, size: tuple[int, int]) -> Candidates:
    """The boxes of one head for one sample (batch 1).

    Args:
        head: What the outputs mean.
        outputs: The network's outputs by name.
        size: Height and width of the network's input in pixels.

    Raises:
        EdgewrightError: E303 where an output has another shape or type than the head says.
    """
    arrays = [_numbers(outputs[name], name) for name in head.outputs]
    found = _DECODERS[head.kind](head, arrays, size)
    if head.classes and head.kind != "boxes" and found.scores.shape[1] != head.classes:
        raise EdgewrightError(
            "E303", f"output `{head.output}` has {found.scores.shape[1]} classes, but the head says {head.classes}"
        )
    return found


# --- Darknet's layers. Source: yolo_layer.c, gaussian_yolo_layer.c, region_layer.c, detection_layer.c of AlexeyAB/darknet ---


def _yolo(head: Head, arrays: list[np.ndarray], size: tuple[int, int]) -> Candidates:
    value = _planes(head, arrays[0], 5 + head.classes)
    scale = (2 * value[:, 2:4]) ** 2 if head.new_coords else np.exp(value[:, 2:4])
    boxes = _on_grid(value[:, 0:2], scale * _anchors(head) / np.reshape(size[::-1], (1, 2, 1, 1)))
    return Candidates(boxes, _rows(value[:, 4:5] * value[:, 5:]))


def _gaussian_yolo(head: Head, arrays: list[np.ndarray], size: tuple[int, int]) -> Candidates:
    """Entries 0, 2, 4, 6 are x, y, w, h; 1, 3, 5, 7 their deviations, whose mean lowers every score."""
    value = _planes(head, arrays[0], 9 + head.classes)
    sides = np.exp(value[:, (4, 6)]) * _anchors(head) / np.reshape(size[::-1], (1, 2, 1, 1))
    certainty = 1 - value[:, (1, 3, 5, 7)].mean(axis=1, keepdims=True)
    return Candidates(_on_grid(value[:, (0, 2)], sides), _rows(value[:, 8:9] * value[:, 9:] * certainty))


def _region(head: Head, arrays: list[np.ndarray], size: tuple[int, int]) -> Candidates:
    """The layer's output says [N, C, H, W], but its values lie by cell, then anchor, then entry."""
    entries, count = 5 + head.classes, len(head.anchors)
    _, _, height, width = _planes(head, arrays[0], entries).shape
    value = arrays[0].reshape(height, width, count, entries).transpose(2, 3, 0, 1)
    places = 1 / (1 + np.exp(-value[:, 0:2]))
    sides = np.exp(value[:, 2:4]) * _anchors(head) / np.reshape((width, height), (1, 2, 1, 1))
    objectness = np.where(value[:, 4:5] < head.least_objectness, 0, value[:, 4:5])
    if head.parents:
        return Candidates(_on_grid(places, sides), _deepest(_rows(value[:, 5:]), head.parents), _rows(objectness)[:, 0])
    return Candidates(_on_grid(places, sides), _rows(objectness * value[:, 5:]))


def _deepest(scores: np.ndarray, parents: tuple[int, ...]) -> np.ndarray:
    """Of classes in a tree only the last that is more likely than not, all ancestors included; f64[n, classes].

    Args:
        scores: Of every class among its siblings, f64[n, classes].
        parents: Of every class; -1 at the root.

    Source: AlexeyAB/darknet, hierarchy_predictions in tree.c, get_region_boxes in region_layer.c.
    """
    likely = scores.copy()
    above = np.asarray(parents)
    level = np.flatnonzero(above < 0)
    while level.size:  # a level at a time, from the root
        level = np.flatnonzero(np.isin(above, level))
        likely[:, level] *= likely[:, above[level]]
    last = len(parents) - 1 - np.argmax(likely[:, ::-1] > 0.5, axis=1)
    rows = np.arange(len(likely))
    kept = np.zeros_like(likely)
    kept[rows, last] = np.where(likely[rows, last] > 0.5, likely[rows, last], 0)
    kept[np.isnan(scores).any(axis=1)] = np.nan
    return kept


def _detection(head: Head, arrays: list[np.ndarray], size: tuple[int, int]) -> Candidates:
    """Classes of all cells, then confidences of all boxes, then all boxes."""
    cells = head.side**2
    _require(arrays[0].size == cells * (head.classes + 5 * head.boxes), head, arrays[0],
             f"{cells} cells of {head.classes} classes and {head.boxes} boxes")  # fmt: skip
    flat = arrays[0].reshape(-1)
    classes = flat[: cells * head.classes].reshape(cells, 1, head.classes)
    confidence = flat[cells * head.classes :][: cells * head.boxes].reshape(cells, head.boxes, 1)
    value = flat[cells * (head.classes + head.boxes) :].reshape(cells, head.boxes, 4)
    index = np.arange(cells)
    corner = np.stack([index % head.side, index // head.side], axis=1)[:, None]
    sides = value[..., 2:] ** 2 if head.sqrt else value[..., 2:]
    boxes = np.concatenate([(value[..., :2] + corner) / head.side, sides], axis=-1)
    return Candidates(from_centres(boxes.reshape(-1, 4)), (confidence * classes).reshape(-1, head.classes))


# --- one output of rows ------------------------------------------------------------------------------------------------


def _yolov5(head: Head, arrays: list[np.ndarray], size: tuple[int, int]) -> Candidates:
    """Rows of centre and size in pixels, objectness, classes."""
    rows = _matrix(head, arrays[0], least=6)
    return Candidates(from_centres(rows[:, :4] / _sides(size)), rows[:, 4:5] * rows[:, 5:])


def _yolov8(head: Head, arrays: list[np.ndarray], size: tuple[int, int]) -> Candidates:
    """Columns of centre and size in pixels, classes."""
    rows = _matrix(head, arrays[0].swapaxes(-1, -2) if arrays[0].ndim > 1 else arrays[0], least=5)
    return Candidates(from_centres(rows[:, :4] / _sides(size)), rows[:, 4:])


def _yolox(head: Head, arrays: list[np.ndarray], size: tuple[int, int]) -> Candidates:
    """Rows as `yolov5`, the centre from the cell in cells, the logarithm of the size in cells; finest grid first.

    Source: Ge et al. 2021, YOLOX, decode_outputs.
    """
    rows = _matrix(head, arrays[0], least=6)
    grids = [(size[0] // stride, size[1] // stride, stride) for stride in head.strides]
    wanted = sum(height * width for height, width, _ in grids)
    _require(len(rows) == wanted, head, arrays[0], f"{wanted} cells of strides {list(head.strides)}")
    cells = [np.stack(np.meshgrid(np.arange(w), np.arange(h)), axis=-1).reshape(-1, 2) for h, w, _ in grids]
    stride = np.concatenate([np.full((h * w, 1), step) for h, w, step in grids])
    boxes = np.concatenate([(rows[:, :2] + np.concatenate(cells)) * stride, np.exp(rows[:, 2:4]) * stride], axis=1)
    return Candidates(from_centres(boxes / _sides(size)), rows[:, 4:5] * rows[:, 5:])


# --- boxes and scores apart ----------------------------------------------------------------------------------------------


def _ssd(head: Head, arrays: list[np.ndarray], size: tuple[int, int]) -> Candidates:
    """Boxes as `layout` says, or their distances from the priors (Liu et al. 2016, SSD)."""
    value = _matrix(head, arrays[0], least=4, exact=True)
    scores = _matrix(head, arrays[1], least=1 + head.first_label)[:, head.first_label :]
    _require(len(value) == len(scores), head, arrays[1], f"scores of {len(value)} boxes")
    if not head.priors:
        return Candidates(_corners(head, value, size), scores)
    priors = np.asarray(head.priors, np.float64)
    _require(len(value) == len(priors), head, arrays[0], f"distances from {len(priors)} priors")
    centres = priors[:, :2] + value[:, :2] * head.variances[0] * priors[:, 2:]
    sides = priors[:, 2:] * np.exp(value[:, 2:] * head.variances[1])
    return Candidates(from_centres(np.concatenate([centres, sides], axis=1)), scores)


def _boxes(head: Head, arrays: list[np.ndarray], size: tuple[int, int]) -> Candidates:
    """One class for each box; a label below `first_label` is no class."""
    value = _matrix(head, arrays[0], least=4, exact=True)
    score, label = arrays[1].reshape(-1), arrays[2].reshape(-1)
    for array, name in ((score, head.scores), (label, head.labels)):
        if len(array) != len(value):
            raise EdgewrightError("E303", f"output `{name}` has {len(array)} values for {len(value)} boxes")
    if not np.isfinite(label).all():
        label, score = np.zeros_like(label), np.full_like(score, np.nan)
    found = label.astype(np.int64) - head.first_label
    highest = int(found.max(initial=0))
    _require(highest < (head.classes or _MOST_CLASSES), head, arrays[2],
             f"labels below {(head.classes or _MOST_CLASSES) + head.first_label}, not {highest + head.first_label}")  # fmt: skip
    scores = np.where(found[:, None] == np.arange(highest + 1), score[:, None], 0.0)
    return Candidates(_corners(head, value, size), scores)


#: Classes that a head of kind `boxes` may name where nothing says how many there are.
_MOST_CLASSES = 10_000

_DECODERS: dict[str, Callable[[Head, list[np.ndarray], tuple[int, int]], Candidates]] = {
    "yolo": _yolo, "gaussian_yolo": _gaussian_yolo, "region": _region, "detection": _detection,
    "yolov5": _yolov5, "yolov8": _yolov8, "yolox": _yolox, "ssd": _ssd, "boxes": _boxes,
}  # fmt: skip


# --- shapes --------------------------------------------------------------------------------------------------------------


def _numbers(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind not in "fiu" or (array.ndim > 2 and array.shape[0] != 1):
        raise EdgewrightError(
            "E303", f"output `{name}` is {array.dtype}{list(array.shape)}, but must be numbers, batch 1"
        )
    return np.asarray(array, np.float64)


def _require(condition: bool, head: Head, array: np.ndarray, wanted: str) -> None:
    if not condition:
        raise EdgewrightError(
            "E303",
            f"output `{head.output}` has shape {list(array.shape)}, but a head of kind `{head.kind}` needs {wanted}",
        )


def _planes(head: Head, array: np.ndarray, entries: int) -> np.ndarray:
    """The output [1, anchors * entries, H, W] as [anchors, entries, H, W]."""
    channels = len(head.anchors) * entries
    fits = array.ndim == 4 and array.shape[:2] == (1, channels) and array.size > 0
    _require(fits, head, array, f"[1, {channels}, H, W] for {len(head.anchors)} anchors and {head.classes} classes")
    return array.reshape(len(head.anchors), entries, *array.shape[2:])


def _anchors(head: Head) -> np.ndarray:
    """f64[anchors, 2, 1, 1]"""
    return np.asarray(head.anchors, np.float64)[:, :, None, None]


def _on_grid(places: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Corners f64[n, 4] from places within cells [anchors, 2, H, W] and sizes in parts of the input."""
    height, width = places.shape[2:]
    cells = np.stack(np.meshgrid(np.arange(width), np.arange(height)))
    centres = (places + cells) / np.reshape((width, height), (1, 2, 1, 1))
    return from_centres(_rows(np.concatenate([centres, sides], axis=1)))


def _rows(planes: np.ndarray) -> np.ndarray:
    """[anchors, entries, H, W] as [anchors * H * W, entries]."""
    return planes.transpose(0, 2, 3, 1).reshape(-1, planes.shape[1])


def _matrix(head: Head, array: np.ndarray, *, least: int, exact: bool = False) -> np.ndarray:
    """The output [1, n, columns] as [n, columns]."""
    rows = array[0] if array.ndim == 3 else array
    fits = rows.ndim == 2 and (rows.shape[1] == least if exact else rows.shape[1] >= least)
    _require(fits, head, array, f"{'' if exact else 'at least '}{least} numbers for each box")
    return rows


def _sides(size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return np.array([width, height, width, height], np.float64)


def _corners(head: Head, value: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if head.units == "pixels":
        value = value / (_sides(size)[[1, 0, 3, 2]] if head.layout == "y1x1y2x2" else _sides(size))
    if head.layout == "y1x1y2x2":
        return value[:, [1, 0, 3, 2]]
    if head.layout == "cxcywh":
        return from_centres(value)
    if head.layout == "xywh":
        return np.concatenate([value[:, :2], value[:, :2] + value[:, 2:]], axis=1)
    return value
