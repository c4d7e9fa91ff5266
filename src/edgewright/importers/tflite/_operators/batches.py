"""SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND: blocks of an image as images of their own, and back.

Source: TensorFlow's documentation of tf.space_to_batch_nd and tf.batch_to_space.
"""

from __future__ import annotations

import math

import numpy as np

from edgewright.importers.tflite._site import Site


def space_to_batch(site: Site) -> None:
    """SPACE_TO_BATCH_ND: a border of zeros, then each place within a block is an image."""
    sizes, blocks, borders = _arguments(site)
    value = site.real(0)
    if borders.any():
        pads = np.zeros((2, len(sizes)), np.int64)
        pads[:, 1 : 1 + len(blocks)] = borders.T
        value = site.graph.node("Pad", value, site.graph.numbers(pads.reshape(-1)))
    wide = [size + int(border.sum()) for size, border in zip(sizes[1:], borders, strict=False)]
    if any(size % block for size, block in zip(wide, blocks, strict=True)):
        raise site.refuse(f"sides of {wide} have no whole number of blocks of {blocks}")
    whole = [size // block for size, block in zip(wide, blocks, strict=True)]
    rest, count = sizes[1 + len(blocks) :], len(blocks)
    split = [sizes[0], *(part for pair in zip(whole, blocks, strict=True) for part in pair), *rest]
    order = [*range(2, 2 * count + 1, 2), 0, *range(1, 2 * count, 2), *range(2 * count + 1, len(split))]
    value = site.graph.node("Reshape", value, site.graph.numbers(split))
    value = site.graph.node("Transpose", value, perm=order)
    site.done(site.graph.node("Reshape", value, site.graph.numbers([sizes[0] * math.prod(blocks), *whole, *rest])))


def batch_to_space(site: Site) -> None:
    """BATCH_TO_SPACE_ND: the same backwards, then the border is cut off."""
    sizes, blocks, borders = _arguments(site)
    count, images = len(blocks), sizes[0] // math.prod(blocks)
    if images * math.prod(blocks) != sizes[0]:
        raise site.refuse(f"a batch of {sizes[0]} has no whole number of blocks of {blocks}")
    sides, rest = sizes[1 : 1 + count], sizes[1 + count :]
    order = [
        count,
        *(axis for n in range(count) for axis in (count + 1 + n, n)),
        *range(2 * count + 1, len(sizes) + count),
    ]
    value = site.graph.node("Reshape", site.real(0), site.graph.numbers([*blocks, images, *sides, *rest]))
    value = site.graph.node("Transpose", value, perm=order)
    wide = [side * block for side, block in zip(sides, blocks, strict=True)]
    value = site.graph.node("Reshape", value, site.graph.numbers([images, *wide, *rest]))
    if borders.any():
        stops = [side - int(border[1]) for side, border in zip(wide, borders, strict=True)]
        rows = [[int(border[0]) for border in borders], stops, list(range(1, 1 + count))]
        value = site.graph.node("Slice", value, *(site.graph.numbers(row) for row in rows))
    site.done(value)


def _arguments(site: Site) -> tuple[list[int], list[int], np.ndarray]:
    """Sizes, block sizes, and the border of each blocked axis before and behind."""
    sizes, blocks, borders = site.shape(0), site.integers(1), site.array(2)
    known = [size for size in sizes if isinstance(size, int) and size > 0]
    if len(known) != len(sizes):
        raise site.refuse(f"it needs sizes that are known, not {list(sizes)}", "E209")
    fits = borders.shape == (len(blocks), 2) and borders.dtype.kind == "i" and 1 <= len(blocks) < len(sizes)
    if not fits or not all(1 <= block <= 2**16 for block in blocks) or (borders < 0).any() or (borders > 2**16).any():
        raise site.refuse(f"blocks of {blocks} with borders {borders.tolist()} do not fit {len(sizes)} axes")
    return known, blocks, borders
