"""Ways through a ModelProto: subgraphs of a node, nodes of a graph with everything inside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def subgraphs(node: Any) -> list[Any]:
    """The GraphProtos in a node's attributes."""
    found: list[Any] = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            found.append(attribute.g)
        found.extend(attribute.graphs)
    return found


def nodes(*bodies: Any) -> Iterator[Any]:
    """Every NodeProto of graphs and functions, subgraphs included."""
    stack = list(bodies)
    while stack:
        for node in stack.pop().node:
            yield node
            stack.extend(subgraphs(node))


def graphs(proto: Any) -> Iterator[Any]:
    """The main GraphProto and every subgraph, those in functions included."""
    yield proto.graph
    for node in nodes(proto.graph, *proto.functions):
        yield from subgraphs(node)


def label(node: Any) -> str:
    """What an error calls a node: its name, else its first output, else its operator."""
    return str(node.name or next((name for name in node.output if name), node.op_type))
