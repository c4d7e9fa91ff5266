"""`edgewright convert`: a model becomes the files of one runtime."""

from __future__ import annotations

import click

from edgewright.cli.common import Terminal, edgewright_command, load_network, network_words, quoted
from edgewright.cli.tables import size


@edgewright_command(name="convert", short_help="A model becomes the files of one runtime")
@click.argument("model")
@click.option(
    "--runtime", default="onnxruntime", show_default=True, help="Runtime to make files for (edgewright list runtimes)."
)
@click.option("--cpu", default="host", show_default=True, help="CPU to make files for (edgewright list cpus).")
@click.option("--spec", metavar="FILE", help="Spec of the model.")
@click.option("--out", metavar="DIR", required=True, help="The bundle's folder.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
def command(terminal: Terminal, model: str, runtime: str, cpu: str, spec: str | None, out: str, overwrite: bool) -> int:
    """Write MODEL as a bundle: the runtime's own files, a manifest and three lines that run them without edgewright."""
    from edgewright.convert import convert
    from edgewright.target import Target

    target = Target(runtime, cpu)
    if terminal.options.dry_run:
        terminal.emit(
            {"would_write": out, "runtime": runtime}, lambda console: console.print(f"would write {out} for {runtime}")
        )
        return 0
    network = load_network(terminal, model, spec)
    bundle = convert(network, target, out, options=terminal.options.sets.get(runtime), overwrite=overwrite)
    terminal.emit(
        {key: value for key, value in bundle.to_json().items() if key != "tensor_names"},
        lambda console: console.print(
            f"{bundle.name}: {runtime} {bundle.runtime_version}, {bundle.precision}, {size(bundle.size_bytes)}",
            markup=False,
        ),
    )
    terminal.say(f"saved: {out}")
    terminal.next(f"edgewright verify {quoted(*network_words(terminal, model), out)} --samples PHOTOS")
    return 0
