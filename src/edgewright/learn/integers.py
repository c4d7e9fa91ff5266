"""Integer constants behind DequantizeLinear, learnt as the floats they stand for.

What the kernels demand of weights is read from the file: a layer whose products cannot saturate before training
(`graph/int8.py`) cannot do so afterwards.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from edgewright.graph.dataflow import constant_array
from edgewright.graph.int8 import LARGEST_SAFE_PAIR, LARGEST_SAFE_WEIGHT, Room, by_number, room_of
from edgewright.learn.operators.quantization import dequantize_linear, quantize_linear

if TYPE_CHECKING:
    import onnx_ir as ir

#: Integer types of less than a byte: smallest and largest value.
NARROW = {"INT4": (-8, 7), "UINT4": (0, 15), "INT2": (-2, 1), "UINT2": (0, 3)}


@dataclass(frozen=True, eq=False)
class Integers:
    """One constant.

    Attributes:
        levels: As they were in the file.
        scale: Of DequantizeLinear, as it broadcasts.
        zero_point: The same, or None.
        axis: Axis of the scales.
        block_size: Of blocked quantization, else 0.
        limits: Smallest and largest integer.
        room: The integers that the layer's kernels take, and whether output channels are the first axis; None where
            nothing is demanded.
    """

    levels: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray | None
    axis: int
    block_size: int
    limits: tuple[int, int]
    room: tuple[Room, bool] | None

    @classmethod
    def of(cls, tensor: ir.TensorProtocol, node: ir.Node) -> Integers:
        """The constant `tensor`, which `node` (DequantizeLinear) reads with constant scales."""
        parameters = [constant_array(node.inputs[i]) if i < len(node.inputs) else None for i in (1, 2)]
        scale = parameters[0]
        assert scale is not None
        zero_point = None if parameters[1] is None else parameters[1].astype(np.int64)
        low, high = _limits(tensor.dtype)
        if low == -high - 1 and low < -8 and int(np.min(tensor.numpy().astype(np.int64), initial=0)) > low:
            low = -high  # symmetric weights leave the lowest integer out
        return cls(
            tensor.numpy().astype(np.int64), scale, zero_point, int(node.attributes.get_int("axis", 1) or 0),
            int(node.attributes.get_int("block_size", 0) or 0), (low, high), _room(node),
        )  # fmt: skip

    def floats(self) -> np.ndarray:
        """What the integers stand for, f32 of their shape."""
        made = dequantize_linear(
            torch.from_numpy(self.levels).double(), *self._parameters(torch.float64), **self._where
        )
        values: np.ndarray = made.numpy().astype(np.float32)
        return values

    def dequantized(self, floats: Tensor, scale: Tensor, zero_point: Tensor | None = None, **attributes: Any) -> Tensor:
        """What the layer sees of the learnt `floats`: rounded to integers, with a gradient that passes through."""
        steps = quantize_linear(floats, scale, zero_point, limits=self.limits, **attributes)
        return dequantize_linear(steps, scale, zero_point, **attributes)

    def quantized(self, floats: Tensor) -> np.ndarray:
        """The integers of the learnt `floats`, int64 of their shape."""
        scale, zero_point = self._parameters(floats.dtype)
        steps = quantize_linear(floats.detach().cpu(), scale, zero_point, limits=self.limits, **self._where)
        found: np.ndarray = steps.to(torch.int64).numpy()
        return found

    def hold(self, floats: Tensor) -> None:
        """Pull `floats`, in place, to where their integers fit the layer's kernels.

        Output channels that fit, nearly all after a step of training, are found out first and left alone.
        """
        if self.room is None:
            return
        room, rows_first = self.room
        scale, zero_point = self._parameters(floats.dtype)
        levels = quantize_linear(floats.detach(), scale, zero_point, limits=self.limits, **self._where)
        rows = levels.flatten(1) if rows_first else levels.movedim(-2, -1)
        beyond = self._beyond(rows.abs())
        if not bool(beyond.any()):
            return
        fitting = rows.clone()
        fitting[beyond] = torch.from_numpy(room.held(rows[beyond].double().cpu().numpy())).to(rows)
        fitting = fitting.reshape(levels.shape) if rows_first else fitting.movedim(-1, -2)
        back = dequantize_linear(fitting, scale, zero_point, **self._where)
        floats.copy_(torch.where(fitting != levels, back, floats))

    def _beyond(self, sizes: Tensor) -> Tensor:
        """Which output channels have integers, of absolute values `sizes` [..., O, K], that there is no room for."""
        assert self.room is not None
        beyond = sizes.amax(-1) > self.room[0].largest
        if self._mates is not None:
            *channels, inputs = (sizes > LARGEST_SAFE_WEIGHT).nonzero(
                as_tuple=True
            )  # no others can be too large together
            mates = self._mates.to(sizes.device)[inputs]
            around = sizes[(*(index[:, None] for index in channels), mates.clamp(min=1) - 1)] * (mates > 0)
            over = around.topk(2, dim=-1).values.sum(-1) > LARGEST_SAFE_PAIR
            beyond[tuple(index[over] for index in channels)] = True
        return beyond

    @functools.cached_property
    def _mates(self) -> Tensor | None:
        """For each input those of its number, itself among them, i64[K, most of one], counted from 1; 0 where there are fewer."""
        numbers = None if self.room is None else self.room[0].numbers
        if numbers is None:
            return None
        grid = by_number(np.arange(1, len(numbers) + 1), numbers)
        return torch.from_numpy(grid[numbers]) if grid.shape[-1] > 1 else None

    @property
    def _where(self) -> dict[str, int]:
        return {"axis": self.axis, "block_size": self.block_size}

    def _parameters(self, dtype: Any) -> tuple[Tensor, Tensor | None]:
        zero_point = None if self.zero_point is None else torch.from_numpy(self.zero_point)
        return torch.from_numpy(np.array(self.scale)).to(dtype), zero_point


def _room(node: ir.Node) -> tuple[Room, bool] | None:
    """What the layers that read the weights behind `node` demand, and whether output channels are their first axis."""
    for use in node.outputs[0].uses():
        found = room_of(use.node) if use.idx == 1 else None
        if found is not None:
            return found, use.node.op_type == "Conv" or bool(use.node.attributes.get_int("transB", 0))
    return None


def limits_of(node: ir.Node) -> tuple[int, int]:
    """Smallest and largest integer that a QuantizeLinear makes: of its zero point's type, of `output_dtype`, else uint8."""
    import onnx_ir as ir

    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if zero_point is not None and zero_point.dtype is not None:
        return _limits(zero_point.dtype)
    return _limits(ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8.value))


def _limits(dtype: ir.DataType) -> tuple[int, int]:
    if dtype.name in NARROW:
        return NARROW[dtype.name]
    info = np.iinfo(dtype.numpy())
    return int(info.min), int(info.max)
