"""`edgewright list`: everything that can be named."""

from __future__ import annotations

import inspect
from typing import Any

import click

from edgewright.cli.common import Terminal, edgewright_command

_WHAT = ("importers", "zoo", "passes", "runtimes", "tasks", "recipes", "cpus")


@edgewright_command(name="list", short_help="Everything that can be named")
@click.argument("what", type=click.Choice(_WHAT), required=False)
def command(terminal: Terminal, what: str | None) -> int:
    """List importers, zoo models, passes, runtimes, tasks, recipes and CPU names, with what is installed."""
    document = {kind: _rows(kind) for kind in ([what] if what else _WHAT)}
    terminal.emit(document, lambda console: _render(console, document))
    return 0


def _rows(kind: str) -> list[dict[str, Any]]:
    from edgewright import recipe, registry, target

    if kind == "recipes":
        made = [recipe.Recipe.named(name) for name in recipe.names()]
        return [
            {"name": r.name, "about": r.description, "missing": [], "passes": [s.name for s in r.steps]} for r in made
        ]
    if kind == "cpus":
        host = {"name": "host", "about": " ".join(target.host_features()), "missing": []}
        return [host, *({"name": name, "about": " ".join(f), "missing": []} for name, f in target.CPUS.items())]
    rows = []
    for name in registry.names(kind):
        module = registry.peek(kind, name)
        row = {
            "name": name,
            "about": _first_line(module),
            "missing": list(registry.missing(module.EXTRA)),
            "extra": module.EXTRA,
        }
        if kind == "importers":
            row["suffixes"] = list(module.SUFFIXES)
        if kind == "passes":
            row |= {"lossy": module.LOSSY, "needs_samples": module.NEEDS_SAMPLES}
        if kind == "zoo":
            rows += [{**row, "name": f"zoo:{model}"} for model in module.NAMES]
        else:
            rows.append(row)
    return rows


def _first_line(module: Any) -> str:
    return (inspect.getdoc(module) or "").partition("\n")[0].rstrip(".")


def _render(console: Any, document: dict[str, list[dict[str, Any]]]) -> None:
    width = max((len(row["name"]) for rows in document.values() for row in rows), default=0)
    for kind, rows in document.items():
        console.print(f"[bold]{kind}[/]")
        for row in rows:
            absent = f'  (not installed: pip install "edgewright[{row["extra"]}]")' if row["missing"] else ""
            console.print(f"  {row['name']:{width}}  {row['about']}{absent}", markup=False)
