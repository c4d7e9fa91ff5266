"""ncnn's two files as they are read: every spelling of a value, every type of weights, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from tests.ncnn_nets import BFLOAT, HALF, INT8, SCALED, plain, tagged, text

import edgewright as ew
from edgewright.formats.ncnn.reading import Line, Weights, read_param

LINE = Line("Convolution", "conv", ("in",), ("out",), {}, 7, "net.param")


def read(folder: Path, content: str | bytes) -> list[Line]:
    path = folder / "net.param"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_param(path)


def one(folder: Path, values: str) -> dict[int, object]:
    """The parameters of a layer that are written as `values`."""
    return dict(read(folder, text(f"Input a 0 1 in\nReLU b 1 1 in out {values}"))[1].values)


def test_a_layer_is_read_with_its_line(tmp_path: Path) -> None:
    lines = read(tmp_path, "7767517\n2 3\nInput data 0 1 data 0=4\nSplit s 1 2 data a b\n")
    assert [(line.kind, line.name, line.bottoms, line.tops, line.number) for line in lines] == [
        ("Input", "data", (), ("data",), 3),
        ("Split", "s", ("data",), ("a", "b"), 4),
    ]
    assert lines[0].values == {0: 4}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("0=3 1=-5 2=+7", {0: 3, 1: -5, 2: 7}),
        ("0=0.5 1=-1.5e-3 2=1e2 3=.5 4=2.", {0: 0.5, 1: -0.0015, 2: 100.0, 3: 0.5, 4: 2.0}),
        ("-23303=3,1,-2,3", {3: (1, -2, 3)}),
        ("-23310=2,0.1,1e-1", {10: (0.1, 0.1)}),
        ("-23300=0", {0: ()}),
        ("3=1,2 4=0.5,1.5", {3: (1, 2), 4: (0.5, 1.5)}),
        ('6="0w,0h / 2" 7=hello', {6: "0w,0h / 2", 7: "hello"}),
        ("0=1 # the rest says nothing 1=2", {0: 1}),
        ("1=-3.402824e+38", {1: float(np.finfo(np.float32).min)}),
    ],
)
def test_values_of_all_kinds(written: str, meant: dict[int, object], tmp_path: Path) -> None:
    assert one(tmp_path, written) == meant


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\n\n  \n"])
def test_line_ends_blanks_and_comments(ending: str, tmp_path: Path) -> None:
    lines = text("Input a 0 1 in 0=4\nReLU b 1 1 in out").replace("\n", ending)
    found = read(tmp_path, f"# a comment{ending}{lines}# another")
    assert [line.kind for line in found] == ["Input", "ReLU"]


def test_a_byte_order_mark_and_latin_names(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbf" + text("Input \u00e9 0 1 \u00e9 0=4").encode())[0].name == "\u00e9"
    assert read(tmp_path, text("Input \u00e9 0 1 \u00e9 0=4").encode("latin-1"))[0].tops == ("\u00e9",)


BAD_PARAMS = [
    ("E201", b"", "not 7767517"),
    ("E201", b"7767516\n1 1\nInput a 0 1 a", "line 1 is `7767516`"),
    ("E201", struct.pack("<3i", 7767517, 1, 1), "binary .param"),
    ("E201", b"7767517\n1 1\nInput a 0 1 a \0", "not text"),
    ("E201", b"7767517\n", "numbers of layers and blobs"),
    ("E201", b"7767517\n2 x\n", "line 2 is `2 x`"),
    ("E201", b"7767517\n2 1\nInput a 0 1 a\n", "says 2 layers and has 1"),
    ("E201", b"7767517\n1 2\nInput a 0 1 a\n", "says 2 blobs and has 1"),
    ("E203", b"7767517\n2 2\nReLU b 1 1 a b\nInput a 0 1 a\n", "before a layer makes it"),
    ("E203", b"7767517\n1 1\nReLU b 1 1 b b\n", "before a layer makes it"),
    ("E203", b"7767517\n1 1\nReLU b 1 1 a b\n", "that no layer makes"),
    ("E203", b"7767517\n2 2\nInput a 0 1 a\nInput b 0 1 a\n", "as line 3 does"),
    ("E215", b"7767517\n1 1\nInput a 0\n", "is no layer"),
    ("E215", b"7767517\n1 1\nInput a zero 1 a\n", "is no layer"),
    ("E215", b"7767517\n1 1\nInput a 0 3 a b\n", "has 3 blobs, but names 2"),
    ("E215", b"7767517\n1 1\nInput a 0 999999 a b\n", "has 999999 blobs"),
    ("E215", b"7767517\n1 1\nInput a 0 1 a 0=4 nonsense\n", "`nonsense` is no parameter"),
    ("E215", b"7767517\n1 1\nInput a 0 1 a 0=\n", "must be a number"),
    ("E215", b"7767517\n1 1\nInput a 0 1 a 0=4x\n", "`4x`"),
    ("E215", b"7767517\n1 1\nInput a 0 1 a 0=99999999999\n", "beyond what 32 bits hold"),
    ("E215", b"7767517\n1 1\nInput a 0 1 a 32=1\n", "ids are 0 to 31"),
    ("E215", b"7767517\n1 1\nInput a 0 1 a -5=1\n", "ids are 0 to 31"),
    ("E215", b"7767517\n1 1\nInput a 0 1 a 0=1 0=2\n", "there twice"),
    ("E215", b"7767517\n1 1\nInput a 0 1 a -23300=3,1,2\n", "says 3 numbers and has 2"),
    ("E215", b"7767517\n1 1\nInput a 0 1 a -23300=999999999,1\n", "says 999999999 numbers"),
    ("E215", b'7767517\n1 1\nInput a 0 1 a 6="open\n', "is no parameter"),
    ("E215", b"7767517\n1 1\nInput a 0 1 " + b"a" * 300 + b"\n", "longer than 255"),
]


@pytest.mark.parametrize(("code", "content", "part"), BAD_PARAMS, ids=[part for _, _, part in BAD_PARAMS])
def test_a_bad_param_is_refused(code: str, content: bytes, part: str, tmp_path: Path) -> None:
    with pytest.raises(ew.EdgewrightError) as caught:
        read(tmp_path, content)
    assert caught.value.code == code
    assert part in caught.value.message
    assert "net.param" in caught.value.message


def test_a_folder_is_no_param(tmp_path: Path) -> None:
    with pytest.raises(ew.EdgewrightError, match="E104"):
        read_param(tmp_path)


# --- weights ------------------------------------------------------------------------------------------------------------


def opened(folder: Path, data: bytes) -> Weights:
    path = folder / "net.bin"
    path.write_bytes(data)
    return Weights(path)


def table(values: np.ndarray) -> bytes:
    """Weights as indices into 256 numbers."""
    numbers = np.zeros(256, np.float32)
    numbers[: len(values)] = values
    return struct.pack("<I", 0x00010203) + plain(numbers) + bytes(range(len(values))) + b"\0" * (-len(values) % 4)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_types_of_weights_and_their_padding(count: int, tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.normal(size=count).astype(np.float32)
    integers = rng.integers(-127, 128, count)
    parts = [
        tagged(values),
        tagged(values, HALF),
        tagged(values, BFLOAT),
        tagged(integers, INT8),
        tagged(values, SCALED),
    ]
    with opened(tmp_path, b"".join([*parts, table(values), plain(values)])) as weights:
        exact, half, bfloat, eight, scaled = (weights.tagged(LINE, count) for _ in range(5))
        looked_up, untagged = weights.tagged(LINE, count), weights.plain(LINE, count)
        weights.finish()
    for array in (exact, scaled, looked_up, untagged):
        np.testing.assert_array_equal(array, values)
    np.testing.assert_array_equal(half, values.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(bfloat, (values.view(np.uint32) & 0xFFFF0000).view(np.float32))
    np.testing.assert_array_equal(eight, integers)
    assert eight.dtype == np.int8
    assert {array.dtype for array in (exact, half, bfloat, scaled, looked_up, untagged)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    "data", [tagged(np.ones(6)), tagged(np.ones(6), HALF), tagged(np.ones(6), INT8), table(np.ones(6))]
)
def test_weights_that_end_too_early_name_the_layer(data: bytes, tmp_path: Path) -> None:
    for size in range(len(data)):
        with opened(tmp_path, data[:size]) as weights, pytest.raises(ew.EdgewrightError) as caught:
            weights.tagged(LINE, 6)
        assert caught.value.code == "E202"
        assert "Convolution `conv` (line 7) needs" in caught.value.message


def test_more_weights_than_memory_holds_are_refused_by_their_number(tmp_path: Path) -> None:
    with opened(tmp_path, tagged(np.ones(8))) as weights, pytest.raises(ew.EdgewrightError, match="at byte 0, 36 left"):
        weights.tagged(LINE, 2**60)


def test_bytes_that_are_left_are_counted(tmp_path: Path) -> None:
    with opened(tmp_path, plain(np.ones(3)) + b"12345") as weights:
        weights.plain(LINE, 3)
        with pytest.raises(ew.EdgewrightError, match="5 bytes are left after the last layer, of 17"):
            weights.finish()


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ew.EdgewrightError, match="E104"):
        Weights(tmp_path / "none.bin")
