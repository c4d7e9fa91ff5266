"""Holds the ONNX importer to the outside world: load -> save -> the same outputs in ONNX Runtime.

    python benchmarks/import_onnx.py [--only GROUP] [--verbose]

Groups: `backend-files` and `backend-nodes` are the onnx package's own backend test data, `backend-restamped` its files of
opset 6 declared as each later opset in which their operators did not change, `wheels` the models inside
rapidocr-onnxruntime and ddddocr, `architectures` the graphs of the data folder.
Prints one row per group, and every refusal counted by its reason.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

import edgewright as ew

ROOT = Path(__file__).resolve().parents[1]
#: Wheels that carry ONNX models.
WHEELS = ("rapidocr-onnxruntime", "ddddocr")
Feeds = dict[str, Any]


@dataclass
class Case:
    """One model with inputs to run it on."""

    name: str
    model: Callable[[], onnx.ModelProto]
    feeds: Callable[[onnx.ModelProto], Sequence[Feeds]]
    expected: Sequence[Sequence[Any]] = ()  # what the test data say, for where ONNX Runtime cannot run the original


@dataclass
class Result:
    """What became of a case.

    `equal` or `different`: from the original in ONNX Runtime. Where that runs the saved file only: `as data` or `unlike
    data` (random operators, and kernels of ONNX Runtime that differ from the onnx package's by more than the tolerance).
    `not run`: neither. `refused`.
    """

    name: str
    state: str
    detail: str = ""


@dataclass
class Tally:
    """Results of one group."""

    results: list[Result] = field(default_factory=list)

    def count(self, state: str) -> int:
        return sum(result.state == state for result in self.results)


def compare(case: Case, folder: Path, tolerance: dict[str, dict[str, float]]) -> Result:
    """The case's Result; files go into `folder`."""
    proto = case.model()
    original = folder / "original.onnx"
    onnx.save(proto, original)
    try:
        model = ew.load(original)
    except ew.EdgewrightError as problem:
        return Result(case.name, "refused", f"{problem.code} {problem.message}")
    saved = model.save(folder / "saved.onnx")
    if ew.load(saved).hash != model.hash:
        return Result(case.name, "different", "the hash after save -> load is another one")
    try:
        before = session(original)
        feeds = case.feeds(proto)
        expected = [before.run(None, feed) for feed in feeds]
        again = [before.run(None, feed) for feed in feeds]
    except Exception as problem:  # ONNX Runtime raises many types
        return _against_data(case, proto, saved, tolerance, str(problem).splitlines()[0])
    try:
        after = session(saved)
        actual = [after.run(None, feed) for feed in feeds]
    except Exception as problem:
        return Result(case.name, "different", f"ONNX Runtime runs the original but not the saved: {problem}")
    if [o.name for o in before.get_outputs()] != [o.name for o in after.get_outputs()]:
        return Result(case.name, "different", "names of outputs")
    for left, right, repeat in zip(expected, actual, again, strict=True):
        random = difference(left, repeat, tolerance) is not None
        problem = difference(left, right, tolerance, shapes_only=random)
        if problem:
            return Result(case.name, "different", problem)
    return Result(case.name, "equal")


def _against_data(
    case: Case, proto: onnx.ModelProto, saved: Path, tolerance: dict[str, dict[str, float]], reason: str
) -> Result:
    try:
        after = session(saved)
        problems = [
            difference(list(outputs), after.run(None, feed), tolerance)
            for feed, outputs in zip(case.feeds(proto), case.expected, strict=True)
        ]
    except Exception:
        return Result(case.name, "not run", reason)
    problem = next((problem for problem in problems if problem), None)
    return Result(case.name, "unlike data", problem) if problem else Result(case.name, "as data", reason)


def session(path: Path) -> ort.InferenceSession:
    """The file in ONNX Runtime, one thread, quiet."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def difference(
    left: Any, right: Any, tolerance: dict[str, dict[str, float]], *, shapes_only: bool = False
) -> str | None:
    """What differs between two (nested) outputs, or None."""
    if isinstance(left, (list, tuple)):
        if not isinstance(right, (list, tuple)) or len(left) != len(right):
            return "number of outputs"
        problems = (difference(a, b, tolerance, shapes_only=shapes_only) for a, b in zip(left, right, strict=True))
        return next((problem for problem in problems if problem), None)
    if not isinstance(left, np.ndarray):
        return None if left == right or shapes_only else f"{left!r} is {right!r}"
    if left.dtype != right.dtype or left.shape != right.shape:
        return f"{left.dtype}{left.shape} is {right.dtype}{right.shape}"
    if shapes_only:
        return None
    if left.dtype.kind not in "fc":
        return None if np.array_equal(left, right) else "values of a whole-number or text output"
    limits = tolerance["float16" if left.dtype.itemsize < 4 else "float32"]
    close = np.allclose(left, right, rtol=limits["rtol"], atol=limits["atol"], equal_nan=True)
    return None if close else f"values differ by up to {np.nanmax(np.abs(left - right))}"


# --- cases --------------------------------------------------------------------------------------------------------------


def backend_folder() -> Path:
    """The onnx package's backend test data."""
    return Path(onnx.__file__).parent / "backend" / "test" / "data"


def backend_files() -> Iterator[Case]:
    """Every model of the backend test data, with its data sets."""
    for path in sorted(backend_folder().glob("**/*.onnx")):
        yield Case(
            str(path.parent.relative_to(backend_folder()) / path.stem).removesuffix("/model"),
            lambda path=path: onnx.load(path),
            lambda proto, path=path: _file_feeds(path, proto),
        )


def _file_feeds(path: Path, proto: onnx.ModelProto) -> Sequence[Feeds]:
    sets = sorted(path.parent.glob("test_data_set_*"))
    if path.stem != "model" or not sets:
        return [random_feeds(proto)]
    feeds = []
    for folder in sets:
        files = sorted(folder.glob("input_*.pb"), key=lambda file: int(file.stem.split("_")[1]))
        feeds.append({v.name: _read_value(f.read_bytes(), v.type) for v, f in zip(fed(proto), files, strict=False)})
    return feeds


def _read_value(data: bytes, type_proto: onnx.TypeProto) -> Any:
    kind = type_proto.WhichOneof("value")
    if kind == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if kind == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def backend_restamped() -> Iterator[Case]:
    """Files of opset 6, declared as each of opsets 7 to 20 in which none of their operators is another version."""
    for case in backend_files():
        proto = case.model()
        if next((o.version for o in proto.opset_import if o.domain == ""), 0) >= 7:
            continue
        for version in range(7, 21):
            if all(_same_version(node, proto.opset_import[0].version, version) for node in proto.graph.node):
                yield Case(f"{case.name}@{version}", lambda c=case, v=version: _restamp(c.model(), v), case.feeds)


def _same_version(node: onnx.NodeProto, old: int, new: int) -> bool:
    schemas = [onnx.defs.get_schema(node.op_type, version) for version in (old, new)]
    kinds = [set(schema.attributes) for schema in schemas]
    structure = [(len(s.inputs), len(s.outputs), s.deprecated) for s in schemas]
    return kinds[0] == kinds[1] and structure[0] == structure[1]


def _restamp(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
    proto.opset_import[0].version = version
    return proto


def backend_nodes() -> Iterator[Case]:
    """Every operator case that the onnx package generates, at the opset it chooses."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    for case in sorted(cases, key=lambda case: case.name):
        yield Case(
            case.name,
            lambda case=case: case.model,
            lambda proto, case=case: [
                dict(zip((v.name for v in fed(proto)), map(_as_array, inputs), strict=False))
                for inputs, _ in case.data_sets
            ],
            [[_as_array(output) for output in outputs] for _, outputs in case.data_sets],
        )


def _as_array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def wheels() -> Iterator[Case]:
    """Every ONNX model inside the wheels, found through their file lists, without importing them."""
    for path in wheel_models():
        height = 48 if "_rec_" in path.name else 64  # the text recogniser takes lines of that height
        yield Case(
            f"{path.parent.name}/{path.name}",
            lambda path=path: onnx.load(path),
            lambda proto, height=height: [random_feeds(proto, height=height)],
        )


def wheel_models() -> list[Path]:
    """ONNX files of the installed wheels; those that are not installed are left out."""
    found: list[Path] = []
    for wheel in WHEELS:
        try:
            files = importlib.metadata.distribution(wheel).files or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        found += [Path(str(file.locate())) for file in files if str(file).endswith(".onnx")]
    return sorted(found)


def architectures() -> Iterator[Case]:
    """The graphs of the data folder, filled from seed 0."""
    folder = ROOT.parent / "shared" / "data" / "architectures"
    if not folder.is_dir():
        return
    fill = load_module(folder / "fill.py")
    for path in sorted(folder.glob("*.onnx")):
        yield Case(
            path.stem,
            lambda path=path: fill.load_filled(path),
            lambda proto: [fill.example_inputs(proto, seed=0), fill.example_inputs(proto, seed=4)],
        )


def fed(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs without initializer."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in stored]


def random_feeds(proto: onnx.ModelProto, *, seed: int = 0, height: int = 64) -> Feeds:
    """Normal values for every input; free sizes become 1 (first axis), `height` (third axis) or 192."""
    rng = np.random.default_rng(seed)
    feeds: Feeds = {}
    for value in fed(proto):
        sizes = [d.dim_value or (1 if axis == 0 else height if axis == 2 else 192) for axis, d in
                 enumerate(value.type.tensor_type.shape.dim)]  # fmt: skip
        sizes = [max(size, 1) for size in sizes]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        feeds[value.name] = rng.standard_normal(sizes).astype(dtype)
    return feeds


def load_module(path: Path) -> ModuleType:
    """A Python file as a module."""
    location = importlib.util.spec_from_file_location(path.stem, path)
    assert location is not None
    assert location.loader is not None
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


# --- the table ----------------------------------------------------------------------------------------------------------

GROUPS: dict[str, Callable[[], Iterator[Case]]] = {
    "backend-files": backend_files,
    "backend-restamped": backend_restamped,
    "backend-nodes": backend_nodes,
    "wheels": wheels,
    "architectures": architectures,
}


def main() -> int:
    """Run everything and print the table; 1 where an output differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(GROUPS), help="one group")
    parser.add_argument("--verbose", action="store_true", help="print every case that is not equal")
    arguments = parser.parse_args()
    tolerance = load_module(ROOT / "tests" / "conftest.py").TOLERANCE
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as folder:
        for group, cases in GROUPS.items():
            if arguments.only in (None, group):
                tallies[group] = Tally([compare(case, Path(folder), tolerance) for case in cases()])
    print_table(tallies, verbose=arguments.verbose)
    return 1 if any(tally.count("different") for tally in tallies.values()) else 0


def print_table(tallies: dict[str, Tally], *, verbose: bool) -> None:
    """The Markdown table, and what was refused and why."""
    states = ("equal", "as data", "unlike data", "refused", "not run", "different")
    print("| group | models | " + " | ".join(states) + " |\n" + "|---" * 8 + "|")
    for group, tally in tallies.items():
        print(f"| {group} | {len(tally.results)} | " + " | ".join(str(tally.count(state)) for state in states) + " |")
    for group, tally in tallies.items():
        reasons = Counter(re.sub(r"\(node `[^`]*`\) ", "", r.detail) for r in tally.results if r.state == "refused")
        for reason, count in reasons.most_common():
            print(f"{group}: {count} refused: {reason}")
        for result in tally.results:
            if result.state == "different" or (verbose and result.state != "equal"):
                print(f"{group}: {result.name}: {result.state}: {result.detail}")


if __name__ == "__main__":
    sys.exit(main())
