"""The Spec of a network whose file says what its inputs and outputs are; nothing is guessed."""

from __future__ import annotations

from edgewright.errors import EdgewrightError
from edgewright.formats.tflite.metadata import KEY, Described, described, labels
from edgewright.formats.tflite.reading import File, Tensor
from edgewright.importers.tflite._network import Network
from edgewright.spec import ImageInput, Spec


def spec_of(file: File, network: Network) -> Spec:
    """Photos where the file says how they are normalized, class names where it has them; what is broken is a warning.

    The whole photo is resized by bilinear interpolation, which is what TensorFlow Lite's Task Library does with it.
    """
    if KEY not in file.metadata:
        return Spec()
    try:
        inputs, outputs = described(file.metadata[KEY], network.file_name)
        found = _inputs(file, network, inputs)
        options = _classes(file, network, outputs) if found else None
    except EdgewrightError as problem:
        network.warnings.append(f"{problem.message}; the network is read without it")
        return Spec()
    return Spec(found) if options is None else Spec(found, "classify", options)


def _inputs(file: File, network: Network, said: tuple[Described, ...]) -> dict[str, ImageInput]:
    found = {}
    for index, item in zip(file.inputs, said, strict=False):
        image = _image(file.tensors[index], item)
        if image is not None:
            found[network.names[index]] = image
    return found


def _image(tensor: Tensor, said: Described) -> ImageInput | None:
    """The input, where all that must be known of it is said."""
    channels = {"rgb": 3, "gray": 1}.get(said.colour)
    shape = tensor.signature
    if not said.image or len(shape) != 4 or shape[0] not in (1, -1) or shape[3] != channels or min(shape[1:]) < 1:
        return None
    if not said.mean or not said.std:
        return None
    mean, std = said.mean, said.std
    if tensor.dtype == "uint8":
        if not _takes_pixels(tensor, said):
            return None
        mean, std = (0.0,), (1.0,)
    elif tensor.dtype not in ("float32", "float16"):
        return None
    return ImageInput(
        size=(shape[1], shape[2]), resize="stretch", interpolation="bilinear", antialias=False, colour=said.colour,  # type: ignore[arg-type]
        mean=mean, std=std, layout="nhwc",
    )  # fmt: skip


def _takes_pixels(tensor: Tensor, said: Described) -> bool:
    """True where normalizing a pixel and quantizing the result gives the pixel again."""
    steps = tensor.quantization
    if steps is None or len(steps.scale) != 1 or len(said.mean) != 1 or len(said.std) != 1:
        return False
    scale, zero = float(steps.scale[0]) * said.std[0], float(steps.zero_point[0])
    return scale > 0 and all(abs((pixel - said.mean[0]) / scale + zero - pixel) <= 1 for pixel in (0.0, 255.0))


def _classes(file: File, network: Network, said: tuple[Described, ...]) -> dict[str, list[str]] | None:
    """Options of the task `classify`, where the one output has a name for each of its scores."""
    if len(file.outputs) != 1 or not said or not said[0].labels_file or not network.ends_at(file.outputs):
        return None
    names = labels(file.content, said[0].labels_file, network.file_name)
    shape = file.tensors[file.outputs[0]].shape
    if len(shape) != 2 or shape[1] != len(names):
        raise EdgewrightError(
            "E202", f"`{network.file_name}` has {len(names)} labels for an output of shape {list(shape)}"
        )
    return {"labels": list(names)}
