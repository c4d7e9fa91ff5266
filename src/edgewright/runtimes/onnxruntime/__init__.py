"""ONNX Runtime: runs the ONNX file itself, optimized when it is opened, on the CPU.

The bundle's `model.onnx` is the network as it is, not what ONNX Runtime makes of it: its optimized form fits one CPU
and one version. Own operators stay functions with bodies of standard operators, which ONNX Runtime runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgewright.contracts import Conversion, Cut, OpenedBundle, Problem, QuantFormat, Traits
from edgewright.graph.cut import extract
from edgewright.graph.int8 import with_unsigned_weights
from edgewright.graph.serialize import as_source
from edgewright.model import Arrays, Model
from edgewright.runtimes.onnxruntime.layers import times_by_tensor
from edgewright.runtimes.onnxruntime.sessions import (
    FILE,
    RESTORE,
    SILENTLY_LOSSY,
    SessionRunner,
    give_types,
    load,
    read,
    restores_weights,
    settings_for,
)
from edgewright.runtimes.onnxruntime.support import find_problems
from edgewright.target import Target, weight_bits

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA = None
TRAITS = Traits(
    precisions=("fp32", "fp16", "int8"),
    dynamic_shapes=True,
    exact_float=True,
    taps="rebuild",
    profiles=True,
    functions=True,
    saturates=True,
)


#: Fused with the Q and DQ around them. Slower than their float forms, and so left out: Softmax.
_INT8_OPERATORS = (
    *("Add", "AveragePool", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul", "Reshape"),
    *("Sigmoid", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
)


@dataclass(frozen=True)
class Options:
    """How the bundle is opened.

    Attributes:
        graph_optimization: Which of ONNX Runtime's own graph optimizations run when the file is opened; "none" is the
            slow, literal evaluation of the graph.
        weights: Weights stored in integers become "float" when the file is opened, which makes it as fast as float; or
            they stay "integer" in memory and are read anew in every run: a MatMul then multiplies in integers, which is
            faster for few rows (2.5 times for one, 4096 x 4096) and slower for many, and other layers are slower.
    """

    graph_optimization: Literal["all", "extended", "basic", "none"] = "all"
    weights: Literal["float", "integer"] = "float"


def version() -> str:
    """Version of the installed ONNX Runtime."""
    import importlib.metadata

    return importlib.metadata.version("onnxruntime")


def quant_format(target: Target) -> QuantFormat:
    """uint8 activations and int8 weights by channel, of 7 bits on x86 CPUs without VNNI.

    Source: onnxruntime documentation, "Quantize ONNX models", section on `reduce_range`: `vpmaddubsw` adds two products
    of u8 x s8 in 16 bits and saturates. Operators: those that its QDQ transformers fuse on the CPU.
    """
    bits, reason = weight_bits(target)
    return QuantFormat(
        weight_bits=bits,
        pairs=bits < 8,
        operators=_INT8_OPERATORS,
        float_outputs=("Gemm", "MatMul"),
        reason=reason,
    )


def supports(ir_model: ir.Model) -> tuple[Problem, ...]:
    """Nodes that ONNX Runtime rejects: no CPU kernel for their types, or no such operator.

    A copy whose large weights are inputs is opened, so the cost does not grow with the weights. Where it is rejected
    the node in question is taken out and the rest is tried again, which finds all where the types of what it makes are
    known.
    """
    return find_problems(ir_model)


def convert(model: Model, folder: Path, options: Options, target: Target) -> Conversion:
    """Write `model.onnx`; every tensor keeps its name."""
    model.save(folder / FILE, history=False)
    names = [value.name for node in model.ir.graph for value in node.outputs]
    names += [value.name for value in (*model.ir.graph.inputs, *model.ir.graph.outputs)]
    stored = any(node.op_type == "DequantizeLinear" for node in model.ir.graph)  # then weights are, in a float network
    restored = restores_weights(model.precision, {"weights": options.weights})
    return Conversion(
        tensor_names={name: name for name in names if name},
        precision="int8" if stored and not restored else None,
        usage=_usage(model, quantized=stored, restored=restored),
    )


def _usage(model: Model, *, quantized: bool, restored: bool) -> str:
    """How to open the file without edgewright, with the settings that its answers or its speed depend on."""
    lines, arguments = ["import onnxruntime"], [f'"{FILE}"', 'providers=["CPUExecutionProvider"]']
    if quantized and restored:
        key, value = RESTORE
        lines.append("settings = onnxruntime.SessionOptions()")
        lines.append(
            f'settings.add_session_config_entry("{key}", "{value}")  # weights become float once, not in every run'
        )
        arguments.insert(1, "settings")
    if quantized and not restored:
        lines.append("# That optimizer would round the weights of layers that were kept in float.")
        arguments.append(f"disabled_optimizers={list(SILENTLY_LOSSY)!r}".replace("'", '"'))
    lines.append(f"session = onnxruntime.InferenceSession({', '.join(arguments)})")
    feeds = ", ".join(f'"{info.name}": ...' for info in model.inputs)
    return "\n".join([*lines, f"outputs = session.run(None, {{{feeds}}})"])


def open(bundle: OpenedBundle, *, threads: int, cut: Cut | None = None) -> SessionRunner:
    """The bundle's network, or the part that `cut` names, as an inference session on `threads` threads.

    Raises:
        EdgewrightError: E231 for a tensor in `cut` that does not exist, E232 when ONNX Runtime rejects the file.
    """
    settings = settings_for(bundle, threads)
    path = bundle.path / FILE
    if cut is None:
        return SessionRunner(load(path, settings))
    network = read(path)
    give_types(network, cut.inputs or ())
    fragment = extract(network, cut)
    with as_source(fragment) as source:
        return SessionRunner(load(source, settings))


def exact(bundle: OpenedBundle, *, threads: int) -> SessionRunner:
    """The bundle's network with its int8 weights as uint8 (plus 128, as their zero points).

    The integers and all that is done with them are the same, to the last bit where nothing saturates; but for unsigned
    weights ONNX Runtime's kernels widen before they add, five times as slow.
    """
    with as_source(with_unsigned_weights(read(bundle.path / FILE))) as source:
        return SessionRunner(load(source, settings_for(bundle, threads)))


def profile(bundle: OpenedBundle, inputs: Arrays, *, threads: int, runs: int) -> dict[str, float]:
    """Mean milliseconds per run of each node, by ONNX Runtime's own profiler, after one warm-up run.

    A fused chain counts under its last tensor. Changes of memory layout are summed under "(reorder)", nodes that cannot
    be traced to a tensor of the network under "(other)".
    """
    return times_by_tensor(bundle, inputs, threads=threads, runs=runs)
