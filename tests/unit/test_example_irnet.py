"""examples/irnet_cifar10: a training of seconds from end to end, going on, the curve, and what is refused."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.test_example_cifar10 import archive

import edgewright as ew

pytest.importorskip("torch")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "irnet_cifar10"
MODULES = ("train", "curve", "pictures", "resnet")
Run = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """The script with these options, in this process, on the archives in `tmp_path`."""
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(EXAMPLE), *sys.path])
    script = importlib.import_module("train")

    def call(*options: str) -> None:
        settings = ("--network", "resnet8", "--batch", "20", "--rate", "0.05", "--threads", "1")
        command = ("train.py", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *settings, *options)
        monkeypatch.setattr(sys, "argv", list(command))
        script.main()

    yield call
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_training_learns_goes_on_where_it_was_left_and_is_lowered(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive(tmp_path / "train.npz", 200, seed=1)
    archive(tmp_path / "test.npz", 40, seed=2)
    run("--epochs", "3")
    assert "180 pictures train, 20 watch" in capsys.readouterr().out
    out = tmp_path / "out"
    result = json.loads((out / "result.json").read_text())
    assert result["pictures"] == 40
    assert result["top-1"] > 0.4  # 0.1 by chance
    assert result["differ"] == 0
    assert result["lowered"] == {"BinaryConv": 6, "PackSigns": 6}
    assert len((out / "curve.csv").read_text().splitlines()) == 4
    assert "held top1" in (out / "curve.svg").read_text()
    assert ew.load(out / "lowered.onnx").spec.task == "classify"
    run("--epochs", "3")
    assert "going on after epoch 3" in capsys.readouterr().out
    assert json.loads((out / "result.json").read_text())["top-1"] == result["top-1"]
    with pytest.raises(SystemExit, match="is of another plan"):
        run("--epochs", "3", "--method", "sign-ste")


def test_what_cannot_be_is_said(run: Run, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"train.npz` cannot be read"):
        run("--epochs", "1")
    with pytest.raises(SystemExit, match="2"):
        run("--epochs", "0")
    archive(tmp_path / "train.npz", 12, seed=1)
    with pytest.raises(SystemExit, match="do not fill a batch"):
        run()
    (tmp_path / "weights.pt").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match="is no teacher"):
        run("--teacher", str(tmp_path / "weights.pt"))
