"""Options of the task: what each head's output means, and which boxes count."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgewright.errors import EdgewrightError
from edgewright.options import build
from edgewright.spec import ImageInput, Spec

#: Kinds whose outputs are Darknet's own layer outputs.
DARKNET_KINDS = ("yolo", "gaussian_yolo", "region", "detection")


@dataclass(frozen=True)
class Head:
    """One output that holds boxes, or two or three that belong together.

    Attributes:
        kind: What the numbers mean. Darknet's layers, as Darknet itself stores their outputs: `yolo`, `gaussian_yolo`,
            `region`, `detection`. One output of rows: `yolov5` [1, boxes, 5 + classes], `yolov8` [1, 4 + classes, boxes]
            and `yolox` (as `yolov5`, boxes relative to a grid). Two outputs: `ssd`, boxes [1, n, 4] and scores
            [1, n, classes]. Three: `boxes`, which are decoded and suppressed already: boxes, scores, labels.
        output: Name of the output; of the boxes where there are several.
        scores: Name of the output with the scores, for `ssd` and `boxes`.
        labels: Name of the output with the class indices, for `boxes`.
        classes: Number of classes; 0 where the shape says it.
        anchors: Widths and heights: in pixels for `yolo` and `gaussian_yolo`, in cells for `region`.
        scale_x_y: Darknet's factor; the output has it applied, so it is a remark.
        new_coords: Width and height are (2 v)^2 anchors instead of e^v, for `yolo`.
        parents: For a `region` with a tree of classes: the parent of every class, -1 at the root, always a class before it.
        least_objectness: Objectness below it counts as 0, for `region`.
        side: Cells along a side, for `detection`.
        boxes: Boxes for each cell, for `detection`.
        sqrt: Whether `detection` gives square roots of width and height.
        strides: Pixels of a cell of each grid, finest first, for `yolox`.
        layout: How four numbers are a box, for `ssd` and `boxes`.
        units: Whether these are pixels of the input or parts of its sides, for `ssd` and `boxes`.
        priors: Boxes cx, cy, w, h in parts of the input's sides, for an `ssd` that gives distances from them.
        variances: What those distances of centre and size were divided by.
        first_label: Label that is class 0, for `boxes`; the column of the first class, for `ssd` (1: column 0 is the
            background).
    """

    kind: Literal["yolo", "gaussian_yolo", "region", "detection", "yolov5", "yolov8", "yolox", "ssd", "boxes"] = "yolo"
    output: str = ""
    scores: str = ""
    labels: str = ""
    classes: int = 0
    anchors: tuple[tuple[float, float], ...] = ()
    scale_x_y: float = 1.0
    new_coords: bool = False
    parents: tuple[int, ...] = ()
    least_objectness: float = 0.0
    side: int = 0
    boxes: int = 0
    sqrt: bool = False
    strides: tuple[int, ...] = (8, 16, 32)
    layout: Literal["x1y1x2y2", "y1x1y2x2", "cxcywh", "xywh"] = "x1y1x2y2"
    units: Literal["pixels", "relative"] = "pixels"
    priors: tuple[tuple[float, float, float, float], ...] = ()
    variances: tuple[float, float] = (0.1, 0.2)
    first_label: int = 0

    def __post_init__(self) -> None:
        needs = {"ssd": ("output", "scores"), "boxes": ("output", "scores", "labels")}.get(self.kind, ("output",))
        if self.kind in ("yolo", "gaussian_yolo", "region"):
            needs = (*needs, "classes", "anchors")
        elif self.kind == "detection":
            needs = (*needs, "classes", "side", "boxes")
        elif self.kind == "yolox":
            needs = (*needs, "strides")
        for name in needs:
            if not getattr(self, name):
                raise EdgewrightError("E103", f"a head of kind `{self.kind}` needs the option `{name}`")
        for name in ("classes", "side", "boxes", "first_label"):
            if getattr(self, name) < 0:
                raise EdgewrightError("E103", f"option `{name}` of a head is {getattr(self, name)}, but must be >= 0")
        if self.parents and len(self.parents) != self.classes:
            raise EdgewrightError(
                "E103", f"head `{self.output}` has {self.classes} classes, but `parents` of {len(self.parents)}"
            )
        for number, parent in enumerate(self.parents):
            if not -1 <= parent < number:
                raise EdgewrightError(
                    "E103",
                    f"class {number} of head `{self.output}` has parent {parent}, which must be -1 or a class before it",
                )
        sizes = [*(side for pair in self.anchors for side in pair), *self.strides, *self.variances]
        if not all(math.isfinite(value) and value > 0 for value in sizes):
            raise EdgewrightError("E103", f"anchors, strides and variances of head `{self.output}` must be above 0")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs it reads."""
        return tuple(name for name in (self.output, self.scores, self.labels) if name)


@dataclass(frozen=True)
class Options:
    """What the outputs mean.

    Attributes:
        labels: Names of the classes in order, where known.
        threshold: A box is found where its score is above it.
        nms: Which boxes of a class are taken for the same thing: `default` by IoU, `corners` likewise, `greedy` and
            `diou` by IoU less a penalty for distant centres (Darknet's names), `none`. Heads of kind `boxes` have it behind them.
        nms_threshold: Overlap above which the box with the lower score is dropped.
        beta: Exponent of `diou`'s penalty; `greedy` has 0.6.
        heads: The outputs with boxes.
        lowest: Boxes with scores between it and `threshold` are not found, but count in the mAP against labels.
        most: Boxes kept for each sample.
        size: Height and width of the input in pixels, where no input is made from a photo.
    """

    labels: tuple[str, ...] | None = None
    threshold: float = 0.25
    nms: Literal["greedy", "diou", "corners", "default", "none"] = "default"
    nms_threshold: float = 0.45
    beta: float = 0.6
    heads: tuple[Head, ...] = ()
    lowest: float = 0.005
    most: int = 300
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("threshold", self.threshold),
            ("nms_threshold", self.nms_threshold),
            ("lowest", self.lowest),
        ):
            if not 0 <= value < 1:
                raise EdgewrightError("E103", f"option `{name}` is {value}, but must be at least 0 and below 1")
        if not 0 < self.beta < math.inf:
            raise EdgewrightError("E103", f"option `beta` is {self.beta}, but must be above 0")
        if self.most < 1:
            raise EdgewrightError("E103", f"option `most` is {self.most}, but must be at least 1")
        if self.size is not None and min(self.size) < 1:
            raise EdgewrightError("E103", f"option `size` is {self.size}, but must be at least 1 pixel")

    @property
    def floor(self) -> float:
        """Score above which a box is kept."""
        return min(self.lowest, self.threshold)


#: The last options read: postprocess runs once a sample.
_read: list[tuple[Mapping[str, Any], Options]] = []


def read_options(spec: Spec) -> Options:
    """The spec's options, parsed once."""
    if not _read or _read[0][0] is not spec.options:
        _read[:] = [(spec.options, build(Options, spec.options, where="detect"))]
    return _read[0][1]


def require_heads(options: Options, names: Sequence[str]) -> None:
    """Refuse options without heads, or with heads that read other outputs than `names`.

    Raises:
        EdgewrightError: E303.
    """
    if not options.heads:
        raise EdgewrightError(
            "E303",
            "task `detect` needs the option `heads`: which outputs hold boxes, and how",
            hint="edgewright spec init MODEL --out spec.toml",
        )
    for head in options.heads:
        for name in head.outputs:
            if name not in names:
                listed = ", ".join(f"`{known}`" for known in names) or "none"
                raise EdgewrightError(
                    "E303", f"a head of kind `{head.kind}` reads output `{name}`, but outputs are {listed}"
                )


def photo_input(spec: Spec) -> ImageInput | None:
    """The input that is made from a photo, if there is one."""
    return next((item for item in spec.inputs.values() if isinstance(item, ImageInput)), None)


def input_size(options: Options, spec: Spec) -> tuple[int, int]:
    """Height and width of the network's input in pixels.

    Raises:
        EdgewrightError: E303 where neither an image input nor the option `size` says it.
    """
    if options.size is not None:
        return options.size
    item = photo_input(spec)
    if item is None:
        raise EdgewrightError(
            "E303", "no input of the spec is an image, so task `detect` needs the option `size` (height, width)"
        )
    return item.size
