"""Task `detect` gives Darknet's own detections from Darknet's own outputs, and prepares photos as Darknet does."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import edgewright as ew
from edgewright.cli import group
from edgewright.importers import darknet
from edgewright.samples.images import decode, preprocess, resize
from edgewright.spec import ImageInput, Spec
from edgewright.tasks import detect
from edgewright.tasks.detect._boxes import to_centres

#: How far a score, and a box in parts of the image's side, may be from Darknet's. Source: README of the oracle packs.
NEAR = 1e-4
ANCHORS = [[8, 10], [14, 12], [16, 28], [34, 30], [50, 64], [88, 80]]


def yolo(layer: int, anchors: list[list[int]]) -> dict[str, Any]:
    return {"kind": "yolo", "output": f"layer_{layer:03d}", "classes": 4, "anchors": anchors}


REGION = {"kind": "region", "output": "layer_020", "classes": 5,
          "anchors": [[0.6, 0.7], [1.9, 2.1], [3.3, 5.5], [5.9, 3.5], [4.8, 4.2]]}  # fmt: skip
DETECTION = {"kind": "detection", "output": "layer_014", "classes": 3, "side": 3, "boxes": 2, "sqrt": True}
PACKS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "yolov3_tiny": ("default", [yolo(16, ANCHORS[3:]), yolo(23, ANCHORS[:3])]),
    "yolov4_tiny": ("greedy", [yolo(30, ANCHORS[3:]), yolo(37, ANCHORS[1:4])]),
    "yolov4_mini": ("greedy", [yolo(72, ANCHORS[:3]), yolo(79, ANCHORS[3:])]),
    "yolov2": ("default", [REGION]),
    "yolov1_local": ("default", [DETECTION]),
}


def of_pack(folder: Path, heads: list[dict[str, Any]], **options: Any) -> detect.Detections:
    """What the task makes of the outputs that Darknet stored."""
    stored = np.load(folder / "outputs.npz")
    rows = json.loads((folder / "layers.json").read_text(encoding="utf-8"))["layers"]
    shapes = {f"layer_{row['index']:03d}": row["shape"] for row in rows}
    outputs = {head["output"]: stored[head["output"]].reshape(1, *shapes[head["output"]]) for head in heads}
    item = ImageInput(size=(96, 96), resize="stretch")
    return detect.postprocess(outputs, Spec({"x": item}, "detect", {"heads": heads, **options}))


def rows_of(result: detect.Detections) -> list[tuple[int, float, list[float]]]:
    boxes = to_centres(result.boxes[: result.found].astype(np.float64)).tolist()
    return sorted(zip(result.classes[: result.found].tolist(), result.scores.tolist(), boxes, strict=False))


def assert_same(got: list[Any], want: list[Any]) -> None:
    assert [row[0] for row in got] == [row[0] for row in want]
    np.testing.assert_allclose([row[1] for row in got], [row[1] for row in want], rtol=0, atol=NEAR)
    np.testing.assert_allclose([row[2] for row in got], [row[2] for row in want], rtol=NEAR, atol=NEAR)


@pytest.mark.parametrize("pack", PACKS)
def test_boxes_equal_darknets(data: Path, pack: str) -> None:
    folder = data / "darknet-oracle" / pack
    told = json.loads((folder / "detections.json").read_text(encoding="utf-8"))
    nms, heads = PACKS[pack]
    assert nms == ("default", "greedy", "diou", "corners")[told["nms_kind"]]
    limits = {"threshold": told["thresh"], "nms_threshold": told["nms"]}
    # Darknet gives the boxes of [detection] in pixels
    scale = np.array([told["image_w"], told["image_h"]] * 2) if pack == "yolov1_local" else np.ones(4)
    raw = [
        (int(index), prob, (np.array(row["box"]) / scale).tolist())
        for row in told["raw"]
        for index, prob in row["probs"].items()
    ]
    assert_same(rows_of(of_pack(folder, heads, nms="none", **limits)), sorted(raw))
    kept = sorted((row["class"], row["prob"], (np.array(row["box"]) / scale).tolist()) for row in told["kept"])
    result = of_pack(folder, heads, nms=nms, **limits)
    assert_same(rows_of(result), kept)
    assert (len(kept) < len(raw)) == (pack in ("yolov3_tiny", "yolov4_tiny"))  # the others have nothing to drop


def test_the_kind_of_suppression_matters(data: Path) -> None:
    """The pack tells IoU from distance IoU: a test that would pass with either proves nothing."""
    nms, heads = PACKS["yolov4_tiny"]
    folder = data / "darknet-oracle" / "yolov4_tiny"
    assert of_pack(folder, heads, nms=nms).found > of_pack(folder, heads, nms="default").found


# --- whole networks -----------------------------------------------------------------------------------------------------


def run_photo(network: Path, photo: Path, labels: Path) -> tuple[detect.Detections, Any]:
    model = darknet.load(network, darknet.Options(labels=labels))
    (sample,) = ew.Samples.open(photo, model, labels="none")
    with ew.open(model) as session:
        result = detect.postprocess(session.run(sample.arrays), model.spec)
    with Image.open(photo) as image:
        return detect.place_result(result, image.size, model.spec), model


def test_the_trained_network_finds_what_darknet_finds(data: Path) -> None:
    """From Darknet's own input, through our network: the same boxes."""
    folder = data / "darknet-oracle" / "real_yolofastest_1.1"
    told = json.loads((folder / "detections.json").read_text(encoding="utf-8"))
    model = darknet.load(folder / "net.cfg", darknet.Options())
    spec = replace(model.spec, options={**model.spec.options, "threshold": told["thresh"]})
    with ew.open(model) as session:
        stored = np.load(folder / "input.npy").astype(np.float32) / np.float32(255)
        result = detect.postprocess(session.run({"image": stored[None]}), spec)
    assert_same(rows_of(result), sorted((row["class"], row["prob"], row["box"]) for row in told["kept"]))


#: The best box of each class above 0.5, by network and photo: what there is to see, and what the smaller ones mistake.
SEEN: dict[tuple[str, str, str], dict[str, float]] = {
    ("yolo-fastest", "coco", "eagle"): {"bird": 0.95},
    ("yolo-fastest-1.1", "coco", "dog"): {"bicycle": 0.55, "car": 0.88, "cat": 0.54, "dog": 0.65},
    ("yolo-fastest-1.1-xl", "coco", "dog"): {"bicycle": 0.89, "car": 0.84, "dog": 0.96},
    ("yolo-fastest-1.1-xl", "coco", "person"): {"cow": 0.97, "dog": 0.98, "person": 0.99},
    ("yolo-fastest-1.1_body", "body", "person"): {"body": 1.0},
    ("MobileNetV2-YOLO-Fastest-voc-v2", "voc", "eagle"): {"bird": 0.99},
}


@pytest.mark.parametrize(("network", "labels", "photo"), SEEN)
def test_photos_show_what_is_there(data: Path, network: str, labels: str, photo: str) -> None:
    """Those of 1.1-xl are what OpenCV found, whose resize is another; scores may differ by a few hundredths."""
    folder = data / "darknet"
    result, _ = run_photo(folder / f"{network}.cfg", folder / "photos" / f"{photo}.jpg", folder / f"{labels}.names")
    best: dict[str, float] = {}
    for index, score in zip(result.classes.tolist(), result.scores.tolist(), strict=True):
        if score > 0.5:
            best.setdefault(result.name(index), score)
    assert best == pytest.approx(SEEN[network, labels, photo], abs=0.05)


def test_boxes_lie_where_the_things_are(data: Path, tmp_path: Path) -> None:
    """In dog.jpg (768 x 576) the dog sits left at the bottom, the car stands right at the top; `run` prints and draws it."""
    folder = data / "darknet"
    result, model = run_photo(folder / "yolo-fastest-1.1-xl.cfg", folder / "photos" / "dog.jpg", folder / "coco.names")
    at = {result.name(int(index)): box for index, box in zip(result.classes[::-1], result.boxes[::-1], strict=True)}
    np.testing.assert_allclose(at["dog"], [130 / 768, 220 / 576, 320 / 768, 545 / 576], atol=0.1)
    np.testing.assert_allclose(at["car"], [465 / 768, 75 / 576, 690 / 768, 170 / 576], atol=0.1)
    ew.convert(model, "onnxruntime", tmp_path / "bundle")
    called = CliRunner().invoke(
        group, ["run", str(tmp_path / "bundle"), str(folder / "photos" / "dog.jpg"), "--draw", str(tmp_path)]
    )
    assert called.exit_code == 0, called.output
    assert re.search(
        r"^dog.jpg: \d boxes\n  dog     0\.\d\d  x 1\d\d to 3\d\d, y 1\d\d to 5\d\d\n  bicycle 0\.", called.output, re.M
    )
    with Image.open(tmp_path / "dog.png") as drawn:
        assert drawn.size == (768, 576)


# --- preprocessing ------------------------------------------------------------------------------------------------------

DARKNET = ImageInput(size=(320, 320), resize="stretch", interpolation="darknet", mean=(0.0,), std=(255.0,))


def test_preprocessing_is_darknets(data: Path) -> None:
    """The stored input is rounded to 8 bits (0.25 on average) and its JPEG was decoded by another library."""
    folder = data / "darknet-oracle" / "real_yolofastest_1.1"
    made = preprocess(decode(folder / "dog.jpg", DARKNET), DARKNET)[0] * 255
    apart = np.abs(made - np.load(folder / "input.npy").astype(np.float32))
    assert apart.mean() < 0.35
    assert apart.max() < 4
    other = ImageInput(
        size=(320, 320), resize="stretch", interpolation="bilinear", antialias=False, mean=(0,), std=(1,)
    )
    usual = preprocess(decode(folder / "dog.jpg", other), other)[0]
    assert np.abs(usual - np.load(folder / "input.npy")).mean() > 2 * apart.mean()


def resized_by_c(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Darknet's loops for one channel f32[H, W], in its order and its float32."""
    one = np.float32(1)
    part = np.zeros((len(pixels), width), np.float32)
    across = np.float32(pixels.shape[1] - 1) / np.float32(max(width - 1, 1))
    for row, line in enumerate(pixels):
        for column in range(width):
            if column == width - 1 or len(line) == 1:
                part[row, column] = line[-1]
            else:
                place = np.float32(column) * across
                low = int(place)
                t = place - np.float32(low)
                part[row, column] = (one - t) * line[low] + t * line[low + 1]
    made = np.zeros((height, width), np.float32)
    down = np.float32(len(pixels) - 1) / np.float32(max(height - 1, 1))
    for row in range(height):
        place = np.float32(row) * down
        low = min(int(place), len(pixels) - 1) if row < height - 1 else len(pixels) - 1
        t = place - np.float32(low) if row < height - 1 else np.float32(0)
        made[row] = (one - t) * part[low]
        if row < height - 1 and len(pixels) > 1:
            made[row] += t * part[low + 1]
    return made


@pytest.mark.parametrize("size", [(5, 7), (13, 4), (1, 6), (6, 1), (20, 30), (11, 9)])
def test_resize_equals_the_loops(size: tuple[int, int], rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (11, 9), np.uint8)
    got = resize(Image.fromarray(pixels), size, "darknet")
    np.testing.assert_allclose(got, resized_by_c(pixels.astype(np.float32), *size), rtol=0, atol=1e-4)
    assert got[-1, -1] == pixels[-1, -1]


def test_resize_to_the_same_size_is_a_copy(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (12, 17, 3), np.uint8)
    np.testing.assert_array_equal(resize(Image.fromarray(pixels), (12, 17), "darknet"), pixels)
    grey = resize(Image.fromarray(pixels[:1, :1, 0]), (4, 3), "darknet")
    np.testing.assert_array_equal(grey, np.full((4, 3), pixels[0, 0, 0]))


def test_letterbox_cuts_sides_to_whole_pixels() -> None:
    """A photo of 100 x 67 in 64 x 64: 67 x 64 / 100 = 42.88 rows, which Darknet cuts off to 42; it starts in row 11."""
    photo = Image.new("L", (100, 67), 255)
    item = ImageInput(
        size=(64, 64),
        resize="letterbox",
        interpolation="darknet",
        colour="gray",
        mean=(0,),
        std=(255,),
        pad_value=127.5,
    )
    column = preprocess(photo, item)[0, 0, :, 5]
    assert column.tolist() == [0.5] * 11 + [1.0] * 42 + [0.5] * 11
