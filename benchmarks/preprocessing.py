"""Preprocessing: time from file to input, and top-1 of EfficientNet-Lite0 on the whole ImageNet sample.

    EDGEWRIGHT_DATA=... python benchmarks/preprocessing.py

Prints milliseconds per photo (median over the sample, one thread) and the accuracy that says preprocessing is right:
0.882 top-1, 0.970 top-5 on the 500 photos.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import edgewright as ew
from edgewright import registry
from edgewright.samples import preparation


def main() -> None:
    folder = Path(os.environ["EDGEWRIGHT_DATA"]) / "imagenet-sample"
    model = ew.load("zoo:efficientnet-lite0")
    task = registry.get("tasks", "classify")
    start = time.perf_counter()
    samples = ew.Samples.open(folder, model)
    print(f"open: {time.perf_counter() - start:.2f} s for {len(samples)} photos, {samples.counts}")
    prepare, times = preparation(model), []
    for name in samples.ids:
        start = time.perf_counter()
        prepare(samples.raw(name))
        times.append(time.perf_counter() - start)
    print(f"prepare: {1000 * statistics.median(times):.2f} ms median, {1000 * max(times):.2f} ms at most")
    with ew.open(model, threads=os.cpu_count() or 1) as session:
        results = [task.postprocess(session.run(sample.arrays), model.spec) for sample in samples]
    print(task.metric(results, [sample.label for sample in samples], model.spec))


if __name__ == "__main__":
    main()
