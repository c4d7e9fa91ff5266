"""Functions in a file: unique, without recursion, and not so nested that they explode when they are expanded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from edgewright.errors import EdgewrightError
from edgewright.graph.order import stable_order
from edgewright.importers.onnx._walk import nodes

#: ONNX Runtime expands every call; ten functions that call each other ten times would be 10^10 nodes.
_MOST_EXPANDED_NODES = 1_000_000

Key = tuple[str, str, str]


def check_functions(proto: Any) -> None:
    """Refuse functions that are there twice, call themselves or expand into too many nodes.

    Raises:
        EdgewrightError: E203 for recursion, E213 for the rest.
    """
    keys: list[Key] = [(f.domain, f.name, f.overload) for f in proto.functions]
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise EdgewrightError("E213", f"function `{twice[0][0]}::{twice[0][1]}` is there twice")
    standard = [f.name for f in proto.functions if f.domain in ("", "ai.onnx")]
    if standard:
        raise EdgewrightError("E213", f"function `{standard[0]}` lies in the domain of ONNX's own operators")
    index = {key: number for number, key in enumerate(keys)}
    calls = [list(_calls(function, index)) for function in proto.functions]
    order, cycle = stable_order(calls)
    if cycle:
        names = " -> ".join(f"`{keys[number][1]}`" for number in cycle[:10])
        raise EdgewrightError("E203", f"functions call each other in a circle: {names}")
    sizes = [0] * len(keys)
    for number in order:
        sizes[number] = _own_nodes(proto.functions[number]) + sum(sizes[called] for called in calls[number])
    total = _own_nodes(proto.graph) + sum(sizes[called] for called in _calls(proto.graph, index))
    if total > _MOST_EXPANDED_NODES:
        raise EdgewrightError(
            "E213", f"the graph has {total} nodes with its functions expanded; the limit is {_MOST_EXPANDED_NODES}"
        )


def _calls(body: Any, index: dict[Key, int]) -> Iterator[int]:
    for node in nodes(body):
        number = index.get((node.domain, node.op_type, node.overload))
        if number is not None:
            yield number


def _own_nodes(body: Any) -> int:
    return sum(1 for _ in nodes(body))
