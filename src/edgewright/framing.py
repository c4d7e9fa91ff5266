"""Where a photo lies in the input that is made from it: whole, between bars, or with its edges cut off.

Owns the geometry that `samples.images` prepares photos by and that tasks follow back, so that the two cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgewright.spec import ImageInput


@dataclass(frozen=True)
class Frame:
    """The photo's place in the input, in parts of the input's sides; a photo that was cut reaches beyond 0..1.

    Attributes:
        left: Left edge of the photo.
        top: Upper edge of the photo.
        width: Width of the whole photo.
        height: Height of the whole photo.
    """

    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0

    def to_photo(self, boxes: np.ndarray) -> np.ndarray:
        """Corners x1, y1, x2, y2 f[n, 4] in parts of the input, as parts of the photo."""
        return np.asarray((boxes - self._origin(boxes)) / self._sides(boxes))

    def to_input(self, boxes: np.ndarray) -> np.ndarray:
        """Corners x1, y1, x2, y2 f[n, 4] in parts of the photo, as parts of the input."""
        return np.asarray(boxes * self._sides(boxes) + self._origin(boxes))

    def _origin(self, boxes: np.ndarray) -> np.ndarray:
        return np.array([self.left, self.top, self.left, self.top], boxes.dtype)

    def _sides(self, boxes: np.ndarray) -> np.ndarray:
        return np.array([self.width, self.height, self.width, self.height], boxes.dtype)


def frame(size: tuple[int, int], item: ImageInput) -> Frame:
    """Where a photo of `size` (width, height) lies in the input `item`."""
    height, width = item.size
    if item.resize == "stretch":
        return Frame()
    if item.resize == "letterbox":
        left, top, right, bottom = letterbox_box(size, item)
        return Frame(left / width, top / height, (right - left) / width, (bottom - top) / height)
    left, top, right, bottom = centre_box(size, item)
    box_width, box_height = right - left, bottom - top
    return Frame(-left / box_width, -top / box_height, size[0] / box_width, size[1] / box_height)


def centre_box(size: tuple[int, int], item: ImageInput) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the `crop` box in a photo of `size` (width, height)."""
    width, height = size
    scale = min(width / item.size[1], height / item.size[0]) * item.crop_fraction
    box_width, box_height = (max(1, round(side * scale)) for side in (item.size[1], item.size[0]))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height


def letterbox_box(size: tuple[int, int], item: ImageInput) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the photo of `size` (width, height) in a `letterbox` input, in pixels.

    Source for `interpolation = "darknet"`: letterbox_image in image.c of AlexeyAB/darknet, whose sides are cut off to
    whole pixels, where others round.
    """
    height, width = item.size
    if item.interpolation == "darknet":
        wide = np.float32(width) / np.float32(size[0]) < np.float32(height) / np.float32(size[1])
        inner = (width, size[1] * width // size[0]) if wide else (size[0] * height // size[1], height)
    else:
        scale = min(width / size[0], height / size[1])
        inner = round(size[0] * scale), round(size[1] * scale)
    inner_width, inner_height = min(width, max(1, inner[0])), min(height, max(1, inner[1]))
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    return left, top, left + inner_width, top + inner_height
