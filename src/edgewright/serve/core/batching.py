"""Several requests as one run: rows joined along the batch axis, variable axes padded to a few sizes, answers cut apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgewright.model import Arrays, TensorInfo
from edgewright.serve.core.jobs import Job, RefusalError


def batch_axis(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> str | None:
    """Name of the open first axis that all inputs share and all outputs have; None where rows cannot be joined.

    An output whose first size has no name or another one is taken for a batch here; `rows.dependence` runs the
    network before anything is batched.
    """
    names = {info.shape[0] if info.shape else None for info in inputs}
    name = names.pop() if len(names) == 1 else None
    if not isinstance(name, str):
        return None
    fixed = any(not info.shape or isinstance(info.shape[0], int) for info in outputs)
    return None if fixed else name


def key_of(inputs: Arrays) -> object:
    """What two requests must have in common to run together: all sizes but the first, of every input."""
    return tuple((name, array.shape[1:]) for name, array in sorted(inputs.items()))


def join(jobs: Sequence[Job]) -> Arrays:
    """The inputs of all jobs as one batch."""
    if len(jobs) == 1:
        return jobs[0].inputs
    return {name: np.concatenate([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}


def split(outputs: Mapping[str, np.ndarray], jobs: Sequence[Job]) -> list[dict[str, np.ndarray]] | None:
    """Each job's rows of the outputs; None where an output has not as many rows as went in."""
    if len(jobs) == 1:
        return [dict(outputs)]
    total = sum(job.rows for job in jobs)
    if any(not array.ndim or len(array) != total for array in outputs.values()):
        return None
    parts, start = [], 0
    for job in jobs:
        # copies: a view would keep the whole batch in memory as long as one slow client reads its answer
        parts.append({name: array[start : start + job.rows].copy() for name, array in outputs.items()})
        start += job.rows
    return parts


def pad(
    inputs: Arrays, infos: Sequence[TensorInfo], buckets: Mapping[str, Sequence[int]]
) -> tuple[Arrays, dict[str, int]]:
    """Inputs with zeros at the ends of the axes named in `buckets`, up to the next size there, and the sizes before.

    Raises:
        RefusalError: "invalid" for an axis longer than its largest bucket, or of two lengths.
    """
    lengths: dict[str, int] = {}
    padded = {}
    for info in infos:
        array, widths = inputs[info.name], []
        for axis, size in zip(info.shape, inputs[info.name].shape, strict=True):
            if axis not in buckets or not isinstance(axis, str):
                widths.append((0, 0))
                continue
            if lengths.setdefault(axis, size) != size:
                raise RefusalError("invalid", f"axis `{axis}` has both {lengths[axis]} and {size} places")
            fitting = [bucket for bucket in sorted(buckets[axis]) if bucket >= size]
            if not fitting:
                raise RefusalError(
                    "invalid", f"axis `{axis}` has {size} places, more than the limit of {max(buckets[axis])}"
                )
            widths.append((0, fitting[0] - size))
        padded[info.name] = np.pad(array, widths) if any(after for _, after in widths) else array
    return padded, lengths


def cut(
    outputs: dict[str, np.ndarray], infos: Sequence[TensorInfo], lengths: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Outputs without the places that padding added: axes that bear a padded input axis's name."""
    if not lengths:
        return outputs
    shown = {}
    for info in infos:
        array = outputs[info.name]
        places = tuple(slice(lengths.get(axis)) if isinstance(axis, str) else slice(None) for axis in info.shape)
        shown[info.name] = array[places] if len(places) == array.ndim else array
    return shown
