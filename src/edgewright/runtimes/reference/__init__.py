"""Plain numpy: slow, readable, the definition of every operator and the oracle of every kernel.

What its numbers mean:

- float32 graphs are computed in IEEE float32 throughout; sums are in numpy's and BLAS's order.
- float16 and bfloat16 graphs keep every tensor in 16 bits. Each operator computes in float32 and rounds once, to its
  output's type; sums inside Conv, Gemm, MatMul, pooling, normalization and reductions stay float32.
- Integer sums are exact. QDQ graphs run as written: quantize, dequantize, float operator.
- Model-local functions run by their body, so operators of the domain `edgewright` need nothing here.

`threads` is not used: numpy's BLAS decides, and nobody times this runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.contracts import Conversion, Cut, OpenedBundle, Problem, QuantFormat, Traits
from edgewright.errors import EdgewrightError
from edgewright.graph.cut import unknown_tensor
from edgewright.model import Arrays, Model
from edgewright.runtimes.reference import (  # noqa: F401 - each import enters its operators in the table
    activation,
    control,
    conv,
    create,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    quantize,
    recurrent,
    reduce,
    resize,
    shape,
    signal,
)
from edgewright.runtimes.reference.execution import Block, Planner, frozen, problems
from edgewright.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA = None
TRAITS = Traits(
    precisions=("fp32", "fp16", "int8"),
    dynamic_shapes=True,
    exact_float=True,
    taps="native",
    functions=True,
    deployable=False,
)
_FILE = "model.onnx"


@dataclass(frozen=True)
class Options:
    """No options: there is one definition of each operator."""


def version() -> str:
    """The version of numpy, which computes."""
    return f"numpy {np.__version__}"


def quant_format(target: Target) -> QuantFormat | None:
    """The default format: every QDQ format runs as the standard defines it, on every CPU alike."""
    return QuantFormat(reason="numpy runs every QDQ format exactly as the ONNX standard defines it, on every CPU")


def supports(ir_model: ir.Model) -> tuple[Problem, ...]:
    """Nodes whose operator the reference does not define, in subgraphs and called functions too."""
    return problems(ir_model)


def convert(model: Model, folder: Path, options: Options, target: Target) -> Conversion:
    """Write `model.onnx`; every tensor keeps its name."""
    model.save(folder / _FILE, history=False)
    values = [*model.ir.graph.inputs, *(value for node in model.ir.graph for value in node.outputs)]
    names = {value.name: value.name for value in values if value.name}
    return Conversion(
        tensor_names=names,
        usage=f"""from onnx.reference import ReferenceEvaluator
network = ReferenceEvaluator("{_FILE}")
outputs = network.run(None, {{{", ".join(f'"{info.name}": ...' for info in model.inputs)}}})""",
    )


def open(bundle: OpenedBundle, *, threads: int, cut: Cut | None = None) -> NumpyRunner:
    """The network, or the part that `cut` names; only nodes that its outputs need are planned and run.

    Raises:
        EdgewrightError: E231 for a tensor that does not exist or that needs an input which the cut does not feed, E232
            when the file cannot be read.
    """
    import onnx_ir as ir

    path = bundle.path / _FILE
    try:
        ir_model = ir.load(path)
        return NumpyRunner(_plan(ir_model, cut))
    except EdgewrightError:
        raise
    except Exception as problem:  # onnx_ir and protobuf raise many kinds
        raise EdgewrightError("E232", f"`{path}` cannot be loaded: {problem}") from problem


def _plan(ir_model: ir.Model, cut: Cut | None) -> Block:
    graph = ir_model.graph
    fed = {value.name or "" for value in graph.inputs if value.name not in graph.initializers}
    known = fed | set(graph.initializers) | {value.name or "" for node in graph for value in node.outputs}
    given = fed if cut is None or cut.inputs is None else set(cut.inputs)
    outputs = tuple(value.name or "" for value in graph.outputs) if cut is None else cut.outputs
    if not outputs:
        raise EdgewrightError("E231" if cut else "E232", "a network without outputs shows nothing")
    for name in (*sorted(given), *outputs):
        if name not in known:
            raise unknown_tensor(name, known, where="network")
    return Planner(ir_model).main(graph, given, outputs)


class NumpyRunner:
    """A planned network; every run is independent of the others, so several threads may share it."""

    def __init__(self, block: Block) -> None:
        self._block: Block | None = block

    def run(self, inputs: Arrays, /) -> dict[str, np.ndarray]:
        """All outputs by ONNX name, as arrays of their own.

        Raises:
            EdgewrightError: E230 for an input that is missing, E232 naming the node that cannot be evaluated.
        """
        if self._block is None:
            raise EdgewrightError("E232", "this network was closed")
        absent = sorted(set(self._block.inputs) - set(inputs))
        if absent:
            raise EdgewrightError("E230", f"input `{absent[0]}` is missing")
        feeds = {name: frozen(inputs[name]) for name in self._block.inputs}
        with np.errstate(all="ignore"):  # infinities and nans are values, as in every other runtime
            values = self._block.run(feeds, {})
        return {name: _own(value) for name, value in zip(self._block.outputs, values, strict=True)}

    def close(self) -> None:
        """Drop the weights."""
        self._block = None


def _own(value: Any) -> Any:
    return np.array(value, order="C") if isinstance(value, np.ndarray) else value
