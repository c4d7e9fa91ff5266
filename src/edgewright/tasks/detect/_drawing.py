"""Boxes on a photo, each in the colour of its class, with name and score."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Plate = tuple[int, int, int, int]

_GOLDEN = 0.61803398875  # steps of the golden ratio around the colour circle keep neighbouring classes far apart
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_TRIES = 6  # places that a name is tried at before it may cover another


def draw_boxes(image: Image.Image, boxes: np.ndarray, classes: Sequence[int], captions: Sequence[str]) -> Image.Image:
    """A copy of the photo with boxes (corners in parts of its sides, f[n, 4]); the first box comes to lie on top."""
    from PIL import ImageDraw, ImageFont

    canvas = image.convert("RGB")
    canvas = canvas.copy() if canvas is image else canvas
    pen = ImageDraw.Draw(canvas)
    side = max(canvas.size)
    font = ImageFont.load_default(max(11, round(side / 55)))
    scale = np.array([canvas.width, canvas.height] * 2) - 1
    corners = np.rint(np.clip(boxes, 0, 1) * scale).astype(int).tolist()
    for corner, index in reversed(list(zip(corners, classes, strict=True))):
        pen.rectangle(tuple(corner), outline=class_colour(index), width=max(2, round(side / 300)))
    # names last, so that no box hides one; the best choose their places first
    plates: list[Plate] = []
    for corner, caption in zip(corners, captions, strict=True):
        plates.append(_place(pen.textbbox((0, 0), caption, font), corner, canvas.size, plates))
    for plate, index, caption in reversed(list(zip(plates, classes, captions, strict=True))):
        _write(pen, font, plate, caption, class_colour(index))
    return canvas


def class_colour(index: int) -> Colour:
    """A strong colour for a class; saturation and brightness tell apart what comes round to the same hue."""
    saturation, value = (0.9, 0.6, 0.75)[index % 3], (0.95, 0.8)[index % 2]
    red, green, blue = colorsys.hsv_to_rgb((index * _GOLDEN + 0.02) % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _place(text: tuple[float, ...], box: Sequence[int], size: tuple[int, int], taken: Sequence[Plate]) -> Plate:
    """The plate of a name: above its box, else inside from the top down, where it covers none of those `taken`."""
    margin = _margin(text)
    width, height = round(text[2] - text[0]) + 2 * margin, round(text[3] - text[1]) + 2 * margin
    x = max(0, min(box[0], size[0] - width))
    tops = [box[1] + height * step for step in range(-1, _TRIES)]
    places = [(x, y, x + width, y + height) for y in tops if 0 <= y <= size[1] - height]
    free = (plate for plate in places if not any(_cross(plate, other) for other in taken))
    return next(free, places[0] if places else (x, 0, x + width, height))


def _cross(one: Plate, other: Plate) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _margin(text: tuple[float, ...]) -> int:
    return max(2, round((text[3] - text[1]) / 5))


def _write(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    plate: Plate,
    text: str,
    colour: Colour,
) -> None:
    box = pen.textbbox((0, 0), text, font)
    pen.rectangle(plate, fill=colour)
    # Source: ITU-R BT.601 luma; dark text on light plates
    light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    margin = _margin(box)
    pen.text((plate[0] + margin - box[0], plate[1] + margin - box[1]), text, _BLACK if light else _WHITE, font)
