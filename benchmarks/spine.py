"""The figures of the main job on EfficientNet-Lite0: how long each verb takes, and top-1 through every runtime.

    python benchmarks/spine.py [--data FOLDER] [--top1]

Each verb runs in a fresh process, as a user runs it; times are wall clock of the whole process, memory its peak.
Targets: import under 3 s, deploy with 100 photos over two runtimes under 180 s, locate under 30 s and 1 GB, opening a
bundle under 0.5 s. The photos may have been in the network's training set, so top-1 says only that preparation is right.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NETWORK = "zoo:efficientnet-lite0"


def timed(*command: str) -> float:
    """Seconds of a command; its output goes nowhere, its failure is ours."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGEWRIGHT_DATA", "../shared/data")))
    parser.add_argument("--top1", action="store_true", help="Also top-1 of 500 photos through every runtime, minutes.")
    options = parser.parse_args()
    photos = str(options.data / "imagenet-sample")
    run = (sys.executable, "-m", "edgewright")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        load = f"import edgewright as ew; ew.load({NETWORK!r})"
        print(f"import, whole process: {min(timed(sys.executable, '-c', load) for _ in range(5)):.2f} s")
        pair = ("--runtime", "onnxruntime,openvino", "--limit", "100")
        seconds = timed(*run, "deploy", NETWORK, "--samples", photos, *pair, "--out", str(work / "x"))
        print(f"deploy, 100 photos, two runtimes: {seconds:.0f} s")
        for runtime in ("onnxruntime", "openvino"):
            bundle = str(work / "x" / "bundles" / f"float-{runtime}")
            opening = f"import edgewright as ew; ew.open({bundle!r}).close()"
            print(f"open {runtime}, whole process: {min(timed(sys.executable, '-c', opening) for _ in range(5)):.2f} s")
            seconds = timed(*run, "locate", NETWORK, bundle, "--samples", photos)
            print(f"locate {runtime}: {seconds:.1f} s")
        # Deploy's workers and locate are all children: the largest of them.
        print(f"peak memory of any process: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6:.2f} GB")
    if options.top1:
        top1(photos)


def top1(photos: str) -> None:
    import edgewright as ew
    from edgewright import registry

    model = ew.load(NETWORK)
    samples = ew.Samples.open(photos, model, roles="judge")
    for runtime in registry.installed("runtimes"):
        with ew.open(model, runtime=runtime, threads=2) as session:
            right = sum(int(session.run(sample.arrays)["logits"].argmax()) == sample.label for sample in samples)
        print(f"top-1 through {runtime}: {right / len(samples):.3f} ({len(samples)} photos)", flush=True)


if __name__ == "__main__":
    main()
