"""Bodies of requests that were refused: read and thrown away, since a client that is still sending would miss its answer."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from edgewright.serve.core.jobs import RefusalError
from edgewright.serve.http.exchange import (
    WHOLE_BYTES,
    Headers,
    HttpError,
    Patience,
    Room,
    Transport,
    announced_size,
)
from edgewright.serve.protocol.limits import Bodies, Limits

#: Small bodies that may come in after their answers at one time.
_MOST_COMING = 64


class Discards:
    """Reads what nobody asked for.

    A small body may come in after its answer, in one piece and with nobody waiting. A large one is read in parts before
    the answer, so that no more than a part is held.
    """

    def __init__(self, bodies: Bodies, patience: Patience, limits: Limits) -> None:
        """Those on their way count among `bodies`."""
        self._bodies = bodies
        self._patience = patience
        self._limits = limits
        self._coming: dict[asyncio.Future[bytes], tuple[int, float]] = {}  # its size, and since when
        self._loop: asyncio.AbstractEventLoop | None = None  # that of the timer; None while there is none

    def __len__(self) -> int:
        """Bodies that are still coming in."""
        return len(self._coming)

    async def discard(self, headers: Headers, transport: Transport, room: Room) -> bool:
        """See to a refused request's body; False where the connection has to end since the rest of it stays unread."""
        if room.begun:
            return room.ended  # nobody reads on where somebody gave up: the connection would wait for ever
        if headers.get("content-length") in (None, "0") and headers.get("transfer-encoding") is None:
            return True
        if (headers.get("expect") or "").strip().lower() == "100-continue":
            return False  # the client sends it only once it is asked for
        with suppress(HttpError, TimeoutError, RuntimeError):  # it is answered as far as it listens
            size = announced_size(headers, self._limits)
            if size is not None and size <= WHOLE_BYTES and self._reads_later(transport, size):
                return True
            return bool(await self._patience.wait(self._skipped(transport)))
        return False

    def _reads_later(self, transport: Transport, size: int) -> bool:
        """Start to read a small body; False where too much is on its way already."""
        if len(self._coming) >= _MOST_COMING:
            return False
        try:
            self._bodies.take(size)
        except RefusalError:
            return False
        body = asyncio.ensure_future(transport())
        self._coming[body] = (size, time.monotonic())
        body.add_done_callback(self._forget)
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(self._patience.pause_s, self._look)
        return True

    async def _skipped(self, transport: Transport) -> bytes:
        """Read to the end, b"end", or beyond the limit, b""."""
        total = 0
        async for part in transport:
            total += len(part)
            if total > self._limits.body_bytes:
                return b""
        return b"end"

    def _forget(self, body: asyncio.Future[bytes]) -> None:
        """Give back the room of one that is there, or never will be."""
        size, _ = self._coming.pop(body)
        self._bodies.give(size)
        with suppress(RuntimeError, asyncio.CancelledError):
            body.exception()  # asyncio reports an exception that nobody looked at

    def _look(self) -> None:
        """End those that take too long, which closes their connections."""
        assert self._loop is not None
        late = time.monotonic() - self._patience.limit_s
        for body in [body for body, (_, since) in self._coming.items() if since < late]:
            body.cancel()
        if self._coming:
            self._loop.call_later(self._patience.pause_s, self._look)
        else:
            self._loop = None
