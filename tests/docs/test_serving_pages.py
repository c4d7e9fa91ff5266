"""docs/hooks.md, pipelines.md, fleet.md and security.md: examples run, and options are those of the commands."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import tomllib
from pathlib import Path

import pytest

from edgewright.cli.serve_command import WORDS
from edgewright.cli.serve_command import command as serve_command

DOCS = Path(__file__).resolve().parents[2] / "docs"
#: Options of other programs, and of other commands of ours.
FOREIGN = {"--data-binary", "--cacert", "--weights", "--out", "--draw"}


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def test_the_pipelines_example_prints_what_the_page_says() -> None:
    ((code, printed),) = re.findall(
        r"^```python\n((?:(?!^```).)*?)^```\n```\n(.*?)^```", page("pipelines"), re.M | re.S
    )
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(code, "pipelines.md", "exec"), {})
    assert shown.getvalue() == printed


def test_the_pipeline_file_is_one_that_can_be_read(tmp_path: Path) -> None:
    from edgewright.pipeline import parts

    (text,) = re.findall(r"^```toml\n(.*?)^```", page("pipelines"), re.M | re.S)
    for name in tomllib.loads(text)["parts"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "bundle.json").touch()
    (tmp_path / parts.FILE).write_text(text)
    found, _ = parts.read(tmp_path)
    assert found["tell"].margin == 0.05
    assert set(vars(parts.Part())) - set(tomllib.loads(text)["parts"]["tell"]) == {"inputs"}


def test_the_processor_example_is_one_that_may_be_added() -> None:
    from edgewright.serve.hooks import code

    (source,) = re.findall(r"^```python\n(.*?)^```", page("hooks"), re.M | re.S)
    code.check(source.encode(), "hooks.md")


@pytest.mark.parametrize("name", ["hooks", "pipelines", "fleet", "security"])
def test_options_on_the_page_exist(name: str) -> None:
    commands = [
        serve_command,
        *(importlib.import_module(f"edgewright.cli.serving.{word.replace('-', '_')}").command for word in WORDS),
    ]
    known = {option for command in commands for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page(name))) - FOREIGN <= known
