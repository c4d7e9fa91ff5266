"""Where a body ends: after so many bytes, or with its last chunk."""

from __future__ import annotations

import re

#: Bytes of a line between chunks, and of all extensions and trailers of a body: both are skipped.
_LONGEST_LINE, _MOST_SKIPPED = 4096, 16384
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n")


class Counted:
    """A body whose length was announced."""

    __slots__ = ("ended", "left")

    def __init__(self, length: int) -> None:
        self.left = length
        self.ended = length == 0

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """What of `data` belongs to the body, and what comes after it."""
        part, rest = (data, b"") if len(data) <= self.left else (data[: self.left], data[self.left :])
        self.left -= len(part)
        self.ended = self.left == 0
        return part, rest


class Chunked:
    """A body in chunks (RFC 9112, section 7.1), taken by the letter: no other line ends, no spaces."""

    __slots__ = ("_held", "_left", "_skipped", "_step", "ended")

    def __init__(self) -> None:
        self.ended = False
        self._held = b""  # a line that has not come as a whole
        self._left = 0  # bytes of the chunk that are still to come
        self._skipped = 0
        self._step = Chunked._size  # what the next line is

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """What of `data` belongs to the body, and what comes after it.

        Raises:
            ValueError: These are no chunks.
        """
        data, self._held = self._held + data, b""
        parts: list[bytes] = []
        at = 0
        while at < len(data) and not self.ended:
            if self._left:
                part = data[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                continue
            end = data.find(b"\n", at, at + _LONGEST_LINE) + 1
            if not end:
                if len(data) - at >= _LONGEST_LINE:
                    raise ValueError("a line between its chunks is too long")
                self._held = data[at:]
                at = len(data)
                break
            self._step(self, data[at:end])
            at = end
        return b"".join(parts), data[at:]

    def _size(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None:
            raise ValueError("a chunk does not begin with its size")
        self._skip(len(found[2] or b""))
        self._left = int(found[1], 16)
        self._step = Chunked._end if self._left else Chunked._trailer

    def _end(self, line: bytes) -> None:
        if line != b"\r\n":
            raise ValueError("a chunk does not end where it should")
        self._step = Chunked._size

    def _trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.ended = True
        elif _TRAILER.fullmatch(line) is None:
            raise ValueError("what follows the last chunk is no header")
        self._skip(len(line))

    def _skip(self, size: int) -> None:
        self._skipped += size
        if self._skipped > _MOST_SKIPPED:
            raise ValueError("its extensions and trailers are too long")
