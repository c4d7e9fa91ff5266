"""Torch-Pruning on a ResNet of examples/cifar10_resnet: the peer of prune_cifar10.py, which runs this script.

    PYTHON benchmarks/peer_torch_pruning.py RUN/weights.pt OUT.onnx [--macs 0.5] [--multiple 2]

PYTHON has torch, torch-pruning and edgewright. Channels go by the L1 norm of their whole group, in equal shares, where the
share is the least that reaches `--macs`; the classifier's outputs stay. Nothing is trained here.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "cifar10_resnet"


def pruned(network: Any, picture: Any, share: float, multiple: int) -> tuple[Any, float]:
    """A copy that has lost this share of its channels, and its multiply-adds."""
    import torch_pruning as tp

    small = copy.deepcopy(network)
    pruner = tp.pruner.MagnitudePruner(
        small, picture, importance=tp.importance.MagnitudeImportance(p=1), pruning_ratio=share,
        ignored_layers=[small.score], round_to=multiple,
    )  # fmt: skip
    pruner.step()
    return small, float(tp.utils.count_ops_and_params(small, picture)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--multiple", type=int, default=2)
    options = parser.parse_args()
    sys.path.insert(0, str(EXAMPLE))
    import torch
    from export import export
    from pictures import CLASSES, SIZE
    from resnet import ResNet

    saved = torch.load(options.weights, weights_only=True)
    network = ResNet(saved["depth"], len(CLASSES)).eval()
    network.load_state_dict(saved["weights"])
    picture = torch.zeros(1, 3, SIZE, SIZE)
    full = pruned(network, picture, 0.0, options.multiple)[1]
    for percent in range(1, 96):
        small, macs = pruned(network, picture, percent / 100, options.multiple)
        if macs <= options.macs * full:
            export(small, CLASSES, options.out)
            print(f"torch-pruning: {percent} % of the channels gone, {macs / full:.3f} of the multiply-adds left")
            return
    raise SystemExit(f"no share of the channels reaches {options.macs} of the multiply-adds")


if __name__ == "__main__":
    main()
