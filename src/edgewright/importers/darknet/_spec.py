"""What the network's inputs and outputs mean, as far as a cfg says it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.errors import EdgewrightError
from edgewright.importers.darknet._cfg import Section
from edgewright.importers.darknet._layer import Network, chw
from edgewright.spec import ImageInput, InputSpec, Spec, TensorInput

if TYPE_CHECKING:
    import onnx_ir as ir

#: Darknet's name -> the task's.
_NMS = {"default": "default", "greedynms": "greedy", "diounms": "diou", "cornersnms": "corners"}
#: Heads that choose -> what they may choose.
_NMS_OF = {"yolo": ("default", "greedynms", "diounms"), "Gaussian_yolo": tuple(_NMS)}
_HEADS = ("yolo", "gaussian_yolo", "region", "detection")


def describe(
    net: Section, sections: Sequence[Section], network: Network, answer: ir.Value, labels: Path | None
) -> Spec:
    """Inputs and task: boxes where there are heads, a class where the network ends in a vector, else arrays.

    Raises:
        EdgewrightError: E104 or E303 for the labels.
    """
    heads = [section for section in sections if section.name.lower() in _HEADS]
    image, *states = network.graph.inputs
    letterbox = any(section.flag("letter_box") for section in (net, *heads[-1:]))
    inputs: dict[str, InputSpec] = {str(image.name): _image(image, letterbox=letterbox)}
    inputs |= {str(state.name): TensorInput() for state in states}
    options: dict[str, Any] = {}
    if labels is not None:
        options["labels"] = read_labels(labels)
        _check_labels(options["labels"], network.heads, answer, labels)
    if heads:
        options |= {
            "threshold": 0.25,
            "nms_threshold": 0.45,
            **_suppression(heads[-1], network),
            "heads": network.heads,
        }
        return Spec(inputs, "detect", options)
    if chw(answer)[1:] == (1, 1) and chw(answer)[0] > 1:
        return Spec(inputs, "classify", options)
    return Spec(inputs)


def _image(image: ir.Value, *, letterbox: bool) -> InputSpec:
    """How a photo becomes the input; arrays where it has neither one nor three channels."""
    channels, height, width = chw(image)
    if channels not in (1, 3) or image.name != "image":
        return TensorInput()
    return ImageInput(
        size=(height, width),
        resize="letterbox" if letterbox else "stretch",
        interpolation="darknet",
        antialias=False,
        colour="rgb" if channels == 3 else "gray",
        mean=(0.0,),
        std=(255.0,),
        pad_value=127.5,
    )


def _suppression(head: Section, network: Network) -> dict[str, Any]:
    """Non-maximum suppression as the last head asks for it; what Darknet does not know there, it takes for `default`."""
    if head.name not in _NMS_OF:
        return {"nms": "default", "beta": 0.6}
    name = head.text("nms_kind", "default")
    if name not in _NMS_OF[head.name]:
        network.warn(head.note(f"nms_kind `{name[:40]}` is not known here; Darknet takes `default` for it", "nms_kind"))
        name = "default"
    return {"nms": _NMS[name], "beta": head.number("beta_nms", 0.6)}


def read_labels(path: Path) -> list[str]:
    """Names of the classes, one in each line of a .names file.

    Raises:
        EdgewrightError: E104 when it cannot be read, E303 when it is no text or empty.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as problem:
        raise EdgewrightError("E104", f"labels `{path}` cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise EdgewrightError("E303", f"labels `{path}` are not UTF-8 text") from None
    labels = [line.strip() for line in lines]
    while labels and not labels[-1]:
        labels.pop()
    if not labels:
        raise EdgewrightError("E303", f"labels `{path}` are empty")
    return labels


def _check_labels(labels: list[str], heads: list[dict[str, Any]], answer: ir.Value, path: Path) -> None:
    """Refuse names that are not as many as the classes.

    Raises:
        EdgewrightError: E303.
    """
    for head in heads or [{"output": answer.name, "classes": chw(answer)[0]}]:
        if head["classes"] != len(labels):
            raise EdgewrightError(
                "E303",
                f"labels `{path.name}` has {len(labels)} names, but {head['output']} has {head['classes']} classes",
            )
