"""A .weights file read from front to back: a header, then float32 numbers without names, in the order of the layers.

Each layer says how many it needs before memory is taken for them; what is left at the end is an error too, since nothing
else in the file says whether it belongs to the cfg.

Source: AlexeyAB/darknet, parser.c (load_weights_upto).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.files import open_sized

#: Nobody ever wrote a higher version; other files' first bytes are.
_LARGEST_VERSION = 100_000
_FLOAT = np.dtype("<f4")

Shapes = Mapping[str, Sequence[int]]


class Weights:
    """An opened .weights file; a context manager.

    Attributes:
        path: The file.
        version: Major, minor, revision.
        seen: Images that the network was trained on.
        size: Bytes of the file.
        left: Bytes not read yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream, self.size = open_sized(path, "a file of weights")
        try:
            self.version, self.seen, header = self._header()
        except BaseException:
            self._stream.close()
            raise
        self.left = self.size - header

    @property
    def transposed(self) -> bool:
        """True where matrices of connected layers are stored [in, out]."""
        return self.version[0] > 1000 or self.version[1] > 1000

    def take(self, label: str, shapes: Shapes) -> dict[str, np.ndarray]:
        """The next arrays, f32, by name and shape; `label` is what the error calls the layer.

        Raises:
            EdgewrightError: E202 where the file has too few bytes left.
        """
        counts = {name: math.prod(shape) for name, shape in shapes.items()}
        needed = sum(counts.values()) * _FLOAT.itemsize
        if needed > self.left:
            raise EdgewrightError(
                "E202",
                f"weights `{self.path.name}`: {label} needs {needed} bytes, {self.left} left; "
                "classes= or filters= probably changed",
                hint=f"compare cfg and weights: they must belong together; `{self.path.name}` has {self.size} bytes",
            )
        self.left -= needed
        return {name: self._read(counts[name]).reshape(tuple(shape)) for name, shape in shapes.items()}

    def finish(self) -> None:
        """Refuse what no layer took.

        Raises:
            EdgewrightError: E202 with the number of bytes.
        """
        if self.left:
            raise EdgewrightError(
                "E202",
                f"weights `{self.path.name}`: {self.left} bytes are left after the last layer of the cfg, "
                f"of {self.size}; the cfg lacks layers, or classes= or filters= changed",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def _read(self, count: int) -> np.ndarray:
        array = np.fromfile(self._stream, _FLOAT, count)
        if array.size != count:
            raise EdgewrightError("E201", f"weights `{self.path.name}` became shorter while they were read")
        return array.astype(np.float32, copy=False)

    def _header(self) -> tuple[tuple[int, int, int], int, int]:
        head = self._stream.read(12)
        if len(head) < 12:
            raise self._no_weights(f"its header has {len(head)} bytes of 12")
        version = struct.unpack("<3i", head)
        if not all(0 <= number <= _LARGEST_VERSION for number in version):
            raise self._no_weights(f"its version would be {'.'.join(str(number) for number in version)}")
        form = "<Q" if version[0] * 10 + version[1] >= 2 else "<I"
        width = struct.calcsize(form)
        data = self._stream.read(width)
        if len(data) < width:
            raise self._no_weights(f"its header has {12 + len(data)} bytes of {12 + width}")
        return version, struct.unpack(form, data)[0], 12 + width

    def _no_weights(self, reason: str) -> EdgewrightError:
        return EdgewrightError("E201", f"`{self.path.name}` holds no Darknet weights ({self.size} bytes): {reason}")
