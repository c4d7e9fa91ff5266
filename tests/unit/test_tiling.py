"""Tiling: seams that cannot be seen, and what cannot be tiled."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

import edgewright as ew
from edgewright import tiling
from edgewright.cli import main
from edgewright.errors import EdgewrightError
from edgewright.recipe import Recipe, RecipeStep
from edgewright.spec import ImageInput, Spec, TensorInput

TILE = (24, 32)
PHOTO = (90, 70)  # width, height
REACH = 2  # pixels that the network sees beyond one: two convolutions of 3 x 3


def network(height: int | str, width: int | str, **fields: Any) -> ew.Model:
    """Scores of four classes; each sees two pixels around its own."""
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (float[1,3,{height},{width}] x) => (float[1,4,{height},{width}] y) <float[6,3,3,3] v, float[4,6,3,3] w>
    {{ a = Conv<pads = [1, 1, 1, 1]>(x, v)
       b = Relu(a)
       y = Conv<pads = [1, 1, 1, 1]>(b, w) }}"""
    model = ir.from_onnx_text(text.replace("<float[6,3,3,3] v, float[4,6,3,3] w>", ""))
    rng = np.random.default_rng(0)
    for name, shape in (("v", (6, 3, 3, 3)), ("w", (4, 6, 3, 3))):
        value = next(item for node in model.graph for item in node.inputs if item is not None and item.name == name)
        value.const_value = ir.tensor(rng.standard_normal(shape).astype(np.float32), name=name)
        value.shape, value.dtype = ir.Shape(shape), ir.DataType.FLOAT
        model.graph.register_initializer(value)
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else (8, 8)
    spec = Spec({"x": ImageInput(size=size, **{"resize": "stretch", **fields})}, "segment")
    return ew.Model(model, spec=spec)


@pytest.fixture
def photo(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "street.png"
    Image.fromarray(rng.integers(0, 256, (PHOTO[1], PHOTO[0], 3), np.uint8)).save(path)
    return path


def in_one_piece(photo: Path) -> np.ndarray:
    model = network(PHOTO[1], PHOTO[0])
    with ew.open(model) as session:
        return session.run(ew.samples.preparation(model)(photo))["y"]


@pytest.mark.parametrize("resize", ["stretch", "crop", "letterbox"])
def test_with_overlap_enough_there_are_no_seams(
    resize: str, photo: Path, tolerance: dict[str, dict[str, float]]
) -> None:
    with ew.open(network(*TILE, resize=resize)) as session:
        got = tiling.run(session, photo, overlap=4 * REACH)["y"]
        limits = {name: tolerance["float32"][name] for name in ("rtol", "atol")}
        np.testing.assert_allclose(got, in_one_piece(photo), **limits)


def test_with_less_they_are_where_tiles_meet(photo: Path, tolerance: dict[str, dict[str, float]]) -> None:
    """The test above can fail; and inside the tiles nothing changes."""
    with ew.open(network(*TILE)) as session:
        got = tiling.run(session, photo, overlap=2)["y"]
    wrong = np.abs(got - in_one_piece(photo)).max(axis=(0, 1)) > 100 * tolerance["float32"]["atol"]
    assert wrong.any()
    assert not wrong[: TILE[0] - 2 - REACH, : TILE[1] - 2 - REACH].any()


def test_weights_of_neighbours_sum_to_one() -> None:
    for length, overlap in ((24, 0), (25, 7), (70, 12), (71, 1), (200, 8)):
        tiles = tiling._tiles(length, 24, overlap)
        assert tiles[-1].start == length - 24
        total = tiling._total(tiles, length)
        assert total.min() > 0.999, "no place without a tile"
        assert np.allclose(total[: tiles[-1].start], 1)
        assert len({tile.start for tile in tiles}) == len(tiles)


def test_a_photo_of_one_tile_is_the_network_itself(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "small.png"
    Image.fromarray(rng.integers(0, 256, (*TILE, 3), np.uint8)).save(path)
    model = network(*TILE)
    with ew.open(model) as session:
        expected = session.run(ew.samples.preparation(model)(path))["y"]
        assert np.array_equal(tiling.run(session, path, overlap=12)["y"], expected)


@pytest.mark.parametrize("overlap", [-1, 13, 24, 1000])
def test_an_overlap_outside_its_range(overlap: int, photo: Path) -> None:
    with ew.open(network(*TILE)) as session, pytest.raises(EdgewrightError, match="must by 0 to 12") as caught:
        tiling.run(session, photo, overlap=overlap)
    assert caught.value.code == "E103"


def test_photos_that_cannot_be_tiled(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, broken = tmp_path / "small.png", tmp_path / "broken.png"
    Image.new("RGB", (100, 23)).save(small)
    broken.write_bytes(photo.read_bytes()[:300])
    with ew.open(network(*TILE)) as session:
        for path, code, words in (
            (small, "E230", "100 x 23, smaller than one tile, the network's input of 32 x 24"),
            (broken, "E302", "broken.png"),
            (tmp_path / "gone.png", "E302", "No such file"),
        ):
            with pytest.raises(EdgewrightError, match=words) as caught:
                tiling.run(session, path, overlap=4)
            assert caught.value.code == code
        monkeypatch.setattr(tiling, "_MOST_BYTES", 1000)
        with pytest.raises(EdgewrightError, match="4 maps of it need") as caught:
            tiling.run(session, photo, overlap=4)
        assert caught.value.code == "E230"


def test_networks_that_cannot_be_tiled(photo: Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[1,3,24,32] x) => (float[1,3,1,1] y) { y = GlobalMaxPool(x) }'
    image = ImageInput(size=TILE)
    for spec, words in (
        (Spec({"x": image}, "segment"), r"`y` float32\[1, 3, 1, 1\]"),
        (Spec({"x": TensorInput()}), "refused"),
    ):
        with (
            ew.open(ew.Model(ir.from_onnx_text(text), spec=spec)) as session,
            pytest.raises(EdgewrightError, match=words) as caught,
        ):
            tiling.run(session, photo, overlap=4)
        assert caught.value.code == "E303"


def test_classes_cannot_be_blended(photo: Path) -> None:
    small = ew.compress(network(*TILE), Recipe("mine", steps=(RecipeStep("append_argmax"),)))
    with ew.open(small) as session, pytest.raises(EdgewrightError, match="blended by scores") as caught:
        tiling.run(session, photo, overlap=4)
    assert "append_argmax" in caught.value.hint


def test_from_the_command_line(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, drawn = tmp_path / "bundle", tmp_path / "drawn"
    ew.convert(network(*TILE, resize="crop"), "onnxruntime", bundle)
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 3, *TILE), np.float32))

    def call(source: Path, *options: str) -> int:
        monkeypatch.setattr(sys, "argv", ["edgewright", "run", str(bundle), str(source), "--tile", "8", *options])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0)

    assert call(photo, "--draw", str(drawn), "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["results"]
    assert (row["result"]["width"], row["result"]["height"]) == PHOTO
    winners = in_one_piece(photo).argmax(1)
    assert row["result"]["shares"]["0"] == pytest.approx(np.mean(winners == 0), abs=2 / winners.size)
    with Image.open(drawn / "street.png") as picture:
        assert picture.size == PHOTO
    assert call(tmp_path / "x.npz") == 2
    assert "E103" in capsys.readouterr().err
