"""The recipe prune on real weights and photos: a late block loses half its channels, and refitting gives the answers back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.test_pass_prune_channels import recipe, stats

import edgewright as ew
from edgewright.compress import compress
from edgewright.model import Model

CALIBRATE, JUDGE = 12, 16
#: Of a late expansion, so that few layers have to be refitted.
WAY: dict[str, Any] = {"spread": "given", "ratios": {"blocks.10.expand*": 0.5}, "max_vectors": 4096}


@pytest.fixture(scope="module")
def model(data: Path) -> Model:
    assert data
    return ew.load("zoo:efficientnet-lite0")


def outputs(model: Model, samples: Any) -> np.ndarray:
    with ew.open(model, threads=1) as session:
        return np.concatenate([session.run(sample.arrays)["logits"] for sample in samples])


def test_refit_gives_answers_back(model: Model, data: Path, tmp_path: Path) -> None:
    files = sorted((data / "imagenet-sample").glob("*.jpg"))[:: 500 // (CALIBRATE + JUDGE)]
    folders = {}
    for name, chosen in (("calibrate", files[::3][:CALIBRATE]), ("judge", [*files[1::3], *files[2::3]][:JUDGE])):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        for path in chosen:
            (folders[name] / path.name).symlink_to(path)
    learnt = ew.Samples.open(folders["calibrate"], model, roles="calibrate")
    judges = list(ew.Samples.open(folders["judge"], model, roles="judge"))
    expected = outputs(model, judges)
    small = compress(model, recipe(WAY, {}), learnt)
    got = outputs(small, judges)
    assert np.linalg.norm(got - expected) < 0.4 * np.linalg.norm(expected)
    layers = {layer["layer"]: layer for layer in stats(small, "refit")["layers"]}
    pruned = layers["blocks.10.project.bn"]
    assert pruned["error_after"] < 0.8 * pruned["error_before"]
    groups = stats(small, "prune_channels")["groups"]
    pruned = [group["width"] for group in groups]
    assert len(pruned) == 1
    assert all(after % 8 == 0 and after <= 0.52 * before for before, after in pruned)
    small.save(tmp_path / "small.onnx")
    again = ew.load(tmp_path / "small.onnx")
    assert np.allclose(outputs(again, judges[:2]), got[:2])
