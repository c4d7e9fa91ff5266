"""`edgewright inspect`: what a network is made of and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgewright.cli.common import Terminal, edgewright_command, is_bundle, load_network

if TYPE_CHECKING:
    from rich.console import Console

    from edgewright.records import InspectReport


@edgewright_command(name="inspect", short_help="Layers, MACs, bytes, measured time, roofline")
@click.argument("network")
@click.option("--spec", metavar="FILE", help="Spec of a model.")
@click.option("--layers", is_flag=True, help="Every layer, not only the costliest ten.")
@click.option("--runtime", help="Measure each layer's time on this runtime.")
@click.option("--roofline", is_flag=True, help="Measure peak and bandwidth and say what each layer is bound by.")
@click.option("--runtimes", is_flag=True, help="Say which runtimes can run it.")
def command(
    terminal: Terminal,
    network: str,
    spec: str | None,
    layers: bool,
    runtime: str | None,
    roofline: bool,
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
            progress=progress,
        )
    terminal.emit(report, lambda console: _render(console, report, layers))
    if not runtime and not is_bundle(network):
        terminal.next(f"edgewright inspect {network} --runtime onnxruntime --roofline")
    return 0


def _render(console: Console, report: InspectReport, every: bool) -> None:
    from rich.table import Table

    console.print(f"[bold]{report.name}[/]" + _totals(report))
    for label, texts in (("in ", report.inputs), ("out", report.outputs)):
        for text in texts:
            console.print(f"  {label} {text}", markup=False)
    console.print(f"[bold]{report.name}[/]" + _totals(report))
    for label, texts in (("in ", report.inputs), ("out", report.outputs)):
        for text in texts:
            console.print(f"  {label} {text}", markup=False)
    console.print(
        "  operators: " + ", ".join(f"{name} {count}" for name, count in report.operators.items()), markup=False
    )
    if report.peak_gflops and report.bandwidth_gbs:
        console.print(
            f"  measured: {report.peak_gflops:.0f} GFLOP/s peak, {report.bandwidth_gbs:.1f} GB/s, {report.threads} thread(s)"
        )
    for name, reasons in report.runtimes.items():
        console.print(
            f"  {name}: " + ("runs it" if not reasons else "cannot run it: " + "; ".join(reasons[:3])), markup=False
        )
    timed = any(layer.time_ms is not None for layer in report.layers)
    cost = (lambda layer: layer.time_ms or 0.0) if timed else (lambda layer: layer.macs or 0)
    shown = report.layers if every else sorted(report.layers, key=cost, reverse=True)[:10]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("layer", "operator", "shape", "M MACs", "kB weights", "kB data", "ms", "bound by", "of roof"):
        table.add_column(title, justify="left" if title in {"layer", "operator", "bound by"} else "right")
    for layer in shown:
        table.add_row(
            layer.node or layer.name,
            layer.op_type,
            "x".join(str(size) for size in layer.shape),
            "-" if layer.macs is None else f"{layer.macs / 1e6:.2f}",
            f"{layer.parameter_bytes / 1e3:.1f}",
            "-" if layer.activation_bytes is None else f"{layer.activation_bytes / 1e3:.0f}",
            "-" if layer.time_ms is None else f"{layer.time_ms:.3f}",
            layer.bound or "-",
            "-" if layer.efficiency is None else f"{100 * layer.efficiency:.0f} %",
        )
    console.print()
    console.print(table)
    if len(shown) < len(report.layers):
        console.print(f"  the costliest {len(shown)} of {len(report.layers)} layers; --layers shows all")


def _totals(report: InspectReport) -> str:
    """Weights and work in words."""
    if report.macs is None or report.parameters is None or report.weight_bytes is None:
        return "  (the files hold no ONNX graph: inspect the model for its multiply-adds)"
    weights = f"{report.parameters / 1e6:.2f} M parameters, {report.weight_bytes / 1e6:.1f} MB"
    return f"  {weights}, {report.macs / 1e6:.1f} M multiply-adds"
