"""OpenVINO networks: made from ONNX, given stable names, cut into parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.contracts import Cut
from edgewright.errors import EdgewrightError
from edgewright.graph.cut import unknown_tensor
from edgewright.runtimes.openvino.failures import failure

if TYPE_CHECKING:
    import onnx_ir as ir


def inlined(ir_model: ir.Model) -> ir.Model:
    """A copy without functions and metadata (which OpenVINO would copy into the XML, as element names)."""
    from onnx_ir.passes.common import InlinePass

    copy = ir_model.clone()
    copy.metadata_props.clear()
    if copy.functions:
        copy = InlinePass()(copy).model
    return copy


def name_operations(network: Any) -> None:
    """Give every operation a name that depends on the network alone, so that equal networks make equal files.

    OpenVINO numbers what it makes by a counter of the process. Commas are left out: they separate the names of fused
    operations where OpenVINO lists them.
    """
    taken: set[str] = set()
    for number, operation in enumerate(network.get_ordered_ops()):
        kind = operation.get_type_name()
        tensors = sorted(name for port in operation.outputs() for name in port.get_names())
        stem = tensors[0].replace(",", ";") if tensors and kind != "Result" else f"{kind}_{number}"
        name = stem if stem not in taken else f"{stem}#{number}"
        taken.add(name)
        operation.set_friendly_name(name)
        for body in _bodies(operation):
            name_operations(body)


def keep_signs_behind(network: Any) -> None:
    """Keep OpenVINO from taking negative factors to the wrong side of a ReLU; for networks with int8 layers.

    Behind an int8 layer its CPU plugin (2026.4 and before) multiplies with the constants that follow a ReLU or PReLU before
    it, which is right for positive ones alone: a factor of -1 gives relu(-x). Where something is added to the product it
    does not, so the smallest float is added, which changes no number above 1e-31.
    """
    import openvino

    for operation in network.get_ordered_ops():
        if not (_negates(operation) and _scales_a_relu(operation)):
            continue
        port = operation.output(0)
        names, readers = port.get_names(), port.get_target_inputs()
        smallest = openvino.opset13.constant(np.finfo(np.float32).tiny, port.get_element_type())
        _take_over(port, names, readers, openvino.opset13.add(port, smallest).output(0))


def keep_quantizers_apart(network: Any) -> None:
    """Keep OpenVINO from rounding within a ReduceMax, ReduceMin or MatMul; for networks with int8 layers.

    Its CPU plugin (2026.4 and before) lets these quantize what they make. Extremes are taken from the wrong start then, and a
    MatMul of two axes without a bias, whose quantizer has a zero point, gives anything on one thread. Of two readers of the
    same tensor it takes none along, and the larger of a number and itself is the number.
    """
    import openvino

    for operation in network.get_ordered_ops():
        if not _rounds_wrong(operation):
            continue
        port = operation.output(0)
        names, readers = port.get_names(), port.get_target_inputs()
        if any(_quantizes(reader.get_node()) for reader in readers):
            _take_over(port, names, readers, openvino.opset13.maximum(port, port).output(0))


def _rounds_wrong(operation: Any) -> bool:
    kind = operation.get_type_name()
    plain = kind == "MatMul" and operation.get_output_partial_shape(0).rank == 2
    return plain or kind in ("ReduceMax", "ReduceMin")


def _quantizes(operation: Any) -> bool:
    """True for a quantizer, also behind a change of shape."""
    kind = operation.get_type_name()
    if kind in ("Reshape", "Squeeze", "Unsqueeze"):
        return any(_quantizes(reader.get_node()) for reader in operation.output(0).get_target_inputs())
    return bool(kind == "FakeQuantize")


def keep_order_behind(network: Any) -> None:
    """Keep OpenVINO from taking permuted channels into the weights of a convolution the wrong way round.

    It (2026.4 and before) drops a Gather of all channels before a convolution and permutes the weights instead, as the Gather
    permutes and not the other way, which is right for a permutation that is its own inverse alone, such as RGB to BGR. It does
    not see one by a matrix of places, one row, whose axis is dropped behind it.
    """
    import openvino

    for operation in network.get_ordered_ops():
        places = _permuted(operation)
        if places is None:
            continue
        port = operation.output(0)
        names, readers = port.get_names(), port.get_target_inputs()
        row, axis = (openvino.opset13.constant(numbers, openvino.Type.i64) for numbers in (places[None], np.array([1])))
        picked = openvino.opset13.gather(operation.input_value(0), row, axis)
        _take_over(port, names, readers, openvino.opset13.squeeze(picked, axis).output(0))


def _permuted(operation: Any) -> np.ndarray | None:
    """The places that a Gather puts along axis 1, where they are a permutation that is not its own inverse."""
    if operation.get_type_name() != "Gather":
        return None
    data, places, axis = (source.get_node() for source in operation.input_values()[:3])
    if any(node.get_type_name() != "Constant" for node in (places, axis)) or data.get_type_name() == "Constant":
        return None
    rank = operation.get_input_partial_shape(0).rank
    if axis.get_data().item() not in ((1, 1 - rank.get_length()) if rank.is_static else (1,)):
        return None
    numbers = np.asarray(places.get_data(), np.int64)
    order = np.arange(numbers.size)
    numbers = np.where(numbers < 0, numbers + numbers.size, numbers)
    if numbers.ndim != 1 or not np.array_equal(np.sort(numbers), order):
        return None
    return None if np.array_equal(numbers[numbers], order) else numbers


def _take_over(port: Any, names: set[str], readers: Any, other: Any) -> None:
    """Let `readers` of `port` read `other`, which has its names from now on."""
    for reader in readers:
        reader.replace_source_output(other)
    port.set_names(set())
    other.set_names(names)


def name_inputs(network: Any, names: Sequence[str]) -> None:
    """Give inputs the names that OpenVINO takes from one which an output returns as it is (by a Dropout)."""
    for port, name in zip(network.inputs, names, strict=True):
        if name not in port.get_names():
            port.get_tensor().add_names({name})


def _factor(operation: Any) -> Any:
    """What an operation multiplies its other input by, None where that is no constant: a sign is all that counts."""
    kind = operation.get_type_name()
    if kind == "Negative":
        return np.float32(-1)
    values = [source.get_node() for source in operation.input_values()]
    constants = [node.get_data() for node in values if node.get_type_name() == "Constant"]
    if len(constants) != 1:
        return None
    if kind == "Subtract":  # 0 - x
        return np.float32(-1) if values[0].get_type_name() == "Constant" and not constants[0].any() else None
    divides = kind == "Divide" and values[1].get_type_name() == "Constant"
    return constants[0] if kind == "Multiply" or divides else None


def _negates(operation: Any) -> bool:
    factor = _factor(operation)
    return factor is not None and bool((factor < 0).any())


def _scales_a_relu(operation: Any) -> bool:
    """True where its data is a ReLU's result, or such a one times constants."""
    while _factor(operation) is not None:
        sources = [source.get_node() for source in operation.input_values()]
        operation = next(node for node in sources if node.get_type_name() != "Constant")
    return operation.get_type_name() in ("Relu", "PRelu")


def _bodies(operation: Any) -> list[Any]:
    """Networks inside an operation: the branches of an If, the body of a loop."""
    kind = operation.get_type_name()
    if kind == "If":
        return [operation.get_then_body(), operation.get_else_body()]
    return [operation.get_function()] if kind in ("Loop", "TensorIterator") else []


def _ports(network: Any) -> dict[str, Any]:
    """Outputs of operations by tensor name."""
    operations = [operation for operation in network.get_ordered_ops() if operation.get_type_name() != "Result"]
    return {name: port for operation in operations for port in operation.outputs() for name in port.get_names()}


def surviving(network: Any, ir_model: ir.Model) -> dict[str, str]:
    """ONNX tensor name -> its name in the file; OpenVINO keeps ONNX's names of what it does not fold away."""
    ports = _ports(network)
    values = (*ir_model.graph.inputs, *(value for node in ir_model.graph for value in node.outputs))
    return {value.name: value.name for value in values if value.name in ports}


def fragment(network: Any, cut: Cut) -> Any:
    """The part of `network` that `cut` names; changes `network`.

    Raises:
        EdgewrightError: E231 for a tensor that is not there, or inputs that do not determine the outputs.
    """
    import openvino

    if not cut.outputs:
        raise EdgewrightError("E231", "a cut must name at least one output tensor")
    ports = _ports(network)
    for name in (*(cut.inputs or ()), *cut.outputs):
        if name not in ports:
            raise unknown_tensor(name, ports, where="the OpenVINO network")
    parameters = list(network.get_parameters()) if cut.inputs is None else []
    for name in dict.fromkeys(cut.inputs or ()):
        port = ports[name]
        if port.get_node().get_type_name() != "Parameter":
            port = ports[name] = _opened(port, name)
        parameters.append(port.get_node())
    outputs = [ports[name] for name in dict.fromkeys(cut.outputs)]
    _require_closed(outputs, parameters)
    results = [openvino.opset13.result(port) for port in outputs]
    try:
        return openvino.Model(results, parameters)
    except RuntimeError as problem:
        raise failure("cutting", problem) from None


def _opened(port: Any, name: str) -> Any:
    """A new parameter's output in the place of `port`: everything that read `port` reads it."""
    import openvino

    parameter = openvino.opset13.parameter(port.get_partial_shape(), port.get_element_type(), name=name)
    for reader in port.get_target_inputs():
        reader.replace_source_output(parameter.output(0))
    port.set_names(port.get_names() - {name})
    parameter.output(0).set_names({name})
    return parameter.output(0)


def _require_closed(outputs: list[Any], parameters: list[Any]) -> None:
    """Refuse a cut that needs a network input which it does not list."""
    listed = {operation.get_friendly_name() for operation in parameters}
    seen: set[str] = set()
    missing: set[str] = set()
    stack = [port.get_node() for port in outputs]
    while stack:
        operation = stack.pop()
        name = operation.get_friendly_name()
        if name in seen:
            continue
        seen.add(name)
        if operation.get_type_name() == "Parameter" and name not in listed:
            missing.add(name)
        stack.extend(source.get_node() for source in operation.input_values())
    if missing:
        names = ", ".join(f"`{name}`" for name in sorted(missing))
        raise EdgewrightError(
            "E231", f"the cut's {len(parameters)} inputs do not determine its outputs: {names} must be given too"
        )


def label(operation: Any) -> str:
    """A name for people: the first tensor that the operation makes, else its own name."""
    tensors = [name for port in operation.outputs() for name in sorted(port.get_names())]
    return str(tensors[0] if tensors else operation.get_friendly_name())
