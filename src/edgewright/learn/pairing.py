"""What student and teacher are compared by: their outputs before the last softmax, and inner tensors of one name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgewright.channel_map import Kept
from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import constant_tensor, is_standard

if TYPE_CHECKING:
    import onnx_ir as ir

#: Inner tensors that are compared: enough to guide every stage of a network.
_MOST_FEATURES = 6


@dataclass(frozen=True)
class Pair:
    """One comparison.

    Attributes:
        teacher: The tensor's name in the original.
        student: Its name in the network that learns.
        kept: Channels that the student has left, by their index in the original, for each axis that lost some, counted
            from the back.
    """

    teacher: str
    student: str
    kept: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


def outputs(teacher: ir.Model, student: ir.Model, names: Sequence[str] | None = None) -> tuple[Pair, ...]:
    """The outputs that can be compared, or those of `names`, at what goes into a last Softmax or ArgMax.

    Raises:
        EdgewrightError: E212 where there is none.
    """
    found = []
    others = {value.name: value for value in student.graph.outputs}
    for value in teacher.graph.outputs:
        if (names is None or value.name in names) and value.name in others:
            one, other = _scores(value), _scores(others[value.name])
            if _is_float(one) and _is_float(other):
                found.append(Pair(one.name or "", other.name or ""))
    if not found:
        raise EdgewrightError(
            "E212", "no output of the network is made of floats that could be learnt from the original"
        )
    return tuple(found)


def features(teacher: ir.Model, student: ir.Model, maps: Mapping[str, Kept]) -> tuple[Pair, ...]:
    """Inner tensors of one name and shape, some of them, evenly spaced; pruned ones through their channels that are left.

    Sums of two computed tensors (residual connections) are taken where there are any, else what layers make.
    """
    made = {value.name: value for node in student.graph for value in node.outputs}
    candidates = []
    for wanted in (_is_sum, lambda node: is_standard(node, "Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU")):
        for node in teacher.graph:
            value = node.outputs[0]
            other = made.get(value.name)
            if wanted(node) and other is not None and not value.is_graph_output():
                pair = _paired(value, other, maps)
                candidates += [pair] if pair is not None else []
        if candidates:
            break
    count = min(len(candidates), _MOST_FEATURES)
    return tuple(candidates[(2 * i + 1) * len(candidates) // (2 * count)] for i in range(count))


def _paired(value: ir.Value, other: ir.Value, maps: Mapping[str, Kept]) -> Pair | None:
    if not _is_float(value) or value.shape is None or other.shape is None or len(value.shape) < 3:
        return None
    sizes, theirs = list(value.shape), list(other.shape)
    name = value.name or ""
    left = maps.get(name)
    if left is None:
        known = all(isinstance(size, int) or size.value for size in sizes)  # two sizes without a name may differ
        return Pair(name, other.name or "") if known and sizes == theirs else None
    if len(theirs) != len(sizes):
        return None
    for axis, width in enumerate(left.sizes(sizes)):
        if axis in left.places and isinstance(theirs[axis], int) and theirs[axis] != width:
            return None
        sizes[axis] = theirs[axis] if axis in left.places else sizes[axis]
    kept = {axis - len(sizes): tuple(map(int, places)) for axis, places in left.places.items()}
    return Pair(name, other.name or "", kept) if sizes == theirs else None


def _scores(value: ir.Value) -> ir.Value:
    """What goes into the Softmax, ArgMax or both that make an output: these flatten or cut off gradients."""
    node = value.producer()
    while node is not None and is_standard(node, "Softmax", "ArgMax", "Identity") and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def _is_sum(node: ir.Node) -> bool:
    return is_standard(node, "Add") and all(constant_tensor(value) is None for value in node.inputs)


def _is_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.name in ("FLOAT", "DOUBLE")
