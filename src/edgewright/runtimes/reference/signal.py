"""Fourier transforms; complex numbers are pairs in the last axis."""

from __future__ import annotations

import numpy as np

from edgewright.runtimes.reference.operators import Array, axis_of, operator, scalar, widen


def _complex(x: Array) -> Array:
    value = widen(x)
    if value.shape[-1] not in (1, 2):
        raise ValueError(f"the last axis of {list(x.shape)} must hold 1 (real) or 2 (complex) values")
    return np.asarray(value[..., 0] + 1j * value[..., 1]) if value.shape[-1] == 2 else value[..., 0]


def _pairs(x: Array, like: Array) -> Array:
    return np.stack([x.real, x.imag], axis=-1).astype(like.dtype)


@operator("DFT")
def discrete_fourier_transform(
    x: Array,
    dft_length: Array | None = None,
    axis_input: Array | None = None,
    *,
    axis: int = -2,
    inverse: int = 0,
    onesided: int = 0,
) -> Array:
    """f32[..., n, ..., 1 or 2] -> f32[..., n, ..., 2] along `axis`; the first half only with `onesided`.

    A one-sided inverse takes the first half of the spectrum and gives real numbers f32[..., n, ..., 1].
    """
    along = axis_of(axis if axis_input is None else int(scalar(axis_input)), x.ndim)
    if along == x.ndim - 1:
        raise ValueError("`axis` is the axis that holds real and imaginary part")
    length = None if dft_length is None else int(scalar(dft_length))
    value = _complex(x)
    if inverse and onesided:
        return np.fft.irfft(value, length, axis=along)[..., None].astype(x.dtype)
    if inverse:
        return _pairs(np.fft.ifft(value, length, axis=along), x)
    spectrum = np.fft.fft(value, length, axis=along)
    if onesided:
        spectrum = np.take(spectrum, range(spectrum.shape[along] // 2 + 1), axis=along)
    return _pairs(spectrum, x)


@operator("STFT")
def short_time_fourier_transform(
    x: Array, frame_step: Array, window: Array | None = None, frame_length: Array | None = None, *, onesided: int = 1
) -> Array:
    """f32[N, samples, 1 or 2] -> f32[N, frames, bins, 2]: the spectrum of each windowed frame."""
    step = int(scalar(frame_step))
    if window is None and frame_length is None:
        raise ValueError("either `window` or `frame_length` must be given")
    length = int(scalar(frame_length)) if frame_length is not None else len(window if window is not None else ())
    value = _complex(x)
    count = max((value.shape[1] - length) // step + 1, 0)
    frames = np.stack([value[:, i * step : i * step + length] for i in range(count)], axis=1)
    spectrum = np.fft.fft(frames if window is None else frames * widen(window), axis=-1)
    return _pairs(spectrum[..., : length // 2 + 1] if onesided else spectrum, x)
