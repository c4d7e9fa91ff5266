"""Names for nodes that have none or share one; tensor names are never touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def name_nodes(ir_model: ir.Model) -> None:
    """Give every node a name that is unique in the model, in place.

    A node without a name is called after its first output, which is stable when other nodes come and go; of those that
    share a name the first keeps it.
    """
    taken: set[str] = set()
    unnamed = []
    for body in (ir_model.graph, *ir_model.functions.values()):
        for node in body.all_nodes():
            if node.name and node.name not in taken:
                taken.add(node.name)
            else:
                unnamed.append(node)
    for node in unnamed:
        outputs = (value.name for value in node.outputs if value.name)
        node.name = free_name(node.name or next(outputs, node.op_type), taken)
        taken.add(node.name)


def free_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, with a number behind it where it is taken."""
    name, number = wanted, 1
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name
