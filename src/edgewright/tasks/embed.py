"""A vector that stands for its sample (a voice, a face): alike vectors mean the same source.

The network gives one vector, f32[1, D], f32[D] or f32[1, D, 1, 1]; only its direction counts. A vector that holds NaN or
infinity agrees with nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.metrics import equal_error_rate
from edgewright.model import Arrays, TensorInfo
from edgewright.options import build
from edgewright.spec import Spec

if TYPE_CHECKING:
    from PIL import Image

EXTRA: str | None = None
AGREEMENT = "mean cosine with the original's vector"
PROPORTION = False
METRIC = "1 - EER"

_SHOWN_VALUES = 1000


@dataclass(frozen=True)
class Options:
    """Where the vector is.

    Attributes:
        output: Name of the output with the vector, where there are several.
    """

    output: str | None = None


@dataclass(frozen=True, eq=False)
class Embedding:
    """The vector of one sample, f64[D], of length 1; all zeros where the network's is, or where it is not finite."""

    vector: np.ndarray
    finite: bool = True

    def to_json(self) -> dict[str, Any]:
        """The vector as a list, its first thousand values where it is longer."""
        return {"size": self.vector.size, "vector": self.vector[:_SHOWN_VALUES].tolist(), "finite": self.finite}

    def __str__(self) -> str:
        if not self.finite:
            return "no vector: it holds NaN or infinity"
        return f"a vector of {self.vector.size} values"


def classes(spec: Spec, outputs: Sequence[TensorInfo]) -> None:
    """None: labels are identities, not classes.

    Raises:
        EdgewrightError: E303 where the output is no vector.
    """
    options = _options(spec)
    if not outputs:
        return
    name = _output_name(options, [info.name for info in outputs])
    info = next(info for info in outputs if info.name == name)
    if not info.shape or any(isinstance(side, int) and side != 1 for side in info.shape[2:]):
        raise EdgewrightError("E303", f"task `embed` needs a vector [1, size], but the network gives {info}")


def postprocess(outputs: Arrays, spec: Spec) -> Embedding:
    """The vector of one sample, scaled to length 1.

    Raises:
        EdgewrightError: E303 when the output is no single vector.
    """
    name = _output_name(_options(spec), list(outputs))
    array = np.asarray(outputs[name])
    if not 0 < array.size == max(array.shape, default=0) or array.dtype.kind not in "fiu":
        raise EdgewrightError(
            "E303", f"output `{name}` is {array.dtype}{list(array.shape)}, but must be one vector [1, size]"
        )
    vector = array.reshape(-1).astype(np.float64)
    if not np.isfinite(vector).all():
        return Embedding(np.zeros_like(vector), finite=False)
    scale = float(np.abs(vector).max())
    if scale:  # first by the largest value: squares of huge or tiny numbers leave the range of floats
        vector = vector / scale
        vector = vector / np.linalg.norm(vector)
    return Embedding(vector)


def metric(results: Sequence[Embedding], labels: Sequence[str], spec: Spec) -> dict[str, float]:
    """1 - equal error rate over all pairs of samples; nan where there is no pair of one source, or none of two.

    A sample that is given twice (resampling does that) makes no pair with itself.
    """
    if len(results) < 2:
        return {METRIC: math.nan}
    vectors = np.stack([result.vector for result in results])
    _, identities = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    numbers = {id(result): number for number, result in enumerate(results)}
    own = np.array([numbers[id(result)] for result in results])
    first, second = np.triu_indices(len(results), 1)
    proper = own[first] != own[second]
    first, second = first[proper], second[proper]
    scores = (vectors @ vectors.T)[first, second]
    same = identities[first] == identities[second]
    return {METRIC: 1 - equal_error_rate(scores[same], scores[~same])}


def agreement(reference: Sequence[Embedding], results: Sequence[Embedding], spec: Spec) -> float:
    """Mean cosine between each vector and the original's, below 0 counted as 0, nan for no samples."""
    if not reference:
        return math.nan
    return float(np.mean([_cosine(a, b) for a, b in zip(reference, results, strict=True)]))


def parse_label(text: str, spec: Spec) -> str:
    """The identity: any text, compared letter by letter.

    Raises:
        EdgewrightError: E305 for an empty one.
    """
    if not text.strip():
        raise EdgewrightError("E305", "a label is empty, but must name whose vector it is")
    return text


def draw(image: Image.Image, result: Embedding, spec: Spec) -> Image.Image:
    """Never returns.

    Raises:
        EdgewrightError: E303, always: a vector says nothing by itself, only beside another one.
    """
    raise EdgewrightError("E303", "task `embed` cannot be drawn: a vector means something only beside another one")


def _cosine(reference: Embedding, other: Embedding) -> float:
    if not (reference.finite and other.finite) or reference.vector.shape != other.vector.shape:
        return 0.0
    if not (reference.vector.any() and other.vector.any()):
        return float(reference.vector.any() == other.vector.any())
    apart = float(np.sum((reference.vector - other.vector) ** 2))  # of unit vectors: exactly 0 where they are equal
    return max(0.0, 1 - apart / 2)


#: The last options read: postprocess runs once a sample.
_read: list[tuple[Mapping[str, Any], Options]] = []


def _options(spec: Spec) -> Options:
    if not _read or _read[0][0] is not spec.options:
        _read[:] = [(spec.options, build(Options, spec.options, where="embed"))]
    return _read[0][1]


def _output_name(options: Options, names: Sequence[str]) -> str:
    listed = ", ".join(f"`{name}`" for name in names) or "none"
    if options.output is not None and options.output not in names:
        raise EdgewrightError("E303", f"the spec's option `output` is `{options.output}`, but outputs are {listed}")
    if options.output is None and len(names) != 1:
        raise EdgewrightError("E303", f"task `embed` needs the option `output`: the network gives {listed}")
    return options.output or names[0]
