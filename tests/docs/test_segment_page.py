"""docs/segment.md: the example prints what the page says, spec and recipe are such, every option and score is explained."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from pathlib import Path

import pytest

from edgewright import registry
from edgewright.options import build
from edgewright.recipe import Recipe
from edgewright.spec import Spec
from edgewright.tasks import segment

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "segment.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((code, printed),) = re.findall(r"^```python\n(.*?)^```\n```\n(.*?)^```", PAGE, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(code, "segment.md", "exec"), {})
    assert shown.getvalue() == printed
    assert all(f"`{line.rsplit(maxsplit=1)[0].strip()}`" in PAGE for line in printed.splitlines()[:4])


def test_spec_and_recipe_are_such(tmp_path: Path) -> None:
    spec_text, recipe_text = re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)
    (tmp_path / "spec.toml").write_text(spec_text)
    options = build(segment.Options, Spec.read(tmp_path / "spec.toml").options, where="segment")
    assert options.ignore == len(options.labels or ())
    (tmp_path / "mine.toml").write_text(recipe_text)
    steps = Recipe.named(tmp_path / "mine.toml").steps
    assert {step.name for step in steps} <= set(registry.names("passes"))
    assert steps[-1].name == "append_argmax"


def test_every_option_is_explained() -> None:
    assert [field.name for field in dataclasses.fields(segment.Options) if f"`{field.name}`" not in PAGE] == []
