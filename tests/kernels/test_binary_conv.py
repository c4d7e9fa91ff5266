"""Every variant of the kernels that this machine can run gives exactly what numpy defines, whatever the sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright import kernels
from edgewright.errors import EdgewrightError
from edgewright.ops import binary, packing
from edgewright.ops.binary import Affine, Window

VARIANTS = [name for name in kernels.variants() if name != kernels.NUMPY]
pytestmark = pytest.mark.skipif(not VARIANTS, reason="needs the C++ kernels: built without a compiler")

#: Sizes around the widths of words, registers and blocks.
WIDTHS = st.sampled_from([1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 192])
PADS = st.tuples(*[st.integers(0, 3)] * 4)
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
MANY = settings(max_examples=80, deadline=None)


@dataclass(frozen=True)
class Layer:
    """Arrays of one layer."""

    x: np.ndarray  # f32[N, C, H, W]
    weights: np.ndarray  # u8[M, kh, kw, bytes]
    window: Window

    @property
    def channels(self) -> int:
        return int(self.x.shape[1])

    def made(self, variant: str, threads: int = 1) -> kernels.BinaryConv:
        batch, channels, height, width = self.x.shape
        return kernels.BinaryConv(
            self.weights, channels=channels, input_shape=(batch, height, width), window=self.window, variant=variant,
            threads=threads,
        )  # fmt: skip

    def dots(self) -> np.ndarray:
        return binary.conv_dots(packing.pack_signs(self.x), self.weights, self.channels, self.window)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """A layer whose window fits into its padded input."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    group = draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels, filters = group * draw(WIDTHS), group * draw(WIDTHS)
    kernel, dilations, pads = draw(st.tuples(st.integers(1, 5), st.integers(1, 5))), draw(PAIRS), draw(PADS)
    places = [
        draw(st.integers(max(1, dilations[i] * (kernel[i] - 1) + 1 - pads[i] - pads[2 + i]), 14)) for i in range(2)
    ]
    window = Window(draw(PAIRS), dilations, pads, draw(st.sampled_from([1, -1])), group)
    x = rng.integers(-2, 3, (draw(st.integers(1, 3)), channels, *places)).astype(np.float32)  # many zeros
    weights = rng.integers(0, 2, (filters, *kernel, channels // group)).astype(bool)
    return Layer(x, packing.pack_bits(weights), window)


def affine_for(rng: np.random.Generator, filters: int) -> Affine:
    scale, shift, slope = rng.standard_normal((3, filters)).astype(np.float32)
    return Affine(scale, shift, slope, -20.0, 20.0)


@pytest.mark.parametrize("variant", VARIANTS)
@MANY
@given(layer=layers(), threads=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_equals_numpy(variant: str, layer: Layer, threads: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dots, filters = layer.dots(), len(layer.weights)
    packed, made = packing.pack_signs(layer.x), layer.made(variant, threads)
    np.testing.assert_array_equal(made.dots(packed), dots)

    spread = int(np.abs(dots).max()) + 2
    threshold = rng.integers(-spread, spread + 1, filters).astype(np.int32)
    flip = rng.integers(0, 2, filters).astype(bool)
    made.set_thresholds(threshold, flip)
    np.testing.assert_array_equal(made.signs(packed), binary.below(dots, threshold, flip))

    how, residual = affine_for(rng, filters), rng.standard_normal(dots.shape).astype(np.float32)
    for rule in (how, Affine(how.scale, how.shift)):
        made.set_affine(rule)
        np.testing.assert_array_equal(made.floats(packed), binary.affine(dots, rule))
        np.testing.assert_array_equal(made.floats(packed, residual), binary.affine(dots, rule, residual))


@pytest.mark.parametrize("variant", VARIANTS)
@MANY
@given(
    seed=st.integers(0, 2**32), channels=WIDTHS, places=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 70)),
    with_threshold=st.booleans(), channels_last=st.booleans(), threads=st.integers(1, 2),
)  # fmt: skip
def test_packs_as_numpy(
    variant: str,
    seed: int,
    channels: int,
    places: tuple[int, int, int],
    with_threshold: bool,
    channels_last: bool,
    threads: int,
) -> None:
    rng = np.random.default_rng(seed)
    batch, height, width = places
    x = rng.integers(-2, 3, (batch, channels, height, width)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = -0.0  # its sign is +1 as well
    x[rng.random(x.shape) < 0.1] = np.nan
    threshold = rng.integers(-1, 2, channels).astype(np.float32) if with_threshold else None
    wanted = packing.pack_signs(x, threshold)
    if channels_last:
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    np.testing.assert_array_equal(kernels.pack_signs(x, threshold, variant=variant, threads=threads), wanted)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("channels", [5, 64, 4096, 65534])
def test_linear_and_its_largest_counts(variant: str, channels: int, rng: np.random.Generator) -> None:
    weights = packing.pack_bits(rng.integers(0, 2, (67, channels)).astype(bool))
    weights[:2] = packing.pack_bits(np.stack([np.zeros(channels, bool), np.ones(channels, bool)]))
    packed = packing.pack_bits(np.ones((3, channels), bool))  # differs from the first filter in every bit
    made = kernels.BinaryLinear(weights, channels=channels, batch=3, variant=variant)
    dots = binary.linear_dots(packed, weights, channels)
    assert dots[0, 0] == -channels
    assert dots[0, 1] == channels
    np.testing.assert_array_equal(made.dots(packed[None, None])[0, 0], dots)
    for threshold in (-channels, -channels + 1, channels, channels + 1, np.iinfo(np.int32).min, np.iinfo(np.int32).max):
        limits = np.full(67, threshold, np.int32)
        made.set_thresholds(limits, np.arange(67) % 2 == 0)
        np.testing.assert_array_equal(
            made.signs(packed[None, None])[0, 0], binary.below(dots, limits, np.arange(67) % 2 == 0)
        )


def test_a_layer_beyond_16_bits_runs_in_numpy(rng: np.random.Generator) -> None:
    channels = 65535
    weights = packing.pack_bits(rng.integers(0, 2, (2, channels)).astype(bool))
    packed = packing.pack_bits(rng.integers(0, 2, (1, channels)).astype(bool))
    made = kernels.BinaryLinear(weights, channels=channels)
    assert made.variant == kernels.NUMPY
    np.testing.assert_array_equal(made.dots(packed[None, None])[0, 0], binary.linear_dots(packed, weights, channels))
    with pytest.raises(EdgewrightError, match="more than 65534 bits") as raised:
        kernels.BinaryLinear(weights, channels=channels, variant="portable")
    assert raised.value.code == "E202"


def simple(rng: np.random.Generator, variant: str | None = None) -> kernels.BinaryConv:
    weights = packing.pack_bits(rng.integers(0, 2, (4, 3, 3, 8)).astype(bool))
    return kernels.BinaryConv(weights, channels=8, input_shape=(1, 5, 5), variant=variant)


@pytest.mark.parametrize("variant", kernels.variants())
def test_bad_arrays_are_refused(variant: str, rng: np.random.Generator) -> None:
    made = simple(rng, variant)
    good = np.zeros((1, 5, 5, 8), np.uint8)
    for bad in (good[:, :4], good.astype(np.int64), good[..., :7]):
        with pytest.raises(EdgewrightError, match="is needed") as raised:
            made.dots(bad)
        assert raised.value.code == "E202"
    with pytest.raises(EdgewrightError, match="`out`"):
        made.dots(good, out=np.zeros((1, 3, 3, 5), np.int32))
    with pytest.raises(EdgewrightError, match="not contiguous"):
        made.dots(good, out=np.zeros((1, 3, 3, 8), np.int32)[..., ::2])
    with pytest.raises(EdgewrightError, match="threshold"):
        made.set_thresholds(np.zeros(3, np.int32), np.zeros(4, bool))
    with pytest.raises(EdgewrightError, match="scale"):
        made.set_affine(Affine(np.zeros(4), np.zeros(4)))  # float64
    made.set_affine(Affine(*np.zeros((2, 4), np.float32)))
    with pytest.raises(EdgewrightError, match="residual"):
        made.floats(good, np.zeros((1, 3, 3, 1), np.float32))


def test_bad_layers_are_refused(rng: np.random.Generator) -> None:
    weights = packing.pack_bits(rng.integers(0, 2, (4, 3, 3, 8)).astype(bool))
    shape = (1, 5, 5)
    cases: list[tuple[str, dict[str, object]]] = [
        ("E202", {"weights": weights[..., :4]}),
        ("E202", {"weights": np.full_like(weights, 255)}),  # bits beyond 8 channels
        ("E202", {"input_shape": (1, 2, 5)}),
        ("E103", {"window": Window(strides=(0, 1))}),
        ("E103", {"window": Window(pads=(0, -1, 0, 0))}),
        ("E103", {"window": Window(pad_value=0)}),
        ("E202", {"window": Window(group=3)}),
        ("E101", {"variant": "sse"}),
        ("E103", {"threads": 0}),
        ("E202", {"input_shape": (1 << 30, 5, 5), "variant": kernels.variants()[0]}),
    ]
    for code, changed in cases:
        arguments: dict[str, object] = {"weights": weights, "channels": 8, "input_shape": shape, **changed}
        with pytest.raises(EdgewrightError) as raised:
            kernels.BinaryConv(arguments.pop("weights"), **arguments)  # type: ignore[arg-type]
        assert raised.value.code == code, changed


def test_unaligned_arrays_are_copied(rng: np.random.Generator) -> None:
    made = simple(rng)
    octets = np.zeros(1 * 5 * 5 * 8 + 1, np.uint8)
    octets[1:] = np.tile([0x5A, 0, 0, 0, 0, 0, 0, 0], 25)
    off = octets[1:].reshape(1, 5, 5, 8)
    np.testing.assert_array_equal(made.dots(off), made.dots(off.copy()))
