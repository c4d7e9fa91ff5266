"""Every step of a network gives what its definition in numpy says, on every variant of the kernels, whatever the sizes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import TOLERANCE

from edgewright import kernels
from edgewright.ops import packing
from edgewright.runtimes.native.defined import Defined
from edgewright.runtimes.native.plan import KERNELS, made_places

VARIANTS = [name for name in kernels.variants() if name != kernels.NUMPY]
pytestmark = pytest.mark.skipif(not VARIANTS, reason="needs the C++ kernels: built without a compiler")

#: Sizes around the widths of registers and tiles.
WIDTHS = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65])
ATOL = TOLERANCE["float32"]["atol"] * 10
MANY = settings(max_examples=60, deadline=None)
Draw = st.DrawFn


class Case:
    """A step between a feed and a take for each tensor."""

    def __init__(
        self, kernel: str, sizes: list[int], seed: int, limits: tuple[float, float] = (-math.inf, math.inf)
    ) -> None:
        self.kernel, self.sizes, self.numbers = kernel, sizes, list(limits) if KERNELS[kernel].numbers else []
        self.rng = np.random.default_rng(seed)
        self.reads: list[np.ndarray | None] = []
        self.writes: list[tuple[int, Any] | None] = []
        self.constants: list[np.ndarray | None] = []

    def floats(self, count: int) -> np.ndarray:
        return self.rng.standard_normal(count).astype(np.float32)

    def signs(self, pixels: int, channels: int) -> np.ndarray:
        return packing.pack_bits(self.rng.integers(0, 2, (pixels, channels)).astype(bool))

    def run(self, make: Any, pool: Any) -> list[np.ndarray]:
        """What the step writes."""
        arrays = [(a, a.nbytes) if a is not None else None for a in self.reads]
        outs = [
            (count * np.dtype(kind).itemsize, kind) if (count, kind) else None
            for count, kind in filter(None, self.writes)
        ]
        place, spans = 0, []
        for size in [*(row[1] if row else None for row in arrays), *(size for size, _ in outs)]:
            spans.append((-1, 0) if size is None else (place, size))
            place += -(-(size or 0) // 64) * 64
        network = make(place)
        fed = [(a, span) for a, span in zip(self.reads, spans, strict=False) if a is not None]
        for index, (array, span) in enumerate(fed):
            network.add("feed", [index, 1, 1, 1, array.nbytes], [], [], [span], [])
        writes, left = [], iter(spans[len(self.reads) :])
        for row in self.writes:
            writes.append((-1, 0) if row is None else next(left))
        weights = [None if c is None else np.ascontiguousarray(c).reshape(-1).view(np.uint8) for c in self.constants]
        network.add(self.kernel, self.sizes, self.numbers, spans[: len(self.reads)], writes, weights)
        taken = [span for span in writes if span[0] >= 0]
        for index, span in enumerate(taken):
            network.add("take", [index, 1, 1, 1, span[1]], [], [span], [], [])
        network.finish()
        results = [np.empty(size, np.uint8) for size, _ in outs]
        network.run([array.reshape(-1).view(np.uint8) for array, _ in fed], results, None, pool)
        return [result.view(kind) for result, (_, kind) in zip(results, outs, strict=True)]

    def check(self, *, exact: bool = False, most: float = ATOL) -> None:
        """All variants, on one thread and on three; floats differ by `most`, or relatively as float32 may."""
        wanted = self.run(Defined, None)
        for variant in VARIANTS:
            for threads in (1, 3):
                network = kernels.native().Network  # type: ignore[union-attr]
                got = self.run(lambda size, n=network, v=variant, t=threads: n(size, v, t), kernels.pool(threads))
                for one, other in zip(wanted, got, strict=True):
                    if exact or one.dtype == np.uint8:
                        np.testing.assert_array_equal(other, one, err_msg=f"{variant}, {threads} threads")
                    else:
                        np.testing.assert_allclose(other, one, TOLERANCE["float32"]["rtol"], most, err_msg=variant)


@st.composite
def windows(draw: Draw, *, own: bool = False, binary: bool = False) -> dict[str, int]:
    """Sizes of a layer whose window fits into its padded input; `own`: as many filters and groups as channels."""
    groups = 1 if own else draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels = groups * draw(WIDTHS)
    filters = channels if own else groups * draw(WIDTHS)
    kernel, dilations = [draw(st.integers(1, 4)) for _ in range(2)], [draw(st.integers(1, 2)) for _ in range(2)]
    pads = [draw(st.integers(0, 2)) for _ in range(4)]
    least = [max(1, dilations[i] * (kernel[i] - 1) + 1 - pads[i] - pads[2 + i]) for i in range(2)]
    places = [draw(st.integers(low, low + 8)) for low in least]
    strides = [draw(st.integers(1, 3)) for _ in range(2)]
    values = [draw(st.integers(1, 2)), *places, channels, filters, *kernel, *strides, *dilations, *pads, groups]
    return dict(zip(KERNELS["conv"].sizes, values, strict=True))


@st.composite
def stems(draw: Draw) -> dict[str, int]:
    """Sizes of a layer of few channels and a large window."""
    kernel, strides = [draw(st.integers(5, 8)) for _ in range(2)], [draw(st.integers(1, 2)) for _ in range(2)]
    pads = [draw(st.integers(0, 4)) for _ in range(4)]
    places = [draw(st.integers(12, 40)), draw(st.sampled_from([9, 30, 31, 32, 64, 131, 310]))]
    channels, filters = draw(st.integers(1, 16)), draw(WIDTHS)
    values = [draw(st.integers(1, 2)), *places, channels, filters, *kernel, *strides, 1, 1, *pads, 1]
    return dict(zip(KERNELS["conv"].sizes, values, strict=True))


def made(s: Mapping[str, int]) -> int:
    """Output pixels."""
    height = (s["height"] + s["top"] + s["bottom"] - s["dilation_h"] * (s["kernel_h"] - 1) - 1) // s["stride_h"] + 1
    width = (s["width"] + s["left"] + s["right"] - s["dilation_w"] * (s["kernel_w"] - 1) - 1) // s["stride_w"] + 1
    return s["batch"] * height * width


SEEDS = st.integers(0, 2**32)
LIMITS = st.sampled_from([(-math.inf, math.inf), (0.0, math.inf), (-1.0, 1.0)])


@given(windows() | stems(), st.booleans(), st.booleans(), st.booleans(), LIMITS, SEEDS)
@MANY
def test_convolutions(
    s: dict[str, int], residual: bool, shift: bool, slope: bool, limits: tuple[float, float], seed: int
) -> None:
    case = Case("conv", [*s.values()], seed, limits)
    pixels, filters = made(s), s["filters"]
    case.reads = [
        case.floats(s["batch"] * s["height"] * s["width"] * s["channels"]),
        case.floats(pixels * filters) if residual else None,
    ]
    case.writes = [(pixels * filters, np.float32)]
    weights = case.floats(filters * s["kernel_h"] * s["kernel_w"] * s["channels"] // s["groups"])
    case.constants = [weights, case.floats(filters) if shift else None, case.floats(filters) if slope else None]
    stem = min(s["kernel_h"], s["kernel_w"]) > 4  # its transforms round in parts of what is summed
    case.check(most=2e-6 * len(weights) / filters if stem else ATOL)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("kernel", "stride", "channels"), [(7, 2, 3), (7, 1, 16), (6, 2, 3), (8, 2, 4)])
def test_what_stems_round_is_little_beside_what_they_sum(variant: str, kernel: int, stride: int, channels: int) -> None:
    """Against sums in float64, in parts of the sum of |w| |x|."""
    worst = 0.0
    for seed in range(3):
        case = Case("conv", [1, 40, 40, channels, 32, kernel, kernel, stride, stride, 1, 1, 0, 0, 0, 0, 1], seed)
        x, weights = case.floats(40 * 40 * channels), case.floats(32 * kernel * kernel * channels)
        outputs = (40 - kernel) // stride + 1
        case.reads, case.writes = [x, None], [(outputs * outputs * 32, np.float32)]
        case.constants = [weights, None, None]
        network = kernels.native().Network  # type: ignore[union-attr]
        (made,) = case.run(lambda place, n=network: n(place, variant, 1), kernels.pool(1))
        views = np.lib.stride_tricks.sliding_window_view(x.reshape(40, 40, channels), (kernel, kernel), (0, 1))
        windows_of = np.moveaxis(views[::stride, ::stride], 2, -1).reshape(outputs * outputs, -1).astype(float)
        filters = weights.reshape(32, -1).astype(float).T
        error = np.abs(made.reshape(-1, 32) - windows_of @ filters) / (np.abs(windows_of) @ np.abs(filters))
        worst = max(worst, float(error.max()))
    assert worst < 2e-6


@given(windows(own=True), st.booleans(), LIMITS, SEEDS)
@MANY
def test_depthwise_convolutions(s: dict[str, int], residual: bool, limits: tuple[float, float], seed: int) -> None:
    s["groups"] = s["channels"]
    case = Case("depthwise", [*s.values()], seed, limits)
    count = made(s) * s["filters"]
    case.reads = [
        case.floats(s["batch"] * s["height"] * s["width"] * s["channels"]),
        case.floats(count) if residual else None,
    ]
    case.writes = [(count, np.float32)]
    taps = s["kernel_h"] * s["kernel_w"]
    case.constants = [case.floats(s["channels"] * taps), case.floats(s["channels"]), None]
    case.check()


@given(windows(own=True), st.integers(0, 2), SEEDS)
@MANY
def test_pools(s: dict[str, int], pooling: int, seed: int) -> None:
    s["groups"] = 1
    case = Case("pool", [*s.values(), pooling], seed)
    case.reads = [case.floats(s["batch"] * s["height"] * s["width"] * s["channels"])]
    case.writes = [(made(s) * s["channels"], np.float32)]
    case.check()


@st.composite
def pooled(draw: Draw) -> tuple[dict[str, int], dict[str, int]]:
    """Sizes of a convolution and of a pool over what it makes."""
    conv = draw(windows() | stems())
    height, width = made_places(conv)
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    pads = [draw(st.integers(0, 5)) for _ in range(4)]
    for axis, size in enumerate((height, width)):  # windows fit, and some lie in the padding alone
        pads[2 + axis] = max(pads[2 + axis], kernel[axis] - size - pads[axis])
    strides = [draw(st.integers(1, 5)) for _ in range(2)]
    values = [conv["batch"], height, width, conv["filters"], conv["filters"], *kernel, *strides, 1, 1, *pads, 1]
    return conv, dict(zip(KERNELS["conv"].sizes, values, strict=True))


@given(pooled(), st.booleans(), st.sampled_from([0.0, math.inf, math.nan]), LIMITS, SEEDS)
@MANY
def test_pooled_convolutions_are_both_steps_bit_for_bit(
    sizes: tuple[dict[str, int], dict[str, int]], slope: bool, odd: float, limits: tuple[float, float], seed: int
) -> None:
    conv, pool = sizes
    names = [name.removeprefix("pool_") for name in KERNELS["conv_pool"].sizes[16:]]
    both = Case("conv_pool", [*conv.values(), *(pool[name] for name in names)], seed, limits)
    x = both.floats(conv["batch"] * conv["height"] * conv["width"] * conv["channels"])
    x[: len(x) // 50] = odd
    filters, count = conv["filters"], made(pool) * conv["filters"]
    weights = both.floats(filters * conv["kernel_h"] * conv["kernel_w"] * conv["channels"] // conv["groups"])
    both.constants = [
        weights,
        both.floats(filters),
        both.floats(filters) if slope else None,
    ]
    both.reads, both.writes = [x], [(count, np.float32)]
    if odd == 0:
        both.check(most=2e-6 * len(weights) / filters if min(conv["kernel_h"], conv["kernel_w"]) > 4 else ATOL)
    first, second = Case("conv", [*conv.values()], seed, limits), Case("pool", [*pool.values(), 0], seed)
    first.reads, first.constants, first.writes = [x, None], both.constants, [(made(conv) * filters, np.float32)]
    second.writes = both.writes
    for variant, threads in itertools.product(VARIANTS, (1, 2, 3)):
        network = kernels.native().Network  # type: ignore[union-attr]
        how = (lambda size, n=network, v=variant, t=threads: n(size, v, t), kernels.pool(threads))
        second.reads = [*first.run(*how)]
        (wanted,), (found,) = second.run(*how), both.run(*how)
        np.testing.assert_array_equal(found.view(np.int32), wanted.view(np.int32), f"{variant}, {threads} threads")


@given(
    st.integers(1, 2),
    st.integers(1, 40),
    WIDTHS,
    st.sampled_from(["", "scale", "factor"]),
    st.booleans(),
    LIMITS,
    SEEDS,
)
@MANY
def test_pointwise(
    batch: int, pixels: int, channels: int, scaled: str, slope: bool, limits: tuple[float, float], seed: int
) -> None:
    case = Case("pointwise", [batch, pixels, channels], seed, limits)
    count = batch * pixels * channels
    case.reads = [case.floats(count), case.floats(count), case.floats(batch * channels) if scaled == "factor" else None]
    case.writes = [(count, np.float32)]
    given_scale = case.floats(channels) if scaled == "scale" else None
    case.constants = [given_scale, case.floats(channels), case.floats(channels) if slope else None]
    case.check()


@given(windows(binary=True), st.booleans(), st.booleans(), st.booleans(), LIMITS, SEEDS)
@MANY
def test_binary_convolutions_are_exact(
    s: dict[str, int], residual: bool, slope: bool, signs: bool, limits: tuple[float, float], seed: int
) -> None:
    case = Case("binary_conv", [*s.values(), seed % 2], seed, limits)
    pixels, filters, signs = made(s), s["filters"], signs and s["groups"] == 1
    case.reads = [
        case.signs(s["batch"] * s["height"] * s["width"], s["channels"]),
        case.floats(pixels * filters) if residual else None,
    ]
    case.writes = [(pixels * filters, np.float32), (pixels * packing.bytes_for(filters), np.uint8) if signs else None]
    weights = case.signs(filters * s["kernel_h"] * s["kernel_w"], s["channels"] // s["groups"])
    limit = case.floats(filters) if signs and slope else None
    case.constants = [
        weights,
        case.floats(filters),
        case.floats(filters),
        case.floats(filters) if slope else None,
        limit,
    ]
    case.check(exact=True)


@given(st.integers(1, 50), WIDTHS, SEEDS)
@MANY
def test_what_moves_or_maps(rows: int, columns: int, seed: int) -> None:
    for kernel, sizes in (
        ("transpose", [1, rows, columns]),
        ("softmax", [rows, columns]),
        *(("map", [function, rows * columns]) for function in range(3)),
    ):
        case = Case(kernel, sizes, seed)
        case.reads, case.writes = [case.floats(rows * columns)], [(rows * columns, np.float32)]
        case.check(exact=kernel == "transpose")
    joined = Case("concat", [rows, columns, 3], seed)
    joined.reads = [joined.floats(rows * columns), joined.floats(rows * 3)]
    joined.writes = [(rows * (columns + 3), np.float32)]
    joined.check(exact=True)
    repeated = Case("expand", [2, rows, 3, columns, 1, 0, 1, 0], seed)
    repeated.reads, repeated.writes = [repeated.floats(rows * columns)], [(6 * rows * columns, np.float32)]
    repeated.check(exact=True)
    sizes = [2, rows, 3, columns, 3, (rows + 1) // 2, 2, columns + 2, 0, 0, 1, 0, 1, 0, 0, 1, 1, 2, 1, 1]
    cut = Case("slice", sizes, seed)
    cut.numbers, cut.reads, cut.writes = (
        [0.5],
        [cut.floats(6 * rows * columns)],
        [(6 * ((rows + 1) // 2) * (columns + 2), np.float32)],
    )
    cut.check(exact=True)
    packed = Case("pack", [rows, columns], seed)
    packed.reads, packed.constants = [packed.floats(rows * columns)], [packed.floats(columns)]
    packed.writes = [(rows * packing.bytes_for(columns), np.uint8)]
    packed.check()


@pytest.mark.parametrize("broken", ["bytes", "offset", "sizes", "constants", "kernel", "numbers"])
def test_what_cannot_be_is_refused(broken: str) -> None:
    network = kernels.native().Network(4096, VARIANTS[0], 1)  # type: ignore[union-attr]
    good = ("pointwise", [1, 4, 4], [0.0, 1.0], [(0, 64), (-1, 0), (-1, 0)], [(64, 64)], [None, None, None])
    network.add(*good)
    changes: dict[str, tuple[int, Any]] = {
        "bytes": (3, [(0, 60), (-1, 0), (-1, 0)]),
        "offset": (4, [(4096, 64)]),
        "sizes": (1, [1, 2**41, 4]),
        "constants": (5, [np.zeros(12, np.uint8), None, None]),
        "kernel": (0, "nothing"),
        "numbers": (2, [math.nan, 1.0]),
    }
    place, value = changes[broken]
    with pytest.raises(ValueError, match=r"[a-z]"):
        network.add(*good[:place], value, *good[place + 1 :])
