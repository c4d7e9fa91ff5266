"""The parent's side of a worker: started, asked, stopped in between, and never left behind."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edgewright.errors import CODES, EdgewrightError

_TAIL_LINES = 12
_READ_BYTES = 65536
_GRACE_SECONDS = 2.0
#: A reply longer than this is not ours.
_LONGEST_REPLY_BYTES = 64 * 2**20
#: Libraries that numpy's matrix products may come from read their thread count from the environment only.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


class WorkerProcess:
    """One worker. It runs only while it is asked something; otherwise it is stopped, its spinning threads too.

    Attributes:
        name: The bundle's name, for messages.
        threads: Threads of its runtime.
        pid: Its process id.
    """

    def __init__(self, name: str, *, threads: int, folder: Path) -> None:
        self.name = name
        self.threads = threads
        self._pending = b""
        read_end, write_end = os.pipe()
        self._replies = read_end
        self._log_path = folder / f"{os.urandom(4).hex()}.log"
        try:
            with self._log_path.open("wb") as log:
                self._process = subprocess.Popen(
                    # -P: what lies in the user's working directory is not imported
                    [sys.executable, "-P", "-m", "edgewright.bench.worker", str(write_end), str(os.getpid())],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    pass_fds=(write_end,),
                    env=os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads)),
                    start_new_session=True,  # Ctrl-C is the parent's to handle
                )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self.pid = self._process.pid

    def ask(self, request: dict[str, Any], *, timeout: float) -> dict[str, Any]:
        """The worker's reply; it runs until then and is stopped afterwards.

        Raises:
            EdgewrightError: E401 when it died, failed or did not answer within `timeout` seconds; the error that it met
                itself where that has a code.
        """
        self._signal("SIGCONT")
        reply = json.loads(self._exchange(json.dumps(request).encode() + b"\n", timeout))
        self._signal("SIGSTOP")
        if "error" in reply:
            error = reply["error"]
            assert error["code"] in CODES, error
            message = f"benchmark of `{self.name}`: {error['message']}"
            raise EdgewrightError(error["code"], message, details=tuple(error["details"]), hint=error["hint"])
        if "crash" in reply:
            lines = tuple(reply["crash"].strip().splitlines()[-_TAIL_LINES:])
            raise EdgewrightError("E401", f"the benchmark of {self._what()} failed", details=lines)
        assert isinstance(reply, dict)
        return reply

    def close(self) -> None:
        """Kill the worker, stopped or not, and wait for it."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                self._pending = b""  # a request that was never read: nobody misses it
        if self._replies >= 0:
            os.close(self._replies)
            self._replies = -1

    def _exchange(self, request: bytes, timeout: float) -> bytes:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        end = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, end - time.monotonic())):
                    self.close()
                    raise self._failure(f"did not answer within {timeout:.0f} s and was killed")
                received = os.read(self._replies, _READ_BYTES)
                self._pending += received
                if not received or len(self._pending) > _LONGEST_REPLY_BYTES:
                    raise self._died()
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _signal(self, name: str) -> None:
        number = getattr(signal, name, None)  # Windows has none: there the worker only blocks on its input
        if number is not None:
            self._process.send_signal(number)  # does nothing where the process has ended

    def _died(self) -> EdgewrightError:
        try:
            code = self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:  # it closed its pipe and lives on
            self._process.kill()
            code = self._process.wait()
        if code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                how += ", as the kernel does when memory is short"
        else:
            how = f"ended with exit code {code}"
        return self._failure(how)

    def _failure(self, how: str) -> EdgewrightError:
        try:
            with self._log_path.open("rb") as log:
                log.seek(max(0, self._log_path.stat().st_size - _READ_BYTES))
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError as problem:
            lines = [f"its log cannot be read: {problem.strerror}"]
        return EdgewrightError(
            "E401",
            f"the benchmark worker of {self._what()} {how}",
            details=tuple(lines[-_TAIL_LINES:]) or ("it printed nothing",),
            hint="run it alone: edgewright bench BUNDLE",
        )

    def _what(self) -> str:
        return f"`{self.name}` at {self.threads} thread{'s' if self.threads > 1 else ''}"
