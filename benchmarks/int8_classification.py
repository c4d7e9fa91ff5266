"""int8 against the peers: answers kept, speed, time and memory of quantizing.

    python benchmarks/int8_classification.py [--peers-python PYTHON] [--parts accuracy,speed,memory] [--json OUT]

Accuracy: EfficientNet-Lite0 on 500 photos in five folds; a fold calibrates on every fifth photo (of which a fifth only
selects) and is judged on the other 400: same top-1 as fp32, and top-1. Speed: ours against the peers' files, each on
its runtime, all of them interleaved over three restarts of all processes; beside Lite0 also MobileNetV2 and ResNet-18
with random weights, for speed alone. Memory: time and peak memory of quantizing, and how the peak grows with samples.

Peers: onnxruntime's quantize_static and NNCF, in an interpreter of their own that has onnxruntime, onnx, sympy, openvino
and nncf (`--peers-python`); without one, ours is held against fp32 alone. Tables in Markdown go to standard output.
The photos may have been in the network's training set, so top-1 runs high; the loss of top-1 is what counts.

Targets: agreement >= 0.983 and a loss of top-1 whose interval reaches <= 0.5 points, on both runtimes at 1 and 2
threads; upper 95 % bound of the time ratio to `ort-reduced` and `nncf` <= 1.05; 200 photos within 60 s and 1.5 GB;
1,000 photos within 1.2 times the memory of 10.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import int8_tables as tables
import numpy as np
from int8_bundles import FLOAT, PEERS, RUNTIMES, Made, Workshop, divide, divide_arrays, make, names, ours
from int8_measures import Tally, outputs, speed_rows, sqnr_db, time_all

import edgewright as ew
from edgewright.environment import Environment

NETWORK = "zoo:efficientnet-lite0"
#: Graphs of shared/data/architectures, for speed alone, at the size that they are used at.
ARCHITECTURES = ("mobilenet_v2", "resnet18")
SIDE = 224
PARTS = ("accuracy", "speed", "memory")


def report(text: str) -> None:
    """Progress goes to standard error, tables to standard output."""
    print(text, file=sys.stderr, flush=True)


# --- accuracy ---------------------------------------------------------------------------------------------------------


def accuracy(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Agreement, top-1 and its loss of every candidate at every thread count, over the folds."""
    model = ew.load(NETWORK)
    shop = Workshop(NETWORK, model, options.peers_python, options.recipe, options.cpu)
    samples = ew.Samples.open(options.photos, model, roles="judge")
    inputs = [dict(sample.arrays) for sample in samples]
    labels = np.array([sample.label for sample in samples])
    paths = [samples.raw(name) for name in samples.ids]
    reference = outputs(ew.compress(model, "float"), inputs, threads=2)
    tallies = {(*pair, count): Tally() for pair in names(shop) for count in options.threads}
    made_of: dict[str, list[Any]] = {}
    for fold in range(options.folds):
        folder = work / f"fold-{fold}"
        divided = divide(paths[fold::5], folder / "samples")
        judges = [index for index in range(len(paths)) if index % 5 != fold]
        for item in make(shop, divided, folder):
            made_of.setdefault(item.name, []).append(item.cost)
            for count in options.threads:
                scores = outputs(item.bundle, [inputs[index] for index in judges], count)
                tally = tallies[item.candidate, item.runtime, count]
                tally.add(judges, reference[judges], scores, labels[judges])
            report(f"fold {fold}, {item.name}: agreement {tally.folds[-1]:.4f}")
    rows = [
        {"candidate": name, "runtime": runtime, "threads": count, **tally.summary()}
        for (name, runtime, count), tally in tallies.items()
    ]
    top1 = float((reference.argmax(1) == labels).mean())
    return {"rows": rows, "fp32_top1": top1, "photos": len(paths), "folds": options.folds, "cost": made_of}


# --- speed ------------------------------------------------------------------------------------------------------------


def speed(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Times of every candidate of every network, interleaved."""
    found = {}
    for network in options.networks:
        folder = work / network.replace(":", "-")
        folder.mkdir(parents=True)
        made, judges, sqnr = lite0(options, folder) if network == NETWORK else architecture(options, network, folder)
        rounds, records = time_all(
            made, judges, threads=options.threads, restarts=options.restarts, seconds=options.seconds
        )
        found[network] = {
            "rows": speed_rows(made, rounds, options.threads),
            "sqnr_db": sqnr,
            "trust": [(record.bundle_name, record.threads, record.trust, record.reasons) for record in records],
            "rounds_ms": {f"{name} at {count}": values for (name, count), values in rounds.items()},
            "cost": {item.name: item.cost for item in made},
        }
        report(f"speed of {network} measured")
    return found


def lite0(options: argparse.Namespace, folder: Path) -> tuple[list[Made], Any, dict[str, float]]:
    model = ew.load(NETWORK)
    paths = photos(options, model)
    divided = divide(paths[::5], folder / "samples")
    shop = Workshop(NETWORK, model, options.peers_python, options.recipe, options.cpu)
    (folder / "judge").mkdir()
    for path in paths[1:80:5]:
        (folder / "judge" / path.name).symlink_to(path.resolve())
    return make(shop, divided, folder), ew.Samples.open(folder / "judge", model, roles="judge"), {}


def architecture(options: argparse.Namespace, name: str, folder: Path) -> tuple[list[Made], Any, dict[str, float]]:
    """Candidates of a graph with random weights, and the SQNR of their outputs on random inputs."""
    path = filled(options.architectures, name, folder / f"{name}.onnx")
    bare = ew.load(path)
    key = bare.inputs[0].name
    spec = folder / "spec.json"  # what it says decides which layers ours may keep in float: same top-1, as for Lite0
    spec.write_text(json.dumps({"task": "classify", "inputs": {key: {"kind": "tensor"}}}), encoding="utf-8")
    model = ew.load(path, spec=spec)
    arrays = scenes(140, seed=0)
    divided = divide_arrays({key: arrays[:100]}, folder / "samples")
    shop = Workshop(str(path), model, options.peers_python, options.recipe, options.cpu, spec)
    made = make(shop, divided, folder)
    np.savez(folder / "judge.npz", **{key: arrays[100:]})  # type: ignore[arg-type]
    judges = ew.Samples.open(folder / "judge.npz", model, roles="judge")
    inputs = [dict(sample.arrays) for sample in judges]
    floats = {item.runtime: outputs(item.bundle, inputs, 1) for item in made if item.candidate == FLOAT}
    sqnr = {
        item.name: sqnr_db(floats[item.runtime], outputs(item.bundle, inputs, 1))
        for item in made
        if item.candidate != FLOAT
    }
    return made, judges, sqnr


def filled(folder: Path, name: str, out: Path) -> Path:
    """The graph with seeded weights, for inputs of SIDE x SIDE."""
    import onnx

    sys.path.insert(0, str(folder))
    from fill import load_filled

    proto = load_filled(folder / f"{name}.onnx", seed=0)
    del proto.graph.value_info[:]  # they name the old sizes
    for size in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        size.dim_value = SIDE
    onnx.save(proto, out)
    return out


def scenes(count: int, *, seed: int) -> np.ndarray:
    """f32[count, 3, SIDE, SIDE]: smooth random fields with some noise, nearer to photos than noise alone."""
    rng = np.random.default_rng(seed)
    blocks = rng.standard_normal((count, 3, SIDE // 16, SIDE // 16), np.float32)
    smooth = blocks.repeat(16, axis=2).repeat(16, axis=3)
    shift = rng.standard_normal((count, 3, 1, 1), np.float32)
    return smooth + shift + 0.3 * rng.standard_normal(smooth.shape, np.float32)


# --- time and memory of quantizing ------------------------------------------------------------------------------------


def memory(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Seconds and peak memory of our whole process with 200 photos, and its peak with 10 and 1,000."""
    model = ew.load(NETWORK)
    paths = photos(options, model)
    many = varied(paths, 1000 if not options.quick else 60, work / "varied")
    shop = Workshop(NETWORK, model, None, options.recipe, options.cpu)
    found: dict[str, Any] = {}
    for count, chosen in ((10, paths[::50]), (200, paths[::5] + paths[1::5]), (len(many), many)):
        divided = divide(chosen[:count], work / f"samples-{count}")
        for runtime in RUNTIMES:
            found[f"{runtime} {count}"] = {
                "runtime": runtime,
                "photos": count,
                **ours(shop, divided, work / f"out-{runtime}-{count}", runtime),
            }
            report(f"quantized for {runtime} with {count} photos")
    return found


def varied(paths: list[Path], count: int, folder: Path) -> list[Path]:
    """`count` different photos: the photos, then crops of them."""
    from PIL import Image

    folder.mkdir(parents=True)
    made = list(paths[:count])
    rng = np.random.default_rng(0)
    while len(made) < count:
        source = paths[len(made) % len(paths)]
        with Image.open(source) as opened:
            photo = opened.convert("RGB")
        left, top = (int(rng.integers(1, max(2, size // 8))) for size in photo.size)
        path = folder / f"{len(made):04d}-{source.stem}.png"
        photo.crop((left, top, photo.width, photo.height)).save(path, compress_level=1)
        made.append(path)
    return made


def photos(options: argparse.Namespace, model: ew.Model) -> list[Path]:
    """Files of all photos, in order of their names."""
    samples = ew.Samples.open(options.photos, model, roles="judge")
    return [samples.raw(name) for name in samples.ids]


# --- the command ------------------------------------------------------------------------------------------------------


def main() -> None:
    options = parse()
    environment = Environment.here().to_json()
    result: dict[str, Any] = {
        "environment": environment,
        "recipe": options.recipe,
        "cpu": options.cpu,
        "quick": options.quick,
        "peers": PEERS if options.peers_python else {},
    }
    print(tables.heading(environment, options.recipe, options.cpu, quick=options.quick), flush=True)
    with tempfile.TemporaryDirectory(prefix="edgewright-int8-", dir=options.work) as name:
        for part in options.parts:
            folder = Path(name) / part
            folder.mkdir()
            result[part] = {"accuracy": accuracy, "speed": speed, "memory": memory}[part](options, folder)
            print(getattr(tables, part)(result[part]), flush=True)
            if options.json:  # after each part: what was measured is not lost with what comes later
                options.json.write_text(json.dumps(result, indent=1, default=str), encoding="utf-8")
    print(tables.targets(result), flush=True)


def parse() -> argparse.Namespace:
    """The options, `--quick` already spelled out."""
    data = Path(os.environ.get("EDGEWRIGHT_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=data / "imagenet-sample", help="Photos with labels.csv.")
    parser.add_argument("--architectures", type=Path, default=data / "architectures", help="Folder with fill.py.")
    parser.add_argument("--peers-python", type=_path, help="Interpreter that has the peers.")
    parser.add_argument("--recipe", default="int8", help="Our recipe.")
    parser.add_argument("--cpu", default="host", help="CPU that our file is made for: host, x86-64-v3, ...")
    parser.add_argument("--parts", type=_list, default=PARTS, help="Of accuracy, speed, memory.")
    parser.add_argument("--networks", type=_list, default=(NETWORK, *ARCHITECTURES), help="Whose speed is measured.")
    parser.add_argument("--threads", type=_counts, default=(1, 2))
    parser.add_argument("--folds", type=int, default=5, choices=range(1, 6))
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="Of each bundle, thread count and restart.")
    parser.add_argument("--quick", action="store_true", help="One fold, one restart, Lite0 alone: does it work?")
    parser.add_argument("--work", type=_path, help="Folder for temporary files.")
    parser.add_argument("--json", type=Path, help="Everything measured, as JSON.")
    options = parser.parse_args()
    if options.quick:
        options.folds, options.restarts, options.seconds, options.networks = 1, 1, 1.5, options.networks[:1]
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    return options


def _path(text: str) -> Path:
    """Absolute, since other processes run elsewhere; a link stays one: a virtual environment's python is a link."""
    return Path(text).absolute()


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
