"""CIFAR-10 from two archives: read once, divided, varied anew each time.

A folder holds `train.npz` and `test.npz`, each with the arrays `header` (the bytes that every JPEG starts with), `data`
(their bodies, end to end), `offsets` i64[n + 1] and `labels` u8[n].
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (125.3, 123.0, 113.9), (62.5, 61.9, 66.5)  # of the training pictures, 0..255
SIZE = 32
_END = b"\xff\xd9"  # of a JPEG
_HELD_BACK = 10  # one of so many pictures
_MARGIN = 4  # pixels that a picture is moved at most


@dataclass(frozen=True)
class Pictures:
    """Pictures and their classes.

    Attributes:
        photos: u8[N, 3, 32, 32], RGB.
        labels: i64[N].
    """

    photos: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.photos)


def read(path: Path, limit: int | None = None) -> Pictures:
    """The first `limit` pictures of an archive, or all.

    Raises:
        SystemExit: The archive is not there, or is none of this kind.
    """
    try:
        with np.load(path) as archive:
            header, data = archive["header"].tobytes(), archive["data"].tobytes()
            offsets, labels = archive["offsets"].tolist(), archive["labels"]
    except (OSError, KeyError, ValueError) as problem:
        raise SystemExit(f"`{path}` cannot be read: {problem}") from None
    count = min(len(labels), limit or len(labels))
    photos = np.empty((count, 3, SIZE, SIZE), np.uint8)
    for index in range(count):
        file = io.BytesIO(header + data[offsets[index] : offsets[index + 1]] + _END)
        with Image.open(file) as photo:
            photos[index] = np.asarray(photo.convert("RGB")).transpose(2, 0, 1)
    return Pictures(torch.from_numpy(photos), torch.from_numpy(labels[:count].astype(np.int64)))


def divide(pictures: Pictures) -> tuple[Pictures, Pictures]:
    """What trains, and the last tenth, by which the epoch is chosen; the order is random already."""
    kept = len(pictures) - max(1, len(pictures) // _HELD_BACK)
    photos, labels = pictures.photos, pictures.labels
    return Pictures(photos[:kept], labels[:kept]), Pictures(photos[kept:], labels[kept:])


def normalised(photos: Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """[N, 3, 32, 32] of 0..255 -> what the network takes, f32[N, 3, 32, 32]."""
    shift, scale = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return ((photos.float() - shift) / scale).contiguous(memory_format=torch.channels_last)


def batches(pictures: Pictures, size: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order and varied: (u8[N, 3, 32, 32], i64[N]); what does not fill a batch is left out."""
    order = torch.from_numpy(rng.permutation(len(pictures)))
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        yield varied(pictures.photos[chosen], rng), pictures.labels[chosen]


def varied(photos: Tensor, rng: np.random.Generator) -> Tensor:
    """Each picture moved by up to 4 pixels, what is missing being black, and half of them mirrored; u8[N, 3, 32, 32]."""
    count = len(photos)
    padded = functional.pad(photos, (_MARGIN,) * 4)
    top, left = (torch.from_numpy(rng.integers(0, 2 * _MARGIN + 1, count)) for _ in range(2))
    mirrored = torch.from_numpy(rng.random(count) < 0.5)
    places = torch.arange(SIZE)
    rows = top[:, None] + places
    columns = left[:, None] + torch.where(mirrored[:, None], places.flip(0), places)
    picture, channel = torch.arange(count)[:, None, None, None], torch.arange(3)[None, :, None, None]
    return padded[picture, channel, rows[:, None, :, None], columns[:, None, None, :]]
