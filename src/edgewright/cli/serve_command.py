"""`edgewright serve`: bundles behind the Open Inference Protocol, and what goes with that as words of its own."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewright.cli.common import Command, Terminal, edgewright_command
from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    from rich.console import Console

    from edgewright.serve import ModelOptions


#: Words that may stand in the place of the first DIR (`./envoy` is a folder); each is a module in `cli/serving`.
WORDS = {
    "check": "the protocol's cases put to any server, with a table of the answers",
    "add-processor": "put hooks into a bundle",
    "envoy": "configuration for Envoy before several servers",
    "haproxy": "the same for HAProxy",
    "kubernetes": "manifests for Kubernetes or KServe",
    "ray": "the same server as a Ray Serve application",
    "convert-nodefile": "a node file of dl_inference as configuration for Envoy",
}


class _Serve(Command):
    """The command; a word in the place of the first folder is a command of its own."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """That of the word's command where there is one."""
        if not (args and args[0] in WORDS):
            return super().make_context(info_name, args, parent, **extra)
        module = importlib.import_module(f"edgewright.cli.serving.{args[0].replace('-', '_')}")
        command: click.Command = module.command
        return command.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The words."""
        with formatter.section("Words in the place of DIR"):
            formatter.write_dl([(f"{ctx.command_path} {word} --help", about) for word, about in WORDS.items()])


@edgewright_command(name="serve", cls=_Serve, short_help="Bundles behind the Open Inference Protocol")
@click.argument("folders", nargs=-1, required=True, metavar="DIR...")
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
@click.option("--allow-hooks", is_flag=True, help="Run processor.py of bundles that have one; trust their makers.")
@click.option("--token-file", metavar="FILE", help="Ask every request but health checks for the token in FILE.")
@click.option("--tls-cert", metavar="FILE", help="Serve over TLS: certificate chain in PEM.")
@click.option("--tls-key", metavar="FILE", help="And its private key.")
@click.option("--log-requests", is_flag=True, help="A log line for each request.")
@click.option("--trace", is_flag=True, help="Send spans by OpenTelemetry (OTEL_EXPORTER_OTLP_ENDPOINT).")
@click.option("--max-body", type=int, default=64, show_default=True, metavar="MIB", help="Largest body of a request.")
@click.option("--admin-token", metavar="FILE", help="Allow loading and unloading to whoever sends the token in FILE.")
@click.option(
    "--keep-alive",
    type=float,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Close HTTP connections that are idle so long; proxies want more than their own idle time.",
)
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
    prefer: str,
    allow_hooks: bool,
    token_file: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    log_requests: bool,
    trace: bool,
    max_body: int,
    admin_token: str | None,
    keep_alive: float,
    drain: float,
    **served: Any,
) -> int:
    """Serve bundles over HTTP (and gRPC) until SIGTERM or Ctrl-C.

    DIR is a bundle, or holds bundles as NAME, NAME/VERSION, or NAME/VERSION/RUNTIME. A file serve.toml in it sets options
    of single models. Requests and answers are those of the Open Inference Protocol; a photo goes to
    /v2/models/NAME/predict. /docs lists every path. With --json the log lines are JSON.
    """
    from edgewright.serve import Access, ModelOptions, serve
    from edgewright.serve.access import read_token
    from edgewright.serve.core.log import lines, silent

    options = ModelOptions(
        threads=terminal.options.threads,
        prefer=tuple(name.strip() for name in prefer.split(",") if name.strip()),
        **served,
    )
    _check_seconds(("--watch", watch, 0.05), ("--keep-alive", keep_alive, 0.1), ("--drain", drain, 0.0))
    if terminal.options.dry_run:
        return _dry_run(terminal, folders, options, allow_hooks)
    serve(
        folders,
        options,
        http=http,
        grpc=grpc,
        host=host,
        watch_s=watch,
        admin_token=None if admin_token is None else read_token(admin_token),
        allow_hooks=allow_hooks,
        access=Access(
            None if token_file is None else read_token(token_file),
            None if tls_cert is None else Path(tls_cert),
            None if tls_key is None else Path(tls_key),
        ),
        log_requests=log_requests,
        trace=trace,
        max_body_mib=max_body,
        keep_alive_s=keep_alive,
        drain_s=drain,
        log=silent if terminal.options.quiet else lines(as_json=terminal.options.as_json),
    )
    return 0


def _check_seconds(*given: tuple[str, float | None, float]) -> None:
    """Refuse options of seconds, (name, value, least), that are out of range."""
    for name, value, least in given:
        if value is not None and not least <= value <= 86400:
            raise EdgewrightError("E103", f"`{name}` is {value}, but must be {least} to 86400 seconds")


def _dry_run(terminal: Terminal, folders: tuple[str, ...], options: ModelOptions, allow_hooks: bool) -> int:
    """Say which bundles would be served, opened as the server opens them: what it would refuse is refused."""
    from edgewright.serve.core.opening import open_place
    from edgewright.serve.core.options import chosen_versions, read_options
    from edgewright.serve.core.places import find_places

    rows = []
    for folder in map(Path, folders):
        places, own = find_places(folder), read_options(folder, options)
        for place in places:
            numbers = tuple({other.version for other in places if other.model == place.model})
            served = own.get(place.model, options)
            if place.version in chosen_versions(served.versions, numbers):
                runtime = open_place(place.path, place.name, served, allow_hooks=allow_hooks).bundle.runtime
                row = {"model": place.name, "version": place.version, "runtime": runtime, "path": str(place.path)}
                rows.append(row)
    if not rows:
        raise EdgewrightError("E104", "the folders hold no bundle", hint="edgewright convert MODEL --out DIR/NAME")

    def render(console: Console) -> None:
        for row in rows:
            console.print("would serve {model} {version}  {runtime}  {path}".format(**row), markup=False)

    terminal.emit({"would_serve": rows}, render)
    return 0
