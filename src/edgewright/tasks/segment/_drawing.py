"""Drawing: a colour over every class, and a legend where classes have names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.tasks.segment._options import NONE

if TYPE_CHECKING:
    from PIL import Image

_OPACITY = 0.55


def overlay(image: Image.Image, found: np.ndarray, plain: int | None, names: Sequence[str]) -> Image.Image:
    """The photo coloured by a map u8[H, W] of any size; the class `plain`, and pixels without a class, stay as they are.

    Below it stand the `names` of the classes that are there, beside their colours.
    """
    from PIL import Image

    base = image.convert("RGB")
    colours = palette()
    layer = Image.fromarray(colours[found]).resize(base.size, Image.Resampling.NEAREST)
    shown = np.where((found == NONE) | (found == plain), 0, round(255 * _OPACITY)).astype(np.uint8)
    mask = Image.fromarray(shown).resize(base.size, Image.Resampling.NEAREST)
    drawn = Image.composite(layer, base, mask)
    there = [index for index in np.unique(found[shown > 0]).tolist() if index < len(names)]
    return _with_legend(drawn, [(names[index], tuple(colours[index].tolist())) for index in there])


def _with_legend(drawn: Image.Image, entries: Sequence[tuple[str, tuple[int, ...]]]) -> Image.Image:
    """The picture with a strip below: a square of each colour and its name, as many in a line as fit."""
    from PIL import Image, ImageDraw, ImageFont

    if not entries:
        return drawn
    side = max(11, round(max(drawn.size) / 55))
    font = ImageFont.load_default(side)
    lines, left = [0], 0
    places = []
    for name, _ in entries:
        wide = round(1.5 * side + font.getlength(name)) + side
        if left and left + wide > drawn.width:
            lines, left = [*lines, len(lines)], 0
        places.append((left + side // 2, len(lines) - 1))
        left += wide
    height = round(1.5 * side)
    canvas = Image.new("RGB", (drawn.width, drawn.height + len(lines) * height + side // 2), (24, 24, 24))
    canvas.paste(drawn, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for (name, colour), (x, line) in zip(entries, places, strict=True):
        y = drawn.height + side // 2 + line * height
        pen.rectangle((x, y, x + side - 1, y + side - 1), fill=colour)
        pen.text((x + round(1.5 * side), y - side // 8), name, (255, 255, 255), font)
    return canvas


def palette() -> np.ndarray:
    """A colour for each class, u8[256, 3], neighbours far apart. Source: the colour map of the PASCAL VOC devkit."""
    index = np.arange(256)[:, None]
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):  # bits 0, 1, 2 of the index, then 3, 4, 5, ... become the top bits of red, green, blue
        for channel in range(3):
            position = 3 * bit + channel
            if position < 8:
                colours[:, channel] |= (((index[:, 0] >> position) & 1) << (7 - bit)).astype(np.uint8)
    return colours
