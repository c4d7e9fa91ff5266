"""serve: bundles behind the Open Inference Protocol, by a core that knows no transport, with HTTP and gRPC over it.

    ew.serve(["out/"], http=8000)                          # until SIGTERM or Ctrl-C
    server = ew.Server(["out/"]); server.start()           # without a transport

`core` queues, batches, reloads and counts; `protocol` turns bytes into requests and back; `http` and `grpc` carry them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgewright.errors import EdgewrightError
from edgewright.serve.access import Access
from edgewright.serve.core.log import Log, silent
from edgewright.serve.core.options import ModelOptions
from edgewright.serve.core.server import Server
from edgewright.serve.protocol.limits import MIB, Bodies, Limits
from edgewright.serve.tracing import Tracer, otlp

if TYPE_CHECKING:
    from edgewright.serve.http.application import Application
    from edgewright.serve.http.guard import Guard

__all__ = ["EXTRA", "Access", "ModelOptions", "Server", "serve"]

EXTRA: str | None = "serve"
#: Host names that only this machine reaches.
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    folders: Sequence[str | Path],
    options: ModelOptions | None = None,
    *,
    http: int = 8000,
    grpc: int | None = None,
    host: str = "127.0.0.1",
    watch_s: float | None = None,
    admin_token: str | None = None,
    allow_hooks: bool = False,
    access: Access | None = None,
    log_requests: bool = False,
    trace: bool = False,
    max_body_mib: int = 64,
    keep_alive_s: float = 10.0,
    drain_s: float = 30.0,
    log: Log = silent,
) -> None:
    """Serve bundles until SIGTERM or Ctrl-C, then finish what was accepted.

    Args:
        folders: Bundles, or folders of them (`core/places.py` says how they may lie).
        options: How models are served, where a folder's `serve.toml` says nothing else.
        http: Port.
        grpc: Port of the same over gRPC; None is without.
        host: Address to listen at; by default only this machine reaches it.
        watch_s: Seconds between looks at the folders, to reload what has changed; None looks once.
        admin_token: Whoever sends it may load and unload models; None lets nobody.
        allow_hooks: Whether code that lies in bundles (`processor.py`) may run.
        access: Who may use the server, and TLS.
        log_requests: Whether each request is a line of the log.
        trace: Send spans by OpenTelemetry, as its variables (OTEL_EXPORTER_OTLP_ENDPOINT) say.
        max_body_mib: Largest body of a request in MiB.
        keep_alive_s: Seconds after which a connection over HTTP is closed that sends no request, or only part of its headers.
        drain_s: Seconds that accepted requests may take to finish.
        log: Told of what happens.

    Raises:
        EdgewrightError: E102 without an extra, E103 for an address, E104, E220 or E221 for the certificate or bundles.
    """
    from edgewright import registry

    registry.require(sys.modules[__name__], "`serve`")
    from edgewright.serve.http.running import run

    limits, access = _limits(max_body_mib), access or Access()
    _check_doors(host, {"--http": http, "--grpc": grpc}, access, log)
    provider = otlp() if trace else None
    doors = _Doors(limits, Bodies(limits), access, admin_token, log, log_requests, Tracer(provider) if trace else None)
    server = Server(
        folders, options, watch_s=watch_s, reloads=admin_token is not None, allow_hooks=allow_hooks, log=log
    )
    server.start()
    over_http = partial(run, doors.over_http(server), host=host, port=http, access=access, keep_alive_s=keep_alive_s)
    stop = _once(lambda: _end(server, drain_s, provider, log))
    try:
        with doors.over_grpc(server, host, grpc, drain_s) if grpc else nullcontext():
            over_http(stop=stop, log=log, drain_s=drain_s)
    finally:
        stop()


def _end(server: Server, drain_s: float, provider: Any, log: Log) -> None:
    log("drained", finished=server.drain(drain_s))
    if provider is not None:
        provider.shutdown()  # sends the spans that are left


class _Doors(NamedTuple):
    """What HTTP and gRPC have in common."""

    limits: Limits
    bodies: Bodies
    access: Access
    admin_token: str | None
    log: Log
    log_requests: bool
    tracer: Tracer | None

    def over_http(self, server: Server) -> Application | Guard:
        """What answers over HTTP, behind a guard where one is asked for."""
        from edgewright.serve.http.application import Application
        from edgewright.serve.http.guard import Guard

        application = Application(server, self.limits, bodies=self.bodies, token=self.admin_token, log=self.log)
        if not (self.access.token or self.log_requests or self.tracer):
            return application
        tokens = self.access.tokens(self.admin_token)
        return Guard(application, tokens=tokens, log=self.log, log_requests=self.log_requests, tracer=self.tracer)

    def over_grpc(self, server: Server, host: str, port: int, drain_s: float) -> AbstractContextManager[int]:
        """The server over gRPC, within a `with`."""
        from edgewright.serve.grpc.running import running  # grpcio takes a while to import

        return running(
            server,
            self.limits,
            host=host,
            port=port,
            token=self.admin_token,
            access=self.access,
            bodies=self.bodies,
            log=self.log,
            log_requests=self.log_requests,
            tracer=self.tracer,
            drain_s=drain_s,
        )


def _check_doors(host: str, ports: Mapping[str, int | None], access: Access, log: Log) -> None:
    """Refuse what cannot be listened at, and say who reaches it."""
    from edgewright.serve.http.running import check_port

    for option, port in ports.items():
        if port is not None:
            check_port(host, port, option)
    access.check_tls()
    if host in _LOOPBACK:
        return
    if access.token is None:
        log("open", host=host, reason="whoever reaches this address may use the models")
    elif access.tls_cert is None:
        log("plain", host=host, reason="tokens and tensors go over the network as they are: no TLS")


def _limits(max_body_mib: int) -> Limits:
    if not 1 <= max_body_mib <= 2**14:
        raise EdgewrightError("E103", f"`max_body_mib` is {max_body_mib}, but must be 1 to {2**14}")
    largest = max_body_mib * MIB
    return Limits(body_bytes=largest, bodies_bytes=max(8 * largest, Limits.bodies_bytes))


def _once(work: Callable[[], None]) -> Callable[[], None]:
    """`work`, done at the first call only."""
    done = False

    def call() -> None:
        nonlocal done
        if not done:
            done = True
            work()

    return call
