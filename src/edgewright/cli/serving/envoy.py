"""`edgewright serve envoy`: configuration for Envoy before several servers."""

from __future__ import annotations

import json

import click

from edgewright.cli.common import Terminal, edgewright_command
from edgewright.cli.serving.output import deliver
from edgewright.cli.serving.upstream import upstream_options
from edgewright.errors import EdgewrightError


@edgewright_command(name="envoy", short_help="Configuration for Envoy")
@click.option("--nodes", metavar="HOST:PORT,...", help="Servers by their HTTP ports.")
@click.option("--grpc-nodes", metavar="HOST:PORT,...", help="Servers by their gRPC ports.")
@click.option("--listen", metavar="HOST:PORT", default="127.0.0.1:8080", show_default=True, help="Where clients come.")
@click.option("--admin", metavar="HOST:PORT", help="Where Envoy shows its state; nowhere by default.")
@click.option("--timeout-ms", type=click.IntRange(1), default=10_000, show_default=True, help="Of a request in all.")
@upstream_options
@click.option("--out", metavar="FILE", default="-", help="File to write; stdout by default.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def command(
    terminal: Terminal,
    nodes: str | None,
    grpc_nodes: str | None,
    listen: str,
    admin: str | None,
    timeout_ms: int,
    out: str,
    overwrite: bool,
    **way: str | None,
) -> int:
    """Write the configuration of an Envoy that spreads requests over servers: envoy -c FILE.

    Health checks, ejection of nodes that fail, least-request, and a second node for a request whose first one failed.
    """
    from edgewright.serve.fleet.envoy import envoy
    from edgewright.serve.fleet.nodes import Pool, parse_nodes
    from edgewright.serve.fleet.upstream import read_upstream

    given = [("--nodes", nodes, False), ("--grpc-nodes", grpc_nodes, True)]
    pools = [
        Pool("", parse_nodes(text, where), timeout_ms / 1000, grpc) for where, text, grpc in given if text is not None
    ]
    if not pools:
        raise EdgewrightError("E103", "no nodes are given", hint="edgewright serve envoy --nodes HOST:PORT,HOST:PORT")
    (where,) = parse_nodes(listen, "--listen")[:1]
    shown = parse_nodes(admin, "--admin")[0] if admin else None
    upstream = read_upstream(way["ca"], way["tls_name"], way["node_token_file"])
    deliver(
        terminal,
        json.dumps(envoy(pools, where, shown, upstream), indent=1) + "\n",
        out,
        overwrite,
        secret=upstream.token is not None,
    )
    return 0
