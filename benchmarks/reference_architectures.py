"""Holds the numpy reference to the outside world, in full:

    python benchmarks/reference_architectures.py [--data FOLDER] [--seeds 4] [--examples 20000]

1. The 48 architectures: rel-L2 against ONNX Runtime without and with its optimizations (worst of the seeds), seconds for
   one run, peak memory of numpy beyond the weights.
2. The node tests of the onnx package: passed, failed with a reason, left out by operator.
3. Convolutions and pools of random shape against ONNX Runtime.
4. EfficientNet-Lite0 at 224 pixels: seconds for a photo.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.conftest import TOLERANCE, find_data  # noqa: E402
from tests.runtimes import test_reference_architectures as architecture_tests  # noqa: E402
from tests.runtimes import test_reference_ops as operator_tests  # noqa: E402
from tests.runtimes import test_reference_standard as standard_tests  # noqa: E402

import edgewright as ew  # noqa: E402
from edgewright import metrics  # noqa: E402


def fill_module(data: Path):
    location = importlib.util.spec_from_file_location("fill", data / "architectures" / "fill.py")
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


def architectures(data: Path, seeds: int, work: Path) -> None:
    fill = fill_module(data)
    print(f"{'architecture':26} {'unoptimized':>12} {'optimized':>10} {'seconds':>8} {'peak MB':>8}")
    for path in sorted((data / "architectures").glob("*.onnx")):
        model, _ = architecture_tests.load_network(path.stem, data, fill, work)
        proto, worst = fill.load_filled(path), [0.0, 0.0]
        with ew.open(model, runtime="reference") as opened:
            for seed in range(seeds):
                feeds = fill.example_inputs(proto, seed=seed)
                start = time.perf_counter()
                got = opened.run(feeds)
                seconds = time.perf_counter() - start
                for index, optimize in enumerate((False, True)):
                    want = architecture_tests.run_onnxruntime(model, feeds, optimize=optimize)
                    worst[index] = max(worst[index], *(metrics.rel_l2(want[name], got[name]) for name in want))
            tracemalloc.start()
            opened.run(feeds)
            peak = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
        print(f"{path.stem:26} {worst[0]:12.1e} {worst[1]:10.1e} {seconds:8.3f} {peak:8.1f}", flush=True)


def node_tests(work: Path) -> None:
    found = list(standard_tests.outcomes(work, TOLERANCE))
    undefined = Counter(outcome.undefined for outcome in found if outcome.undefined)
    failed = [outcome for outcome in found if outcome.problem]
    passed = len(found) - len(failed) - undefined.total()
    print(f"\nnode tests: {passed} of {len(found)} passed, {len(failed)} failed, {undefined.total()} left out")
    for outcome in failed:
        print(f"  {outcome.name}: {standard_tests.DEVIATIONS.get(outcome.name, outcome.problem)}")
    for reason, count in undefined.most_common():
        print(f"  {count:4} {reason}")


def random_windows(examples: int, work: Path) -> None:
    counts: Counter[str] = Counter()

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operator_tests.window_cases())
    def compare(case) -> None:
        counts[operator_tests.compare_window(case, work, TOLERANCE)] += 1

    compare()
    print(f"\nrandom windows: {dict(counts)}")


def photo() -> None:
    model = ew.load("zoo:efficientnet-lite0")
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
    with ew.open(model, runtime="reference") as opened:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            opened.run({model.inputs[0].name: x})
            times.append(time.perf_counter() - start)
    print(f"\nefficientnet-lite0 at 224: {min(times):.3f} s for a photo, the best of {len(times)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=find_data(), help="the folder of test data")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--examples", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        if options.data is not None:
            architectures(options.data, options.seeds, Path(work))
        node_tests(Path(work))
        random_windows(options.examples, Path(work))
    photo()


if __name__ == "__main__":
    main()
