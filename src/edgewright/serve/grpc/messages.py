"""Inference requests out of protobuf messages. Tensors come raw or as values."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewright.serve.core.jobs import RefusalError
from edgewright.serve.grpc import schema
from edgewright.serve.protocol.limits import Limits
from edgewright.serve.protocol.reading import InferRequest, Parameters, assemble, from_raw, from_values

#: The field of `InferTensorContents` by datatype; 16-bit floats have none.
FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def parse(method: schema.Method, data: bytes) -> Any:
    """A call's request from its bytes.

    Raises:
        RefusalError: "invalid" where they are none.
    """
    try:
        return method.request.FromString(data)
    except Exception:  # protobuf's error depends on its version
        raise RefusalError("invalid", f"the message is no {method.request.DESCRIPTOR.name}") from None


def version_of(text: str) -> int | None:
    """A version as a number; None for the newest.

    Raises:
        RefusalError: "invalid".
    """
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 18):
        raise RefusalError("invalid", f"version {text[:40]!r} is no number")
    return int(text)


def read_request(message: Any, limits: Limits) -> InferRequest:
    """The request in a ModelInferRequest.

    Raises:
        RefusalError: "invalid" with what is wrong.
    """
    tensors, raw = message.inputs, message.raw_input_contents
    if len(tensors) > limits.tensors or len(message.outputs) > limits.tensors:
        raise RefusalError("invalid", f"a request may have {limits.tensors} inputs and outputs at most")
    if raw and len(raw) != len(tensors):
        raise RefusalError("invalid", f"the request has {len(tensors)} inputs, but raw contents of {len(raw)}")
    inputs: dict[str, np.ndarray] = {}
    for index, tensor in enumerate(tensors):
        if tensor.name in inputs:
            raise RefusalError("invalid", f"input `{tensor.name[:100]}` is given twice")
        about = tensor.name, tensor.datatype, tensor.shape, parameters(tensor.parameters)
        if not raw:
            inputs[tensor.name] = from_values(*about, _values(tensor), limits)
        elif tensor.HasField("contents"):
            raise RefusalError("invalid", f"input `{tensor.name[:100]}` has both raw contents and values")
        else:
            inputs[tensor.name] = from_raw(*about, raw[index], limits)
    outputs = [(output.name, parameters(output.parameters)) for output in message.outputs]
    return assemble(inputs, message.id, outputs, parameters(message.parameters))


def parameters(given: Any) -> Parameters:
    """A map of InferParameter or ModelRepositoryParameter as a dictionary."""
    if not given:
        return {}
    return {name: getattr(value, value.WhichOneof("parameter_choice") or "", None) for name, value in given.items()}


def _values(tensor: Any) -> Any:
    """The field of its values. Others must be empty: whoever fills the wrong one would get an answer to something else."""
    wanted = FIELDS.get(tensor.datatype)
    for field, _ in tensor.contents.ListFields():
        if field.name != wanted:
            instead = f"`{wanted}`" if wanted else "raw contents"
            raise RefusalError(
                "invalid", f"input `{tensor.name[:100]}` of {tensor.datatype[:40]} takes {instead}, not `{field.name}`"
            )
    return getattr(tensor.contents, wanted) if wanted else ()
