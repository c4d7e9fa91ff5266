"""Section by section to the graph: one table from a section's name to the function that builds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgewright.errors import EdgewrightError
from edgewright.importers.darknet._cfg import Section
from edgewright.importers.darknet._known import ignored
from edgewright.importers.darknet._layer import Layer, Network
from edgewright.importers.darknet._layers import convolution, dense, heads, joining, plain, pooling, recurrent, resizing

if TYPE_CHECKING:
    import onnx_ir as ir

Builder = Callable[[Layer], "ir.Value | None"]
#: Kind of a layer -> its builder, which returns the layer's output, or None where it has none.
BUILDERS: dict[str, Builder] = {
    "activation": plain.activation,
    "avgpool": pooling.avgpool,
    "batchnorm": plain.batchnorm,
    "connected": dense.connected,
    "contrastive": plain.nothing,
    "conv_lstm": recurrent.conv_lstm,
    "convolutional": convolution.convolutional,
    "cost": plain.nothing,
    "crnn": recurrent.crnn,
    "crop": resizing.crop,
    "deconvolutional": convolution.deconvolutional,
    "detection": heads.detection,
    "dropout": plain.identity,
    "empty": plain.identity,
    "gaussian_yolo": heads.gaussian_yolo,
    "gru": recurrent.gru,
    "history": recurrent.history,
    "implicit": plain.implicit,
    "l2norm": plain.l2norm,
    "local": dense.local,
    "local_avgpool": pooling.local_avgpool,
    "logistic": plain.logistic,
    "lstm": recurrent.lstm,
    "maxpool": pooling.maxpool,
    "normalization": plain.normalization,
    "region": heads.region,
    "reorg": resizing.reorg,
    "reorg3d": resizing.reorg3d,
    "rnn": recurrent.rnn,
    "route": joining.route,
    "sam": joining.sam,
    "scale_channels": joining.scale_channels,
    "shortcut": joining.shortcut,
    "softmax": plain.softmax,
    "upsample": resizing.upsample,
    "yolo": heads.yolo,
}
#: Other names in the cfg -> kind.
_SYNONYMS = {
    "Gaussian_yolo": "gaussian_yolo", "avg": "avgpool", "conn": "connected", "conv": "convolutional",
    "deconv": "deconvolutional", "implicit_add": "implicit", "implicit_mul": "implicit", "local_avg": "local_avgpool",
    "lrn": "normalization", "max": "maxpool", "normalize": "normalization", "silence": "empty", "soft": "softmax",
}  # fmt: skip
#: What is known and yet refused, with the reason.
_REFUSED = {"iseg": "instance segmentation of pjreddie/darknet gives no tensor that a task here could read"}


def kind_of(section: Section) -> str:
    """The kind of layer that a section is.

    Raises:
        EdgewrightError: E204 for a section that nobody knows, or that is refused.
    """
    name = section.name
    kind = _SYNONYMS.get(name, name)
    if name in _REFUSED:
        raise section.refuse(f"[{name}] is not supported: {_REFUSED[name]}", code="E204")
    if kind not in BUILDERS or name == "gaussian_yolo":
        problem = section.refuse(f"Darknet has no section [{name[:40]}]", code="E204")
        raise EdgewrightError("E204", problem.message, hint="known: " + ", ".join(sorted(BUILDERS)))
    return kind


def build(sections: Sequence[Section], network: Network, x: ir.Value) -> ir.Value:
    """Add every layer to the network's graph, and its outputs; `x` is the image. Returns the last layer's output.

    Raises:
        EdgewrightError: E202, E203, E204 and E214, each with the section's line.
    """
    kinds = [kind_of(section) for section in sections]
    if not kinds:
        raise EdgewrightError("E201", "the cfg has [net] alone and no layer")
    answer = None
    for kind, section in zip(kinds, sections, strict=True):
        layer = Layer(section, network, x)
        network.graph.scope = layer.name
        made = BUILDERS[kind](layer)
        if made is not None:
            x = network.graph.named(made, layer.name)
            answer = x
        network.outputs.append(x)
        warn_unknown(network, section, kind)
    if answer is None:
        raise sections[-1].refuse("no layer of the network computes anything")
    _finish(network, answer)
    return answer


def warn_unknown(network: Network, section: Section, kind: str) -> None:
    """Say of every option that nobody read that it is not known, with its line."""
    known = section.known | ignored(kind) | {"dontload"}
    for key in section.entries:
        if key not in known:
            network.warn(section.note(f"option `{key[:60]}` is not known and has no effect", key))


def _finish(network: Network, answer: ir.Value) -> None:
    """Graph outputs: the heads, or without any the last layer; then the states."""
    graph = network.graph
    outputs = {value.name: value for value in network.outputs}
    for head in network.heads:
        graph.output(outputs[head["output"]])
    if not network.heads:
        graph.output(answer)
    graph.scope = "states"
    for name, value in network.next_states:
        graph.output(graph.named(value, name))
