"""The table of operators: ONNX operator type -> the torch function that computes it, with gradients.

An operator is one function: inputs are its positional parameters (None where an optional one is absent), attributes its
keyword parameters with the standard's defaults; it returns a tensor or a tuple of them. What each means is defined by the
numpy reference runtime, which the tests compare with. `host` names inputs that are sizes, axes or limits: they arrive as
Python numbers or lists, so that no tensor has to be asked for them on the way::

    @operator("Reshape", host=(1,))
    def reshape(x: Tensor, shape: list[int], *, allowzero: int = 0) -> Tensor: ...

A parameter `output_count` receives how many outputs the node declares. What is wrong with shapes or values is a
ValueError; the network adds the node's name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    import onnx_ir as ir

Function = TypeVar("Function", bound=Callable[..., Any])


def key_of(node: ir.Node) -> str:
    """The name of the node's operator in the table: with its domain, where that is not the standard one."""
    standard = node.domain in ("", "ai.onnx")
    return str(node.op_type) if standard else f"{node.domain}.{node.op_type}"


@dataclass(frozen=True)
class Operator:
    """One operator: its function, the attributes it knows, its host inputs, whether it asks for the number of outputs."""

    function: Callable[..., Any]
    attributes: frozenset[str]
    host: frozenset[int]
    counts_outputs: bool


#: Every operator that can be trained through: of the standard domain, and those that stand for a layer being trained.
OPERATORS: dict[str, Operator] = {}


def operator(*op_types: str, host: tuple[int, ...] = ()) -> Callable[[Function], Function]:
    """A decorator that enters a function in the table under `op_types`."""

    def register(function: Function) -> Function:
        parameters = inspect.signature(function).parameters.values()
        keywords = {p.name for p in parameters if p.kind == inspect.Parameter.KEYWORD_ONLY}
        entry = Operator(function, frozenset(keywords - {"output_count"}), frozenset(host), "output_count" in keywords)
        for op_type in op_types:
            assert op_type not in OPERATORS, op_type
            OPERATORS[op_type] = entry
        return function

    return register


def torch_dtype(onnx_type: int) -> torch.dtype:
    """The torch dtype of an ONNX data type number.

    Raises:
        ValueError: torch has none.
    """
    import onnx_ir as ir

    kind = ir.DataType(onnx_type)
    found = getattr(torch, {"FLOAT": "float32", "DOUBLE": "float64"}.get(kind.name, kind.name.lower()), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"tensors of {kind.name} cannot be trained through")
    return found


def axis_of(axis: int, rank: int) -> int:
    """`axis` counted from the front.

    Raises:
        ValueError: It is outside -rank..rank-1.
    """
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is outside a tensor of rank {rank}")
    return axis % rank


def axes_of(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """`axes` counted from the front, in their order."""
    return tuple(axis_of(int(axis), rank) for axis in axes)


def scalar(value: Any) -> Any:
    """The one number in a number or a nested list of one element."""
    while isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"a single value is expected, but there are {len(value)}")
        value = value[0]
    return value


def together(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors on one device: integers live on the CPU until they meet what is computed elsewhere."""
    device = next((x.device for x in tensors if x.device.type != "cpu"), None)
    return tensors if device is None else tuple(x.to(device) for x in tensors)


def along(vector: Tensor, axis: int, rank: int) -> Tensor:
    """A vector shaped to broadcast over a tensor of `rank`, its elements on `axis`."""
    return vector.reshape([-1 if i == axis else 1 for i in range(rank)])
