"""Names as people give them: which nodes an option means, and what it is told where it means none."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    import onnx_ir as ir


_SHOWN = 20  # names for each reason


def names_of(node: ir.Node) -> tuple[str, ...]:
    """Names by which a person may call a node: its own and those of the tensors that it makes."""
    return tuple(name for name in (node.name, *(value.name for value in node.outputs)) if name)


def shown(node: ir.Node) -> str:
    """The tensor by which reports call a node: the first that it makes."""
    name: str = next((value.name for value in node.outputs if value.name), node.name or node.op_type)
    return name


def by_reason(reasons: Mapping[str, str]) -> dict[str, Any]:
    """JSON-ready statistics of what was left alone: reason -> how many, and the first names."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return {reason: {"count": len(found), "nodes": found[:_SHOWN]} for reason, found in sorted(names.items())}


def require_known(names: Collection[str], known: Collection[str], *, option: str, what: str) -> None:
    """Refuse a name that stands for nothing.

    Raises:
        EdgewrightError: E103, with the nearest name.
    """
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            tail = f"; did you mean `{near[0]}`?" if near else ""
            raise EdgewrightError("E103", f"option `{option}`: `{name}` is not {what} that is known{tail}")


def require_float(ir_model: ir.Model, *, step: str, recipe: str) -> None:
    """Refuse a graph that is quantized already: quantizing it again would add error for nothing.

    Raises:
        EdgewrightError: E212.
    """
    for graph in ir_model.graphs():
        for node in graph:
            kind = node.op_type
            quantized = "quantize" in kind.lower() or kind.startswith("QLinear")
            if quantized or kind.endswith(("Integer", "IntegerToFloat", "NBits")):
                raise EdgewrightError(
                    "E212",
                    f"`{step}` cannot work on a quantized graph: `{shown(node)}` is {kind}",
                    hint=f"start from the float network: edgewright compress MODEL --recipe {recipe} --out FILE",
                )
