"""Model: one network in memory, left of convert. Never changed after construction.

A Model is an `onnx_ir.Model` (opset 21, IR version 10), its Spec and its history. Passes work on a clone;
`with_ir` makes the next Model.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.options import dump
from edgewright.spec import METADATA_KEY, Spec

if TYPE_CHECKING:
    import onnx_ir as ir

#: What every Model holds in memory and every file we write declares. Importers upgrade to it.
OPSET_VERSION = 21
IR_VERSION = 10
#: Operators that say that a network computes in integers; DequantizeLinear alone does not.
_INTEGER = (
    *("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"),
    *("DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm"),  # of ONNX Runtime
)
#: Domain of edgewright's own operators, each with a function body of standard operators.
DOMAIN = "edgewright"
#: Arithmetic whose results float32 rounding alone may change: products of signs are exact.
EXACT = frozenset({"fp32", "binary"})
HISTORY_KEY = "edgewright.history"
#: Hex digits that name the source of a sample: 64 bits. Of a million sources two share a name with a chance of 3e-8.
GROUP_DIGITS = 16
#: Above this size weights go to a file beside the .onnx: protobuf ends at 2 GiB.
EXTERNAL_DATA_BYTES = 1_500_000_000

#: Arrays travel keyed by ONNX tensor name, in the layout of the ONNX graph, always.
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class TensorInfo:
    """Name, numpy dtype name and shape of a graph input or output; unknown sizes are a name or None."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {self.dtype}[{sizes}]"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that was done to a network.

    Attributes:
        kind: "import", "pass" or "convert".
        name: The plugin's public name.
        config: Its options, JSON-ready.
        lossy: True where outputs may differ by more than float rounding.
        samples: Groups of the samples that were read, as `Sample.group` names them; verify refuses them as judges.
        stats: What the step reports of itself, JSON-ready; `rescaled` names inner tensors that hold other values on
            purpose, which readers make up for; `decided` names outputs that give the best class in place of scores, each
            with the axis of the original's output that the classes were along.
    """

    kind: str
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    lossy: bool = False
    samples: tuple[str, ...] = ()
    stats: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The step as a JSON-ready mapping."""
        return dump(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Step:
        """The Step that `to_json` wrote, also one of before groups were shortened."""
        return cls(**{**document, "samples": tuple(group[:GROUP_DIGITS] for group in document.get("samples", ()))})


@dataclass(frozen=True, eq=False)
class Model:
    """A network: its graph, what its inputs and outputs mean, and what was done to it.

    Attributes:
        ir: The `onnx_ir.Model`. Treat it as frozen; `clone_ir` gives a copy to work on.
        spec: Inputs and task.
        history: Steps, oldest first.
        name: A short name for reports.
        origin: Hash of the Model as it was loaded; itself for a fresh one.
    """

    ir: ir.Model
    spec: Spec = field(default_factory=Spec)
    history: tuple[Step, ...] = ()
    name: str = "model"
    origin: str = ""

    def __post_init__(self) -> None:
        if not self.origin:
            object.__setattr__(self, "origin", self.hash)

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Graph inputs that are fed at run time (initializers excluded), in graph order."""
        return tuple(_info(v) for v in self.ir.graph.inputs if v.name not in self.ir.graph.initializers)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Graph outputs, in graph order."""
        return tuple(_info(value) for value in self.ir.graph.outputs)

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over graph, weights and spec; independent of names of files and of metadata."""
        return _hash(self.ir, self.spec)

    @functools.cached_property
    def precision(self) -> str:
        """Narrowest arithmetic in the graph: "int8", "fp16", "binary" beside float32, or "fp32". Integers that are only
        stored are none.
        """
        import onnx_ir as ir

        for graph in self._graphs():
            if any(node.op_type in _INTEGER for node in graph):
                return "int8"
        types = {v.dtype for graph in self._graphs() for v in graph.initializers.values()}
        if ir.DataType.FLOAT16 in types:
            return "fp16"
        nodes = (node for graph in self._graphs() for node in graph)
        binary = any(node.domain == DOMAIN and node.op_type.startswith("Binary") for node in nodes)
        return "binary" if binary else "fp32"

    @property
    def domains(self) -> frozenset[str]:
        """Domains of the graph's operators that are not the standard one."""
        return frozenset(node.domain for graph in self._graphs() for node in graph) - {"", "ai.onnx"}

    @property
    def lossy(self) -> bool:
        """True where some step of the history was lossy."""
        return any(step.lossy for step in self.history)

    def clone_ir(self) -> ir.Model:
        """A copy of the graph that a pass may change; weights are shared and must be replaced, not written to."""
        return self.ir.clone()

    def with_ir(self, ir_model: ir.Model, step: Step | None = None) -> Model:
        """The Model after `step`: a new graph, the same spec, one more line of history."""
        return replace(self, ir=ir_model, history=(*self.history, step) if step else self.history)

    def with_spec(self, spec: Spec) -> Model:
        """The same network with another Spec, as a fresh origin where it had no history."""
        return replace(self, spec=spec, origin="" if not self.history else self.origin)

    def to_proto(self) -> Any:
        """The network as an `onnx.ModelProto` with spec and history in its metadata.

        Raises:
            EdgewrightError: E105 when it is too large for one protobuf message; use `save`.
        """
        import onnx_ir as ir

        if self.weight_bytes() > EXTERNAL_DATA_BYTES:
            raise EdgewrightError(
                "E105", f"`{self.name}` has {self.weight_bytes()} bytes of weights, too many for one file"
            )
        return ir.to_proto(self._with_metadata())

    def save(self, path: str | Path, *, history: bool = True) -> Path:
        """Write the network as ONNX, by a temporary file that is renamed; weights beside it above 1.5 GB.

        Args:
            path: The file.
            history: Whether the file tells how it was made: what bundles hold need not, since their manifests do, and the
                names of many samples can be larger than a network.

        Raises:
            EdgewrightError: E105 when the file cannot be written.
        """
        import onnx_ir as ir

        path = Path(path)
        external = f"{path.name}.data" if self.weight_bytes() > EXTERNAL_DATA_BYTES else None
        part = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            ir.save(self._with_metadata(history=history), part, external_data=external)
            part.replace(path)
        except OSError as problem:
            raise EdgewrightError("E105", f"`{path}` cannot be written: {problem.strerror or problem}") from None
        finally:
            with contextlib.suppress(OSError):  # where the folder is none, there is nothing to remove
                part.unlink(missing_ok=True)
        return path

    def weight_bytes(self) -> int:
        """Bytes of all initializers, subgraphs included."""
        return sum(
            v.const_value.nbytes for g in self._graphs() for v in g.initializers.values() if v.const_value is not None
        )

    def _graphs(self) -> Iterator[ir.Graph]:
        yield self.ir.graph
        yield from self.ir.graph.subgraphs()

    def _with_metadata(self, *, history: bool = True) -> ir.Model:
        copy = self.ir.clone()
        copy.metadata_props[METADATA_KEY] = json.dumps(self.spec.to_json(), sort_keys=True)
        if history:
            steps = {"origin": self.origin, "steps": [step.to_json() for step in self.history]}
            copy.metadata_props[HISTORY_KEY] = json.dumps(steps, sort_keys=True)
        return copy


def _info(value: ir.Value) -> TensorInfo:
    shape = value.shape
    sizes: tuple[int | str | None, ...] = ()
    if shape is not None:
        sizes = tuple(size if isinstance(size, int) else size.value for size in shape)
    dtype = value.dtype.numpy().name if value.dtype is not None else "float32"
    assert value.name is not None
    return TensorInfo(value.name, dtype, sizes)


class _Digest:
    """SHA-256 over a graph. What follows from the rest (types and sizes of outputs) and what is for people (doc strings,
    node names, metadata) stays out, so that saving, loading and shape inference change nothing."""

    def __init__(self) -> None:
        self.sha = hashlib.sha256()

    def text(self, *parts: object) -> None:
        self.sha.update(json.dumps([str(part) for part in parts]).encode())

    def graph(self, graph: Any) -> None:
        for value in graph.inputs:
            self.text("input", value.name, value.type, value.shape)
        self.text("outputs", *(value.name for value in graph.outputs))
        for name, value in sorted(getattr(graph, "initializers", {}).items()):
            if value.const_value is not None:
                self.text("weight", name)
                self.tensor(value.const_value)
        for node in graph:
            inputs = [value.name if value is not None else "" for value in node.inputs]
            outputs = [value.name for value in node.outputs]
            while outputs and not outputs[-1]:
                outputs.pop()  # outputs that are left out at the end are not written to files
            self.text(node.domain, node.op_type, node.overload, *inputs, "->", *outputs)
            for name, attribute in sorted(node.attributes.items()):
                self.attribute(name, attribute)

    def attribute(self, name: str, attribute: ir.Attr) -> None:
        import onnx_ir as ir

        kind = ir.AttributeType
        self.text(name, attribute.type)
        if not attribute.is_ref() and attribute.type in (kind.INT, kind.INTS, kind.FLOAT, kind.FLOATS):
            exact = np.int64 if attribute.type in (kind.INT, kind.INTS) else np.float32  # as files hold them
            self.sha.update(np.array(attribute.value, exact).tobytes())
        elif attribute.is_ref() or attribute.type not in (kind.GRAPH, kind.GRAPHS, kind.TENSOR, kind.TENSORS):
            proto = ir.to_proto(attribute)
            proto.ClearField("doc_string")
            self.sha.update(proto.SerializeToString(deterministic=True))
        elif attribute.type in (kind.GRAPH, kind.GRAPHS):
            for graph in (attribute.value,) if attribute.type == kind.GRAPH else attribute.value:
                self.graph(graph)
        else:
            for tensor in (attribute.value,) if attribute.type == kind.TENSOR else attribute.value:
                self.tensor(tensor)

    def tensor(self, tensor: Any) -> None:
        import onnx_ir as ir

        self.text(tensor.dtype, tensor.shape)
        if tensor.dtype == ir.DataType.STRING:
            self.text(*tensor.string_data())
        elif tensor.dtype.bitwidth < 8:
            self.sha.update(tensor.tobytes())
        else:  # without a copy: weights may be larger than memory
            self.sha.update(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)


def _hash(ir_model: ir.Model, spec: Spec) -> str:
    digest = _Digest()
    digest.text(json.dumps(spec.to_json(), sort_keys=True), sorted(ir_model.graph.opset_imports.items()))
    digest.graph(ir_model.graph)
    for key, function in sorted(ir_model.functions.items()):
        digest.text("function", *key, *function.attributes)
        digest.graph(function)
    return digest.sha.hexdigest()
