"""Task `embed`: shapes, cosine, NaN, equal error rate."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image

from edgewright.errors import EdgewrightError
from edgewright.metrics import equal_error_rate
from edgewright.model import TensorInfo
from edgewright.spec import Spec
from edgewright.tasks import embed

SPEC = Spec({}, "embed")


def vector(*values: float) -> embed.Embedding:
    return embed.postprocess({"y": np.array([values], np.float32)}, SPEC)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (1, 4, 1, 1), (4, 1), (1, 1, 4)])
def test_any_single_vector_is_fine(shape: tuple[int, ...]) -> None:
    assert embed.postprocess({"y": np.arange(4, dtype=np.float16).reshape(shape)}, SPEC).vector.shape == (4,)


@pytest.mark.parametrize("shape", [(2, 4), (1, 4, 2), (0,), (1, 0), ()])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(EdgewrightError, match="must be one vector") as caught:
        embed.postprocess({"y": np.zeros(shape, np.float32)}, SPEC)
    assert caught.value.code == "E303"


def test_only_direction_counts() -> None:
    for scale in (1e-30, 1.0, 1e30):
        assert embed.agreement([vector(3, 4)], [vector(3 * scale, 4 * scale)], SPEC) == pytest.approx(1)
    assert embed.agreement([vector(3, 4)], [vector(3, 4)], SPEC) == 1
    assert embed.agreement([vector(1, 0)], [vector(1, 1)], SPEC) == pytest.approx(math.sqrt(0.5))
    assert embed.agreement([vector(1, 0), vector(1, 0)], [vector(-1, 0), vector(1, 0)], SPEC) == 0.5
    assert math.isnan(embed.agreement([], [], SPEC))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_agrees_with_nothing(bad: float) -> None:
    broken, fine = vector(1, bad), vector(1, 2)
    assert not broken.finite
    assert embed.agreement([broken, broken, fine], [broken, fine, broken], SPEC) == 0
    assert "NaN" in str(broken)


def test_zero_vectors() -> None:
    assert embed.agreement([vector(0, 0)], [vector(0, 0)], SPEC) == 1
    assert embed.agreement([vector(0, 0)], [vector(1, 0)], SPEC) == 0
    assert embed.agreement([vector(1, 0)], [vector(1, 0, 0)], SPEC) == 0


def test_metric_is_one_minus_the_equal_error_rate() -> None:
    voices = [vector(1, 0), vector(1, 0.1), vector(0, 1), vector(0.1, 1)]
    assert embed.metric(voices, ["ann", "ann", "bob", "bob"], SPEC) == {"1 - EER": 1.0}
    assert embed.metric(voices, ["ann", "bob", "ann", "bob"], SPEC)["1 - EER"] <= 0.5
    for labels in (["a", "b", "c", "d"], ["a", "a", "a", "a"]):
        assert math.isnan(embed.metric(voices, labels, SPEC)["1 - EER"])
    assert math.isnan(embed.metric(voices[:1], ["a"], SPEC)["1 - EER"])


def test_a_sample_drawn_twice_makes_no_pair_with_itself() -> None:
    ann, bob, other = vector(1, 0), vector(0.5, 1), vector(0, 1)
    labels = ["ann", "bob", "ann"]
    once = embed.metric([ann, bob, other], labels, SPEC)
    assert embed.metric([ann, bob, other, ann], [*labels, "ann"], SPEC)["1 - EER"] <= once["1 - EER"]
    assert math.isnan(embed.metric([ann, ann, bob], ["ann", "ann", "bob"], SPEC)["1 - EER"])


@pytest.mark.parametrize(
    ("same", "different", "expected"),
    [
        ([0.9, 0.8], [0.1, 0.2], 0.0),
        ([0.1, 0.2], [0.9, 0.8], 1.0),
        ([0.9, 0.3], [0.6, 0.1], 0.5),
        ([0.5, 0.5], [0.5, 0.5], 0.5),
        ([0.9, 0.8, 0.7, 0.2], [0.75, 0.1, 0.0, 0.3], 0.25),
    ],
)
def test_equal_error_rate(same: list[float], different: list[float], expected: float) -> None:
    assert equal_error_rate(np.array(same), np.array(different)) == pytest.approx(expected)


def test_equal_error_rate_of_two_bells(rng: np.random.Generator) -> None:
    same, different = rng.standard_normal(20_000) + 2, rng.standard_normal(20_000)
    assert equal_error_rate(same, different) == pytest.approx(0.5 * math.erfc(1 / math.sqrt(2)), abs=0.01)
    assert math.isnan(equal_error_rate(same, np.zeros(0)))


def test_classes_labels_json_and_drawing() -> None:
    assert embed.classes(SPEC, ()) is None
    assert embed.classes(SPEC, [TensorInfo("y", "float32", ("N", 256))]) is None
    with pytest.raises(EdgewrightError, match="needs a vector"):
        embed.classes(SPEC, [TensorInfo("y", "float32", (1, 256, 7, 7))])
    with pytest.raises(EdgewrightError, match="needs the option `output`"):
        embed.postprocess({"a": np.ones(2), "b": np.ones(2)}, SPEC)
    with pytest.raises(EdgewrightError, match="`output` is `z`"):
        embed.postprocess({"a": np.ones(2)}, Spec({}, "embed", {"output": "z"}))
    assert embed.parse_label("ann", SPEC) == "ann"
    with pytest.raises(EdgewrightError, match="empty") as caught:
        embed.parse_label(" ", SPEC)
    assert caught.value.code == "E305"
    with pytest.raises(EdgewrightError, match="cannot be drawn"):
        embed.draw(Image.new("RGB", (4, 4)), vector(1, 2), SPEC)
    assert json.loads(json.dumps(vector(3, 4).to_json()))["size"] == 2
