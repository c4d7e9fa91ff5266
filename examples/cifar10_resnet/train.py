"""Train a ResNet of this folder on CIFAR-10, and export it as ONNX with its Spec.

    python train.py --data cifar10 --out runs/resnet20 [--depth 20] [--epochs 15] [--seed 0]

SGD with Nesterov's momentum, one cycle of the learning rate, smoothed labels, pictures moved and mirrored. The last tenth
of `train` chooses the epoch; `test` judges the result once, through edgewright. The state is saved after every epoch: the
same command goes on where it was interrupted. OUT gets model.onnx, weights.pt, curve.csv, result.json and state.pt.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from export import export, judge
from pictures import CLASSES, Pictures, batches, divide, normalised, read
from resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Plan:
    """What decides the result; a state that was saved under another plan is not resumed."""

    depth: int
    epochs: int
    batch: int
    rate: float
    decay: float
    smoothing: float
    rising: float
    limit: int | None
    seed: int


@dataclass
class Progress:
    """Where a training stands."""

    epoch: int = 0
    best: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0


class Training:
    """Network, optimizer and what has been reached."""

    def __init__(self, plan: Plan, train: Pictures, held: Pictures, out: Path) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.train, self.held, self.out = plan, train, held, out
        self.network = ResNet(plan.depth, len(CLASSES)).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(_parameters(self.network, plan.decay), plan.rate, momentum=0.9, nesterov=True)
        self.progress = Progress()
        self.best = _copied(self.network)
        self.curve: list[dict[str, float]] = []
        self.steps = plan.epochs * (len(train) // plan.batch)

    def run(self) -> None:
        """Epochs until the plan ends; the network then has the weights of the best one."""
        self._resume()
        while self.progress.epoch < self.plan.epochs:
            started = time.monotonic()
            loss = self._epoch()
            found = accuracy(self.network, self.held)
            self.progress.epoch += 1
            self.progress.seconds += time.monotonic() - started
            if found > self.progress.best:
                self.progress.best, self.progress.best_epoch = found, self.progress.epoch
                self.best = _copied(self.network)
            self._record(loss, found)
        self.network.load_state_dict(self.best)

    def _epoch(self) -> float:
        """One pass over the training pictures; the mean loss."""
        self.network.train()
        rng = np.random.default_rng((self.plan.seed, self.progress.epoch))
        first = self.progress.epoch * (len(self.train) // self.plan.batch)
        losses = []
        for number, (photos, labels) in enumerate(batches(self.train, self.plan.batch, rng)):
            for group in self.optimizer.param_groups:
                group["lr"] = self.plan.rate * _cycle((first + number) / self.steps, self.plan.rising)
            loss = functional.cross_entropy(
                self.network(normalised(photos)), labels, label_smoothing=self.plan.smoothing
            )
            if not torch.isfinite(loss):
                raise SystemExit(f"loss is {loss.item()} at step {first + number}; the last epoch's state is kept")
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
            if sys.stderr.isatty():
                print(
                    f"\repoch {self.progress.epoch + 1}, step {number + 1}: {losses[-1]:.3f}", end="", file=sys.stderr
                )
        return float(np.mean(losses))

    def _record(self, loss: float, found: float) -> None:
        at = self.progress
        self.curve.append({"epoch": at.epoch, "loss": loss, "held_top1": found, "seconds": at.seconds})
        print(
            f"epoch {at.epoch:3d}  loss {loss:.3f}  top-1 {found:.4f}  best {at.best:.4f}  {at.seconds:.0f} s",
            flush=True,
        )
        with (self.out / "curve.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(self.curve[0]))
            writer.writeheader()
            writer.writerows(self.curve)
        state = {
            "plan": asdict(self.plan),
            "progress": asdict(at),
            "network": self.network.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "curve": self.curve,
        }
        _saved(state, self.out / "state.pt")

    def _resume(self) -> None:
        path = self.out / "state.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True)
        if state["plan"] != asdict(self.plan):
            raise SystemExit(f"`{path}` is of another plan: {state['plan']}; choose another --out")
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress, self.best, self.curve = Progress(**state["progress"]), state["best"], state["curve"]
        print(f"going on after epoch {self.progress.epoch}", flush=True)


def accuracy(network: nn.Module, pictures: Pictures) -> float:
    """Part of the pictures whose best score is that of their class, 0..1."""
    network.eval()
    with torch.no_grad():
        pairs = zip(pictures.photos.split(250), pictures.labels.split(250), strict=True)
        right = sum(int((network(normalised(photos)).argmax(1) == labels).sum()) for photos, labels in pairs)
    return right / len(pictures)


def _cycle(part: float, rising: float) -> float:
    """Factor of the learning rate: straight up, then straight down. Source: Smith and Topin 2017, "Super-Convergence"."""
    return max(part / rising, 0.01) if part < rising else (1 - part) / (1 - rising)


def _parameters(network: nn.Module, decay: float) -> list[dict[str, object]]:
    """Batch norms and biases are left without weight decay."""
    weights = [value for value in network.parameters() if value.ndim > 1]
    vectors = [value for value in network.parameters() if value.ndim == 1]
    return [{"params": weights, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _saved(content: object, path: Path) -> None:
    """Whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    torch.save(content, part)
    part.replace(path)


def main() -> None:
    options = _parse()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        options.depth, options.epochs, options.batch, options.rate, options.decay, options.smoothing, options.rising,
        options.limit, options.seed,
    )  # fmt: skip
    train, held = divide(read(options.data / "train.npz", plan.limit))
    if len(train) < plan.batch:
        raise SystemExit(f"{len(train)} pictures to train on do not fill a batch of {plan.batch}")
    print(f"{len(train)} pictures train, {len(held)} choose the epoch", flush=True)
    training = Training(plan, train, held, options.out)
    training.run()
    _saved({"depth": plan.depth, "weights": training.best}, options.out / "weights.pt")
    path = export(training.network, CLASSES, options.out / "model.onnx")
    test = read(options.data / "test.npz", plan.limit)
    top1 = judge(path, test)
    result = {"top-1": top1, "pictures": len(test), "epoch": training.progress.best_epoch,
              "held_top1": training.progress.best, "minutes": training.progress.seconds / 60,
              "plan": asdict(plan)}  # fmt: skip
    (options.out / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"test: top-1 {top1:.4f} of {len(test)} pictures; wrote {path}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder with train.npz and test.npz.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--depth", type=int, default=20, help="6 n + 2 layers.")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.2, help="Highest learning rate.")
    parser.add_argument("--decay", type=float, default=5e-4, help="Weight decay.")
    parser.add_argument("--smoothing", type=float, default=0.05, help="What the other classes share of a label, 0..1.")
    parser.add_argument("--rising", type=float, default=0.25, help="Part of the training in which the rate rises.")
    parser.add_argument("--limit", type=int, help="First pictures of both archives, for a trial.  [default: all]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if min(options.epochs, options.batch, options.threads) < 1 or not 0 < options.rising < 1:
        parser.error("epochs, batch and threads must be at least 1, --rising between 0 and 1")
    if options.depth < 8 or (options.depth - 2) % 6:
        parser.error(f"--depth is {options.depth}, but must be 6 n + 2, such as 20 or 56")
    if options.limit is not None and options.limit < 2:
        parser.error("--limit must be at least 2")
    return options


if __name__ == "__main__":
    main()
