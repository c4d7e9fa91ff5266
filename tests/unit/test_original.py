"""The original's answers: computed once by sample, the same as without memory, and never more than the limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgewright import original, session
from edgewright.contracts import Sample
from edgewright.convert import convert
from edgewright.model import Model
from edgewright.original import Answers
from edgewright.samples import Samples
from edgewright.spec import Spec
from edgewright.verify import verify

TWICE = """<ir_version: 10, opset_import: ["" : 21]>
net (float[1, 2] x) => (float[1, 2] scores) <float two = {2.0}> { scores = Mul(x, two) }"""


@pytest.fixture
def model(model_from_text: Callable[..., Model]) -> Model:
    return model_from_text(TWICE, spec=Spec(task="classify"), name="net")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fills with "open", "run" and "close" as the original is used."""
    calls: list[str] = []
    whole = original.open_original

    def watched(model: Model, *, threads: int) -> session.Session:
        opened = whole(model, threads=threads)
        run, close = opened.run, opened.close
        opened.run = lambda inputs, outputs=None: (calls.append("run"), run(inputs, outputs))[1]  # type: ignore[method-assign]
        opened.close = lambda: (calls.append("close"), close())[1]  # type: ignore[func-returns-value, method-assign]
        calls.append("open")
        return opened

    monkeypatch.setattr(original, "open_original", watched)
    return calls


def sample(name: str, *values: float) -> Sample:
    return Sample(name, name, {"x": np.array([values], np.float32)})


def test_a_sample_is_computed_once_and_known_by_its_content(model: Model, runs: list[str]) -> None:
    answers = Answers(model, threads=1)
    with answers:
        first = answers.run(sample("a", 1, 2))
        np.testing.assert_array_equal(first["scores"], [[2, 4]])
        np.testing.assert_array_equal(answers.run(sample("a", 3, 4))["scores"], [[6, 8]])
    assert runs == ["open", "run", "run", "close"]
    with answers:
        assert answers.run(sample("b", 1, 2)) is first
    assert runs == ["open", "run", "run", "close"], "the network is not opened where all is known"
    with answers:
        answers.run(sample("c", 5, 6))
    assert runs[4:] == ["open", "run", "close"]


def test_nobody_can_change_what_the_next_one_is_judged_by(model: Model) -> None:
    with Answers(model, threads=1) as answers:
        outputs = answers.run(sample("a", 1, 2))
        with pytest.raises(ValueError, match="read-only"):
            outputs["scores"][0] = 0


def test_what_does_not_fit_is_computed_again(model: Model, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "_ANSWER_BYTES", 20)  # two outputs of 8 bytes
    with Answers(model, threads=1) as answers:
        for _ in range(2):
            for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
                np.testing.assert_array_equal(answers.run(sample(name, value, 0))["scores"], [[2 * value, 0]])
    assert runs.count("run") == 4


def test_verdicts_are_the_same_with_and_without_memory(
    model: Model, tmp_path: Path, rng: np.random.Generator, runs: list[str]
) -> None:
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((30, 2)).astype(np.float32))
    judges = Samples.open(tmp_path / "x.npz", model, roles="judge")
    answers, bundles = Answers(model, threads=1), [convert(model, "onnxruntime", tmp_path / name) for name in "ab"]
    original.noise_floor(model, judges)
    runs.clear()
    remembered = [verify(model, bundle, judges, answers=answers) for bundle in bundles]
    assert runs.count("run") == 30
    for bundle, report in zip(bundles, remembered, strict=True):
        assert verify(model, bundle, judges).to_json() == report.to_json()
