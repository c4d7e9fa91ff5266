"""From an entry to the arrays a network takes: photos by the Spec, `.npz` arrays as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.model import TensorInfo
from edgewright.samples import images
from edgewright.samples.archives import MAX_SAMPLE_BYTES, Archive, Member
from edgewright.samples.images import BrokenSampleError
from edgewright.samples.labels import Label
from edgewright.samples.sources import Entry
from edgewright.spec import ImageInput, Spec

if TYPE_CHECKING:
    from PIL import Image

_LABEL_ARRAYS = ("label", "labels")
_GROUP_ARRAY = "group"
_HASH_CHUNK_BYTES = 2**20


class Loader:
    """Makes network inputs from entries, one at a time.

    Attributes:
        spec: What the inputs expect.
        inputs: Name, dtype and shape of the network's inputs; empty where only a Spec is known.
    """

    def __init__(self, spec: Spec, inputs: tuple[TensorInfo, ...]) -> None:
        self.spec = spec
        self.inputs = inputs
        self._stacks: dict[Path, Archive] = {}

    def photo_input(self) -> tuple[str, ImageInput]:
        """The one input that a photo feeds.

        Raises:
            EdgewrightError: E303 where the Spec does not say how a photo becomes the network's only input.
        """
        known = [info.name for info in self.inputs] or list(self.spec.inputs)
        if not self.spec.takes_photos:
            raise EdgewrightError(
                "E303",
                "photos are refused: nothing says how a photo becomes the network's input, and agreement cannot see a "
                "wrong mean or std",
                hint="edgewright spec init MODEL --out spec.toml, fill it in, then add --spec spec.toml",
            )
        if len(known) != 1:
            names = ", ".join(f"`{name}`" for name in known)
            raise EdgewrightError("E303", f"a photo feeds one input, but the network takes {names}; give .npz samples")
        item = self.spec.inputs[known[0]]
        assert isinstance(item, ImageInput)
        return known[0], item

    def from_picture(self, picture: Image.Image, item: ImageInput) -> np.ndarray:
        """A decoded photo as the network takes it, [1, C, H, W] (or `nhwc`) in the input's own type."""
        array = images.preprocess(picture, item)
        dtype = self.inputs[0].dtype if self.inputs else "float32"
        if dtype == "uint8":
            array = np.rint(np.clip(array, 0, 255))
        return array.astype(dtype, copy=False)

    def load(self, entry: Entry) -> dict[str, np.ndarray]:
        """The network's inputs by ONNX name, batch 1.

        Raises:
            BrokenSampleError: The file cannot be used.
        """
        if entry.kind == "photo":
            return self._from_photo(entry.path)
        if entry.row is not None:
            return self._from_stack(self.stack(entry.path), entry.row)
        archive = Archive(entry.path)
        try:
            return self._from_archive(archive)
        finally:
            archive.close()

    def content(self, entry: Entry) -> str:
        """SHA-256 (hex) of the source's content, the photo's bytes or the arrays, proven readable on the way.

        Raises:
            BrokenSampleError: It cannot.
        """
        if entry.kind == "photo":
            images.check(entry.path)
            return _file_hash(entry.path)
        arrays = self.load(entry)
        digest = hashlib.sha256()
        for name, array in sorted(arrays.items()):
            digest.update(f"{name}\x1f{array.dtype.str}\x1f{array.shape}\x1e".encode())
            digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
            if array.dtype.kind in "fc" and not np.isfinite(array).all():
                raise BrokenSampleError(f"array `{name}` holds NaN or infinity")
        return digest.hexdigest()

    def stack(self, path: Path) -> Archive:
        """The open `.npz` at `path`, kept open for the next row."""
        if path not in self._stacks:
            self._stacks[path] = Archive(path)
        return self._stacks[path]

    def rows(self, archive: Archive) -> int:
        """Number of samples in a stacked `.npz`.

        Raises:
            BrokenSampleError: Inputs are missing, unequal in length, or do not fit the network.
        """
        lengths = {name: archive.rows(name) for name in self._names(archive)}
        if len(set(lengths.values())) != 1:
            shown = ", ".join(f"`{name}` {length}" for name, length in lengths.items())
            raise BrokenSampleError(f"its arrays have unequal numbers of rows: {shown}")
        for info in self.inputs:
            self._row_shape(archive.members[info.name], info)
        return next(iter(lengths.values()))

    def side_arrays(self, archive: Archive, count: int) -> tuple[list[Label | None], list[str | None]]:
        """Labels and group names of `count` samples, as far as the archive holds such arrays.

        Raises:
            EdgewrightError: E305 for labels of another number, or that are neither whole numbers nor text.
            BrokenSampleError: The arrays cannot be read.
        """
        where = archive.path.name
        name = next((name for name in _LABEL_ARRAYS if self._is_side(archive, name)), None)
        labels: list[Label | None] = [None] * count
        if name:
            values = _column(archive.whole(name), name, where, count)
            labels = [
                Label(str(v), f"`{where}`, `{name}` {i}", values.dtype.kind in "iu", archive.path.parent)
                for i, v in enumerate(values)
            ]
        groups: list[str | None] = [None] * count
        if self._is_side(archive, _GROUP_ARRAY):
            groups = [str(value) for value in _column(archive.whole(_GROUP_ARRAY), _GROUP_ARRAY, where, count)]
        return labels, groups

    def _from_photo(self, path: Path) -> dict[str, np.ndarray]:
        name, item = self.photo_input()
        return {name: self.from_picture(images.decode(path, item), item)}

    def _from_stack(self, archive: Archive, row: int) -> dict[str, np.ndarray]:
        arrays = {}
        known = {info.name: info for info in self.inputs}
        for name in self._names(archive):
            array = archive.row(name, row)
            info = known.get(name)
            whole = info is not None and len(info.shape) == array.ndim
            arrays[name] = array if whole else array[None]
        return arrays

    def _from_archive(self, archive: Archive) -> dict[str, np.ndarray]:
        names = self._names(archive)
        for info in self.inputs:
            member = archive.members[info.name]
            _check_fit(info, member.dtype, member.shape)
        return {name: archive.whole(name, MAX_SAMPLE_BYTES) for name in names}

    def _row_shape(self, member: Member, info: TensorInfo) -> None:
        stacked = member.shape[1:] if len(member.shape) == len(info.shape) + 1 else (1, *member.shape[1:])
        _check_fit(info, member.dtype, stacked)

    def _names(self, archive: Archive) -> list[str]:
        wanted = [info.name for info in self.inputs] or list(self.spec.inputs)
        if not wanted:
            wanted = [name for name in archive.members if name not in (*_LABEL_ARRAYS, _GROUP_ARRAY)]
        absent = [name for name in wanted if name not in archive.members]
        if absent or not wanted:
            holds = ", ".join(f"`{name}`" for name in archive.members) or "no arrays"
            needs = ", ".join(f"`{name}`" for name in absent) or "at least one array"
            raise BrokenSampleError(f"holds {holds}, but the network needs {needs}")
        return wanted

    def _is_side(self, archive: Archive, name: str) -> bool:
        taken: Mapping[str, object] = self.spec.inputs
        return name in archive.members and name not in taken and all(info.name != name for info in self.inputs)


def _check_fit(info: TensorInfo, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> None:
    if dtype.name != info.dtype:
        raise BrokenSampleError(f"array `{info.name}` is {dtype.name}, but the network takes {info.dtype}")
    same = len(shape) == len(info.shape) and all(
        not isinstance(want, int) or want == got for want, got in zip(info.shape, shape, strict=True)
    )
    if not same:
        raise BrokenSampleError(
            f"array `{info.name}` gives samples of shape {list(shape)}, but the network takes {info}"
        )


def _column(values: np.ndarray, name: str, where: str, count: int) -> np.ndarray:
    if values.size != count or values.ndim > 2:
        raise EdgewrightError(
            "E305", f"`{where}`: array `{name}` has shape {list(values.shape)}, but there are {count} samples"
        )
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind not in "iuU":
        raise EdgewrightError("E305", f"`{where}`: array `{name}` is {values.dtype}, but must be whole numbers or text")
    return values.reshape(-1)


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_HASH_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as problem:
        raise BrokenSampleError(f"cannot be read: {problem.strerror}") from None
    return digest.hexdigest()
