"""Where a photo lies in an input: the frame tells what preprocessing did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgewright.framing import Frame, frame, letterbox_box
from edgewright.samples.images import preprocess
from edgewright.spec import ImageInput

SIDES = st.integers(1, 200)


@pytest.mark.parametrize("interpolation", ["bilinear", "darknet"])
@pytest.mark.parametrize("photo", [(40, 20), (20, 40), (31, 31), (200, 3), (1, 64)])
def test_letterbox_frame_is_where_the_photo_is(photo: tuple[int, int], interpolation: Any) -> None:
    item = ImageInput(
        size=(48, 64), resize="letterbox", interpolation=interpolation, colour="gray", mean=(0,), std=(1,), pad_value=0
    )
    rows, columns = np.nonzero(preprocess(Image.new("L", photo, 255), item)[0, 0])
    placed = frame(photo, item)
    assert placed.left * 64 == pytest.approx(columns.min())
    assert placed.top * 48 == pytest.approx(rows.min())
    assert (placed.left + placed.width) * 64 == pytest.approx(columns.max() + 1)
    assert (placed.top + placed.height) * 48 == pytest.approx(rows.max() + 1)


def test_stretch_and_crop() -> None:
    assert frame((40, 20), ImageInput(size=(8, 8), resize="stretch")) == Frame(0, 0, 1, 1)
    cut = frame((40, 20), ImageInput(size=(8, 8), resize="crop", crop_fraction=1.0))
    assert cut == Frame(-0.5, 0, 2, 1)  # the middle 20 of 40 columns
    whole = np.array([[0.25, 0.0, 0.75, 1.0]])
    np.testing.assert_allclose(cut.to_input(whole), [[0, 0, 1, 1]])


@given(
    SIDES, SIDES, SIDES, SIDES, st.sampled_from(["crop", "stretch", "letterbox"]), st.sampled_from(["area", "darknet"])
)
def test_there_and_back(width: int, height: int, rows: int, columns: int, resize: Any, interpolation: Any) -> None:
    item = ImageInput(size=(rows, columns), resize=resize, interpolation=interpolation)
    placed = frame((width, height), item)
    boxes = np.array([[0.1, 0.2, 0.7, 0.9], [-1, 0, 2, 1]])
    np.testing.assert_allclose(placed.to_photo(placed.to_input(boxes)), boxes, atol=1e-9)
    left, top, right, bottom = letterbox_box((width, height), item)
    assert 0 <= left < right <= columns
    assert 0 <= top < bottom <= rows
