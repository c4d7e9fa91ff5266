"""A zip archive's entries as places in the file; nothing is unpacked, so nothing can grow or escape.

torch stores its entries uncompressed. Compressed ones are refused, which leaves no place for a zip bomb; entries that
overlap, repeat a name, leave the archive or lie about their size are refused too.

Source: PKWARE APPNOTE.TXT 4.3.7 (local file header) and 4.3.12 (central directory, read by `zipfile`).
"""

from __future__ import annotations

import itertools
import mmap
import struct
import zipfile
import zlib
from pathlib import PurePosixPath

from edgewright.checkpoint.rebuild import printable
from edgewright.errors import EdgewrightError

MAX_ENTRIES = 500_000
_LOCAL_HEADER_BYTES = 30
_ENCRYPTED = 0x1  # general purpose bit 0
#: What `zipfile` raises for a directory that makes no sense.
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, EOFError, struct.error)


class Archive:
    """Names and places of an archive's entries.

    Attributes:
        names: Entry names in the directory's order.
    """

    def __init__(self, data: mmap.mmap, where: str) -> None:
        self._data = data
        self._where = where
        self._checksums: dict[str, int] = {}
        self._places: dict[str, tuple[int, int]] = {}
        try:
            data.seek(0)
            with zipfile.ZipFile(data) as archive:  # type: ignore[call-overload]  # a map reads, seeks and tells
                entries, limit = archive.infolist(), archive.start_dir
        except _ZIP_ERRORS as problem:
            raise EdgewrightError("E201", f"checkpoint `{where}` is damaged or cut short: {problem}") from None
        if len(entries) > MAX_ENTRIES:
            raise self._wrong(f"it has {len(entries)} entries, at most {MAX_ENTRIES} are read")
        for entry in entries:
            if not entry.is_dir():
                self._add(entry, limit)
        self._check_overlap()

    @property
    def names(self) -> tuple[str, ...]:
        """Entry names in the directory's order."""
        return tuple(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def place(self, name: str) -> tuple[int, int]:
        """First and last-plus-one byte of an entry's content in the file."""
        return self._places[name]

    def read(self, name: str) -> bytes:
        """An entry's content, checked against its checksum.

        Raises:
            EdgewrightError: E201 when the checksum differs.
        """
        start, end = self._places[name]
        content: bytes = self._data[start:end]
        if zlib.crc32(content) != self._checksums[name]:
            raise EdgewrightError(
                "E201",
                f"entry `{printable(name)}` of checkpoint `{self._where}` is damaged: its checksum differs",
                hint="get the file again; if it was saved with set_crc32_options(False), save it again without",
            )
        return content

    def _add(self, entry: zipfile.ZipInfo, limit: int) -> None:
        name = entry.filename
        shown = printable(name)
        pure = PurePosixPath(name)
        if name in self._places:
            raise self._wrong(f"it has two entries called `{shown}`")
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in entry.orig_filename:
            raise self._wrong(f"its entry `{shown}` has a path that leaves the archive")
        if entry.flag_bits & _ENCRYPTED:
            raise self._wrong(f"its entry `{shown}` is encrypted")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise EdgewrightError(
                "E201",
                f"entry `{shown}` of checkpoint `{self._where}` is compressed, which torch.save never does",
                hint="torch.save(torch.load(FILE, weights_only=True), FILE)",
            )
        if entry.compress_size != entry.file_size:
            raise EdgewrightError(
                "E202",
                f"entry `{shown}` of checkpoint `{self._where}` declares {entry.file_size} bytes, but stores "
                f"{entry.compress_size}",
            )
        start = self._content_start(entry, shown)
        if start + entry.file_size > limit:
            raise EdgewrightError(
                "E202",
                f"entry `{shown}` of checkpoint `{self._where}` declares {entry.file_size} bytes, more than there are",
            )
        self._places[name] = (start, start + entry.file_size)
        self._checksums[name] = entry.CRC

    def _content_start(self, entry: zipfile.ZipInfo, shown: str) -> int:
        offset = entry.header_offset
        header = self._data[offset : offset + _LOCAL_HEADER_BYTES] if offset >= 0 else b""
        if len(header) < _LOCAL_HEADER_BYTES or not header.startswith(b"PK\x03\x04"):
            raise self._wrong(f"its entry `{shown}` has no header")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        start = offset + _LOCAL_HEADER_BYTES + name_length
        if self._data[offset + _LOCAL_HEADER_BYTES : start] != entry.orig_filename.encode(
            "utf-8" if entry.flag_bits & 0x800 else "cp437", "replace"
        ):
            raise self._wrong(f"its entry `{shown}` has another name in its own header")
        return int(start + extra_length)

    def _check_overlap(self) -> None:
        places = sorted((start, end, name) for name, (start, end) in self._places.items())
        for (_, end, name), (start, _, other) in itertools.pairwise(places):
            if end > start:
                raise self._wrong(f"its entries `{printable(name)}` and `{printable(other)}` overlap")

    def _wrong(self, what: str) -> EdgewrightError:
        return EdgewrightError("E201", f"checkpoint `{self._where}` is no proper torch file: {what}")
