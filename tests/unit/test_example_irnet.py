"""examples/irnet_cifar10: a training of seconds from end to end, going on, the curve, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.test_example_cifar10 import archive

import edgewright as ew

pytest.importorskip("torch")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "irnet_cifar10"


def train(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE / "train.py"), "--data", str(folder), "--out", str(folder / "out")]
    settings = ("--network", "resnet8", "--batch", "20", "--rate", "0.05", "--threads", "1")
    return subprocess.run([*command, *settings, *options], capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.slow
def test_training_learns_goes_on_where_it_was_left_and_is_lowered(tmp_path: Path) -> None:
    archive(tmp_path / "train.npz", 200, seed=1)
    archive(tmp_path / "test.npz", 40, seed=2)
    first = train(tmp_path, "--epochs", "3")
    assert first.returncode == 0, first.stderr
    assert "180 pictures train, 20 watch" in first.stdout
    out = tmp_path / "out"
    result = json.loads((out / "result.json").read_text())
    assert result["pictures"] == 40
    assert result["top-1"] > 0.4  # 0.1 by chance
    assert result["lowered"] == {"BinaryConv": 6, "PackSigns": 6}
    assert len((out / "curve.csv").read_text().splitlines()) == 4
    assert "held top1" in (out / "curve.svg").read_text()
    assert ew.load(out / "lowered.onnx").spec.task == "classify"
    again = train(tmp_path, "--epochs", "3")
    assert "going on after epoch 3" in again.stdout
    assert json.loads((out / "result.json").read_text())["top-1"] == result["top-1"]
    other = train(tmp_path, "--epochs", "3", "--method", "sign-ste")
    assert other.returncode != 0
    assert "is of another plan" in other.stderr


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    missing = train(tmp_path, "--epochs", "1")
    assert missing.returncode != 0
    assert "train.npz` cannot be read" in missing.stderr
    assert "Traceback" not in missing.stderr
    assert train(tmp_path, "--epochs", "0").returncode == 2
    archive(tmp_path / "train.npz", 12, seed=1)
    (tmp_path / "weights.pt").write_bytes(b"nothing")
    teacher = train(tmp_path, "--teacher", str(tmp_path / "weights.pt"))
    assert teacher.returncode != 0
    assert "is no teacher" in teacher.stderr
