"""One peer's float32 file of a network: pnnx for ncnn, litert-torch for LiteRT.

    python phone_peers.py pnnx MODEL.onnx OUT_FOLDER

Runs in an environment of its own, because no peer is a dependency:

    pip install torch==2.13.0 litert-torch pnnx onnx

Imports nothing of edgewright. OUT_FOLDER gets `model.param` and `model.bin`, or `model.tflite`, which takes photos in NHWC as
its makers advise. litert-torch converts torch modules only; the network's layers are called by torch's own functions for it.
The last line on standard output is a JSON object: seconds of the conversion itself, versions.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEERS = {"pnnx": ("pnnx",), "litert-torch": ("litert-torch", "torch")}


def by_pnnx(network: Path, out: Path) -> None:
    """pnnx with its defaults, but for float32 weights."""
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "net.onnx"
        shutil.copy(network, copied)
        program = Path(sys.executable).parent / "pnnx"
        subprocess.run([str(program), copied.name, f"inputshape={shape(network)}", "fp16=0"], check=True, cwd=folder)
        for ending in ("param", "bin"):
            shutil.copy(Path(folder) / f"net.ncnn.{ending}", out / f"model.{ending}")


def shape(network: Path) -> str:
    """Sizes of the only input as pnnx writes them, an open batch being 1."""
    import onnx

    (value,) = onnx.load(network).graph.input
    return f"[{','.join(str(axis.dim_value or 1) for axis in value.type.tensor_type.shape.dim)}]"


def by_litert_torch(network: Path, out: Path) -> None:
    """litert_torch.convert, channels last at the ends."""
    import litert_torch
    import torch

    module = as_module(network).eval()
    sizes = [int(size) for size in shape(network)[1:-1].split(",")]
    photo = torch.rand(1, *sizes[2:], sizes[1])
    litert_torch.convert(litert_torch.to_channel_last_io(module, args=[0]), (photo,)).export(str(out / "model.tflite"))


def as_module(network: Path):
    """The network as a torch module, for the few operators that classifiers without batch norms are made of."""
    import numpy as np
    import onnx
    import torch
    from onnx import numpy_helper
    from torch.nn import functional

    graph = onnx.load(network).graph
    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer}

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for number, array in enumerate(arrays.values()):
                if array.dtype == np.float32 and array.ndim:
                    self.register_parameter(f"p{number}", torch.nn.Parameter(torch.from_numpy(array.copy())))
            self.names = {name: f"p{number}" for number, name in enumerate(arrays)}

        def forward(self, photo: torch.Tensor) -> torch.Tensor:
            values = {graph.input[0].name: photo}

            def get(name: str):
                return values[name] if name in values else getattr(self, self.names[name])

            for node in graph.node:
                values[node.output[0]] = apply(node, get)
            return values[graph.output[0].name]

    def apply(node, get):
        given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        kind, first = node.op_type, node.input[0]
        if kind == "Conv":
            pads = given.get("pads", [0] * 4)
            x = get(first)
            if pads[:2] != pads[2:]:
                x, pads = functional.pad(x, (pads[1], pads[3], pads[0], pads[2])), [0] * 4
            bias = get(node.input[2]) if len(node.input) > 2 else None
            stride, dilation = given.get("strides", [1, 1]), given.get("dilations", [1, 1])
            return functional.conv2d(x, get(node.input[1]), bias, stride, pads[:2], dilation, given.get("group", 1))
        if kind == "Clip":
            return torch.clamp(get(first), *(float(arrays[name]) for name in node.input[1:3]))
        if kind == "Relu":
            return functional.relu(get(first))
        if kind == "Add":
            return get(first) + get(node.input[1])
        if kind == "MaxPool":
            return functional.max_pool2d(get(first), given["kernel_shape"], given["strides"], given["pads"][:2])
        if kind in ("GlobalAveragePool", "ReduceMean"):
            keep = kind == "GlobalAveragePool" or bool(given.get("keepdims", 1))
            return get(first).mean((2, 3), keepdim=keep)
        if kind in ("Flatten", "Reshape", "Squeeze"):
            return get(first).flatten(1)
        if kind == "Gemm":
            weight = get(node.input[1])
            return functional.linear(get(first), weight if given.get("transB") else weight.T, get(node.input[2]))
        raise SystemExit(f"{kind} is not among the operators that are known here")

    return Network()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("network", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    (by_pnnx if options.peer == "pnnx" else by_litert_torch)(options.network, options.out)
    versions = {name: importlib.metadata.version(name) for name in PEERS[options.peer]}
    print(json.dumps({"seconds": time.perf_counter() - start, "versions": versions}))


if __name__ == "__main__":
    main()
