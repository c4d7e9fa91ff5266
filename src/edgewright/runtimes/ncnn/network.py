"""An ncnn network in the making: which blob holds which tensor, and how layers are added.

ncnn has no batch axis, at most four axes, and no names of axes. Here a tensor of one sample is a blob of any shape that
holds its values in order, so what only changes shapes costs nothing until a layer asks for axes of its own: `read` then
adds a Reshape. By itself a blob has the tensor's shape without the leading 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from edgewright.formats.ncnn.writing import Layer, Param, Weight, blob_name
from edgewright.graph.dataflow import constant_array, is_standard, sole_consumer
from edgewright.graph.shapes import static_shape

if TYPE_CHECKING:
    import onnx_ir as ir

#: Axes of a blob; Reshape and MemoryData number their sizes so: w, h, d, c.
_MOST_AXES = 4
SIZE_PARAMS = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (2, 11, 1, 0)}

#: Operators that make places along an axis: integers that a blob holds as floats, for the outputs and for Cast.
PLACES = ("ArgMax", "ArgMin")


class UnsupportedError(Exception):
    """Why a node cannot run on ncnn."""


@dataclass(frozen=True)
class Blob:
    """Where a tensor's values lie.

    Attributes:
        name: In the .param file.
        dims: Sizes, outermost first.
        scale: Of integers, their step; None for floats.
    """

    name: str
    dims: tuple[int, ...]
    scale: float | None = None


@dataclass(frozen=True)
class Activation:
    """What a layer does to its result: its parameters, none where that is nothing, and the tensor that it then makes."""

    params: Mapping[int, Param]
    value: ir.Value


@dataclass
class Network:
    """Layers so far, and the blob of each tensor.

    Attributes:
        half: True where weights go to the file in float16.
        layers: In order.
        blobs: By ONNX tensor name.
        done: Nodes that another node's layer does along.
        hidden: Tensors that no blob holds.
        lost: Tensors of which nobody knows the size, or that are no floats, since what makes them cannot be.
    """

    half: bool = False
    layers: list[Layer] = field(default_factory=list)
    blobs: dict[str, Blob] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    _taken: set[str] = field(default_factory=set)
    _shaped: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict)

    # --- reading ---------------------------------------------------------------------------------------------------

    def blob(self, value: ir.Value) -> Blob:
        """The blob of `value`; a constant gets a MemoryData layer."""
        name = name_of(value)
        if name not in self.blobs:
            array = constant(value)
            assert array is not None, f"`{name}` is used before it is made"
            return self.memory(array.astype(np.float32), dims_of(array.shape), name, value=value)
        return self.blobs[name]

    def read(self, value: ir.Value, dims: Sequence[int] | None = None) -> str:
        """Name of a blob with the values of `value` and these sizes; by default those that the tensor has by itself."""
        blob = self.blob(value)
        wanted = dims_of(shape_of(value)) if dims is None else tuple(dims)
        return self.reshaped(blob, wanted).name

    def reshaped(self, blob: Blob, dims: tuple[int, ...]) -> Blob:
        """The same values under other sizes."""
        if blob.dims == dims:
            return blob
        assert math.prod(blob.dims) == math.prod(dims), f"{blob} is no {dims}"
        key = (blob.name, dims)
        if key not in self._shaped:
            name = self.fresh(f"{blob.name}:{'x'.join(map(str, dims))}")
            params = dict(zip(SIZE_PARAMS[len(dims)], dims, strict=True))
            self.layers.append(Layer("Reshape", (blob.name,), (name,), params))
            self._shaped[key] = name
        return Blob(self._shaped[key], dims, blob.scale)

    def memory(self, array: np.ndarray, dims: Sequence[int], wanted: str, *, value: ir.Value | None = None) -> Blob:
        """A blob that holds a constant; that of the tensor `value`, where one is named."""
        blob = Blob(self.fresh(wanted), tuple(dims))
        params = dict(zip(SIZE_PARAMS[len(blob.dims)], blob.dims, strict=True))
        self.layers.append(Layer("MemoryData", (), (blob.name,), params, (Weight(np.asarray(array, np.float32)),)))
        if value is not None:
            self.blobs[name_of(value)] = blob
        return blob

    # --- making ----------------------------------------------------------------------------------------------------

    def add(
        self,
        kind: str,
        inputs: Sequence[str],
        value: ir.Value,
        params: Mapping[int, Param] | None = None,
        weights: Sequence[Weight] = (),
        *,
        dims: Sequence[int] | None = None,
    ) -> None:
        """A layer that makes `value` alone; `dims` where its result has not the sizes that a tensor has by itself."""
        made = dims_of(shape_of(value)) if dims is None else tuple(dims)
        blob = Blob(self.fresh(name_of(value)), made)
        self.layers.append(Layer(kind, tuple(inputs), (blob.name,), params or {}, tuple(weights)))
        self.blobs[name_of(value)] = blob

    def add_several(
        self,
        kind: str,
        inputs: Sequence[str],
        values: Sequence[ir.Value],
        params: Mapping[int, Param],
        weights: Sequence[Weight],
        *,
        dims: Sequence[tuple[int, ...]],
    ) -> None:
        """A layer that makes as many blobs as there are `dims`, for the first of `values`, of which some may have no name."""
        blobs = []
        for number, sizes in enumerate(dims):
            value = values[number] if number < len(values) and values[number].name else None
            wanted = f"{name_of(values[0])}:{number}" if value is None else name_of(value)
            blobs.append(Blob(self.fresh(wanted), sizes))
            if value is not None:
                self.alias(value, blobs[-1])
        names = tuple(blob.name for blob in blobs)
        self.layers.append(Layer(kind, tuple(inputs), names, params, tuple(weights)))

    def add_inner(
        self,
        kind: str,
        inputs: Sequence[str],
        value: ir.Value,
        params: Mapping[int, Param] | None = None,
        weights: Sequence[Weight] = (),
    ) -> str:
        """A layer on the way to `value`; the name of the blob it makes."""
        name = self.fresh(f"{name_of(value)}:{kind.lower()}")
        self.layers.append(Layer(kind, tuple(inputs), (name,), params or {}, tuple(weights)))
        return name

    def name_last(self, value: ir.Value, blob: Blob) -> None:
        """`blob` is the tensor `value`; where the layer that was added last makes it for that, it gets the tensor's name."""
        others = {held.name for held in self.blobs.values()}  # another tensor's blob keeps that one's name
        if self.layers and self.layers[-1].outputs == (blob.name,) and blob.name not in others:
            blob = replace(blob, name=self.fresh(name_of(value)))
            self.layers[-1] = replace(self.layers[-1], outputs=(blob.name,))
        self.alias(value, blob)

    def alias(self, value: ir.Value, blob: Blob, *, shown: bool = True) -> None:
        """`value` has the values of `blob`, in the same order; not `shown` where layers that read it make it of them."""
        self.blobs[name_of(value)] = blob
        if not shown:
            self.hidden.add(name_of(value))

    def fresh(self, wanted: str) -> str:
        """A blob name that is free, `wanted` where it is; taken from now on."""
        name, number = blob_name(wanted), 0
        while name in self._taken:
            number += 1
            name = blob_name(f"{wanted}:{number}")
        self._taken.add(name)
        return name

    def weight(self, array: np.ndarray) -> Weight:
        """Weights whose type stands in the file: float16 in a half-precision network, where that holds them exactly."""
        half = array.astype(np.float16) if self.half else None
        exact = half is not None and np.array_equal(half.astype(np.float32), array)
        return Weight(half if half is not None and exact else np.asarray(array, np.float32), tagged=True)

    def activation(self, value: ir.Value) -> Activation:
        """The activation that alone reads `value`, to be done by the layer that makes it."""
        reader = sole_consumer(value)
        found = None if reader is None or reader.inputs[0] is not value else _activation(reader)
        if reader is None or found is None:
            return Activation({}, value)
        self.done.add(id(reader))
        kind, params = found
        return Activation({9: kind, 10: params} if params else {9: kind}, reader.outputs[0])


Lowering = Callable[[Network, "ir.Node"], None]


def name_of(value: ir.Value) -> str:
    """The tensor's name."""
    name: str | None = value.name
    assert name is not None
    return name


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The tensor's sizes, for one sample.

    Raises:
        UnsupportedError: Where they are not all known.
    """
    array = constant(value)
    shape = array.shape if array is not None else static_shape(value)
    if shape is None:
        raise UnsupportedError(f"the shape of `{value.name}` is not known before it runs")
    if 0 in shape:
        raise UnsupportedError(f"`{value.name}` is empty")
    return tuple(shape)


def dims_of(shape: Sequence[int]) -> tuple[int, ...]:
    """The sizes that a blob has by itself: without the leading 1, flat where there are more than four."""
    kept = tuple(shape[1:] if len(shape) > 1 and shape[0] == 1 else shape) or (1,)
    return kept if len(kept) <= _MOST_AXES else (math.prod(kept),)


def axis_of(value: ir.Value, axis: int) -> int:
    """Where axis `axis` of the tensor lies in the blob.

    Raises:
        UnsupportedError: Where the blob has no such axis.
    """
    shape = shape_of(value)
    axis += len(shape) if axis < 0 else 0
    dropped = 1 if len(shape) > 1 and shape[0] == 1 else 0
    kept = axis - dropped
    if kept < 0 or len(shape) - dropped > _MOST_AXES:  # a flat blob has no axis of the tensor
        raise UnsupportedError(f"axis {axis} of `{value.name}` {list(shape)} is none that ncnn has")
    return kept


def constant(value: ir.Value | None) -> np.ndarray | None:
    """A constant's values, those of stored integers as what they mean; None for what is computed."""
    array = constant_array(value)
    if array is not None or value is None:
        return array
    producer = value.producer()
    if producer is None or not is_standard(producer, "DequantizeLinear"):
        return None
    levels, scale = constant_array(producer.inputs[0]), constant_array(producer.inputs[1])
    zero = constant_array(producer.inputs[2]) if len(producer.inputs) > 2 else None
    if levels is None or scale is None or producer.attributes.get_int("block_size", 0):
        return None
    shape = [1] * levels.ndim
    if scale.size > 1:
        shape[producer.attributes.get_int("axis", 1)] = -1
    steps = levels.astype(np.float32)
    if zero is not None:
        steps -= zero.astype(np.float32).reshape(shape if zero.size > 1 else ())
    result: np.ndarray = steps * scale.astype(np.float32).reshape(shape if scale.size > 1 else ())
    return result


def require_constant(value: ir.Value | None, what: str) -> np.ndarray:
    """A constant's values in float32.

    Raises:
        UnsupportedError: Where they are computed.
    """
    array = constant(value)
    if array is None:
        raise UnsupportedError(f"its {what} is computed, ncnn takes a constant")
    return array.astype(np.float32)


def ints(value: ir.Value | None, what: str) -> list[int]:
    """A constant of whole numbers as a list.

    Raises:
        UnsupportedError: Where they are computed.
    """
    array = constant_array(value)
    if array is None:
        raise UnsupportedError(f"its {what} are computed, ncnn takes constants")
    return [int(item) for item in array.reshape(-1)]


def given(node: ir.Node, index: int) -> ir.Value | None:
    """Input `index` of `node`, None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def _activation(node: ir.Node) -> tuple[int, tuple[float, ...]] | None:
    """ncnn's number and parameters of an activation that layers do along; None for anything else.

    Source: Tencent/ncnn, src/layer/fused_activation.h.
    """
    if is_standard(node, "Relu"):
        return 1, ()
    if is_standard(node, "LeakyRelu"):
        return 2, (node.attributes.get_float("alpha", 0.01),)
    if is_standard(node, "Clip"):
        bounds = clip_bounds(node)
        return None if bounds is None else (3, bounds)
    if is_standard(node, "Sigmoid"):
        return 4, ()
    if is_standard(node, "Mish"):
        return 5, ()
    return (6, (1 / 6, 0.5)) if is_standard(node, "HardSwish") else None


def clip_bounds(node: ir.Node) -> tuple[float, float] | None:
    """Bounds of a Clip, those left out as infinity; None where they are computed."""
    bounds = []
    for index, missing in ((1, -math.inf), (2, math.inf)):
        value = given(node, index)
        array = constant(value)
        if value is not None and array is None:
            return None
        bounds.append(missing if array is None else float(array.reshape(())))
    return bounds[0], bounds[1]
