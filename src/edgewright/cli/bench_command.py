"""`edgewright bench`: bundles measured side by side."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewright.cli.common import Terminal, edgewright_command, is_bundle, load_network, open_samples
from edgewright.errors import EdgewrightError
from edgewright.files import write_whole

if TYPE_CHECKING:
    from edgewright.bench import Board
    from edgewright.model import Model


@edgewright_command(name="bench", short_help="Bundles measured side by side")
@click.argument("networks", nargs=-1, required=True, metavar="BUNDLE|MODEL...")
@click.option(
    "--runtime", "runtimes", default="", metavar="A,B", help="Runtimes for models.  [default: all that suit them]"
)
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
    networks: tuple[str, ...],
    runtimes: str,
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
    """Measure bundles side by side: one process each, interleaved in random order.

    A model (a file, or zoo:NAME) is measured as it is on every runtime that can run it. Runs are added until every median
    is known to 2 %, or the time of its bundle is up. Bundles of one model are compared with each other, and the fastest of
    each model and thread count is named. With --on they are copied to another machine that has Python, numpy and the
    runtimes' packages, measured there by the same rules, and removed again.
    """
    from edgewright.bench import BenchPlan, bench
    from edgewright.bench import table as tables
    from edgewright.bench.sources import bundles_of
    from edgewright.bundle import Bundle

    counts = _sweep(sweep) or (terminal.options.threads,)
    limit: dict[str, Any] = {} if max_seconds is None else {"max_seconds": max_seconds}
    plan = BenchPlan(threads=counts, seed=seed, roofline=roofline, **limit)
    board = _board(address, python, ssh_options) if address else None
    sources = [Bundle.open(name) if is_bundle(name) else _model(terminal, name) for name in networks]
    if terminal.options.dry_run:
        where = f" on {board}" if board else ""
        terminal.emit(
            {"would_measure": list(networks), "threads": list(counts), "on": address},
            lambda console: console.print(f"would measure {', '.join(networks)} at {counts} threads{where}"),
        )
        return 0
    with tempfile.TemporaryDirectory(prefix="edgewright-bench-") as folder:
        chosen = [name.strip() for name in runtimes.split(",") if name.strip()]
        with terminal.progress() as progress:
            bundles = bundles_of(sources, Path(folder), runtimes=chosen, progress=progress)
        inputs = open_samples(terminal, samples, bundles[0].spec) if samples else None
        with terminal.progress() as progress:
            results = bench(bundles, inputs, plan, on=board, progress=progress)
    table = tables.markdown(results)
    terminal.emit(tables.document(results), lambda console: console.print(_aligned(table), markup=False))
    if markdown:
        write_whole(markdown, table + "\n")
    return 1 if any(result.trust == "invalid" for result in results) else 0


def _board(address: str, python: str, ssh_options: tuple[str, ...]) -> Board:
    from edgewright.bench import Board

    try:
        words = tuple(word for option in ssh_options for word in shlex.split(option))
    except ValueError as problem:
        raise EdgewrightError("E103", f"`--ssh-option` cannot be split into words: {problem}") from None
    return Board.parse(address, python=python, ssh_options=words)


def _model(terminal: Terminal, source: str) -> Model:
    """The network to convert; a folder can only have been meant as a bundle."""
    if Path(source).is_dir() or not (source.startswith("zoo:") or Path(source).suffix):
        from edgewright.bundle import Bundle

        Bundle.open(source)  # says what is wrong with it
    return load_network(terminal, source, None)


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
