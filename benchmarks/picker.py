"""Is deploy's choice right? Five networks, each candidate measured exhaustively, the choice against the best.

    python benchmarks/picker.py [--data FOLDER] [--seconds 20]

Prints, per network, the candidate that deploy chose, the best by a long interleaved measurement, and the ratio of
their medians there. Target: at most 1.05.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
from pathlib import Path

import numpy as np

import edgewright as ew

NETWORKS = ("efficientnet_lite0", "mobilenet_v3_small", "resnet18", "deit_tiny", "crnn")


def fill_module(folder: Path):
    location = importlib.util.spec_from_file_location("fill", folder / "fill.py")
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


def prepare(name: str, folder: Path, work: Path):
    """The filled network and 64 random samples for it, as files."""
    import onnx

    fill = fill_module(folder)
    proto = fill.load_filled(folder / f"{name}.onnx", seed=0)
    inputs = [fill.example_inputs(proto, seed=seed) for seed in range(64)]
    onnx.save(proto, work / f"{name}.onnx")
    np.savez(work / f"{name}.npz", **{key: np.concatenate([item[key] for item in inputs]) for key in inputs[0]})
    return ew.load(work / f"{name}.onnx"), work / f"{name}.npz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("EDGEWRIGHT_DATA", "../shared/data"))
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    print("| network | chosen | best | chosen / best (95 %) |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for network in NETWORKS:
            model, arrays = prepare(network, Path(options.data) / "architectures", work)
            samples = ew.Samples.open(arrays, model)
            outcome = ew.deploy(model, samples, out=work / network, layers=False)
            good = [item for item in outcome.candidates if item.state in ("chosen", "verified")]
            plan = ew.BenchPlan(min_runs=200, max_runs=100_000, max_seconds=options.seconds, half_width=0.002)
            results = ew.bench([work / network / item.bundle for item in good], samples, plan)
            best = min(results, key=lambda result: result.infer.median_ms)
            own = next(result for result in results if result.bundle_name == outcome.chosen)
            value, low, high = own.relative
            print(
                f"| {network} | {outcome.chosen} | {best.bundle_name} | {value:.3f} ({low:.3f}-{high:.3f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
