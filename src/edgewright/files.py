"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

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
