"""The server without a transport: what HTTP, gRPC or a program of your own calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.model import Arrays
from edgewright.serve.core.jobs import Answer, Job, RefusalError, Result, Waiter
from edgewright.serve.core.log import Log, silent
from edgewright.serve.core.options import ModelOptions
from edgewright.serve.core.repository import Repository
from edgewright.serve.core.version import Version

#: What may pass while folders are watched: a bundle that is still being copied, or that does not run.
_MENDED_BY_WATCHING = ("E220", "E221", "E232")


class Ticket:
    """A request that was accepted: what its sender may still do about it.

    Attributes:
        version: What runs it.
    """

    def __init__(self, version: Version, job: Job) -> None:
        self.version = version
        self._job = job

    def cancel(self) -> bool:
        """Answer the request "cancelled" unless it runs or is answered already; True where it was."""
        return self.version.cancel(self._job, RefusalError("cancelled", "the request was cancelled"))

    def expire(self) -> bool:
        """The same when its time is up."""
        return self.version.cancel(self._job, RefusalError("late", "the request's time was up before its turn came"))

    @property
    def queued_at(self) -> float:
        """Clock time of its arrival."""
        return self._job.queued_at

    @property
    def started_at(self) -> float:
        """Clock time at which it left the queue; 0.0 before."""
        return self._job.started_at

    @property
    def waits(self) -> bool:
        """True while the request is in the queue."""
        return self._job.started_at == 0.0


class Ran(NamedTuple):
    """Outputs by ONNX name, and what gave them."""

    version: Version
    outputs: Mapping[str, np.ndarray]


class Server:
    """Models from folders, ready to answer. Every accepted request gets exactly one answer.

    Attributes:
        repository: The models.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        options: ModelOptions | None = None,
        *,
        watch_s: float | None = None,
        reloads: bool = False,
        allow_hooks: bool = False,
        log: Log = silent,
    ) -> None:
        """Prepare a server; `start` opens the bundles.

        Args:
            folders: Bundles, or folders of bundles (`places.py` says how they may lie).
            options: How models are served where their folder's `serve.toml` says nothing else.
            watch_s: Seconds between looks at the folders; None looks once.
            reloads: Whether bundles may be loaded later on, which gives each a private copy of its files.
            allow_hooks: Whether code that lies in bundles may run.
            log: Told of what happens.
        """
        self._log = log
        self._watch_s = watch_s
        self._state = "starting"
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self.repository = Repository(
            [Path(folder) for folder in folders],
            options or ModelOptions(),
            private_copies=reloads or watch_s is not None,
            allow_hooks=allow_hooks,
            log=log,
        )

    @property
    def ready(self) -> bool:
        """True between a successful `start` and `drain`."""
        return self._state == "ready"

    def start(self) -> None:
        """Open and warm up every bundle, then take requests.

        Where the folders are watched, a bundle that cannot be opened is left out until its files change.

        Raises:
            EdgewrightError: A bundle cannot be opened, or there is none.
        """
        problems = self.repository.refresh()
        if self._watch_s is not None:
            problems = [problem for problem in problems if problem.code not in _MENDED_BY_WATCHING]
        elif not problems and not self.repository.versions():
            problems = [
                EdgewrightError("E104", "the folders hold no bundle", hint="edgewright convert MODEL --out DIR/NAME")
            ]
        if problems:
            self.repository.stop(0.0)
            raise problems[0]
        self._state = "ready"
        if self._watch_s is not None:
            self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
            self._watcher.start()

    def submit(
        self,
        model: str,
        inputs: Arrays,
        deliver: Callable[[Answer], None],
        *,
        version: int | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
        parameters: Mapping[str, Any] = MappingProxyType({}),
        inline: bool = True,
        blocking: bool = False,
    ) -> Ticket:
        """Accept a request; its one answer goes to `deliver`, perhaps before this returns.

        Args:
            model: Name, perhaps with a variant.
            inputs: Arrays by ONNX name.
            deliver: Called once, on any thread; it must return at once.
            version: Which; the newest by default.
            priority: Lower is more urgent.
            timeout_s: Seconds after which the request is not worth running.
            parameters: The request's own, for hooks.
            inline: Whether a very short run may happen on the calling thread.
            blocking: Whether a long one may as well: the caller has nothing to do but to wait for it.

        Raises:
            RefusalError: It is not accepted, in which case `deliver` is never called.
        """
        if not self.ready:
            raise RefusalError("unavailable", f"the server is {self._state}", retry_after_s=1)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            found = self.repository.get(model, version)
            try:
                job = found.submit(
                    inputs,
                    deliver,
                    priority=priority,
                    deadline=deadline,
                    parameters=parameters,
                    inline=inline,
                    blocking=blocking,
                )
                return Ticket(found, job)
            except RefusalError as refusal:
                # replaced between the lookup and now: the new version takes it
                if refusal.reason == "unavailable" and self.ready and self.repository.get(model, version) is not found:
                    continue
                raise

    def infer(
        self,
        model: str,
        inputs: Arrays,
        *,
        version: int | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
        parameters: Mapping[str, Any] = MappingProxyType({}),
    ) -> Result:
        """The blocking form of `submit`.

        Raises:
            RefusalError: Whatever kept it from a result.
        """
        ran = self.run(model, inputs, version=version, priority=priority, timeout_s=timeout_s, parameters=parameters)
        return Result(ran.outputs)

    def run(
        self,
        model: str,
        inputs: Arrays,
        *,
        version: int | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
        parameters: Mapping[str, Any] = MappingProxyType({}),
        watch: Callable[[Ticket], None] | None = None,
    ) -> Ran:
        """As `infer`, for who wants to know more of it.

        Args:
            model: Name, perhaps with a variant.
            inputs: Arrays by ONNX name.
            version: Which; the newest by default.
            priority: Lower is more urgent.
            timeout_s: Seconds after which the request is not worth running.
            parameters: The request's own, for hooks.
            watch: Given the ticket before anything is waited for: who wants to cancel from elsewhere needs it.

        Raises:
            RefusalError: Whatever kept it from a result.
        """
        waiter = Waiter()
        ticket = self.submit(
            model,
            inputs,
            waiter,
            version=version,
            priority=priority,
            timeout_s=timeout_s,
            parameters=parameters,
            blocking=True,
        )
        if watch is not None:
            watch(ticket)
        answer = waiter.wait(timeout_s)
        if answer is None:
            ticket.expire()  # where it runs already, its result is still waited for
            answer = waiter.wait()
        if isinstance(answer, Result):
            return Ran(ticket.version, answer.outputs)
        assert answer is not None
        raise answer

    def drain(self, timeout_s: float) -> bool:
        """Take no more requests, finish those accepted and free everything; False where that took longer."""
        self._state = "stopping"
        self._stopping.set()
        if self._watcher:
            self._watcher.join(timeout_s)
        return self.repository.stop(timeout_s)

    def _watch(self) -> None:
        assert self._watch_s is not None
        while not self._stopping.wait(self._watch_s):
            try:
                self.repository.refresh()
            except Exception as problem:  # watching must go on whatever one look at the disk brings
                self._log("unwatched", reason=repr(problem))
