"""`edgewright serve`: bundles behind the Open Inference Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright.cli.common import Terminal, edgewright_command
from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    from rich.console import Console

    from edgewright.serve import ModelOptions


@edgewright_command(name="serve", short_help="Bundles behind the Open Inference Protocol")
@click.argument("folders", nargs=-1, required=True, metavar="DIR... | check URL")
@click.option("--http", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port.")
@click.option("--grpc", type=click.IntRange(1, 65535), help="Port of the same over gRPC; without, there is none.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 is every one.")
@click.option("--watch", type=float, metavar="SECONDS", help="Look at DIR that often, and reload what has changed.")
@click.option("--max-batch", type=int, default=1, show_default=True, help="Rows of requests that may run together.")
@click.option("--max-delay-ms", type=float, default=0.0, show_default=True, help="How long a batch waits for more.")
@click.option("--queue", type=int, default=64, show_default=True, help="Requests of a model that may wait.")
@click.option("--instances", type=int, default=1, show_default=True, help="Runs of a model at the same time.")
@click.option("--versions", default="latest", show_default=True, help="latest, latest:N, all, or numbers such as 1,3.")
@click.option("--prefer", default="", metavar="A,B", help="Runtimes by preference, where a model has several.")
@click.option("--max-body", type=int, default=64, show_default=True, metavar="MIB", help="Largest body of a request.")
@click.option("--admin-token", metavar="FILE", help="Allow loading and unloading to whoever sends the token in FILE.")
@click.option("--model", metavar="NAME", help="With check: the model to ask; the first that is ready by default.")
@click.option(
    "--drain", type=float, default=30.0, show_default=True, metavar="SECONDS", help="Time to finish at the end."
)
def command(
    terminal: Terminal,
    folders: tuple[str, ...],
    http: int,
    grpc: int | None,
    host: str,
    watch: float | None,
    max_batch: int,
    max_delay_ms: float,
    queue: int,
    instances: int,
    versions: str,
    prefer: str,
    max_body: int,
    admin_token: str | None,
    model: str | None,
    drain: float,
) -> int:
    """Serve bundles over HTTP (and gRPC) until SIGTERM or Ctrl-C.

    DIR is a bundle, or holds bundles as NAME, NAME/VERSION, or NAME/VERSION/RUNTIME. A file serve.toml in it sets options
    of single models. Requests and answers are those of the Open Inference Protocol; a photo goes to
    /v2/models/NAME/predict. /docs lists every path. With --json the log lines are JSON.

    `edgewright serve check URL` puts the protocol's cases to a server, ours or another, over HTTP and with --grpc PORT
    over gRPC as well, and exits with 1 where one fails.
    """
    if len(folders) == 2 and folders[0] == "check" and "://" in folders[1]:
        return _check(terminal, folders[1], grpc, model)
    if model is not None:
        raise EdgewrightError("E103", "`--model` goes with `edgewright serve check URL` only")
    from edgewright.serve import ModelOptions, serve
    from edgewright.serve.core.log import lines, silent

    options = ModelOptions(
        max_batch=max_batch,
        max_delay_ms=max_delay_ms,
        queue=queue,
        instances=instances,
        threads=terminal.options.threads,
        versions=versions,
        prefer=tuple(name.strip() for name in prefer.split(",") if name.strip()),
    )
    _check_seconds(("--watch", watch, 0.05), ("--drain", drain, 0.0))
    if terminal.options.dry_run:
        return _dry_run(terminal, folders, options)
    serve(
        folders,
        options,
        http=http,
        grpc=grpc,
        host=host,
        watch_s=watch,
        admin_token=_token(admin_token),
        max_body_mib=max_body,
        drain_s=drain,
        log=silent if terminal.options.quiet else lines(as_json=terminal.options.as_json),
    )
    return 0


def _check_seconds(*given: tuple[str, float | None, float]) -> None:
    """Refuse options of seconds, (name, value, least), that are out of range."""
    for name, value, least in given:
        if value is not None and not least <= value <= 86400:
            raise EdgewrightError("E103", f"`{name}` is {value}, but must be {least} to 86400 seconds")


def _check(terminal: Terminal, url: str, grpc: int | None, model: str | None) -> int:
    """Print how a server answers every case."""
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


def _dry_run(terminal: Terminal, folders: tuple[str, ...], options: ModelOptions) -> int:
    """Say which bundles would be served, every hash checked."""
    from edgewright.bundle import Bundle
    from edgewright.serve.core.options import chosen_versions, read_options
    from edgewright.serve.core.places import find_places

    rows = []
    for folder in map(Path, folders):
        places, own = find_places(folder), read_options(folder, options)
        for place in places:
            numbers = tuple({other.version for other in places if other.model == place.model})
            if place.version in chosen_versions(own.get(place.model, options).versions, numbers):
                runtime = Bundle.open(place.path).runtime
                row = {"model": place.name, "version": place.version, "runtime": runtime, "path": str(place.path)}
                rows.append(row)
    if not rows:
        raise EdgewrightError("E104", "the folders hold no bundle", hint="edgewright convert MODEL --out DIR/NAME")

    def render(console: Console) -> None:
        for row in rows:
            console.print("would serve {model} {version}  {runtime}  {path}".format(**row), markup=False)

    terminal.emit({"would_serve": rows}, render)
    return 0


def _token(path: str | None) -> str | None:
    """The token in a file: one line of at least 16 characters."""
    if path is None:
        return None
    try:
        token = Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as problem:
        raise EdgewrightError("E104", f"token file `{path}` cannot be read: {problem}") from None
    if len(token) < 16 or not token.isprintable() or " " in token:
        raise EdgewrightError(
            "E103",
            f"the token in `{path}` must be one word of at least 16 characters",
            hint=f"python3 -c 'import secrets; print(secrets.token_urlsafe())' > {path}",
        )
    return token
