"""Inference requests and answers as gRPC carries them: heads that were seen before are not read again, tensors not copied.

Raw contents are the last field of a ModelInferRequest, and all that differs between a client's requests. What comes before
them, the head, is a message by itself: protobuf reads it once, and equal heads mean the same from then on.

Source: protobuf.dev, "Encoding": a field is a tag (its number times 8 and its wire type), then, for type 2, a length as a
varint and so many bytes; fields of one message may be cut apart and joined at will.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from edgewright.serve.core.jobs import RefusalError
from edgewright.serve.core.version import Version
from edgewright.serve.grpc import messages, schema
from edgewright.serve.protocol.datatypes import datatype_of, pack_bytes
from edgewright.serve.protocol.limits import Limits
from edgewright.serve.protocol.reading import InferRequest, numbers

_LENGTH = 2  # the wire type
_RAW_INPUT, _RAW_OUTPUT, _INFER_RESPONSE = 7 << 3 | _LENGTH, 6 << 3 | _LENGTH, 2 << 3 | _LENGTH
#: Heads up to this size are remembered, so many of them at most.
_REMEMBERED_BYTES, _MOST_REMEMBERED = 4096, 256
#: Fields of a message that are looked at one by one; whoever sends more of them is read by protobuf.
_MOST_FIELDS = 1024


class Asked(NamedTuple):
    """What is asked of which model.

    Attributes:
        model: Name, perhaps with a variant.
        number: The version; None is the newest.
        request: What else the request says.
        form: Stands for names, types and shapes of the inputs (see `Version.run_now`), where their head came before.
    """

    model: str
    number: int | None
    request: InferRequest
    form: object = None


class _Plan(NamedTuple):
    """What a head asks for, without inputs, and by input its numpy type, its shape and its bytes."""

    asked: Asked
    tensors: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...]


class Reader:
    """Reads requests within limits, and remembers the heads of those whose tensors are raw numbers."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._plans: dict[bytes, _Plan] = {}

    def read(self, data: bytes) -> Asked:
        """The request in a serialized ModelInferRequest; its arrays are views of `data` where they are aligned.

        Raises:
            RefusalError: "invalid" with what is wrong.
        """
        found = _split(data)
        if len(data) > self._limits.json_bytes and (found is None or found.head > self._limits.json_bytes):
            # small fields take many times their length once they are read, as numbers in JSON do
            raise RefusalError("invalid", f"beside raw contents a request may have {self._limits.json_bytes} bytes")
        plan = None if found is None or found.head > _REMEMBERED_BYTES else self._plans.get(data[: found.head])
        if found is None or plan is None or [size for _, size in found.raw] != [tensor[3] for tensor in plan.tensors]:
            return self._read(data, found)
        inputs = {
            name: numbers(data, dtype, shape, start)
            for (name, dtype, shape, _), (start, _) in zip(plan.tensors, found.raw, strict=True)
        }
        model, number, request, _ = plan.asked
        return Asked(model, number, request._replace(inputs=inputs), plan.tensors)

    def _read(self, data: bytes, found: _Places | None) -> Asked:
        message = messages.parse(schema.load("inference").methods["ModelInfer"], data)
        number = messages.version_of(message.model_version)
        asked = Asked(message.model_name, number, messages.read_request(message, self._limits))
        if found is not None and found.head <= _REMEMBERED_BYTES:
            self._remember(data[: found.head], asked, len(found.raw))
        return asked

    def _remember(self, head: bytes, asked: Asked, count: int) -> None:
        """Keep the plan of a request that was read, if all that it holds are raw numbers."""
        arrays = asked.request.inputs
        if count != len(arrays) or not all(array.dtype.kind in "fiu" for array in arrays.values()):
            return
        if len(self._plans) >= _MOST_REMEMBERED:
            self._plans.clear()
        tensors = tuple((name, array.dtype, array.shape, array.nbytes) for name, array in arrays.items())
        self._plans[head] = _Plan(asked._replace(request=asked.request._replace(inputs={})), tensors)


class _Places(NamedTuple):
    """The size of the head, and where raw contents start and how long they are."""

    head: int
    raw: list[tuple[int, int]]


def _split(data: bytes) -> _Places | None:
    """Head and raw contents; None for what protobuf has to read as a whole.

    That is: no raw contents, fields behind them, other wire types, too many fields, damage.
    """
    place, size, head = 0, len(data), -1
    raw: list[tuple[int, int]] = []
    try:
        for _ in range(_MOST_FIELDS):
            tag = data[place]
            if tag == _RAW_INPUT:
                head = place if head < 0 else head
            elif head >= 0 or tag & 0x87 != _LENGTH:
                return None
            length, shift, place = data[place + 1] & 0x7F, 7, place + 2
            while data[place - 1] & 0x80:
                length |= (data[place] & 0x7F) << shift
                shift, place = shift + 7, place + 1
            if head >= 0:
                raw.append((place, length))
            place += length
            if place >= size:
                break
    except IndexError:
        return None
    return _Places(head, raw) if head >= 0 and place == size else None


def write(request: InferRequest, version: Version, outputs: Mapping[str, np.ndarray]) -> bytes:
    """A serialized ModelInferResponse."""
    arrays = [(name, outputs[name]) for name in request.wanted or [info.name for info in version.bundle.outputs]]
    about = tuple([(name, array.dtype, array.shape) for name, array in arrays])
    parts: list[Any] = [_head(version.name, version.number, request.id, about)]
    for _, array in arrays:
        content: Any = array
        if array.dtype.kind in "OUS":
            content = pack_bytes(array.reshape(-1))
        elif array.dtype.kind not in "fiub" or not array.flags.c_contiguous:
            content = array.tobytes()
        parts += (_field(_RAW_OUTPUT, len(content) if isinstance(content, bytes) else array.nbytes), content)
    return b"".join(parts)


@functools.lru_cache(256)
def _head(name: str, number: int, id: str, about: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]) -> bytes:
    message = schema.load("inference").methods["ModelInfer"].response(model_name=name, model_version=str(number), id=id)
    for output, dtype, shape in about:
        message.outputs.add(name=output, datatype=datatype_of(dtype.name), shape=shape)
    content: bytes = message.SerializeToString()
    return content


def in_stream(response: bytes) -> bytes:
    """A serialized ModelStreamInferResponse around a ModelInferResponse."""
    return _field(_INFER_RESPONSE, len(response)) + response


def _field(tag: int, length: int) -> bytes:
    found = [tag]
    while length > 0x7F:
        found.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*found, length])


def error_in_stream(problem: RefusalError, id: str) -> bytes:
    """A serialized ModelStreamInferResponse that says what is wrong with the request of this id."""
    message = schema.load("inference").methods["ModelStreamInfer"].response(error_message=problem.message)
    message.infer_response.id = id
    content: bytes = message.SerializeToString()
    return content
