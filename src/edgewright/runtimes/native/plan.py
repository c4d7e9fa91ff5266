"""The plan of a network: its tensors' places in one block of memory, its steps, its constants; and the file that holds them.

`network.plan`, all numbers little-endian:

    8 bytes    the letters EWNATIVE
    u32        version, 1
    u32        bytes of the description
    u64        bytes of the data
    ...        the description, JSON in UTF-8, then zeros up to a multiple of 64
    ...        the data: constants one after the other, each from a multiple of 64 on

The description has the attributes of `Plan`, rows instead of objects; a row of `constants` has place, type and shape.
docs/binary.md lists the kernels.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.ops.packing import bytes_for, check_packed

FILE = "network.plan"
ALIGNMENT = 64
_MAGIC, _VERSION = b"EWNATIVE", 1
_HEAD = struct.Struct("<8sIIQ")
_LARGEST_DESCRIPTION = 64 * 2**20
_LARGEST_ARENA = 2**35
_LARGEST_SIZE = 2**40
_LARGEST_PADDED = 2**28
_DTYPES = {"float32": 4, "uint8": 1, "int32": 4}


class Fields(NamedTuple):
    """What a kernel's lists hold, in order; a name that ends in ? may be left out (null)."""

    sizes: tuple[str, ...]
    numbers: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    constants: tuple[str, ...]


def _axes(what: str) -> tuple[str, ...]:
    return tuple(f"{what}_{axis}" for axis in range(4))


_CONV = (
    *("batch", "height", "width", "channels", "filters", "kernel_h", "kernel_w", "stride_h", "stride_w"),
    *("dilation_h", "dilation_w", "top", "left", "bottom", "right", "groups"),
)
_POOL = ("kernel_h", "kernel_w", "stride_h", "stride_w", "top", "left", "bottom", "right")
_LIMITS = ("low", "high")
#: Every kernel that a step may name.
KERNELS = {
    "conv": Fields(_CONV, _LIMITS, ("x", "residual?"), ("y",), ("weights", "shift?", "slope?")),
    "conv_pool": Fields(
        (*_CONV, *(f"pool_{name}" for name in _POOL)), _LIMITS, ("x",), ("y",), ("weights", "shift?", "slope?")
    ),
    "depthwise": Fields(_CONV, _LIMITS, ("x", "residual?"), ("y",), ("weights", "shift?", "slope?")),
    "pool": Fields((*_CONV, "pooling"), (), ("x",), ("y",), ()),
    "pointwise": Fields(
        ("batch", "pixels", "channels"), _LIMITS, ("x", "residual?", "factor?"), ("y",), ("scale?", "shift?", "slope?")
    ),
    "concat": Fields(("outer", "..."), (), ("...",), ("y",), ()),
    "softmax": Fields(("rows", "columns"), (), ("x",), ("y",), ()),
    "map": Fields(("function", "count"), (), ("x",), ("y",), ()),
    "transpose": Fields(("batch", "rows", "columns"), (), ("x",), ("y",), ()),
    "expand": Fields((*_axes("size"), *_axes("repeats")), (), ("x",), ("y",), ()),
    "slice": Fields(
        tuple(name for what in ("size", "made", "start", "before", "step") for name in _axes(what)),
        ("fill",),
        ("x",),
        ("y",),
        (),
    ),
    "pack": Fields(("pixels", "channels"), (), ("x",), ("signs",), ("threshold?",)),
    "binary_conv": Fields(
        (*_CONV, "pads_minus"),
        _LIMITS,
        ("signs", "residual?"),
        ("y", "signs?"),
        ("weights", "scale", "shift", "slope?", "threshold?"),
    ),
    "binary_signs": Fields((*_CONV, "pads_minus"), (), ("signs",), ("signs",), ("weights", "threshold", "flip")),
}


def made_places(sizes: Mapping[str, int]) -> tuple[int, int]:
    """Height and width of what a window makes; below 1 where it is larger than the padded input.

    Raises:
        ZeroDivisionError: A stride is none.
    """
    axes = (("height", "_h", "top", "bottom"), ("width", "_w", "left", "right"))
    height, width = (
        (sizes[size] + sizes[before] + sizes[after] - sizes[f"dilation{axis}"] * (sizes[f"kernel{axis}"] - 1) - 1)
        // sizes[f"stride{axis}"]
        + 1
        for size, axis, before, after in axes
    )
    return height, width


def pool_sizes(sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes of a `conv_pool`'s second part as those of a `pool`."""
    height, width = made_places(sizes)
    own = {name: sizes[f"pool_{name}"] for name in _POOL}
    here = {"height": height, "width": width, "channels": sizes["filters"], "filters": sizes["filters"]}
    return {"batch": sizes["batch"], **here, **own, "dilation_h": 1, "dilation_w": 1, "groups": 1, "pooling": 0}


@dataclass(frozen=True)
class Tensor:
    """A tensor between steps.

    Attributes:
        name: ONNX's; empty for a form of a value that only steps see.
        dtype: "float32", or "uint8" for packed signs.
        shape: ONNX's, of one sample where the batch is open.
        channels_last: True where memory holds a float tensor of four axes as [N, H, W, C].
        channels: Of packed signs; 0 for floats.
        buffer: The memory it lies in; tensors of other shapes may be the same bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    channels_last: bool
    channels: int
    buffer: int

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes."""
        return math.prod(self.shape) * _DTYPES[self.dtype]

    @property
    def memory_shape(self) -> tuple[int, ...]:
        """Its sizes in the order of memory."""
        return memory_shape(self.shape, self.channels_last)


def memory_shape(shape: tuple[int, ...], channels_last: bool) -> tuple[int, ...]:
    """Sizes in the order of memory: [N, H, W, C] where channels lie last."""
    return (shape[0], *shape[2:], shape[1]) if channels_last else shape


@dataclass(frozen=True)
class Step:
    """One kernel's work; lists are in the order of `KERNELS`, with indices into the plan's tensors and constants."""

    kernel: str
    sizes: tuple[int, ...]
    numbers: tuple[float, ...]
    reads: tuple[int | None, ...]
    writes: tuple[int | None, ...]
    constants: tuple[int | None, ...]


@dataclass(frozen=True)
class Plan:
    """A network.

    Attributes:
        arena_bytes: Of the block of memory that all buffers share.
        offsets: Where each buffer starts; those that are not needed at the same time may overlap.
        tensors: Those that survive fusion.
        steps: In the order in which they run.
        constants: Weights and the like.
        inputs: The graph's, as indices of tensors.
        outputs: The graph's.
        open_batch: True where the network is for one sample of an open batch.
    """

    arena_bytes: int
    offsets: tuple[int, ...]
    tensors: tuple[Tensor, ...]
    steps: tuple[Step, ...]
    constants: tuple[np.ndarray, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    open_batch: bool
    names: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "names", {tensor.name: index for index, tensor in enumerate(self.tensors) if tensor.name}
        )

    def makers(self) -> dict[int, int]:
        """By buffer, the number of the step that writes it; -1, -2 and so on for those of the inputs."""
        found = {self.tensors[index].buffer: -1 - number for number, index in enumerate(self.inputs)}
        for number, step in enumerate(self.steps):
            found.update({self.tensors[index].buffer: number for index in step.writes if index is not None})
        return found


def write(plan: Plan, path: Path) -> None:
    """Write the plan's file."""
    rows, place = [], 0
    for constant in plan.constants:
        rows.append([place, constant.dtype.name, list(constant.shape)])
        place += _aligned(constant.nbytes)
    description = {
        "arena_bytes": plan.arena_bytes,
        "offsets": plan.offsets,
        "open_batch": plan.open_batch,
        "inputs": plan.inputs,
        "outputs": plan.outputs,
        "tensors": [[t.name, t.dtype, t.shape, t.channels_last, t.channels, t.buffer] for t in plan.tensors],
        "constants": rows,
        "steps": [
            [s.kernel, s.sizes, [_text(n) for n in s.numbers], s.reads, s.writes, s.constants] for s in plan.steps
        ],
    }
    text = json.dumps(description, separators=(",", ":"), ensure_ascii=False).encode()
    with path.open("wb") as stream:
        stream.write(_HEAD.pack(_MAGIC, _VERSION, len(text), place))
        stream.write(text + bytes(_aligned(_HEAD.size + len(text)) - _HEAD.size - len(text)))
        for constant in plan.constants:
            data = np.ascontiguousarray(constant).tobytes()
            stream.write(data + bytes(_aligned(len(data)) - len(data)))


def read(path: Path) -> Plan:
    """The plan in the file at `path`, its constants as views of what was read.

    Raises:
        EdgewrightError: E232 where the file is not what `write` writes.
    """
    try:
        return _parsed(path)
    except (
        EdgewrightError,
        OSError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        RecursionError,
        struct.error,
    ) as problem:
        raise EdgewrightError("E232", f"`{path}` cannot be read: {problem}") from None


def _parsed(path: Path) -> Plan:
    with path.open("rb") as stream:
        magic, version, described, data_bytes = _HEAD.unpack(stream.read(_HEAD.size))
        if magic != _MAGIC or version != _VERSION:
            raise ValueError(f"it is no plan of version {_VERSION}")
        start = _aligned(_HEAD.size + described)
        if described > _LARGEST_DESCRIPTION or path.stat().st_size != start + data_bytes:
            raise ValueError("its size is not what its first line says")
        table = json.loads(stream.read(described).decode())
        stream.seek(start)
        data = np.frombuffer(stream.read(data_bytes), np.uint8)
    constants = tuple(_constant(data, row) for row in _rows(table, "constants", 3))
    offsets = tuple(_whole(offset, _LARGEST_ARENA) for offset in table["offsets"])
    tensors = tuple(_tensor(row, len(offsets)) for row in _rows(table, "tensors", 6))
    steps = tuple(_step(row, len(tensors), len(constants)) for row in _rows(table, "steps", 6))
    arena_bytes, open_batch = _whole(table["arena_bytes"], _LARGEST_ARENA), table["open_batch"] is True
    outside = any(offsets[tensor.buffer] + tensor.size_bytes > arena_bytes for tensor in tensors)
    if outside or any(offset % ALIGNMENT for offset in offsets):
        raise ValueError("a tensor does not lie in the arena")
    ends = [tuple(_whole(index, len(tensors) - 1) for index in table[key]) for key in ("inputs", "outputs")]
    plan = Plan(arena_bytes, offsets, tensors, steps, constants, ends[0], ends[1], open_batch)
    _check_order(plan)
    _check_padding(plan)
    _check_signs(plan)
    return plan


def _rows(table: Any, key: str, length: int) -> list[list[Any]]:
    rows: list[list[Any]] = table[key]
    if not isinstance(rows, list) or any(not isinstance(row, list) or len(row) != length for row in rows):
        raise ValueError(f"its {key} are malformed")
    return rows


def _whole(value: Any, most: int = _LARGEST_SIZE) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{value!r} is no whole number from 0 to {most}")
    return value


def _sizes(values: Any) -> tuple[int, ...]:
    sizes = tuple(_whole(value) for value in values)
    if math.prod(sizes) > _LARGEST_SIZE:
        raise ValueError("sizes multiply to more than 2^40")
    return sizes


def _constant(data: np.ndarray, row: list[Any]) -> np.ndarray:
    place, shape, dtype = _whole(row[0]), _sizes(row[2]), row[1]
    end = place + math.prod(shape) * _DTYPES[dtype]
    if place % ALIGNMENT or end > len(data):
        raise ValueError("a constant does not lie in the data")
    constant: np.ndarray = data[place:end].view(dtype).reshape(shape)
    return constant


def _tensor(row: list[Any], buffers: int) -> Tensor:
    name, dtype, shape, last, channels, buffer = row
    sizes = _sizes(shape)
    tensor = Tensor(str(name), str(dtype), sizes, last is True, _whole(channels, 2**24), _whole(buffer, buffers - 1))
    signs = dtype == "uint8"
    if dtype not in ("float32", "uint8") or not sizes or min(sizes) < 1:
        raise ValueError(f"tensor `{name}` is malformed")
    if signs != (channels > 0) or (signs and (last or sizes[-1] != bytes_for(channels))) or (last and len(sizes) != 4):
        raise ValueError(f"tensor `{name}` is malformed")
    return tensor


def _step(row: list[Any], tensors: int, constants: int) -> Step:
    kernel, sizes, numbers, reads, writes, weights = row
    fields = KERNELS[kernel]
    read, written, weighed = (
        tuple(None if index is None else _whole(index, most - 1) for index in indices)
        for indices, most in ((reads, tensors), (writes, tensors), (weights, constants))
    )
    sizes, numbers = tuple(_whole(size) for size in sizes), tuple(float(number) for number in numbers)
    made = Step(kernel, sizes, numbers, read, written, weighed)
    lists: tuple[tuple[Any, ...], ...] = (made.sizes, made.numbers, made.reads, made.writes, made.constants)
    for names, given in zip(fields, lists, strict=True):
        if "..." in names:
            if not given or None in given:
                raise ValueError(f"a step `{kernel}` has too few sizes or tensors")
        elif len(names) != len(given) or any(v is None and n[-1] != "?" for n, v in zip(names, given, strict=True)):
            raise ValueError(f"a step `{kernel}` has {len(given)} of {', '.join(names) or 'nothing'}")
    if any(math.isnan(number) for number in made.numbers):
        raise ValueError(f"a step `{kernel}` has a limit that is no number")
    return made


def _check_order(plan: Plan) -> None:
    """Refuse steps that read what nothing has made: memory that was never written."""
    made = {plan.tensors[index].buffer for index in plan.inputs}
    count = len(plan.inputs)
    for step in plan.steps:
        if any(index is not None and plan.tensors[index].buffer not in made for index in step.reads):
            raise ValueError(f"a step `{step.kernel}` reads what no step before it makes")
        writes = [plan.tensors[index].buffer for index in step.writes if index is not None]
        made.update(writes)
        count += len(writes)
    if count != len(made) or any(tensor.buffer not in made for tensor in plan.tensors):
        raise ValueError("a buffer is made by no step, or by several")


def _check_padding(plan: Plan) -> None:
    """Refuse windows over more padding than memory should hold: no tensor's size bounds it."""
    for step in plan.steps:
        sizes = dict(zip(KERNELS[step.kernel].sizes, step.sizes, strict=False))
        for window in (sizes, pool_sizes(sizes)) if step.kernel == "conv_pool" else (sizes,):
            if "top" not in window:
                continue
            rows = window["height"] + window["top"] + window["bottom"]
            columns = window["width"] + window["left"] + window["right"]
            if rows * columns * window["channels"] > _LARGEST_PADDED:
                raise ValueError(f"a step `{step.kernel}` pads to {rows} x {columns} x {window['channels']}")


def _check_signs(plan: Plan) -> None:
    """Refuse binary weights with bits beyond their channels: these would be counted."""
    for step in plan.steps:
        if not step.kernel.startswith("binary"):
            continue
        sizes, weights = (
            dict(zip(KERNELS[step.kernel].sizes, step.sizes, strict=True)),
            plan.constants[step.constants[0] or 0],
        )
        channels, groups = sizes["channels"], sizes["groups"]
        if min(channels, groups) < 1 or channels % groups:
            raise ValueError(f"{channels} channels do not make {groups} groups")
        check_packed(weights, channels // groups, name="weights of a binary layer")


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _text(number: float) -> float | str:
    """JSON has no infinity."""
    return number if math.isfinite(number) else str(number)
