"""Inference requests and answers as gRPC carries them: heads that were seen before are not read again, tensors not copied.

Raw contents are the last field of a ModelInferRequest, and all that differs between a client's requests. What comes before
them, the head, is a message by itself: protobuf reads it once, and equal heads mean the same from then on.

Source: protobuf.dev, "Encoding": a field is a tag (its number times 8 and its wire type), then, for type 2, a length as a
varint and so many bytes; fields of one message may be cut apart and joined at will.
"""

from __future__ import annotations

import functools
import math
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


class _Plan:
    """What a head asks for, and how messages lie that begin with it. Plans are equal only to themselves.

    Attributes:
        size: Bytes of such a message.
    """

    __slots__ = ("_marks", "_model", "_number", "_said", "_tensors", "size")

    def __init__(self, head: bytes, asked: Asked) -> None:
        """The plan of a request whose inputs are raw numbers, all of them, in their order."""
        self._model, self._number = asked.model, asked.number
        self._said = asked.request[1:]  # all but the inputs
        self._tensors: list[tuple[str, np.dtype[Any], tuple[int, ...], int]] = []
        # by place, the bytes that stand before each input's own: at first the head, then tag and length alone
        self._marks: list[tuple[int, bytes]] = []
        self.size, mark = 0, head
        for name, array in asked.request.inputs.items():
            mark += _field(_RAW_INPUT, array.nbytes)
            self._marks.append((self.size, mark))
            self._tensors.append((name, array.dtype, array.shape, self.size + len(mark)))
            self.size, mark = self.size + len(mark) + array.nbytes, b""

    def read(self, data: bytes) -> Asked | None:
        """What a message asks for that differs from the one that was read in the numbers alone; None for all others."""
        if len(data) != self.size:
            return None
        for place, mark in self._marks:
            if not data.startswith(mark, place):
                return None
        inputs = {name: numbers(data, dtype, shape, start) for name, dtype, shape, start in self._tensors}
        return Asked(self._model, self._number, InferRequest(inputs, *self._said), self)


class Reader:
    """Reads requests within limits, and remembers the heads of those whose tensors are raw numbers."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._plans: dict[bytes, _Plan] = {}
        self._heads: dict[int, int] = {}  # by bytes of a message, those of its head, when it was last remembered

    def read(self, data: bytes) -> Asked:
        """The request in a serialized ModelInferRequest; its arrays are views of `data` where they are aligned.

        Raises:
            RefusalError: "invalid" with what is wrong.
        """
        plan = self._plans.get(data[: self._heads.get(len(data), 0)])
        if plan is not None and (known := plan.read(data)) is not None:
            return known
        found = _split(data)
        if len(data) > self._limits.json_bytes and (found is None or found.head > self._limits.json_bytes):
            # small fields take many times their length once they are read, as numbers in JSON do
            raise RefusalError("invalid", f"beside raw contents a request may have {self._limits.json_bytes} bytes")
        message = messages.parse(schema.load("inference").methods["ModelInfer"], data)
        number = messages.version_of(message.model_version)
        asked = Asked(message.model_name, number, messages.read_request(message, self._limits))
        if found is not None and found.head <= _REMEMBERED_BYTES:
            self._remember(data[: found.head], asked, found.contents)
        return asked

    def _remember(self, head: bytes, asked: Asked, count: int) -> None:
        """Keep the plan of a request that was read, if all that it holds are raw numbers."""
        arrays = asked.request.inputs
        if count != len(arrays) or not all(array.dtype.kind in "fiu" for array in arrays.values()):
            return
        if len(self._plans) >= _MOST_REMEMBERED:
            self._plans.clear()
            self._heads.clear()
        plan = self._plans[head] = _Plan(head, asked)
        self._heads[plan.size] = len(head)


class _Places(NamedTuple):
    """The size of the head, and how many raw contents are behind it."""

    head: int
    contents: int


def _split(data: bytes) -> _Places | None:
    """Head and raw contents; None for what protobuf has to read as a whole.

    That is: no raw contents, fields behind them, other wire types, too many fields, damage.
    """
    place, size, head, count = 0, len(data), -1, 0
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
            count += head >= 0
            place += length
            if place >= size:
                break
    except IndexError:
        return None
    return _Places(head, count) if head >= 0 and place == size else None


def write(request: InferRequest, version: Version, outputs: Mapping[str, np.ndarray]) -> bytes:
    """A serialized ModelInferResponse."""
    names = request.wanted or [info.name for info in version.bundle.outputs]
    arrays = [outputs[name] for name in names]
    kinds = tuple([(name, array.dtype, array.shape) for name, array in zip(names, arrays, strict=True)])
    parts: list[Any] = []
    for mark, array in zip(_marks(version.name, version.number, request.id, kinds), arrays, strict=True):
        kind = array.dtype.kind
        if kind in "fiub":
            parts += (mark, array if array.flags.c_contiguous else array.tobytes())
        elif kind in "OUS":
            content = pack_bytes(array.reshape(-1))
            parts += (mark, _field(_RAW_OUTPUT, len(content)), content)
        else:
            parts += (mark, array.tobytes())
    return b"".join(parts)


@functools.lru_cache(256)
def _marks(
    name: str, number: int, id: str, kinds: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]
) -> list[bytes]:
    """What stands before each output's own bytes: the head before the first, tag and length where types have a size."""
    message = schema.load("inference").methods["ModelInfer"].response(model_name=name, model_version=str(number), id=id)
    for output, dtype, shape in kinds:
        message.outputs.add(name=output, datatype=datatype_of(dtype.name), shape=shape)
    marks = [
        b"" if dtype.kind in "OUS" else _field(_RAW_OUTPUT, dtype.itemsize * math.prod(shape))
        for _, dtype, shape in kinds
    ]
    return [message.SerializeToString() + marks[0], *marks[1:]]


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
