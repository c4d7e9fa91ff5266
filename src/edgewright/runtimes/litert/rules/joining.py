"""Concat, Split, Slice and Pad: parts of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.tflite.writing import Operator, Tensor
from edgewright.runtimes.litert.drafting import Held, sizes_of
from edgewright.runtimes.litert.layouts import Batch, Sizes, arranged
from edgewright.runtimes.litert.lowering import Lowering
from edgewright.runtimes.litert.registering import Refused, rule
from edgewright.runtimes.litert.rules.integers import Result, is_int8, result_of, same

if TYPE_CHECKING:
    import onnx_ir as ir


@rule("Concat")
def concat(lowering: Lowering, node: ir.Node) -> None:
    """CONCATENATION; of integers where all have, or are given, the meaning of the result."""
    values = [value for value in node.inputs if value is not None]
    made, sizes = node.outputs[0], lowering.sizes(node.outputs[0])
    order = lowering.common_order(values, len(sizes))
    axis = node.attributes.get_int("axis", 0) % len(sizes)
    result = result_of(lowering, node) if all(is_int8(lowering, value) for value in values) else None
    if result is not None and result.act == "NONE":
        tensors = [_in_steps(lowering, lowering.raw(value), result, order) for value in values]
        for part in result.skipped:
            lowering.skip(part)
        made = result.value
    else:
        tensors = [lowering.ordered(lowering.get(value), order) for value in values]
    tensor = lowering.op(
        "CONCATENATION", tensors, arranged(sizes, order), axis=order.index(axis), fusedActivationFunction="NONE"
    )
    lowering.hold(made, tensor, order)


def _in_steps(lowering: Lowering, held: Held, result: Result, order: tuple[int, ...]) -> Tensor:
    """The integers of `held` as those of the result: what dequantizing and quantizing again gives, in one operator."""
    tensor = lowering.ordered(held, order)
    if same(tensor.quantization, result.quantization):
        return tensor
    return lowering.op("QUANTIZE", [tensor], sizes_of(tensor), "int8", quantization=result.quantization)


@rule("Split")
def split(lowering: Lowering, node: ir.Node) -> None:
    """SPLIT into equal parts, else SPLIT_V."""
    data = node.inputs[0]
    assert data is not None
    held = lowering.raw(data)
    axis = node.attributes.get_int("axis", 0) % len(held.order)
    parts = [arranged(lowering.sizes(value), held.order) for value in node.outputs]
    place = lowering.array(np.array(held.order.index(axis), np.int32), "axis")
    lengths = np.array([part[held.order.index(axis)] for part in parts], np.int32)
    if len(set(lengths.tolist())) == 1:
        inputs, kind = [place, held.tensor], "SPLIT"
    else:
        inputs, kind = [held.tensor, lowering.array(lengths, "sizes"), place], "SPLIT_V"
    made = several(lowering, kind, inputs, held.tensor, parts, numSplits=len(parts))
    for value, tensor in zip(node.outputs, made, strict=True):
        lowering.hold(value, tensor, held.order)


def several(
    lowering: Lowering, kind: str, inputs: list[Tensor], like: Tensor, sizes: Sequence[Sizes], **options: int
) -> list[Tensor]:
    """Write an operator with several outputs of the type of `like`."""
    made = [lowering.tensor(kind.lower(), like.dtype, part, like.quantization) for part in sizes]
    lowering.operators.append(Operator(kind, inputs, made, options))
    return made


@rule("Slice")
def slice_(lowering: Lowering, node: ir.Node) -> None:
    """SLICE, or STRIDED_SLICE where steps are not 1."""
    data = node.inputs[0]
    assert data is not None
    held, made = lowering.raw(data), node.outputs[0]
    rank, sizes = len(held.order), held.sizes
    starts = [int(item) for item in lowering.required(node.inputs[1], "starts")]
    axes = _optional(lowering, node, 3) or list(range(len(starts)))
    steps = _optional(lowering, node, 4) or [1] * len(starts)
    begin, step = [0] * rank, [1] * rank
    for axis, start, pace in zip(axes, starts, steps, strict=True):
        size = sizes[axis]
        if isinstance(size, Batch) and start % (size or 1):
            raise Refused("it begins within the batch")
        low, high = (0, size) if pace > 0 else (0, size - 1)
        begin[axis % rank] = min(max(start + size if start < 0 else start, low), high)
        step[axis % rank] = pace
    wanted = lowering.sizes(made)
    tensor = part_of(lowering, held, begin, wanted, step)
    lowering.hold(made, tensor, held.order)


def part_of(lowering: Lowering, held: Held, begin: list[int], sizes: Sizes, steps: list[int]) -> Tensor:
    """The part of `held` that begins at `begin` and has these sizes, all by ONNX axis."""
    order = held.order
    first, wanted = arranged(begin, order), arranged(sizes, order)
    pace = arranged(steps, order)
    if wanted == sizes_of(held.tensor) and all(step == 1 for step in pace):
        return held.tensor
    start = lowering.array(np.array(first, np.int32), "begin")
    if all(step == 1 for step in pace):
        size = np.array([-1 if isinstance(size, Batch) else size for size in wanted], np.int32)
        return lowering.op("SLICE", [held.tensor, start, lowering.array(size, "size")], wanted)
    ends = [a + n * s for a, n, s in zip(first, wanted, pace, strict=True)]
    whole = [isinstance(n, Batch) for n in wanted]
    open_end = sum(1 << place for place, end in enumerate(ends) if end < 0 or whole[place])
    open_begin = sum(1 << place for place, flag in enumerate(whole) if flag)
    inputs = [held.tensor, start, lowering.array(np.array(ends, np.int32)), lowering.array(np.array(pace, np.int32))]
    return lowering.op(
        "STRIDED_SLICE", inputs, wanted, beginMask=open_begin, endMask=open_end, ellipsisMask=0, newAxisMask=0,
        shrinkAxisMask=0,
    )  # fmt: skip


@rule("Pad")
def pad(lowering: Lowering, node: ir.Node) -> None:
    """PAD, PADV2 or MIRROR_PAD; repeated edges by GATHER."""
    data, made = node.inputs[0], node.outputs[0]
    assert data is not None
    held = lowering.get(data)
    rank, sizes = len(held.order), lowering.sizes(made)
    flat = lowering.required(node.inputs[1], "pads").reshape(-1)
    axes = [int(axis) % rank for axis in _optional(lowering, node, 3) or range(rank)]
    pads = np.zeros((rank, 2), np.int32)
    pads[axes] = flat.reshape(2, -1).T
    mode = node.attributes.get_string("mode", "constant")
    if (pads < 0).any():
        tensor = part_of(
            lowering, held, [max(-int(first), 0) for first, _ in pads],
            tuple(type(n)(n + min(int(a), 0) + min(int(b), 0)) for n, (a, b) in zip(held.sizes, pads, strict=True)),
            [1] * rank,
        )  # fmt: skip
        held, pads = Held(tensor, held.order), np.maximum(pads, 0)
    if not pads.any():
        lowering.hold(made, held.tensor, held.order)
        return
    amounts = lowering.array(pads[list(held.order)], "pads")
    wanted = arranged(sizes, held.order)
    if mode == "constant":
        fill = _optional_number(lowering, node)
        extra = [] if fill == 0 else [lowering.number(fill, held.tensor)]
        tensor = lowering.op("PADV2" if extra else "PAD", [held.tensor, amounts, *extra], wanted)
    elif mode == "reflect":
        tensor = lowering.op("MIRROR_PAD", [held.tensor, amounts], wanted, mode="REFLECT")
    else:
        tensor = _repeated(lowering, held, pads, "edge" if mode == "edge" else "wrap")
    lowering.hold(made, tensor, held.order)


def _repeated(lowering: Lowering, held: Held, pads: np.ndarray, mode: str) -> Tensor:
    tensor = held.tensor
    for axis, (before, after) in enumerate(pads.tolist()):
        if not before and not after:
            continue
        place = held.order.index(axis)
        length = sizes_of(tensor)[place]
        if isinstance(length, Batch):
            raise Refused("it pads the batch")
        index = np.arange(-before, length + after)
        index = np.clip(index, 0, length - 1) if mode == "edge" else index % length
        sizes = [*sizes_of(tensor)]
        sizes[place] = len(index)
        tensor = lowering.op("GATHER", [tensor, lowering.array(index.astype(np.int32))], sizes, axis=place)
    return tensor


def _optional(lowering: Lowering, node: ir.Node, index: int) -> list[int]:
    value = node.inputs[index] if index < len(node.inputs) else None
    return [] if value is None else [int(item) for item in lowering.required(value, "axes and steps").reshape(-1)]


def _optional_number(lowering: Lowering, node: ir.Node) -> float:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    return 0.0 if value is None else float(lowering.required(value, "fill value").reshape(-1)[0])
