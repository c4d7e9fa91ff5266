"""What stands before the calls where an operator asks for it: a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgewright.serve.access import OPEN_CALLS, may_pass


def guard(tokens: Sequence[str]) -> list[Any]:
    """Interceptors for `grpc.server` that ask every call but health checks for one of the tokens; none without tokens."""
    import grpc

    if not tokens:
        return []

    def refuse(request: Any, context: Any) -> None:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is missing or wrong")

    # of the kind that reads nothing and answers nothing before it refuses, whatever the call is
    refusal = grpc.stream_stream_rpc_method_handler(refuse)

    class Guard(grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            given = dict(details.invocation_metadata).get("authorization", "")
            if details.method in OPEN_CALLS or may_pass(str(given), tokens):
                return continuation(details)
            return refusal

    return [Guard()]
