"""`edgewright demo`: see it work in about two minutes."""

from __future__ import annotations

import click

from edgewright.cli.common import Terminal, edgewright_command


@edgewright_command(name="demo", short_help="See it work: EfficientNet-Lite0, two minutes")
@click.option(
    "--out", metavar="DIR", default="runs/demo", show_default=True, help="Folder of the run; a stopped one goes on."
)
def command(terminal: Terminal, out: str) -> int:
    """Deploy EfficientNet-Lite0 with the photos that scikit-image ships. Needs the extra `demo`, about two minutes."""
    from edgewright.cli.deploy_command import show
    from edgewright.demo import DISCLAIMER, demo

    if terminal.options.dry_run:
        terminal.emit(
            {"would_deploy": "zoo:efficientnet-lite0", "out": out}, lambda console: console.print(f"would write {out}")
        )
        return 0
    terminal.say(f"EfficientNet-Lite0 from its package, photos from scikit-image: {DISCLAIMER}")
    with terminal.progress() as progress:
        outcome = demo(out, threads=terminal.options.threads, progress=progress)
    code = show(terminal, outcome, "zoo:efficientnet-lite0", "PHOTOS", out)
    terminal.say(f"({DISCLAIMER}: a handful of photos proves little)")
    return code
