"""`edgewright demo`: see it work in about four minutes."""

from __future__ import annotations

import click

from edgewright.cli.common import Terminal, edgewright_command


@edgewright_command(name="demo", short_help="See it work: EfficientNet-Lite0, four minutes")
@click.option(
    "--out", metavar="DIR", default="runs/demo", show_default=True, help="Folder of the run; a stopped one goes on."
)
def command(terminal: Terminal, out: str) -> int:
    """Deploy EfficientNet-Lite0 with the photos that scikit-image ships. Needs the extra `demo`, about four minutes."""
    from edgewright.cli.deploy_command import show
    from edgewright.demo import DISCLAIMER, NETWORK, PHOTOS, demo, photo_folder

    network = f"zoo:{NETWORK}"
    if terminal.options.dry_run:
        terminal.emit(
            {"would_deploy": network, "out": out},
            lambda console: console.print(f"would deploy {network}, and write {out} and {photo_folder(out)}"),
        )
        return 0
    terminal.say(f"EfficientNet-Lite0 from its package, photos from scikit-image: {DISCLAIMER}")
    with terminal.progress() as progress:
        outcome = demo(out, threads=terminal.options.threads, progress=progress)
    folder = photo_folder(out)
    code = show(
        terminal,
        outcome,
        network=network,
        samples=str(folder),
        example=str(folder / f"{min(PHOTOS)}-00.jpg"),
        folder=out,
    )
    terminal.say(f"({DISCLAIMER})")
    return code
