"""The onnx package's checker and shape inference, on a copy of the graph that leaves large weights out.

Both are C++ and take one protobuf message, which ends at 2 GiB; they need the sizes of a weight, not its values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgewright.errors import EdgewrightError
from edgewright.graph.shapes import infer
from edgewright.importers.onnx._operators import SUCCEEDED
from edgewright.importers.onnx._walk import nodes
from edgewright.model import DOMAIN

if TYPE_CHECKING:
    import onnx_ir as ir

#: Initializers up to this size keep their values in the copy: Reshape, Slice and their like need them for shapes.
_SMALL_BYTES = 1024


def check(ir_model: ir.Model, file_name: str) -> None:
    """Refuse what the onnx checker finds wrong with nodes and attributes.

    Raises:
        EdgewrightError: E213 with the checker's first line.
    """
    import onnx

    proto = skeleton(ir_model)
    _hide_deprecated(proto)
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()  # the checker demands a shape, runtimes do not
    try:
        # Functions may be of another opset than the graph: each is upgraded from its own.
        onnx.checker.check_model(proto, skip_opset_compatibility_check=True)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as problem:
        raise EdgewrightError("E213", f"`{file_name}` is not valid ONNX: {_first_line(problem)}") from None


def infer_shapes(ir_model: ir.Model, file_name: str) -> None:
    """Fill in the types and sizes that follow from the inputs, in place; declared ones stay as they are.

    Raises:
        EdgewrightError: E213 where the types contradict each other.
    """
    try:
        infer(ir_model, keep_known=True)
    except EdgewrightError as problem:
        raise EdgewrightError("E213", f"types in `{file_name}` do not fit together: {problem.message}") from None


def skeleton(ir_model: ir.Model) -> Any:
    """An `onnx.ModelProto` of the graph in which large initializers are inputs."""
    import onnx
    import onnx_ir as ir

    proto = onnx.ModelProto(ir_version=10)
    for domain, version in ir_model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.functions.extend(ir.to_proto(function) for function in ir_model.functions.values())
    graph, source = proto.graph, ir_model.graph
    graph.name = source.name or "main_graph"
    graph.input.extend(ir.to_proto(value) for value in source.inputs)
    graph.output.extend(ir.to_proto(value) for value in source.outputs)
    for value in source.initializers.values():
        tensor = value.const_value
        assert tensor is not None
        if tensor.nbytes <= _SMALL_BYTES:
            graph.initializer.append(ir.to_proto(tensor))
            graph.initializer[-1].name = value.name
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(value.name, tensor.dtype.value, tuple(tensor.shape)))
    for node in source:
        graph.node.append(ir.to_proto(node))
        graph.value_info.extend(ir.to_proto(v) for v in node.outputs if v.name and v.type and not v.is_graph_output())
    return proto


def _hide_deprecated(proto: Any) -> None:
    """Move what the checker refuses, but `_adapters` turns into its successor, to a domain that is not checked."""
    for node in nodes(proto.graph, *proto.functions):
        if node.domain == "" and node.op_type in SUCCEEDED:
            node.domain = DOMAIN
    if not any(opset.domain == DOMAIN for opset in proto.opset_import):
        proto.opset_import.add(domain=DOMAIN, version=1)


def _first_line(problem: BaseException) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(problem).__name__
