"""`edgewright locate`: layer by layer, the first that differs and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright.cli.common import Terminal, edgewright_command, load_network, open_samples, quoted
from edgewright.cli.tables import plural
from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    from rich.console import Console

    from edgewright.records import LocateReport


@edgewright_command(name="locate", short_help="The first layer that differs, and why")
@click.argument("model")
@click.argument("bundle")
@click.option("--samples", metavar="PATH", help="Photos, folders or .npz; two judge samples are used.")
@click.option("--spec", metavar="FILE", help="Spec of the model.")
@click.option("--max-samples", type=click.IntRange(1), default=2, show_default=True, help="Samples to compare.")
@click.option(
    "--memory", type=click.IntRange(16), default=512, show_default=True, metavar="MB", help="Memory for inner tensors."
)
@click.option("--reproducer", metavar="DIR", help="Write the first failing layer there as a case of its own.")
@click.option("--all", "every", is_flag=True, help="Every layer, not only the failing ones.")
@click.option("--seed", type=int, default=0, show_default=True)
def command(
    terminal: Terminal,
    model: str,
    bundle: str,
    samples: str | None,
    spec: str | None,
    max_samples: int,
    memory: int,
    reproducer: str | None,
    every: bool,
    seed: int,
) -> int:
    """Compare every tensor that survived in BUNDLE with MODEL's: isolated (each layer fed the original's inputs) and
    cumulative. Names the first culprit and its likely cause. Exit code 1 where a layer fails."""
    from edgewright.bundle import Bundle
    from edgewright.locate import locate

    opened_bundle = Bundle.open(bundle)
    network = load_network(terminal, model, spec)
    opened = open_samples(terminal, samples, network)
    with terminal.progress() as progress:
        report = locate(
            network,
            opened_bundle,
            opened,
            max_samples=max_samples,
            memory_bytes=memory * 2**20,
            threads=terminal.options.threads,
            reproducer=Path(reproducer) if reproducer else None,
            seed=seed,
            progress=progress,
        )
    terminal.emit(report, lambda console: _render(console, report, every))
    if report.reproducer:
        terminal.say(f"\nreproducer: {report.reproducer}")
    failing = [layer for layer in report.layers if not layer.passed]
    if not failing:
        return 0
    first = report.first or failing[0].name
    message = (
        f"{len(failing)} of {len(report.layers)} layers of `{bundle}` are outside the limits, `{first}` is the first"
    )
    hint = f"edgewright locate {quoted(model, bundle, '--samples', samples)} --reproducer case/"
    return terminal.gate(EdgewrightError("E310", message, hint=None if report.reproducer else hint))


def _render(console: Console, report: LocateReport, every: bool) -> None:
    from rich.table import Table

    failing = [layer for layer in report.layers if not layer.passed]
    shown = report.layers if every else failing[:20]
    if shown:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("layer", "operator", "isolated", "cumulative", "noise floor", ""):
            table.add_column(title, justify="left" if title in {"layer", "operator", ""} else "right")
        for layer in shown:
            table.add_row(
                layer.name,
                layer.op_type,
                layer.isolated.problem or f"{layer.isolated.rel_l2:.1e}",
                layer.cumulative.problem or f"{layer.cumulative.rel_l2:.1e}",
                f"{layer.noise_floor:.1e}",
                "" if layer.passed else "[red]fail[/]",
            )
        console.print(table)
        console.print()
    if not failing:
        console.print(
            f"[bold green]pass[/]: all {len(report.layers)} comparable tensors are within the limits "
            f"({plural(len(report.fused), 'tensor')} of the original fused or rescaled)"
        )
        return
    console.print(f"[bold red]fail[/]: {len(failing)} of {len(report.layers)} layers")
    if report.first:
        console.print(f"first culprit: {report.first}", markup=False)
        console.print(f"likely cause: {report.cause or 'none of the known ones explains it'}", markup=False)
        for layer in report.layers:
            if layer.name == report.first:
                for difference in layer.differences:
                    console.print(f"  {difference}", markup=False)
