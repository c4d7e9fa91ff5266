"""The ONNX importer and weights in other files: mapped, checked, never outside the model's folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from tests.onnx_files import load_text, outside, refused

import edgewright as ew


def external(name: str, dims: tuple[int, ...], location: str, **numbers: Any) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **numbers}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def load_external(folder: Path, *tensors: TensorProto) -> ew.Model:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[M] y) { y = Add (x, w) }'
    return load_text(text, folder, lambda proto: proto.graph.initializer.extend(tensors))


def test_external_data_is_read(tmp_path: Path) -> None:
    weights = np.arange(6, dtype=np.float32)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "w.bin").write_bytes(b"\0" * 8 + weights.tobytes() + b"tail")
    model = load_external(tmp_path, external("w", (6,), "deep/w.bin", offset=8, length=24))
    tensor = model.ir.graph.initializers["w"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), weights)
    (tmp_path / "other").mkdir()
    saved = model.save(tmp_path / "other" / "saved.onnx")  # small weights move into the file
    np.testing.assert_array_equal(outside.session(saved).run(None, {"x": np.zeros(6, np.float32)})[0], weights)
    assert ew.load(saved).hash == model.hash


def test_external_data_above_two_gigabytes_costs_no_memory(tmp_path: Path) -> None:
    elements = 600_000_000  # 2.4 GB, as a file with a hole
    with (tmp_path / "w.bin").open("wb") as stream:
        stream.truncate(elements * 4 + 4096)
    model = load_external(tmp_path, external("w", (elements,), "w.bin", offset=4096))
    tensor = model.ir.graph.initializers["w"].const_value
    assert tensor is not None
    assert model.weight_bytes() == elements * 4 > 2**31
    assert isinstance(tensor.numpy().base, np.memmap)
    with refused("E105", "too many for one file"):
        model.to_proto()


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/passwd", "a/../../w.bin", "..\\w.bin", "C:\\w.bin", "\\\\host\\w.bin"]
)
def test_external_data_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 24)
    (tmp_path / "model").mkdir()
    with refused("E206", "path traversal", "`w`"):
        load_external(tmp_path / "model", external("w", (6,), location))


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 24)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "w.bin").symlink_to(tmp_path / "w.bin")
    with refused("E206", "path traversal", "link", "hint: "):
        load_external(tmp_path / "model", external("w", (6,), "w.bin"))
    (tmp_path / "model" / "inside.bin").write_bytes(b"\0" * 24)
    (tmp_path / "model" / "link.bin").symlink_to("inside.bin")
    assert load_external(tmp_path / "model", external("w", (6,), "link.bin"))


@pytest.mark.parametrize(
    ("code", "tensor", "parts"),
    [
        ("E206", external("w", (6,), "absent.bin"), ("missing", "absent.bin")),
        ("E206", external("w", (6,), ""), ("missing",)),
        ("E206", external("w", (6,), "."), ("missing",)),
        ("E206", external("w", (6,), "fifo"), ("missing",)),
        ("E206", external("w", (6,), "n" * 5000), ("missing",)),
        ("E206", external("w", (6,), "a\0b"), ("missing",)),
        ("E202", external("w", (7,), "w.bin"), ("28", "24")),
        ("E202", external("w", (6,), "w.bin", offset=4), ("28", "24")),
        ("E202", external("w", (6,), "w.bin", length=20), ("24", "20")),
        ("E202", external("w", (6,), "w.bin", offset=-4), ("-4", "whole number")),
        ("E202", external("w", (6,), "w.bin", offset="1e3"), ("1e3", "whole number")),
        ("E202", external("w", (6,), "w.bin", offset="9" * 30), ("whole number",)),
        ("E202", external("w", (2**40, 2**40), "w.bin"), ("24",)),
    ],
)
def test_external_data_that_does_not_fit_is_refused(
    code: str, tensor: TensorProto, parts: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 24)
    os.mkfifo(tmp_path / "fifo")
    with refused(code, *parts):
        load_external(tmp_path, tensor)


def test_thousands_of_external_tensors_share_one_map(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.arange(3000, dtype=np.float32).tobytes())
    tensors = [external("w" if i == 0 else f"w{i}", (1,), "w.bin", offset=4 * i) for i in range(3000)]
    model = load_external(tmp_path, *tensors)  # one descriptor each would pass the usual limit of 1024
    last = model.ir.graph.initializers["w2999"].const_value
    assert last is not None
    assert last.numpy().tolist() == [2999.0]
