"""Operators x runtimes x precisions: every runtime gives the reference's numbers, whole, tapped and cut, as the page says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.docs.make_runtimes import Page
from tests.runtimes.operators import (
    OPERATORS,
    PRECISIONS,
    REFUSALS,
    RUNTIMES,
    Made,
    Outcome,
    distance,
    inputs_for,
    make,
    reason,
)

from edgewright import registry, session
from edgewright.contracts import Cut
from edgewright.errors import EdgewrightError

Tolerance = dict[str, dict[str, float]]
_DTYPES = {"fp32": "float32", "fp16": "float16"}


@pytest.fixture(scope="module")
def page() -> Page:
    return Page.read()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name: str, runtime: str, precision: str, tmp_path: Path, tolerance: Tolerance, page: Page) -> None:
    if registry.missing(registry.peek("runtimes", runtime).EXTRA):
        pytest.skip(f"{runtime} is not installed")
    try:
        made = make(name, runtime, precision, tmp_path / "bundle")
    except EdgewrightError as problem:
        assert problem.code in REFUSALS, problem
        assert not (tmp_path / "bundle").exists()
        found = Outcome(refused=reason(problem))
    else:
        found = Outcome(distance(made))
        if precision == "int8":
            assert -20 * np.log10(max(found.distance, 1e-12)) >= tolerance["int8"]["sqnr_db"]
        else:
            check_everywhere(made, runtime, tolerance[_DTYPES[precision]])
    assert page.agrees(name, runtime, precision, found), "python tests/docs/make_runtimes.py writes the page anew"


def check_everywhere(made: Made, runtime: str, limits: dict[str, float]) -> None:
    """Outputs at both batch sizes, inner tensors, and the parts before and behind one, as far as the runtime has these."""
    traits = registry.peek("runtimes", runtime).TRAITS
    one, three = inputs_for(made.model, 1, seed=1), inputs_for(made.model, 3, seed=2)
    with session.open(made.model, runtime="reference") as original, session.open(made.bundle) as opened:
        assert_close(opened.run(one), original.run(one), limits)
        if traits.dynamic_shapes:
            assert_close(opened.run(three), original.run(three), limits)
        if traits.taps == "none":
            return
        assert {"a", "y"} <= set(made.bundle.tensor_names)
        inner = original.run(one, ["a", "y"])
        assert_close(opened.run(one, ["a", "y"]), inner, limits)
    with session.open(made.bundle, cut=Cut(("a",), ("y",))) as fragment:
        assert_close(fragment.run({"a": inner["a"]}), {"y": -inner["a"]}, limits)
    with session.open(made.bundle, cut=Cut(None, ("a",))) as fragment:
        assert_close(fragment.run(one), {"a": inner["a"]}, limits)


def assert_close(got: dict[str, Any], wanted: dict[str, Any], limits: dict[str, float]) -> None:
    assert set(got) == set(wanted)
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        np.testing.assert_allclose(got[name], array, rtol=limits["rtol"], atol=limits["atol"], err_msg=name)


def test_a_page_is_read_as_it_is_written() -> None:
    reasons = {
        ("lrn", "here", "fp32"): "it has no kernel: a pity",
        ("rnn", "here", "fp32"): "it has no kernel: a pity",
        **{(name, "here", "int8"): "it runs no int8" for name in ("lrn", "rnn", "if")},
    }
    rows = {"lrn": "LRN", "rnn": "RNN", "if": "If, Mul"}
    cells = {(name, "here", precision): "<= 1e-6" for name in rows for precision in PRECISIONS}
    page = Page(rows, ("here",), cells | dict.fromkeys(reasons, "refused"), reasons)
    assert Page.parse(page.text()) == page
    assert "- here fp32, `lrn`, `rnn`: it has no kernel: a pity\n- here int8, all: it runs no int8" in page.text()
    assert page.agrees("if", "here", "fp32", Outcome(distance=1e-3))
    assert page.agrees("lrn", "here", "fp32", Outcome(refused="it has no kernel: a pity"))
    assert not page.agrees("lrn", "here", "fp32", Outcome(distance=1e-9))
    assert not page.agrees("lrn", "here", "fp32", Outcome(refused="another reason"))
    assert not page.agrees("if", "here", "fp32", Outcome(refused="it has no kernel: a pity"))


def test_the_page_has_every_operator_and_runtime(page: Page) -> None:
    assert list(page.rows) == list(OPERATORS)
    assert set(page.runtimes) >= {name for name in RUNTIMES if name in registry.installed("runtimes")}
    assert page.text() == Page.PATH.read_text(encoding="utf-8"), "python tests/docs/make_runtimes.py writes it anew"
