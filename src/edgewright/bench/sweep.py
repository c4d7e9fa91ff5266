"""A sweep: the same entries measured at every thread count of a plan, on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgewright.bench import machine, telemetry
from edgewright.bench.outcome import results_of
from edgewright.bench.plan import BenchPlan
from edgewright.bench.schedule import Entry, measure
from edgewright.bundle import Bundle
from edgewright.errors import EdgewrightError
from edgewright.progress import Progress
from edgewright.records import BenchResult

#: Told of a bundle that could not be measured: (bundle, threads, error).
OnFailure = Callable[[Bundle, int, EdgewrightError], None]


def measure_all(
    templates: Sequence[Entry],
    plan: BenchPlan,
    folder: Path,
    *,
    on_failure: OnFailure | None,
    progress: Progress,
) -> list[tuple[Bundle, BenchResult]]:
    """Bundle and result of each entry at each thread count, those left out that could not be measured.

    Raises:
        EdgewrightError: E103 for more threads than cores; without `on_failure` what the first failure raised.
    """
    check_threads(plan, len(telemetry.available_cores()))
    measured: list[tuple[Bundle, BenchResult]] = []
    for threads in plan.threads:
        measured += _measure_group(
            templates, threads, plan=plan, folder=folder, on_failure=on_failure, progress=progress
        )
    return measured


def check_threads(plan: BenchPlan, cores: int) -> None:
    """Refuse to run more threads than there are cores.

    Raises:
        EdgewrightError: E103.
    """
    if max(plan.threads) > cores:
        raise EdgewrightError(
            "E103", f"`threads` is {max(plan.threads)}, but only {cores} cores may be used", hint=f"--threads {cores}"
        )


def _measure_group(
    templates: Sequence[Entry],
    threads: int,
    *,
    plan: BenchPlan,
    folder: Path,
    on_failure: OnFailure | None,
    progress: Progress,
) -> list[tuple[Bundle, BenchResult]]:
    """Bundle and result of those that could be measured at `threads` threads."""
    entries = [entry.fresh() for entry in templates]
    lost: list[Entry] = []

    def lose(entry: Entry, error: EdgewrightError) -> None:
        if on_failure is None:
            raise error
        on_failure(entry.bundle, threads, error)
        lost.append(entry)

    roof = _roof(threads, progress) if plan.roofline else None
    before = telemetry.state()
    measure(entries, threads, plan, folder, lose=lose, progress=progress)
    about = {"before": before, "after": telemetry.state(), "machine": telemetry.machine()}
    kept = [entry for entry in entries if entry not in lost]
    return list(zip([entry.bundle for entry in kept], results_of(kept, threads, plan, about, roof), strict=True))


def _roof(threads: int, progress: Progress) -> machine.Roof | None:
    """What this machine can do at most; times do without it where it cannot be measured."""
    try:
        return machine.roof(threads)
    except EdgewrightError as problem:
        progress.note(f"the roofline is left out: {problem.message}")
        return None
