"""Maps: what a network says of a sample's pixels, and what a label file says."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.framing import frame
from edgewright.spec import ImageInput
from edgewright.tasks.segment._options import MOST_CLASSES, NONE, Options

_LARGEST_LABEL = 2**26  # pixels; Pillow itself warns at 89 million


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a network says of one sample's pixels; verify keeps one for each sample, so it is packed.

    Attributes:
        size: Height and width in pixels.
        count: Classes of the network; 2 for a single map.
        is_mask: True for a single map held against a threshold.
        packed: The class indices, u8[H, W], deflated.
        placed: True where the map is that of a photo, not of the network's input.
    """

    size: tuple[int, int]
    count: int
    is_mask: bool
    packed: bytes
    placed: bool = False

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
        size: Width and height in pixels.
    """

    path: Path = field(repr=False, compare=False)
    digest: str
    size: tuple[int, int] = (0, 0)


def segmentation(found: np.ndarray, count: int, *, is_mask: bool) -> Segmentation:
    """The result for class indices u8[H, W]."""
    return Segmentation((found.shape[0], found.shape[1]), count, is_mask, zlib.compress(found.tobytes(), 1))


def placed(result: Segmentation, size: tuple[int, int], item: ImageInput) -> Segmentation:
    """The result at the size (width, height) of its photo, by nearest neighbour; what the input cut off has no class."""
    found = result.map
    place = frame(size, item)
    rows = _places(size[1], place.top, place.height, found.shape[0])
    columns = _places(size[0], place.left, place.width, found.shape[1])
    whole = np.pad(found, ((0, 1), (0, 1)), constant_values=NONE)[rows][:, columns]
    return replace(segmentation(whole, result.count, is_mask=result.is_mask), placed=True)


def _places(length: int, start: float, part: float, side: int) -> np.ndarray:
    """For each pixel of a photo the index along the map; `side` where the map does not reach."""
    index = np.floor((start + (np.arange(length) + 0.5) / length * part) * side).astype(np.int64)
    return np.where((index >= 0) & (index < side), index, side)


def label_map(path: Path, options: Options) -> LabelMap:
    """The label in a file, read once to the end.

    Raises:
        EdgewrightError: E305 where it is no map, or holds a class that the Spec does not name.
    """
    found = read_label(path)
    highest = int(found[(found != options.ignore) & (found != NONE)].max(initial=0))
    if options.labels is not None and highest >= len(options.labels):
        raise EdgewrightError(
            "E305",
            f"label map `{path}` holds class {highest}, but the spec has {len(options.labels)} labels",
            hint="a class that means `not labelled` is named by the spec's option `ignore`",
        )
    digest = hashlib.sha256(f"{found.shape}".encode() + found.tobytes()).hexdigest()
    return LabelMap(path, digest, (found.shape[1], found.shape[0]))


def read_label(path: Path) -> np.ndarray:
    """u8[H, W] of a label map.

    Raises:
        EdgewrightError: E305 where the file is none.
    """
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


def winners(scores: np.ndarray, options: Options) -> tuple[np.ndarray, int]:
    """u8[H, W] of the best class of scores [C, H, W], and the number of classes.

    Raises:
        EdgewrightError: E303 for more classes than a map can hold.
    """
    if scores.dtype.kind == "f":
        broken = np.isnan(scores).any(axis=0) | np.isposinf(scores).any(axis=0)
    else:
        broken = np.zeros(scores.shape[1:], bool)
    if scores.shape[0] == 1:
        best, count = (scores[0] >= options.threshold).astype(np.uint8), 2
    elif scores.shape[0] <= MOST_CLASSES:
        best, count = scores.argmax(axis=0).astype(np.uint8), scores.shape[0]
    else:
        raise EdgewrightError("E303", f"a map has {scores.shape[0]} classes, more than the limit of {MOST_CLASSES}")
    best[broken] = NONE
    return best, count


def indices(found: np.ndarray, name: str) -> tuple[np.ndarray, int]:
    """u8[H, W] of class indices [H, W], and the number of classes that they prove.

    Raises:
        EdgewrightError: E303 for an index that no class has.
    """
    if found.min() < 0 or found.max() >= MOST_CLASSES:
        raise EdgewrightError("E303", f"output `{name}` holds class {found.max()}, but 0..{MOST_CLASSES - 1} are known")
    return found.astype(np.uint8), int(found.max()) + 1
