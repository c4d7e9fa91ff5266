"""Small networks with binary layers, as `lower_binary` writes them: weights packed, batch-norms beside them."""

from __future__ import annotations

import re

import numpy as np

from edgewright.model import Model
from edgewright.ops import functions, packing

HEADER = '<ir_version: 10, opset_import: ["" : 21, "edgewright" : 1]>'
_WINDOW = "group = {group}, strides = [{stride}, {stride}], dilations = [1, 1], pads = [1, 1, 1, 1], pad_value = {pad}"

#: A stem, a block that keeps its size, one that halves it with a float shortcut, signs after signs, a binary linear layer.
BIREAL = f"""{HEADER} net (float[N,3,20,17] x, float[8,3,7,7] w_stem, float[8] w_g, float[8] w_b, float[8] w_m, float[8] wp_v,
        float[1] zero, signs[8,3,3,8] b_1, float[8] w_s1, float[8] w_t1, float[8,1,1] w_p1, signs[24,3,3,8] b_2, float[24] w_s2,
        float[24] w_t2, float[24,8,1,1] w_down, float[24] w_downb, float[24,1,1] w_p2, float[24] w_limit, signs[40,3,3,12] b_3,
        int[40] i_3, bool[40] f_3, signs[70,3,3,40] b_4, float[70] w_s4, float[70] w_t4, signs[9,70] b_5, float[9] w_s5,
        float[9] w_t5, float[5,9] w_fc, float[5] w_fcb) => (float[N,5] y)
{{
    c = Conv <strides = [2, 2], pads = [3, 3, 3, 3]> (x, w_stem)
    n = BatchNormalization (c, w_g, w_b, w_m, wp_v)
    p = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (n)
    s1 = edgewright.PackSigns (p, zero)
    d1 = edgewright.BinaryConv <channels = [8], {_WINDOW.format(group=1, stride=1, pad="1.0")}> (s1, b_1, w_s1, w_t1)
    a1 = Add (d1, p)
    r1 = PRelu (a1, w_p1)
    s2 = edgewright.PackSigns (r1, zero)
    d2 = edgewright.BinaryConv <channels = [8], {_WINDOW.format(group=1, stride=2, pad="-1.0")}> (s2, b_2, w_s2, w_t2)
    m2 = AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (r1)
    h2 = Conv (m2, w_down, w_downb)
    a2 = Add (h2, d2)
    r2 = PRelu (a2, w_p2)
    s3 = edgewright.PackSigns (r2, w_limit)
    s4 = edgewright.BinaryConvSigns <channels = [24], {_WINDOW.format(group=2, stride=1, pad="1.0")}> (s3, b_3, i_3, f_3)
    d4 = edgewright.BinaryConv <channels = [40], {_WINDOW.format(group=1, stride=1, pad="1.0")}> (s4, b_4, w_s4, w_t4)
    lo = Constant <value_float = -1.0> ()
    hi = Constant <value_float = 1.0> ()
    t4 = Clip (d4, lo, hi)
    g = GlobalAveragePool (t4)
    f = Flatten (g)
    s5 = edgewright.PackSigns (f, zero)
    d5 = edgewright.BinaryLinear <channels = [70]> (s5, b_5, w_s5, w_t5)
    y = Gemm <transB = 1> (d5, w_fc, w_fcb)
}}"""


def binary_model(text: str, seed: int = 0) -> Model:
    """The network that `text` describes; its inputs called w_... are weights, i_... thresholds, f_... flags, b_... signs.

    The last size of signs counts channels.
    """
    import onnx_ir as ir

    rng = np.random.default_rng(seed)
    model = ir.from_onnx_text(re.sub(r"signs\[([\d,]+),(\d+)\]", _packed, text).replace("int[", "int32["))
    for value in list(model.graph.inputs):
        name, shape = str(value.name), [int(size) if isinstance(size, int) else 1 for size in value.shape or ()]
        if name.startswith("b_"):
            channels = int(re.search(rf"signs\[[\d,]+,(\d+)\] {name}\b", text)[1])  # type: ignore[index]
            array = packing.pack_bits(rng.integers(0, 2, (*shape[:-1], channels)).astype(bool))
        elif name == "zero":
            array = np.zeros(1, np.float32)
        elif name.startswith("f_"):
            array = rng.integers(0, 2, shape).astype(bool)
        elif name.startswith("i_"):
            array = rng.integers(-9, 10, shape).astype(np.int32)
        elif name.startswith("w"):
            array = rng.standard_normal(shape) if name[1] == "_" else rng.uniform(0.5, 2, shape)
            array = array.astype(np.float32)
        else:
            continue
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=name)
        model.graph.register_initializer(value)
    functions.attach(model)
    return Model(model, name="binary")


def _packed(match: re.Match[str]) -> str:
    return f"uint8[{match[1]},{packing.bytes_for(int(match[2]))}]"
