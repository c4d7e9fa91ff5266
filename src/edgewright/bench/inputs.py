"""What the workers run on: a few real samples in rotation, or seeded random arrays where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.model import Arrays, TensorInfo
from edgewright.samples import Samples
from edgewright.session import check_array

if TYPE_CHECKING:
    from edgewright.contracts import SampleSource

#: Inputs stay in the worker's memory and count in its peak, so there are no more than this, and at least one.
_INPUT_BYTES_MAX = 64 * 2**20
#: One random array that is larger than this is a mistake in a shape.
_RANDOM_BYTES_MAX = 2**30


@dataclass(frozen=True)
class Inputs:
    """Inputs ready for the workers.

    Attributes:
        path: `.npz` file; entry `I.P` is sample I's array for the network's P-th input (names may be anything).
        note: Where they come from, for the report.
        photos: Files of the same samples, where the samples are photos.
    """

    path: Path
    note: str
    photos: tuple[Path, ...] = ()


def prepare(infos: Sequence[TensorInfo], samples: SampleSource | None, path: Path, *, limit: int, seed: int) -> Inputs:
    """Write at most `limit` inputs of a network that takes `infos` to the `.npz` file `path`.

    Raises:
        EdgewrightError: E301 when `samples` has no judges, E230 for a sample that does not fit, E209 when random
            inputs would have to guess a size.
    """
    if samples is None:
        chosen = random_arrays(infos, limit=limit, seed=seed)
        note = f"{len(chosen)} random inputs in rotation (no samples were given)"
    else:
        chosen = sample_arrays(infos, samples, limit=limit)
        note = f"{len(chosen)} samples in rotation"
    entries = {
        f"{index}.{position}": arrays[info.name]
        for index, arrays in enumerate(chosen)
        for position, info in enumerate(infos)
    }
    np.savez(path, **entries)  # type: ignore[arg-type]
    return Inputs(path, note, photos(samples, limit=limit))


def photos(samples: SampleSource | None, *, limit: int) -> tuple[Path, ...]:
    """Files of the samples that `sample_arrays` chooses, where they are photos."""
    chosen = _judges(samples, limit) if samples is not None else None
    if not isinstance(chosen, Samples) or not chosen.are_photos:
        return ()
    return tuple(chosen.raw(name) for name in chosen.ids)


def sample_arrays(infos: Sequence[TensorInfo], samples: SampleSource, *, limit: int) -> tuple[Arrays, ...]:
    """At most `limit` judge samples, checked against the network's inputs `infos`.

    Raises:
        EdgewrightError: E301 when there are none, E230 for a sample that does not fit.
    """
    chosen: list[Arrays] = []
    size = 0
    for sample in islice(_judges(samples, limit), limit):
        _check(sample.id, sample.arrays, infos)
        size += sum(sample.arrays[info.name].nbytes for info in infos)
        if chosen and size > _INPUT_BYTES_MAX:
            break
        chosen.append({info.name: sample.arrays[info.name] for info in infos})
    if not chosen:
        raise EdgewrightError(
            "E301", "there are no samples of the role `judge` to measure with", hint="give more photos"
        )
    return tuple(chosen)


def random_arrays(infos: Sequence[TensorInfo], *, limit: int, seed: int) -> tuple[Arrays, ...]:
    """`limit` seeded random inputs; an unknown first size becomes 1.

    Floats are normally distributed, integers and booleans 0 or 1 (as an index they are within any table).

    Raises:
        EdgewrightError: E209 for another size that is not known: random arrays cannot guess it.
    """
    rng = np.random.default_rng(seed)
    chosen: list[Arrays] = []
    size = 0
    while len(chosen) < limit:
        arrays = {info.name: _random_array(info, rng) for info in infos}
        size += sum(array.nbytes for array in arrays.values())
        if chosen and size > _INPUT_BYTES_MAX:
            break
        chosen.append(arrays)
    return tuple(chosen)


def _judges(samples: SampleSource, limit: int) -> SampleSource:
    """The judge role; of `Samples` the `limit` that are always the same, not the first few of one class folder."""
    judges = samples.role("judge")
    return judges.take(limit) if isinstance(judges, Samples) else judges


def _check(sample: str, arrays: Arrays, infos: Sequence[TensorInfo]) -> None:
    for info in infos:
        if info.name not in arrays:
            raise EdgewrightError("E230", f"sample `{sample}` has no array for the input `{info.name}`")
        try:
            check_array(info, arrays[info.name])
        except EdgewrightError as error:
            raise EdgewrightError(error.code, f"sample `{sample}`: {error.message}", hint=error.hint) from None


def _random_array(info: TensorInfo, rng: np.random.Generator) -> np.ndarray:
    shape = tuple(1 if axis == 0 and not isinstance(size, int) else size for axis, size in enumerate(info.shape))
    sizes = [size for size in shape if isinstance(size, int)]
    if len(sizes) < len(shape):
        raise EdgewrightError(
            "E209", f"input `{info}` has sizes that are not known, so random inputs cannot be made", hint="give samples"
        )
    dtype = np.dtype(info.dtype)
    count = 1
    for size in sizes:
        count *= size
    if count * dtype.itemsize > _RANDOM_BYTES_MAX:
        raise EdgewrightError("E209", f"input `{info}` is larger than {_RANDOM_BYTES_MAX} bytes", hint="give samples")
    if dtype.kind in "iub":
        return np.asarray(rng.integers(0, 2, sizes), dtype)
    return np.asarray(rng.standard_normal(sizes, np.float32), dtype)
