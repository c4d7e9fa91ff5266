"""Typed options: plain mappings (TOML, JSON, `--set`) into frozen dataclasses and back.

>>> from dataclasses import dataclass
>>> @dataclass(frozen=True)
... class Config:
...     bits: int = 8
>>> build(Config, {"bits": "7"}, where="quantize")
Config(bits=7)
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from edgewright.errors import EdgewrightError

T = TypeVar("T")
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


def build(kind: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """An instance of the dataclass `kind` from `values`; text is parsed by each field's type.

    Args:
        kind: A dataclass type.
        values: Field name to value. Strings come from the command line; TOML and JSON bring typed values.
        where: What the options belong to, for the error text.

    Raises:
        EdgewrightError: E103 for an unknown key, a missing field or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise EdgewrightError("E103", f"`{where}` must be a table of options, not {type(values).__name__}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            known = ", ".join(f"`{name}`" for name in fields) or "none"
            raise EdgewrightError(
                "E103",
                f"`{where}` has no option `{key}`"
                + (f"; did you mean `{near[0]}`?" if near else f"; it takes: {known}"),
            )
    given = {key: _parse(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    for name, field in fields.items():
        if name not in given and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise EdgewrightError("E103", f"`{where}` needs the option `{name}`", hint=f"--set {where}.{name}=VALUE")
    return kind(**given)


def dump(instance: Any) -> dict[str, Any]:
    """The fields of a dataclass instance as JSON-ready values; `build` turns them back."""
    return {f.name: _plain(getattr(instance, f.name)) for f in dataclasses.fields(instance) if f.init}


def require_agreement(value: float) -> None:
    """Refuse a `min_agreement` that is no share.

    Raises:
        EdgewrightError: E103.
    """
    if not 0 < value <= 1:
        raise EdgewrightError("E103", f"`min_agreement` is {value}, but must be above 0 and at most 1")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dump(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _parse(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        if value in args:
            return value
        raise _wrong(where, value, "one of " + ", ".join(repr(arg) for arg in args))
    if origin in (Union, types.UnionType):
        return _parse_union(args, value, where)
    if origin in (tuple, list):
        return _parse_sequence(origin, args, value, where)
    if origin in (dict, Mapping) or hint is dict:
        if isinstance(value, Mapping):
            return {key: _parse(args[1] if args else Any, item, f"{where}.{key}") for key, item in value.items()}
        raise _wrong(where, value, "a table")
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            return value
        if isinstance(value, Mapping):
            return build(typing.cast(type, hint), value, where=where)
        raise _wrong(where, value, "a table")
    return _parse_scalar(hint, value, where)


def _parse_union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None or (value in ("none", "None") and type(None) in args):
        return None
    problems: list[EdgewrightError] = []
    for arg in args:
        if arg is type(None):
            continue
        try:
            return _parse(arg, value, where)
        except EdgewrightError as problem:
            problems.append(problem)
    raise problems[0]


def _parse_sequence(origin: Any, args: tuple[Any, ...], value: Any, where: str) -> Any:
    items = [part for part in value.split(",") if part] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        items = [items]
    if origin is list or (len(args) == 2 and args[1] is Ellipsis):
        nested = dataclasses.is_dataclass(args[0]) or get_origin(args[0]) in (tuple, list)
        return origin(
            _parse(args[0], item, f"{where}[{index}]" if nested else where) for index, item in enumerate(items)
        )
    if len(items) != len(args):
        raise _wrong(where, value, f"{len(args)} values")
    return tuple(_parse(arg, item, where) for arg, item in zip(args, items, strict=True))


def _parse_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is bool:
        if isinstance(value, bool):
            return value
        text = str(value).lower()
        if text in _TRUE | _FALSE:
            return text in _TRUE
        raise _wrong(where, value, "true or false")
    if hint in (int, float):
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise _wrong(where, value, "a number")
        try:
            number = hint(value)
        except (ValueError, OverflowError):
            raise _wrong(where, value, "a whole number" if hint is int else "a number") from None
        if hint is int and isinstance(value, float) and value != number:
            raise _wrong(where, value, "a whole number")
        return number
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if hint is str and isinstance(value, str):
        return value
    if isinstance(hint, type) and isinstance(value, hint):
        return value
    raise _wrong(where, value, f"a {getattr(hint, '__name__', hint)}")


def _wrong(where: str, value: Any, expected: str) -> EdgewrightError:
    return EdgewrightError("E103", f"option `{where}` is {value!r}, but must be {expected}")
