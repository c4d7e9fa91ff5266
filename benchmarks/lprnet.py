"""LPRNet, whose weights are in the data folder without the network: its published topology in torch.

Source: the layers of sirius-ai/LPRNet_Pytorch (Apache-2.0), after S. Zherzdev and A. Gruzdev, "LPRNet: License Plate Recognition
via Deep Neural Networks", 2018. Written anew; names of weights are those of the state dict.
"""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    import onnx_ir as ir

CLASSES = 68
INPUT = (1, 3, 24, 94)


def narrow(inputs: int, outputs: int) -> nn.Module:
    """Four convolutions, the middle ones a quarter as wide, each along one side."""
    quarter = outputs // 4
    layers = [
        nn.Conv2d(inputs, quarter, 1),
        nn.ReLU(),
        nn.Conv2d(quarter, quarter, (3, 1), padding=(1, 0)),
        nn.ReLU(),
        nn.Conv2d(quarter, quarter, (1, 3), padding=(0, 1)),
        nn.ReLU(),
        nn.Conv2d(quarter, outputs, 1),
    ]
    block = nn.Module()
    block.block = nn.Sequential(*layers)
    block.forward = block.block.forward
    return block


class LprNet(nn.Module):
    """f32[N, 3, 24, 94] to f32[N, 68, 18]. Pools take every second and every fourth channel by the way."""

    kept = (2, 6, 13, 22)
    pools = ((5, 5), (5, 5), ((4, 10), (4, 2)), None)

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            *(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool3d((1, 3, 3), (1, 1, 1))),
            *(narrow(64, 128), nn.BatchNorm2d(128), nn.ReLU(), nn.MaxPool3d((1, 3, 3), (2, 1, 2))),
            *(narrow(64, 256), nn.BatchNorm2d(256), nn.ReLU(), narrow(256, 256), nn.BatchNorm2d(256), nn.ReLU()),
            *(nn.MaxPool3d((1, 3, 3), (4, 1, 2)), nn.Dropout(0.5), nn.Conv2d(64, 256, (1, 4)), nn.BatchNorm2d(256)),
            *(nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(256, CLASSES, (13, 1)), nn.BatchNorm2d(CLASSES), nn.ReLU()),
        )
        self.container = nn.Sequential(nn.Conv2d(64 + 128 + 256 + CLASSES, CLASSES, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = []
        for number, layer in enumerate(self.backbone):
            # Over a batch of one picture torch would take the channels for depth by itself, but exports no valid graph of that.
            x = layer(x.unsqueeze(1)).squeeze(1) if isinstance(layer, nn.MaxPool3d) else layer(x)
            if number in self.kept:
                found.append(x)
        scaled = []
        for feature, pool in zip(found, self.pools, strict=True):
            pooled = feature if pool is None else nn.functional.avg_pool2d(feature, *pool)
            scaled.append(pooled / pooled.square().mean())
        return self.container(torch.cat(scaled, 1)).mean(2)


def network(path: Path) -> ir.Model:
    """The network with the weights of a state dict, exported to ONNX."""
    import onnx
    import onnx_ir as ir
    from onnx import version_converter

    module = LprNet()
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    sink = io.BytesIO()
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (torch.zeros(INPUT),), sink, dynamo=False, opset_version=17, input_names=["image"]
        )
    logging.disable(logging.NOTSET)
    return ir.from_proto(version_converter.convert_version(onnx.load_from_string(sink.getvalue()), 21))
