"""Task `classify`: winners, ties, NaN, labels, metric, agreement, drawing."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from edgewright.errors import EdgewrightError
from edgewright.model import TensorInfo
from edgewright.options import build
from edgewright.spec import Spec
from edgewright.tasks import classify

NAMED = Spec({}, "classify", {"labels": ["cat", "dog", "emu"]})
BARE = Spec({}, "classify")


def result(*scores: float, spec: Spec = BARE, dtype: Any = np.float32) -> classify.Classification:
    return classify.postprocess({"y": np.array([scores], dtype)}, spec)


def test_the_highest_score_wins() -> None:
    found = result(0.5, 3.0, -1.0, spec=NAMED)
    assert (found.index, found.label) == (1, "dog")
    assert [guess.label for guess in found.top] == ["dog", "cat", "emu"]
    assert str(found).startswith("dog 0.9")
    json.dumps(found.to_json())


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1), (1, 3, 1)])
def test_trailing_axes_of_one_are_fine(shape: tuple[int, ...]) -> None:
    assert classify.postprocess({"y": np.array([0, 2, 1], np.float16).reshape(shape)}, BARE).index == 1


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 3, 2), (1, 0), ()])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(EdgewrightError, match="must be one row of scores") as caught:
        classify.postprocess({"y": np.zeros(shape, np.float32)}, BARE)
    assert caught.value.code == "E303"


def test_ties_go_to_the_lowest_index() -> None:
    assert [guess.index for guess in result(1, 7, 7, 0, 7).top] == [1, 2, 4, 0, 3]


def test_whole_number_scores() -> None:
    assert result(200, 3, 255, dtype=np.uint8).index == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_have_no_class_and_never_agree(bad: float) -> None:
    broken, fine = result(1, bad, 3), result(1, 2, 3)
    assert broken.index == -1
    assert broken.top == ()
    assert "no class" in str(broken)
    assert json.loads(json.dumps(broken.to_json()))["score"] == "nan"
    assert classify.agreement([broken, fine], [broken, fine], BARE) == 0.5
    assert classify.agreement([fine], [broken], BARE) == 0
    assert classify.metric([broken], [2], BARE) == {"top-1": 0, "top-5": 0}


def test_masked_classes_may_be_minus_infinity() -> None:
    assert result(-math.inf, 2, -math.inf).score == 1
    assert result(-math.inf, -math.inf).index == 0


@pytest.mark.parametrize(
    ("scores", "softmax", "expected"),
    [
        ((0.1, 0.7, 0.2), "auto", 0.7),
        ((0.0, 0.0, 0.0), "auto", 1 / 3),
        ((0.0, math.log(2), 0.0), "auto", 0.5),
        ((0.1, 0.7, 0.2), "no", 0.7),
        ((5.0, 7.0, 2.0), "no", 7.0),
        ((0.0, 1.0, 0.0), "yes", math.e / (math.e + 2)),
    ],
)
def test_shown_scores(
    scores: tuple[float, ...], softmax: str, expected: float, tolerance: dict[str, dict[str, float]]
) -> None:
    found = result(*scores, spec=Spec({}, "classify", {"softmax": softmax}))
    assert found.score == pytest.approx(expected, rel=tolerance["float32"]["rtol"])


@given(hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_the_winner_is_numpys_argmax_and_scores_fall(row: np.ndarray) -> None:
    found = classify.postprocess({"y": row[None]}, BARE)
    assert found.index == int(np.argmax(row))
    scores = [guess.score for guess in found.top]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == min(5, row.size)


def test_metric() -> None:
    results = [result(*np.eye(7)[index]) for index in range(7)]
    assert classify.metric(results, [0, 1, 2, 9, 9, 9, 9], BARE)["top-1"] == 3 / 7
    ranked = result(6, 5, 4, 3, 2, 1, 0)
    assert classify.metric([ranked] * 2, [4, 5], BARE) == {"top-1": 0, "top-5": 0.5}
    assert all(math.isnan(value) for value in classify.metric([], [], BARE).values())
    assert classify.METRIC in classify.metric([ranked], [0], BARE)


def test_agreement() -> None:
    a, b = result(1, 0), result(0, 1)
    assert classify.agreement([a, a, b, b], [a, b, b, b], BARE) == 0.75
    assert math.isnan(classify.agreement([], [], BARE))


@pytest.mark.parametrize(("text", "expected"), [("dog", 1), ("0", 0), ("2", 2)])
def test_labels_by_name_or_index(text: str, expected: int) -> None:
    assert classify.parse_label(text, NAMED) == expected


def test_a_name_wins_over_an_index() -> None:
    assert classify.parse_label("1", Spec({}, "classify", {"labels": ["1", "2", "3"]})) == 0


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("horse", NAMED, "not among the 3 classes"),
        ("3", NAMED, "not among the 3 classes"),
        ("-1", NAMED, "not among"),
        ("", NAMED, "not among"),
        ("dog", BARE, "the spec names no classes"),
        ("1.0", BARE, "no class index"),
        ("crane", Spec({}, "classify", {"labels": ["crane", "x", "crane"]}), r"names classes \[0, 2\]"),
    ],
)
def test_what_is_no_label(text: str, spec: Spec, message: str) -> None:
    with pytest.raises(EdgewrightError, match=message) as caught:
        classify.parse_label(text, spec)
    assert caught.value.code == "E305"


def info(*shape: int | str | None, name: str = "y") -> TensorInfo:
    return TensorInfo(name, "float32", shape)


def test_classes() -> None:
    assert classify.classes(NAMED, ()) == ("cat", "dog", "emu")
    assert classify.classes(NAMED, (info("N", 3),)) == ("cat", "dog", "emu")
    assert classify.classes(BARE, (info("N", 3, 1, 1),)) == ("0", "1", "2")
    assert classify.classes(BARE, (info("N", None),)) == ()
    assert classify.classes(BARE, ()) == ()


@pytest.mark.parametrize(
    ("spec", "outputs", "message"),
    [
        (NAMED, (info("N", 4),), "has 3 labels, but the network gives"),
        (BARE, (info(10),), "needs scores"),
        (BARE, (info("N", 4), info("N", 4, name="z")), "needs the option `output`: the network gives `y`, `z`"),
        (Spec({}, "classify", {"output": "q"}), (info("N", 4),), "option `output` is `q`, but outputs are `y`"),
    ],
)
def test_a_spec_that_does_not_fit_the_outputs(spec: Spec, outputs: tuple[TensorInfo, ...], message: str) -> None:
    with pytest.raises(EdgewrightError, match=message) as caught:
        classify.classes(spec, outputs)
    assert caught.value.code == "E303"


def test_one_of_several_outputs() -> None:
    outputs = {"features": np.zeros((1, 9)), "y": np.array([[0.0, 1.0]])}
    assert classify.postprocess(outputs, Spec({}, "classify", {"output": "y"})).index == 1
    with pytest.raises(EdgewrightError, match="needs the option `output`"):
        classify.postprocess(outputs, BARE)


def test_options_of_two_specs_do_not_mix() -> None:
    for _ in range(2):
        assert result(0, 1, spec=Spec({}, "classify", {"labels": ["a", "b"]})).label == "b"
        assert result(0, 1, spec=Spec({}, "classify", {"labels": ["c", "d"]})).label == "d"


@pytest.mark.parametrize("options", [{"top": 0}, {"softmax": "maybe"}, {"labels": [1]}, {"colour": "red"}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(EdgewrightError) as caught:
        build(classify.Options, options, where="classify")
    assert caught.value.code == "E103"


def test_top_limits_what_is_drawn_and_kept() -> None:
    spec = Spec({}, "classify", {"top": 7})
    assert len(result(*range(9), spec=spec).top) == 7
    one = Spec({}, "classify", {"top": 1})
    photo = Image.new("RGB", (200, 100), "red")
    ten = classify.draw(photo, result(*range(9), spec=spec), spec)
    assert classify.draw(photo, result(*range(9), spec=one), one).height < ten.height


@pytest.mark.parametrize("size", [(300, 200), (1, 1), (40, 3000), (4000, 30)])
def test_draw_adds_a_legible_caption(size: tuple[int, int]) -> None:
    photo = Image.new("L", size, 128)
    for found in (result(0.5, 3.0, -1.0, spec=NAMED), result(math.nan, 1)):
        drawn = classify.draw(photo, found, NAMED)
        assert drawn.mode == "RGB"
        assert drawn.width == size[0]
        assert drawn.height > size[1]
        np.testing.assert_array_equal(np.asarray(drawn)[: size[1]], 128)
        if size[0] >= 300:
            caption = np.asarray(drawn, int)[size[1] :].max(axis=2)
            assert caption.max() == 255  # white letters
            assert np.median(caption) < 40  # on a dark ground


def test_drawing_long_and_foreign_names() -> None:
    spec = Spec({}, "classify", {"labels": ["x" * 500, "猫 ☃ ü", "\n"]})
    assert classify.draw(Image.new("RGB", (200, 80)), result(1, 2, 3, spec=spec), spec).width == 200
