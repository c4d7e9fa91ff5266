"""Tiling: maps of photos that are larger than a network's input, at the photo's own resolution.

    with ew.open(bundle) as session:
        outputs = tiling.run(session, "street.jpg", overlap=64)
        result = task.postprocess(outputs, tiling.whole(bundle.spec))

Tiles of the input's size cover the photo and overlap. What a network says near a tile's edge was made without knowing
what lies beyond, so there a tile does not count: its weight is 0 in the outer quarter of the overlap, and grows over the
middle half while its neighbour's falls. So the scores of a convolutional network equal those of the whole photo in one
piece wherever a quarter of the overlap is at least as wide as the network sees from a pixel, and tile and overlap are
multiples of its stride. At the photo's own edges the tiles count in full, since there is nothing beyond.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.samples import images
from edgewright.samples.images import BrokenSampleError
from edgewright.samples.loading import Loader
from edgewright.samples.sources import display
from edgewright.session import Session
from edgewright.spec import ImageInput, Spec

if TYPE_CHECKING:
    from PIL import Image

#: Of scores that are kept while a photo is worked through.
_MOST_BYTES = 2**31


@dataclass(frozen=True)
class _Tile:
    """One tile along one axis: where it begins, and how much each of its places counts, f32[tile]."""

    start: int
    weights: np.ndarray


def whole(spec: Spec) -> Spec:
    """The Spec by which results of tiled runs are read: they show the whole photo, whatever the input's resize rule."""
    inputs = {
        name: replace(item, resize="stretch") if isinstance(item, ImageInput) else item
        for name, item in spec.inputs.items()
    }
    return replace(spec, inputs=inputs)


def run(session: Session, photo: str | Path, *, overlap: int) -> dict[str, np.ndarray]:
    """The network's maps of a whole photo, f32[1, C, H, W] by output name, H and W being the photo's.

    Outputs that are no maps of the input's size are left out.

    Args:
        session: The network; it takes one photo, and gives scores for every pixel of it.
        photo: The file.
        overlap: Of neighbouring tiles in pixels, 0 to half of the input's shorter side.

    Raises:
        EdgewrightError: E103 for an overlap outside its range, E230 for a photo that is smaller than the input, or so
            large that its scores would not fit the memory limit, E302 for one that cannot be read, E303 for a network
            that takes no photo, or gives no scores of the input's size.
    """
    loader = Loader(session.bundle.spec, session.bundle.inputs)
    name, item = loader.photo_input()
    _check_overlap(overlap, item)
    path = Path(photo)
    try:
        picture = images.decode(path)
    except BrokenSampleError as problem:
        raise EdgewrightError("E302", f"photo `{display(path)}` {problem}") from None
    _check_size(path, picture, item)
    size = (picture.height, picture.width)
    rows, columns = (_tiles(*sides, overlap) for sides in zip(size, item.size, strict=True))
    sums: dict[str, np.ndarray] = {}
    for row in rows:
        for column in columns:
            box = (column.start, row.start, column.start + item.size[1], row.start + item.size[0])
            array = loader.from_picture(picture.crop(box), replace(item, resize="stretch"))
            maps = dict(_maps(session.run({name: array}), item.size))
            sums = sums or _zeros(maps, size, path)
            weight = row.weights[:, None] * column.weights
            for output, scores in maps.items():
                sums[output][:, :, box[1] : box[3], box[0] : box[2]] += scores * weight
    weight = _total(rows, size[0])[:, None] * _total(columns, size[1])
    return {output: np.divide(total, weight, out=total) for output, total in sums.items()}


def _check_overlap(overlap: int, item: ImageInput) -> None:
    limit = min(item.size) // 2
    if not 0 <= overlap <= limit:
        raise EdgewrightError(
            "E103",
            f"tiles overlap by {overlap} pixels, but must by 0 to {limit}, half of the input's shorter side "
            f"({item.size[1]} x {item.size[0]})",
        )


def _check_size(path: Path, picture: Image.Image, item: ImageInput) -> None:
    height, width = item.size
    if picture.width < width or picture.height < height:
        raise EdgewrightError(
            "E230",
            f"photo `{display(path)}` is {picture.width} x {picture.height}, smaller than one tile, the network's input of "
            f"{width} x {height}",
            hint="run it without --tile: edgewright run NETWORK PHOTO",
        )


def _tiles(length: int, tile: int, overlap: int) -> list[_Tile]:
    """Tiles that cover `length`: a step of tile - overlap from each to the next, the last one moved back to the end."""
    last = length - tile
    starts = [*range(0, last, tile - overlap), last]
    outer = overlap // 4
    ramp = np.ones(tile, np.float32)
    if overlap:
        ramp = np.clip((np.arange(tile, dtype=np.float32) + 0.5 - outer) / (overlap - 2 * outer), 0, 1)
    one = np.ones(tile, np.float32)
    return [_Tile(start, (ramp if start > 0 else one) * (ramp[::-1] if start < last else one)) for start in starts]


def _total(tiles: Sequence[_Tile], length: int) -> np.ndarray:
    """The sum of the weights at each place, f32[length]; never 0."""
    total = np.zeros(length, np.float32)
    for tile in tiles:
        total[tile.start : tile.start + len(tile.weights)] += tile.weights
    return total


def _maps(outputs: dict[str, np.ndarray], size: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
    """The outputs that hold scores of every pixel of the input.

    Raises:
        EdgewrightError: E303 where none does.
    """
    found = [
        (name, array)
        for name, array in outputs.items()
        if array.ndim == 4 and array.dtype.kind == "f" and array.shape[2:] == size
    ]
    if not found:
        shown = ", ".join(f"`{name}` {array.dtype}{list(array.shape)}" for name, array in outputs.items())
        raise EdgewrightError(
            "E303",
            f"tiles are blended by scores [1, classes, {size[0]}, {size[1]}], but the network gives {shown}",
            hint="class indices cannot be blended: use the bundle without `append_argmax`",
        )
    yield from found


def _zeros(maps: dict[str, np.ndarray], size: tuple[int, int], path: Path) -> dict[str, np.ndarray]:
    channels = sum(array.shape[1] for array in maps.values())
    needed = 4 * channels * size[0] * size[1]
    if needed > _MOST_BYTES:
        raise EdgewrightError(
            "E230",
            f"photo `{display(path)}` is {size[1]} x {size[0]}: {channels} maps of it need {needed / 2**30:.1f} GiB, more than "
            f"the limit of {_MOST_BYTES / 2**30:.0f} GiB",
            hint="shrink the photo, or cut it in pieces",
        )
    return {name: np.zeros((1, array.shape[1], *size), np.float32) for name, array in maps.items()}
