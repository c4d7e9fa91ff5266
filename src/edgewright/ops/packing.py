"""Signs as bits: 64 channels in 8 bytes, channels last; a set bit stands for -1.

Bytes, since ONNX runtimes compute in 8 bits what they round or cut in 64, and eight at a time, so that a kernel may read
them as words (every CPU that edgewright has kernels for is little-endian).

>>> pack_signs(np.array([[-1.0, 0.0, -0.5]], np.float32))
array([[5, 0, 0, 0, 0, 0, 0, 0]], dtype=uint8)
"""

from __future__ import annotations

import numpy as np

from edgewright.errors import EdgewrightError

#: Channels that share a word of eight bytes.
WORD_BITS = 64


def bytes_for(channels: int) -> int:
    """Bytes that so many channels take: a multiple of 8."""
    return -(-channels // WORD_BITS) * (WORD_BITS // 8)


def pack_bits(bits: np.ndarray) -> np.ndarray:
    """The bits bool[..., C] as u8[..., bytes_for(C)]: bit c % 8 of byte c // 8 is channel c, the others are 0."""
    packed = np.packbits(bits, axis=-1, bitorder="little")
    missing = bytes_for(bits.shape[-1]) - packed.shape[-1]
    return np.ascontiguousarray(np.pad(packed, [(0, 0)] * (bits.ndim - 1) + [(0, missing)]))


def unpack_bits(packed: np.ndarray, channels: int) -> np.ndarray:
    """The bits bool[..., channels] of u8[..., bytes_for(channels)].

    Raises:
        EdgewrightError: as `check_packed`.
    """
    check_packed(packed, channels)
    return np.unpackbits(packed, axis=-1, count=channels, bitorder="little").astype(bool)


def check_packed(packed: np.ndarray, channels: int, *, name: str = "packed signs") -> None:
    """Refuse what cannot be the packed signs of so many channels.

    Raises:
        EdgewrightError: E202 where the type is not uint8, so many channels take another number of bytes, or a bit beyond
            the last channel is set: it would be counted where it should cancel out.
    """
    if packed.dtype != np.uint8 or not packed.ndim:
        raise EdgewrightError("E202", f"`{name}` is {packed.dtype}{list(packed.shape)}, not uint8[..., bytes]")
    if packed.shape[-1] != bytes_for(channels):
        raise EdgewrightError(
            "E202", f"`{name}` has {packed.shape[-1]} bytes a pixel, and {channels} channels take {bytes_for(channels)}"
        )
    beyond = packed[..., channels // 8 :]
    if beyond.size and (bool(np.any(beyond[..., 0] >> channels % 8)) or bool(np.any(beyond[..., 1:]))):
        raise EdgewrightError("E202", f"`{name}` has bits set beyond its {channels} channels")


def pack_signs(x: np.ndarray, threshold: np.ndarray | None = None) -> np.ndarray:
    """The signs of f32[N, C, ...] as u8[N, ..., bytes_for(C)].

    Args:
        x: Floats; the channels are axis 1.
        threshold: f32[C] or f32[1], else 0: a sign is -1 where x lies below it, and +1 elsewhere, also for what is no
            number.
    """
    last = np.moveaxis(x, 1, -1)
    return pack_bits(last < (np.float32(0) if threshold is None else threshold))


def unpack_signs(packed: np.ndarray, channels: int) -> np.ndarray:
    """The signs, f32[..., channels] of +1 and -1.

    Raises:
        EdgewrightError: as `check_packed`.
    """
    return np.where(unpack_bits(packed, channels), np.float32(-1), np.float32(1))
