"""ncnn: the network as `model.param` and `model.bin`, for phones and other small devices.

The files are written here, layer by layer, with the tensors' own names. ncnn has no batch: a network of any batch is
written for one sample and run once for each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.contracts import Conversion, Cut, OpenedBundle, Problem, QuantFormat, Traits
from edgewright.formats.ncnn.writing import with_splits, write
from edgewright.model import Model
from edgewright.runtimes.ncnn.lowering import lower
from edgewright.runtimes.ncnn.runner import PARAM, TENSORS, WEIGHTS, NetRunner, Place, cut_net, load, read_places
from edgewright.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA = "ncnn"
TRAITS = Traits(
    precisions=("fp32", "fp16", "int8"),
    dynamic_shapes=False,
    exact_float=False,
    taps="native",
)


@dataclass(frozen=True)
class Options:
    """None: what the file says is all there is to say."""


def version() -> str:
    """Version of the installed ncnn."""
    import importlib.metadata

    return importlib.metadata.version("ncnn")


def quant_format(target: Target) -> QuantFormat:
    """Symmetric int8 activations with one step for a tensor, int8 weights with a step for each output channel.

    Source: Tencent/ncnn, docs/how-to-use-and-FAQ/quantized-int8-inference.md; src/layer/x86/convolution_x86.cpp widens to
    16 bits before it multiplies, so that nothing saturates.
    """
    layers = ("Conv", "Gemm", "MatMul")
    return QuantFormat(
        activation_dtype="int8",
        activation_symmetric=True,
        layers=layers,
        float_outputs=layers,
        spatial_axes=(2,),
        grouped=False,
        own_inputs=True,
        reason="ncnn multiplies int8 by int8 exactly on every CPU, with zero points of 0",
    )


def supports(ir_model: ir.Model) -> tuple[Problem, ...]:
    """Nodes that have no form in ncnn, found by lowering the graph without writing it."""
    return lower(ir_model, half=Model(ir_model).precision == "fp16").problems


def convert(model: Model, folder: Path, options: Options, target: Target) -> Conversion:
    """Write `model.param`, `model.bin`, and `tensors.json`, which says how each tensor lies in its blob."""
    half = model.precision == "fp16"
    lowered = lower(model.ir, half=half)
    assert not lowered.problems, "convert.py asks `supports` first"
    write(with_splits(lowered.layers), folder / PARAM, folder / WEIGHTS)
    rows = {
        name: Place(
            tensor.blob.name, tensor.blob.dims, tensor.shape, tensor.axis, tensor.dtype, tensor.blob.scale
        ).to_json()
        for name, tensor in lowered.tensors.items()
    }
    (folder / TENSORS).write_text(json.dumps(rows, separators=(",", ":")), encoding="utf-8")
    return Conversion(
        tensor_names={name: tensor.blob.name for name, tensor in lowered.tensors.items()},
        usage=_usage(model, {name: tensor.blob.name for name, tensor in lowered.tensors.items()}, half=half),
    )


def _usage(model: Model, blobs: dict[str, str], *, half: bool) -> str:
    feeds = ", ".join(f'"{blobs[info.name]}": ...' for info in model.inputs)
    takes = ", ".join(f'extractor.extract("{blobs[info.name]}")[1].numpy()' for info in model.outputs)
    narrow = (
        "" if half else "; net.opt.use_fp16_storage = net.opt.use_fp16_packed = net.opt.use_fp16_arithmetic = False"
    )
    return f"""import ncnn  # one sample at a time, without the axis of the batch
net = ncnn.Net(){narrow}; net.load_param("{PARAM}"); net.load_model("{WEIGHTS}")
extractor = net.create_extractor(); feeds = {{{feeds}}}
for blob, array in feeds.items(): extractor.input(blob, ncnn.Mat(array[0]).clone())
outputs = [{takes}]"""


def open(bundle: OpenedBundle, *, threads: int, cut: Cut | None = None) -> NetRunner:
    """The bundle's network, or the part that `cut` names, on `threads` threads.

    Raises:
        EdgewrightError: E231 for a tensor in `cut` that does not exist, E232 when ncnn rejects the files.
    """
    places = read_places(bundle.path / TENSORS)
    net = load(bundle.path, threads=threads, half=bundle.precision == "fp16")
    inputs = [info.name for info in bundle.inputs]
    if cut is not None:
        return cut_net(net, places, cut, inputs)
    return NetRunner(net, places, inputs, [info.name for info in bundle.outputs], light=True)
