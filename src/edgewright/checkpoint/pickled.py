"""A pickle's value, decoded opcode by opcode. It executes nothing: there is no import, no getattr and no call in here.

Globals are inert names. A name outside `rebuild.KNOWN` is refused the moment it is read, by whichever opcode asks for
it; the few that may be "called" are functions of `rebuild.py` that take plain data and return plain data.

Source: the opcode list in CPython's Lib/pickletools.py, protocols 0 to 5.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from edgewright.checkpoint import rebuild
from edgewright.checkpoint.rebuild import Global, Storage
from edgewright.errors import EdgewrightError

#: A state dict takes about 40 opcodes per tensor, so this is 100,000 tensors. It bounds time, stack, memo and memory.
MAX_OPCODES = 4_000_000
#: Longest module or attribute name, and longest number written as text, in bytes.
MAX_NAME_BYTES = 512
MAX_NUMBER_BYTES = 255
HIGHEST_PROTOCOL = 5


class Buffer(Protocol):
    """Bytes that can be sliced and measured: bytes, or a memory map."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> bytes: ...
    def find(self, what: bytes, start: int, end: int, /) -> int:  # noqa: D102 - as bytes.find
        ...


class Machine:
    """The pickle machine: a stack, marks and a memo over `data[position:end]`.

    Attributes:
        where: The file, for error texts.
        position: The next byte; after `run` the byte behind STOP.
        limits: What calls may copy.
        storages: Storages that the pickle named, by key.
    """

    def __init__(self, data: Buffer, *, where: str, position: int = 0, end: int | None = None) -> None:
        self.where = where
        self.position = position
        self._data = data
        self._end = len(data) if end is None else end
        self.limits = rebuild.Limits(where, 4 * (self._end - position) + 4096)
        self.storages: dict[str, Storage] = {}
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value of one pickle: None, bool, int, float, str, bytes, list, tuple, dict and the types of `rebuild`.

        Raises:
            EdgewrightError: E201 malformed or cut short, E207 something other than tensors, E202 impossible sizes.
        """
        for _ in range(MAX_OPCODES):
            opcode = self.take(1)
            if opcode == b".":  # STOP
                return self.pop()
            handler = _HANDLERS.get(opcode)
            if handler is None:
                raise self.malformed(f"byte 0x{opcode.hex()} is no opcode")
            handler(self)
        raise self.malformed(f"it has more than {MAX_OPCODES} opcodes")

    # --- bytes ---

    def take(self, count: int) -> bytes:
        """The next `count` bytes; nothing is allocated before it is known that they exist."""
        if count < 0 or count > self._end - self.position:
            raise self.malformed(f"it needs {count} bytes where {self._end - self.position} are left")
        self.position += count
        return self._data[self.position - count : self.position]

    def number(self, form: str) -> Any:
        """The next number, by its struct format."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self, limit: int | None = None) -> bytes:
        """The bytes up to the next line feed, which is skipped."""
        end = self._end if limit is None else min(self._end, self.position + limit + 1)
        stop = self._data.find(b"\n", self.position, end)
        if stop < 0:
            raise self.malformed("a line of text has no end" if limit is None else f"text is longer than {limit} bytes")
        text = self._data[self.position : stop]
        self.position = stop + 1
        return text

    # --- stack, marks, memo ---

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Take the top of the stack, not reaching below the last mark."""
        if not self._stack:
            raise self.malformed("it takes a value from an empty stack")
        return self._stack.pop()

    def top(self) -> Any:
        """The top of the stack, left there."""
        if not self._stack:
            raise self.malformed("it looks at an empty stack")
        return self._stack[-1]

    def mark(self) -> None:
        """Begin a run of values."""
        self._marks.append(self._stack)
        self._stack = []

    def pop_mark(self) -> list[Any]:
        """Values since the last mark."""
        if not self._marks:
            raise self.malformed("it closes a mark that was never set")
        values = self._stack
        self._stack = self._marks.pop()
        return values

    def remember(self, index: int | None = None) -> None:
        """Store the top of the stack in the memo."""
        self._memo[len(self._memo) if index is None else index] = self.top()

    def recall(self, index: int) -> None:
        """Push a value of the memo."""
        if index not in self._memo:
            raise self.malformed(f"memo entry {index} was never stored")
        self.push(self._memo[index])

    # --- errors ---

    def malformed(self, what: str) -> EdgewrightError:
        """The error for bytes that are no proper pickle."""
        return EdgewrightError(
            "E201", f"checkpoint `{self.where}` is damaged or cut short: {what} (byte {self.position})"
        )

    def refused(self, what: str) -> EdgewrightError:
        """The error for a request that goes beyond tensors."""
        return rebuild.refused(self.where, what)


# --- numbers and text -------------------------------------------------------------------------------------------------


def _text_number(machine: Machine) -> Any:
    text = machine.line(MAX_NUMBER_BYTES)
    if text in (b"00", b"01"):  # how protocols 0 and 1 write bool
        return text == b"01"
    try:
        return int(text.removesuffix(b"L"))
    except ValueError:
        raise machine.malformed("a whole number is malformed") from None


def _text_float(machine: Machine) -> float:
    try:
        return float(machine.line(MAX_NUMBER_BYTES))
    except ValueError:
        raise machine.malformed("a number is malformed") from None


def _long(machine: Machine, form: str) -> int:
    size = machine.number(form)
    if not 0 <= size <= MAX_NUMBER_BYTES:
        raise machine.malformed(f"a whole number takes {size} bytes, at most {MAX_NUMBER_BYTES} make sense")
    return int.from_bytes(machine.take(size), "little", signed=True)


def _decode(machine: Machine, text: bytes, encoding: str = "utf-8") -> str:
    try:
        return text.decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")
    except UnicodeDecodeError:
        raise machine.malformed("a text is not UTF-8") from None


def _python2_text(machine: Machine, text: bytes) -> str | bytes:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text  # Python 2 wrote bytes and text alike


def _quoted(machine: Machine) -> str | bytes:
    text = machine.line()
    if len(text) < 2 or text[:1] not in b"'\"" or text[:1] != text[-1:]:
        raise machine.malformed("a quoted text has no quotes")
    if b"\\" in text:  # escapes: no writer of checkpoints makes them
        raise machine.refused("text with escapes (protocol 0)")
    return _python2_text(machine, text[1:-1])


def _frame(machine: Machine) -> None:
    size = machine.number("<Q")
    if size > machine._end - machine.position:
        raise machine.malformed(f"a frame of {size} bytes is longer than the file")


def _protocol(machine: Machine) -> None:
    version = machine.take(1)[0]
    if version > HIGHEST_PROTOCOL:
        raise machine.malformed(f"pickle protocol {version} is newer than {HIGHEST_PROTOCOL}")


# --- containers -------------------------------------------------------------------------------------------------------


def _append(machine: Machine, values: Sequence[Any]) -> None:
    target = machine.top()
    if not isinstance(target, list):
        raise machine.refused(f"appending to {rebuild.kind(target)}")
    target.extend(values)


def _set_items(machine: Machine, values: Sequence[Any]) -> None:
    target = machine.top()
    if not isinstance(target, dict):
        raise machine.refused(f"setting items of {rebuild.kind(target)}")
    if len(values) % 2:
        raise machine.malformed("a dict has a key without a value")
    for key, value in zip(values[::2], values[1::2], strict=True):
        target[rebuild.checked_key(key, machine.where)] = value


def _dict(machine: Machine) -> None:
    values = machine.pop_mark()
    machine.push({})
    _set_items(machine, values)


def _pair(machine: Machine) -> list[Any]:
    second = machine.pop()
    return [machine.pop(), second]


def _tuple(machine: Machine, count: int) -> None:
    values = [machine.pop() for _ in range(count)]
    machine.push(tuple(reversed(values)))


def _pop(machine: Machine) -> None:
    if machine._stack:
        machine.pop()
    else:
        machine.pop_mark()


def _discard(machine: Machine) -> None:
    machine.pop_mark()


# --- what a pickle may ask for ----------------------------------------------------------------------------------------


def _named(machine: Machine, module: Any, name: Any) -> Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise machine.malformed("a global has no name")
    return rebuild.known(module, name, machine.where)


def _global(machine: Machine) -> Global:
    module, name = machine.line(MAX_NAME_BYTES), machine.line(MAX_NAME_BYTES)
    return _named(machine, _decode(machine, module), _decode(machine, name))


def _stack_global(machine: Machine) -> None:
    module, name = _pair(machine)
    machine.push(_named(machine, module, name))


def _reduce(machine: Machine) -> None:
    function, arguments = _pair(machine)
    if not isinstance(function, Global):
        raise machine.refused(f"a call of {rebuild.kind(function)}")
    if not isinstance(arguments, tuple):
        raise machine.malformed(f"a call of `{function.name}` has no tuple of arguments")
    machine.push(rebuild.call(function, arguments, machine.limits))


def _build(machine: Machine) -> None:
    state = machine.pop()
    rebuild.set_state(machine.top(), state, machine.limits)


def _instance(machine: Machine) -> None:
    raise machine.refused(f"an instance of `{_global(machine).name}`")


def _object(machine: Machine) -> None:
    values = machine.pop_mark()
    raise machine.refused(f"an instance of {rebuild.kind(values[0]) if values else 'nothing'}")


def _new_object(machine: Machine) -> None:
    arguments = machine.pop()
    raise machine.refused(f"an instance of {rebuild.kind(machine.top())} made from {rebuild.kind(arguments)}")


def _new_object_with_keywords(machine: Machine) -> None:
    machine.pop()
    _new_object(machine)


def _extension(machine: Machine, form: str) -> None:
    raise machine.refused(f"entry {machine.number(form)} of the copyreg extension registry")


def _text_persistent(machine: Machine) -> None:
    raise machine.refused("a persistent object named by text, which torch never writes")


def _persistent(machine: Machine) -> None:
    storage = rebuild.storage(machine.pop(), machine.where)
    first = machine.storages.setdefault(storage.key, storage)
    if (first.dtype, first.count) != (storage.dtype, storage.count):
        raise machine.malformed("a storage has two types or sizes")
    machine.push(storage)


def _refuse(what: str) -> Callable[[Machine], None]:
    def handler(machine: Machine) -> None:
        raise machine.refused(what)

    return handler


def _pushes(read: Callable[[Machine], Any]) -> Callable[[Machine], None]:
    return lambda machine: machine.push(read(machine))


def _sized(form: str, decode: Callable[[Machine, bytes], Any]) -> Callable[[Machine], None]:
    return lambda machine: machine.push(decode(machine, machine.take(machine.number(form))))


def _as_bytes(_: Machine, content: bytes) -> bytes:
    return content


def _index(machine: Machine) -> int:
    index = _text_number(machine)
    if index < 0:
        raise machine.malformed(f"memo entry {index} cannot be")
    return int(index)


#: Opcode -> what it does. STOP is in `Machine.run`.
_HANDLERS: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": _protocol, b"\x95": _frame,
    b"N": lambda m: m.push(None), b"\x88": lambda m: m.push(True), b"\x89": lambda m: m.push(False),
    b"I": _pushes(_text_number), b"L": _pushes(_text_number), b"F": _pushes(_text_float),
    b"K": lambda m: m.push(m.number("<B")), b"M": lambda m: m.push(m.number("<H")),
    b"J": lambda m: m.push(m.number("<i")), b"G": lambda m: m.push(m.number(">d")),
    b"\x8a": lambda m: m.push(_long(m, "<B")), b"\x8b": lambda m: m.push(_long(m, "<i")),
    b"S": _pushes(_quoted), b"T": _sized("<i", _python2_text), b"U": _sized("<B", _python2_text),
    b"V": _pushes(lambda m: _decode(m, m.line(), "ascii")),
    b"X": _sized("<I", _decode), b"\x8c": _sized("<B", _decode), b"\x8d": _sized("<Q", _decode),
    b"B": _sized("<I", _as_bytes), b"C": _sized("<B", _as_bytes), b"\x8e": _sized("<Q", _as_bytes),
    b"\x96": _sized("<Q", _as_bytes),
    b"]": lambda m: m.push([]), b"}": lambda m: m.push({}), b")": lambda m: m.push(()),
    b"(": Machine.mark, b"0": _pop, b"1": _discard, b"2": lambda m: m.push(m.top()),
    b"l": lambda m: m.push(m.pop_mark()), b"t": lambda m: m.push(tuple(m.pop_mark())), b"d": _dict,
    b"\x85": lambda m: _tuple(m, 1), b"\x86": lambda m: _tuple(m, 2), b"\x87": lambda m: _tuple(m, 3),
    b"a": lambda m: _append(m, [m.pop()]), b"e": lambda m: _append(m, m.pop_mark()),
    b"s": lambda m: _set_items(m, _pair(m)), b"u": lambda m: _set_items(m, m.pop_mark()),
    b"p": lambda m: m.remember(_index(m)), b"q": lambda m: m.remember(m.number("<B")),
    b"r": lambda m: m.remember(m.number("<I")), b"\x94": lambda m: m.remember(),
    b"g": lambda m: m.recall(_index(m)), b"h": lambda m: m.recall(m.number("<B")),
    b"j": lambda m: m.recall(m.number("<I")),
    b"c": _pushes(_global), b"\x93": _stack_global, b"R": _reduce, b"b": _build,
    b"i": _instance, b"o": _object, b"\x81": _new_object, b"\x92": _new_object_with_keywords,
    b"\x82": lambda m: _extension(m, "<B"), b"\x83": lambda m: _extension(m, "<H"),
    b"\x84": lambda m: _extension(m, "<i"),
    b"P": _text_persistent, b"Q": _persistent,
    b"\x8f": _refuse("a set"), b"\x90": _refuse("items of a set"), b"\x91": _refuse("a frozenset"),
    b"\x97": _refuse("a buffer outside the file"), b"\x98": _refuse("a buffer outside the file"),
}  # fmt: skip
