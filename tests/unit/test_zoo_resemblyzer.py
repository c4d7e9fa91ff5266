"""The zoo family against torch's own LSTM, on every runtime; options and bad checkpoints."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgewright as ew
from edgewright import metrics
from edgewright.errors import EdgewrightError
from edgewright.options import build
from edgewright.zoo import resemblyzer as zoo

safetensors = pytest.importorskip("safetensors.numpy")


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {key: rng.uniform(-0.06, 0.06, shape).astype(np.float32) for key, shape in zoo._shapes().items()}


def mels(rng: np.random.Generator, batch: int = 2, frames: int = zoo.FRAMES) -> np.ndarray:
    return (rng.standard_normal((batch, frames, zoo.BANDS)) ** 2).astype(np.float32)


def by_torch(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    torch = pytest.importorskip("torch")
    lstm = torch.nn.LSTM(zoo.BANDS, zoo.HIDDEN, zoo.LAYERS, batch_first=True)
    linear = torch.nn.Linear(zoo.HIDDEN, zoo.HIDDEN)
    for module, prefix in ((lstm, "lstm."), (linear, "linear.")):
        state = {k.removeprefix(prefix): torch.from_numpy(v) for k, v in weights.items() if k.startswith(prefix)}
        module.load_state_dict(state)
    with torch.no_grad():
        _, (hidden, _) = lstm(torch.from_numpy(x))
        made = torch.relu(linear(hidden[-1]))
        return np.asarray(made / torch.linalg.norm(made, dim=1, keepdim=True))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "voice.safetensors"
    safetensors.save_file(tensors(), path)
    return path


@pytest.mark.parametrize("runtime", ["reference", "onnxruntime", "openvino"])
def test_parity_with_torch(
    checkpoint: Path, runtime: str, rng: np.random.Generator, tolerance: dict[str, dict[str, float]]
) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    frames = 16 if runtime == "reference" else zoo.FRAMES
    x = mels(rng, frames=frames)
    model = ew.load("zoo:resemblyzer", weights=checkpoint, frames=frames)
    with ew.open(model, runtime=runtime) as session:
        found = session.run({"mels": x})["embedding"]
    assert found.shape == (2, zoo.HIDDEN)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)
    assert metrics.rel_l2(by_torch(tensors(), x), found) <= tolerance["float32"]["rel_l2"]


def test_the_package_in_full(rng: np.random.Generator, tolerance: dict[str, dict[str, float]]) -> None:
    location = importlib.util.find_spec("resemblyzer")
    if location is None:
        pytest.skip("needs the weights: pip install --no-deps resemblyzer")
    model = ew.load("zoo:resemblyzer")
    assert model.history[0].stats["parameters"] == 1_423_616
    assert model.spec.task == "embed"
    torch = pytest.importorskip("torch")
    path = Path(next(iter(location.submodule_search_locations or ())), "pretrained.pt")
    state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    weights = {key: value.numpy() for key, value in state.items()}
    x = mels(rng) * np.float32(0.01)
    with ew.open(model, runtime="onnxruntime") as session:
        assert (
            metrics.rel_l2(by_torch(weights, x), session.run({"mels": x})["embedding"])
            <= tolerance["float32"]["rel_l2"]
        )


def test_sizes_may_be_open() -> None:
    model = ew.load("zoo:resemblyzer", seed=0, frames="symbolic")
    assert model.inputs[0].shape == ("N", "frames", 40)
    with ew.open(model, runtime="onnxruntime") as session:
        for frames in (1, 7):
            assert session.run({"mels": np.ones((3, frames, 40), np.float32)})["embedding"].shape == (3, 256)
    fixed = ew.load("zoo:resemblyzer", seed=0, batch=1, frames=80)
    assert fixed.inputs[0].shape == (1, 80, 40)
    assert ew.load("zoo:resemblyzer", seed=0, frames=80, batch=1).hash == fixed.hash


@pytest.mark.parametrize(
    "options", [{"batch": 0}, {"frames": 0}, {"frames": 10**6}, {"seed": -1}, {"seed": 1, "weights": "x.pt"}]
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(EdgewrightError) as caught:
        build(zoo.Options, options, where="resemblyzer")
    assert caught.value.code == "E103"


def test_names_and_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EdgewrightError) as caught:
        zoo.load("resembler", zoo.Options(seed=0))
    assert caught.value.code == "E101"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EdgewrightError, match="pip install --no-deps resemblyzer") as caught:
        zoo.load("resemblyzer", zoo.Options())
    assert caught.value.code == "E102"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop("linear.bias"), "missing: `linear.bias`"),
        (lambda t: t.update({"linear.bias": np.zeros(3, np.float32)}), r"is float32\[3\]"),
        (lambda t: t.update({"linear.bias": np.zeros(256, np.int64)}), r"is int64\[256\]"),
        (lambda t: t.update({"linear.bias": np.full(256, np.nan, np.float32)}), "holds NaN"),
        (lambda t: t.update({"head.weight": np.zeros(3, np.float32)}), "not used: `head.weight`"),
    ],
)
def test_checkpoints_that_do_not_fit(tmp_path: Path, change: Any, reason: str) -> None:
    held = tensors()
    change(held)
    safetensors.save_file(held, tmp_path / "bad.safetensors")
    with pytest.raises(EdgewrightError, match=reason) as caught:
        ew.load("zoo:resemblyzer", weights=tmp_path / "bad.safetensors")
    assert caught.value.code == "E208"


def test_an_optimizer_beside_the_network_is_passed_over(tmp_path: Path) -> None:
    held = {f"model_state.{key}": tensor for key, tensor in tensors().items()}
    held |= {
        "optimizer_state.0.exp_avg": np.zeros(3, np.float32),
        "model_state.similarity_bias": np.zeros(1, np.float32),
    }
    safetensors.save_file(held, tmp_path / "whole.safetensors")
    model = ew.load("zoo:resemblyzer", weights=tmp_path / "whole.safetensors")
    assert model.history[0].stats["parameters"] == 1_423_616
