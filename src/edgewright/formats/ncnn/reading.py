"""Reads ncnn's two files: the .param, one line of text for each layer, and the .bin with the weights in the same order.

Nothing in the .bin says which layer a number belongs to, so each layer says how many it takes, and what is left at the end
is an error. Counts are checked against the bytes that are there before memory is taken for them.

Source: Tencent/ncnn, docs/developer-guide/param-and-model-file-structure.md, src/paramdict.cpp and src/modelbin.cpp.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.files import open_sized, read_whole

MAGIC = 7767517
#: ncnn's NCNN_MAX_PARAM_COUNT.
MOST_PARAMETERS = 32
#: Arrays have the number -23300 - id; newer files write them as a list without a count.
ARRAY_BASE = 23300
#: Larger than any network anybody wrote, smaller than anything that hurts.
_LARGEST_BYTES = 16 * 2**20
_LARGEST_INT = 2**31 - 1
_LARGEST_REAL = float(np.finfo(np.float32).max)
_LONGEST_NAME = 255
#: Tags before weights: half precision, bfloat16, int8, and float32 in two spellings. Any other that is not 0 announces a
#: table of 256 numbers with one byte for each weight.
_HALF, _BFLOAT, _INT8, _SCALED, _FLOAT = 0x01306B47, 0x01348B83, 0x000D4B38, 0x0002C056, 0
_TABLE = 256

Value = int | float | str | tuple[int | float, ...]

_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
_REAL = re.compile(r"[+-]?([0-9]{1,40}\.?[0-9]{0,60}|\.[0-9]{1,60})([eE][+-]?[0-9]{1,5})?")
_PAIR = re.compile(r'\s*(-?[0-9]{1,6})=("[^"]*"|[^\s"]*)(?=\s|$)')


@dataclass(frozen=True)
class Line:
    """One layer of a .param.

    Attributes:
        kind: The layer's type, such as `Convolution`.
        name: The layer's own name.
        bottoms: Names of the blobs it reads.
        tops: Names of the blobs it makes.
        values: Its parameters by number.
        number: The line, counted from 1.
        file: Name of the .param, for messages.
    """

    kind: str
    name: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    values: Mapping[int, Value]
    number: int
    file: str

    @property
    def label(self) -> str:
        """What messages call it: `Convolution `conv1``."""
        return f"{self.kind} `{self.name}`"

    def note(self, message: str) -> str:
        """A message that names file, line and layer."""
        return f"`{self.file}` line {self.number}: {self.label}: {message}"

    def refuse(self, message: str, *, code: str = "E215") -> EdgewrightError:
        """The same as an error."""
        return EdgewrightError(code, self.note(message))


def read_param(path: Path) -> list[Line]:
    """The layers of the .param at `path`, in their order.

    Raises:
        EdgewrightError: E104 when it cannot be read, E201 when it is no .param or has other counts than it says, E203 for a
            blob that is made twice or read before it is made, E215 for a line that cannot be.
    """
    lines = _lines(path)
    number, text = next(lines, (1, ""))
    if text.split() != [str(MAGIC)]:
        raise _no_param(path, f"line {number} is `{text[:40]}`, not {MAGIC}")
    number, text = next(lines, (number, ""))
    counts = text.split()
    if len(counts) != 2 or not all(re.fullmatch("[0-9]{1,9}", count) for count in counts):
        raise _no_param(path, f"line {number} is `{text[:40]}`, but must be the numbers of layers and blobs")
    layers = [_layer(path.name, number, text) for number, text in lines]
    _check(path, layers, int(counts[0]), int(counts[1]))
    return layers


class Weights:
    """An opened .bin; a context manager.

    Attributes:
        path: The file.
        size: Its bytes.
        left: Bytes not read yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream, self.size = open_sized(path, "a file of weights")
        self.left = self.size

    def plain(self, line: Line, count: int) -> np.ndarray:
        """The next `count` numbers, f32[count], without a tag before them.

        Raises:
            EdgewrightError: E202 where the file has too few bytes left.
        """
        return np.frombuffer(self._take(line, 4 * count), "<f4").astype(np.float32, copy=False)

    def tagged(self, line: Line, count: int) -> np.ndarray:
        """The next `count` weights behind their tag: f32[count], or i8[count] where they are stored as int8.

        Raises:
            EdgewrightError: E202 where the file has too few bytes left.
        """
        tag = struct.unpack("<I", self._take(line, 4, count))[0]
        if tag in (_FLOAT, _SCALED):
            return self.plain(line, count)
        if tag == _INT8:
            return np.frombuffer(self._take(line, _aligned(count)), np.int8)[:count]
        if tag in (_HALF, _BFLOAT):
            stored = np.frombuffer(self._take(line, _aligned(2 * count)), "<u2")[:count]
            if tag == _HALF:
                return stored.view("<f2").astype(np.float32)
            return (stored.astype(np.uint32) << 16).view(np.float32)
        self._require(line, 4 * _TABLE + _aligned(count))
        table = self.plain(line, _TABLE)
        looked_up: np.ndarray = table[np.frombuffer(self._take(line, _aligned(count)), np.uint8)[:count]]
        return looked_up

    def finish(self) -> None:
        """Refuse what no layer took.

        Raises:
            EdgewrightError: E202 with the number of bytes.
        """
        if self.left:
            raise EdgewrightError(
                "E202",
                f"weights `{self.path.name}`: {self.left} bytes are left after the last layer, of {self.size}; "
                "the .param lacks layers, or belongs to other weights",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def _take(self, line: Line, size: int, count: int | None = None) -> bytes:
        """The next `size` bytes; `count` is what the layer asked for, where that is more to the point."""
        self._require(line, size if count is None else size + count)
        data = self._stream.read(size)
        if len(data) != size:
            raise EdgewrightError("E201", f"weights `{self.path.name}` became shorter while they were read")
        self.left -= size
        return data

    def _require(self, line: Line, needed: int) -> None:
        if needed > self.left:
            raise EdgewrightError(
                "E202",
                f"weights `{self.path.name}`: {line.label} (line {line.number}) needs {needed} bytes at byte "
                f"{self.size - self.left}, {self.left} left",
                hint=f"`{line.file}` and `{self.path.name}` must belong together",
            )


def _aligned(size: int) -> int:
    """`size` rounded up to whole words of 4 bytes."""
    return (size + 3) // 4 * 4


# --- the text -----------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that say something, with their numbers."""
    data = read_whole(path, "a .param file", _LARGEST_BYTES, lambda why: _no_param(path, why))
    if data[:4] == struct.pack("<I", MAGIC):
        raise EdgewrightError(
            "E201",
            f"`{path.name}` is a binary .param, which has numbers for the names of its layers and blobs",
            hint="take the text .param that it was made from",
        )
    if b"\0" in data:
        raise _no_param(path, "it is not text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    for number, line in enumerate(re.split("\r\n|\r|\n", text), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line


def _layer(file: str, number: int, text: str) -> Line:
    """The layer in a line.

    Raises:
        EdgewrightError: E215 for one that cannot be.
    """
    head = text.split(None, 4)
    if len(head) < 4 or not all(re.fullmatch("[0-9]{1,6}", count) for count in head[2:4]):
        raise _no_layer(file, number, f"`{text.strip()[:60]}` is no layer: type, name, and two counts of blobs")
    bottoms, tops = int(head[2]), int(head[3])
    rest = head[4] if len(head) > 4 else ""
    words = rest.split(None, bottoms + tops)
    blobs = tuple(words[: bottoms + tops])
    if len(blobs) < bottoms + tops:
        raise _no_layer(file, number, f"layer `{head[1][:60]}` has {bottoms + tops} blobs, but names {len(blobs)}")
    for name in (head[0], head[1], *blobs):
        if len(name) > _LONGEST_NAME:
            raise _no_layer(file, number, f"name `{name[:40]}...` is longer than {_LONGEST_NAME} characters")
    values = _values(file, number, words[bottoms + tops] if len(words) > bottoms + tops else "")
    return Line(head[0], head[1], blobs[:bottoms], blobs[bottoms:], values, number, file)


def _values(file: str, number: int, text: str) -> dict[int, Value]:
    """The pairs `id=value` at the end of a line."""
    values: dict[int, Value] = {}
    text = text.strip()
    place = 0
    while place < len(text):
        if text[place:].lstrip().startswith("#"):
            break
        pair = _PAIR.match(text, place)
        if pair is None:
            raise _no_layer(file, number, f"`{text[place:].strip()[:40]}` is no parameter: id=value")
        key, written = int(pair[1]), pair[2]
        counted = key <= -ARRAY_BASE
        key = -key - ARRAY_BASE if counted else key
        if not 0 <= key < MOST_PARAMETERS:
            raise _no_layer(file, number, f"parameter {pair[1]} is none: ids are 0 to {MOST_PARAMETERS - 1}")
        if key in values:
            raise _no_layer(file, number, f"parameter {key} is there twice")
        values[key] = _array(file, number, key, written) if counted else _value(file, number, key, written)
        place = pair.end()
    return values


def _array(file: str, number: int, key: int, written: str) -> tuple[int | float, ...]:
    """The items of `count,item,item`."""
    count, *items = written.split(",")
    if not re.fullmatch("[0-9]{1,9}", count) or int(count) != len(items):
        raise _no_layer(
            file, number, f"parameter {key} is `{written[:40]}`: it says {count[:20]} numbers and has {len(items)}"
        )
    return tuple(_number(file, number, key, item) for item in items)


def _value(file: str, number: int, key: int, written: str) -> Value:
    """A number, a list of numbers, or text."""
    if written.startswith('"'):
        return written[1:-1]
    if "," in written and not written[0].isalpha():
        return tuple(_number(file, number, key, item) for item in written.split(","))
    if written[:1].isalpha():
        return written
    return _number(file, number, key, written)


def _number(file: str, number: int, key: int, written: str) -> int | float:
    """Whole where it has neither point nor exponent, as ncnn tells them apart."""
    if _WHOLE.fullmatch(written):
        whole = int(written)
        if abs(whole) > _LARGEST_INT + 1:
            raise _no_layer(file, number, f"parameter {key} is {written}, beyond what 32 bits hold")
        return whole
    if not _REAL.fullmatch(written):
        raise _no_layer(file, number, f"parameter {key} is `{written[:40]}`, but must be a number")
    real = float(written)
    # FLT_MAX as printed with seven digits lies a little outside.
    return min(max(real, -_LARGEST_REAL), _LARGEST_REAL)


# --- what holds the lines together --------------------------------------------------------------------------------------


def _check(path: Path, layers: list[Line], layer_count: int, blob_count: int) -> None:
    """Counts, and that every blob is made once, before it is read.

    Raises:
        EdgewrightError: E201 for counts, E203 for blobs.
    """
    if len(layers) != layer_count:
        raise _no_param(path, f"it says {layer_count} layers and has {len(layers)}; it may be cut short")
    made: dict[str, Line] = {}
    everywhere = {name for line in layers for name in line.tops}
    for line in layers:
        for name in line.bottoms:
            if name not in made:
                why = "before a layer makes it" if name in everywhere else "that no layer makes"
                raise line.refuse(f"it reads blob `{name}` {why}", code="E203")
        for name in line.tops:
            if name in made:
                raise line.refuse(f"it makes blob `{name}`, as line {made[name].number} does", code="E203")
            made[name] = line
    if len(made) != blob_count:
        raise _no_param(path, f"it says {blob_count} blobs and has {len(made)}")


def _no_param(path: Path, reason: str) -> EdgewrightError:
    return EdgewrightError("E201", f"`{path.name}` is not an ncnn .param: {reason}")


def _no_layer(file: str, number: int, reason: str) -> EdgewrightError:
    return EdgewrightError("E215", f"`{file}` line {number}: {reason}")
