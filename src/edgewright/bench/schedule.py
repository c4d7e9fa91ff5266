"""Who runs when: one group of workers at one thread count, interleaved round by round in random order.

A round is one block of runs of every bundle, so that what disturbs the machine disturbs all of them alike and the
ratios stay right when the milliseconds do not. Where only the fastest is looked for, who is out of the race leaves early.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.bench import race, statistics, telemetry
from edgewright.bench.plan import BenchPlan
from edgewright.bench.process import WorkerProcess
from edgewright.bundle import Bundle
from edgewright.errors import EdgewrightError
from edgewright.progress import Progress

#: A block is long against the switch from one worker to the next, and short against the disturbances of a machine.
BLOCK_SECONDS = 0.1
#: Blocks are shorter where seconds or runs are few, so that this many rounds fit.
_ROUNDS_PLANNED = 10
#: A network that is slower than this is warm after its first run.
_WARMUP_SECONDS_MAX = 1.0
#: The first run of a block warms caches that the others have used meanwhile; longer runs than this do that themselves.
_DISCARD_BELOW_SECONDS = 0.5
#: A bootstrap costs some 30 ms: it is done after every fifth round only.
_ROUNDS_PER_CHECK = 5
#: Part of `max_seconds` that the file -> arrays and outputs -> result stages may take, each, and its limit in seconds.
_STAGE_PART, _STAGE_SECONDS_MAX = 0.1, 1.0
#: A block may take this many times longer than expected before its worker counts as hung.
_PATIENCE = 20.0


@dataclass(eq=False)
class Entry:
    """One bundle of a group, with what was measured so far.

    Attributes:
        bundle: What runs.
        name: Its name in results, unique within the call.
        inputs: File with its inputs.
        note: Where the inputs come from.
        photos: Files of the same samples, where they are photos.
        post: True where outputs -> result is to be timed.
        groups: Numbers of the groups in which it races; None where all are measured to the end.
        rounds: Times of each round in ms.
        left: Why it left the rounds before the others; "" where it did not.
    """

    bundle: Bundle
    name: str
    inputs: Path
    note: str = ""
    photos: tuple[Path, ...] = ()
    post: bool = False
    groups: tuple[int, ...] | None = None
    worker: WorkerProcess | None = None
    opened: dict[str, Any] = field(default_factory=dict)
    run_seconds: float = 0.0
    block_runs: int = 1
    rounds: list[list[float]] = field(default_factory=list)
    wall_seconds: float = 0.0
    machine_seconds: float = 0.0
    machine_used: telemetry.Counters | None = None
    worker_used: telemetry.Counters | None = None
    process: dict[str, Any] = field(default_factory=dict)
    running: list[float | str] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    enough: bool = False
    left: str = ""

    @property
    def runs(self) -> int:
        """Timed runs so far."""
        return sum(len(item) for item in self.rounds)

    def fresh(self) -> Entry:
        """The same bundle and inputs with nothing measured."""
        return Entry(
            bundle=self.bundle, name=self.name, inputs=self.inputs, note=self.note, photos=self.photos, post=self.post,
            groups=self.groups,
        )  # fmt: skip

    def ask(self, request: dict[str, Any], *, timeout: float) -> dict[str, Any]:
        """The worker's reply."""
        assert self.worker is not None
        return self.worker.ask(request, timeout=timeout)


Lose = Callable[[Entry, EdgewrightError], None]


def measure(
    entries: Sequence[Entry], threads: int, plan: BenchPlan, folder: Path, *, lose: Lose, progress: Progress
) -> None:
    """Measure all `entries` at `threads` threads; the workers live only as long as this call.

    Args:
        entries: Filled in place.
        threads: Threads of each runtime.
        plan: When it is enough.
        folder: For the workers' logs.
        lose: Called for an entry whose worker failed; it raises to end everything, or returns to go on without it.
        progress: Told after every round.
    """
    with ExitStack() as stack:
        living: list[Entry] = []
        for entry in entries:
            entry.worker = WorkerProcess(entry.name, threads=threads, folder=folder)
            stack.callback(entry.worker.close)
            if _attempt(entry, partial(_open, entry, threads, plan), lose):
                living.append(entry)
        living = _interleave(living, threads, plan, lose, progress)
        for entry in living:
            _attempt(entry, partial(_stages, entry, plan, living), lose)


def _attempt(entry: Entry, step: Callable[[], None], lose: Lose) -> bool:
    """True where `step` succeeded; a worker that failed is ended at once, for its memory."""
    try:
        step()
    except EdgewrightError as error:
        assert entry.worker is not None
        entry.worker.close()
        entry.rounds = []
        lose(entry, error)
        return False
    return True


def _open(entry: Entry, threads: int, plan: BenchPlan) -> None:
    """Open the bundle in its worker, warm it up and choose the length of its blocks."""
    request = {"do": "open", "bundle": str(entry.bundle.path), "threads": threads, "inputs": str(entry.inputs)}
    entry.opened = entry.ask(request, timeout=plan.timeout_seconds)
    if entry.opened["hash"] != entry.bundle.hash:
        raise EdgewrightError("E220", f"bundle `{entry.bundle.path}` was replaced by another one meanwhile")
    seconds = entry.opened["first_run_ms"] / 1000
    spent = seconds
    for _ in range(plan.warmup):
        if spent > min(_WARMUP_SECONDS_MAX, plan.max_seconds):
            break
        reply = entry.ask({"do": "block", "runs": 1, "discard": 0}, timeout=plan.timeout_seconds)
        seconds = min(seconds, reply["times_ms"][0] / 1000)
        spent += reply["wall_seconds"]
    entry.run_seconds = max(seconds, 1e-6)
    most = min(plan.max_runs, plan.max_seconds / entry.run_seconds) / _ROUNDS_PLANNED
    entry.block_runs = max(1, math.floor(min(most, BLOCK_SECONDS / entry.run_seconds)))


def _interleave(entries: list[Entry], threads: int, plan: BenchPlan, lose: Lose, progress: Progress) -> list[Entry]:
    """Run rounds until every entry has enough, all that race to the end: ratios need common rounds."""
    rng = np.random.default_rng((plan.seed, threads))
    living, active, rounds = list(entries), list(entries), 0
    task = f"benchmark, {threads} thread{'s' if threads > 1 else ''}"
    while active and not all(entry.enough for entry in active):
        for index in rng.permutation(len(active)):
            entry = active[index]
            if not _attempt(entry, partial(_block, entry, plan), lose):
                living.remove(entry)
        rounds += 1
        for entry in living:
            entry.enough = entry.enough or _spent(entry, plan)
            if rounds % _ROUNDS_PER_CHECK == 0 and not entry.enough:
                entry.enough = _precise(entry, plan, plan.half_width)
        _thin_out(living, plan)
        active = [entry for entry in living if not (entry.left or _spent(entry, plan))]
        if active:
            progress.update(task, round(100 * np.mean([_part_done(entry, plan) for entry in living])), 100)
    progress.update(task, 100, 100)
    return living


def _thin_out(entries: Sequence[Entry], plan: BenchPlan) -> None:
    """Let those leave that need not be known any better: clearly slower in every group, or in none, and roughly known."""
    racing = [entry for entry in entries if entry.groups is not None and not entry.left]
    fastest: dict[int, Entry] = {}
    for number in {number for entry in racing for number in entry.groups or ()}:
        group = [entry for entry in racing if number in (entry.groups or ())]
        fastest[number] = group[statistics.fastest([entry.rounds for entry in group])]
    for entry in racing:
        rivals = [fastest[number] for number in entry.groups or ()]
        out = all(race.clearly_slower(entry.rounds, rival.rounds) for rival in rivals)
        if out and _precise(entry, plan, plan.rough_half_width):
            entry.left = f"clearly slower than {rivals[0].name}" if rivals else "not among those to choose from"
            entry.enough = True


def _block(entry: Entry, plan: BenchPlan) -> None:
    discard = int(entry.run_seconds < _DISCARD_BELOW_SECONDS)
    patience = plan.timeout_seconds + _PATIENCE * (entry.block_runs + discard) * entry.run_seconds
    reply = entry.ask({"do": "block", "runs": entry.block_runs, "discard": discard}, timeout=patience)
    entry.rounds.append(reply["times_ms"])
    entry.wall_seconds += reply["wall_seconds"]
    entry.machine_seconds += reply["machine_seconds"]
    entry.machine_used = telemetry.add(entry.machine_used, reply["machine"])
    entry.worker_used = telemetry.add(entry.worker_used, reply["worker"])
    entry.process = reply["process"]
    entry.running.append(reply["running"])


def _stages(entry: Entry, plan: BenchPlan, others: Sequence[Entry]) -> None:
    """Time file -> arrays and outputs -> result; the former once for all of one Spec, whose code and photos are the same."""
    if not plan.pre_post or not (entry.photos or entry.post):
        return
    alike = (item for item in others if item.inputs == entry.inputs and item.bundle.spec == entry.bundle.spec)
    known = next((item.stages["pre_ms"] for item in alike if "pre_ms" in item.stages), None)
    request = {
        "do": "stages",
        "seconds": min(_STAGE_SECONDS_MAX, _STAGE_PART * plan.max_seconds),
        "photos": [str(path) for path in entry.photos] if known is None else [],
        "post": entry.post,
    }
    entry.stages = entry.ask(request, timeout=plan.timeout_seconds)
    if known is not None:
        entry.stages["pre_ms"] = known


def _spent(entry: Entry, plan: BenchPlan) -> bool:
    return entry.wall_seconds >= plan.max_seconds or entry.runs >= plan.max_runs


def _precise(entry: Entry, plan: BenchPlan, half_width: float) -> bool:
    few = entry.runs < plan.min_runs or entry.wall_seconds < plan.min_seconds
    if few or len(entry.rounds) < statistics.ROUNDS_MIN:
        return False
    return statistics.half_width(statistics.summarize(entry.rounds, seed=plan.seed)) <= half_width


def _part_done(entry: Entry, plan: BenchPlan) -> float:
    if entry.enough:
        return 1.0
    return min(1.0, max(entry.wall_seconds / plan.max_seconds, entry.runs / plan.max_runs))
