"""docs/serve.md: the example prints what the page says; options, limits and paths on it are those of the code."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import tomllib
from pathlib import Path

from edgewright.cli.serve_command import command
from edgewright.cli.serving import check
from edgewright.options import build
from edgewright.serve import ModelOptions
from edgewright.serve.protocol.datatypes import NUMPY_NAMES
from edgewright.serve.protocol.limits import MIB, Limits

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_page_says() -> None:
    ((code, printed),) = re.findall(r"^```python\n(.*?)^```\n```\n(.*?)^```", PAGE, re.M | re.S)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(code, "serve.md", "exec"), {})
    assert shown.getvalue() == printed


def test_the_serve_toml_is_valid_and_names_every_option() -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.M | re.S)
    table = tomllib.loads(text)["models"]["lite0"]
    assert build(ModelOptions, table, where="page").max_batch == 8
    assert set(table) == {field.name for field in dataclasses.fields(ModelOptions)}


def test_options_exist_and_limits_are_those_of_the_code() -> None:
    known = {name for each in (command, check.command) for parameter in each.params for name in parameter.opts}
    ours = re.sub(r"^(curl|schemathesis) .*$", "", PAGE, flags=re.M)  # others have options of their own
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", ours)) <= known
    limits = Limits()
    for text in (f"{limits.body_bytes // MIB} MiB", f"{limits.json_bytes // MIB} MiB", f"{limits.bodies_bytes // MIB} MiB",
                 f"{limits.tensors}; {limits.rank}", f"{limits.pixels // 10**6} megapixels", f"{limits.body_s:g} s"):  # fmt: skip
        assert text in PAGE
    for datatype in NUMPY_NAMES:
        assert datatype in PAGE or datatype in ("UINT16", "UINT32", "INT16", "INT32")
