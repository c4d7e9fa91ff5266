"""The operators as ONNX functions of standard operators, for runtimes that have no kernels for them.

    PackSigns(x, threshold) -> packed                        x f32[N, C, ...], threshold f32[C] or f32[1]
    BinaryConv(packed, weights, scale, shift) -> y           y f32[N, M, OH, OW]
    BinaryConvSigns(packed, weights, threshold, flip) -> s   s u8[N, OH, OW, bytes of M]
    BinaryLinear(packed, weights, scale, shift) -> y         y f32[N, M]
    BinaryLinearSigns(packed, weights, threshold, flip) -> s s u8[N, bytes of M]

Attributes of the convolutions, all required: channels, group, strides, dilations, pads, and pad_value, 1.0 or -1.0; of the
linear layers: channels. The meaning of each is in `packing` and `binary`. Sums of bits are made in float32, where they are
exact: ONNX Runtime sums int64 in float64 and loses the last bits of a word.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from edgewright.errors import EdgewrightError
from edgewright.ops import DOMAIN
from edgewright.ops.packing import WORD_BITS

if TYPE_CHECKING:
    import onnx_ir as ir

_CONSTANTS = """
    masks = Constant <value = uint8[8] {1, 2, 4, 8, 16, 32, 64, 128}> ()
    last = Constant <value_ints = [-1]> ()
    eight = Constant <value_ints = [8]> ()
    start = Constant <value_ints = [0]> ()
    plus = Constant <value_float = 1.0> ()
    minus = Constant <value_float = -1.0> ()
"""
#: {of}: u8[..., bytes] -> {of}_signs f32[..., C] by {channels}, an int64[1].
_UNPACK = """
    {of}_apart = Unsqueeze ({of}, last)
    {of}_masked = BitwiseAnd ({of}_apart, masks)
    {of}_set = Cast <to = 9> ({of}_masked)
    {of}_all = Where ({of}_set, minus, plus)
    {of}_front = Shape <end = -2> ({of}_all)
    {of}_shape = Concat <axis = 0> ({of}_front, last)
    {of}_joined = Reshape ({of}_all, {of}_shape)
    {of}_signs = Slice ({of}_joined, start, {channels}, last)
"""
#: {of}: bool[..., C] -> {to}: u8[..., bytes].
_PACK = f"""
    zero = Constant <value_float = 0.0> ()
    values = Cast <to = 1> (masks)
    word = Constant <value_ints = [{WORD_BITS}]> ()
    {{of}}_channels = Shape <start = -1> ({{of}})
    {{of}}_minus = Neg ({{of}}_channels)
    {{of}}_rest = Mod ({{of}}_minus, word)
    {{of}}_pads = Concat <axis = 0> (start, {{of}}_rest)
    {{of}}_float = Cast <to = 1> ({{of}})
    {{of}}_padded = Pad ({{of}}_float, {{of}}_pads, zero, last)
    {{of}}_front = Shape <end = -1> ({{of}})
    {{of}}_shape = Concat <axis = 0> ({{of}}_front, last, eight)
    {{of}}_apart = Reshape ({{of}}_padded, {{of}}_shape)
    {{of}}_values = Mul ({{of}}_apart, values)
    {{of}}_sums = ReduceSum <keepdims = 0> ({{of}}_values, last)
    {{to}} = Cast <to = 2> ({{of}}_sums)
"""
_PACK_SIGNS = f"""
PackSigns (x, threshold) => (packed) {{
    {_CONSTANTS}
    flat_shape = Constant <value_ints = [0, 0, -1]> ()
    flat = Reshape (x, flat_shape)
    channels_last = Transpose <perm = [0, 2, 1]> (flat)
    below = Less (channels_last, threshold)
    {_PACK.format(of="below", to="flat_packed")}
    batch = Shape <end = 1> (x)
    places = Shape <start = 2> (x)
    shape = Concat <axis = 0> (batch, places, last)
    packed = Reshape (flat_packed, shape)
}}
"""
_CONV = f"""
    {_CONSTANTS}
    channels = Constant <value_ints: ints = @channels> ()
    group = Constant <value_int: int = @group> ()
    of_group = Div (channels, group)
    {_UNPACK.format(of="packed", channels="channels")}
    {_UNPACK.format(of="weights", channels="of_group")}
    x = Transpose <perm = [0, 3, 1, 2]> (packed_signs)
    kernel = Transpose <perm = [0, 3, 1, 2]> (weights_signs)
    pads = Constant <value_ints: ints = @pads> ()
    pad_value = Constant <value_float: float = @pad_value> ()
    places = Constant <value_ints = [2, 3]> ()
    padded = Pad (x, pads, pad_value, places)
    dots = Conv <group: int = @group, strides: ints = @strides, dilations: ints = @dilations> (padded, kernel)
    beside = Constant <value_ints = [1, 2]> ()
"""
_LINEAR = f"""
    {_CONSTANTS}
    channels = Constant <value_ints: ints = @channels> ()
    {_UNPACK.format(of="packed", channels="channels")}
    {_UNPACK.format(of="weights", channels="channels")}
    kernel = Transpose <perm = [1, 0]> (weights_signs)
    dots = MatMul (packed_signs, kernel)
"""
_CONV_ATTRIBUTES = "<channels, group, strides, dilations, pads, pad_value>"
_BODIES = {
    "PackSigns": _PACK_SIGNS,
    "BinaryConv": f"""
BinaryConv {_CONV_ATTRIBUTES} (packed, weights, scale, shift) => (y) {{
    {_CONV}
    scales = Unsqueeze (scale, beside)
    shifts = Unsqueeze (shift, beside)
    scaled = Mul (dots, scales)
    y = Add (scaled, shifts)
}}
""",
    "BinaryConvSigns": f"""
BinaryConvSigns {_CONV_ATTRIBUTES} (packed, weights, threshold, flip) => (signs) {{
    {_CONV}
    whole = Cast <to = 6> (dots)
    channels_last = Transpose <perm = [0, 2, 3, 1]> (whole)
    under = Less (channels_last, threshold)
    set = Xor (under, flip)
    {_PACK.format(of="set", to="signs")}
}}
""",
    "BinaryLinear": f"""
BinaryLinear <channels> (packed, weights, scale, shift) => (y) {{
    {_LINEAR}
    scaled = Mul (dots, scale)
    y = Add (scaled, shift)
}}
""",
    "BinaryLinearSigns": f"""
BinaryLinearSigns <channels> (packed, weights, threshold, flip) => (signs) {{
    {_LINEAR}
    whole = Cast <to = 6> (dots)
    under = Less (whole, threshold)
    set = Xor (under, flip)
    {_PACK.format(of="set", to="signs")}
}}
""",
}
#: Names of the operators.
OPERATORS = tuple(_BODIES)


@functools.cache
def _text(name: str) -> str:
    return f'<domain: "{DOMAIN}", opset_import: ["" : 21]>\n{_BODIES[name]}'


def function(name: str) -> ir.Function:
    """The body of the operator called `name`, a new object each time.

    Raises:
        EdgewrightError: E101 for a name that is none of `OPERATORS`.
    """
    import onnx
    import onnx_ir as ir

    if name not in _BODIES:
        known = ", ".join(OPERATORS)
        raise EdgewrightError("E101", f"there is no operator `{name}` in the domain {DOMAIN}; there are {known}")
    return ir.from_proto(onnx.parser.parse_function(_text(name)))


def attach(ir_model: ir.Model) -> None:
    """Give the graph the bodies of those of the operators that it uses, and the domain's version."""
    nodes = [node for graph in (ir_model.graph, *ir_model.functions.values()) for node in graph.all_nodes()]
    for name in sorted({node.op_type for node in nodes if node.domain == DOMAIN}):
        made = function(name)
        ir_model.functions.setdefault(made.identifier(), made)
        ir_model.graph.opset_imports[DOMAIN] = 1
