"""Boxes around things, each with a class and a score: decoding, suppression, mAP.

A box is found where its score is above `threshold`. The boxes of a result are in parts of the network's input, because only
the photo's size says where they lie in the photo: `place_result` maps them there for people, `place_label` maps labels
into the input. IoU is the same in both.

Agreement is the mAP at IoU 0.5 with the original's boxes as the truth, over all classes that either network finds: what
only one of them finds counts against it. 1 for the same boxes, and where neither finds any. A sample in which either
network gives NaN or infinity agrees in nothing.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.framing import frame
from edgewright.model import Arrays, TensorInfo
from edgewright.spec import Spec
from edgewright.tasks.detect._heads import Candidates, decode
from edgewright.tasks.detect._labels import Truth, read_label
from edgewright.tasks.detect._options import Head, Options, input_size, photo_input, read_options, require_heads
from edgewright.tasks.detect._precision import LIMITS, VOC, Match, Precision, match
from edgewright.tasks.detect._suppression import suppress

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Detections", "Head", "Options", "Truth"]

EXTRA: str | None = None
AGREEMENT = "mAP@0.5 against the original's boxes"
PROPORTION = False
METRIC = "mAP@0.5"
#: A label is a file, named by a table, or lying beside the photo under this ending.
LABEL_FILES = True
LABEL_SUFFIX = ".txt"

#: Pairs of box and class that suppression looks at: the best. Those left out could not have dropped a better one.
_MOST_CANDIDATES = 10_000
#: Boxes of a sample that count against labels: the best. Source: Lin et al. 2014, COCO's maxDets.
_MOST_SCORED = 100
#: A coordinate beyond it counts as infinite: float32 holds what any mapping makes of the others.
_FARTHEST = 1e30
#: The class of a sample that is not finite.
_BROKEN = -1


@dataclass(frozen=True, eq=False)
class Detections:
    """What a network finds in one sample, best first.

    Attributes:
        boxes: Corners x1, y1, x2, y2, f32[n, 4], in parts of the input's sides, or of the photo's where `photo` is known;
            they may reach beyond 0..1.
        scores: f32[n].
        classes: i32[n].
        found: How many of them are above the threshold; the others only count in the mAP against labels.
        broken: Boxes left out because they, or their scores, are NaN or infinite.
        names: Names of the classes, where known.
        photo: Width and height of the photo in pixels, once `place_result` has mapped the boxes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    found: int
    broken: int = 0
    names: tuple[str, ...] | None = None
    photo: tuple[int, int] | None = None

    def name(self, index: int) -> str:
        """Name of a class, or its index as text."""
        return self.names[index] if self.names and index < len(self.names) else str(index)

    def to_json(self) -> dict[str, Any]:
        """The boxes that were found."""
        rows = zip(
            self.classes[: self.found].tolist(), self.scores[: self.found].tolist(), self.boxes[: self.found].tolist(),
            strict=True,
        )  # fmt: skip
        boxes = [{"class": c, "label": self.name(c), "score": score, "box": box} for c, score, box in rows]
        return {"boxes": boxes, "broken": self.broken, "relative_to": "photo" if self.photo else "input"}

    def __str__(self) -> str:
        width = max((len(self.name(index)) for index in self.classes[: self.found].tolist()), default=0)
        lines = [self._line(index, width) for index in range(self.found)]
        if self.broken:
            lines.append(f"{self.broken} boxes are NaN or infinite")
        count = "1 box" if self.found == 1 else f"{self.found or 'no'} boxes"
        return "\n  ".join([count, *lines])

    def _line(self, index: int, width: int) -> str:
        x1, y1, x2, y2 = np.clip(self.boxes[index], 0, 1).tolist()
        if self.photo:
            across, down = self.photo
            place = f"x {x1 * across:.0f} to {x2 * across:.0f}, y {y1 * down:.0f} to {y2 * down:.0f}"
        else:
            place = f"x {x1:.3f} to {x2:.3f}, y {y1:.3f} to {y2:.3f} of the input"
        return f"{self.name(int(self.classes[index])):{width}} {self.scores[index]:.2f}  {place}"


def classes(spec: Spec, outputs: Sequence[TensorInfo]) -> None:
    """None: labels are files with boxes, not classes. The heads are checked against the outputs, where known.

    Raises:
        EdgewrightError: E303 where a head reads an output that is not there, or names and classes differ in number.
    """
    options = read_options(spec)
    if not outputs:
        return
    require_heads(options, [info.name for info in outputs])
    input_size(options, spec)
    for head in options.heads:
        if options.labels is not None and head.classes > len(options.labels):
            raise EdgewrightError(
                "E303",
                f"the spec has {len(options.labels)} labels, but head `{head.output}` has {head.classes} classes",
            )


def postprocess(outputs: Arrays, spec: Spec) -> Detections:
    """The boxes of one sample, decoded and suppressed.

    Raises:
        EdgewrightError: E303 when an output is missing or is not what its head says.
    """
    options = read_options(spec)
    require_heads(options, list(outputs))
    size = input_size(options, spec)
    with np.errstate(all="ignore"):  # what is not finite is counted below
        parts = [_strong(decode(head, outputs, size), options) for head in options.heads]
        boxes, scores, indices = (np.concatenate([part[i] for part in parts]) for i in range(3))
        best = np.argsort(-scores, kind="stable")[:_MOST_CANDIDATES]
        if all(head.kind == "boxes" for head in options.heads):
            options = replace(options, nms="none")
        kept = best[suppress(boxes[best], scores[best], indices[best], options)]
    _check_names(options, indices[kept])
    return Detections(
        boxes[kept].astype(np.float32), scores[kept], indices[kept].astype(np.int32),
        int(np.sum(scores[kept] > options.threshold)), sum(part[3] for part in parts), options.labels,
    )  # fmt: skip


def _strong(found: Candidates, options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Box, score and class of every pair above the lowest score, and the number of boxes that are not finite."""
    scores = found.scores.astype(np.float32)
    if found.objectness is not None:
        objectness = found.objectness.astype(np.float32)[:, None]
        scores = np.where(objectness > options.threshold, scores, np.minimum(scores, objectness))
    broken = np.any(np.isnan(scores) | np.isposinf(scores), axis=1)
    above = scores > options.floor
    broken |= above.any(axis=1) & ~(np.abs(found.boxes) <= _FARTHEST).all(axis=1)
    rows, columns = np.nonzero(above & ~broken[:, None])
    return found.boxes[rows], scores[rows, columns], columns, int(broken.sum())


def named_classes(result: Detections) -> frozenset[str]:
    """The classes of the boxes that were found."""
    return frozenset(result.name(index) for index in result.classes[: result.found].tolist())


def metric(results: Sequence[Detections], labels: Sequence[Truth], spec: Spec) -> dict[str, float]:
    """Mean average precision against labels: COCO's at IoU 0.5 and over 0.5 to 0.95, and VOC's at 0.5 (area).

    Over the classes that the labels hold. Where they hold none at all: 1 if nothing is found, else 0.
    """
    names = (METRIC, "mAP@0.5:0.95", "VOC mAP@0.5")
    if not results:
        return dict.fromkeys(names, math.nan)
    precision = Precision([_remembered(_scored, *pair, _against_label) for pair in zip(results, labels, strict=True)])
    coco = [precision.mean(column, "101 points", every_class=False) for column in range(len(LIMITS))]
    voc = precision.mean(VOC, "area", every_class=False)
    return dict(zip(names, (coco[0], float(np.mean(coco)), voc), strict=True))


def agreement(reference: Sequence[Detections], results: Sequence[Detections], spec: Spec) -> float:
    """mAP at IoU 0.5 (101 points) of the found boxes, the original's as the truth, nan for no samples."""
    if not reference:
        return math.nan
    pairs = zip(results, reference, strict=True)
    return Precision([_remembered(_compared, *pair, _against_original) for pair in pairs]).mean(
        0, "101 points", every_class=True
    )


def parse_label(text: str, spec: Spec) -> Truth:
    """The boxes in the file that `text` names, in YOLO's format: `class cx cy w h` a line, in parts of the photo.

    Raises:
        EdgewrightError: E305 where there is no such file, a line is no box, or photos are cut so that boxes cannot fit.
    """
    options, item = read_options(spec), photo_input(spec)
    if item is not None and item.resize == "crop":
        raise EdgewrightError(
            "E305",
            "label files show the whole photo, but the input is made by `crop`",
            hint='set resize = "letterbox" or "stretch" in the spec',
        )
    counts = [head.classes for head in options.heads]
    known = len(options.labels) if options.labels is not None else max(counts) if counts and all(counts) else None
    return read_label(Path(text), known)


def place_label(label: Truth, size: tuple[int, int], spec: Spec) -> Truth:
    """The label of a photo of `size` (width, height) in parts of the input, as results are."""
    item = photo_input(spec)
    return label if item is None else replace(label, boxes=frame(size, item).to_input(label.boxes))


def place_result(result: Detections, size: tuple[int, int], spec: Spec) -> Detections:
    """The result with its boxes in parts of the photo of `size` (width, height)."""
    item = photo_input(spec)
    if item is None or result.photo is not None:
        return result
    return replace(result, boxes=frame(size, item).to_photo(result.boxes), photo=size)


def draw(image: Image.Image, result: Detections, spec: Spec) -> Image.Image:
    """The photo with the boxes that were found, each with its class and score."""
    from edgewright.tasks.detect._drawing import draw_boxes

    placed = place_result(result, image.size, spec)
    found = placed.found
    indices = placed.classes[:found].tolist()
    scores = placed.scores[:found].tolist()
    captions = [f"{placed.name(index)} {score:.2f}" for index, score in zip(indices, scores, strict=True)]
    return draw_boxes(image, placed.boxes[:found], indices, captions)


def _check_names(options: Options, indices: np.ndarray) -> None:
    highest = int(indices.max(initial=-1))
    if options.labels is not None and highest >= len(options.labels):
        raise EdgewrightError("E303", f"a box has class {highest}, but the spec has {len(options.labels)} labels")


# --- what bounds ask for five hundred times ----------------------------------------------------------------------------

#: By result: what it was compared with, and how they match.
_Memory = weakref.WeakKeyDictionary[Detections, tuple[weakref.ref[Any], Match]]
_compared: _Memory = weakref.WeakKeyDictionary()
_scored: _Memory = weakref.WeakKeyDictionary()


def _remembered(memory: _Memory, result: Detections, other: Any, compare: Callable[[Any, Any], Match]) -> Match:
    """`compare(result, other)`, computed once as long as the result lives and meets the same other."""
    known = memory.get(result)
    if known is None or known[0]() is not other:
        known = memory[result] = (weakref.ref(other), compare(result, other))
    return known[1]


def _against_label(result: Detections, truth: Truth) -> Match:
    n = _MOST_SCORED
    return match(result.boxes[:n], result.scores[:n], result.classes[:n], truth.boxes, truth.classes)


def _against_original(result: Detections, original: Detections) -> Match:
    n, m = result.found, original.found
    found = match(
        result.boxes[:n], result.scores[:n], result.classes[:n], original.boxes[:m], original.classes[:m]
    )  # fmt: skip
    if not (result.broken or original.broken):
        return found
    return replace(found, hits=np.zeros_like(found.hits), truth=np.append(found.truth, _BROKEN))
