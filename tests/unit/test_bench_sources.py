"""What a sweep measures: bundles stay, models become one bundle per runtime, and refusals are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright import registry
from edgewright.bench.sources import bundles_of
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.model import Model

HEAD = '<ir_version: 10, opset_import: ["" : 21, "nobody" : 1]>'


class Notes:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def update(self, task: str, done: int, total: int | None) -> None:
        assert total is not None
        assert done <= total

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_bundles_stay_and_models_are_converted(model_from_text: Callable[..., Model], tmp_path: Path) -> None:
    model = model_from_text(HEAD + "g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }", name="net")
    bundle = convert(model, "onnxruntime", tmp_path / "made")
    found = bundles_of([bundle, model], tmp_path / "work", progress=Notes())
    assert found[0] is bundle
    assert [item.name for item in found[1:]] == [f"net-{name}" for name in registry.proposed()]
    assert {item.origin for item in found} == {model.origin}


def test_a_runtime_that_cannot_run_it_is_told(model_from_text: Callable[..., Model], tmp_path: Path) -> None:
    model = model_from_text(HEAD + "g (float[1] x) => (float[1] y) { y = nobody.Foo(x) }", name="odd")
    notes = Notes()
    with pytest.raises(EdgewrightError, match="E210"):
        bundles_of([model], tmp_path, progress=notes)
    assert "`odd` is not measured on onnxruntime" in " ".join(notes.notes)
    with pytest.raises(EdgewrightError, match="E101"):
        bundles_of([model], tmp_path, runtimes=["nobody"])
