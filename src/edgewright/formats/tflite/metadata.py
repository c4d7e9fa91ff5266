"""What a .tflite file says of its inputs and outputs: the TFLITE_METADATA buffer, and the files in the ZIP behind it.

Source: metadata_schema.fbs of TensorFlow Lite Support, version 1.5.0 (identifier M001): the slots below are its fields in order.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.formats.tflite.flatbuffer import Buffer, Table

KEY = "TFLITE_METADATA"
_IDENTIFIER = b"M001"
#: Of the union ContentProperties, of ProcessUnitOptions, and of AssociatedFileType.
_IMAGE, _NORMALIZATION, _AXIS_LABELS = 2, 1, 2
_COLOURS = {1: "rgb", 2: "gray"}
#: ImageNet's 21 843 labels take 0.5 MB.
_LARGEST_LABELS = 2**22
_MOST_FILES = 1000
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, ValueError, OverflowError, EOFError),
    *(RuntimeError, KeyError, OSError),
)


@dataclass(frozen=True)
class Described:
    """What is said of one input or output.

    Attributes:
        image: True for a photo.
        colour: "rgb" or "gray" of a photo; empty where it is not said.
        mean: Of what is taken off each pixel of 0..255, by channel or one for all; () where nothing is said.
        std: Of what it is divided by then.
        labels_file: Name of the associated file with the labels of its last axis; empty without.
    """

    image: bool = False
    colour: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels_file: str = ""


def described(data: np.ndarray, name: str) -> tuple[tuple[Described, ...], tuple[Described, ...]]:
    """Inputs and outputs of the first subgraph, in its order, as the metadata u8[...] of file `name` say.

    Raises:
        EdgewrightError: E201 where the bytes are no such metadata.
    """
    buffer = Buffer(data.tobytes(), name, "TFLite metadata")
    if buffer.data[4:8] != _IDENTIFIER:
        raise buffer.refuse(f"it does not say {_IDENTIFIER.decode()} at byte 4")
    subgraphs = buffer.root().tables(3)
    if not subgraphs:
        return (), ()
    inputs, outputs = (tuple(_described(table) for table in subgraphs[0].tables(slot)) for slot in (2, 3))
    return inputs, outputs


def _described(table: Table) -> Described:
    content = table.table(3)
    image = content is not None and content.integer(0, "uint8") == _IMAGE
    properties = content.table(1) if content is not None and image else None
    colour = _COLOURS.get(properties.integer(0, "int8"), "") if properties is not None else ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    for unit in table.tables(4):
        options = unit.table(1) if unit.integer(0, "uint8") == _NORMALIZATION else None
        if options is not None:
            mean, std = (tuple(map(float, options.array(slot, "float32")[:4])) for slot in (0, 1))
    files = [item.text(0) for item in table.tables(6) if item.integer(2, "int8") == _AXIS_LABELS]
    return Described(image, colour, mean, std, files[0] if files else "")


def labels(content: bytes, name: str, file_name: str) -> tuple[str, ...]:
    """The lines of the associated file `name`; `content` is the whole .tflite file, which ends in a ZIP archive.

    Nothing is unpacked but that one file, in memory, and of it no more than labels take.

    Raises:
        EdgewrightError: E201 where it is not there, damaged, too large or no text.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if len(archive.infolist()) > _MOST_FILES:
                raise ValueError(f"its archive has {len(archive.infolist())} files")
            with archive.open(name) as stream:
                data = stream.read(_LARGEST_LABELS + 1)
        if len(data) > _LARGEST_LABELS:
            raise ValueError(f"it has more than {_LARGEST_LABELS} bytes")
        text = data.decode("utf-8")
    except _ZIP_ERRORS as problem:
        raise EdgewrightError("E201", f"`{file_name}`: labels `{name}` cannot be read: {problem}") from None
    return tuple(line.strip() for line in text.strip().splitlines())
