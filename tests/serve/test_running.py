"""The HTTP server's beginning and end: its address, signals, and what is under way when they come."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("httptools", reason="needs the extra `serve`")

from tests.serve.sockets import Answering, Place, Plain, answers_in, rest_of
from tests.serve.test_process import free_port

from edgewright.serve import Access
from edgewright.serve.http.running import check_port, run

TEXT = [("content-type", "text/plain")]


class Counting(Plain):
    """Counts what is under way, for 20 s at most."""

    def __init__(self, answering: Answering) -> None:
        super().__init__(answering)
        self._answering_now, self._until = 0, time.monotonic() + 20

    @property
    def active(self) -> int:
        return self._answering_now if time.monotonic() < self._until else 0

    async def __call__(self, scope: Any, transport: Any) -> None:
        self._answering_now += 1
        try:
            await super().__call__(scope, transport)
        finally:
            self._answering_now -= 1


def serving(
    answering: Answering,
    client: Callable[[Place], None],
    *,
    stop: Callable[[], None] = lambda: None,
    drain_s: float = 20.0,
) -> list[str]:
    """Serve while `client` runs on another thread, which sends the signal: the events that were logged."""
    place, failed = Place(), []
    place.port = free_port()

    def log(event: str, **fields: Any) -> None:
        place.log.append({"event": event, **fields})
        if event == "listening":
            thread.start()

    def ask() -> None:
        try:
            client(place)
        except BaseException as problem:
            failed.append(problem)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=ask)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        run(
            Counting(answering),  # type: ignore[arg-type]
            host="127.0.0.1",
            port=place.port,
            access=Access(),
            keep_alive_s=20.0,
            stop=stop,
            log=log,  # type: ignore[arg-type]
            drain_s=drain_s,
        )
    finally:
        gc.unfreeze()
        for number, handler in handlers.items():  # which uvloop leaves as they are
            signal.signal(number, handler)
    thread.join(30)
    assert not failed, failed
    return [line["event"] for line in place.log]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_a_signal_answers_are_the_last_ones_of_their_connections(number: signal.Signals) -> None:
    begun, stopping, go = threading.Event(), threading.Event(), threading.Event()

    async def answering(request: Any) -> Any:
        if request.path == "/held":
            begun.set()
            await asyncio.to_thread(go.wait)
        return 200, TEXT, b"done"

    def stop() -> None:
        stopping.set()
        go.wait(30)

    def client(place: Place) -> None:
        with place.connect() as idle, place.connect(b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n") as busy:
            try:
                assert begun.wait(20)
                os.kill(os.getpid(), number)
                assert stopping.wait(20)
                with place.connect(
                    b"GET /late HTTP/1.1\r\nhost: x\r\n\r\n"
                ) as late:  # for as long as the server has work
                    ((status, headers, _),) = answers_in(rest_of(late))
                assert (status, headers["connection"]) == (200, "close")
            finally:
                go.set()
            ((status, headers, body),) = answers_in(rest_of(busy))
            assert (status, headers["connection"], body) == (200, "close", b"done")
            assert rest_of(idle) == b""

    assert serving(answering, client, stop=stop) == ["listening", "draining", "stopped"]


def test_answers_have_their_time_once_the_work_is_done_and_no_more() -> None:
    begun, stopped, times = threading.Event(), threading.Event(), []

    async def answering(request: Any) -> Any:
        begun.set()
        await asyncio.to_thread(stopped.wait)
        if request.path == "/never":
            await asyncio.Event().wait()
        await asyncio.sleep(0.2)
        return 200, TEXT, b"done"

    def stop() -> None:
        time.sleep(2.1)  # longer than answers have
        stopped.set()
        times.append(time.monotonic())

    def client(place: Place) -> None:
        with (
            place.connect(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n") as never,
            place.connect(b"GET /soon HTTP/1.1\r\nhost: x\r\n\r\n") as soon,
        ):
            assert begun.wait(20)
            os.kill(os.getpid(), signal.SIGTERM)
            assert [status for status, *_ in answers_in(rest_of(soon))] == [200]
            assert rest_of(never) == b""

    assert serving(answering, client, stop=stop, drain_s=2.0)[-1] == "stopped"
    assert time.monotonic() - times[0] < 10


def test_an_address_can_be_listened_at_again_at_once() -> None:
    """Although the system still remembers a connection that the last server there has closed."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            listening.accept()[0].close()
            assert client.recv(1) == b""
    check_port("127.0.0.1", port, "--http")
