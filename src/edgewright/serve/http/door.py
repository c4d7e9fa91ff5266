"""The door: takes connections, no more than so many at a time, and looks after their time."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from email.utils import formatdate

from edgewright.serve.core.log import Log
from edgewright.serve.http.application import Application
from edgewright.serve.http.connection import Connection
from edgewright.serve.http.guard import Guard
from edgewright.serve.http.heads import Heads

#: Connections that are served at one time; more wait to be accepted.
CONNECTIONS = 1024
#: That are accepted before others have their turn.
_AT_ONCE = 64
#: Seconds until the next try where the system gives no more sockets.
_PAUSE_S = 1.0


class Door:
    """Accepts connections and keeps them.

    One timer looks after all of them, and tells the time: to ask for it at each request would cost more than to be a second
    late.

    Attributes:
        loop: The event loop.
        soon: Its `call_soon`.
        now: The loop's time at the last look.
        date: The header that says so.
        idle_s: Seconds after which a connection is closed on which no request came.
        closing: Whether each answer is the last one of its connection.
    """

    def __init__(
        self,
        application: Application | Guard,
        listening: socket.socket,
        *,
        keep_alive_s: float,
        tls: ssl.SSLContext | None,
        log: Log,
    ) -> None:
        """A door at a socket that listens; within the event loop."""
        self.loop = asyncio.get_running_loop()
        self.soon: Callable[[Callable[[], None]], object] = self.loop.call_soon
        self.closing = False
        self._application, self._log = application, log
        self._listening, self._tls, self._handshake_s = listening, tls, keep_alive_s
        self._heads = Heads()
        self._connections: set[Connection] = set()
        self._welcoming: set[asyncio.Task[None]] = set()
        self._open = self._shut = False
        self._pause_s = min(1.0, keep_alive_s / 4)
        self.idle_s = keep_alive_s + self._pause_s  # `now` may be late by that much
        self._look()

    def __len__(self) -> int:
        """Connections, those of which the handshake is under way among them."""
        return len(self._connections)

    def open(self) -> None:
        """Accept connections."""
        if not (self._open or self._shut):
            self._open = True
            self.loop.add_reader(self._listening, self._accept)

    def leave(self, connection: Connection) -> None:
        """Forget a connection; one that waits may come in."""
        self._connections.discard(connection)
        if not self._open:
            self.open()

    async def close(self, until: float) -> None:
        """Accept no more, close idle connections, and the others once they have their answers, or at a time of the loop."""
        self._wait()
        self._shut = self.closing = True
        self._listening.close()
        await asyncio.sleep(0)  # a task that is cancelled before it has begun would not let its connection go
        for task in self._welcoming:  # whose handshakes are under way
            task.cancel()
        while self._connections and self.loop.time() < until:
            for connection in [*self._connections]:
                connection.leave_idle()
            await asyncio.sleep(0.01)
        for connection in [*self._connections]:
            connection.abort()
        self._timer.cancel()
        await asyncio.sleep(0)  # in which they end

    def _wait(self) -> None:
        if self._open:
            self._open = False
            self.loop.remove_reader(self._listening)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if len(self._connections) >= CONNECTIONS:
                self._wait()
                return
            try:
                client, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:  # too many open files, or no memory
                self._log("error", problem=f"no connection can be accepted: {problem}")
                self._wait()
                self.loop.call_later(_PAUSE_S, self.open)
                return
            connection = Connection(self._application, self._heads, self, self._log)
            self._connections.add(connection)
            task = self.loop.create_task(self._welcome(client, connection))
            self._welcoming.add(task)
            task.add_done_callback(self._welcoming.discard)

    async def _welcome(self, client: socket.socket, connection: Connection) -> None:
        """Hand a socket to the event loop; over TLS this takes as long as the handshake."""
        client.setblocking(False)
        times = {} if self._tls is None else {"ssl_handshake_timeout": self._handshake_s, "ssl_shutdown_timeout": 2.0}
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self.loop.connect_accepted_socket(lambda: connection, client, ssl=self._tls, **times)
        except (Exception, asyncio.CancelledError):  # no handshake, a wrong one, or it has gone already
            client.close()
            self.leave(connection)

    def _look(self) -> None:
        self.now = self.loop.time()
        self.date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        self._timer = self.loop.call_later(self._pause_s, self._look)
        for connection in [*self._connections]:
            connection.look(self.now)
