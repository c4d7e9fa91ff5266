"""If: both branches are computed, one is taken. They have no effects beside what they make, so the answers are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewright.runtimes.litert.layouts import arranged
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused, rule

if TYPE_CHECKING:
    import onnx_ir as ir


@rule("If")
def branch(lowering: Lowering, node: ir.Node) -> None:
    """SELECT_V2 of what the branches make."""
    condition = node.inputs[0]
    assert condition is not None
    chosen = lowering.get(condition)
    if any(size != 1 for size in chosen.tensor.shape):
        raise Refused("its condition is more than one value")
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    if not all(lowering.inner(graph) for graph in branches):
        lowering.give_up(node)
        return
    for made, first, second in zip(node.outputs, branches[0].outputs, branches[1].outputs, strict=True):
        sizes = lowering.sizes(first)
        if sizes != lowering.sizes(second):
            raise Refused("its branches make different sizes")
        order = lowering.common_order([first, second], len(sizes))
        pair = [lowering.fit(value, order) for value in (first, second)]
        tensor = lowering.op("SELECT_V2", [chosen.tensor, *pair], arranged(sizes, order), pair[0].dtype)
        lowering.hold(made, tensor, order)
