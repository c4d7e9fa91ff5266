"""Connections over real sockets: requests and bodies in their order, and what is refused."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import threading
import time
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
    told,
    until,
)
from tests.serve.test_heads import CHUNKS, REFUSED

from edgewright.serve.http import connection as connections

# --- one request after the other ----------------------------------------------------------------------------------------


def test_requests_behind_each_other_are_answered_in_their_order_however_they_come() -> None:
    async def unequal(request: Any) -> Any:
        await asyncio.sleep(0.002 * (request.path == "/slow"))
        return await echo(request)

    requests = [
        post("/slow", b"a" * 10),
        post("/at-once", b"now"),
        b"\r\n\r\n" + chunked("/parts/1", CHUNKS),
        b"GET /2?x HTTP/1.1\r\nhost: x\r\n\r\n",
        post("/at-once", b""),
        chunked("/slow", b"1\r\nb\r\n0\r\n\r\n"),
        post("/parts/2", b"POST /never HTTP/1.1\r\nhost: x\r\n\r\n"),
        post("/3", b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n"),
    ]
    data = b"".join(requests) + BYE
    chance = random.Random(0)
    with served(unequal) as place:
        whole = told(place.ask(data))
        assert [(status, path) for status, path, _ in whole] == [
            (200, path)
            for path in ("/slow", "/at-once", "/parts/1", "/2", "/at-once", "/slow", "/parts/2", "/3", "/bye")
        ]
        assert [body for *_, body in whole][:3] == [b"a" * 10, b"now", b"hello" + b"\r\n" * 5 + b"\0"]
        for _ in range(40):
            cuts = sorted(chance.sample(range(1, len(data)), chance.choice([1, 2, 5, 40])))
            with place.connect() as connection:
                for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                    connection.sendall(data[start:end])
                    time.sleep(0.0003)
                assert told(rest_of(connection)) == whole
        with place.connect() as connection:
            for byte in data:
                connection.sendall(bytes([byte]))
            assert told(rest_of(connection)) == whole


def test_many_requests_at_once_wait_for_their_turn_and_take_no_memory() -> None:
    seen: list[int] = []
    active = 0

    async def one_at_a_time(request: Any) -> Any:
        nonlocal active
        active += 1
        seen.append(active)
        await asyncio.sleep(0)
        active -= 1
        return 200, TEXT, b""

    request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    with served(one_at_a_time) as place, place.connect() as connection:
        sender = threading.Thread(target=connection.sendall, args=(request * 20_000 + BYE,))
        sender.start()
        assert len(answers_in(rest_of(connection))) == 20_001
        sender.join()
    assert set(seen) == {1}


def test_empty_lines_before_a_request_are_passed_over_together(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read = connections.Connection._read
    monkeypatch.setattr(
        connections.Connection, "_read", lambda self, data: (reads.append(len(data)), read(self, data))[1]
    )
    with served(echo) as place:
        assert told(place.ask(b"\r\n" * 2**20 + BYE)) == [(200, "/bye", b"")]
    assert sum(reads) < 2**23  # each byte is looked at a few times at most


def test_of_requests_that_wait_few_are_read() -> None:
    begun, go = threading.Event(), threading.Event()

    async def waiting(request: Any) -> Any:
        begun.set()
        await asyncio.to_thread(go.wait)
        return 200, TEXT, b""

    with served(waiting) as place, place.connect(BYE) as connection:
        try:
            assert begun.wait(20)
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):  # it has to wait
                connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 2**20)
            (ours,) = place.door._connections
            assert len(ours._held) <= 600_000  # two reads of the event loop
        finally:
            go.set()


def test_what_is_here_as_a_whole_is_answered_without_the_usual_way() -> None:
    async def never(request: Any) -> Any:
        raise RuntimeError("it went the usual way")

    with served(never) as place:
        data = post("/at-once", b"a") + post("/at-once", b"b") + post("/at-once", b"last", LAST)
        assert [body for *_, body in told(place.ask(data))] == [b"a", b"b", b"last"]


def test_a_second_answer_is_not_sent() -> None:
    async def twice(request: Any) -> Any:
        request.response_bytes(200, TEXT, b"first")
        return 200, TEXT, b"second"

    with served(twice) as place:
        answers = answers_in(place.ask(post("/a", b"") + BYE))
    assert [body for *_, body in answers] == [b"first", b"first"]


def test_what_fails_after_its_answer_does_not_fail_the_next_request() -> None:
    next_one, go = threading.Event(), threading.Event()

    async def failing(request: Any) -> Any:
        if request.path == "/next":
            next_one.set()
            await asyncio.to_thread(go.wait)
            return 200, TEXT, b"next"
        request.response_bytes(200, TEXT, b"first")
        await asyncio.to_thread(next_one.wait)
        raise RuntimeError("after its answer")

    with served(failing) as place, place.connect(post("/a", b"") + post("/next", b"", LAST)) as connection:
        until(lambda: place.log)
        go.set()
        assert [body for *_, body in answers_in(rest_of(connection))] == [b"first", b"next"]
        assert "after its answer" in str(place.log)


@pytest.mark.parametrize(
    ("version", "header", "goes_on"),
    [
        (b"1.1", b"", ""),
        (b"1.1", LAST, "close"),
        (b"1.0", b"", "close"),
        (b"1.0", b"connection: keep-alive\r\n", "keep-alive"),
    ],
)
def test_connections_go_on_where_both_sides_want_it(version: bytes, header: bytes, goes_on: str) -> None:
    with (
        served(echo) as place,
        place.connect(b"GET /a HTTP/" + version + b"\r\nhost: x\r\n" + header + b"\r\n") as connection,
    ):
        if goes_on != "close":
            time.sleep(0.1)
            connection.sendall(BYE)
        answers = answers_in(rest_of(connection))
    assert answers[0][1].get("connection", "") == goes_on
    assert len(answers) == (1 if goes_on == "close" else 2)
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", answers[0][1]["date"])


def test_head_has_no_body_and_other_methods_reach_the_application() -> None:
    async def shown(request: Any) -> Any:
        return 200, TEXT, b"" if request.method == "HEAD" else request.method.encode()

    with served(shown) as place:
        answer = place.ask(b"HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n")
        assert b"content-length" not in answer
        for method in (b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE"):
            assert told(place.ask(method + b" / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))[0][2] == method


def test_an_upgrade_is_an_ordinary_request() -> None:
    for offer in (
        b"connection: upgrade\r\nupgrade: websocket\r\n",
        b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\n",
    ):
        with served(echo) as place:
            answers = told(place.ask(post("/a", b"hello", offer) + BYE))
        assert answers == [(200, "/a", b"hello"), (200, "/bye", b"")]


# --- what is refused ----------------------------------------------------------------------------------------------------


def test_whatever_is_refused_ends_its_connection_and_nothing_behind_it_is_read() -> None:
    paths: list[str] = []

    async def noted(request: Any) -> Any:
        paths.append(request.path)
        return await echo(request)

    with served(noted) as place:
        for name, data in REFUSED.items():
            answers = answers_in(place.ask(data + b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"))
            assert [status in (400, 431) for status, *_ in answers] == [True], name
            assert answers[0][1]["connection"] == "close"
        assert told(place.ask(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n" + REFUSED["a bare LF"]))[0] == (200, "/a", b"")
    assert paths == ["/a"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 65536 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 200_000, 431),
        (b"GET /" + b"a" * 65536 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
        (b"a" * 65536, 414),
    ],
)
def test_long_heads_are_refused(data: bytes, status: int) -> None:
    with served(echo) as place:
        for size in (1000, len(data)):
            with place.connect() as connection:
                for start in range(0, len(data), size):
                    connection.sendall(data[start : start + size])
                assert told(rest_of(connection))[0][0] == status
        fits = b"GET /bye HTTP/1.1\r\nhost: x\r\nconnection: close\r\na: "
        assert told(place.ask(fits + b"b" * (65536 - len(fits) - 4) + b"\r\n\r\n")) == [(200, "/bye", b"")]


def test_who_is_refused_hears_at_once_that_nothing_more_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LINGERING_S", 1000.0)
    with served(echo) as place:
        assert told(place.ask(REFUSED["a bare LF"]))[0][0] == 400
        place.call(lambda: [ours.abort() for ours in [*place.door._connections]])


@pytest.mark.parametrize("path", ["/a", "/parts"])
def test_bad_chunks_end_the_body_and_the_connection(path: str) -> None:
    reading, failures = telling()
    with served(reading) as place:
        for start in (b"", b"5\r\nhello\r\n"):
            answers = answers_in(place.ask(chunked(path, start + b"zz\r\n") + BYE))
            assert [(status, headers["connection"]) for status, headers, _ in answers] == [(400, "close")]
        with place.connect(chunked(path, b"5\r\nhel")) as connection:
            time.sleep(0.1)
            connection.sendall(b"lo!\r\n" + BYE)
            assert [status for status, *_ in answers_in(rest_of(connection))] == [400]
    assert failures == ["a chunk does not begin with its size"] * 2 + ["a chunk does not end where it should"]


def test_what_the_application_does_wrong_is_a_500_and_no_header_of_the_clients_own() -> None:
    async def wrong(request: Any) -> Any:
        if request.path == "/raises":
            raise RuntimeError("a secret")
        return None if request.path == "/silent" else (200, [("a", "b\r\nset-cookie: c"), *TEXT], b"")

    with served(wrong) as place:
        for path in ("/raises", "/silent", "/injects"):
            answers = answers_in(place.ask(post(path, b"") + BYE))
            assert [status for status, *_ in answers] == [500]
            assert "set-cookie" not in answers[0][1]
            assert (answers[0][1]["connection"], answers[0][2]) == ("close", b'{"error":"the server failed"}')
        assert ["secret" in str(line) for line in place.log] == [True, False]


# --- bodies -------------------------------------------------------------------------------------------------------------


def test_the_body_is_asked_for_when_somebody_wants_it() -> None:
    expects = b"expect: 100-Continue\r\n"
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    with served(echo) as place:
        for path in ("/a", "/parts"):
            with place.connect(post(path, b"", expects).replace(b": 0", b": 5")) as connection:
                assert connection.recv(100) == go_on
                connection.sendall(b"hello" + BYE)
                assert told(rest_of(connection)) == [(200, path, b"hello"), (200, "/bye", b"")]
        for data in (post("/a", b"hello", expects), post("/a", b"", expects)):  # it is here, or there is none
            assert len(answers_in(place.ask(data + BYE))) == 2
        with place.connect(post("/a", b"hel", expects).replace(b": 3", b": 5")) as connection:  # it has begun to come
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.recv(100)
            connection.settimeout(20)
            connection.sendall(b"lo" + BYE)
            assert told(rest_of(connection)) == [(200, "/a", b"hello"), (200, "/bye", b"")]
        with place.connect(post("/unread", b"", expects).replace(b": 0", b": 5")) as connection:
            ((status, headers, _),) = answers_in(rest_of(connection))
            assert (status, headers["connection"]) == (200, "close")
        old = post("/a", b"", expects).replace(b": 0", b": 5").replace(b"1.1", b"1.0")
        with place.connect(old) as connection:
            time.sleep(0.1)
            connection.sendall(b"hello")
            assert told(rest_of(connection)) == [(200, "/a", b"hello")]


def test_a_body_is_asked_for_once() -> None:
    async def twice(request: Any) -> Any:
        aiter(request)
        return 200, TEXT, await request()

    with served(twice) as place:
        head = post("/", b"", b"expect: 100-continue\r\n" + LAST).replace(b": 0", b": 5")
        with place.connect(head) as connection:
            assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"hello")
            assert [(status, body) for status, _, body in answers_in(rest_of(connection))] == [(200, b"hello")]


def test_nobody_is_asked_for_a_body_after_the_answer() -> None:
    async def late(request: Any) -> Any:
        request.response_bytes(200, TEXT, b"")
        await request()

    with served(late) as place:
        answer = place.ask(post("/", b"", b"expect: 100-continue\r\n").replace(b": 0", b": 5"))
        assert [status for status, *_ in answers_in(answer)] == [200]
        until(lambda: place.log)
        assert "it is cut short" in place.log[0]["problem"]


def test_a_body_that_is_given_up_still_has_its_answer_and_ends_the_connection() -> None:
    async def impatient(request: Any) -> Any:
        try:
            await asyncio.wait_for(request(), 0.05)
        except TimeoutError:
            return 408, TEXT, b"too late"

    with served(impatient) as place:
        ((status, headers, body),) = answers_in(place.ask(post("/", b"hello")[:-1]))
    assert (status, headers["connection"], body) == (408, "close", b"too late")


def test_a_body_that_is_given_up_wakes_nobody_twice() -> None:
    """The rest of it comes before the task that was cancelled has its turn."""

    async def cancelled(request: Any) -> Any:
        reading = asyncio.ensure_future(request())
        await asyncio.sleep(0)
        reading.cancel()
        request.feed(b"hello")
        with pytest.raises(asyncio.CancelledError):
            await reading
        return 200, TEXT, b"done"

    with served(cancelled) as place:
        ((status, _, body),) = answers_in(place.ask(post("/", b"hello", LAST)[:-5]))
    assert (status, body) == (200, b"done")


def test_a_body_that_nobody_reads_is_not_kept() -> None:
    held: list[int] = []
    begun, go = threading.Event(), threading.Event()

    async def late(request: Any) -> Any:
        begun.set()
        while not go.is_set():
            held.append(request._held)
            await asyncio.sleep(0.01)
        size = 0
        async for part in request:
            size += len(part)
            held.append(len(part) + request._held)
            await asyncio.sleep(0)
        return 200, TEXT, b"%d" % size

    size = 32 * 2**20
    for data in (post("/", bytes(size)), chunked("/", (b"10000\r\n" + bytes(65536) + b"\r\n") * 512 + b"0\r\n\r\n")):
        held.clear()
        begun.clear()
        go.clear()
        with served(late) as place, place.connect() as connection:
            sender = threading.Thread(target=connection.sendall, args=(data,))
            sender.start()
            assert begun.wait(20)
            sender.join(0.5)
            assert sender.is_alive()  # it has to wait
            go.set()
            sender.join(20)
            answer = connection.recv(1000)
            assert answer.endswith(b"\r\n\r\n%d" % size), answer
        assert max(held) <= 600_000  # two reads of the event loop


@pytest.mark.parametrize("data", [post("/unread", bytes(5)), chunked("/unread", b"5\r\nhello\r\n0\r\n\r\n")])
def test_a_connection_goes_on_after_an_unread_body_only_if_all_of_it_has_come(data: bytes) -> None:
    with served(echo) as place:
        assert len(answers_in(place.ask(data + BYE))) == 2
        with place.connect(data[:-1]) as connection:
            ((status, headers, _),) = answers_in(rest_of(connection))
            assert (status, headers["connection"]) == (200, "close")


def test_who_still_sends_gets_its_last_answer() -> None:
    """Closing while data comes would reset the connection, and the answer with it."""
    with served(echo) as place:
        for _ in range(5):
            with place.connect() as connection:
                connection.sendall(post("/unread", bytes(8 * 2**20)))
                assert told(rest_of(connection)) == [(200, "/unread", b"")]
        for last in (BYE, post("/at-once", b"", LAST), REFUSED["a bare LF"]):
            with place.connect() as connection:
                connection.sendall(last + bytes(8 * 2**20))
                assert len(told(rest_of(connection))) == 1


def test_who_still_sends_has_some_time_from_the_answer_on_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def long_ago(request: Any) -> Any:
        request._connection._since = -1e9  # the last answer
        return 200, TEXT, b""

    looks = looks_of_the_door(monkeypatch)
    with served(long_ago, keep_alive_s=0.4) as place, place.connect(post("/", b"hello")[:-1]) as connection:
        assert len(answers_in(rest_of(connection))) == 1
        seen = len(looks)
        until(lambda: len(looks) > seen + 2)
        assert place.call(lambda: len(place.door)) == 1
        monkeypatch.setattr(connections, "LINGERING_S", 0.1)
        until(lambda: place.call(lambda: len(place.door)) == 0)


def test_who_never_stops_sending_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LINGERING_S", 0.3)
    head = post("/unread", b"").replace(b": 0", b": 1000000000")
    with served(echo, keep_alive_s=0.4) as place, place.connect(head) as connection:
        begun = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - begun < 15:
                connection.sendall(bytes(100))
                time.sleep(0.02)
        assert time.monotonic() - begun < 10


def test_a_body_may_come_after_its_answer() -> None:
    async def early(request: Any) -> Any:
        if request.path == "/early":
            bodies.append(asyncio.ensure_future(request()))
        return 200, [*TEXT, ("x-path", request.path)], b""

    bodies: list[Any] = []
    with served(early) as place:
        with place.connect(post("/early", b"")[:-5] + b"9\r\n\r\n1234") as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            connection.sendall(b"56789" + BYE)
            assert told(rest_of(connection)) == [(200, "/bye", b"")]
        assert place.call(bodies[0].result) == b"123456789"
        with place.connect(post("/early", b"")[:-5] + b"9\r\n\r\n1234") as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            place.call(bodies[1].cancel)  # it takes too long: the connection cannot go on
            assert rest_of(connection) == b""
        for end in (b"zz\r\n", b""):  # it is no body, or the client goes
            with place.connect(chunked("/early", b"5\r\nhello\r\n")) as connection:
                assert connection.recv(1000).startswith(b"HTTP/1.1 200")
                connection.sendall(end)
                if not end:
                    connection.shutdown(socket.SHUT_WR)
                assert rest_of(connection) == b""
            with pytest.raises(RuntimeError):
                place.call(bodies[-1].result)
