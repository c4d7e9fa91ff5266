"""Spec: what a network's inputs expect and what its outputs mean.

Owns the description only. `samples` turns files into arrays by it, the task modules turn outputs into results.

    >>> spec = Spec(inputs={"image": ImageInput(size=(224, 224))}, task="classify")
    >>> Spec.from_json(spec.to_json()) == spec
    True
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from edgewright.errors import EdgewrightError
from edgewright.options import build, dump

#: Key under which a Spec travels inside an ONNX file's metadata.
METADATA_KEY = "edgewright.spec"
#: Input types that an image may be fed as: float values, or the 8-bit pixels themselves.
IMAGE_DTYPES = ("float32", "float16", "uint8")
_DTYPE_NAMES = ", ".join(IMAGE_DTYPES)
_LARGEST_SIDE = 16384


class TensorFacts(Protocol):
    """What is asked of a network's input or output; `model.TensorInfo` is one."""

    @property
    def name(self) -> str:
        """ONNX name."""

    @property
    def dtype(self) -> str:
        """Numpy's name of the type."""

    @property
    def shape(self) -> tuple[int | str | None, ...]:
        """Sizes; unknown ones are a name or None."""


class NetworkFacts(Protocol):
    """What `template` asks of a network; `model.Model` is one."""

    @property
    def name(self) -> str:
        """A short name."""

    @property
    def spec(self) -> Spec:
        """What is known already."""

    @property
    def inputs(self) -> Sequence[TensorFacts]:
        """Inputs in graph order."""

    @property
    def outputs(self) -> Sequence[TensorFacts]:
        """Outputs in graph order."""


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """How a photo becomes one input: f32[N, C, H, W] (or `nhwc`).

    Value of each channel: `(pixel - mean) / std`, pixel in 0..255 whatever the file's bit depth. `samples.images` says
    exactly how pixels are made.

    Attributes:
        size: Height and width in pixels.
        resize: `crop` takes the centre `crop_fraction` of the shorter side and resizes that square (or rectangle of the
            input's aspect); `stretch` resizes the whole photo; `letterbox` keeps the aspect and pads with `pad_value`.
        crop_fraction: Part of the photo kept by `crop`, 0 < x <= 1.
        interpolation: Filter used for resizing; `darknet` is Darknet's own, for networks that were trained with it.
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
    interpolation: Literal["nearest", "bilinear", "bicubic", "area", "darknet"] = "bicubic"
    antialias: bool = True
    colour: Literal["rgb", "bgr", "gray"] = "rgb"
    mean: tuple[float, ...] = (127.5,)
    std: tuple[float, ...] = (127.5,)
    layout: Literal["nchw", "nhwc"] = "nchw"
    pad_value: float = 114.0

    def __post_init__(self) -> None:
        channels = 1 if self.colour == "gray" else 3
        if min(self.size) < 1 or max(self.size) > _LARGEST_SIDE:
            raise EdgewrightError("E303", f"input size {self.size} is outside 1..{_LARGEST_SIDE} pixels")
        if not 0 < self.crop_fraction <= 1:
            raise EdgewrightError("E303", f"`crop_fraction` is {self.crop_fraction}, but must be above 0 and at most 1")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise EdgewrightError("E303", f"`{name}` has {len(values)} values, but must have 1 or {channels}")
            if not all(math.isfinite(value) for value in values):
                raise EdgewrightError("E303", f"`{name}` holds a value that is not finite")
        if any(value == 0 for value in self.std):
            raise EdgewrightError("E303", "`std` holds a zero")
        if not 0 <= self.pad_value <= 255:
            raise EdgewrightError("E303", f"`pad_value` is {self.pad_value}, but must be 0..255")


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

    def check(self, inputs: Sequence[TensorFacts]) -> None:
        """Refuse a Spec whose inputs are not the network's; `inputs` empty means that they are not known.

        Raises:
            EdgewrightError: E303 for an input the network does not have, or an image that its input cannot hold.
        """
        known = {info.name: info for info in inputs}
        for name, item in self.inputs.items() if known else ():
            if name not in known:
                names = ", ".join(f"`{other}`" for other in known)
                raise EdgewrightError("E303", f"the spec has an input `{name}`, but the network takes {names}")
            if isinstance(item, ImageInput):
                _check_image(item, known[name])

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
        return cls.from_json(_read_labels(document, path.parent), where=str(path))


def template(model: NetworkFacts) -> str:
    """A commented spec file (TOML) for a network: what `edgewright spec init` writes.

    What the network's own Spec says is kept. The rest is read from shapes; whatever is a guess says `# please check`.
    """
    known = bool(model.spec.inputs) or model.spec.task != "tensor"
    task, found = (model.spec.task, model.spec.options) if known else _guess_task(model)
    found = {key: value for key, value in found.items() if value is not None}
    inputs = [_input_lines(info, model.spec.inputs.get(info.name), task) for info in model.inputs]
    outputs = _comment(", ".join(str(info) for info in model.outputs))
    options = [_option(key, value) + ("" if known else "   # please check") for key, value in found.items()]
    if task in ("classify", "detect") and "labels" not in found:
        options.append(
            '# labels = ["tench", "goldfish"]   # names of all classes in order; or labels_file = "classes.txt"'
        )
    if task == "detect" and "heads" not in found:
        options.append('# heads = [{kind = "yolov8", output = "output0"}]   # docs/detect.md lists the kinds')
    return "\n".join(
        [
            f"# What the network `{_comment(model.name)}` expects and gives. Agreement cannot see a wrong mean or std:",
            "# fill this in from the code that trained or published the network.",
            "",
            f"# outputs: {outputs}",
            f"task = {_toml(task)}" + ("   # please check" if not known else ""),
            "",
            "[options]",
            *options,
            *(line for lines in inputs for line in ("", *lines)),
            "",
        ]
    )


def _guess_task(model: NetworkFacts) -> tuple[str, dict[str, Any]]:
    """Task and options as the shapes suggest: one row of scores, or boxes as the usual exports of YOLO give them."""
    item = _guess_image(model.inputs[0]) if len(model.inputs) == len(model.outputs) == 1 else None
    if item is None:
        return "tensor", {}
    output = model.outputs[0]
    if _is_scores(output):
        return "classify", {}
    cells = sum((item.size[0] // stride) * (item.size[1] // stride) for stride in (8, 16, 32))
    rows, columns = output.shape[1:] if len(output.shape) == 3 else (None, None)
    # three anchors for each cell, and objectness beside box and classes; or none of both
    kind = "yolov5" if rows == 3 * cells else "yolov8" if columns == cells else None
    if kind is None:
        return "tensor", {}
    return "detect", {"threshold": 0.25, "heads": [{"kind": kind, "output": output.name}]}


def _option(key: str, value: Any) -> str:
    """`key = value`, with a line for each table of a list of tables."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, Mapping) for item in value):
        return f"{key} = [\n" + "".join(f"  {_toml(item)},\n" for item in value) + "]"
    return f"{key} = {_toml(value)}"


def _input_lines(info: TensorFacts, item: InputSpec | None, task: str) -> list[str]:
    head = [f"# network input: {_comment(str(info))}", f"[inputs.{_toml(info.name)}]"]
    check = "" if item else "please check: "
    if item is None:
        item = _guess_image(info) or TensorInput()
        if (
            task == "detect" and isinstance(item, ImageInput) and info.dtype != "uint8"
        ):  # as the exports of YOLO want it
            item = replace(
                item, resize="letterbox", interpolation="bilinear", antialias=False, mean=(0.0,), std=(255.0,)
            )
    if not isinstance(item, ImageInput):
        return [*head, f'kind = "tensor"   # {check}arrays come ready-made in .npz files']
    about = {
        "size": "height, width",
        "resize": "crop, stretch or letterbox",
        "crop_fraction": "part of the shorter side that `crop` keeps",
        "interpolation": "nearest, bilinear, bicubic, area or darknet",
        "antialias": "true: Pillow's way; false: OpenCV's and torch's old way",
        "colour": "rgb, bgr or gray",
        "mean": "of pixels 0..255, one value or one for each channel",
        "std": "value = (pixel - mean) / std",
        "layout": "nchw or nhwc",
        "pad_value": "grey of `letterbox` bars, 0..255",
    }
    fields = dump(item)
    sized = not check or all(isinstance(side, int) for side in _sides(info, item))
    lines = [f'kind = "image"   # {check}made from a photo']
    for name, comment in about.items():
        certain = name == "layout" or (name == "size" and sized)
        lines.append(f"{name} = {_toml(fields[name])}   # {'' if certain else check}{comment}")
    return [*head, *lines]


def _guess_image(info: TensorFacts) -> ImageInput | None:
    """An image input where rank and channels look like one, sizes taken from the shape; 224 where it has none."""
    if len(info.shape) != 4 or info.dtype not in IMAGE_DTYPES:
        return None
    layout: Literal["nchw", "nhwc"] = "nchw" if info.shape[1] in (1, 3) else "nhwc"
    channels = info.shape[1] if layout == "nchw" else info.shape[3]
    if channels not in (1, 3):
        return None
    item = ImageInput(size=(224, 224), colour="rgb" if channels == 3 else "gray", layout=layout)
    if info.dtype == "uint8":
        item = replace(item, mean=(0.0,), std=(1.0,))
    height, width = (
        side if isinstance(side, int) and 1 <= side <= _LARGEST_SIDE else 224 for side in _sides(info, item)
    )
    return replace(item, size=(height, width))


def _is_scores(info: TensorFacts) -> bool:
    """True for an output of one row of scores: [N, C] or [N, C, 1, 1] with more than one class."""
    classes = info.shape[1] if len(info.shape) in (2, 4) else None
    return isinstance(classes, int) and classes > 1 and all(size == 1 for size in info.shape[2:])


def _sides(info: TensorFacts, item: ImageInput) -> tuple[int | str | None, int | str | None]:
    height_axis = 2 if item.layout == "nchw" else 1
    return info.shape[height_axis], info.shape[height_axis + 1]


def _check_image(item: ImageInput, info: TensorFacts) -> None:
    if len(info.shape) != 4:
        raise EdgewrightError("E303", f"input `{info.name}` is an image in the spec, but the network takes {info}")
    if info.dtype not in IMAGE_DTYPES:
        raise EdgewrightError(
            "E303", f"input `{info.name}` is an image, but the network takes {info}; known: {_DTYPE_NAMES}"
        )
    if info.dtype == "uint8" and (set(item.mean), set(item.std)) != ({0.0}, {1.0}):
        raise EdgewrightError("E303", f"input `{info.name}` takes uint8 pixels, so `mean` must be 0 and `std` 1")
    channels = 1 if item.colour == "gray" else 3
    made = (channels, *item.size) if item.layout == "nchw" else (*item.size, channels)
    if info.shape[0] not in (1, None) and isinstance(info.shape[0], int):
        raise EdgewrightError("E303", f"the network takes {info}, but samples are fed one at a time (batch 1)")
    if any(isinstance(want, int) and want != got for want, got in zip(info.shape[1:], made, strict=True)):
        raise EdgewrightError(
            "E303",
            f"the spec makes images {item.layout} [1, {', '.join(map(str, made))}], but the network takes {info}",
        )


def _comment(text: str) -> str:
    """Text without control characters: a line break in a tensor's name must not end the comment."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _toml(value: Any) -> str:
    """A value as TOML. JSON's strings, numbers and arrays are TOML's, but for the delete character."""
    if isinstance(value, Mapping):
        pairs = ((str(key), item) for key, item in value.items() if item is not None)  # TOML has no null
        return (
            "{"
            + ", ".join(
                f"{key if key.isascii() and key.isidentifier() else _toml(key)} = {_toml(item)}" for key, item in pairs
            )
            + "}"
        )
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read_labels(document: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """The document with `options.labels_file` replaced by the lines of that text file, so that a Spec is whole."""
    options = document.get("options")
    if not isinstance(options, Mapping) or "labels_file" not in options:
        return document
    name = options["labels_file"]
    if not isinstance(name, str) or "labels" in options:
        raise EdgewrightError("E303", "`labels_file` must name one text file, and stands in the place of `labels`")
    try:
        # Only \n ends a line: a charset may hold U+2028 or U+0085, and a line of one blank is the label " ".
        lines = (folder / name).read_text(encoding="utf-8-sig").split("\n")
    except OSError as problem:
        raise EdgewrightError("E104", f"labels file `{folder / name}` cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise EdgewrightError("E303", f"labels file `{folder / name}` is not UTF-8 text") from None
    labels = [line.strip() or line for line in lines]
    while labels and not labels[-1]:
        labels.pop()
    rest = {key: value for key, value in options.items() if key != "labels_file"}
    return {**document, "options": {**rest, "labels": labels}}
