"""Recipes: built-in ones, TOML files, and what a malformed one is told."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from edgewright import recipe
from edgewright.errors import EdgewrightError
from edgewright.recipe import Recipe, RecipeStep

TEXT = """
description = "mine"
runtimes = ["onnxruntime"]
deploy = false

[[steps]]
pass = "to_float16"
keep = ["/head/conv"]

[convert.openvino]
inference_precision = "f32"
"""


def test_built_in_recipes() -> None:
    assert {"original", "float", "fp16"} <= set(recipe.names())
    assert Recipe.named("original").steps == ()
    assert [step.name for step in Recipe.named("float").steps] == ["fold_constants", "remove_dead", "fold_batchnorm"]
    assert [step.name for step in Recipe.named("fp16").steps][-1] == "to_float16"


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "ein rezept.toml"
    path.write_text(TEXT, encoding="utf-8")
    expected = Recipe(
        "ein rezept",
        "mine",
        (RecipeStep("to_float16", {"keep": ["/head/conv"]}),),
        {"openvino": {"inference_precision": "f32"}},
        ("onnxruntime",),
        False,
    )
    assert Recipe.named(path) == Recipe.named(str(path)) == expected
    assert Recipe.named(expected) is expected


@pytest.mark.parametrize("name", recipe.names())
def test_mapping_round_trip(name: str) -> None:
    made = Recipe.named(name)
    assert Recipe.from_mapping(name, made.to_mapping()) == made


def test_unknown_names_say_the_nearest() -> None:
    with pytest.raises(EdgewrightError, match="did you mean `float`") as caught:
        Recipe.named("flaot")
    assert caught.value.code == "E101"
    with pytest.raises(EdgewrightError, match="known: "):
        Recipe.named("")


@pytest.mark.parametrize("content", [None, b"steps = [", b"\xff\xfe", b"x = 1"])
def test_bad_files(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "r.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EdgewrightError, match=r"r") as caught:
        Recipe.named(path)
    assert caught.value.code == ("E104" if content is None else "E320")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    folder = tmp_path / "r.toml"
    folder.mkdir()
    with pytest.raises(EdgewrightError) as caught:
        Recipe.named(folder)
    assert caught.value.code == "E104"


@pytest.mark.parametrize(
    "text",
    [
        "speed = 3",
        "steps = 3",
        "steps = [1]",
        "[[steps]]\nname = 'x'",
        "[[steps]]\npass = 3",
        "[steps]\npass = 'x'",
        "convert = 3",
        "convert = {openvino = 3}",
        "runtimes = 'onnxruntime'",
        "runtimes = [1]",
        "deploy = 'no'",
        "description = 3",
    ],
)
def test_malformed_recipes_are_named(text: str) -> None:
    with pytest.raises(EdgewrightError, match="recipe `mine`") as caught:
        Recipe.from_mapping("mine", tomllib.loads(text))
    assert caught.value.code == "E320"
