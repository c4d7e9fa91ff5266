"""What a pickle may ask for: a closed table of inert names, and plain data made from plain data.

`torch.FloatStorage` here is a `Global` that holds a string. Nothing is imported and no attribute is looked up, so a
name that is in the table can do no more than its function below. A tensor is a `View`: where its numbers lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgewright.checkpoint import dtypes
from edgewright.checkpoint.dtypes import View
from edgewright.errors import EdgewrightError

#: torch's storage classes and the dtype of what they hold.
STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128", "UntypedStorage": "uint8",
}  # fmt: skip
#: Keys of a dict that fit this many bits cannot be chosen to collide in a hash table.
_KEY_BITS = 60


@dataclass(frozen=True, slots=True)
class Global:
    """A name that a pickle asked for and that is in `KNOWN`."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers outside the pickle.

    Attributes:
        key: Its name in the file.
        dtype: Name of its dtype; torch's raw storages are uint8.
        count: Elements it must have.
        offset: First element that views count from (old files: a storage that is part of another).
    """

    key: str
    dtype: str
    count: int
    offset: int = 0


@dataclass(slots=True)
class NumpyType:
    """A numpy dtype under construction; `order` comes with its state."""

    code: str
    order: str = "<"


@dataclass(slots=True)
class NumpyArray:
    """A numpy array that lies inside the pickle; `value` comes with its state."""

    value: np.ndarray | None = None


@dataclass(slots=True)
class Limits:
    """Names the file in errors, and bounds what calls may copy: a small multiple of what the file has.

    Without it one large value, remembered once and copied by each of a million calls, would fill the memory.
    """

    where: str
    budget: int = field(default=0)

    def spend(self, size_bytes: int) -> None:
        """Take `size_bytes` off the budget.

        Raises:
            EdgewrightError: E201 when nothing is left.
        """
        self.budget -= size_bytes
        if self.budget < 0:
            raise EdgewrightError("E201", f"checkpoint `{self.where}` grows beyond its own size when decoded")


def refused(where: str, what: str) -> EdgewrightError:
    """The error for a pickle that asks for more than tensors."""
    return EdgewrightError(
        "E207",
        f"checkpoint `{where}` asks for {what}, but only tensors, numbers, text, lists and dicts are read",
        details=("nothing in the file was executed",),
        hint='save the tensors alone, where the network was made: torch.save(model.state_dict(), "weights.pth")',
    )


def damaged(where: str, what: str) -> EdgewrightError:
    """The error for a request that is known but malformed."""
    return EdgewrightError("E201", f"checkpoint `{where}` is damaged: {what}")


def printable(name: str, limit: int = 120) -> str:
    """A name from a file as it may be shown on a terminal: no control characters, bounded."""
    text = name[: limit + 1].encode("unicode_escape").decode("ascii")
    return text if len(text) <= limit else f"{text[:limit]}…"


def kind(value: Any) -> str:
    """What a value is, for error texts; never its content, which may be endless."""
    return f"`{value.name}`" if isinstance(value, Global) else f"a value of type {type(value).__name__}"


def known(module: str, name: str, where: str) -> Global:
    """The inert Global of that name.

    Raises:
        EdgewrightError: E207 when it is not in the table.
    """
    full = f"{module}.{name}"
    if full not in KNOWN:
        raise refused(where, f"`{printable(full)}`")
    return Global(full)


def checked_key(key: Any, where: str) -> str | int | bytes:
    """The key of a dict; text and whole numbers only, whose hash takes no time.

    Raises:
        EdgewrightError: E207 for anything else.
    """
    if isinstance(key, (str, bytes)) or (isinstance(key, int) and key.bit_length() <= _KEY_BITS):
        return key
    raise refused(where, f"a dict whose key is {kind(key)}")


def call(function: Global, arguments: tuple[Any, ...], limits: Limits) -> Any:
    """What the known function makes of `arguments`, by our own code.

    Raises:
        EdgewrightError: E207 when the name is no function of the table, E201 and E202 for arguments it cannot take.
    """
    maker = KNOWN[function.name]
    if maker is None:
        raise refused(limits.where, f"a call of `{function.name}`")
    try:
        return maker(limits, *arguments)
    except TypeError:  # the number of arguments; the makers check their types themselves
        raise damaged(limits.where, f"`{function.name}` has {len(arguments)} arguments") from None


def set_state(target: Any, state: Any, limits: Limits) -> None:
    """Take over the state that a pickle gives an object.

    torch hangs `_metadata` on its OrderedDict: attributes of a dict are left out.

    Raises:
        EdgewrightError: E207 for a target that has no state of ours.
    """
    if isinstance(target, dict) and isinstance(state, Mapping):
        return
    if (
        isinstance(target, NumpyType)
        and isinstance(state, tuple)
        and len(state) >= 2
        and state[1] in ("<", ">", "|", "=")
    ):
        target.order = ">" if state[1] == ">" else "<"
    elif isinstance(target, NumpyArray) and isinstance(state, tuple) and len(state) == 5:
        target.value = _array(limits, *state[1:])
    else:
        raise refused(limits.where, f"the state of {kind(target)}")


def storage(name: Any, where: str) -> Storage:
    """The Storage that a persistent id names: ("storage", type, key, location, count[, view]).

    Source: torch/serialization.py, `persistent_id` of both formats.

    Raises:
        EdgewrightError: E207 for any other persistent id, such as the source code of a module.
    """
    if not isinstance(name, tuple) or len(name) not in (5, 6) or name[0] != "storage":
        first = name[0] if isinstance(name, tuple) and name else None
        what = f"`{printable(first)}`" if isinstance(first, str) else kind(name)
        raise refused(where, f"a persistent object that is no storage: {what}")
    _, class_, key, _, count = name[:5]
    class_name = class_.name.rpartition(".")[2] if isinstance(class_, Global) else ""
    if class_name not in STORAGES or not isinstance(key, (str, int)) or not _is_size(count):
        raise damaged(where, "a storage has no type, key or size")
    offset = 0
    view = name[5] if len(name) == 6 else None
    if view is not None:  # (key, offset, size) of a storage that is part of `key`, before torch 0.4
        if not isinstance(view, tuple) or len(view) != 3 or not _is_size(view[1]):
            raise damaged(where, "a view of a storage is malformed")
        offset = view[1]
    return Storage(str(key), STORAGES[class_name], count, offset)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= dtypes.LARGEST


# --- the functions ----------------------------------------------------------------------------------------------------


def _ordered_dict(limits: Limits, pairs: Any = ()) -> dict[Any, Any]:
    if not isinstance(pairs, (list, tuple)):
        raise damaged(limits.where, "an OrderedDict is made of something other than pairs")
    limits.spend(8 * len(pairs))
    result = {}
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise damaged(limits.where, "an OrderedDict holds something other than a pair")
        result[checked_key(pair[0], limits.where)] = pair[1]
    return result


def _size(limits: Limits, sizes: Any = ()) -> tuple[Any, ...]:
    if not isinstance(sizes, (list, tuple)):
        raise damaged(limits.where, "a torch.Size is made of something other than numbers")
    limits.spend(8 * len(sizes))
    return tuple(sizes)


def _device(limits: Limits, name: Any = "", index: Any = None) -> str:
    if not isinstance(name, str):
        raise damaged(limits.where, "a device has no name")
    return name


def _tensor(limits: Limits, source: Any, offset: Any, size: Any, stride: Any, *_: Any) -> View:
    if not isinstance(source, Storage):
        raise refused(limits.where, f"a tensor over {kind(source)}")
    return _view(limits, source, source.dtype, (offset, size, stride))


def _tensor_with_dtype(limits: Limits, source: Any, *rest: Any) -> View:
    # `_rebuild_tensor_v3`: a raw storage, then offset, size, stride, requires_grad, hooks and the dtype.
    if len(rest) < 6:
        raise damaged(limits.where, "a tensor lacks its dtype")
    offset, size, stride, _, _, dtype = rest[:6]
    name = dtype.name.removeprefix("torch.") if isinstance(dtype, Global) else ""
    if not isinstance(source, Storage) or name not in dtypes.TORCH:
        raise refused(limits.where, f"a tensor over {kind(source)}")
    return _view(limits, source, name, (offset, size, stride))


def _view(limits: Limits, source: Storage, dtype: str, place: tuple[Any, Any, Any]) -> View:
    offset, size, stride = place
    if not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise damaged(limits.where, "a tensor has no shape")
    if not all(_is_size(item) for item in (offset, *size, *stride)) or len(size) != len(stride):
        raise EdgewrightError(
            "E202", f"a tensor of checkpoint `{limits.where}` has sizes, strides or an offset that cannot be"
        )
    return View(source, dtype, offset + source.offset, size, stride)


def _parameter(limits: Limits, data: Any, *_: Any) -> Any:
    if not isinstance(data, View):
        raise refused(limits.where, f"a parameter over {kind(data)}")
    return data


def _encode(limits: Limits, text: Any, encoding: Any = "") -> bytes:
    # How protocol 2 writes bytes: as text in Latin-1.
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise refused(limits.where, "`_codecs.encode` of something other than bytes")
    limits.spend(len(text))
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise damaged(limits.where, "bytes are malformed") from None


def _no_bytes(limits: Limits) -> bytes:
    return b""  # how protocol 2 writes bytes of length 0; anything more is refused by the number of arguments


def _numpy_type(limits: Limits, code: Any, *_: Any) -> NumpyType:
    if not isinstance(code, str) or code not in dtypes.NUMPY_CODES:
        shown = printable(code) if isinstance(code, str) else type(code).__name__
        raise refused(limits.where, f"a numpy array of `{shown}`")
    return NumpyType(code)


def _numpy_scalar(limits: Limits, dtype: Any, content: Any) -> Any:
    return _array(limits, (), dtype, False, content).item()


def _numpy_array(limits: Limits, *_: Any) -> NumpyArray:
    return NumpyArray()


def _array(limits: Limits, shape: Any, dtype: Any, fortran: Any, content: Any) -> np.ndarray:
    if not isinstance(dtype, NumpyType) or not isinstance(content, bytes) or not isinstance(shape, tuple):
        raise refused(limits.where, "a numpy array of something other than numbers")
    kind_ = np.dtype(dtype.order + dtype.code)
    if not all(_is_size(item) for item in shape) or not dtypes.fits(shape, kind_.itemsize, len(content)):
        raise EdgewrightError(
            "E202", f"a numpy array of checkpoint `{limits.where}` does not fit its {len(content)} bytes"
        )
    limits.spend(len(content) if dtype.order == ">" or kind_ == np.bool_ else 0)
    flat = dtypes.native(np.frombuffer(content, kind_))
    return flat.reshape(shape, order="F" if fortran else "C")


#: Everything a pickle may name. None: a name that is passed along and never called.
KNOWN: dict[str, Callable[..., Any] | None] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _size,
    "torch.device": _device,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _no_bytes,
    "numpy.dtype": _numpy_type,
    "numpy.ndarray": None,
    **{f"numpy.{core}.multiarray.scalar": _numpy_scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": _numpy_array for core in ("core", "_core")},
    **{f"torch.{name}": None for name in STORAGES if name != "UntypedStorage"},
    "torch.storage.UntypedStorage": None,
    **{f"torch.{name}": None for name in dtypes.TORCH},
}
