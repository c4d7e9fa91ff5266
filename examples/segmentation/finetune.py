"""Train an ONNX network, pruned or not, on photos with label maps: the loop of train.py, the graph as the module.

    python finetune.py MODEL.onnx --data camvid --out runs/tuned [--epochs 6] [--rate 5e-4] [--seed 0]

The ONNX file is all that is needed: no code of the network. What is written has the same graph and Spec, with other
weights. The last tenth of every training sequence chooses the epoch, the weights that it began with included; `val` is
not read. The state is saved after every epoch. OUT gets model.onnx, curve.csv and state.pt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from pictures import divide, read
from torch import Tensor, nn
from train import Plan, Training, miou

import edgewright as ew
from edgewright.graph.dataflow import lift_constants
from edgewright.graph.shapes import infer
from edgewright.learn.network import Network
from edgewright.model import Step

BATCH, DECAY, BALANCE = 6, 0.02, 0.25  # those of train.py


class Graph(nn.Module):
    """The ONNX graph of a segmentation network, as train.py takes one."""

    def __init__(self, model: ew.Model) -> None:
        super().__init__()
        self.ir = model.clone_ir()
        lift_constants(self.ir)
        infer(self.ir)
        self.input, self.output = model.inputs[0].name, model.outputs[0].name
        self.graph = Network(self.ir).channels_last()

    def forward(self, x: Tensor) -> Tensor:
        """Scores of every pixel: f32[N, 3, H, W] -> f32[N, classes, H, W]."""
        scores: Tensor = self.graph({self.input: x}, (self.output,))[self.output]
        return scores

    def both(self, x: Tensor) -> tuple[Tensor, None]:
        """Scores of every pixel, and none of a coarse map: that part was not exported."""
        return self(x), None


def finetune(model: ew.Model, data: Path, out: Path, *, epochs: int, rate: float, seed: int = 0) -> ew.Model:
    """The Model with trained weights, or with its own where no epoch was better on the pictures held back."""
    names = model.spec.options["labels"]
    size = model.spec.inputs[model.inputs[0].name].size
    train, held = divide(read(data / "train", size, len(names)))
    torch.manual_seed(seed)
    network = Graph(model)
    out.mkdir(parents=True, exist_ok=True)
    plan = Plan(size, 1.0, epochs, BATCH, rate, DECAY, BALANCE, patience=epochs, seed=seed)
    training = Training(plan, network, train, held, len(names), out)
    training.progress.best = before = miou(network, held, len(names))
    training.run()
    written = network.graph.write(network.ir)
    told = {"held_miou": [before, training.progress.best], "epoch": training.progress.best_epoch, "learnt": written}
    asked = {"epochs": epochs, "rate": rate, "seed": seed}
    step = Step(kind="pass", name="finetune", config=asked, lossy=True, stats=told)
    return model.with_ir(network.ir, step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--data", type=Path, required=True, help="Folder with train, that has images and labels.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rate", type=float, default=5e-4, help="Highest learning rate.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = ew.load(options.model)
    tuned = finetune(model, options.data, options.out, epochs=options.epochs, rate=options.rate, seed=options.seed)
    path = tuned.save(options.out / "model.onnx")
    before, after = tuned.history[-1].stats["held_miou"]
    print(f"mIoU of the pictures held back: {before:.4f} -> {after:.4f}; wrote {path}")


if __name__ == "__main__":
    main()
