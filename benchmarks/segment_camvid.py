"""Segmentation networks, pruned, recovered and quantized, on every installed runtime: mIoU and its drop, work, time.

    python benchmarks/segment_camvid.py MODEL.onnx [MODEL.onnx ...] [--way prune+distil] [--runtime NAME] [--work DIR]

The networks are those of examples/segmentation/train.py, one for each seed; those that are not there are said and left
out. A way is stages joined by "+": `prune` (channels removed down to `--macs`, the rest refitted), `distil` (label-free,
from the original), `tune` (with labels, by examples/segmentation/finetune.py) and every recipe by its name or TOML file.
`tune` alone is the control: what further training does to the original.

Of `train` the last tenth of every sequence selects, everything else is learnt from. Photos of `val`, which neither training
nor compression saw, judge. Every row is held against the unmodified network on the same runtime. Rows of several networks
are followed by their means, where every network has the row.

Tables in Markdown go to standard output, everything measured to `--json`. The drop of mIoU is in points, with 95 % bounds
by drawing photos again; a drop is judged by its mean over the networks. What a runtime cannot run is listed with its reason.
With `--work` networks and trainings are kept there, and the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from recovery import distilled

import edgewright as ew
from edgewright import registry
from edgewright.environment import Environment
from edgewright.graph.cost import total
from edgewright.learn.options import Training
from edgewright.recipe import Recipe, RecipeStep

BASE = "original"
STAGES = ("prune", "distil", "tune")  # those that give a float network
WAYS = ("int8", "prune", "prune+distil", "prune+tune", "prune+distil+int8", "tune")
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "segmentation"
HELD_BACK = 10  # one of so many photos of a sequence selects, as in the example's training
HEAD = (
    "network",
    "way",
    "runtime",
    "mIoU",
    "drop, points",
    "agrees",
    "Dice",
    "boundary IoU",
    "MMACs",
    "ms",
    "x as fast",
    "MB",
)


def report(text: str) -> None:
    """Progress goes to standard error, tables to standard output."""
    print(text, file=sys.stderr, flush=True)


def network(path: Path, options: argparse.Namespace, work: Path) -> tuple[list[dict[str, Any]], list[tuple[str, ...]]]:
    """A row for each way and runtime of one network, and what could not be made."""
    model = ew.load(path)
    name = path.parent.name or path.stem
    learnt_from = ew.Samples.open(divided(options.data / "train" / "images", work / "train"), model)
    judges = ew.Samples.open(options.data / "val" / "images", model, roles="judge", limit=options.judge)
    rows, failed, bundles = [], [], []
    for runtime in options.runtimes:
        for way in (BASE, *options.ways):
            try:
                small = made(model, way, runtime, learnt_from, options, work)
                bundle = ew.convert(small, runtime, Path(tempfile.mkdtemp(dir=work)) / "bundle")
                row = judged(model, small, bundle, judges, options)
            except ew.EdgewrightError as problem:
                failed.append((name, way, runtime, f"{problem.code}: {problem.message}"))
                continue
            rows.append({"network": name, "way": way, "runtime": runtime, **row})
            bundles.append(bundle)
            report(f"{path}: {way} on {runtime}: mIoU {row['mIoU']:.4f}")
    timed(rows, bundles, judges, options)
    return rows, failed


def divided(photos: Path, folder: Path) -> Path:
    """A folder of links to the photos; its labels.csv says that the last tenth of every sequence selects."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["file,role"]
    for _, members in groupby(sorted(photos.iterdir()), key=lambda path: path.stem.rpartition("_")[0]):
        sequence = list(members)
        kept = len(sequence) - max(1, len(sequence) // HELD_BACK)
        for number, photo in enumerate(sequence):
            if not (folder / photo.name).exists():
                (folder / photo.name).symlink_to(photo.resolve())
            rows.append(f"{photo.name},{'calibrate' if number < kept else 'select'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def made(
    model: ew.Model, way: str, runtime: str, samples: ew.Samples, options: argparse.Namespace, work: Path
) -> ew.Model:
    """The network after all stages of a way; each is made once, float ones for all runtimes together."""
    if way == BASE:
        return model
    *before, last = way.split("+")
    stages = [Path(stage).stem for stage in (*before, last)]
    kept = work / ("+".join(stages) + ("" if set(stages) <= set(STAGES) else f"-{runtime}") + ".onnx")
    if kept.is_file():
        return ew.load(kept)
    small = made(model, "+".join(before) or BASE, runtime, samples, options, work)
    if last == "distil":
        training = Training(
            steps=options.steps, batch=options.batch, rate=options.rate, state=work / f"{kept.stem}.training"
        )
        small = distilled(small, ew.compress(model, "float"), samples, training, options.threads)
    elif last == "tune":
        small = tuned(small, work / f"{kept.stem}.training", options)
    else:
        small = ew.compress(small, Recipe(way, steps=steps_of(last, options)), samples, target=ew.Target(runtime))
    small.save(kept)
    return small


def steps_of(stage: str, options: argparse.Namespace) -> tuple[RecipeStep, ...]:
    """The steps of a recipe, with the options of this script where it is `prune`."""
    steps = Recipe.named(stage).steps
    looked_at = {"max_samples": options.learn}
    asked = {"prune_channels": {"macs": options.macs, **looked_at}, "refit": looked_at} if stage == "prune" else {}
    return tuple(replace(step, config={**step.config, **asked.get(step.name, {})}) for step in steps)


def tuned(model: ew.Model, out: Path, options: argparse.Namespace) -> ew.Model:
    """The network trained further with labels, by the loop of the example."""
    sys.path.insert(0, str(EXAMPLE))
    import torch
    from finetune import finetune

    torch.set_num_threads(options.threads)
    with contextlib.redirect_stdout(sys.stderr):
        small: ew.Model = finetune(model, options.data, out, epochs=options.epochs, rate=options.rate)
    return small


def judged(
    model: ew.Model, small: ew.Model, bundle: ew.Bundle, judges: ew.Samples, options: argparse.Namespace
) -> dict[str, Any]:
    """Scores of one bundle, against the original and against the labels."""
    found = ew.verify(
        model,
        bundle,
        judges,
        min_agreement=options.min_agreement,
        max_drop=options.max_drop / 100,
        threads=options.threads,
    )
    gates = {gate.name: gate for gate in found.gates}
    if "metric drop" not in gates:
        raise ew.EdgewrightError("E310", gates["numeric"].message)
    agreed, drop = gates["agreement"], gates["metric drop"]
    return {
        **{name: after for name, (_, after) in found.metric.items()},
        "drop_points": [100 * value for value in (drop.value, drop.low, drop.high)],
        "agreement": [agreed.value, agreed.low, agreed.high],
        "decision": found.decision,
        "macs": total(small.ir)[0],
        "history": [step.name for step in small.history],
    }


def timed(
    rows: Sequence[dict[str, Any]], bundles: Sequence[ew.Bundle], judges: ew.Samples, options: argparse.Namespace
) -> None:
    """Add the times of all bundles of one network, measured interleaved, to their rows."""
    plan = ew.BenchPlan(threads=(options.threads,), max_seconds=options.seconds, pre_post=False)
    results = ew.bench(bundles, judges, plan) if bundles else ()
    for row, result in zip(rows, results, strict=True):
        row |= {"ms": result.infer.median_ms, "size_bytes": result.size_bytes, "trust": result.trust}
    base = {row["runtime"]: row["ms"] for row in rows if row["way"] == BASE}
    for row in rows:
        row["speedup"] = base[row["runtime"]] / row["ms"] if row["runtime"] in base else float("nan")


# --- tables -----------------------------------------------------------------------------------------------------------


def means(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of the means over the networks, bounds left out, where there are several networks."""
    keys = list(dict.fromkeys((row["way"], row["runtime"]) for row in rows))
    for way, runtime in keys:
        group = [row for row in rows if (row["way"], row["runtime"]) == (way, runtime)]
        if len(group) < max(2, len({row["network"] for row in rows})):
            continue
        numbers = {
            name: float(np.mean([row[name] for row in group]))
            for name in ("mIoU", "Dice", "boundary IoU", "ms", "speedup", "size_bytes", "macs")
        }
        first = {name: [float(np.mean([row[name][0] for row in group]))] for name in ("drop_points", "agreement")}
        yield {"network": f"mean of {len(group)}", "way": way, "runtime": runtime, **numbers, **first}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [HEAD, ("---",) * len(HEAD)]
    for row in rows:
        drop, agreed = row["drop_points"], row["agreement"]
        lines.append(
            (
                row["network"],
                row["way"],
                row["runtime"],
                f"{row['mIoU']:.4f}",
                f"{drop[0]:+.2f}" + (f" ({drop[1]:+.2f} to {drop[2]:+.2f})" if len(drop) > 1 else ""),
                f"{agreed[0]:.4f}" + (f" ({agreed[1]:.4f}-{agreed[2]:.4f})" if len(agreed) > 1 else ""),
                f"{row['Dice']:.4f}",
                f"{row['boundary IoU']:.4f}",
                f"{row['macs'] / 1e6:.0f}" if row["macs"] else "?",
                f"{row['ms']:.2f}",
                f"{row['speedup']:.2f}",
                f"{row['size_bytes'] / 1e6:.2f}",
            )
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def heading(options: argparse.Namespace, environment: dict[str, Any]) -> str:
    """What was measured where."""
    versions = ", ".join(f"{name} {version}" for name, version in environment.get("versions", {}).items())
    return (
        f"# Segmentation: {len(options.models)} network(s)\n\n{environment['cpu']}, {environment['cores']} cores; "
        f"{options.threads} thread(s)\n\n{versions}\n\n`prune` to {options.macs:.0%} of the multiply-adds, `distil` in "
        f"{options.steps} steps of {options.batch} photos, `tune` in {options.epochs} epochs, both at {options.rate:g}. "
        f"Judged on {'all' if options.judge is None else options.judge} photos of val.\n"
    )


def settings(options: argparse.Namespace) -> str:
    """What decides the networks that are kept: those of other options lie in another folder."""
    learning = f"{options.steps}x{options.batch}-{options.epochs}-{options.rate:g}"
    return f"{options.macs:g}-{options.learn}-{learning}"


def main() -> None:
    options = parse()
    environment = Environment.here().to_json()
    rows: list[dict[str, Any]] = []
    failed: list[tuple[str, ...]] = []
    print(heading(options, environment), flush=True)
    with contextlib.ExitStack() as stack:
        folder = options.work or stack.enter_context(tempfile.TemporaryDirectory(prefix="edgewright-segment-"))
        for path in options.models:
            if not path.is_file():
                failed.append((str(path), "all", "all", "this network is not there (yet)"))
                continue
            work = Path(folder) / f"{ew.load(path).hash[:12]}-{settings(options)}"
            work.mkdir(parents=True, exist_ok=True)
            more, problems = network(path, options, work)
            rows += more
            failed += problems
            if options.json:  # after each network: what was measured is not lost with what comes later
                document = {"environment": environment, "rows": rows, "failed": failed}
                options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    print(table([*rows, *means(rows)]), flush=True)
    for line in failed:
        print("not made: " + ", ".join(line))


def parse() -> argparse.Namespace:
    """The options."""
    data = Path(os.environ.get("EDGEWRIGHT_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="Trained networks, one for each seed.")
    parser.add_argument("--data", type=Path, default=data / "camvid", help="Folder with train and val.")
    parser.add_argument("--way", dest="ways", action="append", help=f"Repeatable.  [default: {', '.join(WAYS)}]")
    parser.add_argument(
        "--runtime", dest="runtimes", action="append", help="Repeatable.  [default: all that are installed]"
    )
    parser.add_argument("--macs", type=float, default=0.49, help="Share of the multiply-adds that `prune` leaves.")
    parser.add_argument("--learn", type=int, default=128, help="Photos that `prune` looks at; the others see all.")
    parser.add_argument("--steps", type=int, default=400, help="Of `distil`.")
    parser.add_argument("--batch", type=int, default=8, help="Photos in a step of `distil`.")
    parser.add_argument("--epochs", type=int, default=8, help="Of `tune`.")
    parser.add_argument("--rate", type=float, default=5e-4, help="Highest learning rate of `distil` and `tune`.")
    parser.add_argument("--judge", type=int, help="Photos of val that judge.  [default: all]")
    parser.add_argument("--min-agreement", type=float, default=0.98)
    parser.add_argument("--max-drop", type=float, default=0.5, help="Of mIoU, in points.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0, help="Of timing for each bundle.")
    parser.add_argument("--work", type=Path, help="Folder that keeps networks and trainings.")
    parser.add_argument("--json", type=Path, help="Everything measured, as JSON.")
    options = parser.parse_args()
    options.ways = options.ways or list(WAYS)
    deployable = [n for n in registry.installed("runtimes") if registry.peek("runtimes", n).TRAITS.deployable]
    options.runtimes = options.runtimes or deployable
    return options


if __name__ == "__main__":
    main()
