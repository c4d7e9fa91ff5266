"""Recipe: the passes that make one candidate, as a name, a TOML file or an object.

description = "batch-norm folded, constants folded, dead code removed"
[[steps]]
pass = "fold_batchnorm"
[convert.openvino]
inference_precision = "f32"
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewright.errors import EdgewrightError

_FOLDER = Path(__file__).parent / "recipes"
_CALLED = {str: "text", list: "a list", dict: "a table", bool: "true or false"}


@dataclass(frozen=True)
class RecipeStep:
    """One pass of a recipe with its options."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """Passes in order, and convert options by runtime.

    Attributes:
        name: Names the candidate: RECIPE-RUNTIME.
        description: One line for `edgewright list`.
        steps: Passes with their options, in order.
        convert: Runtime name -> convert options.
        runtimes: Runtimes it makes sense for; empty means all.
        deploy: True where `deploy` tries it without being asked.
        search: True where `deploy --search` also tries it behind pruning.
    """

    name: str
    description: str = ""
    steps: tuple[RecipeStep, ...] = ()
    convert: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    runtimes: tuple[str, ...] = ()
    deploy: bool = True
    search: bool = False

    @classmethod
    def named(cls, recipe: str | Path | Recipe) -> Recipe:
        """The Recipe itself, the built-in one of that name, or the one in a TOML file (a path that ends in .toml).

        Raises:
            EdgewrightError: E101 unknown name, E104 unreadable file, E320 malformed file.
        """
        if isinstance(recipe, Recipe):
            return recipe
        text = str(recipe)
        if text.endswith(".toml"):
            return cls.read(Path(text))
        if text not in names():
            near = difflib.get_close_matches(text, names(), n=1)
            tail = f"; did you mean `{near[0]}`?" if near else f"; known: {', '.join(names())}"
            raise EdgewrightError("E101", f"recipe `{text}` is not known{tail}", hint="edgewright list recipes")
        return cls.read(_FOLDER / f"{text}.toml")

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """The Recipe in a TOML file; its name is the file's."""
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as problem:
            raise EdgewrightError("E104", f"recipe `{path}` cannot be read: {problem.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
            raise EdgewrightError("E320", f"recipe `{path}` is malformed: {problem}") from None
        return cls.from_mapping(path.stem, document)

    @classmethod
    def from_mapping(cls, name: str, document: Mapping[str, Any]) -> Recipe:
        """The Recipe in a parsed TOML document.

        Raises:
            EdgewrightError: E320 for an unknown key, a value of the wrong type or a step without `pass`.
        """
        unknown = set(document) - {"description", "steps", "convert", "runtimes", "deploy", "search"}
        if unknown:
            raise EdgewrightError("E320", f"recipe `{name}` has unknown keys: {', '.join(sorted(unknown))}")
        for key, kind in (
            ("description", str),
            ("steps", list),
            ("convert", dict),
            ("runtimes", list),
            ("deploy", bool),
            ("search", bool),
        ):
            if key in document and not isinstance(document[key], kind):
                raise EdgewrightError(
                    "E320", f"recipe `{name}`: `{key}` must be {_CALLED[kind]}, not {document[key]!r}"
                )
        steps = []
        for number, step in enumerate(document.get("steps", ()), 1):
            if not isinstance(step, Mapping) or not isinstance(step.get("pass"), str):
                raise EdgewrightError("E320", f'recipe `{name}`: step {number} must name its pass: pass = "NAME"')
            steps.append(RecipeStep(step["pass"], {key: value for key, value in step.items() if key != "pass"}))
        convert, runtimes = document.get("convert", {}), document.get("runtimes", ())
        if not all(isinstance(options, Mapping) for options in convert.values()):
            raise EdgewrightError("E320", f"recipe `{name}`: `convert` must hold a table for each runtime")
        if not all(isinstance(runtime, str) for runtime in runtimes):
            raise EdgewrightError("E320", f"recipe `{name}`: `runtimes` must hold names")
        return cls(
            name,
            document.get("description", ""),
            tuple(steps),
            {runtime: dict(options) for runtime, options in convert.items()},
            tuple(runtimes),
            document.get("deploy", True),
            document.get("search", False),
        )

    def to_mapping(self) -> dict[str, Any]:
        """The recipe as `from_mapping` takes it."""
        return {
            "description": self.description,
            "steps": [{"pass": step.name, **step.config} for step in self.steps],
            "convert": {runtime: dict(options) for runtime, options in self.convert.items()},
            "runtimes": list(self.runtimes),
            "deploy": self.deploy,
            "search": self.search,
        }

    def to_toml(self) -> str:
        """The recipe as a file that `read` takes."""
        lines = [
            f"description = {_toml(self.description)}",
            f"runtimes = {_toml(self.runtimes)}",
            f"deploy = {_toml(self.deploy)}",
            f"search = {_toml(self.search)}",
        ]
        for step in self.steps:
            lines += ["", "[[steps]]", f"pass = {_toml(step.name)}"]
            lines += [f"{_toml(key)} = {_toml(value)}" for key, value in step.config.items() if value is not None]
        for runtime, options in self.convert.items():
            lines += ["", f"[convert.{_toml(runtime)}]"]
            lines += [f"{_toml(key)} = {_toml(value)}" for key, value in options.items() if value is not None]
        return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A value as TOML writes it. JSON's strings, numbers, lists and truth values are TOML's too; its tables are not.

    Source: TOML 1.0.0, "String", "Float", "Inline Table".
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value).replace("\x7f", "\\u007f")


def names() -> tuple[str, ...]:
    """Names of the built-in recipes, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))
