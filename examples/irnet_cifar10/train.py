"""Train a binary network on CIFAR-10, and write it as ONNX, as trained and with packed bits.

    python train.py --data cifar10 --out runs/irnet                      # about an hour on two cores
    python train.py --data cifar10 --out runs/irnet-full --recipe full   # as published: 400 epochs, for a GPU

Photos go in as (pixel - 128) / 64, so that the first layer's sums can be exact: then `native` sees the signs that torch sees.

Qin et al. 2020 (IR-Net): SGD, momentum 0.9, cosine; EDE's t rises with each epoch; shortcuts around every convolution. The
last epoch is what ships: none is chosen by its score. With the recipe `short` the last tenth of `train` only watches, with
`full` all of it trains; `test` judges once, at the end. The state is saved after every epoch: the same command goes on
where it was interrupted. OUT gets model.onnx, lowered.onnx, weights.pt, curve.csv, curve.svg, result.json and state.pt.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import pickle
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curve import drawn
from torch import Tensor, nn

import edgewright as ew
from edgewright.learn.binary.deployed import deployed
from edgewright.learn.binary.exact import Levels
from edgewright.learn.binary.export import export
from edgewright.learn.binary.imitation import imitation
from edgewright.learn.binary.method import METHODS
from edgewright.learn.binary.networks import NETWORKS
from edgewright.learn.binary.schedule import EdeSchedule
from edgewright.spec import ImageInput, Spec

sys.path.append(str(Path(__file__).resolve().parents[1] / "cifar10_resnet"))
from pictures import CLASSES, SIZE, Pictures, batches, divide, normalised, read
from resnet import ResNet

MEAN, STD = (128.0,), (64.0,)  # close to those of the pictures, and exact
LEVELS = Levels(1 / 64, 2.0)  # of what `prepared` makes
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Plan:
    """What decides the result; a state that was saved under another plan is not resumed."""

    network: str = "resnet20"
    method: str = "irnet"
    epochs: int = 15
    batch: int = 128
    rate: float = 0.1
    decay: float = 1e-4
    least: float = 0.1  # EDE's t at first
    most: float = 10.0
    share: float = 0.9  # of the teacher in the loss, where there is one
    held: bool = True  # the last tenth of train watches
    limit: int | None = None
    seed: int = 0
    inputs: str = "(pixel - 128) / 64"  # what `prepared` makes


RECIPES = {"short": Plan(), "full": Plan(epochs=400, least=1e-3, held=False)}


class Training:
    """Network, optimizer and where it stands."""

    def __init__(self, plan: Plan, pictures: Pictures, out: Path, teacher: nn.Module | None = None) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.out, self.teacher = plan, out, teacher
        self.train, self.held = divide(pictures) if plan.held else (pictures, None)
        if len(self.train) < plan.batch:
            raise SystemExit(f"{len(self.train)} pictures to train on do not fill a batch of {plan.batch}")
        made = NETWORKS[plan.network](len(CLASSES), METHODS[plan.method])
        self.network = made.to(DEVICE, memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(_parameters(self.network, plan.decay), plan.rate, momentum=0.9)
        self.schedule = EdeSchedule(plan.least, plan.most)
        self.epoch, self.seconds = 0, 0.0
        self.curve: list[dict[str, Any]] = []
        self.steps = len(self.train) // plan.batch

    def run(self, until: float = math.inf) -> bool:
        """Epochs until the plan ends, which gives True, or `time.monotonic` passes `until`."""
        self._resume()
        while self.epoch < self.plan.epochs and time.monotonic() < until:
            started = time.monotonic()
            loss = self._epoch()
            self.epoch += 1
            self.seconds += time.monotonic() - started
            top1 = accuracy(self.network, self.held) if self.held is not None else None
            self._record(loss, top1)
        return self.epoch >= self.plan.epochs

    def _epoch(self) -> float:
        """One pass over the training pictures; the mean loss."""
        self.network.train()
        self.schedule.apply(self.network, self.epoch / self.plan.epochs)
        losses = []
        for number, batch in enumerate(
            batches(self.train, self.plan.batch, np.random.default_rng((self.plan.seed, self.epoch)))
        ):
            done = (self.epoch * self.steps + number) / (self.plan.epochs * self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = self.plan.rate * 0.5 * (1 + math.cos(math.pi * done))
            photos, labels = batch[0], batch[1].to(DEVICE)
            taught = None
            if self.teacher is not None:
                with torch.no_grad():
                    taught = self.teacher(normalised(photos).to(DEVICE))
            loss = imitation(self.network(prepared(photos).to(DEVICE)), taught, labels, share=self.plan.share)
            if not torch.isfinite(loss):
                raise SystemExit(f"loss is {loss.item()} in epoch {self.epoch + 1}; the last epoch's state is kept")
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return float(np.mean(losses))

    def _record(self, loss: float, top1: float | None) -> None:
        self.curve.append({"epoch": self.epoch, "loss": loss, "held_top1": top1, "seconds": self.seconds})
        watched = "" if top1 is None else f"  top-1 {top1:.4f}"
        print(f"epoch {self.epoch:3d}  loss {loss:.3f}{watched}  {self.seconds:.0f} s", flush=True)
        with (self.out / "curve.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(self.curve[0]))
            writer.writeheader()
            writer.writerows(self.curve)
        (self.out / "curve.svg").write_text(drawn(self.curve), encoding="utf-8")
        state = {
            "plan": asdict(self.plan), "epoch": self.epoch, "seconds": self.seconds, "curve": self.curve,
            "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        _saved(state, self.out / "state.pt")

    def _resume(self) -> None:
        path = self.out / "state.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True, map_location=DEVICE)
        if state["plan"] != asdict(self.plan):
            raise SystemExit(f"`{path}` is of another plan: {state['plan']}; choose another --out")
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.seconds, self.curve = state["epoch"], state["seconds"], state["curve"]
        print(f"going on after epoch {self.epoch}", flush=True)

    def export(self, path: Path) -> Path:
        """Write the network as ONNX with its Spec; returns `path`."""
        photo = ImageInput(size=(SIZE, SIZE), resize="stretch", interpolation="bilinear", mean=MEAN, std=STD)
        spec = Spec({"image": photo}, "classify", {"labels": list(CLASSES)})
        return export(self.network, path, shape=(3, SIZE, SIZE), spec=spec, inputs=LEVELS)


def prepared(photos: Tensor) -> Tensor:
    """u8[N, 3, 32, 32] -> what the binary network takes, f32[N, 3, 32, 32]; a float teacher takes `normalised` ones."""
    return normalised(photos, MEAN, STD)


def shipped(network: nn.Module) -> nn.Module:
    """The network as it is exported."""
    return deployed(network, LEVELS)


def accuracy(network: nn.Module, pictures: Pictures) -> float:
    """Part of the pictures whose best score is that of their class, 0..1, by the network as it would ship."""
    return float((classes(shipped(network), pictures) == pictures.labels).float().mean())


def classes(network: nn.Module, pictures: Pictures) -> Tensor:
    """The class of each picture, i64[N]."""
    with torch.no_grad():
        parts = [network(prepared(photos).to(DEVICE)).argmax(1).cpu() for photos in pictures.photos.split(250)]
    return torch.cat(parts)


def differing(packed: ew.Model, said: Tensor, pictures: Pictures) -> int:
    """Pictures that the packed network on the runtime `native` gives another class than `said`, i64[N]."""
    with ew.open(packed, runtime="native", threads=1) as session:
        images = (image for photos in pictures.photos.split(250) for image in prepared(photos).numpy())
        found = [int(session.run({"image": np.ascontiguousarray(image[None])})["scores"].argmax()) for image in images]
    return int((np.array(found) != said.numpy()).sum())


def _parameters(network: nn.Module, decay: float) -> list[dict[str, object]]:
    """Batch norms, thresholds and biases are left without weight decay."""
    weights = [value for name, value in network.named_parameters() if name.endswith("weight") and value.ndim > 1]
    known = {id(value) for value in weights}
    others = [value for value in network.parameters() if id(value) not in known]
    return [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _saved(content: object, path: Path) -> None:
    """Whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    torch.save(content, part)
    part.replace(path)


def teacher_of(path: Path) -> nn.Module:
    """The float network in the weights.pt that examples/cifar10_resnet/train.py wrote."""
    try:
        stored = torch.load(path, weights_only=True, map_location="cpu")
        network = ResNet(stored["depth"], len(CLASSES))
        network.load_state_dict(stored["weights"])
    except (OSError, EOFError, KeyError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError) as problem:
        raise SystemExit(f"`{path}` is no teacher: {problem}") from None
    return network.to(DEVICE).eval()


def main() -> None:
    options, plan = _parse()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    teacher = None if options.teacher is None else teacher_of(options.teacher)
    training = Training(plan, read(options.data / "train.npz", plan.limit), options.out, teacher)
    watching = len(training.held) if training.held is not None else 0
    print(f"{len(training.train)} pictures train, {watching} watch, on {DEVICE}", flush=True)
    training.run()
    _saved({"plan": asdict(plan), "weights": training.network.state_dict()}, options.out / "weights.pt")
    path = training.export(options.out / "model.onnx")
    lowered = ew.compress(ew.load(path), "lower-binary")
    lowered.save(options.out / "lowered.onnx")
    test = read(options.data / "test.npz", plan.limit)
    said = classes(shipped(training.network), test)
    top1, differ = float((said == test.labels).float().mean()), differing(lowered, said, test)
    sizes = {name: (options.out / name).stat().st_size for name in ("model.onnx", "lowered.onnx")}
    result = {"top-1": top1, "pictures": len(test), "differ": differ, "minutes": training.seconds / 60, "bytes": sizes,
              "lowered": lowered.history[-1].stats["lowered"], "plan": asdict(plan)}  # fmt: skip
    (options.out / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"test: top-1 {top1:.4f} of {len(test)} pictures; packed, {differ} of them are decided otherwise")
    print(f"wrote {path}, and lowered.onnx beside it")


def _parse() -> tuple[argparse.Namespace, Plan]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder with train.npz and test.npz.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", choices=tuple(RECIPES), default="short", help="What the options below begin with.")
    parser.add_argument("--network", choices=tuple(NETWORKS))
    parser.add_argument("--method", choices=tuple(METHODS))
    parser.add_argument("--teacher", type=Path, help="weights.pt of a float network of examples/cifar10_resnet.")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rate", type=float, help="Highest learning rate.")
    parser.add_argument("--limit", type=int, help="First pictures of both archives, for a trial.  [default: all]")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    names = ("network", "method", "epochs", "batch", "rate", "limit", "seed")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    plan = replace(RECIPES[options.recipe], **given)
    if min(plan.epochs, plan.batch, options.threads) < 1 or not plan.rate > 0:
        parser.error("epochs, batch and threads must be at least 1, --rate above 0")
    if plan.limit is not None and plan.limit < 2:
        parser.error("--limit must be at least 2")
    return options, plan


if __name__ == "__main__":
    main()
