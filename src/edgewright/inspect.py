"""inspect: what a network is made of, what each layer costs, and what it is bound by.

    report = ew.inspect(model, runtime="onnxruntime", roofline=True)
    slowest = max(report.layers, key=lambda layer: layer.time_ms or 0)

A runtime fuses layers: the time of a fused chain stands at the member with the most multiply-adds, and its roofline
counts the whole chain. The roof is measured, not read from a data sheet: float32 products and streaming memory on this
machine. Activations that stay in a cache can beat the memory roof; efficiency ends at 1.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright import registry
from edgewright.bench import inputs as bench_inputs
from edgewright.bench import machine, telemetry
from edgewright.bench.machine import Roof
from edgewright.bundle import MANIFEST, Bundle
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.load import load
from edgewright.model import Arrays, Model, TensorInfo
from edgewright.progress import SILENT, Progress
from edgewright.records import ChannelBarrier, ChannelReport, InspectReport, LayerCost
from edgewright.session import exact_runtime

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgewright.contracts import SampleSource

#: Runs that a layer's time is the mean of.
_PROFILE_RUNS = 10
#: Arithmetic that the measured float32 roof speaks of.
_ROOF_PRECISION = "fp32"


def inspect(
    network: Model | Bundle | str | Path,
    *,
    model: Model | None = None,
    runtime: str | None = None,
    samples: SampleSource | None = None,
    threads: int = 1,
    roofline: bool = False,
    runtimes: bool = False,
    groups: bool = False,
    progress: Progress = SILENT,
) -> InspectReport:
    """Layers, costs and, where asked for, measured times and the roofline.

    Args:
        network: A Model, a Bundle, or the path of either. A bundle whose files are not ONNX shows what its runtime's
            profile tells: parameters and multiply-adds are then None, unless `model` gives them.
        model: The network that a bundle was made from: costs by tensor name, where the bundle's files hold no ONNX graph.
        runtime: Measure each layer's time on this runtime; a bundle is measured on its own.
        samples: What to run on; seeded random arrays otherwise.
        threads: Threads for times and roofs.
        roofline: Measure this machine's peak and bandwidth and say what bounds each layer. A Model is timed on the
            fastest exact runtime where none is named.
        runtimes: Ask every runtime whether it can run the network.
        groups: Say which channels can be removed together, and which must stay.
        progress: Told of each step.

    Raises:
        EdgewrightError: E101 or E102 for the runtime, E103 for one that cannot time layers or for `threads`, E209 where
            random inputs cannot be made, E2xx for a network that cannot be opened.
    """
    cores = len(telemetry.available_cores())
    if not 1 <= threads <= cores:
        raise EdgewrightError("E103", f"`threads` is {threads}, but must be 1 to {cores}, the cores that may be used")
    progress.update("inspect", 0, 3)
    network = _opened(network)
    model = network if isinstance(network, Model) else _model_inside(network) or model
    runtime = _timing_runtime(network, runtime, roofline)
    layers = () if model is None else _costs(model)
    precision = network.precision
    progress.update("inspect", 1, 3)
    times: dict[str, float] = {}
    if runtime is not None:
        feed = _feed(network.inputs, samples)
        times, precision = _times(network, runtime, feed, threads)
    progress.update("inspect", 2, 3)
    roof = machine.roof(threads) if roofline else None
    if roof and precision != _ROOF_PRECISION:
        progress.note(f"the measured peak is float32's, so the roofline of a network in {precision} is left out")
    usable = roof if precision == _ROOF_PRECISION else None
    layers = _placed(layers, times, model, usable)
    progress.update("inspect", 3, 3)
    support = _support(model) if runtimes and model else {}
    report = _report(network, model, layers, runtime=runtime, threads=threads, roof=roof, support=support)
    return replace(report, channels=_channels(model)) if groups and model else report


def _opened(network: Model | Bundle | str | Path) -> Model | Bundle:
    if isinstance(network, (Model, Bundle)):
        return network
    return Bundle.open(network) if (Path(network) / MANIFEST).is_file() else load(network)


def _model_inside(bundle: Bundle) -> Model | None:
    """The network of a bundle whose runtime runs ONNX files; None where the graph is in another format."""
    for name in bundle.files:
        if name.endswith(".onnx"):
            return load(bundle.file(name), spec=bundle.spec)
    return None


def _timing_runtime(network: Model | Bundle, runtime: str | None, roofline: bool) -> str | None:
    """The runtime that times the layers, or None: a bundle's own where it can, a model's where it was asked for."""
    if isinstance(network, Bundle):
        if runtime not in (None, network.runtime):
            raise EdgewrightError("E103", f"bundle `{network.path}` is for `{network.runtime}`, not for `{runtime}`")
        named, runtime = runtime is not None, network.runtime
    else:
        named, runtime = runtime is not None, runtime or (exact_runtime() if roofline else None)
    if runtime is None or registry.get("runtimes", runtime).TRAITS.profiles:
        return runtime
    if not named:
        return None
    able = [name for name in registry.installed("runtimes") if registry.peek("runtimes", name).TRAITS.profiles]
    raise EdgewrightError("E103", f"runtime `{runtime}` cannot time its layers; those that can: {', '.join(able)}")


def _costs(model: Model) -> tuple[LayerCost, ...]:
    from edgewright.graph import cost

    return cost.layers(model.ir)


def _feed(infos: Sequence[TensorInfo], samples: SampleSource | None) -> Arrays:
    if samples is None:
        return bench_inputs.random_arrays(infos, limit=1, seed=0)[0]
    return bench_inputs.sample_arrays(infos, samples, limit=1)[0]


def _times(network: Model | Bundle, runtime: str, feed: Arrays, threads: int) -> tuple[dict[str, float], str]:
    """Milliseconds by tensor, and the arithmetic that they were measured in."""
    plugin = registry.get("runtimes", runtime)
    if isinstance(network, Bundle):
        return plugin.profile(network, feed, threads=threads, runs=_PROFILE_RUNS), network.precision
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        bundle = convert(network, runtime, Path(folder) / "bundle")
        return plugin.profile(bundle, feed, threads=threads, runs=_PROFILE_RUNS), bundle.precision


# --- times and roofs on layers ----------------------------------------------------------------------------------------


def _placed(
    layers: Sequence[LayerCost], times: Mapping[str, float], model: Model | None, roof: Roof | None
) -> tuple[LayerCost, ...]:
    """The layers with times and bounds, followed by times that belong to no layer (changes of memory layout)."""
    if not times or model is None:
        alone = [_bounded(layer, None, roof, macs=layer.macs, moved=_all_bytes(layer)) for layer in layers]
        return (*alone, *(_extra(name, time) for name, time in times.items()))
    placed = {layer.name: layer for layer in layers}
    for last, nodes in _fused(model.ir, times).items():
        members = [layer for node in nodes if (layer := placed.get(node.outputs[0].name or ""))]
        if not members:
            continue
        heaviest = max(members, key=lambda layer: (layer.macs or 0, layer.name == last))
        work = [member.macs for member in members]
        macs = None if None in work else sum(count for count in work if count)
        moved = _moved_bytes(nodes, members, placed) or _all_bytes(heaviest)
        placed[heaviest.name] = _bounded(heaviest, times[last], roof, macs=macs, moved=moved)
    extra = [_extra(name, time) for name, time in times.items() if name not in placed]
    return (*placed.values(), *extra)


def _fused(ir_model: ir.Model, times: Mapping[str, float]) -> dict[str, list[ir.Node]]:
    """Timed tensor -> the nodes whose work its time includes, the one that makes it among them.

    Those are the nodes before it that have no time of their own and that no earlier timed tensor includes.
    """
    groups: dict[str, list[ir.Node]] = {}
    taken: set[str] = set()
    for node in ir_model.graph:
        name = node.outputs[0].name
        if name is None or name not in times:
            continue
        groups[name] = []
        waiting = [node]
        while waiting:
            member = waiting.pop()
            own = member.outputs[0].name
            if own is None or own in taken or (own in times and own != name):
                continue
            taken.add(own)
            groups[name].append(member)
            waiting += [producer for value in member.inputs if value and (producer := value.producer())]
    return groups


def _bounded(
    layer: LayerCost, time_ms: float | None, roof: Roof | None, *, macs: int | None, moved: int | None
) -> LayerCost:
    """The layer with its time, and with what bounds the `macs` and `moved` bytes that it stands for."""
    if roof is None or moved is None or macs is None:
        return replace(layer, time_ms=time_ms)
    floor_ms, bound = roof.floor_ms(macs, moved)
    efficiency = min(1.0, floor_ms / time_ms) if time_ms else None
    return replace(layer, time_ms=time_ms, bound=bound, efficiency=efficiency)


def _moved_bytes(nodes: Sequence[ir.Node], members: Sequence[LayerCost], layers: Mapping[str, LayerCost]) -> int | None:
    """Bytes that a fused chain has to move: its weights, what it reads from outside and what it hands outside.

    What is handed on inside the chain stays in registers. None where a size is not known.
    """
    inside = set(nodes)
    read = {value for node in nodes for value in node.inputs if value and value.producer() not in inside}
    made = [value for node in nodes for value in node.outputs]
    written = [v for v in made if v.is_graph_output() or any(user not in inside for user in v.consumers())]
    moved = [value for value in read if not value.is_initializer()] + written
    sizes = [_value_bytes(value, layers) for value in moved]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return None
    return sum(known) + sum(member.parameter_bytes for member in members)


def _value_bytes(value: ir.Value, layers: Mapping[str, LayerCost]) -> int | None:
    """Bytes of a tensor at batch 1: a graph input by its own shape, an inner one by its layer's."""
    layer = layers.get(value.name or "")
    if layer is not None:
        shape: Sequence[Any] = layer.shape
    elif value.is_graph_input() and value.shape is not None:
        shape = [1 if axis == 0 and not isinstance(size, int) else size for axis, size in enumerate(value.shape)]
    else:
        return None
    if not all(isinstance(size, int) for size in shape):
        return None
    item_bytes: float = value.dtype.itemsize if value.dtype is not None else 4
    count: int = math.prod(shape)
    return math.ceil(count * item_bytes)  # two 4-bit elements share a byte


def _all_bytes(layer: LayerCost) -> int | None:
    return None if layer.activation_bytes is None else layer.activation_bytes + layer.parameter_bytes


def _extra(name: str, time_ms: float) -> LayerCost:
    return LayerCost(
        name=name, node="", op_type="", shape=(), macs=None, parameter_bytes=0, activation_bytes=None, time_ms=time_ms
    )


def _channels(model: Model) -> ChannelReport:
    from edgewright.graph import channels

    found = channels.find(model.ir)
    return ChannelReport(
        groups=channels.costs(model.ir, found),
        barriers=tuple(
            ChannelBarrier(tensor=barrier.tensor, axis=barrier.axis, reason=barrier.reason)
            for barrier in found.barriers
        ),
        refusal=found.refusal,
    )


# --- the report -------------------------------------------------------------------------------------------------------


def _support(model: Model) -> dict[str, tuple[str, ...]]:
    """Every runtime -> why it cannot run the network; empty where it can."""
    found: dict[str, tuple[str, ...]] = {}
    for name in registry.names("runtimes"):
        plugin = registry.peek("runtimes", name)
        absent = registry.missing(plugin.EXTRA)
        if absent:
            found[name] = (f'not installed: pip install "edgewright[{plugin.EXTRA}]"',)
        elif plugin.TRAITS.arithmetic(model.precision) is None:
            found[name] = (f"does not run {model.precision}; it runs {', '.join(plugin.TRAITS.precisions)}",)
        else:
            found[name] = tuple(
                f"`{problem.op_type}` (`{problem.node}`): {problem.reason}" for problem in plugin.supports(model.ir)
            )
    return found


def _report(
    network: Model | Bundle,
    model: Model | None,
    layers: tuple[LayerCost, ...],
    *,
    runtime: str | None,
    threads: int,
    roof: Roof | None,
    support: Mapping[str, tuple[str, ...]],
) -> InspectReport:
    operators: Counter[str] = Counter()
    totals: dict[str, Any] = {"parameters": None, "weight_bytes": None, "macs": None}
    if model is not None:
        operators.update(node.op_type for node in model.ir.graph.all_nodes())
        totals = {
            "parameters": sum(value.const_value.size for value in _weights(model)),
            "weight_bytes": sum(value.const_value.nbytes for value in _weights(model)),
            "macs": sum(layer.macs or 0 for layer in layers),
        }
    return InspectReport(
        model_hash=network.hash if isinstance(network, Model) else network.model_hash,
        name=network.name,
        inputs=tuple(str(info) for info in network.inputs),
        outputs=tuple(str(info) for info in network.outputs),
        layers=layers,
        operators=dict(operators.most_common()),
        runtimes=dict(support),
        runtime=runtime,
        threads=threads,
        peak_gflops=roof.peak_gflops if roof else None,
        bandwidth_gbs=roof.bandwidth_gbs if roof else None,
        **totals,
    )


def _weights(model: Model) -> list[Any]:
    graphs = (model.ir.graph, *model.ir.graph.subgraphs())
    return [value for graph in graphs for value in graph.initializers.values() if value.const_value is not None]
