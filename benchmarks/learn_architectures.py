"""Every architecture graph as a torch module against the runtime: forward, what is learnt, gradients that reach it.

python benchmarks/learn_architectures.py [--data DIR] [NAME ...]

Prints one line per graph: the largest rel-L2 of the outputs (against ONNX Runtime; QDQ graphs against the numpy reference,
since ONNX Runtime rounds a few integers the other way), how many constants are learnt, their part of all elements, and how
many of them get a gradient that is not 0. Ends with 1 where a graph is above the float32 limit of tests/conftest.py, or is
refused that has no control flow.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from edgewright import session
from edgewright.errors import EdgewrightError
from edgewright.learn.network import Network
from edgewright.load import load
from edgewright.metrics import rel_l2
from edgewright.model import Model

ROOT = Path(__file__).resolve().parents[1]


def module(name: str, path: Path) -> Any:
    location = importlib.util.spec_from_file_location(name, path)
    assert location is not None
    assert location.loader is not None
    made = importlib.util.module_from_spec(location)
    location.loader.exec_module(made)
    return made


def measured(model: Model, feeds: dict[str, np.ndarray]) -> tuple[float, Network, int]:
    """Largest rel-L2, the network, and how many learnt constants a gradient reaches."""
    quantized = any(node.op_type == "QuantizeLinear" for node in model.ir.graph)
    with session.open(model, runtime="reference" if quantized else "onnxruntime", threads=1) as opened:
        expected = opened.run(feeds)
    network = Network(model.ir)
    got = network({name: torch.from_numpy(array) for name, array in feeds.items()}, tuple(expected))
    total = sum((value.square().sum() for value in got.values() if value.is_floating_point()), torch.zeros(()))
    total.backward()
    reached = sum(1 for weight in network.weights().values() if weight.grad is not None and weight.grad.abs().max() > 0)
    worst = max(rel_l2(array, got[name].detach().numpy()) for name, array in expected.items())
    return worst, network, reached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGEWRIGHT_DATA", "data")))
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    limit = module("conftest", ROOT / "tests" / "conftest.py").TOLERANCE["float32"]["rel_l2"]
    folder = options.data / "architectures"
    fill = module("architecture_fill", folder / "fill.py")
    failed = 0
    for name in options.names or sorted(path.stem for path in folder.glob("*.onnx")):
        proto = fill.load_filled(folder / f"{name}.onnx")
        with tempfile.TemporaryDirectory() as place:
            onnx.save(proto, Path(place) / "net.onnx")
            model = load(Path(place) / "net.onnx")
        try:
            worst, network, reached = measured(model, fill.example_inputs(proto))
        except EdgewrightError as problem:
            failed += "control flow" not in problem.message
            print(f"{name:24} refused: {problem.message}", flush=True)
            continue
        elements = sum(value.const_value.size for value in model.ir.graph.initializers.values())
        part = sum(weight.numel() for weight in network.weights().values()) / max(elements, 1)
        failed += not worst <= limit
        print(
            f"{name:24} rel-L2 {worst:.1e}  learnt {len(network.learnt):4} ({part:.1%})  reached {reached:4}",
            flush=True,
        )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
