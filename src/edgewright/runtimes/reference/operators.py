"""The table of operators: ONNX operator type -> the numpy function that defines it.

An operator is one function: inputs are its positional parameters (None where an optional one is absent), attributes its
keyword parameters with the standard's defaults. It returns an array or a tuple of them and never writes to its inputs::

    @operator("LeakyRelu")
    def leaky_relu(x: Array, *, alpha: float = 0.01) -> Array: ...

A parameter called `output_count` receives how many outputs the node declares. Graph attributes arrive as `Subgraph`.
What is wrong with shapes or values is a ValueError; the runner adds the node's name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

Array = np.ndarray
Function = TypeVar("Function", bound=Callable[..., Any])

#: Every operator of the standard domain that the reference defines.
OPERATORS: dict[str, Operator] = {}

_NARROW_FLOATS = ("float16", "bfloat16", "float8", "float4", "float6")
_NARROW_INTEGERS = {"int4": np.int8, "int2": np.int8, "uint4": np.uint8, "uint2": np.uint8}


@dataclass(frozen=True)
class Operator:
    """One operator: its function, the attributes it knows, and whether it asks for the number of outputs."""

    function: Callable[..., Any]
    attributes: frozenset[str]
    counts_outputs: bool


class Subgraph(Protocol):
    """A branch or loop body; tensors of the surrounding graph are visible inside."""

    output_count: int

    def __call__(self, *inputs: Any) -> list[Any]:
        """The body's outputs."""

    def empty(self, index: int) -> Array:
        """No slices of output `index`, stacked: what a loop that never ran has collected."""


def operator(*op_types: str) -> Callable[[Function], Function]:
    """A decorator that enters a function in the table under `op_types`."""

    def register(function: Function) -> Function:
        parameters = inspect.signature(function).parameters.values()
        keywords = {p.name for p in parameters if p.kind == inspect.Parameter.KEYWORD_ONLY}
        entry = Operator(function, frozenset(keywords - {"output_count"}), "output_count" in keywords)
        for op_type in op_types:
            assert op_type not in OPERATORS, op_type
            OPERATORS[op_type] = entry
        return function

    return register


def widen(x: Array) -> Array:
    """`x` in the arithmetic of its kind: narrow floats as float32, 4-bit integers as 8-bit ones, others as they are."""
    if x.dtype.name.startswith(_NARROW_FLOATS):
        return x.astype(np.float32)
    narrow = _NARROW_INTEGERS.get(x.dtype.name)
    return x if narrow is None else x.astype(narrow)


def is_float(x: Array) -> bool:
    """True for every floating-point dtype, the narrow ones included."""
    return x.dtype.kind == "f" or x.dtype.name.startswith(_NARROW_FLOATS)


def numpy_dtype(onnx_type: int) -> np.dtype[Any]:
    """The numpy dtype of an ONNX data type number.

    Raises:
        ValueError: It is no number type (strings are not computed with).
    """
    import onnx_ir as ir

    kind = ir.DataType(onnx_type)
    if kind in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        raise ValueError(f"tensors of {kind} are not supported")
    dtype: np.dtype[Any] = np.dtype(kind.numpy())
    return dtype


def axis_of(axis: int, rank: int) -> int:
    """`axis` counted from the front.

    Raises:
        ValueError: It is outside -rank..rank-1.
    """
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is outside a tensor of rank {rank}")
    return axis % rank


def axes_of(axes: Array | Sequence[int], rank: int) -> tuple[int, ...]:
    """`axes` counted from the front, in their order.

    Raises:
        ValueError: One is outside -rank..rank-1, or named twice.
    """
    found = tuple(axis_of(int(axis), rank) for axis in np.asarray(axes, dtype=np.int64).ravel())
    if len(set(found)) < len(found):
        raise ValueError(f"axes {list(found)} name an axis twice")
    return found


def scalar(x: Array) -> Any:
    """The one value of a tensor of one element, as a Python number.

    Raises:
        ValueError: It has more or fewer elements.
    """
    if x.size != 1:
        raise ValueError(f"a single value is expected, but the tensor has shape {list(x.shape)}")
    return x.reshape(()).item()
