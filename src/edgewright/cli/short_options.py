"""Short names of plugin options: `--weights FILE` where one plugin has an option `weights`.

Where several have it, the one is meant that loads the network which the command names, or that its recipe runs.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

from edgewright import registry
from edgewright.errors import EdgewrightError


@functools.cache
def short_options() -> dict[str, tuple[str, ...]]:
    """Option name as typed (`--inference-precision`) -> the plugins that have such an option."""
    found: dict[str, list[str]] = {}
    for kind, attribute in (
        ("importers", "Options"),
        ("zoo", "Options"),
        ("passes", "Config"),
        ("runtimes", "Options"),
    ):
        for name in registry.names(kind):
            for option in dataclasses.fields(getattr(registry.peek(kind, name), attribute)):
                found.setdefault("--" + option.name.replace("_", "-"), []).append(name)
    return {option: tuple(plugins) for option, plugins in found.items()}


def expand(args: list[str], known: set[str]) -> list[str]:
    """`args` with every unknown long option that one plugin has, or that is meant for the network's own importer or a pass
    of the recipe, turned into `--set PLUGIN.KEY=VALUE`.

    Raises:
        EdgewrightError: E103 where several plugins have it, or its value is missing.
    """
    expanded: list[str] = []
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            return [*expanded, arg, *rest]
        option, equals, value = arg.partition("=")
        if not option.startswith("--") or option in known or option not in short_options():
            expanded.append(arg)
            continue
        plugins = _meant(short_options()[option], args)
        key = option.removeprefix("--").replace("-", "_")
        if len(plugins) > 1:
            choices = " or ".join(f"--set {plugin}.{key}=VALUE" for plugin in plugins)
            raise EdgewrightError("E103", f"`{option}` could belong to: {', '.join(plugins)}", hint=choices)
        if not equals:
            value = next(rest, "")
            if not value or value.startswith("--"):
                raise EdgewrightError("E103", f"`{option}` needs a value", hint=f"{option} VALUE")
        expanded += ["--set", f"{plugins[0]}.{key}={value}"]
    return expanded


def _meant(plugins: tuple[str, ...], args: list[str]) -> tuple[str, ...]:
    """Of several plugins that have an option, the one that the command is about; all where there is none, or more."""
    if len(plugins) == 1:
        return plugins
    named = {_loader(arg) for arg in args if not arg.startswith("-")} | _passes(args)
    meant = tuple(plugin for plugin in plugins if plugin in named)
    return meant if len(meant) == 1 else plugins


def _passes(args: list[str]) -> set[str]:
    """The passes of the recipe that `args` name."""
    from edgewright.recipe import Recipe

    joined = [arg.removeprefix("--recipe=") for arg in args if arg.startswith("--recipe=")]
    apart = [value for option, value in itertools.pairwise(args) if option == "--recipe"]
    try:
        return {step.name for name in (*joined, *apart) for step in Recipe.named(name).steps}
    except EdgewrightError:  # the command says so itself
        return set()


def _loader(source: str) -> str | None:
    from edgewright.load import plugin_of

    try:
        return plugin_of(source)
    except EdgewrightError:  # no network: an option's value, a folder of photos
        return None
