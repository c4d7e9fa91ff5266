"""The HTTP server itself: on uvloop's event loop, in the thread that calls."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import ssl
from collections.abc import Callable

from edgewright.errors import EdgewrightError
from edgewright.serve.access import Access
from edgewright.serve.core.log import Log
from edgewright.serve.http.application import Application
from edgewright.serve.http.door import CONNECTIONS, Door
from edgewright.serve.http.guard import Guard


def check_port(host: str, port: int, option: str) -> None:
    """Refuse an address that cannot be listened at, before anything else is done.

    Raises:
        EdgewrightError: E103.
    """
    _bound(host, port, option).close()


def _bound(host: str, port: int, option: str) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
        except BaseException:
            bound.close()
            raise
    except OSError as problem:
        raise EdgewrightError(
            "E103",
            f"{host}:{port} cannot be listened at: {problem.strerror}",
            hint=f"choose another --host or {option}",
        ) from None
    return bound


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
        keep_alive_s: Seconds that a connection may take to send its next request's headers, and to agree on TLS.
        stop: Called on a thread once no more should be accepted; returns when what was accepted is done.
        log: Told of start and end.
        drain_s: Seconds that answers may still take to be sent.

    Raises:
        EdgewrightError: E103 where the address cannot be listened at.
    """
    import uvloop

    with _bound(host, port, "--http") as listening:
        uvloop.run(_serve(application, listening, access, keep_alive_s, stop, log, drain_s, f"{host}:{port}"))


async def _serve(
    application: Application | Guard,
    listening: socket.socket,
    access: Access,
    keep_alive_s: float,
    stop: Callable[[], None],
    log: Log,
    drain_s: float,
    place: str,
) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    door = Door(application, listening, keep_alive_s=keep_alive_s, tls=tls_of(access), log=log)
    # what is here by now stays: looking through all of it for garbage again and again would hold up requests
    gc.collect()
    gc.freeze()
    listening.setblocking(False)
    listening.listen(CONNECTIONS)
    door.open()
    address = f"{'https' if access.tls_cert else 'http'}://{place}"
    log("listening", address=address, docs=f"{address}/docs")
    await asked.wait()
    log("draining", active=application.active)
    door.closing = True
    await asyncio.to_thread(stop)
    until = loop.time() + drain_s
    while application.active and loop.time() < until:
        await asyncio.sleep(0.01)
    await door.close(until)
    log("stopped")


def tls_of(access: Access) -> ssl.SSLContext | None:
    """How TLS is spoken: version 1.3 alone; None without a certificate."""
    if access.tls_cert is None or access.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(access.tls_cert, access.tls_key, password="")
    context.set_alpn_protocols(["http/1.1"])
    return context
