"""The JSON of binary requests, remembered: clients send the same before every tensor, so that it is read and checked once."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from edgewright.serve.protocol.limits import Limits
from edgewright.serve.protocol.reading import InferRequest, numbers, read_request

#: JSON up to this size is remembered, so many of them at most.
_LONGEST_BYTES, _MOST_FORMS = 4096, 256
#: Tensors up to this size are copied without a look at where they lie.
_SMALL_BYTES = 2**14


class Form:
    """What equal JSON asks for: the same inputs by name, type and shape, and the same of everything else.

    Forms are equal only to themselves, so that what is found out about one can be kept under it.

    Attributes:
        request: What is asked for, without inputs.
        size: Bytes of the tensors behind the JSON.
    """

    __slots__ = ("_tensors", "request", "size")

    def __init__(self, request: InferRequest) -> None:
        """The form of a request whose inputs are numbers in binary, one behind the other."""
        sizes = [array.nbytes for array in request.inputs.values()]
        starts = itertools.accumulate(sizes, initial=0)
        self._tensors = [
            (name, array.dtype, array.shape, start, start + array.nbytes)
            for (name, array), start in zip(request.inputs.items(), starts, strict=False)
        ]
        self.request = request._replace(inputs={})
        self.size = sum(sizes)

    def inputs(self, body: bytes, start: int) -> dict[str, np.ndarray]:
        """The arrays that lie in a body from `start` on; it holds `size` bytes from there."""
        if self.size > _SMALL_BYTES:
            return {name: numbers(body, dtype, shape, start + begin) for name, dtype, shape, begin, _ in self._tensors}
        # a bytes object of its own is aligned for every type
        return {
            name: np.ndarray(shape, dtype, body[start + begin : start + end])
            for name, dtype, shape, begin, end in self._tensors
        }


class Forms:
    """Reads requests within limits, and knows the forms of the last ones."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._known: dict[bytes, Form] = {}

    def find(self, body: bytes, header_length: int) -> Form | None:
        """The form of a body, if it is known and the body has the size that goes with it."""
        if header_length > _LONGEST_BYTES:
            return None
        form = self._known.get(body[:header_length])
        return form if form is not None and len(body) == header_length + form.size else None

    def read(self, body: bytes, header_length: int | None) -> InferRequest:
        """As `read_request`.

        Raises:
            RefusalError: "invalid" with what is wrong.
        """
        form = None if header_length is None else self.find(body, header_length)
        if form is not None and header_length is not None:
            return form.request._replace(inputs=form.inputs(body, header_length))
        request = read_request(body, header_length, self._limits)
        if header_length is not None and header_length <= _LONGEST_BYTES:
            self._remember(body, header_length, request)
        return request

    def _remember(self, body: bytes, header_length: int, request: InferRequest) -> None:
        """Keep the form of a request that was read, if its inputs are nothing but numbers in binary."""
        if not all(_plain(array.dtype) for array in request.inputs.values()):
            return
        form = Form(request)
        if len(body) != header_length + form.size:  # some of them lie in the JSON
            return
        if len(self._known) >= _MOST_FORMS:
            self._known.clear()
        self._known[body[:header_length]] = form


def _plain(dtype: np.dtype[Any]) -> bool:
    """Whether any bytes are values of the type: those of booleans and texts are looked at one by one."""
    return dtype.kind in "fiu"
