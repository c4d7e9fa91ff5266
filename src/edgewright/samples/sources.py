"""Where samples lie: the layouts that `Samples.open` recognises by looking, and the entries each one lists.

a folder of photos            sub-folders included; hidden files and other file types are passed over
  + labels.csv                the list of samples: columns file and label, class_index or class; optional: group, what
                              comes from one source, and role, which is then not drawn; without labels also these alone
  + class folders             sub-folders named by class, by class index, or as many as there are classes
  + leading class indices     every file name starts with one: 017_cat.jpg, 017.jpg
  + label files               where a task has such: cat.txt beside cat.jpg, or labels/cat.txt for images/cat.jpg; label
                              maps are pictures themselves, and lie in labels/ alone
one photo, or a .txt list     a list holds one path a line, inside its own folder
one .npz                      arrays [n, ...] by input name; optional `label` (or `labels`) and `group`
a folder of .npz              one sample each, shapes as the network takes them
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgewright.contracts import Role
from edgewright.errors import EdgewrightError
from edgewright.samples import images, labels
from edgewright.samples.labels import Label

#: What to do about labels: None looks for them, "none" ignores them, a path is a labels.csv.
LabelSource = str | Path | None

LAYOUTS = "photos (files, folders, class folders, labels.csv, a .txt list) or .npz (one file, or a folder of them)"


@dataclass(frozen=True)
class Entry:
    """One thing that may become a sample.

    Attributes:
        id: Name for people.
        path: The file.
        kind: What the file holds.
        row: Row of a stacked .npz, else None.
        label: Label as written, or None.
        group: Name of the content's source where the user gave one.
        role: Its role where the user gave one.
    """

    id: str
    path: Path
    kind: Literal["photo", "arrays"]
    row: int | None = None
    label: Label | None = None
    group: str | None = None
    role: Role | None = None


@dataclass(frozen=True)
class Found:
    """What lies at a path.

    Attributes:
        layout: How it was understood, for people.
        entries: In order of their ids.
        skipped: Things that were named but are not there, (id, reason).
        notes: What a user should know about how it was understood.
    """

    layout: str
    entries: tuple[Entry, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def find(
    path: Path, source: LabelSource, classes: Sequence[str] | None, *, prefer_photos: bool, label_suffix: str = ""
) -> Found:
    """What lies at `path`; a single .npz is one entry, whose rows the caller counts.

    Args:
        path: A file or folder.
        source: Where labels come from.
        classes: The network's class names; None where labels are not classes.
        prefer_photos: Whether the network takes photos, for folders that hold both kinds.
        label_suffix: Ending of label files that lie beside photos; "" where the task has none.

    Raises:
        EdgewrightError: E104 unreadable, E301 nothing known there, E305 labels that do not fit.
    """
    found = _look(path, source, prefer_photos=prefer_photos)
    if source == "none" or any(entry.label for entry in found.entries):
        return found
    if source is not None:
        if any(entry.row is not None for entry in found.entries):
            raise EdgewrightError(
                "E305", f"`{display(path)}` carries its labels in an array `label`, not in `{source}`"
            )
        return _with_table(found, _folder(path), Path(source))
    if path.is_dir() and (path / "labels.csv").is_file():
        return _with_table(found, path, path / "labels.csv")
    if path.suffix.lower() == ".npz" or not found.entries:
        return found
    if label_suffix:
        return _with_label_files(found, label_suffix)
    if classes is None:
        return found
    return _with_names(found, path, classes)


def display(path: Path | str) -> str:
    """A path as text that can be printed whatever bytes its name has, with forward slashes."""
    return os.fsencode(path).decode("utf-8", "replace").replace(os.sep, "/")


def _look(path: Path, source: LabelSource, *, prefer_photos: bool) -> Found:
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            return _look_in_folder(path, prefer_photos=prefer_photos)
        if not path.is_file():
            raise EdgewrightError("E104", f"samples `{display(path)}` do not exist", hint="ls")
        if suffix == ".npz":
            return Found("one .npz", (Entry(display(path.name), path, "arrays", row=-1),))
        if suffix in images.SUFFIXES:
            return Found("one photo", (Entry(display(path.name), path, "photo"),))
        if suffix == ".txt":
            return _look_in_list(path)
        if suffix == ".csv":
            return _with_table(_look(path.parent, source, prefer_photos=prefer_photos), path.parent, path)
    except OSError as problem:
        raise EdgewrightError("E104", f"samples `{display(path)}` cannot be read: {problem.strerror}") from None
    raise EdgewrightError("E301", f"`{display(path)}` is no samples file", details=(f"known: {LAYOUTS}",))


def _look_in_folder(folder: Path, *, prefer_photos: bool) -> Found:
    photos, archives, others = [], [], 0
    for file in _walk(folder):
        suffix = file.suffix.lower()
        if suffix in images.SUFFIXES:
            photos.append(file)
        elif suffix == ".npz":
            archives.append(file)
        else:
            others += 1
    if not photos and not archives:
        raise EdgewrightError(
            "E301",
            f"folder `{display(folder)}` holds no samples ({others} other files)",
            details=(f"known: {LAYOUTS}",),
        )
    take_photos = bool(photos) and (prefer_photos or not archives)
    files, kind, other = (photos, "photo", archives) if take_photos else (archives, "arrays", photos)
    notes = (f"{len(other)} files of another kind in the folder are not used",) if other else ()
    what = "photos" if take_photos else ".npz files"
    return Found(
        f"folder of {len(files)} {what}", _entries(files, folder, "photo" if kind == "photo" else "arrays"), (), notes
    )


def _walk(folder: Path) -> list[Path]:
    """Regular files below `folder` in order of their paths, hidden ones left out, links to folders not followed."""

    def refuse(problem: OSError) -> None:
        raise problem

    files = []
    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.is_file() or file.is_symlink())


def _entries(files: Iterable[Path], folder: Path, kind: Literal["photo", "arrays"]) -> tuple[Entry, ...]:
    return tuple(Entry(display(file.relative_to(folder)), file, kind) for file in files)


def _look_in_list(path: Path) -> Found:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise EdgewrightError("E301", f"list `{display(path)}` is not UTF-8 text") from None
    entries, skipped = [], []
    for line in dict.fromkeys(line.strip() for line in lines):
        if not line or line.startswith("#"):
            continue
        file, reason = _inside(path.parent, line)
        if reason or file is None:
            skipped.append((line, reason))
        else:
            entries.append(Entry(line, file, "arrays" if file.suffix.lower() == ".npz" else "photo"))
    if not entries and not skipped:
        raise EdgewrightError("E301", f"list `{display(path)}` names no files")
    if len({entry.kind for entry in entries}) > 1:
        raise EdgewrightError("E301", f"list `{display(path)}` names photos and .npz files, but must hold one kind")
    return Found(f"list of {len(entries) + len(skipped)} files", tuple(entries), tuple(skipped))


def _inside(folder: Path, name: str) -> tuple[Path | None, str]:
    """The file that `name` means, or why there is none; never outside `folder` by the name alone."""
    relative = os.path.normpath(name.replace("\\", "/"))
    if Path(relative).is_absolute() or relative.split("/")[0] == ".." or "\0" in name:
        return None, "lies outside the folder of the list"
    file = folder / relative
    return (file, "") if file.is_file() else (None, "does not exist")


def _with_table(found: Found, folder: Path, table_path: Path) -> Found:
    """The samples that a labels.csv lists; the table is the list, so all samples have labels or none."""
    table = labels.read_table(table_path)
    by_path = {_key(entry.path): entry for entry in found.entries}
    rows: dict[str, labels.Row] = {}
    skipped = list(found.skipped)
    for row in table.rows:
        before = rows.setdefault(row.file, row)
        if before.label and row.label and before.label.text != row.label.text:
            raise EdgewrightError(
                "E305",
                f"{row.label.where}: `{row.file}` is {row.label.text!r}, but {before.label.where} says "
                f"{before.label.text!r}",
            )
    entries = []
    for name, row in rows.items():
        file, reason = _inside(folder, name)
        if file is None:
            file = _inside(table_path.parent, name)[0]
        entry = by_path.get(_key(file)) if file else None
        if entry is None:
            skipped.append((name, reason or "is not a sample file"))
        elif row.label and not row.label.text:
            skipped.append((name, "has no label"))
        else:
            entries.append(replace(entry, label=row.label, group=row.group, role=row.role))
    notes = list(found.notes)
    if table.unused:
        notes.append(f"{display(table_path.name)}: columns not used: {', '.join(table.unused)}")
    verb = "label" if any(entry.label for entry in entries) else "group" if any(e.group for e in entries) else "role"
    left_out = len(found.entries) - len({entry.path for entry in entries})
    if left_out > 0:
        notes.append(f"{left_out} files that {display(table_path.name)} does not name are left out")
    entries.sort(key=lambda entry: entry.path)
    return Found(
        f"{found.layout}, {verb}s from {display(table_path.name)}", tuple(entries), tuple(skipped), tuple(notes)
    )


def _with_names(found: Found, path: Path, classes: Sequence[str]) -> Found:
    """Labels from class folders or from leading class indices, where the names are such."""
    if path.is_dir():
        parts = [entry.path.relative_to(path).parts for entry in found.entries]
        if all(len(names) > 1 for names in parts):
            by_folder = labels.from_folders(sorted({names[0] for names in parts}), classes)
            if by_folder:
                table, how = by_folder
                pairs = zip(found.entries, parts, strict=True)
                entries = tuple(replace(entry, label=table[names[0]]) for entry, names in pairs)
                return replace(found, layout=f"{found.layout}, labels from {how}", entries=entries)
    by_name = labels.from_file_names([entry.path.name for entry in found.entries], classes) if classes else None
    if by_name is None:
        return found
    entries = tuple(replace(entry, label=label) for entry, label in zip(found.entries, by_name, strict=True))
    note = "labels are the class indices that every file name starts with; --labels none turns that off"
    layout = f"{found.layout}, labels from leading class indices"
    return replace(found, layout=layout, entries=entries, notes=(*found.notes, note))


def _with_label_files(found: Found, suffix: str) -> Found:
    """Labels from files that are named as the photos are; photos without one stay unlabelled."""
    entries = tuple(
        replace(entry, label=_label_file(entry.path, suffix)) if entry.kind == "photo" else entry
        for entry in found.entries
    )
    without = sum(entry.label is None for entry in entries)
    if without == len(entries):
        return found
    notes = found.notes
    if without:
        empty = "" if suffix in images.SUFFIXES else "; an empty file says that nothing is there"
        notes = (*notes, f"photos without a {suffix} file stay unlabelled ({without}){empty}")
    return replace(found, layout=f"{found.layout}, labels from {suffix} files", entries=entries, notes=notes)


def _label_file(photo: Path, suffix: str) -> Label | None:
    """The label file of a photo: beside it, or in the folder `labels` that stands beside its folder `images`.

    A map beside the photo would be a photo too, so maps are looked for in `labels` alone.
    Source: the layout that YOLO's trainers read (Darknet, Ultralytics).
    """
    candidates = [] if suffix in images.SUFFIXES else [photo.with_suffix(suffix)]
    parts = photo.parts
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        candidates.append(Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(suffix))
    file = next((path for path in candidates if path.is_file()), None)
    if file is None:
        return None
    return Label(file.name, f"`{display(file.parent.name)}/{display(file.name)}`", folder=file.parent)


def _key(path: Path) -> str:
    """What two spellings of one path share; links are not followed, because two links are two samples."""
    return os.path.normpath(path.absolute())


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent
