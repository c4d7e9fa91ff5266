"""`edgewright serve kubernetes`: manifests for Kubernetes or KServe."""

from __future__ import annotations

import json

import click

from edgewright.cli.common import Terminal, edgewright_command
from edgewright.cli.serving.output import deliver


@edgewright_command(name="kubernetes", short_help="Manifests for Kubernetes or KServe")
@click.option("--image", required=True, help="Container image in which `edgewright` is a command.")
@click.option("--claim", required=True, help="PersistentVolumeClaim that holds the bundles.")
@click.option(
    "--name", default="edgewright", show_default=True, help="Name of what is made; with --kserve the model's."
)
@click.option("--kserve", "for_kserve", is_flag=True, help="A ServingRuntime and an InferenceService instead.")
@click.option("--replicas", type=int, default=2, show_default=True, help="Pods at least.")
@click.option("--most", type=int, default=8, show_default=True, help="Pods at most.")
@click.option("--cpu", default="1", show_default=True, help="Of each pod, as 2 or 500m.")
@click.option("--memory", default="1Gi", show_default=True, help="Of each pod.")
@click.option("--drain", type=int, default=30, show_default=True, metavar="SECONDS", help="Time to finish at the end.")
@click.option("--argument", "arguments", multiple=True, help="A further one for the server. Repeatable.")
@click.option("--out", metavar="FILE", default="-", help="File to write; stdout by default.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def command(
    terminal: Terminal,
    image: str,
    claim: str,
    name: str,
    for_kserve: bool,
    replicas: int,
    most: int,
    cpu: str,
    memory: str,
    drain: int,
    arguments: tuple[str, ...],
    out: str,
    overwrite: bool,
) -> int:
    """Write manifests with probes, resources and a clean end: edgewright serve kubernetes ... | kubectl apply -f -"""
    from edgewright.serve.fleet.kubernetes import Deployment, kserve, kubernetes

    deployment = Deployment(name, image, claim, replicas, most, cpu, memory, drain, arguments)
    document = (kserve if for_kserve else kubernetes)(deployment)
    deliver(terminal, json.dumps(document, indent=1) + "\n", out, overwrite)
    return 0
