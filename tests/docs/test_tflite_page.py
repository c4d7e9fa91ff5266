"""docs/tflite.md: the example prints what the page says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tflite.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_page_says() -> None:
    pytest.importorskip("ai_edge_litert")
    ((code, printed),) = re.findall(r"^```python\n(.*?)^```\n```\n(.*?)^```", PAGE, re.M | re.S)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(code, "tflite.md", "exec"), {})
    assert shown.getvalue() == printed
