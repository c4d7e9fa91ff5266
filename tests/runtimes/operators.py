"""Operators x runtimes x precisions: the graphs, and how one of them is made and measured; tests and the page share it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewright import registry, session
from edgewright.bundle import Bundle
from edgewright.compress import compress
from edgewright.contracts import Role, Sample
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.metrics import rel_l2
from edgewright.model import Model
from edgewright.recipe import Recipe, RecipeStep
from edgewright.target import Target

#: One graph each: inputs, then how the inner tensor `a` is made; `y = Neg(a)` is added. T is the dtype under test and N
#: the symbolic batch. Inputs named w... become weights: `w` normal, `wp` positive.
OPERATORS = {
    "conv": "T[N,3,9,8] x, T[4,3,3,3] w1, T[4] w2: a = Conv<strides=[2,1], pads=[1,1,1,1]>(x, w1, w2)",
    "conv_1d": "T[N,3,12] x, T[4,3,3] w1: a = Conv<dilations=[2]>(x, w1)",
    "conv_asymmetric": "T[N,2,7,7] x, T[3,2,3,2] w1, T[3] w2: a = Conv<pads=[0,1,2,0], dilations=[2,1]>(x, w1, w2)",
    "conv_depthwise": "T[N,4,8,8] x, T[4,1,3,3] w1, T[4] w2: a = Conv<group=4, pads=[1,1,1,1]>(x, w1, w2)",
    "conv_grouped": "T[N,4,8,8] x, T[6,2,3,3] w1: a = Conv<group=2, strides=[2,2]>(x, w1)",
    "conv_relu6": "T[N,3,8,8] x, T[4,3,1,1] w1, T[4] w2: lo = Constant<value_float=0.0>() hi = Constant<value_float=6.0>()"
    " l = CastLike(lo, x) h = CastLike(hi, x) c = Conv(x, w1, w2) a = Clip(c, l, h)",
    "conv_same_upper": 'T[N,3,8,9] x, T[4,3,3,3] w1: a = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w1)',
    "conv_transpose": "T[N,3,5,4] x, T[3,4,3,3] w1, T[4] w2:"
    " a = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(x, w1, w2)",
    "average_pool": "T[N,2,7,8] x: a = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)",
    "average_pool_padded": "T[N,2,7,8] x:"
    " a = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)",
    "max_pool": "T[N,2,7,8] x: a = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)",
    "max_pool_ceil": "T[N,2,8,8] x: a = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)",
    "global_pools": "T[N,4,5,6] x: g = GlobalAveragePool(x) h = GlobalMaxPool(x) a = Add(g, h)",
    "batch_normalization": "T[N,4,5,5] x, T[4] w1, T[4] w2, T[4] w3, T[4] wp4:"
    " a = BatchNormalization<epsilon=0.001>(x, w1, w2, w3, wp4)",
    "instance_normalization": "T[N,4,5,5] x, T[4] w1, T[4] w2: a = InstanceNormalization(x, w1, w2)",
    "group_normalization": "T[N,4,5,5] x, T[4] w1, T[4] w2: a = GroupNormalization<num_groups=2>(x, w1, w2)",
    "layer_normalization": "T[N,6,8] x, T[8] w1, T[8] w2: a = LayerNormalization<axis=-1>(x, w1, w2)",
    "lrn": "T[N,6,4,4] x: a = LRN<size=3, alpha=0.1>(x)",
    "gemm": "T[N,8] x, T[5,8] w1, T[5] w2: a = Gemm<transB=1, alpha=0.5>(x, w1, w2)",
    "matmul": "T[N,3,8] x, T[8,5] w1: a = MatMul(x, w1)",
    "attention": "T[N,2,6,4] x, T[N,2,6,4] k: t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(x, t)"
    " p = Softmax<axis=-1>(s) a = MatMul(p, k)",
    "einsum": 'T[N,3,4] x, T[4,5] w1: a = Einsum<equation="bij,jk->bik">(x, w1)',
    "elu_selu": "T[N,9] x: e = Elu<alpha=0.5>(x) a = Selu(e)",
    "gelu": "T[N,9] x: a = Gelu(x)",
    "hard_sigmoid": "T[N,9] x: a = HardSigmoid<alpha=0.166667, beta=0.5>(x)",
    "hard_swish": "T[N,9] x: a = HardSwish(x)",
    "leaky_relu": "T[N,9] x: a = LeakyRelu<alpha=0.1>(x)",
    "mish": "T[N,9] x: a = Mish(x)",
    "prelu": "T[N,4,3,3] x, T[4,1,1] w1: a = PRelu(x, w1)",
    "sigmoid_tanh": "T[N,9] x: s = Sigmoid(x) a = Tanh(s)",
    "softplus": "T[N,9] x: a = Softplus(x)",
    "erf_sign": "T[N,9] x: e = Erf(x) s = Sign(x) a = Mul(e, s)",
    "softmax": "T[N,4,5] x: a = Softmax<axis=1>(x)",
    "log_softmax": "T[N,7] x: a = LogSoftmax(x)",
    "arithmetic": "T[N,3,4] x, T[3,1] w1, T[4] wp2: s = Sub(x, w1) m = Mul(s, wp2) a = Div(m, wp2)",
    "power": "T[N,6] x: b = Abs(x) r = Sqrt(b) e = Exp(x) p = Mul(r, e) o = Constant<value_float=2.0>()"
    " q = CastLike(o, x) a = Pow(p, q)",
    "minimum_maximum": "T[N,6] x, T[6] w1: m = Min(x, w1) n = Max(x, w1) a = Sub(n, m)",
    "floor_round": "T[N,6] x: f = Floor(x) c = Ceil(x) r = Round(x) s = Add(f, c) a = Add(s, r)",
    "reduce_mean": "T[N,3,4,5] x: i = Constant<value_ints=[2,3]>() a = ReduceMean<keepdims=1>(x, i)",
    "reduce_norm": "T[N,8] x: i = Constant<value_ints=[1]>() n = ReduceL2(x, i) a = Div(x, n)",
    "reduce_sum_max": "T[N,3,4] x: i = Constant<value_ints=[-1]>() s = ReduceSum<keepdims=0>(x, i)"
    " m = ReduceMax<keepdims=0>(x, i) a = Add(s, m)",
    "concat_split": "T[N,6,3] x: p, q, r = Split<axis=1, num_outputs=3>(x) a = Concat<axis=2>(r, p, q)",
    "slice": "T[N,6,7] x: b = Constant<value_ints=[1,-1]>() e = Constant<value_ints=[5,-7]>() i = Constant<value_ints=[1,2]>()"
    " s = Constant<value_ints=[2,-2]>() a = Slice(x, b, e, i, s)",
    "pad": "T[N,2,4,4] x: p = Constant<value_ints=[0,0,1,2,0,0,2,1]>() a = Pad(x, p)",
    "pad_reflect": 'T[N,2,4,4] x: p = Constant<value_ints=[0,0,1,2,0,0,2,1]>() a = Pad<mode="reflect">(x, p)',
    "pad_edge": 'T[N,2,4,4] x: p = Constant<value_ints=[0,0,1,2,0,0,2,1]>() a = Pad<mode="edge">(x, p)',
    "transpose_reshape": "T[N,3,4] x: t = Transpose<perm=[0,2,1]>(x) s = Constant<value_ints=[0,-1]>() a = Reshape(t, s)",
    "flatten_unsqueeze": "T[N,3,1,4] x: i = Constant<value_ints=[2]>() q = Squeeze(x, i) f = Flatten<axis=1>(q)"
    " a = Unsqueeze(f, i)",
    "shape_arithmetic": "T[N,3,4] x: s = Shape<start=0, end=1>(x) m = Constant<value_ints=[12]>()"
    " c = Concat<axis=0>(s, m) a = Reshape(x, c)",
    "expand_tile": "T[N,1,4] x: s = Constant<value_ints=[1,3,4]>() e = Expand(x, s) r = Constant<value_ints=[1,2,1]>()"
    " a = Tile(e, r)",
    "gather": "T[N,5,3] x: i = Constant<value_ints=[4,0,-1]>() a = Gather<axis=1>(x, i)",
    "where": "T[N,5] x, T[5] w1: g = Greater(x, w1) a = Where(g, x, w1)",
    "top_k": "T[N,9] x: k = Constant<value_ints=[3]>() a, i = TopK(x, k)",
    "arg_max": "T[N,9] x: i = ArgMax<axis=1>(x) a = CastLike(i, x)",
    "cumulative_sum": "T[N,9] x: i = Constant<value_int=1>() a = CumSum(x, i)",
    "resize_nearest": 'T[N,2,3,4] x: e = Constant<value_floats=[1.0,1.0,2.0,2.0]>() a = Resize<mode="nearest",'
    ' coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , e)',
    "resize_linear": 'T[N,2,3,4] x: e = Constant<value_floats=[1.0,1.0,2.0,2.0]>() a = Resize<mode="linear",'
    ' coordinate_transformation_mode="half_pixel">(x, , e)',
    "resize_corners": 'T[N,2,3,4] x: e = Constant<value_floats=[1.0,1.0,2.0,2.0]>() a = Resize<mode="linear",'
    ' coordinate_transformation_mode="align_corners">(x, , e)',
    "depth_to_space": 'T[N,8,3,3] x: d = DepthToSpace<blocksize=2, mode="CRD">(x) a = SpaceToDepth<blocksize=2>(d)',
    "lstm": "T[5,N,4] x, T[1,12,4] w1, T[1,12,3] w2, T[1,24] w3: a, h, c = LSTM<hidden_size=3>(x, w1, w2, w3)",
    "lstm_bidirectional": "T[5,N,4] x, T[2,12,4] w1, T[2,12,3] w2, T[2,24] w3:"
    ' a, h, c = LSTM<hidden_size=3, direction="bidirectional">(x, w1, w2, w3)',
    "gru": "T[5,N,4] x, T[1,9,4] w1, T[1,9,3] w2, T[1,18] w3:"
    " a, h = GRU<hidden_size=3, linear_before_reset=1>(x, w1, w2, w3)",
    "rnn": "T[5,N,4] x, T[1,3,4] w1, T[1,3,3] w2, T[1,6] w3: a, h = RNN<hidden_size=3>(x, w1, w2, w3)",
    "if": "T[N,4] x, T[4] w1: r = ReduceSum<keepdims=0>(x) z = Constant<value_float=0.0>() t = CastLike(z, r)"
    " g = Greater(r, t) a = If(g) <then_branch = then () => (u) { u = Mul(x, w1) },"
    " else_branch = other () => (v) { v = Add(x, w1) }>",
    "function": "T[N,4] x, T[4] w1: a = edgewright.ScaledSwish(x, w1)",
}  # fmt: skip
FUNCTION = """<domain: "edgewright", opset_import: ["" : 21]>
ScaledSwish (x, w) => (y) { s = Sigmoid(x) p = Mul(x, s) y = Mul(p, w) }"""
PRECISIONS = ("fp32", "fp16", "int8")
#: Every runtime that may be chosen for a deployment; the reference is what they are held against.
RUNTIMES = [name for name in registry.names("runtimes") if registry.peek("runtimes", name).TRAITS.deployable]
#: Refusals: nodes or a precision that a runtime does not run, a format it does not execute, nothing to quantize.
REFUSALS = {"E210", "E211", "E212"}
#: For int8 a layer stands before the operator, so that it meets quantized tensors: by the rank of its input.
_LAYERS = {2: "Gemm", 3: "MatMul", 4: "Conv"}
_CALIBRATION = 4
#: The pass without what makes int8 more accurate: both sides evaluate the same quantized graph.
QUICK = Recipe(
    "matrix",
    steps=(
        RecipeStep(
            "quantize_static", {"search": False, "ranges": "minmax", "compensate": False, "correct_bias": False}
        ),
    ),
)


@dataclass(frozen=True)
class Made:
    """A graph of the table in one precision, and the bundle that a runtime made of it."""

    model: Model
    bundle: Bundle


def operator_model(name: str, dtype: str, *, layer: bool = False) -> Model:
    """The table's graph with weights from a seed and inferred shapes; with `layer` a linear layer makes its `x`."""
    import onnx
    import onnx_ir as ir
    from onnx import helper, numpy_helper, parser

    signature, body = OPERATORS[name].split(":", 1)
    if layer:
        signature, body = _after_layer(signature, body)
    types = signature.replace("T[", {"float32": "float[", "float16": "float16["}[dtype])
    header = '<ir_version: 10, opset_import: ["" : 21, "edgewright" : 1]>'
    kind = types.split("[")[0]
    text = f"{header} {name} ({types}) => ({kind} y) {{ {body} y = Neg(a) }} {FUNCTION if name == 'function' else ''}"
    proto = parser.parse_model(text)
    rng = np.random.default_rng(len(name))
    for value in list(proto.graph.input):
        if value.name.startswith("w"):
            shape = [size.dim_value for size in value.type.tensor_type.shape.dim]
            weight = rng.standard_normal(shape) if not value.name.startswith("wp") else rng.uniform(0.5, 2, shape)
            proto.graph.initializer.append(numpy_helper.from_array(weight.astype(dtype), value.name))
            proto.graph.input.remove(value)
    proto.graph.output[0].type.CopyFrom(
        helper.make_tensor_type_proto(proto.graph.output[0].type.tensor_type.elem_type, None)
    )
    return Model(ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True)), name=name)


def _after_layer(signature: str, body: str) -> tuple[str, str]:
    """`x` becomes what a layer with as many outputs as inputs makes of the graph's input `x0`."""
    declared, _, rest = signature.partition("] x")
    sizes = declared.removeprefix("T[").split(",")
    operator = _LAYERS[len(sizes)]
    width = sizes[1] if operator == "Conv" else sizes[-1]
    shape = f"{width},{width},1,1" if operator == "Conv" else f"{width},{width}"
    return f"{declared}] x0, T[{shape}] w0{rest}", f"x = {operator}(x0, w0) {body}"


def inputs_for(model: Model, batch: int, seed: int) -> dict[str, np.ndarray]:
    """Seeded normal arrays for the model's inputs."""
    rng = np.random.default_rng(seed)
    return {
        info.name: rng.standard_normal([batch if size == "N" else size for size in info.shape]).astype(info.dtype)
        for info in model.inputs
    }


class Drawn:
    """Seeded arrays as calibrate samples."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __len__(self) -> int:
        return _CALIBRATION

    def __iter__(self) -> Iterator[Sample]:
        for index in range(_CALIBRATION):
            yield Sample(f"{index}", f"{index:064x}", inputs_for(self.model, 1, 100 + index))

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(f"{index:064x}" for index in range(_CALIBRATION))

    def role(self, *roles: Role) -> Drawn:
        return self


def make(name: str, runtime: str, precision: str, folder: Path) -> Made:
    """The operator's network in this precision and the runtime's bundle of it.

    Raises:
        EdgewrightError: A code of `REFUSALS` where the runtime says that it cannot run it.
    """
    plugin, target = registry.peek("runtimes", runtime), Target(runtime)
    if precision not in plugin.TRAITS.precisions or (precision == "int8" and plugin.quant_format(target) is None):
        raise EdgewrightError("E210", f"it runs no {precision}")
    model = operator_model(name, "float16" if precision == "fp16" else "float32", layer=precision == "int8")
    if precision == "int8":
        model = compress(model, QUICK, Drawn(model), target=target)
    return Made(model, convert(model, runtime, folder))


def distance(made: Made, batch: int = 1) -> float:
    """Relative L2 distance of the bundle's outputs from the reference's evaluation of the same graph."""
    given = inputs_for(made.model, batch, seed=batch)
    with session.open(made.model, runtime="reference") as original, session.open(made.bundle) as opened:
        wanted, got = original.run(given), opened.run(given)
    return max(rel_l2(array, got[name]) for name, array in wanted.items())


@dataclass(frozen=True)
class Outcome:
    """What becomes of an operator on a runtime: how far it is from the reference, or why it is refused."""

    distance: float = math.nan
    refused: str = ""

    @property
    def cell(self) -> str:
        """As the page shows it: the decade that the distance stays below, or that it is refused."""
        if self.refused:
            return "refused"
        return f"<= 1e{max(-7, math.ceil(math.log10(max(self.distance, 1e-9))))}"


def outcome(name: str, runtime: str, precision: str) -> Outcome:
    """Make and measure one cell of the matrix."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Outcome(distance(make(name, runtime, precision, Path(folder) / "bundle")))
        except EdgewrightError as problem:
            if problem.code not in REFUSALS:
                raise
            return Outcome(refused=reason(problem))


def reason(problem: EdgewrightError) -> str:
    """Why, in one line without paths: the runtime's own first reason where it gives one."""
    first = [line.removeprefix("first reason: ") for line in problem.details if line.startswith("first reason: ")]
    return first[0] if first else problem.message
