"""Plugins are found by file name and refused by name."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator

import pytest

from edgewright import registry
from edgewright.errors import EdgewrightError


@pytest.fixture
def fresh() -> Iterator[None]:
    """Caches emptied before and after, for tests that change what is installed."""
    cached = (registry.names, registry.missing, registry._entry_points)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def test_names_are_sorted_and_without_private_modules() -> None:
    for kind in registry.KINDS:
        names = registry.names(kind)
        assert list(names) == sorted(names)
        assert not any(name.startswith("_") for name in names)
    assert {"onnxruntime", "openvino", "reference"} <= set(registry.names("runtimes"))


def test_listing_imports_no_plugin() -> None:
    script = (
        "import sys; from edgewright import registry; [registry.names(kind) for kind in registry.KINDS]\n"
        "print([name for name in sys.modules if name.startswith('edgewright.runtimes.')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(
        EdgewrightError, match="runtime `onnxrutime` is not known; did you mean `onnxruntime`"
    ) as caught:
        registry.get("runtimes", "onnxrutime")
    assert caught.value.code == "E101"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../bundle", "runtimes.reference", "__init__", "reference.conv", "x" * 10_000]
)
def test_odd_names_are_unknown_and_import_nothing(name: str) -> None:
    with pytest.raises(EdgewrightError) as caught:
        registry.peek("runtimes", name)
    assert caught.value.code == "E101"


@pytest.mark.usefixtures("fresh")
def test_a_missing_extra_is_an_error_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name.lower() == "openvino":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(EdgewrightError, match="runtime `openvino` needs `openvino`, which is not installed") as caught:
        registry.get("runtimes", "openvino")
    assert (caught.value.code, caught.value.hint) == ("E102", 'pip install "edgewright[openvino]"')
    assert "openvino" not in registry.installed("runtimes")
    assert registry.peek("runtimes", "openvino").EXTRA == "openvino"
    assert registry.missing("all") == ("openvino",)  # extras that name extras are followed


def test_an_extra_of_nothing_is_there() -> None:
    assert registry.missing(None) == ()


@pytest.mark.usefixtures("fresh")
def test_third_parties_add_plugins_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.entry_points
    point = importlib.metadata.EntryPoint("numpy_again", "edgewright.runtimes.reference", "edgewright.runtimes")

    def entry_points(**selection: str) -> object:
        return (point,) if selection == {"group": "edgewright.runtimes"} else real(**selection)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    assert "numpy_again" in registry.names("runtimes")
    assert registry.get("runtimes", "numpy_again").TRAITS.deployable is False
