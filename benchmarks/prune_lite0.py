"""Pruning EfficientNet-Lite0 without labels and without training: how often it still gives the original's answer.

    python benchmarks/prune_lite0.py [--removed 0.25] [--variants l1,loss,...] [--bench] [--json OUT]

Of the photos in class order every fourth calibrates, the next one selects (pruning tries the whole network on these),
and the other half judges. Removed are channels of the blocks' expansions, and what counts is the share of the blocks'
multiply-adds that is gone. A row is one way of pruning: same top-1 class as the original, top-1 with labels, distance
of the logits, seconds, and peak memory of the process so far. `--bench` also measures ONNX Runtime on one thread,
original against pruned.

Target: agreement of at least 0.85 with 25 % removed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import edgewright as ew
from edgewright.contracts import Role, Sample
from edgewright.environment import Environment
from edgewright.graph import channels, cost

NETWORK = "zoo:efficientnet-lite0"
ROLES: tuple[Role, ...] = ("calibrate", "select", "judge", "judge")
#: Name -> the pass that removes, and whether `refit` follows.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "l1": ({"criterion": "l1", "spread": "uniform"}, None),
    "l1+refit": ({"criterion": "l1", "spread": "uniform"}, {}),
    "activation+refit": ({"criterion": "activation", "spread": "uniform"}, {}),
    "loss+refit": ({"criterion": "loss", "spread": "uniform"}, {}),
    "sensitivity": ({}, None),
    "sensitivity+refit": ({}, {}),
    "sensitivity+2 sweeps": ({}, {"sweeps": 2}),
}


@dataclass(frozen=True)
class Divided:
    """Samples whose roles follow from their place in the order."""

    samples: Any
    chosen: Sequence[tuple[int, Role]]

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[Sample]:
        return (self.samples.load(index) for index, _ in self.chosen)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.samples.groups[index] for index, _ in self.chosen))

    def role(self, *roles: Role) -> Divided:
        return Divided(self.samples, [pair for pair in self.chosen if pair[1] in roles])


def divide(folder: Path, model: ew.Model) -> Divided:
    """The photos in class order, by fours."""
    samples = ew.Samples.open(folder, model)
    order = sorted(range(len(samples)), key=lambda index: samples.ids[index])
    return Divided(samples, [(index, ROLES[place % 4]) for place, index in enumerate(order)])


def block_macs(model: ew.Model) -> int:
    """Multiply-adds of the blocks that expand: what can be removed of them is counted against this."""
    layers = cost.layers(model.ir)
    blocks = {layer.name.rsplit(".expand", 1)[0] for layer in layers if ".expand" in layer.name}
    return sum(layer.macs or 0 for layer in layers if any(layer.name.startswith(f"{block}.") for block in blocks))


def recipe(removing: dict[str, Any], refit: dict[str, Any] | None) -> ew.Recipe:
    """Batch norms folded, channels removed, and layers refitted or not."""
    steps = [{"pass": name} for name in ("fold_constants", "remove_dead", "fold_batchnorm")]
    steps.append({"pass": "prune_channels", **removing})
    steps += [] if refit is None else [{"pass": "refit", **refit}]
    return ew.Recipe.from_mapping("prune", {"steps": steps})


def logits(model: ew.Model, inputs: Sequence[Any]) -> np.ndarray:
    """Outputs for all inputs, f32[N, classes]."""
    with ew.open(model, runtime="onnxruntime", threads=1) as session:
        return np.concatenate([session.run(arrays)["logits"] for arrays in inputs])


def measure(model: ew.Model, base: ew.Model, removed: float, name: str, data: Any) -> tuple[dict[str, Any], ew.Model]:
    """One row, and the pruned network."""
    removing, refit = VARIANTS[name]
    samples, inputs, labels, expected = data
    total = sum(layer.macs or 0 for layer in cost.layers(base.ir))
    others = [group.name for group in channels.find(base.ir).groups if ".expand" not in group.name]
    share = 1 - removed * block_macs(base) / total
    started = time.perf_counter()
    small = ew.compress(model, recipe({**removing, "macs": share, "keep": others}, refit), samples)
    seconds = time.perf_counter() - started
    got = logits(small, inputs)
    row = {
        "variant": name,
        "removed": 1 - block_macs(small) / block_macs(base),
        "agreement": float(np.mean(got.argmax(1) == expected.argmax(1))),
        "top1": float(np.mean(got.argmax(1) == labels)),
        "logits_rel_l2": float(np.linalg.norm(got - expected) / np.linalg.norm(expected)),
        "seconds": seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    return row, small


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as Markdown."""
    lines = ["| way | block MACs removed | agreement | top-1 | logits rel-L2 | s | peak MB |", "|" + "---|" * 7]
    lines += [
        f"| {row['variant']} | {row['removed']:.3f} | {row['agreement']:.3f} | {row['top1']:.3f} | "
        f"{row['logits_rel_l2']:.3f} | {row['seconds']:.0f} | {row['peak_mb']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def speed(pairs: dict[str, ew.Model], samples: Any) -> list[dict[str, Any]]:
    """Median milliseconds of each network on ONNX Runtime, one thread, interleaved."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        bundles = [ew.convert(net, "onnxruntime", Path(folder) / name) for name, net in pairs.items()]
        results = ew.bench(bundles, samples, ew.BenchPlan(threads=(1,)))
        return [result.to_json() for result in results]


def main() -> int:
    """Print the table; 1 where the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--removed", default="0.25", help="shares of the blocks' multiply-adds, with commas")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--photos", type=Path, default=Path(os.environ["EDGEWRIGHT_DATA"]) / "imagenet-sample")
    parser.add_argument("--bench", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = ew.load(NETWORK)
    base = ew.compress(model, "float")
    samples = divide(options.photos, model)
    judges = list(samples.role("judge"))
    inputs, labels = [sample.arrays for sample in judges], np.array([sample.label for sample in judges])
    data = (samples.role("calibrate", "select"), inputs, labels, logits(base, inputs))
    rows, timed = [], {"original": base}
    for removed in map(float, options.removed.split(",")):
        for name in options.variants.split(","):
            row, small = measure(model, base, removed, name, data)
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            if name == "sensitivity+refit":
                timed[f"pruned-{removed}"] = small
    print(table(rows))
    document = {"rows": rows, "environment": Environment.here().to_json(), "samples": len(samples)}
    if options.bench:
        document["bench"] = speed(timed, ew.Samples.open(options.photos, model))
        print(json.dumps(document["bench"], indent=1))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    asked = [row for row in rows if row["variant"] == "sensitivity+refit" and 0.24 < row["removed"] < 0.26]
    return int(any(row["agreement"] < 0.85 for row in asked))


if __name__ == "__main__":
    sys.exit(main())
