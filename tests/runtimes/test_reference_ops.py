"""Every operator of the reference against ONNX Runtime, and against the onnx package's own node tests.

A case is `(operator with attributes, inputs, number of outputs)` in ONNX's text syntax. To add one, add a line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import EdgewrightError
from edgewright.runtimes import reference
from edgewright.target import Target, weight_bits

_RNG = np.random.default_rng(20240607)
Inputs = Sequence[np.ndarray | None]


def f(*shape: int, low: float = -3.0, high: float = 3.0, dtype: Any = np.float32) -> np.ndarray:
    return _RNG.uniform(low, high, shape).astype(dtype)


def h(*shape: int) -> np.ndarray:
    return f(*shape, dtype=np.float16)


def n(*shape: int, low: int = -20, high: int = 20, dtype: Any = np.int64) -> np.ndarray:
    return _RNG.integers(low, high, shape).astype(dtype)


def u8(*shape: int) -> np.ndarray:
    return n(*shape, low=0, high=256, dtype=np.uint8)


def i8(*shape: int) -> np.ndarray:
    return n(*shape, low=-128, high=128, dtype=np.int8)


def w8(*shape: int) -> np.ndarray:
    """int8 weights that ONNX Runtime's kernels multiply exactly on this machine: 7 bits on x86 without VNNI."""
    reach = 2 ** (weight_bits(Target("onnxruntime"))[0] - 1)
    return n(*shape, low=-reach, high=reach, dtype=np.int8)


def v(*values: Any, dtype: Any = np.int64) -> np.ndarray:
    return np.array(values, dtype=dtype)


def s(value: Any, dtype: Any = np.float32) -> np.ndarray:
    return np.array(value, dtype=dtype)


def fv(*values: float) -> np.ndarray:
    return v(*values, dtype=np.float32)


def zp(value: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.array(value, dtype=dtype)


def flags(*shape: int) -> np.ndarray:
    return n(*shape, low=0, high=2).astype(bool)


def words(text: str) -> list[str]:
    return text.split()


SPECIAL = fv(0.0, -0.0, np.inf, -np.inf, np.nan, 1e-38, 88.0, -104.0, 0.5, 1.5, 2.5, -0.5)
E64, E1 = np.zeros((2, 0, 3), np.float32), v()

ELEMENTWISE: list[tuple[Any, ...]] = [
    *((op, [f(2, 3, 4)]) for op in words("Abs Atan Asinh Ceil Cos Erf Exp Floor Neg Round Sign Sin Sinh Cosh Tan Tanh")),
    *((op, [f(2, 3, low=-1, high=1)]) for op in ("Acos", "Asin", "Atanh")),
    *((op, [f(2, 3, low=1, high=9)]) for op in ("Acosh", "Log", "Reciprocal", "Sqrt")),
    *((op, [SPECIAL]) for op in words("Abs Ceil Erf Exp Floor Neg Round Sign Sqrt Tanh Sigmoid Softplus Relu IsNaN IsInf")),
    *((op, [n(3, 4, dtype=np.int32)]) for op in ("Abs", "Neg", "Sign")),
    *((op, [E64]) for op in ("Exp", "Relu", "Erf")),
    *((op, [f(2, 3, 4), f(3, 1)]) for op in ("Add", "Sub", "Mul", "Div")),
    *((op, [n(4, 3), n(4, 3, low=1)]) for op in ("Add", "Sub", "Mul")),
    *((op, [h(2, 3), h(3)]) for op in ("Add", "Sub", "Mul", "Div")),
    ("Div", [n(50, dtype=np.int32), v(*[d for d in range(-25, 26) if d], dtype=np.int32)]),
    ("Div", [f(2, 1, 3), f(0, 3)]),
    ("Mod", [n(9), v(3, -3, 7, -7, 5, -5, 2, -2, 1)]),
    ("Mod<fmod=1>", [n(9), v(3, -3, 7, -7, 5, -5, 2, -2, 1)]),
    ("Mod<fmod=1>", [f(9), f(9)]),
    ("Pow", [f(2, 3, low=0, high=3), f(3)]),
    ("Pow", [f(2, 3), s(2, np.int64)]),
    ("Pow", [n(2, 3), n(3, low=0, high=4)]),
    ("Pow", [n(4, low=1, high=9, dtype=np.int32), fv(0.5, 2, 1, -1)]),
    *((op, [f(2, 3), f(2, 1)]) for op in ("Less", "Greater", "LessOrEqual", "GreaterOrEqual")),
    *((op, [n(2, 3, high=-17), n(3, high=-17)]) for op in ("Equal", "Less", "Greater")),
    ("Equal", [flags(2, 3), flags(3)]),
    *((op, [flags(2, 3), flags(3)]) for op in ("And", "Or", "Xor")),
    ("Not", [flags(5)]),
    *((op, [n(4, dtype=np.int32), n(4, dtype=np.int32)]) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    ("BitwiseNot", [u8(4)]),
    ('BitShift<direction="LEFT">', [u8(4), n(4, low=0, high=7, dtype=np.uint8)]),
    ('BitShift<direction="RIGHT">', [u8(4), n(4, low=0, high=7, dtype=np.uint8)]),
    *((op, [f(2, 3), f(3), f(2, 1)]) for op in ("Max", "Min", "Sum", "Mean")),
    *((op, [f(2, 3)]) for op in ("Max", "Sum", "Mean")),
    *((op, [fv(1, np.nan, 3), fv(2, 2, np.nan)]) for op in ("Max", "Min")),
    ("Where", [flags(2, 1, 3), f(2, 3), f(3)]),
    ("Clip", [f(9), s(-1), s(2)]),
    ("Clip", [f(9), None, s(2)]),
    ("Clip", [f(9), s(-1)]),
    ("Clip", [f(9)]),
    ("Clip", [f(9), s(2), s(-1)]),
    ("Clip", [n(9, dtype=np.int32), s(-3, np.int32), s(3, np.int32)]),
    ("IsInf<detect_negative=0>", [SPECIAL]),
    ("IsInf<detect_positive=0>", [SPECIAL]),
    ("Identity", [f(3)]),
    *((f"Cast<to={to}>", [f(9)]) for to in (1, 6, 7, 9, 10, 11)),
    *((f"Cast<to={to}>", [u8(9)]) for to in (1, 3, 7, 9, 10, 13)),
    ("CastLike", [f(9), v(1)]),
    ("CastLike", [n(9), fv(1)]),
]  # fmt: skip

ACTIVATIONS: list[tuple[Any, ...]] = [
    *((op, [f(3, 4)]) for op in words("Relu LeakyRelu Elu Celu Selu Sigmoid HardSigmoid HardSwish Softplus Softsign Mish")),
    *((op, [f(3, 4)]) for op in ("Gelu", "ThresholdedRelu", "Shrink", "Softmax", "LogSoftmax", "Hardmax")),
    ('Gelu<approximate="tanh">', [f(3, 4)]),
    ("LeakyRelu<alpha=0.3>", [f(3, 4)]),
    ("Elu<alpha=0.3>", [f(3, 4)]),
    ("Celu<alpha=2.0>", [f(3, 4)]),
    ("Selu<alpha=1.2, gamma=0.7>", [f(3, 4)]),
    ("HardSigmoid<alpha=0.16666667, beta=0.5>", [f(3, 4, low=-6, high=6)]),
    ("ThresholdedRelu<alpha=0.5>", [f(3, 4)]),
    ("Shrink<bias=0.3, lambd=1.0>", [f(3, 4)]),
    ("PRelu", [f(2, 3, 4, 4), f(3, 1, 1)]),
    ("PRelu", [f(2, 3), f(1)]),
    *((f"{op}<axis={axis}>", [f(2, 3, 4)]) for op in ("Softmax", "LogSoftmax", "Hardmax") for axis in (0, 1, -2)),
    ("Softmax", [f(3, 4, low=80, high=3000)]),
    ("Softmax", [h(3, 4)]),
    ("Softmax<axis=1>", [np.zeros((2, 0), np.float32)]),
    ("Relu", [i8(7)]),
    ("Sigmoid", [h(7)]),
]  # fmt: skip

LINEAR: list[tuple[Any, ...]] = [
    ("MatMul", [f(3, 4), f(4, 5)]),
    ("MatMul", [f(4), f(4)]),
    ("MatMul", [f(4), f(2, 4, 5)]),
    ("MatMul", [f(2, 3, 4), f(4)]),
    ("MatMul", [f(2, 1, 3, 4), f(5, 4, 2)]),
    ("MatMul", [f(3, 0), f(0, 2)]),
    ("MatMul", [n(3, 4, dtype=np.int32), n(4, 2, dtype=np.int32)]),
    ("MatMul", [h(3, 40), h(40, 5)]),
    ("Gemm", [f(3, 4), f(4, 5)]),
    ("Gemm<transA=1, transB=1, alpha=0.5, beta=2.0>", [f(4, 3), f(5, 4), f(5)]),
    ("Gemm<transB=1>", [f(3, 4), f(5, 4), f(3, 1)]),
    ("Gemm<beta=0.25>", [f(3, 4), f(4, 5), s(2.0)]),
    ("Gemm", [h(3, 40), h(40, 5), h(5)]),
    ('Einsum<equation="bij, bjk -> bik">', [f(2, 3, 4), f(2, 4, 5)]),
    ('Einsum<equation="...ii->...i">', [f(2, 3, 3)]),
    ('Einsum<equation="ij,kj">', [f(2, 3), f(4, 3)]),
    ("Det", [f(2, 3, 3)]),
]  # fmt: skip

_CONV = [f(2, 4, 9, 8), f(6, 4, 3, 3), f(6)]
CONVOLUTIONS: list[tuple[Any, ...]] = [
    ("Conv", _CONV),
    ("Conv", [*_CONV[:2]]),
    ("Conv<pads=[1,1,1,1], strides=[2,2]>", _CONV),
    ("Conv<pads=[0,1,2,3], strides=[2,3], kernel_shape=[3,3]>", _CONV),
    ("Conv<dilations=[2,3], pads=[1,2,2,3]>", _CONV),
    *((f'Conv<auto_pad="{pad}", strides=[2,3]>', _CONV) for pad in ("SAME_UPPER", "SAME_LOWER", "VALID")),
    ('Conv<auto_pad="SAME_UPPER">', [f(1, 4, 7, 6), f(6, 4, 2, 4), f(6)]),
    ('Conv<auto_pad="SAME_LOWER">', [f(1, 4, 7, 6), f(6, 4, 2, 4), f(6)]),
    ("Conv<group=2, pads=[1,1,1,1]>", [f(2, 4, 5, 6), f(6, 2, 3, 3), f(6)]),
    ("Conv<group=4, pads=[1,1,1,1]>", [f(2, 4, 5, 6), f(4, 1, 3, 3), f(4)]),
    ("Conv<group=4>", [f(2, 4, 5, 6), f(8, 1, 3, 2)]),
    ("Conv", [f(2, 3, 9), f(4, 3, 3)]),
    ("Conv<dilations=[4], pads=[8,0]>", [f(1, 3, 9), f(3, 3, 3)]),
    ("Conv<strides=[1,2,2], pads=[1,0,1,1,0,1]>", [f(1, 2, 4, 5, 6), f(3, 2, 3, 2, 3), f(3)]),
    ("Conv", [f(1, 8, 1, 1), f(4, 8, 1, 1)]),
    ("Conv", [np.zeros((0, 4, 9, 8), np.float32), *_CONV[1:]]),
    ("Conv<pads=[1,1,1,1]>", [h(1, 8, 5, 5), h(4, 8, 3, 3), h(4)]),
    ("ConvTranspose", [f(1, 4, 5, 6), f(4, 3, 3, 3), f(3)]),
    ("ConvTranspose<strides=[2,2]>", [f(1, 4, 5, 6), f(4, 3, 2, 2), f(3)]),
    ("ConvTranspose<strides=[2,3], pads=[1,0,2,1], output_padding=[1,1]>", [f(2, 4, 5, 6), f(4, 3, 3, 3)]),
    ("ConvTranspose<strides=[2,2], output_shape=[11,13]>", [f(1, 4, 5, 6), f(4, 3, 3, 3)]),
    ("ConvTranspose<strides=[2,2], output_shape=[10,11]>", [f(1, 4, 5, 6), f(4, 3, 3, 3)]),
    ('ConvTranspose<strides=[2,2], auto_pad="SAME_UPPER">', [f(1, 4, 5, 6), f(4, 3, 3, 3)]),
    ('ConvTranspose<strides=[2,2], auto_pad="SAME_LOWER">', [f(1, 4, 5, 6), f(4, 3, 3, 3)]),
    ('ConvTranspose<strides=[2,2], auto_pad="VALID">', [f(1, 4, 5, 6), f(4, 3, 3, 3)]),
    ("ConvTranspose<group=2, dilations=[2,1]>", [f(1, 4, 5, 6), f(4, 3, 3, 3), f(6)]),
    ("ConvTranspose<group=4, strides=[2,2]>", [f(1, 4, 5, 6), f(4, 1, 3, 3), f(4)]),
    ("ConvTranspose<strides=[3]>", [f(1, 4, 5), f(4, 2, 4)]),
    ("Col2Im", [f(1, 8, 9), v(4, 4), v(2, 2)]),
    ("Col2Im<pads=[1,1,1,1], strides=[2,2]>", [f(2, 8, 9), v(4, 4), v(2, 2)]),
    ("DeformConv<pads=[1,1,1,1]>", [f(1, 4, 5, 6), f(6, 4, 3, 3), f(1, 18, 5, 6), f(6), f(1, 9, 5, 6)]),
    ("DeformConv<group=2, offset_group=2, strides=[2,1]>", [f(2, 4, 7, 6), f(6, 2, 3, 3), f(2, 36, 3, 4)]),
]  # fmt: skip

_IMAGE = f(2, 3, 9, 8)
POOLING: list[tuple[Any, ...]] = [
    *((f"{op}<kernel_shape=[3,2]>", [_IMAGE]) for op in ("MaxPool", "AveragePool", "LpPool")),
    *(
        (f"{op}<kernel_shape=[3,3], strides=[2,2], {rest}>", [_IMAGE])
        for op in ("MaxPool", "AveragePool", "LpPool")
        for rest in (
            "pads=[1,1,1,1]", "pads=[0,1,2,0]", "ceil_mode=1", "ceil_mode=1, pads=[1,1,1,1]", "dilations=[2,2]",
            'auto_pad="SAME_UPPER"', 'auto_pad="SAME_LOWER"', 'auto_pad="VALID"',
        )
    ),
    ("AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>", [_IMAGE]),
    ("AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2], count_include_pad=1, ceil_mode=1>", [_IMAGE]),
    ("AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>", [f(1, 1, 5, 5)]),
    ("AveragePool<kernel_shape=[3,3], dilations=[2,2], pads=[2,2,2,2], count_include_pad=1>", [_IMAGE]),
    ("AveragePool<kernel_shape=[3]>", [f(1, 2, 7)]),
    ("AveragePool<kernel_shape=[2,2,3], strides=[1,2,1]>", [f(1, 2, 4, 5, 6)]),
    ("MaxPool<kernel_shape=[13,13], pads=[6,6,6,6]>", [_IMAGE]),
    ("MaxPool<kernel_shape=[2,2,3], strides=[1,2,1]>", [f(1, 2, 4, 5, 6)]),
    ("MaxPool<kernel_shape=[3], pads=[1,1]>", [f(1, 2, 7)]),
    ("MaxPool<kernel_shape=[2,2]>", [u8(1, 2, 5, 6)]),
    ("MaxPool<kernel_shape=[2,2], pads=[1,1,0,0]>", [i8(1, 2, 5, 6)]),
    ("MaxPool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>", [_IMAGE], 2),
    ("MaxPool<kernel_shape=[3,3], pads=[1,1,1,1], storage_order=1>", [_IMAGE], 2),
    ("MaxPool<kernel_shape=[2,2], dilations=[2,2]>", [_IMAGE], 2),
    ("MaxPool<kernel_shape=[2,2], strides=[2,2]>", [np.ones((1, 1, 4, 4), np.float32)], 2),
    ("LpPool<kernel_shape=[2,2], p=3>", [_IMAGE]),
    *((op, [_IMAGE]) for op in ("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool")),
    ("GlobalAveragePool", [f(1, 2, 5)]),
    ("GlobalLpPool<p=1>", [f(1, 2, 3, 4, 5)]),
    ("MaxUnpool<kernel_shape=[2,2], strides=[2,2]>", [f(1, 1, 2, 2), v([[[5, 7], [13, 15]]])]),
    ("MaxUnpool<kernel_shape=[2,2], strides=[2,2]>", [f(1, 1, 2, 2), v([[[5, 7], [13, 15]]]), v(1, 1, 5, 5)]),
    *(
        (f"RoiAlign<output_height=3, output_width=2, {rest}>",
         [f(2, 3, 12, 10), fv(*[[0, 0, 9, 9], [1.5, 2, 6.7, 8.1], [-3, -2, 4, 30], [5, 5, 5.2, 5.1]]), v(0, 1, 1, 0)])
        for rest in (
            "sampling_ratio=2", "sampling_ratio=0", "sampling_ratio=3, spatial_scale=0.5",
            'sampling_ratio=2, coordinate_transformation_mode="output_half_pixel"',
        )
    ),
    ("MaxRoiPool<pooled_shape=[2,3]>", [f(2, 3, 8, 8), fv(*[[0, 0, 0, 5, 5], [1, 2, 1, 7, 6], [1, 3, 3, 3, 3]])]),
    ("MaxRoiPool<pooled_shape=[2,2], spatial_scale=0.5>", [f(1, 3, 8, 8), fv(*[[0, 1, 1, 15, 11]])]),
]  # fmt: skip

_P = [f(3), f(3), f(3), f(3, low=0.5, high=2)]
NORMALIZATION: list[tuple[Any, ...]] = [
    ("BatchNormalization", [_IMAGE, *_P]),
    ("BatchNormalization<epsilon=0.01>", [f(4, 3), *_P]),
    ("BatchNormalization", [f(2, 3, 4, 5, 2), *_P]),
    ("BatchNormalization<training_mode=1, momentum=0.7>", [_IMAGE, *_P], 3),
    ("InstanceNormalization", [_IMAGE, f(3), f(3)]),
    ("InstanceNormalization<epsilon=0.1>", [f(1, 3, 7), f(3), f(3)]),
    ("GroupNormalization<num_groups=2>", [f(2, 4, 5, 3), f(4), f(4)]),
    ("GroupNormalization<num_groups=4, epsilon=0.01>", [f(2, 4, 6), f(4), f(4)]),
    ("LayerNormalization", [f(2, 3, 8), f(8), f(8)], 3),
    ("LayerNormalization<axis=1, epsilon=0.01>", [f(2, 3, 8), f(3, 8)]),
    ("LayerNormalization<axis=-2>", [f(2, 3, 8), f(3, 8), f(3, 8)]),
    ("LayerNormalization", [h(2, 3, 8), h(8), h(8)]),
    ("LRN<size=3>", [f(1, 7, 3, 3)]),
    ("LRN<size=5, alpha=0.2, beta=0.5, bias=2.0>", [f(1, 7, 3, 3)]),
    ("LpNormalization", [f(2, 3, 4)]),
    ("LpNormalization<axis=1, p=1>", [f(2, 3, 4)]),
    ("MeanVarianceNormalization", [_IMAGE]),
    ("MeanVarianceNormalization<axes=[1,-1]>", [_IMAGE]),
    ("Dropout", [f(3, 4)], 2),
    ("Dropout", [f(3, 4), s(0.5)]),
]  # fmt: skip

SHAPES: list[tuple[Any, ...]] = [
    ("Shape", [f(2, 3, 4)]), ("Shape<start=1>", [f(2, 3, 4)]), ("Shape<start=-2, end=-1>", [f(2, 3, 4)]),
    ("Shape<start=2, end=1>", [f(2, 3, 4)]), ("Shape<end=9>", [f(2, 3, 4)]), ("Shape", [s(1)]), ("Size", [f(2, 3, 4)]),
    ("Reshape", [f(2, 3, 4), v(4, -1)]), ("Reshape", [f(2, 3, 4), v(0, 0, -1, 2)]), ("Reshape", [f(1), v()]),
    ("Reshape<allowzero=1>", [E64, v(0, 7)]), ("Reshape", [E64, v(2, 0, 3)]),
    *((f"Flatten<axis={axis}>", [f(2, 3, 4)]) for axis in (0, 1, 2, 3, -1, -3)),
    ("Squeeze", [f(1, 3, 1, 2)]), ("Squeeze", [f(1, 3, 1, 2), v(-2)]), ("Squeeze", [f(1, 3, 1, 2), v(0, 2)]),
    ("Unsqueeze", [f(3, 2), v(0, -1)]), ("Unsqueeze", [f(3, 2), v(3, 0)]), ("Unsqueeze", [s(2), v(0)]),
    ("Transpose", [f(2, 3, 4)]), ("Transpose<perm=[1,2,0]>", [f(2, 3, 4)]), ("Transpose", [s(1)]),
    ("Concat<axis=1>", [f(2, 3), f(2, 1), f(2, 0)]), ("Concat<axis=-2>", [f(2, 3), f(1, 3)]),
    ("Split<num_outputs=3>", [f(7, 2)], 3), ("Split<axis=-1>", [f(2, 5), v(1, 0, 4)], 3),
    ("Split<num_outputs=2, axis=1>", [f(2, 6)], 2),
    ("Slice", [f(5, 6), v(1, 2), v(4, 5)]), ("Slice", [f(5, 6), v(-3), v(-1), v(-1)]),
    ("Slice", [f(5, 6), v(-1), v(-100), v(0), v(-1)]), ("Slice", [f(5, 6), v(4), v(0), v(1), v(-2)]),
    ("Slice", [f(5, 6), v(0), v(2**63 - 1), v(1), v(3)]), ("Slice", [f(5, 6), v(9), v(12), v(0)]),
    ("Slice", [f(5, 6), v(100, -100), v(-(2**63), 100), v(1, 0), v(-1, 1)]), ("Slice", [f(5, 6), v(3), v(2), v(0)]),
    ("Slice", [f(5), v(0, dtype=np.int32), v(3, dtype=np.int32)]),
    ("Expand", [f(3, 1), v(2, 1, 4)]), ("Expand", [f(3, 1), v(1)]), ("Expand", [s(2), v(2, 0)]),
    ("Tile", [f(2, 3), v(2, 1)]), ("Tile", [f(2, 3), v(0, 2)]),
    ("Pad", [f(2, 3), v(0, 1, 2, 0)]), ("Pad", [f(2, 3), v(0, 1, 2, 0), s(7)]), ("Pad", [f(2, 3), v(1, 2), None, v(-1)]),
    ("Pad", [f(4, 5), v(-1, 2, 1, -2)]), ("Pad", [n(2, 3, dtype=np.int32), v(0, 1, 2, 0), s(3, np.int32)]),
    *((f'Pad<mode="{mode}">', [f(1, 2, 5, 6), v(0, 0, 2, 3, 0, 0, 1, 4)]) for mode in ("reflect", "edge", "wrap")),
    *((f'Pad<mode="{mode}">', [f(4, 5), v(-1, 2, 1, 0)]) for mode in ("reflect", "edge")),
    *((f'DepthToSpace<blocksize=2, mode="{mode}">', [f(2, 8, 2, 3)]) for mode in ("DCR", "CRD")),
    ("SpaceToDepth<blocksize=2>", [f(2, 3, 4, 6)]),
    ("ReverseSequence", [f(4, 3, 2), v(4, 2, 1)]), ("ReverseSequence<batch_axis=0, time_axis=1>", [f(3, 4), v(4, 1, 3)]),
    ("CenterCropPad", [f(5, 4), v(3, 7)]), ("CenterCropPad<axes=[-1]>", [f(5, 4), v(3)]),
    ("Trilu", [f(2, 4, 5)]), ("Trilu<upper=0>", [f(4, 4), s(1, np.int64)]), ("Trilu", [f(4, 4), s(-2, np.int64)]),
]  # fmt: skip

_REDUCERS = words("L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare")
REDUCTIONS: list[tuple[Any, ...]] = [
    *((f"Reduce{name}", [f(2, 3, 4, low=0.5)]) for name in _REDUCERS),
    *((f"Reduce{name}<keepdims=0>", [f(2, 3, 4, low=0.5), v(-1, 0)]) for name in _REDUCERS),
    *((f"Reduce{name}", [f(2, 3, 4, low=0.5), v(1)]) for name in _REDUCERS),
    *((f"Reduce{name}<noop_with_empty_axes=1>", [f(2, 3, low=0.5), v()]) for name in ("Sum", "Mean", "Max", "Prod")),
    *((f"Reduce{name}", [f(2, 3, low=0.5), v()]) for name in ("Sum", "Mean", "Max")),
    *((f"Reduce{name}", [n(2, 3, 4, dtype=np.int32), v(1)]) for name in ("Sum", "Max", "Min", "Mean", "Prod")),
    *((f"Reduce{name}", [E64, v(1)]) for name in ("Sum", "Prod", "L1")),
    ("ReduceSum", [s(3.0)]),
    ("ReduceLogSumExp", [f(2, 3, low=80, high=3000), v(1)]),
    *((f"{op}<axis={axis}>", [f(3, 4)]) for op in ("ArgMax", "ArgMin") for axis in (0, -1)),
    *(
        (f"{op}<keepdims=0, select_last_index=1>", [v([1, 2, 1], [2, 2, 1], [0, 0, 1], dtype=np.int32)])
        for op in ("ArgMax", "ArgMin")
    ),
    ("CumSum", [f(3, 4), s(1, np.int64)]), ("CumSum<exclusive=1>", [f(3, 4), s(-1, np.int64)]),
    ("CumSum<reverse=1>", [f(3, 4), s(0, np.int64)]), ("CumSum<reverse=1, exclusive=1>", [n(3, 4), s(0, np.int64)]),
    ("TopK", [f(3, 7), v(3)], 2), ("TopK<largest=0, axis=0>", [f(7, 3), v(2)], 2), ("TopK", [f(3, 7), v(0)], 2),
    ("TopK", [v([3, 1, 3, 2, 3]), v(4)], 2), ("TopK<largest=0>", [v([3, 1, 3, 2, 1]), v(4)], 2),
]  # fmt: skip

_BOXES = np.concatenate([f(1, 12, 2, low=0, high=1), f(1, 12, 2, low=0, high=1)], axis=-1)
INDEXING: list[tuple[Any, ...]] = [
    ("Gather", [f(4, 5), v(0, -1, 2)]), ("Gather<axis=-1>", [f(4, 5), v([0, 4], [1, 1])]), ("Gather", [f(4, 5), s(2, np.int64)]),
    ("GatherElements", [f(3, 4), v([0, -1], [2, 1])]), ("GatherElements<axis=1>", [f(3, 4), n(3, 2, low=-4, high=4)]),
    ("GatherND", [f(2, 3, 4), v([0, 1], [1, -1])]), ("GatherND<batch_dims=1>", [f(2, 3, 4), v([1], [2])]),
    ("GatherND", [f(2, 3), v([[0, 1], [1, 2]], [[1, 0], [0, 0]])]),
    ("ScatterElements<axis=1>", [f(3, 4), v([0, 3], [1, -1], [2, 0]), f(3, 2)]),
    *((f'ScatterElements<reduction="{how}">', [f(3, 4), v([0, 2], [0, 1]), f(2, 2)]) for how in ("add", "mul", "max", "min")),
    ("ScatterND", [f(4, 3), v([1], [-1]), f(2, 3)]), ("ScatterND", [f(4, 3), v([1, 2], [0, 0]), f(2)]),
    *((f'ScatterND<reduction="{how}">', [f(4, 3), v([1], [1]), f(2, 3)]) for how in ("add", "mul", "max", "min")),
    ("Compress<axis=1>", [f(3, 4), v(1, 0, 1, dtype=bool)]), ("Compress", [f(3, 2), v(0, 1, 1, 0, 1, dtype=bool)]),
    ("NonZero", [n(3, 4, low=0, high=2)]), ("NonZero", [np.zeros((2, 2), np.float32)]),
    ("OneHot", [v(0, 2, -1, 9), s(3, np.int64), fv(0.5, 2)]), ("OneHot<axis=0>", [v([0, 1], [2, 2]), v(4), v(0, 1)]),
    ("Unique", [v(2, 1, 1, 3, 2)], 4), ("Unique<sorted=0>", [fv(2, 1, 1, 3, 2)], 4),
    ("Unique<axis=0>", [fv([1, 0], [1, 0], [0, 3])], 4),
    ("NonMaxSuppression", [_BOXES, f(1, 2, 12, low=0), s(4, np.int64), s(0.3), s(0.2)]),
    ("NonMaxSuppression<center_point_box=1>", [_BOXES, f(1, 1, 12, low=0), s(9, np.int64), s(0.1)]),
    ("NonMaxSuppression", [_BOXES, f(1, 2, 12)]),
]  # fmt: skip

CREATE: list[tuple[Any, ...]] = [
    ("Constant<value_float=2.5>", []), ("Constant<value_ints=[1,2]>", []), ("Constant<value_floats=[1.0,2.0]>", []),
    ("Constant<value_int=3>", []), ("Constant<value=float[2]{1.0,2.0}>", []),
    ("ConstantOfShape", [v(2, 3)]), ("ConstantOfShape<value=int64[1]{7}>", [v(0, 3)]), ("ConstantOfShape", [v()]),
    ("Range", [s(1, np.int64), s(10, np.int64), s(3, np.int64)]),
    ("Range", [s(3), s(-1), s(-0.5)]), ("Range", [s(3), s(1), s(1)]),
    ("EyeLike", [f(3, 4)]), ("EyeLike<k=-1, dtype=7>", [f(3, 4)]),
    *((op, [s(9, np.int64)]) for op in ("HannWindow", "HammingWindow", "BlackmanWindow")),
    *((f"{op}<periodic=0>", [s(8, np.int64)]) for op in ("HannWindow", "HammingWindow", "BlackmanWindow")),
    ("MelWeightMatrix", [s(8, np.int64), s(64, np.int64), s(8000, np.int64), s(0.0), s(4000.0)]),
    ("DFT", [f(2, 8, 1), None, s(1, np.int64)]), ("DFT<onesided=1>", [f(2, 8, 1), s(8, np.int64), s(1, np.int64)]),
    ("DFT<inverse=1>", [f(2, 8, 2), None, s(1, np.int64)]), ("DFT", [f(2, 6, 2), s(8, np.int64), s(1, np.int64)]),
    ("STFT", [f(1, 32, 1), s(4, np.int64), f(16), s(16, np.int64)]), ("STFT<onesided=0>", [f(2, 32, 1), s(8, np.int64), f(16)]),
]  # fmt: skip

_SIZES = [f(1, 2, 5, 7), None, None]
RESIZE: list[tuple[Any, ...]] = [
    *(
        (f'Resize<mode="{mode}", coordinate_transformation_mode="{how}">', [*_SIZES, v(1, 2, high, wide)])
        for mode in ("linear", "nearest", "cubic")
        for how in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
        for high, wide in ((10, 14), (3, 4), (1, 20))
    ),
    *(
        (f'Resize<mode="nearest", coordinate_transformation_mode="{how}", nearest_mode="{rounding}">',
         [*_SIZES[:2], fv(1, 1, *by)])
        for how in ("half_pixel", "asymmetric", "align_corners")
        for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
        for by in ((2, 2), (0.6, 1.7))
    ),
    ('Resize<mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1>', [*_SIZES[:2], fv(1, 1, 2.3, 0.7)]),
    *((f'Resize<mode="{mode}", antialias=1>', [*_SIZES, v(1, 2, 3, 4)]) for mode in ("linear", "cubic")),
    *((f'Resize<mode="{mode}", antialias=1>', [*_SIZES, v(1, 2, 9, 15)]) for mode in ("linear", "cubic")),
    ('Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=9.0>',
     [f(1, 1, 5, 7), fv(0, 0, 0.1, -0.2, 1, 1, 0.8, 1.3), None, v(1, 1, 4, 6)]),
    ('Resize<mode="linear", axes=[2,3], keep_aspect_ratio_policy="not_larger">', [*_SIZES, v(9, 9)]),
    ('Resize<mode="linear", axes=[3,2], keep_aspect_ratio_policy="not_smaller">', [*_SIZES, v(9, 9)]),
    ('Resize<mode="linear">', [f(1, 2, 4, 5, 6), None, fv(1, 1, 2, 1.5, 0.5)]),
    ('Resize<mode="linear">', [f(1, 2, 5), None, fv(1, 1, 3)]),
    ('Resize<mode="linear">', [u8(1, 1, 4, 4), None, fv(1, 1, 2, 2)]),
    *(
        (f'GridSample<mode="{mode}", padding_mode="{padding}", align_corners={corners}>',
         [f(2, 3, 5, 6), f(2, 4, 7, 2, low=-1.6, high=1.6)])
        for mode in ("linear", "nearest", "cubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (0, 1)
    ),
    ("GridSample", [f(1, 2, 3, 4, 5), f(1, 2, 3, 4, 3, low=-1.2, high=1.2)]),
    ("AffineGrid", [f(2, 2, 3), v(2, 3, 4, 5)]), ("AffineGrid<align_corners=1>", [f(1, 3, 4), v(1, 1, 2, 3, 4)]),
]  # fmt: skip

_XQ = [u8(1, 4, 6, 6), s(0.02), zp(120)]
_WQ = [w8(6, 4, 3, 3), f(6, low=0.01, high=0.03), np.zeros(6, np.int8)]
QUANTIZED: list[tuple[Any, ...]] = [
    ("QuantizeLinear", [f(3, 4), s(0.02), zp(128)]), ("QuantizeLinear", [f(3, 4), s(0.01)]),
    ("QuantizeLinear", [fv(0.5, 1.5, 2.5, -0.5, 1e9, -1e9), s(1.0), zp(3, np.int8)]),
    ("QuantizeLinear<axis=0>", [f(3, 4), fv(0.01, 0.02, 0.05), v(-3, 0, 9, dtype=np.int8)]),
    ("QuantizeLinear<axis=-1>", [f(2, 3), fv(0.01, 0.02, 0.05), v(3, 0, 9, dtype=np.uint16)]),
    ("QuantizeLinear<axis=1, block_size=2>", [f(3, 4), f(3, 2, low=0.01, high=0.1), i8(3, 2)]),
    ("QuantizeLinear<output_dtype=3>", [f(3, 4), s(0.03)]), ("QuantizeLinear", [h(3, 4), s(0.02, np.float16), zp(128)]),
    ("DequantizeLinear", [u8(3, 4), s(0.02), zp(128)]), ("DequantizeLinear", [i8(3, 4), s(0.02)]),
    ("DequantizeLinear<axis=0>", [i8(3, 4), f(3), i8(3)]), ("DequantizeLinear<axis=-1>", [u8(3, 4), f(4), u8(4)]),
    ("DequantizeLinear", [n(3, 4, dtype=np.int32), s(0.001)]), ("DequantizeLinear<axis=0>", [n(3, 4, dtype=np.int32), f(3)]),
    ("DequantizeLinear<axis=0, block_size=2>", [i8(4, 3), f(2, 3), i8(2, 3)]),
    ("DequantizeLinear", [u8(3, 4), s(0.02, np.float16), zp(128)]),
    ("DynamicQuantizeLinear", [f(3, 4)], 3), ("DynamicQuantizeLinear", [f(3, 4, low=1)], 3),
    ("DynamicQuantizeLinear", [np.zeros(3, np.float32)], 3),
    ("MatMulInteger", [u8(3, 40), w8(40, 5)]), ("MatMulInteger", [u8(2, 3, 4), u8(4, 5), zp(12), zp(200)]),
    ("MatMulInteger", [u8(3, 4), w8(4, 5), zp(12), i8(5)]),
    ("ConvInteger<pads=[1,1,1,1]>", [u8(1, 4, 6, 6), u8(6, 4, 3, 3), zp(7), zp(130)]),
    ("ConvInteger", [u8(1, 4, 6, 6), u8(6, 4, 3, 3)]),
    ("QLinearConv<pads=[1,1,1,1]>", [*_XQ, *_WQ, s(0.5), zp(110), n(6, low=-5000, high=5000, dtype=np.int32)]),
    ("QLinearConv<group=2, strides=[2,2]>", [*_XQ, w8(6, 2, 3, 3), s(0.02), zp(0, np.int8), s(0.4), zp(128)]),
    ("QLinearMatMul", [u8(3, 8), s(0.02), zp(99), w8(8, 5), s(0.03), zp(0, np.int8), s(0.1), zp(128)]),
    ("QLinearMatMul", [u8(2, 3, 8), s(0.02), zp(99), w8(8, 5), f(5, low=0.01, high=0.1), i8(5), s(0.1), zp(128)]),
]  # fmt: skip


def _recurrent(
    op: str, gates: int, attributes: str, *, extra: Inputs = (), both: bool = False, layout: int = 0
) -> tuple[Any, ...]:
    t, b, i, hidden, d = 5, 3, 4, 6, 2 if both else 1
    x = f(b, t, i) if layout else f(t, b, i)
    weights = [
        f(d, gates * hidden, i, low=-0.5, high=0.5),
        f(d, gates * hidden, hidden, low=-0.5, high=0.5),
        f(d, 2 * gates * hidden),
    ]
    attributes = f"hidden_size={hidden}, layout={layout}" + (f", {attributes}" if attributes else "")
    return f"{op}<{attributes}>", [x, *weights, *extra], 3 if op == "LSTM" else 2


_LENGTHS = v(5, 2, 3, dtype=np.int32)
RECURRENT: list[tuple[Any, ...]] = [
    *(
        _recurrent(op, gates, f'direction="{direction}"', both=direction == "bidirectional", extra=[lengths])
        for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))
        for direction in ("forward", "reverse", "bidirectional")
        for lengths in (None, _LENGTHS)
    ),
    *(_recurrent(op, gates, "", extra=[None, f(1, 3, 6)]) for op, gates in (("RNN", 1), ("GRU", 3))),
    *(_recurrent(op, gates, "clip=0.6", extra=[]) for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))),
    _recurrent("GRU", 3, "linear_before_reset=1"),
    _recurrent("GRU", 3, 'linear_before_reset=1, direction="bidirectional"', both=True, extra=[_LENGTHS, f(2, 3, 6)]),
    _recurrent("GRU", 3, 'activations=["HardSigmoid","Softsign"]'),
    _recurrent("LSTM", 4, "", extra=[None, f(1, 3, 6), f(1, 3, 6)]),
    _recurrent("LSTM", 4, "", extra=[_LENGTHS, f(1, 3, 6), f(1, 3, 6), f(1, 18)]),
    _recurrent("LSTM", 4, 'direction="bidirectional"', both=True, extra=[_LENGTHS, f(2, 3, 6), f(2, 3, 6), f(2, 18)]),
    _recurrent("LSTM", 4, "input_forget=1"),
    _recurrent("LSTM", 4, 'activations=["HardSigmoid","Relu","LeakyRelu"], activation_alpha=[0.3,0.1], activation_beta=[0.4]'),
    _recurrent("RNN", 1, 'activations=["Affine"], activation_alpha=[0.3], activation_beta=[0.1]'),
]  # fmt: skip

CASES = [
    *ELEMENTWISE, *ACTIVATIONS, *LINEAR, *CONVOLUTIONS, *POOLING, *NORMALIZATION, *SHAPES, *REDUCTIONS, *INDEXING, *CREATE,
    *RESIZE, *QUANTIZED, *RECURRENT,
]  # fmt: skip


def _id(case: tuple[Any, ...]) -> str:
    shapes = ",".join("-" if x is None else f"{x.dtype.name}{list(x.shape)}" for x in case[1])
    return f"{case[0]}({shapes})".replace(" ", "")


def make_model(node_text: str, inputs: Inputs, outputs: int = 1) -> onnx.ModelProto:
    """A network of one node with inputs x0, x1, ... and outputs y0, y1, ..."""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    op, attributes = re.fullmatch(r"(\w+)(<.*>)?", node_text).groups()  # type: ignore[union-attr]
    results = [f"y{i}" for i in range(outputs)]
    arguments = ", ".join(name or '""' for name in names)
    node = onnx.parser.parse_node(f"{', '.join(results)} = {op} {attributes or ''} ({arguments})")
    feeds = [
        onnx.helper.make_tensor_value_info(name, int(ir.DataType.from_numpy(x.dtype)), x.shape)
        for name, x in zip(names, inputs, strict=True)
        if x is not None
    ]
    graph = onnx.helper.make_graph([node], "one", feeds, [onnx.helper.make_empty_tensor_value_info(r) for r in results])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)


def run_reference(model: onnx.ModelProto, feeds: dict[str, Any], folder: Path) -> list[Any]:
    """All outputs, through the plugin as it is opened for a bundle."""
    onnx.save(model, folder / "model.onnx")
    return list(reference.open(SimpleNamespace(path=folder), threads=1).run(feeds).values())  # type: ignore[arg-type]


def run_onnxruntime(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    """All outputs, without graph optimizations: operator by operator."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def difference(got: Any, want: Any, table: dict[str, dict[str, float]]) -> str | None:
    """How `got` is not `want`, within the tolerance of its type; integers must be equal. None where it is."""
    if isinstance(want, list):
        if not isinstance(got, list) or len(got) != len(want):
            return f"{got!r} is not a sequence of {len(want)}"
        return next(filter(None, (difference(a, b, table) for a, b in zip(got, want, strict=True))), None)
    if want is None:
        return None if got is None else "a value instead of none"
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    if got.dtype.kind in "biuSO" or got.dtype.itemsize == 1:
        same = got == want
    else:
        limits = table["float32" if got.dtype.itemsize >= 4 else "float16"]
        a, b = got.astype(np.complex128), want.astype(np.complex128)
        with np.errstate(invalid="ignore"):  # infinities
            same = np.isclose(a, b, rtol=limits["rtol"], atol=limits["atol"], equal_nan=True)
    return (
        None if same.all() else f"{(~same).sum()} of {same.size} differ: {got[~same][:4]} instead of {want[~same][:4]}"
    )


@pytest.mark.parametrize("case", CASES, ids=_id)
def test_operator_equals_onnxruntime(
    case: tuple[Any, ...], tmp_path: Path, tolerance: dict[str, dict[str, float]]
) -> None:
    model = make_model(*case)
    feeds = {f"x{i}": x for i, x in enumerate(case[1]) if x is not None}
    got, want = run_reference(model, feeds, tmp_path), run_onnxruntime(model, feeds)
    for index, (a, b) in enumerate(zip(got, want, strict=True)):
        assert difference(a, b, tolerance) is None, f"output {index}"


#: Whole graphs: control flow, sequences, functions, narrow types that ONNX Runtime cannot hand out.
GRAPHS: dict[str, tuple[str, dict[str, np.ndarray]]] = {
    **{
        f"{kind}, saturate {saturate}": (
            f"g (float[8] x) => (float[8] y) {{ t = Cast<to={to}, saturate={saturate}>(x) y = Cast<to=1>(t) }}",
            {"x": fv(0, 1, -2, 300, 1e-3, 500, -1e6, 0.17)},
        )
        for kind, to in (("bfloat16", 16), ("e4m3fn", 17), ("e4m3fnuz", 18), ("e5m2", 19), ("e5m2fnuz", 20))
        for saturate in ((1,) if to == 16 else (0, 1))
    },
    "int4": (
        "g (float[3,4] x) => (float[3,4] y) { s = Constant<value=float[1]{0.5}>() r = Reshape(s, e) z = Cast<to=22>(o)"
        " q = QuantizeLinear(x, r, z) y = DequantizeLinear(q, r, z) }",
        {"x": f(3, 4, low=-9, high=9)},
    ),
    **{
        f"if {value}": (
            "g (bool c, float[2] x) => (float[2] y, float[2] z) { w = Neg(x) y, z = If(c) <"
            "then_branch = a () => (float[2] p, float[2] q) { p = Add(x, w) q = Identity(x) },"
            "else_branch = b () => (float[2] p, float[2] q) { p = Mul(x, w) q = Identity(w) }> }",
            {"c": np.array(value), "x": f(2)},
        )
        for value in (True, False)
    },
    **{
        f"loop {trips}": (
            "g (int64 n, bool c, float[2] x) => (float[2] y, float[k, 2] all, int64[k] turns) { y, all, turns = Loop(n, c, x) <"
            "body = b (int64 i, bool go, float[2] s) => (bool on, float[2] t, float[2] u, int64 j)"
            " { d = Add(s, x) l = Constant<value_float=20.0>() r = ReduceMax<keepdims=0>(d) on = Less(r, l)"
            " t = Mul(d, d) u = Sub(t, s) j = Add(i, i) }> }",
            {"n": s(trips, np.int64), "c": np.array(True), "x": fv(0.6, -0.4)},
        )
        for trips in (0, 1, 3, 100)
    },
    "scan": (
        "g (float[2] h, float[4,3] x, float[2,4] z) => (float[2] y, float[2,4] a, float[4,2] b) { y, a, b = Scan<"
        "num_scan_inputs=2, scan_input_axes=[0,-1], scan_input_directions=[1,0], scan_output_axes=[1,0],"
        "scan_output_directions=[0,1], body = t (float[2] s, float[3] u, float[2] v) => (float[2] n, float[2] p, float[2] q)"
        " { r = ReduceSum<keepdims=0>(u) k = Mul(s, r) n = Add(k, v) p = Identity(n) q = Neg(n) }>(h, x, z) }",
        {"h": f(2), "x": f(4, 3), "z": f(2, 4)},
    ),
    "sequence": (
        "g (float[5,2] x, int64 i) => (float[m,2] y, int64 n, float[k,2] e) { q = SplitToSequence<axis=0>(x, t)"
        " r = SequenceErase(q, i) u = SequenceInsert(r, x) v = SequenceAt(u, i) y = ConcatFromSequence<axis=0>(u)"
        " n = SequenceLength(u) e = Identity(v) }",
        {"x": f(5, 2), "i": s(-2, np.int64)},
    ),
    "function": (
        "g (float[4] x) => (float[4] y, float[4] z) { y = own.Scaled<factor=2.5>(x, x) z = own.Scaled(x) }",
        {"x": f(4)},
    ),
}  # fmt: skip
_INITIALIZERS = {"int4": "<int64[0] e = {}, int8 o = {1}>", "sequence": "<int64 t = {2}>"}
_FUNCTION = """<domain: "own", opset_import: ["" : 21]>
Scaled <factor: float = 0.5> (x, w) => (y) {
    f = Constant<value_float: float = @factor>() m = Mul(x, f) y = Elu<alpha: float = @factor>(m) }"""


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_equals_onnxruntime(name: str, tmp_path: Path, tolerance: dict[str, dict[str, float]]) -> None:
    text, feeds = GRAPHS[name]
    head, body = text.split("{", 1)
    header = '<ir_version: 10, opset_import: ["" : 21, "own" : 1]>'
    functions = _FUNCTION if name == "function" else ""
    model = onnx.parser.parse_model(f"{header} {head} {_INITIALIZERS.get(name, '')} {{{body} {functions}")
    for a, b in zip(run_reference(model, feeds, tmp_path), run_onnxruntime(model, feeds), strict=True):
        assert difference(a, b, tolerance) is None


# --- shapes at the edges --------------------------------------------------------------------------------------------


@st.composite
def window_cases(draw: st.DrawFn) -> tuple[str, list[np.ndarray]]:
    """Convolutions and pools whose kernel is just smaller, as large as, or just larger than the padded input."""
    op = draw(st.sampled_from(("Conv", "ConvTranspose", "MaxPool", "AveragePool")))
    kernel = draw(st.lists(st.integers(1, 4), min_size=1, max_size=2))
    rank = len(kernel)
    dilations = [draw(st.integers(1, 2)) for _ in kernel]
    strides = [draw(st.integers(1, 4)) for _ in kernel]
    pads = [draw(st.integers(0, kernel[i % rank] - 1)) for i in range(2 * rank)]
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    # A pool's window that does not fit is refused here; ONNX Runtime may cut the division towards 0 and pass it.
    more = st.sampled_from((-1, 0, 1, 5) if op.startswith("Conv") else (0, 1, 5))
    sizes = [max(1, e - pads[i] - pads[rank + i] + draw(more)) for i, e in enumerate(extents)]
    attributes = f"strides={strides}, dilations={dilations}, pads={pads}"
    fits = all(n + pads[i] + pads[rank + i] >= e for i, (n, e) in enumerate(zip(sizes, extents, strict=True)))
    batch, channels, group = draw(st.integers(0 if fits else 1, 2)), draw(st.sampled_from((1, 2, 4))), 1
    if op.startswith("Conv"):
        group = draw(st.sampled_from([g for g in (1, 2, 4) if channels % g == 0]))
        filters = group * draw(st.integers(1, 3))
        shape = (filters, channels // group) if op == "Conv" else (channels, filters // group)
        return f"{op}<{attributes}, group={group}>", [f(batch, channels, *sizes), f(*shape, *kernel), f(filters)]
    attributes += f", kernel_shape={kernel}, ceil_mode={draw(st.integers(0, 1))}"
    if op == "AveragePool":
        attributes += f", count_include_pad={draw(st.integers(0, 1))}"
    return f"{op}<{attributes}>", [f(batch, channels, *sizes)]


def compare_window(
    case: tuple[str, list[np.ndarray]], folder: Path, table: dict[str, dict[str, float]]
) -> Literal["equal", "refused"]:
    """Both refuse, or both agree."""
    model = make_model(*case)
    feeds = {f"x{i}": x for i, x in enumerate(case[1])}
    try:
        want = run_onnxruntime(model, feeds)
    except Exception:  # ONNX Runtime has many kinds; what it refuses must be refused here too
        with pytest.raises(EdgewrightError):
            run_reference(model, feeds, folder)
        return "refused"
    # A window that sees only padding: ONNX Runtime has the lowest finite number instead of minus infinity.
    expected = np.where(want[0] == np.finfo(np.float32).min, -np.inf, want[0]).astype(np.float32)
    assert difference(run_reference(model, feeds, folder)[0], expected, table) is None
    return "equal"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(case=window_cases())
def test_window_shapes_equal_onnxruntime(
    case: tuple[str, list[np.ndarray]], tmp_path_factory: Any, tolerance: dict[str, dict[str, float]]
) -> None:
    compare_window(case, tmp_path_factory.getbasetemp(), tolerance)
