"""What the tests of the ONNX importer share: the outside-world comparison, graphs from text, expected refusals."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest

import edgewright as ew

Tolerance = dict[str, dict[str, float]]


def benchmark(name: str) -> ModuleType:
    """A script of benchmarks/ as a module: what it runs whole, tests run as a sample."""
    path = Path(__file__).resolve().parents[1] / "benchmarks" / f"{name}.py"
    location = importlib.util.spec_from_file_location(name, path)
    assert location is not None
    assert location.loader is not None
    module = importlib.util.module_from_spec(location)
    sys.modules[name] = module  # dataclasses look their module up
    location.loader.exec_module(module)
    return module


outside = benchmark("import_onnx")


def load_text(text: str, folder: Path, change: Callable[[Any], None] | None = None) -> ew.Model:
    """The Model loaded from a file of this ONNX text, after `change` was done to the ModelProto."""
    proto = onnx.parser.parse_model(text)
    if change:
        change(proto)
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializePartialToString())
    return ew.load(path)


def refused(code: str, *parts: str) -> Any:
    """Expect an error of `code` whose text holds all `parts`."""
    return pytest.raises(ew.EdgewrightError, check=lambda e: e.code == code and all(part in str(e) for part in parts))
