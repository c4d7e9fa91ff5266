"""`edgewright inspect`: what a network is made of and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgewright.cli.common import Terminal, edgewright_command, is_bundle, load_network, network_words, quoted
from edgewright.cli.tables import count, milliseconds, plural, size, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from edgewright.records import ChannelReport, InspectReport, LayerCost


@edgewright_command(name="inspect", short_help="Layers, MACs, bytes, measured time, roofline")
@click.argument("network")
@click.option("--spec", metavar="FILE", help="Spec of a model.")
@click.option("--layers", is_flag=True, help="Every layer, not only the costliest ten.")
@click.option("--runtime", help="Measure each layer's time on this runtime.")
@click.option("--roofline", is_flag=True, help="Measure peak and bandwidth and say what each layer is bound by.")
@click.option("--groups", is_flag=True, help="Channels that can be removed together, and those that must stay.")
@click.option("--runtimes", is_flag=True, help="Say which runtimes can run it.")
def command(
    terminal: Terminal,
    network: str,
    spec: str | None,
    layers: bool,
    runtime: str | None,
    roofline: bool,
    groups: bool,
    runtimes: bool,
) -> int:
    """Inputs, outputs, operators, and per layer MACs, bytes and (with --runtime) measured time.

    NETWORK is a model file, zoo:NAME or a bundle's folder.
    """
    from edgewright.bundle import Bundle
    from edgewright.inspect import inspect

    source: Any = Bundle.open(network) if is_bundle(network) else load_network(terminal, network, spec)
    with terminal.progress() as progress:
        report = inspect(
            source,
            runtime=runtime,
            threads=terminal.options.threads,
            roofline=roofline,
            runtimes=runtimes,
            groups=groups,
            progress=progress,
        )
    terminal.emit(report, lambda console: _render(console, report, layers))
    if not runtime and not is_bundle(network):
        terminal.next(
            f"edgewright inspect {quoted(*network_words(terminal, network))} --runtime onnxruntime --roofline"
        )
    return 0


def _render(console: Console, report: InspectReport, every: bool) -> None:
    from rich.text import Text

    console.print(Text(report.name, "bold").append("  " + _totals(report), "not bold"))
    facts = [("in", text) for text in report.inputs] + [("out", text) for text in report.outputs]
    if report.operators:
        facts.append(("operators", ", ".join(f"{name} {number}" for name, number in report.operators.items())))
    if report.peak_gflops and report.bandwidth_gbs:
        roof = f"{report.peak_gflops:.0f} GFLOP/s, {report.bandwidth_gbs:.1f} GB/s, {plural(report.threads, 'thread')}"
        facts.append(("roofline", roof))
    table(console, facts, indent=2)
    if report.runtimes:
        console.print()
        table(console, [_verdict(name, reasons) for name, reasons in report.runtimes.items()], indent=2)
    console.print()
    if report.channels is not None:
        _print_channels(console, report.channels)
    else:
        _print_layers(console, report, every)


def _print_channels(console: Console, found: ChannelReport) -> None:
    """Groups, the layers at both ends and what one channel costs; then what stays."""
    if found.groups:
        table(
            console,
            [
                [
                    _shortened(group.name),
                    str(group.channels),
                    count(round(group.macs_per_channel)),
                    count(round(group.parameters_per_channel)),
                    _some(group.made_by),
                    _some(group.read_by),
                ]
                for group in found.groups
            ],
            titles=["channel group", "channels", "MACs each", "weights each", "made by", "read by"],
            right="lrrrll",
        )
    if found.refusal:
        console.print(f"nothing can be removed: {found.refusal}", markup=False)
    if found.barriers:
        console.print()
        rows = [[_shortened(barrier.tensor), barrier.reason] for barrier in found.barriers]
        table(console, rows, titles=["channels that stay", "why"])


def _some(names: Sequence[str], most: int = 2) -> str:
    """The first names, and how many more there are."""
    text = ", ".join(_shortened(name, 32) for name in names[:most])
    return text + (f" and {len(names) - most} more" if len(names) > most else "")


def _print_layers(console: Console, report: InspectReport, every: bool) -> None:
    timed = any(layer.time_ms is not None for layer in report.layers)
    cost = (lambda layer: layer.time_ms or 0.0) if timed else (lambda layer: layer.macs or 0)
    shown = report.layers if every else sorted(report.layers, key=cost, reverse=True)[:10]
    columns = [column for column in _COLUMNS if any(column[2](layer) not in {"-", ""} for layer in shown)]
    table(
        console,
        [[text(layer) for _, _, text in columns] for layer in shown],
        titles=[title for title, _, _ in columns],
        right="".join(side for _, side, _ in columns),
    )
    if len(shown) < len(report.layers):
        console.print(f"\nthe costliest {len(shown)} of {len(report.layers)} layers; --layers shows all")


_COLUMNS: tuple[tuple[str, str, Callable[[LayerCost], str]], ...] = (
    ("layer", "l", lambda layer: _shortened(layer.node or layer.name)),
    ("operator", "l", lambda layer: layer.op_type),
    ("shape", "r", lambda layer: "x".join("?" if side is None else str(side) for side in layer.shape)),
    ("MACs", "r", lambda layer: count(layer.macs)),
    ("weights", "r", lambda layer: size(layer.parameter_bytes) if layer.parameter_bytes else "-"),
    ("data", "r", lambda layer: size(layer.activation_bytes)),
    ("ms", "r", lambda layer: "-" if layer.time_ms is None else f"{layer.time_ms:.3f}"),
    ("of roof", "r", lambda layer: "-" if layer.efficiency is None else f"{100 * layer.efficiency:.0f} %"),
    ("bound by", "l", lambda layer: layer.bound or "-"),
)


def _shortened(name: str, most: int = 44) -> str:
    """A layer's name with its middle left out where it is long: both ends tell layers apart."""
    return name if len(name) <= most else f"{name[: most // 3]}...{name[-(most - most // 3 - 3) :]}"


def _verdict(name: str, reasons: tuple[str, ...]) -> list[Any]:
    if not reasons:
        return [name, ("runs it", "green"), ""]
    more = f"; {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return [name, ("cannot run it", "yellow"), "; ".join(reasons[:3]) + more]


def _totals(report: InspectReport) -> str:
    if report.macs is None or report.parameters is None or report.weight_bytes is None:
        timed = sum(layer.time_ms or 0.0 for layer in report.layers)
        total = f"{milliseconds(timed)} ms in all layers; " if timed else ""
        return f"{total}the files hold no ONNX graph: inspect the model for its multiply-adds"
    weights = f"{count(report.parameters)} parameters, {size(report.weight_bytes)}"
    return f"{weights}, {count(report.macs)} multiply-adds"
