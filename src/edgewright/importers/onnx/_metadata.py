"""The Spec and the history that travel inside an ONNX file's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.bundle import Bundle
from edgewright.errors import EdgewrightError
from edgewright.model import HISTORY_KEY, Model, Step
from edgewright.spec import METADATA_KEY, Spec

if TYPE_CHECKING:
    import onnx_ir as ir

_STEP_FIELDS = {"kind": str, "name": str, "config": Mapping, "lossy": bool, "samples": list, "stats": Mapping}


def restore(ir_model: ir.Model, path: Path) -> Model:
    """The Model with the Spec and history that the file's metadata hold; both keys are taken out of the graph.

    The history of a bundle's file is the one in the bundle's manifest.

    Raises:
        EdgewrightError: E303 for malformed metadata.
    """
    spec_text = ir_model.metadata_props.pop(METADATA_KEY, None)
    history_text = ir_model.metadata_props.pop(HISTORY_KEY, None)
    spec = Spec()
    if spec_text is not None:
        spec = Spec.from_json(_table(spec_text, METADATA_KEY, path), where=f"{path.name}, metadata `{METADATA_KEY}`")
    history, origin = _history(history_text, path) if history_text is not None else _manifest(path)
    return Model(ir_model, spec=spec, history=history, name=path.stem, origin=origin)


def _history(text: str, path: Path) -> tuple[tuple[Step, ...], str]:
    table = _table(text, HISTORY_KEY, path)
    origin, steps = table.get("origin"), table.get("steps")
    if not isinstance(origin, str) or not isinstance(steps, list) or set(table) != {"origin", "steps"}:
        raise _malformed(HISTORY_KEY, path, "it must hold `origin` (text) and `steps` (a list)")
    history = tuple(_step(step, number, path) for number, step in enumerate(steps))
    # Without steps the network is its own origin, also where another tool has changed the file since.
    return history, origin if history else ""


def _manifest(path: Path) -> tuple[tuple[Step, ...], str]:
    try:
        bundle = Bundle.open(path.parent, warn=False)
    except EdgewrightError:  # no bundle, or one whose files were changed since: nothing is known of this one
        return (), ""
    return (bundle.history, bundle.origin if bundle.history else "") if path.name in bundle.files else ((), "")


def _step(document: Any, number: int, path: Path) -> Step:
    if not isinstance(document, Mapping) or not {"kind", "name"} <= set(document) <= set(_STEP_FIELDS):
        raise _malformed(HISTORY_KEY, path, f"step {number} must be a table with `kind` and `name`")
    for key, value in document.items():
        if not isinstance(value, _STEP_FIELDS[key]):
            raise _malformed(HISTORY_KEY, path, f"step {number} has {value!r} for `{key}`")
    if not all(isinstance(group, str) for group in document.get("samples", ())):
        raise _malformed(HISTORY_KEY, path, f"step {number} has samples that are not text")
    return Step.from_json(document)


def _table(text: str, key: str, path: Path) -> Mapping[str, Any]:
    try:
        table = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as problem:
        raise _malformed(key, path, str(problem)) from None
    if not isinstance(table, Mapping):
        raise _malformed(key, path, "it must hold a table")
    return table


def _malformed(key: str, path: Path, reason: str) -> EdgewrightError:
    return EdgewrightError(
        "E303",
        f"metadata `{key}` of `{path}` is malformed: {reason}",
        hint=f"remove the metadata key `{key}` from the file, and give the spec by --spec FILE",
    )
