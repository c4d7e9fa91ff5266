"""`edgewright spec`: how inputs are prepared and what outputs mean."""

from __future__ import annotations

from pathlib import Path

import click

from edgewright.cli.common import Terminal, edgewright_command, load_network
from edgewright.errors import EdgewrightError


@edgewright_command(name="spec", short_help="How inputs are prepared, what outputs mean")
@click.argument("action", type=click.Choice(["init", "show", "check"]))
@click.argument("model")
@click.option("--spec", metavar="FILE", help="Spec file to check or to put in the model's place.")
@click.option("--out", metavar="FILE", default="spec.toml", show_default=True, help="File that `init` writes.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def command(terminal: Terminal, action: str, model: str, spec: str | None, out: str, overwrite: bool) -> int:
    """init: write a spec to fill in; show: print a model's spec; check: hold a spec file against a model."""
    from edgewright.spec import template

    network = load_network(terminal, model, spec if action != "init" else None)
    if action != "init":
        terminal.emit(network.spec, lambda console: console.print_json(data=network.spec.to_json()))
        return 0
    path = Path(out)
    if path.exists() and not overwrite:
        raise EdgewrightError("E105", f"spec file `{path}` exists already", hint="--overwrite, or another --out")
    text = template(network)
    if terminal.options.dry_run:
        terminal.emit({"would_write": str(path), "text": text}, lambda console: console.print(text, markup=False))
        return 0
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise EdgewrightError("E105", f"spec file `{path}` cannot be written: {problem.strerror}") from None
    terminal.emit({"out": str(path)}, lambda console: console.print(str(path), markup=False))
    terminal.say("check every line marked `please check`: agreement cannot see a wrong mean or std")
    terminal.next(f"edgewright deploy {model} --spec {path} --samples PHOTOS")
    return 0
