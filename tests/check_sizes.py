"""Hold the budgets of the house: files of at most 400 lines, functions of at most 60 (about 40 is the aim)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 60


def problems(root: Path) -> list[str]:
    """Every file or function under `root` that is over its budget, or clears the clock rule by importing `time`."""
    found = []
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > FILE_LINES:
            found.append(f"{path}: {lines} lines, at most {FILE_LINES}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    found.append(f"{path}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES}")
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            # `minutes` of training, deadlines of requests
            if "time" in names and not {"bench", "learn", "serve"}.intersection(path.parts):
                found.append(f"{path}:{node.lineno}: imports `time`; bench is the only clock that measures")
    return found


if __name__ == "__main__":
    listed = problems(Path(__file__).resolve().parents[1] / "src")
    print("\n".join(listed))
    sys.exit(1 if listed else 0)
