"""Feeding: samples as batches, in a random order that a seed decides, from any step on; photos varied at random.

What fits in memory is read once; else the source is read again in each round, and shuffled within windows that fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgewright.contracts import Sample, SampleSource
from edgewright.spec import ImageInput, Spec

#: Bytes of decoded samples that are held.
_WINDOW_BYTES = 512 * 2**20
#: Least part of a photo's area that a random crop keeps.
_LEAST_AREA = 0.5
#: Sides, in pixels, below which photos are moved: enlarging a crop of so few blurs what there is to see.
_SMALL = 64
#: Largest move, as a part of the side.
_MOVE = 1 / 8
#: Tasks that read text, which mirror images do not show.
_READING = ("ctc",)


@dataclass
class Feed:
    """Batches of samples without end."""

    samples: SampleSource
    size: int
    seed: int
    _held: list[Sample] | None = None

    def batches(self, start: int) -> Iterator[list[Sample]]:
        """Batches from number `start` on; what comes depends on the seed and on the number alone."""
        stream = itertools.islice(self._order(), start * self.size, None)
        while batch := list(itertools.islice(stream, self.size)):
            yield batch

    def _order(self) -> Iterator[Sample]:
        for epoch in itertools.count():
            for number, window in enumerate(self._windows()):
                order = np.random.default_rng([self.seed, epoch, number]).permutation(len(window))
                yield from (window[index] for index in order)

    def _windows(self) -> Iterator[list[Sample]]:
        if self._held is not None:
            yield self._held
            return
        window: list[Sample] = []
        size, whole = 0, True
        for sample in self.samples:
            window.append(sample)
            size += sum(array.nbytes for array in sample.arrays.values())
            if size > _WINDOW_BYTES:
                yield window
                window, size, whole = [], 0, False
        if whole:
            self._held = window
        if window:
            yield window


def held(samples: SampleSource, most_bytes: int) -> list[Sample]:
    """The first samples that fit in memory, one at least."""
    found: list[Sample] = []
    size = 0
    for sample in samples:
        size += sum(array.nbytes for array in sample.arrays.values())
        if found and size > most_bytes:
            break
        found.append(sample)
    return found


def tensors(samples: Sequence[Sample]) -> list[dict[str, Tensor]]:
    """The arrays of each sample as tensors."""
    return [{name: torch.from_numpy(np.array(array)) for name, array in sample.arrays.items()} for sample in samples]


def joined(inputs: Sequence[Mapping[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """One batch of several; photos with their channels last in memory, as convolutions are fastest."""
    batch = {name: torch.cat([item[name] for item in inputs]).to(device) for name in inputs[0]}
    return {
        name: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 and x.is_floating_point() else x
        for name, x in batch.items()
    }


def augments(spec: Spec, wanted: str) -> bool:
    """Whether photos are cropped or moved, and mirrored: as asked for, or where that leaves them what they are."""
    return spec.takes_photos and (wanted == "on" or (wanted == "auto" and spec.task not in _READING))


def augmented(inputs: Mapping[str, Tensor], spec: Spec, rng: np.random.Generator) -> dict[str, Tensor]:
    """The inputs of one sample, photos among them cropped at random and resized to their size, or moved where they are
    small, and mirrored at random."""
    result = dict(inputs)
    for name, item in spec.inputs.items():
        if isinstance(item, ImageInput) and name in inputs:
            x = inputs[name].movedim(3, 1) if item.layout == "nhwc" else inputs[name]
            x = _moved(x, rng) if min(x.shape[2:]) < _SMALL else _cropped(x, rng)
            x = x.flip(3) if rng.random() < 0.5 else x
            result[name] = x.movedim(1, 3) if item.layout == "nhwc" else x
    return result


def _cropped(x: Tensor, rng: np.random.Generator) -> Tensor:
    """A part of x f32[N, C, H, W], up to a quarter wider or narrower than x, in the size of x."""
    high, wide = x.shape[2:]
    side, stretch = np.sqrt(rng.uniform(_LEAST_AREA, 1)), np.exp(rng.uniform(-0.12, 0.12))
    rows, columns = (max(1, round(min(side * s, 1) * n)) for s, n in ((stretch, high), (1 / stretch, wide)))
    top, left = int(rng.integers(high - rows + 1)), int(rng.integers(wide - columns + 1))
    part = x[:, :, top : top + rows, left : left + columns]
    return functional.interpolate(part, (high, wide), mode="bilinear", align_corners=False)


def _moved(x: Tensor, rng: np.random.Generator) -> Tensor:
    """x f32[N, C, H, W] moved by up to an eighth of its sides; what comes in from outside mirrors what is within."""
    high, wide = x.shape[2:]
    down, right = (int(_MOVE * side) for side in (high, wide))
    padded = functional.pad(x, (right, right, down, down), mode="reflect")
    top, left = int(rng.integers(2 * down + 1)), int(rng.integers(2 * right + 1))
    return padded[:, :, top : top + high, left : left + wide]
