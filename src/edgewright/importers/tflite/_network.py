"""Tensors of the file in the graph, each in the axes of the file and, where a layer wants them so, with channels first.

TFLite's images are [N, H, W, C], ONNX's [N, C, H, W]. A tensor of four axes is made in whichever its operator makes; who
reads it in the other gets a Transpose, once. Element-wise operators, pools, paddings and the like follow what they read, so
that a network of images is transposed where it is entered and left, and nowhere between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.formats.tflite.reading import File, Quantization, Tensor
from edgewright.importers.tflite._graph import Graph, Size, shape_of

if TYPE_CHECKING:
    import onnx_ir as ir

#: FILE: as in the file. NCHW: of a tensor of four axes, the last one second.
Layout = Literal["file", "nchw"]
TO_NCHW, TO_FILE = (0, 3, 1, 2), (0, 2, 3, 1)
#: Types of tensors that are quantized where they have steps; int32 ones are biases, which know their layer.
QUANTIZED = ("int8", "uint8", "int16", "int4")
_READ = (*QUANTIZED, "bool", "float16", "float32", "float64", "int32", "int64", "uint16", "uint32", "uint64")


@dataclass(frozen=True)
class Shuffle:
    """Channels of image `index` in `groups` groups, or, `swapped`, one of each group after the other."""

    index: int
    groups: int
    swapped: bool = False


class Network:
    """What is known of each tensor of the file while its operators are read.

    Attributes:
        file: The file.
        file_name: Its name, for messages.
        graph: The graph so far.
        names: Tensor index -> ONNX name.
        layouts: ONNX names of inner tensors whose channels are first.
        decoded: Tensor index -> the constant whose real numbers it is.
        reshaped: Tensor index -> the tensor that it is in another shape.
        shuffles: Tensor index -> the image whose channels it has in groups.
        warnings: What a user should know.
    """

    def __init__(self, file: File, file_name: str, outputs: Sequence[int]) -> None:
        self.file, self.file_name = file, file_name
        self.names = _names(file.tensors)
        self.graph = Graph(self.names)
        self.layouts: set[str] = set()
        self.decoded: dict[int, int] = {}
        self.shuffles: dict[int, Shuffle] = {}
        self.reshaped: dict[int, int] = {}
        self.warnings: list[str] = []
        self._outputs = frozenset(outputs)
        self._stored: dict[tuple[int, Layout], ir.Value] = {}
        self._real: dict[tuple[int, Layout], ir.Value] = {}
        self._arrays: dict[int, np.ndarray] = {}
        self._arranged: dict[tuple[int, tuple[int, ...]], ir.Value] = {}
        self._constants: set[int] = set()
        self._first: set[int] = set()

    def feed(self, index: int) -> None:
        """Make a tensor a graph input; sizes that may change get a name, the first one N."""
        tensor = self.file.tensors[index]
        sizes: list[Size] = [
            size if size >= 0 else ("N" if axis == 0 else f"{self.names[index]}_{axis}")
            for axis, size in enumerate(tensor.signature)
        ]
        self._stored[index, "file"] = self.graph.input(self.names[index], self._type(tensor), sizes)

    def answer(self, index: int) -> None:
        """Make a tensor a graph output, as it is in the file."""
        value, name = self.stored(index), self.names[index]
        if value.name != name or value.producer() is None:
            self.graph.scope = name
            value = self.graph.node("Identity", value)
            self.graph.rename(value, name if value.producer() is not None else self.graph.fresh(name))
        self.graph.output(value)

    def ends_at(self, outputs: Sequence[int]) -> bool:
        """True where these tensors are what the network answers."""
        return self._outputs == frozenset(outputs)

    def steps(self, index: int) -> Quantization | None:
        """How the tensor is quantized, where it is."""
        tensor = self.file.tensors[index]
        return tensor.quantization if tensor.dtype in QUANTIZED else None

    def prefers_nchw(self, index: int) -> bool:
        """True where an operator made the tensor with its channels first."""
        return index in self._first

    def array(self, index: int) -> np.ndarray | None:
        """The tensor's constant as stored, not to be written to; None where it is computed."""
        if index not in self._arrays:
            tensor = self.file.tensors[index]
            made = (index, "file") in self._stored or (index, "nchw") in self._stored
            if tensor.data is None and 0 in tensor.shape and not made:  # a constant without values has no data
                return np.zeros(tensor.shape, self._type(tensor))
            if tensor.data is None:
                return self.graph.array(self._stored.get((index, "file")))
            if tensor.sparse:
                raise self._refuse(f"{tensor} is stored sparsely, which is not read", "E204")
            self._arrays[index] = _unpacked(tensor, self._type(tensor))
        return self._arrays[index]

    def set_array(self, index: int, array: np.ndarray) -> None:
        """Say that a tensor, which an operator would make, is constant."""
        self._arrays[index] = array

    def stored(self, index: int, layout: Layout = "file") -> ir.Value:
        """The tensor as it is stored: integers where it is quantized.

        Raises:
            EdgewrightError: E203 where nothing has made it.
        """
        if index in self.decoded:
            return self.real(index, layout)
        found = self._stored.get((index, layout))
        if found is None:
            found = self._stored[index, layout] = self._laid(index, layout)
        return found

    def real(self, index: int, layout: Layout = "file") -> ir.Value:
        """The tensor's real numbers: behind DequantizeLinear where it is quantized."""
        index = self.decoded.get(index, index)
        steps = self.steps(index)
        if steps is None:
            return self.stored(index, layout)
        if (index, layout) not in self._real:
            value = self.stored(index, layout)
            axis = TO_NCHW.index(steps.axis) if layout == "nchw" and len(steps.scale) > 1 else steps.axis
            self._real[index, layout] = self.dequantized(value, index, axis)
        return self._real[index, layout]

    def arranged(self, index: int, order: Sequence[int]) -> ir.Value:
        """The tensor's real numbers with its axes in another order: weights, as their layer wants them."""
        index = self.decoded.get(index, index)
        key = (index, tuple(order))
        if key not in self._arranged:
            steps, array = self.steps(index), self.array(index)
            if array is None:
                self._arranged[key] = self.graph.node("Transpose", self.real(index), perm=list(order))
            else:
                name = self.names[index]
                name = self.graph.fresh(f"{name}:arranged") if self._is_named(index) else name
                value = self.graph.constant(array.transpose(order), name)
                axis = 0 if steps is None else list(order).index(steps.axis) if len(steps.scale) > 1 else 0
                self._arranged[key] = value if steps is None else self.dequantized(value, index, axis)
        return self._arranged[key]

    def real_array(self, index: int) -> np.ndarray | None:
        """A constant's real numbers, f32 where it is quantized."""
        index = self.decoded.get(index, index)
        array, steps = self.array(index), self.steps(index)
        if array is None or steps is None:
            return array
        self.parameters(index)
        shape = [1] * array.ndim
        if len(steps.scale) > 1:
            shape[steps.axis] = -1
        scale, zero = steps.scale.reshape(shape), steps.zero_point.reshape(shape)
        real: np.ndarray = (array.astype(np.float32) - zero.astype(np.float32)) * scale
        return real

    def dequantized(self, value: ir.Value, index: int, axis: int) -> ir.Value:
        """The real numbers of `value`, which holds tensor `index` with its quantized dimension at `axis`."""
        scale, zero = self.parameters(index)
        attributes = {"axis": axis} if shape_of(scale) else {}
        scope, self.graph.scope = self.graph.scope, self.names[index]
        real = self.graph.node("DequantizeLinear", value, scale, zero, **attributes)
        self.graph.rename(real, self.graph.fresh(f"{value.name}:dq"))
        self.graph.scope = scope
        return real

    def dequantized_again(self, index: int, layout: Layout) -> ir.Value:
        """Real numbers by a node of their own, for an operator that makes them."""
        tensor, steps = self.file.tensors[index], self.file.tensors[index].quantization
        assert steps is not None
        axis = TO_NCHW.index(steps.axis) if layout == "nchw" and len(steps.scale) > 1 else steps.axis
        scale, zero = self.parameters(tensor.index)
        attributes = {"axis": axis} if shape_of(scale) else {}
        return self.graph.node("DequantizeLinear", self.stored(index, layout), scale, zero, **attributes)

    def parameters(self, index: int) -> tuple[ir.Value, ir.Value]:
        """Scale and zero point of a quantized tensor, one each or one for each channel.

        Raises:
            EdgewrightError: E204 for another scheme, E202 for steps that cannot be.
        """
        tensor, steps = self.file.tensors[index], self.file.tensors[index].quantization
        assert steps is not None
        if steps.special:
            raise self._refuse(f"{tensor} is quantized by blocks or by a scheme of its writer's own", "E204")
        scale, zero = steps.scale, steps.zero_point
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise self._refuse(f"{tensor} has a scale of {scale.min()}, but scales are above 0 and finite", "E202")
        dtype = np.dtype(self._type(tensor))
        limits = np.iinfo(dtype)
        if zero.min() < limits.min or zero.max() > limits.max:
            raise self._refuse(f"{tensor} of {dtype} has the zero point {zero.max()}", "E202")
        shape = () if len(scale) == 1 else scale.shape
        return self.graph.numbers(scale.reshape(shape), np.float32), self.graph.numbers(zero.reshape(shape), dtype)

    def numpy_type(self, index: int) -> str:
        """The tensor's element type as numpy calls it.

        Raises:
            EdgewrightError: E204 for one that is not read.
        """
        return self._type(self.file.tensors[index])

    def put(self, index: int, value: ir.Value, layout: Layout = "file") -> None:
        """What an operator made for a tensor; quantizes it where the file says so, and names it.

        Raises:
            EdgewrightError: E203 where another operator made it already.
        """
        if (
            any((index, other) in self._stored for other in ("file", "nchw"))
            or self.file.tensors[index].data is not None
        ):
            raise self._refuse(f"{self.file.tensors[index]} is made twice", "E203")
        if self.steps(index) is not None:
            if self.graph.made_here(value):
                self.graph.rename(value, self.graph.fresh(f"{self.names[index]}:real"))
            value = self.graph.node("QuantizeLinear", value, *self.parameters(index))
        name = self.names[index]
        if layout == "nchw" and index in self._outputs:
            name = self.graph.fresh(f"{name}:nchw")  # the graph's output has the axes of the file
        if self.graph.made_here(value):
            self.graph.rename(value, name)
            if layout == "nchw":
                self.layouts.add(name)
        self._stored[index, layout] = value
        if layout == "nchw":
            self._first.add(index)

    def shape(self, index: int) -> tuple[Size, ...] | None:
        """Sizes in the order of the file."""
        if (array := self.array(index)) is not None:
            return array.shape
        if (index, "file") not in self._stored and (index, "nchw") in self._stored:
            sizes = shape_of(self._stored[index, "nchw"])
            return None if sizes is None else tuple(sizes[axis] for axis in TO_FILE)
        return shape_of(self.stored(index))

    def _laid(self, index: int, layout: Layout) -> ir.Value:
        array = self.array(index)
        if array is not None:
            return self._constant(index, array, layout)
        other: Layout = "file" if layout == "nchw" else "nchw"
        if (index, other) not in self._stored:
            tensor = self.file.tensors[index]
            state = ", a state from run to run," if tensor.variable else ""
            raise self._refuse(f"{tensor}{state} is used before it is made", "E203")
        source = self._stored[index, other]
        scope, self.graph.scope = self.graph.scope, self.names[index]
        order = TO_NCHW if layout == "nchw" else TO_FILE
        value = moved(self.graph, source, order)
        taken = layout == "nchw" or source.name == self.names[index]
        self.graph.rename(value, self.graph.fresh(f"{self.names[index]}:{layout}") if taken else self.names[index])
        self.graph.scope = scope
        return value

    def _constant(self, index: int, array: np.ndarray, layout: Layout) -> ir.Value:
        name = self.names[index]
        name = self.graph.fresh(f"{name}:{layout}") if self._is_named(index) else name
        return self.graph.constant(array.transpose(TO_NCHW) if layout == "nchw" else array, name)

    def _is_named(self, index: int) -> bool:
        """True where the name of a constant is taken, or reserved for a graph output; taken from now on."""
        taken = index in self._constants or index in self._outputs
        self._constants.add(index)
        return taken

    def _type(self, tensor: Tensor) -> str:
        if tensor.dtype not in _READ:
            raise self._refuse(f"{tensor} is of type {tensor.dtype}, which is not read", "E204")
        return "int8" if tensor.dtype == "int4" else tensor.dtype

    def _refuse(self, message: str, code: str = "E216") -> EdgewrightError:
        return EdgewrightError(code, f"`{self.file_name}`: {message}")


def moved(graph: Graph, value: ir.Value, order: Sequence[int]) -> ir.Value:
    """`value` with its axes in another order; by Reshape where only axes of size 1 change their places."""
    sizes = shape_of(value)
    assert sizes is not None
    wide = [axis for axis in order if sizes[axis] != 1]
    if wide == sorted(wide) and sum(not isinstance(size, int) for size in sizes) <= 1 and 0 not in sizes:
        target = [size if isinstance(size := sizes[axis], int) else -1 for axis in order]
        if order and order[0] == 0 and target[0] == -1:
            target[0] = 0  # the batch, whatever its size
        return graph.node("Reshape", value, graph.numbers(target))
    return graph.node("Transpose", value, perm=list(order))


def _unpacked(tensor: Tensor, dtype: str) -> np.ndarray:
    """The array of a constant; two int4 lie in a byte, the first one in its lower half."""
    assert tensor.data is not None
    if tensor.dtype == "int4":
        bytes_ = tensor.data.view(np.int8)
        both = np.stack([np.left_shift(bytes_, 4) >> 4, bytes_ >> 4], axis=-1).reshape(-1)
        return both[: int(np.prod(tensor.shape, dtype=np.int64))].reshape(tensor.shape)
    if dtype == "bool":
        truth: np.ndarray = tensor.data.reshape(tensor.shape) != 0
        return truth
    kind = np.dtype(dtype).newbyteorder("<")
    array = tensor.data.view(kind) if tensor.data.size else np.zeros(0, kind)
    return array.reshape(tensor.shape).astype(dtype, copy=False)


def _names(tensors: Sequence[Tensor]) -> list[str]:
    """One name for each tensor, its own where it has one and is the first to have it."""
    count: Counter[str] = Counter()
    taken = {tensor.name for tensor in tensors}
    found = []
    for tensor in tensors:
        name = tensor.name or f"tensor_{tensor.index}"
        count[name] += 1
        if count[name] > 1 or (not tensor.name and name in taken):
            name = f"{name}:{tensor.index}"
            while name in taken:
                name += "_"
        taken.add(name)
        found.append(name)
    return found
