"""Binary layers on the fastest kernels of this machine: C++ where the package has them, else numpy.

    layer = kernels.BinaryConv(weights, channels=64, input_shape=(1, 56, 56), window=Window(pads=(1, 1, 1, 1)))
    layer.set_thresholds(threshold, flip)
    signs = layer.signs(kernels.pack_signs(x))

`edgewright.ops` says what each result is; every variant gives exactly that. Arrays are channels-last, and `out` may be given
so that nothing is allocated.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from typing import Any

import numpy as np

from edgewright.errors import EdgewrightError, EdgewrightWarning
from edgewright.ops import binary, packing
from edgewright.ops.binary import Affine, Window

NUMPY = "numpy"
_POOLS: dict[tuple[int, int], Any] = {}


@functools.cache
def native() -> Any | None:
    """The extension module, or None where the package was built without a C++ compiler."""
    try:
        return importlib.import_module("edgewright._native")
    except ImportError:
        return None


@functools.cache
def variants() -> tuple[str, ...]:
    """The kernels that this machine can run, fastest first; the last one is numpy, the definition."""
    module = native()
    return (*module.variants(), NUMPY) if module else (NUMPY,)


def pool(threads: int) -> Any:
    """The threads of this process: those of a parent do not live on in a child that it forked."""
    key = (os.getpid(), threads)
    if key not in _POOLS:
        module = native()
        assert module is not None
        _POOLS[key] = module.Pool(threads)
    return _POOLS[key]


def chosen(variant: str | None, threads: int) -> str:
    """The variant of that name, or the fastest.

    Raises:
        EdgewrightError: E101 for a variant that this machine cannot run, E103 for a number of threads that cannot be.
    """
    if not 1 <= threads <= 1024:
        raise EdgewrightError("E103", f"threads = {threads}: from 1 to 1024")
    if variant is not None and variant not in variants():
        raise EdgewrightError(
            "E101", f"kernels `{variant}` do not run here; there are {', '.join(variants())}", hint="edgewright doctor"
        )
    if variant is None and variants() == (NUMPY,):
        warnings.warn(
            "edgewright was installed without its C++ kernels (no compiler), so binary layers run in numpy, slowly",
            EdgewrightWarning,
            stacklevel=3,
        )
    return variant or variants()[0]


def pack_signs(
    x: np.ndarray,
    threshold: np.ndarray | None = None,
    *,
    out: np.ndarray | None = None,
    variant: str | None = None,
    threads: int = 1,
) -> np.ndarray:
    """`ops.packing.pack_signs`: the signs of f32[N, C, ...], in whatever order its axes lie in memory.

    Raises:
        EdgewrightError: E202 for arrays that do not fit, and as `chosen`.
    """
    variant = chosen(variant, threads)
    if x.dtype != np.float32 or x.ndim < 2 or x.size == 0:
        raise EdgewrightError("E202", f"signs of {x.dtype}{list(x.shape)}: float32[N, C, ...] is needed, not empty")
    channels = x.shape[1]
    if threshold is not None and threshold.shape not in ((1,), (channels,)):
        raise EdgewrightError("E202", f"threshold has shape {list(threshold.shape)}, not [1] or [{channels}]")
    out = _out(out, (len(x), *x.shape[2:], packing.bytes_for(channels)), np.uint8)
    if variant == NUMPY:
        out[...] = packing.pack_signs(x, threshold)
        return out
    if x.flags.c_contiguous:
        pixels = x.reshape(len(x), channels, -1).transpose(0, 2, 1)
    else:
        pixels = np.moveaxis(x, 1, -1).reshape(len(x), -1, channels)
    limits = None if threshold is None else np.ascontiguousarray(np.broadcast_to(threshold, channels), np.float32)
    module = native()
    assert module is not None
    module.pack(pixels, limits, _words(out), variant, pool(threads))
    return out


class BinaryConv:
    """One binary convolution, its weights ordered for the kernels that run it. Calls from several threads wait in turn.

    Args:
        weights: u8[M, kh, kw, bytes_for(C / group)], signs.
        channels: C.
        input_shape: N, H, W.
        window: How the layer goes over its input.
        variant: One of `variants()`; None for the fastest.
        threads: That work on one run.

    Raises:
        EdgewrightError: E101, E103 and E202 for what cannot be.
    """

    def __init__(
        self,
        weights: np.ndarray,
        *,
        channels: int,
        input_shape: tuple[int, int, int],
        window: Window | None = None,
        variant: str | None = None,
        threads: int = 1,
    ) -> None:
        self.window = window or Window()
        self.channels = channels
        self.variant = chosen(variant, threads)
        self.input_shape = (*input_shape, packing.bytes_for(channels))
        height, width = binary.check_conv(self.input_shape, weights, channels, self.window)
        self._weights = weights
        self._places = (input_shape[0], height, width)
        self._threads = threads
        self._signs_rule: tuple[np.ndarray, np.ndarray] | None = None
        self._floats_rule: Affine | None = None
        self._layer = None if self.variant == NUMPY else self._made(variant is not None)

    def _made(self, asked: bool) -> Any | None:
        """The layer in C++; None where its sizes are too large for it and numpy takes over."""
        module, window = native(), self.window
        assert module is not None
        filters, kernel_h, kernel_w, _ = self._weights.shape
        sizes = [*self.input_shape[:3], self.channels, filters, kernel_h, kernel_w]
        sizes += [*window.strides, *window.dilations, *window.pads, window.group]
        try:
            return module.BinaryConv(_words(self._weights), sizes, window.pad_value < 0, self.variant, self._threads)
        except ValueError as error:
            if asked:
                raise EdgewrightError("E202", f"kernels `{self.variant}` cannot take this layer: {error}") from error
            self.variant = NUMPY
            return None

    @property
    def filters(self) -> int:
        """M."""
        return len(self._weights)

    def set_thresholds(self, threshold: np.ndarray, flip: np.ndarray) -> None:
        """What `signs` compares with: i32[M], and bool[M], true where the comparison is the other way round.

        Raises:
            EdgewrightError: E202 for arrays that do not fit.
        """
        for name, array, dtype in (("threshold", threshold, np.int32), ("flip", flip, np.bool_)):
            _fits(name, array, (self.filters,), dtype)
        self._signs_rule = (np.array(threshold), np.array(flip))
        if self._layer is not None:
            self._layer.set_thresholds(self._signs_rule[0], self._signs_rule[1].view(np.uint8))

    def set_affine(self, how: Affine) -> None:
        """What `floats` makes of the dot products.

        Raises:
            EdgewrightError: E202 for arrays that do not fit, E103 where low..high is empty.
        """
        slope = [] if how.slope is None else [("slope", how.slope)]
        for name, array in [("scale", how.scale), ("shift", how.shift), *slope]:
            _fits(name, array, (self.filters,), np.float32)
        if not how.low <= how.high:
            raise EdgewrightError("E103", f"results cannot lie within {how.low} and {how.high}")
        self._floats_rule = Affine(
            np.array(how.scale),
            np.array(how.shift),
            None if how.slope is None else np.array(how.slope),
            how.low,
            how.high,
        )
        if self._layer is not None:
            rule = self._floats_rule
            self._layer.set_affine(rule.scale, rule.shift, rule.slope, rule.low, rule.high)

    def signs(self, packed: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """The signs u8[N, OH, OW, bytes_for(M)] by `set_thresholds`.

        Raises:
            EdgewrightError: E202 for arrays that do not fit.
        """
        assert self._signs_rule is not None, "set_thresholds comes first"
        out = _out(out, (*self._places, packing.bytes_for(self.filters)), np.uint8)
        if self._layer is None:
            out[...] = binary.below(self._dots(packed), *self._signs_rule)
        else:
            self._layer.signs(self._input(packed), _words(out), pool(self._threads))
        return out

    def floats(
        self, packed: np.ndarray, residual: np.ndarray | None = None, *, out: np.ndarray | None = None
    ) -> np.ndarray:
        """The floats f32[N, OH, OW, M] by `set_affine`; so is the residual.

        Raises:
            EdgewrightError: E202 for arrays that do not fit.
        """
        assert self._floats_rule is not None, "set_affine comes first"
        shape = (*self._places, self.filters)
        out = _out(out, shape, np.float32)
        if residual is not None:
            _fits("residual", residual, shape, np.float32)
        if self._layer is None:
            out[...] = binary.affine(self._dots(packed), self._floats_rule, residual)
        else:
            residual = None if residual is None else np.ascontiguousarray(residual)
            self._layer.floats(self._input(packed), residual, out, pool(self._threads))
        return out

    def dots(self, packed: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """The dot products i32[N, OH, OW, M].

        Raises:
            EdgewrightError: E202 for arrays that do not fit.
        """
        out = _out(out, (*self._places, self.filters), np.int32)
        if self._layer is None:
            out[...] = self._dots(packed)
        else:
            self._layer.dots(self._input(packed), out, pool(self._threads))
        return out

    def _dots(self, packed: np.ndarray) -> np.ndarray:
        _fits("packed signs", packed, self.input_shape, np.uint8)
        return binary.conv_dots(packed, self._weights, self.channels, self.window)

    def _input(self, packed: np.ndarray) -> np.ndarray:
        _fits("packed signs", packed, self.input_shape, np.uint8)
        return _words(packed)


class BinaryLinear(BinaryConv):
    """One binary linear layer: a convolution whose pixels, in one row, are the batch.

    Args:
        weights: u8[M, bytes_for(C)], signs.
        channels: C.
        batch: N. Inputs are u8[1, 1, N, bytes_for(C)], results [1, 1, N, ...].
        variant: As for `BinaryConv`.
        threads: As for `BinaryConv`.
    """

    def __init__(
        self, weights: np.ndarray, *, channels: int, batch: int = 1, variant: str | None = None, threads: int = 1
    ) -> None:
        if weights.ndim != 2:
            raise EdgewrightError("E202", f"weights of a linear layer have 2 axes, not {list(weights.shape)}")
        shape = (1, 1, batch)
        super().__init__(weights[:, None, None], channels=channels, input_shape=shape, variant=variant, threads=threads)


def _words(array: np.ndarray) -> np.ndarray:
    """The same bytes as words of 64 bits, aligned as C++ needs them; a copy only where they are not."""
    whole = np.ascontiguousarray(array).view(np.uint64)
    return whole if whole.flags.aligned else whole.copy()


def _out(out: np.ndarray | None, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """`out`, or a new array where it is None."""
    if out is None:
        return np.empty(shape, dtype)
    _fits("out", out, shape, dtype)
    flags = out.flags
    if not (flags.c_contiguous and flags.writeable and (dtype != np.uint8 or out.view(np.uint64).flags.aligned)):
        raise EdgewrightError(
            "E202", "`out` is not contiguous, not writeable, or does not start at a multiple of 8 bytes"
        )
    return out


def _fits(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: Any) -> None:
    if array.shape != shape or array.dtype != dtype:
        wanted = f"{np.dtype(dtype).name}{list(shape)}"
        raise EdgewrightError("E202", f"`{name}` is {array.dtype}{list(array.shape)}, and {wanted} is needed")
