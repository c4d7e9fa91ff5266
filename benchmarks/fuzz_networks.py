"""Random networks: channels that go equal channels that are zero, and module and runtimes say what the graph says.

    python benchmarks/fuzz_networks.py [--count N] [--seed S] [--subsets N] [--checks channels learn passes runtimes]

Networks are those of random_networks.py, by seed. `channels`: for every group alone N random sets of its channels, and N times
all groups at once, are set to zero in the original and sliced away, as in prune_architectures.py. `learn` (needs torch): the
module of `learn` against ONNX Runtime, and gradients that are numbers. `passes`: `prune_channels` and `refit` with twelve
random samples; a pruned network has outputs of the same sizes, and what is refused is refused with an error of ours. `runtimes`:
converted for each of --runtimes, a network gives what it gives on ONNX Runtime, or is refused before it runs. OpenVINO is left
out by default: 2026.4 itself gives other answers for two samples behind a pooling to one place with a factor, and ended the
process for one network of 1,500.

Prints a line for each seed that fails, and what became of all. Ends with 1 where one fails.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import prune_architectures as proof
from random_networks import random_network

import edgewright as ew
from edgewright import registry
from edgewright.graph.channels import find
from edgewright.graph.dataflow import lift_constants
from edgewright.metrics import rel_l2

Feeds = dict[str, np.ndarray]
#: What float32 may differ by: norms of a single position divide rounding by the root of their epsilon.
LEARN_LIMIT = 1e-3
_PRUNED = {"pass": "prune_channels", "macs": 0.8, "multiple": 1, "spread": "uniform"}
RECIPE = ew.Recipe.from_mapping("random", {"steps": [{"pass": "fold_batchnorm"}, _PRUNED, {"pass": "refit"}]})
_SAMPLES = 12
RUNTIMES = tuple(sorted({*registry.installed("runtimes")} - {"onnxruntime", "openvino"}))


def loaded(proto: onnx.ModelProto, folder: Path) -> ew.Model:
    onnx.save(proto, folder / "network.onnx")
    return ew.load(folder / "network.onnx")


def channels(model: ew.Model, feeds: Feeds, count: int, tally: Counter[str]) -> str:
    """Where a slice differs from its mask; "" where none does."""
    ir_model = model.clone_ir()
    lift_constants(ir_model)
    groups = find(ir_model)
    tally["groups"] += len(groups.groups)
    for removed in proof.subsets(groups, count, random.Random(0)):
        try:
            error = proof.distance(ir_model, groups, removed, feeds)
        except ew.EdgewrightError as problem:
            if problem.code != "E212":  # nothing would be left of a part: said before anything changes
                raise
            continue
        tally["removals"] += 1
        if not error <= proof.LIMIT:
            return f"{error:.1e} apart without {dict(removed)}"
    return ""


def learn(model: ew.Model, feeds: Feeds, tally: Counter[str]) -> str:
    """Where the torch module differs; "" where it does not."""
    import torch

    from edgewright.learn.network import Network

    expected = proof.run(model.ir, feeds)
    network = Network(model.ir)
    got = network({name: torch.from_numpy(array) for name, array in feeds.items()}, tuple(expected))
    for name, array in expected.items():
        error = rel_l2(array, got[name].detach().numpy()) if array.shape == tuple(got[name].shape) else np.inf
        if not error <= LEARN_LIMIT and not error <= 10 * proof.rounding(model.ir, feeds):
            return f"`{name}` is {error:.1e} apart"
    sum((value.square().sum() for value in got.values()), torch.zeros(())).backward()
    weights = [weight.grad for weight in network.weights().values() if weight.grad is not None]
    tally["gradients"] += len(weights)
    finite = all(np.isfinite(array).all() for array in expected.values())
    return "" if not finite or all(bool(grad.isfinite().all()) for grad in weights) else "a gradient is no number"


def passes(model: ew.Model, feeds: Feeds, folder: Path, tally: Counter[str]) -> str:
    """What is wrong with the pruned and refitted network; "" where nothing is."""
    rng = np.random.default_rng(0)
    (info,) = model.inputs
    shape = [size if isinstance(size, int) else 1 for size in info.shape]
    for number in range(_SAMPLES):
        np.savez(folder / f"{number}.npz", **{info.name: rng.standard_normal(shape).astype(np.float32)})
    try:
        small = ew.compress(model, RECIPE, ew.Samples.open(folder, model, roles="calibrate"))
    except ew.EdgewrightError as problem:
        if problem.code not in ("E103", "E212"):  # less than can go, or nothing that can
            raise
        tally[f"refused, {problem.code}"] += 1
        return ""
    tally["pruned"] += 1
    before, after = proof.run(model.ir, feeds), proof.run(small.ir, feeds)
    wrong = [name for name in before if before[name].shape != after[name].shape]
    return f"other sizes of {', '.join(wrong)}" if wrong else ""


def runtimes(model: ew.Model, feeds: Feeds, folder: Path, names: Sequence[str], tally: Counter[str]) -> str:
    """Which runtimes give something else; "" where none does."""
    expected, found = proof.run(model.ir, feeds), []
    for name in names:
        try:
            bundle = ew.convert(model, name, folder / name)
        except ew.EdgewrightError as problem:
            if problem.code != "E210":  # it cannot run a node, and says so before anything is written
                raise
            tally[f"refused by {name}"] += 1
            continue
        with ew.open(bundle, threads=1) as opened:
            got = opened.run(feeds)
        tally[f"run by {name}"] += 1
        apart = proof.worst(expected, got)
        if not apart <= LEARN_LIMIT and not apart <= 10 * proof.rounding(model.ir, feeds):
            found.append(f"{name} is {apart:.1e} apart")
    return ", ".join(found)


def failures(
    seed: int, checks: Sequence[str], count: int, tally: Counter[str], names: Sequence[str] = RUNTIMES
) -> list[str]:
    """What fails of one network."""
    proto, feeds = random_network(seed)
    found = []
    with tempfile.TemporaryDirectory() as place:
        model = loaded(proto, Path(place))
        ways: dict[str, Callable[[], str]] = {
            "channels": lambda: channels(model, feeds, count, tally),
            "learn": lambda: learn(model, feeds, tally),
            "passes": lambda: passes(model, feeds, Path(place), tally),
            "runtimes": lambda: runtimes(model, feeds, Path(place), names, tally),
        }
        for check in checks:
            try:
                text = ways[check]()
            except Exception as problem:  # a traceback is what is looked for
                text = f"{type(problem).__name__}: {str(problem)[:200]}"
            found += [f"seed {seed}, {check}: {text}"] if text else []
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="networks")
    parser.add_argument("--seed", type=int, default=0, help="of the first one")
    parser.add_argument("--subsets", type=int, default=2, help="random sets of channels for each group, and for all")
    known = ("channels", "learn", "passes", "runtimes")
    parser.add_argument("--checks", nargs="+", choices=known, default=known)
    parser.add_argument("--runtimes", nargs="+", metavar="NAME", default=RUNTIMES)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    tally: Counter[str] = Counter()
    begun, failed = time.monotonic(), 0
    for seed in range(options.seed, options.seed + options.count):
        found = failures(seed, options.checks, options.subsets, tally, options.runtimes)
        failed += bool(found)
        for text in found:
            print(text, flush=True)
    told = ", ".join(f"{count} {what}" for what, count in tally.items())
    print(f"{options.count} networks, {failed} failed; {told}; {time.monotonic() - begun:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
