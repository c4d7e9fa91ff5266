"""EfficientNet-Lite0, made smaller and distilled back without labels, judged on photos that nothing has seen.

python benchmarks/distil_lite0.py [--data DIR] [--recipe FILE] [--kept FILE] [--minutes M] [--set OPTION=VALUE] [--state DIR]

Of `imagenet-sample` in class order every fourth photo calibrates, the next one distils (of these every fourth selects
instead), the other half judges. `--recipe` names the steps before distillation, for example pruning, and `--kept` the file
that holds what they made, so that they are made once; without a recipe weights are rounded to 4 bits, whatever that costs.
`benchmarks/distil_lite0.toml` removes a quarter of the multiply-adds of the expanding blocks; it wants `--set rate=0.00001`.
Prints agreement with the original on the judges and on the select samples, before and after, steps a second, and the most
memory of the process.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
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
    return float(sum(same) / len(same))


def smaller(model: Any, recipe: Recipe, samples: Any, kept: Path | None) -> Any:
    """The network before distillation; taken from `kept` where that is a file, else made and written there."""
    if kept is not None and kept.is_file():
        return ew.load(kept)
    made = ew.compress(model, recipe, samples)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        made.save(kept)
    return made


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGEWRIGHT_DATA", "data")))
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--kept", type=Path, help="The network made by the recipe, so that it is made once.")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--steps", type=int, default=0, help="Instead of minutes.")
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="Of the pass distil.")
    parser.add_argument("--state", type=Path)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    model = ew.compress(ew.load("zoo:efficientnet-lite0"), "float")
    with tempfile.TemporaryDirectory() as folder:
        samples = ew.Samples.open(arranged(options.data / "imagenet-sample", Path(folder)), model)
        print(samples.counts, flush=True)
        before = Recipe.named(options.recipe) if options.recipe else Recipe("rounded", steps=(_ROUNDED,))
        small = smaller(model, before, samples, options.kept)
        print(f"judges agree {agreement(model, small, samples):.3f} before", flush=True)
        settings: dict[str, Any] = {"minutes": options.minutes, "steps": options.steps}
        settings |= dict(item.split("=", 1) for item in options.set)
        settings |= {"state": options.state} if options.state else {}
        last = Recipe("distil", steps=(RecipeStep("distil", settings),))
        trained = ew.compress(small, last, samples, original=model)
        told = trained.history[-1].stats
        for point in told["curve"]:
            print(point)
        print(f"{told['steps']} steps, {told['steps'] / told['seconds']:.2f} a second; step {told['kept_step']} kept")
        print(
            f"judges agree {agreement(model, trained, samples):.3f} after; "
            f"select {told['before']:.3f} -> {told['after']:.3f}"
        )
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most")


if __name__ == "__main__":
    main()
