"""check: the protocol's cases, put to any server that says it speaks it.

    report = check("http://localhost:8000", grpc=8001)     # ours, Triton, MLServer, KServe ...
    report.ok, report.outcomes

Each case is one request, or a few: what the protocol wants, what came, whether that is it. The first inference over JSON
is what all other ways to ask are compared with. Nothing is loaded, unloaded or changed.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from edgewright import registry
from edgewright.errors import EdgewrightError
from edgewright.serve.check import over_http
from edgewright.serve.check.cases import Outcome, Subject, WrongError, run

__all__ = ["Outcome", "Report", "check"]


@dataclass(frozen=True)
class Report:
    """Outcomes of all cases.

    Attributes:
        url: The server.
        model: The model that was asked.
        outcomes: By transport, in the order of the cases.
    """

    url: str
    model: str
    outcomes: tuple[Outcome, ...]

    @property
    def ok(self) -> bool:
        """True where every case is."""
        return all(outcome.ok for outcome in self.outcomes)

    def to_json(self) -> dict[str, Any]:
        """The report as plain types."""
        return {
            "url": self.url,
            "model": self.model,
            "ok": self.ok,
            "passed": sum(outcome.ok for outcome in self.outcomes),
            "cases": [asdict(outcome) for outcome in self.outcomes],
        }


def check(url: str, *, grpc: int | None = None, model: str | None = None) -> Report:
    """Put every case to the server at `url`.

    Args:
        url: Such as http://localhost:8000; a path in it goes before v2.
        grpc: Port of the same server over gRPC; None leaves those cases out.
        model: Which model to ask; by default the first that the repository index says is ready.

    Raises:
        EdgewrightError: E102 where `grpc` is asked for without the extra `serve`, E103 for what is no such
            address, a server that does not answer, or a model that it does not describe.
    """
    if grpc is not None:
        registry.require(sys.modules["edgewright.serve"], "`serve check --grpc`")
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as problem:
        raise EdgewrightError("E103", f"`{url}` is no address: {problem}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EdgewrightError("E103", f"`{url}` is no address of HTTP", hint="edgewright serve check http://HOST:PORT")
    client = over_http.Client(parts.hostname, port, parts.path.rstrip("/"), tls=parts.scheme == "https")
    try:
        chosen = model or _first_model(client)
        subject = Subject.of(chosen, client.ask("GET", over_http.model_path(chosen)).document())
    except OSError as problem:
        raise EdgewrightError("E103", f"{url} does not answer: {problem}") from None
    except (WrongError, KeyError, TypeError, ValueError, AttributeError) as problem:
        raise EdgewrightError(
            "E103", f"{url} does not describe a model to ask: {problem}", hint="name one of its models by --model"
        ) from None
    outcomes = run("http", over_http.Asker(client, subject).cases())
    if grpc is not None:
        outcomes += _over_grpc(f"{parts.hostname}:{grpc}", subject)
    return Report(url, chosen, tuple(outcomes))


def _over_grpc(address: str, subject: Subject) -> list[Outcome]:
    from edgewright.serve.check import over_grpc  # grpcio takes a while to import

    asker = over_grpc.Asker(address, subject)
    try:
        return run("grpc", asker.cases())
    finally:
        asker.close()


def _first_model(client: over_http.Client) -> str:
    index = client.ask("POST", "v2/repository/index", b"{}", {"content-type": "application/json"}).document()
    ready = [str(entry["name"]) for entry in index if entry.get("state", "READY") == "READY"]
    if not ready:
        raise WrongError("no model is ready")
    return ready[0]
