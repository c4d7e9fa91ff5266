"""Plugins, found by file name: a module (or package) in a kind's folder is a plugin of that name.

Third parties add theirs by entry point, in the group `edgewright.importers`, `edgewright.runtimes` and so on.
Nothing is imported until it is asked for.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import pkgutil
import re
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

from edgewright.errors import EdgewrightError

#: The kinds of plugins; each is a folder of this package.
KINDS = ("importers", "zoo", "passes", "runtimes", "tasks", "apps")


@functools.cache
def names(kind: str) -> tuple[str, ...]:
    """Names of all plugins of `kind`, sorted; modules that start with `_` are private helpers of their folder."""
    assert kind in KINDS, kind
    folder = str(Path(__file__).parent / kind)
    found = {module.name for module in pkgutil.iter_modules([folder]) if not module.name.startswith("_")}
    return tuple(sorted(found | set(_entry_points(kind))))


def get(kind: str, name: str) -> Any:
    """The plugin module.

    Raises:
        EdgewrightError: E101 when there is none of that name, E102 when its packages are not installed.
    """
    module = peek(kind, name)
    require(module, f"{_singular(kind)} `{name}`")
    return module


def peek(kind: str, name: str) -> Any:
    """The plugin module, whether or not its packages are installed (plugin modules import them inside functions)."""
    if name not in names(kind):
        raise unknown(_singular(kind), name, names(kind))
    point = _entry_points(kind).get(name)
    return point.load() if point else importlib.import_module(f"edgewright.{kind}.{name}")


def installed(kind: str) -> tuple[str, ...]:
    """Names of the plugins of `kind` whose packages are installed."""
    return tuple(name for name in names(kind) if not missing(peek(kind, name).EXTRA))


def proposed(domains: Collection[str] = ()) -> tuple[str, ...]:
    """Installed runtimes that are tried where nobody names any, for a network with operators of these domains."""
    found = []
    for name in installed("runtimes"):
        traits = peek("runtimes", name).TRAITS
        if traits.deployable and (not traits.proposed_for or set(traits.proposed_for) & set(domains)):
            found.append(name)
    return tuple(found)


def require(module: ModuleType, what: str) -> None:
    """Refuse to go on when the packages of the module's extra are not installed.

    Raises:
        EdgewrightError: E102 with the pip line.
    """
    absent = missing(module.EXTRA)
    if absent:
        packages = ", ".join(f"`{name}`" for name in absent)
        raise EdgewrightError(
            "E102",
            f"{what} needs {packages}, which {'is' if len(absent) == 1 else 'are'} not installed",
            hint=f'pip install "edgewright[{module.EXTRA}]"',
        )


@functools.cache
def missing(extra: str | None) -> tuple[str, ...]:
    """Packages of the pip extra that are not installed, from this package's own metadata."""
    if extra is None:
        return ()
    absent = []
    for requirement in importlib.metadata.requires("edgewright") or ():
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[([^\]]*)\])?[^;]*;.*extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        if not match or match[3] != extra:
            continue
        if match[1].lower() == "edgewright":
            absent += [name for inner in match[2].split(",") for name in missing(inner.strip())]
        elif not _has(match[1]):
            absent.append(match[1])
    return tuple(dict.fromkeys(absent))


def unknown(kind: str, name: str, known: tuple[str, ...]) -> EdgewrightError:
    """The error for a name that is not known, with the nearest one."""
    near = difflib.get_close_matches(name, known, n=1)
    tail = f"; did you mean `{near[0]}`?" if near else f"; known: {', '.join(known) or 'none'}"
    return EdgewrightError("E101", f"{kind} `{name}` is not known{tail}", hint="edgewright list")


def _has(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _singular(kind: str) -> str:
    return {"passes": "pass", "zoo": "zoo family"}.get(kind, kind.removesuffix("s"))


@functools.cache
def _entry_points(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=f"edgewright.{kind}")}
