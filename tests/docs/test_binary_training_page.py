"""The code in docs/binary-training.md runs and prints what it says, and the tables name what there is."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from pathlib import Path

import pytest

from edgewright.passes.binarize import Config

torch = pytest.importorskip("torch", reason="the extra `train` is not installed")

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "binary-training.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_code_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(BLOCKS[number], "binary-training.md", "exec"), {})
    said = re.search(r"# (\{.*\}|torch\.Size.*)", BLOCKS[number])
    assert said is not None
    assert printed.getvalue().strip().endswith(said.group(1))


def test_tables_name_the_methods_and_options_with_their_defaults() -> None:
    from edgewright.learn.binary.method import METHODS

    for name in METHODS:
        assert f"| `{name}` |" in PAGE
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    row = ", ".join(str(defaults[name]) for name in ("minutes", "steps", "batch", "rate")).replace("60.0", "60")
    assert f"| {row} |" in PAGE
    assert f"| `least_products` | {defaults['least_products']} |" in PAGE
