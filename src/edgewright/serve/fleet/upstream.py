"""How a proxy speaks to the nodes behind it: TLS with a certificate that it checks, and a token that it adds."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import EdgewrightError
from edgewright.serve.access import read_token
from edgewright.serve.fleet.nodes import is_host

#: What a token in a header may be. Source: RFC 6750, 2.1, b64token; nothing in it has a meaning to a proxy.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True)
class Upstream:
    """The way to the nodes.

    Attributes:
        ca: File with the certificates in PEM of whoever signed the nodes', at the place where the proxy finds it; None
            is without TLS.
        tls_name: Name that the nodes' certificates have; "" is each node's own.
        token: Sent to nodes with requests that have no `Authorization` of their own; None adds nothing.
    """

    ca: Path | None = None
    tls_name: str = ""
    token: str | None = None

    def __post_init__(self) -> None:
        if self.tls_name and self.ca is None:
            raise EdgewrightError("E103", "a name to check in certificates needs `--ca FILE`, which is who signed them")
        if self.tls_name and not is_host(self.tls_name):
            raise EdgewrightError("E103", f"`tls_name` is {self.tls_name[:80]!r}, which is no host name")
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise EdgewrightError("E103", "the token has characters that RFC 6750 does not allow in a header")


#: Neither.
PLAIN = Upstream()


def read_upstream(ca: str | None, tls_name: str | None, token_file: str | None) -> Upstream:
    """The way to the nodes, from options of the command line.

    Raises:
        EdgewrightError: E104 for files that cannot be used, E103 for values.
    """
    path = None
    if ca is not None:
        path = Path(ca).absolute()
        if not str(path).isprintable() or set(str(path)) & set("\"'\\$"):
            raise EdgewrightError("E103", f"`--ca` is {str(path)!r}: quotes, \\ and $ mean something to proxies")
        try:
            ssl.create_default_context(cafile=str(path))
        except OSError as problem:  # SSLError is one
            why = getattr(problem, "reason", None) or problem.strerror or problem
            raise EdgewrightError("E104", f"certificates `{ca}` cannot be used: {why}") from None
    return Upstream(path, tls_name or "", None if token_file is None else read_token(token_file))
