"""Reads ncnn networks: a text .param and the .bin with its weights, float or int8.

    ew.load("squeezenet_v1.1.param")

Tensors keep the names of ncnn's blobs and get a batch as their first axis: a blob of w x h x c is f32[N, C, H, W], one of
w x h f32[N, H, W], one of w f32[N, W]. The graph's outputs are the blobs that nothing reads. What `Split` and layers that do
nothing hand on keeps its first name. The modules, in the order of the work:

    edgewright.formats.ncnn.reading    both files, counts and sizes checked
    _layer       what the builder of one layer is given
    _network     the table from a layer's type to its builder in `_layers`, and the loop over the lines

Source: Tencent/ncnn, docs/developer-guide/operators.md and src/layer/*.cpp, as of ncnn 1.0.20261020.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.errors import EdgewrightError
from edgewright.formats.ncnn.reading import Line, Weights, read_param
from edgewright.model import IR_VERSION, Model, Step
from edgewright.options import dump

if TYPE_CHECKING:
    from edgewright.importers.ncnn._layer import Network

EXTRA: str | None = None
SUFFIXES: tuple[str, ...] = (".param",)

BATCH = "N"
_MOST_AXES = 5


@dataclass(frozen=True)
class Options:
    """How a network is read.

    Attributes:
        weights: The .bin; None takes the one of the .param's name beside it.
        input_shape: Sizes of the input, batch first, as in 1,3,224,224; a batch of 0 may be any. Needed where the .param
            does not say them, and goes before what it says. It holds for all inputs, so a network with several must say
            its sizes itself.
    """

    weights: Path | None = None
    input_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        sizes = self.input_shape
        if sizes and not (2 <= len(sizes) <= _MOST_AXES and sizes[0] >= 0 and all(1 <= n < 2**31 for n in sizes[1:])):
            raise EdgewrightError(
                "E103",
                f"option `ncnn.input_shape` is {','.join(str(size) for size in sizes)}, but must be the batch (0: any) and "
                f"1 to {_MOST_AXES - 1} sizes, as in 1,3,224,224",
            )


def load(path: Path, options: Options) -> Model:
    """The network in the .param at `path` with its weights.

    Warns of every parameter that nobody knows.

    Raises:
        EdgewrightError: E104 a file is missing, E201 it is no .param or no .bin, E202 the weights are too few or too many,
            E203 blobs are made twice or read before, E204 an unknown layer, E209 the size of an input is not known, E215
            values or sizes that cannot be.
    """
    from edgewright.graph.building import Graph
    from edgewright.importers.ncnn._layer import Network
    from edgewright.importers.ncnn._network import build, check_kinds

    lines = read_param(path)
    check_kinds(lines)
    with Weights(_weights_of(path, options, lines)) as weights:
        batch = options.input_shape[0] if options.input_shape else 0
        graph = Graph(batch or BATCH, reserved={name for line in lines for name in line.tops})
        network = Network(graph, weights, options.input_shape[1:])
        build(lines, network)
        weights.finish()
        return _model(path, options, network, weights)


def _weights_of(path: Path, options: Options, lines: list[Line]) -> Path:
    if options.weights is not None:
        return options.weights
    beside = path.with_suffix(".bin")
    if not beside.is_file():
        raise EdgewrightError(
            "E104",
            f"`{path.name}` has its weights in a file of their own, and `{beside}` is not there",
            hint=f"edgewright inspect {path.name} --set ncnn.weights=FILE",
        )
    return beside


def _model(path: Path, options: Options, network: Network, weights: Weights) -> Model:
    import onnx_ir as ir

    with weights.path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    stats: dict[str, Any] = {
        "weights": weights.path.name,
        "weights_sha256": digest,
        "parameters": network.parameters,
    }
    if network.warnings:
        stats["warnings"] = network.warnings
    step = Step(kind="import", name="ncnn", config=dump(options), stats=stats)
    graph = network.graph.finished(path.stem)
    return Model(ir.Model(graph, ir_version=IR_VERSION, producer_name="edgewright"), history=(step,), name=path.stem)
