"""Binary 3x3 convolutions of ResNet-18's shapes against ONNX Runtime's float32 and int8 convolutions of the same sizes.

    python benchmarks/binary_conv.py [--rounds 60] [--threads 1] [--channels-last] [--json FILE]

What is timed here is all that a binary layer does: the signs of float activations are packed, convolved, and the results
compared with a threshold for each channel and packed again. ONNX Runtime's int8 layer takes and gives uint8 (so it has nothing
to quantize), with 7-bit weights, the form that is exact on CPUs without VNNI. All of a row are called in turn, in random
order; a figure is the median over the rounds, a ratio the median of the rounds' own ratios with its 95 % bootstrap interval.
At one thread the clock is the process's CPU time, which other processes do not stretch; else it is the wall's.
Before timing, the signs are compared with those of ONNX Runtime's float32 results.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgewright import kernels
from edgewright.environment import Environment
from edgewright.ops import packing
from edgewright.ops.binary import Window

SHAPES = ((64, 56), (128, 28), (256, 14), (512, 7))
PADDED = Window(pads=(1, 1, 1, 1))
#: A call is repeated until it takes this long, so that the clock and Python's own time do not matter.
SAMPLE_MS = 3.0


def sessions(weights: np.ndarray, size: int, threads: int) -> tuple[Any, Any]:
    """ONNX Runtime on the layer in float32 (+1 and -1), already padded, and in int8."""
    import onnx_ir as ir
    import onnxruntime

    channels = len(weights)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    shape = f"{channels}, {channels}, 3, 3"
    padded, sized = f"1, {channels}, {size + 2}, {size + 2}", f"1, {channels}, {size}, {size}"
    graphs = (
        f"""<ir_version: 10, opset_import: ["" : 21]> f (float[{padded}] x, float[{shape}] w) => (float[{sized}] y) {{
            y = Conv (x, w) }}""",
        f"""<ir_version: 10, opset_import: ["" : 21]> q (uint8[{padded}] x, int8[{shape}] w) => (uint8[{sized}] y)
            <float s = {{0.02}}, float t = {{0.5}}, float u = {{0.01}}, uint8 zero = {{128}}, int8 none = {{0}}> {{
            xd = DequantizeLinear (x, s, zero)  wd = DequantizeLinear (w, u, none)
            c = Conv (xd, wd)  y = QuantizeLinear (c, t, zero) }}""",
    )
    made = []
    for text, stored in zip(graphs, (weights, (weights * 63).astype(np.int8)), strict=True):
        model = ir.from_onnx_text(text)
        value = model.graph.inputs.pop()
        value.const_value = ir.tensor(stored, name="w")
        model.graph.register_initializer(value)
        data = ir.to_proto(model).SerializeToString()
        made.append(onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]))
    return made[0], made[1]


def calls(channels: int, size: int, options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """What is timed, by name; the binary layer is first held to ONNX Runtime's float results."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, channels, size, size)).astype(np.float32)
    weights = np.where(rng.random((channels, channels, 3, 3)) < 0.5, np.float32(-1), np.float32(1))
    threshold = rng.integers(-30, 31, channels).astype(np.int32)
    flip = rng.random(channels) < 0.3
    packed_weights = packing.pack_bits(np.moveaxis(weights, 1, -1) < 0)
    float_session, int8_session = sessions(weights, size, options.threads)
    signs = np.pad(np.where(x < 0, np.float32(-1), np.float32(1)), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=1)
    dots = np.moveaxis(float_session.run(None, {"x": signs})[0], 1, -1)
    wanted = packing.pack_bits((dots < threshold) ^ flip)
    quantized = rng.integers(0, 256, signs.shape).astype(np.uint8)
    if options.channels_last:
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)

    def binary(variant: str) -> Callable[[], Any]:
        layer = kernels.BinaryConv(
            packed_weights, channels=channels, input_shape=(1, size, size), window=PADDED, variant=variant,
            threads=options.threads,
        )  # fmt: skip
        layer.set_thresholds(threshold, flip)
        packed = kernels.pack_signs(x, variant=variant)
        out = layer.signs(packed)
        np.testing.assert_array_equal(out, wanted)

        def run() -> None:
            kernels.pack_signs(x, out=packed, variant=variant, threads=options.threads)
            layer.signs(packed, out=out)

        return run

    made = {variant: binary(variant) for variant in kernels.variants() if variant != kernels.NUMPY}
    made["ORT fp32"] = lambda: float_session.run(None, {"x": signs})
    made["ORT int8"] = lambda: int8_session.run(None, {"x": quantized})
    return made


def measure(made: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]) -> dict[str, np.ndarray]:
    """Milliseconds of each call in each round; the order of a round is random."""
    repeats = {}
    for name, call in made.items():
        call()
        start = clock()
        call()
        repeats[name] = max(1, int(SAMPLE_MS / 1e3 / (clock() - start)))
    rng = np.random.default_rng(1)
    taken: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name in rng.permutation(list(made)):
            start = clock()
            for _ in range(repeats[name]):
                made[name]()
            taken[name].append((clock() - start) / repeats[name] * 1e3)
    return {name: np.array(values) for name, values in taken.items()}


def ratio(of: np.ndarray, to: np.ndarray) -> tuple[float, float, float]:
    """The median of the rounds' ratios, and its 95 % bootstrap interval."""
    ratios = of / to
    rng = np.random.default_rng(2)
    medians = np.median(ratios[rng.integers(0, len(ratios), (2000, len(ratios)))], axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(np.median(ratios)), float(low), float(high)


def main() -> None:
    """Print a row for each shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--channels-last", action="store_true", help="float activations lie in memory with channels last"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    best = kernels.variants()[0]
    clock = time.process_time if options.threads == 1 else time.perf_counter
    environment = Environment.here()
    print(
        f"{environment.cpu}, {options.threads} thread(s), kernels {best}, onnxruntime {environment.versions['onnxruntime']}"
    )
    rows = []
    for channels, size in SHAPES:
        taken = measure(calls(channels, size, options), options.rounds, clock)
        operations = 2 * 9 * channels * channels * size * size
        row: dict[str, Any] = {"channels": channels, "size": size}
        for name, values in taken.items():
            median_ms = float(np.median(values))
            row[name] = {"ms": median_ms, "gops": operations / median_ms / 1e6}
        row["faster"] = {name: ratio(taken[name], taken[best]) for name in ("ORT fp32", "ORT int8")}
        rows.append(row)
        figures = ", ".join(f"{name} {row[name]['ms']:.3f} ms {row[name]['gops']:.0f} GOP/s" for name in taken)
        faster = ", ".join(
            f"{of:.1f}x ({low:.1f}-{high:.1f}) {name}" for name, (of, low, high) in row["faster"].items()
        )
        print(f"{channels}x{size}x{size}: {figures}\n    {best} is {faster}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"environment": environment.to_json(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
