"""`edgewright serve haproxy`: configuration for HAProxy before several servers."""

from __future__ import annotations

import click

from edgewright.cli.common import Terminal, edgewright_command
from edgewright.cli.serving.output import deliver
from edgewright.cli.serving.upstream import upstream_options


@edgewright_command(name="haproxy", short_help="Configuration for HAProxy")
@click.option("--nodes", metavar="HOST:PORT,...", required=True, help="Servers by their HTTP ports.")
@click.option("--listen", metavar="HOST:PORT", default="127.0.0.1:8080", show_default=True, help="Where clients come.")
@click.option("--timeout-ms", type=click.IntRange(1), default=10_000, show_default=True, help="Of a request in all.")
@upstream_options
@click.option("--out", metavar="FILE", default="-", help="File to write; stdout by default.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def command(
    terminal: Terminal, nodes: str, listen: str, timeout_ms: int, out: str, overwrite: bool, **way: str | None
) -> int:
    """Write the configuration of an HAProxy that spreads HTTP requests over servers: haproxy -f FILE."""
    from edgewright.serve.fleet.haproxy import haproxy
    from edgewright.serve.fleet.nodes import Pool, parse_nodes
    from edgewright.serve.fleet.upstream import read_upstream

    pool = Pool("", parse_nodes(nodes, "--nodes"), timeout_ms / 1000)
    upstream = read_upstream(way["ca"], way["tls_name"], way["node_token_file"])
    deliver(
        terminal,
        haproxy(pool, parse_nodes(listen, "--listen")[0], upstream),
        out,
        overwrite,
        secret=upstream.token is not None,
    )
    return 0
