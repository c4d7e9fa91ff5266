"""Connections over real sockets: bounds in time, and what becomes of clients that go away or take nothing."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest

pytest.importorskip("httptools", reason="needs the extra `serve`")

from tests.serve.sockets import (
    BYE,
    LAST,
    TEXT,
    answers_in,
    chunked,
    echo,
    looks_of_the_door,
    post,
    rest_of,
    served,
    telling,
    until,
)

from edgewright.serve.http import connection as connections

# --- time ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "answer"),
    [(b"", b""), (b"GET /bye HT", b"408"), (b"GET /bye HTTP/1.1\r\nhost", b"408"), (post("/at-once", b"a"), b"200")],
)
def test_idle_connections_and_slow_heads_end_in_time(data: bytes, answer: bytes) -> None:
    with served(echo, keep_alive_s=0.4) as place, place.connect(data) as connection:
        begun = time.monotonic()
        assert rest_of(connection)[9:12] == answer
        assert 0.35 < time.monotonic() - begun < 5


def test_no_connection_is_closed_before_its_time() -> None:
    """However its beginning lies to the ticks of the clock."""
    with served(echo, keep_alive_s=0.8) as place:
        open_since = {}
        for _ in range(12):
            begun = time.monotonic()
            open_since[place.connect()] = begun
            time.sleep(0.03)
        while open_since:
            for connection in select.select([*open_since], [], [], 20)[0]:
                assert time.monotonic() - open_since.pop(connection) > 0.75
                connection.close()


def test_every_idle_connection_ends_beside_those_that_are_busy() -> None:
    begun: list[Any] = []

    async def busy(request: Any) -> Any:
        begun.append(request)
        await request.client_disconnect()

    with served(busy, keep_alive_s=0.4) as place, ExitStack() as stack:
        waiting = [stack.enter_context(place.connect(data)) for data in [b"", post("/", b"")] * 8]
        until(lambda: len(begun) == 8)
        assert [rest_of(connection) for connection in waiting[::2]] == [b""] * 8
        assert place.call(lambda: len(place.door)) == 8


def test_the_date_goes_on() -> None:
    def date() -> str:
        return str(answers_in(place.ask(BYE))[0][1]["date"])

    with served(echo, keep_alive_s=0.4) as place:
        first = date()
        until(lambda: date() != first)


def test_a_head_that_comes_byte_by_byte_has_no_longer() -> None:
    with served(echo, keep_alive_s=0.5) as place, place.connect(b"GET / HTTP/1.1\r\nhost: x\r\n") as connection:
        begun = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - begun < 15:
                connection.sendall(b"a: b\r\n")
                time.sleep(0.05)
        assert time.monotonic() - begun < 10


def test_who_asks_in_time_keeps_the_connection_and_a_request_under_way_is_not_idle() -> None:
    async def slow(request: Any) -> Any:
        await asyncio.sleep(2)
        return 200, TEXT, b""

    with served(slow, keep_alive_s=1) as place, place.connect() as connection:
        for data in (*[post("/at-once", b"a")] * 5, post("/slow", b""), post("/at-once", b"b")):
            time.sleep(0.3)
            connection.sendall(data)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_who_takes_its_answers_slowly_gets_no_more_meanwhile() -> None:
    paths: list[str] = []

    async def large(request: Any) -> Any:
        paths.append(request.path)
        return 200, TEXT, bytes(2**22)

    with served(large) as place:
        requests = b"".join(b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % number for number in range(8))
        with place.connect(requests + BYE, small=True) as connection:
            time.sleep(0.5)
            assert len(paths) <= 2
            answers = answers_in(rest_of(connection))
        assert [len(body) for *_, body in answers] == [2**22] * 9
        assert paths == [f"/{number}" for number in range(8)] + ["/bye"]


@pytest.mark.parametrize("path", ["/large", "/at-once/large"])
def test_what_is_asked_while_an_answer_is_not_taken_waits(path: str) -> None:
    paths: list[str] = []

    async def large(request: Any) -> Any:
        paths.append(request.path)
        return 200, TEXT, bytes(2**22)

    with served(large) as place, place.connect(post(path, b""), small=True) as connection:
        assert connection.recv(1)
        connection.sendall(post("/next", b""))
        time.sleep(0.3)
        assert "/next" not in paths
        connection.sendall(BYE)
        answers = answers_in(b"H" + rest_of(connection))
        assert [len(body) for *_, body in answers] == [2**22] * 3
        assert paths[-2:] == ["/next", "/bye"]


@pytest.mark.parametrize("ending", [b"", LAST])
def test_who_takes_nothing_is_left(monkeypatch: pytest.MonkeyPatch, ending: bytes) -> None:
    monkeypatch.setattr(connections, "STALLED_S", 0.5)

    async def large(request: Any) -> Any:
        return 200, TEXT, bytes(2**24)

    with served(large, keep_alive_s=1) as place:
        with place.connect(b"GET / HTTP/1.1\r\nhost: x\r\n" + ending + b"\r\n", small=True) as connection:
            until = time.monotonic() + 15
            while place.call(lambda: len(place.door)) == 0 and time.monotonic() < until:
                time.sleep(0.02)
            while place.call(lambda: len(place.door)) and time.monotonic() < until:
                time.sleep(0.02)
            assert time.monotonic() < until
            with pytest.raises((OSError, AssertionError)):
                answers_in(rest_of(connection))
        with place.connect(
            b"GET / HTTP/1.1\r\nhost: x\r\n" + LAST + b"\r\n", small=True
        ) as connection:  # slowly, but it goes on
            size, begun = 0, time.monotonic()
            while part := connection.recv(65536):
                size += len(part)
                time.sleep(0.05 if time.monotonic() - begun < 3 else 0)
            assert size > 2**24


def test_who_takes_nothing_of_a_small_last_answer_is_left_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is too small to stop anything, and too large for the system."""
    monkeypatch.setattr(connections, "STALLED_S", 0.5)

    async def some(request: Any) -> Any:
        return 200, TEXT, bytes(60_000)

    with served(some, keep_alive_s=1) as place:
        place.call(lambda: place.door._listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096))
        with place.connect(BYE, small=True):
            until(lambda: place.call(lambda: len(place.door)) == 1)
            until(lambda: place.call(lambda: len(place.door)) == 0)


def test_who_has_taken_its_answer_late_has_all_the_time_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def large(request: Any) -> Any:
        return 200, TEXT, bytes(2**22)

    looks = looks_of_the_door(monkeypatch)
    with (
        served(large, keep_alive_s=1) as place,
        place.connect(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", small=True) as connection,
    ):
        until(lambda: len(looks) > 6)
        head = connection.recv(2**16, socket.MSG_PEEK).partition(b"\r\n\r\n")[0]
        left = len(head) + 4 + 2**22
        while left:
            left -= len(connection.recv(left))
        seen = len(looks)
        until(lambda: len(looks) > seen + 1)
        connection.sendall(BYE)
        assert len(answers_in(rest_of(connection))) == 1


# --- clients that go away -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_the_application_is_told_when_the_client_goes(how: str) -> None:
    begun, told_so = threading.Event(), threading.Event()

    async def waiting(request: Any) -> Any:
        begun.set()
        await request.client_disconnect()
        await request.client_disconnect()  # and at once, from then on
        told_so.set()
        return 200, TEXT, b""

    with served(waiting) as place, place.connect(post("/", b"hello")) as connection:
        assert begun.wait(20)
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if how == "half":
            connection.shutdown(socket.SHUT_WR)
        else:
            connection.close()
        assert told_so.wait(20)
        if how == "half":
            assert answers_in(rest_of(connection))[0][1]["connection"] == "close"


def test_who_asks_later_is_told_as_well_that_the_client_has_gone() -> None:
    begun, told_so = threading.Event(), threading.Event()

    async def busy(request: Any) -> Any:
        begun.set()
        while not request._connection.gone:
            await asyncio.sleep(0.01)
        await request.client_disconnect()
        told_so.set()

    with served(busy) as place:
        with place.connect(post("/", b"")):
            assert begun.wait(20)
        assert told_so.wait(20)


@pytest.mark.parametrize("data", [post("/a", b"hello")[:-1], chunked("/parts", b"5\r\nhello\r\n0\r\n")])
def test_a_body_that_is_cut_short_is_told_to_both(data: bytes) -> None:
    reading, failures = telling()
    with served(reading) as place, place.connect(data) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert [status for status, *_ in answers_in(rest_of(connection))] == [400]
    assert failures == ["it is cut short"]
