"""A log line and a span for each call, where an operator asks for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from edgewright.serve.core.log import Log
from edgewright.serve.tracing import RUNS, Timed, Tracer, trace_id


def watch(log: Log | None, tracer: Tracer | None) -> list[Any]:
    """Interceptors for `grpc.server`, to stand before all others: refused calls are told as well.

    Args:
        log: Told of calls; None tells nobody.
        tracer: Makes a span of each; None makes none.
    """
    import grpc

    if log is None and tracer is None:
        return []
    watching = _Watching(log, tracer)

    class Watch(grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            handler = continuation(details)
            parent = dict(details.invocation_metadata).get("traceparent")
            if handler is None:
                watching.tell(details.method, "UNIMPLEMENTED", 0.0, 0, "", parent)
                return None
            if handler.response_streaming:
                return grpc.stream_stream_rpc_method_handler(
                    watching.stream(handler.stream_stream, details.method, parent)
                )
            return grpc.stream_unary_rpc_method_handler(watching.unary(handler.stream_unary, details.method, parent))

    return [Watch()]


class _Call:
    """What is known of a call that is answered: bytes so far, and requests to models that it led to."""

    def __init__(self) -> None:
        self.size = 0
        self.runs: list[Timed] = []


class _Watching:
    def __init__(self, log: Log | None, tracer: Tracer | None) -> None:
        self._log = log
        self._tracer = tracer

    def unary(self, work: Callable[[Any, Any], bytes], method: str, parent: str | None) -> Callable[[Any, Any], bytes]:
        def answer(requests: Any, context: Any) -> bytes:
            with self._seen(method, parent, context) as call:
                noted = RUNS.set(call.runs)
                try:
                    content = work(requests, context)
                finally:
                    RUNS.reset(noted)  # the thread has other calls to answer
                call.size = len(content)
                return content

        return answer

    def stream(
        self, work: Callable[[Any, Any], Iterator[bytes]], method: str, parent: str | None
    ) -> Callable[[Any, Any], Iterator[bytes]]:
        """One line and one span for all of a stream: it may go on for days, and its requests are not kept."""

        def answers(requests: Any, context: Any) -> Iterator[bytes]:
            with self._seen(method, parent, context) as call:
                for content in work(requests, context):
                    call.size += len(content)
                    yield content

        return answers

    @contextmanager
    def _seen(self, method: str, parent: str | None, context: Any) -> Iterator[_Call]:
        begun, call = time.monotonic(), _Call()
        headers = {"traceparent": parent} if parent else {}
        ended = "CANCELLED"  # by the client, where nothing else is said
        with self._tracer.call(method, headers) if self._tracer else nullcontext() as span:
            try:
                yield call
                ended = "OK"
            finally:
                code = context.code()
                ended = getattr(code, "name", ended)
                if self._tracer:
                    self._tracer.finish_call(span, getattr(code, "value", (0 if ended == "OK" else 1,))[0], call.runs)
                self.tell(method, ended, time.monotonic() - begun, call.size, context.peer(), parent)

    def tell(self, method: str, status: str, seconds: float, size: int, client: str, parent: str | None) -> None:
        if self._log is None:
            return
        trace = trace_id(parent)
        fields: dict[str, Any] = {} if trace is None else {"trace": trace}
        path = method[:200]
        self._log(
            "request", method="gRPC", path=path, status=status, seconds=seconds, bytes=size, client=client, **fields
        )
