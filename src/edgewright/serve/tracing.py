"""Traces: which request a line or a span belongs to (W3C Trace Context), and spans through OpenTelemetry where it is installed.

Source: w3.org, "Trace Context", 3.2 `traceparent`; opentelemetry.io, semantic conventions for HTTP and gRPC server spans.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from edgewright.errors import EdgewrightError

EXTRA: str | None = "trace"
#: Of gRPC: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS. Source: as above.
_SERVER_ERRORS = (2, 4, 12, 13, 14, 15)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class Timed(Protocol):
    """What a request that was run tells of itself; `Ticket` is one."""

    @property
    def queued_at(self) -> float:
        """Clock time (`time.monotonic`) of its arrival."""

    @property
    def started_at(self) -> float:
        """When it left the queue; 0.0 where it never did."""


#: Requests to models that the present request over HTTP or gRPC led to; None where nobody asks.
RUNS: ContextVar[list[Timed] | None] = ContextVar("runs", default=None)


def trace_id(traceparent: str | None) -> str | None:
    """The trace that a header `traceparent` names, 32 hexadecimal digits; None where it names none."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return match[1] if match else None


class Tracer:
    """Spans for requests, by OpenTelemetry's interface alone: exporters are whatever the program has set up."""

    def __init__(self, provider: Any = None) -> None:
        """Spans that go to `provider`, by default the program's own.

        Raises:
            EdgewrightError: E102 where OpenTelemetry is not installed.
        """
        try:
            from opentelemetry import trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise _not_installed() from None
        self._trace = trace
        self._tracer = trace.get_tracer("edgewright.serve", tracer_provider=provider)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, method: str, path: str, headers: Mapping[str, str]) -> Iterator[Any]:
        """A span for one request, a child of the caller's where it names one; give what it yields to `finish`."""
        about = {"http.request.method": method, "url.path": path[:200], "http.route": route(path)}
        with self._span(f"{method} {route(path)}", headers, about) as span:
            yield span

    @contextmanager
    def call(self, method: str, headers: Mapping[str, str]) -> Iterator[Any]:
        """The same for a call of gRPC, `/package.Service/Method`; give what it yields to `finish_call`."""
        service, _, name = method.strip("/")[:200].rpartition("/")
        about = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        with self._span(f"{service}/{name}", headers, about) as span:
            yield span

    def _span(self, name: str, headers: Mapping[str, str], about: Mapping[str, str]) -> Any:
        return self._tracer.start_as_current_span(
            name,
            context=self._propagator.extract(headers),
            kind=self._trace.SpanKind.SERVER,
            attributes=about,
            record_exception=False,
            set_status_on_exception=False,  # a refusal of gRPC is an exception
        )

    def finish(self, span: Any, status: int, runs: list[Timed]) -> None:
        """Say how a request ended, and add spans for its time in the queue and its run."""
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)
        self._stages(runs)

    def finish_call(self, span: Any, code: int, runs: list[Timed]) -> None:
        """The same for a call of gRPC, by the number of its status."""
        span.set_attribute("rpc.grpc.status_code", code)
        if code in _SERVER_ERRORS:
            span.set_status(self._trace.StatusCode.ERROR)
        self._stages(runs)

    def _stages(self, runs: list[Timed]) -> None:
        now, epoch = time.monotonic(), time.time_ns()

        def at(clock_s: float) -> int:
            return epoch - round((now - clock_s) * 1e9)

        for run in runs:
            begun = run.started_at or now
            self._tracer.start_span("queue", start_time=at(run.queued_at)).end(at(begun))
            if run.started_at:
                self._tracer.start_span("run", start_time=at(begun)).end(epoch)


def otlp() -> Any:
    """A provider that sends spans by OTLP over HTTP, set up by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT).

    Raises:
        EdgewrightError: E102 without the extra `trace`.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise _not_installed() from None
    named = Resource({SERVICE_NAME: "edgewright"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def route(path: str) -> str:
    """A path without names, so that spans of one kind count as one: `/v2/models/{model}/infer`."""
    parts = path.strip("/").split("/")
    if parts[:2] == ["v2", "models"] and len(parts) > 2:
        parts[2] = "{model}"
        if parts[3:4] == ["versions"] and len(parts) > 4:
            parts[4] = "{version}"
    elif parts[:3] == ["v2", "repository", "models"] and len(parts) > 3:
        parts[3] = "{model}"
    return "/" + "/".join(part[:40] for part in parts[:6])


def _not_installed() -> EdgewrightError:
    return EdgewrightError(
        "E102", "traces need OpenTelemetry, which is not installed", hint='pip install "edgewright[trace]"'
    )
