"""The published shape of the family: stages, and how width, depth and resolution scale them."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Name -> (width factor, depth factor, resolution in pixels).
SIZES = {
    "efficientnet-lite0": (1.0, 1.0, 224),
    "efficientnet-lite1": (1.0, 1.1, 240),
    "efficientnet-lite2": (1.1, 1.2, 260),
    "efficientnet-lite3": (1.2, 1.4, 280),
    "efficientnet-lite4": (1.4, 1.8, 300),
}

#: Stages of the base network: (repeats, kernel, stride, expansion, channels out).
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
           (1, 3, 1, 6, 320))  # fmt: skip
STEM_CHANNELS, HEAD_CHANNELS, CLASSES = 32, 1280, 1000
SQUEEZE_RATIO = 0.25  # of the channels that enter the block, before expansion


def round_channels(channels: int, width: float) -> int:
    """Channels scaled by `width`, rounded to a multiple of 8 that is not below 90 % of the exact number.

    Source: `round_filters` of the EfficientNet specification.
    """
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after one axis so that the output has ceil(size / stride); the odd one goes behind.

    Source: TensorFlow, `padding="SAME"`.
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@dataclass(frozen=True)
class Block:
    """One inverted residual block."""

    kernel: int
    stride: int
    expansion: int
    channels_in: int
    channels_out: int


def blocks(name: str, *, fixed_stem_head: bool = True) -> tuple[Block, ...]:
    """The blocks of a network in order, widths and repeats scaled."""
    width, depth, _ = SIZES[name]
    channels = STEM_CHANNELS if fixed_stem_head else round_channels(STEM_CHANNELS, width)
    result = []
    for stage, (repeats, kernel, stride, expansion, out) in enumerate(_STAGES):
        ends = stage in (0, len(_STAGES) - 1)
        channels_out = round_channels(out, width)
        for repeat in range(repeats if ends and fixed_stem_head else math.ceil(depth * repeats)):
            result.append(Block(kernel, stride if repeat == 0 else 1, expansion, channels, channels_out))
            channels = channels_out
    return tuple(result)


def width(name: str) -> float:
    """Width factor of a network."""
    return SIZES[name][0]
