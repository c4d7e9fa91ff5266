"""Drafting a file: operators written one after the other, constants and changes of order written once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.formats.tflite.writing import Operator, Quantization, Tensor
from edgewright.graph.dataflow import constant_array
from edgewright.runtimes.litert.layouts import Batch, Order, Sizes, arranged, essential, signature
from edgewright.runtimes.litert.registering import Refused

if TYPE_CHECKING:
    import onnx_ir as ir

#: ONNX type by numpy's name -> the file's. Half precision is stored only; indices need no 64 bits on a phone.
DTYPES = {
    **{name: name for name in ("float32", "int32", "uint8", "int8", "int16", "bool")},
    "float16": "float32",
    "int64": "int32",
}
#: Elements from which a constant of half precision is stored as such.
_STORED_HALF = 64


@dataclass(frozen=True, eq=False)
class Held:
    """How the file holds an ONNX value: in which tensor, with its axes in which order."""

    tensor: Tensor
    order: Order

    @property
    def sizes(self) -> Sizes:
        """Sizes in ONNX's order."""
        found: list[int] = [0] * len(self.order)
        for place, axis in enumerate(self.order):
            found[axis] = sizes_of(self.tensor)[place]
        return tuple(found)


def sizes_of(tensor: Tensor) -> Sizes:
    """Sizes of a tensor of the file; those that grow are marked."""
    if tensor.signature is None:
        return tensor.shape
    return tuple(Batch(a) if b < 0 else a for a, b in zip(tensor.shape, tensor.signature, strict=True))


class Draft:
    """What has been written so far, and the hands to write more.

    Attributes:
        taken: Names that belong to values of the network.
        operators: Operators of the file, in the order in which they run.
        growing: Constants that hold sizes: by tensor, the places in it that grow with the batch.
    """

    def __init__(self, taken: frozenset[str]) -> None:
        self.taken = taken
        self.operators: list[Operator] = []
        self.growing: dict[Tensor, list[int]] = {}
        self._given: dict[str, int] = {}
        self._copies: dict[tuple[Tensor, Any], Tensor] = {}
        self._constants: dict[Any, tuple[Tensor, np.ndarray]] = {}

    def fresh(self, wanted: str) -> str:
        """A name for a tensor that no value has."""
        name = wanted
        while name in self.taken or name in self._given:
            self._given[wanted] = self._given.get(wanted, 0) + 1
            name = f"{wanted}:{self._given[wanted]}"
        self._given.setdefault(name, 0)
        return name

    def array(self, array: np.ndarray, name: str = "constant") -> Tensor:
        """A constant of the file; half precision is stored as such and widened when the file is opened."""
        key = (array.dtype.str, array.shape, array.tobytes()) if array.nbytes <= 4096 else (id(array), name)
        if key not in self._constants:
            half = array.dtype == np.float16 and array.size >= _STORED_HALF
            data = np.ascontiguousarray(array) if half else stored(array)
            made = Tensor(self.fresh(name), data.dtype.name, array.shape, data=data)
            if half:
                made = self.op("DEQUANTIZE", [made], array.shape, "float32")
            self._constants[key] = (made, array)  # the array as well: its id must stay its own
        return self._constants[key][0]

    def shared(self, array: np.ndarray, name: str) -> Tensor:
        """The same for views of one array, which are new objects each time: by where they lie in memory."""
        key = (array.__array_interface__["data"][0], array.shape, name)
        if key not in self._constants:
            self._constants[key] = (self.array(array, name), array)
        return self._constants[key][0]

    def number(self, value: float, like: Tensor) -> Tensor:
        """A constant that broadcasts against `like`, of its type."""
        return self.array(np.array([value], like.dtype))

    def size_vector(self, sizes: Sequence[int]) -> Tensor:
        """Sizes as a constant i32; at most one may be open (-1), others are noted as growing."""
        vector = np.array(sizes, np.int32)
        places = [place for place, size in enumerate(sizes) if isinstance(size, Batch)]
        if not places:
            return self.array(vector, "sizes")
        tensor = Tensor(self.fresh("sizes"), "int32", vector.shape, data=vector)
        self.growing[tensor] = places
        return tensor

    def op(
        self,
        kind: str,
        inputs: Sequence[Tensor | None],
        sizes: Sequence[int],
        dtype: str | None = None,
        name: str | None = None,
        *,
        quantization: Quantization | None = None,
        version: int = 1,
        **options: Any,
    ) -> Tensor:
        """Write an operator with one output, which is returned; its type is that of the first input."""
        first = inputs[0]
        assert first is not None
        held = quantization if quantization is not None or dtype else first.quantization
        made = self.tensor(kind.lower() if name is None else name, dtype or first.dtype, sizes, held, exact=bool(name))
        self.operators.append(Operator(kind, inputs, [made], options, version))
        return made

    def tensor(
        self,
        name: str,
        dtype: str,
        sizes: Sequence[int],
        quantization: Quantization | None = None,
        *,
        exact: bool = False,
    ) -> Tensor:
        """A tensor that an operator is going to make, of this name or one like it."""
        return Tensor(name if exact else self.fresh(name), dtype, *shapes(sizes), quantization=quantization)

    def ordered(self, held: Held, order: Order) -> Tensor:
        """The tensor of `held` with its axes in another order; written once, however many need it."""
        if held.order == order:
            return held.tensor
        key = (held.tensor, (held.order, order))
        if key not in self._copies:
            sizes = held.sizes
            wanted = arranged(sizes, order)
            if essential(held.order, sizes) == essential(order, sizes):
                self._copies[key] = self.reshaped(held.tensor, wanted)
            else:
                permutation = np.array([held.order.index(axis) for axis in order], np.int32)
                self._copies[key] = self.op("TRANSPOSE", [held.tensor, self.array(permutation, "order")], wanted)
        return self._copies[key]

    def reshaped(self, tensor: Tensor, sizes: Sequence[int], name: str | None = None) -> Tensor:
        """The elements of `tensor` with other sizes."""
        if tensor.data is not None:
            return self.array(tensor.data.reshape([int(size) for size in sizes]), tensor.name)
        open_ = [place for place, size in enumerate(sizes) if isinstance(size, Batch)]
        target = [-1 if len(open_) == 1 and place in open_ else size for place, size in enumerate(sizes)]
        vector = self.size_vector(target)
        assert vector.data is not None
        return self.op("RESHAPE", [tensor, vector], sizes, name=name, newShape=vector.data)

    def dequantized(self, tensor: Tensor) -> Tensor:
        """The floats that the integers of `tensor` stand for."""
        key = (tensor, "float")
        if key not in self._copies:
            name = self.fresh(f"{tensor.name.removesuffix(':q')}:dq")
            self._copies[key] = self.op("DEQUANTIZE", [tensor], sizes_of(tensor), "float32", name)
        return self._copies[key]


def shapes(sizes: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Shape and signature of a tensor of the file."""
    return tuple(int(size) for size in sizes), signature(sizes)


def stored(array: np.ndarray) -> np.ndarray:
    """The array in the type that the file has for it."""
    name = DTYPES.get(array.dtype.name)
    if name is None:
        raise Refused(f"a constant is {array.dtype.name}")
    if array.dtype == np.int64:
        array = np.clip(array, -(2**31), 2**31 - 1)  # beyond these only "to the end" of slices is meant
    return np.ascontiguousarray(array.astype(name, copy=False)).reshape(array.shape)


def parameters(node: ir.Node) -> Quantization | None:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear with constant ones."""
    scale = constant_array(node.inputs[1])
    zero = constant_array(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if scale is None or (len(node.inputs) > 2 and node.inputs[2] is not None and zero is None):
        return None
    flat = scale.reshape(-1).astype(np.float32)
    points = np.zeros(len(flat), np.int64) if zero is None else zero.reshape(-1).astype(np.int64)
    return Quantization(flat, points, node.attributes.get_int("axis", 1) if scale.ndim else 0)
