"""Train the Fast-SCNN of this folder on photos with label maps, and export it as ONNX with its Spec.

    python train.py --data camvid --out runs/camvid [--size 180x240] [--width 1.0] [--epochs 60] [--seed 0]

The last tenth of every training sequence chooses the epoch and stops early; `val` judges the result once, through
edgewright. The state is saved after every epoch: the same command goes on where it was interrupted. OUT gets
model.onnx, curve.csv, result.json and state.pt.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from export import export, judge
from fast_scnn import FastSCNN
from pictures import IGNORE, Pictures, batches, class_names, divide, normalised, read
from torch import Tensor, nn
from torch.nn import functional

_WARM_UP = 100  # steps
_HELPER = 0.4  # share of the coarse map's loss. Source: Poudel et al. 2019, section 4.1


@dataclass(frozen=True)
class Plan:
    """What decides the result; a state that was saved under another plan is not resumed."""

    size: tuple[int, int]
    width: float
    epochs: int
    batch: int
    rate: float
    decay: float
    balance: float
    patience: int
    seed: int


@dataclass
class Progress:
    """Where a training stands."""

    epoch: int = 0
    best: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0


class Training:
    """Network, optimizer and what has been reached. `network.both` gives scores, and those of a coarse map or None."""

    def __init__(
        self, plan: Plan, network: nn.Module, train: Pictures, held: Pictures, classes: int, out: Path
    ) -> None:
        self.plan, self.network, self.train, self.held, self.classes, self.out = (
            plan,
            network,
            train,
            held,
            classes,
            out,
        )
        self.optimizer = torch.optim.AdamW(_parameters(self.network, plan.decay), lr=plan.rate)
        self.progress = Progress()
        self.best = _copied(self.network)
        self.curve: list[dict[str, float]] = []
        self.weights = _class_weights(train.maps, classes, plan.balance)
        self.steps = plan.epochs * (len(train) // plan.batch)

    def run(self) -> None:
        """Epochs until the plan ends, or nothing has become better for `patience` epochs."""
        self._resume()
        while self.progress.epoch < self.plan.epochs:
            if self.progress.epoch - self.progress.best_epoch >= self.plan.patience:
                print(f"nothing better for {self.plan.patience} epochs: stopped", flush=True)
                break
            started = time.monotonic()
            loss = self._epoch()
            found = miou(self.network, self.held, self.classes)
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
        torch.manual_seed(self.plan.seed * 1009 + self.progress.epoch)  # dropout, the same when resumed
        losses = []
        first = self.progress.epoch * (len(self.train) // self.plan.batch)
        for number, (photos, maps) in enumerate(batches(self.train, self.plan.batch, rng)):
            for group in self.optimizer.param_groups:
                group["lr"] = self.plan.rate * _schedule(first + number, self.steps)
            scores, coarse = self.network.both(photos)
            loss = self._loss(scores, maps)
            if coarse is not None:
                loss = loss + _HELPER * self._loss(coarse, _shrunk(maps, coarse))
            if not torch.isfinite(loss):
                raise SystemExit(f"loss is {loss.item()} at step {first + number}; the last epoch's state is kept")
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
            self.optimizer.step()
            losses.append(loss.item())
            if sys.stderr.isatty():
                print(
                    f"\repoch {self.progress.epoch + 1}, step {number + 1}: {losses[-1]:.3f}", end="", file=sys.stderr
                )
        return float(np.mean(losses))

    def _loss(self, scores: Tensor, maps: Tensor) -> Tensor:
        return functional.cross_entropy(scores, maps, self.weights, ignore_index=IGNORE)

    def _record(self, loss: float, found: float) -> None:
        at = self.progress
        self.curve.append({"epoch": at.epoch, "loss": loss, "held_miou": found, "seconds": at.seconds})
        print(
            f"epoch {at.epoch:3d}  loss {loss:.3f}  mIoU {found:.4f}  best {at.best:.4f}  {at.seconds:.0f} s",
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
        part = self.out / "state.pt.part"
        torch.save(state, part)
        part.replace(self.out / "state.pt")  # whole or not at all

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


def miou(network: nn.Module, pictures: Pictures, classes: int) -> float:
    """Mean over the classes that are there of intersection over union, all pictures together, 0..1."""
    network.eval()
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    with torch.no_grad():
        for photos, maps in zip(pictures.photos.split(8), pictures.maps.split(8), strict=True):
            found = network(normalised(photos)).argmax(1)
            known = maps != IGNORE
            confusion += torch.bincount(maps[known].long() * classes + found[known], minlength=classes * classes)
    table = confusion.view(classes, classes).double()
    right, union = table.diag(), table.sum(0) + table.sum(1) - table.diag()
    return float((right[union > 0] / union[union > 0]).mean())


def _schedule(step: int, steps: int) -> float:
    """Factor of the learning rate: a linear start, then half a cosine."""
    return min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _class_weights(maps: Tensor, classes: int, balance: float) -> Tensor:
    """Weights of the classes, mean 1: share ** -balance; 0 weighs all pixels alike."""
    shares = torch.bincount(maps.flatten().long(), minlength=IGNORE + 1)[:classes].double()
    weights = (shares / shares.sum()).clamp(min=1e-4) ** -balance
    return (weights / weights.mean()).float()


def _parameters(network: nn.Module, decay: float) -> list[dict[str, object]]:
    """Batch norms, biases and depthwise kernels are left without weight decay."""
    plain = [p for p in network.parameters() if p.ndim == 1 or p.shape[1] == 1]
    others = [p for p in network.parameters() if not (p.ndim == 1 or p.shape[1] == 1)]
    return [{"params": others, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]


def _shrunk(maps: Tensor, scores: Tensor) -> Tensor:
    return functional.interpolate(maps[:, None].float(), scores.shape[2:], mode="nearest")[:, 0].long()


def _hastened(network: FastSCNN) -> FastSCNN:
    """Let torch take oneDNN's kernels for convolutions of 1 x 1 on one thread too: it does so where they are dilated.

    Dilation changes nothing of them; `main` exports a network without it.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            module.dilation = (2, 2)
    return network


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def main() -> None:
    options = _parse()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    names = class_names(options.data)
    plan = Plan(
        options.size, options.width, options.epochs, options.batch, options.rate, options.decay, options.balance,
        options.patience, options.seed,
    )  # fmt: skip
    train, held = divide(read(options.data / "train", plan.size, len(names)))
    if len(train) < plan.batch:
        raise SystemExit(f"{len(train)} pictures to train on do not fill a batch of {plan.batch}")
    print(f"{len(train)} pictures train, {len(held)} choose the epoch, {len(names)} classes", flush=True)
    torch.manual_seed(plan.seed)
    network = FastSCNN(len(names), plan.size, plan.width).to(memory_format=torch.channels_last)
    training = Training(plan, _hastened(network), train, held, len(names), options.out)
    training.run()
    plain = FastSCNN(len(names), plan.size, plan.width)
    plain.load_state_dict(training.network.state_dict())
    path = export(plain, plan.size, names, options.out / "model.onnx")
    scores = judge(path, options.data / "val" / "images")
    result = {**scores, "epoch": training.progress.best_epoch, "held_mIoU": training.progress.best,
              "minutes": training.progress.seconds / 60, "plan": asdict(plan)}  # fmt: skip
    (options.out / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"val: {', '.join(f'{name} {value:.4f}' for name, value in scores.items())}; wrote {path}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder with train and val, each images and labels.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=_size, default=(180, 240), help="Height x width of the network's input.")
    parser.add_argument("--width", type=float, default=1.0, help="Factor for all channel counts.")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--rate", type=float, default=2e-3, help="Highest learning rate.")
    parser.add_argument("--decay", type=float, default=0.02, help="Weight decay.")
    parser.add_argument("--balance", type=float, default=0.25, help="0: all pixels alike; 1: all classes alike.")
    parser.add_argument("--patience", type=int, default=25, help="Epochs without a better one until it stops.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if min(options.epochs, options.batch, options.threads, options.patience) < 1 or min(options.size) < 32:
        parser.error("epochs, batch, threads and patience must be at least 1, sides of --size at least 32")
    return options


def _size(text: str) -> tuple[int, int]:
    height, width = text.lower().split("x")
    return int(height), int(width)


if __name__ == "__main__":
    main()
