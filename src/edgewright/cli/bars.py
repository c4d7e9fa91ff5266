"""Progress bars on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Bars:
    """Implements `progress.Progress`: one bar a task, finished ones stay as a line."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._current: str | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, task: str, done: int, total: int | None) -> None:
        """Move the bar of `task`; a new task hides the one before."""
        if task != self._current and self._current in self._tasks:
            self._progress.remove_task(self._tasks.pop(self._current))
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total)
        self._current = task
        self._progress.update(self._tasks[task], completed=done, total=total)

    def note(self, message: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(message, markup=False, highlight=False)
