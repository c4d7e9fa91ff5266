"""Writes small ncnn networks, and runs them in ncnn itself: the second meaning that the importer is held to."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import edgewright as ew

MAGIC = "7767517"
HALF, BFLOAT, INT8, SCALED = 0x01306B47, 0x01348B83, 0x000D4B38, 0x0002C056


def plain(values: Any) -> bytes:
    """Numbers as a layer stores them that knows their type."""
    return np.asarray(values, "<f4").tobytes()


def tagged(values: Any, tag: int = 0) -> bytes:
    """Numbers behind a tag that says their type."""
    array = np.asarray(values)
    kinds = {HALF: "<f2", INT8: "i1"}
    if tag == BFLOAT:
        data = (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    else:
        data = array.astype(kinds.get(tag, "<f4")).tobytes()
    return struct.pack("<I", tag) + data + b"\0" * (-len(data) % 4)


def text(lines: str) -> str:
    """A .param with the counts that its lines have."""
    layers = [line for line in lines.strip().split("\n") if line.strip()]
    blobs = sum(int(line.split()[3]) for line in layers)
    return "\n".join([MAGIC, f"{len(layers)} {blobs}", *layers]) + "\n"


def write(folder: Path, lines: str, weights: bytes = b"") -> Path:
    """A .param and its .bin."""
    path = folder / "net.param"
    path.write_text(text(lines), encoding="utf-8")
    path.with_suffix(".bin").write_bytes(weights)
    return path


def inputs(sizes: Sequence[Sequence[int]]) -> str:
    """Input layers `in0`, `in1` and so on, sizes outermost first."""
    lines = []
    for number, size in enumerate(sizes):
        keys = {1: "0", 2: "10", 3: "210"}.get(len(size))
        named = zip(keys, size, strict=True) if keys else zip(("2", "11", "1", "0"), size, strict=True)
        lines.append(f"Input i{number} 0 1 in{number} " + " ".join(f"{key}={value}" for key, value in named))
    return "\n".join(lines)


def ncnn_runs(param: Path, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Blobs of one sample, by ncnn in float32 with its plainest kernels; those that ncnn cannot give are left out."""
    import ncnn

    net = ncnn.Net()
    options = net.opt
    options.num_threads = 1
    for name in ("use_winograd_convolution", "use_sgemm_convolution", "use_packing_layout", "use_fp16_storage",
                 "use_fp16_packed", "use_fp16_arithmetic", "use_bf16_storage", "lightmode"):  # fmt: skip
        setattr(options, name, False)
    assert net.load_param(str(param)) == 0, "ncnn refuses the .param"
    assert net.load_model(str(param.with_suffix(".bin"))) == 0, "ncnn refuses the .bin"
    extractor = net.create_extractor()
    # A clone lays channels out as ncnn does; a Mat over an array keeps them without gaps, which some layers misread.
    held = {name: ncnn.Mat(np.ascontiguousarray(array[0])).clone() for name, array in feeds.items()}
    for name, blob in held.items():
        assert extractor.input(name, blob) == 0
    found = {}
    for name in names:
        status, blob = extractor.extract(name)
        if status == 0:
            found[name] = np.array(blob)[np.newaxis]
    return found


def our_runs(model: ew.Model, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The same tensors of the imported network."""
    with ew.open(model, runtime="onnxruntime") as session:
        return dict(session.run(dict(feeds), outputs=list(names)))


def drawn(model: ew.Model, rng: np.random.Generator, factor: float = 1.0) -> dict[str, np.ndarray]:
    """Values for every input, of both signs."""
    return {
        info.name: (factor * rng.uniform(-1, 1, [1 if isinstance(n, str) else n for n in info.shape])).astype(
            np.float32
        )
        for info in model.inputs
    }


def tensors(model: ew.Model) -> list[str]:
    """Names of what the graph's nodes make."""
    return [value.name for node in model.ir.graph for value in node.outputs if value.name]
