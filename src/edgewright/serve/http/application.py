"""The paths of the server, and what each does."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from edgewright.errors import EdgewrightError
from edgewright.model import Arrays
from edgewright.serve.core.jobs import RefusalError, Result
from edgewright.serve.core.log import Log, silent
from edgewright.serve.core.metrics import exposition
from edgewright.serve.core.server import Server, Ticket
from edgewright.serve.http import pages, quick
from edgewright.serve.http.arrival import Arrival
from edgewright.serve.http.discarding import Discards
from edgewright.serve.http.exchange import (
    WHOLE_BYTES,
    HttpError,
    Patience,
    Response,
    Room,
    Scope,
    Transport,
    binary_response,
    error_response,
    header_length,
    json_response,
    last_response,
    read_body,
    respond,
    send,
)
from edgewright.serve.http.heads import Head
from edgewright.serve.http.paths import to_infer, version_of
from edgewright.serve.protocol import documents
from edgewright.serve.protocol.forms import Forms
from edgewright.serve.protocol.limits import Bodies, Limits
from edgewright.serve.protocol.reading import decode
from edgewright.serve.protocol.writing import check_wanted, write_response
from edgewright.serve.tracing import RUNS

T = TypeVar("T")
#: JSON of this size and more is read and written on another thread: it would hold up everybody else.
_LARGE_BYTES = 2**18
#: Characters of paths that are remembered.
_LONGEST_PATH = 512
#: Photos that may wait for a thread.
_MOST_PHOTOS = 64
_NOT_OFFERED = ("systemsharedmemory", "cudasharedmemory", "trace", "logging")


class _LoadBody(msgspec.Struct):
    parameters: dict[str, bool | int | float | str | None] | None = None


class _IndexBody(msgspec.Struct):
    ready: bool = False


class Application:
    """The server over HTTP: what connections hand their requests to."""

    def __init__(
        self,
        server: Server,
        limits: Limits | None = None,
        *,
        bodies: Bodies | None = None,
        token: str | None = None,
        log: Log = silent,
    ) -> None:
        """An application over `server`; with a `token`, whoever sends it may load and unload models.

        What is held of bodies is counted in `bodies`, which other transports may share.
        """
        self._answering = 0
        self._server = server
        self._limits = limits or Limits()
        self._token = token
        self._log = log
        self._forms = Forms(self._limits)
        self._bodies = bodies or Bodies(self._limits)
        self._patience = Patience(self._limits.body_s)
        self._discards = Discards(self._bodies, self._patience, self._limits)
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="photos")
        self._photos = 0

    @property
    def active(self) -> int:
        """Requests that are being answered, or whose bodies are still coming in."""
        return self._answering + len(self._discards)

    def at_once(self, head: Head, body: bytes) -> Response | None:
        """The answer to a request that is here as a whole, if it goes the short way; None where it has to be awaited.

        What a head says is found out once for all requests that begin with it.
        """
        asked = head.notes
        if asked is None:
            asked = head.notes = self._short(head)
        if not asked or not self._server.ready:
            return None
        name, number, json_length = asked
        try:
            return quick.answer(self._server.repository.get(name, number), self._forms, body, json_length)
        except RefusalError as problem:
            return error_response(problem)
        except Exception as problem:
            return self._failed(head, problem)

    def _short(self, head: Head) -> tuple[str, int | None, int] | tuple[()]:
        """Model, version and length of the JSON of a request that may go the short way; nothing for all others."""
        model = to_infer(head.path) if len(head.path) <= _LONGEST_PATH and head.method == "POST" else None
        plain = head.headers.get("content-encoding", "identity").strip().lower() == "identity"
        if model is None or not plain or head.length is None or head.length > min(WHOLE_BYTES, self._limits.body_bytes):
            return ()
        with suppress(HttpError):
            json_length = header_length(head.headers)
            return () if json_length is None else (*model, json_length)
        return ()

    def _failed(self, scope: Scope, problem: Exception) -> Response:
        """The answer to a mistake of ours; the client learns no more than that."""
        self._log("error", path=scope.path, problem=repr(problem))
        return error_response(HttpError(500, "the server failed"))

    async def __call__(self, scope: Scope, transport: Transport) -> None:
        """Answer one request. Nothing a client sends raises beyond here."""
        self._answering += 1
        room = Room(self._bodies)
        try:
            try:
                path = scope.path
                model = to_infer(path) if len(path) <= _LONGEST_PATH and scope.method == "POST" else None
                if model is not None:
                    response = await self._infer(scope, transport, room, *model)
                else:
                    response = await self._answer(scope, transport, room)
            except (RefusalError, HttpError) as problem:
                response = error_response(problem)
                if not await self._discards.discard(scope.headers, transport, room):
                    response = last_response(response)
            except Exception as problem:
                response = self._failed(scope, problem)
            await send(scope, transport, response)
        finally:
            room.give_back()
            self._answering -= 1

    async def _answer(self, scope: Scope, transport: Transport, room: Room) -> Response:
        path = scope.path.strip("/").split("/")  # decoded already
        if path[0] == "v2":
            if len(path) >= 4 and path[1] == "models":
                return await self._model(scope, transport, room, path[2:])
            return await self._general(scope, transport, room, path[1:])
        match path:
            case ["metrics"]:
                _only(scope, "GET")
                return respond(self._metrics().encode(), "text/plain; version=0.0.4; charset=utf-8")
            case [""] | ["docs"]:
                _only(scope, "GET")
                names = [version.name for version in self._server.repository.versions()]
                return respond(pages.page(names).encode(), "text/html; charset=utf-8", headers=pages.POLICY)
            case ["openapi.json"]:
                _only(scope, "GET")
                return json_response(pages.openapi())
        raise HttpError(404, f"there is nothing at {scope.path[:200]!r}; /docs lists what there is")

    async def _general(self, scope: Scope, transport: Transport, room: Room, path: list[str]) -> Response:
        """Everything of the protocol that is about no single model, and models' metadata."""
        repository = self._server.repository
        match path:
            case []:
                _only(scope, "GET")
                return json_response(documents.server_metadata())
            case ["health", "live"]:
                _only(scope, "GET")
                return json_response({"live": True})
            case ["health", "ready"]:
                _only(scope, "GET")
                ready = self._server.ready
                return json_response({"ready": ready}, 200 if ready else 503)
            case ["models", "stats"]:
                _only(scope, "GET")
                return json_response(documents.statistics(repository.versions()))
            case ["models", name]:
                _only(scope, "GET")
                return self._metadata(name, None)
            case ["repository", "index"]:
                _only(scope, "POST")
                body = await self._body(scope, transport, room)
                ready = decode(msgspec.json.Decoder(_IndexBody), body).ready if body.strip() else False
                return json_response(documents.repository_index(repository.index(), ready_only=ready))
            case ["repository", "models", name, "load" | "unload" as verb]:
                _only(scope, "POST")
                self._authorize(scope)
                return await self._change(scope, transport, room, name, verb)
        if path and path[0] in _NOT_OFFERED:
            raise HttpError(400, f"this server does not offer {path[0]}")
        raise HttpError(404, f"there is nothing at {scope.path[:200]!r}; /docs lists what there is")

    async def _model(self, scope: Scope, transport: Transport, room: Room, path: list[str]) -> Response:
        """`NAME[/versions/N][/VERB]`."""
        name, number, rest = version_of(path)
        match rest:
            case ["infer"]:
                _only(scope, "POST")
                return await self._infer(scope, transport, room, name, number)
            case ["predict"]:
                _only(scope, "POST")
                return await self._predict(scope, transport, room, name, number)
            case []:
                _only(scope, "GET")
                return self._metadata(name, number)
            case ["ready"]:
                _only(scope, "GET")
                self._server.repository.get(name, number)
                ready = self._server.ready
                return json_response({"name": name, "ready": ready}, 200 if ready else 503)
            case ["config"]:
                _only(scope, "GET")
                return json_response(documents.model_config(self._server.repository.get(name, number)))
            case ["stats"]:
                _only(scope, "GET")
                found = self._server.repository.get(name, number)
                versions = [found] if number is not None else self._server.repository.versions(name)
                return json_response(documents.statistics(versions or [found]))
        raise HttpError(404, f"there is nothing at {scope.path[:200]!r}; /docs lists what there is")

    def _metadata(self, name: str, number: int | None) -> Response:
        version = self._server.repository.get(name, number)
        numbers = [other.number for other in self._server.repository.versions(name)]
        return json_response(documents.model_metadata(version, numbers))

    async def _infer(self, scope: Scope, transport: Transport, room: Room, name: str, number: int | None) -> Response:
        version = self._server.repository.get(name, number)
        version.check_room()  # before the body, which may be large and slow
        headers = scope.headers
        json_length = header_length(headers)
        body = await read_body(headers, transport, room, self._patience, self._limits)
        version.check_room()  # and before anything is made of it
        if json_length is not None and self._server.ready and RUNS.get() is None:
            response = quick.answer(version, self._forms, body, json_length)
            if response is not None:
                return response
        large = (len(body) if json_length is None else json_length) >= _LARGE_BYTES
        request = (
            await asyncio.to_thread(self._forms.read, body, json_length)
            if large
            else self._forms.read(body, json_length)
        )
        if request.wanted:
            check_wanted(request, version)
        ticket, outputs = await self._run(
            transport, name, number, request.inputs, request.priority, request.timeout_s, request.parameters
        )
        if ticket.version is not version:  # replaced meanwhile
            check_wanted(request, ticket.version)
        values = sum(
            [array.size for output, array in outputs.items() if not request.wanted.get(output, request.binary)]
        )
        length, content = (
            await asyncio.to_thread(write_response, request, ticket.version, outputs)
            if values * 4 >= _LARGE_BYTES
            else write_response(request, ticket.version, outputs)
        )
        return binary_response(content, length)

    async def _predict(self, scope: Scope, transport: Transport, room: Room, name: str, number: int | None) -> Response:
        # reading photos takes a while to import, and servers may never need it
        from edgewright.serve.http import photos

        self._server.repository.get(name, number)
        content = await self._body(scope, transport, room)
        while True:
            version = self._server.repository.get(name, number)
            version.check_room()
            photo = await self._on_pool(photos.prepare, version, content, self._limits)
            ticket, outputs = await self._run(transport, name, number, photo.inputs, 0, None)
            if ticket.version.bundle.spec == version.bundle.spec:
                break  # else it was replaced meanwhile by one that wants its photos otherwise
        result = await self._on_pool(photos.interpret, ticket.version, outputs, photo)
        if "image/png" in (scope.headers.get("accept") or ""):
            picture = await self._on_pool(photos.drawn, ticket.version, result, photo)
            return respond(picture, "image/png")
        return json_response(
            {
                "model_name": ticket.version.name,
                "model_version": str(ticket.version.number),
                "task": ticket.version.bundle.spec.task,
                "result": result.to_json(),
            }
        )

    async def _body(self, scope: Scope, transport: Transport, room: Room) -> bytes:
        return await read_body(scope.headers, transport, room, self._patience, self._limits)

    async def _run(
        self,
        transport: Transport,
        name: str,
        number: int | None,
        inputs: Arrays,
        priority: int,
        timeout_s: float | None,
        parameters: Mapping[str, Any] = MappingProxyType({}),
    ) -> tuple[Ticket, Any]:
        """Outputs of a run, awaited; a client that goes away, or whose time is up, takes its request out of the queue."""
        arrival = Arrival()
        ticket = self._server.submit(
            name, inputs, arrival, version=number, priority=priority, timeout_s=timeout_s, parameters=parameters
        )
        if (runs := RUNS.get()) is not None:
            runs.append(ticket)
        if arrival.answer is None:
            loop = asyncio.get_running_loop()
            timer = None if timeout_s is None else loop.call_later(timeout_s, ticket.expire)
            gone = loop.create_task(_cancel_when_gone(transport, ticket)) if ticket.waits else None
            try:
                await arrival.wait(loop)
            finally:
                if timer:
                    timer.cancel()
                if gone:
                    gone.cancel()
        answer = arrival.answer
        if isinstance(answer, Result):
            return ticket, answer.outputs
        assert answer is not None
        raise answer

    async def _on_pool(self, function: Callable[..., T], *arguments: Any) -> T:
        if self._photos >= _MOST_PHOTOS:
            raise RefusalError("full", f"over capacity: {self._photos} photos wait already, the limit", retry_after_s=1)
        self._photos += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        finally:
            self._photos -= 1

    async def _change(self, scope: Scope, transport: Transport, room: Room, name: str, verb: str) -> Response:
        body = await self._body(scope, transport, room)
        parameters = (decode(msgspec.json.Decoder(_LoadBody), body).parameters if body.strip() else None) or {}
        if set(parameters) - {"unload_dependents"}:
            raise HttpError(
                400, f"parameter `{next(iter(parameters))[:100]}`: files and settings come from the folders only"
            )
        repository = self._server.repository
        work: Callable[[str], None] = repository.load if verb == "load" else repository.unload
        try:
            await asyncio.to_thread(work, name)
        except EdgewrightError as problem:
            raise HttpError(400, problem.message) from None
        return json_response({})

    def _authorize(self, scope: Scope) -> None:
        if self._token is None:
            raise HttpError(403, "loading and unloading are off; `edgewright serve --admin-token FILE` allows them")
        given = scope.headers.get("authorization") or ""
        expected = f"Bearer {self._token}"
        if not hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode()):
            raise HttpError(401, "the token is missing or wrong", www_authenticate="Bearer")

    def _metrics(self) -> str:
        figures = {"ready": int(self._server.ready), "active_requests": self.active, "body_bytes": self._bodies.held}
        return exposition(self._server.repository.versions(), figures)


async def _cancel_when_gone(transport: Transport, ticket: Ticket) -> None:
    await transport.client_disconnect()
    ticket.cancel()


def _only(scope: Scope, method: str) -> None:
    allowed = ("GET", "HEAD") if method == "GET" else (method,)
    if scope.method not in allowed:
        raise HttpError(405, f"{scope.path[:200]!r} takes {method}, not {scope.method[:20]}", allow=", ".join(allowed))
