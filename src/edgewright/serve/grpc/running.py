"""The gRPC server itself: grpcio's synchronous one, which answers twice as fast as the one on asyncio."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from edgewright.errors import EdgewrightError
from edgewright.serve.access import Access
from edgewright.serve.core.log import Log
from edgewright.serve.core.server import Server
from edgewright.serve.grpc.arrivals import Arrivals
from edgewright.serve.grpc.guard import guard
from edgewright.serve.grpc.service import MOST_STREAMS, Service
from edgewright.serve.grpc.watching import watch
from edgewright.serve.protocol.limits import Bodies, Limits
from edgewright.serve.tracing import Tracer

#: Calls that are answered at one time, streams among them; more are refused at once.
_CALLS = 128 + MOST_STREAMS
#: Beside the tensors, what a message may have.
_EXTRA_BYTES = 2**16


@contextmanager
def running(
    server: Server,
    limits: Limits,
    *,
    host: str,
    port: int,
    token: str | None,
    access: Access | None = None,
    bodies: Bodies | None = None,
    log: Log,
    log_requests: bool = False,
    tracer: Tracer | None = None,
    drain_s: float = 30.0,
) -> Iterator[int]:
    """Serve over gRPC; at the end what was accepted is finished.

    Args:
        server: What answers.
        limits: On requests.
        host: Address to listen at.
        port: And port; 0 takes a free one.
        token: Whoever sends it may load and unload models; None lets nobody.
        access: Who may use the server, and TLS.
        bodies: Where what is held of messages is counted; HTTP may share it.
        log: Told of the start.
        log_requests: Whether each call is a line of it.
        tracer: Makes a span of each call.
        drain_s: Seconds that calls may still take at the end.

    Yields:
        The port.

    Raises:
        EdgewrightError: E103 for an address that cannot be listened at.
    """
    access = access or Access()
    arrivals = Arrivals(limits.body_s)
    service = Service(server, limits, bodies or Bodies(limits), arrivals, token=token, log=log)
    guards = [*watch(log if log_requests else None, tracer), *guard(access.tokens(token))]
    pool = ThreadPoolExecutor(_CALLS, thread_name_prefix="grpc")
    transport = _transport(pool, guards, service.handlers(), limits)
    try:
        bound = _listen(transport, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", access)
    except RuntimeError as problem:
        raise EdgewrightError(
            "E103", f"{host}:{port} cannot be listened at: {problem}", hint="choose another --host or --grpc"
        ) from None
    transport.start()
    log("listening", address=f"{'grpcs' if access.tls_cert else 'grpc'}://{host}:{bound}")
    try:
        with arrivals:
            yield bound
    finally:
        transport.stop(drain_s).wait()
        pool.shutdown(wait=False)


def _transport(pool: ThreadPoolExecutor, guards: list[Any], handlers: list[Any], limits: Limits) -> Any:
    import grpc

    options = [
        ("grpc.max_receive_message_length", limits.body_bytes + _EXTRA_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # a port that is taken is an error
    ]
    transport = grpc.server(pool, interceptors=guards, options=options, maximum_concurrent_rpcs=_CALLS)
    transport.add_generic_rpc_handlers(tuple(handlers))
    return transport


def _listen(transport: Any, address: str, access: Access) -> int:
    import grpc

    if access.tls_cert is None or access.tls_key is None:
        return int(transport.add_insecure_port(address))
    pair = access.tls_key.read_bytes(), access.tls_cert.read_bytes()
    return int(transport.add_secure_port(address, grpc.ssl_server_credentials([pair])))
