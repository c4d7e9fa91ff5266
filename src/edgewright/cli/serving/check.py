"""`edgewright serve check`: the protocol's cases put to any server, ours or another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgewright.cli.common import Terminal, edgewright_command

if TYPE_CHECKING:
    from rich.console import Console


@edgewright_command(name="check", short_help="The protocol's cases put to a server")
@click.argument("url", metavar="URL")
@click.option("--grpc", type=click.IntRange(1, 65535), help="Port of its gRPC service, to ask that as well.")
@click.option("--model", metavar="NAME", help="The model to ask; the first that is ready by default.")
def command(terminal: Terminal, url: str, grpc: int | None, model: str | None) -> int:
    """Put the cases of the Open Inference Protocol to the server at URL and print what it answers; 1 where one fails."""
    from edgewright.serve.check import check

    report = check(url, grpc=grpc, model=model)

    def render(console: Console) -> None:
        from edgewright.cli.tables import table

        rows = [
            (("ok", "green") if line.ok else ("FAILS", "red"), line.transport, line.case, line.wanted, line.got)
            for line in report.outcomes
        ]
        table(console, rows, titles=("", "over", "case", "wanted", "got"))
        passed = sum(line.ok for line in report.outcomes)
        console.print(f"\n{passed} of {len(rows)} cases pass, asked of model {report.model}", markup=False)

    terminal.emit(report, render)
    return 0 if report.ok else 1
