"""Binary layers: the operators of the domain edgewright, which `ops.functions` lists."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.ops.packing import check_packed
from edgewright.runtimes.native.plan import KERNELS
from edgewright.runtimes.native.planner import LIMITED, Draft, Held, Planner, Rule, UnsupportedError, constant
from edgewright.runtimes.native.rules.windows import made, whole, window

if TYPE_CHECKING:
    import onnx_ir as ir

#: The largest dot product that kernels count in 16 bits.
_MOST_BITS = 65_534


def _pack_signs(planner: Planner, node: ir.Node) -> None:
    held = planner.last(planner.floats(node.inputs[0]))
    if len(held.shape) not in (2, 4):
        raise UnsupportedError(f"it packs the signs of {len(held.shape)} axes, not 2 or 4")
    channels = held.shape[1]
    threshold = np.broadcast_to(constant(node.inputs[1], "threshold"), channels)
    constants = {"threshold": threshold} if threshold.any() else {}
    result = planner.signs((held.shape[0], *held.shape[2:]), channels)
    maker = next((step for step in planner.steps if step.writes.get("y") == held), None)
    if maker and maker.kernel == "binary_conv" and maker.sizes["groups"] == 1 and "signs" not in maker.writes:
        maker.writes["signs"] = result
        maker.constants |= constants
        planner.name(node.outputs[0], result)
        return
    sizes = {"pixels": math.prod(held.shape) // channels, "channels": channels}
    planner.add(node.outputs[0], Draft("pack", sizes, {"x": held}, {"signs": result}, constants, stage=LIMITED))


def _layer(planner: Planner, node: ir.Node) -> tuple[Held, np.ndarray, dict[str, int], int]:
    """What a binary layer reads, its weights as of a convolution, its sizes, and channels."""
    held = planner.value(node.inputs[0])
    weights = constant(node.inputs[1], "weights")
    channels = int(node.attributes["channels"].as_ints()[0])
    if not held.channels or held.channels != channels:
        raise UnsupportedError(f"it takes the packed signs of {channels} channels, not of {held.channels}")
    if node.op_type.startswith("BinaryLinear"):
        if len(held.shape) != 2:
            raise UnsupportedError(f"it takes packed signs of 2 axes, not {len(held.shape)}")
        weights, groups, pads_minus = weights[:, None, None], 1, 0
        sizes = dict.fromkeys(KERNELS["conv"].sizes, 1) | dict.fromkeys(("top", "left", "bottom", "right"), 0)
        sizes |= {"width": held.shape[0], "channels": channels, "filters": len(weights)}
    else:
        groups, pads_minus = whole(node, "group", 1), int(node.attributes["pad_value"].as_float() < 0)
        batch, height, width, _ = held.shape
        as_floats = Held(held.buffer, (batch, channels, height, width))
        sizes = window(node, as_floats, weights.shape[1:3], filters=len(weights), groups=groups)
    _check(weights, sizes)
    return held, np.ascontiguousarray(weights), {**sizes, "pads_minus": pads_minus}, channels


def _check(weights: np.ndarray, sizes: dict[str, int]) -> None:
    channels, groups = sizes["channels"], sizes["groups"]
    if groups < 1 or channels % groups or len(weights) % groups:
        raise UnsupportedError(f"{channels} channels and {len(weights)} filters do not make {groups} groups")
    bits = channels // groups * weights.shape[1] * weights.shape[2]
    if bits > _MOST_BITS:
        raise UnsupportedError(f"a dot product has {bits} bits, and kernels count up to {_MOST_BITS}")
    try:
        check_packed(weights, channels // groups, name="weights")
    except EdgewrightError as problem:
        raise UnsupportedError(problem.message) from None


def _shape(node: ir.Node, sizes: dict[str, int]) -> tuple[int, ...]:
    return (sizes["width"], sizes["filters"]) if node.op_type.startswith("BinaryLinear") else made(sizes)


def _binary_floats(planner: Planner, node: ir.Node) -> None:
    held, weights, sizes, _ = _layer(planner, node)
    constants = {"weights": weights}
    for name, value in zip(("scale", "shift"), node.inputs[2:4], strict=True):
        constants[name] = np.broadcast_to(constant(value, name), len(weights)).astype(np.float32)
    result = planner.fresh(_shape(node, sizes))
    planner.add(node.outputs[0], Draft("binary_conv", sizes, {"signs": held}, {"y": result}, constants))


def _binary_signs(planner: Planner, node: ir.Node) -> None:
    held, weights, sizes, _ = _layer(planner, node)
    constants = {
        "weights": weights,
        "threshold": np.broadcast_to(constant(node.inputs[2], "threshold"), len(weights)).astype(np.int32),
        "flip": np.broadcast_to(constant(node.inputs[3], "flip"), len(weights)).astype(np.uint8),
    }
    shape = _shape(node, sizes)
    result = planner.signs((shape[0], *shape[2:]), len(weights))
    planner.add(
        node.outputs[0], Draft("binary_signs", sizes, {"signs": held}, {"signs": result}, constants, stage=LIMITED)
    )


RULES: dict[str, Rule] = {
    "PackSigns": _pack_signs,
    "BinaryConv": _binary_floats,
    "BinaryLinear": _binary_floats,
    "BinaryConvSigns": _binary_signs,
    "BinaryLinearSigns": _binary_signs,
}
