"""One opened version of a model: sessions, a queue, the threads that run it, and what it was proven to allow."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.model import Arrays
from edgewright.rows import SAME_ROWS, dependence, example_inputs
from edgewright.serve.core import batching
from edgewright.serve.core.jobs import Answer, Job, RefusalError, Result
from edgewright.serve.core.opening import Opened
from edgewright.serve.core.options import ModelOptions
from edgewright.serve.core.queue import JobQueue, expired
from edgewright.serve.core.statistics import Statistics
from edgewright.serve.hooks.running import HookedSession
from edgewright.session import Network

#: Types and shapes of inputs that are remembered as fitting the network: the same come again and again.
_MOST_SIGNATURES = 64
#: Runs shorter than this happen on the caller's thread where nothing else runs: handing over would take longer.
_INLINE_S = 0.0003


class Version:
    """A bundle that answers requests.

    Attributes:
        name: The model's name as clients write it.
        number: The version.
        bundle: What runs.
        options: How it is served.
        statistics: What it has done.
        batch: Name of the batch axis where requests may run together, else None.
        why_alone: Why they may not although it was asked for, for the log; "" where they may.
        notes: What a transport remembers about this version and keeps small; it goes with the version.
    """

    def __init__(self, name: str, number: int, opened: Opened, options: ModelOptions, copy: Path | None = None) -> None:
        self.name = name
        self.number = number
        self.bundle = bundle = opened.bundle
        self.options = options
        self._open = opened.open
        self.statistics = Statistics()
        self.why_alone = ""
        self.notes: dict[Any, Any] = {}
        self._copy = copy  # a private folder that goes with the version
        self._queue = JobQueue(options.queue)
        self._sessions: list[Network] = []
        self._threads: list[threading.Thread] = []
        self._busy = threading.Lock()  # of the one session that may also run on a caller's thread
        self._fitting: set[object] = set()
        self._row_s = 0.0  # running mean of the seconds that a row takes; 0.0 before the first
        self._quick_s = 0.0  # the least of late: on a busy machine a short run may take long, and is short all the same
        self.batch = batching.batch_axis(bundle.inputs, bundle.outputs)
        self._may_be_short = False

    def start(self) -> None:
        """Open the sessions, run each once, find out whether rows may be batched, and start the threads.

        Raises:
            EdgewrightError: As `session.open`, and E232 where a network of fixed sizes cannot run.
        """
        try:
            for _ in range(self.options.instances):
                self._sessions.append(self._open())
            self._warm_up()
            self._may_be_short = self._tells_its_time()
        except BaseException:
            self.stop(finish=False)
            raise
        for session in self._sessions:
            thread = threading.Thread(
                target=self._work, args=(session,), name=f"{self.name}/{self.number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def submit(
        self,
        inputs: Arrays,
        deliver: Callable[[Answer], None],
        *,
        priority: int = 0,
        deadline: float | None = None,
        parameters: Mapping[str, Any] = MappingProxyType({}),
        inline: bool = True,
        blocking: bool = False,
    ) -> Job:
        """Check a request and queue it; its one answer goes to `deliver`, before this returns or later.

        Args:
            inputs: By ONNX name.
            deliver: Called once, on any thread.
            priority: Lower is more urgent.
            deadline: Clock time (`time.monotonic`) after which it is not worth running; None is never.
            parameters: The request's own, for hooks.
            inline: Whether a short run may happen on the calling thread.
            blocking: Whether a long one may as well: the caller has nothing to do but to wait for it.

        Raises:
            RefusalError: It is not accepted, in which case `deliver` is never called.
        """
        try:
            job = self._job(inputs, deliver, priority, deadline)
            if parameters and self.bundle.hooks:
                job.parameters = parameters
                job.key = None if job.key is None else (job.key, repr(sorted(parameters.items())))
            if not ((inline or blocking) and self._run_inline(job, blocking)):
                self._queue.put(job, self._row_s * job.rows / self.options.instances)
        except RefusalError as refusal:
            self.statistics.refuse(refusal.reason)
            raise
        return job

    def short(self, rows: int = 1) -> bool:
        """Whether a run of so many rows is quicker than handing it over, and nothing waits before it."""
        return self._may_be_short and 0.0 < self._quick_s * rows <= _INLINE_S and self._queue.idle

    def run_now(self, inputs: Arrays, form: object, *, blocking: bool = False) -> Mapping[str, np.ndarray] | None:
        """Outputs of a short run on the calling thread, where nothing else waits or runs; None where it has to be submitted.

        Args:
            inputs: By ONNX name.
            form: Stands for names, types and shapes: who gives the same object again gives inputs of the same.
            blocking: Whether another short run may be waited for: the caller has nothing else to do.

        Raises:
            RefusalError: "invalid" or "failed".
        """
        rows = len(next(iter(inputs.values()), ())) if self.batch else 1
        if not self.short(rows) or not self._busy.acquire(timeout=_INLINE_S if blocking else 0.0):
            return None
        try:
            if not self._sessions:
                return None
            begun = time.monotonic()
            if form not in self._fitting:
                self._check(inputs)
                self._note_fitting(form)
            outputs = self._sessions[0].run(inputs, checked=True)
            took_s = time.monotonic() - begun
            self._learn(took_s / rows)
        except Exception as problem:  # a runtime may raise anything
            refusal = _failure(problem)
            self.statistics.refuse(refusal.reason, time.monotonic() - begun)
            raise refusal from None
        finally:
            self._busy.release()
        self.statistics.ran_short(rows, took_s)
        return outputs

    def check_room(self) -> None:
        """Refuse at once what `submit` would refuse for want of room, before anything is made of a request.

        Raises:
            RefusalError: "full".
        """
        try:
            self._queue.check_room(self._row_s / self.options.instances)
        except RefusalError as refusal:
            if refusal.reason == "unavailable":
                return  # being replaced: `submit` finds the next one
            self.statistics.refuse(refusal.reason)
            raise

    def cancel(self, job: Job, refusal: RefusalError) -> bool:
        """Answer a job that still waits with `refusal`; False where it runs already."""
        if not self._queue.cancel(job, refusal):
            return False
        self.statistics.refuse(refusal.reason, time.monotonic() - job.queued_at)
        return True

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def close(self) -> None:
        """Take no more work; what waits is still done."""
        self._queue.close()

    def stop(self, *, finish: bool = True, timeout_s: float | None = None) -> bool:
        """Take no more work, end what waits (`finish`) or refuse it, and free sessions; False where time ran out."""
        self._queue.close(finish=finish)
        until = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            self._queue.close(finish=False)
            return False
        with self._busy:
            for session in self._sessions:
                session.close()
            self._sessions.clear()
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)
        return True

    def _job(self, inputs: Arrays, deliver: Callable[[Answer], None], priority: int, deadline: float | None) -> Job:
        lengths: dict[str, int] = {}
        try:
            signature = tuple([(name, array.dtype, array.shape) for name, array in inputs.items()])
        except AttributeError:  # no arrays
            signature = None
        if signature is None or signature not in self._fitting:
            self._check(inputs)
            self._note_fitting(signature)
        if self.options.pad:
            inputs, lengths = batching.pad(inputs, self.bundle.inputs, self.options.pad)
        rows = len(next(iter(inputs.values()))) if self.batch else 1
        key = batching.key_of(inputs) if self.batch and self.options.max_batch > 1 else None
        return Job(inputs, rows, deliver, key, lengths, priority, deadline)

    def _check(self, inputs: Arrays) -> None:
        try:
            self._sessions[0].check(inputs)
        except EdgewrightError as problem:
            raise RefusalError("invalid", problem.message) from None
        except IndexError:
            raise RefusalError("unavailable", "the model is being stopped", retry_after_s=1) from None
        if any(array.size == 0 for array in inputs.values()):
            raise RefusalError("invalid", "an input holds nothing: one of its sizes is 0")

    def _tells_its_time(self) -> bool:
        """Whether runs take as long as the last ones, so that short ones may happen on a thread that others wait for."""
        options, bundle = self.options, self.bundle
        batched = self.batch is not None and options.max_batch > 1
        if bundle.hooks or options.pad or batched or options.threads != 1 or options.instances != 1:
            return False
        # a mean over short texts says nothing about a long one
        return all(isinstance(size, int) for info in bundle.inputs for size in info.shape[1:])

    def _note_fitting(self, signature: object) -> None:
        if len(self._fitting) >= _MOST_SIGNATURES:
            self._fitting.clear()
        self._fitting.add(signature)

    def _run_inline(self, job: Job, blocking: bool) -> bool:
        """Run the job here and now where that is quicker than handing it over; True where it was."""
        if job.key is not None or len(self._sessions) != 1 or not self._queue.idle:
            return False
        quick = self.short(job.rows)
        # who waits anyway waits for the end of a short run rather than for two changes of threads
        if not (quick or blocking) or not self._busy.acquire(timeout=_INLINE_S if quick and blocking else 0.0):
            return False
        try:
            if not self._sessions:
                return False
            job.queued_at = job.started_at = time.monotonic()
            if expired(job, job.started_at):
                raise RefusalError("late", "the request's time was up before it could be run")
            self._run(self._sessions[0], [job])
        finally:
            self._busy.release()
        return True

    def _work(self, session: Network) -> None:
        """What each thread does until the queue is closed and empty."""
        alone = len(self._sessions) == 1
        while True:
            batch = self._queue.take(self.options.max_batch, self.options.delay_s)
            if batch is None:
                return
            if alone:
                with self._busy:  # somebody's own run may have kept it for a while
                    self._run(session, self._in_time(batch))
            else:
                self._run(session, batch)
            del batch  # its arrays would stay until the next request comes

    def _in_time(self, jobs: list[Job]) -> list[Job]:
        """Those whose time is not up; the others are answered."""
        now = time.monotonic()
        late = [job for job in jobs if expired(job, now)]
        for job in late:
            self.statistics.refuse("late", now - job.queued_at)
            job.finish(RefusalError("late", "the request's time was up before its turn came"))
        return [job for job in jobs if job not in late] if late else jobs

    def _run(self, session: Network, jobs: list[Job]) -> None:
        """Run jobs as one batch and answer each; where that fails they run one by one, so that no other one suffers."""
        if not jobs:
            return
        begun = time.monotonic()
        try:
            inputs = batching.join(jobs)
            joined = time.monotonic()
            outputs = _compute(session, inputs, jobs)
            computed = time.monotonic()
            parts = batching.split(outputs, jobs)
        except Exception as problem:  # a runtime may raise anything; every request still gets its answer
            parts = None
            refusal = _failure(problem)
        if parts is None:
            if len(jobs) > 1:
                for job in jobs:
                    self._run(session, [job])
                return
            self.statistics.refuse(refusal.reason, time.monotonic() - jobs[0].queued_at)
            jobs[0].finish(refusal)
            return
        rows = sum([job.rows for job in jobs])
        self._learn((computed - joined) / rows)
        answers = [
            batching.cut(part, self.bundle.outputs, job.lengths) if job.lengths else part
            for job, part in zip(jobs, parts, strict=True)
        ]
        stages = (joined - begun, computed - joined, time.monotonic() - computed)
        self.statistics.ran(rows, stages, tuple([begun - job.queued_at for job in jobs]))
        for job, answer in zip(jobs, answers, strict=True):
            job.finish(Result(answer))

    def _learn(self, row_s: float) -> None:
        """Take note of what a row took."""
        self._row_s = 0.9 * self._row_s + 0.1 * row_s if self._row_s else row_s
        self._quick_s = min(1.02 * self._quick_s, row_s) if self._quick_s else row_s

    def _warm_up(self) -> None:
        inputs = self._examples(0)
        certain = all(isinstance(size, int) for info in self.bundle.inputs for size in info.shape[1:])
        try:
            for session in self._sessions:
                session.run(inputs)
                begun = time.monotonic()
                session.run(inputs)
                self._learn(time.monotonic() - begun)
        except (EdgewrightError, RefusalError):
            if certain and not self.bundle.hooks:  # nothing was guessed about sizes, or about what hooks take
                raise
            self._row_s = self._quick_s = 0.0
        if self.options.max_batch > 1:
            self._prove_batching()

    def _prove_batching(self) -> None:
        """Turn batching off where a row's answer depends on its neighbours, or the network cannot take two."""
        if self.batch is None:
            self.why_alone = "its batch axis is fixed"
            return
        try:
            first, second = self._examples(1), self._examples(2)
            found = dependence(self._sessions[0].run, first, second)
        except (EdgewrightError, RefusalError) as problem:
            self.why_alone, self.batch = problem.message, None
            return
        if found > SAME_ROWS:
            self.why_alone = f"its rows depend on each other: together they differ by {found:.1e} from alone"
            self.batch = None

    def _examples(self, seed: int) -> dict[str, np.ndarray]:
        return example_inputs(self.bundle.inputs, self.bundle.spec, seed)


def _compute(session: Network, inputs: Arrays, jobs: Sequence[Job]) -> Mapping[str, np.ndarray]:
    """Run a batch; hooks learn what its requests have in common, and when the first of them has no more time."""
    if isinstance(session, HookedSession):
        deadlines = [job.deadline for job in jobs if job.deadline is not None]
        return session.run(inputs, parameters=jobs[0].parameters, deadline=min(deadlines, default=None), checked=True)
    return session.run(inputs, checked=True)


def _failure(problem: Exception) -> RefusalError:
    """The refusal for an exception out of a runtime; E230 is what the caller did wrong."""
    if isinstance(problem, RefusalError):
        return problem
    if isinstance(problem, EdgewrightError):
        return RefusalError("invalid" if problem.code == "E230" else "failed", problem.message)
    return RefusalError("failed", f"the runtime failed: {type(problem).__name__}")
