"""Calibration coverage on real photos: how often it is said that samples do not cover what is judged.

    python benchmarks/coverage_lite0.py [--data DIR] [--draws N] [--json OUT]

EfficientNet-Lite0 and `imagenet-sample`, 500 photos of one class each, in class order. A row is one way to draw calibrate
samples and judges, N times by seeds 0..N-1: how many draws are called not covered, the part of the judges beyond the limit
(mean, least, most), the p-values, and milliseconds of CPU a comparison, without the network.

- fourths: every fourth photo calibrates, 250 of the others judge.
- random: 125 at random calibrate, 250 of the others judge.
- quarter: 100 of the first quarter of the classes calibrate, 250 of the other photos, of all classes, judge.
- small quarter: the same with 30 and 60 photos.

Target: nothing of the first two, all of the third.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import edgewright as ew
from edgewright import registry
from edgewright.environment import Environment
from edgewright.verify.coverage import Point, compare
from edgewright.verify.features import features

NETWORK = "zoo:efficientnet-lite0"
Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def rest(chosen: np.ndarray, count: int, rng: np.random.Generator, judges: int) -> np.ndarray:
    """So many of the photos that were not chosen."""
    return rng.permutation(np.setdiff1d(np.arange(count), chosen))[:judges]


def fourths(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.arange(rng.integers(4), count, 4)
    return chosen, rest(chosen, count, rng, 250)


def random(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = rng.permutation(count)[: count // 4]
    return chosen, rest(chosen, count, rng, 250)


def quarter(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = rng.permutation(count // 4)[:100]
    return chosen, rest(chosen, count, rng, 250)


def small_quarter(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = rng.permutation(count // 4)[:30]
    return chosen, rest(chosen, count, rng, 60)


#: Way to draw -> whether it covers the judges; None where there is no target.
WAYS: dict[str, tuple[Draw, bool | None]] = {
    "fourths": (fourths, True),
    "random": (random, True),
    "quarter": (quarter, False),
    "small quarter": (small_quarter, None),
}


def points(folder: Path) -> list[Point]:
    """What the original says of every photo, in class order."""
    model = ew.load(NETWORK)
    task = registry.get("tasks", model.spec.task)
    samples = ew.Samples.open(folder, model)
    found = []
    with ew.open(model, threads=1) as session:
        for index in sorted(range(len(samples)), key=lambda index: samples.ids[index]):
            outputs = session.run(samples.load(index).arrays)
            found.append(Point(features(outputs), task.named_classes(task.postprocess(outputs, model.spec))))
    return found


def row(name: str, known: list[Point], draws: int) -> dict[str, Any]:
    """One way to draw, `draws` times."""
    started, made = time.process_time(), []
    for seed in range(draws):
        kinds = WAYS[name][0](np.random.default_rng(seed), len(known))
        made.append(compare(*([known[index] for index in kind] for kind in kinds), seed=seed))
    beyond = [item.beyond for item in made]
    return {
        "way": name,
        "not_covered": sum(item.decision == "not covered" for item in made),
        "draws": draws,
        "beyond_mean": float(np.mean(beyond)),
        "beyond_least": min(beyond),
        "beyond_most": max(beyond),
        "p_least": min(item.p_value for item in made),
        "p_most": max(item.p_value for item in made),
        "cpu_ms": 1000 * (time.process_time() - started) / draws,
    }


def main() -> int:
    """Print the table; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGEWRIGHT_DATA", "data")))
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    known = points(options.data / "imagenet-sample")
    rows = [row(name, known, options.draws) for name in WAYS]
    print("| drawn | not covered | judges beyond the limit | p | CPU ms |\n" + "|---" * 5 + "|")
    for item in rows:
        p_values = f"{item['p_least']:.3f} to {item['p_most']:.3f}"
        print(
            f"| {item['way']} | {item['not_covered']} of {item['draws']} | {item['beyond_mean']:.2f} "
            f"({item['beyond_least']:.2f} to {item['beyond_most']:.2f}) | {p_values} | {item['cpu_ms']:.0f} |"
        )
    if options.json:
        document = {"rows": rows, "environment": Environment.here().to_json()}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    wanted: dict[bool | None, int] = {True: 0, False: options.draws}
    return int(any(item["not_covered"] != wanted.get(WAYS[item["way"]][1], item["not_covered"]) for item in rows))


if __name__ == "__main__":
    sys.exit(main())
