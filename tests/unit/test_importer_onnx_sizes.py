"""Open sizes of inputs that are fixed at loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.onnx_files import refused

import edgewright as ew
from edgewright.cli import main

#: The height is shared by both inputs; the flattened length is computed from what comes in.
TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 3, h, w] x, float[n, 1, h, w] m) => (float[a, b] y, float[n, 3, h, w] z)
  <int64[1] batch = {0}, int64[1] first = {1}, int64[1] rest = {-1}>
{
  z = Mul (x, m)
  shape = Shape (z)
  n = Slice (shape, batch, first)
  target = Concat <axis = 0> (n, rest)
  y = Reshape (z, target)
}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "open.onnx"
    onnx.save(onnx.parser.parse_model(TEXT), file)
    return file


def shapes(model: ew.Model) -> list[tuple[object, ...]]:
    return [tuple(info.shape) for info in (*model.inputs, *model.outputs)]


def test_sizes_reach_inputs_that_share_them_and_outputs(path: Path) -> None:
    model = ew.load(path, sizes=("x=2x3x4x5",))
    assert shapes(model) == [(2, 3, 4, 5), (2, 1, 4, 5), (2, 60), (2, 3, 4, 5)]
    assert model.hash != ew.load(path).hash
    x = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    m = np.full((2, 1, 4, 5), 2, np.float32)
    with ew.open(ew.load(path)) as free, ew.open(model) as fixed:
        expected, got = free.run({"x": x, "m": m}), fixed.run({"x": x, "m": m})
    assert np.array_equal(expected["y"], got["y"]) and got["y"].shape == (2, 60)


def test_an_axis_that_is_no_number_stays_open(path: Path) -> None:
    first, second, *_ = shapes(ew.load(path, sizes=("x=Nx3x4x5",)))
    assert first == ("n", 3, 4, 5) and second == ("n", 1, 4, 5)


def test_one_input_needs_no_name(tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, k] x) => (float[n, k] y) { y = Relu (x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    assert shapes(ew.load(tmp_path / "m.onnx", sizes=("1x7",))) == [(1, 7), (1, 7)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("2x3x4x5", ("name its input", "`x`", "`m`")),
        ("q=2x3x4x5", ("no input `q`",)),
        ("x=2x3", ("2 axes", "has 4")),
        ("x=2x4x4x5", ("asks for 4", "fixed to 3")),
        ("x=", ("1x3x48x320",)),
        ("x=axbxcxd", ("1x3x48x320",)),
        ("x=1x3x0x5", ("must be 1 to",)),
        ("x=99999x3x99999x99999", ("must be 1 to",)),
    ],
)
def test_sizes_that_do_not_fit_are_refused(path: Path, text: str, parts: tuple[str, ...]) -> None:
    with refused("E103", "onnx.sizes", *parts):
        ew.load(path, sizes=(text,))


@pytest.mark.parametrize("runtime", ["ncnn", "litert"])
def test_phones_say_how_and_then_take_the_network(
    runtime: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip({"ncnn": "ncnn", "litert": "ai_edge_litert"}[runtime], reason="the extra is not installed")
    words = ["edgewright", "convert", str(path), "--runtime", runtime, "--out", str(tmp_path / "out")]

    def called(*more: str) -> tuple[object, str]:
        monkeypatch.setattr("sys.argv", [*words, *more])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    code, said = called()
    assert code == 2 and "--set onnx.sizes=" in said
    code, said = called("--set", "onnx.sizes=x=1x3x4x5")
    assert code == 0, said
    assert "--set onnx.sizes=x=1x3x4x5" in said.rpartition("next: ")[2], "the next command must name the same network"
