"""A whole binary ResNet-18 on the runtime native, against float ResNet-18 on ONNX Runtime and its int8 form on every runtime.

    python benchmarks/binary_resnet.py [--rounds 60] [--seconds 5] [--json FILE]

The binary network is Bi-Real Net's: a float stem (7x7, 64 filters, stride 2) and head, sixteen binary 3x3 convolutions, each with
a batch-norm, a shortcut of its own and a PReLU, and shortcuts of stage ends by a mean of 2x2, a float 1x1 convolution and a
batch-norm. Weights of all networks are random, from a seed: time does not depend on them. Before timing, the answers of
native are compared with those of ONNX Runtime running the very same binary file (whose binary layers are functions of standard
operators there), in full and layer by layer. int8 is static, with ranges from random samples, on the runtimes installed.

At one thread all networks run in one process, once a round, in random order; the clock is the process's CPU time, which other
processes do not stretch, a ratio the median of the rounds' own with its 95 % bootstrap interval. At two threads `edgewright
bench` measures wall time, one process for each bundle.

Source: Liu et al., "Bi-Real Net", 2018, section 3; He et al., "Deep Residual Learning", 2016, table 1.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from binary_conv import ratio

import edgewright as ew
from edgewright import registry
from edgewright.contracts import Role, Sample
from edgewright.environment import Environment
from edgewright.metrics import rel_l2
from edgewright.model import Model
from edgewright.ops import DOMAIN, packing
from edgewright.ops.functions import attach
from edgewright.recipe import Recipe, RecipeStep
from edgewright.runtimes.native.plan import FILE, read

NATIVE = "binary native"
WARM_UP = 3
#: Timed runs of a turn.
RUNS = 5
STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
INT8 = Recipe(
    "int8",
    steps=(
        RecipeStep(
            "quantize_static", {"search": False, "ranges": "minmax", "compensate": False, "correct_bias": False}
        ),
    ),
)


class Net:
    """A graph under construction; weights are drawn as they are needed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[ir.Node] = []
        self.weights: list[ir.Value] = []
        self.x = ir.Value(name="image", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 3, 224, 224]))

    def add(self, kind: str, *inputs: ir.Value, domain: str = "", **attributes: Any) -> ir.Value:
        self.nodes.append(ir.node(kind, inputs, attributes or None, domain=domain, name=f"{kind}_{len(self.nodes)}"))
        self.nodes[-1].outputs[0].name = f"{kind}_{len(self.nodes)}:0"
        return self.nodes[-1].outputs[0]

    def constant(self, array: np.ndarray) -> ir.Value:
        tensor = ir.tensor(np.ascontiguousarray(array), name=f"w{len(self.weights)}")
        value = ir.Value(name=tensor.name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
        self.weights.append(value)
        return value

    def normal(self, *shape: int, scale: float = 1.0) -> ir.Value:
        return self.constant((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def uniform(self, low: float, high: float, *shape: int) -> ir.Value:
        return self.constant(self.rng.uniform(low, high, shape).astype(np.float32))

    def conv(self, x: ir.Value, channels: int, filters: int, kernel: int, stride: int, pad: int) -> ir.Value:
        weights = self.normal(filters, channels, kernel, kernel, scale=(kernel * kernel * channels) ** -0.5)
        made = self.add("Conv", x, weights, strides=[stride] * 2, pads=[pad] * 4)
        return self.norm(made, filters)

    def norm(self, x: ir.Value, channels: int) -> ir.Value:
        beta, mean = (self.normal(channels, scale=0.1) for _ in range(2))
        return self.add(
            "BatchNormalization", x, self.uniform(0.5, 1.5, channels), beta, mean, self.uniform(0.5, 1.5, channels)
        )

    def binary(self, x: ir.Value, channels: int, filters: int, stride: int) -> ir.Value:
        signs = self.add("PackSigns", x, self.constant(np.zeros(1, np.float32)), domain=DOMAIN)
        bits = self.rng.integers(0, 2, (filters, 3, 3, channels)).astype(bool)
        scale = self.uniform(0.5, 1.5, filters).const_value.numpy() / (9 * channels) ** 0.5  # with the batch-norm
        self.weights.pop()
        window = {"strides": [stride] * 2, "dilations": [1, 1], "pads": [1] * 4, "group": 1, "pad_value": 1.0}
        return self.add(
            *("BinaryConv", signs, self.constant(packing.pack_bits(bits)), self.constant(scale)),
            self.normal(filters, scale=0.1), domain=DOMAIN, channels=[channels], **window,
        )  # fmt: skip

    def head(self, x: ir.Value) -> Model:
        pooled = self.add("Flatten", self.add("GlobalAveragePool", x))
        scores = self.add("Gemm", pooled, self.normal(1000, 512, scale=0.05), self.normal(1000, scale=0.1), transB=1)
        scores.name, scores.type, scores.shape = "scores", ir.TensorType(ir.DataType.FLOAT), ir.Shape([1, 1000])
        graph = ir.Graph(
            [self.x], [scores], nodes=self.nodes, initializers=self.weights, opset_imports={"": 21}, name="net"
        )
        model = ir.Model(graph, ir_version=10)
        attach(model)
        return Model(model)

    def stem(self) -> ir.Value:
        return self.conv(self.x, 3, 64, 7, 2, 3)

    def pool(self, x: ir.Value) -> ir.Value:
        return self.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])


def binary_resnet18(seed: int = 0) -> Model:
    """Bi-Real Net of 18 layers at 224 x 224."""
    net = Net(seed)
    x, channels = net.pool(net.stem()), 64
    for filters, first in STAGES:
        for number in range(4):
            stride = first if number == 0 else 1
            shortcut = x
            if stride > 1:
                mean = net.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
                shortcut = net.conv(mean, channels, filters, 1, 1, 0)
            joined = net.add("Add", net.binary(x, channels, filters, stride), shortcut)
            x, channels = net.add("PRelu", joined, net.uniform(0.1, 0.4, filters, 1, 1)), filters
    return net.head(x)


def float_resnet18(seed: int = 0) -> Model:
    """ResNet-18 at 224 x 224."""
    net = Net(seed)
    x, channels = net.pool(net.add("Relu", net.stem())), 64
    for filters, first in STAGES:
        for number in range(2):
            stride = first if number == 0 else 1
            inner = net.add("Relu", net.conv(x, channels, filters, 3, stride, 1))
            shortcut = net.conv(x, channels, filters, 1, stride, 0) if stride > 1 else x
            x = net.add("Relu", net.add("Add", net.conv(inner, filters, filters, 3, 1, 1), shortcut))
            channels = filters
    return net.head(x)


class Drawn:
    """Random pictures as calibrate samples."""

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[Sample]:
        for index in range(len(self)):
            yield Sample(f"{index}", f"{index:064x}", {"image": picture(index)})

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(f"{index:064x}" for index in range(len(self)))

    def role(self, *roles: Role) -> Drawn:
        return self


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, 3, 224, 224)).astype(np.float32)


def compare(model: Model, bundle: ew.Bundle) -> dict[str, Any]:
    """How far native is from ONNX Runtime on the same binary network: scores, decisions, and the signs of every layer."""
    packed = [node.outputs[0].name for node in model.ir.graph if node.op_type == "PackSigns"]
    distances, same = [], 0
    with ew.open(model) as original, ew.open(bundle) as opened:
        for seed in range(4):
            x = {"image": picture(100 + seed)}
            wanted, got = original.run(x)["scores"], opened.run(x)["scores"]
            distances.append(rel_l2(wanted, got))
            same += int(wanted.argmax() == got.argmax())
        inner, shown = original.run(x, packed), opened.run(x, packed)
    differ = sum(int(np.unpackbits(array ^ shown[name]).sum()) for name, array in inner.items())
    return {
        "scores_rel_l2": max(distances),
        "same_decisions": f"{same} of 4",
        "signs": sum(array.size * 8 for array in inner.values()),
        "signs_that_differ": differ,
    }


def make(folder: Path, report: dict[str, Any]) -> dict[str, ew.Bundle]:
    """Every bundle that is measured, by name; the binary one's answers are compared first."""
    binary, original = binary_resnet18(), float_resnet18()
    made = {NATIVE: ew.convert(binary, "native", folder / "binary-native")}
    report["against_onnxruntime"] = compare(binary, made[NATIVE])
    print("binary on native against the same file on onnxruntime:", report["against_onnxruntime"], flush=True)
    for runtime in ("onnxruntime", "openvino"):
        if runtime not in registry.installed("runtimes"):
            continue
        made[f"float {runtime}"] = ew.convert(original, runtime, folder / f"float-{runtime}")
        small = ew.compress(original, INT8, Drawn(), target=ew.Target(runtime))
        made[f"int8 {runtime}"] = ew.convert(small, runtime, folder / f"int8-{runtime}")
    return made


def interleaved(bundles: dict[str, ew.Bundle], rounds: int, runs: int) -> dict[str, np.ndarray]:
    """Milliseconds of CPU time of a run on one thread; all bundles have a turn a round, in random order.

    A turn is one run that is not timed, which brings the weights back that others drove out of the caches, and `runs`
    that are. Without the former (`runs` is 0) the first one is timed: a network whose weights lie in memory.
    """
    rng, x = np.random.default_rng(1), {"image": picture(0)}
    taken: dict[str, list[float]] = {name: [] for name in bundles}
    with ExitStack() as stack:
        opened = {name: stack.enter_context(ew.open(bundle)) for name, bundle in bundles.items()}
        for number in range(rounds + WARM_UP):
            for name in rng.permutation(list(bundles)):
                if runs:
                    opened[name].run(x)
                start = time.process_time()
                for _ in range(runs or 1):
                    opened[name].run(x)
                if number >= WARM_UP:
                    taken[name].append((time.process_time() - start) / (runs or 1) * 1e3)
    return {name: np.array(values) for name, values in taken.items()}


def steps(bundle: ew.Bundle) -> dict[str, float]:
    """Milliseconds of native's steps, one thread, summed by what they are."""
    path = bundle.path / FILE
    plan = read(path)
    made = {plan.tensors[next(i for i in s.writes if i is not None)].name: s for s in plan.steps}
    found: dict[str, float] = {}
    for name, milliseconds in (
        registry.get("runtimes", "native").profile(bundle, {"image": picture(0)}, threads=1, runs=20).items()
    ):
        step = made.get(name)
        kind = "input and output" if step is None else "stem" if step.sizes[5:7] == (7, 7) else step.kernel
        found[kind] = found.get(kind, 0.0) + milliseconds
    return found


def main() -> None:
    """Print times, ratios at one thread, and medians at several."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="of timed runs of each bundle at two threads; 0: none"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {"environment": Environment.here().to_json()}
    with tempfile.TemporaryDirectory() as folder:
        bundles = make(Path(folder), report)
        native, original = bundles[NATIVE], bundles["float onnxruntime"]
        print(f"size: {native.size_bytes:,} bytes, float {original.size_bytes / native.size_bytes:.1f}x as large")
        for title, runs in (("one after the other", RUNS), ("after other networks", 0)):
            taken = interleaved(bundles, options.rounds, runs)
            medians = {name: float(np.median(values)) for name, values in taken.items()}
            faster = {name: ratio(taken[name], taken[NATIVE]) for name in bundles if name != NATIVE}
            report[title] = {"ms": medians, "faster": faster}
            print(f"1 thread, CPU time, runs {title}, ms:", {name: round(value, 2) for name, value in medians.items()})
            for name, (value, low, high) in faster.items():
                print(f"    {value:.1f}x ({low:.1f}-{high:.1f}) faster than {name}", flush=True)
        report["steps_ms"] = steps(native)
        print("steps, ms:", {name: round(value, 2) for name, value in report["steps_ms"].items()}, flush=True)
        if options.seconds:
            plan = ew.BenchPlan(threads=(2,), min_seconds=options.seconds / 2, max_seconds=options.seconds)
            results = ew.bench(tuple(bundles.values()), None, plan)
            report["two_threads_ms"] = {result.bundle_name: result.infer.median_ms for result in results}
            print("2 threads, wall, ms:", {name: round(value, 2) for name, value in report["two_threads_ms"].items()})
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
