"""The part of edgewright that a measurement needs, as a zip file: what its modules import, followed through the sources."""

from __future__ import annotations

import ast
import importlib.metadata
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

#: Folder that the package `edgewright` lies in.
_ROOT = Path(__file__).resolve().parents[3]
#: Where execution starts on the other machine; runtimes and tasks are found by name, and added to these.
_ENTRANCES = ("edgewright.bench.remote.agent", "edgewright.bench.worker", "edgewright.bench.machine")


def package(runtimes: Sequence[str], tasks: Sequence[str]) -> bytes:
    """A zip file with the modules, and edgewright's own metadata, by which it knows the packages of its extras."""
    plugins = [f"edgewright.runtimes.{name}" for name in runtimes] + [f"edgewright.tasks.{name}" for name in tasks]
    found = importlib.metadata.distribution("edgewright")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(modules((*_ENTRANCES, *plugins)).values()):
            archive.write(path, path.relative_to(_ROOT).as_posix())
        archive.writestr(f"edgewright-{found.version}.dist-info/METADATA", found.read_text("METADATA") or "")
    return content.getvalue()


def modules(entrances: Sequence[str]) -> dict[str, Path]:
    """Modules of edgewright that the entrances import, directly or not and inside functions too, with their files."""
    files: dict[str, Path] = {}
    waiting = list(entrances)
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if name in files or path is None:
            continue
        files[name] = path
        waiting += [name.rpartition(".")[0], *_imported(ast.parse(path.read_text(encoding="utf-8")))]
    return files


def _file(name: str) -> Path | None:
    """The module's file; None where `name` is none of ours, or something inside a module."""
    if name.partition(".")[0] != "edgewright":
        return None
    path = _ROOT.joinpath(*name.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    yield node
    for child in ast.iter_child_nodes(node):
        hidden = isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"
        if not hidden:
            yield from _executed(child)
