"""LiteRT (TensorFlow Lite): the network as `model.tflite`, run by its interpreter with the XNNPACK kernels.

The file is written here, operator by operator, in channels-last layout without transposes between layers; tensors keep
their ONNX names. Notes inside it say in which order each tensor holds its axes. Inputs and outputs of the file are in the
file's layout: photos are NHWC, as everywhere on phones.

Half precision is stored and computed in float32, which is what LiteRT does on CPUs without half-precision arithmetic;
64-bit integers are held in 32 bits.

A network in int8 takes and gives floats unless the options `input_type` and `output_type` ask for the integers themselves, as
microcontrollers and accelerators want them. Sessions of edgewright convert at both ends, so they look the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgewright.contracts import Conversion, Cut, OpenedBundle, Problem, QuantFormat, Traits
from edgewright.errors import EdgewrightError
from edgewright.formats.tflite.writing import write
from edgewright.graph.dataflow import constant_array, is_standard
from edgewright.model import Model
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.network import NOTES, written
from edgewright.runtimes.litert.preparing import prepare
from edgewright.runtimes.litert.runner import FileRunner
from edgewright.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA = "litert"
TRAITS = Traits(precisions=("fp32", "fp16", "int8"), dynamic_shapes=True, taps="rebuild")

_FILE = "model.tflite"
#: What kernels run in int8 with any scales: sums and products, means over a whole image; the others only move values.
_INT8_OPERATORS = (
    *("Add", "Concat", "Flatten", "GlobalAveragePool", "MaxPool", "Mul", "Reshape", "Slice", "Split", "Squeeze"),
    *("Transpose", "Unsqueeze"),
)


#: What the lines of a bundle's README add about what the file's inputs hold.
_WIRE = {"float32": "", "int8": ", int8 of value / scale + zero point"}


@dataclass(frozen=True)
class Options:
    """What the file's ends hold; inside, what runs is decided by the network's own types.

    Attributes:
        input_type: int8 where the file's inputs are the integers that the first layers read.
        output_type: int8 where its outputs are the integers that the last layers make.
    """

    input_type: Literal["float32", "int8"] = "float32"
    output_type: Literal["float32", "int8"] = "float32"


def version() -> str:
    """Version of the installed LiteRT."""
    import importlib.metadata

    return importlib.metadata.version("ai-edge-litert")


def quant_format(target: Target) -> QuantFormat:
    """int8 activations with a zero point, int8 weights by channel with all 8 bits.

    A layer in int8 makes int8. Averages over windows and the functions that want one fixed scale (Softmax, Sigmoid,
    Tanh) stay in float.

    Source: TensorFlow Lite 8-bit quantization specification; XNNPACK's qs8 kernels widen to 16 bits before they multiply.
    """
    return QuantFormat(
        activation_dtype="int8",
        weight_bits=8,
        operators=_INT8_OPERATORS,
        reason="LiteRT multiplies int8 by int8 in 16 bits and adds in 32: nothing saturates, weights have all 8 bits",
    )


def supports(ir_model: ir.Model) -> tuple[Problem, ...]:
    """Nodes that cannot be written with LiteRT's operators."""
    try:
        return tuple(_lowered(ir_model).problems)
    except EdgewrightError as problem:
        if problem.code != "E209":
            raise
        return (Problem("", "input", problem.message),)


def convert(model: Model, folder: Path, options: Options, target: Target) -> Conversion:
    """Write `model.tflite`.

    Raises:
        EdgewrightError: E105 where it cannot be written, E210 for nodes that have no form in LiteRT, E211 for a
            quantization that is not LiteRT's, or ends that are to be int8 and are not quantized.
    """
    _check_format(model)
    lowering = _lowered(model.ir, options)
    assert not lowering.problems, "`supports` is asked first"
    _check_ends(model.name, lowering, options)
    network = lowering.network()
    network.metadata[NOTES] = written(lowering, network)
    write(network, folder / _FILE)
    kept = set(network.tensors())
    return Conversion(
        tensor_names={name: held.tensor.name for name, held in lowering.held().items() if held.tensor in kept},
        usage=f"""from ai_edge_litert.interpreter import Interpreter  # NHWC{_WIRE[options.input_type]}: get_input_details()
network = Interpreter("{_FILE}", num_threads=1); network.allocate_tensors()
feeds = {{{", ".join(f'"{info.name}": ...' for info in model.inputs)}}}
for item in network.get_input_details(): network.set_tensor(item["index"], feeds[item["name"]])
network.invoke(); outputs = {{item["name"]: network.get_tensor(item["index"]) for item in network.get_output_details()}}""",
    )


def open(bundle: OpenedBundle, *, threads: int, cut: Cut | None = None) -> FileRunner:
    """The bundle's file, or the part that `cut` names, on `threads` threads.

    Raises:
        EdgewrightError: E231 for a tensor in `cut` that does not exist, E232 when LiteRT rejects the file.
    """
    return FileRunner(bundle.path / _FILE, threads, cut, [info.name for info in bundle.outputs])


def _lowered(ir_model: ir.Model, options: Options | None = None) -> Lowering:
    from edgewright.runtimes.litert import rules  # noqa: F401 (fills the table)

    options = options or Options()
    wanted = (options.input_type == "int8", options.output_type == "int8")
    lowering = Lowering(prepare(ir_model), integer_inputs=wanted[0], integer_outputs=wanted[1])
    lowering.run()
    return lowering


def _check_ends(name: str, lowering: Lowering, options: Options) -> None:
    """Refuse to hand on floats where int8 was asked for.

    Raises:
        EdgewrightError: E211 with the first input or output that is not quantized.
    """
    graph, held = lowering.prepared.ir.graph, lowering.held()
    for key, wanted, values in (
        ("input", options.input_type, graph.inputs),
        ("output", options.output_type, graph.outputs),
    ):
        left = [v.name for v in values if v.name in held and held[v.name].tensor.dtype == "float32"]
        if wanted == "int8" and left:
            raise EdgewrightError(
                "E211",
                f"{key} `{left[0]}` of `{name}` cannot be int8: the network does not quantize it with one scale for all",
                hint="edgewright compress MODEL --recipe int8 --runtime litert --out FILE",
            )


def _check_format(model: Model) -> None:
    """Refuse activations that are not int8 with one scale, and operators on integers of other runtimes.

    Raises:
        EdgewrightError: E211.
    """
    for node in model.ir.graph:
        found = ""
        if is_standard(node, "QuantizeLinear"):
            dtype = node.outputs[0].dtype
            scale = constant_array(node.inputs[1])
            zero = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
            name = zero.dtype.name if zero is not None else dtype.numpy().name if dtype is not None else "uint8"
            found = name if name != "int8" else "scaled by channel" if scale is not None and scale.size > 1 else ""
        elif "Integer" in node.op_type or node.op_type.startswith(("QLinear", "DynamicQuantize")):
            found = f"made by {node.op_type}"
        if found:
            raise EdgewrightError(
                "E211",
                f"`{model.name}` quantizes `{node.inputs[0].name if node.inputs[0] else ''}` to {found}; "
                "LiteRT runs int8 with one scale",
                hint="edgewright compress MODEL --recipe int8 --runtime litert --out FILE",
            )
