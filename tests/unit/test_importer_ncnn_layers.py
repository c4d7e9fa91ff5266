"""Every layer that the importer reads, against ncnn itself: one small network each, with seeded weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.ncnn_nets import drawn, inputs, ncnn_runs, our_runs, plain, tagged, write

import edgewright as ew
from edgewright.importers.ncnn._network import BUILDERS
from edgewright.runtimes import reference

Tolerance = dict[str, dict[str, float]]
Size = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One layer.

    Attributes:
        kind: Its type.
        values: Its parameters.
        sizes: Of its inputs, outermost first.
        weights: What the .bin holds for it: `p` and `t` are plain and tagged, with the number of weights.
        outputs: Blobs that it makes.
        low: Smallest input.
    """

    kind: str
    values: str
    sizes: tuple[Size, ...]
    weights: str
    outputs: int
    low: float

    def __str__(self) -> str:
        sizes = ",".join("x".join(map(str, size)) for size in self.sizes)
        return f"{self.kind}[{self.values}]({sizes})"


def _read(line: str) -> Case:
    """A case of the table."""
    layer, sizes, weights, further = (part.strip() for part in (line + ";;;").split(";")[:4])
    kind, _, values = layer.partition(" ")
    options = dict(pair.split("=") for pair in further.split())
    shapes = tuple(tuple(map(int, size.split("x"))) for size in sizes.split())
    return Case(kind, values, shapes, weights, int(options.get("outputs", 1)), float(options.get("low", -1)))


TABLE = Path(__file__).with_name("ncnn_layers.txt").read_text(encoding="utf-8")
CASES = [_read(line) for line in TABLE.split("\n") if line and not line.startswith("#")]


@pytest.fixture
def made(tmp_path: Path, rng: np.random.Generator) -> Callable[[Case], tuple[Path, ew.Model]]:
    """A case's files with seeded weights, and the network that is read from them."""

    def make(case: Case) -> tuple[Path, ew.Model]:
        blobs = " ".join(f"in{number}" for number in range(len(case.sizes)))
        tops = " ".join(f"out{number}" for number in range(case.outputs))
        line = f"{case.kind} layer {len(case.sizes)} {case.outputs} {blobs} {tops} {case.values}"
        data = b""
        for part in case.weights.split():
            values = rng.normal(0, 0.5, int(part[1:]))
            data += tagged(values) if part[0] == "t" else plain(np.abs(values) + 0.1 if part[0] == "v" else values)
        path = write(tmp_path, f"{inputs(case.sizes)}\n{line}", data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return path, ew.load(path)

    return make


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_layer_gives_what_ncnn_gives(
    case: Case, made: Callable[[Case], tuple[Path, ew.Model]], rng: np.random.Generator, tolerance: Tolerance
) -> None:
    path, model = made(case)
    feeds = {name: np.maximum(array, case.low) for name, array in drawn(model, rng).items()}
    names = [info.name for info in model.outputs]
    theirs, ours = ncnn_runs(path, feeds, names), our_runs(model, feeds, names)
    assert sorted(theirs) == sorted(names) == [f"out{number}" for number in range(case.outputs)]
    for info in model.outputs:
        assert ours[info.name].shape == theirs[info.name].shape
        assert list(info.shape)[1:] == list(ours[info.name].shape)[1:]
        limits = tolerance["float32"]
        np.testing.assert_allclose(ours[info.name], theirs[info.name], rtol=limits["rtol"], atol=limits["atol"])
    assert reference.supports(model.ir) == ()


def test_every_layer_has_a_case() -> None:
    elsewhere = {"Input", "MemoryData", "Noop", "DetectionOutput", "YoloDetectionOutput", "Yolov3DetectionOutput"}
    assert set(BUILDERS) - {case.kind for case in CASES} == elsewhere


@pytest.mark.parametrize("case", {case.kind: case for case in CASES if case.kind != "PriorBox"}.values(), ids=str)
def test_samples_of_a_batch_are_computed_by_themselves(
    case: Case, made: Callable[[Case], tuple[Path, ew.Model]], rng: np.random.Generator, tolerance: Tolerance
) -> None:
    _, model = made(case)
    names = [info.name for info in model.outputs]
    singles = [{name: np.maximum(array, case.low) for name, array in drawn(model, rng).items()} for _ in range(3)]
    batch = {name: np.concatenate([feeds[name] for feeds in singles]) for name in singles[0]}
    with ew.open(model, runtime="onnxruntime") as session:
        together = session.run(batch, outputs=names)
        for number, feeds in enumerate(singles):
            alone = session.run(feeds, outputs=names)
            for name in names:
                limits = tolerance["float32"]
                np.testing.assert_allclose(
                    together[name][number], alone[name][0], rtol=limits["rtol"], atol=limits["atol"]
                )
