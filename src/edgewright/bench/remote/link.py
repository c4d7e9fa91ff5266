"""The connection to another machine: one ssh process, messages in, JSON lines out, and what its end means."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from edgewright.bench.remote import bootstrap
from edgewright.bench.remote.board import Board
from edgewright.errors import CODES, EdgewrightError

#: Runs the bootstrap from standard input; without anything that a login shell could take for its own.
_START = (
    'import sys; sys.version_info >= (3, 11) or sys.exit("python %d.%d is too old" % sys.version_info[:2]);'
    " exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
)
#: What ssh and the shell say -> what helps; `{login}` is the command line that logs in by hand.
_REACHING = (
    (r"host key verification failed|host identification has changed", "{login}, once by hand, to compare its host key"),
    (r"permission denied|too many authentication failures", "log in without a password first: {copy}"),
    (r"", "try by hand: {login}"),
)
_LOGIN_SECONDS = 60.0
_GREETING_LINES = 200
_GOODBYE_SECONDS = 20.0
_TAIL_LINES = 6
_LONGEST_LINE_BYTES = 64 * 2**20
#: The only folders that are ever removed: those that the bootstrap makes.
_OURS = re.compile(r"/[^\0\n]*edgewright-bench-[A-Za-z0-9_]+")


class Link:
    """A context manager: connects on entry; on exit the other machine has cleaned up, or was told to by a second login."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._folder = ""
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit
        try:
            # A session of its own: Ctrl-C is handled here, and then the other machine is told by the end of its input.
            self._process = subprocess.Popen(
                board.command(f"{shlex.quote(board.python)} -c {shlex.quote(_START)}"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                start_new_session=True,
            )
        except OSError as problem:
            self._log.close()
            raise EdgewrightError(
                "E410", f"`ssh` cannot be started: {problem.strerror}", hint="apt-get install openssh-client"
            ) from None

    def __enter__(self) -> Self:
        try:
            self._connect()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = self._ended()
        if code and _OURS.fullmatch(self._folder):
            self._remove()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()

    def send(self, message: dict[str, Any], content: bytes | None = None) -> None:
        """Send a message, with `content` after it.

        Raises:
            EdgewrightError: E411 or E412, as `receive`, where the other side has gone.
        """
        head = message if content is None else message | {"size": len(content)}
        self._write(json.dumps(head).encode() + b"\n")
        self._write(content or b"")

    def send_file(self, name: str, path: Path) -> None:
        """Send a file, piece by piece; it lies in the folder there under `name`.

        Raises:
            EdgewrightError: E104 for a file that cannot be read or changes meanwhile, and as `send`.
        """
        try:
            with path.open("rb") as stream:
                left = os.fstat(stream.fileno()).st_size
                self._write(json.dumps({"file": name, "size": left}).encode() + b"\n")
                while left:
                    piece = stream.read(min(left, bootstrap.PIECE_BYTES))
                    if not piece:
                        raise EdgewrightError("E104", f"file `{path}` became shorter while it was copied")
                    self._write(piece)
                    left -= len(piece)
        except OSError as problem:
            raise EdgewrightError("E104", f"file `{path}` cannot be read: {problem.strerror}") from None

    def receive(self) -> dict[str, Any]:
        """The next event.

        Raises:
            EdgewrightError: E411 for a system there that refuses something, E412 for a lost connection, and the error that
                the other machine reports.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline(_LONGEST_LINE_BYTES)
        try:
            event = json.loads(line) if line else None
        except ValueError:
            raise self.lost(f"it sent something else than results: {line[:80]!r}") from None
        if not isinstance(event, dict):
            raise self.lost("the connection ended")
        if "error" in event and "failed" not in event:
            raise self.error(event["error"])
        if "system" in event:
            full = event.get("number") in (errno.ENOSPC, errno.EDQUOT)
            hint = "make room there, or set TMPDIR there to a larger disk" if full else self._look
            raise EdgewrightError("E411", f"`{self.board}` cannot go on: {event['system']}", hint=hint)
        if "crash" in event:
            lines = tuple(str(event["crash"]).strip().splitlines()[-_TAIL_LINES:])
            raise EdgewrightError("E401", f"the benchmark on `{self.board}` failed", details=lines, hint=self._look)
        return event

    def error(self, found: dict[str, Any]) -> EdgewrightError:
        """An error that the other machine reports, with its own code."""
        assert found["code"] in CODES, found
        message = f"on `{self.board}`: {found['message']}"
        return EdgewrightError(found["code"], message, details=tuple(found["details"]), hint=found["hint"])

    def lost(self, why: str) -> EdgewrightError:
        """The error for a connection that is of no more use."""
        return EdgewrightError(
            "E412",
            f"the measurement on `{self.board}` was cut short: {why}",
            details=self._said(),
            hint=self._look,
        )

    @property
    def _look(self) -> str:
        return f"log in, and see how it does: {self.board.login}"

    def _write(self, content: bytes) -> None:
        try:
            self._input.write(content)
            self._input.flush()
        except OSError:
            while True:  # it may have said why
                self.receive()

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _connect(self) -> None:
        """Send the bootstrap and wait for its first words."""
        assert self._process.stdout is not None
        source = Path(bootstrap.__file__).read_bytes()
        patience = threading.Timer(_LOGIN_SECONDS, self._process.kill)
        patience.start()
        try:
            with contextlib.suppress(OSError):  # it did not start: the exit code tells why
                self._input.write(f"{len(source)}\n".encode() + source)
                self._input.flush()
            for _ in range(_GREETING_LINES):  # a login shell may print something first
                line = self._process.stdout.readline(_LONGEST_LINE_BYTES)
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    self._folder = str(json.loads(line)["folder"])
                if self._folder or not line:
                    break
        finally:
            patience.cancel()
        if not self._folder:
            raise self._unreached()

    def _ended(self) -> int:
        """ssh's exit code, after it was told that nothing more comes; it is killed where it stays."""
        with contextlib.suppress(OSError):
            self._input.close()
        try:
            return self._process.wait(_GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _unreached(self) -> EdgewrightError:
        """Why there were no first words: ssh itself failed (255), or it was let in and there is no Python to talk to."""
        code = self._ended()
        said, board = self._said(), self.board
        text = "\n".join(said).lower()
        if code == 255 or code < 0:
            what = "did not answer in time" if code < 0 else "cannot be reached over ssh"
            copy = board.login.replace("ssh", "ssh-copy-id", 1)
            hint = next(hint for pattern, hint in _REACHING if re.search(pattern, text))
            hint = hint.format(login=board.login, copy=copy)
            return EdgewrightError("E410", f"`{board}` {what}", details=said, hint=hint)
        return EdgewrightError(
            "E411",
            f"`{board}` has no Python of at least 3.11 that is called `{board.python}`",
            details=said,
            hint="name another with --python, or install python3 there",
        )

    def _said(self) -> tuple[str, ...]:
        """The last lines that ssh and the other machine wrote to standard error."""
        self._log.seek(0)
        return tuple(self._log.read().decode(errors="replace").strip().splitlines()[-_TAIL_LINES:])

    def _remove(self) -> None:
        """Remove the folder there by a second login, where the first ended badly; without success it stays until a reboot."""
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            command = self.board.command(f"rm -rf -- {shlex.quote(self._folder)}")
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_GOODBYE_SECONDS, check=True)
