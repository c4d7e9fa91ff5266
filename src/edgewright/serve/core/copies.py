"""Private copies of bundles: a folder of this process in the temporary one, and those that killed processes left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "edgewright-serve-"


class Copies:
    """Folders for copies. They go when they are removed, with `close`, or when the next server starts.

    The folder that holds them is locked as long as the process lives, however it ends: one without a lock is nobody's.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._handle = -1

    def new(self) -> Path:
        """An empty folder.

        Raises:
            OSError: There is no room for it.
        """
        if self._folder is None:
            sweep()
            self._folder, self._handle = _locked_folder()
        return Path(tempfile.mkdtemp(dir=self._folder))

    def close(self) -> None:
        """Remove all of them."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._handle)
            self._folder = None


def sweep() -> None:
    """Remove the folders of this user's processes that ended without doing it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.getuid():
                continue
            handle = _lock(folder)
            if handle is not None:
                try:
                    shutil.rmtree(folder, ignore_errors=True)
                finally:
                    os.close(handle)


def _locked_folder() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        handle = _lock(folder)
        if handle is not None and folder.exists():  # else another process swept it before it was locked
            return folder, handle
        if handle is not None:
            os.close(handle)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock until it is closed; None where another process holds it."""
    import fcntl

    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle
