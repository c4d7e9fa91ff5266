"""Rows of a batch: made-up inputs, and whether a network computes each row by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgewright.model import Arrays, TensorInfo
from edgewright.spec import ImageInput, Spec

#: Relative L2 distance up to which rows computed together and alone count as the same. A batch of another size may be
#: summed in another order (1e-6); rows that see each other differ by far more.
SAME_ROWS = 1e-4


def example_inputs(inputs: Sequence[TensorInfo], spec: Spec, seed: int) -> dict[str, np.ndarray]:
    """Random inputs of one row for a network; open sizes are 1, those of photos as the Spec says."""
    random = np.random.default_rng(seed)
    return {info.name: _example(info, _shape(info, spec.inputs), random) for info in inputs}


def dependence(run: Callable[[Arrays], Mapping[str, np.ndarray]], first: Arrays, second: Arrays) -> float:
    """How far two rows computed together are from the same rows alone (relative L2); rows are independent at `SAME_ROWS`."""
    alone = [run(first), run(second)]
    together = run({name: np.concatenate([first[name], second[name]]) for name in first})
    expected = {
        name: np.concatenate([part[name] for part in alone]) if alone[0][name].ndim else alone[0][name]
        for name in alone[0]
    }
    return distance(together, expected)


def distance(together: Mapping[str, np.ndarray], alone: Mapping[str, np.ndarray]) -> float:
    """Largest relative L2 distance over the outputs; infinite where shapes differ or one holds what the other has not."""
    worst = 0.0
    for name, expected in alone.items():
        array = together[name]
        if array.shape != expected.shape:
            return float("inf")
        if array.dtype.kind not in "fiub":
            worst = max(worst, 0.0 if np.array_equal(array, expected) else float("inf"))
            continue
        a, b = array.astype(np.float64), expected.astype(np.float64)
        if not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return float("inf")
        a, b = a[np.isfinite(a)], b[np.isfinite(b)]
        worst = max(worst, float(np.linalg.norm(a - b) / (np.linalg.norm(b) or 1.0)))
    return worst


def _shape(info: TensorInfo, spec: Mapping[str, Any]) -> tuple[int, ...]:
    shape = [size if isinstance(size, int) else 1 for size in info.shape]
    item = spec.get(info.name)
    if isinstance(item, ImageInput) and len(shape) == 4:
        axis = 2 if item.layout == "nchw" else 1
        shape[axis : axis + 2] = item.size
    return tuple(shape)


def _example(info: TensorInfo, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    dtype = np.dtype(info.dtype)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    if dtype.kind == "O":
        return np.full(shape, "a", object)
    return random.integers(0, 2, shape).astype(dtype)  # 0 and 1 are in the range of any index or mask
