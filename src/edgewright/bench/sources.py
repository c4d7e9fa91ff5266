"""What a sweep measures: bundles as they are, and models converted for every runtime that can run them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgewright import registry
from edgewright.bundle import Bundle
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.model import Model
from edgewright.progress import SILENT, Progress


def bundles_of(
    sources: Sequence[Bundle | Model], folder: Path, *, runtimes: Sequence[str] = (), progress: Progress = SILENT
) -> tuple[Bundle, ...]:
    """A bundle for each of `sources`: a Model becomes one per runtime, in `folder`, called MODEL-RUNTIME.

    Args:
        sources: Bundles, which stay as they are, and models, which are converted as they came.
        folder: Where converted models go.
        runtimes: Public names; by default those that are proposed for each model's operators.
        progress: Told which runtime cannot run a model, and why.

    Raises:
        EdgewrightError: E101 or E102 for a runtime, E210 for a model that none of them can run.
    """
    chosen = tuple(dict.fromkeys(runtimes))
    for name in chosen:
        registry.get("runtimes", name)
    found: list[Bundle] = []
    for number, source in enumerate(sources):
        if isinstance(source, Bundle):
            found.append(source)
        else:
            found += _converted(source, folder / str(number), chosen or registry.proposed(source.domains), progress)
    return tuple(found)


def _converted(model: Model, folder: Path, runtimes: Sequence[str], progress: Progress) -> list[Bundle]:
    made: list[Bundle] = []
    problems: list[EdgewrightError] = []
    for done, runtime in enumerate(runtimes):
        progress.update(f"convert {model.name}", done, len(runtimes))
        try:
            made.append(convert(model, runtime, folder / runtime, name=f"{model.name}-{runtime}"))
        except EdgewrightError as problem:
            if problem.code not in ("E210", "E211"):
                raise
            problems.append(problem)
            progress.note(f"`{model.name}` is not measured on {runtime}: {problem.message}")
    progress.update(f"convert {model.name}", len(runtimes), len(runtimes))
    if not made:
        raise problems[0]
    return made
