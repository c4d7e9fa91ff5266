"""Photos with label maps for training: read once, divided, and varied anew each time.

A folder holds `train` and `val`; each has `images/NAME.jpg` (or .png) and `labels/NAME.png`, one class index a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "vehicle", "pedestrian", "bicyclist")
IGNORE = 255
MEAN, STD = 127.5, 64.0
_HELD_BACK = 10  # one of so many photos of a sequence


@dataclass(frozen=True)
class Pictures:
    """Photos and their maps.

    Attributes:
        names: File names without ending.
        photos: u8[N, 3, H, W], RGB.
        maps: u8[N, H, W], class indices; 255 where nothing is labelled.
    """

    names: tuple[str, ...]
    photos: Tensor
    maps: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def only(self, chosen: list[int]) -> Pictures:
        """Those with the numbers `chosen`."""
        return Pictures(tuple(self.names[index] for index in chosen), self.photos[chosen], self.maps[chosen])


def class_names(folder: Path) -> tuple[str, ...]:
    """The lines of `folder/labels.txt`; without that file, CamVid's eleven classes."""
    listed = folder / "labels.txt"
    return tuple(listed.read_text(encoding="utf-8").split()) if listed.is_file() else CAMVID


def read(folder: Path, size: tuple[int, int], classes: int) -> Pictures:
    """All pictures of one part, at `size` (height, width) of the network.

    Raises:
        SystemExit: A photo or its map is missing, or the part is empty.
    """
    paths = sorted(path for path in (folder / "images").glob("*") if path.suffix in (".jpg", ".png"))
    if not paths:
        raise SystemExit(f"no photos in `{folder / 'images'}`: --data names a folder with train and val")
    photos, maps = [], []
    for path in paths:
        label = folder / "labels" / f"{path.stem}.png"
        if not label.is_file():
            raise SystemExit(f"photo `{path}` has no label map `{label}`")
        with Image.open(path) as photo, Image.open(label) as truth:
            shape = (size[1], size[0])
            photos.append(np.array(photo.convert("RGB").resize(shape, Image.Resampling.BILINEAR)).transpose(2, 0, 1))
            maps.append(np.array(truth.resize(shape, Image.Resampling.NEAREST), np.uint8))
    found = np.stack(maps)
    found[found >= classes] = IGNORE
    return Pictures(tuple(path.stem for path in paths), torch.from_numpy(np.stack(photos)), torch.from_numpy(found))


def divide(pictures: Pictures) -> tuple[Pictures, Pictures]:
    """What trains, and the last tenth of every sequence, by which the training stops.

    A sequence is what shares the name up to the last underscore, or has none: neighbouring frames show the same street,
    so that frames drawn at random would be known already.
    """
    train: list[int] = []
    held: list[int] = []
    for _, members in groupby(range(len(pictures)), key=lambda index: pictures.names[index].rpartition("_")[0]):
        sequence = list(members)
        kept = len(sequence) - max(1, len(sequence) // _HELD_BACK)
        train += sequence[:kept]
        held += sequence[kept:]
    return pictures.only(train), pictures.only(held)


def normalised(photos: Tensor) -> Tensor:
    """u8[N, 3, H, W] -> what the network takes, f32[N, 3, H, W]."""
    return ((photos.float() - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def batches(pictures: Pictures, size: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order and varied: (f32[N, 3, H, W], i64[N, H, W]); what does not fill a batch is left out."""
    order = rng.permutation(len(pictures))
    for start in range(0, len(order) - size + 1, size):
        pairs = [_varied(pictures.photos[i], pictures.maps[i], rng) for i in order[start : start + size]]
        photos, maps = (torch.stack(part) for part in zip(*pairs, strict=True))
        yield photos.contiguous(memory_format=torch.channels_last), maps


def _varied(photo: Tensor, truth: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One picture mirrored, scaled, cropped and in other light, at its old size."""
    values = photo.float()
    if rng.random() < 0.5:
        values, truth = values.flip(-1), truth.flip(-1)
    values, truth = _zoomed(values, truth, float(np.exp(rng.uniform(np.log(0.7), np.log(1.8)))), rng)
    return _relit((values - MEAN) / STD, rng), truth.long()


def _zoomed(values: Tensor, truth: Tensor, scale: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Scaled, and a random window of the old size: above 1 cut out, below 1 surrounded by grey without a label."""
    height, width = truth.shape
    rows, columns = (max(1, min(side, round(side / scale))) for side in (height, width))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    part = values[None, :, top : top + rows, left : left + columns]
    part_truth = truth[None, None, top : top + rows, left : left + columns].float()
    tall, wide = (max(1, min(side, round(side * scale))) for side in (height, width))
    part = functional.interpolate(part, (tall, wide), mode="bilinear", align_corners=False)[0]
    part_truth = functional.interpolate(part_truth, (tall, wide), mode="nearest")[0, 0]
    if (tall, wide) == (height, width):
        return part, part_truth
    canvas = torch.full_like(values, MEAN)
    canvas_truth = torch.full((height, width), float(IGNORE))
    down, right = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
    canvas[:, down : down + tall, right : right + wide] = part
    canvas_truth[down : down + tall, right : right + wide] = part_truth
    return canvas, canvas_truth


def _relit(values: Tensor, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation and tint changed a little."""
    grey = values.mean(dim=0, keepdim=True)
    values = grey + (values - grey) * float(rng.uniform(0.6, 1.4))
    tint = torch.from_numpy(rng.normal(0, 0.08, (3, 1, 1)).astype(np.float32))
    return values * float(rng.uniform(0.7, 1.3)) + float(rng.uniform(-0.3, 0.3)) + tint
