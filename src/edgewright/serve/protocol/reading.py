"""An inference request from its bytes. Everything a client can get wrong is a RefusalError, before memory is taken for it."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edgewright.model import Arrays
from edgewright.serve.core.jobs import RefusalError
from edgewright.serve.protocol.datatypes import dtype_of, text_of, unpack_bytes
from edgewright.serve.protocol.limits import Limits

Parameters = dict[str, bool | int | float | str | None]
#: Parameters that ask for what is not done here; going on without it would be a wrong answer.
_NOT_OFFERED = {
    "sequence_id": "sequences, which need state",
    "shared_memory_region": "shared memory",
    "classification": "classification on the server: POST .../predict gives classes",
}
#: Parameters of the protocol itself; others are for hooks.
_KNOWN = frozenset({*_NOT_OFFERED, "sequence_start", "sequence_end", "binary_data_output", "priority", "timeout"})
_LARGEST_PRIORITY = 2**31
_LONGEST_TIMEOUT_S = 86400.0


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None
    data: msgspec.Raw = msgspec.Raw(b"")


class _Wanted(msgspec.Struct):
    name: str
    parameters: Parameters | None = None


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str = ""
    outputs: list[_Wanted] | None = None
    parameters: Parameters | None = None


class InferRequest(NamedTuple):
    """What a client asks for.

    Attributes:
        inputs: Arrays by name.
        id: The client's own name for the request, given back.
        wanted: Outputs by name and whether each comes in binary; empty for all.
        binary: Whether outputs that are not named come in binary.
        priority: Lower is more urgent; 0 is usual.
        timeout_s: Seconds after which it is not worth running.
        parameters: Those that the protocol does not know, for hooks.
    """

    inputs: Arrays
    id: str = ""
    wanted: Mapping[str, bool] = MappingProxyType({})
    binary: bool = False
    priority: int = 0
    timeout_s: float | None = None
    parameters: Mapping[str, Any] = MappingProxyType({})


_decoder = msgspec.json.Decoder(_Request)


def read_request(body: bytes, header_length: int | None, limits: Limits) -> InferRequest:
    """The request in a body.

    Args:
        body: JSON, then the binary tensors in the order of the inputs that announce them.
        header_length: Bytes of the JSON, from the header `Inference-Header-Content-Length`; None where all is JSON.
        limits: What is accepted.

    Raises:
        RefusalError: "invalid" with what is wrong.
    """
    length = len(body) if header_length is None else header_length
    if not 0 <= length <= len(body):
        raise RefusalError("invalid", f"the JSON is said to have {length} bytes, but the body has {len(body)}")
    if length > limits.json_bytes:
        raise RefusalError(
            "invalid", f"the JSON has {length} bytes, more than the limit of {limits.json_bytes}: send binary"
        )
    view = memoryview(body)
    request: _Request = decode(_decoder, view[:length])
    if len(request.inputs) > limits.tensors or len(request.outputs or ()) > limits.tensors:
        raise RefusalError("invalid", f"a request may have {limits.tensors} inputs and outputs at most")
    outputs = [(output.name, output.parameters or {}) for output in request.outputs or ()]
    return assemble(_arrays(request.inputs, view[length:], limits), request.id, outputs, request.parameters or {})


def assemble(
    inputs: Arrays, id: str, outputs: Sequence[tuple[str, Parameters]], parameters: Parameters
) -> InferRequest:
    """A request of its arrays and of what it says beside them.

    Raises:
        RefusalError: "invalid" for parameters of wrong kinds, or that ask for what is not offered.
    """
    _refuse_what_is_not_offered(parameters)
    binary = parameters.get("binary_data_output") is True
    return InferRequest(
        inputs=inputs,
        id=id,
        wanted=_wanted(outputs, binary),
        binary=binary,
        priority=int(_number(parameters, "priority", 0, _LARGEST_PRIORITY) or 0),
        timeout_s=_timeout(parameters),
        parameters={name: value for name, value in parameters.items() if name not in _KNOWN},
    )


def decode(decoder: msgspec.json.Decoder[Any], data: bytes | memoryview) -> Any:
    """JSON by a typed decoder.

    Raises:
        RefusalError: "invalid" where it is not JSON, or not what is expected.
    """
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise RefusalError("invalid", f"the JSON cannot be used: {problem}") from None
    except RecursionError:
        raise RefusalError("invalid", "the JSON is nested too deeply") from None


def _arrays(tensors: list[_Tensor], binary: memoryview, limits: Limits) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    place = 0
    for tensor in tensors:
        if tensor.name in arrays:
            raise RefusalError("invalid", f"input `{tensor.name[:100]}` is given twice")
        count = _count(tensor, limits)
        parameters = tensor.parameters or {}
        _refuse_what_is_not_offered(parameters)
        size = _number(parameters, "binary_data_size", 0, len(binary) - place)
        if size is None:
            arrays[tensor.name] = _from_json(tensor, count)
            continue
        if len(tensor.data):
            raise RefusalError("invalid", f"input `{tensor.name[:100]}` has data both in the JSON and in binary")
        arrays[tensor.name] = _from_binary(tensor, count, binary[place : place + int(size)])
        place += int(size)
    if place != len(binary):
        raise RefusalError("invalid", f"{len(binary) - place} bytes follow the JSON that no input announces")
    return arrays


def from_raw(
    name: str, datatype: str, shape: Sequence[int], parameters: Parameters, data: bytes, limits: Limits
) -> np.ndarray:
    """A tensor of its bytes, in the byte order of the protocol.

    Raises:
        RefusalError: "invalid" where these do not fit its shape and type.
    """
    tensor = _Tensor(name, list(shape), datatype)
    _refuse_what_is_not_offered(parameters)
    return _from_binary(tensor, _count(tensor, limits), memoryview(data))


def from_values(
    name: str, datatype: str, shape: Sequence[int], parameters: Parameters, values: Sequence[Any], limits: Limits
) -> np.ndarray:
    """A tensor of its values in row-major order; texts may be bytes.

    Raises:
        RefusalError: "invalid" where these do not fit its shape and type.
    """
    tensor = _Tensor(name, list(shape), datatype)
    _refuse_what_is_not_offered(parameters)
    count, dtype = _count(tensor, limits), dtype_of(datatype)
    if len(values) != count:
        raise RefusalError(
            "invalid",
            f"input `{name[:100]}` of shape {tensor.shape} takes {count} values of {datatype}, but has {len(values)}",
        )
    if dtype.kind == "O":
        array = np.empty(count, object)
        array[:] = [text_of(value) for value in values]
    else:
        array = np.array(values, dtype.type if dtype.kind in "fb" else object)
        if (
            dtype.kind in "iu"
            and count
            and not np.iinfo(dtype).min <= min(values) <= max(values) <= np.iinfo(dtype).max
        ):
            raise RefusalError("invalid", f"input `{name[:100]}` holds a value outside {datatype}")
    return array.astype(dtype, copy=False).reshape(tensor.shape)


def _count(tensor: _Tensor, limits: Limits) -> int:
    """Values of a tensor, in Python integers: a product of sizes overflows nothing here."""
    if len(tensor.shape) > limits.rank:
        raise RefusalError(
            "invalid", f"input `{tensor.name[:100]}` has {len(tensor.shape)} axes, at most {limits.rank}"
        )
    if any(size < 0 for size in tensor.shape):
        raise RefusalError("invalid", f"input `{tensor.name[:100]}` has a negative size: {tensor.shape}")
    count = math.prod(tensor.shape)
    if count > limits.body_bytes:  # every value takes a byte or more, so that this is never what was sent
        raise RefusalError(
            "invalid", f"input `{tensor.name[:100]}` of shape {tensor.shape} has more values than a body holds"
        )
    return count


def _from_binary(tensor: _Tensor, count: int, data: memoryview) -> np.ndarray:
    dtype = dtype_of(tensor.datatype)
    if dtype.kind == "O":
        return unpack_bytes(data, _fewer(tensor, count, len(data) // 4)).reshape(tensor.shape)
    if count * dtype.itemsize != len(data):
        raise RefusalError(
            "invalid",
            f"input `{tensor.name[:100]}` {tensor.datatype}{tensor.shape} takes {count * dtype.itemsize} bytes, "
            f"but has {len(data)}",
        )
    if dtype.kind == "b":  # bytes beyond 0 and 1 are no booleans to whoever reads them next
        truth: np.ndarray = np.frombuffer(data, np.uint8) != 0
        return truth.reshape(tensor.shape)
    return numbers(data, dtype, tuple(tensor.shape), 0)


def numbers(data: bytes | memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], start: int) -> np.ndarray:
    """The array that lies at `start`; a view of the data, where it is aligned."""
    array: np.ndarray = np.ndarray(shape, dtype, data, start)
    # the JSON before it has any length, and kernels may rely on alignment
    return array if array.flags.aligned else array.copy()


def _from_json(tensor: _Tensor, count: int) -> np.ndarray:
    raw = memoryview(tensor.data)
    dtype = dtype_of(tensor.datatype)
    _fewer(tensor, count, len(raw) // 2)  # "[1,2]": each value and what follows it take two bytes or more
    nested = len(tensor.shape) > 1 and _second_opens(raw)
    values = decode(_values_decoder(_KINDS[dtype.kind], len(tensor.shape) if nested else 1), raw)
    flat = _flattened(values, tensor.shape) if nested else values
    if flat is None or len(flat) != count:
        got = "another nesting" if flat is None else f"{len(flat)} values"
        raise RefusalError(
            "invalid", f"input `{tensor.name[:100]}` of shape {tensor.shape} takes {count} values, but has {got}"
        )
    try:
        if dtype.kind == "O":
            array = np.empty(count, object)
            array[:] = flat
        else:
            with np.errstate(over="ignore"):  # a double beyond float32 is infinite, as in any conversion
                array = np.array(flat, np.float64 if dtype.kind not in "iub" else dtype).astype(dtype)
    except (OverflowError, ValueError):
        raise RefusalError("invalid", f"input `{tensor.name[:100]}` holds a value outside {tensor.datatype}") from None
    return array.reshape(tensor.shape)


#: By numpy kind, what a JSON value may be. bfloat16 is of kind V.
_KINDS: dict[str, Any] = {"b": bool, "i": int, "u": int, "f": float, "V": float, "O": str}


@functools.lru_cache(64)
def _values_decoder(kind: Any, depth: int) -> msgspec.json.Decoder[Any]:
    """Decodes `depth` nested lists of a kind, and nothing deeper."""
    return msgspec.json.Decoder(functools.reduce(lambda inner, _: list[inner], range(depth), kind))  # type: ignore[valid-type]


def _second_opens(raw: memoryview) -> bool:
    """True where the list's first value is a list as well."""
    return bytes(raw[:256]).lstrip()[1:].lstrip()[:1] == b"["


def _flattened(values: list[Any], shape: list[int]) -> list[Any] | None:
    """Nested lists as one; None where they have not the shape."""
    level = [values]
    for size in shape:
        if any(len(part) != size for part in level):
            return None
        level = [item for part in level for item in part]
    return level


def _fewer(tensor: _Tensor, count: int, most: int) -> int:
    if count > most:
        raise RefusalError(
            "invalid", f"input `{tensor.name[:100]}` of shape {tensor.shape} has fewer values than {count}"
        )
    return count


def _wanted(outputs: Sequence[tuple[str, Parameters]], binary: bool) -> dict[str, bool]:
    wanted = {}
    for name, parameters in outputs:
        _refuse_what_is_not_offered(parameters)
        if name in wanted:
            raise RefusalError("invalid", f"output `{name[:100]}` is asked for twice")
        wanted[name] = bool(parameters.get("binary_data", binary))
    return wanted


def _refuse_what_is_not_offered(parameters: Parameters) -> None:
    for name in _NOT_OFFERED.keys() & parameters.keys():
        if parameters[name] not in (None, 0, ""):
            what = _NOT_OFFERED[name]
            raise RefusalError("invalid", f"parameter `{name}` asks for {what}; this server does not offer it")


def _timeout(parameters: Parameters) -> float | None:
    """Seconds; the protocol has microseconds, and 0 means none."""
    value = _number(parameters, "timeout", 0, _LONGEST_TIMEOUT_S * 1e6)
    return value / 1e6 if value else None


def _number(parameters: Parameters, name: str, least: float, most: float) -> float | None:
    value = parameters.get(name)
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not least <= value <= most
        or value != int(value)
    ):
        raise RefusalError("invalid", f"parameter `{name}` is {value!r}, but must be a whole number, {least} to {most}")
    return value
