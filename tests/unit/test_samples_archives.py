"""`.npz` samples: stacks and folders, what must fit the network, damaged and lying files."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import EdgewrightError
from edgewright.model import TensorInfo
from edgewright.samples import Samples
from edgewright.samples.archives import MAX_SAMPLE_BYTES, Archive
from edgewright.samples.images import BrokenSampleError
from edgewright.spec import Spec


@dataclass(frozen=True)
class Network:
    """Stands for a Model: what `Samples.open` asks of one."""

    inputs: tuple[TensorInfo, ...] = (
        TensorInfo("x", "float32", ("N", 3)),
        TensorInfo("state/0", "int64", (1, "T")),
    )
    spec: Spec = field(default_factory=Spec)
    outputs: tuple[TensorInfo, ...] = (TensorInfo("y", "float32", ("N", 4)),)


NETWORK = Network()
ONE = Network(inputs=(TensorInfo("x", "float32", ("N", 3)),))
CLASSIFY = Network(inputs=ONE.inputs, spec=Spec({}, "classify", {"labels": ["a", "b", "c", "d"]}))


def arrays(count: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((count, 3)).astype(np.float32), "state/0": rng.integers(0, 9, (count, 5))}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_stack_has_one_sample_a_row(tmp_path: Path, save: Any) -> None:
    content = arrays(6)
    save(tmp_path / "a.npz", **content)
    samples = Samples.open(tmp_path / "a.npz", NETWORK)
    assert samples.ids == tuple(f"a.npz[{row}]" for row in range(6))
    assert samples.layout == "one .npz of 6 samples"
    assert not samples.are_photos
    for _ in range(2):  # the second round starts again from the front
        for row, sample in enumerate(samples):
            np.testing.assert_array_equal(sample.arrays["x"], content["x"][row : row + 1])
            np.testing.assert_array_equal(sample.arrays["state/0"], content["state/0"][row : row + 1])
    np.testing.assert_array_equal(samples.load(2).arrays["x"][0], content["x"][2])
    copied = pickle.loads(pickle.dumps(samples))
    np.testing.assert_array_equal(copied.load(5).arrays["x"][0], content["x"][5])
    assert copied.hash == samples.hash
    with pytest.raises(EdgewrightError, match="holds arrays, not a photo"):
        samples.photo("a.npz[0]")


def test_a_stack_of_whole_inputs_and_of_scalars(tmp_path: Path) -> None:
    network = Network(inputs=(TensorInfo("x", "float32", (1, 3)), TensorInfo("rate", "int64", ())))
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 1, 3), np.float32), rate=np.arange(4))
    samples = Samples.open(tmp_path / "a.npz", network)
    assert samples.load(3).arrays["x"].shape == (1, 3)
    assert samples.load(3).arrays["rate"].shape == ()
    assert samples.load(3).arrays["rate"] == 3


def test_a_spec_alone_takes_what_is_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(2), label=np.arange(2))
    (sample, _) = Samples.open(tmp_path / "a.npz", Spec())
    assert set(sample.arrays) == {"x", "state/0"}


def test_a_folder_of_npz_has_one_sample_a_file(tmp_path: Path) -> None:
    for number in range(3):
        np.savez(
            tmp_path / f"{number}.npz", **{k: v[:1] for k, v in arrays(1, number).items()}, label=number, group="g"
        )
    samples = Samples.open(tmp_path, Network(NETWORK.inputs, CLASSIFY.spec))
    assert samples.ids == ("0.npz", "1.npz", "2.npz")
    assert [sample.label for sample in samples] == [0, 1, 2]
    assert len(samples.groups) == 1
    assert not Samples.open(tmp_path, Network(NETWORK.inputs, CLASSIFY.spec), labels="none").labelled


@pytest.mark.parametrize(
    "labels", [np.array([3, 0]), np.array(["d", "a"]), np.array([b"d", b"a"]), np.array([[3], [0]], np.uint8)]
)
@pytest.mark.parametrize("name", ["label", "labels"])
def test_labels_and_groups_in_a_stack(tmp_path: Path, labels: np.ndarray, name: str) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "a.npz", x=x, group=np.array(["anna", "anna"]), **{name: labels})
    samples = Samples.open(tmp_path / "a.npz", CLASSIFY)
    assert [sample.label for sample in samples] == [3, 0]
    assert len(samples.groups) == 1
    assert not Samples.open(tmp_path / "a.npz", CLASSIFY, labels="none").labelled


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1, 2]), r"shape \[3\], but there are 2 samples"),
        (np.array([0.0, 1.0]), "is float64, but must be whole numbers or text"),
        (np.array([0, 4]), r"`a.npz`, `label` 1: class index 4 is outside 0\.\.3"),
        (np.array(["a", "z"]), "label 'z' is not among the 4 classes"),
    ],
)
def test_bad_labels_in_a_stack(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3), np.float32), label=labels)
    with pytest.raises(EdgewrightError, match=message) as caught:
        Samples.open(tmp_path / "a.npz", CLASSIFY)
    assert caught.value.code == "E305"


def test_a_stack_takes_no_labels_csv(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3), np.float32))
    (tmp_path / "l.csv").write_text("file,label\na.npz,1\n")
    with pytest.raises(EdgewrightError, match="carries its labels in an array"):
        Samples.open(tmp_path / "a.npz", CLASSIFY, labels=tmp_path / "l.csv")


def test_an_input_may_be_called_label(tmp_path: Path) -> None:
    network = Network(inputs=(TensorInfo("label", "float32", ("N", 3)),), spec=CLASSIFY.spec)
    np.savez(tmp_path / "a.npz", label=np.zeros((2, 3), np.float32))
    samples = Samples.open(tmp_path / "a.npz", network)
    assert not samples.labelled
    assert samples.load(0).arrays["label"].shape == (1, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"y": np.zeros((2, 3), np.float32)}, "holds `y`, but the network needs `x`"),
        ({}, "holds no arrays, but the network needs `x`"),
        ({"x": np.zeros((2, 3))}, "array `x` is float64, but the network takes float32"),
        ({"x": np.zeros((2, 4), np.float32)}, r"samples of shape \[1, 4\], but the network takes x float32\[N, 3\]"),
        ({"x": np.float32(3)}, "is a single value"),
        ({"x": np.zeros((3, 2), np.float32).T}, "Fortran order"),
        ({"x": np.array([{"a": 1}, None])}, "dtype object"),
        ({"x": np.zeros(2, [("a", "f4")])}, "must hold plain numbers"),
    ],
)
def test_a_stack_that_does_not_fit_the_network(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(EdgewrightError, match=message) as caught:
        Samples.open(tmp_path / "a.npz", ONE)
    assert caught.value.code == "E301"


def test_a_stack_with_unequal_rows_and_an_empty_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"x": np.zeros((2, 3), np.float32), "state/0": np.zeros((3, 5), np.int64)})
    with pytest.raises(EdgewrightError, match="unequal numbers of rows: `x` 2, `state/0` 3"):
        Samples.open(tmp_path / "a.npz", NETWORK)
    np.savez(tmp_path / "a.npz", x=np.zeros((0, 3), np.float32))
    with pytest.raises(EdgewrightError, match="none of the 0 samples"):
        Samples.open(tmp_path / "a.npz", ONE)


def test_rows_with_nan_are_skipped(tmp_path: Path) -> None:
    x = np.zeros((4, 3), np.float32)
    x[1, 2] = np.nan
    np.savez(tmp_path / "a.npz", x=x)
    samples = Samples.open(tmp_path / "a.npz", ONE)
    assert samples.skipped == (("a.npz[1]", "array `x` holds NaN or infinity"),)
    assert len(samples) == 3


def test_one_file_of_another_shape_is_skipped(tmp_path: Path) -> None:
    for number in range(3):
        np.savez(tmp_path / f"{number}.npz", x=np.zeros((1, 4 if number == 1 else 3), np.float32) + number)
    samples = Samples.open(tmp_path, ONE)
    assert [name for name, _ in samples.skipped] == ["1.npz"]
    assert "[1, 4]" in samples.skipped[0][1]


# --- damaged and hostile files --------------------------------------------------------------------------------------


class Trap:
    """Would create a file if it were ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickles_are_never_executed(tmp_path: Path) -> None:
    trap = np.empty(2, object)
    trap[:] = [Trap(tmp_path / "sprung"), Trap(tmp_path / "sprung")]
    np.savez(tmp_path / "a.npz", x=trap)
    with pytest.raises(EdgewrightError, match="dtype object"):
        Samples.open(tmp_path / "a.npz", ONE)
    np.savez(tmp_path / "b.npz", x=np.zeros((2, 3), np.float32), label=trap)
    with pytest.raises(EdgewrightError):
        Samples.open(tmp_path / "b.npz", CLASSIFY)
    assert not (tmp_path / "sprung").exists()


def npy(shape: str, data: bytes, descr: str = "<f4", version: bytes = b"\x01\x00") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header.encode() + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy("(1000000000, 1000000000)", b"\0" * 24), "says it takes 4000000000000000000 bytes, but 24 are there"),
        (npy("(2, 3)", b"\0" * 20), "says it takes 24 bytes, but 20 are there"),
        (npy("(-2, -3)", b"\0" * 24), "impossible shape"),
        (npy("(True, 3)", b"\0" * 12), "impossible shape"),
        (npy("(2, 3)", b"\0" * 24, version=b"\x09\x00"), "NPY version 9.0"),
        (npy("(2, 3)", b"\0" * 24, descr="|O"), "dtype object"),
        (npy("__import__('os').abort()", b""), "not a sound .npz"),
        (npy("(" * 60, b""), "not a sound .npz"),
        (b"", "not a sound .npz"),
        (b"\x93NUMPY", "not a sound .npz"),
        (b"hello", "not a sound .npz"),
    ],
)
def test_lying_headers_take_no_memory(tmp_path: Path, content: bytes, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    tracemalloc.start()
    with pytest.raises(EdgewrightError, match=message) as caught:
        Samples.open(tmp_path / "a.npz", ONE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.code == "E301"
    assert peak < 50_000_000


def test_a_row_or_a_sample_too_large_is_refused(tmp_path: Path) -> None:
    """A deflated file of 1.2 MB that unpacks to more than 1 GB."""
    path = tmp_path / "a.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as out,
    ):
        side = MAX_SAMPLE_BYTES // 4 + 1
        out.write(npy(f"(1, {side})", b""))
        for _ in range(1024):
            out.write(bytes(2**20))
        out.write(bytes(4))
    archive_open = Archive(path)
    for read in (lambda: archive_open.row("x", 0), lambda: archive_open.whole("x", MAX_SAMPLE_BYTES)):
        with pytest.raises(BrokenSampleError, match="more than the limit"):
            read()
    archive_open.close()


@pytest.mark.parametrize("compress_type", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packing_methods_and_double_names_are_refused(tmp_path: Path, compress_type: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", compress_type) as archive:
        archive.writestr("x.npy", npy("(2, 3)", b"\0" * 24))
    with pytest.raises(EdgewrightError, match="method that numpy does not write"):
        Samples.open(tmp_path / "a.npz", ONE)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x.npy", npy("(2, 3)", b"\0" * 24))
        archive.writestr("x.npy", npy("(2, 3)", b"\1" * 24))
    with pytest.raises(EdgewrightError, match="twice"):
        Samples.open(tmp_path / "a.npz", ONE)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip"])
def test_files_that_are_no_archives(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(EdgewrightError, match=r"is empty|not a sound") as caught:
        Samples.open(tmp_path / "a.npz", ONE)
    assert caught.value.code == "E301"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_archives_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    stream = io.BytesIO()
    save = np.savez_compressed if data.draw(st.booleans()) else np.savez
    save(stream, x=np.arange(30, dtype=np.float32).reshape(10, 3), label=np.arange(10) % 4)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.npz"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        samples = Samples.open(path, CLASSIFY)
    except EdgewrightError as problem:
        assert problem.code in ("E301", "E302", "E305")
        return
    assert all(sample.arrays["x"].shape == (1, 3) for sample in samples)


def test_memory_is_a_row_not_the_file(tmp_path: Path) -> None:
    """64 MB in rows of 64 kB, compressed and plain."""
    for name, save in (("a.npz", np.savez), ("b.npz", np.savez_compressed)):
        save(tmp_path / name, x=np.tile(np.arange(16_384, dtype=np.float32), (1024, 1)))
        network = Network(inputs=(TensorInfo("x", "float32", ("N", 16_384)),))
        tracemalloc.start()
        samples = Samples.open(tmp_path / name, network)
        total = sum(sample.arrays["x"].size for sample in samples)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert total == 1024 * 16_384
        assert peak < 8_000_000
