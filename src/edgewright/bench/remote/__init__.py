"""The same benchmark on another machine, over the system's ssh: copied there, measured there, removed again.

    results = ew.bench([bundle], on="ssh://pi@board.local")

One connection carries everything. `bootstrap.py` is sent as text and needs Python alone; it takes the modules that a
measurement imports (`package.py`) into a fresh temporary folder, and `agent.py` among them measures with the schedule and
the workers of a local benchmark. Records come back as JSON lines. The other machine needs Python, numpy and the
runtimes' packages, no edgewright and no onnx. It ends its workers and removes its folder when it is done, fails, or the
connection ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgewright.bench.plan import BenchPlan
from edgewright.bench.remote.board import Board
from edgewright.bench.remote.link import Link
from edgewright.bench.remote.package import package
from edgewright.bench.schedule import Entry
from edgewright.bench.sweep import OnFailure, check_threads
from edgewright.bundle import MANIFEST, Bundle
from edgewright.errors import EdgewrightError
from edgewright.progress import Progress
from edgewright.records import BenchResult
from edgewright.target import unmet

__all__ = ["Board", "measure_there"]

#: Space that must stay free on the other machine, beside what is copied: logs, and compiled modules.
_SPARE_BYTES = 32 * 2**20


def measure_there(
    board: Board, templates: Sequence[Entry], plan: BenchPlan, *, on_failure: OnFailure | None, progress: Progress
) -> list[tuple[Bundle, BenchResult]]:
    """Bundle and result of each entry at each thread count, measured on `board`.

    Raises:
        EdgewrightError: E103 for more threads than cores there, E410 to E412 for the machine and the connection, and what
            a local measurement raises.
    """
    runtimes = sorted({entry.bundle.runtime for entry in templates})
    tasks = sorted({entry.bundle.spec.task for entry in templates if entry.post})
    progress.update(f"connect to {board}", 0, 1)
    with Link(board) as link:
        progress.update(f"connect to {board}", 1, 1)
        link.send({"code": True}, package(runtimes, tasks))
        link.send({"check": {"runtimes": runtimes}})
        about = link.receive()["board"]
        files = _files(templates)
        _check(board, about, templates, plan, sum(path.stat().st_size for path in files.values()))
        _copy(link, files, progress)
        link.send({"run": _request(templates, plan, stop=on_failure is None)})
        return _results(link, templates, on_failure, progress)


def _files(templates: Sequence[Entry]) -> dict[str, Path]:
    """Path there -> file here."""
    files: dict[str, Path] = {}
    for entry in templates:
        for name in (MANIFEST, *entry.bundle.files):
            files[f"{_folder(entry, templates)}/{name}"] = entry.bundle.path / name
        files[f"inputs/{entry.inputs.name}"] = entry.inputs
    return files


def _folder(entry: Entry, templates: Sequence[Entry]) -> str:
    """Folder of the entry's bundle there: one for each bundle, however often it is measured."""
    paths = [item.bundle.path for item in templates]
    return f"bundles/{paths.index(entry.bundle.path)}"


def _request(templates: Sequence[Entry], plan: BenchPlan, *, stop: bool) -> dict[str, Any]:
    entries = [
        {
            "bundle": _folder(entry, templates),
            "name": entry.name,
            "inputs": f"inputs/{entry.inputs.name}",
            "note": entry.note,
            "post": entry.post,
            "groups": entry.groups,
        }
        for entry in templates
    ]
    return {"plan": asdict(plan), "entries": entries, "stop": stop}


def _check(board: Board, about: Mapping[str, Any], templates: Sequence[Entry], plan: BenchPlan, size: int) -> None:
    """Refuse what cannot work there, before anything large is copied.

    Raises:
        EdgewrightError: E411 for a missing package, an unmet CPU feature or too little space, E103 for too many threads.
    """
    if about["missing"]:
        packages = " ".join(about["missing"])
        raise EdgewrightError(
            "E411",
            f"`{board}` lacks the Python package{'s' if len(about['missing']) > 1 else ''} {packages}",
            hint=f"{board.login} {board.python} -m pip install {packages}",
        )
    check_threads(plan, about["cores"])
    for entry in templates:
        lacking = unmet(entry.bundle.cpu_features, about["cpu_features"])
        if lacking and about["cpu_features"]:
            needs = " and ".join(need.replace("|", " or ") for need in lacking)
            raise EdgewrightError(
                "E411",
                f"bundle `{entry.name}` was made for a CPU with {needs}, which `{board}` ({about['machine']}) lacks",
                hint="edgewright convert MODEL --out DIR --cpu NAME, with a CPU that `edgewright list` shows",
            )
    if size + _SPARE_BYTES > about["free_bytes"]:
        raise EdgewrightError(
            "E411",
            f"`{board}` has {about['free_bytes'] / 1e6:.0f} MB of space in its temporary folder, and "
            f"{(size + _SPARE_BYTES) / 1e6:.0f} MB are needed",
            hint="measure fewer bundles at once, or set TMPDIR there to a larger disk",
        )


def _copy(link: Link, files: Mapping[str, Path], progress: Progress) -> None:
    for done, (name, path) in enumerate(files.items()):
        progress.update(f"copy to {link.board}", done, len(files))
        link.send_file(name, path)
    progress.update(f"copy to {link.board}", len(files), len(files))


def _results(
    link: Link, templates: Sequence[Entry], on_failure: OnFailure | None, progress: Progress
) -> list[tuple[Bundle, BenchResult]]:
    """What the other machine measured."""
    measured: list[tuple[Bundle, BenchResult]] = []
    while True:
        event = link.receive()
        if "progress" in event:
            progress.update(*event["progress"])
        elif "note" in event:
            progress.note(str(event["note"]))
        elif "failed" in event:
            assert on_failure is not None
            on_failure(templates[event["failed"]].bundle, event["threads"], link.error(event["error"]))
        elif "result" in event:
            try:
                result = BenchResult.from_json(event["result"])
            except EdgewrightError as problem:
                raise link.lost(f"it sent a result that is none: {problem.message}") from None
            measured.append((templates[event["entry"]].bundle, result))
        elif "done" in event:
            return measured
