"""Running networks on samples: in batches where the graph allows it, else one by one; the teacher's answers kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from edgewright.errors import EdgewrightError
from edgewright.learn.feeding import joined
from edgewright.learn.network import Network

#: Bytes of the teacher's answers that are kept.
_ANSWER_BYTES = 256 * 2**20
#: Largest difference, against the largest value, between samples in a batch and one by one.
_BATCH_TOLERANCE = 1e-3

Inputs = Sequence[Mapping[str, Tensor]]


@dataclass
class Runner:
    """A network with the names of the tensors that are asked of it.

    Attributes:
        network: The network.
        names: Tensors.
        device: Where it runs.
        batched: Whether samples may share a batch: a graph with fixed shapes may mix them up.
    """

    network: Network
    names: tuple[str, ...]
    device: torch.device
    batched: bool = True

    def __call__(self, inputs: Inputs) -> dict[str, Tensor]:
        """The tensors for all samples, joined along their first axis."""
        if self.batched:
            made: dict[str, Tensor] = self.network(joined(inputs, self.device), self.names)
            return made
        single = [self.network(joined([item], self.device), self.names) for item in inputs]
        return {name: torch.cat([item[name].reshape(1, *item[name].shape) for item in single]) for name in self.names}

    def probe(self, inputs: Inputs) -> None:
        """Find out whether two different samples may share a batch."""
        with torch.no_grad():
            single = [self.network(joined([item], self.device), self.names) for item in inputs[:2]]
            try:
                both = self.network(joined(inputs[:2], self.device), self.names)
            except EdgewrightError:
                self.batched = False
                return
        self.batched = all(_same(both[name], [item[name] for item in single]) for name in self.names)


def _same(both: Tensor, single: Sequence[Tensor]) -> bool:
    if any(item.ndim == 0 or len(item) != 1 for item in single):
        return False
    apart = torch.cat(list(single))
    if both.shape != apart.shape:
        return False
    if not both.is_floating_point():
        return bool((both == apart).all())
    return bool((both - apart).abs().max() <= _BATCH_TOLERANCE * apart.abs().max().clamp(min=1e-6))


@dataclass
class Teacher:
    """The original: its answers are computed once, as long as there is room, where samples come unchanged."""

    runner: Runner
    _kept: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    _bytes: int = 0

    def __call__(self, inputs: Inputs, ids: Sequence[str] | None) -> dict[str, Tensor]:
        """Answers for all samples, joined; `ids` name unchanged samples, None is for changed ones."""
        if ids is not None and all(name in self._kept for name in ids):
            return {key: torch.cat([self._kept[name][key] for name in ids]) for key in self.runner.names}
        with torch.no_grad():
            answers = self.runner(inputs)
        for index, name in enumerate(ids or ()):
            self._keep(name, {key: x[index : index + 1].clone() for key, x in answers.items()})
        return answers

    def _keep(self, name: str, answers: dict[str, Tensor]) -> None:
        size = sum(x.numel() * x.element_size() for x in answers.values())
        if name not in self._kept and self._bytes + size <= _ANSWER_BYTES:
            self._kept[name] = answers
            self._bytes += size
