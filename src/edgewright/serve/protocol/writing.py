"""An answer as bytes: JSON, and binary tensors behind it where they were asked for."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from edgewright.serve.core.jobs import RefusalError
from edgewright.serve.core.version import Version
from edgewright.serve.protocol.datatypes import datatype_of, pack_bytes
from edgewright.serve.protocol.reading import InferRequest

_encoder = msgspec.json.Encoder(enc_hook=str)  # paths and the like, in results of tasks


def encode(document: Any) -> bytes:
    """JSON. It has no NaN and no infinity: they become null."""
    return _encoder.encode(document)


def check_wanted(request: InferRequest, version: Version) -> None:
    """Refuse a request for outputs that the network does not have, before it is run for nothing.

    Raises:
        RefusalError: "invalid".
    """
    known = [info.name for info in version.bundle.outputs]
    for name in request.wanted:
        if name not in known:
            listed = ", ".join(f"`{other}`" for other in known)
            raise RefusalError("invalid", f"output `{name[:100]}` is not known; the network gives {listed}")


def wanted_by(request: InferRequest, version: Version) -> Mapping[str, bool]:
    """Outputs that a request asks for, in their order, and whether each comes in binary."""
    return request.wanted or dict.fromkeys([info.name for info in version.bundle.outputs], request.binary)


def write_response(
    request: InferRequest, version: Version, outputs: Mapping[str, np.ndarray]
) -> tuple[int | None, bytes]:
    """The length of the JSON (None where all is JSON) and the body.

    Raises:
        RefusalError: "invalid" where texts that are no UTF-8 are asked for in JSON.
    """
    wanted = wanted_by(request, version)
    described, binary = [], []
    for name, in_binary in wanted.items():
        array = outputs[name]
        entry: dict[str, Any] = {"name": name, "shape": array.shape, "datatype": _datatype(array.dtype)}
        if in_binary:
            raw = pack_bytes(array.reshape(-1)) if array.dtype.kind in "OUS" else array.tobytes()
            entry["parameters"] = {"binary_data_size": len(raw)}
            binary.append(raw)
        else:
            entry["data"] = _plain(name, array)
        described.append(entry)
    document: dict[str, Any] = {"model_name": version.name, "model_version": str(version.number)}
    if request.id:
        document["id"] = request.id
    document["outputs"] = described
    head = encode(document)
    if not any(wanted.values()):
        return None, head
    return len(head), b"".join([head, *binary])


@functools.cache  # numpy puts a type's name together anew each time
def _datatype(dtype: np.dtype[Any]) -> str:
    return datatype_of(dtype.name)


def _plain(name: str, array: np.ndarray) -> list[Any]:
    """Values in row-major order, as JSON has them."""
    flat = array.reshape(-1)
    if array.dtype.kind == "V":  # bfloat16
        flat = flat.astype(np.float32)
    values: list[Any] = flat.tolist()
    if array.dtype.kind not in "OS":
        return values
    try:
        return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
    except UnicodeDecodeError:
        raise RefusalError(
            "invalid", f"output `{name}` is not UTF-8, which JSON cannot hold: ask for binary_data"
        ) from None
