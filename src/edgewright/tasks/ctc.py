"""Text read along a line: scores for each step, best class of each, repeats merged, blanks dropped (greedy CTC).

The network gives one score for each step and class, f32[T, C], f32[1, T, C] or f32[T, 1, C] (`layout` turns the last two
axes), logits or probabilities alike. Equal scores go to the lowest class. Scores that hold NaN or +inf have no text:
such a result agrees with nothing, another one included.

Source: Graves et al. 2006, "Connectionist Temporal Classification", section 3.2 (best path decoding).
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
AGREEMENT = "same text"
PROPORTION = True
METRIC = "exact text"

#: How far a step's probabilities may be from a sum of 1, fp16 and int8 outputs included.
_SUM_TOLERANCE = 0.02
_SHOWN = 8


@dataclass(frozen=True)
class Options:
    """What the scores mean.

    Attributes:
        labels: Text of each class in order, the blank's own (whatever it says) included or left out. Without labels a
            text is the class indices, parted by spaces.
        blank: Class that means nothing; -1 is the last one.
        merge_repeats: Whether the same class in neighbouring steps is one character, as CTC has it.
        layout: Which of the last two axes is time.
        output: Name of the output with the scores, where there are several.
    """

    labels: tuple[str, ...] | None = None
    blank: int = 0
    merge_repeats: bool = True
    layout: Literal["time_classes", "classes_time"] = "time_classes"
    output: str | None = None


@dataclass(frozen=True)
class Reading(Record):
    """What a network reads in one sample.

    Attributes:
        text: The characters.
        indices: Their classes; None where the scores hold NaN or +inf, so that there is no text.
        score: Mean probability of the characters, 1 where there are none; NaN without text.
    """

    text: str
    indices: tuple[int, ...] | None
    score: float

    def __str__(self) -> str:
        if self.indices is None:
            return "no text: scores hold NaN or infinity"
        return f"{self.text!r} {self.score:.3g}"


def classes(spec: Spec, outputs: Sequence[TensorInfo]) -> None:
    """None: labels are texts, not classes. Blank and labels are checked against the number of classes, where known.

    Raises:
        EdgewrightError: E303 where they do not fit, or the output has no steps of scores.
    """
    options = _options(spec)
    if not outputs:
        return
    name = _output_name(options, [info.name for info in outputs])
    info = next(info for info in outputs if info.name == name)
    if len(info.shape) not in (2, 3):
        raise EdgewrightError("E303", f"task `ctc` needs scores [1, steps, classes], but the network gives {info}")
    count = info.shape[-1 if options.layout == "time_classes" else -2]
    if isinstance(count, int):
        _check_count(options, name, count)


def postprocess(outputs: Arrays, spec: Spec) -> Reading:
    """The text of one sample.

    Raises:
        EdgewrightError: E303 when the outputs are no steps of scores, or blank or labels do not fit the classes.
    """
    options = _options(spec)
    name = _output_name(options, list(outputs))
    scores = _steps(name, np.asarray(outputs[name]), options)
    blank = _check_count(options, name, scores.shape[1])
    if np.isnan(scores).any() or np.isposinf(scores).any():
        return Reading("", None, math.nan)
    best = scores.argmax(axis=1)
    kept = best != blank
    if options.merge_repeats:
        kept[1:] &= best[1:] != best[:-1]
    indices = tuple(int(index) for index in best[kept])
    probabilities = _probabilities(scores[kept])
    return Reading(
        _text(options, indices, blank, scores.shape[1]), indices, float(probabilities.mean()) if indices else 1.0
    )


def metric(results: Sequence[Reading], labels: Sequence[str], spec: Spec) -> dict[str, float]:
    """Share of samples read without any error ("exact text"), and 1 - edits / characters ("characters"), at least 0.

    Source: character error rate as usual, Levenshtein 1966 over Unicode code points, summed over all samples.
    """
    if not results:
        return {METRIC: math.nan, "characters": math.nan}
    pairs = list(zip(results, labels, strict=True))
    exact = sum(result.indices is not None and result.text == label for result, label in pairs)
    edits = sum(edit_distance(result.text, label) for result, label in pairs)
    length = sum(len(label) for label in labels)
    return {METRIC: exact / len(pairs), "characters": max(0.0, 1 - edits / max(length, 1))}


def agreement(reference: Sequence[Reading], results: Sequence[Reading], spec: Spec) -> float:
    """Share of samples with the same text, nan for none; what has no text never agrees."""
    if not reference:
        return math.nan
    pairs = zip(reference, results, strict=True)
    same = sum(a.indices is not None and b.indices is not None and a.text == b.text for a, b in pairs)
    return same / len(reference)


def parse_label(text: str, spec: Spec) -> str:
    """The text itself, where the network could say it.

    Raises:
        EdgewrightError: E305 for a character that no class means; without labels, for what is no list of class indices.
    """
    options = _options(spec)
    if options.labels is None:
        parts = text.split()
        if not all(part.isascii() and part.isdecimal() for part in parts):
            raise EdgewrightError(
                "E305",
                f"label {text!r} is no list of class indices, and the spec names no characters",
                hint="give the characters in the spec: options.labels_file",
            )
        return " ".join(str(int(part)) for part in parts)
    known = _characters(options.labels)
    unknown = sorted(set(text) - known)
    if unknown:
        shown = ", ".join(repr(letter) for letter in unknown[:_SHOWN])
        raise EdgewrightError("E305", f"label {text!r} has characters that no class of the spec means: {shown}")
    return text


def draw(image: Image.Image, result: Reading, spec: Spec) -> Image.Image:
    """The photo with the text below it, as far as Pillow's own font has its characters."""
    from PIL import Image, ImageDraw, ImageFont

    size = max(12, round(image.height / 4), round(image.width / 24))
    size = min(size, max(12, image.width // 8))
    font = ImageFont.load_default(size)
    canvas = Image.new("RGB", (image.width, image.height + 2 * size), (24, 24, 27))
    canvas.paste(image.convert("RGB"))
    pen = ImageDraw.Draw(canvas)
    line = str(result) if result.indices is None else result.text
    pen.text((size // 2, image.height + size // 2), line.replace("\n", " "), (255, 255, 255), font)
    return canvas


def edit_distance(one: str, other: str) -> int:
    """Fewest insertions, deletions and substitutions that turn one text into the other.

    Source: Wagner and Fischer 1974.
    """
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, against in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (letter != against))
    return row[-1]


#: The last options read: postprocess runs once a sample and must not parse thousands of labels each time.
_read: list[tuple[Mapping[str, Any], Options]] = []
_known: list[tuple[tuple[str, ...], frozenset[str]]] = []


def _options(spec: Spec) -> Options:
    if not _read or _read[0][0] is not spec.options:
        _read[:] = [(spec.options, build(Options, spec.options, where="ctc"))]
    return _read[0][1]


def _characters(labels: tuple[str, ...]) -> frozenset[str]:
    if not _known or _known[0][0] is not labels:
        _known[:] = [(labels, frozenset().union(*labels))]
    return _known[0][1]


def _output_name(options: Options, names: Sequence[str]) -> str:
    listed = ", ".join(f"`{name}`" for name in names) or "none"
    if options.output is not None and options.output not in names:
        raise EdgewrightError("E303", f"the spec's option `output` is `{options.output}`, but outputs are {listed}")
    if options.output is None and len(names) != 1:
        raise EdgewrightError("E303", f"task `ctc` needs the option `output`: the network gives {listed}")
    return options.output or names[0]


def _steps(name: str, array: np.ndarray, options: Options) -> np.ndarray:
    """f64[T, C] of one sample."""
    plane = array
    if array.ndim == 3 and 1 in array.shape[:2]:
        turned = options.layout == "classes_time"  # there, only the first axis can be the batch
        plane = array[0] if array.shape[0] == 1 or turned else array[:, 0]
    if plane.ndim != 2 or array.size == 0 or plane.size != array.size or array.dtype.kind not in "fiu":
        raise EdgewrightError(
            "E303", f"output `{name}` is {array.dtype}{list(array.shape)}, but must be scores [1, steps, classes]"
        )
    return np.asarray(plane.T if options.layout == "classes_time" else plane, np.float64)


def _check_count(options: Options, name: str, count: int) -> int:
    """The blank's index, 0-based.

    Raises:
        EdgewrightError: E303 where blank or labels do not fit `count` classes.
    """
    if not -count <= options.blank < count:
        raise EdgewrightError(
            "E303", f"the spec's option `blank` is {options.blank}, but output `{name}` has {count} classes"
        )
    if options.labels is not None and len(options.labels) not in (count, count - 1):
        raise EdgewrightError(
            "E303",
            f"the spec has {len(options.labels)} labels, but output `{name}` has {count} classes: it takes {count}, or "
            f"{count - 1} without the blank",
        )
    return options.blank % count


def _text(options: Options, indices: tuple[int, ...], blank: int, count: int) -> str:
    if options.labels is None:
        return " ".join(map(str, indices))
    without = len(options.labels) < count
    return "".join(options.labels[index - 1 if without and index > blank else index] for index in indices)


def _probabilities(scores: np.ndarray) -> np.ndarray:
    """Probability of the best class of each step, f64[T]; softmax where the scores are no probabilities yet."""
    if not scores.size:
        return np.ones(0)
    highest = scores.max(axis=1, keepdims=True)
    sums = scores.sum(axis=1)
    if scores.min() >= 0 and highest.max() <= 1 + _SUM_TOLERANCE and np.abs(sums - 1).max() <= _SUM_TOLERANCE:
        return np.asarray(highest[:, 0])
    with np.errstate(invalid="ignore"):  # a step of nothing but -inf
        share = 1 / np.exp(scores - highest).sum(axis=1)
    return np.asarray(np.nan_to_num(share, nan=1 / scores.shape[1]))
