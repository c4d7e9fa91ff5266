"""Dtypes of checkpoints, and arrays made from their bytes without copying where numpy can hold them.

numpy has no bfloat16 and no 8-bit floats; they become float32, which holds each of their values exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewright.errors import EdgewrightError

#: Largest size, stride, offset or product of sizes: far above any file, far below overflow.
LARGEST = 2**48
#: numpy 1.26 holds no more dimensions.
MAX_RANK = 32
#: A view may repeat its storage (torch's `expand`) up to this many bytes; one copy of it must stay harmless.
MAX_EXPANDED_BYTES = 16 * 2**20

#: dtypes that numpy lacks: name -> (bytes per element, name in ml_dtypes).
_WIDENED = {
    "bfloat16": (2, "bfloat16"),
    "float8_e4m3fn": (1, "float8_e4m3fn"),
    "float8_e4m3fnuz": (1, "float8_e4m3fnuz"),
    "float8_e5m2": (1, "float8_e5m2"),
    "float8_e5m2fnuz": (1, "float8_e5m2fnuz"),
    "float8_e8m0fnu": (1, "float8_e8m0fnu"),
}
_PLAIN = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
          "bool", "complex64", "complex128")  # fmt: skip
#: torch's names (without `torch.`) of all dtypes that are read.
TORCH = frozenset((*_PLAIN, *_WIDENED))
#: numpy's codes of the dtypes that may lie inside a pickle.
NUMPY_CODES = frozenset(("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "c8", "c16"))


@dataclass(frozen=True, slots=True)
class View:
    """A tensor: elements of a storage at `offset + sum(index * stride)`, all in elements, none negative."""

    storage: Any
    dtype: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def count(self) -> int:
        """Elements of the tensor."""
        return math.prod(self.size)

    @property
    def extent(self) -> int:
        """Elements the storage must have, 0 for an empty tensor."""
        if 0 in self.size:
            return 0
        return self.offset + 1 + sum((size - 1) * stride for size, stride in zip(self.size, self.stride, strict=True))


def item_size(dtype: str) -> int:
    """Bytes per element in the file."""
    return _WIDENED[dtype][0] if dtype in _WIDENED else np.dtype(dtype).itemsize


def fits(shape: Sequence[int], itemsize: int, size_bytes: int) -> bool:
    """True where a dense array of `shape` takes exactly `size_bytes` and numpy can describe it."""
    return describable(shape, itemsize) and math.prod(shape) * itemsize == size_bytes


def describable(shape: Sequence[int], itemsize: int) -> bool:
    """True where numpy can describe an array of `shape`; it multiplies the sizes other than zero too."""
    return len(shape) <= MAX_RANK and math.prod(size for size in shape if size) * itemsize <= LARGEST


def from_bytes(content: bytes, dtype: str, *, big_endian: bool = False) -> np.ndarray:
    """The elements in `content`, one-dimensional; float32 for dtypes that numpy lacks."""
    if dtype in _WIDENED:
        import ml_dtypes

        size, name = _WIDENED[dtype]
        raw = native(np.frombuffer(content, f"{'>' if big_endian else '<'}u{size}"))
        with np.errstate(invalid="ignore"):  # signalling nan
            return np.asarray(raw.view(getattr(ml_dtypes, name)), np.float32)
    return native(np.frombuffer(content, np.dtype(dtype).newbyteorder(">" if big_endian else "<")))


def native(flat: np.ndarray) -> np.ndarray:
    """The array in this machine's byte order; booleans become 0 and 1 whatever their bytes were."""
    if flat.dtype == np.bool_:
        return np.not_equal(flat.view(np.uint8), 0)
    return np.asarray(flat, flat.dtype.newbyteorder("="))


def strided(flat: np.ndarray, view: View, where: str, key: str) -> np.ndarray:
    """The tensor that `view` describes over the elements `flat`, read-only, without a copy.

    Raises:
        EdgewrightError: E202 when it reaches outside the storage or repeats it beyond `MAX_EXPANDED_BYTES`.
    """
    item = flat.itemsize
    if view.extent > flat.size or not describable(view.size, item):
        raise EdgewrightError(
            "E202",
            f"tensor `{key}` of checkpoint `{where}` needs {view.extent} elements, but its storage has {flat.size}",
            details=(f"shape {list(view.size)}, strides {list(view.stride)}, offset {view.offset}",),
        )
    if view.count > flat.size and view.count * item > MAX_EXPANDED_BYTES:
        raise EdgewrightError(
            "E202",
            f"tensor `{key}` of checkpoint `{where}` repeats {flat.size} elements to {view.count * item} bytes, "
            f"at most {MAX_EXPANDED_BYTES} are read",
            hint="save a copy that is not expanded: tensor.contiguous()",
        )
    if view.count == 0:
        array = np.empty(view.size, flat.dtype)
    else:
        strides = tuple(stride * item for stride in view.stride)
        array = np.lib.stride_tricks.as_strided(flat[view.offset :], view.size, strides)
    array.flags.writeable = False
    return array
