"""`edgewright deploy`: the whole way."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from edgewright.cli.common import Terminal, edgewright_command, load_network, open_samples
from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    from rich.console import Console

    from edgewright.records import DeployOutcome


@edgewright_command(name="deploy", short_help="The whole way: compress, convert, verify, measure, choose")
@click.argument("model")
@click.option("--samples", metavar="PATH", help="Photos, class folders, labels.csv or .npz. No labels are needed.")
@click.option(
    "--labels", metavar="CSV", help="labels.csv, where it is not inside the samples' folder; `none` for no labels."
)
@click.option("--spec", metavar="FILE", help="How inputs are prepared and what outputs mean (edgewright spec init).")
@click.option("--runtime", "runtimes", default="", metavar="A,B", help="Runtimes to try.  [default: all installed]")
@click.option(
    "--recipe", "recipes", multiple=True, metavar="NAME|FILE", help="Recipes to try. Repeatable.  [default: all]"
)
@click.option("--min-agreement", type=float, default=0.98, show_default=True, help="Least agreement with the original.")
@click.option("--max-drop", type=float, help="Largest drop of the task's metric, 0.01 = one point; needs labels.")
@click.option("--cpu", default="host", show_default=True, help="CPU to make files for (edgewright list cpus).")
@click.option("--out", metavar="DIR", help="Folder of the run; a stopped one goes on.  [default: runs/MODEL]")
@click.option("--limit", type=click.IntRange(1), help="Use at most this many samples.")
@click.option("--seed", type=int, default=0, show_default=True)
def command(
    terminal: Terminal,
    model: str,
    samples: str | None,
    labels: str | None,
    spec: str | None,
    runtimes: str,
    recipes: tuple[str, ...],
    min_agreement: float,
    max_drop: float | None,
    cpu: str,
    out: str | None,
    limit: int | None,
    seed: int,
) -> int:
    """Try recipes x runtimes, verify each, measure the survivors, hand back the fastest within the budget.

    MODEL is a file (.onnx) or zoo:NAME. The unmodified model is always among the candidates, so the result is never
    slower than what you came with.

    \b
    edgewright deploy model.onnx --samples photos/ --spec spec.toml
    edgewright deploy zoo:efficientnet-lite0 --samples photos/ --runtime onnxruntime,openvino --out runs/x --json
    """
    from edgewright.deploy import candidates, deploy

    names = tuple(name for name in runtimes.split(",") if name)
    if terminal.options.dry_run:
        return _dry_run(terminal, candidates(runtimes=names, recipes=recipes, cpu=cpu))
    network = load_network(terminal, model, spec)
    opened = open_samples(terminal, samples, network, labels=labels, limit=limit)
    folder = out or f"runs/{network.name}"
    with terminal.progress() as progress:
        outcome = deploy(
            network,
            opened,
            runtimes=names,
            recipes=recipes,
            min_agreement=min_agreement,
            max_drop=max_drop,
            threads=terminal.options.threads,
            cpu=cpu,
            out=folder,
            overrides=_overrides(terminal),
            command="edgewright " + shlex.join(sys.argv[1:]),
            seed=seed,
            progress=progress,
        )
    return show(terminal, outcome, model, samples or "", folder)


def show(terminal: Terminal, outcome: DeployOutcome, model: str, samples: str, folder: str) -> int:
    """Print an outcome, where its report is, and what to do next; the exit code."""
    terminal.emit(outcome, lambda console: print_outcome(console, outcome))
    terminal.say(f"\nreport: {folder}/report.html")
    chosen = next((item for item in outcome.candidates if item.name == outcome.chosen), None)
    if chosen:
        terminal.next(f"edgewright run {folder}/{chosen.bundle} PHOTO")
        return 0
    judged = [item for item in outcome.candidates if item.verify]
    undecided = all(item.verify and item.verify.decision == "undecided" for item in judged)
    message = f"no candidate of `{outcome.model_name}` is within the budget ({len(outcome.candidates)} tried)"
    details = tuple(f"{item.name}: {item.reason}" for item in outcome.candidates)
    hint = (
        f"edgewright locate {model} {folder}/{judged[0].bundle} --samples {samples}" if judged else "edgewright doctor"
    )
    return terminal.gate(
        EdgewrightError("E311" if judged and undecided else "E310", message, details=details, hint=hint)
    )


def print_outcome(console: Console, outcome: DeployOutcome) -> None:
    """Print candidates as a table and the choice as a sentence."""
    from rich.table import Table

    table = Table(title=None, box=None, pad_edge=False, header_style="bold")
    for title, justify in (
        ("candidate", "left"),
        ("state", "left"),
        ("ms", "right"),
        ("agreement", "right"),
        ("MB", "right"),
        ("why", "left"),
    ):
        table.add_column(title, justify=justify, no_wrap=title != "why")  # type: ignore[arg-type]
    colours = {"chosen": "bold green", "verified": "green", "rejected": "yellow", "failed": "red"}
    for item in outcome.candidates:
        gate = next((g for g in item.verify.gates if g.name == "agreement"), None) if item.verify else None
        undecided = item.verify is not None and item.verify.decision == "undecided"
        state = "undecided" if undecided else item.state
        table.add_row(
            item.name,
            f"[{colours[item.state]}]{state}[/]",
            f"{item.bench[0].infer.median_ms:.2f}" if item.bench else "-",
            f"{100 * gate.value:.1f} %" if gate else "-",
            f"{item.size_bytes / 1e6:.1f}" if item.size_bytes else "-",
            item.reason,
        )
    console.print(table)
    console.print()
    console.print(_sentence(outcome))


def _sentence(outcome: DeployOutcome) -> str:
    if outcome.chosen is None:
        return "[bold red]no candidate is within the budget[/]; the reasons stand in the table"
    if outcome.speedup is None:
        return f"chosen: [bold]{outcome.chosen}[/]"
    ratio, low, high = outcome.speedup
    if low <= 1.0 and not outcome.chosen.startswith("original-"):
        return f"chosen: [bold]{outcome.chosen}[/]: as fast as the unmodified network ({low:.2f} to {high:.2f} x)"
    if outcome.chosen.startswith("original-"):
        return (
            f"chosen: [bold]{outcome.chosen}[/]: nothing that was tried beats the unmodified network within the budget"
        )
    return f"chosen: [bold]{outcome.chosen}[/]: {ratio:.2f} x the unmodified network's speed ({low:.2f} to {high:.2f})"


def _overrides(terminal: Terminal) -> dict[str, dict[str, str]]:
    from edgewright import registry

    known = {*registry.names("passes"), *registry.names("runtimes")}
    return {plugin: dict(values) for plugin, values in terminal.options.sets.items() if plugin in known}


def _dry_run(terminal: Terminal, planned: Any) -> int:
    document = [
        {
            "candidate": p.name,
            "passes": [step.name for step in p.recipe.steps],
            "runtime": p.target.runtime,
            "cpu": p.target.cpu,
        }
        for p in planned
    ]

    def render(console: Console) -> None:
        for row in document:
            console.print(
                f"{row['candidate']}: {' -> '.join(row['passes']) or 'no pass'} -> convert -> verify -> bench"
            )

    terminal.emit({"would_try": document}, render)
    return 0
