"""Open Inference Protocol v2: bytes to requests and answers to bytes, with no transport in it.

Source: open-inference-protocol, specification/protocol/inference_rest.md; the extensions (binary tensors, statistics,
model configuration, repository) as in docs/protocol of triton-inference-server/server.
"""
