"""Bare arrays: the task of a network whose outputs have no stated meaning.

Two sets of outputs agree where every output is as near to the original's as `min_sqnr_db` asks. There is no metric, so
labels are of no use here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.metrics import sqnr_db
from edgewright.model import Arrays, TensorInfo
from edgewright.options import build
from edgewright.spec import Spec

if TYPE_CHECKING:
    from PIL import Image

EXTRA: str | None = None
AGREEMENT = "every output within the SQNR limit of the original's"
PROPORTION = True
METRIC = ""  # none

_SHOWN_VALUES = 1000  # larger arrays are described in JSON, not listed
_HINT = "edgewright spec init MODEL --out spec.toml"


@dataclass(frozen=True)
class Options:
    """When arrays agree.

    Attributes:
        min_sqnr_db: Smallest signal to noise ratio of each output, in dB.
    """

    min_sqnr_db: float = 30.0

    def __post_init__(self) -> None:
        if math.isnan(self.min_sqnr_db):
            raise EdgewrightError("E103", "option `min_sqnr_db` is nan, but must be a number of dB")


@dataclass(frozen=True, eq=False)
class Tensors:
    """The outputs themselves, by ONNX name."""

    arrays: Mapping[str, np.ndarray]

    def to_json(self) -> dict[str, Any]:
        """Shape and dtype of each output, and its values where there are at most a thousand."""
        return {name: _described(array) for name, array in self.arrays.items()}

    def __str__(self) -> str:
        return ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in self.arrays.items())


def classes(spec: Spec, outputs: Sequence[TensorInfo]) -> None:
    """None: labels are not classes."""


def postprocess(outputs: Arrays, spec: Spec) -> Tensors:
    """The outputs as they are."""
    return Tensors(dict(outputs))


def metric(results: Sequence[Tensors], labels: Sequence[Any], spec: Spec) -> dict[str, float]:
    """Nothing where there are no labels.

    Raises:
        EdgewrightError: E305 for labels: arrays without a meaning have no metric.
    """
    if any(label is not None for label in labels):
        _refuse_labels()
    return {}


def agreement(reference: Sequence[Tensors], results: Sequence[Tensors], spec: Spec) -> float:
    """Share of samples whose every output is within `min_sqnr_db` of the original's, nan for none."""
    if not reference:
        return math.nan
    limit = build(Options, spec.options, where="tensor").min_sqnr_db
    return sum(_agree(a.arrays, b.arrays, limit) for a, b in zip(reference, results, strict=True)) / len(reference)


def parse_label(text: str, spec: Spec) -> Any:
    """Never returns.

    Raises:
        EdgewrightError: E305, always: this task has no labels.
    """
    _refuse_labels()


def draw(image: Image.Image, result: Tensors, spec: Spec) -> Image.Image:
    """Never returns.

    Raises:
        EdgewrightError: E303, always: nothing says how these outputs would look on a photo.
    """
    raise EdgewrightError(
        "E303", "task `tensor` cannot be drawn: the spec does not say what the outputs mean", hint=_HINT
    )


def _refuse_labels() -> NoReturn:
    raise EdgewrightError("E305", "task `tensor` has no metric, so labels cannot be used", hint=_HINT)


def _agree(reference: Arrays, other: Arrays, limit: float) -> bool:
    return reference.keys() == other.keys() and all(
        _near(array, other[name], limit) for name, array in reference.items()
    )


def _near(reference: np.ndarray, other: np.ndarray, limit: float) -> bool:
    """Whether SQNR over the finite part reaches the limit; infinities and NaN of the original must be there too."""
    if reference.shape != other.shape:
        return False
    if reference.dtype.kind not in "fiub" or other.dtype.kind not in "fiub":
        return bool(np.array_equal(reference, other))
    x, y = reference.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(x)
    if not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return False
    return sqnr_db(x[finite], y[finite]) >= limit


def _described(array: np.ndarray) -> dict[str, Any]:
    described: dict[str, Any] = {"dtype": array.dtype.name, "shape": list(array.shape)}
    if array.size <= _SHOWN_VALUES:
        values = array.astype(np.float64) if array.dtype.kind == "f" else array
        described["values"] = [
            value if not isinstance(value, float) or math.isfinite(value) else str(value)
            for value in values.reshape(-1).tolist()
        ]
    return described
