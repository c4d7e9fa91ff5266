"""Connections over real sockets: order, bounds in size and time, and what becomes of clients that misbehave."""

from __future__ import annotations

import asyncio
import random
import re
import select
import socket
import ssl
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools", reason="needs the extra `serve`")

from tests.serve.sockets import Place, answers_in, rest_of, served
from tests.serve.test_heads import CHUNKS, REFUSED

from edgewright.serve.http import connection as connections
from edgewright.serve.http import door as doors

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


def _until(condition: Any) -> None:
    """Wait for a condition."""
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def _looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times of the door's looks at connections."""
    looks: list[float] = []
    look = connections.Connection.look
    monkeypatch.setattr(connections.Connection, "look", lambda *ours: (look(*ours), looks.append(ours[1])))
    return looks


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
        _until(lambda: place.log)
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
        _until(lambda: place.log)
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

    looks = _looks(monkeypatch)
    with served(long_ago, keep_alive_s=0.4) as place, place.connect(post("/", b"hello")[:-1]) as connection:
        assert len(answers_in(rest_of(connection))) == 1
        seen = len(looks)
        _until(lambda: len(looks) > seen + 2)
        assert place.call(lambda: len(place.door)) == 1
        monkeypatch.setattr(connections, "LINGERING_S", 0.1)
        _until(lambda: place.call(lambda: len(place.door)) == 0)


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
        _until(lambda: len(begun) == 8)
        assert [rest_of(connection) for connection in waiting[::2]] == [b""] * 8
        assert place.call(lambda: len(place.door)) == 8


def test_the_date_goes_on() -> None:
    def date() -> str:
        return str(answers_in(place.ask(BYE))[0][1]["date"])

    with served(echo, keep_alive_s=0.4) as place:
        first = date()
        _until(lambda: date() != first)


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
            _until(lambda: place.call(lambda: len(place.door)) == 1)
            _until(lambda: place.call(lambda: len(place.door)) == 0)


def test_who_has_taken_its_answer_late_has_all_the_time_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def large(request: Any) -> Any:
        return 200, TEXT, bytes(2**22)

    looks = _looks(monkeypatch)
    with (
        served(large, keep_alive_s=1) as place,
        place.connect(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", small=True) as connection,
    ):
        _until(lambda: len(looks) > 6)
        head = connection.recv(2**16, socket.MSG_PEEK).partition(b"\r\n\r\n")[0]
        left = len(head) + 4 + 2**22
        while left:
            left -= len(connection.recv(left))
        seen = len(looks)
        _until(lambda: len(looks) > seen + 1)
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


# --- how many, and the end ----------------------------------------------------------------------------------------------


def test_only_so_many_connections_are_served_and_the_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "CONNECTIONS", 3)
    with served(echo) as place:
        inside = [place.connect() for _ in range(3)]
        until = time.monotonic() + 20
        while place.call(lambda: len(place.door)) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        waiting = place.connect(BYE)
        waiting.settimeout(0.5)
        with pytest.raises(TimeoutError):
            waiting.recv(100)
        inside.pop().close()
        waiting.settimeout(20)
        assert told(rest_of(waiting)) == [(200, "/bye", b"")]
        for connection in (*inside, waiting):
            connection.close()


def test_a_full_door_is_not_looked_at_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "CONNECTIONS", 1)
    looks: list[int] = []
    accept = doors.Door._accept
    monkeypatch.setattr(doors.Door, "_accept", lambda door: (looks.append(len(door)), accept(door)))
    with served(echo) as place, place.connect(), place.connect():
        _until(lambda: place.call(lambda: len(place.door)) == 1)
        for _ in range(20):
            place.call(lambda: None)  # the event loop has turns
        assert looks == [0]


def test_of_a_connection_that_has_come_in_nothing_is_kept_but_itself() -> None:
    with served(echo) as place, place.connect(post("/a", b"")) as connection:
        assert connection.recv(1000)
        assert place.call(lambda: (len(place.door), len(place.door._welcoming))) == (1, 0)


def test_a_system_without_sockets_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "_PAUSE_S", 0.1)
    real, times = socket.socket.accept, []

    def accept(self: socket.socket) -> Any:
        times.append(time.monotonic())
        if len(times) == 1:
            raise OSError(24, "Too many open files")
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    with served(echo) as place:
        assert told(place.ask(BYE)) == [(200, "/bye", b"")]
        assert "no connection can be accepted" in place.log[0]["problem"]
    assert times[1] - times[0] > 0.09  # and not all the time


def _end(place: Place) -> None:
    place.loop.call_soon_threadsafe(place.end.set)


def test_at_the_end_idle_connections_close_and_answers_under_way_are_the_last() -> None:
    begun, go = threading.Event(), threading.Event()

    async def held(request: Any) -> Any:
        begun.set()
        await asyncio.to_thread(go.wait)
        return 200, TEXT, b"done"

    with served(held, drain_s=20) as place:
        idle, partly, busy = place.connect(), place.connect(b"GET / HT"), place.connect(post("/", b""))
        assert begun.wait(20)
        _end(place)
        assert rest_of(idle) == rest_of(partly) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", place.port))
        go.set()
        ((status, headers, body),) = answers_in(rest_of(busy))
        assert (status, headers["connection"], body) == (200, "close", b"done")
        for connection in (idle, partly, busy):
            connection.close()


def test_who_was_refused_may_still_hear_it_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LINGERING_S", 1000.0)
    with served(echo, drain_s=20) as place, place.connect(REFUSED["a bare LF"]) as connection:
        assert told(rest_of(connection))[0][0] == 400
        _end(place)
        _until(lambda: place.door.closing)
        time.sleep(0.1)  # in which idle ones end
        assert place.call(lambda: len(place.door)) == 1


def _turns(place: Place, work: Any) -> None:
    """Do something with the one connection, within one turn of the event loop."""
    _until(lambda: place.call(lambda: len(place.door)) == 1)
    place.call(lambda: work(*place.door._connections))


def test_what_waits_for_its_turn_is_not_begun_once_its_connection_ends() -> None:
    paths: list[str] = []

    async def noted(request: Any) -> Any:
        paths.append(request.path)
        return await echo(request)

    with served(noted) as place, place.connect() as connection:
        data = post("/at-once", b"a") + post("/next", b"")
        _turns(place, lambda ours: (ours.data_received(data), ours.leave_idle()))
        assert told(rest_of(connection)) == [(200, "/at-once", b"a")]
    assert paths == []


def test_what_waits_for_its_turn_has_one() -> None:
    """However often the client is too slow meanwhile."""

    async def slow(request: Any) -> Any:
        await asyncio.sleep(0.05 * (request.path == "/slow"))
        return await echo(request)

    with served(slow) as place, place.connect() as connection:
        data = post("/at-once", b"a") + post("/slow", b"") + post("/next", b"") + BYE
        _turns(place, lambda ours: (ours.data_received(data), ours.pause_writing(), ours.resume_writing()))
        assert [path for _, path, _ in told(rest_of(connection))] == ["/at-once", "/slow", "/next", "/bye"]


def test_the_end_does_not_wait_for_ever() -> None:
    async def for_ever(request: Any) -> Any:
        await asyncio.Event().wait()

    async def large(request: Any) -> Any:
        return 200, TEXT, bytes(2**24)

    for answering in (for_ever, large):
        with served(answering, drain_s=0.5) as place:
            connection = place.connect(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", small=True)
            time.sleep(0.2)
            begun = time.monotonic()
        assert time.monotonic() - begun < 5
        connection.close()


def test_who_comes_in_at_the_very_end_holds_nothing_up() -> None:
    with served(echo) as place:
        place.call(place.door._wait)

        def end() -> None:
            place.loop.create_task(place.door.close(place.loop.time() + 1000))
            place.door._accept()  # and its task has not begun when those that welcome are ended

        with place.connect():
            place.call(end)
            _until(lambda: place.call(lambda: len(place.door)) == 0)


# --- TLS ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def context(certificate: Path) -> ssl.SSLContext:
    from edgewright.serve import Access
    from edgewright.serve.http.running import tls_of

    made = tls_of(Access(tls_cert=certificate / "cert.pem", tls_key=certificate / "key.pem"))
    assert made is not None
    return made


def secured(place: Place, certificate: Path, **settings: Any) -> ssl.SSLSocket:
    client = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    client.set_alpn_protocols(["h2", "http/1.1"])
    for name, value in settings.items():
        setattr(client, name, value)
    return client.wrap_socket(place.connect(), server_hostname="localhost")


def test_over_tls_all_is_the_same(context: ssl.SSLContext, certificate: Path) -> None:
    body = random.Random(0).randbytes(3 * 2**20)
    with served(echo, tls=context) as place:
        with secured(place, certificate) as connection:
            assert (connection.version(), connection.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
            for data in (post("/at-once", b"a"), post("/parts", body), chunked("/x", CHUNKS), BYE):
                connection.sendall(data)
            answers = told(rest_of(connection))
            assert [path for _, path, _ in answers] == ["/at-once", "/parts", "/x", "/bye"]
            assert answers[1][2] == body
        with secured(place, certificate) as connection:
            connection.sendall(REFUSED["a bare LF"])
            assert [status for status, *_ in told(rest_of(connection))] == [400]
        with pytest.raises(ssl.SSLError):
            secured(place, certificate, maximum_version=ssl.TLSVersion.TLSv1_2)
        with place.connect(BYE) as connection:  # in the clear
            assert b"HTTP" not in _whatever(connection)


def test_who_does_not_say_goodbye_over_tls_is_not_waited_for_long(context: ssl.SSLContext, certificate: Path) -> None:
    with served(echo, tls=context) as place, secured(place, certificate) as connection:
        connection.sendall(BYE)
        assert told(rest_of(connection)) == [(200, "/bye", b"")]
        _until(lambda: place.call(lambda: len(place.door)) == 0)


def test_a_handshake_that_never_comes_ends_in_time(context: ssl.SSLContext) -> None:
    with served(echo, tls=context, keep_alive_s=0.5) as place, place.connect() as connection:
        begun = time.monotonic()
        assert _whatever(connection) == b""
        assert time.monotonic() - begun < 10
        until = time.monotonic() + 10
        while place.call(lambda: len(place.door)) and time.monotonic() < until:
            time.sleep(0.02)
        assert place.call(lambda: len(place.door)) == 0


def test_the_time_of_a_handshake_is_not_that_of_a_request(context: ssl.SSLContext, certificate: Path) -> None:
    with served(echo, tls=context, keep_alive_s=0.8) as place, place.connect() as plain:
        time.sleep(0.6)
        begun = time.monotonic()
        with ssl.create_default_context(cafile=str(certificate / "cert.pem")).wrap_socket(
            plain, server_hostname="localhost"
        ) as connection:
            assert _whatever(connection) == b""
        assert time.monotonic() - begun > 0.75


def test_the_end_does_not_wait_for_handshakes(context: ssl.SSLContext) -> None:
    with served(echo, tls=context) as place:
        connection = place.connect()
        time.sleep(0.2)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    connection.close()


def _whatever(connection: socket.socket) -> bytes:
    try:
        return rest_of(connection)
    except ConnectionResetError:
        return b""
