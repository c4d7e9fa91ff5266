"""What docs/architecture.md says of the native runtime: an int8 kernel joins by entries in three tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.binary_nets import HEADER, binary_model

import edgewright as ew
from edgewright import kernels
from edgewright.runtimes.native import defined
from edgewright.runtimes.native.plan import FILE, KERNELS, Fields, read
from edgewright.runtimes.native.planner import SCALED, Draft, Planner, constant
from edgewright.runtimes.native.rules import RULES

_WINDOW = "group = 1, strides = [1, 1], dilations = [1, 1], pads = [1, 1, 1, 1], pad_value = 1.0"
#: A stem, a binary layer, and a linear head that an int8 kernel takes over.
NET = f"""{HEADER} net (float[1,3,8,8] x, float[16,3,3,3] w_stem, float[16] w_b, float[1] zero, signs[16,3,3,16] b_1,
        float[16] ws_1, float[16] w_t1, float[16,12] w_fc) => (float[1,12] y)
{{
    c = Conv <pads = [1, 1, 1, 1]> (x, w_stem, w_b)
    s = edgewright.PackSigns (c, zero)
    d = edgewright.BinaryConv <channels = [16], {_WINDOW}> (s, b_1, ws_1, w_t1)
    g = GlobalAveragePool (d)
    f = Flatten (g)
    y = MatMul (f, w_fc)
}}"""


def _rule(planner: Planner, node: Any) -> None:
    """Weights in int8 with a step for each output; activations are quantized where the kernel reads them."""
    weights, x = constant(node.inputs[1], "weights"), planner.floats(node.inputs[0])
    steps = (np.abs(weights).max(0) / 127).astype(np.float32)
    levels = np.rint(weights / steps).astype(np.int8).view(np.uint8)
    y = planner.fresh((x.shape[0], weights.shape[1]))
    sizes = {"rows": x.shape[0], "terms": weights.shape[0], "filters": weights.shape[1]}
    held = {"weights": levels, "scale": steps}
    planner.add(node.outputs[0], Draft("int8_linear", sizes, {"x": x}, {"y": y}, held, stage=SCALED))


def _kernel(sizes: dict[str, int], numbers: Sequence[float], named: dict[str, np.ndarray]) -> None:
    x = named["in.x"].view(np.float32).reshape(sizes["rows"], sizes["terms"])
    weights = named["const.weights"].view(np.int8).reshape(sizes["terms"], sizes["filters"]).astype(np.int32)
    step = np.abs(x).max() / np.float32(127)
    sums = np.rint(x / step).astype(np.int32) @ weights
    y = sums * (step * named["const.scale"].view(np.float32))
    named["out.y"].view(np.float32).reshape(y.shape)[...] = y


def _output(bundle: ew.Bundle, x: np.ndarray) -> np.ndarray:
    with ew.open(bundle, threads=1) as session:
        return session.run({"x": x})["y"]


@pytest.mark.filterwarnings("ignore::edgewright.errors.EdgewrightWarning")
def test_an_int8_kernel_joins_by_three_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tolerance: dict[str, dict[str, float]]
) -> None:
    """Its row in the table of kernels, its definition and its rule: writing, checking, memory and running stay as they are."""
    model, x = binary_model(NET), np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    wanted = _output(ew.convert(model, "native", tmp_path / "float"), x)
    fields = Fields(("rows", "terms", "filters"), (), ("x",), ("y",), ("weights", "scale"))
    monkeypatch.setitem(KERNELS, "int8_linear", fields)
    monkeypatch.setitem(defined._KERNELS, "int8_linear", _kernel)
    monkeypatch.setitem(RULES, "MatMul", _rule)
    monkeypatch.setattr(kernels, "native", lambda: None)
    bundle = ew.convert(model, "native", tmp_path / "int8")
    plan = read(bundle.path / FILE)
    assert [step.kernel for step in plan.steps][-1] == "int8_linear"
    assert {str(array.dtype) for array in plan.constants} >= {"uint8", "float32"}
    got = _output(bundle, x)
    assert not np.array_equal(got, wanted)
    noise = np.square(got - wanted).sum() / np.square(wanted).sum()
    assert -10 * np.log10(noise) > tolerance["int8"]["sqnr_db"]
