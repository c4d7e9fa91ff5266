"""Spec: what may stand in it, files, and the template that `edgewright spec init` writes."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.errors import EdgewrightError
from edgewright.model import Model, TensorInfo
from edgewright.spec import ImageInput, Spec, TensorInput, template

FULL = Spec(
    {
        "image:0": ImageInput(size=(10, 20), resize="letterbox", crop_fraction=0.5, interpolation="area",
                              antialias=False, colour="bgr", mean=(1.0, 2.0, 3.0), std=(4.0,),
                              layout="nhwc", pad_value=0.0),
        'odd "name"\\': TensorInput(),
    },
    "classify",
    {"labels": ["cat", "Ünï", 'quo"te'], "top": 3, "deep": {"a": [1.5, True]}},
)  # fmt: skip


def test_json_round_trip() -> None:
    assert Spec.from_json(FULL.to_json()) == FULL
    assert Spec.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL
    assert Spec.from_json({}) == Spec()
    assert FULL.takes_photos
    assert not Spec().takes_photos


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": (0, 8)}, "outside 1..16384"),
        ({"size": (8, 99_999)}, "outside 1..16384"),
        ({"crop_fraction": 0.0}, "`crop_fraction` is 0.0"),
        ({"crop_fraction": float("nan")}, "`crop_fraction` is nan"),
        ({"mean": (1.0, 2.0)}, "`mean` has 2 values, but must have 1 or 3"),
        ({"colour": "gray", "std": (1.0, 1.0, 1.0)}, "`std` has 3 values, but must have 1 or 1"),
        ({"std": (1.0, 0.0, 1.0)}, "`std` holds a zero"),
        ({"std": (float("inf"),)}, "`std` holds a value that is not finite"),
        ({"mean": (float("nan"),)}, "`mean` holds a value that is not finite"),
        ({"pad_value": 256.0}, "`pad_value` is 256.0"),
    ],
)
def test_impossible_image_inputs(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgewrightError, match=message) as caught:
        ImageInput(**{"size": (8, 8), **fields})
    assert caught.value.code == "E303"


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"tasks": "classify"}, "E303"),
        ({"inputs": {"x": {"kind": "video"}}}, "E303"),
        ({"inputs": {"x": {}}}, "E303"),
        ({"inputs": {"x": 3}}, "E303"),
        ({"inputs": []}, "E303"),
        ({"options": "top=5"}, "E303"),
        ({"inputs": {"x": {"kind": "image"}}}, "E103"),
        ({"inputs": {"x": {"kind": "image", "size": [8, 8], "colour": "cmyk"}}}, "E103"),
        ({"inputs": {"x": {"kind": "image", "size": [8, 8, 8]}}}, "E103"),
        ({"inputs": {"x": {"kind": "tensor", "size": [8, 8]}}}, "E103"),
    ],
)
def test_malformed_documents(document: dict[str, Any], code: str) -> None:
    with pytest.raises(EdgewrightError) as caught:
        Spec.from_json(document)
    assert caught.value.code == code


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(FULL.to_json()), encoding="utf-8")
    assert Spec.read(tmp_path / "a.json") == FULL
    (tmp_path / "a.toml").write_text('task = "classify"\n[inputs.x]\nkind = "image"\nsize = [8, 9]\n')
    assert Spec.read(tmp_path / "a.toml").inputs["x"] == ImageInput(size=(8, 9))


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.toml", b"task = ", "E303"),
        ("a.toml", b"\xff\xfe", "E303"),
        ("a.json", b"[]", "E303"),
        ("a.json", b"{", "E303"),
        ("gone.toml", None, "E104"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes | None, code: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(EdgewrightError) as caught:
        Spec.read(tmp_path / name)
    assert caught.value.code == code


def test_labels_file_is_read_into_the_spec(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes("\ufefftench\r\ngreat white shark \r\n\r\n".encode())
    (tmp_path / "a.toml").write_text('task = "classify"\n[options]\nlabels_file = "classes.txt"\ntop = 3\n')
    assert Spec.read(tmp_path / "a.toml").options == {"labels": ["tench", "great white shark"], "top": 3}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ('labels_file = "gone.txt"', "E104"),
        ("labels_file = 3", "E303"),
        ('labels_file = "a.toml"\nlabels = ["a"]', "E303"),
        ('labels_file = "bad.txt"', "E303"),
    ],
)
def test_bad_labels_files(tmp_path: Path, options: str, code: str) -> None:
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "a.toml").write_text(f'task = "classify"\n[options]\n{options}\n')
    with pytest.raises(EdgewrightError) as caught:
        Spec.read(tmp_path / "a.toml")
    assert caught.value.code == code


# --- template -------------------------------------------------------------------------------------------------------

HEADER = '<ir_version: 10, opset_import: ["" : 21]>'


def network(model_from_text: Callable[..., Any], inputs: str, outputs: str, **fields: Any) -> Model:
    names = [part.split()[-1].split("]")[-1].strip() for part in inputs.split(";")]
    body = f"{outputs.rsplit(']', maxsplit=1)[-1].strip()} = Reshape({names[0]}, sizes)"
    text = f"{HEADER} g ({inputs.replace(';', ',')}, int64[2] sizes) => ({outputs}) {{ {body} }}"
    model: Model = model_from_text(text, **fields)
    return model


def read(text: str, tmp_path: Path) -> Spec:
    (tmp_path / "spec.toml").write_text(text, encoding="utf-8")
    return Spec.read(tmp_path / "spec.toml")


@pytest.mark.parametrize(
    ("inputs", "item"),
    [
        ("float[N, 3, 64, 48] image", ImageInput(size=(64, 48))),
        ("float[1, 28, 28, 1] image", ImageInput(size=(28, 28), colour="gray", layout="nhwc")),
        ("float16[N, 3, H, W] image", ImageInput(size=(224, 224))),
        ("uint8[1, 64, 64, 3] image", ImageInput(size=(64, 64), layout="nhwc", mean=(0.0,), std=(1.0,))),
        ("float[N, 16, 8, 8] image", TensorInput()),
        ("int64[1, 3, 8, 8] image", TensorInput()),
        ("float[N, 40] image", TensorInput()),
    ],
)
def test_template_reads_shapes_and_marks_guesses(
    model_from_text: Callable[..., Any], tmp_path: Path, inputs: str, item: ImageInput | TensorInput
) -> None:
    model = network(model_from_text, inputs, "float[N, 10] scores")
    text = template(model)
    spec = read(text, tmp_path)
    spec.check(model.inputs)
    assert spec.inputs["image"] == item
    block = text[text.index("[inputs.") :].partition("\n\n")[0]
    for line in block.splitlines()[1:]:
        name = line.partition(" ")[0]
        read_from_shape = name == "layout" or (name == "size" and "H, W" not in inputs)
        assert ("please check" in line) != read_from_shape, line


def test_template_guesses_the_task_only_for_one_image_and_one_row_of_scores(
    model_from_text: Callable[..., Any], tmp_path: Path
) -> None:
    text = f"{HEADER} g (float[N, 3, 8, 8] image) => (float[N, 10, 1, 1] y) {{ y = Identity(image) }}"
    guessed = template(model_from_text(text))
    assert 'task = "classify"   # please check' in guessed
    assert read(guessed, tmp_path).task == "classify"
    for outputs in ("float[N, 3, 8, 8] y", "float[N, 1] y", "float[N, C] y"):
        text = f"{HEADER} g (float[N, 3, 8, 8] image) => ({outputs}) {{ y = Identity(image) }}"
        assert read(template(model_from_text(text)), tmp_path).task == "tensor"


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ("float[1, 84, 84] y", "yolov8"), ("float[N, 6, 84] y", "yolov8"), ("float[1, 252, 7] y", "yolov5"),
        ("float[1, 84, 6] y", None), ("float[1, 100, 6] y", None), ("float[1, A, 6] y", None), ("float[252, 1] y", None),
    ],
)  # fmt: skip
def test_template_guesses_boxes_by_their_number(
    model_from_text: Callable[..., Any], tmp_path: Path, output: str, kind: str | None
) -> None:
    """64 x 64 pixels have 64 + 16 + 4 cells of 8, 16 and 32 pixels."""
    text = f"{HEADER} g (float[N, 3, 64, 64] image) => ({output}) {{ y = Identity(image) }}"
    written = template(model_from_text(text))
    spec = read(written, tmp_path)
    if kind is None:
        assert spec.task == "tensor"
        return
    assert (spec.task, spec.options["heads"]) == ("detect", [{"kind": kind, "output": "y"}])
    item = spec.inputs["image"]
    assert isinstance(item, ImageInput)
    assert (item.resize, item.mean, item.std) == ("letterbox", (0.0,), (255.0,))
    assert "heads = [\n" in written
    assert "# labels = " in written


def test_template_writes_tables_of_heads(model_from_text: Callable[..., Any], tmp_path: Path) -> None:
    heads = [
        {"kind": "yolo", "output": "a b", "anchors": [[1.5, 2.0], [3.0, 4.0]], "new_coords": False, "scores": None}
    ]
    text = f"{HEADER} g (float[N, 3, 8, 8] image) => (float[N, 3] y) {{ y = Identity(image) }}"
    known = Spec({"image": ImageInput(size=(8, 8))}, "detect", {"heads": heads, "labels": None})
    written = template(model_from_text(text, spec=known))
    without = {key: value for key, value in heads[0].items() if value is not None}
    assert read(written, tmp_path) == replace(known, options={"heads": [without]})
    bare = template(model_from_text(text, spec=Spec({}, "detect", {"threshold": 0.5})))
    assert "# heads = " in bare
    assert read(bare, tmp_path).options == {"threshold": 0.5}


def test_template_keeps_what_is_known(model_from_text: Callable[..., Any], tmp_path: Path) -> None:
    text = f"{HEADER} g (float[N, 3, 8, 8] image) => (float[N, 3] y) {{ y = Identity(image) }}"
    spec = Spec({"image": replace(FULL.inputs["image:0"], size=(8, 8), layout="nchw")}, "classify", FULL.options)  # type: ignore[type-var]
    written = template(model_from_text(text, spec=spec))
    assert "please check" not in written
    assert read(written, tmp_path) == spec


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_template_survives_any_name(name: str) -> None:
    class Named:
        spec = Spec({name: ImageInput(size=(8, 8))}, "classify", {"labels": [name]})
        inputs = (TensorInfo(name, "float32", (1, 3, 8, 8)),)
        outputs = (TensorInfo(name, "float32", (1, 1)),)

    Named.name = name  # type: ignore[attr-defined]
    assert Spec.from_json(tomllib.loads(template(Named()))) == Named.spec  # type: ignore[arg-type]
