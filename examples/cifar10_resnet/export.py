"""From the trained network to an ONNX file that carries its Spec, and its top-1 through edgewright."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from pictures import MEAN, SIZE, STD, Pictures, normalised
from torch import nn

import edgewright as ew
from edgewright.spec import METADATA_KEY, ImageInput, Spec

_OPSET = 18


def export(network: nn.Module, names: Sequence[str], path: Path) -> Path:
    """Write the network in float32 with batch 1, whole or not at all; returns `path`."""
    import onnx

    part = path.with_suffix(".part")
    network = network.eval().to(memory_format=torch.contiguous_format)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that this network does not need
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            network, (torch.zeros(1, 3, SIZE, SIZE),), dynamo=True, opset_version=_OPSET, input_names=["image"],
            output_names=["scores"], verbose=False,
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    photo = ImageInput(size=(SIZE, SIZE), resize="stretch", interpolation="bilinear", mean=MEAN, std=STD)
    entry = proto.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = json.dumps(Spec({"image": photo}, "classify", {"labels": list(names)}).to_json())
    for node in proto.graph.node:  # the exporter writes where in whose source a node comes from
        del node.metadata_props[:]
        node.doc_string = ""
    for value in proto.graph.value_info:
        del value.metadata_props[:]
    onnx.checker.check_model(proto)
    onnx.save(proto, part)
    part.replace(path)
    return path


def judge(network: Path | ew.Model, pictures: Pictures) -> float:
    """Part of the pictures that the network puts in their class, 0..1, on the exact runtime."""
    model = ew.load(network) if isinstance(network, Path) else network
    inputs = normalised(pictures.photos).contiguous().numpy()
    with ew.open(model, threads=1) as session:
        found = [session.run({"image": inputs[n : n + 1]})["scores"].argmax() for n in range(len(inputs))]
    return float((torch.tensor(found) == pictures.labels).float().mean())
