"""Street-like scenes with label maps, drawn from a seed: photos that may be given away.

    python scenes.py OUT [--train 400] [--val 64] [--size 96x128] [--seed 0]

Writes OUT/labels.txt, and OUT/train and OUT/val, each with images/NAME.png and labels/NAME.png (class indices; 7 is
void: the rim of things, which no one could label to the pixel). The two parts are drawn from different seeds.

Sky, ground and road meet at a horizon; houses, trees, poles and cars of random shape, colour and distance hide each
other. Colours of different classes overlap, light falls from one side, haze grows with distance, and each photo has its
own exposure, tint, blur and noise, so that no class can be told by its colour alone.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

LABELS = ("sky", "ground", "road", "house", "tree", "car", "pole")
SKY, GROUND, ROAD, HOUSE, TREE, CAR, POLE = range(len(LABELS))
VOID = len(LABELS)
_FINE = 3  # scenes are drawn so many times larger: edges are smooth in the photo
_VAL_SEED = 1_000_000

Colour = tuple[float, float, float]


@dataclass
class Canvas:
    """A scene as it is drawn: the photo and the map, far things first."""

    height: int
    width: int
    rng: np.random.Generator
    haze: Colour
    horizon: float

    def __post_init__(self) -> None:
        size = (self.width * _FINE, self.height * _FINE)
        self.photo, self.map = Image.new("RGB", size), Image.new("L", size)
        self.pens = ImageDraw.Draw(self.photo), ImageDraw.Draw(self.map)

    def colour(self, base: Colour, near: float, spread: float = 25) -> tuple[int, int, int]:
        """`base` varied a little, and mixed with haze the more the farther it is; `near` 0..1."""
        mixed = np.asarray(base) + self.rng.normal(0, spread, 3)
        mixed += (np.asarray(self.haze) - mixed) * 0.55 * (1 - near) ** 2
        red, green, blue = np.clip(mixed, 0, 255).astype(int).tolist()
        return red, green, blue

    def shape(
        self, kind: str, points: list[tuple[float, float]], colour: tuple[int, int, int], label: int | None
    ) -> None:
        """A polygon or ellipse, in fractions of width and height; None paints over what is there already."""
        pixels = [(x * self.width * _FINE, y * self.height * _FINE) for x, y in points]
        for pen, fill in zip(self.pens, (colour, label), strict=True):
            if fill is not None:
                getattr(pen, kind)(pixels, fill=fill)

    def box(
        self, left: float, top: float, right: float, bottom: float, colour: tuple[int, int, int], label: int | None
    ) -> None:
        """An upright rectangle."""
        self.shape("polygon", [(left, top), (right, top), (right, bottom), (left, bottom)], colour, label)


def scene(size: tuple[int, int], seed: int) -> tuple[Image.Image, Image.Image]:
    """A photo (RGB) and its map (grey, class indices), `size` being height and width."""
    rng = np.random.default_rng(seed)
    haze = tuple(rng.uniform((120, 130, 140), (220, 225, 240)).tolist())
    canvas = Canvas(*size, rng, haze, rng.uniform(0.3, 0.55))
    _backdrop(canvas)
    count = int(rng.integers(7, 14))
    for depth in np.sort(rng.uniform(0.03, 1, count) ** 1.4):
        kind = rng.choice((HOUSE, TREE, CAR, POLE), p=(0.27, 0.3, 0.25, 0.18))
        _THINGS[int(kind)](canvas, float(depth))
    return _photographed(canvas), _labelled(canvas)


def _backdrop(canvas: Canvas) -> None:
    """Sky, ground, and a road that runs from the bottom to a point on the horizon."""
    rng, horizon = canvas.rng, canvas.horizon
    above = (rng.uniform(60, 190), rng.uniform(90, 190), rng.uniform(120, 235))
    for row in range(24):  # darker upwards
        share = row / 24
        mixed = tuple(a + (b - a) * share for a, b in zip(above, canvas.haze, strict=True))
        canvas.box(0, horizon * share, 1, horizon * (row + 1) / 24 + 0.01, canvas.colour(mixed, 1, 3), SKY)
    for _ in range(int(rng.integers(0, 5))):
        x, y, wide = rng.uniform(0, 1), rng.uniform(0, horizon * 0.7), rng.uniform(0.05, 0.25)
        canvas.shape(
            "ellipse", [(x - wide, y - wide / 5), (x + wide, y + wide / 5)], canvas.colour((225, 225, 230), 1), None
        )
    base = (rng.uniform(70, 150), rng.uniform(90, 150), rng.uniform(50, 120))
    for row in range(16):
        share = row / 16
        top = horizon + (1 - horizon) * share
        canvas.box(0, top, 1, top + (1 - horizon) / 15, canvas.colour(base, 0.3 + 0.7 * share, 6), GROUND)
    far, near, wide = rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.6)
    grey = rng.uniform(60, 150)
    corners = [(far - 0.02, horizon), (far + 0.02, horizon), (near + wide, 1.0), (near - wide, 1.0)]
    canvas.shape("polygon", corners, canvas.colour((grey, grey, grey * 1.03), 0.9, 6), ROAD)
    for row in range(0, 8, 2):  # the broken line in the middle
        one, two = ((row + part) / 8 for part in (0, 0.9))
        line = [
            (far + (near - far) * s + e * 0.012 * s, horizon + (1 - horizon) * s)
            for s, e in ((one, -1), (one, 1), (two, 1), (two, -1))
        ]
        canvas.shape("polygon", line, canvas.colour((215, 210, 195), 0.9), None)


def _stand(canvas: Canvas, depth: float) -> tuple[float, float, float]:
    """Where a thing stands, and its scale: (x, y of the foot, factor)."""
    return canvas.rng.uniform(-0.05, 1.05), canvas.horizon + (1 - canvas.horizon) * 0.85 * depth, 0.16 + 0.84 * depth


def _house(canvas: Canvas, depth: float) -> None:
    rng = canvas.rng
    x, foot, scale = _stand(canvas, depth)
    wide, tall = rng.uniform(0.18, 0.45) * scale, rng.uniform(0.3, 0.75) * scale
    wall = tuple(rng.uniform((90, 80, 70), (220, 210, 200)).tolist())
    top, left, right = foot - tall, x - wide / 2, x + wide / 2
    canvas.box(left, top, right, foot, canvas.colour(wall, depth, 8), HOUSE)
    side = left + wide * rng.uniform(0.6, 0.9)  # the side in shadow
    canvas.box(side, top, right, foot, canvas.colour(tuple(0.7 * part for part in wall), depth, 5), HOUSE)
    if rng.random() < 0.6:
        roof = tuple(rng.uniform((70, 40, 40), (170, 110, 110)).tolist())
        peak = top - rng.uniform(0.1, 0.3) * tall
        canvas.shape("polygon", [(left - 0.01, top), (right + 0.01, top), (x, peak)], canvas.colour(roof, depth), HOUSE)
    glass = canvas.colour((70, 85, 105), depth, 20)
    columns, rows = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    for column in range(columns):
        for row in range(rows):
            u, v = left + wide * (column + 0.3) / columns, top + tall * (row + 0.25) / (rows + 0.5)
            canvas.box(u, v, u + wide * 0.4 / columns, v + tall * 0.5 / (rows + 0.5), glass, None)


def _tree(canvas: Canvas, depth: float) -> None:
    rng = canvas.rng
    x, foot, scale = _stand(canvas, depth)
    tall, wide = rng.uniform(0.3, 0.7) * scale, rng.uniform(0.1, 0.2) * scale
    trunk = canvas.colour((85, 65, 50), depth, 12)
    canvas.box(x - wide * 0.1, foot - tall * 0.5, x + wide * 0.1, foot, trunk, TREE)
    leaf = tuple(rng.uniform((40, 70, 25), (140, 150, 80)).tolist())
    for _ in range(int(rng.integers(6, 12))):
        u, v = x + rng.normal(0, 0.4) * wide, foot - tall * rng.uniform(0.45, 0.95)
        radius = wide * rng.uniform(0.3, 0.6)
        canvas.shape(
            "ellipse", [(u - radius, v - radius), (u + radius, v + radius)], canvas.colour(leaf, depth, 14), TREE
        )


def _car(canvas: Canvas, depth: float) -> None:
    rng = canvas.rng
    x, foot, scale = _stand(canvas, depth)
    wide, tall = rng.uniform(0.2, 0.34) * scale, rng.uniform(0.1, 0.15) * scale
    paint = canvas.colour(tuple(rng.uniform(20, 235, 3).tolist()), depth, 5)
    canvas.shape(
        "ellipse",
        [(x - wide * 0.55, foot - 0.02 * scale), (x + wide * 0.55, foot + 0.02 * scale)],
        canvas.colour((40, 40, 45), depth, 5),
        None,
    )
    top, middle = foot - tall * 1.6, foot - tall * 0.8
    cabin = [(x - wide * 0.3, middle), (x - wide * 0.2, top), (x + wide * 0.2, top), (x + wide * 0.33, middle)]
    canvas.shape("polygon", cabin, paint, CAR)
    glass = [(x + (u - x) * 0.8, v + (middle - v) * 0.15) for u, v in cabin]
    canvas.shape("polygon", glass, canvas.colour((60, 75, 90), depth, 15), CAR)
    canvas.box(x - wide / 2, middle, x + wide / 2, foot - tall * 0.15, paint, CAR)
    for u in (x - wide * 0.28, x + wide * 0.28):
        radius = tall * 0.3
        canvas.shape(
            "ellipse", [(u - radius, foot - 2 * radius), (u + radius, foot)], canvas.colour((30, 30, 32), depth, 8), CAR
        )


def _pole(canvas: Canvas, depth: float) -> None:
    rng = canvas.rng
    x, foot, scale = _stand(canvas, depth)
    tall, wide = rng.uniform(0.4, 0.9) * scale, rng.uniform(0.012, 0.024) * scale + 0.006
    grey = rng.uniform(50, 170)
    colour = canvas.colour((grey, grey, grey), depth, 12)
    canvas.box(x - wide / 2, foot - tall, x + wide / 2, foot, colour, POLE)
    if rng.random() < 0.6:  # a sign or a lamp
        canvas.box(x - wide * 2.5, foot - tall, x + wide * 2.5, foot - tall * 0.86, colour, POLE)


_THINGS = {HOUSE: _house, TREE: _tree, CAR: _car, POLE: _pole}


def _photographed(canvas: Canvas) -> Image.Image:
    """The photo at its size: texture, light from one side, exposure, tint, blur, noise."""
    rng, size = canvas.rng, (canvas.width, canvas.height)
    photo = canvas.photo.resize(size, Image.Resampling.BOX)
    photo = photo.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.7)))
    values = np.asarray(photo, np.float32)
    rough = rng.normal(0, 1, (canvas.height // 8 + 1, canvas.width // 8 + 1)).astype(np.float32)
    coarse = np.asarray(Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC))
    slope = np.linspace(-1, 1, canvas.width, dtype=np.float32) * rng.uniform(-0.2, 0.2)
    light = rng.uniform(0.65, 1.25) * (1 + slope[None, :] + 0.08 * coarse)
    values = values * light[:, :, None] * rng.normal(1, 0.06, 3) + rng.normal(0, rng.uniform(2, 9), values.shape)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _labelled(canvas: Canvas) -> Image.Image:
    """The map at its size; a pixel that two classes share is void where neither has three quarters."""
    fine = np.asarray(canvas.map).reshape(canvas.height, _FINE, canvas.width, _FINE)
    counts = np.stack([(fine == label).sum(axis=(1, 3)) for label in range(len(LABELS))])
    best = counts.argmax(axis=0)
    best[counts.max(axis=0) < 0.75 * _FINE**2] = VOID
    return Image.fromarray(best.astype(np.uint8))


def write(folder: Path, count: int, size: tuple[int, int], seed: int) -> Path:
    """`count` scenes below `folder`: images/NAME.png and labels/NAME.png; returns `folder`."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        photo, labels = scene(size, seed + number)
        photo.save(folder / "images" / f"{number:04d}.png")
        labels.save(folder / "labels" / f"{number:04d}.png")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--val", type=int, default=64)
    parser.add_argument("--size", default="96x128", help="Height x width in pixels.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    write(options.out / "train", options.train, (height, width), options.seed)
    write(options.out / "val", options.val, (height, width), options.seed + _VAL_SEED)
    (options.out / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    print(f"{options.train} scenes to train on and {options.val} to judge in {options.out}")


if __name__ == "__main__":
    main()
