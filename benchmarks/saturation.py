"""What int8 kernels do on an x86 CPU without VNNI, where pairs of products saturate in 16 bits: real kernels, real answers.

    apt-get install qemu-user                                             # not needed on a CPU without VNNI
    python benchmarks/saturation.py                                       # kernels: which saturate, by how much
    python benchmarks/saturation.py --model zoo:efficientnet-lite0 --samples PHOTOS --limit 200

On a CPU with VNNI the bundles run under qemu-x86_64 as on a Haswell (AVX2, no VNNI), in a process of their own; the original
and the exact evaluation run here, since qemu computes floats by software. The second form compresses the model by the recipe
`int8` for both kinds of CPU, and lets `verify` judge both files as it would on that CPU.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import edgewright as ew
from edgewright import bundle as bundles
from edgewright import environment, metrics, registry, session, target
from edgewright.contracts import Cut
from edgewright.errors import EdgewrightWarning
from edgewright.model import Model
from edgewright.samples import Samples

CPU = "x86-64-v3"  # AVX2 without VNNI
EMULATOR = ("qemu-x86_64", "-cpu", "Haswell")
RUNTIMES = ("onnxruntime", "openvino")
#: Instead of bits: 8, but the weights of two products that meet are 128 together.
PAIRS = 0
#: Weights and activations are large and of one sign, so that every pair of products is: the worst there is.
KERNELS = {
    "Conv 3x3": ("conv", "uint8", 8), "Conv 3x3, 7-bit weights": ("conv", "uint8", 7),
    "Conv 3x3, int8 activations": ("conv", "int8", 8), "depthwise Conv 3x3": ("depthwise", "uint8", 8),
    "Conv 3x3, pairs up to 128": ("conv", "uint8", PAIRS), "the same, 6 channels": ("even", "uint8", PAIRS),
    "the same, 3 channels, across places": ("odd", "uint8", PAIRS), "the same, 8 groups": ("grouped", "uint8", PAIRS),
    "MatMul": ("matmul", "uint8", 8), "MatMul, pairs up to 128": ("matmul", "uint8", PAIRS),
    "MatMul, 7-bit weights": ("matmul", "uint8", 7),
    "DynamicQuantizeLinear, MatMulInteger": ("dynamic", "uint8", 8),
}  # fmt: skip


class Remote:
    """A bundle that runs in another process, under the emulator where this CPU has VNNI."""

    def __init__(self, path: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edgewright-")
        self._log = (Path(self._folder.name) / "log").open("w+")
        command = [*emulator(), sys.executable, str(Path(__file__).resolve()), "--serve", str(path)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def run(self, inputs: Mapping[str, np.ndarray], /) -> dict[str, np.ndarray]:
        """All outputs by name."""
        given, made = (Path(self._folder.name) / name for name in ("in.npz", "out.npz"))
        np.savez(given, **inputs)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(given, made, sep="\t", file=self._process.stdin, flush=True)
        if self._process.stdout.readline().strip() != "done":
            self._log.seek(0)
            raise RuntimeError("the other process ended:\n" + self._log.read()[-2000:])
        with np.load(made) as stored:
            return {name: stored[name] for name in stored.files}

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._log.close()
        self._folder.cleanup()


def serve(path: str) -> int:
    """Run the bundle in `path` for every line "INPUTS.npz TAB OUTPUTS.npz" of standard input."""
    with session.open(path) as opened:
        for line in sys.stdin:
            given, made = line.rstrip("\n").split("\t")
            with np.load(given) as stored:
                outputs = opened.run({name: stored[name] for name in stored.files})
            np.savez(made, **outputs)
            print("done", flush=True)
    return 0


def emulator() -> tuple[str, ...]:
    """The words before the command: none where this CPU is of the kind itself."""
    return EMULATOR if target.unmet([target.any_of(target.EXACT_INT8)], REAL_FEATURES) == () else ()


REAL_FEATURES = target.host_features()


@contextmanager
def on_old_cpu(shipped: Path) -> Iterator[None]:
    """Let edgewright believe in a CPU without VNNI, and run the bundle in `shipped` on one."""
    plugins = [registry.get("runtimes", name) for name in RUNTIMES]
    saved = [(module, "host_features", module.host_features) for module in (target, bundles, environment)]
    saved += [(plugin, "open", plugin.open) for plugin in plugins]
    environment._environment.cache_clear()

    def remote(local: Any) -> Any:
        def open_bundle(bundle: Any, *, threads: int, cut: Cut | None = None) -> Any:
            return Remote(bundle.path) if bundle.path == shipped else local(bundle, threads=threads, cut=cut)

        return open_bundle

    try:
        for module, name, value in saved:
            setattr(module, name, remote(value) if name == "open" else lambda: tuple(sorted(target.CPUS[CPU])))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EdgewrightWarning)  # "made for another CPU": that is the point
            yield
    finally:
        for module, name, value in saved:
            setattr(module, name, value)
        environment._environment.cache_clear()


# --- kernels ----------------------------------------------------------------------------------------------------------


CONVOLUTIONS = {
    "conv": (32, 64, 3, 3), "even": (32, 6, 3, 3), "odd": (32, 3, 3, 3), "grouped": (64, 8, 3, 3),
    "depthwise": (64, 1, 3, 3),
}  # fmt: skip


def paired(weights: np.ndarray, convolution: bool) -> np.ndarray:
    """The same, but of four neighbouring inputs one is large and each of the others is what it leaves of 128."""
    rows = (weights if convolution else weights.T).clip(64)
    for start in range(0, rows.shape[1], 4):
        block = rows[:, start : start + 4]
        block[:, 1:] = 128 - block[:, :1]
    return rows if convolution else rows.T


def kernel(kind: str, activation: str, bits: int) -> tuple[Model, dict[str, np.ndarray]]:
    """A network of one int8 layer with one input on which every sum is as large as it gets."""
    import onnx_ir as ir

    rng = np.random.default_rng(0)
    sizes = CONVOLUTIONS.get(kind, (256, 32))
    weights = rng.integers(60, 128, sizes)
    weights = (paired(weights, kind in CONVOLUTIONS) if bits == PAIRS else weights >> (8 - bits)).astype(np.int8)
    zero = 0 if activation == "uint8" else -128
    image = kind in CONVOLUTIONS
    channels = {"depthwise": 64, "grouped": 64}.get(kind, sizes[1])
    shape = f"1, {channels}, 6, 6" if image else "8, 256"
    x = rng.integers(100, 256, [int(size) for size in shape.split(",")]).astype(np.float32)
    steps = (
        "xq = QuantizeLinear(x, one, zero)  xd = DequantizeLinear(xq, one, zero)  wd = DequantizeLinear(w, one, none)\n"
    )
    if image:
        group = channels // sizes[1]
        largest = float(weights.reshape(len(weights), -1).sum(1, dtype=np.int64).max())
        steps += (
            f"y = Conv <group = {group}> (xd, wd)  q = QuantizeLinear(y, s, zero)  z = DequantizeLinear(q, s, zero)"
        )
    else:
        largest, steps = 1.0, steps + "z = MatMul(xd, wd)"
    if kind == "dynamic":
        steps = """xq, xs, xz = DynamicQuantizeLinear(x)  i = MatMulInteger(xq, w, xz)
            f = Cast <to = 1> (i)  z = Mul(f, xs)"""
    text = f"""<ir_version: 10, opset_import: ["" : 21]> net (float[{shape}] x, int8{list(weights.shape)} w) => (float[] z)
        <float one = {{1.0}}, float s = {{{largest}}}, {activation} zero = {{{zero}}}, int8 none = {{0}}> {{ {steps} }}"""
    graph = ir.from_onnx_text(text)
    stored = graph.graph.inputs.pop()
    stored.const_value = ir.tensor(weights, name="w")
    graph.graph.register_initializer(stored)
    return Model(graph, name="kernel"), {"x": x}


def show_kernels(folder: Path) -> None:
    """Print how far each runtime's fast kernels are from exact evaluation."""
    print(f"{'rel-L2 from exact evaluation':40}" + "".join(f"{name:>16}" for name in RUNTIMES))
    for title, (kind, activation, bits) in KERNELS.items():
        distances = []
        for runtime in RUNTIMES:
            network, inputs = kernel(kind, activation, bits)
            made = ew.convert(network, target.Target(runtime, CPU), folder / f"{kind}-{activation}-{bits}-{runtime}")
            with session.open(network, runtime="reference") as opened:
                exact = opened.run(inputs)["z"]
            remote = Remote(made.path)
            distances.append(metrics.rel_l2(exact, remote.run(inputs)["z"]))
            remote.close()
        print(f"{title:40}" + "".join(f"{distance:16.4f}" for distance in distances), flush=True)


# --- networks ---------------------------------------------------------------------------------------------------------


def show_network(name: str, photos: str, limit: int | None, runtimes: tuple[str, ...], folder: Path) -> None:
    """Print what `verify` says of full-range and of 7-bit weights on a CPU without VNNI."""
    model = ew.load(name)
    samples = Samples.open(photos, model, limit=limit)
    for runtime in runtimes:
        for cpu in ("x86-64-v4-vnni", CPU):
            made_for = target.Target(runtime, cpu)
            small = ew.compress(model, "int8", samples, target=made_for)
            made = ew.convert(small, made_for, folder / f"{runtime}-{cpu}")
            native = ew.verify(model, made, samples)
            with on_old_cpu(made.path):
                emulated = ew.verify(model, made, samples)
            print(f"\n{runtime}, made for {cpu}; needs: {', '.join(made.cpu_features) or 'nothing'}")
            for where, report in (("this CPU", native), (CPU, emulated)):
                gate = next(gate for gate in report.gates if gate.name == "agreement")
                print(f"  {where:10} {report.decision:10} {gate.message}")
                print(f"  {'':10} output `{report.outputs[0].name}`: SQNR {report.outputs[0].sqnr_db:.1f} dB (worst)")
                print(f"  {'':10} saturation: {report.saturation.message if report.saturation else 'none'}", flush=True)


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a network in float, for the second form")
    parser.add_argument("--samples", help="what it is calibrated with and judged by")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--runtime", default=",".join(RUNTIMES))
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve)
    if emulator() and not shutil.which(EMULATOR[0]):
        print("this CPU has VNNI, so a CPU without must be emulated: apt-get install qemu-user", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="edgewright-") as name:
        if arguments.model:
            runtimes = tuple(arguments.runtime.split(","))
            show_network(arguments.model, arguments.samples, arguments.limit, runtimes, Path(name))
        else:
            show_kernels(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
