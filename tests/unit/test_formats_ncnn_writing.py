"""formats/ncnn/writing: the text and the bytes that ncnn reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgewright.errors import EdgewrightError
from edgewright.formats.ncnn.writing import Layer, Weight, blob_name, param_text, weight_bytes, with_splits, write


def test_param_text_counts_layers_and_blobs_and_tells_whole_numbers_from_others() -> None:
    layers = [
        Layer("Input", (), ("x",), {0: 4}),
        Layer("Clip", ("x",), ("y",), {1: 6.0, 0: -float("inf"), 2: 3, 10: (1, 2), 11: (0.5,)}),
    ]
    lines = param_text(layers).splitlines()
    assert lines[:2] == ["7767517", "2 2"]
    assert lines[3].split() == [
        *("Clip", "y", "1", "1", "x", "y"),
        *("0=-3.40282347e+38", "1=6.00000000e+00", "2=3", "-23310=2,1,2", "-23311=1,5.00000000e-01"),
    ]


def test_floats_in_text_give_back_the_same_float32() -> None:
    values = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    line = param_text([Layer("X", (), ("x",), {9: [float(value) for value in values]})]).splitlines()[2]
    written = np.array(line.split("=")[1].split(",")[1:], np.float32)
    assert written.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("dtype", "tagged", "head", "size"),
    [
        ("float32", False, b"", 12),
        ("float32", True, b"\x00\x00\x00\x00", 16),
        ("float16", True, b"\x47\x6b\x30\x01", 12),
    ],
)
def test_weights_have_their_tag_and_end_at_a_multiple_of_four(dtype: str, tagged: bool, head: bytes, size: int) -> None:
    data = b"".join(weight_bytes(Layer("X", (), ("x",), {}, (Weight(np.array([1, 2, 3], dtype), tagged),))))
    assert data.startswith(head)
    assert len(data) == size


def test_int8_weights_have_their_tag() -> None:
    data = b"".join(weight_bytes(Layer("X", (), ("x",), {}, (Weight(np.array([1, -2, 3], np.int8), tagged=True),))))
    assert data == b"\x38\x4b\x0d\x00\x01\xfe\x03\x00"


def test_blobs_that_are_read_twice_pass_through_a_split() -> None:
    layers = with_splits(
        [Layer("Input", (), ("x",)), Layer("BinaryOp", ("x", "x"), ("y",)), Layer("ReLU", ("x",), ("z",))]
    )
    assert [layer.kind for layer in layers] == ["Input", "Split", "BinaryOp", "ReLU"]
    read = [name for layer in layers[2:] for name in layer.inputs]
    assert read == list(layers[1].outputs)
    assert len(set(read)) == 3


@pytest.mark.parametrize("name", ["a b", "a\tb", "100%", "a\u00a0b", "\u7f51/conv", "", "x" * 255])
def test_names_can_be_read_back(name: str) -> None:
    from urllib.parse import unquote

    safe = blob_name(name)
    assert unquote(safe) == name
    assert not any(character.isspace() for character in safe)


def test_long_names_are_shortened_and_stay_apart() -> None:
    first, second = blob_name("\u7f51" * 300 + "a"), blob_name("\u7f51" * 300 + "b")
    assert first != second
    assert len(first.encode()) <= 255


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EdgewrightError) as caught:
        write([Layer("Input", (), ("x",))], tmp_path / "no" / "model.param", tmp_path / "no" / "model.bin")
    assert caught.value.code == "E105"
