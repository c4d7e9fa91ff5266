"""Networks that Darknet itself ran: every layer of every oracle pack on three runtimes, and nets trained by others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import find_data

import edgewright as ew
from edgewright.spec import ImageInput

RUNTIMES = ("reference", "onnxruntime", "openvino")
FOLDER = (find_data() or Path("absent")) / "darknet-oracle"
PACKS = sorted(path.parent.name for path in FOLDER.glob("*/net.cfg"))
#: Noise that Darknet itself makes by folding batch-norm, times this, is the limit (README of the packs).
FLOORS = 10
REAL = {
    "MobileNetV2-YOLO-Fastest-voc-v2": ("voc", 20, "layer_073", 1.1),
    "yolo-fastest": ("coco", 80, "layer_115", 1.0),
    "yolo-fastest-1.1": ("coco", 80, "layer_121", 1.0),
    "yolo-fastest-1.1-xl": ("coco", 80, "layer_121", 1.0),
    "yolo-fastest-1.1_body": ("body", 1, "layer_121", 1.0),
}
Tolerance = dict[str, dict[str, float]]


def pack(name: str) -> tuple[ew.Model, np.ndarray, dict[str, np.ndarray], dict[str, Any]]:
    folder = FOLDER / name
    x = np.load(folder / "input.npy")
    if x.dtype == np.uint8:
        x = x.astype(np.float32) / np.float32(255)
    with np.load(folder / "outputs.npz") as stored:
        outputs = dict(stored)
    layers = json.loads((folder / "layers.json").read_text())["layers"]
    return ew.load(folder / "net.cfg"), x[None], outputs, {f"layer_{row['index']:03d}": row for row in layers}


@pytest.mark.skipif(not PACKS, reason="needs the test data folder: set EDGEWRIGHT_DATA")
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", PACKS)
def test_every_layer_is_what_darknet_computes(name: str, runtime: str, tolerance: Tolerance) -> None:
    model, x, stored, rows = pack(name)
    with ew.open(model, runtime=runtime) as session:
        outputs = session.run({"image": x}, outputs=list(stored))
    for key, wanted in stored.items():
        row = rows[key]
        assert list(outputs[key].shape) == [1, *row["shape"]], key
        got = outputs[key].reshape(-1)[:: row["steps"][0]["stride"]].astype(np.float64)
        limit = max(tolerance["float32"]["rel_l2"], FLOORS * row["fold_floor"]["rel_l2"])
        assert np.linalg.norm(got - wanted) <= limit * np.linalg.norm(wanted.astype(np.float64)), f"{key} {row['type']}"


@pytest.mark.skipif(not PACKS, reason="needs the test data folder: set EDGEWRIGHT_DATA")
def test_a_wrong_layer_is_seen(tolerance: Tolerance) -> None:
    """The comparison above fails where one weight of one layer is another."""
    model, x, stored, rows = pack("resnet")
    copy = model.clone_ir()
    weight = copy.graph.initializers["layer_010.bn.scale"]
    changed = weight.const_value.numpy().copy()
    changed[0] *= 1.001
    import onnx_ir as ir

    weight.const_value = ir.tensor(changed, name=weight.name)
    with ew.open(model.with_ir(copy), runtime="reference") as session:
        outputs = session.run({"image": x}, outputs=["layer_009", "layer_010"])
    distances = []
    for key in ("layer_009", "layer_010"):
        got = outputs[key].reshape(-1)[:: rows[key]["steps"][0]["stride"]]
        distances.append(np.linalg.norm(got - stored[key]) / np.linalg.norm(stored[key]))
    assert distances[0] < tolerance["float32"]["rel_l2"] < distances[1]


@pytest.mark.parametrize("name", REAL)
def test_trained_networks_load_and_run(data: Path, name: str) -> None:
    labels, classes, output, scale = REAL[name]
    folder = data / "darknet"
    model = ew.load(folder / f"{name}.cfg", labels=folder / f"{labels}.names")
    assert model.spec.task == "detect"
    options = model.spec.options
    assert (options["nms"], options["beta"], len(options["labels"]), len(options["heads"])) == (
        "greedy",
        0.6,
        classes,
        2,
    )
    head = options["heads"][0]
    assert (head["kind"], head["output"], head["classes"], head["scale_x_y"]) == ("yolo", output, classes, scale)
    assert len(head["anchors"]) == 3
    assert [info.shape[1] for info in model.outputs] == [3 * (5 + classes)] * 2
    image = model.spec.inputs["image"]
    assert isinstance(image, ImageInput)
    assert (image.size, image.resize, image.mean, image.std) == ((320, 320), "stretch", (0.0,), (255.0,))
    with ew.open(model) as session:
        outputs = session.run({"image": np.full((2, 3, 320, 320), 0.5, np.float32)})
    for info in model.outputs:
        boxes = outputs[info.name].reshape(2, 3, 5 + classes, -1)
        assert np.isfinite(boxes).all()
        assert (boxes[:, :, 4:] >= 0).all()
        assert (boxes[:, :, 4:] <= 1).all()
