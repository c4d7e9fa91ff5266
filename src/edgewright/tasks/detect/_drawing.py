"""Boxes on a photo, each in the colour of its class, with name and score."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

_GOLDEN = 0.61803398875  # steps of the golden ratio around the colour circle keep neighbouring classes far apart
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def draw_boxes(image: Image.Image, boxes: np.ndarray, classes: Sequence[int], captions: Sequence[str]) -> Image.Image:
    """A copy of the photo with boxes (corners in parts of its sides, f[n, 4]); the first box comes to lie on top."""
    from PIL import ImageDraw, ImageFont

    canvas = image.convert("RGB")
    canvas = canvas.copy() if canvas is image else canvas
    pen = ImageDraw.Draw(canvas)
    side = max(canvas.size)
    width = max(2, round(side / 300))
    font = ImageFont.load_default(max(11, round(side / 55)))
    scale = np.array([canvas.width, canvas.height] * 2) - 1
    corners = np.rint(np.clip(boxes, 0, 1) * scale).astype(int)
    for (left, top, right, bottom), index in reversed(list(zip(corners.tolist(), classes, strict=True))):
        pen.rectangle((left, top, right, bottom), outline=class_colour(index), width=width)
    # names last, so that no box hides one
    for (left, top, _, _), index, caption in reversed(list(zip(corners.tolist(), classes, captions, strict=True))):
        _write(pen, font, canvas.size, (left, top), caption, class_colour(index))
    return canvas


def class_colour(index: int) -> Colour:
    """A strong colour for a class."""
    red, green, blue = colorsys.hsv_to_rgb((index * _GOLDEN + 0.02) % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _write(
    pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, size: tuple[int, int],
    corner: tuple[int, int], text: str, colour: Colour,
) -> None:  # fmt: skip
    """The caption on a plate above the corner, or below it where the photo ends."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font)
    margin = max(2, round((bottom - top) / 5))
    width, height = round(right - left) + 2 * margin, round(bottom - top) + 2 * margin
    x = max(0, min(corner[0], size[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1]
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    # Source: ITU-R BT.601 luma; dark text on light plates
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    pen.text((x + margin - left, y + margin - top), text, _BLACK if light else _WHITE, font)
