"""`edgewright serve ray`: the same server as a Ray Serve application."""

from __future__ import annotations

from typing import Any

import click

from edgewright.cli.common import Terminal, edgewright_command


@edgewright_command(name="ray", short_help="The same as a Ray Serve application")
@click.argument("folders", nargs=-1, required=True, metavar="DIR...")
@click.option("--address", help="Of a Ray cluster; by default a Ray of this machine alone is started.")
@click.option("--http", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that Ray's proxy listens at.")
@click.option("--replicas", type=int, default=1, show_default=True, help="Replicas at least.")
@click.option("--most", type=int, help="Replicas at most.  [default: as many as --replicas]")
@click.option("--cpus", type=float, default=1.0, show_default=True, help="That each replica needs.")
@click.option("--gpus", type=float, default=0.0, show_default=True, help="That each replica needs.")
@click.option("--requests", type=int, default=64, show_default=True, help="That each replica may have at one time.")
@click.option("--max-batch", type=int, default=1, show_default=True, help="Rows of requests that may run together.")
@click.option("--max-delay-ms", type=float, default=0.0, show_default=True, help="How long a batch waits for more.")
@click.option("--allow-hooks", is_flag=True, help="Run processor.py of bundles that have one; trust their makers.")
@click.option("--token-file", metavar="FILE", help="Ask every request but health checks for the token in FILE.")
def command(
    terminal: Terminal,
    folders: tuple[str, ...],
    address: str | None,
    http: int,
    host: str,
    most: int | None,
    max_batch: int,
    max_delay_ms: float,
    allow_hooks: bool,
    token_file: str | None,
    **placed: Any,
) -> int:
    """Serve bundles by replicas that Ray places and scales, until SIGTERM or Ctrl-C.

    DIR is as for `edgewright serve`, and lies at the same place on every node.
    """
    from edgewright.serve import ModelOptions
    from edgewright.serve.access import read_token
    from edgewright.serve.core.log import lines, silent
    from edgewright.serve.on_ray import Placement, application, run

    quiet = terminal.options.quiet
    placement = Placement(most=placed["replicas"] if most is None else most, **placed)
    options = ModelOptions(max_batch=max_batch, max_delay_ms=max_delay_ms, threads=terminal.options.threads)
    if terminal.options.dry_run:
        terminal.emit({"would_serve": folders, "placement": vars(placement)}, lambda console: console.print(placement))
        return 0
    token = None if token_file is None else read_token(token_file)
    bound = application(folders, options, placement, token=token, allow_hooks=allow_hooks, quiet=quiet)
    log = silent if quiet else lines(as_json=terminal.options.as_json)
    run(bound, address=address, http=http, host=host, log=log)
    return 0
