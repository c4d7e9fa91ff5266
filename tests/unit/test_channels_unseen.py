"""graph/channels on families that the data folder lacks; a sample of what benchmarks/architectures_unseen.py runs whole."""

from __future__ import annotations

import random
from types import ModuleType

import pytest
from tests.onnx_files import benchmark
from tests.unit.test_channels import Tolerance, picks, proven

from edgewright.graph.channels import find

#: Shuffled halves, heads picked from one projection, weights behind Identity, windows over words, weights normed in the graph.
ALWAYS = ("ShuffleNetV2", "CaiT", "RetinaFace", "TextCnn", "WeightStandardized")
MORE = 5


@pytest.fixture(scope="module")
def unseen() -> ModuleType:
    pytest.importorskip("torch", reason="the networks are written in torch")
    return benchmark("architectures_unseen")


@pytest.mark.parametrize("number", range(len(ALWAYS) + MORE))
def test_masked_equals_sliced_and_nothing_is_missed(number: int, unseen: ModuleType, tolerance: Tolerance) -> None:
    others = random.Random(5).sample(sorted(set(unseen.FAMILIES) - set(ALWAYS)), MORE)
    name = [*ALWAYS, *others][number]
    exporter = ("classic", "open")[number % 2]
    family = unseen.FAMILIES[name]
    ir_model = unseen.graph(name, exporter)
    groups = find(ir_model)
    assert sum(group.width for group in groups.groups) >= family.free, groups.barriers
    assert unseen.proof.stays(groups) <= family.stays, groups.barriers
    feeds = unseen.inputs(family, 2 if exporter == "open" else 1)
    rng = random.Random(number)
    removed = picks(groups, rng)
    one = rng.choice(list(removed))
    for channels in ({one: removed[one]}, removed):
        distance, _ = proven(ir_model, groups, channels, feeds)
        assert distance <= tolerance["float32"]["rel_l2"], channels
