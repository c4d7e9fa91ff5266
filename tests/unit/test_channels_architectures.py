"""graph/channels over networks that nobody made for it: masked equals sliced, and who is held against which tool."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import ModuleType

import onnx_ir as ir
import pytest
from onnx import version_converter
from tests.conftest import architecture_names
from tests.unit.test_channels import Tolerance, picks, proven

import edgewright as ew
from edgewright.graph.channels import find
from edgewright.model import OPSET_VERSION

#: Shuffles, attention, quantized, whole groups of norms, computed weights, halves, transposed, heads shared by levels.
ALWAYS = ("bireal", "cond_net", "crnn", "groupnorm_resnet", "mlp_mixer", "retina_shared", "siamese", "wave_glu")
#: Nothing in it can go: all channels are states of recurrent layers or outputs.
NOTHING = ("lstm_speaker",)


def chosen(names: list[str]) -> list[str]:
    """Graphs for this run: the special ones and two others."""
    others = [name for name in names if name not in (*ALWAYS, *NOTHING)]
    return [*(name for name in ALWAYS if name in names), *random.Random(7).sample(others, min(2, len(others)))]


@pytest.mark.parametrize("name", chosen(architecture_names()))
def test_masked_equals_sliced(name: str, architectures: ModuleType, data: Path, tolerance: Tolerance) -> None:
    proto = architectures.load_filled(data / "architectures" / f"{name}.onnx", seed=0)
    feeds = architectures.example_inputs(proto, seed=0)
    ir_model = ir.from_proto(version_converter.convert_version(proto, OPSET_VERSION))
    groups = find(ir_model)
    rng = random.Random(3)
    removed = picks(groups, rng)
    some = rng.sample(list(removed), min(1, len(removed)))
    for channels in [*({one: removed[one]} for one in some), removed]:
        distance, _ = proven(ir_model, groups, channels, feeds)
        assert distance <= tolerance["float32"]["rel_l2"], channels


@pytest.mark.parametrize("name", NOTHING)
def test_nothing_to_remove_is_said(name: str, architectures: ModuleType, data: Path) -> None:
    proto = architectures.load_filled(data / "architectures" / f"{name}.onnx", seed=0)
    groups = find(ir.from_proto(version_converter.convert_version(proto, OPSET_VERSION)))
    assert groups.groups == ()
    assert groups.refusal


@pytest.mark.parametrize("name", ["resnext14", "squeezenet1_1", "unet"])
def test_groups_are_those_of_another_tool(name: str, architectures: ModuleType, data: Path) -> None:
    """Every layer loses channels together with the same others; the layer that the graph returns stays."""
    proto = architectures.load_filled(data / "architectures" / f"{name}.onnx", seed=0)
    groups = find(ir.from_proto(version_converter.convert_version(proto, OPSET_VERSION)))
    ours: dict[str, int] = {}
    for group in groups.groups:
        made = [member for member in group.members if member.role == "made"]
        ours |= {member.tensor: sum(len(places) for places in member.places) for member in made}
    theirs = json.loads((data / "architectures" / f"{name}.groups.json").read_text())["groups"]
    returned = [group["root"] for group in theirs if f"{group['root']}.weight" not in ours]
    assert len(returned) == 1
    for group in theirs:
        if group["root"] not in returned:
            assert ours[f"{group['root']}.weight"] == group["channels"], group["root"]


@pytest.mark.parametrize("name", ["yolov4_tiny"])
def test_networks_of_darknet(name: str, data: Path, tolerance: Tolerance) -> None:
    import numpy as np

    folder = data / "darknet-oracle" / name
    image = np.load(folder / "input.npy")
    image = image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image
    ir_model = ew.load(folder / "net.cfg").clone_ir()
    groups = find(ir_model)
    distance, _ = proven(ir_model, groups, picks(groups, random.Random(0)), {"image": image[None]})
    assert distance <= tolerance["float32"]["rel_l2"]
