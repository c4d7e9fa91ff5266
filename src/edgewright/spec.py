"""Spec: what a network's inputs expect and what its outputs mean.

Owns the description only. `samples.py` turns files into arrays by it, the task modules turn outputs into results.

    >>> spec = Spec(inputs={"image": ImageInput(size=(224, 224))}, task="classify")
    >>> Spec.from_json(spec.to_json()) == spec
    True
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgewright.errors import EdgewrightError
from edgewright.options import build, dump

#: Key under which a Spec travels inside an ONNX file's metadata.
METADATA_KEY = "edgewright.spec"


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """How a photo becomes one input: f32[N, C, H, W] (or `nhwc`).

    Value of each channel: `(pixel - mean) / std`, pixel in 0..255 whatever the file's bit depth.

    Attributes:
        size: Height and width in pixels.
        resize: `crop` takes the centre `crop_fraction` of the shorter side and resizes that square (or rectangle of the
            input's aspect); `stretch` resizes the whole photo; `letterbox` keeps the aspect and pads with `pad_value`.
        crop_fraction: Part of the photo kept by `crop`, 0 < x <= 1.
        interpolation: Filter used for resizing.
        antialias: Widen the filter when shrinking (Pillow's way); false is OpenCV's and torch's old way.
        colour: Channel order; `gray` has one channel.
        mean: Per channel in `colour` order, 0..255; one value stands for all.
        std: Per channel in `colour` order, 0..255; one value stands for all.
        layout: Axis order of the input tensor.
        pad_value: Grey level of `letterbox` bars, 0..255.
    """

    kind: Literal["image"] = "image"
    size: tuple[int, int]
    resize: Literal["crop", "stretch", "letterbox"] = "crop"
    crop_fraction: float = 0.875
    interpolation: Literal["nearest", "bilinear", "bicubic", "area"] = "bicubic"
    antialias: bool = True
    colour: Literal["rgb", "bgr", "gray"] = "rgb"
    mean: tuple[float, ...] = (127.5,)
    std: tuple[float, ...] = (127.5,)
    layout: Literal["nchw", "nhwc"] = "nchw"
    pad_value: float = 114.0

    def __post_init__(self) -> None:
        channels = 1 if self.colour == "gray" else 3
        if min(self.size) < 1 or max(self.size) > 16384:
            raise EdgewrightError("E303", f"input size {self.size} is outside 1..16384 pixels")
        if not 0 < self.crop_fraction <= 1:
            raise EdgewrightError("E303", f"`crop_fraction` is {self.crop_fraction}, but must be above 0 and at most 1")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise EdgewrightError("E303", f"`{name}` has {len(values)} values, but must have 1 or {channels}")
        if any(value == 0 for value in self.std):
            raise EdgewrightError("E303", "`std` holds a zero")


@dataclass(frozen=True, kw_only=True)
class TensorInput:
    """An input fed as it is: the samples are `.npz` files that hold the arrays."""

    kind: Literal["tensor"] = "tensor"


InputSpec = ImageInput | TensorInput
_KINDS: dict[str, type[ImageInput] | type[TensorInput]] = {"image": ImageInput, "tensor": TensorInput}


@dataclass(frozen=True)
class Spec:
    """Inputs by ONNX name, the task's name and the task's own options (checked by the task module)."""

    inputs: Mapping[str, InputSpec] = field(default_factory=dict)
    task: str = "tensor"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def takes_photos(self) -> bool:
        """True where at least one input is made from a photo."""
        return any(item.kind == "image" for item in self.inputs.values())

    def to_json(self) -> dict[str, Any]:
        """The spec as a JSON-ready mapping; `from_json` turns it back."""
        return {
            "task": self.task,
            "options": json.loads(json.dumps(dict(self.options))),
            "inputs": {name: dump(item) for name, item in self.inputs.items()},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], *, where: str = "spec") -> Spec:
        """The Spec in `document`.

        Raises:
            EdgewrightError: E303 for an unknown input kind, E103 for an unknown or malformed field.
        """
        unknown = set(document) - {"task", "options", "inputs"}
        if unknown:
            raise EdgewrightError("E303", f"`{where}` has unknown keys: {', '.join(sorted(unknown))}")
        inputs: dict[str, InputSpec] = {}
        tables = document.get("inputs", {})
        options = document.get("options", {})
        if not isinstance(tables, Mapping) or not isinstance(options, Mapping):
            raise EdgewrightError("E303", f"`{where}`: `inputs` and `options` must be tables")
        for name, item in tables.items():
            kind = item.get("kind") if isinstance(item, Mapping) else None
            if kind not in _KINDS:
                raise EdgewrightError("E303", f"`{where}` input `{name}` has kind {kind!r}; known: {', '.join(_KINDS)}")
            inputs[name] = build(_KINDS[kind], item, where=f"{where}.inputs.{name}")
        return cls(inputs, str(document.get("task", "tensor")), dict(options))

    @classmethod
    def read(cls, path: str | Path) -> Spec:
        """The Spec in a TOML or JSON file.

        Raises:
            EdgewrightError: E104 when the file cannot be read, E303 when it is malformed.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as problem:
            raise EdgewrightError("E104", f"spec file `{path}` cannot be read: {problem.strerror}") from None
        except UnicodeDecodeError:
            raise EdgewrightError("E303", f"spec file `{path}` is not UTF-8 text") from None
        try:
            document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except (json.JSONDecodeError, tomllib.TOMLDecodeError) as problem:
            raise EdgewrightError("E303", f"spec file `{path}` is malformed: {problem}") from None
        if not isinstance(document, Mapping):
            raise EdgewrightError("E303", f"spec file `{path}` must hold a table")
        return cls.from_json(document, where=str(path))
