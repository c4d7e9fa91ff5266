"""docs/detect.md: the example prints what the page says, the spec is one, every kind of head is explained."""

from __future__ import annotations

import contextlib
import io
import re
import typing
from pathlib import Path

from edgewright.options import build
from edgewright.spec import Spec
from edgewright.tasks import detect

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "detect.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_page_says() -> None:
    ((code, printed),) = re.findall(r"^```python\n(.*?)^```\n```\n(.*?)^```", PAGE, re.M | re.S)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(code, "detect.md", "exec"), {})
    assert shown.getvalue() == printed


def test_the_spec_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)
    (tmp_path / "spec.toml").write_text(text)
    (tmp_path / "coco.names").write_text("person\nbicycle\n")
    spec = Spec.read(tmp_path / "spec.toml")
    options = build(detect.Options, spec.options, where="detect")
    assert options.labels == ("person", "bicycle")
    assert options.heads[0].kind == "yolov8"


def test_every_kind_is_explained() -> None:
    kinds = typing.get_args(typing.get_type_hints(detect.Head)["kind"])
    assert [kind for kind in kinds if f"`{kind}`" not in PAGE] == []
