"""graph/integers: scales that lose least, by axes and by blocks."""

from __future__ import annotations

import numpy as np
import pytest

from edgewright.graph.integers import by_axes, by_blocks
from edgewright.metrics import sqnr_db

BITS = (4, 7, 8)


def nearest(weights: np.ndarray, kept: tuple[int, ...], bits: int) -> np.ndarray:
    """Rounded with the scale that just holds the largest weight."""
    others = tuple(axis for axis in range(weights.ndim) if axis not in kept)
    scale = np.abs(weights).max(axis=others, keepdims=True) / (2 ** (bits - 1) - 1)
    return np.asarray(np.rint(weights / scale) * scale)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kept", [(0,), (1,), (0, 2)])
def test_better_than_the_largest_weight(kept: tuple[int, ...], bits: int, rng: np.random.Generator) -> None:
    weights = rng.standard_normal((5, 6, 70)).astype(np.float32)
    found = by_axes(weights, kept, bits)
    assert found.integers.dtype == np.int8
    assert found.integers.shape == weights.shape
    assert found.integers.flags.c_contiguous
    assert found.scales.shape == tuple(size if axis in kept else 1 for axis, size in enumerate(weights.shape))
    assert found.integers.min() >= -(2 ** (bits - 1))
    assert found.integers.max() <= 2 ** (bits - 1) - 1
    assert sqnr_db(weights, found.restored()) >= sqnr_db(weights, nearest(weights, kept, bits))


@pytest.mark.parametrize("bits", BITS)
def test_what_lies_on_a_grid_is_kept(bits: int, rng: np.random.Generator) -> None:
    low, high = -(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1
    grid = rng.integers(low, high + 1, (8, 40))
    grid[:, 0] = high
    weights = (grid * np.exp2(rng.integers(-8, 8, (8, 1)))).astype(np.float32)
    found = by_axes(weights, (0,), bits)
    assert np.array_equal(found.integers, grid)
    assert np.allclose(found.restored(), weights, rtol=np.finfo(np.float32).eps * 4)


def test_blocks_have_their_own_scale_and_the_last_may_be_short(rng: np.random.Generator) -> None:
    weights = rng.standard_normal((3, 70, 4)).astype(np.float32)
    weights[:, :32] *= 1000
    found = by_blocks(weights, 1, 32, 4)
    assert found.scales.shape == (3, 3, 4)
    assert found.block == (1, 32)
    assert sqnr_db(weights[:, 32:], found.restored()[:, 32:]) > sqnr_db(
        weights[:, 32:], by_axes(weights, (0, 2), 4).restored()[:, 32:]
    )


@pytest.mark.parametrize("factor", [0.0, 1e-45, 1e-38, 1e-30, 1e30, 3e38])
def test_extremes_stay_finite(factor: float, rng: np.random.Generator) -> None:
    weights = (rng.uniform(-1, 1, (3, 16)) * factor).astype(np.float32)
    weights[1] = 0
    found = by_axes(weights, (0,), 8)
    assert np.isfinite(found.scales).all()
    assert (found.scales > 0).all()
    assert not found.integers[1].any()
    assert np.isfinite(found.restored()).all()
    if factor > 1e-36:
        assert sqnr_db(weights.astype(np.float64), found.restored()) > sqnr_db(np.ones(1), np.array([1.01]))


def test_chunks_join(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = rng.standard_normal((50, 30)).astype(np.float32)
    whole = by_axes(weights, (0,), 8)
    monkeypatch.setattr("edgewright.graph.integers._CHUNK", 100)
    parts = by_axes(weights, (0,), 8)
    assert np.array_equal(whole.integers, parts.integers)
    assert np.array_equal(whole.scales, parts.scales)
