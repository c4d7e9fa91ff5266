"""What measures on the other machine: the schedule and the workers of a local benchmark, told over the connection."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewright import registry
from edgewright.bench import telemetry
from edgewright.bench.plan import BenchPlan
from edgewright.bench.remote.bootstrap import Channel
from edgewright.bench.schedule import Entry
from edgewright.bench.sweep import measure_all
from edgewright.bundle import Bundle
from edgewright.errors import EdgewrightError
from edgewright.target import host_features


class _Told:
    """Progress that is told over the connection."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def update(self, task: str, done: int, total: int | None) -> None:
        self._channel.reply(progress=[task, int(done), total])

    def note(self, message: str) -> None:
        self._channel.reply(note=message)


def run(channel: Channel, check: Mapping[str, Any]) -> None:
    """Say what this machine is, take the bundles, measure, and send one record each."""
    channel.reply(board=about(check["runtimes"], channel.folder))
    request = channel.receive()["run"]
    channel.end_with_connection()
    try:
        measured = _measure(channel, request)
    except EdgewrightError as problem:
        channel.reply(error=problem.to_json())
        return
    for entry, result in measured:
        channel.reply(entry=entry, result=result)
    channel.reply(done=True)


def about(runtimes: list[str], folder: Path) -> dict[str, Any]:
    """What decides whether the bundles can be measured here."""
    return {
        "missing": sorted({package for name in runtimes for package in _missing(name)}),
        "machine": platform.machine(),
        "cpu_features": list(host_features()),
        "cores": len(telemetry.available_cores()),
        "free_bytes": shutil.disk_usage(folder).free,
    }


def _missing(runtime: str) -> list[str]:
    """Packages that the runtime lacks here; one that needs no extra is asked for its version."""
    plugin = registry.peek("runtimes", runtime)
    absent = list(registry.missing(plugin.EXTRA))
    if not absent:
        try:
            plugin.version()
        except ModuleNotFoundError as problem:  # PackageNotFoundError is one, too
            absent.append(problem.name or runtime)
    return absent


def _measure(channel: Channel, request: Mapping[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """Number of the entry and its record."""
    folder = channel.folder
    plan = BenchPlan(**{**request["plan"], "threads": tuple(request["plan"]["threads"])})
    entries = [_entry(folder, item) for item in request["entries"]]
    places = {id(entry.bundle): place for place, entry in enumerate(entries)}

    def tell(bundle: Bundle, threads: int, problem: EdgewrightError) -> None:
        channel.reply(failed=places[id(bundle)], threads=threads, error=problem.to_json())

    logs = folder / "logs"
    logs.mkdir()
    os.environ["TMPDIR"] = str(folder)  # what libraries leave behind goes with the folder
    measured = measure_all(entries, plan, logs, on_failure=None if request["stop"] else tell, progress=_Told(channel))
    return [(places[id(bundle)], result.to_json()) for bundle, result in measured]


def _entry(folder: Path, item: Mapping[str, Any]) -> Entry:
    return Entry(
        bundle=Bundle.open(folder / item["bundle"]),
        name=item["name"],
        inputs=folder / item["inputs"],
        note=item["note"],
        post=item["post"],
        groups=None if item["groups"] is None else tuple(item["groups"]),
    )
