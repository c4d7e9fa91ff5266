"""IR-Net against plain signs with a straight-through gradient: one network, one schedule, paired seeds; then down to kernels.

    python benchmarks/binary_training.py --data cifar10 --work DIR [--minutes 60] [--network resnet8] [--epochs 10]
        [--pictures 8000] [--seeds 3] [--threads 1]

Both methods train on the same first `--pictures` of `train`, in the same order, from the same seeds; the last epoch is what
counts, and all 10,000 pictures of `test` judge it once. A run that is over is a line of DIR/rows.jsonl, one that is not is
gone on with: the same command works in as many sittings as it takes, each of `--minutes` at most.

Every trained network is then exported, lowered and evaluated: all of `test` by the runtime `native`; the rest node by node, on
our kernels and, what is not binary, on the numpy reference, so that every sign can be seen:

    decisions   pictures of `test` whose class differs between torch and the runtime `native`; must be 0
    untied      those of them that are no tie: the first signs that differ do not all lie within 1e-5 of their thresholds, or
                none differs at all; must be 0
    layers      binary layers whose results differ from the float graph's, given its own inputs; must be 0
    ties        of the first `--judged` pictures, those on which ONNX Runtime's float graph and the kernels see some sign
                differently: sums of float layers round in another order, and lie that close to a threshold
    first       signs that differ in the first layer of a picture where any does: all layers before saw the same signs
    signs       those of them that differ although what is compared is farther than 1e-5 from its threshold; must be 0
    behind      signs that differ in later layers of these pictures, whose inputs are no longer the same, at any distance
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import edgewright as ew
from edgewright import kernels
from edgewright.environment import Environment
from edgewright.model import Model
from edgewright.ops import DOMAIN, packing
from edgewright.ops.binary import Affine, Window
from edgewright.runtimes.reference.execution import OPERATORS

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "examples" / name) for name in ("irnet_cifar10", "cifar10_resnet")]
METHODS = ("irnet", "sign-ste")
CLOSE = 1e-5
BATCH = 50
FORMATS = {"top-1": "{:.4f}", "minutes": "{:.1f}"}
HEAD = (
    "seed", "method", "top-1", "decisions", "untied", "layers", "ties", "first", "signs", "behind", "pictures", "minutes",
)  # fmt: skip


# --- kernels ----------------------------------------------------------------------------------------------------------


class Lowered:
    """A lowered graph, node by node: our kernels where the domain is ours, the numpy reference elsewhere."""

    def __init__(self, model: Model, batch: int) -> None:
        self.nodes = list(model.ir.graph)
        self.constants = {name: value.const_value.numpy() for name, value in model.ir.graph.initializers.items()}
        self.batch = batch
        self._layers: dict[str, kernels.BinaryConv] = {}

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every tensor."""
        scope = {**self.constants, **inputs}
        for node in self.nodes:
            made = self.evaluate(node, scope)
            scope[node.outputs[0].name] = made
        return scope

    def evaluate(self, node: Any, scope: dict[str, np.ndarray]) -> np.ndarray:
        """The first output of one node."""
        given = [None if value is None else scope[value.name] for value in node.inputs]
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        if node.domain != DOMAIN:
            made = OPERATORS[node.op_type].function(*given, **attributes)
            return made[0] if isinstance(made, tuple) else made
        if node.op_type == "PackSigns":
            return kernels.pack_signs(np.ascontiguousarray(given[0]), given[1])
        layer = self._layer(node, given, attributes)
        if node.op_type.endswith("Signs"):
            return layer.signs(given[0])
        return np.moveaxis(layer.floats(given[0]), -1, 1)

    def _layer(self, node: Any, given: list[Any], attributes: dict[str, Any]) -> kernels.BinaryConv:
        name = node.outputs[0].name
        if name not in self._layers:
            of = attributes
            window = Window(
                tuple(of["strides"]), tuple(of["dilations"]), tuple(of["pads"]), int(of["pad_value"]), of["group"]
            )
            layer = kernels.BinaryConv(
                given[1], channels=of["channels"][0], input_shape=given[0].shape[:3], window=window
            )
            if node.op_type.endswith("Signs"):
                layer.set_thresholds(given[2], given[3])
            else:
                layer.set_affine(Affine(given[2], given[3]))
            self._layers[name] = layer
        return self._layers[name]


def batches(photos: Any, count: int) -> Iterator[np.ndarray]:
    from train import prepared

    for start in range(0, count, BATCH):
        yield prepared(photos[start : start + BATCH]).contiguous().numpy()


def decisions(network: Any, small: Model, bundle: ew.Bundle, wanted: np.ndarray, photos: Any) -> dict[str, int]:
    """Pictures that the runtime gives another class than `wanted`, i64[N], of the deployed network; and those without a tie."""
    found = dict.fromkeys(("decisions", "untied"), 0)
    bits = [node.outputs[0].name for node in small.ir.graph if _bits(node)]
    with ew.open(bundle, threads=1) as session:
        images = (image[None] for part in batches(photos, len(wanted)) for image in part)
        for image, said in zip(images, wanted, strict=True):
            if session.run({"image": image})["scores"].argmax() != said:
                seen = session.run({"image": image}, outputs=tuple(bits))
                found["decisions"] += 1
                found["untied"] += not _tied(network, image, [seen[name] for name in bits])
    return found


def _tied(network: Any, image: np.ndarray, bits: list[np.ndarray]) -> bool:
    """Whether the first signs that differ between the deployed network and `bits` lie within CLOSE of their thresholds."""
    import torch

    from edgewright.learn.binary.deployed import DeployedConv2d, DeployedLinear

    compared: list[np.ndarray] = []  # by each binary layer with its threshold, in the order of their runs
    layers = [module for module in network.modules() if isinstance(module, DeployedConv2d | DeployedLinear)]
    hooks = [
        layer.register_forward_pre_hook(lambda of, given: compared.append((given[0] - of.threshold).numpy()))
        for layer in layers
    ]
    with torch.no_grad():
        network(torch.from_numpy(image))
    for hook in hooks:
        hook.remove()
    for distance, packed in zip(compared, bits, strict=True):
        signs = np.moveaxis(packing.unpack_signs(packed, distance.shape[1]), -1, 1)
        other = (distance >= 0) != (signs > 0)
        if other.any():
            return bool(np.abs(distance[other]).max() <= CLOSE)
    return False


def inexact(model: Model, lowered: Lowered, photos: Any, count: int) -> int:
    """Binary layers that differ from the float graph on the numpy reference, given its own inputs, on `count` pictures."""
    layers = [node for node in lowered.nodes if node.domain == DOMAIN and node.op_type != "PackSigns"]
    signs = _signs(lowered)
    floats = [node.outputs[0].name for node in layers if not _bits(node)]
    wrong: set[str] = set()
    with ew.open(model, runtime="reference", threads=1) as exact:
        for x in batches(photos, count):
            wanted = exact.run({"image": x}, outputs=(*signs.values(), *floats))
            given = {bits: packing.pack_bits(np.moveaxis(wanted[name], 1, -1) < 0) for bits, name in signs.items()}
            for node in layers:
                made = lowered.evaluate(node, {**lowered.constants, **given})
                name = node.outputs[0].name
                if not np.array_equal(made, given[name] if _bits(node) else wanted[name]):
                    wrong.add(name)
    return len(wrong)


def differing(model: Model, lowered: Lowered, photos: Any, count: int) -> dict[str, int]:
    """Pictures with a sign that differs, and such signs: the first ones, those of them that are no tie, and those behind."""
    signs = _signs(lowered)
    sources = {name: _compared(model, name) for name in signs.values()}
    asked = tuple(dict.fromkeys([*signs.values(), *(name for name, _ in sources.values())]))
    found = dict.fromkeys(("ties", "first", "signs", "behind"), 0)
    with ew.open(model, runtime="onnxruntime", threads=1) as fast:
        for x in batches(photos, count):
            ours, theirs = lowered.run({"image": x}), fast.run({"image": x}, outputs=asked)
            same = np.ones(len(x), bool)  # pictures without a difference so far
            for bits, name in signs.items():
                own = np.moveaxis(packing.unpack_signs(ours[bits], theirs[name].shape[1]), -1, 1)
                source, threshold = sources[name]
                other = own != theirs[name]
                first = other & same[:, None, None, None]
                found["first"] += int(first.sum())
                found["signs"] += int((first & (np.abs(theirs[source] - threshold) > CLOSE)).sum())
                found["behind"] += int((other & ~first).sum())
                same &= ~first.any((1, 2, 3))
            found["ties"] += int((~same).sum())
    return found


def _signs(lowered: Lowered) -> dict[str, str]:
    """Packed signs of the lowered graph -> signs of the float one, in graph order."""
    names = [node.outputs[0].name for node in lowered.nodes if node.domain == DOMAIN and _bits(node)]
    return {name: name.removesuffix(":bits") for name in names}


def _bits(node: Any) -> bool:
    return node.outputs[0].name.endswith(":bits")


def _compared(model: Model, name: str) -> tuple[str, np.ndarray]:
    """What the sign `name` of the float graph compares: the tensor and the threshold."""
    node = next(node for node in model.ir.graph if node.outputs[0].name == name)
    less = node.inputs[0].producer()
    return less.inputs[0].name, less.inputs[1].const_value.numpy()


# --- training ---------------------------------------------------------------------------------------------------------


def row(seed: int, method: str, options: argparse.Namespace, until: float) -> dict[str, Any] | None:
    """Train to the end, or to `until`, which gives None; then judge."""
    import torch
    from pictures import read
    from train import Plan, Training, classes, shipped

    torch.set_num_threads(options.threads)
    plan = Plan(
        options.network, method, epochs=options.epochs, batch=options.batch, rate=options.rate, held=False,
        limit=options.pictures, seed=seed,
    )  # fmt: skip
    out = options.work / f"{method}-{seed}"
    out.mkdir(parents=True, exist_ok=True)
    training = Training(plan, read(options.data / "train.npz", options.pictures), out)
    if not training.run(until):
        return None
    test = read(options.data / "test.npz", options.tested)
    network = shipped(training.network)
    said = classes(network, test).numpy()
    steps = ew.Recipe.from_mapping("plain", {"steps": [{"pass": "fold_constants"}, {"pass": "remove_dead"}]})
    model = ew.compress(ew.load(training.export(out / "model.onnx")), steps)
    small = ew.compress(model, "lower-binary")
    small.save(out / "lowered.onnx")
    lowered = Lowered(small, BATCH)
    judged = min(options.judged, len(test))
    names = ("network", "epochs", "batch", "rate", "pictures")
    return {
        "seed": seed, "method": method, "top-1": float((said == test.labels.numpy()).mean()), "pictures": len(test),
        **decisions(network, small, ew.convert(small, "native", out / "native", overwrite=True), said, test.photos),
        "layers": inexact(model, lowered, test.photos, judged), **differing(model, lowered, test.photos, judged),
        "judged": judged,
        "minutes": training.seconds / 60, "variant": kernels.variants()[0],
        "plan": {name: getattr(options, name) for name in names},
        "environment": Environment.here().to_json(),
    }  # fmt: skip


def show(rows: list[dict[str, Any]]) -> bool:
    """Print the table; True where everything that must be 0 is, and IR-Net is ahead in every pair that is complete."""
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    for one in rows:
        print("| " + " | ".join(FORMATS.get(name, "{}").format(one.get(name, "")) for name in HEAD) + " |")
    scores = {(one["seed"], one["method"]): one["top-1"] for one in rows}
    seeds = {one["seed"] for one in rows}
    both = [[scores[seed, method] for method in METHODS if (seed, method) in scores] for seed in seeds]
    pairs = [pair for pair in both if len(pair) == len(METHODS)]
    ahead = sum(ours > theirs for ours, theirs in pairs)
    print(f"\nIR-Net is ahead in {ahead} of {len(pairs)} paired seeds")
    return ahead == len(pairs) and not any(
        one[name] for one in rows for name in ("decisions", "untied", "layers", "signs")
    )


def main() -> None:
    options = _parse()
    options.work.mkdir(parents=True, exist_ok=True)
    kept = options.work / "rows.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.is_file() else []
    until = time.monotonic() + 60 * options.minutes
    known = {(one["seed"], one["method"]) for one in rows}
    for seed in range(options.seeds):
        for method in METHODS:
            if (seed, method) not in known and time.monotonic() < until:
                made = row(seed, method, options, until)
                if made is not None:
                    rows.append(made)
                    with kept.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(made) + "\n")
    if not show(rows):
        raise SystemExit(1)
    if len(rows) < len(METHODS) * options.seeds:
        print("not all runs are over: the same command goes on")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--network", default="resnet8")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--pictures", type=int, default=8000, help="Of train.")
    parser.add_argument("--tested", type=int, help="First pictures of test, for a trial.  [default: all]")
    parser.add_argument("--judged", type=int, default=1000, help="Pictures on which every layer and sign is compared.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
