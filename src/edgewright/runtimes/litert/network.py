"""The written file as objects: cut into parts, and set to another batch.

Notes beside the network say how each ONNX tensor lies in the file: {"tensors": {name: [tensor, order, dtype]}, "growing":
{tensor: places}, "batch": {input: axes}}. A file without them is none of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.contracts import Cut
from edgewright.errors import EdgewrightError
from edgewright.formats.tflite.writing import Network
from edgewright.graph.cut import unknown_tensor
from edgewright.runtimes.litert.lowering import Lowering

#: Key of the notes in the file's metadata.
NOTES = "edgewright.notes"


@dataclass(frozen=True)
class Place:
    """How an ONNX tensor lies in the file: in which tensor, its axes in which order; and its type in ONNX."""

    tensor: str
    order: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Notes:
    """What was written beside the network.

    Attributes:
        places: By ONNX name.
        growing: Constants that hold sizes: by tensor, the places that grow with the batch.
        batch: By input, the ONNX axis that is the batch.
    """

    places: Mapping[str, Place]
    growing: Mapping[str, list[int]]
    batch: Mapping[str, int]


def written(lowering: Lowering, network: Network) -> bytes:
    """The notes on `network`, as they lie in the file."""
    kept = set(network.tensors())
    graph = lowering.prepared.ir.graph
    dtypes = {value.name: value.dtype for node in graph for value in node.outputs}
    dtypes |= {value.name: value.dtype for value in graph.inputs}
    tensors = {
        name: [held.tensor.name, list(held.order), dtypes[name].numpy().name if dtypes[name] else "float32"]
        for name, held in lowering.held().items()
        if held.tensor in kept and name in dtypes
    }
    growing = {tensor.name: places for tensor, places in lowering.growing.items() if tensor in kept}
    batch = {name: axes[0] for name, axes in lowering.prepared.symbols.items()}
    return json.dumps({"tensors": tensors, "growing": growing, "batch": batch}, separators=(",", ":")).encode()


def read(path: Path) -> Any:
    """The file as a `ModelT` of the schema; its constants are views of one block of memory.

    Raises:
        EdgewrightError: E232 where it is no such file.
    """
    from ai_edge_litert import schema_py_generated as schema

    try:
        return schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    except Exception as problem:  # the reader checks nothing: whatever goes wrong means that it is no such file
        raise EdgewrightError("E232", f"`{path}` cannot be read as a .tflite file: {problem}") from None


def notes(path: Path) -> Notes:
    """The notes in the file, without reading the rest of it.

    Raises:
        EdgewrightError: E232 where there are none, or it is no such file.
    """
    from ai_edge_litert import schema_py_generated as schema

    try:
        file = schema.Model.GetRootAs(np.memmap(path, np.uint8, "r"), 0)
        entries = [file.Metadata(place) for place in range(file.MetadataLength())]
        held = next((file.Buffers(entry.Buffer()) for entry in entries if text(entry.Name()) == NOTES), None)
        found = None if held is None else json.loads(held.DataAsNumpy().tobytes())
    except Exception as problem:  # as in `read`
        raise EdgewrightError("E232", f"`{path}` cannot be read as a .tflite file: {problem}") from None
    if found is None:
        raise EdgewrightError("E232", f"`{path}` does not say how its tensors lie: edgewright did not write it")
    places = {name: Place(tensor, tuple(order), dtype) for name, (tensor, order, dtype) in found["tensors"].items()}
    return Notes(places, found["growing"], found["batch"])


def text(name: Any) -> str:
    """Names come as bytes."""
    return name.decode() if isinstance(name, bytes) else str(name)


def cut_to(document: Any, known: Notes, cut: Cut) -> Any:
    """A copy of `document` with the operators from `cut.inputs` (None: its own) to `cut.outputs`.

    Raises:
        EdgewrightError: E231 for a tensor that is not there, or inputs that do not determine the outputs.
    """
    if not cut.outputs:
        raise EdgewrightError("E231", "a cut must name at least one output tensor")
    for name in (*(cut.inputs or ()), *cut.outputs):
        if name not in known.places:
            raise unknown_tensor(name, known.places, where="the LiteRT file")
    graph = document.subgraphs[0]
    numbers = {text(tensor.name): number for number, tensor in enumerate(graph.tensors)}
    own = [int(number) for number in graph.inputs]
    given = own if cut.inputs is None else [numbers[known.places[name].tensor] for name in cut.inputs]
    outputs = list(dict.fromkeys(numbers[known.places[name].tensor] for name in cut.outputs))
    needed, kept = set(outputs) - set(given), []
    for operator in reversed(graph.operators):
        if needed.intersection(int(number) for number in operator.outputs):
            kept.append(operator)
            needed.update({int(number) for number in operator.inputs if number >= 0} - set(given))
    missing = needed.intersection(own) - set(given)
    if missing:
        names = ", ".join(f"`{text(graph.tensors[number].name)}`" for number in sorted(missing))
        raise EdgewrightError(
            "E231", f"the cut's {len(given)} inputs do not determine its outputs: {names} must be given too"
        )
    part = _copy(graph)
    part.operators, part.inputs, part.outputs = kept[::-1], list(dict.fromkeys(given)), outputs
    part.tensors = list(graph.tensors)
    for number in set(given) - set(own):
        part.tensors[number] = _copy(graph.tensors[number])
        part.tensors[number].buffer = 0
    return _with_graph(document, part)


def at_batch(document: Any, known: Notes, batch: int) -> Any:
    """A copy of `document` whose sizes are those of another batch."""
    graph = _copy(document.subgraphs[0])
    graph.tensors = [_grown(tensor, batch) for tensor in graph.tensors]
    made = _with_graph(document, graph)
    made.buffers = list(document.buffers)
    for tensor in graph.tensors:
        places = known.growing.get(text(tensor.name))
        if places:
            sizes = np.array(document.buffers[tensor.buffer].data, np.uint8).view(np.int32).copy()
            sizes[places] *= batch
            made.buffers[tensor.buffer] = _copy(document.buffers[tensor.buffer])
            made.buffers[tensor.buffer].data = sizes.view(np.uint8)
    return made


def _grown(tensor: Any, batch: int) -> Any:
    signature = tensor.shapeSignature
    if signature is None or not len(signature):
        return tensor
    made = _copy(tensor)
    made.shape = np.where(np.asarray(signature) < 0, np.asarray(tensor.shape) * batch, tensor.shape).astype(np.int32)
    return made


def _with_graph(document: Any, graph: Any) -> Any:
    made = _copy(document)
    made.subgraphs = [graph]
    return made


def _copy(item: Any) -> Any:
    made = type(item)()
    made.__dict__.update(item.__dict__)
    return made
