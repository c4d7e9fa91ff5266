"""Inference sessions of ONNX Runtime: how they are set up, loaded, run and closed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.contracts import Cut, OpenedBundle
from edgewright.errors import EdgewrightError
from edgewright.graph.cut import extract
from edgewright.graph.serialize import as_source
from edgewright.model import Arrays

if TYPE_CHECKING:
    import onnx_ir as ir

FILE = "model.onnx"
PROVIDERS = ["CPUExecutionProvider"]
#: Setting under which ONNX Runtime folds DequantizeLinear of constants. It also keeps it from computing quantized networks
#: in integers, so that only float ones get it.
RESTORE = ("session.disable_quant_qdq", "1")
#: Optimizers that change the answers: this one rounds the float weights of a layer between quantized tensors to 8 bits,
#: with one scale for all channels, although the file keeps that layer in float.
SILENTLY_LOSSY = ["WeightBiasQuantization"]
#: On x86 this optimizer shifts int8 activations to uint8, and forgets that where a MatMul and an Add became a Gemm.
_SHIFT, _SHIFT_FAILED = "QDQS8ToU8Transformer", "does not match y_zero_point type UINT8"
_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}


class SessionRunner:
    """An inference session; its own memory never leaves it: results are numpy's."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: Arrays, /) -> dict[str, np.ndarray]:
        """All outputs by ONNX name."""
        assert self._session is not None, "the runner was closed"
        try:
            results = self._session.run(self._outputs, dict(inputs))
        except Exception as problem:  # the library's errors share no base class of their own
            # Inputs of a cut are checked by nobody else.
            code = "E230" if type(problem).__name__ == "InvalidArgument" else "E232"
            raise failure("running", problem, code=code) from None
        return dict(zip(self._outputs, results, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None


def settings_for(bundle: OpenedBundle, threads: int) -> Any:
    """Session options of the bundle: its optimization level, one operator at a time, on `threads` threads."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    level = str(bundle.options.get("graph_optimization", "all"))
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[level])
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    if restores_weights(bundle.precision, bundle.options):
        settings.add_session_config_entry(*RESTORE)
    settings.log_severity_level = 4  # what goes wrong is raised; the log would only repeat it on stderr
    return settings


def restores_weights(precision: str, options: Mapping[str, Any]) -> bool:
    """True where weights stored in integers become float once, when the file is opened, instead of at every run."""
    return precision != "int8" and options.get("weights", "float") == "float"


def literal_settings() -> Any:
    """Settings under which a graph is checked and loaded as it stands."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    return settings


def load(source: bytes | Path, settings: Any) -> Any:
    """An inference session.

    Raises:
        EdgewrightError: E232 when ONNX Runtime rejects the model.
    """
    try:
        return _session(source, settings, SILENTLY_LOSSY)
    except Exception as problem:  # as above
        if _SHIFT_FAILED not in str(problem):
            raise failure("loading", problem) from None
    try:
        return _session(source, settings, (*SILENTLY_LOSSY, _SHIFT))
    except Exception as problem:  # as above
        raise failure("loading", problem) from None


def _session(source: bytes | Path, settings: Any, disabled: Sequence[str]) -> Any:
    import onnxruntime

    path = source if isinstance(source, bytes) else str(source)
    return onnxruntime.InferenceSession(path, settings, providers=PROVIDERS, disabled_optimizers=list(disabled))


def failure(doing: str, problem: Exception, *, code: str = "E232") -> EdgewrightError:
    """The error for an exception of the library, in the library's own words."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()] or [type(problem).__name__]
    return EdgewrightError(
        code, f"ONNX Runtime failed while {doing} the network: {lines[0]}", details=tuple(lines[1:4])
    )


def read(path: Path) -> ir.Model:
    """The graph in the bundle's file.

    Raises:
        EdgewrightError: E232 when it cannot be read.
    """
    import onnx_ir as ir

    try:
        return ir.load(path)
    except Exception as problem:  # protobuf's and onnx_ir's errors share no base class
        raise failure("reading", problem) from None


def give_types(network: ir.Model, names: Collection[str]) -> None:
    """Ask ONNX Runtime for the types of tensors for which the file has none and ONNX's own inference finds none."""
    import onnx_ir as ir

    values = {value.name: value for node in network.graph for value in node.outputs}
    untyped = tuple(name for name in names if name in values and values[name].type is None)
    if not untyped:
        return
    with as_source(extract(network, Cut(None, untyped))) as source:
        for output in load(source, literal_settings()).get_outputs():
            kind = output.type.removeprefix("tensor(").removesuffix(")").upper()
            value = values[output.name]
            value.type = ir.TensorType(ir.DataType[kind])
            value.shape = ir.Shape(output.shape)
