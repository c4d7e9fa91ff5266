"""One contract over every plugin of every kind."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

from edgewright import recipe, registry
from edgewright.contracts import QuantFormat, Traits
from edgewright.errors import EdgewrightError
from edgewright.options import build, dump
from edgewright.target import CPUS, Target

#: What a plugin of each kind must define: attributes, then functions with their parameters.
CONTRACT: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    "importers": (("EXTRA", "SUFFIXES", "Options"), {"load": ("path", "options")}),
    "zoo": (("EXTRA", "NAMES", "Options"), {"load": ("name", "options")}),
    "passes": (("EXTRA", "LOSSY", "NEEDS_SAMPLES", "Config"), {"apply": ("ir_model", "config", "context")}),
    "runtimes": (
        ("EXTRA", "TRAITS", "Options"),
        {
            "version": (),
            "quant_format": ("target",),
            "supports": ("ir_model",),
            "convert": ("model", "folder", "options", "target"),
            "open": ("bundle", "threads", "cut"),
        },
    ),
    "tasks": (
        ("Options", "AGREEMENT", "PROPORTION", "METRIC"),
        {
            "postprocess": ("outputs", "spec"),
            "metric": ("results", "labels", "spec"),
            "agreement": ("reference", "results", "spec"),
            "parse_label": ("text", "spec"),
            "draw": ("image", "result", "spec"),
        },
    ),
}
PLUGINS = [(kind, name) for kind in CONTRACT for name in registry.names(kind)]
HEAVY = ("ncnn", "onnx", "onnx_ir", "onnxruntime", "openvino", "torch", "onnxscript", "PIL", "skimage")


def test_every_kind_has_plugins() -> None:
    assert {kind for kind, _ in PLUGINS} == set(CONTRACT)


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
class TestPlugin:
    def test_defines_what_the_contract_asks(self, kind: str, name: str) -> None:
        module = registry.peek(kind, name)
        attributes, functions = CONTRACT[kind]
        for attribute in attributes:
            assert hasattr(module, attribute), attribute
        for function, parameters in functions.items():
            assert tuple(inspect.signature(getattr(module, function)).parameters) == parameters
            assert inspect.getdoc(getattr(module, function)), f"{function} has no docstring"

    def test_has_a_first_line_for_people(self, kind: str, name: str) -> None:
        first = (inspect.getdoc(registry.peek(kind, name)) or "").partition("\n")[0]
        assert 10 < len(first) <= 120

    def test_options_round_trip(self, kind: str, name: str) -> None:
        module = registry.peek(kind, name)
        options: Any = getattr(module, "Config", None) or module.Options
        assert dataclasses.is_dataclass(options)
        assert options.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert all(
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
            for field in dataclasses.fields(options)
        )
        made = options()
        assert build(options, dump(made), where=name) == made
        with pytest.raises(EdgewrightError, match="no option"):
            build(options, {"surely_not_an_option": 1}, where=name)

    def test_imports_heavy_packages_inside_functions(self, kind: str, name: str) -> None:
        module = registry.peek(kind, name)
        file = Path(inspect.getfile(module))
        for path in file.parent.rglob("*.py") if file.name == "__init__.py" else [file]:
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                assert not any(found.split(".")[0] in HEAVY for found in names), f"{path}:{node.lineno}"

    def test_extra_is_declared(self, kind: str, name: str) -> None:
        registry.missing(getattr(registry.peek(kind, name), "EXTRA", None))  # an unknown extra would be an empty tuple
        extra = getattr(registry.peek(kind, name), "EXTRA", None)
        import importlib.metadata

        declared = importlib.metadata.metadata("edgewright").get_all("Provides-Extra") or []
        assert extra is None or extra in declared


@pytest.mark.parametrize("name", registry.names("tasks"))
def test_task_places_labels_and_results_or_neither(name: str) -> None:
    module = registry.peek("tasks", name)
    assert hasattr(module, "place_label") == hasattr(module, "place_result")
    if hasattr(module, "place_label"):
        assert tuple(inspect.signature(module.place_label).parameters) == ("label", "size", "spec")
        assert tuple(inspect.signature(module.place_result).parameters) == ("result", "size", "spec")
    assert not hasattr(module, "LABEL_SUFFIX") or module.LABEL_FILES


@pytest.mark.parametrize("name", registry.names("runtimes"))
def test_runtime_traits(name: str) -> None:
    module = registry.get("runtimes", name)
    assert isinstance(module.TRAITS, Traits)
    assert "fp32" in module.TRAITS.precisions
    assert module.TRAITS.profiles == hasattr(module, "profile")
    assert module.TRAITS.saturates == hasattr(module, "exact")
    for cpu in ("host", *CPUS):
        form = module.quant_format(Target(name, cpu))
        assert form is None or (isinstance(form, QuantFormat) and form.reason)


@pytest.mark.parametrize("name", recipe.names())
def test_recipe_round_trips_and_names_passes_that_exist(name: str) -> None:
    made = recipe.Recipe.named(name)
    assert recipe.Recipe.from_mapping(name, made.to_mapping()) == made
    assert made.description
    for step in made.steps:
        build(registry.get("passes", step.name).Config, step.config, where=step.name)


def test_verbs_never_name_a_plugin() -> None:
    verbs = ("compress", "convert", "verify", "deploy", "load", "report", "inspect", "locate", "bench")
    root = Path(inspect.getfile(registry)).parent
    runtimes = set(registry.names("runtimes"))
    for verb in verbs:
        for path in [root / f"{verb}.py", *(root / verb).rglob("*.py")]:
            if not path.exists():
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                assert not (isinstance(node, ast.Constant) and node.value in runtimes - {"reference"}), (
                    f"{path}:{node.lineno}"
                )
