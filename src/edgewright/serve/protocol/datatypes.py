"""Data types of the protocol and numpy's names for them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from edgewright.serve.core.jobs import RefusalError

#: Numpy's names, as `TensorInfo.dtype` has them, by the protocol's. BYTES are texts or byte strings.
NUMPY_NAMES = {
    "BOOL": "bool",
    **{f"{kind.upper()}{bits}": f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)},
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
_NAMES = {name: datatype for datatype, name in NUMPY_NAMES.items()}


def datatype_of(numpy_name: str) -> str:
    """The protocol's name of a numpy type; upper-case numpy for those that it does not know (complex64)."""
    return _NAMES.get(numpy_name, "BYTES" if numpy_name.startswith("str") else numpy_name.upper())


def dtype_of(datatype: str) -> np.dtype[Any]:
    """Numpy's type for one of the protocol's, little-endian where it has an order.

    Raises:
        RefusalError: "invalid" where the protocol has no such type.
    """
    name = NUMPY_NAMES.get(datatype)
    if name is None:
        raise RefusalError("invalid", f"datatype {datatype[:40]!r} is not known; known: {', '.join(NUMPY_NAMES)}")
    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    return np.dtype(name)


def unpack_bytes(data: memoryview, count: int) -> np.ndarray:
    """The byte strings in a binary BYTES tensor as text, object[count]: each is its length in 4 bytes, then its bytes.

    Raises:
        RefusalError: "invalid" where the data is cut short, holds more, or is no UTF-8.
    """
    values = np.empty(count, object)
    place = 0
    for index in range(count):
        if place + 4 > len(data):
            raise RefusalError("invalid", f"a BYTES tensor ends within its value {index} of {count}")
        (size,) = struct.unpack_from("<I", data, place)
        place += 4
        if place + size > len(data):
            raise RefusalError(
                "invalid", f"value {index} of a BYTES tensor is said to have {size} bytes, more than there are"
            )
        values[index] = text_of(bytes(data[place : place + size]))
        place += size
    if place != len(data):
        raise RefusalError("invalid", f"a BYTES tensor holds {len(data) - place} bytes more than its {count} values")
    return values


def pack_bytes(values: Iterable[object]) -> bytes:
    """A binary BYTES tensor of texts or byte strings."""
    parts = []
    for value in values:
        raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        parts += [struct.pack("<I", len(raw)), raw]
    return b"".join(parts)


def text_of(raw: bytes) -> str:
    """A BYTES value as text.

    Raises:
        RefusalError: "invalid" where it is no UTF-8.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise RefusalError("invalid", "a BYTES value is not UTF-8, which the networks served here take") from None
