"""Connections of ours before an application that a test makes, and raw sockets to them."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop

from edgewright.serve.http.connection import Connection
from edgewright.serve.http.door import Door
from edgewright.serve.http.exchange import Response

Answering = Callable[[Any], Awaitable[Any]]


class Plain:
    """An application that is a function of the request; what it returns is the answer, None is none."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    def at_once(self, head: Any, body: bytes) -> Response | None:
        if not head.path.startswith("/at-once"):
            return None
        body = bytes(2**22) if head.path == "/at-once/large" else body
        return Response(body, 200, [("content-type", "text/plain"), ("x-path", head.path)])

    async def __call__(self, scope: Any, transport: Any) -> None:
        answer = await self._answering(transport)
        if answer is not None:
            status, headers, body = answer
            transport.response_bytes(status, headers, body)


class Place:
    """Where an application is served; `log` is what the server said."""

    def __init__(self) -> None:
        self.port = 0
        self.log: list[dict[str, Any]] = []
        self.door: Any = None
        self.loop: Any = None
        self.end: Any = None

    def connect(self, data: bytes = b"", *, small: bool = False) -> socket.socket:
        """A connection that has sent `data`; `small` takes little at a time."""
        connection = socket.socket()
        if small:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(data)
        return connection

    def ask(self, data: bytes) -> bytes:
        """All that comes for `data` until the server closes; the last request in it should ask for that."""
        with self.connect(data) as connection:
            return rest_of(connection)

    def call(self, work: Callable[[], Any]) -> Any:
        """The result of a call on the loop's thread."""
        done: Any = asyncio.run_coroutine_threadsafe(_called(work), self.loop)
        return done.result(20)


async def _called(work: Callable[[], Any]) -> Any:
    return work()


def rest_of(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def answers_in(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Answers one behind the other."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        size = int(headers.get("content-length", "0"))
        found.append((int(first.split()[1]), headers, data[:size]))
        assert len(data) >= size, "an answer is cut short"
        data = data[size:]
    return found


@contextmanager
def served(
    application: Any, *, keep_alive_s: float = 20.0, tls: ssl.SSLContext | None = None, drain_s: float = 1.0
) -> Iterator[Place]:
    """Serve an application (or a function, as of `Plain`) on a thread."""
    place, begun = Place(), threading.Event()
    shown = application if hasattr(application, "at_once") else Plain(application)

    async def go() -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.setblocking(False)
            listening.listen(128)
            place.port = listening.getsockname()[1]
            place.loop, place.end = asyncio.get_running_loop(), asyncio.Event()
            log: Any = lambda event, **fields: place.log.append({"event": event, **fields})  # noqa: E731
            place.door = Door(shown, listening, keep_alive_s=keep_alive_s, tls=tls, log=log)
            place.door.open()
            begun.set()
            await place.end.wait()
            await place.door.close(place.loop.time() + drain_s)
            assert len(place.door) == 0

    failed: list[BaseException] = []

    def run() -> None:
        try:
            uvloop.run(go())
        except BaseException as problem:
            failed.append(problem)
            begun.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(20)
    try:
        yield place
    finally:
        place.loop.call_soon_threadsafe(place.end.set)
        thread.join(30)
        assert not thread.is_alive()
        assert not failed, failed


# --- what tests ask, and of whom -----------------------------------------------------------------------------------------

TEXT = [("content-type", "text/plain")]
LAST = b"connection: close\r\n"
BYE = b"GET /bye HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def post(path: str, body: bytes, headers: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b" % (path.encode(), headers, len(body), body)


def chunked(path: str, chunks: bytes, headers: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nhost: x\r\n%btransfer-encoding: chunked\r\n\r\n%b" % (path.encode(), headers, chunks)


async def echo(request: Any) -> Any:
    """The body, read as the path says: as a whole, in parts, or not at all."""
    if request.path.startswith("/parts"):
        body = b"".join([part async for part in request])
    elif request.path.startswith("/unread"):
        body = b""
    else:
        body = await request()
    return 200, [*TEXT, ("x-path", request.path)], body


def telling() -> tuple[Any, list[str]]:
    """As `echo`, and why bodies could not be read."""
    failures: list[str] = []

    async def reading(request: Any) -> Any:
        try:
            return await echo(request)
        except RuntimeError as problem:
            failures.append(str(problem))
            return 400, TEXT, b""

    return reading, failures


def told(data: bytes) -> list[tuple[int, str, bytes]]:
    return [(status, headers.get("x-path", ""), body) for status, headers, body in answers_in(data)]


def until(condition: Any) -> None:
    """Wait for a condition."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def looks_of_the_door(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times of the door's looks at connections."""
    looks: list[float] = []
    look = Connection.look
    monkeypatch.setattr(Connection, "look", lambda *ours: (look(*ours), looks.append(ours[1])))
    return looks
