"""ResNet-20, -32, -44, -56, ... for pictures of 32 x 32: the topology is the published one, the code is our own.

One thing differs: where a stage begins, the shortcut is a 1 x 1 convolution with a batch norm (option B of the paper's
section 4.1), where the paper's networks for CIFAR-10 fill missing channels with zeros.
Source: He, Zhang, Ren, Sun 2015, "Deep Residual Learning for Image Recognition", section 4.2.
"""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = (16, 32, 64)


def _conv(width_in: int, width_out: int, kernel: int, stride: int) -> nn.Module:
    conv = nn.Conv2d(width_in, width_out, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(width_out))


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(width_in, width_out, 3, stride)
        self.second = _conv(width_out, width_out, 3, 1)
        same = stride == 1 and width_in == width_out
        self.shortcut = nn.Identity() if same else _conv(width_in, width_out, 1, stride)
        self.activate = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """f32[N, C, H, W] -> f32[N, C', H / stride, W / stride]."""
        y: Tensor = self.activate(self.second(self.activate(self.first(x))) + self.shortcut(x))
        return y


class ResNet(nn.Module):
    """f32[N, 3, 32, 32] -> scores f32[N, classes].

    Args:
        depth: 6 n + 2 layers: 20, 32, 44, 56, ...
        classes: Number of classes.
    """

    def __init__(self, depth: int, classes: int) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth is {depth}, but must be 6 n + 2, such as 20 or 56")
        layers: list[nn.Module] = [_conv(3, WIDTHS[0], 3, 1), nn.ReLU()]
        before = WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            for number in range((depth - 2) // 6):
                layers.append(Block(before, width, 2 if stage and not number else 1))
                before = width
        self.features = nn.Sequential(*layers)
        self.score = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes, f32[N, classes]."""
        scores: Tensor = self.score(self.features(x).mean((2, 3)))
        return scores
