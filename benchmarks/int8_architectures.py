"""Every architecture graph through the pass `quantize_static`, for each runtime: does it run in int8, and how near is it?

python benchmarks/int8_architectures.py [--data DIR] [--runtime NAME ...] [--samples N] [--json FILE] [NAME ...]

Prints one line per graph and runtime: layers in int8 and in float, what the runtime's own optimized graph still
computes in float between integers (must be 0), the SQNR of the worst output against the float network, and the seconds it
took. The weights are seeded, not trained, so nothing is said of accuracy.

Ends with 1 where a graph breaks or a layer that should be int8 stays float in the runtime.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgewright import registry, session
from edgewright.compress import compress
from edgewright.contracts import Sample
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.load import load
from edgewright.metrics import sqnr_db
from edgewright.recipe import Recipe, RecipeStep
from edgewright.target import Target

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("fold_constants", "remove_dead", "fold_batchnorm", "quantize_static")


class Arrays:
    """Samples from arrays; the first three quarters calibrate, the rest selects."""

    def __init__(self, samples: list[Sample], roles: list[str]) -> None:
        self._samples, self._roles = samples, roles

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Any:
        return iter(self._samples)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(sample.group for sample in self._samples)

    def role(self, *roles: str) -> Arrays:
        kept = [pair for pair in zip(self._samples, self._roles, strict=True) if pair[1] in roles]
        return Arrays([sample for sample, _ in kept], [role for _, role in kept])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--runtime", action="append", default=[])
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = options.data / "architectures"
    spec = importlib.util.spec_from_file_location("architecture_fill", folder / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    filling = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(filling)
    failures, rows = 0, []
    for path in sorted(folder.glob("*.onnx")):
        if options.names and path.stem not in options.names:
            continue
        for runtime in options.runtime or ["onnxruntime", "openvino"]:
            began = time.monotonic()
            try:
                row = one(path, filling, runtime, options.samples)
            except EdgewrightError as problem:
                row = {"problem": f"{problem.code} {problem.message}"}
                failures += problem.code != "E212"
            except Exception as problem:
                row = {"problem": f"BUG {type(problem).__name__}: {problem}"}
                failures += 1
            failures += bool(row.get("left"))
            row = {"name": path.stem, "runtime": runtime, **row, "seconds": round(time.monotonic() - began, 1)}
            rows.append(row)
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    sys.exit(bool(failures))


def one(path: Path, filling: Any, runtime: str, count: int) -> dict[str, Any]:
    """What one graph becomes on one runtime."""
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / f"{path.stem}.onnx"
        proto = filling.load_filled(path)
        source.write_bytes(proto.SerializeToString())
        model = load(source)
        arrays = [filling.example_inputs(proto, seed) for seed in range(count + 2)]
        samples = [Sample(str(i), f"{i:064x}", item) for i, item in enumerate(arrays)]
        roles = ["calibrate" if i % 4 else "select" for i in range(count)] + ["judge"] * 2
        recipe = Recipe("int8", "", tuple(RecipeStep(name, {}) for name in STEPS))
        overrides = {"quantize_static": {"search": False}}
        target = Target(runtime)
        small = compress(model, recipe, Arrays(samples, roles), target=target, overrides=overrides)
        bundle = convert(small, target, Path(temporary) / "bundle")
        worst = np.inf
        with session.open(model) as original, session.open(bundle) as shipped:
            for sample in samples[count:]:
                right, got = original.run(sample.arrays), shipped.run(sample.arrays)
                worst = min([worst, *(sqnr_db(right[key], got[key]) for key in right if right[key].dtype.kind == "f")])
        stats = small.history[-1].stats
        states = Counter(layer["state"] for layer in stats["layers"])
        left = float_layers(bundle, runtime)
        layers = states["int8"]
        return {
            "int8": layers,
            "float": states["float"] + len(stats["float"]),
            "left": max(0, left - states["float"] - len(stats["float"]) - unquantizable(small)),
            "sqnr_db": round(float(worst), 1),
        }


def unquantizable(model: Any) -> int:
    """Products of two activations and layers in subgraphs, which are float everywhere."""
    return sum(
        node.op_type in ("MatMul", "Conv", "Gemm") for graph in model.ir.graph.subgraphs() for node in graph
    ) + sum(
        node.op_type == "MatMul" and node.inputs[1].const_value is None and not _dequantized(node.inputs[1])
        for node in model.ir.graph
    )


def _dequantized(value: Any) -> bool:
    producer = value.producer()
    return (
        producer is not None and producer.op_type == "DequantizeLinear" and producer.inputs[0].const_value is not None
    )


def float_layers(bundle: Any, runtime: str) -> int:
    """Convolutions and matrix products that the runtime's own optimized graph computes in float."""
    if runtime == "onnxruntime":
        import onnx
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4
        with tempfile.TemporaryDirectory() as folder:
            settings.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
            onnxruntime.InferenceSession(
                str(bundle.path / "model.onnx"),
                settings,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=["WeightBiasQuantization"],
            )
            nodes = onnx.load(settings.optimized_model_filepath).graph.node
        return sum(
            node.op_type in ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
            for node in nodes
        )
    import openvino

    compiled = openvino.Core().compile_model(
        bundle.path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    found = 0
    for operation in compiled.get_runtime_model().get_ordered_ops():
        info = {key: str(value) for key, value in operation.get_rt_info().items()}
        kind = info.get("layerType", "")
        found += (
            kind in ("Convolution", "FullyConnected", "MatMul", "Deconvolution")
            and "8" not in info.get("primitiveType", "").rsplit("_", 1)[-1]
        )
    return found


if __name__ == "__main__":
    registry.names("runtimes")
    main()
