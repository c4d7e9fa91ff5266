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
from edgewright.graph.serialize import as_source
from edgewright.model import Arrays, Model
from edgewright.runtimes.onnxruntime.layers import times_by_tensor
from edgewright.runtimes.onnxruntime.sessions import FILE, SessionRunner, give_types, load, read, settings_for
from edgewright.runtimes.onnxruntime.support import find_problems
from edgewright.target import Target

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
)


@dataclass(frozen=True)
class Options:
    """How the bundle is opened.

    Attributes:
        graph_optimization: Which of ONNX Runtime's own graph optimizations run when the file is opened; "none" is the
            slow, literal evaluation of the graph.
    """

    graph_optimization: Literal["all", "extended", "basic", "none"] = "all"


def version() -> str:
    """Version of the installed ONNX Runtime."""
    import importlib.metadata

    return importlib.metadata.version("onnxruntime")


def quant_format(target: Target) -> QuantFormat:
    """uint8 activations and int8 weights by channel, of 7 bits on x86 CPUs without VNNI.

    Source: onnxruntime documentation, "Quantize ONNX models", section on `reduce_range`: `vpmaddubsw` adds two products
    of u8 x s8 in 16 bits and saturates.
    """
    if target.has_int8_dot or target.has("asimd"):
        return QuantFormat(reason=f"CPU `{target.cpu}` multiplies int8 without saturation, so weights use all 8 bits")
    return QuantFormat(
        weight_bits=7,
        reason=f"CPU `{target.cpu}` has no VNNI: pairs of uint8 x int8 products saturate in 16 bits, unless weights "
        "keep to 7 bits",
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
    model.save(folder / FILE)
    names = [value.name for node in model.ir.graph for value in node.outputs]
    names += [value.name for value in (*model.ir.graph.inputs, *model.ir.graph.outputs)]
    return Conversion(
        tensor_names={name: name for name in names if name},
        usage=f"""import onnxruntime
session = onnxruntime.InferenceSession("{FILE}", providers=["CPUExecutionProvider"])
outputs = session.run(None, {{{", ".join(f'"{info.name}": ...' for info in model.inputs)}}})""",
    )


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


def profile(bundle: OpenedBundle, inputs: Arrays, *, threads: int, runs: int) -> dict[str, float]:
    """Mean milliseconds per run of each node, by ONNX Runtime's own profiler, after one warm-up run.

    A fused chain counts under its last tensor. Changes of memory layout are summed under "(reorder)", nodes that cannot
    be traced to a tensor of the network under "(other)".
    """
    return times_by_tensor(bundle, inputs, threads=threads, runs=runs)
