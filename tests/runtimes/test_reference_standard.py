"""The reference against the ONNX standard itself: its schemas, and the onnx package's own node tests, all of them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgewright.errors import EdgewrightError
from edgewright.model import OPSET_VERSION
from edgewright.runtimes import reference
from edgewright.runtimes.reference.operators import OPERATORS

#: Operators of the opset that the reference leaves out, and why.
LEFT_OUT = {
    **dict.fromkeys(("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
                    "random: no reference value"),
    **dict.fromkeys(("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), "training"),
    **dict.fromkeys(("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"), "strings"),
    "ImageDecoder": "reads files",
}  # fmt: skip
#: Attributes that the reference reads besides the opset's: model-local functions may import an older opset.
OLDER = {**{name: {"axes"} for name in OPERATORS if name.startswith("Reduce")}, "DFT": {"axis"}}
NOT_READ = {"Constant": {"value_string", "value_strings", "sparse_value"}}

#: Node tests that the reference does not pass, and why.
DEVIATIONS = {
    "test_maxunpool_export_with_output_shape": "positions count in `output_shape`, as in ONNX Runtime (onnx issue 5398)",
    "test_resize_downsample_scales_cubic_align_corners": "the resized length is a whole number, as in ONNX Runtime",
    "test_resize_downsample_scales_linear_align_corners": "the resized length is a whole number, as in ONNX Runtime",
    "test_scan_sum": "Scan of opset 8, with a batch axis",
    "test_training_dropout": "random",
    "test_training_dropout_default": "random",
    "test_training_dropout_default_mask": "random",
    "test_training_dropout_mask": "random",
}


@dataclass(frozen=True)
class Outcome:
    """What became of one node test: `problem` None where it passed; `undefined` names an operator that is left out."""

    name: str
    problem: str | None = None
    undefined: str | None = None


def outcomes(folder: Path, limits: dict[str, dict[str, float]]) -> Iterator[Outcome]:
    """Run every node test of the onnx package, upgraded to our opset where the package can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the test cases are made by functions that overflow on purpose
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    for case in cases:
        yield _outcome(case, folder, limits)


def _outcome(case: Any, folder: Path, limits: dict[str, dict[str, float]]) -> Outcome:
    model = case.model
    version = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if 0 < version < OPSET_VERSION:
        try:
            model = onnx.version_converter.convert_version(model, OPSET_VERSION)
        except Exception:  # no adapter: the test runs as it is
            model = case.model
    problems = reference.supports(ir.from_proto(model))
    if problems:
        return Outcome(case.name, undefined=f"{problems[0].op_type}: {problems[0].reason}")
    onnx.save(model, folder / "model.onnx")
    try:
        runner = reference.open(SimpleNamespace(path=folder), threads=1)  # type: ignore[arg-type]
        for inputs, outputs in case.data_sets:
            feeds = dict(zip((value.name for value in model.graph.input), map(_value, inputs), strict=True))
            got = runner.run(feeds)
            for (name, value), want in zip(got.items(), map(_value, outputs), strict=True):
                if not _close(value, want, case, limits):
                    return Outcome(case.name, f"output `{name}` differs")
    except EdgewrightError as problem:
        return Outcome(case.name, problem.message)
    return Outcome(case.name)


def _value(value: Any) -> Any:
    # Types that numpy lacks arrive as TensorProto, some of them wrapped in an array of one object.
    if isinstance(value, np.ndarray) and value.dtype == object and value.size == 1:
        value = value.item() if isinstance(value.item(), onnx.TensorProto) else value
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _close(got: Any, want: Any, case: Any, limits: dict[str, dict[str, float]]) -> bool:
    if isinstance(want, list):
        return len(got) == len(want) and all(_close(a, b, case, limits) for a, b in zip(got, want, strict=True))
    if want is None:
        return got is None
    want = np.asarray(want)
    if got.dtype != want.dtype or got.shape != want.shape:
        return False
    if got.dtype.kind in "biuSO":
        return bool(np.array_equal(got, want))
    table = limits["float32" if got.dtype.itemsize >= 4 else "float16"]
    rtol, atol = max(case.rtol, table["rtol"]), max(case.atol, table["atol"])
    return np.allclose(got.astype(np.float64), want.astype(np.float64), rtol=rtol, atol=atol, equal_nan=True)


def test_node_tests_of_the_onnx_package(tmp_path: Path, tolerance: dict[str, dict[str, float]]) -> None:
    found = list(outcomes(tmp_path, tolerance))
    failed = {outcome.name: outcome.problem for outcome in found if outcome.problem is not None}
    assert {name: problem for name, problem in failed.items() if name not in DEVIATIONS} == {}
    ours = {schema.name for schema in _schemas()}
    undefined = {outcome.undefined.partition(":")[0] for outcome in found if outcome.undefined}
    assert undefined & ours <= {*LEFT_OUT, "Cast", "SpaceToDepth"}, "attributes of newer opsets only"
    passed = sum(outcome.problem is None and outcome.undefined is None for outcome in found)
    assert passed > 0.75 * len(found)


def _schemas() -> list[Any]:
    names = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    found = []
    for name in sorted(names):
        try:
            schema = onnx.defs.get_schema(name, OPSET_VERSION, "")
        except onnx.defs.SchemaError:
            continue  # newer than our opset
        if not schema.deprecated:
            found.append(schema)
    return found


def test_every_operator_of_the_opset_is_defined_or_left_out_with_a_reason() -> None:
    assert {schema.name for schema in _schemas()} == {*OPERATORS, *LEFT_OUT}


@pytest.mark.parametrize("schema", [s for s in _schemas() if s.name in OPERATORS], ids=lambda schema: schema.name)
def test_attributes_are_the_schemas(schema: Any) -> None:
    entry = OPERATORS[schema.name]
    assert set(entry.attributes) - OLDER.get(schema.name, set()) == set(schema.attributes) - NOT_READ.get(
        schema.name, set()
    )
    parameters = inspect.signature(entry.function).parameters
    for name in entry.attributes & set(schema.attributes):
        default = parameters[name].default
        if schema.attributes[name].required:
            assert default is inspect.Parameter.empty, name
            continue
        if not schema.attributes[name].default_value.name or name == "activations":
            continue
        wanted = onnx.helper.get_attribute_value(schema.attributes[name].default_value)
        wanted = wanted.decode() if isinstance(wanted, bytes) else tuple(wanted) if isinstance(wanted, list) else wanted
        assert default == (pytest.approx(wanted) if isinstance(wanted, float) else wanted), name
