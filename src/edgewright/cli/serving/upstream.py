"""Options of the commands that write a proxy's configuration: how it speaks to the nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def upstream_options(function: F) -> F:
    """`--ca`, `--tls-name` and `--node-token-file`."""
    for option in (
        click.option("--node-token-file", metavar="FILE", help="Add the token in FILE to requests that have none."),
        click.option("--tls-name", metavar="NAME", help="In the nodes' certificates; by default each node's own."),
        click.option(
            "--ca", metavar="FILE", help="Speak TLS to the nodes, whose certificates are signed by these (PEM)."
        ),
    ):
        function = option(function)
    return function
