"""Layouts of LiteRT files: reshaping in whatever order the file has."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.runtimes.litert.layouts import NHWC, Batch, arranged, identity, regroup, signature, without


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Sizes, an order of their axes, and other sizes of as many elements."""
    sizes = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)))
    order = tuple(draw(st.permutations(range(len(sizes)))))
    left, made = math.prod(sizes), []
    for _ in range(draw(st.integers(0, 4))):
        made.append(draw(st.sampled_from([n for n in range(1, left + 1) if left % n == 0])))
        left //= made[-1]
    return sizes, order, (*made, left)


@settings(max_examples=300, deadline=None)
@given(reshapes())
def test_a_reshape_in_the_file_is_the_reshape_of_the_graph(
    case: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
) -> None:
    sizes, order, made = case
    whole = np.arange(math.prod(sizes)).reshape(sizes)
    found = regroup(sizes, order, made)
    assert sorted(found.before) == sorted(order)
    assert sorted(found.after) == list(range(len(made)))
    file = whole.transpose(found.before).reshape(arranged(made, found.after))
    np.testing.assert_array_equal(file.transpose(np.argsort(found.after)), whole.reshape(made))


@pytest.mark.parametrize(
    ("sizes", "order", "made", "before", "after"),
    [
        ((1, 8, 1, 1), NHWC, (1, 8), NHWC, (0, 1)),  # a classifier's Flatten moves nothing
        ((1, 8, 4, 5), NHWC, (1, 2, 4, 4, 5), NHWC, (0, 3, 4, 1, 2)),  # a channel shuffle's first half neither
        ((1, 8, 4, 5), NHWC, (1, 160), (0, 1, 2, 3), (0, 1)),  # channels are merged with places: here it must be NCHW
        ((Batch(1), 8, 4, 5), NHWC, (Batch(1), 8, 20), NHWC, (0, 2, 1)),
    ],
)
def test_orders_change_only_where_axes_are_merged(
    sizes: tuple[int, ...],
    order: tuple[int, ...],
    made: tuple[int, ...],
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> None:
    found = regroup(sizes, order, made)
    assert (found.before, found.after) == (before, after)


def test_sizes_that_grow_are_open_in_the_file() -> None:
    assert signature((Batch(1), 3)) == (-1, 3)
    assert signature((1, 3)) is None
    assert without((0, 2, 3, 1), [2, 3]) == identity(2)
