"""A job: one request's arrays on their way through a queue, and the one answer it gets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from edgewright.model import Arrays

#: Why a request was not computed. Transports turn these into their own status codes.
Reason = Literal["invalid", "unknown", "full", "late", "cancelled", "unavailable", "failed"]

QUEUED, RUNNING, DONE = range(3)


class RefusalError(Exception):
    """A request that gets no result, with the reason.

    Attributes:
        reason: What kind of refusal this is.
        message: One sentence for the caller.
        retry_after_s: Seconds after which it is worth trying again; None where it is not.
    """

    def __init__(self, reason: Reason, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s


class Result(NamedTuple):
    """Outputs of one request, by ONNX name."""

    outputs: Mapping[str, np.ndarray]


Answer = Result | RefusalError


@dataclass(slots=True, eq=False)
class Job:
    """One request in a queue. Exactly one answer is delivered, whatever happens.

    Attributes:
        inputs: Arrays by ONNX name, already checked; emptied once the answer is known, so that memory goes with it.
        rows: Size of the batch axis; 1 where the network has none.
        deliver: Called once with the answer, on whatever thread found it; it must return at once.
        key: Jobs with equal keys may run as one batch; None runs alone.
        lengths: Sizes of padded axes before padding, by axis name; the outputs are cut back to them.
        priority: Lower is more urgent.
        parameters: The request's own, for hooks.
        deadline: Clock time in seconds (`time.monotonic`) after which the work is not worth doing; None is never.
        queued_at: Clock time of arrival.
        started_at: Clock time at which it left the queue; 0.0 before.
        state: QUEUED, RUNNING or DONE; changed under the queue's lock while it is queued.
    """

    inputs: Arrays
    rows: int
    deliver: Callable[[Answer], None]
    key: object = None
    lengths: Mapping[str, int] = field(default_factory=dict)
    priority: int = 0
    deadline: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    queued_at: float = 0.0
    started_at: float = 0.0
    state: int = QUEUED

    def finish(self, answer: Answer) -> None:
        """Deliver the answer; the caller owns the job (it is RUNNING, or was just taken out of its queue)."""
        assert self.state != DONE, "a job is answered once"
        self.state = DONE
        self.inputs = {}
        self.deliver(answer)


class Waiter:
    """Takes an answer on the thread that waits for it: the blocking way to use a job."""

    def __init__(self) -> None:
        self._arrived = threading.Lock()  # held until then; an Event takes ten times as long to make
        self._arrived.acquire()
        self._answer: Answer | None = None

    def __call__(self, answer: Answer) -> None:
        """Take the answer; give this object as `deliver`."""
        self._answer = answer
        self._arrived.release()

    def wait(self, timeout_s: float | None = None) -> Answer | None:
        """The answer; None where none came in time."""
        if self._answer is None and self._arrived.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s)):
            self._arrived.release()
        return self._answer
