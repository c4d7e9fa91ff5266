"""An answer on its way from the thread that found it to the event loop: one wake-up, and none where it is there already."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from edgewright.serve.core.jobs import Answer


class Arrival:
    """Takes a job's answer; give it as `deliver`.

    Attributes:
        answer: None until it has come.
    """

    __slots__ = ("_future", "_loop", "answer")

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._future: asyncio.Future[None] | None = None

    def __call__(self, answer: Answer) -> None:
        """Take the answer, on any thread."""
        # first the answer, then the future; `wait` does it the other way round, so that one of both sees the other
        self.answer = answer
        if self._future is not None:
            assert self._loop is not None
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_wake, self._future)

    async def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Return once the answer is there; called once, on the loop's thread."""
        self._loop = loop
        self._future = loop.create_future()
        if self.answer is None:
            await self._future


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
