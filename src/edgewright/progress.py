"""Progress of long work: what the verbs report and the command line draws."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives progress; every method returns at once."""

    def update(self, task: str, done: int, total: int | None) -> None:
        """`done` of `total` units of the work called `task`; a new name starts a new bar."""

    def note(self, message: str) -> None:
        """One line a user should see now."""


class Silent:
    """Takes progress and shows nothing: the default of every verb."""

    def update(self, task: str, done: int, total: int | None) -> None:
        """Ignore the update."""

    def note(self, message: str) -> None:
        """Ignore the note."""


SILENT = Silent()
