"""The loop: a student learns from its teacher, step by step, and the best of it is kept.

The learning rate rises, then falls by a cosine (Loshchilov and Hutter 2016, "SGDR", section 3) over the steps or minutes
asked for. The select samples are asked now and then; the weights with which they agree most are what is written, of those
with which they agree alike the ones of the least loss.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgewright.contracts import Sample
from edgewright.errors import EdgewrightError
from edgewright.learn.feeding import Feed, augmented, tensors
from edgewright.learn.judging import Best, Judge
from edgewright.learn.losses import Loss, class_labels
from edgewright.learn.options import Training
from edgewright.learn.running import Runner, Teacher
from edgewright.learn.states import State
from edgewright.options import dump
from edgewright.progress import Progress
from edgewright.spec import Spec


@dataclass
class Trainer:
    """One training.

    Attributes:
        student: What learns.
        teacher: What it learns from.
        origin: Hash of the teacher's network.
        loss: What is minimized.
        feed: The samples it learns from.
        judge: What says which weights are best, None where there are no select samples: then the last are kept.
        spec: What the inputs are.
        options: How to train.
        augment: Whether photos are varied at random.
        progress: Told of each step.
        schedule: Told before each step which part of the training is done, 0..1, and 1 before the student is judged.
        state: Where it stands.
    """

    student: Runner
    teacher: Teacher
    origin: str
    loss: Loss
    feed: Feed
    judge: Judge | None
    spec: Spec
    options: Training
    augment: bool
    progress: Progress
    schedule: Callable[[float], None] | None = None
    state: State = field(default_factory=State)
    _recent: list[float] = field(default_factory=list)

    def run(self) -> State:
        """Train to the end; the student then has the best weights.

        Raises:
            EdgewrightError: E501 where a loss or a gradient is no number, E502 a saved training is another one.
        """
        weights = self.student.network.weights()
        optimizer = self._optimizer(weights)
        self.state.rate = self.options.rate
        print_ = self._fingerprint(weights)
        self._restore(weights, optimizer, print_)
        if not self.state.done:
            self._train(weights, optimizer, print_)
        self._put(weights, "best/" if self.judge else "now/")
        self.student.network.eval()
        return self.state

    def _train(self, weights: dict[str, Tensor], optimizer: torch.optim.Optimizer, print_: str) -> None:
        if not self.state.curve:
            self._evaluate(weights, optimizer, print_)
        clock = _Clock(self.options, self.state)
        for batch in self.feed.batches(self.state.step):
            if clock.part(self.state.step) >= 1:
                break
            self._step(batch, weights, optimizer, clock)
            self.progress.update("distil", *clock.shown(self.state.step))
            if clock.evaluates(self.state.step):
                self._evaluate(weights, optimizer, print_)
                if self.options.patience and self.state.stale >= self.options.patience:
                    break
        self.state.done = True
        self._evaluate(weights, optimizer, print_)

    def _step(
        self, batch: list[Sample], weights: dict[str, Tensor], optimizer: torch.optim.Optimizer, clock: _Clock
    ) -> None:
        number = self.state.step + 1
        for group in optimizer.param_groups:
            group["lr"] = self.options.rate * _rate(clock.part(self.state.step), self.options.warmup)
        if self.schedule is not None:
            self.schedule(clock.part(self.state.step))
        inputs = tensors(batch)
        if self.augment:
            draws = (np.random.default_rng([self.feed.seed, number, index]) for index in range(len(batch)))
            inputs = [augmented(item, self.spec, rng) for item, rng in zip(inputs, draws, strict=True)]
        ids = [sample.id for sample in batch]
        answers = self.teacher(inputs, None if self.augment else ids)
        labels = None
        if self.options.labels:
            labels = class_labels([s.label for s in batch], self.loss.task, ids).to(self.student.device)
        self.student.network.train()
        optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.student(inputs), answers, labels)
        self._require_finite(loss, number, "the loss")
        loss.backward()
        parameters = [w for w in weights.values() if w.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.options.clip or math.inf)
        self._require_finite(norm, number, "the gradient")
        optimizer.step()
        self.student.network.hold()
        self.state.step, self.state.seconds = number, clock.seconds
        self._recent.append(float(loss.detach()))

    def _require_finite(self, value: Tensor, step: int, what: str) -> None:
        if bool(torch.isfinite(value)):
            return
        folder = self.options.state
        kept = f"; the last good state is in `{folder}`" if folder and self.state.curve else ""
        raise EdgewrightError(
            "E501",
            f"training stopped at step {step}: {what} is {float(value.detach())}{kept}",
            hint=f"--set {self.options.NAME}.rate={self.options.rate / 4:.2g}",
        )

    # --- judging and keeping -------------------------------------------------------------------------------------------

    def _evaluate(self, weights: dict[str, Tensor], optimizer: torch.optim.Optimizer, print_: str) -> None:
        """Ask the select samples, keep the weights where they are the best so far, and save."""
        state = self.state
        if state.curve and state.curve[-1]["step"] == state.step:
            if state.done:
                self._save(print_)
            return
        point: dict[str, Any] = {"step": state.step, "seconds": round(state.seconds, 1)}
        point["loss"] = float(np.mean(self._recent)) if self._recent else None
        self._recent.clear()
        now = {name: weight.detach().cpu().contiguous().numpy().copy() for name, weight in weights.items()}
        state.arrays = {name: array for name, array in state.arrays.items() if name.startswith("best/")}
        state.arrays |= {f"now/{name}": array for name, array in now.items()}
        if self.judge is not None:
            if self.schedule is not None:
                self.schedule(1.0)
            self.student.network.eval()
            judgement = self.judge(self.student, self.teacher)
            point |= {"agreement": judgement.agreement, "select_loss": judgement.loss}
            point |= {} if judgement.right is None else {"right": judgement.right}
            first = Best(judgement.share, judgement.share, judgement.loss)
            better = first if state.best is None else state.best.after(judgement, len(self.judge.samples))
            state.stale = 0 if better else state.stale + 1
            if better:
                state.best, state.kept_step = better, state.step
                state.arrays |= {f"best/{name}": array for name, array in now.items()}
        state.curve.append(point)
        state.arrays |= _moments(optimizer)
        self._save(print_)

    def _save(self, print_: str) -> None:
        if self.options.state is not None and self.state.curve:
            self.state.save(self.options.state, print_)

    def _restore(self, weights: dict[str, Tensor], optimizer: torch.optim.Optimizer, print_: str) -> None:
        if self.options.state is None:
            return
        size = sum(weight.numel() for weight in weights.values())
        found = State.load(self.options.state, print_, 4 * 8 * (size + len(weights)), self.options.rate)
        if found is None:
            return
        # What was done after the last evaluation is done again: the file holds that moment.
        found.step, found.seconds = found.curve[-1]["step"], found.curve[-1]["seconds"]
        self.state = found
        self._put(weights, "now/")
        _put_moments(optimizer, found.arrays)
        self.progress.note(f"training goes on from step {found.step} in `{self.options.state}`")

    def _put(self, weights: dict[str, Tensor], prefix: str) -> None:
        with torch.no_grad():
            for name, weight in weights.items():
                if f"{prefix}{name}" in self.state.arrays:
                    weight.copy_(torch.from_numpy(self.state.arrays[f"{prefix}{name}"].copy()))

    def _optimizer(self, weights: dict[str, Tensor]) -> torch.optim.Optimizer:
        learnt = [weight for weight in weights.values() if weight.requires_grad]
        groups = [
            {"params": [w for w in learnt if w.ndim > 1], "weight_decay": self.options.decay},
            {"params": [w for w in learnt if w.ndim <= 1], "weight_decay": 0.0},
        ]
        if self.options.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.options.rate, momentum=0.9)
        return torch.optim.AdamW(groups, lr=self.options.rate)

    def _fingerprint(self, weights: dict[str, Tensor]) -> str:
        """What must be the same for a training to go on: options but the rate, seed, samples, teacher, first weights."""
        plain = {key: value for key, value in dump(self.options).items() if key not in ("state", "rate")}
        digest = hashlib.sha256(
            json.dumps([plain, self.feed.seed, sorted(self.feed.samples.groups), self.origin]).encode()
        )
        for name, weight in weights.items():
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class _Clock:
    """How much of the training is done, and when the select samples are asked."""

    def __init__(self, options: Training, state: State) -> None:
        self._options = options
        self._start = time.monotonic() - state.seconds
        self._asked = 0
        self._asked = self._evaluation(state.step)

    @property
    def seconds(self) -> float:
        """Since the training began, interruptions left out."""
        return time.monotonic() - self._start

    def part(self, step: int) -> float:
        """0 at the start, 1 at the end."""
        return step / self._options.steps if self._options.steps else self.seconds / (60 * self._options.minutes)

    def shown(self, step: int) -> tuple[int, int]:
        """(done, total) for a progress bar: steps or seconds."""
        if self._options.steps:
            return step, self._options.steps
        total = round(60 * self._options.minutes)
        return min(round(self.seconds), total), total

    def evaluates(self, step: int) -> bool:
        """True once when another part of the training is over."""
        before, self._asked = self._asked, self._evaluation(step)
        return self._asked > before

    def _evaluation(self, step: int) -> int:
        return int(self.part(step) * self._options.evaluations)


def _rate(part: float, warmup: float) -> float:
    """The learning rate as a part of the highest: linear up to it, then a cosine down to 0."""
    if part < warmup:
        return max(part / warmup, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (part - warmup) / max(1 - warmup, 1e-9)))


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    """The optimizer's memory by place of the weight."""
    found: dict[str, np.ndarray] = {}
    for place, parameter in _parameters(optimizer):
        for key, value in optimizer.state[parameter].items():
            if torch.is_tensor(value):
                found[f"moment/{place}/{key}"] = value.detach().cpu().float().contiguous().numpy().copy()
    return found


def _put_moments(optimizer: torch.optim.Optimizer, arrays: dict[str, np.ndarray]) -> None:
    for place, parameter in _parameters(optimizer):
        for name, array in arrays.items():
            if name.startswith(f"moment/{place}/"):
                # AdamW counts its steps on the CPU, wherever the weight is.
                device = "cpu" if name.endswith("/step") else parameter.device
                optimizer.state[parameter][name.rsplit("/", 1)[1]] = torch.from_numpy(array.copy()).to(device)


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[tuple[int, Tensor]]:
    yield from enumerate(p for group in optimizer.param_groups for p in group["params"])
