"""Every architecture graph through the recipes `float` and `fp16`, with several seeds: the full run behind the tests.

python benchmarks/passes_architectures.py [--data DIR] [--seeds N] [--photos N] [NAME ...]

Prints one line per graph: nodes as it came, after `float` and after `fp16`, multiply-adds, the largest rel-L2 of
`float` and the lowest SQNR of `fp16` over seeds and outputs, and whether a second run changed anything. Then
EfficientNet-Lite0 with its trained weights on photos. ONNX Runtime drops pairs of Casts on a CPU without float16
kernels, so its SQNR is that of float16 weights in float32 arithmetic; the reference runtime rounds every tensor.

Ends with 1 where `float` is above the float32 limit of tests/conftest.py, where `fp16` is below what `verify` asks of a
whole network, or where twice is not once. Below the 50 dB of the tests' table are, rightly:

    bireal        sign(x) of an x near 0 turns with the last bit
    ssdlite_mbv3  with every tensor rounded: 70 convolutions deep, 47 dB
    lite0         trained: the first depthwise weights span 0.1 to 18, and everything after them sees their rounding
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx import version_converter

from edgewright import session
from edgewright.compress import compress
from edgewright.errors import EdgewrightError
from edgewright.graph import cost
from edgewright.load import load
from edgewright.metrics import rel_l2, sqnr_db
from edgewright.model import OPSET_VERSION, Model
from edgewright.original import SQNR_MIN_DB

ROOT = Path(__file__).resolve().parents[1]


def module(name: str, path: Path) -> Any:
    location = importlib.util.spec_from_file_location(name, path)
    assert location is not None
    assert location.loader is not None
    made = importlib.util.module_from_spec(location)
    location.loader.exec_module(made)
    return made


class Network:
    """A Model opened in ONNX Runtime as it is."""

    def __init__(self, model: Model) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(
            model.to_proto().SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [item.name for item in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, feeds), strict=True))


def distances(original: Network, other: Model | None, all_feeds: list[dict[str, np.ndarray]]) -> tuple[float, float]:
    """Largest rel-L2 and lowest SQNR over inputs and outputs."""
    if other is None:
        return math.nan, math.nan
    network, worst, lowest = Network(other), 0.0, math.inf
    for feeds in all_feeds:
        expected, got = original.run(feeds), network.run(feeds)
        assert list(expected) == list(got)
        for name, array in expected.items():
            worst = max(worst, rel_l2(array, got[name]))
            lowest = min(lowest, sqnr_db(array, got[name]))
    return worst, lowest


def in_float16(original: Network, half: Model, feeds: dict[str, np.ndarray]) -> float:
    """Lowest SQNR over outputs in the reference runtime, which computes in float16."""
    with session.open(half, runtime="reference") as opened:
        got = opened.run(feeds)
    return min(sqnr_db(array, got[name]) for name, array in original.run(feeds).items())


def made(model: Model, recipe: str) -> tuple[Model | None, bool]:
    """The compressed Model (None where the recipe refuses it) and whether a second run changes nothing."""
    try:
        small = compress(model, recipe)
    except EdgewrightError as problem:
        print(f"    {recipe}: {problem.message}")
        return None, True
    return small, compress(small, recipe).hash == small.hash


def examine(name: str, model: Model, feeds: list[dict[str, np.ndarray]], limits: dict[str, dict[str, float]]) -> bool:
    """Print the graph's line; True where every limit holds."""
    original = Network(model)
    small, same = made(model, "float")
    half, same_half = made(model, "fp16")
    worst, _ = distances(original, small, feeds)
    _, lowest = distances(original, half, feeds)
    rounded = in_float16(original, half, feeds[0]) if half else math.nan
    macs = [layer.macs for layer in cost.layers(model.ir)]
    total = sum(number or 0 for number in macs) / 1e6
    nodes = [sum(1 for _ in network.ir.graph) if network else 0 for network in (model, small, half)]
    passed = worst <= limits["float32"]["rel_l2"] and same and same_half
    required = SQNR_MIN_DB["fp16"][1] or 0.0
    near = half is None or min(lowest, rounded) >= required
    note = "" if half is None or min(lowest, rounded) >= limits["float16"]["sqnr_db"] else " (below the tests' table)"
    counts = " -> ".join(f"{count:4}" for count in nodes)
    errors = f"float rel-L2 {worst:.1e}  fp16 {lowest:5.1f} dB, rounded {rounded:5.1f} dB"
    unknown = " and some unknown" if None in macs else ""
    verdict = "ok" if passed and near else "FAIL"
    print(f"{name:24} nodes {counts}  {total:8.1f} MMACs{unknown}  {errors}  {verdict}{note}", flush=True)
    return passed and near


def photos(model: Model, folder: Path, count: int) -> list[dict[str, np.ndarray]]:
    from edgewright.samples import Samples

    samples = Samples.open(folder, model)
    return [dict(sample.arrays) for sample, _ in zip(samples, range(count), strict=False)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--photos", type=int, default=64)
    arguments = parser.parse_args()
    limits = module("conftest", ROOT / "tests" / "conftest.py").TOLERANCE
    folder = arguments.data / "architectures"
    fill = module("fill", folder / "fill.py")
    passed = True
    for name in arguments.names or sorted(path.stem for path in folder.glob("*.onnx")):
        proto = fill.load_filled(folder / f"{name}.onnx", seed=0)
        model = Model(ir.from_proto(version_converter.convert_version(proto, OPSET_VERSION)), name=name)
        feeds = [fill.example_inputs(proto, seed=seed) for seed in range(arguments.seeds)]
        passed &= examine(name, model, feeds, limits)
    if not arguments.names:
        lite0 = load("zoo:efficientnet-lite0")
        passed &= examine(
            "lite0, trained, photos", lite0, photos(lite0, arguments.data / "imagenet-sample", arguments.photos), limits
        )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
