"""A class for every pixel, or a mask: all scores of a pixel, or one score held against a threshold.

The network gives f32[1, C, H, W], whose best class wins (equal scores: the lowest), or one map f32[1, 1, H, W], where class
1 is what reaches `threshold` and class 0 the rest; class indices [1, H, W] of a network that ends in ArgMax are fine too.
A pixel whose scores hold NaN or +inf has no class: it agrees with nothing and is wrong for every label.

Where one class fills the photo, all pixels would agree whatever the network does. So a mask is compared by the pixels that
either network marks (which is the IoU of the two masks), and `background` names such a class of other networks.
"""

from __future__ import annotations

import hashlib
import math
import weakref
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.model import Arrays, TensorInfo
from edgewright.options import build
from edgewright.spec import ImageInput, Spec

if TYPE_CHECKING:
    from PIL import Image

EXTRA: str | None = None
AGREEMENT = "same pixels"
PROPORTION = False
METRIC = "mIoU"
#: A label is a file, named relative to the table that lists it.
LABEL_FILES = True

#: Classes a map can hold; the highest index stands for a pixel without a class.
_MOST_CLASSES = 255
_NONE = 255
_LARGEST_LABEL = 2**26  # pixels; Pillow itself warns at 89 million
_OPACITY = 0.55


@dataclass(frozen=True)
class Options:
    """What the map means.

    Attributes:
        labels: Names of the classes in order, where known.
        threshold: Score from which a pixel of a single map is class 1.
        background: Class that does not count in the agreement where both networks give it; `auto` is 0 for a single map
            and none for others.
        ignore: Index in label maps that means "not labelled", besides 255; such pixels are left out of the scores.
        output: Name of the output with the map, where there are several.
    """

    labels: tuple[str, ...] | None = None
    threshold: float = 0.5
    background: Literal["auto", "none"] | int = "auto"
    ignore: int = _NONE
    output: str | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise EdgewrightError("E103", f"option `threshold` is {self.threshold}, but must be a number")
        for name, value in (("background", self.background), ("ignore", self.ignore)):
            if isinstance(value, int) and not 0 <= value <= _NONE:
                raise EdgewrightError("E103", f"option `{name}` is {value}, but must be 0..{_NONE}")


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a network says of one sample's pixels; verify keeps one for each sample, so it is packed.

    Attributes:
        size: Height and width in pixels.
        count: Classes of the network; 2 for a single map.
        is_mask: True for a single map held against a threshold.
        packed: The class indices, u8[H, W], deflated.
    """

    size: tuple[int, int]
    count: int
    is_mask: bool
    packed: bytes

    @property
    def map(self) -> np.ndarray:
        """Class of every pixel, u8[H, W]; 255 where there is none."""
        return np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(self.size)

    def to_json(self) -> dict[str, Any]:
        """Size, and the share of pixels of each class that is there."""
        found, counts = np.unique(self.map, return_counts=True)
        shares = {
            str(index): count / self.map.size for index, count in zip(found.tolist(), counts.tolist(), strict=True)
        }
        return {"height": self.size[0], "width": self.size[1], "shares": shares}

    def __str__(self) -> str:
        return ", ".join(f"{index}: {share:.1%}" for index, share in self.to_json()["shares"].items())


@dataclass(frozen=True)
class LabelMap:
    """A file with the class index of every pixel.

    Attributes:
        path: The file.
        digest: Hash (hex) of its pixels; the path is no part of what tells one label from another.
    """

    path: Path = field(repr=False, compare=False)
    digest: str


def classes(spec: Spec, outputs: Sequence[TensorInfo]) -> None:
    """None: labels are maps, not classes. The names are checked against the number of classes, where known.

    Raises:
        EdgewrightError: E303 where they differ, or the output is no map.
    """
    options = _options(spec)
    if not outputs:
        return
    name = _output_name(options, [info.name for info in outputs])
    info = next(info for info in outputs if info.name == name)
    if len(info.shape) not in (3, 4):
        raise EdgewrightError("E303", f"task `segment` needs scores [1, classes, H, W], but the network gives {info}")
    count = info.shape[1] if len(info.shape) == 4 else None
    if isinstance(count, int):
        _check_count(options, name, max(count, 2))


def postprocess(outputs: Arrays, spec: Spec) -> Segmentation:
    """The class of every pixel of one sample.

    Raises:
        EdgewrightError: E303 when the outputs are no map, or the labels do not fit the classes.
    """
    options = _options(spec)
    name = _output_name(options, list(outputs))
    array = np.asarray(outputs[name])
    kinds = "fiu" if array.ndim == 4 else "iu"
    if array.ndim not in (3, 4) or array.size == 0 or array.shape[0] != 1 or array.dtype.kind not in kinds:
        raise EdgewrightError(
            "E303",
            f"output `{name}` is {array.dtype}{list(array.shape)}, but must be scores [1, classes, H, W], or class "
            "indices [1, H, W]",
        )
    is_mask = array.ndim == 4 and array.shape[1] == 1
    found, count = _indices(array[0], name) if array.ndim == 3 else _winners(array[0], options)
    _check_count(options, name, count)
    return Segmentation((found.shape[0], found.shape[1]), count, is_mask, zlib.compress(found.tobytes(), 1))


def metric(results: Sequence[Segmentation], labels: Sequence[LabelMap], spec: Spec) -> dict[str, float]:
    """Mean over the classes in labels or results of intersection over union ("mIoU"), and the share of right pixels.

    Counted over all samples together. A result is compared at the label's size, grown or shrunk by nearest neighbour.
    Source: Everingham et al. 2010 (PASCAL VOC), as every segmentation benchmark since.
    """
    ignore = _options(spec).ignore
    counts = np.zeros((_NONE + 1) ** 2, np.int64)
    for result, label in zip(results, labels, strict=True):
        pairs, found = _remembered(_confusions, result, label, ignore, _confusion)
        counts[pairs] += found
    confusion = counts.reshape(_NONE + 1, _NONE + 1)
    total = confusion.sum()
    if not total:
        return {METRIC: math.nan, "pixels": math.nan}
    right = np.diag(confusion)[:_NONE].astype(np.float64)
    union = (confusion.sum(axis=0) + confusion.sum(axis=1))[:_NONE] - right
    there = union > 0
    return {METRIC: float(np.mean(right[there] / union[there])), "pixels": float(right.sum() / total)}


def agreement(reference: Sequence[Segmentation], results: Sequence[Segmentation], spec: Spec) -> float:
    """Share of pixels that have the same class, over all samples together, nan for none.

    A pixel of the background in both does not count; 1 where no pixel counts.
    """
    if not reference:
        return math.nan
    options = _options(spec)
    same = counted = 0
    for one, other in zip(reference, results, strict=True):
        found = _remembered(_agreements, one, other, _background(options, one), _same_pixels)
        same, counted = same + int(found[0]), counted + int(found[1])
    return same / counted if counted else 1.0


def parse_label(text: str, spec: Spec) -> LabelMap:
    """The label map in the file that `text` names: 8-bit grey or palette, one class index a pixel.

    Raises:
        EdgewrightError: E305 where there is no such file, it is no map, or the photo was cut so that it cannot fit.
    """
    options = _options(spec)
    for name, item in spec.inputs.items():
        if isinstance(item, ImageInput) and item.resize != "stretch":
            raise EdgewrightError(
                "E305",
                f"label maps show the whole photo, but input `{name}` is made by `{item.resize}`",
                hint='set resize = "stretch" in the spec, or give ready-made .npz samples',
            )
    path = Path(text)
    found = _read_label(path)
    highest = int(found[(found != options.ignore) & (found != _NONE)].max(initial=0))
    if options.labels is not None and highest >= len(options.labels):
        raise EdgewrightError(
            "E305",
            f"label map `{path}` holds class {highest}, but the spec has {len(options.labels)} labels",
            hint="a class that means `not labelled` is named by the spec's option `ignore`",
        )
    return LabelMap(path, hashlib.sha256(f"{found.shape}".encode() + found.tobytes()).hexdigest())


def draw(image: Image.Image, result: Segmentation, spec: Spec) -> Image.Image:
    """The photo with a colour over every class; class 0 of a mask, and the background, stay as they are."""
    from PIL import Image

    base = image.convert("RGB")
    found = result.map
    background = _background(_options(spec), result)
    colours = _palette()
    layer = Image.fromarray(colours[found]).resize(base.size, Image.Resampling.NEAREST)
    shown = np.where((found == _NONE) | (found == background), 0, round(255 * _OPACITY)).astype(np.uint8)
    mask = Image.fromarray(shown).resize(base.size, Image.Resampling.NEAREST)
    return Image.composite(layer, base, mask)


# --- maps --------------------------------------------------------------------------------------------------------------


def _winners(scores: np.ndarray, options: Options) -> tuple[np.ndarray, int]:
    """u8[H, W] of the best class of scores [C, H, W], and the number of classes."""
    if scores.dtype.kind == "f":
        broken = np.isnan(scores).any(axis=0) | np.isposinf(scores).any(axis=0)
    else:
        broken = np.zeros(scores.shape[1:], bool)
    if scores.shape[0] == 1:
        best, count = (scores[0] >= options.threshold).astype(np.uint8), 2
    elif scores.shape[0] <= _MOST_CLASSES:
        best, count = scores.argmax(axis=0).astype(np.uint8), scores.shape[0]
    else:
        raise EdgewrightError("E303", f"a map has {scores.shape[0]} classes, more than the limit of {_MOST_CLASSES}")
    best[broken] = _NONE
    return best, count


def _indices(found: np.ndarray, name: str) -> tuple[np.ndarray, int]:
    if found.min() < 0 or found.max() >= _MOST_CLASSES:
        raise EdgewrightError(
            "E303", f"output `{name}` holds class {found.max()}, but 0..{_MOST_CLASSES - 1} are known"
        )
    return found.astype(np.uint8), int(found.max()) + 1


def _check_count(options: Options, name: str, count: int) -> None:
    if options.labels is not None and count > len(options.labels):
        raise EdgewrightError(
            "E303", f"the spec has {len(options.labels)} labels, but output `{name}` has {count} classes"
        )


def _background(options: Options, result: Segmentation) -> int | None:
    if options.background == "auto":
        return 0 if result.is_mask else None
    return None if options.background == "none" else int(options.background)


def _same_pixels(one: Segmentation, other: Segmentation, background: int | None) -> np.ndarray:
    """(pixels of the same class, pixels counted), i64[2]."""
    a, b = one.map, other.map
    if a.shape != b.shape:
        return np.array([0, max(a.size, b.size)])
    counts = np.ones(a.shape, bool) if background is None else (a != background) | (b != background)
    return np.array([np.sum(counts & (a == b) & (a != _NONE)), np.sum(counts)])


def _confusion(result: Segmentation, label: LabelMap, ignore: int) -> np.ndarray:
    """(256 * label + result, number of such pixels), i64[2, n], the labelled pixels only."""
    truth = _read_label(label.path)
    found = result.map
    rows = np.arange(truth.shape[0]) * found.shape[0] // truth.shape[0]
    columns = np.arange(truth.shape[1]) * found.shape[1] // truth.shape[1]
    found = found[rows][:, columns]
    kept = (truth != ignore) & (truth != _NONE)
    return np.stack(np.unique(truth[kept].astype(np.int64) * (_NONE + 1) + found[kept], return_counts=True))


def _read_label(path: Path) -> np.ndarray:
    """u8[H, W] of a label map."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "BMP", "TIFF")) as image:
            if image.width * image.height > _LARGEST_LABEL:
                raise EdgewrightError("E305", f"label map `{path}` has more than {_LARGEST_LABEL} pixels")
            if image.mode not in ("L", "P"):
                raise EdgewrightError(
                    "E305", f"label map `{path}` has pixels of mode {image.mode}, but must be 8-bit grey or palette"
                )
            return np.asarray(image, np.uint8)
    except EdgewrightError:
        raise
    except Exception as problem:  # malformed files make Pillow raise nearly anything
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else "is no whole label map"
        raise EdgewrightError("E305", f"label map `{path}` cannot be read: {reason}") from None


def _palette() -> np.ndarray:
    """A colour for each class, u8[256, 3], neighbours far apart. Source: the colour map of the PASCAL VOC devkit."""
    index = np.arange(256)[:, None]
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):  # bits 0, 1, 2 of the index, then 3, 4, 5, ... become the top bits of red, green, blue
        for channel in range(3):
            position = 3 * bit + channel
            if position < 8:
                colours[:, channel] |= (((index[:, 0] >> position) & 1) << (7 - bit)).astype(np.uint8)
    return colours


# --- what bounds ask for five hundred times ----------------------------------------------------------------------------

#: By result: what it was compared with, by which rule, and the counts.
_Memory = weakref.WeakKeyDictionary[Segmentation, tuple[weakref.ref[Any], int | None, np.ndarray]]
_agreements: _Memory = weakref.WeakKeyDictionary()
_confusions: _Memory = weakref.WeakKeyDictionary()


def _remembered(
    memory: _Memory, result: Segmentation, other: Any, rule: int | None, count: Callable[[Any, Any, Any], np.ndarray]
) -> np.ndarray:
    """`count(result, other, rule)`, computed once as long as the result lives and meets the same other."""
    known = memory.get(result)
    if known is None or known[0]() is not other or known[1] != rule:
        known = memory[result] = (weakref.ref(other), rule, count(result, other, rule))
    return known[2]


#: The last options read: postprocess runs once a sample.
_read: list[tuple[Mapping[str, Any], Options]] = []


def _options(spec: Spec) -> Options:
    if not _read or _read[0][0] is not spec.options:
        _read[:] = [(spec.options, build(Options, spec.options, where="segment"))]
    return _read[0][1]


def _output_name(options: Options, names: Sequence[str]) -> str:
    listed = ", ".join(f"`{name}`" for name in names) or "none"
    if options.output is not None and options.output not in names:
        raise EdgewrightError("E303", f"the spec's option `output` is `{options.output}`, but outputs are {listed}")
    if options.output is None and len(names) != 1:
        raise EdgewrightError("E303", f"task `segment` needs the option `output`: the network gives {listed}")
    return options.output or names[0]
