"""The code in docs/binary.md runs and prints what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from edgewright import kernels

PAGE = Path(__file__).resolve().parents[2] / "docs" / "binary.md"


@pytest.mark.skipif(kernels.variants() == (kernels.NUMPY,), reason="needs the C++ kernels: built without a compiler")
def test_code_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, str(PAGE), "exec"), {})
    assert printed.getvalue() == f"{kernels.variants()} (1, 56, 56, 16)\n"
