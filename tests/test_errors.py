"""Every error code formats, is used and has a page; error texts have no forgotten `f` prefix and no two-argument raise."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path

import pytest

from edgewright.errors import CODES, EdgewrightError

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src" / "edgewright").rglob("*.py"))


@pytest.mark.parametrize("code", sorted(CODES))
def test_code_formats(code: str) -> None:
    error = EdgewrightError(code, "a `thing` is wrong", details=("where",), hint="edgewright doctor")
    assert str(error) == f"error[{code}]: a `thing` is wrong\n  where\n\nhint: edgewright doctor"
    assert error.exit_code == (1 if code in {"E310", "E311"} else 2)
    again = pickle.loads(pickle.dumps(error))  # errors cross process borders in bench
    assert again.to_json() == error.to_json()


def test_unknown_code_is_our_bug() -> None:
    with pytest.raises(AssertionError):
        EdgewrightError("E999", "never")


def test_every_code_is_raised_somewhere_and_documented() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES if path.name != "errors.py")
    unused = [code for code in CODES if f'"{code}"' not in text]
    assert unused == []
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert [code for code in CODES if f"## {code}" not in page] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_error_texts(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "EdgewrightError":
            message = node.args[1] if len(node.args) > 1 else None
            if isinstance(message, ast.Constant):
                assert not re.search(r"\{[a-z_.]+\}", str(message.value)), f"{path}:{node.lineno}: an `f` is missing"
            if isinstance(message, ast.Constant | ast.JoinedStr):
                last = message.value if isinstance(message, ast.Constant) else getattr(message.values[-1], "value", "")
                assert not str(last).endswith("."), f"{path}:{node.lineno}: no final period"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno}: bare except"
            assert not (len(node.body) == 1 and isinstance(node.body[0], ast.Pass)), (
                f"{path}:{node.lineno}: except: pass"
            )
