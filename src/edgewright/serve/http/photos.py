"""A photo in, a result out: preprocessing and postprocessing as the bundle's Spec says."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright import pipeline, registry
from edgewright.errors import EdgewrightError
from edgewright.model import Arrays
from edgewright.samples import images
from edgewright.samples.images import BrokenSampleError
from edgewright.samples.loading import Loader
from edgewright.serve.core.jobs import RefusalError
from edgewright.serve.core.version import Version
from edgewright.serve.protocol.limits import Limits
from edgewright.spec import ImageInput

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Prepared:
    """A photo as a network takes it.

    Attributes:
        inputs: Arrays by ONNX name.
        size: Width and height of the upright photo in pixels.
        picture: The photo, perhaps smaller where it is huge.
    """

    inputs: dict[str, np.ndarray]
    size: tuple[int, int]
    picture: Image.Image


def prepare(version: Version, content: bytes, limits: Limits) -> Prepared:
    """Decode a photo and make the network's input of it.

    Raises:
        RefusalError: "invalid" for a network that takes no photo, and for what is no photo, or too large a one.
    """
    if version.bundle.spec.task == pipeline.TASK:
        picture, size = _decoded(content, limits, None)
        return Prepared({"photo": np.asarray(picture.convert("RGB"))}, size, picture)
    loader = Loader(version.bundle.spec, version.bundle.inputs)
    try:
        name, item = loader.photo_input()
    except EdgewrightError:
        raise RefusalError(
            "invalid",
            f"model `{version.name}` takes no photos: its spec says nothing of one; send tensors to .../infer",
        ) from None
    picture, size = _decoded(content, limits, item)
    return Prepared({name: loader.from_picture(picture, item)}, size, picture)


def interpret(version: Version, outputs: Arrays, photo: Prepared) -> Any:
    """The task's result for a photo, with places in the photo's own pixels.

    Raises:
        RefusalError: "failed" where the outputs do not fit the Spec.
    """
    spec = version.bundle.spec
    if spec.task == pipeline.TASK:
        return outputs["result"][0].findings
    try:
        task = registry.get("tasks", spec.task)
        result = task.postprocess(outputs, spec)
        return task.place_result(result, photo.size, spec) if hasattr(task, "place_result") else result
    except EdgewrightError as problem:
        raise RefusalError("failed", problem.message) from None


def drawn(version: Version, result: Any, photo: Prepared) -> bytes:
    """The photo with the result on it, as PNG."""
    stream = io.BytesIO()
    picture = photo.picture.convert("RGB")
    if version.bundle.spec.task == pipeline.TASK:
        drawn = result.draw(picture)
    else:
        task = registry.get("tasks", version.bundle.spec.task)
        drawn = task.draw(picture, result, version.bundle.spec)
    drawn.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _decoded(content: bytes, limits: Limits, item: ImageInput | None) -> tuple[Image.Image, tuple[int, int]]:
    """The photo, and its size before it was perhaps made smaller for `item`."""
    try:
        width, height = images.photo_size(io.BytesIO(content))
        if width * height > limits.pixels:
            raise RefusalError(
                "invalid", f"the photo is {width} x {height}, more than the limit of {limits.pixels} pixels"
            )
        return images.decode(io.BytesIO(content), item), (width, height)
    except BrokenSampleError as problem:
        raise RefusalError("invalid", f"the photo {problem}") from None
