"""What an operator may set: for the whole server, and for each model in a repository's `serve.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgewright.errors import EdgewrightError
from edgewright.options import build

FILE = "serve.toml"
_LARGEST_BYTES = 2**20


@dataclass(frozen=True)
class ModelOptions:
    """How one model is served.

    Attributes:
        max_batch: Rows that may run together; 1 runs every request alone.
        max_delay_ms: How long the first request of a batch waits for others.
        queue: Requests that may wait; beyond it they are refused at once.
        instances: Requests (or batches) that are computed at the same time, each with a session of its own.
        threads: Threads of each session.
        versions: "latest", "latest:N", "all", or numbers with commas: which versions are served.
        pad: For axes by name, the sizes to which inputs are filled up with zeros, so that requests of different lengths
            may run together and few shapes occur. Only for networks that ignore such zeros.
        prefer: Runtimes in the order in which a model's own name chooses among several.
        hook_s: Seconds that one run through hooks may take.
    """

    max_batch: int = 1
    max_delay_ms: float = 0.0
    queue: int = 64
    instances: int = 1
    threads: int = 1
    versions: str = "latest"
    pad: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    prefer: tuple[str, ...] = ()
    hook_s: float = 30.0

    def __post_init__(self) -> None:
        for name, least in (
            ("max_batch", 1),
            ("queue", 1),
            ("instances", 1),
            ("threads", 1),
            ("max_delay_ms", 0),
            ("hook_s", 0),
        ):
            if not least <= getattr(self, name) <= 1e6:
                raise EdgewrightError("E103", f"`{name}` is {getattr(self, name)}, but must be {least} to 1000000")
        for axis, sizes in self.pad.items():
            if not sizes or min(sizes) < 1:
                raise EdgewrightError("E103", f"`pad.{axis}` must list sizes of at least 1")
        chosen_versions(self.versions, ())

    @property
    def delay_s(self) -> float:
        """`max_delay_ms` in seconds."""
        return self.max_delay_ms / 1000


def chosen_versions(policy: str, known: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the `known` versions that the policy serves, ascending.

    Raises:
        EdgewrightError: E103 for a policy that is none.
    """
    ordered = tuple(sorted(known))
    if policy == "all":
        return ordered
    word, colon, count = policy.partition(":")
    if word == "latest" and (not colon or (count.isascii() and count.isdecimal() and int(count) > 0)):
        return ordered[-int(count or 1) :]
    wanted = policy.split(",")
    if not all(part.isascii() and part.isdecimal() for part in wanted):
        raise EdgewrightError("E103", f"`versions` is {policy!r}, but must be latest, latest:N, all, or numbers as 1,3")
    return tuple(number for number in ordered if number in {int(part) for part in wanted})


def read_options(folder: Path, default: ModelOptions) -> dict[str, ModelOptions]:
    """Options by model name from `serve.toml` in a repository, on top of the server's own.

        [models.net]
        max_batch = 8
        max_delay_ms = 2

    Raises:
        EdgewrightError: E103 where the file cannot be understood.
    """
    path = folder / FILE
    try:
        if not path.is_file():
            return {}
        if path.stat().st_size > _LARGEST_BYTES:
            raise EdgewrightError("E103", f"`{path}` is larger than {_LARGEST_BYTES} bytes")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:  # ValueError: not UTF-8, not TOML
        raise EdgewrightError("E103", f"`{path}` cannot be read: {problem}") from None
    tables = document.get("models", {})
    if set(document) - {"models"} or not isinstance(tables, Mapping):
        raise EdgewrightError("E103", f"`{path}` holds tables named models.NAME, and nothing else")
    return {name: _merged(default, table, f"{path}: models.{name}") for name, table in tables.items()}


def _merged(default: ModelOptions, table: Any, where: str) -> ModelOptions:
    given = build(ModelOptions, table, where=where)
    return replace(default, **{name: getattr(given, name) for name in table})
