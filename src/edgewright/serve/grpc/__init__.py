"""gRPC: the protocol's calls, streams and health checks over grpcio's threads."""
