"""Reads TensorFlow Lite networks: a .tflite file, float or quantized.

    ew.load("detector.tflite")

Inputs and outputs have the names, types and axes of the file, as [N, H, W, C] for images. Inside, tensors of layers on images
have their channels first, [N, C, H, W]; they keep their names as well. A quantized tensor is the integers between
QuantizeLinear and DequantizeLinear. The modules, in the order of the work:

    formats/tflite   bytes -> records, every offset and size checked
    _build           the table from an operator to its builder in `_operators`, and the loop over it
    _site            what a builder sees of its operator
    _network         tensors, each in the layouts that are asked for, as integers and as real numbers
    _described       the Spec, of what the file says of its inputs and outputs
    _graph           nodes, with the types and sizes that they make; constants are folded

Source: tensorflow/lite/schema/schema.fbs; what operators mean, tensorflow/lite/kernels/internal/reference.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.errors import EdgewrightError, EdgewrightWarning
from edgewright.formats.tflite.reading import File, read
from edgewright.model import IR_VERSION, Model, Step
from edgewright.options import dump
from edgewright.spec import Spec

if TYPE_CHECKING:
    from edgewright.importers.tflite._network import Network

EXTRA: str | None = None
SUFFIXES: tuple[str, ...] = (".tflite",)


@dataclass(frozen=True)
class Options:
    """What of the file is read.

    Attributes:
        outputs: Tensors to end at, by name or number, in front of operators that have no form in ONNX; () for the file's own.
    """

    outputs: tuple[str, ...] = ()


def load(path: Path, options: Options) -> Model:
    """The network in the file at `path`: of its subgraphs the first.

    Raises:
        EdgewrightError: E101 an output of that name is not there, E104 it cannot be read, E201 it is no TFLite file or cut
            short, E202 a size does not fit its data, E203 a tensor that nothing makes, E204 operators without a form in
            ONNX, E206 weights in another file, E209 a size that must be known, E216 options, types or shapes that cannot be.
    """
    from edgewright.importers.tflite._build import build
    from edgewright.importers.tflite._described import spec_of

    file = read(path)
    outputs = [_tensor(file, path.name, wanted) for wanted in options.outputs] or list(file.outputs)
    if not outputs:
        raise EdgewrightError("E216", f"`{path.name}` has no output")
    network = build(file, path.name, outputs)
    spec = spec_of(file, network)
    for text in network.warnings:
        warnings.warn(text, EdgewrightWarning, stacklevel=2)
    return _model(path, options, file, network, spec)


def _tensor(file: File, file_name: str, wanted: str) -> int:
    """Index of the tensor that a person calls `wanted`.

    Raises:
        EdgewrightError: E101 where there is none.
    """
    import difflib

    names = {tensor.name: tensor.index for tensor in reversed(file.tensors)}
    if wanted in names:
        return names[wanted]
    if wanted.isdecimal() and int(wanted) < len(file.tensors):
        return int(wanted)
    near = difflib.get_close_matches(wanted, names, n=1)
    tail = f"; did you mean `{near[0]}`?" if near else ""
    raise EdgewrightError("E101", f"`{file_name}` has no tensor `{wanted}`{tail}")


def _model(path: Path, options: Options, file: File, network: Network, spec: Spec) -> Model:
    import onnx_ir as ir

    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    stats: dict[str, Any] = {"sha256": digest, "description": file.description, "operators": len(file.operators)}
    if network.warnings:
        stats["warnings"] = network.warnings
    step = Step(kind="import", name="tflite", config=dump(options), stats=stats)
    graph = network.graph.finished(path.stem)
    made = ir.Model(graph, ir_version=IR_VERSION, producer_name="edgewright")
    return Model(made, spec, history=(step,), name=path.stem)
