"""A class for every pixel, or a mask: all scores of a pixel, or one score held against a threshold.

The network gives f32[1, C, H, W], whose best class wins (equal scores: the lowest), or one map f32[1, 1, H, W], where class
1 is what reaches `threshold` and class 0 the rest; class indices [1, H, W] of a network that ends in ArgMax are fine too.
A pixel whose scores hold NaN or +inf has no class: it agrees with nothing and is wrong for every label.

Where one class fills the photo, all pixels would agree whatever the network does. So a mask is compared by the pixels that
either network marks (which is the IoU of the two masks), and `background` names such a class of other networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.model import Arrays, TensorInfo
from edgewright.spec import ImageInput, Spec
from edgewright.tasks.segment._drawing import overlay
from edgewright.tasks.segment._maps import LabelMap, Segmentation, indices, label_map, placed, segmentation, winners
from edgewright.tasks.segment._options import NONE, Options, check_count, output_name, read_options
from edgewright.tasks.segment._scores import agreeing, boundary, confusion

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["LabelMap", "Options", "Segmentation"]

EXTRA: str | None = None
AGREEMENT = "same pixels"
PROPORTION = False
METRIC = "mIoU"
#: A label is a file, named relative to the table that lists it, or found as `labels/NAME.png` for `images/NAME.jpg`.
LABEL_FILES = True
LABEL_SUFFIX = ".png"


def classes(spec: Spec, outputs: Sequence[TensorInfo]) -> None:
    """None: labels are maps, not classes. The names are checked against the number of classes, where known.

    Raises:
        EdgewrightError: E303 where they differ, or the output is no map.
    """
    options = read_options(spec)
    if not outputs:
        return
    name = output_name(options, [info.name for info in outputs])
    info = next(info for info in outputs if info.name == name)
    if len(info.shape) not in (3, 4):
        raise EdgewrightError("E303", f"task `segment` needs scores [1, classes, H, W], but the network gives {info}")
    count = info.shape[1] if len(info.shape) == 4 else None
    if isinstance(count, int):
        check_count(options, name, max(count, 2))


def postprocess(outputs: Arrays, spec: Spec) -> Segmentation:
    """The class of every pixel of one sample.

    Raises:
        EdgewrightError: E303 when the outputs are no map, or the labels do not fit the classes.
    """
    options = read_options(spec)
    name = output_name(options, list(outputs))
    array = np.asarray(outputs[name])
    kinds = "fiu" if array.ndim == 4 else "iu"
    if array.ndim not in (3, 4) or array.size == 0 or array.shape[0] != 1 or array.dtype.kind not in kinds:
        raise EdgewrightError(
            "E303",
            f"output `{name}` is {array.dtype}{list(array.shape)}, but must be scores [1, classes, H, W], or class "
            "indices [1, H, W]",
        )
    found, count = indices(array[0], name) if array.ndim == 3 else winners(array[0], options)
    check_count(options, name, count)
    return segmentation(found, count, is_mask=array.ndim == 4 and array.shape[1] == 1)


def metric(results: Sequence[Segmentation], labels: Sequence[LabelMap], spec: Spec) -> dict[str, float]:
    """Scores over all samples together, 0..1; nan without a labelled pixel.

    With the pixels of a class in the label (T), in the result (R) and in both (B), means over the classes that are in
    labels or results of B / (T + R - B), "mIoU", and of 2 B / (T + R), "Dice". "boundary IoU" is mIoU of the bands
    inside the outlines alone: the insides of large things, which nobody gets wrong, do not count. "pixels" is the share
    of right pixels. A result is compared at the label's size, grown or shrunk by nearest neighbour.

    Source: Everingham et al. 2010 (PASCAL VOC) for mIoU; Dice 1945; Cheng et al. 2021, "Boundary IoU", equation 2, whose
    band of 2 % of the diagonal is the default of the option `boundary`.
    """
    options = read_options(spec)
    table = confusion(results, labels, options)
    total = table.sum()
    if not total:
        return dict.fromkeys((METRIC, "Dice", "boundary IoU", "pixels"), math.nan)
    right = np.diag(table)[:NONE].astype(np.float64)
    marked = (table.sum(axis=0) + table.sum(axis=1))[:NONE]
    there = marked > 0
    right_there, marked_there = right[there], marked[there]
    both, either = boundary(results, labels, options)
    outlined = either > 0
    return {
        METRIC: float(np.mean(right_there / (marked_there - right_there))),
        "Dice": float(np.mean(2 * right_there / marked_there)),
        "boundary IoU": float(np.mean(both[outlined] / either[outlined])) if outlined.any() else math.nan,
        "pixels": float(right.sum() / total),
    }


def agreement(reference: Sequence[Segmentation], results: Sequence[Segmentation], spec: Spec) -> float:
    """Share of pixels that have the same class, over all samples together, nan for none.

    A pixel of the background in both does not count; 1 where no pixel counts.
    """
    if not reference:
        return math.nan
    options = read_options(spec)
    same = counted = 0
    for one, other in zip(reference, results, strict=True):
        found = agreeing(one, other, _background(options, one))
        same, counted = same + found[0], counted + found[1]
    return same / counted if counted else 1.0


def parse_label(text: str, spec: Spec) -> LabelMap:
    """The label map in the file that `text` names: 8-bit grey or palette, one class index a pixel.

    Raises:
        EdgewrightError: E305 where there is no such file, it is no map, or the photo was cut so that it cannot fit.
    """
    for name, item in spec.inputs.items():
        if isinstance(item, ImageInput) and item.resize != "stretch":
            raise EdgewrightError(
                "E305",
                f"label maps show the whole photo, but input `{name}` is made by `{item.resize}`",
                hint='set resize = "stretch" in the spec, or give ready-made .npz samples',
            )
    return label_map(Path(text), read_options(spec))


def place_label(label: LabelMap, size: tuple[int, int], spec: Spec) -> LabelMap:
    """The label as it is, once it fits a photo of `size` (width, height): of another size, but of its shape.

    Raises:
        EdgewrightError: E305 for a map that cannot be this photo's.
    """
    (width, height), (wide, tall) = size, label.size
    if abs(wide * height - tall * width) >= max(width, height):  # beyond rounding to whole pixels
        raise EdgewrightError(
            "E305",
            f"label map `{label.path}` is {wide} x {tall}, but its photo is {width} x {height}: another shape",
        )
    return label


def place_result(result: Segmentation, size: tuple[int, int], spec: Spec) -> Segmentation:
    """The result as a map of the photo of `size` (width, height); what the input cut off has no class there."""
    item = next((item for item in spec.inputs.values() if isinstance(item, ImageInput)), None)
    return result if item is None or result.placed else placed(result, size, item)


def draw(image: Image.Image, result: Segmentation, spec: Spec) -> Image.Image:
    """The photo with a colour over every class; class 0 of a mask, and the background, stay as they are.

    Named classes are listed below the photo.
    """
    options = read_options(spec)
    found = place_result(result, image.size, spec).map
    return overlay(image, found, _background(options, result), options.labels or ())


def _background(options: Options, result: Segmentation) -> int | None:
    if options.background == "auto":
        return 0 if result.is_mask else None
    return None if options.background == "none" else int(options.background)
