"""Operator by operator to the graph: one table from a TFLite operator to the function that builds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from edgewright.errors import EdgewrightError
from edgewright.formats.tflite.reading import File, Operator
from edgewright.importers.tflite._graph import Unfit
from edgewright.importers.tflite._network import Network
from edgewright.importers.tflite._operators import (
    batches,
    elementwise,
    images,
    layers,
    quantizing,
    recurrent,
    reducing,
    shaping,
    slicing,
)
from edgewright.importers.tflite._site import Site

#: Operator -> its builder.
BUILDERS: dict[str, Callable[[Site], None]] = {
    **elementwise.BUILDERS,
    **reducing.BUILDERS,
    "AVERAGE_POOL_2D": images.average_pool_2d,
    "BATCH_MATMUL": layers.batch_matmul,
    "BATCH_TO_SPACE_ND": batches.batch_to_space,
    "BROADCAST_TO": shaping.broadcast_to,
    "CONCATENATION": shaping.concatenation,
    "CONV_2D": layers.conv_2d,
    "DEPTHWISE_CONV_2D": layers.depthwise_conv_2d,
    "DEPTH_TO_SPACE": images.depth_to_space,
    "DEQUANTIZE": quantizing.dequantize,
    "EXPAND_DIMS": shaping.expand_dims,
    "FILL": shaping.fill,
    "FULLY_CONNECTED": layers.fully_connected,
    "GATHER": slicing.gather,
    "GATHER_ND": slicing.gather_nd,
    "L2_NORMALIZATION": images.l2_normalization,
    "LOCAL_RESPONSE_NORMALIZATION": images.local_response_normalization,
    "MAX_POOL_2D": images.max_pool_2d,
    "MIRROR_PAD": shaping.mirror_pad,
    "ONE_HOT": slicing.one_hot,
    "PACK": shaping.pack,
    "PAD": shaping.pad,
    "PADV2": shaping.pad,
    "QUANTIZE": quantizing.quantize,
    "RANGE": shaping.arrange,
    "RANK": shaping.rank,
    "RESHAPE": shaping.reshape,
    "RESIZE_BILINEAR": images.resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": images.resize_nearest_neighbor,
    "REVERSE_V2": slicing.reverse,
    "SHAPE": shaping.shape,
    "SLICE": slicing.slice_,
    "SPACE_TO_BATCH_ND": batches.space_to_batch,
    "SPACE_TO_DEPTH": images.space_to_depth,
    "SPLIT": shaping.split,
    "SPLIT_V": shaping.split_v,
    "SQUEEZE": shaping.squeeze,
    "STRIDED_SLICE": slicing.strided_slice,
    "TILE": shaping.tile,
    "TOPK_V2": slicing.top_k,
    "TRANSPOSE": shaping.transpose,
    "TRANSPOSE_CONV": layers.transpose_conv,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": recurrent.sequence_lstm,
    "UNPACK": shaping.unpack,
    "WHERE": slicing.where,
}


def build(file: File, file_name: str, outputs: Sequence[int]) -> Network:
    """The network of the operators that lead to `outputs`, with its graph's inputs and outputs.

    Raises:
        EdgewrightError: E203 a tensor is used before it is made, E204 what has no form in ONNX, E209 a size that must be
            known, E216 options, types or shapes that cannot be.
    """
    operators = _needed(file, outputs)
    _refuse_unknown(file, file_name, operators)
    network = Network(file, file_name, outputs)
    for index in dict.fromkeys(file.inputs):
        network.feed(index)
    for operator in operators:
        site = Site(operator, network)
        try:
            BUILDERS[operator.kind](site)
        except Unfit as problem:
            raise site.refuse(f"its inputs do not fit together: {problem}") from None
    for index in dict.fromkeys(outputs):
        network.answer(index)
    return network


def _needed(file: File, outputs: Sequence[int]) -> list[Operator]:
    """The operators that lead to `outputs`, in order."""
    wanted, found = set(outputs), []
    for operator in reversed(file.operators):
        if wanted & set(operator.outputs):
            wanted.update(operator.inputs)
            found.append(operator)
    return found[::-1]


def _refuse_unknown(file: File, file_name: str, operators: Sequence[Operator]) -> None:
    """Name all operators that have no builder, and the tensors in front of the first.

    Raises:
        EdgewrightError: E204.
    """
    unknown = [operator for operator in operators if operator.kind not in BUILDERS]
    if not unknown:
        return
    names = Counter(operator.custom or operator.kind for operator in unknown)
    listed = ", ".join(f"{name} ({count})" if count > 1 else name for name, count in sorted(names.items()))
    first = unknown[0]
    kind = f"custom operator `{first.custom}`" if first.kind == "CUSTOM" else first.kind
    ends = _ends(file, operators)
    raise EdgewrightError(
        "E204",
        f"`{file_name}` has operators that have no form in ONNX here: {listed}; the first is operator {first.index}, "
        f"{kind}",
        hint=f"end in front of them: --set tflite.outputs={','.join(ends)}" if ends else None,
    )


def _ends(file: File, operators: Sequence[Operator]) -> list[str]:
    """What can be computed and is read by nobody who can be: where the network may end, by name."""
    constant = {tensor.index for tensor in file.tensors if tensor.data is not None} | {-1}
    computed, read = set(file.inputs), set(file.inputs)
    for operator in operators:
        inputs = set(operator.inputs)
        if operator.kind not in BUILDERS or not inputs <= constant | computed:
            continue
        (constant if inputs <= constant else computed).update(operator.outputs)
        read |= inputs
    return [file.tensors[index].name or str(index) for index in sorted(computed - read)]
