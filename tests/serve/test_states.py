"""Whatever happens in whatever order, every request that was accepted gets exactly one answer, and the right one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from edgewright.serve import ModelOptions, Server
from edgewright.serve.core.jobs import RefusalError, Result
from edgewright.serve.core.queue import JobQueue
from edgewright.serve.core.server import Ticket


class Sent:
    """A request and the answers it got."""

    def __init__(self, value: float, timeout_s: float | None) -> None:
        self.value = value
        self.timeout_s = timeout_s
        self.ticket: Ticket | None = None
        self.answers: list[Any] = []


class Machine(RuleBasedStateMachine):
    """Requests, cancels, deadlines, reloads and unloads in any order, against one server."""

    shelf: Path
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Sent] = []
        self.refused: list[Sent] = []

    @initialize(batch=st.sampled_from([1, 4]), instances=st.sampled_from([1, 2]), queue=st.sampled_from([1, 8]))
    def start(self, batch: int, instances: int, queue: int) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.shelf / "scale", self.folder / "net")
        options = ModelOptions(max_batch=batch, max_delay_ms=0.5, instances=instances, queue=queue)
        self.server = Server([self.folder], options, reloads=True)
        self.server.start()

    @rule(
        value=st.integers(0, 1000),
        timeout_s=st.sampled_from([None, 0.0, 0.0005, 5.0]),
        inline=st.booleans(),
        priority=st.integers(-1, 1),
        count=st.integers(1, 5),
        regrets=st.booleans(),
    )
    def submit(
        self, value: int, timeout_s: float | None, inline: bool, priority: int, count: int, regrets: bool
    ) -> None:
        for index in range(count):
            sent = Sent(value + index / 8, timeout_s)
            array = np.full((1, 4), sent.value, np.float32)
            settings = {"timeout_s": timeout_s, "priority": priority, "inline": inline}
            try:
                sent.ticket = self.server.submit("net", {"x": array}, sent.answers.append, **settings)
                self.sent.append(sent)
                if regrets and sent.ticket.cancel():
                    assert len(sent.answers) == 1
            except RefusalError as refusal:
                assert refusal.reason in ("full", "late", "unknown")
                self.refused.append(sent)

    @rule(pick=st.integers(0, 1000))  # always drawn: what is drawn must not depend on how far the threads have come
    def cancel(self, pick: int) -> None:
        if self.sent:
            sent = self.sent[pick % len(self.sent)]
            assert sent.ticket is not None
            if sent.ticket.cancel():
                assert len(sent.answers) == 1

    @rule()
    def replace(self) -> None:
        manifest = self.folder / "net" / "bundle.json"
        manifest.write_bytes(manifest.read_bytes() + b" ")  # another stamp, the same bundle
        self.server.repository.refresh()

    @rule()
    def break_and_mend(self) -> None:
        manifest = self.folder / "net" / "bundle.json"
        good = manifest.read_bytes()
        manifest.write_bytes(good[: len(good) // 2])
        problems = self.server.repository.refresh()
        assert [problem.code for problem in problems] == ["E221"]
        manifest.write_bytes(good)
        self.server.repository.refresh()

    @rule()
    def unload_and_load(self) -> None:
        self.server.repository.unload("net")
        self.server.repository.load("net")

    @rule()
    def rest(self) -> None:
        time.sleep(0.002)

    @invariant()
    def nobody_has_two_answers(self) -> None:
        assert all(len(sent.answers) <= 1 for sent in self.sent)
        assert not any(sent.answers for sent in self.refused)

    def teardown(self) -> None:
        if not hasattr(self, "server"):
            return
        assert self.server.drain(20)
        for sent in self.sent:
            (answer,) = sent.answers
            if isinstance(answer, Result):
                assert np.array_equal(answer.outputs["y"], np.full((1, 4), 2 * sent.value, np.float32))
            else:
                assert answer.reason in ("late", "cancelled"), answer
                assert answer.reason != "late" or sent.timeout_s is not None


@pytest.fixture
def machine(shelf: Path, tmp_path: Path) -> Iterator[type[Machine]]:
    Machine.shelf, Machine.folder = shelf, tmp_path / "models"
    yield Machine


def test_every_request_gets_exactly_one_answer(machine: type[Machine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=10,
            stateful_step_count=12,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_lost_answer_is_noticed(machine: type[Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: here the core forgets whoever was cancelled."""
    monkeypatch.setattr(JobQueue, "cancel", lambda self, job, answer: True)
    steps = machine()
    steps.start(batch=1, instances=1, queue=8)
    with pytest.raises(AssertionError):
        for value in range(100):  # one that is still queued when it is cancelled is enough
            steps.submit(value, timeout_s=None, inline=False, priority=0, count=5, regrets=True)
    assert steps.server.drain(20)
