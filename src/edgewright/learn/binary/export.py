"""A trained network -> an ONNX file of standard operators, in the form which the pass `lower_binary` knows.

A sign is `Where(Less(x, threshold), -1, 1)`, padding a `Pad` with a sign, a layer's weights are +1 and -1; what follows is
`Mul` and `Add`. So the file gives what the network gives, on any runtime, and to the last bit where nothing is fused.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgewright.files import write_whole
from edgewright.learn.binary.deployed import deployed
from edgewright.learn.binary.exact import Levels
from edgewright.spec import METADATA_KEY, Spec

#: What torch writes best; edgewright upgrades it.
_OPSET = 18


def export(
    network: nn.Module, path: Path, *, shape: Sequence[int], spec: Spec | None = None, inputs: Levels | None = None
) -> Path:
    """Write the network, whole or not at all; returns `path`.

    Args:
        network: Any module with layers of this package, whose one input and output are float32. It is not changed.
        path: Of the file.
        shape: Of one sample, such as (3, 32, 32); the batch stays open.
        spec: What inputs and outputs mean. The input takes the name of its only input, else `image`; the output is `scores`.
        inputs: What values the input takes, so that the first layer's sums are exact, as `deployed` makes them.

    Raises:
        EdgewrightError: E103 where the first layer is none whose sums could be exact, E105 where the file cannot be written.
    """
    name = next(iter(spec.inputs)) if spec is not None and spec.inputs else "image"
    proto = _proto(deployed(network, inputs).to("cpu", memory_format=torch.contiguous_format), shape, name)
    if spec is not None:
        entry = proto.metadata_props.add()
        entry.key, entry.value = METADATA_KEY, json.dumps(spec.to_json())
    for node in proto.graph.node:  # the exporter writes where in whose source a node comes from
        del node.metadata_props[:]
        node.doc_string = ""
    for value in proto.graph.value_info:
        del value.metadata_props[:]
    write_whole(path, proto.SerializeToString())
    return path


def _proto(network: nn.Module, shape: Sequence[int], name: str) -> Any:
    # It warns of packages that no such network needs.
    noisy = [logging.getLogger(logger) for logger in ("torch.onnx", "torch.onnx._internal.exporter._registration")]
    levels = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A batch of two: of one, the exporter would believe that it is always one.
            program = torch.onnx.export(
                network, (torch.zeros(2, *shape),), dynamo=True, opset_version=_OPSET, input_names=[name],
                output_names=["scores"], verbose=False, dynamic_shapes=({0: torch.export.Dim("batch")},),
            )  # fmt: skip
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
    assert program is not None
    return program.model_proto
