"""The text of a .cfg file as sections with typed options, each with its line.

As Darknet reads it: blanks count nowhere, lines that begin with `#` or `;` are comments, the first of two equal options
counts. Unlike Darknet, which takes a number's first digits, or 0, for anything: a value that is no number is refused, and
what follows `#` or `;` inside a line is a comment too.

Source: AlexeyAB/darknet, parser.c (read_cfg) and option_list.c.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgewright.errors import EdgewrightError
from edgewright.files import read_whole

#: Larger than any network anybody wrote, smaller than anything that hurts.
_LARGEST_BYTES = 16 * 2**20
#: Darknet's numbers are C ints.
_LARGEST_INT = 2**31 - 1
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}(\.0*)?")


@dataclass(frozen=True)
class Entry:
    """One `key=value` and its line, counted from 1."""

    value: str
    line: int


@dataclass
class Section:
    """One `[name]` with its options; every option that is read is remembered as known.

    Attributes:
        name: Between the brackets.
        line: Where it begins, counted from 1.
        file: Name of the cfg file, for messages.
        index: Number of the layer, -1 for [net].
        entries: Options by key.
        known: Options that were read.
    """

    name: str
    line: int
    file: str
    index: int
    entries: dict[str, Entry] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)

    @property
    def label(self) -> str:
        """What messages call it: `layer 17 [convolutional]`."""
        return f"[{self.name}]" if self.index < 0 else f"layer {self.index} [{self.name}]"

    def has(self, key: str) -> bool:
        """True where the option is given."""
        self.known.add(key)
        return key in self.entries

    def text(self, key: str, default: str) -> str:
        """The option as text.

        Raises:
            EdgewrightError: E214 where it is empty.
        """
        if not self.has(key):
            return default
        value = self.entries[key].value
        if not value:
            raise self.refuse(f"option `{key}` has no value", key)
        return value

    def integer(self, key: str, default: int, *, low: int = 0, high: int = _LARGEST_INT) -> int:
        """The option as a whole number from `low` to `high`; the default may lie outside.

        Raises:
            EdgewrightError: E214 where it is no number or outside.
        """
        if not self.has(key):
            return default
        number = self._whole(key, self.entries[key].value)
        if not low <= number <= high:
            raise self.refuse(f"option `{key}` is {number}, but must be {low} to {high}", key)
        return number

    def signed(self, key: str, default: int) -> int:
        """The option as a whole number of either sign."""
        return self.integer(key, default, low=-_LARGEST_INT)

    def flag(self, key: str) -> bool:
        """True where the option is a number other than 0."""
        return self.signed(key, 0) != 0

    def number(self, key: str, default: float) -> float:
        """The option as a finite number.

        Raises:
            EdgewrightError: E214 where it is none.
        """
        return self._real(key, self.entries[key].value) if self.has(key) else default

    def integers(self, key: str) -> tuple[int, ...]:
        """The option's numbers, separated by commas; empty where it is not given."""
        return tuple(self._whole(key, item) for item in self._items(key))

    def numbers(self, key: str) -> tuple[float, ...]:
        """The same with fractions."""
        return tuple(self._real(key, item) for item in self._items(key))

    def refuse(self, message: str, key: str | None = None, *, code: str = "E214") -> EdgewrightError:
        """An error that names file, line and section."""
        line = self.entries[key].line if key in self.entries else self.line
        return EdgewrightError(code, f"`{self.file}` line {line}: {self.label}: {message}")

    def note(self, message: str, key: str | None = None) -> str:
        """The same as a warning's text."""
        line = self.entries[key].line if key in self.entries else self.line
        return f"`{self.file}` line {line}: {self.label}: {message}"

    def _items(self, key: str) -> list[str]:
        if not self.has(key):
            return []
        return [item for item in self.entries[key].value.split(",") if item]

    def _whole(self, key: str, text: str) -> int:
        if not _WHOLE.fullmatch(text):
            raise self.refuse(f"option `{key}` is `{text[:40]}`, but must be a whole number", key)
        number = int(text.partition(".")[0])
        if abs(number) > _LARGEST_INT:
            raise self.refuse(f"option `{key}` is {number}, beyond what Darknet's int holds ({_LARGEST_INT})", key)
        return number

    def _real(self, key: str, text: str) -> float:
        try:
            number = float(text) if len(text) < 100 and "_" not in text else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.refuse(f"option `{key}` is `{text[:40]}`, but must be a number", key)
        return number


def read(path: Path) -> tuple[list[Section], list[str]]:
    """The sections of the cfg at `path`, [net] first, and warnings.

    Raises:
        EdgewrightError: E104 when it cannot be read, E201 when it is no cfg, E214 for a line that says nothing.
    """
    sections: list[Section] = []
    warnings: list[str] = []
    for number, line in _lines(path):
        if line.startswith("["):
            name, bracket, rest = line[1:].partition("]")
            if not bracket or not name or (rest and rest[0] not in "#;"):
                raise EdgewrightError("E214", f"`{path.name}` line {number}: `{line[:40]}` is no section")
            sections.append(Section(name, number, path.name, len(sections) - 1))
            continue
        key, equals, value = line.partition("=")
        if not sections:
            raise _no_cfg(path, f"line {number} comes before the first section")
        if not equals or not key:
            raise EdgewrightError(
                "E214", f"`{path.name}` line {number}: `{line[:40]}` is neither an option nor a section"
            )
        section = sections[-1]
        if key in section.entries:
            first = section.entries[key]
            warnings.append(f"`{path.name}` line {number}: {section.label}: option `{key}` is there twice; "
                            f"line {first.line} counts")  # fmt: skip
        section.entries.setdefault(key, Entry(re.split("[#;]", value, maxsplit=1)[0], number))
    if not sections:
        raise _no_cfg(path, "it has no section")
    if sections[0].name not in ("net", "network"):
        raise _no_cfg(path, f"its first section is [{sections[0].name[:40]}], not [net]")
    return sections, warnings


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that say something, without blanks, with their numbers."""
    data = read_whole(path, "a cfg file", _LARGEST_BYTES, lambda why: _no_cfg(path, why))
    if b"\0" in data:
        raise _no_cfg(path, "it is not text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    for number, line in enumerate(re.split("\r\n|\r|\n", text), start=1):
        stripped = re.sub("[ \t\f\v]", "", line)
        if stripped and stripped[0] not in "#;":
            yield number, stripped


def _no_cfg(path: Path, reason: str) -> EdgewrightError:
    return EdgewrightError("E201", f"`{path.name}` is not a Darknet cfg: {reason}")
