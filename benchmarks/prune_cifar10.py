"""CIFAR-10 ResNets with half of their multiply-adds: ours and Torch-Pruning, with the same label-free recovery, in one table.

    python benchmarks/prune_cifar10.py RUN [RUN ...] --work DIR [--peer PYTHON] [--macs 0.5] [--steps 1500]

RUN is a folder that examples/cifar10_resnet/train.py wrote. PYTHON is an interpreter with torch, torch-pruning and
edgewright; without it Torch-Pruning has no rows. Ways of pruning: `prune`, the built-in recipe; `l1`, channels of the least
weights in equal shares, without refit; `torch-pruning`, its MagnitudePruner by the L1 norm over whole groups, in equal
shares. Widths are multiples of `--multiple` in all of them. `+distil` is one loop for all: outputs alone are compared with
the original's on pictures of `train` without labels, with the same steps, seed and rate; the last tenth of `train` selects.

All 10,000 pictures of `test` judge, and nothing else does; drops have their 95 % interval, paired over the pictures. Every row
is a line of DIR/rows.jsonl as soon as it is known: the same command goes on where it was interrupted. Times are of ONNX
Runtime, one thread, all networks interleaved.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from recovery import distilled

import edgewright as ew
from edgewright.environment import Environment
from edgewright.graph.cost import total
from edgewright.learn.options import Training

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "cifar10_resnet"
BASE = "original"
WAYS = (
    BASE, "prune", "prune+distil", "l1", "l1+distil", "torch-pruning", "torch-pruning+distil",
)  # fmt: skip
FLOAT = ("fold_constants", "remove_dead", "fold_batchnorm")
PRUNED_WITH = 8000  # pictures; what more of them would give was not tried
TIMED = 16  # pictures that networks run on while they are timed
HEAD = ("network", "way", "top-1", "drop, points", "agrees", "MMACs", "of", "ms", "x as fast")


class Sources(NamedTuple):
    """What networks are pruned with, and what they learn from."""

    pruning: ew.Samples
    learning: ew.Samples


def made(run: Path, way: str, work: Path, sources: Sources, options: argparse.Namespace) -> ew.Model:
    """The network of one way, made once."""
    kept = work / f"{way}.onnx"
    if kept.is_file():
        return ew.load(kept)
    original = ew.load(run / "model.onnx")
    before, _, recovered = way.partition("+")
    if recovered:
        settings = Training(
            steps=options.steps,
            batch=options.batch,
            rate=options.rate,
            temperature=options.temperature,
            features=0.0,
            state=work / f"{way}.training",
        )
        teacher = ew.compress(original, "float")
        small = distilled(
            made(run, before, work, sources, options), teacher, sources.learning, settings, options.threads
        )
    elif way == "torch-pruning":
        small = ew.compress(peer(run, work / "peer.onnx", options), "float")
    else:
        small = ew.compress(original, ew.Recipe.from_mapping(way, {"steps": steps_of(way, options)}), sources.pruning)
    small.save(kept)
    return small


def steps_of(way: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The recipe of one of our ways."""
    steps: list[dict[str, Any]] = [{"pass": name} for name in FLOAT]
    asked = {"pass": "prune_channels", "macs": options.macs, "multiple": options.multiple}
    if way == "l1":
        steps.append({**asked, "criterion": "l1", "spread": "uniform"})
    elif way == "prune":
        steps += [asked, {"pass": "refit"}]
    return steps


def peer(run: Path, path: Path, options: argparse.Namespace) -> ew.Model:
    """What Torch-Pruning makes of the same weights, with the original's Spec."""
    script = ROOT / "benchmarks" / "peer_torch_pruning.py"
    command = [str(options.peer), str(script), str(run / "weights.pt"), str(path)]
    asked = ["--macs", str(options.macs), "--multiple", str(options.multiple)]
    subprocess.run([*command, *asked], check=True, stdout=sys.stderr)
    return ew.load(path)


# --- data -------------------------------------------------------------------------------------------------------------


def photos(data: Path, folder: Path, count: int) -> Path:
    """A folder of pictures with roles: `count` that trained the networks, some that chose their epoch, some of `test`.

    The last give bundles something to run while they are timed; the judgement is of all of `test` and does not read here.
    """
    from pictures import divide, read
    from PIL import Image

    if (folder / "labels.csv").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["file,role"]
    train, held = divide(read(data / "train.npz"))
    timing = read(data / "test.npz", TIMED)
    for part, role, number in ((train, "calibrate", count), (held, "select", count // 10), (timing, "judge", TIMED)):
        for index, pixels in enumerate(part.photos[:number].numpy()):
            Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{role}-{index:05d}.png")
            rows.append(f"{role}-{index:05d}.png,{role}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def answers(model: ew.Model, inputs: np.ndarray) -> np.ndarray:
    """The class of every picture, i64[N]."""
    with ew.open(model, runtime="onnxruntime", threads=1) as session:
        return np.array([session.run({"image": inputs[n : n + 1]})["scores"].argmax() for n in range(len(inputs))])


def interval(before: np.ndarray, after: np.ndarray) -> float:
    """Half of the 95 % interval of the mean drop from `before` to `after`, bool[N], over pictures that both answered."""
    return float(1.96 * np.std(before.astype(float) - after) / np.sqrt(len(before)))


# --- rows -------------------------------------------------------------------------------------------------------------


def network(run: Path, inputs: np.ndarray, truth: np.ndarray, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one network: those that were known, and what is missing."""
    original = ew.load(run / "model.onnx")
    learnt = f"{options.steps}x{options.batch}-{options.rate:g}-{options.temperature:g}-of-{options.pictures}"
    plan = f"{options.macs:g}-{options.multiple}-{learnt}-{options.judge}"
    work = options.work / f"{run.name}-{original.hash[:8]}-{plan}"  # rows of other options lie elsewhere
    work.mkdir(parents=True, exist_ok=True)
    lines = work / "rows.jsonl"
    known = [json.loads(line) for line in lines.read_text().splitlines()] if lines.is_file() else []
    rows = {row["way"]: row for row in known}
    sources = Sources(*[ew.Samples.open(folder, original, roles="hash") for folder in options.photos])
    expected = None
    for way in options.ways:
        if way in rows or (way.startswith("torch-pruning") and options.peer is None):
            continue
        small = made(run, way, work, sources, options)
        expected = answers(original, inputs) if expected is None else expected
        got = expected if way == BASE else answers(small, inputs)
        rows[way] = row = {
            "network": run.name, "way": way, "top1": float(np.mean(got == truth)),
            "agreement": float(np.mean(got == expected)), "macs": total(small.ir)[0], "pictures": len(truth),
            "either_way": interval(expected == truth, got == truth),
        }  # fmt: skip
        with lines.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(json.dumps(row), file=sys.stderr, flush=True)
    networks = {way: made(run, way, work, sources, options) for way in rows}
    timed(rows, networks, sources.pruning, work, options)
    return list(rows.values())


def timed(
    rows: dict[str, dict[str, Any]], networks: dict[str, ew.Model], samples: ew.Samples, work: Path, options: Any
) -> None:
    """Add each network's median milliseconds to its row."""
    bundles = [
        ew.Bundle.open(work / f"{way}.bundle") if (work / f"{way}.bundle").exists()
        else ew.convert(small, "onnxruntime", work / f"{way}.bundle")
        for way, small in networks.items()
    ]  # fmt: skip
    results = ew.bench(bundles, samples, ew.BenchPlan(threads=(1,), max_seconds=options.seconds, pre_post=False))
    for row, result in zip(rows.values(), results, strict=True):
        row |= {"ms": result.infer.median_ms, "trust": result.trust}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    base = {row["network"]: row for row in rows if row["way"] == BASE}
    lines = [HEAD, ("---",) * len(HEAD)]
    for row in rows:
        first = base[row["network"]]
        lines.append(
            (
                row["network"],
                row["way"],
                f"{row['top1']:.4f}",
                f"{100 * (first['top1'] - row['top1']):+.2f} +- {100 * row['either_way']:.2f}",
                f"{row['agreement']:.4f}",
                f"{row['macs'] / 1e6:.1f}",
                f"{row['macs'] / first['macs']:.3f}",
                f"{row['ms']:.3f}",
                f"{first['ms'] / row['ms']:.2f}",
            )
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    options = parse()
    sys.path.insert(0, str(EXAMPLE))
    from pictures import normalised, read

    environment = Environment.here().to_json()
    test = read(options.data / "test.npz", options.judge)
    inputs, truth = normalised(test.photos).contiguous().numpy(), test.labels.numpy()
    counts = (PRUNED_WITH, options.pictures)
    options.photos = [photos(options.data, options.work / f"photos-{count}", count) for count in counts]
    rows: list[dict[str, Any]] = []
    for run in options.runs:
        if not (run / "model.onnx").is_file():
            print(f"`{run}` has no network (yet)", file=sys.stderr)
            continue
        rows += network(run, inputs, truth, options)
    print(f"{environment['cpu']}; {len(truth)} pictures judge; distil: {options.steps} steps of {options.batch}\n")
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({"environment": environment, "rows": rows}, indent=1), encoding="utf-8")


def ways(text: str) -> tuple[str, ...]:
    """Ways by name; the original, which all are compared with, is always one."""
    names = {BASE, *text.split(",")}
    if unknown := names - set(WAYS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: no such way; choose from {', '.join(WAYS)}")
    return tuple(way for way in WAYS if way in names)


def parse() -> argparse.Namespace:
    """The options."""
    data = Path(os.environ.get("EDGEWRIGHT_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="Folders that train.py wrote.")
    parser.add_argument("--data", type=Path, default=data / "cifar10", help="Folder with train.npz and test.npz.")
    parser.add_argument("--work", type=Path, required=True, help="Folder that keeps rows, networks and trainings.")
    parser.add_argument("--peer", type=Path, help="Interpreter that has torch-pruning.")
    parser.add_argument("--macs", type=float, default=0.5, help="Share of the multiply-adds that is left.")
    parser.add_argument("--multiple", type=int, default=2, help="Widths are multiples of it.")
    parser.add_argument("--steps", type=int, default=1500, help="Of distillation.")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3, help="Highest learning rate of distillation.")
    parser.add_argument("--temperature", type=float, default=4.0, help="Of the probabilities that are compared.")
    parser.add_argument("--ways", type=ways, default=WAYS, help="Some of the ways, with commas.  [default: all]")
    parser.add_argument("--pictures", type=int, default=40000, help="Of train, that distillation sees.")
    parser.add_argument("--judge", type=int, help="First pictures of test, for a trial.  [default: all]")
    parser.add_argument("--seconds", type=float, default=4.0, help="Of timing for each network.")
    parser.add_argument("--threads", type=int, default=1, help="Of distillation.")
    parser.add_argument("--json", type=Path, help="Everything measured, as JSON.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
