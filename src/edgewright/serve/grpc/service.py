"""The calls of the protocol and what each does. A call takes the bytes of a message and returns those of another."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Iterator
from typing import Any

from edgewright.errors import EdgewrightError
from edgewright.serve.core.jobs import Reason, RefusalError
from edgewright.serve.core.log import Log
from edgewright.serve.core.server import Server, Ticket
from edgewright.serve.grpc import messages, schema, wire
from edgewright.serve.grpc.arrivals import Arrivals
from edgewright.serve.protocol import documents
from edgewright.serve.protocol.limits import Bodies, Limits
from edgewright.serve.protocol.writing import check_wanted
from edgewright.serve.tracing import RUNS

#: Names of grpc.StatusCode by reason.
_CODES: dict[Reason, str] = {
    "invalid": "INVALID_ARGUMENT",
    "unknown": "NOT_FOUND",
    "full": "RESOURCE_EXHAUSTED",
    "late": "DEADLINE_EXCEEDED",
    "cancelled": "CANCELLED",
    "unavailable": "UNAVAILABLE",
    "failed": "INTERNAL",
}
#: Streams that are open at one time; each keeps a thread.
MOST_STREAMS = 64
_LOOK_S = 0.5  # between looks at the state for those who watch it


class CallError(Exception):
    """A refusal by a status of gRPC's own."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Service:
    """What gRPC's threads call. Nothing that a client sends raises anything but its own call's error."""

    def __init__(
        self, server: Server, limits: Limits, bodies: Bodies, arrivals: Arrivals, *, token: str | None, log: Log
    ) -> None:
        self._server = server
        self._limits = limits
        self._bodies = bodies
        self._arrivals = arrivals
        self._reader = wire.Reader(limits)
        self._token = token
        self._log = log
        self._streams = threading.Semaphore(MOST_STREAMS)

    def handlers(self) -> list[Any]:
        """Handlers for `grpc.Server.add_generic_rpc_handlers`."""
        import grpc

        found = []
        for name in ("inference", "health"):
            protocol = schema.load(name)
            # all as if they took streams, which is the same on the wire: the message is asked for here, and bounded
            calls = {
                call: grpc.stream_stream_rpc_method_handler(self._stream(call, method))
                if method.gives_stream
                else grpc.stream_unary_rpc_method_handler(self._unary(call, method))
                for call, method in protocol.methods.items()
            }
            found.append(grpc.method_handlers_generic_handler(protocol.service, calls))
        return found

    def _unary(self, call: str, method: schema.Method) -> Callable[[Iterator[bytes], Any], bytes]:
        work = self._infer if call == "ModelInfer" else self._filling(call, method)

        def answer(requests: Iterator[bytes], context: Any) -> bytes:
            data = self._arrivals.first(requests, context)
            try:
                self._take(data)
                try:
                    return work(data, context)
                finally:
                    self._bodies.give(len(data))
            except (RefusalError, CallError) as problem:
                refused = problem
            except Exception as problem:  # a mistake of ours; the client learns no more than that
                self._log("error", call=call, problem=repr(problem))
                refused = CallError("INTERNAL", "the server failed")
            _abort(context, refused)
            raise AssertionError("abort raises")

        return answer

    def _stream(self, call: str, method: schema.Method) -> Callable[[Any, Any], Iterator[bytes]]:
        work: Callable[[Iterator[bytes], schema.Method, Any], Iterator[bytes]] = getattr(self, _named(call))

        def answers(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            if not self._streams.acquire(blocking=False):
                _abort(context, RefusalError("full", f"over capacity: {MOST_STREAMS} streams are open, the limit"))
            try:
                yield from work(requests, method, context)
                return
            except (RefusalError, CallError) as problem:
                refused = problem
            finally:
                self._streams.release()
            _abort(context, refused)

        return answers

    def _filling(self, call: str, method: schema.Method) -> Callable[[bytes, Any], bytes]:
        """A call that is read from a message and fills another."""
        work: Callable[[Any, Any, Any], Any] = getattr(self, _named(call))

        def answer(data: bytes, context: Any) -> bytes:
            content: bytes = work(messages.parse(method, data), method.response(), context).SerializeToString()
            return content

        return answer

    def _take(self, data: bytes) -> None:
        """Count a message among all that are held; whoever does has to give it back."""
        if len(data) > self._limits.body_bytes:  # a compressed message is larger than what came
            raise CallError("RESOURCE_EXHAUSTED", f"a message may have {self._limits.body_bytes} bytes")
        self._bodies.take(len(data))

    def _server_live(self, request: Any, response: Any, context: Any) -> Any:
        response.live = True
        return response

    def _server_ready(self, request: Any, response: Any, context: Any) -> Any:
        response.ready = self._server.ready
        return response

    def _server_metadata(self, request: Any, response: Any, context: Any) -> Any:
        return _filled(response, documents.server_metadata())

    def _model_ready(self, request: Any, response: Any, context: Any) -> Any:
        self._server.repository.get(request.name, messages.version_of(request.version))
        response.ready = self._server.ready
        return response

    def _model_metadata(self, request: Any, response: Any, context: Any) -> Any:
        repository = self._server.repository
        version = repository.get(request.name, messages.version_of(request.version))
        numbers = [other.number for other in repository.versions(request.name)]
        return _filled(response, documents.model_metadata(version, numbers))

    def _model_config(self, request: Any, response: Any, context: Any) -> Any:
        version = self._server.repository.get(request.name, messages.version_of(request.version))
        return _filled(response, {"config": documents.model_config(version)})

    def _model_statistics(self, request: Any, response: Any, context: Any) -> Any:
        repository, number = self._server.repository, messages.version_of(request.version)
        if not request.name:
            return _filled(response, documents.statistics(repository.versions()))
        found = repository.get(request.name, number)
        versions = [found] if number is not None else repository.versions(request.name)
        return _filled(response, documents.statistics(versions or [found]))

    def _infer(self, data: bytes, context: Any) -> bytes:
        return self._answer(self._reader.read(data), context)

    def _answer(self, request: wire.Asked, context: Any) -> bytes:
        name, number, asked, form = request
        version = self._server.repository.get(name, number)
        # a short run happens on this thread; all others are submitted, since they may be watched and ended
        if form is not None and asked.timeout_s is None and RUNS.get() is None and context.time_remaining() != 0.0:
            if asked.wanted:
                check_wanted(asked, version)
            outputs = version.run_now(asked.inputs, form, blocking=True)
            if outputs is not None:
                return wire.write(asked, version, outputs)
        version.check_room()
        if asked.wanted:
            check_wanted(asked, version)
        left_s = context.time_remaining()
        times = [seconds for seconds in (asked.timeout_s, left_s) if seconds is not None]
        runs = RUNS.get()

        def watch(ticket: Ticket) -> None:
            if runs is not None:
                runs.append(ticket)
            if ticket.waits and not context.add_callback(ticket.cancel):
                ticket.cancel()  # the call is over already

        used = self._server.run(
            name,
            asked.inputs,
            version=number,
            priority=asked.priority,
            timeout_s=min(times, default=None),
            parameters=asked.parameters,
            watch=watch,
        )
        if used.version is not version:  # replaced meanwhile
            check_wanted(asked, used.version)
        return wire.write(asked, used.version, used.outputs)

    def _model_stream_infer(self, requests: Iterator[bytes], method: schema.Method, context: Any) -> Iterator[bytes]:
        """Requests one after the other; an error is an answer like others, and the stream goes on."""
        for data in requests:
            id = ""
            try:
                self._take(data)
                try:
                    asked = self._reader.read(data)
                    id = asked.request.id
                    answer = wire.in_stream(self._answer(asked, context))
                finally:
                    self._bodies.give(len(data))
            except RefusalError as problem:
                answer = wire.error_in_stream(problem, id)
            yield answer

    def _repository_index(self, request: Any, response: Any, context: Any) -> Any:
        index = documents.repository_index(self._server.repository.index(), ready_only=request.ready)
        return _filled(response, {"models": index})

    def _repository_model_load(self, request: Any, response: Any, context: Any) -> Any:
        return self._change(self._server.repository.load, request, response, context)

    def _repository_model_unload(self, request: Any, response: Any, context: Any) -> Any:
        return self._change(self._server.repository.unload, request, response, context)

    def _change(self, work: Callable[[str], None], request: Any, response: Any, context: Any) -> Any:
        self._authorize(context)
        unknown = set(request.parameters) - {"unload_dependents"}
        if unknown:
            raise RefusalError(
                "invalid", f"parameter `{min(unknown)[:100]}`: files and settings come from the folders only"
            )
        try:
            work(request.model_name)
        except EdgewrightError as problem:
            raise RefusalError("invalid", problem.message) from None
        return response

    def _authorize(self, context: Any) -> None:
        if self._token is None:
            raise CallError(
                "PERMISSION_DENIED", "loading and unloading are off; `edgewright serve --admin-token FILE` allows them"
            )
        given = dict(context.invocation_metadata()).get("authorization", "")
        if not hmac.compare_digest(str(given).encode("utf-8", "replace"), f"Bearer {self._token}".encode()):
            raise CallError("UNAUTHENTICATED", "the token is missing or wrong")

    def _check(self, request: Any, response: Any, context: Any) -> Any:
        """Health of the server (""), of the service by its name, or of a model by its own."""
        if request.service not in ("", schema.load("inference").service):
            self._server.repository.get(request.service)
        response.status = 1 if self._server.ready else 2
        return response

    def _watch(self, requests: Iterator[bytes], method: schema.Method, context: Any) -> Iterator[bytes]:
        """The health now, and again whenever it has changed."""
        request = messages.parse(method, self._arrivals.first(requests, context))
        last, over = None, threading.Event()
        if not context.add_callback(over.set):
            return
        while not over.is_set():
            try:
                now = self._check(request, method.response(), context)
            except RefusalError:
                now = method.response(status=3)
            if now != last:
                yield now.SerializeToString()
            last = now
            over.wait(_LOOK_S)


def _abort(context: Any, problem: RefusalError | CallError) -> None:
    """End the call with an error; raises what gRPC needs to see."""
    import grpc

    if isinstance(problem, CallError):
        code = problem.code
    else:
        code = _CODES[problem.reason]
    if isinstance(problem, RefusalError) and problem.retry_after_s is not None:
        context.set_trailing_metadata((("retry-after", str(problem.retry_after_s)),))
    context.abort(getattr(grpc.StatusCode, code), problem.message)


def _filled(message: Any, document: Any) -> Any:
    """A message from a document in the protocol's JSON; what only the JSON form has is left out."""
    from google.protobuf import json_format

    return json_format.ParseDict(document, message, ignore_unknown_fields=True)


def _named(call: str) -> str:
    """`ModelInfer` is done by `_model_infer`."""
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in call)
