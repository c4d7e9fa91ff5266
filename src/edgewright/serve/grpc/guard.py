"""A token for every call over gRPC but those of probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from edgewright.serve.access import may_pass
from edgewright.serve.grpc import schema

#: Calls that need no token: probes have none, and learn nothing but whether the server runs.
_OPEN = ("ServerLive", "ServerReady")


def guard(tokens: Sequence[str]) -> Any:
    """A `grpc.ServerInterceptor` that ends calls without one of the tokens (`authorization: Bearer TOKEN`)."""
    import grpc

    free = {f"/{schema.load('inference').service}/{call}" for call in _OPEN}
    free |= {f"/{schema.load('health').service}/{call}" for call in schema.load("health").methods}

    class Guard(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
        def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
            handler = continuation(details)
            given = str(dict(details.invocation_metadata or ()).get("authorization", ""))
            if handler is None or details.method in free or may_pass(given, tokens):
                return handler
            return _refusal(handler)

    return Guard()


def _refusal(handler: Any) -> Any:
    """A handler of the same kind that ends the call."""
    import grpc

    def refuse(_: Any, context: Any) -> None:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is missing or wrong")

    def refuse_stream(_: Any, context: Any) -> Iterator[bytes]:
        refuse(_, context)
        yield b""

    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(refuse_stream)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(refuse_stream)
    return grpc.unary_unary_rpc_method_handler(refuse)
