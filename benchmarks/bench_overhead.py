"""Is `bench` itself to be trusted? Run on a quiet machine:

    python benchmarks/bench_overhead.py --pairs 20

1. A against A: the same bundle twice. At 95 % confidence 1.0 lies outside the interval of the ratio in 5 % of pairs.
2. Inside and outside: the median in a worker against a plain loop in this process.
3. Floor: what an empty network costs, the smallest time that can be told.
4. Cost: seconds of wall time for each second of measured time.
5. A disturbed machine: with a busy process beside it on every core, the verdict must not be "trusted".
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import edgewright as ew
from edgewright import registry
from edgewright.bench import inputs


def burn() -> None:
    """Keep one core busy until killed."""
    while True:
        sum(range(100_000))


def same_twice(bundle: ew.Bundle, pairs: int) -> dict[str, float]:
    outside, ratios, trusted, wall, measured = 0, [], 0, 0.0, 0.0
    for seed in range(pairs):
        start = time.perf_counter()
        results = ew.bench([bundle, bundle], None, ew.BenchPlan(seed=seed))
        wall += time.perf_counter() - start
        measured += sum(result.telemetry["during"]["measured_seconds"] for result in results)
        slower = max(results, key=lambda result: result.relative[0])
        ratio, low, high = slower.relative
        outside += not low <= 1.0 <= high
        ratios.append(ratio)
        trusted += all(result.trust == "trusted" for result in results)
    return {
        "pairs": pairs,
        "false_differences": outside / pairs,
        "largest_ratio": max(ratios),
        "trusted": trusted / pairs,
        "wall_per_measured": wall / measured,
    }


def inside_and_outside(bundle: ew.Bundle) -> dict[str, float]:
    (result,) = ew.bench(bundle, None, ew.BenchPlan(max_seconds=5))
    feeds = inputs.random_arrays(bundle.inputs, limit=8, seed=0)
    runner = registry.get("runtimes", bundle.runtime).open(bundle, threads=1)
    times = []
    for index in range(result.infer.runs):
        start = time.perf_counter()
        runner.run(feeds[index % len(feeds)])
        times.append(time.perf_counter() - start)
    runner.close()
    return {"worker_ms": result.infer.median_ms, "loop_ms": float(np.median(times)) * 1000}


def floor(folder: Path) -> float:
    import onnx_ir as ir

    from edgewright.model import Model

    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[1] x) => (float[1] y) { y = Identity(x) }'
    (result,) = ew.bench(ew.convert(Model(ir.from_onnx_text(text)), "onnxruntime", folder / "empty"), None)
    return result.infer.median_ms


def disturbed(bundle: ew.Bundle) -> dict[str, object]:
    burners = [multiprocessing.Process(target=burn, daemon=True) for _ in os.sched_getaffinity(0)]
    for burner in burners:
        burner.start()
    try:
        (result,) = ew.bench(bundle, None, ew.BenchPlan(max_seconds=5))
    finally:
        for burner in burners:
            burner.kill()
    return {"trust": result.trust, "reasons": result.reasons}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="zoo:efficientnet-lite0")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--pairs", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bundle = ew.convert(ew.load(options.model), options.runtime, Path(name) / "bundle")
        found = {
            "same_twice": same_twice(bundle, options.pairs),
            "inside_and_outside": inside_and_outside(bundle),
            "floor_ms": floor(Path(name)),
            "disturbed": disturbed(bundle),
        }
    print(json.dumps(found, indent=1))
    return 0 if found["disturbed"]["trust"] != "trusted" else 1


if __name__ == "__main__":
    sys.exit(main())
