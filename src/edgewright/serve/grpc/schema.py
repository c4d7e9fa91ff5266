"""Message classes from a `.proto` file, made when they are first needed.

No generated code: what protoc writes for one major version of protobuf does not load under another, and its messages would
be registered for the whole process, where a client's own (tritonclient's) have the same names. These live in a pool of
their own.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

_TOKEN = re.compile(r"//[^\n]*|\s+|(\"[^\"]*\"|[\w.]+|[{}()<>=;,])")
_OPTIONAL, _REPEATED, _MESSAGE, _ENUM = 1, 3, 11, 14  # labels and types in descriptor.proto
_SCALARS = ("double", "float", "int64", "uint64", "int32", "bool", "string", "bytes", "uint32")


class Method(NamedTuple):
    """A call of a service: its message classes, and which of both are streams."""

    request: Any
    response: Any
    takes_stream: bool
    gives_stream: bool


class Schema(NamedTuple):
    """A file's message classes by name, and its service's full name and methods."""

    messages: dict[str, Any]
    service: str
    methods: dict[str, Method]


@functools.cache
def load(name: str) -> Schema:
    """The schema in `NAME.proto` beside this module."""
    from google.protobuf import descriptor_pool, message_factory

    reader = _Reader((Path(__file__).parent / f"{name}.proto").read_text(encoding="utf-8"), name)
    reader.read()
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(reader.file.SerializeToString())
    package = reader.file.package
    messages = {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{message.name}"))
        for message in reader.file.message_type
    }
    methods = {
        call: Method(messages[request], messages[response], takes, gives)
        for call, (request, response, takes, gives) in reader.calls.items()
    }
    return Schema(messages, f"{package}.{reader.service}", methods)


class _Reader:
    """Reads what the two files here use of the language: messages, enums, oneof, map, one service.

    Source: protobuf.dev, "Protocol Buffers Language Specification (Proto3)"; descriptor.proto.
    """

    def __init__(self, text: str, name: str) -> None:
        from google.protobuf import descriptor_pb2

        self.file: Any = descriptor_pb2.FileDescriptorProto(name=f"edgewright/{name}.proto", syntax="proto3")
        self.service = ""
        self.calls: dict[str, tuple[str, str, bool, bool]] = {}
        self._tokens = [match[1] for match in _TOKEN.finditer(text) if match[1]][::-1]
        self._open: list[tuple[Any, list[str], str]] = []  # fields whose type may be declared below them
        self._known: dict[str, int] = {}

    def read(self) -> None:
        """Fill `file`, `service` and `calls`."""
        while self._tokens:
            match self._next():
                case "syntax":
                    self._skip_to(";")
                case "package":
                    self.file.package = self._next()
                    self._skip_to(";")
                case "message":
                    self._message(self.file.message_type.add(), [self.file.package])
                case "enum":
                    self._enum(self.file.enum_type.add(), [self.file.package])
                case "service":
                    self._service()
        for field, scope, name in self._open:
            scopes = [".".join(scope[:depth]) for depth in range(len(scope), 0, -1)]
            full = next(f".{outer}.{name}" for outer in scopes if f".{outer}.{name}" in self._known)
            field.type, field.type_name = self._known[full], full

    def _message(self, message: Any, scope: list[str]) -> None:
        message.name = self._next()
        inner = [*scope, message.name]
        self._known[f".{'.'.join(inner)}"] = _MESSAGE
        self._next()
        while (word := self._next()) != "}":
            if word == "message":
                self._message(message.nested_type.add(), inner)
            elif word == "enum":
                self._enum(message.enum_type.add(), inner)
            elif word == "oneof":
                message.oneof_decl.add(name=self._next())
                self._next()
                while (kind := self._next()) != "}":
                    self._field(message, inner, kind).oneof_index = len(message.oneof_decl) - 1
            elif word == "map":
                self._map(message, inner)
            elif word == "repeated":
                self._field(message, inner, self._next()).label = _REPEATED
            else:
                self._field(message, inner, word)

    def _field(self, message: Any, scope: list[str], kind: str) -> Any:
        name, _, number, _ = (self._next() for _ in range(4))
        return self._declare(message, scope, kind, name, int(number))

    def _declare(self, message: Any, scope: list[str], kind: str, name: str, number: int) -> Any:
        field = message.field.add(name=name, number=number, label=_OPTIONAL)
        if kind in _SCALARS:
            field.type = field.Type.Value(f"TYPE_{kind.upper()}")
        else:
            self._open.append((field, scope, kind))
        return field

    def _map(self, message: Any, scope: list[str]) -> None:
        """`map<string, KIND> name = 1;` is a repeated message of key and value."""
        _, key, _, kind, _ = (self._next() for _ in range(5))
        name = self._tokens[-1]
        entry = message.nested_type.add(name=name.title().replace("_", "") + "Entry")
        entry.options.map_entry = True
        inner = [*scope, entry.name]
        self._known[f".{'.'.join(inner)}"] = _MESSAGE
        for number, (part, of) in enumerate((("key", key), ("value", kind)), 1):
            self._declare(entry, inner, of, part, number)
        self._field(message, scope, entry.name).label = _REPEATED

    def _enum(self, enum: Any, scope: list[str]) -> None:
        enum.name = self._next()
        self._known[f".{'.'.join([*scope, enum.name])}"] = _ENUM
        self._next()
        while (name := self._next()) != "}":
            _, number, _ = (self._next() for _ in range(3))
            enum.value.add(name=name, number=int(number))

    def _service(self) -> None:
        self.service = self._next()
        self._next()
        while self._next() != "}":
            call, sides = self._next(), []
            for _ in range(2):  # (stream? NAME) returns (stream? NAME)
                words = self._skip_to(")")
                sides.append((words[-1], "stream" in words))
            self._skip_to("}")
            self.calls[call] = (sides[0][0], sides[1][0], sides[0][1], sides[1][1])

    def _next(self) -> str:
        return self._tokens.pop()

    def _skip_to(self, end: str) -> list[str]:
        words = []
        while (word := self._next()) != end:
            words.append(word)
        return words
