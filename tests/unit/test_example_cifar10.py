"""examples/cifar10_resnet: the network, the pictures, and the training from end to end on archives drawn here."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgewright as ew

torch = pytest.importorskip("torch")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "cifar10_resnet"
COLOURS = np.random.default_rng(0).integers(40, 216, (10, 3))


def archive(path: Path, count: int, seed: int) -> np.ndarray:
    """Pictures of one colour for each class with a little noise, written as CIFAR-10's archives are; their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count).astype(np.uint8)
    files = []
    for label in labels:
        pixels = COLOURS[label] + rng.normal(0, 12, (32, 32, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    shared = min(next(n for n in range(700) if one[n] != files[0][n]) for one in files[1:])
    bodies = [file[shared:-2] for file in files]
    np.savez(
        path, header=np.frombuffer(files[0][:shared], np.uint8), data=np.frombuffer(b"".join(bodies), np.uint8),
        offsets=np.cumsum([0, *map(len, bodies)]), labels=labels,
    )  # fmt: skip
    return labels


def train(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE / "train.py"), "--data", str(folder), "--out", str(folder / "out")]
    settings = ("--depth", "8", "--batch", "20", "--rate", "0.05", "--threads", "1")
    return subprocess.run([*command, *settings, *options], capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.slow
def test_training_learns_goes_on_where_it_was_left_and_exports(tmp_path: Path) -> None:
    archive(tmp_path / "train.npz", 200, seed=1)
    archive(tmp_path / "test.npz", 40, seed=2)
    first = train(tmp_path, "--epochs", "3")
    assert first.returncode == 0, first.stderr
    assert "180 pictures train, 20 choose the epoch" in first.stdout
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["pictures"] == 40
    assert result["top-1"] > 0.4  # 0.1 by chance
    model = ew.load(tmp_path / "out" / "model.onnx")
    assert model.spec.task == "classify"
    assert model.outputs[0].shape == (1, 10)
    again = train(tmp_path, "--epochs", "3")
    assert "going on after epoch 3" in again.stdout
    assert json.loads((tmp_path / "out" / "result.json").read_text())["top-1"] == result["top-1"]
    other = train(tmp_path, "--epochs", "4")
    assert other.returncode != 0
    assert "is of another plan" in other.stderr


def test_samples_are_made_as_the_training_made_its_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tolerance: dict[str, dict[str, float]]
) -> None:
    """The Spec in the file says how photos become inputs: a wrong mean or order of colours is seen here."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    for name in ("pictures", "export", "resnet"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import export
    import pictures
    import resnet

    labels = archive(tmp_path / "train.npz", 6, seed=3)
    read = pictures.read(tmp_path / "train.npz")
    assert read.labels.tolist() == labels.tolist()
    path = export.export(resnet.ResNet(8, 10), pictures.CLASSES, tmp_path / "model.onnx")
    (tmp_path / "photos").mkdir()
    for index, photo in enumerate(read.photos.numpy()):
        Image.fromarray(photo.transpose(1, 2, 0)).save(tmp_path / "photos" / f"{index}.png")
    samples = list(ew.Samples.open(tmp_path / "photos", ew.load(path)))
    expected, limit = pictures.normalised(read.photos).numpy(), tolerance["float32"]
    for sample, row in zip(samples, expected, strict=True):
        np.testing.assert_allclose(sample.arrays["image"][0], row, rtol=limit["rtol"], atol=limit["atol"])
    for name in ("pictures", "export", "resnet"):
        sys.modules.pop(name, None)


def test_a_varied_picture_is_a_window_of_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.delitem(sys.modules, "pictures", raising=False)
    import pictures

    photos = torch.arange(40 * 3 * 32 * 32, dtype=torch.int64).remainder(251).add(1).to(torch.uint8).view(40, 3, 32, 32)
    varied = pictures.varied(photos, np.random.default_rng(0))
    padded = np.pad(photos.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)))
    flipped = 0
    for one, around in zip(varied.numpy(), padded, strict=True):
        windows = [around[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
        straight = any(np.array_equal(one, window) for window in windows)
        mirrored = any(np.array_equal(one[:, :, ::-1], window) for window in windows)
        assert straight or mirrored
        flipped += mirrored and not straight
    assert 8 < flipped < 32
    sys.modules.pop("pictures", None)


def test_a_missing_archive_and_a_wrong_depth_are_said(tmp_path: Path) -> None:
    missing = train(tmp_path, "--epochs", "1")
    assert missing.returncode != 0
    assert "train.npz` cannot be read" in missing.stderr
    assert "Traceback" not in missing.stderr
    wrong = train(tmp_path, "--depth", "21")
    assert wrong.returncode == 2
    assert "6 n + 2" in wrong.stderr
