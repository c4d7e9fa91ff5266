"""bench: how fast bundles are, with intervals and a verdict on the measurement itself.

One worker process per bundle and thread count; the parent interleaves them and stops those that wait. This package owns
the only clocks of the code base.

    results = ew.bench([bundle, other], samples, ew.BenchPlan(threads=(1, 2)))
    print(table.markdown(results))
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright import registry
from edgewright.bench import inputs, telemetry
from edgewright.bench.plan import BenchPlan
from edgewright.bench.remote import Board, measure_there
from edgewright.bench.schedule import Entry
from edgewright.bench.sweep import OnFailure, check_threads, measure_all
from edgewright.bundle import Bundle
from edgewright.errors import EdgewrightError
from edgewright.model import TensorInfo
from edgewright.progress import SILENT, Progress
from edgewright.records import BenchResult

if TYPE_CHECKING:
    from edgewright.contracts import SampleSource

__all__ = ["BenchPlan", "Board", "bench"]

_DEFAULT_PLAN = BenchPlan()


def bench(
    bundles: Sequence[Bundle | str | Path] | Bundle | str | Path,
    samples: SampleSource | None = None,
    plan: BenchPlan = _DEFAULT_PLAN,
    *,
    race: Sequence[Collection[str]] = (),
    on: Board | str | None = None,
    keep: bool = True,
    on_failure: OnFailure | None = None,
    progress: Progress = SILENT,
) -> tuple[BenchResult, ...]:
    """Times of every bundle at every thread count of the plan, in this order: by thread count, then as given.

    All bundles of one thread count are measured interleaved, round by round in random order, on the judge samples (on
    seeded random arrays where there are none, and the telemetry says so). Each result is also added to its bundle's
    evidence. A name that occurs twice gets " #2".

    Args:
        bundles: Bundles or their folders.
        samples: Photos or arrays; only the role judge is read.
        plan: Thread counts and when it is enough.
        race: Groups of names, where only the fastest of each is looked for. A bundle that is clearly slower than the
            fastest in every group that it is in, or is in none, leaves the rounds once its median is known to the
            plan's `rough_half_width`; its interval is that much wider. Without groups all are measured to the end.
        on: Measure on this machine instead, `ssh://USER@HOST`; file -> arrays is not timed there (see `bench.remote`).
        keep: Add each result to its bundle's evidence.
        on_failure: Told of a bundle that cannot be measured, which is then left out of the results; by default the
            first failure ends the whole measurement.
        progress: Told after every round.

    Raises:
        EdgewrightError: E103 for no bundles or more threads than cores, E301 or E230 for samples that are missing or do
            not fit, E401 for a worker that died, E410, E411 or E412 for another machine that cannot be reached, lacks
            something or was lost, E2xx for a bundle that cannot be opened.
    """
    opened = _opened(bundles)
    if on is None:
        check_threads(plan, len(telemetry.available_cores()))  # before any input is made
    with tempfile.TemporaryDirectory(prefix="edgewright-bench-") as name:
        folder = Path(name)
        templates = _templates(opened, samples, plan, folder, race)
        if on is None:
            measured = measure_all(templates, plan, folder, on_failure=on_failure, progress=progress)
        else:
            board = on if isinstance(on, Board) else Board.parse(on)
            measured = measure_there(board, templates, plan, on_failure=on_failure, progress=progress)
    if keep:
        for bundle, result in measured:
            _keep(bundle, result, progress)
    return tuple(result for _, result in measured)


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, a repeated one with " #2", " #3" and so on."""
    found: list[str] = []
    for name in names:
        number, candidate = 1, name
        while candidate in found:
            number += 1
            candidate = f"{name} #{number}"
        found.append(candidate)
    return found


def _opened(bundles: Sequence[Bundle | str | Path] | Bundle | str | Path) -> tuple[Bundle, ...]:
    given = (bundles,) if isinstance(bundles, (Bundle, str, Path)) else tuple(bundles)
    if not given:
        raise EdgewrightError("E103", "no bundles were given to measure", hint="edgewright convert MODEL --out DIR")
    return tuple(item if isinstance(item, Bundle) else Bundle.open(item) for item in given)


def _templates(
    bundles: Sequence[Bundle],
    samples: SampleSource | None,
    plan: BenchPlan,
    folder: Path,
    race: Sequence[Collection[str]],
) -> tuple[Entry, ...]:
    """An entry per bundle, nothing measured yet; bundles with the same inputs share one file of arrays."""
    written: dict[tuple[TensorInfo, ...], inputs.Inputs] = {}
    entries = []
    for bundle, name in zip(bundles, unique_names([bundle.name for bundle in bundles]), strict=True):
        if bundle.inputs not in written:
            path = folder / f"inputs-{len(written)}.npz"
            written[bundle.inputs] = inputs.prepare(
                bundle.inputs, samples, path, limit=plan.max_samples, seed=plan.seed
            )
        own = written[bundle.inputs]
        photos = own.photos if bundle.spec.takes_photos else ()
        post = samples is not None and bool(registry.get("tasks", bundle.spec.task).METRIC)
        groups = tuple(number for number, names in enumerate(race) if name in names) if race else None
        entries.append(Entry(bundle, name, own.path, note=own.note, photos=photos, post=post, groups=groups))
    return tuple(entries)


def _keep(bundle: Bundle, result: BenchResult, progress: Progress) -> None:
    """Add the result to the bundle's evidence; a folder that cannot be written does not cost the measurement."""
    try:
        bundle.add_evidence("bench", result.to_json())
    except EdgewrightError as error:
        progress.note(f"the measurement of `{result.bundle_name}` is not kept in its bundle: {error.message}")
