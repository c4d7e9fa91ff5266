"""Checkpoints: files of named tensors, read without executing anything in them.

Owns the formats (torch zip and legacy, safetensors) and their limits. What the tensors mean is for zoo and importers.

    from edgewright import checkpoint

    tensors = checkpoint.read("efficientnet-lite0.pth")
    tensors["_conv_stem.weight"].shape   # (32, 3, 3, 3)

A torch file holds a pickle, which is a program. `pickled.py` decodes its opcodes by itself and knows only tensors,
numbers, text, lists and dicts; anything else is refused by name before it could run, because nothing here can call it.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from edgewright.checkpoint import safetensors, torch_file
from edgewright.errors import EdgewrightError

__all__ = ["read"]

#: A legacy file's magic number without a PROTO opcode before it, as text.
_PROTOCOL_1 = b"L%dL\n" % torch_file.MAGIC_NUMBER
#: First bytes of files that people take for checkpoints, and what reads them.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF", "an HDF5 file (Keras)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself (git lfs pull)"),
    (b"<", "a web page or XML"),
)


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint by its dotted key, in the file's order; the arrays are read-only.

    Nested dicts, lists and tuples are flattened: `{"state_dict": {"fc.bias": t}}` gives `state_dict.fc.bias`; a file
    that is one tensor gives the key `tensor`. Values that are no tensors (epoch numbers, names) are left out. Views
    keep their strides and share memory as they did in torch. numpy has no bfloat16 and no 8-bit floats: those become
    float32, which holds each of their values exactly. Formats are told apart by content, never by file name.

    Raises:
        EdgewrightError: E104 the file cannot be read; E201 it is none of the formats, or damaged or cut short; E202 a
            tensor does not fit its data; E207 it asks for something other than tensors (nothing was executed).
    """
    path = Path(path)
    if path.is_dir():
        raise EdgewrightError("E104", f"checkpoint `{path}` is a folder, not a file", hint=f"ls {path}")
    if path.exists() and not path.is_file():
        raise EdgewrightError("E104", f"checkpoint `{path}` is no regular file")
    try:
        with path.open("rb") as stream:
            if path.stat().st_size == 0:
                raise EdgewrightError("E201", f"checkpoint `{path}` is empty")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read(data, str(path))
    except OSError as problem:
        raise EdgewrightError("E104", f"checkpoint `{path}` cannot be read: {problem.strerror or problem}") from None


def _read(data: mmap.mmap, where: str) -> dict[str, np.ndarray]:
    start = data[:32]
    if start.startswith(b"PK\x03\x04"):
        tensors = torch_file.read_zip(data, where)
    elif start[4:9] == b"\0\0\0\0{":  # first, since the header's length may begin with any bytes, 80 02 too
        tensors = safetensors.read(data, where)
    elif (start.startswith(b"\x80") and len(start) > 1 and start[1] <= 5) or start.startswith(_PROTOCOL_1):
        tensors = torch_file.read_legacy(data, where)
    elif start[8:9] == b"{":
        tensors = safetensors.read(data, where)
    else:
        guess = next((f"; it looks like {what}" for magic, what in _OTHERS if start.startswith(magic)), "")
        raise EdgewrightError("E201", f"checkpoint `{where}` is neither a torch file nor safetensors{guess}")
    if not tensors:
        raise EdgewrightError("E201", f"checkpoint `{where}` holds no tensors")
    return tensors
