"""One request on its connection, as the application takes it: scope and transport in one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING

from edgewright.serve.http.bodies import Chunked, Counted
from edgewright.serve.http.exchange import Response
from edgewright.serve.http.heads import Head

if TYPE_CHECKING:
    from edgewright.serve.http.connection import Connection

#: Bytes of a body that wait for the application before no more are read.
_AHEAD_BYTES = 65536


class Request:
    """A request whose answer is on its way.

    Attributes:
        head: What stands before its body.
        complete: Whether all of its body has come.
        wanted: Whether somebody reads the body, or has read it.
        answered: Whether its answer was given.
    """

    __slots__ = (
        "_connection",
        "_failure",
        "_frame",
        "_gone",
        "_held",
        "_parts",
        "_waiter",
        "_whole",
        "answered",
        "complete",
        "head",
        "headers",
        "method",
        "path",
        "query_string",
        "wanted",
    )

    def __init__(self, connection: Connection, head: Head) -> None:
        self._connection = connection
        self.head = head
        self.method, self.path, self.query_string, self.headers = (
            head.method,
            head.path,
            head.query_string,
            head.headers,
        )
        self._frame = Chunked() if head.length is None else Counted(head.length)
        self._parts: list[bytes] = []
        self._held = 0
        self._failure = ""
        self._waiter: asyncio.Future[None] | None = None
        self._gone: asyncio.Event | None = None
        self._whole = False
        self.complete = self._frame.ended
        self.wanted = self.answered = False

    # --- what the application calls ---------------------------------------------------------------------------------------

    @property
    def client(self) -> str:
        """Address and port of who asks."""
        return self._connection.client

    def __call__(self) -> Awaitable[bytes]:
        """The whole body."""
        self._whole = True
        self._want()
        return self._all()

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body in parts."""
        self._want()
        return self

    async def __anext__(self) -> bytes:
        """The next part.

        Raises:
            RuntimeError: The body cannot be read to its end.
        """
        while not (self._parts or self.complete):  # what came may have been the framing of chunks alone
            await self._more()
        if not self._parts:
            raise StopAsyncIteration
        return self._taken()

    async def client_disconnect(self) -> None:
        """Return once the client has gone."""
        if self._connection.gone:
            return
        if self._gone is None:
            self._gone = asyncio.Event()
        await self._gone.wait()

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Give the answer; a second one is not sent."""
        if not self.answered:
            self.answered = True
            self._connection.answer(self, Response(body, status, headers))

    # --- what the connection calls ----------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> bytes:
        """Take what came of the body; what comes after it is given back."""
        try:
            part, rest = self._frame.take(data)
        except ValueError as problem:
            self.fail(str(problem))
            return b""
        self.complete = self._frame.ended
        if part and not (self.answered and not self.wanted):
            self._parts.append(part)
            self._held += len(part)
        if self._waiter is not None and (self.complete or not self._whole):
            self._wake()
        return rest

    @property
    def received(self) -> bool:
        """Whether some of the body is here and was not taken yet."""
        return self._held > 0

    @property
    def full(self) -> bool:
        """Whether more of the body has come than the application takes now."""
        return self._held > _AHEAD_BYTES and not self._whole and not self.complete

    def fail(self, reason: str) -> None:
        """End the wait for a body that cannot be read to its end."""
        self._failure = reason
        self.wanted = False
        self._wake()

    def leave(self) -> None:
        """The client has gone."""
        if self._gone is not None:
            self._gone.set()
        if not self.complete:
            self.fail("it is cut short")

    # ----------------------------------------------------------------------------------------------------------------------

    def _want(self) -> None:
        if not (self.wanted or self.complete or self._failure):
            self.wanted = True
            self._connection.want_body(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _taken(self) -> bytes:
        """All that has come."""
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        if not self.complete:
            self._connection.flow()
        return data

    async def _all(self) -> bytes:
        while not self.complete:
            await self._more()
        return self._taken()

    async def _more(self) -> None:
        """Return once more has come: all of it, where all is wanted."""
        if not self._failure:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:  # nobody reads the rest
                self.wanted = False
                self._connection.give_up(self)
                raise
            finally:
                self._waiter = None
        if self._failure:
            raise RuntimeError(self._failure)
