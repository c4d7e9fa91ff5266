"""Bytes into a ModelProto; what is no ONNX file is refused with a guess at what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewright.errors import EdgewrightError

#: Protobuf reads no larger message. Source: https://protobuf.dev/programming-guides/proto-limits/
_LARGEST_BYTES = 2**31 - 1

#: What else people hand over: (offset, bytes there, what it is).
_OTHER_FORMATS = (
    (0, b"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint or a Keras file"),
    (0, b"\x80\x02", "a Python pickle, perhaps a PyTorch checkpoint"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x89HDF", "an HDF5 file, perhaps Keras weights"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "an ONNX Runtime .ort model; keep the .onnx file that it was made from"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it first"),
    (0, b"\x7fELF", "a program"),
    (0, b"version https://git-lfs", "a Git LFS pointer; fetch the file itself: git lfs pull"),
)


def read(path: Path) -> Any:
    """The `onnx.ModelProto` in the file at `path`.

    Raises:
        EdgewrightError: E104 when it cannot be read, E201 when it is empty, cut short or another format.
    """
    import onnx
    from google.protobuf.message import DecodeError

    data = _read_bytes(path)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise _not_onnx(path, data, "it is cut short or no protobuf message") from None
    if not proto.HasField("ir_version") and not proto.HasField("graph"):
        raise _not_onnx(path, data, "it declares neither an IR version nor a graph")
    if not proto.HasField("graph"):
        raise EdgewrightError("E201", f"`{path}` holds an ONNX model without a graph", hint=_hint(path))
    _check_text(proto, path)
    return proto


def _check_text(message: Any, path: Path) -> None:
    """Refuse names that are not UTF-8, which protobuf hands out as bytes; comments that are not are dropped."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in value if _repeated(value) else (value,):
                _check_text(inner, path)
        elif field.type == field.TYPE_STRING:
            if all(isinstance(text, str) for text in (value if _repeated(value) else (value,))):
                continue
            if field.name != "doc_string":
                raise EdgewrightError("E213", f"`{path}` has a `{field.name}` that is not UTF-8 text")
            message.ClearField(field.name)


def _repeated(value: Any) -> bool:
    return not isinstance(value, (str, bytes)) and hasattr(value, "__len__")


def _read_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise EdgewrightError("E104", f"`{path}` is a folder or a device, not an ONNX file")
        if size > _LARGEST_BYTES:
            raise EdgewrightError(
                "E201",
                f"`{path}` has {size} bytes, but an ONNX file ends at {_LARGEST_BYTES}",
                hint="save the model with external data, which has no such limit",
            )
        data = path.read_bytes()
    except OSError as problem:
        raise EdgewrightError("E104", f"file `{path}` cannot be read: {problem.strerror}") from None
    if not data:
        raise EdgewrightError("E201", f"`{path}` is empty", hint=_hint(path))
    return data


def _not_onnx(path: Path, data: bytes, reason: str) -> EdgewrightError:
    for offset, magic, what in _OTHER_FORMATS:
        if data[offset : offset + len(magic)] == magic:
            return EdgewrightError("E201", f"`{path}` is not an ONNX file: it looks like {what}")
    if "".join(data[:512].decode("utf-8", errors="replace").split()).isprintable() and b"\xff" not in data[:512]:
        reason = "it is text"
    return EdgewrightError("E201", f"`{path}` is not an ONNX file ({len(data)} bytes): {reason}", hint=_hint(path))


def _hint(path: Path) -> str:
    return f"download or export `{path.name}` again and compare its size"
