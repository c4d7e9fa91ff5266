"""One label for each sample: the class with the highest score.

The network gives one row of scores, f32[1, C] or f32[1, C, 1, 1]. Equal scores go to the lowest class index. A row with
NaN or +inf in it has no class: its result is class -1, which agrees with nothing, another -1 included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.model import Arrays, TensorInfo
from edgewright.options import build
from edgewright.records import Record
from edgewright.spec import Spec

if TYPE_CHECKING:
    from PIL import Image

EXTRA: str | None = None
AGREEMENT = "same top-1 class"
PROPORTION = True
METRIC = "top-1"

_TOP_K = 5  # what "top-5" looks at
#: How far a row of probabilities may be from a sum of 1, fp16 and int8 outputs included.
_SUM_TOLERANCE = 0.02


@dataclass(frozen=True)
class Options:
    """What the scores mean.

    Attributes:
        labels: Names of the classes in order, where known.
        top: Classes that a drawing and `--json` list.
        output: Name of the output with the scores, where there are several.
        softmax: Whether shown scores are the softmax of the outputs; `auto` unless they already are probabilities.
            Never changes which class wins.
    """

    labels: tuple[str, ...] | None = None
    top: int = 5
    output: str | None = None
    softmax: Literal["auto", "yes", "no"] = "auto"

    def __post_init__(self) -> None:
        if self.top < 1:
            raise EdgewrightError("E103", f"option `top` is {self.top}, but must be at least 1")


@dataclass(frozen=True)
class Guess(Record):
    """One class with its score."""

    index: int
    label: str
    score: float


@dataclass(frozen=True)
class Classification(Record):
    """What a network says of one sample.

    Attributes:
        index: The winning class, -1 where the scores hold NaN or +inf.
        label: Its name, or its index as text.
        score: Its score.
        top: The best classes, best first.
    """

    index: int
    label: str
    score: float
    top: tuple[Guess, ...]

    def __str__(self) -> str:
        return (
            ", ".join(f"{guess.label} {guess.score:.3g}" for guess in self.top)
            or "no class: scores hold NaN or infinity"
        )


def classes(spec: Spec, outputs: Sequence[TensorInfo]) -> tuple[str, ...]:
    """Names of the classes, or their indices where unnamed; empty where not even their number is known.

    Raises:
        EdgewrightError: E303 where labels and output differ in number, or the output has no row of scores.
    """
    options = _options(spec)
    if not outputs:
        return options.labels or ()
    name = _output_name(options, [info.name for info in outputs])
    info = next(info for info in outputs if info.name == name)
    if len(info.shape) < 2:
        raise EdgewrightError("E303", f"task `classify` needs scores [1, classes], but the network gives {info}")
    count = info.shape[1]
    if options.labels is None:
        return tuple(str(index) for index in range(count)) if isinstance(count, int) else ()
    if isinstance(count, int) and count != len(options.labels):
        raise EdgewrightError("E303", f"the spec has {len(options.labels)} labels, but the network gives {info}")
    return options.labels


def postprocess(outputs: Arrays, spec: Spec) -> Classification:
    """The classes of one sample, best first.

    Raises:
        EdgewrightError: E303 when the outputs are no single row of scores.
    """
    options = _options(spec)
    name = _output_name(options, list(outputs))
    array = np.asarray(outputs[name])
    if array.ndim < 2 or not 0 < array.size == array.shape[1] or array.dtype.kind not in "fiu":
        raise EdgewrightError(
            "E303", f"output `{name}` is {array.dtype}{list(array.shape)}, but must be one row of scores"
        )
    row = array.reshape(-1).astype(np.float64)
    if np.isnan(row).any() or np.isposinf(row).any():
        return Classification(-1, "", math.nan, ())
    scores = _probabilities(row) if _wants_softmax(options, row) else row
    kept = _best(row, max(options.top, _TOP_K))  # ranked by the raw outputs: softmax may round to ties
    top = tuple(Guess(int(index), _label(options, int(index)), float(scores[index])) for index in kept)
    return Classification(top[0].index, top[0].label, top[0].score, top)


def named_classes(result: Classification) -> frozenset[str]:
    """The class of the sample; none where it has no class."""
    return frozenset((result.label,)) if result.index >= 0 else frozenset()


def metric(results: Sequence[Classification], labels: Sequence[int], spec: Spec) -> dict[str, float]:
    """Share of samples whose label is the winner ("top-1") and is among the best five ("top-5")."""
    if not results:
        return {"top-1": math.nan, "top-5": math.nan}
    pairs = list(zip(results, labels, strict=True))
    first = sum(result.index == label for result, label in pairs)
    among = sum(any(guess.index == label for guess in result.top[:_TOP_K]) for result, label in pairs)
    return {"top-1": first / len(pairs), "top-5": among / len(pairs)}


def agreement(reference: Sequence[Classification], results: Sequence[Classification], spec: Spec) -> float:
    """Share of samples with the same winner, nan for none; class -1 never agrees."""
    if not reference:
        return math.nan
    same = sum(a.index == b.index >= 0 for a, b in zip(reference, results, strict=True))
    return same / len(reference)


def parse_label(text: str, spec: Spec) -> int:
    """The class index that a name or a number means; a name wins over a number.

    Raises:
        EdgewrightError: E305 for an unknown name, a name that two classes share, or an index beyond the labels.
    """
    names = _options(spec).labels
    found = [index for index, name in enumerate(names or ()) if name == text]
    if len(found) == 1:
        return found[0]
    if found:
        raise EdgewrightError("E305", f"label {text!r} names classes {found}", hint="use a column class_index")
    if text.isascii() and text.isdecimal() and (names is None or int(text) < len(names)):
        return int(text)
    if names is None:
        raise EdgewrightError("E305", f"label {text!r} is no class index, and the spec names no classes",
                              hint="name the classes in the spec: options.labels")  # fmt: skip
    raise EdgewrightError("E305", f"label {text!r} is not among the {len(names)} classes of the spec")


def draw(image: Image.Image, result: Classification, spec: Spec) -> Image.Image:
    """The photo with a caption below it, one line for each of the best classes."""
    from PIL import Image, ImageDraw, ImageFont

    size = max(12, round(image.width / 24))
    font = ImageFont.load_default(size)
    lines = [f"{guess.score:.3g}  {guess.label}" for guess in result.top[: _options(spec).top]] or [str(result)]
    line_height = round(size * 1.4)
    height = line_height * len(lines) + size
    canvas = Image.new("RGB", (image.width, image.height + height), (24, 24, 27))
    canvas.paste(image.convert("RGB"))
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        colour = (255, 255, 255) if number == 0 else (190, 190, 200)
        text = _fitted(line, font, image.width - size)
        pen.text((size // 2, image.height + size // 2 + number * line_height), text, colour, font)
    return canvas


#: The last options read: postprocess runs once a sample and must not parse a thousand labels each time.
_read: list[tuple[Mapping[str, Any], Options]] = []


def _options(spec: Spec) -> Options:
    if not _read or _read[0][0] is not spec.options:
        _read[:] = [(spec.options, build(Options, spec.options, where="classify"))]
    return _read[0][1]


def _output_name(options: Options, names: Sequence[str]) -> str:
    if options.output is not None and options.output not in names:
        raise EdgewrightError(
            "E303", f"the spec's option `output` is `{options.output}`, but outputs are {_listed(names)}"
        )
    if options.output is None and len(names) != 1:
        raise EdgewrightError("E303", f"task `classify` needs the option `output`: the network gives {_listed(names)}")
    return options.output or names[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _label(options: Options, index: int) -> str:
    return options.labels[index] if options.labels and index < len(options.labels) else str(index)


def _best(row: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` highest values, best first, ties by lowest index."""
    order: np.ndarray = np.argsort(-row, kind="stable")[:count]
    return order


def _wants_softmax(options: Options, row: np.ndarray) -> bool:
    if options.softmax != "auto":
        return options.softmax == "yes"
    return bool(row.min() < 0 or row.max() > 1 + _SUM_TOLERANCE or abs(row.sum() - 1) > _SUM_TOLERANCE)


def _probabilities(row: np.ndarray) -> np.ndarray:
    highest = float(row.max())
    if np.isneginf(highest):
        return np.full_like(row, 1 / row.size)
    raised = np.exp(row - highest)
    scores: np.ndarray = raised / raised.sum()
    return scores


def _fitted(text: str, font: Any, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while len(text) > 1 and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
