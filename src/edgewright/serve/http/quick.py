"""The short way for short runs: a binary request whose JSON was seen before, for a network that runs at once.

Nothing is decided here that is not decided elsewhere as well. What the usual way found out about such a request, how its
bytes lie, that the network takes them, and which JSON its answer begins with, is remembered and not found out again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from edgewright.serve.core.version import Version
from edgewright.serve.http.exchange import Response, binary_response
from edgewright.serve.protocol.forms import Form, Forms
from edgewright.serve.protocol.writing import check_wanted, wanted_by, write_response

#: Forms that are remembered of a version, and kinds of outputs of a form.
_MOST_FORMS, _MOST_KINDS = 256, 16


class _Head(NamedTuple):
    """What answers with outputs of certain types and shapes begin with."""

    content: bytes
    headers: list[tuple[str, str]]


class _Known:
    """A form whose answers are binary altogether, as one version answers it.

    Attributes:
        names: Of the outputs, in their order.
        heads: By types and shapes of these.
    """

    __slots__ = ("heads", "names")

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.heads: dict[object, _Head] = {}


def answer(version: Version, forms: Forms, body: bytes, header_length: int) -> Response | None:
    """The answer to a request, its network run on this thread; None where it has to go the usual way.

    Raises:
        RefusalError: As on the usual way.
    """
    form = forms.find(body, header_length)
    if form is None or form.request.timeout_s is not None:
        return None
    known = version.notes.get(form)
    if known is None:
        wanted = wanted_by(form.request, version)
        if not all(wanted.values()):
            return None
        check_wanted(form.request, version)
        if len(version.notes) >= _MOST_FORMS:
            version.notes.clear()
        known = version.notes[form] = _Known([*wanted])
    outputs = version.run_now(form.inputs(body, header_length), form)
    return None if outputs is None else _written(version, form, known, outputs)


def _written(version: Version, form: Form, known: _Known, outputs: Mapping[str, np.ndarray]) -> Response:
    arrays = [outputs[name] for name in known.names]
    kind = tuple([(array.dtype, array.shape) for array in arrays])
    head = known.heads.get(kind)
    if head is None:
        length, content = write_response(form.request, version, outputs)
        response = binary_response(content, length)
        if length is not None and not any(array.dtype.hasobject for array in arrays):
            if len(known.heads) >= _MOST_KINDS:
                known.heads.clear()
            known.heads[kind] = _Head(content[:length], response.headers)
        return response
    return Response(b"".join([head.content, *[array.tobytes() for array in arrays]]), 200, head.headers)
