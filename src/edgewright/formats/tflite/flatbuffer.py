"""FlatBuffers read with every offset checked: what does not lie inside the file, or is read over and over, is refused.

Offsets to other objects only lead forward, so nothing can lead in a circle; but many may lead to one place, and a short file
could unfold to any size. So everything that becomes a Python object is counted, and may only be a few times what the file holds.

Source: FlatBuffers internals, https://flatbuffers.dev/internals/
"""

from __future__ import annotations

import struct

import numpy as np

from edgewright.errors import EdgewrightError

#: Bytes that objects may take, for each byte of the file. Writers share few objects; real files stay below 1.
_SHARING = 4
_VECTOR_TYPES = {"int32": "<i4", "int64": "<i8", "float32": "<f4", "uint8": "u1"}
_FORMS = {"int8": "<b", "uint8": "<B", "bool": "<B", "int32": "<i", "uint32": "<I", "uint64": "<Q", "float32": "<f"}


class Buffer:
    """The bytes of one file.

    Attributes:
        data: All of them.
        name: The file's name, for messages.
        kind: What the file should be, for messages.
    """

    def __init__(self, data: bytes, name: str, kind: str) -> None:
        self.data, self.name, self.kind = data, name, kind
        self._left = _SHARING * len(data)

    def root(self) -> Table:
        """The outermost table."""
        return Table(self, self.follow(0))

    def number(self, at: int, form: str) -> int:
        """The number of the struct form `form` at byte `at`.

        Raises:
            EdgewrightError: E201 where it lies outside the file.
        """
        if not 0 <= at <= len(self.data) - struct.calcsize(form):
            raise self.refuse(f"an offset leads to byte {at} of {len(self.data)}")
        (value,) = struct.unpack_from(form, self.data, at)
        return value  # type: ignore[no-any-return]

    def follow(self, at: int) -> int:
        """Where the offset at byte `at` leads."""
        return at + self.number(at, "<I")

    def spend(self, size_bytes: int) -> None:
        """Count what becomes an object.

        Raises:
            EdgewrightError: E201 where it is more than a file of this size can hold.
        """
        self._left -= size_bytes
        if self._left < 0:
            raise self.refuse("its offsets lead to the same places over and over")

    def refuse(self, reason: str) -> EdgewrightError:
        """The error that the file is not what it should be."""
        return EdgewrightError("E201", f"`{self.name}` is not a {self.kind} file, or is cut short: {reason}")


class Table:
    """One table: its fields by their slot, the number that the schema's order gives them."""

    __slots__ = ("_at", "_buffer", "_size", "_vtable", "_vtable_size")

    def __init__(self, buffer: Buffer, at: int) -> None:
        self._buffer, self._at = buffer, at
        self._vtable = at - buffer.number(at, "<i")
        self._vtable_size = buffer.number(self._vtable, "<H")
        self._size = buffer.number(self._vtable + 2, "<H")
        if self._vtable_size < 4 or self._size < 4:
            raise buffer.refuse(f"the table at byte {at} has {self._size} bytes and {self._vtable_size} of slots")
        buffer.number(self._vtable + self._vtable_size - 1, "<B")
        buffer.number(at + self._size - 1, "<B")
        buffer.spend(8)

    def number(self, slot: int, kind: str, default: float = 0) -> float:
        """The number in a field; `default` where the field is not stored."""
        form = _FORMS[kind]
        at = self._field(slot, struct.calcsize(form))
        return default if at is None else self._buffer.number(at, form)

    def integer(self, slot: int, kind: str, default: int = 0) -> int:
        """The same for a whole number."""
        return int(self.number(slot, kind, default))

    def table(self, slot: int) -> Table | None:
        """The table that a field leads to."""
        at = self._field(slot, 4)
        return None if at is None else Table(self._buffer, self._buffer.follow(at))

    def tables(self, slot: int) -> list[Table]:
        """The tables of a vector; none where the field is not stored."""
        start, count = self._vector(slot, 4)
        self._buffer.spend(4 * count)
        return [Table(self._buffer, self._buffer.follow(start + 4 * index)) for index in range(count)]

    def array(self, slot: int, kind: str) -> np.ndarray:
        """The numbers of a vector, read in place; empty where the field is not stored."""
        dtype = np.dtype(_VECTOR_TYPES[kind])
        start, count = self._vector(slot, dtype.itemsize)
        return np.frombuffer(self._buffer.data, dtype, count, start if count else 0)

    def integers(self, slot: int) -> tuple[int, ...]:
        """The same for a vector of int32, as Python's numbers."""
        values = self.array(slot, "int32")
        self._buffer.spend(values.nbytes)
        return tuple(values.tolist())

    def text(self, slot: int) -> str:
        """A string; empty where the field is not stored, with � for what is not UTF-8."""
        start, count = self._vector(slot, 1)
        self._buffer.spend(count)
        return self._buffer.data[start : start + count].decode("utf-8", errors="replace")

    def _field(self, slot: int, width: int) -> int | None:
        entry = 4 + 2 * slot
        if entry + 2 > self._vtable_size:
            return None
        offset = self._buffer.number(self._vtable + entry, "<H")
        if offset == 0:
            return None
        if not 4 <= offset <= self._size - width:
            raise self._buffer.refuse(f"field {slot} of the table at byte {self._at} lies outside the table")
        return self._at + offset

    def _vector(self, slot: int, width: int) -> tuple[int, int]:
        """Where a vector's elements begin, and how many there are."""
        at = self._field(slot, 4)
        if at is None:
            return 0, 0
        start = self._buffer.follow(at)
        count = self._buffer.number(start, "<I")
        if start + 4 + count * width > len(self._buffer.data):
            raise self._buffer.refuse(f"the vector at byte {start} has {count} elements, more than the file")
        return start + 4, count
