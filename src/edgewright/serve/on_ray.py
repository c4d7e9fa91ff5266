"""The same core as a Ray Serve application: replicas placed and scaled by Ray, requests answered by our own application.

Source: docs.ray.io, Ray Serve: `serve.deployment`, autoscaling; "Ray token authentication"; HAProxy as the ingress.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.errors import EdgewrightError
from edgewright.serve.core.log import Log, lines, silent
from edgewright.serve.core.options import ModelOptions

EXTRA: str | None = "ray"
#: Ray's own answer to ShadowRay, and its fast ways; whoever has set them otherwise keeps that.
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class Placement:
    """Where replicas run, and how many.

    Attributes:
        replicas: At least.
        most: At most; more come where each has over half of `requests` under way.
        cpus: That each needs.
        gpus: That each needs.
        requests: That each may have at one time; Ray holds back the others.
    """

    replicas: int = 1
    most: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    requests: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.replicas <= self.most <= 10_000:
            raise EdgewrightError("E103", f"`replicas` is {self.replicas}, but must be 1 to `most`, {self.most}")
        for name, least, limit in (("cpus", 0.0, 1024), ("gpus", 0.0, 64), ("requests", 1, 100_000)):
            if not least <= getattr(self, name) <= limit:
                raise EdgewrightError("E103", f"`{name}` is {getattr(self, name)}, but must be {least:g} to {limit}")


class Replica:
    """One replica: a server over the folders, which every node must have at the same place."""

    def __init__(
        self, folders: Sequence[str], options: ModelOptions, token: str | None, allow_hooks: bool, quiet: bool
    ) -> None:
        from edgewright.serve.core.server import Server
        from edgewright.serve.http.application import Application
        from edgewright.serve.http.guard import Guard

        log = silent if quiet else lines(as_json=True)
        self._server = Server([Path(folder) for folder in folders], options, allow_hooks=allow_hooks, log=log)
        self._server.start()
        self._guard = Guard(Application(self._server, log=log), tokens=(token,) if token else (), log=log)

    async def __call__(self, request: Any) -> Any:
        """Answer a request of Starlette's, through the application that answers over HTTP."""
        from starlette.responses import Response

        exchange = _Exchange(request)
        answering = asyncio.ensure_future(self._guard(exchange, exchange))
        try:
            await asyncio.shield(answering)
        except asyncio.CancelledError:
            exchange.gone.set()  # takes the request out of its queue
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(answering, 5)
            raise
        return Response(exchange.body, exchange.status, dict(exchange.sent))

    def check_health(self) -> None:
        """Tell Ray that this replica answers, or raise."""
        if not self._server.ready:
            raise RuntimeError("the server is not ready")

    def __del__(self) -> None:
        server = getattr(self, "_server", None)
        if server is not None:
            server.drain(30)


class _Exchange:
    """A request of Starlette's as the application takes it: scope and transport in one."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self.method: str = request.method
        self.path: str = request.scope["path"]
        self.query_string: str = request.scope.get("query_string", b"").decode("latin-1")
        self.headers = request.headers
        self.client = request.client.host if request.client else ""
        self.gone = asyncio.Event()
        self.status, self.body = 500, b""
        self.sent: list[tuple[str, str]] = []

    async def __call__(self) -> bytes:
        body: bytes = await self._request.body()
        return body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._request.stream():
            yield part

    async def client_disconnect(self) -> None:
        await self.gone.wait()

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.sent, self.body = status, headers, body


def application(
    folders: Sequence[str | Path],
    options: ModelOptions | None = None,
    placement: Placement | None = None,
    *,
    token: str | None = None,
    allow_hooks: bool = False,
    quiet: bool = False,
) -> Any:
    """The application for `ray.serve.run`, or for a deployment file.

    Args:
        folders: As `serve` takes them, at the same place on every node.
        options: How models are served.
        placement: How many replicas, and what each needs.
        token: Asked of every request but health checks.
        allow_hooks: Whether code that lies in bundles may run.
        quiet: Whether replicas write no log.

    Raises:
        EdgewrightError: E102 without the extra `ray`.
    """
    _require()
    from ray import serve

    placement = placement or Placement()
    scaling: dict[str, Any] = {"num_replicas": placement.replicas}
    if placement.most > placement.replicas:
        scaling = {
            "autoscaling_config": {
                "min_replicas": placement.replicas,
                "max_replicas": placement.most,
                "target_ongoing_requests": max(1, placement.requests // 2),
            }
        }
    deployment = serve.deployment(
        name="edgewright",
        ray_actor_options={"num_cpus": placement.cpus, "num_gpus": placement.gpus},
        max_ongoing_requests=placement.requests,
        health_check_period_s=5,
        graceful_shutdown_timeout_s=30,
        **scaling,
    )(Replica)
    places = [str(Path(folder).resolve()) for folder in folders]
    return deployment.bind(places, options or ModelOptions(), token, allow_hooks, quiet)


def run(
    bound: Any, *, address: str | None = None, http: int = 8000, host: str = "127.0.0.1", log: Log = silent
) -> None:
    """Serve an application until SIGTERM or Ctrl-C, in a cluster or in a Ray of this machine alone.

    Args:
        bound: What `application` gave.
        address: Of a cluster that runs; None starts a Ray here, which ends with this call.
        http: Port.
        host: Address that Ray's proxy listens at.
        log: Told of what happens.

    Raises:
        EdgewrightError: E102 without the extra `ray`, E104 where the cluster cannot be reached.
    """
    _require()
    import ray
    from ray import serve

    try:
        ray.init(address=address or "local", include_dashboard=False, log_to_driver=True, namespace="edgewright")
    except (ConnectionError, RuntimeError, ValueError) as problem:
        raise EdgewrightError("E104", f"Ray at `{address}` cannot be reached: {problem}") from None
    try:
        serve.start(http_options={"host": host, "port": http})
        serve.run(bound, name="edgewright", route_prefix="/")
        asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):  # Ray has set its own when it began
            signal.signal(number, lambda *_: asked.set())
        log("listening", address=f"http://{host}:{http}", docs=f"http://{host}:{http}/docs")
        asked.wait()
        log("draining")
    finally:
        if address is None:
            serve.shutdown()
            ray.shutdown()
        else:
            serve.delete("edgewright")
    log("stopped")


def _require() -> None:
    """Set what Ray reads when it is imported.

    Raises:
        EdgewrightError: E102.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray.serve  # noqa: F401
    except ImportError:
        raise EdgewrightError(
            "E102", "`serve ray` needs Ray Serve, which is not installed", hint='pip install "edgewright[ray]"'
        ) from None
