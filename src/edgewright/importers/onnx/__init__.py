"""Reads ONNX files: opsets 7 to the newest one, upgraded to the one edgewright works in.

Owns reading and refusing. The steps, each in a module of its own, in this order:

    _reading     bytes -> ModelProto; what is no ONNX file is refused
    _tensors     sizes against data, external data against its file, sparse tensors made dense
    _structure   names, order, cycles, functions, unknown operators, before any C++ of the onnx package sees the graph
    _inference   the onnx package's checker and shape inference, on a copy without weights
    _upgrade     opset by opset to 21, one small rewrite per change of meaning (`_adapters`)
    _naming      node names that are unique; tensor names are never changed

ONNX Runtime's own operators (`com.microsoft`) are kept as they are; those of other domains are refused by name, unless the
file brings them as functions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.errors import EdgewrightError
from edgewright.model import IR_VERSION, Model

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = None
SUFFIXES: tuple[str, ...] = (".onnx",)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a file leaves open.

    Attributes:
        sizes: Open sizes of inputs to fix: `NAME=1x3x48x320`, an axis that is no number stays open (`NAME=Nx3x48x320`); the
            name may be left out where there is one input.
    """

    sizes: tuple[str, ...] = ()


def load(path: Path, options: Options) -> Model:
    """The network in the ONNX file at `path`, in opset 21 and IR version 10.

    Weights in external files stay there and are mapped into memory; they must outlive the Model.

    Raises:
        EdgewrightError: E103 sizes that do not fit the inputs, E104 the file cannot be read, E201 it is no ONNX file or cut
            short, E202 a size does not fit its data, E203 a cycle or a value that nothing makes, E204 unknown operators,
            E205 no upgrade, E206 external data outside the folder or missing, E213 not valid ONNX in another way, E303
            malformed edgewright metadata.

    Source: ONNX IR specification, https://onnx.ai/onnx/repo-docs/IR.html
    """
    from edgewright.importers.onnx._metadata import restore
    from edgewright.importers.onnx._reading import read
    from edgewright.importers.onnx._structure import check_and_sort
    from edgewright.importers.onnx._tensors import External, check_tensors

    proto = read(path)
    external = External(path.parent)
    check_tensors(proto, external)
    check_and_sort(proto)
    with _quiet_onnx_ir():
        ir_model = _to_ir(proto, external, path, options)
    return restore(ir_model, path)


def _to_ir(proto: Any, external: Any, path: Path, options: Options) -> ir.Model:
    import onnx_ir as ir
    from google.protobuf.message import Error
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    from edgewright.importers.onnx._inference import check, infer_shapes
    from edgewright.importers.onnx._naming import name_nodes
    from edgewright.importers.onnx._sizes import fix
    from edgewright.importers.onnx._tensors import map_external
    from edgewright.importers.onnx._upgrade import upgrade

    try:
        ir_model = ir.from_proto(proto)
    except (ValueError, TypeError, KeyError, NotImplementedError, RuntimeError, Error) as problem:
        raise EdgewrightError("E213", f"`{path.name}` is not valid ONNX: {_root(problem)}") from None
    map_external(ir_model, external)
    _drop_initializer_inputs(ir_model)
    ir_model.graph.name = ir_model.graph.name or "main_graph"
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(ir_model)
    check(ir_model, path.name)
    if upgrade(ir_model, path.name):
        check(ir_model, path.name)
    ir_model.ir_version = IR_VERSION
    name_nodes(ir_model)
    fix(ir_model, options.sizes)
    infer_shapes(ir_model, path.name)
    return ir_model


def _drop_initializer_inputs(ir_model: ir.Model) -> None:
    """Graph inputs with a stored value become plain initializers: old files list every weight as an input."""
    inputs = ir_model.graph.inputs
    fed = [value for value in inputs if value.name not in ir_model.graph.initializers]
    if len(fed) != len(inputs):
        inputs.clear()
        inputs.extend(fed)


def _root(problem: BaseException) -> str:
    while problem.__cause__ is not None:
        problem = problem.__cause__
    lines = str(problem).strip().splitlines()
    return lines[0][:300] if lines else type(problem).__name__


@contextmanager
def _quiet_onnx_ir() -> Iterator[None]:
    """What onnx_ir would log of a malformed graph is raised by our own checks."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
