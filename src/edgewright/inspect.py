"""inspect: what a network is made of, what each layer costs, and what it is bound by.

    report = ew.inspect(model, runtime="onnxruntime", roofline=True)
    slowest = max(report.layers, key=lambda layer: layer.time_ms or 0)

A runtime fuses layers: the time of a fused chain stands at the member with the most multiply-adds, and its roofline
counts the whole chain. The roof is measured, not read from a data sheet: float32 products and streaming memory on this
machine. Activations that stay in a cache can beat the memory roof; efficiency ends at 1.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright import registry
from edgewright.bench import inputs as bench_inputs
from edgewright.bench import machine, telemetry
from edgewright.bundle import MANIFEST, Bundle
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.load import load
from edgewright.model import Arrays, Model, TensorInfo
from edgewright.progress import SILENT, Progress
from edgewright.records import InspectReport, LayerCost
from edgewright.session import exact_runtime

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgewright.contracts import SampleSource

#: Runs that a layer's time is the mean of.
_PROFILE_RUNS = 10
#: Arithmetic that the measured float32 roof speaks of.
_ROOF_PRECISION = "fp32"


@dataclass(frozen=True)
class _Roof:
    """Peak in 1e9 operations per second, bandwidth in 1e9 bytes per second."""

    peak_gflops: float
    bandwidth_gbs: float

    def floor_ms(self, macs: int, size_bytes: int) -> tuple[float, str]:
        """Least milliseconds for so much work, and whether arithmetic or memory sets them."""
        compute, memory = 2 * macs / self.peak_gflops / 1e6, size_bytes / self.bandwidth_gbs / 1e6
        return max(compute, memory), "compute" if compute >= memory else "memory"


def inspect(
    network: Model | Bundle | str | Path,
    *,
    runtime: str | None = None,
    samples: SampleSource | None = None,
    threads: int = 1,
    roofline: bool = False,
    runtimes: bool = False,
    progress: Progress = SILENT,
) -> InspectReport:
    """Layers, costs and, where asked for, measured times and the roofline.

    Args:
        network: A Model, a Bundle, or the path of either. A bundle whose files are not ONNX shows what its runtime's
            profile tells: parameters and multiply-adds are then None.
        runtime: Measure each layer's time on this runtime; a bundle is measured on its own.
        samples: What to run on; seeded random arrays otherwise.
        threads: Threads for times and roofs.
        roofline: Measure this machine's peak and bandwidth and say what bounds each layer. A Model is timed on the
            fastest exact runtime where none is named.
        runtimes: Ask every runtime whether it can run the network.
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
    model = network if isinstance(network, Model) else _model_inside(network)
    runtime = _timing_runtime(network, runtime, roofline)
    layers = () if model is None else _costs(model)
    precision = network.precision
    progress.update("inspect", 1, 3)
    times: dict[str, float] = {}
    if runtime is not None:
        feed = _feed(network.inputs, samples)
        times, precision = _times(network, runtime, feed, threads)
    progress.update("inspect", 2, 3)
    roof = _Roof(machine.peak_gflops(threads), machine.bandwidth_gbs(threads)) if roofline else None
    if roof and precision != _ROOF_PRECISION:
        progress.note(f"the measured peak is float32's, so the roofline of a network in {precision} is left out")
    usable = roof if precision == _ROOF_PRECISION else None
    layers = _placed(layers, times, model, usable)
    progress.update("inspect", 3, 3)
    return _report(network, model, layers, runtime, threads, roof, _support(model) if runtimes and model else {})
