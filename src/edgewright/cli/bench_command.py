"""`edgewright bench`: bundles measured side by side."""

from __future__ import annotations

import shlex
from typing import Any

import click

from edgewright.cli.common import Terminal, edgewright_command, open_samples
from edgewright.errors import EdgewrightError
from edgewright.files import write_whole


@edgewright_command(name="bench", short_help="Bundles measured side by side")
@click.argument("bundles", nargs=-1, required=True)
@click.option("--samples", metavar="PATH", help="Photos or .npz to run on; random inputs otherwise.")
@click.option("--sweep", metavar="1,2,4", help="Thread counts to measure, instead of --threads.")
@click.option("--max-seconds", type=float, help="Time limit for each bundle and thread count.  [default: 10]")
@click.option("--markdown", metavar="FILE", help="Also write the table as Markdown.")
@click.option("--roofline/--no-roofline", default=True, help="Say how near the machine's float32 roof it is (default).")
@click.option("--on", "address", metavar="ssh://USER@HOST", help="Measure on another machine, over ssh.")
@click.option(
    "--python", metavar="PATH", default="python3", show_default=True, help="Its Python that has the packages."
)
@click.option("--ssh-option", "ssh_options", multiple=True, metavar="WORDS", help='For ssh, as "-F FILE". Repeatable.')
@click.option("--seed", type=int, default=0, show_default=True)
def command(
    terminal: Terminal,
    bundles: tuple[str, ...],
    samples: str | None,
    sweep: str | None,
    max_seconds: float | None,
    markdown: str | None,
    roofline: bool,
    address: str | None,
    python: str,
    ssh_options: tuple[str, ...],
    seed: int,
) -> int:
    """Measure BUNDLES side by side: one process each, interleaved in random order.

    Runs are added until every median is known to 2 %, or the time of its bundle is up. Bundles of one model are compared
    with each other, and the fastest of each model and thread count is named. With --on they are copied to another machine
    that has Python, numpy and the runtimes' packages, measured there by the same rules, and removed again.
    """
    from edgewright.bench import BenchPlan, Board, bench
    from edgewright.bench import table as tables
    from edgewright.bundle import Bundle

    opened = tuple(Bundle.open(path) for path in bundles)
    settings: dict[str, Any] = {
        "threads": _sweep(sweep) or (terminal.options.threads,),
        "seed": seed,
        "roofline": roofline,
    }
    if max_seconds is not None:
        settings["max_seconds"] = max_seconds
    plan = BenchPlan(**settings)
    words = tuple(word for option in ssh_options for word in shlex.split(option))
    board = Board.parse(address, python=python, ssh_options=words) if address else None
    if terminal.options.dry_run:
        terminal.emit(
            {"would_measure": list(bundles), "threads": list(plan.threads), "on": address},
            lambda console: console.print(
                f"would measure {', '.join(bundles)} at {plan.threads} threads" + (f" on {board}" if board else "")
            ),
        )
        return 0
    inputs = open_samples(terminal, samples, opened[0].spec) if samples else None
    with terminal.progress() as progress:
        results = bench(opened, inputs, plan, on=board, progress=progress)
    table = tables.markdown(results)
    terminal.emit(
        tables.document(results),
        lambda console: console.print(_aligned(table), markup=False),
    )
    if markdown:
        write_whole(markdown, table + "\n")
    return 1 if any(result.trust == "invalid" for result in results) else 0


def _aligned(table: str) -> str:
    """A Markdown table with its columns aligned for people; still Markdown."""
    lines = table.split("\n")
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    widths = [max(len(row[column]) for row in rows if row[column].strip("-:")) for column in range(len(rows[0]))]
    flush_right = [cell.endswith(":") for cell in rows[1]]
    aligned = []
    for row in rows:
        rule = not row[0].strip("-")
        cells = []
        for cell, width, right in zip(row, widths, flush_right, strict=True):
            text = cell if not rule else "-" * max(width - right, 3 - right) + ":" * right
            cells.append(text.rjust(width) if right else text.ljust(width))
        aligned.append(f"| {' | '.join(cells)} |")
    return "\n".join([*aligned, *(line for line in lines if not line.startswith("|"))])


def _sweep(text: str | None) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in (text or "").split(",") if part)
    except ValueError:
        raise EdgewrightError("E103", f"`--sweep {text}` must be whole numbers such as 1,2,4") from None
    if any(count < 1 for count in counts):
        raise EdgewrightError("E103", f"`--sweep {text}` holds a number below 1")
    return counts
