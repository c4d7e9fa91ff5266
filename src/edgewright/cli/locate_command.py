"""`edgewright locate`: layer by layer, the first that differs and why."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright.cli.common import Terminal, edgewright_command, load_network, network_words, open_samples, quoted
from edgewright.cli.tables import plural
from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    from rich.console import Console

    from edgewright.model import Model
    from edgewright.records import Layer, LocateReport, TensorError


@edgewright_command(name="locate", short_help="The first layer that differs, and why")
@click.argument("model")
@click.argument("bundles", nargs=-1)
@click.option(
    "--against",
    metavar="NPZ",
    help="Tensors that the framework MODEL comes from has computed, by name; or a folder of .npy.",
)
@click.option("--stride", type=click.IntRange(1), help="Of thinned tensors in --against.  [default: found by size]")
@click.option("--samples", metavar="PATH", help="Photos, folders or .npz; two judge samples are used.")
@click.option("--spec", metavar="FILE", help="Spec of the model.")
@click.option("--max-samples", type=click.IntRange(1), default=2, show_default=True, help="Samples to compare.")
@click.option(
    "--memory", type=click.IntRange(16), default=512, show_default=True, metavar="MB", help="Memory for inner tensors."
)
@click.option(
    "--reproduce",
    "--reproducer",
    "reproduce",
    metavar="DIR",
    help="Write the first failing layer there as a case of its own.",
)
@click.option("--all", "every", is_flag=True, help="Every layer, not only the failing ones.")
@click.option("--seed", type=int, default=0, show_default=True)
def command(
    terminal: Terminal,
    model: str,
    bundles: tuple[str, ...],
    against: str | None,
    stride: int | None,
    samples: str | None,
    spec: str | None,
    max_samples: int,
    memory: int,
    reproduce: str | None,
    every: bool,
    seed: int,
) -> int:
    """Compare every tensor that survived in each of BUNDLES with MODEL's: isolated (each layer fed the original's inputs)
    and cumulative. With --against also MODEL with its source. Names the first culprit of each stage and its likely cause.
    Exit code 1 where a layer fails."""
    if not bundles and against is None:
        raise click.UsageError("name a bundle, or --against NPZ with the source's tensors")
    case = Path(reproduce) if reproduce else None
    network = load_network(terminal, model, spec)
    reports = _compare(terminal, network, bundles, against, stride, samples, max_samples, memory * 2**20, case, seed)
    document = reports[0] if len(reports) == 1 else {"reports": [report.to_json() for report in reports]}
    terminal.emit(document, lambda console: _render_all(console, reports, every))
    for report in reports:
        if report.reproducer:
            terminal.say(f"\nreproducer: {report.reproducer}")
    failed = next((report for report in reports if not all(layer.passed for layer in report.layers)), None)
    if failed is None:
        return 0
    failing = [layer.name for layer in failed.layers if not layer.passed]
    message = (
        f"{failed.stage}: {len(failing)} of {len(failed.layers)} layers are outside the limits, "
        f"`{failed.first or failing[0]}` is the first"
    )
    words = [
        *network_words(terminal, model),
        *bundles,
        *(("--against", against) if against else ()),
        *(("--samples", samples) if samples else ()),
    ]
    hint = None if failed.reproducer else f"edgewright locate {quoted(*words)} --reproduce case/"
    return terminal.gate(EdgewrightError("E310", message, hint=hint))


def _compare(
    terminal: Terminal,
    network: Model,
    bundles: tuple[str, ...],
    against: str | None,
    stride: int | None,
    samples: str | None,
    max_samples: int,
    memory_bytes: int,
    case: Path | None,
    seed: int,
) -> list[LocateReport]:
    """One report for each stage: source -> MODEL, then MODEL -> each bundle. The first that fails writes the case."""
    from edgewright.bundle import Bundle
    from edgewright.locate import locate, locate_source

    opened_bundles = [Bundle.open(path) for path in bundles]
    threads, reports = terminal.options.threads, []
    # which input the source was given is not ours to choose, so that it has no role
    opened = (
        open_samples(terminal, samples, network, roles="judge" if against else "hash") if samples or bundles else None
    )
    with terminal.progress() as progress:
        if against is not None:
            report = locate_source(
                network, against, opened, stride=stride, memory_bytes=memory_bytes, threads=threads,
                reproducer=case, seed=seed, progress=progress,
            )  # fmt: skip
            reports.append(report)
        for bundle in opened_bundles:
            assert opened is not None
            written = any(report.reproducer for report in reports)
            report = locate(
                network, bundle, opened, max_samples=max_samples, memory_bytes=memory_bytes, threads=threads,
                reproducer=None if written else case, seed=seed, progress=progress,
            )  # fmt: skip
            reports.append(report)
    return reports


def _render_all(console: Console, reports: list[LocateReport], every: bool) -> None:
    for report in reports:
        _render(console, report, every)


def _render(console: Console, report: LocateReport, every: bool) -> None:
    failing = [layer for layer in report.layers if not layer.passed]
    console.print(report.stage, markup=False, highlight=False)
    shown = report.layers if every else failing[:20]
    if shown:
        _print_layers(console, shown)
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


def _print_layers(console: Console, layers: tuple[Layer, ...] | list[Layer]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("layer", "operator", "isolated", "cumulative", "noise floor", ""):
        table.add_column(title, justify="left" if title in {"layer", "operator", ""} else "right")
    for layer in layers:
        table.add_row(
            layer.name,
            layer.op_type,
            _distance(layer.isolated),
            _distance(layer.cumulative),
            f"{layer.noise_floor:.1e}",
            "" if layer.passed else "[red]fail[/]",
        )
    console.print(table)
    console.print()


def _distance(error: TensorError) -> str:
    return error.problem or ("–" if math.isnan(error.rel_l2) else f"{error.rel_l2:.1e}")
