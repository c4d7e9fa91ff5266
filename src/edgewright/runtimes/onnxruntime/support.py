"""Which nodes of a graph ONNX Runtime rejects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgewright.contracts import Problem
from edgewright.errors import EdgewrightError
from edgewright.graph.serialize import as_source
from edgewright.runtimes.onnxruntime.sessions import PROVIDERS, literal_settings, load

if TYPE_CHECKING:
    import onnx_ir as ir

#: The rest is tried again without the nodes found so far, at most this often.
_PROBES = 16
#: Float weights with more elements than this become inputs of the copy that is tried.
_LARGE = 256
_PROBE_NAME = "edgewright_probe_"
#: What decides whether there is a kernel, of all nodes in networks that ONNX Runtime took.
_accepted: set[tuple[object, ...]] = set()


def find_problems(ir_model: ir.Model) -> tuple[Problem, ...]:
    """Nodes that ONNX Runtime rejects: no CPU kernel for their types, or no such operator.

    A copy whose large weights are inputs is opened, so the cost does not grow with the weights. Where it is rejected
    the node in question is taken out and the rest is tried again, which finds all where the types of what it makes are
    known.
    """
    kinds = {_kind(node) for node in ir_model.graph.all_nodes()}
    if kinds <= _accepted and not ir_model.functions:
        return ()  # as in a network before: compression opens hundreds of a kind
    probe, nodes = _probe(ir_model)
    problems: dict[int, Problem] = {}
    for _ in range(_PROBES):
        reason = _load_error(probe)
        if reason is None:
            break
        culprit = _named_node(reason, nodes)
        if culprit is None or culprit in problems:
            if not problems:
                problems[-1] = Problem("", "", reason)
            break
        node = nodes[culprit][1]
        reason = re.sub(rf"{_PROBE_NAME}(\d+)_", lambda found: nodes[int(found[1])][0], reason)
        kind = _signature if _unregistered(reason) is None else _operator
        alike = kind(node)
        for number, (name, node) in nodes.items():
            if number not in problems and kind(node) == alike:
                problems[number] = Problem(name, node.op_type, reason)
                _take_out(probe, node)
    if problems and _loads_whole(ir_model):
        return ()  # only the copy was rejected: an operator that insists on constant weights
    if not problems and not ir_model.functions:
        _accepted.update(kinds)
    return tuple(problems[number] for number in sorted(problems))


def _probe(ir_model: ir.Model) -> tuple[ir.Model, dict[int, tuple[str, ir.Node]]]:
    """A copy with large weights as inputs, and its nodes by the number in their probe names, with their true names."""
    import onnx_ir as ir

    probe = ir_model.clone()
    for name, value in list(probe.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.size > _LARGE and tensor.dtype.is_floating_point():
            del probe.graph.initializers[name]
            value.const_value = None
            value.type, value.shape = ir.TensorType(tensor.dtype), tensor.shape
            if not value.is_graph_input():
                probe.graph.inputs.append(value)
    nodes = {}
    bodies = (node for function in probe.functions.values() for node in function)
    for number, node in enumerate((*probe.graph.all_nodes(), *bodies)):
        nodes[number] = (node.name or next((value.name for value in node.outputs if value.name), "") or "", node)
        node.name = f"{_PROBE_NAME}{number}_"
    return probe, nodes


def _load_error(probe: ir.Model) -> str | None:
    """ONNX Runtime's reason for rejecting the model, in one line; None where it accepts it."""
    import onnx_ir as ir
    import onnxruntime

    try:
        source = ir.to_proto(probe).SerializeToString()
        onnxruntime.InferenceSession(source, literal_settings(), providers=PROVIDERS)
    except Exception as problem:  # the library's errors share no base class of their own
        return str(problem).strip().split("\n", 1)[0]
    return None


def _named_node(reason: str, nodes: Mapping[int, tuple[str, ir.Node]]) -> int | None:
    """Number of the node that ONNX Runtime's message is about."""
    operator = _unregistered(reason)
    if operator is not None:
        return next((n for n, (_, node) in nodes.items() if (node.domain, node.op_type) == operator), None)
    probe_name = re.search(rf"{_PROBE_NAME}(\d+)_", reason)
    return int(probe_name[1]) if probe_name else None


def _unregistered(reason: str) -> tuple[str, str] | None:
    """Domain and type of the operator that ONNX Runtime does not know, where that is its reason."""
    found = re.search(r"(?P<domain>[^\s:]*):(?P<type>\w+)\(-?\d+\) is not a registered function/op", reason)
    found = found or re.search(
        r'In Node, \("[^"]*", (?P<type>\w+), "(?P<domain>[^"]*)".* Error No Op registered', reason
    )
    return (found["domain"], found["type"]) if found else None


def _signature(node: ir.Node) -> tuple[object, ...]:
    """What decides whether there is a kernel: the operator and its inputs' types."""
    return (node.domain, node.op_type, *(value.dtype if value else None for value in node.inputs))


def _kind(node: ir.Node) -> tuple[object, ...]:
    """What decides whether the node is taken: its signature, its attributes, and the shapes of what it reads."""
    shapes = ("" if value is None else str(value.shape) for value in node.inputs)
    attributes = (f"{name}={_short(attribute)}" for name, attribute in sorted(node.attributes.items()))
    return (*_signature(node), len(node.outputs), *shapes, *attributes)


def _short(attribute: ir.Attr) -> object:
    """Its value, or only its type where that may be large; nodes of subgraphs are looked at one by one."""
    plain = attribute.type.name in ("INT", "INTS", "FLOAT", "FLOATS", "STRING", "STRINGS")
    return attribute.value if plain else attribute.type.name


def _operator(node: ir.Node) -> tuple[object, ...]:
    return (node.domain, node.op_type)


def _take_out(probe: ir.Model, node: ir.Node) -> None:
    """Make the outputs of a node of the main graph inputs of the model, where their types are known."""
    import onnx_ir as ir

    if node.graph is not probe.graph or any(value.type is None for value in node.outputs):
        return
    for value in node.outputs:
        replacement = ir.Value(name=f"{value.name}/taken_out", type=value.type, shape=value.shape)
        value.replace_all_uses_with(replacement, replace_graph_outputs=True)
        probe.graph.inputs.append(replacement)
    probe.graph.remove(node)


def _loads_whole(ir_model: ir.Model) -> bool:
    with as_source(ir_model) as source:
        try:
            load(source, literal_settings())
        except EdgewrightError:
            return False
    return True
