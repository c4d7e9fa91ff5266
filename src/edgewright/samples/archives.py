"""`.npz` archives, read row by row: never whole, never with pickle, no memory taken on the word of a header.

Source: numpy's NPY format description (numpy/lib/format) and PKWARE's APPNOTE for the zip around it.
"""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgewright.samples.images import BrokenSampleError

#: Largest array of one sample.
MAX_SAMPLE_BYTES = 2**30
#: Largest side array (labels, groups).
_MAX_SIDE_BYTES = 2**28
_CHUNK_BYTES = 2**20
#: What numpy and zipfile raise for damaged files (NotImplementedError and RecursionError are RuntimeErrors).
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, EOFError, ValueError, SyntaxError,
           TypeError, KeyError, IndexError, OverflowError, RuntimeError)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """One array of an archive: dtype, shape, and where its data starts inside the unpacked member."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool
    offset: int


class Archive:
    """An open `.npz`. Rows are cheapest in rising order: a compressed member is unpacked as a stream.

    Attributes:
        path: The file.
        members: Arrays by name, without the ending .npy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._streams: dict[str, IO[bytes]] = {}
        with _sound(path):
            self.members: Mapping[str, Member] = self._list()

    def rows(self, name: str) -> int:
        """Length of the array's first axis.

        Raises:
            BrokenSampleError: It has none, or its rows are not contiguous.
        """
        member = self.members[name]
        if not member.shape:
            raise BrokenSampleError(f"array `{name}` is a single value, but must have one row for each sample")
        if member.fortran_order and len(member.shape) > 1:
            raise BrokenSampleError(f"array `{name}` is stored in Fortran order; save numpy.ascontiguousarray of it")
        return member.shape[0]

    def row(self, name: str, index: int) -> np.ndarray:
        """`array[index]`, a copy.

        Raises:
            BrokenSampleError: The file is damaged or the row is larger than `MAX_SAMPLE_BYTES`.
        """
        member = self.members[name]
        shape = member.shape[1:]
        size = math.prod(shape) * member.dtype.itemsize
        self._limit(name, size, MAX_SAMPLE_BYTES)
        with _sound(self.path):
            data = self._read(member, member.offset + index * size, size)
        return np.frombuffer(data, member.dtype).reshape(shape).copy()

    def whole(self, name: str, limit: int = _MAX_SIDE_BYTES) -> np.ndarray:
        """The whole array.

        Raises:
            BrokenSampleError: The file is damaged or the array is larger than `limit` bytes.
        """
        member = self.members[name]
        size = math.prod(member.shape) * member.dtype.itemsize
        self._limit(name, size, limit)
        with _sound(self.path):
            data = self._read(member, member.offset, size)
            self._streams[name].read(1)  # reaching the end makes zipfile check the CRC
        order = "F" if member.fortran_order else "C"
        return np.frombuffer(data, member.dtype).reshape(member.shape, order=order).copy()  # type: ignore[call-overload,no-any-return]

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()
        if self._zip:
            self._zip.close()
            self._zip = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zip": None, "_streams": {}}

    def __del__(self) -> None:
        if getattr(self, "_zip", None):
            self.close()

    def _open(self) -> zipfile.ZipFile:
        if self._zip is None:
            self._zip = zipfile.ZipFile(self.path)
        return self._zip

    def _list(self) -> dict[str, Member]:
        members: dict[str, Member] = {}
        for info in self._open().infolist():
            if not info.filename.endswith(".npy"):
                continue
            name = info.filename.removesuffix(".npy")
            if name in members:
                raise BrokenSampleError(f"holds array `{name}` twice")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BrokenSampleError(f"array `{name}` is packed with a method that numpy does not write")
            with self._open().open(info) as stream:
                members[name] = _header(name, stream, info.file_size)
        return members

    def _read(self, member: Member, position: int, size: int) -> bytes:
        stream = self._streams.get(member.name)
        if stream is None:
            stream = self._streams[member.name] = self._open().open(f"{member.name}.npy")
        if stream.tell() != position:
            stream.seek(position)
        parts, left = [], size
        while left:  # in pieces: a size that the data does not bear out takes no memory
            part = stream.read(min(left, _CHUNK_BYTES))
            if not part:
                raise BrokenSampleError(f"array `{member.name}` is cut short")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _limit(self, name: str, size: int, limit: int) -> None:
        if size > limit:
            raise BrokenSampleError(f"array `{name}` takes {size} bytes, more than the limit of {limit}")


def _header(name: str, stream: IO[bytes], file_size: int) -> Member:
    from numpy.lib import format as npy

    version = npy.read_magic(stream)
    if version == (1, 0):
        shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran_order, dtype = npy.read_array_header_2_0(stream)
    else:
        raise BrokenSampleError(f"array `{name}` has NPY version {version[0]}.{version[1]}; known: 1.0 and 2.0")
    if dtype.kind not in "biufcSU" or dtype.itemsize == 0:
        raise BrokenSampleError(f"array `{name}` has dtype {dtype}, but must hold plain numbers or text")
    if any(isinstance(side, bool) or side < 0 for side in shape):
        raise BrokenSampleError(f"array `{name}` has an impossible shape {shape}")
    offset = stream.tell()
    size = math.prod(shape) * dtype.itemsize
    if offset + size != file_size:
        raise BrokenSampleError(f"array `{name}` says it takes {size} bytes, but {file_size - offset} are there")
    return Member(name, dtype, tuple(int(side) for side in shape), fortran_order, offset)


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Turn what numpy and zipfile raise for damaged files into `BrokenSampleError`."""
    try:
        yield
    except BrokenSampleError:
        raise
    except MemoryError:
        raise BrokenSampleError("needs more memory than there is") from None
    except OSError as problem:
        raise BrokenSampleError(f"cannot be read: {problem.strerror or problem}") from None
    except _DAMAGE as problem:
        empty = path.is_file() and path.stat().st_size == 0
        raise BrokenSampleError("is empty" if empty else f"is not a sound .npz archive: {problem}") from None
