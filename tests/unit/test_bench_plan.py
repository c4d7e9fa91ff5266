"""What bench needs no worker for: plans, random inputs, names, the machine's roofs."""

from __future__ import annotations

import numpy as np
import pytest

from edgewright.bench import BenchPlan, inputs, machine, unique_names
from edgewright.errors import EdgewrightError
from edgewright.model import TensorInfo


@pytest.mark.parametrize(
    "fields",
    [
        {"threads": ()}, {"threads": (1, 1)}, {"threads": (0,)}, {"min_runs": 0}, {"min_runs": 9, "max_runs": 8},
        {"max_seconds": 0.0}, {"max_seconds": float("nan")}, {"max_seconds": float("inf")}, {"half_width": -1.0},
        {"warmup": -1}, {"max_samples": 0}, {"seed": -1}, {"timeout_seconds": 0.0},
    ],
)  # fmt: skip
def test_impossible_plans(fields: dict[str, object]) -> None:
    with pytest.raises(EdgewrightError, match="E103"):
        BenchPlan(**fields)  # type: ignore[arg-type]


def test_random_inputs_do_not_guess_sizes() -> None:
    known = inputs.random_arrays([TensorInfo("x", "float32", ("batch", 3))], limit=2, seed=0)
    assert [arrays["x"].shape for arrays in known] == [(1, 3)] * 2
    assert not np.array_equal(known[0]["x"], known[1]["x"])
    with pytest.raises(EdgewrightError, match=r"E209.*not known"):
        inputs.random_arrays([TensorInfo("x", "float32", (1, "height"))], limit=1, seed=0)
    with pytest.raises(EdgewrightError, match=r"E209.*larger"):
        inputs.random_arrays([TensorInfo("x", "float32", (10**6, 10**6))], limit=1, seed=0)


def test_unique_names() -> None:
    assert unique_names(["a", "b", "a", "a #2", "a"]) == ["a", "b", "a #2", "a #2 #2", "a #3"]


def test_machine_roofs_and_their_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 < machine.peak_gflops(1) < 1e5
    assert 0.1 < machine.bandwidth_gbs(1) < 1e5
    monkeypatch.setattr(machine.sys, "executable", "/bin/false")
    with pytest.raises(EdgewrightError, match="E402"):
        machine._in_child("peak", 1)
