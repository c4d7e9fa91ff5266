"""A connection: bytes to requests, one at a time, and answers to bytes.

Why our own: heads are read by llhttp and equal ones once, and a request that is here as a whole and can be answered at once
is answered where its bytes came in, without a task and with one write. A general HTTP server takes two to three times the
processor time for a small request.
"""

from __future__ import annotations

import asyncio
import fcntl
import re
import struct
import termios
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgewright.serve.core.log import Log
from edgewright.serve.http.answers import CONTINUE, beginning
from edgewright.serve.http.application import Application
from edgewright.serve.http.exchange import (
    COMPRESS_FROM,
    HttpError,
    Response,
    compression,
    error_response,
    last_response,
    send,
)
from edgewright.serve.http.guard import Guard
from edgewright.serve.http.heads import HEAD_BYTES, Head, Heads
from edgewright.serve.http.request import Request

if TYPE_CHECKING:
    from edgewright.serve.http.door import Door

#: Answers up to this size are written in one piece with their heads, which costs a copy.
_COPIED_BYTES = 65536
#: Seconds in which a client has to take some of its answer.
STALLED_S = 30.0
#: Seconds that a client may go on sending after its last answer, which it would miss if we closed at once.
LINGERING_S = 2.0
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")
#: Of what could not be read.
_NO_HEAD = Head("GET", b"/", {}, old=False)
_FAILED = last_response(error_response(HttpError(500, "the server failed")))


class Connection(asyncio.Protocol):
    """One connection.

    Attributes:
        gone: Whether the client has closed its side, or all of it.
    """

    __slots__ = (
        "_application",
        "_at_once",
        "_clogged",
        "_door",
        "_due",
        "_ending",
        "_find",
        "_heads",
        "_held",
        "_log",
        "_paused",
        "_peer",
        "_request",
        "_since",
        "_task",
        "_transport",
        "_unsent",
        "gone",
    )

    def __init__(self, application: Application | Guard, heads: Heads, door: Door, log: Log) -> None:
        """A connection that is still to come.

        Args:
            application: What answers.
            heads: Reads heads.
            door: Where it came in; looks after its time.
            log: Told of mistakes of ours.
        """
        self._application, self._at_once = application, application.at_once
        self._heads, self._find = heads, heads.find
        self._door, self._log = door, log
        self._transport: Any = None
        self._peer: tuple[Any, ...] = ("", 0)
        self._request: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._held = b""  # of a head that has not come as a whole, or after the request that is being answered
        self._due = False  # whether what is held waits for its turn, or until the client has taken its answers
        self._since = door.now  # of the last answer, or of the end
        self._unsent = 0  # bytes of answers that the client had not taken at the last look
        self._clogged = self._paused = self._ending = self.gone = False

    # --- what the event loop calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport
        self._peer = transport.get_extra_info("peername") or ("", 0)
        self._since = self._door.now

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        request = self._request
        if request is None and not (self._due or self._ending):
            self._read(data)
        elif self._ending:
            pass  # nobody reads it any more
        elif request is not None and not request.complete:
            self._feed(request, data)
        else:
            self._held += data
            self.flow()

    def eof_received(self) -> bool:
        """The client has closed its side: whoever has sent too little is told so, if it still listens."""
        self.gone = True
        request = self._request
        if request is None or self._ending or self._transport.get_extra_info("sslcontext"):  # TLS knows no half
            self._ending = True
            if request is not None:
                request.leave()
            return False
        request.leave()
        if request.answered:
            self._end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """There is no connection any more."""
        self.gone = self._ending = True
        self._held = b""
        self._door.leave(self)
        request, self._request = self._request, None
        if request is not None:
            request.leave()

    def pause_writing(self) -> None:
        """The client takes its answers too slowly: it gets no more of them meanwhile."""
        self._clogged = True
        self._since = self._door.now

    def resume_writing(self) -> None:
        """It has taken them."""
        self._clogged = False
        self._since = self._door.now
        if self._due:
            self._door.soon(self._go_on)

    # --- what a request calls ---------------------------------------------------------------------------------------------

    @property
    def client(self) -> str:
        """Address and port of the client."""
        return f"{self._peer[0]}:{self._peer[1]}"

    def want_body(self, request: Request) -> None:
        """Ask the client for the body, if it waits to be asked."""
        if request.head.expects and not (request.received or request.answered or self._ending):
            self._transport.write(CONTINUE)
        self.flow()

    def answer(self, request: Request, response: Response) -> None:
        """Send a request's answer, and go on or end."""
        if self._ending:
            return
        if not self._write(request.head, response, request.complete or request.wanted):
            self._end()
        elif request.complete:
            self._finish()
        # else the body is still wanted: it goes on once it has come

    def give_up(self, request: Request) -> None:
        """Nobody will read the rest of a body: the connection cannot go on."""
        if request.answered and not self._ending:
            self._end()

    def flow(self) -> None:
        """Read on, or stop where more has come than is needed now."""
        request = self._request
        full = bool(self._held) if request is None or request.complete else request.full
        stop = full and not self._ending and (request is not None or self._due)
        if stop != self._paused and not self._transport.is_closing():
            self._paused = stop
            if stop:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # --- what the door calls ----------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """End what takes too long."""
        if self._transport is None or not (self._clogged or self._ending or self._request is None):
            return  # a request that is under way has bounds of its own
        unsent = self._waiting() if self._clogged or self._ending else 0
        if unsent:  # a client may take its answer slowly, but has to take some
            if unsent != self._unsent:
                self._unsent, self._since = unsent, now
            elif now - self._since > STALLED_S:
                self.abort()
        elif self._ending:
            if now - self._since > LINGERING_S:
                self._transport.close()
        elif now - self._since > self._door.idle_s:
            if self._held:
                self._refuse(HttpError(408, "the headers did not come in time"))
            else:
                self._close()

    def leave_idle(self) -> None:
        """End where no answer is under way; where one is, it is the last one anyway."""
        if self._transport is not None and self._request is None and not self._ending:
            self._close()

    def abort(self) -> None:
        """End, whatever is under way."""
        self._ending = True
        if self._transport is not None:
            self._transport.abort()

    # --- requests, one after the other ------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        """Read a request."""
        start = 0
        if self._held:
            start = max(0, len(self._held) - 3)
            data, self._held = self._held + data, b""
        end = data.find(b"\r\n\r\n", start) + 4
        if end < 4 or end > HEAD_BYTES:
            self._wait_for_head(data)
            return
        head = self._find(data[:end])
        if head is None:
            if empty := _EMPTY_LINES.match(data):  # before a request they mean nothing (RFC 9112, section 2.2)
                self._held = data[empty.end() :]
                self._take_turns()
                return
            try:
                head = self._heads.read(data[:end])
            except HttpError as problem:
                self._refuse(problem)
                return
        if head.length is None or len(data) - end < head.length:
            self._start(Request(self, head), data[end:])
            return
        start, end = end, end + head.length
        if len(data) > end:
            self._held = data[end:]
        body = data[start:end]
        response = self._at_once(head, body)
        if response is None:
            self._start(Request(self, head), body)
        elif len(response.body) >= COMPRESS_FROM and compression(head, response):
            request = Request(self, head)
            self._start(request, body, send(request, request, response))
        elif not self._write(head, response, True):
            self._end()
        else:  # as `_finish`, for the most frequent of all requests
            self._since = self._door.now
            if self._held or self._clogged:
                self._take_turns()

    def _wait_for_head(self, data: bytes) -> None:
        if len(data) < HEAD_BYTES:
            self._held = data
            return
        status = 431 if b"\r\n" in data[:HEAD_BYTES] else 414
        self._refuse(HttpError(status, f"the request's head has more than {HEAD_BYTES} bytes"))

    def _start(self, request: Request, data: bytes, answering: Coroutine[Any, Any, None] | None = None) -> None:
        """Answer a request with a task; `data` has come of its body."""
        self._request = request
        if data:
            self._feed(request, data)
        task = self._door.loop.create_task(answering or self._application(request, request))
        self._task = task
        task.add_done_callback(self._done)
        if self._held:
            self.flow()

    def _done(self, task: asyncio.Task[None]) -> None:
        problem = None if task.cancelled() else task.exception()
        if problem is not None:
            self._log("error", problem=repr(problem))
        if task is self._task:
            self._task = None
            if self._request is not None and not self._request.answered:
                self._request.response_bytes(_FAILED.status, _FAILED.headers, _FAILED.body)

    def _feed(self, request: Request, data: bytes) -> None:
        """Hand a request what has come of its body."""
        rest = request.feed(data)
        if rest:
            self._held += rest
        if request.answered and request.complete:
            self._finish()
        elif request.answered and not request.wanted:
            self._end()
        else:
            self.flow()

    def _finish(self) -> None:
        """Go on to the next request: the last one has its answer, and all of its body has come."""
        self._request = None
        self._since = self._door.now
        if self._held or self._clogged or self._paused:
            self._take_turns()

    def _take_turns(self) -> None:
        """Let others have theirs before what is held."""
        self._due = True
        self.flow()
        if not self._clogged:
            self._door.soon(self._go_on)

    def _go_on(self) -> None:
        if self._clogged or self._ending or not self._due:
            return
        self._due = False
        data, self._held = self._held, b""
        if data:
            self._read(data)
        self.flow()

    # --- answers, and the end ---------------------------------------------------------------------------------------------

    def _write(self, head: Head, response: Response, keeps: bool) -> bool:
        """Send an answer; whether the connection goes on, which it may not unless it `keeps`."""
        body = response.body
        try:
            top, closes = beginning(response.status, tuple(response.headers))
        except ValueError as problem:
            self._log("error", path=head.path, problem=str(problem))
            body = _FAILED.body
            top, closes = beginning(_FAILED.status, tuple(_FAILED.headers))
        door = self._door
        keeps = keeps and head.keeps and not (closes or self.gone or door.closing)
        if not keeps:
            last = b"connection: close\r\n"
        else:
            last = b"connection: keep-alive\r\n" if head.old else b""
        if head.method == "HEAD":
            self._transport.write(b"%b%b%b\r\n" % (top, door.date, last))
        elif len(body) <= _COPIED_BYTES:
            self._transport.write(b"%b%b%bcontent-length: %d\r\n\r\n%b" % (top, door.date, last, len(body), body))
        else:
            start = b"%b%b%bcontent-length: %d\r\n\r\n" % (top, door.date, last, len(body))
            self._transport.writelines([start, body])
        return keeps

    def _refuse(self, problem: HttpError) -> None:
        """Answer what could not be read as a request."""
        self._held = b""
        self._write(_NO_HEAD, error_response(problem), False)
        self._end(unread=True)

    def _end(self, unread: bool = False) -> None:
        """Close once the answer is sent, and the client has heard it."""
        unread = unread or bool(self._held) or (self._request is not None and not self._request.complete)
        self._held = b""
        if not unread or self.gone:
            self._close()
            return
        # a client that is still sending would lose its answer if we closed now (RFC 9112, section 9.6)
        self._ending = True
        self._since = self._door.now
        self.flow()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _waiting(self) -> int:
        """Bytes that the client has not taken; 0 where all of them are with the system."""
        unsent: int = self._transport.get_write_buffer_size()
        if unsent:
            with suppress(OSError, AttributeError):  # the system takes more only once much of what it has is gone
                place = self._transport.get_extra_info("socket").fileno()
                unsent += struct.unpack("i", fcntl.ioctl(place, termios.TIOCOUTQ, bytes(4)))[0]
        return unsent

    def _close(self) -> None:
        self._ending = True
        self._since = self._door.now
        self._transport.close()
