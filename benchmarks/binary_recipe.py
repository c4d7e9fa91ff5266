"""How far `edgewright compress --recipe binary` leaves a trained network saying what it said: agreement on pictures of `test`.

    python benchmarks/binary_recipe.py RUN --work DIR [--steps 3000] [--pictures 8000] [--ways default ...]

RUN is a folder that examples/cifar10_resnet/train.py wrote. The recipe learns from `--pictures` of `train` without their labels,
the tenth of `train` that chose the network's epoch selects, and all of `test`, which neither training saw, judges once. The
same steps, seed and pictures for every way; `none` is the recipe without a step of training. Times are of training
alone, in CPU time of one thread. Every row is a line of DIR/rows.jsonl as soon as it is known.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from prune_cifar10 import answers, photos

import edgewright as ew
from edgewright.environment import Environment

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "cifar10_resnet"
#: Options of `binarize` over its own.
WAYS: dict[str, dict[str, Any]] = {
    "none": {"steps": 1, "rate": 1e-9, "warmup": 0.0},
    "default": {},
    "two stages": {"float_part": 0.4},
    "slopes": {"prelu": True},
    "two stages, slopes": {"float_part": 0.4, "prelu": True},
    "outputs alone": {"features": 0.0},
}
HEAD = ("way", "agrees", "top-1", "select before", "select after", "steps", "CPU minutes")


def row(
    way: str, original: ew.Model, samples: ew.Samples, options: argparse.Namespace
) -> tuple[ew.Model, dict[str, Any]]:
    """The network of one way, and what training it took."""
    given = {"steps": options.steps, "batch": options.batch, **WAYS[way]}
    start = time.process_time()
    small = ew.compress(original, "binary", samples, overrides={"binarize": given})
    minutes = (time.process_time() - start) / 60
    stats = next(step.stats for step in small.history if step.name == "binarize")
    kept = ("before", "after", "steps", "samples", "select", "binary")
    return small, {"way": way, "minutes": minutes, **{name: stats[name] for name in kept}}


def main() -> None:
    options = _parse()
    sys.path.insert(0, str(EXAMPLE))
    import torch
    from pictures import normalised, read

    torch.set_num_threads(1)
    test = read(options.data / "test.npz", options.judge)
    inputs, truth = normalised(test.photos).contiguous().numpy(), test.labels.numpy()
    original = ew.load(options.run / "model.onnx")
    expected = answers(original, inputs)
    folder = photos(options.data, options.work / "photos", options.pictures)
    samples = ew.Samples.open(folder, original, roles="hash")
    print(f"float: top-1 {np.mean(expected == truth):.4f} of {len(truth)}\n| " + " | ".join(HEAD) + " |")
    for way in options.ways:
        small, found = row(way, original, samples, options)
        small.save(options.work / f"{way}.onnx")
        got = answers(small, inputs)
        found |= {"agrees": float(np.mean(got == expected)), "top1": float(np.mean(got == truth)), "judged": len(truth)}
        with (options.work / "rows.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**found, "environment": Environment.here().to_json()}) + "\n")
        cells = (way, *(f"{found[name]:.4f}" for name in ("agrees", "top1", "before", "after")), str(found["steps"]))
        print("| " + " | ".join((*cells, f"{found['minutes']:.1f}")) + " |", flush=True)


def _parse() -> argparse.Namespace:
    data = Path(os.environ.get("EDGEWRIGHT_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, default=data / "cifar10", help="Folder with train.npz and test.npz.")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=8000, help="Of train, that the recipe sees.")
    parser.add_argument("--judge", type=int, help="First pictures of test, for a trial.  [default: all]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
