"""`edgewright deploy`: the whole way."""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from edgewright.cli.common import (
    Terminal,
    edgewright_command,
    example_of,
    load_network,
    network_words,
    open_samples,
    quoted,
)
from edgewright.cli.tables import Cell, milliseconds, plural, size, table
from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    from rich.console import Console

    from edgewright.deploy import SearchPlan
    from edgewright.records import Candidate, DeployOutcome, Frontier

_COLOURS = {"chosen": "bold green", "verified": "green", "undecided": "yellow", "rejected": "yellow", "failed": "red"}

#: Half the width of an interval, as a part of the median, up to which the median is printed without `~`.
_SHARP = 0.05


@edgewright_command(name="deploy", short_help="The whole way: compress, convert, verify, measure, choose")
@click.argument("model")
@click.option("--samples", metavar="PATH", help="Photos, class folders, labels.csv or .npz. No labels are needed.")
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
@click.option("--spec", metavar="FILE", help="How inputs are prepared and what outputs mean (edgewright spec init).")
@click.option(
    "--runtime", "runtimes", default="", metavar="A,B", help="Runtimes to try.  [default: all that suit the network]"
)
@click.option(
    "--recipe", "recipes", multiple=True, metavar="NAME|FILE", help="Recipes to try. Repeatable.  [default: all]"
)
@click.option("--min-agreement", type=float, default=0.98, show_default=True, help="Least agreement with the original.")
@click.option(
    "--max-drop",
    type=float,
    help="Largest drop of the task's metric, 0.01 = one point, beside the agreement; needs labels.",
)
@click.option("--cpu", default="host", show_default=True, help="CPU to make files for (edgewright list cpus).")
@click.option("--out", metavar="DIR", help="Folder of the run; a stopped one goes on.  [default: runs/MODEL]")
@click.option(
    "--search",
    is_flag=True,
    help="Also search for the most pruning and the layers in float that are within the budget.",
)
@click.option("--minutes", type=float, help="How long a search may take.  [default: 30]")
@click.option("--limit", type=click.IntRange(1), help="Use at most this many samples.")
@click.option("--seed", type=int, default=0, show_default=True)
def command(terminal: Terminal, model: str, samples: str | None, **options: Any) -> int:
    """Try recipes x runtimes, verify each, measure the survivors, hand back the fastest within the budget.

    MODEL is a file (.onnx) or zoo:NAME. The unmodified model is always among the candidates, so the result is never
    slower than what you came with.

    \b
    edgewright deploy model.onnx --samples photos/ --spec spec.toml
    edgewright deploy zoo:efficientnet-lite0 --samples photos/ --runtime onnxruntime,openvino --out runs/x --json
    edgewright deploy model.onnx --samples photos/ --search --minutes 60
    """
    from edgewright.deploy import candidates, deploy
    from edgewright.deploy.searching import check_searchable

    plan = _search_plan(options["search"], options["minutes"])
    choice = {
        "runtimes": tuple(name for name in options["runtimes"].split(",") if name),
        "recipes": options["recipes"],
        "cpu": options["cpu"],
    }
    planned = candidates(**choice)  # a name that is not known is said before anything is read
    overrides = _overrides(terminal)
    if plan is not None:
        check_searchable(planned, overrides)
    if terminal.options.dry_run:
        return _dry_run(terminal, planned, plan)
    network = load_network(terminal, model, options["spec"])
    opened = open_samples(
        terminal, samples, network, labels=options["labels"], roles=options["roles"], limit=options["limit"]
    )
    folder = options["out"] or f"runs/{network.name}"
    with terminal.progress() as progress:
        outcome = deploy(
            network,
            opened,
            **choice,
            min_agreement=options["min_agreement"],
            max_drop=options["max_drop"],
            threads=terminal.options.threads,
            out=folder,
            overrides=overrides,
            search=plan,
            command="edgewright " + shlex.join(sys.argv[1:]),
            seed=options["seed"],
            progress=progress,
        )
    return show(terminal, outcome, network=model, samples=samples or "", example=example_of(opened), folder=folder)


def show(terminal: Terminal, outcome: DeployOutcome, *, network: str, samples: str, example: str, folder: str) -> int:
    """Print an outcome, where its report is, and what to do next; the exit code.

    Args:
        terminal: Where to.
        outcome: What `deploy` returned.
        network: What the user calls the network.
        samples: What the user calls the samples.
        example: Path of one sample.
        folder: The run's folder.
    """
    terminal.emit(outcome, lambda console: print_outcome(console, outcome))
    terminal.say(f"\nreport: {folder}/report.html")
    chosen = next((item for item in outcome.candidates if item.name == outcome.chosen), None)
    if chosen:
        terminal.next(f"edgewright run {quoted(f'{folder}/{chosen.bundle}', example)}")
        return 0
    judged = [item for item in outcome.candidates if item.verify]
    details = tuple(f"{item.name}: {item.reason}" for item in outcome.candidates)
    tried = f"{len(outcome.candidates)} tried"
    if not judged:
        code = re.search(r"\[(E\d{3})\]$", outcome.candidates[0].reason)
        message = f"no candidate of `{outcome.model_name}` could be made and run ({tried})"
        return terminal.gate(
            EdgewrightError(code[1] if code else "E310", message, details=details, hint="edgewright doctor")
        )
    undecided = all(item.verify and item.verify.decision == "undecided" for item in judged)
    message = f"no candidate of `{outcome.model_name}` is within the budget ({tried})"
    failing = next((item for item in judged if item.verify and item.verify.decision == "fail"), judged[0])
    hint = f"edgewright locate {quoted(*network_words(terminal, network), f'{folder}/{failing.bundle}', '--samples', samples)}"
    if undecided:
        hint = "give more samples; the reasons say how many"
    return terminal.gate(EdgewrightError("E311" if undecided else "E310", message, details=details, hint=hint))


def print_outcome(console: Console, outcome: DeployOutcome) -> None:
    """Print candidates as a table, the choice as a sentence, and what they learnt from where it does not cover the judges."""
    from rich.markup import escape

    rows: list[list[Cell]] = []
    for item in outcome.candidates:
        gate = next((g for g in item.verify.gates if g.name == "agreement"), None) if item.verify else None
        state = _state(item)
        rows.append(
            [
                (item.name, "bold" if state == "chosen" else ""),
                (state, _COLOURS[state]),
                _median(item),
                f"{100 * gate.value:.1f} %" if gate else "-",
                size(item.size_bytes),
                item.reason,
            ]
        )
    table(console, rows, titles=("candidate", "state", "ms", "agreement", "size", "why"), right="llrrrl")
    console.print()
    if outcome.frontier is not None:
        _print_frontier(console, outcome.frontier, outcome.chosen)
    console.print(_sentence(outcome))
    for message, names in _uncovered(outcome).items():
        console.print(f"[yellow]coverage[/] {escape(', '.join(names))}: {escape(message)}")


def _uncovered(outcome: DeployOutcome) -> dict[str, list[str]]:
    """Candidates that learnt from samples unlike the judges, by what is to be said of it."""
    found: dict[str, list[str]] = {}
    for item in outcome.candidates:
        covered = item.verify.coverage if item.verify else None
        if covered is not None and covered.decision == "not covered":
            found.setdefault(covered.message, []).append(item.name)
    return found


def _print_frontier(console: Console, frontier: Frontier, chosen: str | None) -> None:
    """Print what a search tried, the Pareto line marked, and what it found out."""
    best = {point.name for point in frontier.best}
    rows: list[list[Cell]] = []
    for point in sorted(frontier.points, key=lambda point: point.latency_ms):
        marks = [word for word, holds in (("chosen", point.name == chosen), ("best", point.name in best)) if holds]
        rows.append(
            [
                (point.name, "bold" if point.name == chosen else ""),
                milliseconds(point.latency_ms),
                f"{point.relative[0]:.3f}",
                f"{100 * point.agreement:.1f} %",
                "-" if point.drop is None else f"{100 * point.drop:.1f}",
                size(point.size_bytes),
                "-" if point.macs is None else f"{point.macs / 1e6:.0f} M",
                ("within" if point.within else "outside", "green" if point.within else "yellow"),
                ", ".join(marks),
            ]
        )
    titles = ("tried", "ms", "x original", "agreement", "drop", "size", "MACs", "budget", "")
    table(console, rows, titles=titles, right="lrrrrrrll")
    required = f"{100 * frontier.required:.1f} %"
    console.print(f"agreement on {plural(frontier.samples, 'select sample')}, required {required}", markup=False)
    for note in frontier.notes:
        console.print(f"search: {note}", markup=False)
    console.print()


def _median(item: Candidate) -> str:
    """Median ms; with `~` where its interval is wide, since what is clearly slower is not measured any further."""
    if not item.bench:
        return milliseconds(None)
    infer = item.bench[0].infer
    text = milliseconds(infer.median_ms)
    return f"~{text}" if infer.high_ms - infer.low_ms > 2 * _SHARP * infer.median_ms else text


def _state(item: Candidate) -> str:
    """The state as people see it: a candidate that is neither proven nor refuted is undecided."""
    return "undecided" if item.verify is not None and item.verify.decision == "undecided" else item.state


def _sentence(outcome: DeployOutcome) -> str:
    from rich.markup import escape

    if outcome.chosen is None:
        return "[bold red]no candidate is within the budget[/]; the reasons stand in the table"
    chosen = f"chosen: [bold]{escape(outcome.chosen)}[/]"
    if outcome.chosen.startswith("original-"):
        return f"{chosen}: nothing that was tried beats the unmodified network within the budget"
    if outcome.speedup is None:
        return chosen
    ratio, low, high = outcome.speedup
    if low < 1.005:  # what is printed as 1.00
        return f"{chosen}: as fast as the unmodified network ({low:.2f} to {high:.2f} x its speed)"
    return f"{chosen}: {ratio:.2f} x the speed of the unmodified network ({low:.2f} to {high:.2f})"


def _overrides(terminal: Terminal) -> dict[str, dict[str, str]]:
    from edgewright import registry

    known = {*registry.names("passes"), *registry.names("runtimes")}
    return {plugin: dict(values) for plugin, values in terminal.options.sets.items() if plugin in known}


def _search_plan(search: bool, minutes: float | None) -> SearchPlan | None:
    from edgewright.deploy import SearchPlan

    if not search:
        if minutes is not None:
            raise EdgewrightError("E103", f"`--minutes {minutes:g}` says how long to search", hint="add --search")
        return None
    return SearchPlan() if minutes is None else SearchPlan(minutes=minutes)


def _dry_run(terminal: Terminal, planned: Any, plan: SearchPlan | None) -> int:
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
        table(console, [[row["candidate"], " -> ".join(row["passes"]) or "no pass"] for row in document])
        console.print(f"\neach: convert, verify, measure ({plural(len(document), 'candidate')})")
        if plan is not None:
            console.print(f"then search for at most {plan.minutes:g} minutes from: {', '.join(starts)}", markup=False)

    starts = [p.name for p in planned if p.recipe.search]
    searched = {} if plan is None else {"would_search": {"minutes": plan.minutes, "from": starts}}
    terminal.emit({"would_try": document, **searched}, render)
    return 0
