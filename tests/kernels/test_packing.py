"""Signs as bits: what packing means, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.errors import EdgewrightError
from edgewright.ops import binary, packing
from edgewright.ops.binary import Affine, Window


def test_bits_in_words_of_little_endian() -> None:
    x = np.ones((1, 70, 1, 2), np.float32)
    x[0, 0, 0, 0] = x[0, 63, 0, 0] = x[0, 69, 0, 1] = -1
    words = packing.pack_signs(x).view("<u8")
    assert words.tolist() == [[[[1 | 1 << 63, 0], [0, 1 << 5]]]]


def test_zero_minus_zero_and_no_number_are_plus() -> None:
    x = np.array([[0.0, -0.0, np.nan, -1e-45, 1.0, -np.inf]], np.float32)
    assert packing.unpack_signs(packing.pack_signs(x), 6).tolist() == [[1, 1, 1, -1, 1, -1]]


def test_threshold_is_strict_and_by_channel() -> None:
    x = np.array([[1.0, 1.0, 1.0]], np.float32)
    signs = packing.pack_signs(x, np.array([1.0, 1.5, 0.5], np.float32))
    assert packing.unpack_signs(signs, 3).tolist() == [[1, -1, 1]]


@given(bits=st.lists(st.booleans(), min_size=0, max_size=200))
def test_round_trip(bits: list[bool]) -> None:
    packed = packing.pack_bits(np.array([bits], bool))
    assert packed.shape == (1, packing.bytes_for(len(bits)))
    assert packing.unpack_bits(packed, len(bits)).tolist() == [bits]


@pytest.mark.parametrize(
    ("packed", "channels", "message"),
    [
        (np.zeros((2, 8), np.int8), 3, "not uint8"),
        (np.zeros((2, 7), np.uint8), 3, "take 8"),
        (np.zeros((2, 8), np.uint8), 65, "take 16"),
        (np.full((2, 8), 8, np.uint8), 3, "beyond its 3 channels"),
        (np.array([[0, 0, 0, 0, 0, 0, 0, 1]], np.uint8), 56, "beyond its 56 channels"),
        (np.array([[0, 0, 0, 0, 0, 0, 0, 1]], np.uint8), 8, "beyond its 8 channels"),
    ],
)
def test_corrupt_bits_are_refused(packed: np.ndarray, channels: int, message: str) -> None:
    with pytest.raises(EdgewrightError, match=message) as raised:
        packing.check_packed(packed, channels)
    assert raised.value.code == "E202"


def test_dots_are_those_of_the_signs(rng: np.random.Generator) -> None:
    x, w = (np.where(rng.random(size) < 0.5, -1, 1) for size in ((1, 5, 4, 4), (3, 5, 3, 3)))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-1)
    wanted = np.zeros((1, 2, 2, 3), int)
    for y, x_, m in np.ndindex(2, 2, 3):
        wanted[0, y, x_, m] = (padded[0, :, 2 * y : 2 * y + 3, 2 * x_ : 2 * x_ + 3] * w[m]).sum()
    weights = packing.pack_bits(np.moveaxis(w, 1, -1) < 0)
    window = Window(strides=(2, 2), pads=(1, 1, 1, 1), pad_value=-1)
    np.testing.assert_array_equal(binary.conv_dots(packing.pack_signs(x), weights, 5, window), wanted)
    other = binary.conv_dots(packing.pack_signs(x), weights, 5, Window(strides=(2, 2), pads=(1, 1, 1, 1)))
    assert not np.array_equal(other, wanted)  # the sign that pads matters


def test_thresholds_and_affine() -> None:
    dots = np.array([[3, 3, 3, 3]], np.int32)
    made = binary.below(dots, np.array([3, 4, 3, 4], np.int32), np.array([False, False, True, True]))
    assert packing.unpack_signs(made, 4).tolist() == [[1, -1, -1, 1]]
    how = Affine(*np.array([[2, -2, 1, 1], [1, 0, 0, 0], [1, 0.25, 1, 1]], np.float32), low=-10, high=6)
    assert binary.affine(dots, how, np.array([[0, 0, 1, -4]], np.float32)).tolist() == [[6, -1.5, 4, -1]]
