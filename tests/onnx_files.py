"""What tests of networks share: the outside-world comparison, graphs from text, expected refusals."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import edgewright as ew

Tolerance = dict[str, dict[str, float]]


def benchmark(name: str) -> ModuleType:
    """A script of benchmarks/ as a module: what it runs whole, tests run as a sample."""
    path = Path(__file__).resolve().parents[1] / "benchmarks" / f"{name}.py"
    if str(path.parent) not in sys.path:  # as for a script, which finds the others of its folder
        sys.path.append(str(path.parent))
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


def with_weights(text: str, weights: dict[str, np.ndarray]) -> ir.Model:
    """The graph in ONNX text, where each of `weights` stands for an input of that name: constants too large for text."""
    model = ir.from_onnx_text(text)
    for name, array in weights.items():
        value = next(value for value in model.graph.inputs if value.name == name)
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=name)
        value.type, value.shape = ir.TensorType(value.const_value.dtype), value.const_value.shape
        model.graph.register_initializer(value)
    return model
