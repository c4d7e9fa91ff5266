"""From the trained network to an ONNX file that carries its Spec, and its scores on photos through edgewright."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from fast_scnn import FastSCNN
from pictures import MEAN, STD

import edgewright as ew
from edgewright import registry
from edgewright.spec import METADATA_KEY, ImageInput, Spec

_OPSET = 18


def export(network: FastSCNN, size: tuple[int, int], names: Sequence[str], path: Path) -> Path:
    """Write the network in float32 with batch 1, whole or not at all; returns `path`."""
    import onnx

    part = path.with_suffix(".part")
    network = network.eval().to(memory_format=torch.contiguous_format)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that this network does not need
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            network, (torch.zeros(1, 3, *size),), dynamo=True, opset_version=_OPSET, input_names=["image"],
            output_names=["scores"], verbose=False,
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    spec = Spec(
        {"image": ImageInput(size=size, resize="stretch", interpolation="bilinear", mean=(MEAN,), std=(STD,))},
        "segment",
        {"labels": list(names), "ignore": len(names)},  # the index after the last class is void
    )
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(spec.to_json())
    for node in proto.graph.node:  # the exporter writes where in whose source a node comes from
        del node.metadata_props[:]
        node.doc_string = ""
    for value in proto.graph.value_info:
        del value.metadata_props[:]
    onnx.checker.check_model(proto)
    onnx.save(proto, part)
    part.replace(path)
    return path


def judge(path: Path, photos: Path) -> dict[str, float]:
    """Scores of the network in `path` by the metric of task `segment`, on photos with label maps in `labels` beside."""
    model = ew.load(path)
    task = registry.get("tasks", model.spec.task)
    samples = ew.Samples.open(photos, model, roles="judge")
    with ew.open(model) as session:
        pairs = [(task.postprocess(session.run(item.arrays), model.spec), item.label) for item in samples]
    results, labels = zip(*pairs, strict=True)
    return dict(task.metric(results, labels, model.spec))
