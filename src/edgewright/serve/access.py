"""Who may use a server: a token for all of it, and TLS."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import EdgewrightError

#: What needs no token: probes have none, and learn nothing but whether the server runs.
OPEN_PATHS = frozenset({"/v2/health/live", "/v2/health/ready"})
#: The same as calls of gRPC.
OPEN_CALLS = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }
)
_SHORTEST = 16
_LARGEST_BYTES = 4096


@dataclass(frozen=True)
class Access:
    """Who may use a server.

    Attributes:
        token: Whoever sends it may use the server (`Authorization: Bearer TOKEN`); None asks nobody for one.
        tls_cert: Certificate chain in PEM; None serves without TLS.
        tls_key: Its private key in PEM.
    """

    token: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise EdgewrightError("E103", "a certificate and its key go together: --tls-cert FILE --tls-key FILE")

    def tokens(self, admin_token: str | None = None) -> tuple[str, ...]:
        """Tokens of which one is asked for: whoever may change what is served may also use it. None where all may."""
        return () if self.token is None else tuple(token for token in (self.token, admin_token) if token)

    def check_tls(self) -> None:
        """Refuse a certificate and key that cannot be used, before anything listens.

        Raises:
            EdgewrightError: E104.
        """
        import ssl

        if self.tls_cert is None or self.tls_key is None:
            return
        for path in (self.tls_cert, self.tls_key):
            try:
                path.open("rb").close()
            except OSError as problem:
                raise EdgewrightError("E104", f"`{path}` cannot be read: {problem.strerror}") from None
        try:
            # an answer for the password: a key that has one would ask for it at the terminal
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.tls_cert, self.tls_key, password="")
        except (OSError, ValueError) as problem:  # SSLError is an OSError
            reason = getattr(problem, "reason", None) or problem
            raise EdgewrightError(
                "E104", f"certificate `{self.tls_cert}` and key `{self.tls_key}` cannot be used: {reason}"
            ) from None


def may_pass(authorization: str, tokens: Iterable[str]) -> bool:
    """Whether a header `Authorization` holds one of the tokens; takes as long whichever letter is wrong."""
    given = authorization.encode("utf-8", "replace")
    found = [hmac.compare_digest(given, f"Bearer {token}".encode()) for token in tokens]
    return any(found)


def read_token(path: str | Path) -> str:
    """The token in a file: one word of at least 16 characters.

    Raises:
        EdgewrightError: E104 where it cannot be read, E103 where it holds anything else.
    """
    try:
        with Path(path).open("rb") as stream:
            token = stream.read(_LARGEST_BYTES + 1).decode("ascii").strip()
    except (OSError, ValueError) as problem:
        raise EdgewrightError("E104", f"token file `{path}` cannot be read: {problem}") from None
    if not _SHORTEST <= len(token) <= _LARGEST_BYTES or not token.isprintable() or " " in token:
        raise EdgewrightError(
            "E103",
            f"the token in `{path}` must be one word of at least {_SHORTEST} characters",
            hint=f"python3 -c 'import secrets; print(secrets.token_urlsafe())' > {path}",
        )
    return token
