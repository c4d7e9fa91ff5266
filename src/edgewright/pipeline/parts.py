"""What a pipeline is made of, in Python or in a file `pipeline.toml` beside its bundles."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewright.bundle import MANIFEST, PIPELINE, Bundle
from edgewright.errors import EdgewrightError
from edgewright.options import build
from edgewright.session import Network
from edgewright.session import open as open_session

FILE = PIPELINE
_LARGEST_BYTES = 2**20
_MOST_PARTS = 64


@dataclass(frozen=True)
class Part:
    """One network of a pipeline.

    Attributes:
        bundle: The bundle, or its folder; in a file, a folder beside that file, by default of the part's name.
        inputs: Where its inputs come from: its own name -> "PART.TENSOR", an output of a part before it. Inputs that are
            not named here are inputs of the pipeline.
        each: A part before it that finds boxes in the photo: this one sees each of them, cut out.
        margin: Part of a box's sides that is added at each side of it.
        labels: Only boxes of these classes; all where empty.
        most: Boxes at most, the best.
        max_batch: Boxes that run together, where the network computes each by itself.
    """

    bundle: str | Path | Bundle = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    each: str = ""
    margin: float = 0.0
    labels: tuple[str, ...] = ()
    most: int = 100
    max_batch: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 2:
            raise EdgewrightError("E103", f"`margin` is {self.margin}, but must be 0 to 2")
        for name, limit in (("most", 10_000), ("max_batch", 1024)):
            if not 1 <= getattr(self, name) <= limit:
                raise EdgewrightError("E103", f"`{name}` is {getattr(self, name)}, but must be 1 to {limit}")


@dataclass(frozen=True)
class _Written:
    """A part as a file has it: `bundle` is text."""

    bundle: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    each: str = ""
    margin: float = 0.0
    labels: tuple[str, ...] = ()
    most: int = 100
    max_batch: int = 16


def read(folder: Path) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Parts and outputs as `pipeline.toml` in a folder has them; every bundle lies in that folder.

        outputs = ["read.text"]     # for pipelines of tensors: which; by default those that no part reads
        [parts.find]
        [parts.read]
        each = "find"

    Raises:
        EdgewrightError: E104 where it cannot be read, E103 where it is malformed or leads out of the folder.
    """
    path = folder / FILE
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise EdgewrightError("E103", f"`{path}` is larger than {_LARGEST_BYTES} bytes")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise EdgewrightError("E104", f"pipeline `{path}` cannot be read: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:  # not UTF-8, not TOML
        raise EdgewrightError("E103", f"`{path}` is malformed: {problem}") from None
    tables, outputs = document.get("parts"), document.get("outputs", [])
    if set(document) - {"parts", "outputs"} or not isinstance(tables, Mapping) or not tables:
        raise EdgewrightError("E103", f"`{path}` holds tables named parts.NAME and perhaps `outputs`, and nothing else")
    if not isinstance(outputs, list) or not all(isinstance(item, str) for item in outputs):
        raise EdgewrightError("E103", f"`{path}`: `outputs` must be a list of names")
    return {name: _part(folder, name, table) for name, table in tables.items()}, tuple(outputs)


#: What opens a network with so many threads.
Start = Callable[[int], Network]
#: For a part's name and a bundle with hooks: the bundle as it looks through them, and what opens both. It refuses them else.
Hooked = Callable[[str, Bundle], tuple[Bundle, Start]]


def opened(
    parts: Mapping[str, Part | Bundle | str | Path], hooked: Hooked | None = None
) -> tuple[dict[str, Part], dict[str, Start]]:
    """Parts whose bundles are open, hashes checked, and what opens each.

    Args:
        parts: By name.
        hooked: For bundles with hooks; None refuses them.

    Raises:
        EdgewrightError: E103 for no parts or too many of them, E240 for a bundle with hooks, E104, E220, E221 as `Bundle.open`.
    """
    if not 1 <= len(parts) <= _MOST_PARTS:
        raise EdgewrightError("E103", f"a pipeline has 1 to {_MOST_PARTS} parts, not {len(parts)}")
    ready: dict[str, Part] = {}
    starts: dict[str, Start] = {}
    for name, given in parts.items():
        if not name or "." in name:
            raise EdgewrightError("E103", f"a part is named {name!r}, but a name has no dot and is not empty")
        part = given if isinstance(given, Part) else Part(given)
        bundle = part.bundle if isinstance(part.bundle, Bundle) else Bundle.open(part.bundle, warn=False)
        if not bundle.hooks:
            starts[name] = functools.partial(_open, bundle)
        elif hooked is None:
            raise EdgewrightError("E240", f"part `{name}` has hooks, which only a server runs, where it allows them")
        else:
            bundle, starts[name] = hooked(name, bundle)
        ready[name] = Part(**{**vars(part), "bundle": bundle})
    return ready, starts


def _open(bundle: Bundle, threads: int) -> Network:
    return open_session(bundle, threads=threads)


def bundle_of(part: Part) -> Bundle:
    """The bundle of a part that is open."""
    assert isinstance(part.bundle, Bundle)
    return part.bundle


def _part(folder: Path, name: str, table: Any) -> Part:
    where = f"{folder / FILE}: parts.{name}"
    if not isinstance(table, Mapping):
        raise EdgewrightError("E103", f"`{where}` must be a table")
    written = build(_Written, table, where=where)
    place = folder / (written.bundle or name)
    try:
        inside = place.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError) as problem:
        raise EdgewrightError("E103", f"`{where}`: {problem}") from None
    if not inside:
        raise EdgewrightError("E103", f"`{where}`: bundle `{written.bundle}` lies outside the pipeline's folder")
    if not (place / MANIFEST).is_file():
        raise EdgewrightError("E104", f"`{where}`: there is no bundle in `{place}`")
    return Part(**{**vars(written), "bundle": place})
