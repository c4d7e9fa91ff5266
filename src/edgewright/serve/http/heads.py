"""The head of a request, read by llhttp (through httptools) and by nobody else; equal heads are read once.

Where a request ends is said by its head, so whatever two readers could understand in two ways (RFC 9112, sections 3, 5, 6
and 11.2) is refused: llhttp is strict by default, and what it lets pass all the same is looked at here.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from edgewright.serve.http.exchange import HttpError

#: Bytes of a head, and its lines.
HEAD_BYTES, HEAD_LINES = 65536, 100
#: Heads up to this size are remembered, so many of them at most.
_LONGEST_BYTES, _MOST_HEADS = 4096, 256
_LINE = re.compile(rb"[A-Z-]+ +[^ ]+ HTTP/[0-9]\.[0-9]\r\n")
_TARGET = re.compile(rb"(?:https?://[^/?#]+)?(/[^?#]*|)(?:\?([^#]*))?", re.IGNORECASE)
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


class Head:
    """What stands before a body. It is shared by all requests that begin with the same bytes: nobody changes it.

    Attributes:
        method: As it was sent.
        path: Decoded, without the query.
        query_string: As it was sent.
        headers: Names in lower case; those that come several times are joined by commas.
        length: Bytes of the body; None where it comes in chunks.
        keeps: Whether the client wants the connection to go on.
        old: Whether it speaks HTTP/1.0.
        expects: Whether it waits to be asked for the body.
        notes: What the application found out about such requests; None is nothing yet.
    """

    __slots__ = ("expects", "headers", "keeps", "length", "method", "notes", "old", "path", "query_string")

    def __init__(self, method: str, target: bytes, headers: dict[str, str], *, old: bool) -> None:
        """A head of these parts.

        Raises:
            HttpError: 400 for a target or a body that could be understood in two ways.
        """
        self.method, self.headers, self.old = method, headers, old
        self.path, self.query_string = _target(target)
        self.length = _length(headers, old)
        wishes = {wish.strip() for wish in headers.get("connection", "").lower().split(",")}
        self.keeps = "close" not in wishes and (not old or "keep-alive" in wishes)
        self.expects = not old and headers.get("expect", "").lower() == "100-continue"
        self.notes: Any = None


class Heads:
    """Reads heads, and knows the last ones: clients send the same before every body."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}
        self.find = self._known.get  # the head that these bytes are known to be, if any

    def read(self, data: bytes) -> Head:
        """The head in `data`, which ends with its empty line.

        Raises:
            HttpError: 400 or 431 with what is wrong.
        """
        head = _read(data)
        if len(data) <= _LONGEST_BYTES:
            if len(self._known) >= _MOST_HEADS:
                self._known.clear()
            self._known[data] = head
        return head


class _Seen:
    """What the parser sees."""

    __slots__ = ("ended", "headers", "hosts", "messages", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: dict[str, str] = {}
        self.messages, self.hosts, self.ended = 0, 0, False

    def on_message_begin(self) -> None:
        self.messages += 1

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")
        self.hosts += key == "host"
        before = self.headers.get(key)
        self.headers[key] = text if before is None else f"{before}, {text}"

    def on_headers_complete(self) -> None:
        self.ended = True


def _read(data: bytes) -> Head:
    if data.count(b"\n") > HEAD_LINES + 2:
        raise HttpError(431, f"the request has more than {HEAD_LINES} headers")
    seen = _Seen()
    parser = HttpRequestParser(seen)
    try:
        with suppress(HttpParserUpgrade):  # an offer, which nobody has to take
            parser.feed_data(data)
    except HttpParserError as problem:
        raise HttpError(400, f"the request is malformed: {problem}") from None
    version = parser.get_http_version()
    if version not in ("1.0", "1.1"):
        raise HttpError(400, "this server speaks HTTP/1.1 and 1.0")
    if seen.messages != 1 or not seen.ended or not _LINE.match(data):
        raise HttpError(400, "the request is malformed: its head is none of HTTP/1.1")
    if seen.hosts > 1 or not (seen.hosts or version == "1.0"):
        raise HttpError(400, f"the request has {seen.hosts} host headers; HTTP/1.1 wants one")
    return Head(parser.get_method().decode("ascii"), seen.target, seen.headers, old=version == "1.0")


def _target(target: bytes) -> tuple[str, str]:
    """Path and query."""
    found = _TARGET.fullmatch(target)
    if found is None or not target:
        raise HttpError(400, "the request's target is neither a path nor an address")
    path = _ESCAPE.sub(lambda escape: bytes([int(escape[1], 16)]), found[1] or b"/")
    return path.decode("utf-8", "replace"), (found[2] or b"").decode("latin-1")


def _length(headers: dict[str, str], old: bool) -> int | None:
    """Bytes of the body; None for chunks."""
    announced, encoding = headers.get("content-length"), headers.get("transfer-encoding")
    if encoding is not None:
        if announced is not None or old or encoding.lower() != "chunked":
            raise HttpError(
                400, f"transfer-encoding {encoding[:40]!r} is not taken; known: chunked, in HTTP/1.1, alone"
            )
        return None
    if announced is None:
        return 0
    if not (announced.isascii() and announced.isdecimal() and len(announced) < 20):
        raise HttpError(400, f"content-length {announced[:40]!r} is no number")
    return int(announced)
