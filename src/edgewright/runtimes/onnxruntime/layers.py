"""Time per tensor of the network, from ONNX Runtime's own profiler."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.contracts import OpenedBundle
from edgewright.graph.serialize import as_source
from edgewright.model import Arrays
from edgewright.runtimes.onnxruntime.sessions import FILE, SessionRunner, load, read, settings_for

if TYPE_CHECKING:
    import onnx_ir as ir

#: Time of nodes that only change the memory layout, and of nodes that no tensor of the network belongs to.
REORDER, OTHER = "(reorder)", "(other)"
_KERNEL = "_kernel_time"


def times_by_tensor(bundle: OpenedBundle, inputs: Arrays, *, threads: int, runs: int) -> dict[str, float]:
    """Mean milliseconds per run of each node, keyed by the last tensor of what was fused into it."""
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        network = read(bundle.path / FILE)
        known = _name_nodes(network)
        settings = settings_for(bundle, threads)
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        with as_source(network) as source:
            fused = _fused_names(source, threads, Path(folder) / "extended.onnx")
            session = load(source, settings)
        runner = SessionRunner(session)
        for _ in range(runs + 1):
            runner.run(inputs)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _sum_events(events, runs, known, fused)


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

    if isinstance(source, Path):
        return {}  # too large for the one message that ONNX Runtime would write
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4
    settings.optimized_model_filepath = str(path)
    load(source, settings)
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
    stem = name
    while stem:
        if fused.get(stem) in known:
            return fused[stem]
        if stem in known:
            return stem
        cut = max(stem.rfind("/"), stem.rfind("_"))
        stem = stem[:cut] if cut > 0 else ""
    return OTHER
