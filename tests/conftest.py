"""Fixtures and the one tolerance table of the test suite."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

#: The tolerance table by dtype; no test carries a literal of its own. Source: docs/architecture.md, "Tolerances".
TOLERANCE = {
    "float32": {"rtol": 1e-4, "atol": 1e-5, "rel_l2": 1e-5},
    "float16": {"rtol": 1e-2, "atol": 1e-3, "sqnr_db": 50.0},
    # steps: mean distance in quantization steps where rounding alone differs; edge: how far from the middle between two
    # steps a number may lie that another rounding sends the other way.
    "int8": {"sqnr_db": 20.0, "steps": 1e-3, "edge": 1e-2},
}


@pytest.fixture(scope="session")
def tolerance() -> dict[str, dict[str, float]]:
    """The tolerance table."""
    return TOLERANCE


def find_data() -> Path | None:
    """The folder of test data: $EDGEWRIGHT_DATA, else `shared/data` beside the checkout; None where absent."""
    named = os.environ.get("EDGEWRIGHT_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real weights and photos; tests that need it are skipped where it is absent."""
    folder = find_data()
    if folder is None:
        pytest.skip("needs the test data folder: set EDGEWRIGHT_DATA")
    return folder


@pytest.fixture(scope="session")
def architectures(data: Path) -> ModuleType:
    """The module that fills the 48 architecture graphs with seeded weights: `load_filled`, `example_inputs`."""
    location = importlib.util.spec_from_file_location("architecture_fill", data / "architectures" / "fill.py")
    assert location is not None
    assert location.loader is not None
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


def architecture_names() -> list[str]:
    """Names of the architecture graphs, for parametrizing; empty where the data is absent."""
    folder = find_data()
    return sorted(path.stem for path in (folder / "architectures").glob("*.onnx")) if folder else []


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded random generator."""
    return np.random.default_rng(0)


@pytest.fixture
def model_from_text() -> Iterator[Callable[..., object]]:
    """Make a Model from ONNX text: `model_from_text('<ir_version: 10, opset_import: ["" : 21]> g (...) => (...) {...}')`."""

    def make(text: str, **fields: object) -> object:
        import onnx_ir as ir

        from edgewright.model import Model

        return Model(ir.from_onnx_text(text), **fields)  # type: ignore[arg-type]

    yield make
