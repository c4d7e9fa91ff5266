"""Task `segment`: winners, thresholds, agreement where a background fills the photo, label maps, drawing."""

from __future__ import annotations

import gc
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

import edgewright as ew
from edgewright.errors import EdgewrightError
from edgewright.model import TensorInfo
from edgewright.options import build
from edgewright.samples import Samples
from edgewright.spec import ImageInput, Spec, TensorInput
from edgewright.tasks import segment
from edgewright.tasks.segment import _scores

MASK = Spec({}, "segment")
EVERY = Spec({}, "segment", {"background": "none"})


def mask(*rows: str, spec: Spec = MASK) -> segment.Segmentation:
    """A single map from rows of `#` (marked) and `.`."""
    marks = np.array([[letter == "#" for letter in row] for row in rows], np.float32)
    return segment.postprocess({"y": marks[None, None]}, spec)


def classes(*rows: str, count: int = 3, spec: Spec = MASK) -> segment.Segmentation:
    """Scores [1, C, H, W] whose best classes are the digits of `rows`."""
    wanted = np.array([[int(letter) for letter in row] for row in rows])
    made = (np.arange(count)[:, None, None] == wanted).astype(np.float32)
    return segment.postprocess({"y": made[None]}, spec)


def label(path: Path, *rows: str, mode: str = "L") -> str:
    Image.fromarray(np.array([[int(letter) for letter in row] for row in rows], np.uint8)).convert(mode).save(path)
    return str(path)


def test_the_best_class_wins_and_ties_go_to_the_lowest() -> None:
    found = classes("012", "210")
    assert found.map.tolist() == [[0, 1, 2], [2, 1, 0]]
    assert (found.size, found.count, found.is_mask) == ((2, 3), 3, False)
    assert segment.postprocess({"y": np.zeros((1, 3, 2, 2), np.float32)}, MASK).map.tolist() == [[0, 0], [0, 0]]


def test_a_single_map_is_held_against_the_threshold() -> None:
    scores = np.array([0.2, 0.3, 0.4], np.float32).reshape(1, 1, 1, 3)
    spec = Spec({}, "segment", {"threshold": 0.3})
    assert segment.postprocess({"y": scores}, spec).map.tolist() == [[0, 1, 1]]
    assert segment.postprocess({"y": scores}, MASK).map.tolist() == [[0, 0, 0]]


def test_class_indices_are_a_map_already() -> None:
    found = segment.postprocess({"y": np.array([[[0, 5], [2, 0]]], np.int64)}, MASK)
    assert found.map.tolist() == [[0, 5], [2, 0]]
    for bad in (-1, 255):
        with pytest.raises(EdgewrightError, match="holds class"):
            segment.postprocess({"y": np.array([[[0, bad]]], np.int64)}, MASK)


def test_agreement_counts_what_either_marks() -> None:
    one, other = mask("##....", "......"), mask(".##...", "......")
    assert segment.agreement([one], [other], MASK) == pytest.approx(1 / 3)  # of 12 pixels, 10 are the same
    assert segment.agreement([one], [other], EVERY) == pytest.approx(10 / 12)
    assert segment.agreement([one], [one], MASK) == 1
    empty = mask("......", "......")
    assert segment.agreement([one], [empty], MASK) == 0
    assert segment.agreement([empty], [empty], MASK) == 1
    assert math.isnan(segment.agreement([], [], MASK))


def test_agreement_is_counted_over_all_samples_together() -> None:
    large, small, empty = mask("########"), mask("#......."), mask("........")
    assert segment.agreement([large, small, empty], [large, empty, empty], MASK) == pytest.approx(8 / 9)


def test_a_background_may_be_named() -> None:
    spec = Spec({}, "segment", {"background": 2})
    one, other = classes("2210", spec=spec), classes("2211", spec=spec)
    assert segment.agreement([one], [other], spec) == 0.5
    assert segment.agreement([one], [other], MASK) == 0.75  # every pixel counts where there are several classes


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_pixels_that_are_not_finite_agree_with_nothing(bad: float, tmp_path: Path) -> None:
    scores = np.ones((1, 2, 1, 4), np.float32)
    scores[0, 1, 0, 0] = bad
    broken = segment.postprocess({"y": scores}, MASK)
    assert broken.map.tolist() == [[255, 0, 0, 0]]
    assert segment.agreement([broken], [broken], MASK) == 0.75
    truth = segment.parse_label(label(tmp_path / "a.png", "0000"), MASK)
    assert segment.metric([broken], [truth], MASK)["pixels"] == 0.75
    assert segment.agreement([mask("#...")], [segment.postprocess({"y": np.full((1, 1, 1, 4), bad)}, MASK)], MASK) == 0


def test_agreement_of_two_sizes_is_none() -> None:
    assert segment.agreement([mask("##", "..")], [mask("##")], MASK) == 0


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4, 4), (1, 3, 0, 4), (1, 4, 4), (1, 3, 4, 4, 1), ()])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(EdgewrightError, match="must be scores") as caught:
        segment.postprocess({"y": np.zeros(shape, np.float32)}, MASK)
    assert caught.value.code == "E303"


def test_too_many_classes_are_refused() -> None:
    with pytest.raises(EdgewrightError, match="300 classes"):
        segment.postprocess({"y": np.zeros((1, 300, 1, 1), np.float32)}, MASK)


def test_metric_is_miou_over_all_samples(tmp_path: Path) -> None:
    results = [classes("0011"), classes("2222")]
    truths = [segment.parse_label(label(tmp_path / f"{n}.png", rows), MASK) for n, rows in enumerate(("0001", "2222"))]
    found = segment.metric(results, truths, MASK)
    assert found == {
        "mIoU": pytest.approx((2 / 3 + 1 / 2 + 1) / 3),
        "Dice": pytest.approx((4 / 5 + 2 / 3 + 1) / 3),
        "boundary IoU": pytest.approx((2 / 3 + 1 / 2 + 1) / 3),  # one row: all of it is outline
        "pixels": pytest.approx(7 / 8),
    }
    assert segment.metric(results, truths, MASK) == found  # the second time from memory
    assert segment.metric(results, truths[::-1], MASK)["pixels"] == 0
    assert math.isnan(segment.metric([], [], MASK)["mIoU"])


def eroded(mask: np.ndarray, times: int) -> np.ndarray:
    """Plain erosions by 3 x 3, nothing beyond the edge."""
    for _ in range(times):
        wide = np.pad(mask, 1)
        shifts = [np.roll(wide, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        mask = np.logical_and.reduce(shifts)[1:-1, 1:-1]
    return mask


@pytest.mark.parametrize("share", [0.02, 0.05, 0.3])
def test_boundary_iou_is_that_of_plain_erosions(tmp_path: Path, share: float, rng: np.random.Generator) -> None:
    spec = Spec({}, "segment", {"boundary": share, "ignore": 3})
    truth = np.asarray(Image.fromarray(rng.integers(0, 4, (5, 7)).astype(np.uint8)).resize((61, 47), 0))
    found = np.where(rng.random(truth.shape) < 0.02, 2, np.roll(truth, 2, 1)) % 3
    Image.fromarray(truth).save(tmp_path / "a.png")
    scores = (np.arange(3)[:, None, None] == found).astype(np.float32)[None]
    labels = [segment.parse_label(str(tmp_path / "a.png"), spec)]
    got = segment.metric([segment.postprocess({"y": scores}, spec)], labels, spec)["boundary IoU"]
    width, kept, expected = round(share * math.hypot(*truth.shape)), truth != 3, []
    for index in range(3):
        masks = [(truth == index) & kept, (found == index) & kept]
        one, other = (mask & ~eroded(mask, width) for mask in masks)
        expected.append(np.sum(one & other) / np.sum(one | other))
    assert got == pytest.approx(np.mean(expected))


def test_boundary_iou_sees_outlines_that_miou_forgives(tmp_path: Path) -> None:
    truth, ragged = np.zeros((100, 100), np.uint8), np.zeros((100, 100), np.uint8)
    truth[:, 50:] = 1
    ragged[:, 52:] = 1
    Image.fromarray(truth).save(tmp_path / "a.png")
    labels = [segment.parse_label(str(tmp_path / "a.png"), MASK)]
    scores = np.stack([ragged == 0, ragged == 1]).astype(np.float32)[None]
    scored = segment.metric([segment.postprocess({"y": scores}, MASK)], labels, MASK)
    assert scored["mIoU"] > 0.95 > 0.85 > scored["boundary IoU"]
    exact = np.stack([truth == 0, truth == 1]).astype(np.float32)[None]
    assert segment.metric([segment.postprocess({"y": exact}, MASK)], labels, MASK)["boundary IoU"] == 1


def test_what_is_not_labelled_is_left_out(tmp_path: Path) -> None:
    spec = Spec({}, "segment", {"ignore": 9})
    truth = segment.parse_label(label(tmp_path / "a.png", "0099"), spec)
    assert set(segment.metric([classes("0011")], [truth], spec).values()) == {1.0}
    assert segment.metric([classes("0011")], [truth], MASK)["pixels"] == 0.5
    Image.fromarray(np.full((1, 4), 255, np.uint8)).save(tmp_path / "b.png")
    nothing = segment.parse_label(str(tmp_path / "b.png"), MASK)
    assert math.isnan(segment.metric([classes("0011")], [nothing], MASK)["mIoU"])


def test_a_label_map_may_have_another_size(tmp_path: Path) -> None:
    truth = segment.parse_label(label(tmp_path / "a.png", "0011", "0011", "2200", "2200", mode="P"), MASK)
    assert segment.metric([classes("01", "20")], [truth], MASK)["mIoU"] == 1


def test_bad_label_maps(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "colour.png")
    whole = Path(label(tmp_path / "whole.png", "0123" * 50)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-30])
    (tmp_path / "text.png").write_text("no photo")
    Image.new("1", (12_000, 12_000)).convert("L").save(tmp_path / "huge.png")
    for name, reason in (
        ("colour.png", "mode RGB"), ("cut.png", "no whole"), ("text.png", "no whole"), ("gone.png", "No such file"),
    ):  # fmt: skip
        with pytest.raises(EdgewrightError, match=reason) as caught:
            segment.parse_label(str(tmp_path / name), MASK)
        assert caught.value.code == "E305"
    with pytest.raises(EdgewrightError, match="label map"):
        segment.parse_label(str(tmp_path / "huge.png"), MASK)
    named = Spec({}, "segment", {"labels": ["sky", "road"]})
    with pytest.raises(EdgewrightError, match="holds class 3"):
        segment.parse_label(str(tmp_path / "whole.png"), named)


def test_label_maps_need_the_whole_photo(tmp_path: Path) -> None:
    path = label(tmp_path / "a.png", "01")
    with pytest.raises(EdgewrightError, match="show the whole photo"):
        segment.parse_label(path, Spec({"x": ImageInput(size=(8, 8))}, "segment"))
    segment.parse_label(path, Spec({"x": ImageInput(size=(8, 8), resize="stretch")}, "segment"))


def test_label_maps_come_from_labels_csv(tmp_path: Path) -> None:
    spec = Spec({"x": ImageInput(size=(2, 2), resize="stretch")}, "segment")
    for number in range(3):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.jpg")
    (tmp_path / "maps").mkdir()
    label(tmp_path / "maps" / "a.png", "01", "10")
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n0.jpg,maps/a.png\n1.jpg,maps\\a.png\n")
    labels = [sample.label for sample in Samples.open(tmp_path, spec)]
    assert labels[0] == labels[1]
    assert labels[0].path == tmp_path / "maps" / "a.png"
    assert str(tmp_path) not in repr(labels[0])
    table.write_text("file,label\n0.jpg,../maps/a.png\n")
    with pytest.raises(EdgewrightError, match="outside the folder"):
        Samples.open(tmp_path, spec)


def test_label_maps_lie_in_labels_beside_images(tmp_path: Path) -> None:
    spec = Spec({"x": ImageInput(size=(2, 2), resize="stretch")}, "segment")
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in ("a.jpg", "b.png", "c.jpg"):
        Image.new("RGB", (8, 4), (len(name), ord(name[0]), 0)).save(tmp_path / "images" / name)
    for name in ("a.png", "b.png"):
        label(tmp_path / "labels" / name, "01")
    found = Samples.open(tmp_path / "images", spec)
    assert [sample.label and sample.label.path.parent.name for sample in found] == ["labels", "labels", None]
    assert any("photos without a .png file stay unlabelled (1)" in note for note in found.notes)
    label(tmp_path / "labels" / "c.png", "01", "01")
    with pytest.raises(EdgewrightError, match=r"labels/c.png.* is 2 x 2, but its photo is 8 x 4") as caught:
        Samples.open(tmp_path / "images", spec)
    assert caught.value.code == "E305"


def test_photos_are_not_their_own_label_maps(tmp_path: Path) -> None:
    spec = Spec({"x": ImageInput(size=(2, 2), resize="stretch")}, "segment")
    Image.new("L", (4, 4), 1).save(tmp_path / "a.png")
    assert [sample.label for sample in Samples.open(tmp_path, spec)] == [None]


def test_label_maps_beside_arrays(tmp_path: Path) -> None:
    label(tmp_path / "a.png", "01")
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3), np.float32), label=np.array(["a.png", "a.png"]))
    (first, _) = Samples.open(tmp_path / "x.npz", Spec({"x": TensorInput()}, "segment"))
    assert first.label.path == tmp_path / "a.png"


def test_classes_checks_what_is_known() -> None:
    named = Spec({}, "segment", {"labels": ["sky", "road"]})
    assert segment.classes(MASK, ()) is None
    assert segment.classes(named, [TensorInfo("y", "float32", (1, 1, "H", "W"))]) is None
    for outputs, spec in (
        ([TensorInfo("y", "float32", (1, 3, 4, 4))], named),
        ([TensorInfo("y", "float32", (1, 3))], MASK),
        ([TensorInfo(name, "float32", (1, 3, 4, 4)) for name in "xy"], MASK),
        ([TensorInfo("y", "float32", (1, 3, 4, 4))], Spec({}, "segment", {"output": "z"})),
    ):
        with pytest.raises(EdgewrightError) as caught:
            segment.classes(spec, outputs)
        assert caught.value.code == "E303"


def test_results_are_small_and_forgotten() -> None:
    large = segment.postprocess({"y": np.zeros((1, 2, 512, 512), np.float32)}, MASK)
    assert len(large.packed) < 10_000
    before = len(_scores._agreements)
    segment.agreement([large], [large], MASK)
    assert len(_scores._agreements) == before + 1
    del large
    gc.collect()
    assert len(_scores._agreements) <= before


def test_an_empty_mask_is_equal_though_its_rounding_is_not(tmp_path: Path) -> None:
    """At the far end of a sigmoid runtimes differ by more than half of the value, which is as good as 0."""
    pytest.importorskip("openvino")
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[1,1,8,8] x) => (float[1,1,8,8] y) { y = Sigmoid(x) }'
    model = ew.Model(ir.from_onnx_text(text), spec=Spec({"x": TensorInput()}, "segment"))
    x = np.random.default_rng(0).uniform(-30, -15, (4, 1, 8, 8)).astype(np.float32)
    x[0] = 3.0  # one mask is full
    np.savez(tmp_path / "x.npz", x=x)
    samples = ew.Samples.open(tmp_path / "x.npz", model, roles="judge")
    bundle = ew.convert(model, "openvino", tmp_path / "bundle")
    report = ew.verify(model, bundle, samples)
    assert report.decision == "pass", report.gates
    assert not report.disagreements


def test_drawing_colours_what_is_marked() -> None:
    photo = Image.new("RGB", (4, 2), (200, 200, 200))
    drawn = np.asarray(segment.draw(photo, mask("#.", ".."), MASK))
    assert (drawn[0, 0] != 200).any()
    assert (drawn[1:] == 200).all()
    assert (np.asarray(segment.draw(photo, classes("01"), MASK))[:, 2:] != 200).any()
    named = Spec({}, "segment", {"labels": ["sky", "road", "tree"]})
    with_legend = segment.draw(photo, classes("01", spec=named), named)
    assert with_legend.width == 4
    assert with_legend.height > 2, "names stand below the photo"
    strip = np.asarray(segment.draw(photo.resize((200, 100)), classes("01", spec=named), named))[100:]
    assert {tuple(colour) for colour in strip.reshape(-1, 3)} >= {(0, 0, 0), (128, 0, 0), (24, 24, 24)}
    found = mask("#.")
    assert json.loads(json.dumps(found.to_json()))["shares"] == {"0": 0.5, "1": 0.5}
    assert str(found) == "0: 50.0%, 1: 50.0%"


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": math.nan},
        {"background": -1},
        {"ignore": 300},
        {"background": "sky"},
        {"boundary": 0},
        {"boundary": 1},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(EdgewrightError) as caught:
        build(segment.Options, options, where="segment")
    assert caught.value.code == "E103"


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        ("stretch", [[0, 0, 1, 1]] * 2),
        ("crop", [[255, 0, 1, 255]] * 2),  # the square in the middle of the photo
        ("letterbox", [[0, 0, 1, 1]] * 2),
    ],
)
def test_results_lie_in_the_photo_as_the_input_was_made(resize: Any, expected: list[list[int]]) -> None:
    spec = Spec({"x": ImageInput(size=(4, 4), resize=resize, crop_fraction=1.0)}, "segment")
    bars = ("2222", "0011", "0011", "2222") if resize == "letterbox" else ("0011",) * 4
    found = segment.place_result(classes(*bars), (4, 2), spec)
    assert found.map.tolist() == expected
    assert segment.place_result(found, (8, 8), spec) is found
    drawn = np.asarray(segment.draw(Image.new("RGB", (4, 2), (200, 200, 200)), classes(*bars), spec))
    assert ((drawn == 200).all(axis=2) == (np.array(expected) == 255)).all()
