"""Stems whose only reader is a max pool: both become one step of the runtime `native`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.binary_nets import HEADER, binary_model

import edgewright as ew
from edgewright import kernels
from edgewright.errors import EdgewrightError
from edgewright.model import Model
from edgewright.runtimes.native.plan import FILE, KERNELS, read, write

_MAX = "MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>"
_STEM = "c = Conv <pads = [3, 3, 3, 3]> (x, w_c) r = Relu(c)"


def _model(body: str, outputs: str = "float[A,B,C,D] y") -> Model:
    weights = "float[16,3,7,7] w_c, float[16,16,1,1] w_d"
    return binary_model(f"{HEADER} net (float[2,3,67,66] x, {weights}) => ({outputs}) {{ {body} }}")


def _picture() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((2, 3, 67, 66)).astype(np.float32)}


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        (f"{_STEM} y = {_MAX} (r)", ["conv_pool"]),
        ("c = Conv(x, w_c) y = MaxPool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (c)", ["conv_pool"]),
        (f"{_STEM} p = {_MAX} (r) y = Relu(p)", ["conv_pool", "pointwise"]),
        (f"{_STEM} p = {_MAX} (r) y = {_MAX} (p)", ["conv_pool", "pool"]),
        # another kind of pool, its window, the layer's channels, and what a layer adds
        (f"{_STEM} y = AveragePool <kernel_shape = [2, 2]> (r)", ["conv", "pool"]),
        (f"{_STEM} y = GlobalMaxPool (r)", ["conv", "pool"]),
        (f"{_STEM} y = MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (r)", ["conv", "pool"]),
        (f"{_STEM} d = Concat <axis = 1> (r, x) y = {_MAX} (d)", ["conv", "concat", "pool"]),
        (f"{_STEM} d = Conv (r, w_d) a = Add (r, d) y = {_MAX} (a)", ["conv", "conv", "pool"]),
        (f"{_STEM} p = {_MAX} (r) q = MaxPool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (r) y = Add (p, q)",
         ["conv", "pool", "pool", "pointwise"]),
    ],
)  # fmt: skip
def test_what_becomes_one_step(body: str, kinds: list[str], tmp_path: Path, tolerance: Any) -> None:
    model = _model(body)
    made = ew.convert(model, "native", tmp_path / "net")
    assert [step.kernel for step in read(made.path / FILE).steps if step.kernel != "transpose"] == kinds
    with ew.open(model, runtime="reference") as original, ew.open(made) as opened:
        wanted, got = original.run(_picture())["y"], opened.run(_picture())["y"]
    np.testing.assert_allclose(got, wanted, rtol=tolerance["float32"]["rtol"], atol=1e-4)


def test_an_output_of_the_network_stays(tmp_path: Path) -> None:
    model = _model(f"{_STEM} y = {_MAX} (r)", "float[A,B,C,D] y, float[E,F,G,H] r")
    assert [step.kernel for step in read(ew.convert(model, "native", tmp_path / "net").path / FILE).steps] == [
        *("conv", "pool")
    ]


@pytest.mark.filterwarnings("ignore::edgewright.errors.EdgewrightWarning")
def test_numpy_and_other_threads_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tolerance: Any) -> None:
    made = ew.convert(_model(f"{_STEM} y = {_MAX} (r)"), "native", tmp_path / "net")
    results = []
    for threads in (1, 2, 3):
        with ew.open(made, threads=threads) as opened:
            results.append(opened.run(_picture())["y"])
    monkeypatch.setattr(kernels, "native", lambda: None)
    with ew.open(made) as opened:
        wanted = opened.run(_picture())["y"]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    np.testing.assert_allclose(results[0], wanted, rtol=tolerance["float32"]["rtol"], atol=1e-4)


def test_the_chain_keeps_its_last_name(tmp_path: Path) -> None:
    made = ew.convert(_model(f"{_STEM} p = {_MAX} (r) y = Neg(p)"), "native", tmp_path / "net")
    assert {"x", "p", "y"} == set(made.tensor_names)


@pytest.mark.parametrize(
    ("name", "value"),
    [("pool_kernel_h", 0), ("pool_kernel_h", 2**24), ("pool_stride_w", 0), ("pool_top", 2**24), ("pool_right", 2**24),
     ("pool_bottom", 4), ("kernel_h", 80), ("stride_h", 0), ("filters", 17)],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused(name: str, value: int, tmp_path: Path) -> None:
    made = ew.convert(_model(f"{_STEM} y = {_MAX} (r)"), "native", tmp_path / "net")
    plan = read(made.path / FILE)
    (number,) = [number for number, step in enumerate(plan.steps) if step.kernel == "conv_pool"]
    sizes = list(plan.steps[number].sizes)
    sizes[KERNELS["conv_pool"].sizes.index(name)] = value
    steps = [*plan.steps[:number], replace(plan.steps[number], sizes=tuple(sizes)), *plan.steps[number + 1 :]]
    write(replace(plan, steps=tuple(steps)), made.path / FILE)
    with pytest.raises(EdgewrightError) as caught:
        ew.open(made)
    assert caught.value.code == "E232"
