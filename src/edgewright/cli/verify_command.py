"""`edgewright verify`: does a bundle give the original's answers?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgewright.cli.common import Terminal, edgewright_command, load_network, network_words, open_samples, quoted
from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    from rich.console import Console

    from edgewright.records import VerifyReport


@edgewright_command(name="verify", short_help="Does a bundle give the original's answers?")
@click.argument("model")
@click.argument("bundle")
@click.option("--samples", metavar="PATH", help="Photos, class folders, labels.csv or .npz.")
@click.option(
    "--labels", metavar="CSV", help="labels.csv, where it is not inside the samples' folder; `none` for no labels."
)
@click.option(
    "--roles",
    type=click.Choice(["hash", "judge"]),
    default="hash",
    show_default=True,
    help="`judge`: all samples judge (a folder that was split by hand).",
)
@click.option("--spec", metavar="FILE", help="Spec of the model.")
@click.option("--min-agreement", type=float, default=0.98, show_default=True, help="Least agreement with the original.")
@click.option(
    "--max-drop",
    type=float,
    help="Largest drop of the task's metric, 0.01 = one point, beside the agreement; needs labels.",
)
@click.option("--seed", type=int, default=0, show_default=True)
def command(
    terminal: Terminal,
    model: str,
    bundle: str,
    samples: str | None,
    labels: str | None,
    roles: str,
    spec: str | None,
    min_agreement: float,
    max_drop: float | None,
    seed: int,
) -> int:
    """Judge the shipped files, untouched, against MODEL. Exit code 1 where a gate fails or is undecided."""
    from edgewright.bundle import Bundle
    from edgewright.verify import verify

    opened_bundle = Bundle.open(bundle)
    network = load_network(terminal, model, spec)
    opened = open_samples(terminal, samples, network, labels=labels, roles=roles)
    with terminal.progress() as progress:
        report = verify(
            network,
            opened_bundle,
            opened,
            min_agreement=min_agreement,
            max_drop=max_drop,
            threads=terminal.options.threads,
            seed=seed,
            progress=progress,
        )
    terminal.emit(report, lambda console: _render(console, report))
    if report.decision == "pass":
        return 0
    gate = next(gate for gate in report.gates if gate.decision == report.decision)
    if report.decision == "undecided":
        hint = f"edgewright verify {quoted(*network_words(terminal, model), bundle)} --samples MORE_PHOTOS"
        return terminal.gate(EdgewrightError("E311", f"bundle `{bundle}` is undecided: {gate.message}", hint=hint))
    hint = f"edgewright locate {quoted(*network_words(terminal, model), bundle, '--samples', samples)}"
    if report.saturation is not None:
        hint = report.saturation.command
    return terminal.gate(EdgewrightError("E310", f"bundle `{bundle}` fails: {gate.message}", hint=hint))


def _render(console: Console, report: VerifyReport) -> None:
    colours = {"pass": "green", "fail": "red", "undecided": "yellow"}
    for gate in report.gates:
        console.print(f"[{colours[gate.decision]}]{gate.decision:9}[/] {gate.name}: ", end="")
        console.print(gate.message, markup=False)
    for tensor in report.outputs:
        facts = (
            tensor.problem or f"rel-L2 {tensor.rel_l2:.2e}, SQNR {tensor.sqnr_db:.1f} dB, max-abs {tensor.max_abs:.3g}"
        )
        console.print(f"          output `{tensor.name}`: {facts} (worst: {tensor.worst_sample})", markup=False)
    for name, (original, own) in report.metric.items():
        console.print(f"          {name}: {100 * own:.1f} % (original {100 * original:.1f} %)", markup=False)
    if report.saturation is not None:
        console.print("[yellow]saturates[/] ", end="")
        console.print(report.saturation.message, markup=False)
    if report.coverage is not None and report.coverage.decision != "covered":
        console.print("[yellow]coverage [/] ", end="")
        console.print(report.coverage.message, markup=False)
    console.print(f"\n[bold {colours[report.decision]}]{report.decision}[/] on {report.samples} samples")
