"""README and docs: the Python block runs, links resolve, every command line parses, schemas are those of the records."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import numpy as np
import pytest

import edgewright as ew
from edgewright.cli import COMMANDS, group
from edgewright.cli.common import Command

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def command_lines(text: str) -> Iterator[str]:
    """Every `edgewright ...` of a page: in code blocks (after `$` or `&&`) and in backticks, without comments."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for line in "\n".join(blocks).splitlines():
        for part in re.split(r"&&|\|", line.partition("#")[0]):
            words = part.strip().removeprefix("$ ").removeprefix("hint: ")
            if words.startswith("edgewright "):
                yield words
    yield from re.findall(r"`(edgewright [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def hints() -> Iterator[str]:
    """Every `edgewright ...` in a `hint=` of the sources, with X where a name is filled in; prose after a comma left out."""
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for keyword in node.keywords if isinstance(node, ast.Call) else ():
                if keyword.arg == "hint" and isinstance(keyword.value, ast.JoinedStr | ast.Constant):
                    parts = keyword.value.values if isinstance(keyword.value, ast.JoinedStr) else [keyword.value]
                    text = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in parts)
                    if "edgewright " in text and "--help" not in text:
                        yield "edgewright " + text.partition("edgewright ")[2].partition(", ")[0]


LINES = sorted({(page.name, line) for page in PAGES for line in command_lines(page.read_text(encoding="utf-8"))})


def test_pages_hold_command_lines() -> None:
    assert ("README.md", "edgewright demo") in LINES
    assert len(LINES) > 5


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}: {line}" for page, line in LINES])
def test_every_command_line_parses(page: str, line: str) -> None:
    words = shlex.split(line)[1:]
    if len(words) == 1:
        assert words[0] in {*COMMANDS, "--help"}  # `edgewright locate` in prose only names the command
    else:
        parse(words)


@pytest.mark.parametrize("hint", sorted(set(hints())))
def test_every_hint_parses(hint: str) -> None:
    parse(shlex.split(hint)[1:])


def parse(words: list[str]) -> None:
    """Have click parse a command line without running it."""
    with click.Context(group) as context:
        command = group.get_command(context, words[0])
        assert isinstance(command, Command), words
        command.make_context(words[0], words[1:], parent=context)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_link_resolves(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    assert missing == []


def test_python_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block as it stands, on a small network and photos: only the names of files, and how long to measure, differ."""
    import onnx_ir as ir
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    graph = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,8,8] image) => (float[N,3] logits)
        { r = Relu (image) p = GlobalAveragePool (r) logits = Flatten (p) }"""
    )
    spec = ew.Spec(inputs={"image": ew.ImageInput(size=(8, 8))}, task="classify")
    ew.Model(graph, spec, name="net").save("model.onnx")
    Path("photos").mkdir()
    random = np.random.default_rng(0)
    for index in range(30):
        pixels = random.integers(0, 60, (12, 12, 3), np.uint8)
        pixels[..., index % 3] += 150
        Image.fromarray(pixels).save(f"photos/photo{index}.png")

    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    for old, new in (
        ('ew.load("zoo:efficientnet-lite0")', 'ew.load("model.onnx")'),
        ("ew.BenchPlan(threads=(1, 2))", "ew.BenchPlan(threads=(1, 2), min_runs=10, max_runs=30, max_seconds=0.3)"),
        ('runtimes=("onnxruntime", "openvino"),', 'runtimes=("onnxruntime",), plan=plan,'),
    ):
        assert old in block
        block = block.replace(old, new)
    names: dict[str, object] = {"plan": ew.BenchPlan(min_runs=10, max_runs=30, max_seconds=0.3)}
    exec(compile(block, "README.md", "exec"), names)
    assert names["report"].decision == "pass"  # type: ignore[attr-defined]
    assert names["outcome"].chosen is not None  # type: ignore[attr-defined]
    assert Path("runs/x/report.html").is_file()


def test_schemas_are_those_of_the_records() -> None:
    assert make_schemas().stale() == [], "python tests/docs/make_schemas.py writes them anew"
    for path in (ROOT / "docs" / "schemas").glob("*.json"):
        import jsonschema

        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text(encoding="utf-8")))


def make_schemas() -> ModuleType:
    """The script beside this file."""
    location = importlib.util.spec_from_file_location("make_schemas", Path(__file__).with_name("make_schemas.py"))
    assert location is not None
    assert location.loader is not None
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module
