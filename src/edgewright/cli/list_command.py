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
        host = {"name": "host", "features": list(target.host_features())}
        cpus = [host, *({"name": name, "features": list(f)} for name, f in target.CPUS.items())]
        return [{**cpu, "about": _features(cpu, cpus), "missing": []} for cpu in cpus]
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
        if kind == "runtimes":
            form = module.quant_format(target.Target(name))
            row["int8"] = None if form is None else {
                "weight_bits": form.weight_bits, "activations": form.activation_dtype, "reason": form.reason
            }  # fmt: skip
        if kind == "zoo":
            rows += [{**row, "name": f"zoo:{model}"} for model in module.NAMES]
        else:
            rows.append(row)
    return rows


def _features(cpu: dict[str, Any], cpus: list[dict[str, Any]]) -> str:
    """A CPU's features in words: the largest named one it contains, and what it has beyond."""
    own = set(cpu["features"])
    if not own:
        return "nothing beyond the base of its architecture"
    inside = [other for other in cpus if other["name"] != "host" and other is not cpu and set(other["features"]) < own]
    base = max(inside, key=lambda other: len(other["features"]), default=None)
    if base is None or not base["features"]:
        return " ".join(cpu["features"])
    return " ".join([base["name"], "+", *(name for name in cpu["features"] if name not in base["features"])])


def _first_line(module: Any) -> str:
    return (inspect.getdoc(module) or "").partition("\n")[0].rstrip(".")


def _render(console: Any, document: dict[str, list[dict[str, Any]]]) -> None:
    from edgewright.cli.tables import table

    width = max((len(row["name"]) for rows in document.values() for row in rows), default=0)
    for number, (kind, rows) in enumerate(document.items()):
        if number:
            console.print()
        console.print(f"[bold]{kind}[/]")
        seen = None
        lines = []
        for row in rows:
            absent = f'not installed: pip install "edgewright[{row["extra"]}]"; ' if row["missing"] else ""
            about = absent + row["about"]
            lines.append([f"{row['name']:{width}}", "the same" if about == seen else about])
            seen = about
        table(console, lines, indent=2)
