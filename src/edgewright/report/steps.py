"""Steps in the histories of a run's bundles, each with the candidates that hold its result."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from edgewright.bundle import Bundle
from edgewright.errors import EdgewrightError, EdgewrightWarning
from edgewright.model import Step
from edgewright.records import Candidate, DeployOutcome


def steps(
    outcome: DeployOutcome, run: Path, wanted: Callable[[Candidate, Step], bool]
) -> list[tuple[Step, list[Candidate]]]:
    """The wanted steps of the run in folder `run`, each once, those of the chosen candidate first.

    `wanted` sees steps whose stats are a mapping. A bundle that was moved away or altered costs its own steps only.
    """
    found: dict[str, tuple[Step, list[Candidate]]] = {}
    for item in sorted(outcome.candidates, key=lambda item: item.name != outcome.chosen):  # stable: fastest first
        for step in _history(item, run):
            if isinstance(step.stats, Mapping) and wanted(item, step):
                key = json.dumps([step.name, step.config, step.stats], sort_keys=True, default=str)
                found.setdefault(key, (step, []))[1].append(item)
    return list(found.values())


def _history(item: Candidate, run: Path) -> tuple[Step, ...]:
    if item.bundle is None or item.state == "failed":
        return ()
    try:
        with warnings.catch_warnings():  # the page may be made on another machine than the one it tells of
            warnings.simplefilter("ignore", EdgewrightWarning)
            return tuple(Bundle.open(run / item.bundle).history)
    except EdgewrightError:
        return ()
