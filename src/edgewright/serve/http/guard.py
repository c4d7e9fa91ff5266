"""What stands before the application where an operator asks for it: a token, a log line for each request, spans."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import nullcontext
from typing import Any

from edgewright.serve.access import OPEN_PATHS, may_pass
from edgewright.serve.core.log import Log, silent
from edgewright.serve.http.application import Application
from edgewright.serve.http.exchange import HttpError, Response, Scope, Transport, error_response, send
from edgewright.serve.http.heads import Head
from edgewright.serve.tracing import RUNS, Timed, Tracer, trace_id


class Guard:
    """An application behind a guard: what connections hand their requests to."""

    def __init__(
        self,
        application: Application,
        *,
        tokens: tuple[str, ...] = (),
        log: Log = silent,
        log_requests: bool = False,
        tracer: Tracer | None = None,
    ) -> None:
        """A guard before `application`.

        Args:
            application: What answers.
            tokens: One of them is asked of every request but health checks; nothing is asked where there are none.
            log: Told of requests.
            log_requests: Whether it is.
            tracer: Makes a span of each request.
        """
        self._application = application
        self._tokens = tokens
        self._log = log if log_requests else silent
        self._tracer = tracer

    @property
    def active(self) -> int:
        """Requests that are being answered."""
        return self._application.active

    def at_once(self, head: Head, body: bytes) -> Response | None:
        """As `Application.at_once`; a request that is told of, or refused, goes the usual way."""
        if self._tracer or self._log is not silent or not self._passes(head):
            return None
        return self._application.at_once(head, body)

    async def __call__(self, scope: Scope, transport: Transport) -> None:
        """Answer one request, or refuse it."""
        begun = time.monotonic()
        seen = _Seen(transport)
        runs: list[Timed] = []
        if self._tracer:
            RUNS.set(runs)
        parent = scope.headers.get("traceparent")
        headers = {"traceparent": parent} if parent else {}
        span_of = self._tracer.request(scope.method, scope.path, headers) if self._tracer else nullcontext()
        with span_of as span:
            if self._passes(scope):
                await self._application(scope, seen)
            else:
                refusal = HttpError(401, "the token is missing or wrong", www_authenticate="Bearer")
                await send(scope, seen, error_response(refusal))
            if self._tracer:
                self._tracer.finish(span, seen.status, runs)
        fields: dict[str, Any] = {} if trace_id(parent) is None else {"trace": trace_id(parent)}
        self._log(
            "request",
            method=scope.method,
            path=scope.path[:200],
            status=seen.status,
            seconds=time.monotonic() - begun,
            bytes=seen.size,
            client=getattr(scope, "client", ""),
            **fields,
        )

    def _passes(self, scope: Scope) -> bool:
        if not self._tokens or scope.path in OPEN_PATHS:
            return True
        return may_pass(scope.headers.get("authorization") or "", self._tokens)


class _Seen:
    """A transport that notes what was answered."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.status = 0  # 0: the client went away
        self.size = 0

    def __call__(self) -> Awaitable[bytes]:
        return self._transport()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._transport.__aiter__()

    async def client_disconnect(self) -> None:
        await self._transport.client_disconnect()

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.size = status, len(body)
        self._transport.response_bytes(status, headers, body)
