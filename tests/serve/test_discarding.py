"""Bodies that nobody asked for: the answer does not wait for them, and they cost no more than they may."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serve.sockets import answers_in, rest_of, served
from tests.serve.test_process import Process, running

from edgewright.serve import ModelOptions, Server
from edgewright.serve.http.application import Application
from edgewright.serve.protocol.limits import Limits


class Slow:
    """Scope and transport of a POST whose body comes once `comes` is set."""

    method, query_string = "POST", ""

    def __init__(self, path: str = "/v2/models/nobody/infer", size: int = 1000, **headers: str) -> None:
        self.path = path
        self.headers = {"content-length": str(size), **headers}
        self.comes = asyncio.Event()
        self.read = "not"
        self.answers: list[tuple[int, dict[str, str]]] = []

    async def __call__(self) -> bytes:
        self.read = "whole"
        await self.comes.wait()
        return bytes(int(self.headers["content-length"]))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.read = "in parts"
        await self.comes.wait()
        yield b"x"

    async def client_disconnect(self) -> None:
        await asyncio.Event().wait()

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.answers.append((status, dict(headers)))


async def _soon(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_full_queue_refuses_before_the_body_and_what_has_room_is_never_refused(
    serve: Any, shelf: Path, gate: Any
) -> None:
    server: Server = serve(shelf / "same", options=ModelOptions(queue=1))
    held = gate(server, "same")
    version = server.repository.get("same")
    application = Application(server)
    x = np.zeros((1, 4), np.float32)

    async def go() -> None:
        tickets = [server.submit("same", {"x": x}, lambda answer: None, inline=False)]
        await asyncio.to_thread(held.wait)
        early = Slow("/v2/models/same/infer")  # the queue is empty: its body is waited for
        reading = asyncio.create_task(application(early, early))
        await _soon(lambda: early.read == "whole")
        tickets.append(server.submit("same", {"x": x}, lambda answer: None, inline=False))
        refused = Slow("/v2/models/same/infer")
        await application(refused, refused)
        status, headers = refused.answers[0]
        assert (status, headers["retry-after"]) == (429, "1")
        assert "connection" not in headers
        assert (application.active, application._bodies.held) == (2, 2000)
        assert version.statistics.refused["full"] == 1
        held.open()
        await _soon(lambda: version.waiting == 0)
        early.comes.set()
        refused.comes.set()
        await reading
        assert early.answers[0][0] == 400  # there was room when it came: it is read, and found to be no JSON
        await _soon(lambda: application.active == 0)
        assert application._bodies.held == 0
        assert [len(request.answers) for request in (early, refused)] == [1, 1]

    asyncio.run(go())


def test_a_body_that_never_comes_is_given_up(whole: Server) -> None:
    application = Application(whole, Limits(body_s=0.1))

    async def go() -> None:
        for _ in range(2):  # also after a time in which none was on its way
            request = Slow()
            await application(request, request)
            assert request.answers[0][0] == 404
            assert application.active == 1
            await _soon(lambda: application.active == 0)
            assert application._bodies.held == 0
            await _soon(lambda: application._discards._loop is None)
        large = Slow(size=2**20 + 1)
        await application(large, large)
        assert (large.read, large.answers[0][1]["connection"]) == ("in parts", "close")

    asyncio.run(go())


def test_chunks_are_read_to_their_end_but_not_beyond_the_limit(whole: Server) -> None:
    class Chunks(Slow):
        """So many of a hundred bytes."""

        def __init__(self, number: int) -> None:
            super().__init__(**{"transfer-encoding": "chunked"})
            del self.headers["content-length"]
            self.left = number

        async def __aiter__(self) -> AsyncIterator[bytes]:
            while self.left:
                self.left -= 1
                yield bytes(100)

    for number, left, connection in ((10, 0, None), (1000, 989, "close")):
        request = Chunks(number)
        asyncio.run(Application(whole, Limits(body_bytes=1000))(request, request))
        ((status, headers),) = request.answers
        assert (status, request.left, headers.get("connection")) == (404, left, connection)


def test_many_and_large_bodies_are_read_in_parts_before_the_answer(whole: Server) -> None:
    application = Application(whole, Limits(bodies_bytes=100_000))

    async def go() -> None:
        requests = [Slow() for _ in range(64)]
        for request in requests:
            await application(request, request)
        for late in (Slow(), Slow(size=2**20 + 1)):
            waiting = asyncio.create_task(application(late, late))
            await _soon(lambda late=late: late.read == "in parts")
            assert not late.answers
            late.comes.set()
            await waiting
            assert late.answers[0][0] == 404
        for request in requests:
            request.comes.set()
        await _soon(lambda: application.active == 0)
        full = Slow(size=100_001)  # more than all bodies may have together
        full.comes.set()
        await application(full, full)
        assert full.read == "in parts"
        assert application._bodies.held == 0

    asyncio.run(go())


@pytest.mark.parametrize(
    ("headers", "closes"),
    [({"expect": "100-continue"}, True), ({"content-length": "99999999999"}, True), ({"content-length": "0"}, False)],
)
def test_what_is_not_read_ends_its_connection(whole: Server, headers: dict[str, str], closes: bool) -> None:
    request = Slow(**headers)
    asyncio.run(Application(whole)(request, request))
    assert request.read == "not"
    assert request.answers[0][0] == 404
    assert request.answers[0][1].get("connection") == ("close" if closes else None)


def test_a_body_that_was_read_to_its_end_ends_no_connection(whole: Server) -> None:
    request = Slow("/v2/models/same/infer")
    request.comes.set()
    asyncio.run(Application(whole)(request, request))
    ((status, headers),) = request.answers
    assert status == 400  # zeros are no JSON
    assert "connection" not in headers


# --- over a socket ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def process(shelf: Path) -> Iterator[Process]:
    with running(str(shelf / "same")) as started:
        yield started


HEAD = b"POST /v2/models/nobody/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%s\r\n"


def test_a_connection_goes_on_after_an_early_answer(process: Process) -> None:
    size = 600_000
    with socket.create_connection(("127.0.0.1", process.port), timeout=30) as connection:
        for _ in range(20):
            connection.sendall(HEAD % (size, b"") + bytes(size // 2))
            assert connection.recv(65536).startswith(b"HTTP/1.1 404")  # while half of it is still to come
            connection.sendall(bytes(size - size // 2))
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    assert b"edgewright_body_bytes 0" in process.ask("GET", "/metrics")[2]


def test_who_asks_first_is_refused_without_its_body(process: Process) -> None:
    with socket.create_connection(("127.0.0.1", process.port), timeout=30) as connection:
        connection.sendall(HEAD % (600_000, b"expect: 100-continue\r\n"))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"connection: close" in answer.lower()


def test_a_body_that_is_refused_in_its_middle_ends_its_connection(whole: Server) -> None:
    """There is no more room for it: what is still to come would wait for ever for somebody to read it."""
    chunked = b"POST /v2/models/same/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    known = b"POST /v2/models/same/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n"
    with served(Application(whole, Limits(bodies_bytes=100_000))) as place:
        for data in (chunked + (b"10000\r\n" + bytes(65536) + b"\r\n") * 3, known + bytes(200_000)):
            with place.connect(data) as connection:
                ((status, headers, _),) = answers_in(rest_of(connection))
            assert (status, headers["connection"]) == (429, "close")
