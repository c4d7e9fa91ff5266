"""`edgewright spec`: how inputs are prepared and what outputs mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright.cli.common import Terminal, edgewright_command, load_network, network_words, quoted
from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    from edgewright.model import Model

_ORIGIN = {"image": "is made from a photo", "tensor": "is an array"}


@edgewright_command(name="spec", short_help="How inputs are prepared, what outputs mean")
@click.argument("action", type=click.Choice(["init", "show", "check"]))
@click.argument("model")
@click.option("--spec", metavar="FILE", help="Spec file to check or to put in the model's place.")
@click.option(
    "--out", metavar="FILE", default="spec.toml", show_default=True, help="File that `init` writes; - for stdout."
)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def command(terminal: Terminal, action: str, model: str, spec: str | None, out: str, overwrite: bool) -> int:
    """init: write a spec to fill in; show: print a model's spec; check: hold a spec file against a model."""
    from edgewright.spec import template

    network = load_network(terminal, model, spec if action != "init" else None)
    if action != "init":
        return _show(terminal, network, model, spec) if action == "show" else _check(terminal, network, model, spec)
    if out == "-":
        terminal.emit({"out": None, "text": template(network)}, lambda console: click.echo(template(network), nl=False))
        return 0
    path = Path(out)
    if path.exists() and not overwrite:
        raise EdgewrightError(
            "E105", f"spec file `{path}` exists already", hint="add --overwrite, or choose another --out"
        )
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
    terminal.next(f"edgewright deploy {quoted(*network_words(terminal, model), '--spec', path)} --samples PHOTOS")
    return 0


def _show(terminal: Terminal, network: Model, model: str, spec: str | None) -> int:
    from edgewright.spec import template

    terminal.emit(network.spec, lambda console: click.echo(template(network), nl=False))
    if _is_blank(network) and spec is None:
        terminal.say("\nthe network carries no spec: this is a guess from its shapes")
        terminal.next(f"edgewright spec init {quoted(*network_words(terminal, model))}")
    return 0


def _check(terminal: Terminal, network: Model, model: str, spec: str | None) -> int:
    if _is_blank(network) and spec is None:
        raise EdgewrightError("E303", f"network `{model}` carries no spec to check", hint="edgewright spec init MODEL")
    network.spec.check(network.inputs)
    what = f"`{spec}`" if spec else "its own spec"
    inputs = ", ".join(f"`{name}` {_ORIGIN[kind]}" for name, kind in _kinds(network).items())
    terminal.emit(
        network.spec,
        lambda console: console.print(
            f"{what} fits `{network.name}`: task {network.spec.task}, {inputs or 'inputs are arrays'}", markup=False
        ),
    )
    return 0


def _is_blank(network: Model) -> bool:
    return network.spec.task == "tensor" and not network.spec.inputs and not network.spec.options


def _kinds(network: Model) -> dict[str, str]:
    return {name: str(item["kind"]) for name, item in network.spec.to_json()["inputs"].items()}
