"""EfficientNet-Lite0: is int8 with pruning faster than int8 alone at no more than 1.5 % of the answers lost?

    python benchmarks/search_lite0.py [--minutes 60] [--min-agreement 0.95] [--runtimes onnxruntime] [--out runs/search-lite0]

Runs `deploy` with a search over the ImageNet sample: roles by content, so that the select photos lead the search and the
judges only judge. Prints every point of the frontier (agreement on the select photos, time over that of the unmodified
network, size, multiply-adds), the candidates as the judges and the race saw them, and the answer: the fastest candidate
that was pruned and quantized, against int8 alone on the same runtime. Started again with the same --out it goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import edgewright as ew
from edgewright.bench.pairs import ratio
from edgewright.records import Candidate, DeployOutcome

NETWORK = "zoo:efficientnet-lite0"
LOST_MOST = 0.015
DATA = Path(os.environ.get("EDGEWRIGHT_DATA", "../shared/data"))


class Lines:
    """Progress as lines on stderr, each task once."""

    def __init__(self) -> None:
        self._last = ""

    def update(self, task: str, done: int, total: int | None) -> None:
        """Name a task when it begins."""
        if task != self._last:
            print(task, file=sys.stderr, flush=True)
        self._last = task

    def note(self, message: str) -> None:
        """Print the note."""
        print(message, file=sys.stderr, flush=True)


def agreement(item: Candidate) -> float:
    """With the original, on the judges."""
    assert item.verify is not None
    return next(gate.value for gate in item.verify.gates if gate.name == "agreement")


def frontier(outcome: DeployOutcome) -> str:
    """Every point as Markdown, by time."""
    assert outcome.frontier is not None
    best = {point.name for point in outcome.frontier.best}
    lines = [
        "| network | x unmodified | agreement (select) | MB | M MACs | budget | |",
        "|---|" + "---:|" * 4 + "---|---|",
    ]
    for point in sorted(outcome.frontier.points, key=lambda point: point.latency_ms):
        value, low, high = point.relative
        marks = [
            word for word, holds in (("chosen", point.name == outcome.chosen), ("best", point.name in best)) if holds
        ]
        lines.append(
            f"| {point.name} | {value:.3f} ({low:.3f} to {high:.3f}) | {point.agreement:.3f} | "
            f"{point.size_bytes / 1e6:.1f} | {(point.macs or 0) / 1e6:.0f} | {'within' if point.within else 'outside'} | "
            f"{', '.join(marks)} |"
        )
    return "\n".join([*lines, *(f"- {note}" for note in outcome.frontier.notes)])


def answers(outcome: DeployOutcome) -> list[dict[str, object]]:
    """Per runtime the fastest pruned int8 candidate, against int8 alone, by judges and race."""
    found = []
    measured = [item for item in outcome.candidates if item.bench and item.verify]
    for plain in (item for item in measured if item.recipe == "int8"):
        pruned = [
            i for i in measured if i.runtime == plain.runtime and i.recipe.startswith("int8") and "pruned" in i.recipe
        ]
        for item in pruned:
            time, lost = ratio(item.bench[0], plain.bench[0]), agreement(plain) - agreement(item)
            met = time[2] < 1 and lost <= LOST_MOST
            row = {"network": item.name, "time over int8": time, "agreement": agreement(item), "lost": lost, "met": met}
            found.append({**row, "state": item.state, "reason": item.reason})
    return found


def main() -> int:
    """Print the frontier and the answer; 1 where no runtime has a pruned int8 network that meets the target."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--min-agreement", type=float, default=0.95)
    parser.add_argument("--runtimes", default="onnxruntime")
    parser.add_argument("--points", type=int, default=5)
    parser.add_argument("--recipes", default="float,int8")
    parser.add_argument("--photos", type=Path, default=DATA / "imagenet-sample")
    parser.add_argument("--limit", type=int, help="photos, drawn at random; all by default")
    parser.add_argument("--out", type=Path, default=Path("runs/search-lite0"))
    options = parser.parse_args()
    model = ew.load(NETWORK)
    outcome = ew.deploy(
        model,
        ew.Samples.open(options.photos, model, limit=options.limit),
        runtimes=options.runtimes.split(","),
        recipes=options.recipes.split(","),
        min_agreement=options.min_agreement,
        search=ew.SearchPlan(minutes=options.minutes, points=options.points),
        layers=False,
        out=options.out,
        progress=Lines(),
    )
    print(frontier(outcome), end="\n\n")
    for item in outcome.candidates:
        told = f"{agreement(item):.3f} of the judges" if item.verify else ""
        print(f"{item.name}: {item.state} {told} {item.reason}")
    found = answers(outcome)
    print(json.dumps(found, indent=1))
    if not found:
        print("no pruned int8 network was within the budget and faster on the select samples: see the notes above")
    return int(not any(row["met"] for row in found))


if __name__ == "__main__":
    sys.exit(main())
