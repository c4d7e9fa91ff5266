"""Opening samples: every entry is hashed and proven readable, or named with the reason why it is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgewright import registry
from edgewright.contracts import Role
from edgewright.errors import EdgewrightError
from edgewright.model import GROUP_DIGITS, TensorInfo
from edgewright.progress import Progress
from edgewright.samples import images, labels, sources
from edgewright.samples.archives import Archive
from edgewright.samples.images import BrokenSampleError
from edgewright.samples.loading import Loader
from edgewright.samples.roles import named_group, role_of
from edgewright.samples.sources import Entry, Found, LabelSource, display
from edgewright.spec import Spec

_NAMED_IN_ERROR = 5
_STEP = "reading samples"


@dataclass(frozen=True)
class Reading:
    """How to open samples; `Samples.open` documents the fields."""

    roles: Literal["hash"] | Role
    labels: LabelSource
    limit: int | None
    min_readable: float
    seed: int
    progress: Progress


@dataclass(frozen=True)
class Item:
    """A sample that can be loaded.

    Attributes:
        entry: Where it lies.
        content: SHA-256 (hex) of its own content.
        group: Start of the SHA-256 (hex) of its source: the content, or the source's name where labels give one.
        role: Its role.
        label: As the task's metric takes it, or None.
        stamp: Size and modification time of its file when it was hashed.
    """

    entry: Entry
    content: str
    group: str
    role: Role
    label: Any
    stamp: tuple[int, int]


def read(
    path: Path, spec: Spec, inputs: tuple[TensorInfo, ...], outputs: Sequence[TensorInfo], reading: Reading
) -> tuple[Loader, list[Item], Found]:
    """The usable samples at `path`, and what was found there, with those that were skipped.

    Raises:
        EdgewrightError: As `Samples.open`.
    """
    task = registry.get("tasks", spec.task)
    loader = Loader(spec, inputs)
    if not task.METRIC:
        if reading.labels not in (None, "none"):
            raise EdgewrightError("E305", f"task `{spec.task}` has no metric, so labels cannot be used")
        reading = replace(reading, labels="none")
    classes = task.classes(spec, outputs)
    suffix = getattr(task, "LABEL_SUFFIX", "")
    found = sources.find(path, reading.labels, classes, prefer_photos=spec.takes_photos, label_suffix=suffix)
    found = _unstack(found, loader, with_labels=reading.labels != "none")
    if any(entry.kind == "photo" for entry in found.entries):
        loader.photo_input()
    for note in (found.layout, *found.notes):
        reading.progress.note(f"samples: {note}")
    items, skipped = _scan(found.entries, loader, _label_reader(task, spec, classes), reading)
    found = replace(found, skipped=(*found.skipped, *skipped))
    _require_enough(path, len(items), found.skipped, reading.min_readable)
    return loader, items, found


def stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in ns of a file.

    Raises:
        BrokenSampleError: It is gone.
    """
    try:
        status = path.stat()
    except OSError as problem:
        raise BrokenSampleError(f"cannot be read: {problem.strerror}") from None
    return status.st_size, status.st_mtime_ns


def _unstack(found: Found, loader: Loader, *, with_labels: bool) -> Found:
    """The rows of a single .npz as entries of their own."""
    if not any(entry.row is not None for entry in found.entries):
        return found
    (entry,) = found.entries
    try:
        archive = loader.stack(entry.path)
        count = loader.rows(archive)
        marks, groups = loader.side_arrays(archive, count)
    except BrokenSampleError as problem:
        raise EdgewrightError("E301", f"`{display(entry.path)}` {problem}") from None
    entries = tuple(
        replace(entry, id=f"{entry.id}[{row}]", row=row, label=marks[row] if with_labels else None, group=groups[row])
        for row in range(count)
    )
    return replace(found, layout=f"one .npz of {count} samples", entries=entries)


def _label_reader(task: Any, spec: Spec, classes: Sequence[str] | None) -> Callable[[Entry], Any]:
    """A function from an entry to its label, mapped into the network's input where the task does that."""
    read_text = labels.reader(task, spec, classes)
    place = getattr(task, "place_label", None)

    def read_label(entry: Entry) -> Any:
        if entry.label is None:
            return None
        label = read_text(entry.label)
        if place is None or entry.kind != "photo":
            return label
        return place(label, images.photo_size(entry.path), spec)

    return read_label


def _scan(
    entries: Sequence[Entry], loader: Loader, read_label: Callable[[Entry], Any], reading: Reading
) -> tuple[list[Item], list[tuple[str, str]]]:
    total = min(len(entries), reading.limit or len(entries))
    order = list(range(len(entries)))
    if total < len(entries):
        order = np.random.default_rng(reading.seed).permutation(len(entries)).tolist()
    usable: dict[int, Item] = {}
    skipped: list[tuple[str, str]] = []
    for index in order:
        if len(usable) == total:
            break
        try:
            usable[index] = _item(entries[index], loader, read_label, reading)
        except BrokenSampleError as problem:
            skipped.append((entries[index].id, str(problem)))
        reading.progress.update(_STEP, len(usable), total)
    found = [usable[index] for index in sorted(usable)]
    _require_one_role(found)
    return found, skipped


def _item(entry: Entry, loader: Loader, read_label: Callable[[Entry], Any], reading: Reading) -> Item:
    before = stamp(entry.path)
    if entry.kind == "arrays" and entry.row is None:
        entry = _with_side_arrays(entry, loader, with_labels=reading.labels != "none")
    content = loader.content(entry)
    group = (named_group(entry.group) if entry.group else content)[:GROUP_DIGITS]
    role = (entry.role or role_of(group)) if reading.roles == "hash" else reading.roles
    return Item(entry, content, group, role, read_label(entry), before)


def _require_one_role(items: Sequence[Item]) -> None:
    """Refuse roles by hand that let one source make a file and judge it."""
    first: dict[str, Item] = {}
    for item in items:
        other = first.setdefault(item.group, item)
        if other.role != item.role:
            raise EdgewrightError(
                "E305",
                f"`{other.entry.id}` has the role {other.role} and `{item.entry.id}` the role {item.role}, "
                "but both come from one source: what made a file cannot judge it",
            )


def _with_side_arrays(entry: Entry, loader: Loader, *, with_labels: bool) -> Entry:
    """The entry with the label and group that its own .npz holds, unless they were given from outside."""
    archive = Archive(entry.path)
    try:
        (label,), (group,) = loader.side_arrays(archive, 1)
    finally:
        archive.close()
    return replace(entry, label=entry.label or (label if with_labels else None), group=entry.group or group)


def _require_enough(path: Path, usable: int, skipped: Sequence[tuple[str, str]], min_readable: float) -> None:
    total = usable + len(skipped)
    if usable and usable >= min_readable * total:
        return
    details = tuple(f"`{name}` {reason}" for name, reason in skipped[:_NAMED_IN_ERROR])
    if len(skipped) > _NAMED_IN_ERROR:
        details = (*details, f"and {len(skipped) - _NAMED_IN_ERROR} more")
    if not usable:
        raise EdgewrightError("E301", f"none of the {total} samples at `{display(path)}` can be used", details=details)
    raise EdgewrightError(
        "E302",
        f"only {usable} of {total} samples at `{display(path)}` can be used, less than {min_readable:.0%}",
        details=details,
    )
