"""Files that appear whole or not at all, and files that are read within bounds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from edgewright.errors import EdgewrightError


def write_whole(path: str | Path, content: str | bytes) -> Path:
    """`path`, written by a temporary file beside it that is renamed, so that a reader never sees half of it.

    Raises:
        EdgewrightError: E105 when it cannot be written (no folder, no right, no space); nothing is left behind.
    """
    path = Path(path)
    part: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        part = Path(name)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
        part.chmod(0o644)
        part.replace(path)
    except OSError as problem:
        if part is not None:
            part.unlink(missing_ok=True)
        raise EdgewrightError("E105", f"`{path}` cannot be written: {problem.strerror or problem}") from None
    return path


def open_sized(path: Path, what: str) -> tuple[BinaryIO, int]:
    """The file at `path`, opened for reading, and its size in bytes; `what` it should be, for the message.

    Raises:
        EdgewrightError: E104 when it is no file or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise EdgewrightError("E104", f"`{path}` is a folder or a device, not {what}")
        stream = path.open("rb")
        return stream, os.fstat(stream.fileno()).st_size
    except OSError as problem:
        raise EdgewrightError("E104", f"{what} `{path}` cannot be read: {problem.strerror}") from None


def read_whole(path: Path, what: str, most: int, refuse: Callable[[str], EdgewrightError]) -> bytes:
    """The contents of the file at `path`; `refuse` makes the error for one of more than `most` bytes, which are not read.

    Raises:
        EdgewrightError: E104 as `open_sized`, and what `refuse` makes.
    """
    stream, size = open_sized(path, what)
    with stream:
        if size > most:
            raise refuse(f"it has {size} bytes, at most {most} are read")
        try:
            return stream.read()
        except OSError as problem:
            raise EdgewrightError("E104", f"{what} `{path}` cannot be read: {problem.strerror}") from None
