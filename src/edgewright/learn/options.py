"""Options of training; checked before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from edgewright.errors import EdgewrightError


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        minutes: Time to train, above 0; what decoding and judging take counts.
        steps: Steps to train instead, 0 for `minutes`; the same steps give the same network.
        batch: Samples in a step, 1 or more.
        rate: Highest learning rate, above 0.
        warmup: Part of the training in which the rate rises to it, 0..1; then it falls to 0 by a cosine.
        optimizer: `adamw`, or `sgd` with momentum 0.9.
        decay: Weight decay of weights that are no vectors, 0 or more.
        clip: Largest norm of the gradient of all weights together, 0 for any.
        temperature: Logits are divided by it before they are compared as probabilities, above 0.
        features: What distances of inner tensors count beside those of the outputs, 0 or more.
        labels: Learn from the labels of the samples as well (task `classify` only).
        augment: Random crops of photos, or moves where they are small, and mirror images; `auto` where the network
            takes photos and its task is none that reads text.
        batch_statistics: Learn the statistics of batch norms anew.
        keep: Names of constants that are not learnt.
        evaluations: How often the select samples are asked, 1 or more.
        patience: Evaluations without a better one after which training ends, 0 for never.
        state: Folder that keeps the training, so that it can go on after it was interrupted.
    """

    NAME: ClassVar[str] = "distil"  #: the pass whose options these are, for messages

    minutes: float = 20.0
    steps: int = 0
    batch: int = 16
    rate: float = 3e-5
    warmup: float = 0.05
    optimizer: Literal["adamw", "sgd"] = "adamw"
    decay: float = 1e-4
    clip: float = 5.0
    temperature: float = 1.0
    features: float = 1.0
    labels: bool = False
    augment: Literal["auto", "on", "off"] = "auto"
    batch_statistics: bool = False
    keep: tuple[str, ...] = ()
    evaluations: int = 20
    patience: int = 0
    state: Path | None = None

    def __post_init__(self) -> None:
        limits = (
            ("minutes", self.minutes > 0, "above 0"),
            ("steps", self.steps >= 0, "at least 0"),
            ("batch", self.batch >= 1, "at least 1"),
            ("rate", self.rate > 0, "above 0"),
            ("warmup", 0 <= self.warmup <= 1, "0..1"),
            ("decay", self.decay >= 0, "at least 0"),
            ("clip", self.clip >= 0, "at least 0"),
            ("temperature", self.temperature > 0, "above 0"),
            ("features", self.features >= 0, "at least 0"),
            ("evaluations", self.evaluations >= 1, "at least 1"),
            ("patience", self.patience >= 0, "at least 0"),
        )
        for option, fits, limit in limits:
            if not fits:
                raise EdgewrightError(
                    "E103", f"option `{self.NAME}.{option}` is {getattr(self, option)}, but must be {limit}"
                )
