"""Stages: which tensors of two networks compare, what feeds each, and how the work is split under a memory budget.

A stage ends at a tensor that both networks have by name. Its inputs are the nearest such tensors upstream, so that a
cut runs along the boundaries of fusion and of QDQ pairs; tensors in between were fused away and are `covers`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.contracts import Cut
from edgewright.errors import EdgewrightError
from edgewright.graph import shapes
from edgewright.graph.cut import dependencies, extract
from edgewright.model import Arrays, Model

if TYPE_CHECKING:
    import onnx_ir as ir

#: Their outputs depend on sizes alone: they hold no data to compare, and a static network has constants there.
_SIZE_ONLY = frozenset({"Shape", "Size"})
#: A tensor whose size shape inference does not tell is taken to be so often the largest known one.
_UNKNOWN_FACTOR = 4


@dataclass(frozen=True)
class Stage:
    """The stretch of the network that ends at the tensor `name`.

    Attributes:
        name: ONNX tensor name, in both networks.
        inputs: Nearest tensors upstream that are in both networks, graph inputs included.
        node: Name of the original's node that makes it.
        op_type: Its operator.
        covers: Tensors of the original inside the stretch, which the bundle does not have.
    """

    name: str
    inputs: tuple[str, ...]
    node: str
    op_type: str
    covers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        stages: In graph order.
        fused: Tensors of the original that the bundle does not have, in graph order.
        size_bytes: Bytes of each tensor in the original, estimated where unknown.
    """

    stages: tuple[Stage, ...]
    fused: tuple[str, ...]
    size_bytes: Mapping[str, int]

    def chunks(self, budget_bytes: int) -> Iterator[tuple[Stage, ...]]:
        """Runs of stages whose tensors, inputs included, need at most `budget_bytes`; one stage at least."""
        chunk: list[Stage] = []
        held: dict[str, int] = {}
        for stage in self.stages:
            needed = {name: self.size_bytes[name] for name in (stage.name, *stage.inputs)}
            if chunk and sum((held | needed).values()) > budget_bytes:
                yield tuple(chunk)
                chunk, held = [], {}
            chunk.append(stage)
            held |= needed
        if chunk:
            yield tuple(chunk)

    def upstream(self, stage: Stage) -> Stage:
        """The same stage begun one boundary earlier; itself where it begins at the graph's inputs."""
        known = {item.name: item for item in self.stages}
        inputs: dict[str, None] = {}
        inside: dict[str, None] = dict.fromkeys(stage.covers)
        for name in stage.inputs:
            before = known.get(name)
            inputs |= dict.fromkeys(before.inputs if before else (name,))
            inside |= dict.fromkeys((*before.covers, name) if before else ())
        # a tensor may be reached both directly and through another: it stays a boundary
        return replace(stage, inputs=tuple(inputs), covers=tuple(name for name in inside if name not in inputs))


def plan(model: Model, shared: Collection[str], inputs: Arrays) -> Plan:
    """The stages of `model` against a network that has the tensors `shared`.

    Args:
        model: The original.
        shared: Tensor names of the other network.
        inputs: One sample, for the sizes.
    """
    graph = _with_sizes(model, inputs).graph
    carries = _carry_data(graph)
    outputs = {value.name for value in graph.outputs}
    boundary = {
        value
        for value in carries
        if value.producer() is None or (value.name in shared and (value.name in outputs or _is_float(value)))
    }
    stages, fused = [], []
    for node in graph:
        for value in node.outputs:
            if value not in carries or not value.name:
                continue
            if value not in boundary:
                fused.append(value.name)
                continue
            sources, inside = _stretch(value, boundary, carries)
            stages.append(Stage(value.name, sources, node.name or value.name, node.op_type, inside))
    fused = [name for name in fused if name not in shared]
    return Plan(tuple(stages), tuple(fused), _sizes(carries))


def batches(stages: Sequence[Stage]) -> Iterator[tuple[Stage, ...]]:
    """Groups of stages that one cut can hold: no tensor is an input of one and the output of another."""
    groups: list[tuple[list[Stage], set[str], set[str]]] = []
    for stage in stages:
        for members, sources, results in groups:
            if stage.name not in sources and results.isdisjoint(stage.inputs):
                members.append(stage)
                sources |= set(stage.inputs)
                results.add(stage.name)
                break
        else:
            groups.append(([stage], set(stage.inputs), {stage.name}))
    for members, _, _ in groups:
        yield tuple(members)


def fragment(model: Model, stage: Stage, inputs: Arrays) -> Model:
    """The original's nodes of one stage as a network of its own, with the shapes of `inputs`."""
    part = extract(_typed(model.clone_ir(), inputs), Cut(stage.inputs, (stage.name,)))
    for value in part.graph.inputs:
        if value.name in inputs:
            declare(value, inputs[value.name])
    return Model(part, name=stage.name)


def declare(value: ir.Value, array: np.ndarray) -> None:
    """Give a graph input the type and shape of `array`."""
    import onnx_ir as ir

    value.shape = ir.Shape(array.shape)
    value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))


def _with_sizes(model: Model, inputs: Arrays) -> ir.Model:
    """A copy of the graph with the sizes that follow from one sample; what cannot be inferred stays unknown."""
    copy = model.clone_ir()
    for value in copy.graph.inputs:
        if value.name in inputs:
            declare(value, inputs[value.name])
    with contextlib.suppress(EdgewrightError):
        shapes.infer(copy)
    return copy


def _typed(copy: ir.Model, inputs: Arrays) -> ir.Model:
    """`copy` with the types of the tensors in `inputs`, at which it will be cut."""
    for node in copy.graph:
        for value in node.outputs:
            if value.name in inputs:
                declare(value, inputs[value.name])
    return copy


def _carry_data(graph: Any) -> dict[ir.Value, None]:
    """Values that depend on the contents of the graph's inputs, not on their sizes alone; in graph order."""
    carries: dict[ir.Value, None] = {value: None for value in graph.inputs if value.name not in graph.initializers}
    for node in graph:
        # CastLike takes only the type of its second input
        sources = node.inputs[:1] if node.op_type == "CastLike" else tuple(dependencies(node))
        if node.op_type not in _SIZE_ONLY and any(value in carries for value in sources):
            carries |= dict.fromkeys(node.outputs)
    return carries


def _stretch(
    end: ir.Value, boundary: Collection[ir.Value], carries: Collection[ir.Value]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names of the nearest boundaries upstream, names of the tensors in between)."""
    sources: dict[str, None] = {}
    inside: dict[str, None] = {}
    visited = {end}
    todo = [end]
    while todo:
        producer = todo.pop().producer()
        assert producer is not None
        for value in dependencies(producer):
            if value in visited:
                continue
            visited.add(value)
            if value in boundary:
                sources[str(value.name)] = None
            elif value.producer() is not None:  # sizes too: they end at a boundary as well
                todo.append(value)
                if value in carries:
                    inside[str(value.name)] = None
    return tuple(sources), tuple(inside)


def _is_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()


def _sizes(values: Iterable[ir.Value]) -> dict[str, int]:
    """Bytes of each value, estimated where shape inference has not found them."""
    known: dict[str, int] = {}
    unknown: list[str] = []
    for value in values:
        shape = shapes.static_shape(value)
        if shape is None:
            unknown.append(str(value.name))
        else:
            itemsize = value.dtype.itemsize if value.dtype is not None else 4
            known[str(value.name)] = int(np.prod(shape, dtype=np.int64)) * max(int(itemsize), 1)
    return known | dict.fromkeys(unknown, _UNKNOWN_FACTOR * max(known.values(), default=2**20))
