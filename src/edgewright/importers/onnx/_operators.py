"""Operators that nobody defines, named and counted.

Known is what the onnx package has a schema for at the declared version, what a function in the file defines,
edgewright's own domain, and ONNX Runtime's own operators, which other runtimes then refuse by name in `supports`.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from edgewright.errors import EdgewrightError
from edgewright.importers.onnx._walk import nodes
from edgewright.model import DOMAIN

#: Operators whose first version ONNX declared a mistake, while files with it exist and runtimes run it.
SUCCEEDED = ("GroupNormalization",)
_STANDARD_DOMAINS = ("", "ai.onnx.ml")
#: Where ONNX Runtime keeps operators of its own; its quantizers write them into files.
_RUNTIME_DOMAIN = "com.microsoft"


def check_operators(scopes: Sequence[tuple[Any, Mapping[str, int]]], functions: Collection[tuple[str, str]]) -> None:
    """Refuse operators that have no definition.

    Args:
        scopes: The graph and each function, with the opset versions that hold in it.
        functions: (domain, name) of the functions in the file.

    Raises:
        EdgewrightError: E204 naming and counting the unknown, E205 for operators that ONNX removed.
    """
    unknown: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    for body, versions in scopes:
        for node in nodes(body):
            if (node.domain, node.op_type) in functions or node.domain == DOMAIN:
                continue
            state = _state(node.domain, node.op_type, versions)
            label = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            if state == "unknown":
                unknown[label] += 1
            elif state == "removed":
                removed[label] += 1
    version = scopes[0][1].get("")
    if unknown:
        raise EdgewrightError("E204", f"{_count(unknown)} that nobody defines at opset {version}: {_list(unknown)}")
    if removed:
        raise EdgewrightError("E205", f"{_count(removed)} that ONNX removed before opset {version}: {_list(removed)}")


def _state(domain: str, op_type: str, versions: Mapping[str, int]) -> str:
    from onnx import defs

    if domain == _RUNTIME_DOMAIN:
        return "known" if domain in versions and op_type in _runtime_operators() else "unknown"
    if domain not in _STANDARD_DOMAINS or domain not in versions:
        return "unknown"
    try:
        schema = defs.get_schema(op_type, versions[domain], domain)
    except defs.SchemaError:
        return "unknown"
    return "removed" if schema.deprecated and op_type not in SUCCEEDED else "known"


@functools.cache
def _runtime_operators() -> frozenset[str]:
    """Names of ONNX Runtime's own operators, from the installed library's register; empty where it has none to show."""
    from onnxruntime.capi import onnxruntime_pybind11_state as library

    schemas: Iterable[Any] = getattr(library, "get_all_operator_schema", tuple)()
    return frozenset(schema.name for schema in schemas if schema.domain == _RUNTIME_DOMAIN)


def _count(operators: Counter[str]) -> str:
    total = operators.total()
    return f"the graph has {total} node{'s' if total > 1 else ''} of {'operators' if len(operators) > 1 else 'an operator'}"


def _list(operators: Counter[str]) -> str:
    return ", ".join(f"`{name}` ({count})" for name, count in operators.most_common(20))
