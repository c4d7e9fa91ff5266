"""Labels of task `detect`: files in YOLO's format, where they lie, and how they meet the network's boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgewright as ew
from edgewright.errors import EdgewrightError
from edgewright.samples import Samples
from edgewright.spec import ImageInput, Spec, TensorInput
from edgewright.tasks import detect

HEAD = {"kind": "yolov8", "output": "y", "classes": 3}
STRETCH = Spec({"x": ImageInput(size=(32, 32), resize="stretch")}, "detect", {"heads": [HEAD]})
LETTERBOX = Spec({"x": ImageInput(size=(32, 32), resize="letterbox")}, "detect", {"heads": [HEAD]})


def photo(path: Path, shade: int = 0, size: tuple[int, int] = (40, 20), **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 0, 0)).save(path, **options)


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_lines_are_boxes(tmp_path: Path) -> None:
    label = detect.parse_label(write(tmp_path / "a.txt", "2 0.5 0.5 0.5 0.25\n\n0 0.25 0.25 0.5 0.5\n"), STRETCH)
    assert label.classes.tolist() == [2, 0]
    assert label.boxes.tolist() == [[0.25, 0.375, 0.75, 0.625], [0, 0, 0.5, 0.5]]
    again = detect.parse_label(write(tmp_path / "b.txt", "2 .5 .5 .5 .25\n0 .25 .25 .5 .5"), STRETCH)
    assert again == label
    assert str(tmp_path) not in repr(label)
    empty = detect.parse_label(write(tmp_path / "c.txt", ""), STRETCH)
    assert (empty.boxes.shape, empty.classes.shape) == ((0, 4), (0,))
    assert empty != label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.5", "line 1: 4 numbers"),
        ("0 0.5 0.5 0.5 0.5\n1 2 3 4 5 6", "line 2: 6 numbers"),
        ("dog 0.5 0.5 0.5 0.5", "class 'dog' is not a whole number"),
        ("-1 0.5 0.5 0.5 0.5", "class '-1' is not"),
        ("3 0.5 0.5 0.5 0.5", r"class 3 is outside 0\.\.2"),
        ("9999999999 0.5 0.5 0.5 0.5", "class 9999999999 is outside"),
        ("0 0.5 0.5 x 0.5", "is not four numbers"),
        ("0 0.5 0.5 nan 0.5", "not inside 0..1"),
        ("0 0.5 0.5 inf 0.5", "not inside 0..1"),
        ("0 320 240 64 48", "not inside 0..1"),
        ("0 0.5 0.5 0 0.5", "has no area"),
    ],
)
def test_malformed_lines(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EdgewrightError, match=message) as caught:
        detect.parse_label(write(tmp_path / "a.txt", text), STRETCH)
    assert caught.value.code == "E305"


def test_files_that_are_no_labels(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "b.txt").write_bytes(b"0 0.5 0.5 0.5 0.5\n" * 100_000)
    for name, message in (("a.txt", "not UTF-8"), ("b.txt", "more than"), ("c.txt", "No such file")):
        with pytest.raises(EdgewrightError, match=message) as caught:
            detect.parse_label(str(tmp_path / name), STRETCH)
        assert caught.value.code == "E305"


def test_names_say_how_many_classes_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "4 0.5 0.5 0.5 0.5")
    open_ended = Spec({}, "detect", {"heads": [{**HEAD, "classes": 0}]})
    assert detect.parse_label(path, open_ended).classes.tolist() == [4]
    with pytest.raises(EdgewrightError, match=r"outside 0\.\.1"):
        detect.parse_label(path, Spec({}, "detect", {**open_ended.options, "labels": ["dog", "cat"]}))


def test_labels_need_the_whole_photo(tmp_path: Path) -> None:
    with pytest.raises(EdgewrightError, match="made by `crop`"):
        detect.parse_label(write(tmp_path / "a.txt", ""), Spec({"x": ImageInput(size=(8, 8))}, "detect"))


@pytest.mark.parametrize("under", ["", "images/", "images/val/"])
def test_labels_lie_beside_photos_or_in_labels(tmp_path: Path, under: str) -> None:
    for number in range(2):
        photo(tmp_path / f"{under}{number}.jpg", shade=40 * number)
        write(tmp_path / f"{under.replace('images', 'labels')}{number}.txt", f"{number} 0.5 0.5 0.5 0.5\n")
    for folder in {tmp_path, (tmp_path / under)}:
        samples = Samples.open(folder, STRETCH)
        assert [sample.label.classes.tolist() for sample in samples] == [[0], [1]]
        assert samples.labelled
        assert "labels from .txt files" in samples.layout
    assert not Samples.open(tmp_path, STRETCH, labels="none").labelled


def test_a_photo_without_label_stays_unlabelled(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg", shade=90)
    write(tmp_path / "a.txt", "")
    samples = Samples.open(tmp_path, STRETCH)
    labels = [sample.label for sample in samples]
    assert labels[0] is not None
    assert labels[1] is None
    assert not samples.labelled
    assert any("photos without a .txt file stay unlabelled (1)" in note for note in samples.notes)
    (tmp_path / "a.txt").unlink()
    assert "labels" not in Samples.open(tmp_path, STRETCH).layout


def test_a_bad_label_names_its_file(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", "7 0.5 0.5 0.5 0.5")
    with pytest.raises(EdgewrightError, match=r"`labels/a\.txt`: .*line 1: class 7 is outside"):
        Samples.open(tmp_path, STRETCH)


def test_labels_of_a_table(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    write(tmp_path / "truth" / "x.txt", "1 0.5 0.5 1 1")
    write(tmp_path / "labels.csv", "file,label\na.jpg,truth/x.txt\n")
    (sample,) = Samples.open(tmp_path, LETTERBOX)
    assert sample.label.boxes.tolist() == [[0, 0.25, 1, 0.75]]


def test_labels_turn_with_the_photo(tmp_path: Path) -> None:
    """A photo stored lying (40 x 20) and shown upright (20 x 40): bars are left and right."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(tmp_path / "a.jpg", exif=exif)
    write(tmp_path / "a.txt", "1 0.5 0.5 1 1")
    samples = Samples.open(tmp_path, LETTERBOX)
    (sample,) = samples
    assert sample.label.boxes.tolist() == [[0.25, 0, 0.75, 1]]
    assert samples.photo_size("a.jpg") == (20, 40)


def test_labels_beside_arrays_are_in_parts_of_the_input(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "1 0.5 0.5 0.5 0.5")
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 3), np.float32), label=np.array(["a.txt"]))
    (sample,) = Samples.open(
        tmp_path / "x.npz", Spec({"x": TensorInput()}, "detect", {"heads": [HEAD], "size": [8, 8]})
    )
    assert sample.label.boxes.tolist() == [[0.25, 0.25, 0.75, 0.75]]


def test_the_real_labels_fit(data: Path) -> None:
    heads = [{**HEAD, "classes": 80}]
    item = ImageInput(size=(320, 320), resize="letterbox")
    samples = Samples.open(data / "coco128-val", Spec({"x": item}, "detect", {"heads": heads}))
    assert samples.labelled
    assert (len(samples), sum(len(item.label.classes) for item in samples._items)) == (64, 461)


def test_verify_finds_what_labels_say(
    tmp_path: Path, model_from_text: Callable[..., Any], rng: np.random.Generator
) -> None:
    """A network that always marks the middle of a letterboxed photo of 40 x 20: rows 12 to 20 of 32."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[1,3,32,32] x) => (float[1,7,1] y)
    <float[1,7,1] box = {16, 16, 16, 8, 0, 0.9, 0}>
    { m = ReduceMean <keepdims = 0> (x) z = Sub (m, m) y = Add (box, z) }"""
    model = model_from_text(text, spec=LETTERBOX)
    for number in range(4):
        photo(tmp_path / "set" / f"{number}.jpg", shade=50 * number)
        write(tmp_path / "set" / f"{number}.txt", "1 0.5 0.5 0.5 0.5")
    samples = Samples.open(tmp_path / "set", model, roles="judge")
    bundle = ew.convert(model, "onnxruntime", tmp_path / "bundle")
    report = ew.verify(model, bundle, samples)
    assert report.decision == "pass"
    assert report.agreement == "mAP@0.5 against the original's boxes"
    assert report.metric["mAP@0.5:0.95"] == (1.0, 1.0)
    write(tmp_path / "set" / "0.txt", "1 0.5 0.5 0.25 0.25")
    worse = ew.verify(model, bundle, Samples.open(tmp_path / "set", model, roles="judge"))
    assert worse.metric["mAP@0.5"][0] < 1
