"""What a .tflite file says of itself: normalization, colours, labels in the archive behind it; broken ones are warnings."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tflite_nets import Feed, Net, op

import edgewright as ew
from edgewright.formats.tflite.metadata import KEY
from edgewright.spec import ImageInput

pytest.importorskip("ai_edge_litert")
LABELS = ("tench", "goldfish", "a shark")


def vector(builder: Any, items: list[int]) -> int:
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        builder.PrependUOffsetTRelative(item)
    return int(builder.EndVector())


def table(builder: Any, **slots: tuple[str, Any]) -> int:
    """A table with these slots, called s0, s1 and so on."""
    numbers = {int(name[1:]): value for name, value in slots.items()}
    builder.StartObject(max(numbers) + 1)
    for slot, (kind, value) in numbers.items():
        if kind == "offset":
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        else:
            getattr(builder, f"Prepend{kind}Slot")(slot, value, 0)
    return int(builder.EndObject())


def metadata(*, colour: int = 1, mean: tuple[float, ...] = (127.5,), std: tuple[float, ...] = (63.75,)) -> bytes:
    """Metadata of a photo that goes in and scores that come out, field by field as the schema numbers them."""
    import flatbuffers

    b = flatbuffers.Builder(0)
    properties = table(b, s0=("Int8", colour))
    content = table(b, s0=("Uint8", 2), s1=("offset", properties))
    values = [b.CreateNumpyVector(np.array(numbers, np.float32)) for numbers in (mean, std)]
    options = table(b, s0=("offset", values[0]), s1=("offset", values[1]))
    unit = table(b, s0=("Uint8", 1), s1=("offset", options))
    image = table(b, s3=("offset", content), s4=("offset", vector(b, [unit])))
    file = table(b, s0=("offset", b.CreateString("labels.txt")), s2=("Int8", 2))
    scores = table(b, s6=("offset", vector(b, [file])))
    ends = [vector(b, [item]) for item in (image, scores)]
    subgraph = table(b, s2=("offset", ends[0]), s3=("offset", ends[1]))
    root = table(b, s3=("offset", vector(b, [subgraph])))
    b.Finish(root, file_identifier=b"M001")
    return bytes(b.Output())


def archive(content: bytes, name: str = "labels.txt") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(name, content)
    return packed.getvalue()


def write(
    path: Path, said: bytes, behind: bytes, *, dtype: str = "float32", steps: Any = None, channels: int = 3
) -> Path:
    """A network that averages a photo, with metadata and what lies behind the file."""
    net = Net()
    x: Any = Feed((1, 6, 8, channels), dtype, steps)
    if dtype != "float32":
        x = op("DEQUANTIZE", x)
    mean = op("MEAN", x, np.array([1, 2], np.int32), options="ReducerOptions", keep_dims=False)
    if channels != 3:
        mean = op("TILE", mean, np.array([1, 3], np.int32))
    mean.shape = (1, 3)
    output = net.add(mean)
    entry, buffer = net.schema.MetadataT(), net.schema.BufferT()
    buffer.data = np.frombuffer(said, np.uint8)
    net.model.buffers.append(buffer)
    entry.name, entry.buffer = KEY, len(net.model.buffers) - 1
    net.model.metadata = [entry]
    path.write_bytes(net.bytes(output) + behind)
    return path


GOOD = archive("\n".join(LABELS).encode())
PHOTO = ImageInput(
    size=(6, 8), resize="stretch", interpolation="bilinear", antialias=False, mean=(127.5,), std=(63.75,), layout="nhwc"
)


def test_a_photo_and_class_names_are_read(tmp_path: Path) -> None:
    model = ew.load(write(tmp_path / "net.tflite", metadata(), GOOD))
    assert model.spec.inputs == {"in0": PHOTO}
    assert model.spec.task == "classify"
    assert model.spec.options == {"labels": list(LABELS)}
    model.spec.check(model.inputs)


def test_grey_photos_have_one_channel(tmp_path: Path) -> None:
    model = ew.load(write(tmp_path / "net.tflite", metadata(colour=2), GOOD, channels=1))
    assert model.spec.inputs["in0"].colour == "gray"  # type: ignore[union-attr]
    model.spec.check(model.inputs)


@pytest.mark.parametrize(("steps", "pixels"), [((1 / 63.75, 128), True), ((1 / 64, 0), False), (None, False)])
def test_integers_are_the_pixels_only_where_both_scales_say_so(steps: Any, pixels: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "net.tflite", metadata(), GOOD, dtype="uint8", steps=steps)
    model = ew.load(path)
    assert ("in0" in model.spec.inputs) == pixels
    if pixels:
        assert model.spec.inputs["in0"].std == (1.0,)  # type: ignore[union-attr]
        model.spec.check(model.inputs)


@pytest.mark.parametrize("said", [metadata(colour=0), metadata(mean=(), std=()), metadata(colour=2)])
def test_nothing_is_guessed(said: bytes, tmp_path: Path) -> None:
    assert ew.load(write(tmp_path / "net.tflite", said, GOOD)).spec == ew.Spec()


@pytest.mark.parametrize(
    ("said", "behind", "reason"),
    [
        (b"no metadata", GOOD, "does not say M001"),
        (metadata()[:-9], GOOD, "TFLite metadata file"),
        (metadata(), b"", "labels `labels.txt` cannot be read"),
        (metadata(), GOOD[:-30], "labels `labels.txt` cannot be read"),
        (metadata(), archive(b"a\nb\nc", "other.txt"), "labels `labels.txt` cannot be read"),
        (metadata(), archive(b"\xff\xfe"), "labels `labels.txt` cannot be read"),
        (metadata(), archive(b"a" * 2**23), "has more than"),
        (metadata(), archive(b"one\ntwo"), "has 2 labels"),
        (metadata(std=(0.0,)), GOOD, "`std` holds a zero"),
        (metadata(mean=(1.0, 2.0)), GOOD, "`mean` has 2 values"),
    ],
)
def test_what_is_broken_is_a_warning(said: bytes, behind: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.warns(ew.EdgewrightWarning, match=reason):
        model = ew.load(write(tmp_path / "net.tflite", said, behind))
    assert model.spec == ew.Spec()


def test_metadata_broken_anywhere_never_stop_the_import(tmp_path: Path, rng: np.random.Generator) -> None:
    whole = metadata()
    for _ in range(60):
        broken = bytearray(whole)
        broken[int(rng.integers(len(whole)))] = int(rng.integers(256))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ew.EdgewrightWarning)
            ew.load(write(tmp_path / "net.tflite", bytes(broken), GOOD))
