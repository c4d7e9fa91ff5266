"""The HTTP server itself: granian inside this process, on the event loop of the thread that calls.

Why granian: it reads HTTP in Rust (hyper), which bounds headers and the time for them, and it writes an answer in one
piece, where uvicorn writes head and body apart and bounds neither.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable
from typing import Any

from edgewright.errors import EdgewrightError
from edgewright.serve.access import Access
from edgewright.serve.core.log import Log
from edgewright.serve.http.application import Application
from edgewright.serve.http.guard import Guard

#: Connections that are served at one time; more wait to be accepted.
_CONNECTIONS = 1024
_HEADER_BYTES = 65536


def check_port(host: str, port: int, option: str) -> None:
    """Refuse an address that cannot be listened at; granian itself would share a port that is taken.

    Raises:
        EdgewrightError: E103.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError as problem:
        raise EdgewrightError(
            "E103",
            f"{host}:{port} cannot be listened at: {problem.strerror}",
            hint=f"choose another --host or {option}",
        ) from None


def run(
    application: Application | Guard,
    *,
    host: str,
    port: int,
    access: Access,
    keep_alive_s: float,
    stop: Callable[[], None],
    log: Log,
    drain_s: float,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted.

    Args:
        application: What answers.
        host: Address to listen at.
        port: And port.
        access: With TLS or without.
        keep_alive_s: Seconds that a connection may take to send its next request's headers.
        stop: Called on a thread once no more should be accepted; returns when what was accepted is done.
        log: Told of start and end.
        drain_s: Seconds that answers may still take to be sent.
    """
    import uvloop

    uvloop.run(_serve(application, host, port, access, keep_alive_s, stop, log, drain_s))


async def _serve(
    application: Application | Guard,
    host: str,
    port: int,
    access: Access,
    keep_alive_s: float,
    stop: Callable[[], None],
    log: Log,
    drain_s: float,
) -> None:
    server = _granian(application, host, port, access, keep_alive_s)
    asked = asyncio.Event()
    # what is here by now stays: looking through all of it for garbage again and again would hold up requests
    gc.collect()
    gc.freeze()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    serving = loop.create_task(server.serve())
    waiting = loop.create_task(asked.wait())
    await _listens(host, port, serving, waiting)
    address = f"{'https' if access.tls_cert else 'http'}://{host}:{port}"
    log("listening", address=address, docs=f"{address}/docs")
    await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        log("draining", active=application.active)
        await asyncio.to_thread(stop)
        until = loop.time() + drain_s
        while application.active and loop.time() < until:
            await asyncio.sleep(0.01)
        server.stop()
    waiting.cancel()
    await serving
    log("stopped")


async def _listens(host: str, port: int, *ends: asyncio.Task[Any]) -> None:
    """Return once connections are accepted, which granian does not tell, or one of the `ends` has come."""
    while not any(end.done() for end in ends):
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.005)
        else:
            writer.close()
            return


def _granian(application: Application | Guard, host: str, port: int, access: Access, keep_alive_s: float) -> Any:
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    return Server(
        application,
        address=host,
        port=port,
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        # the one time limit that granian has: for the next request's headers, and so for being idle before them
        http1_settings=HTTP1Settings(header_read_timeout=round(keep_alive_s * 1000), max_buffer_size=_HEADER_BYTES),
        websockets=False,
        backlog=_CONNECTIONS,
        backpressure=_CONNECTIONS,
        log_enabled=False,
        ssl_cert=access.tls_cert,
        ssl_key=access.tls_key,
    )
