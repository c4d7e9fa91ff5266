"""Task `detect`: every kind of head, suppression, what is not finite, errors, places in the photo, drawing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from edgewright.errors import EdgewrightError
from edgewright.model import TensorInfo
from edgewright.options import build, dump
from edgewright.spec import ImageInput, Spec
from edgewright.tasks import detect
from edgewright.tasks.detect._boxes import distance_penalty, from_centres, overlap, to_centres
from edgewright.tasks.detect._suppression import suppress

SQUARE = ImageInput(size=(64, 64), resize="stretch")


def spec_of(*heads: dict[str, Any], item: ImageInput = SQUARE, **options: Any) -> Spec:
    return Spec({"x": item}, "detect", {"heads": list(heads), **options})


def found(result: detect.Detections) -> list[tuple[int, float, list[float]]]:
    """Class, score and box (centre and size) of what was found."""
    n = result.found
    boxes = to_centres(result.boxes[:n].astype(np.float64)).round(5).tolist()
    return list(
        zip(result.classes[:n].tolist(), result.scores[:n].astype(np.float64).round(5).tolist(), boxes, strict=True)
    )


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


class TestHeads:
    """Each against the formula of its layer, written out for one box."""

    @pytest.mark.parametrize("new_coords", [False, True])
    def test_yolo(self, new_coords: bool) -> None:
        head = {"kind": "yolo", "output": "y", "classes": 2, "anchors": [[8, 16], [32, 24]], "new_coords": new_coords}
        value = np.zeros((2, 7, 2, 4), np.float32)
        value[1, :, 1, 3] = (0.25, 0.75, 0.5, 0.25, 0.8, 0.1, 0.9)  # second anchor, row 1, column 3
        ((index, score, box),) = found(detect.postprocess({"y": value.reshape(1, 14, 2, 4)}, spec_of(head)))
        width, height = ((2 * 0.5) ** 2, (2 * 0.25) ** 2) if new_coords else (math.exp(0.5), math.exp(0.25))
        assert (index, score) == (1, pytest.approx(0.72))
        assert box == pytest.approx([3.25 / 4, 1.75 / 2, width * 32 / 64, height * 24 / 64], abs=1e-5)

    def test_gaussian_yolo(self) -> None:
        head = {"kind": "gaussian_yolo", "output": "y", "classes": 1, "anchors": [[8, 16]]}
        value = np.zeros((1, 10, 2, 2), np.float32)
        value[0, :, 0, 1] = (0.5, 0.1, 0.25, 0.2, 0.3, 0.3, 0.6, 0.4, 0.9, 0.8)
        ((_, score, box),) = found(detect.postprocess({"y": value}, spec_of(head)))
        assert score == pytest.approx(0.9 * 0.8 * (1 - (0.1 + 0.2 + 0.3 + 0.4) / 4), abs=1e-5)
        assert box == pytest.approx([1.5 / 2, 0.25 / 2, math.exp(0.3) * 8 / 64, math.exp(0.6) * 16 / 64], abs=1e-5)

    def test_region_lies_by_cell(self) -> None:
        head = {"kind": "region", "output": "y", "classes": 2, "anchors": [[1, 2], [3, 1.5]]}
        value = np.zeros((2, 3, 2, 7), np.float32)  # row, column, anchor, entry
        value[1, 2, 1] = (0.4, -0.6, 0.2, 0.1, 0.9, 0.2, 0.7)
        ((index, score, box),) = found(detect.postprocess({"y": value.reshape(1, 14, 2, 3)}, spec_of(head)))
        assert (index, score) == (1, pytest.approx(0.63, abs=1e-5))
        expected = [(2 + sigmoid(0.4)) / 3, (1 + sigmoid(-0.6)) / 2, math.exp(0.2) * 3 / 3, math.exp(0.1) * 1.5 / 2]
        assert box == pytest.approx(expected, abs=1e-5)

    def test_region_with_a_tree_of_classes(self) -> None:
        """Animal (cat, dog), vehicle: the deepest class that is more likely than not, with its own probability."""
        head = {"kind": "region", "output": "y", "classes": 4, "anchors": [[1, 1]], "parents": [-1, -1, 0, 0]}
        value = np.zeros((1, 5, 9), np.float32)
        value[0, 0, 4:] = (0.9, 0.8, 0.2, 0.3, 0.7)  # dog: 0.8 x 0.7
        value[0, 1, 4:] = (0.9, 0.8, 0.2, 0.5, 0.5)  # neither cat nor dog for sure: animal
        value[0, 2, 4:] = (0.9, 0.3, 0.7, 0.1, 0.9)  # dog only among animals: vehicle
        value[0, 3, 4:] = (0.2, 0.9, 0.1, 0.1, 0.9)  # nothing is there
        value[0, 4, 4:] = (0.9, 0.5, 0.5, 0.5, 0.5)  # no class is more likely than not
        result = detect.postprocess({"y": value.reshape(1, 9, 1, 5)}, spec_of(head, nms="none"))
        boxes = [(index, score) for index, score, _ in found(result)]
        assert boxes == [(0, pytest.approx(0.8)), (1, pytest.approx(0.7)), (3, pytest.approx(0.56))]
        assert len(result.scores) == 4 and result.scores[3] == pytest.approx(
            0.2
        )  # counts in the mAP, by its objectness

    def test_least_objectness(self) -> None:
        head = {"kind": "region", "output": "y", "classes": 1, "anchors": [[1, 1]]}
        value = np.zeros((1, 2, 6), np.float32)
        value[0, :, 4:] = ((0.4, 0.9), (0.6, 0.9))
        for least, scores in ((0.0, [0.54, 0.36]), (0.5, [0.54])):
            result = detect.postprocess(
                {"y": value.reshape(1, 6, 1, 2)}, spec_of({**head, "least_objectness": least}, nms="none")
            )
            assert result.scores.tolist() == pytest.approx(scores)

    @pytest.mark.parametrize(
        ("parents", "message"), [([-1, 0], "`parents` of 2"), ([-1, 2, 0, 0], "class 1 .* parent 2"), ([-2] * 4, "-2")]
    )
    def test_a_broken_tree_is_refused(self, parents: list[int], message: str) -> None:
        head = {"kind": "region", "output": "y", "classes": 4, "anchors": [[1, 1]], "parents": parents}
        with pytest.raises(EdgewrightError, match=message):
            detect.postprocess({"y": np.zeros((1, 9, 1, 1), np.float32)}, spec_of(head))

    @pytest.mark.parametrize("sqrt", [False, True])
    def test_detection(self, sqrt: bool) -> None:
        head = {"kind": "detection", "output": "y", "classes": 2, "side": 2, "boxes": 2, "sqrt": sqrt}
        classes, confidence, boxes = np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((4, 2, 4))
        classes[3], confidence[3, 1], boxes[3, 1] = (0.2, 0.8), 0.9, (0.5, 0.25, 0.5, 0.3)
        value = np.concatenate([part.reshape(-1) for part in (classes, confidence, boxes)]).astype(np.float32)
        ((index, score, box),) = found(detect.postprocess({"y": value.reshape(1, -1, 1, 1)}, spec_of(head)))
        assert (index, score) == (1, pytest.approx(0.72, abs=1e-5))
        width, height = (0.25, 0.09) if sqrt else (0.5, 0.3)
        assert box == pytest.approx([1.5 / 2, 1.25 / 2, width, height], abs=1e-5)

    def test_yolov5_yolov8_and_yolox_rows(self) -> None:
        wide = ImageInput(size=(32, 64), resize="stretch")
        row = np.array([16, 8, 32, 16, 0.9, 0.1, 0.8], np.float32)
        plain = spec_of({"kind": "yolov5", "output": "y"}, item=wide)
        box = [0.25, 0.25, 0.5, 0.5]
        assert found(detect.postprocess({"y": row[None, None]}, plain)) == [(1, pytest.approx(0.72), box)]
        columns = np.delete(row, 4)[None, :, None]
        eighth = spec_of({"kind": "yolov8", "output": "y"}, item=wide)
        assert found(detect.postprocess({"y": columns}, eighth)) == [(1, pytest.approx(0.8), box)]
        grid = np.zeros((1, 2 * 4 + 1 * 2, 7), np.float32)  # strides 16 and 32
        grid[0, 5] = (0.5, 0.25, math.log(2), 0, 0.9, 0.1, 0.8)  # stride 16: row 1, column 1
        grid[0, 9] = (0.5, 0.5, 0, 0, 0.5, 0.9, 0)  # stride 32: column 1
        tenth = spec_of({"kind": "yolox", "output": "y", "strides": [16, 32]}, item=wide)
        assert found(detect.postprocess({"y": grid}, tenth)) == [
            (1, pytest.approx(0.72), pytest.approx([1.5 * 16 / 64, 1.25 * 16 / 32, 32 / 64, 16 / 32])),
            (0, pytest.approx(0.45), pytest.approx([1.5 * 32 / 64, 0.5, 0.5, 1.0])),
        ]

    @pytest.mark.parametrize(
        ("layout", "numbers"),
        [
            ("x1y1x2y2", (8, 4, 24, 20)),
            ("y1x1y2x2", (4, 8, 20, 24)),
            ("cxcywh", (16, 12, 16, 16)),
            ("xywh", (8, 4, 16, 16)),
        ],
    )
    @pytest.mark.parametrize("units", ["pixels", "relative"])
    def test_boxes_in_every_layout(self, layout: str, numbers: tuple[int, ...], units: str) -> None:
        wide = ImageInput(size=(32, 64), resize="stretch")
        sides = np.array([32, 64, 32, 64] if layout == "y1x1y2x2" else [64, 32, 64, 32])
        box = np.array(numbers) / (sides if units == "relative" else 1)
        outputs = {"b": box[None, None].astype(np.float32), "s": np.array([[[0.3, 0.1, 0.6]]], np.float32)}
        head = {"kind": "ssd", "output": "b", "scores": "s", "layout": layout, "units": units, "first_label": 1}
        result = detect.postprocess(outputs, spec_of(head, item=wide))
        assert found(result) == [(1, pytest.approx(0.6), [0.25, 0.375, 0.25, 0.5])]

    def test_ssd_distances_from_priors(self) -> None:
        head = {"kind": "ssd", "output": "b", "scores": "s", "priors": [[0.5, 0.4, 0.2, 0.1]], "variances": [0.1, 0.2]}
        outputs = {"b": np.array([[[1, -2, 0.5, 1]]], np.float32), "s": np.array([[[0.9]]], np.float32)}
        expected = [0.5 + 0.1 * 0.2, 0.4 - 2 * 0.1 * 0.1, 0.2 * math.exp(0.1), 0.1 * math.exp(0.2)]
        assert found(detect.postprocess(outputs, spec_of(head)))[0][2] == pytest.approx(expected, abs=1e-5)

    def test_boxes_that_are_suppressed_already_stay(self) -> None:
        head = {"kind": "boxes", "output": "b", "scores": "s", "labels": "l", "units": "relative", "first_label": 1}
        box = [0.1, 0.2, 0.5, 0.6]
        outputs = {
            "b": np.array([box, box, box, box], np.float32),
            "s": np.array([0.5, 0.9, 0.8, 0.7], np.float32),
            "l": np.array([1, 1, 3, 0], np.int64),  # 0 is no class
        }
        assert [row[:2] for row in found(detect.postprocess(outputs, spec_of(head)))] == [
            (0, pytest.approx(0.9)), (2, pytest.approx(0.8)), (0, pytest.approx(0.5)),
        ]  # fmt: skip
        nothing = {"b": np.zeros((0, 4), np.float32), "s": np.zeros(0, np.float32), "l": np.zeros(0, np.int64)}
        assert found(detect.postprocess(nothing, spec_of(head))) == []

    def test_heads_are_taken_together(self) -> None:
        heads = [{"kind": "yolov8", "output": name} for name in ("a", "b")]
        one = np.array([32, 32, 16, 16, 0.6], np.float32)[None, :, None]
        two = np.array([32, 32, 16, 17, 0.9], np.float32)[None, :, None]
        assert [row[1] for row in found(detect.postprocess({"a": one, "b": two}, spec_of(*heads)))] == [0.9]


def suppressed(kind: str, boxes: Sequence[list[float]], scores: Sequence[float], **options: Any) -> list[int]:
    made = detect.Options(nms=kind, **options)  # type: ignore[arg-type]
    corners = from_centres(np.array(boxes))
    return suppress(corners, np.array(scores), np.zeros(len(scores), np.int64), made).tolist()


class TestSuppression:
    """IoU of the first two boxes is 0.6; their centres are 1 apart, the diagonal around them is sqrt(5 x 5 + 3 x 3)."""

    BOXES = ([2, 2, 4, 3], [3, 2, 4, 3], [9, 9, 2, 2])  # 3 of 5 columns are shared
    SCORES = (0.9, 0.8, 0.7)

    def test_iou(self) -> None:
        one, other = from_centres(np.array(self.BOXES, float))[:2]
        assert overlap(one, other) == pytest.approx(0.6)
        for kind in ("default", "corners"):
            assert suppressed(kind, self.BOXES, self.SCORES, nms_threshold=0.59) == [0, 2]
            assert suppressed(kind, self.BOXES, self.SCORES, nms_threshold=0.61) == [0, 1, 2]

    def test_distant_centres_are_kept_apart(self) -> None:
        for beta in (0.6, 1.0):
            limit = 0.6 - (1 / (25 + 9)) ** beta
            for kind in ("diou", "greedy") if beta == 0.6 else ("diou",):
                options = {"beta": beta, "nms_threshold": limit - 0.01}
                assert suppressed(kind, self.BOXES, self.SCORES, **options) == [0, 2]
                assert suppressed(kind, self.BOXES, self.SCORES, **options | {"nms_threshold": limit + 0.01}) == [
                    0,
                    1,
                    2,
                ]
        assert suppressed("greedy", self.BOXES, self.SCORES, beta=5.0, nms_threshold=0.49) == [0, 1, 2]  # has its own

    def test_none_and_the_most(self) -> None:
        assert suppressed("none", self.BOXES, self.SCORES) == [0, 1, 2]
        assert suppressed("none", self.BOXES, self.SCORES[::-1], most=2) == [2, 1]
        assert suppressed("default", self.BOXES, self.SCORES, most=1) == [0]

    def test_what_was_dropped_drops_nothing(self) -> None:
        chain = [[0, 0, 4, 1], [1.2, 0, 4, 1], [2.4, 0, 4, 1]]  # neighbours overlap by 0.54, ends by 0.25
        assert suppressed("default", chain, [0.9, 0.8, 0.7], nms_threshold=0.5) == [0, 2]

    @pytest.mark.parametrize("kind", ["default", "greedy", "diou"])
    @pytest.mark.parametrize("limit", [0.05, 0.45])
    def test_hundreds_of_boxes_one_by_one(self, kind: str, limit: float, rng: np.random.Generator) -> None:
        """More than are compared at once: each box stays if no box that stays is better and too near."""
        boxes, scores = rng.uniform(0.1, (1, 1, 0.4, 0.4), (300, 4)), rng.permutation(300) / 300
        corners, beta = from_centres(boxes), {"default": None, "greedy": 0.6, "diou": 0.9}[kind]
        kept: list[int] = []
        for index in np.argsort(-scores).tolist():
            near = [overlap(corners[index], corners[other]) for other in kept]
            if beta is not None:
                near = [n - distance_penalty(corners[index], corners[k], beta) for n, k in zip(near, kept, strict=True)]
            if all(value <= limit for value in near):
                kept.append(index)
        assert suppressed(kind, boxes.tolist(), scores.tolist(), nms_threshold=limit, beta=beta or 0.6) == kept
        assert len(kept) < 300
        assert len(kept) > 64 or limit == 0.05

    def test_classes_do_not_suppress_each_other(self) -> None:
        value = np.array([32, 32, 16, 16, 0.6, 0.5], np.float32)[None, :, None]
        result = detect.postprocess(
            {"y": np.concatenate([value, value], axis=2)}, spec_of({"kind": "yolov8", "output": "y"})
        )
        assert [row[:2] for row in found(result)] == [(0, pytest.approx(0.6)), (1, 0.5)]


def test_scores_between_the_limits_are_kept_but_not_found() -> None:
    rows = np.array([[8 * n, 8, 4, 4, score] for n, score in enumerate((0.251, 0.25, 0.01, 0.005))], np.float32)
    result = detect.postprocess({"y": rows.T[None]}, spec_of({"kind": "yolov8", "output": "y"}))
    assert (result.found, len(result.scores)) == (1, 3)
    assert result.scores.tolist() == sorted(result.scores.tolist(), reverse=True)


class TestNotFinite:
    SPEC = spec_of({"kind": "yolov8", "output": "y"})
    GOOD = np.array([[32, 32, 16, 16, 0.9, 0.1], [8, 8, 8, 8, 0.1, 0.001]], np.float32)

    def result(self, **change: float) -> detect.Detections:
        value = self.GOOD.copy()
        for place, number in change.items():
            value[int(place[1]), int(place[2])] = number
        return detect.postprocess({"y": value.T[None]}, self.SPEC)

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_counts_as_broken_and_agrees_with_nothing(self, bad: float) -> None:
        good = self.result()
        for broken in (self.result(x00=bad), self.result(x04=bad), self.result(x15=bad)):
            assert broken.broken == 1
            assert np.isfinite(broken.boxes).all()
            for one, other in ((good, broken), (broken, good), (broken, broken)):
                assert detect.agreement([one], [other], self.SPEC) == 0
            assert 0 < detect.agreement([good, good], [good, broken], self.SPEC) < 1
        assert "NaN" in str(self.result(x04=math.nan))

    def test_does_not_matter_where_nothing_is_found(self) -> None:
        assert self.result(x10=math.nan, x14=0.001).broken == 0
        assert self.result(x14=-math.inf).broken == 0

    def test_a_sample_without_boxes_that_is_broken(self) -> None:
        value = np.full((1, 6, 2), math.nan, np.float32)
        broken = detect.postprocess({"y": value}, self.SPEC)
        empty = detect.postprocess({"y": np.zeros((1, 6, 2), np.float32)}, self.SPEC)
        assert (broken.found, broken.broken) == (0, 2)
        assert detect.agreement([empty], [empty], self.SPEC) == 1
        assert detect.agreement([empty], [broken], self.SPEC) == 0


YOLO = {"kind": "yolo", "output": "y", "classes": 2, "anchors": [[8, 16]]}


@pytest.mark.parametrize(
    ("head", "outputs", "message"),
    [
        (YOLO, {"z": (1, 7, 2, 2)}, "reads output `y`, but outputs are `z`"),
        (YOLO, {"y": (1, 8, 2, 2)}, r"shape \[1, 8, 2, 2\].*needs \[1, 7, H, W\] for 1 anchors and 2 classes"),
        (YOLO, {"y": (1, 7, 2)}, "needs"),
        (YOLO, {"y": (2, 7, 2, 2)}, "batch 1"),
        (YOLO, {"y": (1, 7, 0, 2)}, "needs"),
        ({**YOLO, "kind": "gaussian_yolo"}, {"y": (1, 7, 2, 2)}, r"\[1, 11, H, W\]"),
        ({**YOLO, "kind": "region"}, {"y": (1, 6, 2, 2)}, r"\[1, 7, H, W\]"),
        ({"kind": "detection", "output": "y", "classes": 1, "side": 2, "boxes": 1}, {"y": (1, 23)}, "4 cells of 1 classes"),
        ({"kind": "yolov5", "output": "y"}, {"y": (1, 3, 5)}, "at least 6 numbers"),
        ({"kind": "yolov8", "output": "y"}, {"y": (4,)}, "at least 5 numbers"),
        ({"kind": "yolov8", "output": "y", "classes": 3}, {"y": (1, 6, 9)}, "has 2 classes, but the head says 3"),
        ({"kind": "yolox", "output": "y"}, {"y": (1, 85, 6)}, r"84 cells of strides \[8, 16, 32\]"),
        ({"kind": "ssd", "output": "b", "scores": "s"}, {"b": (1, 3, 4), "s": (1, 2, 5)}, "scores of 3 boxes"),
        ({"kind": "ssd", "output": "b", "scores": "s"}, {"b": (1, 3, 5), "s": (1, 3, 5)}, "needs 4 numbers"),
        ({"kind": "ssd", "output": "b", "scores": "s", "priors": [[0, 0, 1, 1]]}, {"b": (1, 3, 4), "s": (1, 3, 5)}, "1 priors"),
        ({"kind": "boxes", "output": "b", "scores": "s", "labels": "l"}, {"b": (3, 4), "s": (2,), "l": (3,)}, "`s` has 2 values"),
    ],
)  # fmt: skip
def test_outputs_that_do_not_fit(head: dict[str, Any], outputs: dict[str, tuple[int, ...]], message: str) -> None:
    zeros = {name: np.zeros(shape, np.float32) for name, shape in outputs.items()}
    with pytest.raises(EdgewrightError, match=message) as caught:
        detect.postprocess(zeros, spec_of(head))
    assert caught.value.code == "E303"


def test_other_misfits() -> None:
    with pytest.raises(EdgewrightError, match="needs the option `heads`"):
        detect.postprocess({"y": np.zeros((1, 6, 9), np.float32)}, spec_of())
    with pytest.raises(EdgewrightError, match="must be numbers"):
        detect.postprocess({"y": np.zeros((1, 6, 9), bool)}, spec_of({"kind": "yolov8", "output": "y"}))
    value = np.array([32, 32, 16, 16, 0.1, 0.9], np.float32)[None, :, None]
    with pytest.raises(EdgewrightError, match="box has class 1, but the spec has 1 labels"):
        detect.postprocess({"y": value}, spec_of({"kind": "yolov8", "output": "y"}, labels=["dog"]))
    bare = Spec({}, "detect", {"heads": [{"kind": "yolov8", "output": "y"}]})
    with pytest.raises(EdgewrightError, match="needs the option `size`"):
        detect.postprocess({"y": value}, bare)
    sized = Spec({}, "detect", {**bare.options, "size": [64, 64]})
    assert found(detect.postprocess({"y": value}, sized))[0][2] == [0.5, 0.5, 0.25, 0.25]
    head = {"kind": "boxes", "output": "b", "scores": "s", "labels": "l", "classes": 2}
    outputs = {"b": np.zeros((1, 4), np.float32), "s": np.ones(1, np.float32), "l": np.array([2])}
    with pytest.raises(EdgewrightError, match="labels below 2, not 2"):
        detect.postprocess(outputs, spec_of(head))


def test_a_flood_of_boxes_is_bounded(rng: np.random.Generator) -> None:
    value = rng.uniform(0.3, 1, (1, 24, 3000)).astype(np.float32)  # 60,000 pairs above the threshold
    value[:, :4] *= 64
    result = detect.postprocess({"y": value}, spec_of({"kind": "yolov8", "output": "y"}))
    assert len(result.scores) == 300
    best = value[0, 4:].max(axis=1)  # the best of every class is kept by any suppression
    assert {index: result.scores[result.classes == index].max() for index in range(20)} == pytest.approx(
        dict(enumerate(best))
    )


#: A head of each kind, and the shapes of its outputs.
KINDS: list[tuple[dict[str, Any], dict[str, tuple[int, ...]]]] = [
    (YOLO, {"y": (1, 7, 2, 3)}),
    ({**YOLO, "new_coords": True}, {"y": (1, 7, 2, 3)}),
    ({**YOLO, "kind": "gaussian_yolo"}, {"y": (1, 11, 2, 3)}),
    ({**YOLO, "kind": "region"}, {"y": (1, 7, 2, 3)}),
    ({"kind": "detection", "output": "y", "classes": 2, "side": 2, "boxes": 1}, {"y": (1, 28)}),
    ({"kind": "yolov5", "output": "y"}, {"y": (1, 6, 7)}),
    ({"kind": "yolov8", "output": "y"}, {"y": (1, 6, 7)}),
    ({"kind": "yolox", "output": "y", "strides": [32]}, {"y": (1, 4, 7)}),
    ({"kind": "ssd", "output": "y", "scores": "s"}, {"y": (1, 6, 4), "s": (1, 6, 2)}),
    ({"kind": "ssd", "output": "y", "scores": "s", "priors": [[0.5, 0.5, 0.1, 0.1]]}, {"y": (1, 1, 4), "s": (1, 1, 2)}),
    ({"kind": "boxes", "output": "y", "scores": "s", "labels": "l"}, {"y": (1, 5, 4), "s": (1, 5), "l": (1, 5)}),
]
ANY = st.sampled_from([0.0, 1.0, 0.5, 0.9, -1.0, 2.0, 100.0, 1e30, -3e38, 3e38, math.inf, -math.inf, math.nan])


@pytest.mark.parametrize(("head", "shapes"), KINDS, ids=[head["kind"] for head, _ in KINDS])
@given(data=st.data())
def test_any_numbers_give_boxes_or_an_error(
    head: dict[str, Any], shapes: dict[str, tuple[int, ...]], data: Any
) -> None:
    """Whatever a broken network gives: no warning, and what is kept is finite and in order."""
    outputs = {name: data.draw(arrays(np.float32, shape, elements=ANY)) for name, shape in shapes.items()}
    spec = spec_of(head, item=ImageInput(size=(64, 64), resize="letterbox"))
    try:
        result = detect.postprocess(outputs, spec)
    except EdgewrightError as problem:
        assert head["kind"] == "boxes"  # a label beyond any number of classes
        assert problem.code == "E303"
        return
    assert np.isfinite(result.boxes).all()
    assert np.isfinite(result.scores).all()
    assert (np.diff(result.scores) <= 0).all()
    assert 0 <= result.found <= len(result.scores)
    assert detect.agreement([result], [result], spec) == (0 if result.broken else 1)
    json.dumps(detect.place_result(result, (40, 20), spec).to_json(), allow_nan=False)


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 1.0}, {"threshold": math.nan}, {"nms_threshold": -0.1}, {"lowest": 2}, {"beta": 0}, {"most": 0},
        {"size": [0, 4]}, {"nms": "soft"}, {"heads": [{"kind": "yolo"}]}, {"heads": [{"kind": "yolo", "output": "y"}]},
        {"heads": [{**YOLO, "anchors": [[0, 1]]}]}, {"heads": [{**YOLO, "classes": -1}]}, {"heads": ["yolo"]},
        {"heads": [{"kind": "ssd", "output": "b"}]}, {"heads": [{"kind": "detection", "output": "y", "classes": 2}]},
        {"heads": [{**YOLO, "anchor": []}]}, {"heads": [{"kind": "yolox", "output": "y", "strides": []}]},
    ],
)  # fmt: skip
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(EdgewrightError) as caught:
        build(detect.Options, options, where="detect")
    assert caught.value.code == "E103"


def test_options_survive_json() -> None:
    made = build(detect.Options, {"heads": [YOLO, {"kind": "yolov8", "output": "z"}], "size": [3, 4]}, where="detect")
    assert build(detect.Options, json.loads(json.dumps(dump(made))), where="detect") == made
    assert made.heads[0].anchors == ((8.0, 16.0),)


def test_classes_checks_what_is_known() -> None:
    spec = spec_of(YOLO)
    assert detect.classes(spec, ()) is None
    assert detect.classes(spec, [TensorInfo("y", "float32", (1, 7, 2, 2))]) is None
    for other in (spec_of(), spec_of({**YOLO, "output": "z"}), spec_of(YOLO, labels=["dog"])):
        with pytest.raises(EdgewrightError) as caught:
            detect.classes(other, [TensorInfo("y", "float32", (1, 7, 2, 2))])
        assert caught.value.code == "E303"


class TestPhotos:
    """A photo of 40 x 20 in an input of 64 x 64 takes rows 16 to 48; a box over its right half is 32..64, 16..48."""

    LETTERBOX = spec_of(
        {"kind": "yolov8", "output": "y"}, item=ImageInput(size=(64, 64), resize="letterbox"), labels=["dog", "cat"]
    )
    VALUE: Mapping[str, np.ndarray] = {"y": np.array([48, 32, 32, 32, 0.1, 0.9], np.float32)[None, :, None]}

    def test_results_are_mapped_back(self) -> None:
        result = detect.postprocess(self.VALUE, self.LETTERBOX)
        placed = detect.place_result(result, (40, 20), self.LETTERBOX)
        assert result.boxes[:1].tolist() == [[0.5, 0.25, 1, 0.75]]
        assert placed.boxes[:1].tolist() == [[0.5, 0, 1, 1]]
        assert detect.place_result(placed, (40, 20), self.LETTERBOX) is placed
        assert str(placed) == "1 box\n  cat 0.90  x 20 to 40, y 0 to 20"
        assert str(result) == "1 box\n  cat 0.90  x 0.500 to 1.000, y 0.250 to 0.750 of the input"
        assert json.loads(json.dumps(placed.to_json())) == {
            "boxes": [{"class": 1, "label": "cat", "score": pytest.approx(0.9), "box": [0.5, 0.0, 1.0, 1.0]}],
            "broken": 0,
            "relative_to": "photo",
        }
        assert str(detect.postprocess({"y": np.zeros((1, 6, 3), np.float32)}, self.LETTERBOX)) == "no boxes"

    def test_drawing_marks_the_edges(self) -> None:
        photo = Image.new("RGB", (400, 200), (128, 128, 128))
        result = detect.postprocess(self.VALUE, self.LETTERBOX)
        drawn = np.asarray(detect.draw(photo, result, self.LETTERBOX))
        changed = (drawn != 128).any(axis=2)
        assert changed[:, 200].all() and changed[199, 200:].all() and changed[:, 399].all()
        assert not changed[:, :198].any()
        assert not changed[100, 210:390].any()
        assert (np.asarray(photo) == 128).all()
        placed = detect.place_result(result, photo.size, self.LETTERBOX)
        np.testing.assert_array_equal(np.asarray(detect.draw(photo, placed, self.LETTERBOX)), drawn)

    def test_names_do_not_cover_each_other(self) -> None:
        rows = np.array([[48, 32, 32, 32, 0.9, 0.8], [20, 1, 30, 1, 0.7, 0.6], [1, 63, 1, 1, 0.5, 0.5]], np.float32)
        photo = Image.new("RGB", (300, 150))
        result = detect.postprocess({"y": rows.T[None]}, self.LETTERBOX)
        assert result.found == 6
        detect.draw(photo, result, self.LETTERBOX)
        from edgewright.tasks.detect._drawing import _cross, _place

        plates: list[tuple[int, int, int, int]] = []
        for box in ([150, 0, 299, 149], [150, 0, 299, 149], [10, 0, 140, 3], [150, 20, 200, 40]):
            plates.append(_place((0, 0, 40, 10), box, (300, 150), plates))
        assert not any(_cross(one, other) for n, one in enumerate(plates) for other in plates[:n])
        assert all(min(plate) >= 0 and plate[2] <= 300 and plate[3] <= 150 for plate in plates)
        assert _place((0, 0, 900, 90), [5, 5, 6, 6], (100, 50), ()) == (0, 0, 936, 126)  # a photo smaller than the name
