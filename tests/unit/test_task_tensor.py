"""Task `tensor`: arrays agree by SQNR; no metric, no labels, no drawing."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgewright.errors import EdgewrightError
from edgewright.options import build
from edgewright.spec import Spec
from edgewright.tasks import tensor

SPEC = Spec()


def agree(reference: Any, other: Any, spec: Spec = SPEC) -> bool:
    pair = [tensor.postprocess({"y": np.asarray(array)}, spec) for array in (reference, other)]
    return tensor.agreement(pair[:1], pair[1:], spec) == 1


def test_agreement_is_sqnr_of_every_output(rng: np.random.Generator) -> None:
    x = rng.standard_normal(1000)
    noise = rng.standard_normal(1000)
    noise *= np.linalg.norm(x) / np.linalg.norm(noise)
    assert agree(x, x + noise * 10 ** (-31 / 20))
    assert not agree(x, x + noise * 10 ** (-29 / 20))
    assert agree(x, x + noise * 10 ** (-21 / 20), Spec({}, "tensor", {"min_sqnr_db": 20.0}))


def test_one_bad_output_is_enough() -> None:
    good, bad = {"a": np.ones(3), "b": np.ones(3)}, {"a": np.ones(3), "b": np.zeros(3)}
    results = [tensor.postprocess(outputs, SPEC) for outputs in (good, bad)]
    assert tensor.agreement([results[0]] * 2, results, SPEC) == 0.5
    assert math.isnan(tensor.agreement([], [], SPEC))


@pytest.mark.parametrize(
    ("reference", "other", "expected"),
    [
        ([1.0, math.nan], [1.0, math.nan], True),
        ([1.0, -math.inf], [1.0, -math.inf], True),
        ([1.0, -math.inf], [1.0, math.inf], False),
        ([1.0, 2.0], [1.0, math.nan], False),
        ([1.0, 2.0], [1.0, math.inf], False),
        ([1.0, math.nan], [1.0, 2.0], False),
        ([0.0, 0.0], [0.0, 0.0], True),
        ([0.0, 0.0], [0.0, 1e-9], False),
        ([1.0, 2.0], [[1.0, 2.0]], False),
        ([1, 2], [1, 2], True),
        ([True, False], [True, True], False),
        (np.zeros((0, 4)), np.zeros((0, 4)), True),
        (["a", "b"], ["a", "b"], True),
        (["a", "b"], ["a", "c"], False),
    ],
)
def test_special_values(reference: Any, other: Any, expected: bool) -> None:
    assert agree(reference, other) is expected


def test_outputs_must_have_the_same_names() -> None:
    one, two = (tensor.postprocess({name: np.ones(2)}, SPEC) for name in "ab")
    assert tensor.agreement([one], [two], SPEC) == 0


def test_labels_metric_and_drawing_are_refused() -> None:
    found = tensor.postprocess({"y": np.ones(2)}, SPEC)
    assert tensor.METRIC == ""
    assert tensor.classes(SPEC, ()) is None
    assert tensor.metric([found], [None], SPEC) == {}
    for call in (lambda: tensor.metric([found], ["cat"], SPEC), lambda: tensor.parse_label("cat", SPEC)):
        with pytest.raises(EdgewrightError, match="has no metric") as caught:
            call()
        assert caught.value.code == "E305"
    with pytest.raises(EdgewrightError, match="cannot be drawn") as caught:
        tensor.draw(Image.new("RGB", (4, 4)), found, SPEC)
    assert caught.value.code == "E303"


def test_json_lists_small_arrays_and_describes_large_ones() -> None:
    outputs = {"y": np.array([[1.5, math.nan]], np.float16), "n": np.array([3]), "big": np.zeros(1001, np.float32)}
    found = tensor.postprocess(outputs, SPEC)
    assert json.loads(json.dumps(found.to_json())) == {
        "y": {"dtype": "float16", "shape": [1, 2], "values": [1.5, "nan"]},
        "n": {"dtype": "int64", "shape": [1], "values": [3]},
        "big": {"dtype": "float32", "shape": [1001]},
    }
    assert str(found) == "y float16[1, 2], n int64[1], big float32[1001]"


def test_bad_options() -> None:
    for options in ({"min_sqnr_db": math.nan}, {"min_sqnr_db": "loud"}, {"limit": 3}):
        with pytest.raises(EdgewrightError):
            build(tensor.Options, options, where="tensor")
