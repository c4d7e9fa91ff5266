"""convert: a Model becomes a Bundle, the files of one runtime in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewright import registry
from edgewright.bundle import MANIFEST, Bundle, file_hash, staging
from edgewright.contracts import Conversion
from edgewright.errors import EdgewrightError
from edgewright.graph import cost
from edgewright.graph.int8 import saturating_layers
from edgewright.model import Model
from edgewright.options import build, dump
from edgewright.target import EXACT_INT8, Target, any_of


def convert(
    model: Model,
    runtime: str | Target,
    out: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> Bundle:
    """The Bundle of `model` for one runtime, in the folder `out`.

    Args:
        model: The network, compressed or as it was loaded.
        runtime: A runtime's public name, or a Target that names the CPU too.
        out: The folder to make; it appears whole or not at all.
        options: The runtime's convert options.
        name: Name for reports; the folder's name by default.
        overwrite: Replace a bundle that is there already.

    Raises:
        EdgewrightError: E101 unknown runtime, E102 it is not installed, E105 `out` exists, E210 nodes it cannot run.
    """
    target = runtime if isinstance(runtime, Target) else Target(runtime)
    plugin = registry.get("runtimes", target.runtime)
    chosen = build(plugin.Options, options or {}, where=target.runtime)
    _check_support(model, target.runtime, plugin)
    out = Path(out)
    with staging(out, overwrite=overwrite) as folder:
        conversion = plugin.convert(model, folder, chosen, target)
        bundle = _describe(model, folder, conversion, target, plugin, dump(chosen), name or out.name)
        (folder / MANIFEST).write_text(json.dumps(bundle.to_json(), indent=1), encoding="utf-8")
        (folder / "README.md").write_text(_readme(bundle, conversion), encoding="utf-8")
    return replace(bundle, path=out)


def convert_for_session(model: Model, runtime: str, folder: Path) -> Bundle:
    """The same in the empty `folder`, for a session of this process alone: nothing is hashed, no manifest is written.

    Raises:
        EdgewrightError: E101 unknown runtime, E102 it is not installed, E210 nodes it cannot run.
    """
    target = Target(runtime)
    plugin = registry.get("runtimes", runtime)
    _check_support(model, runtime, plugin)
    options = plugin.Options()
    conversion = plugin.convert(model, folder, options, target)
    return _describe(model, folder, conversion, target, plugin, dump(options), model.name, hashed=False)


def _check_support(model: Model, runtime: str, plugin: Any) -> None:
    if plugin.TRAITS.arithmetic(model.precision) is None:
        raise EdgewrightError(
            "E210",
            f"`{runtime}` does not run {model.precision} networks such as `{model.name}`; it runs: "
            + ", ".join(plugin.TRAITS.precisions),
            hint="edgewright list",
        )
    problems = plugin.supports(model.ir)
    if not problems:
        return
    nodes = [node.name for node in model.ir.graph]
    refused = sum(problem.node in nodes for problem in problems)  # the others are inputs
    what = f"run {refused} of {len(nodes)} nodes" if refused else "take what goes in"
    shown = ", ".join(f"`{item.op_type}`" + (f" (`{item.node}`)" if item.node else "") for item in problems[:4])
    more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
    raise EdgewrightError(
        "E210",
        f"`{runtime}` cannot {what}: {shown}{more}",
        details=(f"first reason: {problems[0].reason}",),
        hint="list runtimes that can: edgewright inspect MODEL --runtimes",
    )


def _describe(
    model: Model,
    folder: Path,
    conversion: Conversion,
    target: Target,
    plugin: Any,
    options: dict[str, Any],
    name: str,
    *,
    hashed: bool = True,
) -> Bundle:
    files = {
        path.relative_to(folder).as_posix(): (file_hash(path) if hashed else "", path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    macs, traffic_bytes = _cost(model) if hashed else (None, None)
    return Bundle(
        path=folder,
        name=name,
        runtime=target.runtime,
        runtime_version=plugin.version(),
        precision=conversion.precision or plugin.TRAITS.arithmetic(model.precision) or model.precision,
        spec=model.spec,
        inputs=model.inputs,
        outputs=model.outputs,
        tensor_names=dict(conversion.tensor_names),
        files=files,
        cpu=target.cpu,
        cpu_features=(*conversion.cpu_features, *_int8_needs(model, plugin)),
        options=options,
        history=model.history,
        origin=model.origin,
        model_hash=model.hash if hashed else "",
        model_name=model.name,
        macs=macs,
        traffic_bytes=traffic_bytes,
    )


def _cost(model: Model) -> tuple[int | None, int | None]:
    """What one run computes and moves; unknown for a graph whose sizes contradict each other, yet which a runtime runs."""
    try:
        return cost.total(model.ir)
    except EdgewrightError:
        return None, None


def _int8_needs(model: Model, plugin: Any) -> tuple[str, ...]:
    """What a network needs whose int8 products could saturate in this runtime; nothing where they all fit."""
    saturates = plugin.TRAITS.saturates and model.precision == "int8" and saturating_layers(model.ir)
    return (any_of(EXACT_INT8),) if saturates else ()


def _readme(bundle: Bundle, conversion: Conversion) -> str:
    inputs = "\n".join(f"- `{item}`" for item in bundle.inputs)
    outputs = "\n".join(f"- `{item}`" for item in bundle.outputs)
    return f"""# {bundle.name}

A network for {bundle.runtime} {bundle.runtime_version} ({bundle.precision}). Without edgewright:

```python
{conversion.usage.strip()}
```

Inputs:
{inputs}

Outputs:
{outputs}

`bundle.json` says how inputs are prepared (`spec`) and what was done to the network (`history`).
"""
