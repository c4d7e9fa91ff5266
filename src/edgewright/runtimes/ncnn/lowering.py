"""A whole graph as ncnn layers, or the nodes that cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewright.contracts import Problem
from edgewright.formats.ncnn.writing import Layer
from edgewright.graph.dataflow import constant_array, is_standard
from edgewright.runtimes.ncnn.layers import LOWERINGS
from edgewright.runtimes.ncnn.network import (
    PLACES,
    SIZE_PARAMS,
    Blob,
    Network,
    UnsupportedError,
    dims_of,
    name_of,
    shape_of,
)
from edgewright.runtimes.ncnn.samples import one_sample

if TYPE_CHECKING:
    import onnx_ir as ir

_FLOATS = ("FLOAT", "FLOAT16")


@dataclass(frozen=True)
class Tensor:
    """A tensor of the network and where ncnn has it.

    Attributes:
        blob: Its values; `dims` of the blob hold them in the same order as `shape`.
        shape: ONNX's, for one sample.
        axis: Axis of the batch; None where there is none.
        dtype: numpy's name.
    """

    blob: Blob
    shape: tuple[int, ...]
    axis: int | None
    dtype: str


@dataclass(frozen=True)
class Lowered:
    """What becomes of a graph.

    Attributes:
        layers: ncnn's.
        tensors: By ONNX name, those that survive.
        problems: Nodes that have no form in ncnn; where there are some, the rest is of no use.
    """

    layers: tuple[Layer, ...]
    tensors: Mapping[str, Tensor]
    problems: tuple[Problem, ...]


def lower(ir_model: ir.Model, *, half: bool = False) -> Lowered:
    """The graph as ncnn layers; `half` where weights go to the file in float16."""
    sample = one_sample(ir_model)
    graph, problems = sample.ir_model.graph, list(sample.problems)
    network = Network(half=half)
    told = {problem.node for problem in problems if problem.op_type == "Input"}
    for value in graph.inputs:
        if value.name not in graph.initializers:
            found = _input(network, value)
            problems += [] if value.name in told else found
    for node in graph:
        problems += [] if id(node) in network.done else _node(network, node)
    if problems:
        return Lowered((), {}, tuple(problems))
    for value in graph.outputs:
        network.blob(value)
    tensors = {}
    for value in (*graph.inputs, *(value for node in graph for value in node.outputs), *graph.outputs):
        if value.name in network.blobs and value.name not in network.hidden:
            tensors[value.name] = _tensor(network, value, sample.axes)
    return Lowered(tuple(network.layers), tensors, ())


def _input(network: Network, value: ir.Value) -> list[Problem]:
    name = name_of(value)
    dtype = value.dtype.name if value.dtype is not None else "unknown"
    network.lost.add(name)
    try:
        dims = dims_of(shape_of(value))
    except UnsupportedError as problem:
        return [Problem(name, "Input", str(problem))]
    if dtype not in _FLOATS:
        return [Problem(name, "Input", f"it is {dtype.lower()}, ncnn networks here take floats alone")]
    blob = Blob(network.fresh(name), dims)
    network.layers.append(Layer("Input", (), (blob.name,), dict(zip(SIZE_PARAMS[len(dims)], dims, strict=True))))
    network.blobs[name] = blob
    network.lost.remove(name)
    return []


def _node(network: Network, node: ir.Node) -> list[Problem]:
    """Lower one node; where that cannot be, its outputs stand for themselves so that later nodes are looked at too.

    Of a node that reads what is lost only the operator can be judged.
    """
    lowering = LOWERINGS.get(node.op_type) if is_standard(node, node.op_type) else None
    problems = []
    try:
        if lowering is None:
            raise UnsupportedError("ncnn has no such operator")
        if not any(value is not None and value.name in network.lost for value in node.inputs):
            for value in node.outputs:
                if value.uses() or value.is_graph_output():
                    _require_float(node, value)
            lowering(network, node)
            return []
    except UnsupportedError as problem:
        problems = [Problem(node.name or name_of(node.outputs[0]), node.op_type, str(problem))]
    for value in node.outputs:
        if value.name:
            _stand_in(network, node, value)
    return problems


def _stand_in(network: Network, node: ir.Node, value: ir.Value) -> None:
    """A blob that nothing makes, of the size of `value`; where that is not known, or no floats, it is lost."""
    try:
        _require_float(node, value)
        network.blobs[name_of(value)] = Blob(name_of(value), dims_of(shape_of(value)))
    except UnsupportedError:
        network.lost.add(name_of(value))


def _require_float(node: ir.Node, value: ir.Value) -> None:
    if is_standard(node, "QuantizeLinear") or constant_array(value) is not None:
        return
    if is_standard(node, *PLACES):
        shape_of(value)
        return
    if value.dtype is not None and value.dtype.name not in _FLOATS:
        raise UnsupportedError(f"it makes {value.dtype.name.lower()}, ncnn computes in floats")
    shape_of(value)


def _tensor(network: Network, value: ir.Value, axes: Mapping[str, int | None]) -> Tensor:
    name = name_of(value)
    dtype = "float32" if value.dtype is None else value.dtype.numpy().name
    return Tensor(network.blobs[name], shape_of(value), axes.get(name), dtype)
