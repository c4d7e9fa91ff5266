"""Aligned tables for people: the last column wraps with a hanging indent, and nothing wraps where no terminal is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_GAP = 2  # spaces between columns
_LEAST = 28  # a last column narrower than this goes to lines of its own

Cell = str | tuple[str, str]  # text, or (text, rich style)


def table(
    console: Console, rows: Sequence[Sequence[Cell]], *, titles: Sequence[str] = (), right: str = "", indent: int = 0
) -> None:
    """Print `rows`, as wide as their texts.

    On a terminal the last column is wrapped to its width; in a pipe each row stays one line, without trailing spaces.

    Args:
        console: Where to.
        rows: Cells of each row, the same number in all.
        titles: Heads of the columns.
        right: For each column "r" (flush right) or any other letter; columns beyond its end are flush left.
        indent: Spaces before the first column.
    """
    every = [[(title, "bold") for title in titles]] if titles else []
    every += [[(cell, "") if isinstance(cell, str) else cell for cell in row] for row in rows]
    if not every:
        return
    count = len(every[0])
    assert all(len(row) == count for row in every)
    widths = [max(_width(row[column][0]) for row in every) for column in range(count)]
    for row in every:
        _print_row(console, row, widths, right, indent)


def _print_row(
    console: Console, row: Sequence[tuple[str, str]], widths: Sequence[int], right: str, indent: int
) -> None:
    from rich.text import Text

    line = Text(" " * indent)
    for column, (text, style) in enumerate(row[:-1]):
        fill = " " * (widths[column] - _width(text))
        flush_right = right[column : column + 1] == "r"
        line.append(fill if flush_right else "").append(text, style).append("" if flush_right else fill)
        line.append(" " * _GAP)
    text, style = row[-1]
    if right[len(row) - 1 : len(row)] == "r":
        text = " " * (widths[-1] - _width(text)) + text
    room = console.width - line.cell_len if console.is_terminal else math.inf
    if room < _LEAST and room < _width(text):  # the terminal is narrow: the last column gets its own lines
        _print_line(console, line)
        line, room = Text(" " * (indent + 4)), max(console.width - indent - 4, 20)
    hang = line.cell_len
    for part in _wrapped(text, room):
        _print_line(console, line.append(part, style))
        line = Text(" " * hang)


def _print_line(console: Console, line: object) -> None:
    from rich.text import Text

    assert isinstance(line, Text)
    line.rstrip()
    console.print(line, soft_wrap=True)


def _wrapped(text: str, room: float) -> list[str]:
    import textwrap

    if _width(text) <= room:
        return [text]
    return textwrap.wrap(text, int(room), break_long_words=False, break_on_hyphens=False) or [""]


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def size(value: float | None) -> str:
    """Bytes in the unit that shows three digits: `18.6 MB`; `-` for None."""
    if value is None:
        return "-"
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def milliseconds(value: float | None) -> str:
    """Milliseconds with three significant digits; `-` for None."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.{_decimals(value)}f}"


def count(value: float | None) -> str:
    """A large number in words: `4.69 M`, `385 M`, `3.0 G`, `12 k`; `-` for None."""
    if value is None:
        return "-"
    for unit in ("", " k", " M"):
        if value < 999.5:
            return f"{value:.0f}{unit}" if not unit or value >= 99.95 else f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g} G"


def plural(number: int, noun: str) -> str:
    """`1 sample`, `2 samples`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _decimals(value: float) -> int:
    return 2 if value >= 0.9995 else 3
