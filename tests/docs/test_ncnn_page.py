"""docs/ncnn.md: the example prints what the page says, and every layer that is read is named."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from edgewright.importers.ncnn._network import BUILDERS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "ncnn.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_page_says() -> None:
    ((code, printed),) = re.findall(r"^```python\n(.*?)^```\n```\n(.*?)^```", PAGE, re.M | re.S)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(code, "ncnn.md", "exec"), {})
    assert shown.getvalue() == printed


def test_every_layer_is_named() -> None:
    plain = {re.sub("(DepthWise)?([123]D)?$", "", name) for name in BUILDERS}
    assert [name for name in sorted(plain) if not re.search(rf"\b{name}\b", PAGE)] == []
