"""Reads Darknet networks: a .cfg and its .weights, of AlexeyAB's and pjreddie's Darknet.

    ew.load("yolov4-tiny.cfg", weights="yolov4-tiny.weights")

Tensor `layer_NNN` is layer NNN's output, f32[N, C, H, W], [net] not counted; the graph's outputs are the detection heads as
Darknet stores them, before boxes are decoded, or the last layer. The modules, in the order of the work:

    _cfg       text -> sections with typed options, each with its line
    _weights   the file from front to back, sizes checked before memory is taken
    _network   the table from a section's name to its builder in `_layers`, and the loop over it
    _spec      what the cfg says of photos and boxes

Where Darknet's CPU code contradicts what an option says, the option is followed: relu6 is min(max(x, 0), 6).

Source: AlexeyAB/darknet at 59596d7 (2025-12-15); pjreddie/darknet for [deconvolutional], [logistic] and [l2norm].
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgewright.errors import EdgewrightError
from edgewright.importers.darknet._cfg import Section, read
from edgewright.importers.darknet._weights import Weights
from edgewright.model import IR_VERSION, Model, Step
from edgewright.options import dump
from edgewright.spec import Spec

if TYPE_CHECKING:
    from edgewright.importers.darknet._layer import Network

EXTRA: str | None = None
SUFFIXES: tuple[str, ...] = (".cfg",)

IMAGE, VECTOR, BATCH = "image", "input", "N"
_LARGEST_SIDE, _MOST_CHANNELS, _MOST_STEPS = 16384, 2**20, 4096


@dataclass(frozen=True)
class Options:
    """How a network is read.

    Attributes:
        weights: The .weights file; None takes the one of the cfg's name beside it.
        labels: A .names file: the classes' names, one in each line.
        tree: The tree of classes, where the cfg's own path does not lead to it.
        batch: A number, or `symbolic` for any.
        time_steps: Steps of time that one run computes: one, as Darknet does at inference whatever [net] says, or more,
            which the first axis then counts.
        state: Whether recurrent layers take and give their state, or begin every run with zeros.
    """

    weights: Path | None = None
    labels: Path | None = None
    tree: Path | None = None
    batch: Literal["symbolic"] | int = "symbolic"
    time_steps: int = 1
    state: Literal["inputs", "zero"] = "inputs"

    def __post_init__(self) -> None:
        if self.batch != "symbolic" and self.batch < 1:
            raise EdgewrightError(
                "E103", f"option `darknet.batch` is {self.batch}, but must be at least 1, or symbolic"
            )
        if not 1 <= self.time_steps <= _MOST_STEPS:
            raise EdgewrightError(
                "E103", f"option `darknet.time_steps` is {self.time_steps}, but must be 1 to {_MOST_STEPS}"
            )


def load(path: Path, options: Options) -> Model:
    """The network in the cfg at `path` with its weights: input `image` f32[N, C, H, W], RGB, 0..1.

    Warns of every option that nobody knows.

    Raises:
        EdgewrightError: E104 a file is missing, E201 it is no cfg or no weights, E202 the weights are too few or too many,
            E203 a layer reads a later one, E204 an unknown section, E214 values or sizes that cannot be.
    """
    from edgewright.importers.darknet._network import build, warn_unknown
    from edgewright.importers.darknet._spec import describe

    (net, *sections), warnings = read(path)
    with Weights(_weights_of(path, options)) as weights:
        network = _begin(path, net, sections, weights, options)
        for text in warnings:
            network.warn(text)
        sizes = _input_sizes(net)
        name = IMAGE if net.has("width") or net.has("height") else VECTOR
        image = network.graph.input(name, (network.graph.batch, *sizes))
        warn_unknown(network, net, "net")
        answer = build(sections, network, image)
        weights.finish()
        return _model(path, options, network, describe(net, sections, network, answer, options.labels), weights)


def _begin(path: Path, net: Section, sections: list[Section], weights: Weights, options: Options) -> Network:
    from edgewright.graph.building import Graph
    from edgewright.importers.darknet._layer import Network
    from edgewright.importers.darknet._network import kind_of

    recurrent = {"rnn", "gru", "lstm", "crnn", "conv_lstm", "history"}
    steps = options.time_steps
    if steps > 1 and not any(kind_of(section) in recurrent for section in sections):
        steps = 1  # without a memory steps are images of a batch
    batch: int | str = BATCH if options.batch == "symbolic" else options.batch
    if steps > 1 and options.batch not in ("symbolic", steps):
        raise EdgewrightError(
            "E103",
            f"option `darknet.batch` is {options.batch}, but with {steps} steps of time the first axis counts those",
        )
    graph = Graph(steps if steps > 1 else batch)
    return Network(graph, weights, path.parent, tree=options.tree, steps=steps, state=options.state)


def _weights_of(path: Path, options: Options) -> Path:
    if options.weights is not None:
        return options.weights
    beside = path.with_suffix(".weights")
    if not beside.is_file():
        raise EdgewrightError(
            "E104",
            f"`{path.name}` has its weights in a file of their own, and `{beside}` is not there",
            hint=f"edgewright inspect {path.name} --set darknet.weights=FILE",
        )
    return beside


def _input_sizes(net: Section) -> tuple[int, int, int]:
    """Channels, height and width of the input; a vector is as many channels of one place.

    Raises:
        EdgewrightError: E214 for sizes that are missing or cannot be.
    """
    if not (net.has("width") or net.has("height")) and net.has("inputs"):
        return net.integer("inputs", 0, low=1, high=2**31 - 1), 1, 1
    for key in ("width", "height", "channels"):
        if not net.has(key):
            raise net.refuse(f"option `{key}` is missing")
    sides = [net.integer(key, 0, low=1, high=_LARGEST_SIDE) for key in ("height", "width")]
    channels = net.integer("channels", 0, low=1, high=_MOST_CHANNELS)
    inputs = net.integer("inputs", channels * sides[0] * sides[1])
    if inputs != channels * sides[0] * sides[1]:
        raise net.refuse(
            f"option `inputs` is {inputs}, but the image has {channels * sides[0] * sides[1]} values", "inputs"
        )
    return channels, sides[0], sides[1]


def _model(path: Path, options: Options, network: Network, spec: Spec, weights: Weights) -> Model:
    import onnx_ir as ir

    with weights.path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    stats: dict[str, Any] = {
        "weights": weights.path.name,
        "weights_sha256": digest,
        "version": ".".join(str(number) for number in weights.version),
        "images_seen": weights.seen,
        "parameters": network.parameters,
    }
    if network.warnings:
        stats["warnings"] = network.warnings
    step = Step(kind="import", name="darknet", config=dump(options), stats=stats)
    graph = network.graph.finished(path.stem)
    return Model(ir.Model(graph, ir_version=IR_VERSION, producer_name="edgewright"), spec, (step,), path.stem)
