"""Writing ncnn's files: layers in, text and bytes out.

A blob is read once: whoever wants to read it twice reads it through a Split layer, which `with_splits` adds.

Source: Tencent/ncnn, docs/developer-guide/param-and-model-file-structure.md, src/net.cpp (`Net::load_param`),
src/paramdict.cpp and src/modelbin.cpp.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgewright.errors import EdgewrightError

MAGIC = 7767517
#: An array is written under its number below this: -23300 - id.
_ARRAY = -23300
#: Names are read with `%255s`.
_LONGEST_NAME = 255
#: What stands before weights whose layer takes several types.
_TAGS = {"float32": 0x00000000, "float16": 0x01306B47, "int8": 0x000D4B38}
#: ncnn's parser of numbers knows no infinity.
_LARGEST = float(np.finfo(np.float32).max)

Param = int | float | Sequence[int] | Sequence[float]


@dataclass(frozen=True, eq=False)
class Weight:
    """Weights of a layer as they lie in the file.

    Attributes:
        array: float32, float16 or int8, in ncnn's order; its shape does not matter.
        tagged: True where the layer reads the type from the file, so that it may be other than float32.
    """

    array: np.ndarray
    tagged: bool = False


@dataclass(frozen=True, eq=False)
class Layer:
    """One line of a .param file and its weights.

    Attributes:
        kind: ncnn's name of the operator.
        inputs: Names of the blobs it reads; so are `outputs`, which it makes.
        outputs: See `inputs`.
        params: By number. Whole numbers and others differ in the file: 1 is not 1.0.
        weights: In the order in which the layer loads them.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[int, Param] = field(default_factory=dict)
    weights: tuple[Weight, ...] = ()


def blob_name(name: str) -> str:
    """`name` as a .param file can hold it: white space, control characters and `%` as `%XX` of their UTF-8 bytes.

    Names that are longer than ncnn reads keep their start and get a number that depends on the whole.
    """
    safe = "".join(_escaped(character) for character in name)
    if len(safe.encode()) <= _LONGEST_NAME:
        return safe
    import hashlib

    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return safe.encode()[: _LONGEST_NAME - len(digest) - 1].decode(errors="ignore") + "~" + digest


def with_splits(layers: Iterable[Layer]) -> list[Layer]:
    """The same network, where what is read several times passes through a Split layer with an output for each reader."""
    layers = list(layers)
    counts = Counter(name for layer in layers for name in layer.inputs)
    read: Counter[str] = Counter()
    result = []
    for layer in layers:
        inputs = []
        for name in layer.inputs:
            inputs.append(_branch(name, read[name]) if counts[name] > 1 else name)
            read[name] += 1
        result.append(replace(layer, inputs=tuple(inputs)))
        result += [
            Layer("Split", (name,), tuple(_branch(name, number) for number in range(counts[name])))
            for name in layer.outputs
            if counts[name] > 1
        ]
    return result


def param_text(layers: Sequence[Layer]) -> str:
    """The .param file: a number that says what it is, how many layers and blobs, then a line for each layer."""
    blobs = sum(len(layer.outputs) for layer in layers)
    return "\n".join([str(MAGIC), f"{len(layers)} {blobs}", *(_line(layer) for layer in layers), ""])


def weight_bytes(layer: Layer) -> list[bytes]:
    """A layer's part of the .bin file."""
    parts = []
    for weight in layer.weights:
        array = np.ascontiguousarray(weight.array)
        if weight.tagged:
            parts.append(_TAGS[array.dtype.name].to_bytes(4, "little"))
        else:
            assert array.dtype == np.float32, "only tagged weights may be other than float32"
        parts.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        parts.append(bytes(-array.nbytes % 4))  # the next part begins at a multiple of four
    return parts


def write(layers: Sequence[Layer], param: Path, weights: Path) -> None:
    """Write both files.

    Raises:
        EdgewrightError: E105 when one cannot be written.
    """
    try:
        param.write_text(param_text(layers), encoding="utf-8")
        with weights.open("wb") as file:
            for layer in layers:
                file.writelines(weight_bytes(layer))
    except OSError as problem:
        raise EdgewrightError("E105", f"`{param.parent}` cannot be written: {problem.strerror or problem}") from None


def _escaped(character: str) -> str:
    if character == "%" or character.isspace() or not character.isprintable():
        return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
    return character


def _branch(name: str, number: int) -> str:
    """ncnn's own tools call them so."""
    return blob_name(f"{name}_splitncnn_{number}")


def _line(layer: Layer) -> str:
    name = layer.outputs[0]
    params = [_param(number, value) for number, value in sorted(layer.params.items())]
    counts = (str(len(layer.inputs)), str(len(layer.outputs)))
    return " ".join([f"{layer.kind:24s}", f"{name:24s}", *counts, *layer.inputs, *layer.outputs, *params])


def _param(number: int, value: Param) -> str:
    if isinstance(value, (int, float)):
        return f"{number}={_number(value)}"
    return ",".join([f"{_ARRAY - number}={len(value)}", *(_number(item) for item in value)])


def _number(value: int | float) -> str:
    """Nine digits give back every float32; a point or an exponent says that it is one."""
    if isinstance(value, int):
        return str(value)
    assert not math.isnan(value)
    return f"{min(max(float(value), -_LARGEST), _LARGEST):.8e}"
