"""Labels as users bring them: labels.csv, class folders, leading class indices. Text in, a task's label out."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgewright.contracts import ROLES, Role
from edgewright.errors import EdgewrightError
from edgewright.spec import Spec

#: Column names of labels.csv, the first that is there wins.
FILE_COLUMNS = ("file", "filename", "file_name", "path", "image")
LABEL_COLUMNS = ("label", "class_index", "class", "text")
GROUP_COLUMN, ROLE_COLUMN = "group", "role"
#: Names that divide a data set; never taken for classes by their order.
_SPLITS = frozenset(
    ("train", "training", "val", "valid", "validation", "test", "testing", "calibrate", "select", "judge")
)
_LEADING_INDEX = re.compile(r"(\d+)(?=$|[_\-. ])")
_LARGEST_CELL = 2**17  # csv's own default limit, said in the error


@dataclass(frozen=True)
class Label:
    """A label as it was written.

    Attributes:
        text: The cell, folder name or number.
        where: Where it was written, for the error text.
        is_index: True where it is a class index, whatever the classes are called.
        folder: Where a label that names a file is looked for, or None.
    """

    text: str
    where: str
    is_index: bool = False
    folder: Path | None = None


@dataclass(frozen=True)
class Row:
    """A row of labels.csv; None where the table has no such column, or the cell of group or role is empty."""

    file: str
    label: Label | None
    group: str | None
    role: Role | None


@dataclass(frozen=True)
class Table:
    """A labels.csv: its rows, and columns that nothing reads."""

    rows: tuple[Row, ...]
    unused: tuple[str, ...]


def read_table(path: Path) -> Table:
    """The rows of a labels.csv: UTF-8, comma, semicolon or tab, with a header or just `file,label`.

    A table of `file` and `group` or `role` says what belongs together, or what may judge, and labels nothing.

    Raises:
        EdgewrightError: E104 unreadable, E305 not text, no such columns, or a row that is cut short.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise EdgewrightError("E104", f"labels file `{path}` cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise EdgewrightError(
            "E305", f"labels file `{path}` is not UTF-8 text", hint=f"iconv -t utf-8 {path}"
        ) from None
    first = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        cells = [(rows.line_num, row) for row in rows if any(row)]
    except csv.Error as problem:
        raise EdgewrightError(
            "E305",
            f"labels file `{path}` is malformed: {problem}",
            details=(f"cells hold at most {_LARGEST_CELL} characters",),
        ) from None
    if not cells:
        raise EdgewrightError("E305", f"labels file `{path}` is empty")
    return _table(path, cells)


def _table(path: Path, cells: list[tuple[int, list[str]]]) -> Table:
    header = [cell.strip().lower() for cell in cells[0][1]]
    file_column = next((name for name in FILE_COLUMNS if name in header), None)
    label_column = next((name for name in LABEL_COLUMNS if name in header), None)
    if file_column is None and len(header) == 2 and PurePosixPath(header[0]).suffix:
        header, (file_column, label_column) = ["file", "label"], ("file", "label")
    else:
        cells = cells[1:]
    if file_column is None or (label_column is None and not {GROUP_COLUMN, ROLE_COLUMN} & set(header)):
        raise EdgewrightError(
            "E305",
            f"labels file `{path}` has columns {', '.join(header)}, but needs `file` and one of "
            f"{', '.join(LABEL_COLUMNS)}",
        )
    used = [header.index(name) for name in (file_column, label_column) if name is not None]
    optional = {name: header.index(name) for name in (GROUP_COLUMN, ROLE_COLUMN) if name in header}
    rows = []
    for number, row in cells:
        if len(row) <= max(used):
            raise EdgewrightError(
                "E305", f"labels file `{path}`, line {number}: {len(row)} cells, but needs {max(used) + 1}"
            )
        where = f"`{path.name}`, line {number}"
        label = None
        if label_column:
            label = Label(row[used[1]].strip(), where, label_column == "class_index", path.parent)
        cells_of = {name: row[at].strip() for name, at in optional.items() if at < len(row)}
        role = _role(cells_of.get(ROLE_COLUMN, ""), where)
        rows.append(Row(row[used[0]].strip(), label, cells_of.get(GROUP_COLUMN) or None, role))
    known = {file_column, label_column, *optional}
    return Table(tuple(rows), tuple(name for name in header if name not in known))


def _role(text: str, where: str) -> Role | None:
    for role in ROLES:
        if text.lower() == role:
            return role
    if text:
        raise EdgewrightError("E305", f"{where}: role {text!r} is none of {', '.join(ROLES)}")
    return None


def from_folders(folders: Sequence[str], classes: Sequence[str]) -> tuple[dict[str, Label], str] | None:
    """Labels of class folders by folder name, with how they were understood; None where they are not classes.

    Args:
        folders: Names of the sub-folders that hold samples, sorted.
        classes: Names of the network's classes; empty where not even their number is known.

    Raises:
        EdgewrightError: E305 where some folders are classes and others are not, or two readings differ.
    """
    names = [name for name in folders if name in classes]
    numbers = [name for name in folders if name.isdecimal() and (not classes or int(name) < len(classes))]
    by_name = {name: Label(name, f"folder `{name}`") for name in names}
    by_number = {name: Label(name, f"folder `{name}`", is_index=True) for name in numbers}
    if len(names) == len(numbers) == len(folders):
        if any(classes[int(name)] != name for name in folders):
            raise _ambiguous("sub-folders are class names and class indices at once, and these differ", folders)
        return by_name, "class folders"
    if len(names) == len(folders):
        return by_name, "class folders"
    if len(numbers) == len(folders):
        return by_number, "folders named by class index"
    if names:
        others = [name for name in folders if name not in names]
        raise _ambiguous(f"{len(names)} of {len(folders)} sub-folders are class names, the others are not", others)
    if len(folders) != len(classes):
        return None
    if _SPLITS & {name.lower() for name in folders}:
        raise _ambiguous(
            f"there are as many sub-folders as classes ({len(classes)}), but they look like splits", folders
        )
    order = {name: Label(str(index), f"folder `{name}`", is_index=True) for index, name in enumerate(folders)}
    return (
        order,
        f"class folders in sorted order: `{folders[0]}` is class 0, `{folders[-1]}` is class {len(folders) - 1}",
    )


def from_file_names(names: Sequence[str], classes: Sequence[str]) -> list[Label] | None:
    """Labels from leading class indices such as `017_cat.jpg`; None unless every name has one below the class count."""
    labels = []
    for name in names:
        match = _LEADING_INDEX.match(PurePosixPath(name).stem)
        if match is None or not match[1].isascii() or len(match[1]) > 9 or int(match[1]) >= len(classes):
            return None
        labels.append(Label(match[1], f"file name `{name}`", is_index=True))
    return labels


def reader(task: Any, spec: Spec, classes: Sequence[str] | None) -> Callable[[Label], Any]:
    """A function from `Label` to what the task's metric compares with.

    It raises EdgewrightError E305 for text that is no label of the task, or an index beyond the classes.
    """
    files = getattr(task, "LABEL_FILES", False)

    def read(label: Label) -> Any:
        try:
            if label.is_index and classes is not None:
                value = int(label.text)
            else:
                value = task.parse_label(_file_of(label) if files else label.text, spec)
        except ValueError:
            raise EdgewrightError("E305", f"{label.where}: class index {label.text!r} is not a whole number") from None
        except EdgewrightError as problem:
            raise EdgewrightError(problem.code, f"{label.where}: {problem.message}", hint=problem.hint) from None
        if classes is not None and isinstance(value, int) and (value < 0 or (classes and value >= len(classes))):
            raise EdgewrightError("E305", f"{label.where}: class index {value} is outside 0..{len(classes) - 1}")
        return value

    return read


def _file_of(label: Label) -> str:
    """The path that a label which names a file means; never outside the table's folder."""
    relative = os.path.normpath(label.text.replace("\\", "/"))
    if label.folder is None or Path(relative).is_absolute() or relative.split("/")[0] == ".." or "\0" in relative:
        raise EdgewrightError("E305", f"label {label.text!r} names a file outside the folder of the samples")
    return str(label.folder / relative)


def _ambiguous(what: str, folders: Sequence[str]) -> EdgewrightError:
    shown = ", ".join(f"`{name}`" for name in folders[:5]) + (", ..." if len(folders) > 5 else "")
    return EdgewrightError(
        "E305", f"labels are ambiguous: {what}: {shown}", hint="give --labels labels.csv or --labels none"
    )
