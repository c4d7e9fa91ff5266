"""A bounded queue by priority that never hands out expired work and batches what may run together."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time

from edgewright.serve.core.jobs import DONE, QUEUED, RUNNING, Job, RefusalError

#: Removed jobs that may lie in the heap beside as many waiting ones before it is swept.
_SLACK = 64


class JobQueue:
    """Jobs of one version of one model, most urgent first, oldest first among equals.

    All methods may be called from any thread. Answers are delivered outside the lock.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._heap: list[tuple[int, int, Job]] = []
        self._order = itertools.count()
        self._waiting = 0
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return self._waiting

    @property
    def idle(self) -> bool:
        """True while nothing waits and jobs are taken."""
        return not (self._waiting or self._closed)

    def put(self, job: Job, expected_s: float = 0.0) -> None:
        """Add a job.

        Args:
            job: The job; its deadline decides whether waiting for it makes sense.
            expected_s: Seconds that each waiting job is expected to take.

        Raises:
            RefusalError: "full" where `limit` jobs wait or it would wait beyond its deadline, "late" where that has passed,
                "unavailable" once closed.
        """
        now = time.monotonic()
        with self._changed:
            self.check_room(expected_s)
            wait_s = self._waiting * expected_s
            if job.deadline is not None:
                if job.deadline <= now:
                    raise RefusalError("late", "the request's time was up before it could be queued")
                if now + wait_s > job.deadline:
                    self._refuse_full(f"the wait of about {wait_s:.3f} s is longer than the request's time", wait_s)
            job.queued_at = now
            heapq.heappush(self._heap, (job.priority, next(self._order), job))
            self._waiting += 1
            self._changed.notify()

    def check_room(self, expected_s: float = 0.0) -> None:
        """Refuse as `put` would for want of room: so that who has much to prepare may ask first.

        Raises:
            RefusalError: "full" or "unavailable".
        """
        if self._closed:
            raise RefusalError("unavailable", "the model is being stopped", retry_after_s=1)
        if self._waiting >= self.limit:
            self._refuse_full(f"{self._waiting} requests wait already, the limit", self._waiting * expected_s)

    def take(self, max_rows: int = 1, delay_s: float = 0.0) -> list[Job] | None:
        """The next jobs to run as one batch, of at most `max_rows` rows together; None once closed and empty.

        Waits for work, and for up to `delay_s` after the first job's arrival for more of the same key, but for no more
        than half of anyone's time: the rest is for running. Expired jobs are answered here and never returned.
        """
        while True:
            late: list[Job] = []
            batch = self._take(max_rows, delay_s, late)
            for job in late:
                job.finish(RefusalError("late", "the request's time was up before its turn came"))
            if batch is None or batch:
                return batch

    def cancel(self, job: Job, answer: RefusalError) -> bool:
        """Take a job that still waits out of the queue and answer it; False where it runs or is answered already."""
        with self._changed:
            if job.state != QUEUED:
                return False
            self._remove(job)
            self._sweep()
        job.finish(answer)
        return True

    def close(self, *, finish: bool = True) -> None:
        """Take no more jobs. Those that wait are still handed out, or all answered "unavailable" without `finish`."""
        left: list[Job] = []
        with self._changed:
            self._closed = True
            if not finish:
                left = [job for _, _, job in self._heap if job.state == QUEUED]
                for job in left:
                    self._remove(job)
                self._heap.clear()
            self._changed.notify_all()
        for job in left:
            job.finish(
                RefusalError("unavailable", "the server was stopped before the request's turn came", retry_after_s=1)
            )

    def _take(self, max_rows: int, delay_s: float, late: list[Job]) -> list[Job] | None:
        with self._changed:
            while (first := self._pop(late)) is None:
                if late:
                    return []  # their answers go out before anything is waited for
                if self._closed:
                    return None
                self._changed.wait()
            batch, rows = [first], first.rows
            if first.key is None or max_rows <= first.rows:
                return batch
            until = first.queued_at + delay_s
            while True:
                rows += self._gather(batch, max_rows - rows, late)
                until = min([until, *map(_half_way, batch)])
                left_s = until - time.monotonic()
                if rows >= max_rows or left_s <= 0 or self._closed:
                    break
                self._changed.wait(left_s)
        now = time.monotonic()
        late += [job for job in batch if expired(job, now)]
        return [job for job in batch if not expired(job, now)]

    def _pop(self, late: list[Job]) -> Job | None:
        """The most urgent job that is worth running, now RUNNING; expired ones go to `late`."""
        now = time.monotonic()
        while self._heap:
            job = heapq.heappop(self._heap)[2]
            if job.state != QUEUED:
                continue
            self._remove(job)
            job.started_at = now
            if not expired(job, now):
                return job
            late.append(job)
        return None

    def _gather(self, batch: list[Job], room: int, late: list[Job]) -> int:
        """Move waiting jobs of the first one's key into the batch; the number of their rows."""
        kept, rows, now = [], 0, time.monotonic()
        while self._heap and rows < room:
            entry = heapq.heappop(self._heap)
            job = entry[2]
            if job.state != QUEUED:
                continue
            if job.key != batch[0].key or job.rows > room - rows:
                kept.append(entry)
                continue
            self._remove(job)
            job.started_at = now
            if expired(job, now):
                late.append(job)
            else:
                batch.append(job)
                rows += job.rows
        for entry in kept:
            heapq.heappush(self._heap, entry)
        return rows

    def _remove(self, job: Job) -> None:
        job.state = RUNNING  # whoever removed it now owns it, and owes it an answer
        self._waiting -= 1

    def _sweep(self) -> None:
        if len(self._heap) > 2 * self._waiting + _SLACK:
            self._heap = [entry for entry in self._heap if entry[2].state == QUEUED]
            heapq.heapify(self._heap)

    def _refuse_full(self, why: str, wait_s: float) -> None:
        raise RefusalError("full", f"over capacity: {why}", retry_after_s=max(1, min(60, math.ceil(wait_s))))


def _half_way(job: Job) -> float:
    """Clock time at which half of the job's time is over."""
    return math.inf if job.deadline is None else (job.queued_at + job.deadline) / 2


def expired(job: Job, now: float) -> bool:
    """True once the job's time is up, by `now` on its clock."""
    assert job.state != DONE, "an answered job is in no queue"
    return job.deadline is not None and job.deadline <= now
