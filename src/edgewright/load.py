"""load: a file, a name of the zoo or a Model -> a Model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgewright import registry
from edgewright.errors import EdgewrightError
from edgewright.model import Model
from edgewright.options import build
from edgewright.spec import Spec

#: Prefix of the names that mean a network of the zoo.
ZOO = "zoo:"


def load(
    source: str | Path | Model,
    *,
    weights: str | Path | None = None,
    spec: Spec | str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    **named_options: Any,
) -> Model:
    """The network in a file, of the zoo, or `source` itself where it is a Model already.

    Args:
        source: A path, whose ending names the importer; `zoo:NAME`; or a Model.
        weights: File with the weights, for importers that take them apart from the graph.
        spec: What inputs and outputs mean, or a TOML or JSON file of it; replaces the one that the file brings.
        options: Options of the importer or zoo family.
        **named_options: More of them, as keywords.

    Raises:
        EdgewrightError: E101 unknown ending or zoo name, E102 a package is missing, E103 an option that is not taken, E104
            no such file, E2xx the file is not what its ending says, E303 a malformed spec.
    """
    given = {**(options or {}), **named_options}
    if weights is not None:
        given["weights"] = weights
    if isinstance(source, Model):
        if given:
            raise EdgewrightError(
                "E103", f"`{source.name}` is loaded already and takes no option `{next(iter(given))}`"
            )
        model = source
    elif str(source).startswith(ZOO):
        model = _from_zoo(str(source).removeprefix(ZOO), given)
    else:
        model = _from_file(Path(source), given)
    if spec is None:
        return model
    return model.with_spec(spec if isinstance(spec, Spec) else Spec.read(spec))


def zoo_names() -> dict[str, str]:
    """Name of every network of the zoo -> the family that makes it."""
    return {name: family for family in registry.names("zoo") for name in registry.peek("zoo", family).NAMES}


def suffixes() -> dict[str, str]:
    """File name ending -> the importer that reads it."""
    return {
        suffix: importer
        for importer in registry.names("importers")
        for suffix in registry.peek("importers", importer).SUFFIXES
    }


def plugin_of(source: str | Path) -> str:
    """Public name of the importer or zoo family that would load `source`; its options are set under this name.

    Raises:
        EdgewrightError: E101 or E104 as `load` does.
    """
    if str(source).startswith(ZOO):
        name = str(source).removeprefix(ZOO)
        families = zoo_names()
        if name not in families:
            raise registry.unknown("zoo model", name, tuple(families))
        return families[name]
    return _importer(Path(source))


def _from_zoo(name: str, given: Mapping[str, Any]) -> Model:
    family = plugin_of(f"{ZOO}{name}")
    plugin = registry.get("zoo", family)
    model: Model = plugin.load(name, _options(plugin, given, family))
    return model


def _from_file(path: Path, given: Mapping[str, Any]) -> Model:
    importer = _importer(path)
    if not path.exists():
        raise EdgewrightError("E104", f"file `{path}` does not exist", hint=f"ls {path.parent}")
    if path.is_dir():
        raise EdgewrightError("E104", f"`{path}` is a folder, not a file", hint=f"ls {path}")
    plugin = registry.get("importers", importer)
    model: Model = plugin.load(path, _options(plugin, given, importer))
    return model


def _importer(path: Path) -> str:
    known = suffixes()
    name = path.name.lower()
    # The longest ending wins, so that `.tar.gz` may be one importer's and `.gz` another's.
    for suffix in sorted(known, key=len, reverse=True):
        if name.endswith(suffix):
            return known[suffix]
    if path.is_dir():
        what = "is a folder" if not (path / "bundle.json").is_file() else "is a bundle, which is opened, not loaded"
        raise EdgewrightError("E104", f"`{path}` {what}; a network is one file that ends in {_listed(known)}")
    ending = f"ends in `{path.suffix}`" if path.suffix else "has no ending"
    hint = "a network of the zoo is written zoo:NAME" if path.suffix == "" else "edgewright list importers"
    raise EdgewrightError("E101", f"`{path}` {ending}, but importers read {_listed(known)}", hint=hint)


def _listed(known: Mapping[str, str]) -> str:
    return ", ".join(f"`{suffix}`" for suffix in sorted(known))


def _options(plugin: Any, given: Mapping[str, Any], name: str) -> Any:
    if "weights" in given and "weights" not in {field.name for field in fields(plugin.Options)}:
        raise EdgewrightError("E103", f"`{name}` takes no separate weights, but `weights` is `{given['weights']}`")
    return build(plugin.Options, given, where=name)
