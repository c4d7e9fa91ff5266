"""ONNX Runtime: runs the ONNX file itself, optimized when it is opened, on the CPU.

The bundle's `model.onnx` is the network as it is, not what ONNX Runtime makes of it: its optimized form fits one CPU
and one version. Own operators stay functions with bodies of standard operators, which ONNX Runtime runs.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgewright.contracts import Conversion, Cut, OpenedBundle, Problem, QuantFormat, Traits
from edgewright.errors import EdgewrightError
from edgewright.graph.cut import extract
from edgewright.model import EXTERNAL_DATA_BYTES, Arrays, Model
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

_FILE = "model.onnx"
_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}
_PROVIDERS = ["CPUExecutionProvider"]
#: Time of nodes that only change the memory layout, and of nodes that no tensor of the network belongs to.
REORDER, OTHER = "(reorder)", "(other)"
#: `supports` looks again without the nodes found so far, at most this often.
_PROBES = 16
#: Float weights with more elements than this become inputs of the copy that `supports` opens.
_LARGE = 256
_PROBE_NAME, _KERNEL = "edgewright_probe_", "_kernel_time"


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
    the node in question is taken out and the rest is tried again, so all are found.
    """
    probe, nodes = _probe(ir_model)
    problems: dict[int, Problem] = {}
    for _ in range(_PROBES):
        reason = _load_error(probe)
        if reason is None:
            break
        culprit = _named_node(reason, nodes)
        if culprit is None:
            if not problems:
                problems[-1] = Problem("", "", reason)
            break
        signature = _signature(nodes[culprit][1])
        for number, (name, node) in nodes.items():
            if number not in problems and _signature(node) == signature:
                problems[number] = Problem(name, node.op_type, reason)
                _take_out(probe, node)
    if problems and _loads_whole(ir_model):
        return ()  # only the copy was rejected: an operator that insists on constant weights
    return tuple(problems[number] for number in sorted(problems))


def convert(model: Model, folder: Path, options: Options, target: Target) -> Conversion:
    """Write `model.onnx`; every tensor keeps its name."""
    model.save(folder / _FILE)
    names = [value.name for node in model.ir.graph for value in node.outputs]
    names += [value.name for value in (*model.ir.graph.inputs, *model.ir.graph.outputs)]
    return Conversion(
        tensor_names={name: name for name in names if name},
        usage=f"""import onnxruntime
session = onnxruntime.InferenceSession("{_FILE}", providers=["CPUExecutionProvider"])
outputs = session.run(None, {{{", ".join(f'"{info.name}": ...' for info in model.inputs)}}})""",
    )


def open(bundle: OpenedBundle, *, threads: int, cut: Cut | None = None) -> _Runner:
    """The bundle's network, or the part that `cut` names, as an inference session on `threads` threads.

    Raises:
        EdgewrightError: E231 for a tensor in `cut` that does not exist, E232 when ONNX Runtime rejects the file.
    """
    settings = _settings(bundle, threads)
    path = bundle.path / _FILE
    if cut is None:
        return _Runner(_load(path, settings))
    fragment = extract(_read(path), cut)
    with _as_source(fragment) as source:
        return _Runner(_load(source, settings))


def profile(bundle: OpenedBundle, inputs: Arrays, *, threads: int, runs: int) -> dict[str, float]:
    """Mean milliseconds per run of each node, by ONNX Runtime's own profiler, after one warm-up run.

    A fused chain counts under its last tensor. Changes of memory layout are summed under "(reorder)", nodes that cannot
    be traced to a tensor of the network under "(other)".
    """
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        network = _read(bundle.path / _FILE)
        known = _name_nodes(network)
        settings = _settings(bundle, threads)
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        with _as_source(network) as source:
            fused = _fused_names(source, threads, Path(folder) / "extended.onnx")
            session = _load(source, settings)
        runner = _Runner(session)
        for _ in range(runs + 1):
            runner.run(inputs)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _sum_events(events, runs, known, fused)


class _Runner:
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
            raise _failure("running", problem) from None
        return dict(zip(self._outputs, results, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _settings(bundle: OpenedBundle, threads: int) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    level = str(bundle.options.get("graph_optimization", "all"))
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[level])
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4  # what goes wrong is raised; the log would only repeat it on stderr
    return settings


def _load(source: bytes | Path, settings: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(
            source if isinstance(source, bytes) else str(source), settings, providers=_PROVIDERS
        )
    except Exception as problem:  # as above
        raise _failure("loading", problem) from None


def _failure(doing: str, problem: Exception) -> EdgewrightError:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()] or [type(problem).__name__]
    return EdgewrightError(
        "E232", f"ONNX Runtime failed while {doing} the network: {lines[0]}", details=tuple(lines[1:4])
    )


def _read(path: Path) -> ir.Model:
    import onnx_ir as ir

    try:
        return ir.load(path)
    except Exception as problem:  # protobuf's and onnx_ir's errors share no base class
        raise _failure("reading", problem) from None


@contextmanager
def _as_source(ir_model: ir.Model) -> Iterator[bytes | Path]:
    """What an inference session loads: bytes, or above protobuf's limit a temporary file with its weights beside it."""
    import onnx_ir as ir

    weights = sum(
        value.const_value.nbytes for value in ir_model.graph.initializers.values() if value.const_value is not None
    )
    if weights <= EXTERNAL_DATA_BYTES:
        yield ir.to_proto(ir_model).SerializeToString()
        return
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        path = Path(folder) / _FILE
        ir.save(ir_model, path, external_data=f"{_FILE}.data")
        yield path


# --- supports ---------------------------------------------------------------------------------------------------------


def _probe(ir_model: ir.Model) -> tuple[ir.Model, dict[int, tuple[str, ir.Node]]]:
    """A copy with large weights as inputs, and its nodes by the number in their probe names, with their true names."""
    probe = ir_model.clone()
    for name, value in list(probe.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.size > _LARGE and tensor.dtype.is_floating_point():
            del probe.graph.initializers[name]
            value.const_value = None
            if not value.is_graph_input():
                probe.graph.inputs.append(value)
    nodes = {}
    for number, node in enumerate(probe.graph.all_nodes()):
        nodes[number] = (node.name or next((value.name for value in node.outputs if value.name), "") or "", node)
        node.name = f"{_PROBE_NAME}{number}_"
    return probe, nodes


def _load_error(probe: ir.Model) -> str | None:
    """ONNX Runtime's reason for rejecting the model, in one line; None where it accepts it."""
    import onnx_ir as ir
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(ir.to_proto(probe).SerializeToString(), settings, providers=_PROVIDERS)
    except Exception as problem:  # the library's errors share no base class of their own
        return str(problem).strip().split("\n", 1)[0]
    return None


def _named_node(reason: str, nodes: Mapping[int, tuple[str, ir.Node]]) -> int | None:
    """Number of the node that ONNX Runtime's message is about."""
    probe_name = re.search(rf"{_PROBE_NAME}(\d+)_", reason)
    if probe_name:
        return int(probe_name[1])
    unregistered = re.search(r"(\S*):(\w+)\(-?\d+\) is not a registered function/op", reason)
    unknown = re.search(r'In Node, \("[^"]*", (\w+), "([^"]*)"', reason)
    if unregistered:
        domain, op_type = unregistered[1], unregistered[2]
    elif unknown:
        domain, op_type = unknown[2], unknown[1]
    else:
        return None
    return next((n for n, (_, node) in nodes.items() if (node.op_type, node.domain) == (op_type, domain)), None)


def _signature(node: ir.Node) -> tuple[object, ...]:
    """What decides whether there is a kernel: the operator and its inputs' types."""
    return (node.domain, node.op_type, *(value.dtype if value else None for value in node.inputs))


def _take_out(probe: ir.Model, node: ir.Node) -> None:
    """Make the node's outputs inputs of the model, where their types are known."""
    import onnx_ir as ir

    for value in node.outputs:
        replacement = ir.Value(name=f"{value.name}/taken_out", type=value.type, shape=value.shape)
        if value.type is None or value.is_graph_output():
            return
        value.replace_all_uses_with(replacement)
        probe.graph.inputs.append(replacement)
    assert node.graph is not None
    node.graph.remove(node)


def _loads_whole(ir_model: ir.Model) -> bool:
    with _as_source(ir_model) as source:
        try:
            import onnxruntime

            settings = onnxruntime.SessionOptions()
            settings.log_severity_level = 4
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            _load(source, settings)
        except EdgewrightError:
            return False
    return True


# --- profile ----------------------------------------------------------------------------------------------------------


def _name_nodes(network: ir.Model) -> frozenset[str]:
    """Name every node after its first output: fused nodes' names are made of these. Returns the names."""
    names = set()
    for node in network.graph.all_nodes():
        node.name = next((value.name for value in node.outputs if value.name), None)
        names.add(node.name)
    return frozenset(name for name in names if name)


def _fused_names(source: bytes | Path, threads: int, path: Path) -> dict[str, str]:
    """Node name -> first output after all fusions that come before the change to blocked memory layouts.

    The last level renames the outputs of nodes it moves to a blocked layout, but keeps the names that earlier levels
    gave to fused nodes ("Gelu_token_1"), so those are looked up here.
    """
    import onnx
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4
    settings.optimized_model_filepath = str(path)
    _load(source, settings)
    graph = onnx.load(str(path)).graph
    return {node.name: node.output[0] for node in graph.node}


def _sum_events(
    events: list[dict[str, Any]], runs: int, known: frozenset[str], fused: Mapping[str, str]
) -> dict[str, float]:
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    begin = starts[1]  # the first run is the warm-up
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith(_KERNEL) and e["ts"] >= begin]
    times: dict[str, float] = {}
    end = -1
    for event in sorted(kernels, key=lambda e: (e["ts"], -e["dur"])):
        operator = event.get("args", {}).get("op_name", "")
        if event["ts"] < end:
            continue  # inside an If, Loop or Scan, whose own event counts
        if operator in ("If", "Loop", "Scan"):
            end = event["ts"] + event["dur"]
        key = REORDER if operator.startswith("Reorder") else _origin(event["name"].removesuffix(_KERNEL), known, fused)
        times[key] = times.get(key, 0.0) + event["dur"] / 1000 / runs
    return times


def _origin(name: str, known: frozenset[str], fused: Mapping[str, str]) -> str:
    """The tensor that a node of the optimized graph makes: its name is a node's or a tensor's with a suffix."""
    if name in fused and fused[name] in known:
        return fused[name]
    stem = name
    while stem and stem not in known:
        cut = max(stem.rfind("/"), stem.rfind("_"))
        stem = stem[:cut] if cut > 0 else ""
    if stem in fused and fused[stem] in known:
        return fused[stem]
    return stem or OTHER
