"""Segmentation networks, compressed by recipes, on every installed runtime: mIoU and its drop, agreement, work, time.

    python benchmarks/segment_camvid.py MODEL.onnx [MODEL.onnx ...] [--data camvid] [--recipe int8] [--runtime NAME]

The networks are those of examples/segmentation/train.py, one for each seed. Passes learn from photos of `train`, without
labels; photos of `val`, which neither training nor compression saw, judge. A recipe is a name or a TOML file; every row is
held against the unmodified network on the same runtime. Rows of several networks are followed by their means.

Tables in Markdown go to standard output, everything measured to `--json`. The drop of mIoU is in points, with 95 % bounds
by drawing photos again; a drop is judged by its mean over the networks. What a runtime cannot run is listed with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import edgewright as ew
from edgewright import registry
from edgewright.environment import Environment
from edgewright.graph.cost import total
from edgewright.recipe import Recipe

BASE = "original"
HEAD = (
    "network",
    "recipe",
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
    """A row for each recipe and runtime of one network, and what could not be made."""
    model = ew.load(path)
    learnt_from = ew.Samples.open(options.data / "train" / "images", model, labels="none", limit=options.learn)
    judges = ew.Samples.open(options.data / "val" / "images", model, roles="judge", limit=options.judge)
    rows, failed, bundles = [], [], []
    for runtime in options.runtimes:
        for recipe in (BASE, *options.recipes):
            name = Recipe.named(recipe).name
            try:
                small = ew.compress(model, recipe, learnt_from, target=ew.Target(runtime))
                bundle = ew.convert(small, runtime, work / f"{name}-{runtime}")
                row = judged(model, small, bundle, judges, options)
            except ew.EdgewrightError as problem:
                failed.append((path.parent.name or path.stem, name, runtime, f"{problem.code}: {problem.message}"))
                continue
            rows.append({"network": path.parent.name or path.stem, "recipe": name, "runtime": runtime, **row})
            bundles.append(bundle)
            report(f"{path}: {name} on {runtime}: mIoU {row['mIoU']:.4f}")
    timed(rows, bundles, judges, options)
    return rows, failed


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
    base = {row["runtime"]: row["ms"] for row in rows if row["recipe"] == BASE}
    for row in rows:
        row["speedup"] = base[row["runtime"]] / row["ms"] if row["runtime"] in base else float("nan")


# --- tables -----------------------------------------------------------------------------------------------------------


def means(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of the means over the networks, bounds left out, where there are several networks."""
    keys = list(dict.fromkeys((row["recipe"], row["runtime"]) for row in rows))
    for recipe, runtime in keys:
        group = [row for row in rows if (row["recipe"], row["runtime"]) == (recipe, runtime)]
        if len(group) < 2:
            continue
        numbers = {
            name: float(np.mean([row[name] for row in group]))
            for name in ("mIoU", "Dice", "boundary IoU", "ms", "speedup", "size_bytes", "macs")
        }
        first = {name: [float(np.mean([row[name][0] for row in group]))] for name in ("drop_points", "agreement")}
        yield {"network": f"mean of {len(group)}", "recipe": recipe, "runtime": runtime, **numbers, **first}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [HEAD, ("---",) * len(HEAD)]
    for row in rows:
        drop, agreed = row["drop_points"], row["agreement"]
        lines.append(
            (
                row["network"],
                row["recipe"],
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
        f"{options.threads} thread(s)\n\n{versions}\n\nLearnt from at most {options.learn} photos of train, judged on "
        f"{'all' if options.judge is None else options.judge} photos of val.\n"
    )


def main() -> None:
    options = parse()
    environment = Environment.here().to_json()
    rows: list[dict[str, Any]] = []
    failed: list[tuple[str, ...]] = []
    print(heading(options, environment), flush=True)
    with tempfile.TemporaryDirectory(prefix="edgewright-segment-", dir=options.work) as name:
        for number, path in enumerate(options.models):
            work = Path(name) / str(number)
            work.mkdir()
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
    parser.add_argument(
        "--recipe", dest="recipes", action="append", help="Name or TOML file. Repeatable.  [default: int8]"
    )
    parser.add_argument(
        "--runtime", dest="runtimes", action="append", help="Repeatable.  [default: all that are installed]"
    )
    parser.add_argument("--learn", type=int, default=160, help="Photos of train that passes may see.")
    parser.add_argument("--judge", type=int, help="Photos of val that judge.  [default: all]")
    parser.add_argument("--min-agreement", type=float, default=0.98)
    parser.add_argument("--max-drop", type=float, default=0.5, help="Of mIoU, in points.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0, help="Of timing for each bundle.")
    parser.add_argument("--work", type=Path, help="Folder for temporary files.")
    parser.add_argument("--json", type=Path, help="Everything measured, as JSON.")
    options = parser.parse_args()
    options.recipes = options.recipes or ["int8"]
    deployable = [n for n in registry.installed("runtimes") if registry.peek("runtimes", n).TRAITS.deployable]
    options.runtimes = options.runtimes or deployable
    return options


if __name__ == "__main__":
    main()
