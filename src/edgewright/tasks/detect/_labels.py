"""True boxes, read from text files in YOLO's format."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.tasks.detect._boxes import from_centres

_LARGEST_BYTES = 2**20
#: How far a coordinate may lie outside 0..1: files round.
_SLACK = 1e-3


@dataclass(frozen=True)
class Truth:
    """The boxes that a label file says are there.

    Attributes:
        boxes: Corners x1, y1, x2, y2, f64[m, 4], in parts of the photo, or of the input once `place_label` has mapped them.
        classes: i64[m].
        digest: Hash (hex) of the boxes as the file has them; all that tells one label from another.
    """

    boxes: np.ndarray = field(repr=False, compare=False)
    classes: np.ndarray = field(repr=False, compare=False)
    digest: str


def read_label(path: Path, count: int | None) -> Truth:
    """The boxes of a label file: `class cx cy w h` a line, parts of the photo's sides; an empty file says none.

    Args:
        path: The file.
        count: Number of classes, where known.

    Raises:
        EdgewrightError: E305 where it cannot be read or a line is no box.
    """
    rows = [_row(line.split(), path, number, count) for number, line in enumerate(_lines(path), 1) if line.strip()]
    table = np.array(rows, np.float64).reshape(-1, 5)
    return Truth(from_centres(table[:, 1:]), table[:, 0].astype(np.int64), hashlib.sha256(table.tobytes()).hexdigest())


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise EdgewrightError("E305", f"label file `{path.name}` has more than {_LARGEST_BYTES} bytes")
        return content.decode("utf-8-sig").splitlines()
    except OSError as problem:
        raise EdgewrightError("E305", f"label file `{path.name}` cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise EdgewrightError("E305", f"label file `{path.name}` is not UTF-8 text") from None


def _row(cells: list[str], path: Path, number: int, count: int | None) -> tuple[float, ...]:
    where = f"label file `{path.name}`, line {number}"
    if len(cells) != 5:
        raise EdgewrightError("E305", f"{where}: {len(cells)} numbers, but a box is `class cx cy w h`")
    if not (cells[0].isascii() and cells[0].isdecimal()):
        raise EdgewrightError("E305", f"{where}: class {cells[0]!r} is not a whole number")
    if len(cells[0]) > 9 or (count is not None and int(cells[0]) >= count):
        raise EdgewrightError("E305", f"{where}: class {cells[0]} is outside 0..{(count or 10**9) - 1}")
    try:
        values = tuple(float(cell) for cell in cells[1:])
    except ValueError:
        raise EdgewrightError("E305", f"{where}: {' '.join(cells[1:])!r} is not four numbers") from None
    if not all(math.isfinite(value) and -_SLACK <= value <= 1 + _SLACK for value in values) or min(values[2:]) <= 0:
        raise EdgewrightError(
            "E305",
            f"{where}: box {' '.join(cells[1:])!r} is not inside 0..1 (parts of the photo's sides), or has no area",
        )
    return (float(cells[0]), *values)
