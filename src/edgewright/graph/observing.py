"""Looking at inner tensors of a float graph over the calibrate samples: in chunks that fit into memory, finite or refused."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgewright.contracts import Context, Sample, SampleSource
from edgewright.errors import EdgewrightError
from edgewright.graph.shapes import static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

#: Tensors shown by one run stay below this, as far as their sizes are known.
_SHOWN_BYTES = 128 * 2**20
_UNKNOWN_BYTES = 4 * 2**20


def calibrating(context: Context, *, step: str) -> SampleSource:
    """The samples with the role calibrate.

    Raises:
        EdgewrightError: E301 where there are none.
    """
    assert context.samples is not None, "compress gives E301 before the first step"
    found = context.samples.role("calibrate")
    if not len(found):
        raise EdgewrightError(
            "E301",
            f"`{step}` needs samples with the role calibrate, and none of {len(context.samples)} has it",
            hint="give more samples: roles are drawn by content, about a quarter calibrates",
        )
    return found


def chunks(ir_model: ir.Model, names: Iterable[str]) -> Iterator[list[str]]:
    """The names in groups whose float32 arrays fit into memory together, as far as shapes tell."""
    values = {value.name: value for value in ir_model.graph.inputs}
    values |= {value.name: value for node in ir_model.graph for value in node.outputs}
    chunk: list[str] = []
    room = _SHOWN_BYTES
    for name in names:
        shape = static_shape(values[name])
        size = _UNKNOWN_BYTES if shape is None else 4 * math.prod(shape)
        if chunk and size > room:
            yield chunk
            chunk, room = [], _SHOWN_BYTES
        chunk.append(name)
        room -= size
    if chunk:
        yield chunk


def require_finite(name: str, array: np.ndarray, sample: Sample, *, step: str) -> None:
    """Refuse a tensor of which nothing can be learnt.

    Raises:
        EdgewrightError: E212 for NaN and infinity.
    """
    if not array.size or (np.isfinite(array.min()) and np.isfinite(array.max())):  # NaN is both
        return
    bad = int(array.size - np.isfinite(array).sum())
    raise EdgewrightError(
        "E212",
        f"`{step}` cannot learn from `{name}`: {bad} of its {array.size} values are NaN or infinite for sample `{sample.id}`",
        hint="look at that sample; of an inner tensor, the layer that makes it is at fault or overflows",
    )
