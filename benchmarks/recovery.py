"""Label-free distillation of a network that was made before, or elsewhere: shared by the benchmarks of pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import edgewright as ew
from edgewright import registry
from edgewright.channel_map import decode
from edgewright.learn.options import Training
from edgewright.model import Step
from edgewright.progress import SILENT, Progress


@dataclass(frozen=True)
class Learning:
    """What `learn` asks of a pass's context.

    Attributes:
        samples: Of the roles calibrate and select.
        spec: The networks' Spec.
        kept: By tensor, which of the original's channels are left; without it inner tensors cannot be compared.
        seed: Of the order of samples.
        progress: Told of each step.
    """

    samples: ew.Samples
    spec: ew.Spec
    kept: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    progress: Progress = SILENT

    def agreement(self, reference: Sequence[Any], results: Sequence[Any]) -> float:
        """How far outputs say the same as the original's, 0..1."""
        task = registry.get("tasks", self.spec.task)
        decoded = [[task.postprocess(item, self.spec) for item in items] for items in (reference, results)]
        return float(task.agreement(*decoded, self.spec))


def distilled(
    student: ew.Model, teacher: ew.Model, samples: ew.Samples, settings: Training, threads: int = 1
) -> ew.Model:
    """The student, trained to say what the teacher says; `teacher` is what pruning began with, batch norms folded."""
    import torch

    from edgewright.graph.dataflow import lift_constants
    from edgewright.graph.shapes import infer
    from edgewright.learn.distilling import distil

    torch.set_num_threads(threads)
    graphs = (student.clone_ir(), teacher.clone_ir())
    for graph in graphs:
        lift_constants(graph)
        infer(graph)
    context = Learning(samples, teacher.spec, decode(step.stats for step in student.history))
    told = distil(*graphs, settings, context)  # type: ignore[arg-type]  # it has all that distillation asks for
    config = {name: value for name, value in asdict(settings).items() if name != "state"}
    step = Step(
        kind="pass", name="distil", config=config, lossy=True, samples=tuple(sorted(samples.groups)), stats=told
    )
    return student.with_ir(graphs[0], step)
