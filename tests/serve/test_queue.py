"""The queue: order, bounds, deadlines, batches, and exactly one answer for every job."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

import numpy as np
import pytest

from edgewright.serve.core.jobs import DONE, Answer, Job, RefusalError, Result
from edgewright.serve.core.queue import JobQueue


class Log:
    """Answers by job."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Answer]] = []

    def job(self, number: int = 0, **fields: object) -> Job:
        return Job({}, 1, lambda answer: self.answers.append((number, answer)), **fields)  # type: ignore[arg-type]

    @property
    def reasons(self) -> list[tuple[int, str]]:
        return [(number, a.reason if isinstance(a, RefusalError) else "done") for number, a in self.answers]


def test_urgent_first_then_oldest() -> None:
    log, queue = Log(), JobQueue(10)
    jobs = {name: log.job(priority=priority) for name, priority in (("a", 1), ("b", 0), ("c", 1), ("d", 0))}
    for job in jobs.values():
        queue.put(job)
    order = [queue.take()[0] for _ in jobs]  # type: ignore[index]
    assert [name for job in order for name, other in jobs.items() if other is job] == ["b", "d", "a", "c"]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again() -> None:
    log, queue = Log(), JobQueue(2)
    queue.put(log.job())
    queue.put(log.job())
    with pytest.raises(RefusalError) as refused:
        queue.put(log.job(), expected_s=2.5)
    assert refused.value.reason == "full"
    assert refused.value.retry_after_s == 5  # two that wait, 2.5 s each
    assert log.answers == []  # a refused job is not answered as well


def test_a_job_that_would_wait_beyond_its_deadline_is_refused_at_once() -> None:
    log, queue = Log(), JobQueue(10)
    queue.put(log.job())
    with pytest.raises(RefusalError) as refused:
        queue.put(log.job(deadline=time.monotonic() + 1), expected_s=100)
    assert refused.value.reason == "full"
    with pytest.raises(RefusalError) as refused:
        queue.put(log.job(deadline=time.monotonic() - 1))
    assert refused.value.reason == "late"


def test_expired_work_is_never_handed_out() -> None:
    log, queue = Log(), JobQueue(10)
    queue.put(log.job(1, deadline=time.monotonic() + 0.01))
    fresh = log.job(2)
    queue.put(fresh)
    time.sleep(0.02)
    assert queue.take() == [fresh]
    assert log.reasons == [(1, "late")]


def test_a_batch_waits_no_longer_than_half_of_the_time_of_a_job_in_it() -> None:
    log, queue = Log(), JobQueue(10)
    jobs = [log.job(1, key="k", deadline=time.monotonic() + 2), log.job(2, key="k")]
    for job in jobs:
        queue.put(job)
    begun = time.monotonic()
    assert queue.take(8, 1000.0) == jobs
    assert 0.5 < time.monotonic() - begun < 2


def test_batches_hold_equal_keys_and_no_more_rows_than_fit() -> None:
    log, queue = Log(), JobQueue(10)
    for number, (key, rows) in enumerate([("a", 1), ("b", 1), ("a", 2), ("a", 2), ("a", 1)]):
        queue.put(Job({}, rows, lambda answer: None, key=key, priority=0, queued_at=number))
    taken = [[(job.key, job.rows) for job in queue.take(4)] for _ in range(3)]  # type: ignore[union-attr]
    assert taken == [[("a", 1), ("a", 2), ("a", 1)], [("b", 1)], [("a", 2)]]
    assert log.answers == []


def test_a_batch_waits_for_more_until_its_delay_is_over() -> None:
    log, queue = Log(), JobQueue(10)
    queue.put(log.job(1, key="k"))
    later = threading.Timer(0.05, lambda: queue.put(log.job(2, key="k")))
    later.start()
    batch = queue.take(2, 10.0)
    later.join()
    assert batch is not None
    assert len(batch) == 2


def test_cancelled_jobs_leave_no_arrays_behind() -> None:
    log, queue = Log(), JobQueue(1000)
    jobs = [log.job(n) for n in range(500)]
    for job in jobs:
        job.inputs = {"x": np.zeros(4)}
        queue.put(job)
        assert queue.cancel(job, RefusalError("cancelled", ""))
        assert not queue.cancel(job, RefusalError("cancelled", ""))
    assert len(queue) == 0
    assert len(queue._heap) <= 64  # swept on the way
    assert all(not job.inputs for job in jobs)
    assert Counter(reason for _, reason in log.reasons) == {"cancelled": 500}


def test_closing_answers_or_finishes_what_waits() -> None:
    for finish in (True, False):
        log, queue = Log(), JobQueue(10)
        job = log.job(1)
        queue.put(job)
        queue.close(finish=finish)
        with pytest.raises(RefusalError, match="stopped"):
            queue.put(log.job(2))
        assert queue.take() == ([job] if finish else None)
        assert log.reasons == ([] if finish else [(1, "unavailable")])


@pytest.mark.parametrize("seed", range(4))
def test_every_job_is_answered_exactly_once(seed: int) -> None:
    """Producers, cancellers and workers at random, closed in the middle of it."""
    random_ = random.Random(seed)
    queue = JobQueue(16)
    lock, answers = threading.Lock(), Counter[int]()
    accepted: list[tuple[int, Job]] = []

    def count(number: int) -> None:
        with lock:
            answers[number] += 1

    def work() -> None:
        while (batch := queue.take(4, 0.0005)) is not None:
            now = time.monotonic()
            for job in batch:
                # a little may pass between the look at the clock and the return
                assert job.deadline is None or job.deadline > now - 5
                job.finish(Result({}))

    def produce(first: int) -> None:
        mine = random.Random(first)
        for number in range(first, first + 300):
            deadline = time.monotonic() + mine.uniform(-0.001, 0.01) if mine.random() < 0.5 else None
            job = Job(
                {}, mine.choice([1, 2]), lambda answer, number=number: count(number),  # type: ignore[misc]
                key=mine.choice(["a", "b", None]), priority=mine.choice([0, 1]), deadline=deadline,
            )  # fmt: skip
            try:
                queue.put(job)
            except RefusalError:
                continue
            with lock:
                accepted.append((number, job))
            if mine.random() < 0.3:
                queue.cancel(job, RefusalError("cancelled", ""))

    workers = [threading.Thread(target=work) for _ in range(2)]
    producers = [threading.Thread(target=produce, args=(1000 * n,)) for n in range(3)]
    for thread in (*workers, *producers):
        thread.start()
    if random_.random() < 0.5:
        time.sleep(0.01)
        queue.close(finish=random_.random() < 0.5)
    for thread in producers:
        thread.join(30)
    queue.close()
    for thread in workers:
        thread.join(30)
        assert not thread.is_alive()
    assert accepted
    assert {number: answers[number] for number, _ in accepted} == {number: 1 for number, _ in accepted}
    assert sum(answers.values()) == len(accepted)
    assert all(job.state == DONE for _, job in accepted)
