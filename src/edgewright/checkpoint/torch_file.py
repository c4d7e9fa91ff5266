"""Files that `torch.save` writes: the zip of today and the stream of before torch 1.6.

Source: torch/serialization.py. Zip: NAME/data.pkl, NAME/byteorder, NAME/data/KEY. Stream: five pickles (magic number,
protocol version, system, object, storage keys), then each storage as an int64 count and its elements, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgewright.checkpoint import dtypes
from edgewright.checkpoint.archive import Archive
from edgewright.checkpoint.dtypes import View
from edgewright.checkpoint.pickled import Machine
from edgewright.checkpoint.rebuild import NumpyArray, Storage, printable, refused
from edgewright.errors import EdgewrightError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
#: Deepest nesting of dicts and lists, most values in them, most tensors, and longest dotted key.
MAX_DEPTH = 64
MAX_VALUES = 1_000_000
MAX_TENSORS = 200_000
MAX_KEY_LENGTH = 1024
#: All tensors together may take this many times the file: 16-bit floats double, tied weights count once per name.
MAX_GROWTH = 8
_SPARE_BYTES = 64 * 2**20


def read_zip(data: mmap.mmap, where: str) -> dict[str, np.ndarray]:
    """Tensors of a zip checkpoint by dotted key.

    Raises:
        EdgewrightError: E201, E202, E207 as `checkpoint.read` says.
    """
    archive = Archive(data, where)
    pickles = [name for name in archive.names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise EdgewrightError(
            "E201", f"checkpoint `{where}` is a zip archive with {len(pickles)} data.pkl, torch writes one"
        )
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in archive:
        raise refused(where, "a TorchScript program")
    order = archive.read(f"{prefix}byteorder") if f"{prefix}byteorder" in archive else b"little"
    if order not in (b"little", b"big"):
        raise EdgewrightError("E201", f"checkpoint `{where}` has a byte order that is neither little nor big")
    machine = Machine(archive.read(pickles[0]), where=where)
    root = machine.run()

    def content(storage: Storage) -> bytes:
        name = f"{prefix}data/{storage.key}"
        if name not in archive:
            raise EdgewrightError("E201", f"checkpoint `{where}` lacks the storage `{printable(name)}`")
        start, end = archive.place(name)
        _check_size(storage, end - start, where)
        return archive.read(name)

    return _tensors(root, _Storages(where, content, big_endian=order == b"big"), len(data))


def read_legacy(data: mmap.mmap, where: str) -> dict[str, np.ndarray]:
    """Tensors of a checkpoint in the stream format by dotted key.

    Raises:
        EdgewrightError: E201, E202, E207 as `checkpoint.read` says.
    """
    magic, position, _ = _pickle(data, where, 0)
    if not isinstance(magic, int) or magic != MAGIC_NUMBER:
        raise EdgewrightError(
            "E201",
            f"checkpoint `{where}` is a plain pickle, not a file that torch.save wrote",
            hint='save the tensors alone: torch.save(model.state_dict(), "weights.pth")',
        )
    version, position, _ = _pickle(data, where, position)
    if not isinstance(version, int) or version != PROTOCOL_VERSION:
        raise EdgewrightError("E201", f"checkpoint `{where}` has another version than torch's {PROTOCOL_VERSION}")
    _, position, _ = _pickle(data, where, position)  # the writer's system; elements are little-endian on every one
    root, position, storages = _pickle(data, where, position)
    keys, position, _ = _pickle(data, where, position)
    places = _stream_places(data, where, position, (keys, storages))

    def content(storage: Storage) -> bytes:
        if storage.key not in places:
            raise EdgewrightError("E201", f"checkpoint `{where}` lacks the storage `{printable(storage.key)}`")
        start, end = places[storage.key]
        return data[start:end]

    return _tensors(root, _Storages(where, content, big_endian=False), len(data))


def _pickle(data: mmap.mmap, where: str, position: int) -> tuple[Any, int, dict[str, Storage]]:
    machine = Machine(data, where=where, position=position)
    return machine.run(), machine.position, machine.storages


def _stream_places(
    data: mmap.mmap, where: str, position: int, named: tuple[Any, dict[str, Storage]]
) -> dict[str, tuple[int, int]]:
    keys, storages = named
    if not isinstance(keys, list) or not all(isinstance(key, (str, int)) for key in keys):
        raise EdgewrightError("E201", f"checkpoint `{where}` is damaged: it has no list of storages")
    places: dict[str, tuple[int, int]] = {}
    for key in map(str, keys):
        if key in places or key not in storages:
            raise EdgewrightError(
                "E201", f"checkpoint `{where}` is damaged: storage `{printable(key)}` is listed wrongly"
            )
        header = data[position : position + 8]
        if len(header) < 8:
            raise EdgewrightError("E201", f"checkpoint `{where}` is cut short at storage `{printable(key)}`")
        size = struct.unpack("<q", header)[0] * dtypes.item_size(storages[key].dtype)
        position += 8
        _check_size(storages[key], size, where)
        if size > len(data) - position:
            raise EdgewrightError(
                "E201",
                f"checkpoint `{where}` is cut short: a storage has {size} bytes, {len(data) - position} are left",
            )
        places[key] = (position, position + size)
        position += size
    return places


def _check_size(storage: Storage, size: int, where: str) -> None:
    expected = storage.count * dtypes.item_size(storage.dtype)
    if size != expected:
        raise EdgewrightError(
            "E202",
            f"storage `{printable(storage.key)}` of checkpoint `{where}` has {size} bytes, its tensors declare "
            f"{expected}",
        )


class _Storages:
    """Elements of storages, each read once."""

    def __init__(self, where: str, content: Callable[[Storage], bytes], *, big_endian: bool) -> None:
        self.where = where
        self._content = content
        self._big_endian = big_endian
        self._read: dict[tuple[str, str], np.ndarray] = {}

    def tensor(self, view: View, key: str) -> np.ndarray:
        """The array of a tensor."""
        storage: Storage = view.storage
        name = (storage.key, view.dtype)
        if name not in self._read:
            content = self._content(storage)
            if len(content) % dtypes.item_size(view.dtype):
                raise EdgewrightError(
                    "E202", f"storage of tensor `{key}` of checkpoint `{self.where}` ends inside an element"
                )
            self._read[name] = dtypes.from_bytes(content, view.dtype, big_endian=self._big_endian)
        return dtypes.strided(self._read[name], view, self.where, key)


def _tensors(root: Any, storages: _Storages, file_bytes: int) -> dict[str, np.ndarray]:
    where = storages.where
    tensors: dict[str, np.ndarray] = {}
    total, limit = 0, MAX_GROWTH * file_bytes + _SPARE_BYTES
    for key, leaf in _leaves(root, where):
        name = key or "tensor"
        if name in tensors:
            raise EdgewrightError("E201", f"checkpoint `{where}` has two tensors called `{printable(name)}`")
        if isinstance(leaf, NumpyArray):
            if leaf.value is None:
                raise EdgewrightError(
                    "E201", f"checkpoint `{where}` is damaged: array `{printable(name)}` has no content"
                )
            array = leaf.value
            array.flags.writeable = False
        else:
            array = storages.tensor(leaf, printable(name))
        total += array.nbytes
        if total > limit or len(tensors) >= MAX_TENSORS:
            raise EdgewrightError(
                "E202",
                f"checkpoint `{where}` has {len(tensors) + 1} tensors of {total} bytes, "
                f"at most {MAX_TENSORS} of {limit} are read",
            )
        tensors[name] = array
    return tensors


def _leaves(root: Any, where: str) -> Iterator[tuple[str, View | NumpyArray]]:
    """Tensors under `root` in the file's order. No recursion: a pickle may be nested, or contain itself, at will."""
    pending: list[Iterator[tuple[str, Any]]] = [iter([("", root)])]
    visited = 0
    while pending:
        item = next(pending[-1], None)
        if item is None:
            pending.pop()
            continue
        key, value = item
        visited += 1
        if visited > MAX_VALUES or len(pending) > MAX_DEPTH:
            raise EdgewrightError(
                "E201",
                f"checkpoint `{where}` is nested deeper than {MAX_DEPTH}, or holds more than {MAX_VALUES} values",
            )
        if isinstance(value, (View, NumpyArray)):
            yield key, value
        elif isinstance(value, dict):
            pending.append(_children(key, iter(value.items()), where))
        elif isinstance(value, (list, tuple)):
            pending.append(_children(key, enumerate(value), where))


def _children(key: str, items: Iterator[tuple[Any, Any]], where: str) -> Iterator[tuple[str, Any]]:
    for name, value in items:
        text = name.decode("latin-1") if isinstance(name, bytes) else str(name)
        child = f"{key}.{text}" if key else text
        if len(child) > MAX_KEY_LENGTH:
            raise EdgewrightError("E201", f"checkpoint `{where}` has a key of more than {MAX_KEY_LENGTH} characters")
        yield child, value
