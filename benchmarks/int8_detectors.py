"""Darknet detectors in int8: how many of the original's boxes stay, and what mAP loses on labelled photos.

    python benchmarks/int8_detectors.py [--data FOLDER] [--only yolo-fastest-1.1] [--runtimes onnxruntime,openvino]

The Yolo-Fastest networks of the test data on coco128-val; roles by content, so that a quarter of the photos calibrates and
three fifths judge. Agreement is mAP@0.5 against the original's boxes; the drop of mAP@0.5 is against labels, in points,
with the bounds of a paired bootstrap over photos. Sizes are those of the bundles.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import edgewright as ew

NETWORKS = ("yolo-fastest", "yolo-fastest-1.1", "yolo-fastest-1.1-xl")
HEAD = (
    "| network | runtime | layers in int8 | agreement | mAP@0.5, fp32 and int8 | drop, points | size | seconds |\n"
    "|---|---|---|---|---|---|---|---|"
)


def row(name: str, runtime: str, data: Path, work: Path, min_agreement: float) -> str:
    """One network on one runtime."""
    folder = data / "darknet"
    model = ew.load(folder / f"{name}.cfg", labels=str(folder / "coco.names"))
    samples = ew.Samples.open(data / "coco128-val", model)
    start = time.perf_counter()
    small = ew.compress(model, "int8", samples, target=ew.Target(runtime), min_agreement=min_agreement)
    seconds = time.perf_counter() - start
    bundle = ew.convert(small, runtime, work / f"{name}-{runtime}")
    plain = ew.convert(model, runtime, work / f"{name}-{runtime}-float")
    report = ew.verify(model, bundle, samples, min_agreement=min_agreement, max_drop=0.01)
    gates = {gate.name: gate for gate in report.gates}
    agreed, drop = gates["agreement"], gates["metric drop"]
    layers = small.history[-1].stats["layers"]
    inside = sum(layer["state"] == "int8" for layer in layers)
    before, after = report.metric["mAP@0.5"]
    return (
        f"| {name} | {runtime} | {inside} of {len(layers)} | {agreed.value:.3f} ({agreed.low:.3f} to {agreed.high:.3f}) | "
        f"{100 * before:.1f}, {100 * after:.1f} | {100 * drop.value:.2f} ({100 * drop.low:.2f} to {100 * drop.high:.2f}) | "
        f"{bundle.size_bytes / plain.size_bytes:.2f} | {seconds:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGEWRIGHT_DATA", "../shared/data")))
    parser.add_argument("--only", default=",".join(NETWORKS))
    parser.add_argument("--runtimes", default="onnxruntime,openvino")
    parser.add_argument("--min-agreement", type=float, default=0.9)
    options = parser.parse_args()
    print(HEAD)
    with tempfile.TemporaryDirectory() as work:
        for name in options.only.split(","):
            for runtime in options.runtimes.split(","):
                print(row(name, runtime, options.data, Path(work), options.min_agreement), flush=True)


if __name__ == "__main__":
    main()
