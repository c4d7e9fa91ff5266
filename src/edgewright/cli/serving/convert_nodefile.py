"""`edgewright serve convert-nodefile`: a node file of dl_inference as configuration for Envoy."""

from __future__ import annotations

import json

import click

from edgewright.cli.common import Terminal, edgewright_command
from edgewright.cli.serving.output import deliver
from edgewright.cli.serving.upstream import upstream_options


@edgewright_command(name="convert-nodefile", short_help="A dl_inference node file as configuration for Envoy")
@click.argument("file")
@click.option("--grpc", is_flag=True, help="The ports are gRPC ones; clients then send x-edgewright-model: TASKID.")
@click.option("--listen", metavar="HOST:PORT", default="127.0.0.1:8080", show_default=True, help="Where clients come.")
@click.option("--admin", metavar="HOST:PORT", help="Where Envoy shows its state; nowhere by default.")
@upstream_options
@click.option("--out", metavar="FILE", default="-", help="File to write; stdout by default.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def command(
    terminal: Terminal,
    file: str,
    grpc: bool,
    listen: str,
    admin: str | None,
    out: str,
    overwrite: bool,
    **way: str | None,
) -> int:
    """Write the configuration of an Envoy that sends each task to its nodes, within its time.

    FILE has a line taskid=timeoutMs,ip:port,ip:port for each task; a task's name is its model's.
    """
    from dataclasses import replace

    from edgewright.serve.fleet.envoy import envoy
    from edgewright.serve.fleet.nodes import parse_nodes, read_nodefile
    from edgewright.serve.fleet.upstream import read_upstream

    pools = [replace(pool, grpc=grpc) for pool in read_nodefile(file)]
    shown = parse_nodes(admin, "--admin")[0] if admin else None
    upstream = read_upstream(way["ca"], way["tls_name"], way["node_token_file"])
    document = envoy(pools, parse_nodes(listen, "--listen")[0], shown, upstream)
    deliver(terminal, json.dumps(document, indent=1) + "\n", out, overwrite, secret=upstream.token is not None)
    terminal.say(f"{len(pools)} tasks on {len({node for pool in pools for node in pool.nodes})} nodes")
    return 0
