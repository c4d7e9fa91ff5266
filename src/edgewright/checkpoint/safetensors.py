"""safetensors files: a JSON header and the tensors' bytes behind it.

Source: the format section of the safetensors README: u64 little-endian header size N, N bytes of JSON, then a buffer
that the tensors fill without gaps; offsets count from the buffer's start.
"""

from __future__ import annotations

import json
import mmap
import struct
from typing import Any

import numpy as np

from edgewright.checkpoint import dtypes
from edgewright.checkpoint.rebuild import printable
from edgewright.errors import EdgewrightError

#: Far above any real header (100,000 tensors), below what parsing JSON makes of it in memory.
MAX_HEADER_BYTES = 25 * 2**20

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip


def read(data: mmap.mmap, where: str) -> dict[str, np.ndarray]:
    """Tensors of a safetensors file by name, in the order of their bytes.

    Raises:
        EdgewrightError: E201 for a malformed header, an unknown dtype or tensors that overlap or leave gaps, E202 for
            one that does not fit its bytes.
    """
    header, start = _header(data, where)
    entries = [_entry(name, item, where) for name, item in header.items() if name != "__metadata__"]
    entries.sort(key=lambda entry: entry[1])
    position, tensors = 0, {}
    for name, (begin, end), dtype, shape in entries:
        if begin != position:
            what = "overlaps the one before" if begin < position else f"leaves a gap of {begin - position} bytes"
            raise EdgewrightError("E201", f"tensor `{printable(name)}` of checkpoint `{where}` {what}")
        if end > len(data) - start:
            raise EdgewrightError(
                "E202", f"tensor `{printable(name)}` of checkpoint `{where}` ends at byte {end} of {len(data) - start}"
            )
        if not dtypes.fits(shape, dtypes.item_size(dtype), end - begin):
            raise EdgewrightError(
                "E202",
                f"tensor `{printable(name)}` of checkpoint `{where}` is {dtype}{list(shape)}, "
                f"but has {end - begin} bytes",
            )
        array = dtypes.from_bytes(data[start + begin : start + end], dtype).reshape(shape)
        array.flags.writeable = False
        tensors[name] = array
        position = end
    if position != len(data) - start:
        raise EdgewrightError(
            "E201", f"checkpoint `{where}` has {len(data) - start - position} bytes that belong to no tensor"
        )
    return tensors


def _header(data: mmap.mmap, where: str) -> tuple[dict[str, Any], int]:
    size = struct.unpack("<Q", data[:8])[0]
    if size > min(MAX_HEADER_BYTES, len(data) - 8):
        raise EdgewrightError(
            "E201",
            f"checkpoint `{where}` declares a header of {size} bytes; {len(data) - 8} are there, "
            f"at most {MAX_HEADER_BYTES} are read",
        )
    try:
        header = json.loads(data[8 : 8 + size].decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as problem:  # JSON, UTF-8, doubled keys, endless numbers, endless nesting
        raise EdgewrightError(
            "E201", f"checkpoint `{where}` has a malformed header: {printable(str(problem))}"
        ) from None
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise EdgewrightError("E201", f"checkpoint `{where}` has a header that is no table")
    return header, 8 + size


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice")
    return table


def _entry(name: str, item: Any, where: str) -> tuple[str, tuple[int, int], str, tuple[int, ...]]:
    shown = printable(name)
    if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
        raise EdgewrightError(
            "E201", f"tensor `{shown}` of checkpoint `{where}` needs dtype, shape and data_offsets alone"
        )
    dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise EdgewrightError(
            "E201",
            f"tensor `{shown}` of checkpoint `{where}` has dtype `{printable(str(dtype))}`",
            details=(f"known: {', '.join(_DTYPES)}",),
        )
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise EdgewrightError("E202", f"tensor `{shown}` of checkpoint `{where}` has a shape or offsets that cannot be")
    return name, (offsets[0], offsets[1]), _DTYPES[dtype], tuple(shape)


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= dtypes.LARGEST for value in values
    )
