"""Patterns: what turns the expected values into those that came, without knowing the layer.

Each pattern is tried on the numbers and says how much of the error it leaves. A pattern that fits fewer numbers is the
likelier one; one that fits nearly as many numbers as there are values says nothing and is not tried.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgewright.metrics import rel_l2

#: A pattern needs at least so many values for each number it fits.
_VALUES_PER_FIT = 4
#: Up to so many channels are named one by one.
_FEW = 3
_MOST_CHANNELS = 4096
#: A channel this much smaller than the mean counts as if it were that large: its rounding is its neighbours'.
_DEAD_CHANNEL = 1e-3
FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class Hypothesis:
    """One possible cause.

    Attributes:
        text: In words.
        residual: rel-L2 between what it predicts and what came.
        fitted: Numbers that were fitted to the data; 0 for an alternative tried as it is.
    """

    text: str
    residual: float
    fitted: int = 0


def _tanh_gelu(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))  # does not overflow


def erf(x: np.ndarray) -> np.ndarray:
    """The error function to 1.5e-7, far below any limit here, on millions of values.

    Source: Abramowitz and Stegun 1964, formula 7.1.26.
    """
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.asarray(np.sign(x) * (1 - series * np.exp(-x * x)))


#: Activations that are confused with each other, by the name that people use. Source: the ONNX operator of that name.
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "swish": lambda x: x * _sigmoid(x),
    "hard-swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "sigmoid": _sigmoid,
    "hard-sigmoid (slope 1/6)": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard-sigmoid (slope 0.2)": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "tanh": np.tanh,
    "leaky relu 0.01": lambda x: np.where(x < 0, 0.01 * x, x),
    "leaky relu 0.1": lambda x: np.where(x < 0, 0.1 * x, x),
    "leaky relu 0.2": lambda x: np.where(x < 0, 0.2 * x, x),
    "elu": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
    "gelu (erf)": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "gelu (tanh)": _tanh_gelu,
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "softplus": lambda x: np.logaddexp(0, x),
}


def patterns(expected: np.ndarray, got: np.ndarray, tolerance: float) -> Iterator[Hypothesis]:
    """Every pattern that can be tried on two arrays of numbers, both finite; `tolerance` (rel-L2) is rounding."""
    e, g = np.asarray(expected, np.float64), np.asarray(got, np.float64)
    yield from layouts(e, g)
    if e.shape != g.shape:
        return
    yield from _uniform(e, g)
    for axis in dict.fromkeys((1, e.ndim - 1) if e.ndim > 1 else ()):
        yield from _by_channel(e, g, axis, tolerance)
        yield from _permuted(e, g, axis, tolerance)
    yield from _saturated(e, g)


def before_activation(expected: np.ndarray, got: np.ndarray, label: str, tolerance: float) -> Iterator[Hypothesis]:
    """The same for each channel, of values before an activation; `got` is what it must have been."""
    if expected.shape == got.shape and expected.ndim > 1:
        for found in _by_channel(np.asarray(expected, np.float64), np.asarray(got, np.float64), 1, tolerance):
            yield replace(found, text=f"before the activation `{label}` {found.text}")


def added_activations(expected: np.ndarray, got: np.ndarray) -> Iterator[Hypothesis]:
    """An activation after a layer that has none."""
    e = np.asarray(expected, np.float64)
    if expected.shape == got.shape:
        for name, function in ACTIVATIONS.items():
            with np.errstate(all="ignore"):
                value = function(e)
            yield Hypothesis(f"an activation that the original has not is applied: {name}", rel_l2(got, value))


def without_bias(
    expected: np.ndarray, got: np.ndarray, bias: np.ndarray, axis: int, label: str, tolerance: float
) -> Iterator[Hypothesis]:
    """What was done to the weights alone: patterns of the values before a right bias along `axis` was added."""
    if expected.shape != got.shape or bias.size not in (1, expected.shape[axis]):
        return
    shape = [1] * expected.ndim
    shape[axis] = bias.size
    shift = np.asarray(bias, np.float64).reshape(shape)
    e, g = np.asarray(expected, np.float64) - shift, np.asarray(got, np.float64) - shift
    if np.any(e):
        factor = float(np.vdot(e, g) / np.vdot(e, e))
        text = f"the weights of `{label}` are {factor:.4g} x the original's, the bias is right"
        yield Hypothesis(text, rel_l2(got, factor * e + shift), 1)
    for found in _permuted(e, g, axis, tolerance):
        yield replace(found, text=f"in the weights of `{label}` {found.text}, the bias is right")


def rounded_to(array: np.ndarray) -> str | None:
    """ "bfloat16" or "float16" where every value is a number of that type; None where some are not."""
    if array.dtype != np.float32 or array.size < _VALUES_PER_FIT or not np.any(array):
        return None
    if not np.any(array.view(np.uint32) & 0xFFFF):
        return "bfloat16"
    with np.errstate(over="ignore"):
        return "float16" if np.array_equal(array.astype(np.float16).astype(np.float32), array) else None


def slopes(expected: np.ndarray, got: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(factor, offset) of each channel along `axis`, by least squares; None where channels have too few values."""
    e, g = _rows(expected, axis), _rows(got, axis)
    if e.shape[1] < _VALUES_PER_FIT:
        return None
    mean_e, mean_g = e.mean(1, keepdims=True), g.mean(1, keepdims=True)
    spread = np.sum((e - mean_e) ** 2, axis=1)
    shared = np.sum((e - mean_e) * (g - mean_g), axis=1)
    factor = np.divide(shared, spread, out=np.ones_like(shared), where=spread > 0)
    return factor, mean_g[:, 0] - factor * mean_e[:, 0]


def wrong_channels(expected: np.ndarray, got: np.ndarray, tolerance: float) -> np.ndarray:
    """Indices along axis 1 of the channels that are off by more than `tolerance` of their own size."""
    e, g = _rows(expected, 1), _rows(got, 1)
    size = np.linalg.norm(e, axis=1)
    wrong: np.ndarray = np.flatnonzero(
        np.linalg.norm(g - e, axis=1) > tolerance * np.maximum(size, size.mean() * _DEAD_CHANNEL)
    )
    return wrong


def layouts(e: np.ndarray, g: np.ndarray) -> Iterator[Hypothesis]:
    """Axes in another order, memory read in another layout, mirrored axes."""
    if not 2 <= e.ndim <= 5 or e.size != g.size:
        return
    letters = {4: "NCHW", 3: "NCL", 2: "NC", 5: "NCDHW"}[e.ndim]
    for order in itertools.permutations(range(1, e.ndim)):
        axes = (0, *order)
        if axes == tuple(range(e.ndim)):
            continue
        turned = e.transpose(axes)
        name = "".join(letters[axis] for axis in axes)
        if turned.shape == g.shape:
            special = "height and width are swapped" if name == "NCWH" else "the axes are transposed"
            yield Hypothesis(f"{special} ({name} instead of {letters})", rel_l2(g, turned))
        else:
            text = f"the values lie in the order {name}, but are read as {letters}"
            yield Hypothesis(text, rel_l2(g, turned.reshape(g.shape)))
    if e.shape == g.shape:
        for axis in range(2, e.ndim):
            yield Hypothesis(f"axis {letters[axis]} is mirrored", rel_l2(g, np.flip(e, axis)))


def _uniform(e: np.ndarray, g: np.ndarray) -> Iterator[Hypothesis]:
    if not np.any(g):
        yield Hypothesis("the output is all zero", 0.0)
        return
    if e.size < _VALUES_PER_FIT:
        return
    factor = float(np.vdot(e, g) / np.vdot(e, e)) if np.any(e) else 1.0
    yield Hypothesis(f"the output is {factor:.4g} x the original's", rel_l2(g, factor * e), 1)
    offset = float(np.mean(g - e))
    yield Hypothesis(f"the output is the original's plus {offset:.4g}", rel_l2(g, e + offset), 1)
    spread = float(np.var(e))
    if spread > 0:
        slope = float(np.mean((e - e.mean()) * (g - g.mean())) / spread)
        shift = float(g.mean() - slope * e.mean())
        text = f"the output is {slope:.4g} x the original's plus {shift:.4g}"
        yield Hypothesis(text, rel_l2(g, slope * e + shift), 2)


def _by_channel(e: np.ndarray, g: np.ndarray, axis: int, tolerance: float) -> Iterator[Hypothesis]:
    """A factor, an offset, or both, for each channel."""
    rows_e, rows_g = _rows(e, axis), _rows(g, axis)
    if rows_e.shape[1] < 2 or rows_e.size - rows_e.shape[0] < _VALUES_PER_FIT:
        return  # one number is fitted for each channel
    power = np.sum(rows_e**2, axis=1)
    factors = np.divide(np.sum(rows_e * rows_g, axis=1), power, out=np.ones_like(power), where=power > 0)
    changed = np.flatnonzero(np.abs(factors - 1) > tolerance)
    residual = rel_l2(rows_g, rows_e * factors[:, None])
    yield Hypothesis(_channel_text(changed, factors, "x the original's", "factor"), residual, max(1, changed.size))
    offsets = (rows_g - rows_e).mean(1)
    changed = np.flatnonzero(np.abs(offsets) > tolerance * np.abs(rows_e).max(initial=1e-30))
    residual = rel_l2(rows_g, rows_e + offsets[:, None])
    yield Hypothesis(
        _channel_text(changed, offsets, "more than the original's", "offset"), residual, max(1, changed.size)
    )
    both = slopes(e, g, axis)
    if both is not None:
        residual = rel_l2(rows_g, rows_e * both[0][:, None] + both[1][:, None])
        text = "each channel has its own factor and offset, as from other batch-norm statistics"
        yield Hypothesis(text, residual, 2 * rows_e.shape[0])


def _channel_text(changed: np.ndarray, values: np.ndarray, relation: str, noun: str) -> str:
    if 0 < changed.size <= _FEW:
        return ", ".join(f"channel {i} is {values[i]:.4g} {relation}" for i in changed)
    return f"each channel has its own {noun}, {values.min():.4g} to {values.max():.4g}"


def _permuted(e: np.ndarray, g: np.ndarray, axis: int, tolerance: float) -> Iterator[Hypothesis]:
    """Channels in another order: each row of `g` is looked up among the rows of `e` that do not fit either."""
    rows_e, rows_g = _rows(e, axis), _rows(g, axis)
    size = np.linalg.norm(rows_e, axis=1)
    distance = np.linalg.norm(rows_g - rows_e, axis=1)
    wrong = np.flatnonzero(distance > tolerance * np.maximum(size, size.mean() * _DEAD_CHANNEL))
    if not 2 <= wrong.size <= _MOST_CHANNELS or (rows_e.shape[1] == 1 and wrong.size > 32):
        return
    order = np.arange(rows_e.shape[0])
    order[wrong] = wrong[_nearest(rows_g[wrong], rows_e[wrong])]
    if len(set(order.tolist())) != order.size or np.array_equal(order, np.arange(order.size)):
        return
    yield Hypothesis(permutation_text(order), rel_l2(rows_g, rows_e[order]))


def permutation_text(order: Sequence[int] | np.ndarray) -> str:
    """Words for "channel i holds what belongs to order[i]"."""
    order = np.asarray(order)
    moved = np.flatnonzero(order != np.arange(order.size))
    if moved.size == 2:
        return f"channels {moved[0]} and {moved[1]} are swapped"
    if np.array_equal(order, np.arange(order.size)[::-1]):
        return "the channels are in reverse order" + (", as RGB for BGR" if order.size == 3 else "")
    for groups in range(2, order.size):
        if order.size % groups == 0 and np.array_equal(order, np.arange(order.size).reshape(groups, -1).T.reshape(-1)):
            return f"the channels are interleaved, as by a shuffle of {groups} groups"
    return f"{moved.size} channels are permuted; channel {moved[0]} holds what belongs to {order[moved[0]]}"


def _nearest(wanted: np.ndarray, among: np.ndarray) -> np.ndarray:
    distance = np.sum(wanted**2, axis=1)[:, None] + np.sum(among**2, axis=1)[None] - 2 * wanted @ among.T
    nearest: np.ndarray = np.argmin(distance, axis=1)
    return nearest


def _saturated(e: np.ndarray, g: np.ndarray) -> Iterator[Hypothesis]:
    """Values pinned at the largest or smallest that occurs."""
    low, high = float(g.min()), float(g.max())
    above, below = e > high, e < low
    texts = [
        f"{float(mask.mean()):.2%} of the values, those {side} {limit:.6g}, are cut off there"
        for mask, limit, side in ((above, high, "above"), (below, low, "below"))
        if mask.any()
    ]
    if texts:
        yield Hypothesis("; ".join(texts), rel_l2(g, np.clip(e, low, high)), len(texts))


def _rows(array: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(np.asarray(array, np.float64), axis, 0).reshape(array.shape[axis], -1)
