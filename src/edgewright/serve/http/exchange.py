"""One HTTP request and its answer: bodies within limits, compression both ways, errors as JSON."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from edgewright.serve.core.jobs import Reason, RefusalError
from edgewright.serve.protocol.limits import Bodies, Limits
from edgewright.serve.protocol.writing import encode

#: Status by reason. 499 is nginx's code for a client that went away; nobody reads it but the log.
STATUS: dict[Reason, int] = {
    "invalid": 400,
    "unknown": 404,
    "full": 429,
    "late": 504,
    "cancelled": 499,
    "unavailable": 503,
    "failed": 500,
}
#: Answers below this size are sent as they are: compressing them saves nothing.
COMPRESS_FROM = 1024
#: Bodies up to this size are read in one piece, which is quicker than in parts.
WHOLE_BYTES = 2**20
_WBITS = {"gzip": 31, "deflate": 15}


class Headers(Protocol):
    """A request's headers, names in lower case."""

    def get(self, name: str) -> str | None:
        """One of them."""


class Scope(Protocol):
    """What stands before a request's body."""

    method: str
    path: str
    query_string: str

    @property
    def headers(self) -> Headers:
        """Nobody changes them."""


class Transport(Protocol):
    """How its body comes and its answer goes."""

    def __call__(self) -> Awaitable[bytes]:
        """The whole body; reading begins with the call."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body in parts."""

    async def client_disconnect(self) -> None:
        """Return once the client has gone."""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer."""


class HttpError(Exception):
    """An answer that is an error of HTTP's own."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Response(NamedTuple):
    """What is sent back; the first header is its content-type."""

    body: bytes
    status: int
    headers: list[tuple[str, str]]


def respond(body: bytes, kind: str, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    """An answer of the content-type `kind`."""
    return Response(body, status, [("content-type", kind), *headers.items()])


def json_response(document: Any, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    """A document as JSON."""
    return respond(encode(document), "application/json", status, headers)


def binary_response(content: bytes, length: int | None) -> Response:
    """Tensors, after `length` bytes of JSON; None where all is JSON."""
    if length is None:
        return respond(content, "application/json")
    return respond(content, "application/octet-stream", headers={"inference-header-content-length": str(length)})


def error_response(problem: RefusalError | HttpError) -> Response:
    """An error in the protocol's form, `{"error": "..."}`."""
    if isinstance(problem, HttpError):
        return json_response({"error": problem.message}, problem.status, problem.headers)
    headers = {} if problem.retry_after_s is None else {"retry-after": str(problem.retry_after_s)}
    return json_response({"error": problem.message}, STATUS[problem.reason], headers)


def last_response(response: Response) -> Response:
    """The same as the last one of its connection."""
    if any(name == "connection" for name, _ in response.headers):
        return response
    return response._replace(headers=[*response.headers, ("connection", "close")])


class Room:
    """What one request has taken of the memory for bodies.

    Attributes:
        taken: Bytes.
        begun: Whether the body is being read, or was.
        ended: Whether all of it was.
    """

    __slots__ = ("_bodies", "begun", "ended", "taken")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.taken = 0
        self.begun = self.ended = False

    def give_back(self) -> None:
        """Give back all of it."""
        if self.taken:
            self._bodies.give(self.taken)

    def take(self, size: int) -> None:
        """Take `size` bytes more.

        Raises:
            RefusalError: "full" beyond the limit of all bodies.
        """
        self._bodies.take(size)
        self.taken += size


class Patience:
    """Ends the waiting for bodies that do not come.

    One timer looks after all of them: a timer for each would take as long as all else that a small request needs.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._since: dict[asyncio.Task[Any], float] = {}
        self._ended: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None  # that of the timer; None while there is none

    async def wait(self, body: Awaitable[bytes]) -> bytes:
        """The body.

        Raises:
            TimeoutError: It took longer than the limit.
        """
        task = asyncio.current_task()
        assert task is not None
        if self._loop is None or self._loop is not task.get_loop():
            self._loop = task.get_loop()
            self._loop.call_later(self.pause_s, self._look)
        self._since[task] = time.monotonic()
        try:
            return await body
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            raise TimeoutError from None
        finally:
            del self._since[task]
            if self._ended:
                self._ended.discard(task)

    @property
    def pause_s(self) -> float:
        """Seconds between looks at what is late."""
        return min(1.0, self.limit_s / 2)

    def _look(self) -> None:
        assert self._loop is not None
        now = time.monotonic()
        for task, since in self._since.items():
            if now - since > self.limit_s and task not in self._ended:
                self._ended.add(task)
                task.cancel()
        if self._since:
            self._loop.call_later(self.pause_s, self._look)
        else:
            self._loop = None


async def read_body(headers: Headers, transport: Transport, room: Room, patience: Patience, limits: Limits) -> bytes:
    """The request's body, decompressed.

    Raises:
        HttpError: 400, 408, 413 or 415 for one that is malformed, slow, large or compressed in an unknown way.
        RefusalError: As `Room.take`.
    """
    encoding = headers.get("content-encoding")
    if encoding is not None:
        encoding = encoding.strip().lower()
        if encoding not in ("identity", *_WBITS):
            raise HttpError(415, f"content-encoding {encoding[:40]!r} is not known; known: gzip, deflate")
    size = announced_size(headers, limits)
    whole = size is not None and size <= WHOLE_BYTES
    if whole:
        room.take(size or 0)
    room.begun = True
    try:
        # a small one in one piece, which is quicker
        body = await patience.wait(transport() if whole else _in_parts(transport, room, limits)) if size != 0 else b""
    except TimeoutError:
        raise HttpError(408, f"the body did not come within {limits.body_s:g} s", connection="close") from None
    except RuntimeError as problem:  # it ends early, or is no chunked one
        raise HttpError(400, f"the body cannot be read to its end: {problem or 'it is cut short'}") from None
    room.ended = True
    if encoding is None or encoding == "identity":
        return body
    return await asyncio.to_thread(_expanded, body, encoding, room, limits)


def announced_size(headers: Headers, limits: Limits) -> int | None:
    """The body's size in the header, if there is one.

    Raises:
        HttpError: 400 or 413.
    """
    announced = headers.get("content-length")
    if announced is None:
        return None
    if not (announced.isascii() and announced.isdecimal() and len(announced) < 20):
        raise HttpError(400, f"content-length {announced[:40]!r} is no number")
    if int(announced) > limits.body_bytes:
        raise _too_large(limits)
    return int(announced)


async def _in_parts(transport: Transport, room: Room, limits: Limits) -> bytes:
    parts: list[bytes] = []
    total = 0
    async for part in transport:  # room is taken for what has come, not for what was announced
        total += len(part)
        if total > limits.body_bytes:
            raise _too_large(limits)
        room.take(len(part))
        parts.append(bytes(part))
    return b"".join(parts)


def _too_large(limits: Limits, how: str = "") -> HttpError:
    return HttpError(413, f"the body has more than the limit of {limits.body_bytes} bytes{how}", connection="close")


def _expanded(body: bytes, encoding: str, room: Room, limits: Limits) -> bytes:
    """A compressed body in full: never more of it in memory than one body may have."""
    inflater = zlib.decompressobj(_WBITS[encoding])
    try:
        content = inflater.decompress(body, limits.body_bytes + 1)
    except zlib.error as problem:
        raise HttpError(400, f"the {encoding} body is damaged: {problem}") from None
    if len(content) > limits.body_bytes:
        raise _too_large(limits, " once it is expanded")
    if not inflater.eof or inflater.unused_data:
        raise HttpError(400, f"the {encoding} body is cut short, or something follows it")
    room.take(len(content))
    return content


def header_length(headers: Headers) -> int | None:
    """The length of the JSON before binary tensors; None where the body is all JSON.

    Raises:
        HttpError: 400 where the header is no number.
    """
    text = headers.get("inference-header-content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise HttpError(400, f"inference-header-content-length {text[:40]!r} is no number")
    return int(text)


def compression(scope: Scope, response: Response) -> str | None:
    """How an answer is compressed; None where the client takes that not, or it would save nothing."""
    if len(response.body) < COMPRESS_FROM or response.headers[0][1] == "image/png":
        return None
    for item in (scope.headers.get("accept-encoding") or "").lower().split(","):
        name, _, weight = item.strip().partition(";")
        if name in _WBITS and weight.replace(" ", "") not in ("q=0", "q=0.0"):
            return name
    return None


async def send(scope: Scope, transport: Transport, response: Response) -> None:
    """Send an answer, compressed where the client takes that."""
    body, status, headers = response
    if encoding := compression(scope, response):
        body = await asyncio.to_thread(_compressed, body, encoding)
        headers = [*headers, ("content-encoding", encoding), ("vary", "accept-encoding")]
    transport.response_bytes(status, headers, b"" if scope.method == "HEAD" else body)


def _compressed(body: bytes, encoding: str) -> bytes:
    deflater = zlib.compressobj(1, wbits=_WBITS[encoding])
    return deflater.compress(body) + deflater.flush()
