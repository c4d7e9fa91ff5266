"""graph/channels, learn and the pruning passes on random networks; a sample of what benchmarks/fuzz_networks.py runs."""

from __future__ import annotations

from collections import Counter
from types import ModuleType
from typing import Any

import pytest
from tests.onnx_files import benchmark

SEEDS = range(5000, 5012)


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    return benchmark("fuzz_networks")


@pytest.mark.parametrize("seed", SEEDS)
def test_random_networks_are_sliced_as_they_are_masked(fuzz: ModuleType, seed: int) -> None:
    assert fuzz.failures(seed, ["channels"], 1, Counter()) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_random_networks_are_learnt_as_they_run(fuzz: ModuleType, seed: int) -> None:
    pytest.importorskip("torch", reason="the extra `train` is not installed")
    assert fuzz.failures(seed, ["learn"], 1, Counter()) == []


def test_random_networks_are_pruned_or_refused(fuzz: ModuleType) -> None:
    tally: Counter[str] = Counter()
    assert [text for seed in SEEDS for text in fuzz.failures(seed, ["passes"], 1, tally)] == []
    assert tally["pruned"] > 1


def test_random_networks_run_everywhere_or_are_refused(fuzz: ModuleType) -> None:
    tally: Counter[str] = Counter()
    assert [text for seed in SEEDS for text in fuzz.failures(seed, ["runtimes"], 1, tally)] == []
    assert all(tally[f"run by {name}"] for name in {"litert", "ncnn"} & set(fuzz.RUNTIMES))


def test_a_mask_that_forgets_a_tensor_is_seen(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz.proof, "mask", lambda *_: None)
    assert any(fuzz.failures(seed, ["channels"], 1, Counter()) for seed in SEEDS)


def test_a_traceback_is_seen(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise IndexError("beyond the end")

    monkeypatch.setattr(fuzz.ew, "compress", broken)
    assert fuzz.failures(SEEDS[0], ["passes"], 1, Counter()) == [f"seed {SEEDS[0]}, passes: IndexError: beyond the end"]
