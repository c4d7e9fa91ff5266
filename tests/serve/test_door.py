"""The door over real sockets: how many connections come in, how they end, and TLS."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools", reason="needs the extra `serve`")

from tests.serve.sockets import (
    BYE,
    TEXT,
    Place,
    answers_in,
    chunked,
    echo,
    post,
    rest_of,
    served,
    told,
    until,
)
from tests.serve.test_heads import CHUNKS, REFUSED

from edgewright.serve.http import connection as connections
from edgewright.serve.http import door as doors

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
        until(lambda: place.call(lambda: len(place.door)) == 1)
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
        until(lambda: place.door.closing)
        time.sleep(0.1)  # in which idle ones end
        assert place.call(lambda: len(place.door)) == 1


def _turns(place: Place, work: Any) -> None:
    """Do something with the one connection, within one turn of the event loop."""
    until(lambda: place.call(lambda: len(place.door)) == 1)
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
            until(lambda: place.call(lambda: len(place.door)) == 0)


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
        until(lambda: place.call(lambda: len(place.door)) == 0)


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
