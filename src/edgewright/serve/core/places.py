"""Bundles in folders: which there are, under which names and versions, and whether one has changed.

DIR/bundle.json                      model DIR, version 1
DIR/NAME/bundle.json                 model NAME, version 1
DIR/NAME/3/bundle.json               model NAME, version 3
DIR/NAME/3/openvino/bundle.json      model NAME@openvino, version 3; NAME itself is one of its kind
DIR/NAME/openvino/bundle.json        the same in version 1

A `pipeline.toml` in the place of a `bundle.json` makes one model of the bundles beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgewright.bundle import EVIDENCE, MANIFEST, PIPELINE
from edgewright.errors import EdgewrightError

#: What a folder of one bundle may hold; more is no bundle that edgewright made.
_MOST_FILES = 10_000
Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Place:
    """Where a bundle lies.

    Attributes:
        model: The model's name, without a variant.
        version: From 1 on.
        variant: Which of several bundles of that version; "" where there is one.
        path: The bundle's folder.
    """

    model: str
    version: int
    variant: str
    path: Path

    @property
    def name(self) -> str:
        """The name that asks for this very bundle."""
        return f"{self.model}@{self.variant}" if self.variant else self.model


def find_places(folder: Path) -> list[Place]:
    """The bundles in `folder`, by name, version and variant. Hidden folders, as those of a bundle being written, are not.

    Raises:
        EdgewrightError: E104 where the folder cannot be read.
    """
    try:
        if _is_bundle(folder):
            return [Place(folder.resolve().name, 1, "", folder)]
        found = [place for child in _folders(folder) for place in _of_model(child)]
    except OSError as problem:
        raise EdgewrightError("E104", f"folder `{folder}` cannot be read: {problem.strerror}") from None
    return sorted(found, key=lambda place: (place.model, place.version, place.variant))


def stamp(folder: Path) -> Stamp:
    """Names, inodes, sizes and times of a bundle's files, evidence left out: it changes when they do.

    Raises:
        OSError: It cannot be read.
    """
    entries = []
    for path in _files(folder):
        status = path.stat()
        entries.append((str(path.relative_to(folder)), status.st_ino, status.st_size, status.st_mtime_ns))
        if len(entries) > _MOST_FILES:
            raise OSError(f"`{folder}` holds more than {_MOST_FILES} files")
    return tuple(sorted(entries))


def _of_model(folder: Path) -> Iterator[Place]:
    if _is_bundle(folder):
        yield Place(folder.name, 1, "", folder)
        return
    for child in _folders(folder):
        if not _is_number(child.name):
            if _is_bundle(child):
                yield Place(folder.name, 1, child.name, child)
        elif _is_bundle(child):
            yield Place(folder.name, int(child.name), "", child)
        else:
            for variant in _folders(child):
                if _is_bundle(variant):
                    yield Place(folder.name, int(child.name), variant.name, variant)


def _is_bundle(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() or (folder / PIPELINE).is_file()


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if not child.name.startswith(".") and child.is_dir())


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        if Path(root) == folder and EVIDENCE in folders:
            folders.remove(EVIDENCE)
        yield from (Path(root) / name for name in files)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and 0 < len(name) < 18 and int(name) > 0
