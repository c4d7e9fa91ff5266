"""EfficientNet-Lite0, made smaller and distilled back without labels, judged on photos that nothing has seen.

python benchmarks/distil_lite0.py [--data DIR] [--recipe FILE] [--minutes M] [--batch N] [--rate R] [--state DIR]

Of `imagenet-sample` in class order every fourth photo calibrates, the next one distils (of these every fourth selects
instead), the other half judges. `--recipe` names the steps before distillation, for example pruning; without it weights are
rounded to 4 bits, whatever that costs. Prints agreement with the original on the judges and on the select samples, before
and after, steps a second, and the most memory of the process.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import edgewright as ew
from edgewright.recipe import Recipe, RecipeStep

_ROUNDED = RecipeStep("quantize_weights", {"bits": 4, "min_sqnr_db": 0, "select": False})


def arranged(photos: Path, folder: Path) -> Path:
    """A folder of links to the photos with their roles in labels.csv."""
    rows = ["file,role"]
    for number, photo in enumerate(sorted(photos.glob("*.jpg"))):
        (folder / photo.name).symlink_to(photo.resolve())
        role = "judge" if number % 4 > 1 else "select" if number % 16 == 1 else "calibrate"
        rows.append(f"{photo.name},{role}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def agreement(original: Any, other: Any, samples: Any) -> float:
    """The part of the judges that both networks put in the same class."""
    with ew.open(original, threads=1) as one, ew.open(other, threads=1) as two:
        same = [
            next(iter(one.run(s.arrays).values())).argmax() == next(iter(two.run(s.arrays).values())).argmax()
            for s in samples.role("judge")
        ]
    return sum(same) / len(same)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGEWRIGHT_DATA", "data")))
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--steps", type=int, default=0, help="Instead of minutes.")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--state", type=Path)
    options = parser.parse_args()
    model = ew.compress(ew.load("zoo:efficientnet-lite0"), "float")
    with tempfile.TemporaryDirectory() as folder:
        samples = ew.Samples.open(arranged(options.data / "imagenet-sample", Path(folder)), model)
        print(samples.counts, flush=True)
        before = Recipe.named(options.recipe) if options.recipe else Recipe("rounded", steps=(_ROUNDED,))
        smaller = ew.compress(model, before, samples)
        print(f"judges agree {agreement(model, smaller, samples):.3f} before", flush=True)
        settings = {"minutes": options.minutes, "steps": options.steps, "batch": options.batch, "rate": options.rate}
        last = RecipeStep("distil", settings | ({"state": options.state} if options.state else {}))
        small = ew.compress(model, replace(before, steps=(*before.steps, last)), samples)
        told = small.history[-1].stats
        for point in told["curve"]:
            print(point)
        print(f"{told['steps']} steps, {told['steps'] / told['seconds']:.2f} a second")
        print(
            f"judges agree {agreement(model, small, samples):.3f} after; select {told['before']:.3f} -> {told['after']:.3f}"
        )
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most")


if __name__ == "__main__":
    main()
