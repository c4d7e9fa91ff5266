"""Time and peak memory of `locate`: on EfficientNet-Lite0 the target is 30 s and 1 GB on 2 cores, on YOLO-Fastest 20 s on one.

    python benchmarks/locate.py [--runtime openvino] [--recipe float] [--memory 512] [--fault]
    EDGEWRIGHT_DATA=DIR python benchmarks/locate.py --cfg yolo-fastest-1.1

Each case runs in a process of its own, so that its peak memory belongs to it. Random photos do: only sizes matter here.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

TARGET_SECONDS, TARGET_MB = 30.0, 1000.0
CASES = [("onnxruntime", "original"), ("openvino", "original"), ("onnxruntime", "float"), ("openvino", "float"),
         ("onnxruntime", "fp16"), ("openvino", "fp16")]  # fmt: skip


def measure(runtime: str, recipe: str, memory_mb: int, threads: int, fault: bool, cfg: str = "") -> dict[str, object]:
    """One case in this process."""
    import onnx_ir as ir

    import edgewright as ew
    from edgewright.samples import Samples

    if cfg and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    model = ew.load(Path(os.environ["EDGEWRIGHT_DATA"]) / "darknet" / f"{cfg}.cfg" if cfg else "zoo:efficientnet-lite0")
    network = model
    if fault:
        copy = model.clone_ir()
        node = [node for node in copy.graph if node.op_type == "BatchNormalization"][10]
        node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-2)
        network = replace(model, ir=copy)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        (info,) = model.inputs
        shape = [size if isinstance(size, int) else 1 for size in info.shape]
        np.savez(folder / "samples.npz", **{info.name: rng.standard_normal((4, *shape[1:])).astype(np.float32)})
        samples = Samples.open(folder / "samples.npz", model, roles="judge")
        bundle = ew.convert(ew.compress(network, recipe), runtime, folder / "bundle")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        report = ew.locate(
            model, bundle, samples, memory_bytes=memory_mb * 2**20, threads=threads,
            reproducer=folder / "case" if fault else None,
        )  # fmt: skip
        seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 2), "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "peak_before_mb": round(before), "layers": len(report.layers), "fused": len(report.fused),
        "first": report.first, "cause": report.cause, "failing": sum(not layer.passed for layer in report.layers),
    }  # fmt: skip


def main() -> int:
    """Run the cases; exit code 1 where one misses the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runtime")
    parser.add_argument("--recipe")
    parser.add_argument("--memory", type=int, default=512, help="MB for inner tensors")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fault", action="store_true", help="examine a bundle with a wrong batch-norm epsilon")
    parser.add_argument("--cfg", default="", help="a Darknet network of the test data, on one core")
    parser.add_argument("--one", action="store_true", help="run in this process and print JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(
            json.dumps(
                measure(
                    arguments.runtime,
                    arguments.recipe,
                    arguments.memory,
                    arguments.threads,
                    arguments.fault,
                    arguments.cfg,
                )
            )
        )
        return 0
    missed = 0
    for runtime, recipe in CASES:
        if (arguments.runtime or runtime) != runtime or (arguments.recipe or recipe) != recipe:
            continue
        command = [sys.executable, __file__, "--one", "--runtime", runtime, "--recipe", recipe,
                   "--memory", str(arguments.memory), "--threads", str(arguments.threads),
                   "--cfg", arguments.cfg]  # fmt: skip
        if arguments.fault:
            command.append("--fault")
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        within = result["seconds"] <= (20.0 if arguments.cfg else TARGET_SECONDS) and result["peak_mb"] <= TARGET_MB
        missed += not within
        print(f"{'ok  ' if within else 'MISS'} {runtime:12} {recipe:9} {json.dumps(result)}", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
