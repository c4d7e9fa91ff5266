"""Parameters and attributes of two networks, compared exactly: what a numeric gate alone would miss.

A leaky slope matters only where values are negative; compared by value it is found everywhere. This needs a bundle
whose file is ONNX, and a stretch whose nodes correspond one to one; what was folded or fused is judged by its numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.bundle import Bundle
from edgewright.graph.cut import dependencies
from edgewright.graph.dataflow import constant_array
from edgewright.locate.stages import Stage
from edgewright.model import Model

if TYPE_CHECKING:
    import onnx_ir as ir

_MOST_SHOWN = 8


@dataclass(frozen=True)
class Differences:
    """By stage name, in words.

    Attributes:
        values: Attributes and weights of corresponding nodes that are not equal.
        operators: Stretches whose nodes do not correspond, for example after a fusion: no fault of its own.
        spec: Options of the task that are not equal, such as a head's anchors, by the output that they belong to.
    """

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    operators: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, str] = field(default_factory=dict)


def compare(model: Model, bundle: Bundle, stages: Sequence[Stage]) -> Differences:
    """What differs between the original's nodes and those in the bundle's ONNX file, where it has one, and in the Spec."""
    import onnx_ir as ir

    spec = _spec_differences(model, bundle)
    files = [name for name in bundle.files if name.endswith(".onnx")]
    if len(files) != 1:
        return Differences(spec=spec)
    other = ir.load(bundle.file(files[0])).graph
    boundaries = {stage.name for stage in stages} | {info.name for info in model.inputs}
    mine, theirs = _Stretches(model.ir.graph, boundaries), _Stretches(other, boundaries)
    values, operators = {}, {}
    for stage in stages:
        before, after = mine.nodes(stage.name), theirs.nodes(stage.name)
        if [_kind(node) for node in before] != [_kind(node) for node in after]:
            operators[stage.name] = f"the operators are {_list(after)} instead of {_list(before)}"
            continue
        found = [text for a, b in zip(before, after, strict=True) for text in _node_differences(a, b, boundaries)]
        if found:
            hidden = len(found) - _MOST_SHOWN
            values[stage.name] = (*found[:_MOST_SHOWN], *((f"and {hidden} more",) if hidden > 0 else ()))
    return Differences(values, operators, spec)


def _spec_differences(model: Model, bundle: Bundle) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for output, text in _option_differences("", model.outputs[0].name, model.spec.options, bundle.spec.options):
        found.setdefault(output, []).append(text)
    return {output: "; ".join(texts[:_MOST_SHOWN]) for output, texts in found.items()}


def _option_differences(path: str, output: str, before: Any, after: Any) -> Iterator[tuple[str, str]]:
    """(output, words) of each option that differs; options of a head that says its `output` belong to that."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        output = str(before.get("output", output))
        for key in sorted({*before, *after}):
            yield from _option_differences(f"{path}.{key}".lstrip("."), output, before.get(key), after.get(key))
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple) and len(before) == len(after):
        for number, (mine, theirs) in enumerate(zip(before, after, strict=True)):
            yield from _option_differences(f"{path}.{number}", output, mine, theirs)
    elif before != after:
        yield output, f"option `{path}` of the task is {_show(after)} instead of {_show(before)}"


class _Stretches:
    """The nodes between boundary tensors of one graph."""

    def __init__(self, graph: ir.Graph, boundaries: Collection[str]) -> None:
        self._order = {node: number for number, node in enumerate(graph)}
        self._producers = {value.name: node for node in graph for value in node.outputs}
        self._boundaries = boundaries

    def nodes(self, name: str) -> list[ir.Node]:
        """Nodes of the stretch that ends at `name`, in graph order, constants excluded."""
        found: dict[ir.Node, None] = {}
        todo = [self._producers.get(name)]
        while todo:
            node = todo.pop()
            if node is None or node in found or node not in self._order or node.op_type == "Constant":
                continue
            found[node] = None
            todo += [value.producer() for value in dependencies(node) if value.name not in self._boundaries]
        return sorted(found, key=self._order.__getitem__)


def _kind(node: ir.Node) -> tuple[str, str]:
    return node.domain or "", node.op_type


def _list(nodes: Sequence[ir.Node]) -> str:
    return ", ".join(f"`{node.op_type}`" for node in nodes) or "none"


def _node_differences(mine: ir.Node, theirs: ir.Node, boundaries: Collection[str]) -> Iterator[str]:
    label = mine.name or mine.outputs[0].name
    for name in sorted({*mine.attributes, *theirs.attributes}):
        before, after = _attribute(mine, name), _attribute(theirs, name)
        if not _same(before, after):
            yield f"attribute `{name}` of `{label}` is {_show(after)} instead of {_show(before)}"
    for number, (a, b) in enumerate(itertools.zip_longest(mine.inputs, theirs.inputs)):
        if (a is None) != (b is None):
            yield f"input {number} of `{label}` is {'missing' if b is None else 'added'}"
            continue
        if a is None or b is None:
            continue
        before, after = constant_array(a), constant_array(b)
        if before is not None and after is not None:
            yield from _array_differences(f"`{a.name}` of `{label}`", before, after)
        elif a.name != b.name and {a.name, b.name} <= set(boundaries):
            yield f"input {number} of `{label}` is `{b.name}` instead of `{a.name}`"


def _array_differences(label: str, before: np.ndarray, after: np.ndarray) -> Iterator[str]:
    if before.shape != after.shape:
        yield f"{label} has shape {list(after.shape)} instead of {list(before.shape)}"
        return
    if before.dtype != after.dtype and before.dtype.kind == "f":
        with np.errstate(over="ignore"):
            before = before.astype(after.dtype)  # the same number in a narrower type is no difference
    unequal = before != after
    if before.dtype.kind == "f":
        unequal &= ~(np.isnan(before) & np.isnan(after))
    if unequal.any():
        distance = np.where(unequal, np.abs(np.asarray(after, np.float64) - np.asarray(before, np.float64)), -1.0)
        index = np.unravel_index(int(np.argmax(distance)), before.shape)
        yield (
            f"{int(unequal.sum())} of {before.size} values of {label} differ, most at {[int(i) for i in index]}: "
            f"{after[index]:.6g} instead of {before[index]:.6g}"
        )


def _attribute(node: ir.Node, name: str) -> Any:
    """The attribute's value, or the operator's default."""
    if name in node.attributes:
        attribute = node.attributes[name]
        if attribute.type.name in ("GRAPH", "GRAPHS"):
            return None  # branches are judged by their numbers
        return attribute.value.numpy() if attribute.type.name == "TENSOR" else attribute.value
    import onnx

    if not onnx.defs.has(node.op_type, node.domain or ""):
        return None
    default = onnx.defs.get_schema(node.op_type, node.domain or "").attributes[name].default_value
    return onnx.helper.get_attribute_value(default) if default.type else None


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, bytes):
        before = before.decode("utf-8", "replace")
    if isinstance(after, bytes):
        after = after.decode("utf-8", "replace")
    if before is None or after is None or isinstance(before, str) or isinstance(after, str):
        return bool(before is after or (before is not None and after is not None and before == after))
    first, second = np.asarray(before), np.asarray(after)
    if first.dtype.kind == "f" and second.dtype.kind == "f":  # ONNX stores attributes as float32
        first, second = first.astype(np.float32), second.astype(np.float32)
    return np.array_equal(first, second)


def _show(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, np.ndarray):
        return f"a tensor of shape {list(value.shape)}"
    return "absent" if value is None else str(list(value) if isinstance(value, tuple) else value)
