"""OpenVINO: the network as OpenVINO IR (`model.xml`, `model.bin`), compiled for the CPU when it is opened.

The file is read by OpenVINO's own ONNX frontend (`Core.read_model`; `openvino.convert_model`, which reports usage to
its maker, is never called). Own operators are inlined first.

Two things that OpenVINO does by itself and this runtime does not let it do:

- On CPUs with bf16 units it computes fp32 networks in bf16 unless it is told not to: answers differ in the third digit.
  Here fp32 networks run in fp32 until `inference_precision` says otherwise.
- It pins its threads to cores, always the same ones: two processes would share one core and leave the other idle. Here
  the system places the threads.

Its arithmetic in f32 is exact enough to stand for the original (`exact_float`), yet ONNX Runtime is preferred for that:
it evaluates the ONNX graph itself, whereas OpenVINO's frontend translates each operator, and its CPU plugin computes
int64 tensors in int32 and float64 ones in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgewright.contracts import Conversion, Cut, OpenedBundle, Problem, QuantFormat, Traits
from edgewright.errors import EdgewrightError
from edgewright.graph.serialize import as_source
from edgewright.model import Arrays, Model
from edgewright.runtimes.openvino.failures import failure, first_reason, frontend_problems
from edgewright.runtimes.openvino.network import (
    fragment,
    inlined,
    keep_order_behind,
    keep_quantizers_apart,
    keep_signs_behind,
    label,
    name_inputs,
    name_operations,
    surviving,
)
from edgewright.runtimes.openvino.runner import CompiledRunner
from edgewright.target import Target, weight_bits

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA = "openvino"
TRAITS = Traits(
    precisions=("fp32", "fp16", "bf16", "int8"),
    dynamic_shapes=True,
    exact_float=True,
    taps="rebuild",
    profiles=True,
    functions=False,
    saturates=True,
)

_FILE = "model.xml"
_PRECISION_KEY = ["edgewright", "inference_precision"]  # in the file's own metadata
#: CPU features of which one must be there to compute in a precision without emulation.
_NATIVE = {"bf16": ("avx512_bf16", "amx_bf16", "bf16"), "f16": ("avx512_fp16", "asimdhp")}
#: Those with which f16 is also faster than f32. Not avx512_fp16: EfficientNet-Lite0 took 1.36 times as long there.
_FAST_F16 = ("asimdhp",)


#: Low-precision transformations move dequantization past them.
_MOVED = ("Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class Options:
    """How the bundle is compiled when it is opened.

    Attributes:
        inference_precision: Arithmetic of float layers. "auto" is f32 for fp32 networks; for fp16 networks it is f16
            where that is faster (Arm with half precision), else f32 on the fp16 weights.
    """

    inference_precision: Literal["auto", "f32", "bf16", "f16"] = "auto"


def version() -> str:
    """Version of the installed OpenVINO."""
    import importlib.metadata

    return importlib.metadata.version("openvino")


def quant_format(target: Target) -> QuantFormat:
    """uint8 activations and int8 weights by channel, of 7 bits on x86 CPUs without VNNI; layers may hand on float.

    Source: OpenVINO documentation, "Low Precision Transformations", and NNCF's `overflow_fix`, which does the same.
    """
    bits, reason = weight_bits(target)
    layers = ("Conv", "Gemm", "MatMul")
    return QuantFormat(
        weight_bits=bits,
        pairs=bits < 8,
        layers=layers,
        operators=_MOVED,
        float_outputs=layers,
        reason=reason,
    )


def supports(ir_model: ir.Model) -> tuple[Problem, ...]:
    """Nodes that OpenVINO's ONNX frontend cannot translate, or that its CPU plugin cannot run."""
    import openvino

    core = openvino.Core()
    with as_source(inlined(ir_model)) as source:
        try:
            network = core.read_model(source)
        except RuntimeError as problem:
            return frontend_problems(problem, ir_model)
    try:
        able = core.query_model(network, "CPU")
    except RuntimeError as problem:
        return (Problem("", "", first_reason(problem)),)
    refused = [operation for operation in network.get_ops() if operation.get_friendly_name() not in able]
    reason = "the CPU plugin has no implementation"
    return tuple(Problem(label(operation), operation.get_type_name(), reason) for operation in refused)


def convert(model: Model, folder: Path, options: Options, target: Target) -> Conversion:
    """Write `model.xml` and `model.bin`; weights keep their type."""
    import openvino

    precision = _choose_precision(model.precision, options, target)
    core = openvino.Core()
    with as_source(inlined(model.ir)) as source:
        try:
            network = core.read_model(source)
        except RuntimeError as problem:
            raise failure("reading", problem) from None
    name_inputs(network, [info.name for info in model.inputs])
    keep_order_behind(network)
    if model.precision == "int8":
        keep_signs_behind(network)
        keep_quantizers_apart(network)
    name_operations(network)
    network.set_friendly_name("network")
    network.set_rt_info(precision, _PRECISION_KEY)
    try:
        openvino.save_model(network, folder / _FILE, compress_to_fp16=False)
        written = core.read_model(folder / _FILE)
    except RuntimeError as problem:  # what OpenVINO raises for a full disk too, when it notices
        raise EdgewrightError("E105", f"OpenVINO could not write `{folder / _FILE}`: {first_reason(problem)}") from None
    needs = next(([name] for name in _NATIVE.get(precision, ()) if target.has(name)), [])
    return Conversion(
        tensor_names=surviving(written, model.ir),
        precision={"bf16": "bf16", "f16": "fp16"}.get(precision) if model.precision != "int8" else None,
        cpu_features=tuple(needs),
        usage=f"""import openvino
network = openvino.compile_model("{_FILE}", "CPU", {{"INFERENCE_PRECISION_HINT": "{precision}"}})
outputs = network({{{", ".join(f'"{info.name}": ...' for info in model.inputs)}}})""",
    )


def open(bundle: OpenedBundle, *, threads: int, cut: Cut | None = None) -> CompiledRunner:
    """The bundle's network, or the part that `cut` names, compiled for `threads` threads.

    Raises:
        EdgewrightError: E231 for a tensor in `cut` that does not exist, E232 when OpenVINO rejects the file.
    """
    return _open(bundle, threads, cut, {})


def exact(bundle: OpenedBundle, *, threads: int) -> CompiledRunner:
    """The bundle's network as it is written: quantized tensors are rounded, and layers compute in f32.

    Without its low-precision transformations OpenVINO multiplies no integers. Answers differ by values on the edge of a
    step that go the other way.
    """
    return _open(bundle, threads, None, {"LP_TRANSFORMS_MODE": "NO"})


def profile(bundle: OpenedBundle, inputs: Arrays, *, threads: int, runs: int) -> dict[str, float]:
    """Mean milliseconds per run of each node, by OpenVINO's own counters, after one warm-up run.

    A fused chain counts under its last tensor. Changes of memory layout are summed under "(reorder)", nodes that cannot
    be traced to a tensor of the network under "(other)".
    """
    runner = _open(bundle, threads, None, {"PERF_COUNT": True})
    try:
        runner.run(inputs)
        times: dict[str, float] = {}
        for _ in range(runs):
            runner.run(inputs)
            for key, milliseconds in runner.times(inputs, bundle.tensor_names).items():
                times[key] = times.get(key, 0.0) + milliseconds / runs
        return times
    finally:
        runner.close()


def _open(bundle: OpenedBundle, threads: int, cut: Cut | None, extra: Mapping[str, Any]) -> CompiledRunner:
    import openvino

    core = openvino.Core()
    try:
        network = core.read_model(bundle.path / _FILE)
    except RuntimeError as problem:
        raise failure("reading", problem) from None
    settings = _settings(network, threads) | dict(extra)
    if cut is None:
        return CompiledRunner(core, network, settings, [info.name for info in bundle.outputs])
    return CompiledRunner(core, fragment(network, cut), settings, cut.outputs)


def _settings(network: Any, threads: int) -> dict[str, Any]:
    precision = network.get_rt_info(_PRECISION_KEY).astype(str)
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # see the module's first lines
        "ENABLE_HYPER_THREADING": True,  # `threads` is what was asked for, also where two of them share a core
        "SCHEDULING_CORE_TYPE": "ANY_CORE",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # never narrow activations unasked
        "CACHE_DIR": "",
    }


def _choose_precision(precision: str, options: Options, target: Target) -> str:
    """The arithmetic that the file asks for.

    Raises:
        EdgewrightError: E103 for one that the target's CPU can only emulate.
    """
    wanted = options.inference_precision
    if wanted == "auto":
        fast = precision == "fp16" and any(target.has(feature) for feature in _FAST_F16)
        return "f16" if fast else "f32"
    if wanted != "f32" and not any(target.has(feature) for feature in _NATIVE[wanted]):
        features = " or ".join(_NATIVE[wanted])
        raise EdgewrightError(
            "E103",
            f"`openvino.inference_precision` is {wanted}, but CPU `{target.cpu}` has none of: {features}",
            hint="edgewright doctor",
        )
    return wanted
