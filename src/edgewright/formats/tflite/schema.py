"""The numbers of the TFLite schema: operators, types, and the slots of the operators' options.

Source: tensorflow/lite/schema/schema.fbs.
"""

from __future__ import annotations

_OPERATORS = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED
HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU
RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS
SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER
BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE
MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT
LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG
PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE
EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN
FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN
FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE
MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE
RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE
NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL PLACEHOLDER CUMSUM CALL_ONCE
BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE
REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE
RANDOM_UNIFORM
MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2
UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD STABLEHLO_DIVIDE STABLEHLO_MULTIPLY
STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP STABLEHLO_CONCATENATE STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION
STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL
STABLEHLO_FLOOR STABLEHLO_LOG STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT
STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE
STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT
STABLEHLO_WHILE STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE
STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT STABLEHLO_CASE
"""
_TYPES = """
float32 float16 int32 uint8 int64 string bool int16 complex64 int8 float64 complex128 uint64 resource variant uint32 uint16
int4 bfloat16 int2 uint4 float8_e4m3fn float8_e5m2
"""
#: Operators by their number; what has no name here is newer than this table.
OPERATORS: tuple[str, ...] = tuple(_OPERATORS.split())
#: Element types by their number.
TYPES: tuple[str, ...] = tuple(_TYPES.split())
#: Fused activations by their number.
ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")

_ACTIVATION = ("fused_activation_function", "int8")
_WINDOW = (("padding", "int8"), ("stride_w", "int32"), ("stride_h", "int32"))
_DILATION = (("dilation_w_factor", "int32"), ("dilation_h_factor", "int32"))
_AXIS = (("axis", "int32"),)
_BLOCK = (("block_size", "int32"),)
#: Options by their number in the union: name, and the fields in the order of their slots. What no importer or writer asks
#: for is left out. Fields that a file leaves out are 0, dilations 1.
OPTIONS: dict[int, tuple[str, tuple[tuple[str, str], ...]]] = {
    1: ("Conv2DOptions", (*_WINDOW, _ACTIVATION, *_DILATION)),
    2: ("DepthwiseConv2DOptions", (*_WINDOW, ("depth_multiplier", "int32"), _ACTIVATION, *_DILATION)),
    5: ("Pool2DOptions", (*_WINDOW, ("filter_width", "int32"), ("filter_height", "int32"), _ACTIVATION)),
    8: ("FullyConnectedOptions", (_ACTIVATION, ("weights_format", "int8"), ("keep_num_dims", "bool"))),
    9: ("SoftmaxOptions", (("beta", "float32"),)),
    10: ("ConcatenationOptions", (*_AXIS, _ACTIVATION)),
    11: ("AddOptions", (_ACTIVATION,)),
    12: ("L2NormOptions", (_ACTIVATION,)),
    13: (
        "LocalResponseNormalizationOptions",
        (("radius", "int32"), ("bias", "float32"), ("alpha", "float32"), ("beta", "float32")),
    ),
    15: (
        "ResizeBilinearOptions",  # slots 0 and 1, the new size, are no longer in use
        (("new_height", "int32"), ("new_width", "int32"), ("align_corners", "bool"), ("half_pixel_centers", "bool")),
    ),
    17: ("ReshapeOptions", (("new_shape", "[int32]"),)),
    19: ("SpaceToDepthOptions", _BLOCK),
    21: ("MulOptions", (_ACTIVATION,)),
    23: ("GatherOptions", (*_AXIS, ("batch_dims", "int32"))),
    27: ("ReducerOptions", (("keep_dims", "bool"),)),
    28: ("SubOptions", (_ACTIVATION,)),
    29: ("DivOptions", (_ACTIVATION,)),
    30: ("SqueezeOptions", (("squeeze_dims", "[int32]"),)),
    32: (
        "StridedSliceOptions",
        (
            *((f"{name}_mask", "int32") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")),
            ("offset", "bool"),
        ),
    ),
    35: ("SplitOptions", (("num_splits", "int32"),)),
    37: ("CastOptions", (("in_data_type", "int8"), ("out_data_type", "int8"))),
    40: ("ArgMaxOptions", (("output_type", "int8"),)),
    49: ("TransposeConvOptions", (*_WINDOW, _ACTIVATION)),
    55: ("ShapeOptions", (("out_type", "int8"),)),
    57: ("ArgMinOptions", (("output_type", "int8"),)),
    58: (
        "FakeQuantOptions",
        (("min", "float32"), ("max", "float32"), ("num_bits", "int32"), ("narrow_range", "bool")),
    ),
    59: ("PackOptions", (("values_count", "int32"), *_AXIS)),
    61: ("OneHotOptions", _AXIS),
    64: ("UnpackOptions", (("num", "int32"), *_AXIS)),
    71: (
        "UnidirectionalSequenceLSTMOptions",
        (_ACTIVATION, ("cell_clip", "float32"), ("proj_clip", "float32"), ("time_major", "bool")),
    ),
    74: ("ResizeNearestNeighborOptions", (("align_corners", "bool"), ("half_pixel_centers", "bool"))),
    75: ("LeakyReluOptions", (("alpha", "float32"),)),
    77: ("MirrorPadOptions", (("mode", "int8"),)),
    79: ("SplitVOptions", (("num_splits", "int32"),)),
    94: ("DepthToSpaceOptions", _BLOCK),
    101: ("BatchMatMulOptions", (("adj_x", "bool"), ("adj_y", "bool"))),
    102: ("CumsumOptions", (("exclusive", "bool"), ("reverse", "bool"))),
    116: ("GeluOptions", (("approximate", "bool"),)),
}
