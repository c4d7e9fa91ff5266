"""`edgewright report`: the page of a deploy run."""

from __future__ import annotations

import click

from edgewright.cli.common import Terminal, edgewright_command


@edgewright_command(name="report", short_help="The HTML page of a deploy run")
@click.argument("run")
@click.option("--out", metavar="FILE", help="Where to write the page.  [default: RUN/report.html]")
def command(terminal: Terminal, run: str, out: str | None) -> int:
    """Make the page of the deploy run in folder RUN again: one HTML file that needs no network."""
    from edgewright.report import report

    path = report(run, out=out)
    terminal.emit({"report": str(path)}, lambda console: console.print(str(path), markup=False))
    return 0
