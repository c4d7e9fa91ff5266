"""mAP and agreement of task `detect`: by hand, against COCO's and VOC's rules written out, and as bounds need them."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright import metrics
from edgewright.spec import Spec
from edgewright.tasks import detect
from edgewright.tasks.detect._precision import LIMITS, VOC, Precision, match

SPEC = Spec({}, "detect", {})
Row = tuple[int, float, tuple[float, float, float, float]]  # class, score, corners


def result(*rows: Row, found: int | None = None) -> detect.Detections:
    rows = tuple(sorted(rows, key=lambda row: -row[1]))
    return detect.Detections(
        np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[0] for row in rows], np.int32),
        len(rows) if found is None else found,
    )


def truth(*rows: tuple[int, tuple[float, float, float, float]]) -> detect.Truth:
    boxes = np.array([row[1] for row in rows], np.float64).reshape(-1, 4)
    return detect.Truth(boxes, np.array([row[0] for row in rows], np.int64), repr(rows))


def square(x: float, y: float, side: float = 0.1) -> tuple[float, float, float, float]:
    return (x, y, x + side, y + side)


class TestByHand:
    def test_right_wrong_right(self) -> None:
        """Of two true boxes the first and third are right: precisions 1 up to recall 0.5, then 2/3."""
        label = truth((0, square(0.1, 0.1)), (0, square(0.5, 0.5)))
        boxes = result((0, 0.9, square(0.1, 0.1)), (0, 0.8, square(0.8, 0.1)), (0, 0.7, square(0.5, 0.5)))
        scores = detect.metric([boxes], [label], SPEC)
        assert scores["VOC mAP@0.5"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
        assert scores["mAP@0.5"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
        assert scores["mAP@0.5:0.95"] == pytest.approx(scores["mAP@0.5"])  # boxes are exact
        eleven = Precision([match(boxes.boxes, boxes.scores, boxes.classes, label.boxes, label.classes)])
        assert eleven.mean(VOC, "11 points", every_class=False) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)

    def test_what_is_missed_lowers_the_recall(self) -> None:
        label = truth(*((0, square(0.2 * n, 0.1)) for n in range(4)))
        boxes = result((0, 0.9, square(0.2, 0.1)))
        assert detect.metric([boxes], [label], SPEC) == pytest.approx(
            {"mAP@0.5": 26 / 101, "mAP@0.5:0.95": 26 / 101, "VOC mAP@0.5": 0.25}
        )

    def test_mean_is_over_the_classes_of_the_labels(self) -> None:
        label = truth((3, square(0.1, 0.1)), (5, square(0.5, 0.5)))
        boxes = result((3, 0.9, square(0.1, 0.1)), (7, 0.9, square(0.5, 0.5)))
        assert detect.metric([boxes], [label], SPEC)["mAP@0.5"] == 0.5

    def test_overlap_decides(self) -> None:
        label = truth((0, (0.0, 0.0, 1.0, 1.0)))
        boxes = result((0, 0.9, (0.0, 0.0, 1.0, 0.72)))  # IoU 0.72: right at 0.5, 0.55, 0.6, 0.65, 0.7
        assert detect.metric([boxes], [label], SPEC) == {"mAP@0.5": 1, "mAP@0.5:0.95": 0.5, "VOC mAP@0.5": 1}

    def test_one_true_box_is_found_once(self) -> None:
        label = truth((0, square(0.1, 0.1)), (0, square(0.1, 0.1, 0.12)))
        boxes = result((0, 0.9, square(0.1, 0.1)), (0, 0.8, square(0.1, 0.1)))
        scores = detect.metric([boxes], [label], SPEC)
        assert scores["mAP@0.5"] == 1  # COCO: the second takes what is left
        assert scores["VOC mAP@0.5"] == 0.5  # VOC: its best one is taken

    def test_nothing_there(self) -> None:
        assert detect.metric([result()], [truth()], SPEC)["mAP@0.5"] == 1
        assert detect.metric([result((0, 0.9, square(0, 0)))], [truth()], SPEC)["mAP@0.5"] == 0
        assert math.isnan(detect.metric([], [], SPEC)["mAP@0.5"])

    def test_boxes_below_the_threshold_count_against_labels_only(self) -> None:
        label = truth((0, square(0.1, 0.1)))
        weak = result((0, 0.1, square(0.1, 0.1)), found=0)
        assert detect.metric([weak], [label], SPEC)["mAP@0.5"] == 1
        assert detect.agreement([weak], [result()], SPEC) == 1
        assert detect.agreement([result((0, 0.9, square(0.1, 0.1)))], [weak], SPEC) == 0


class TestAgreement:
    ONE = result((0, 0.9, square(0.1, 0.1)), (1, 0.8, square(0.5, 0.5)))

    def test_same_boxes(self) -> None:
        assert detect.agreement([self.ONE], [self.ONE], SPEC) == 1
        assert detect.agreement([result()], [result()], SPEC) == 1
        assert math.isnan(detect.agreement([], [], SPEC))

    def test_what_only_one_finds_counts(self) -> None:
        invented = result((0, 0.9, square(0.1, 0.1)), (1, 0.8, square(0.5, 0.5)), (2, 0.3, square(0.7, 0.7)))
        assert detect.agreement([self.ONE], [invented], SPEC) == pytest.approx(2 / 3)
        assert detect.agreement([invented], [self.ONE], SPEC) == pytest.approx(2 / 3)
        assert detect.agreement([result()], [self.ONE], SPEC) == 0
        assert detect.agreement([self.ONE], [result()], SPEC) == 0

    def test_another_class_is_another_thing(self) -> None:
        assert detect.agreement([result((0, 0.9, square(0.1, 0.1)))], [result((1, 0.9, square(0.1, 0.1)))], SPEC) == 0

    @pytest.mark.parametrize(("shift", "same"), [(0.02, 1), (0.06, 0)])
    def test_half_of_the_box_must_be_shared(self, shift: float, same: int) -> None:
        other = result((0, 0.9, square(0.1 + shift, 0.1)), (1, 0.8, square(0.5, 0.5 + shift)))
        assert detect.agreement([self.ONE], [other], SPEC) == same

    def test_samples_do_not_mix(self) -> None:
        one, other = result((0, 0.9, square(0.1, 0.1))), result((0, 0.9, square(0.5, 0.5)))
        assert detect.agreement([one, other], [one, other], SPEC) == 1
        assert detect.agreement([one, other], [other, one], SPEC) == 0


# --- against the rules written out -------------------------------------------------------------------------------------

CORNER = st.sampled_from([0.0, 0.1, 0.15, 0.2, 0.3])
SIDE = st.sampled_from([0.0, 0.1, 0.12, 0.2])  # boxes without area as well
BOX = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), CORNER, CORNER, SIDE, SIDE)
CLASS = st.integers(0, 2)
SCORE = st.sampled_from([0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
FOUND = st.lists(st.tuples(CLASS, SCORE, BOX), max_size=7).map(lambda rows: result(*rows))
TRUE = st.lists(st.tuples(CLASS, BOX), max_size=5).map(lambda rows: truth(*rows))
PAIRS = st.lists(st.tuples(FOUND, TRUE), min_size=1, max_size=5)


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    if list(a) == list(b):
        return 1.0
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def precision_by_rule(
    pairs: Sequence[tuple[detect.Detections, detect.Truth]], limit: float, *, voc: bool, points: int | None
) -> float:
    """Class by class: every box in order of its score, right or wrong, then the best precision at each recall or beyond."""
    scores = []
    for index in sorted({int(c) for _, label in pairs for c in label.classes}):
        rows = []
        for sample, (boxes, _) in enumerate(pairs):
            for order in np.flatnonzero(boxes.classes == index):
                rows.append((-float(boxes.scores[order]), sample, boxes.boxes[order].astype(float).tolist()))
        left = [[list(b) for b, c in zip(label.boxes, label.classes, strict=True) if c == index] for _, label in pairs]
        count, taken, hits = sum(map(len, left)), set(), []
        for _, sample, box in sorted(rows, key=lambda row: row[0]):
            free = [n for n in range(len(left[sample])) if voc or (sample, n) not in taken]
            best = max(free, key=lambda n: (iou(box, left[sample][n]), -n), default=None)
            right = best is not None and iou(box, left[sample][best]) >= limit and (sample, best) not in taken
            hits.append(right)
            if right:
                taken.add((sample, best))
        curve = [(sum(hits[: n + 1]) / count, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]
        best_at = [(recall, max(p for _, p in curve[n:])) for n, (recall, _) in enumerate(curve)]
        if points is None:
            steps = zip([(0.0, 0.0), *best_at], best_at, strict=False)
            scores.append(sum((after[0] - before[0]) * after[1] for before, after in steps))
        else:
            levels = [level / (points - 1) for level in range(points)]
            scores.append(sum(next((p for r, p in best_at if r >= level - 1e-12), 0.0) for level in levels) / points)
    return sum(scores) / len(scores)


@given(PAIRS)
def test_equals_the_rules_written_out(pairs: list[tuple[detect.Detections, detect.Truth]]) -> None:
    if not any(len(label.boxes) for _, label in pairs):
        return
    results, labels = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found = detect.metric(results, labels, SPEC)
    assert found["mAP@0.5"] == pytest.approx(precision_by_rule(pairs, 0.5, voc=False, points=101))
    by_limit = [precision_by_rule(pairs, limit, voc=False, points=101) for limit in LIMITS]
    assert found["mAP@0.5:0.95"] == pytest.approx(float(np.mean(by_limit)))
    assert found["VOC mAP@0.5"] == pytest.approx(precision_by_rule(pairs, 0.5, voc=True, points=None))
    matches = [match(r.boxes, r.scores, r.classes, t.boxes, t.classes) for r, t in pairs]
    eleven = Precision(matches).mean(VOC, "11 points", every_class=False)
    assert eleven == pytest.approx(precision_by_rule(pairs, 0.5, voc=True, points=11))


@given(st.lists(st.tuples(FOUND, FOUND), min_size=1, max_size=6))
def test_agreement_is_bounded_and_one_for_the_same(pairs: list[tuple[detect.Detections, detect.Detections]]) -> None:
    reference, results = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assert 0 <= detect.agreement(reference, results, SPEC) <= 1
    assert detect.agreement(reference, reference, SPEC) == 1
    copies = [detect.Detections(r.boxes.copy(), r.scores.copy(), r.classes.copy(), r.found) for r in reference]
    assert detect.agreement(reference, copies, SPEC) == 1


@given(PAIRS, st.randoms(use_true_random=False))
def test_a_choice_of_samples_is_as_from_scratch(
    pairs: list[tuple[detect.Detections, detect.Truth]], random: object
) -> None:
    """Scores of any choice, a sample twice included, are those of copies that nothing remembers."""
    detect.metric([pair[0] for pair in pairs], [pair[1] for pair in pairs], SPEC)
    chosen = [random.randrange(len(pairs)) for _ in range(len(pairs) + 2)]  # type: ignore[attr-defined]
    known = detect.metric([pairs[n][0] for n in chosen], [pairs[n][1] for n in chosen], SPEC)
    fresh = [
        detect.Detections(pairs[n][0].boxes, pairs[n][0].scores, pairs[n][0].classes, pairs[n][0].found) for n in chosen
    ]
    assert known == detect.metric(fresh, [pairs[n][1] for n in chosen], SPEC)


def test_memory_follows_what_is_compared() -> None:
    one, other = result((0, 0.9, square(0.1, 0.1))), result((0, 0.9, square(0.5, 0.5)))
    assert detect.agreement([one], [one], SPEC) == 1
    assert detect.agreement([other], [one], SPEC) == 0
    assert detect.agreement([one], [one], SPEC) == 1
    before = len(detect._compared)
    del one, other
    gc.collect()
    assert len(detect._compared) < before


def test_bounds_of_many_photos_are_cheap(rng: np.random.Generator) -> None:
    """500 resamples of 128 photos: what is matched once is only gathered, so matching runs 128 times."""
    corners = rng.random((128, 10, 2))
    samples = [
        result(*((int(rng.integers(80)), float(rng.uniform(0.3, 1)), square(*corner)) for corner in photo))
        for photo in corners
    ]
    calls = 0
    whole = detect.match

    def counted(*arrays: np.ndarray) -> object:
        nonlocal calls
        calls += 1
        return whole(*arrays)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detect, "match", counted)
        low, high = metrics.bootstrap_paired(
            128, lambda chosen: detect.agreement(*[[samples[n] for n in chosen]] * 2, SPEC), resamples=500
        )
    assert (low, high, calls) == (1, 1, 128)
