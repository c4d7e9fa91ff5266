"""Distillation put together: what a pass calls with two graphs and a context."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from edgewright.contracts import Context
from edgewright.errors import EdgewrightError
from edgewright.learn import pairing
from edgewright.learn.feeding import Feed, augments, held, tensors
from edgewright.learn.judging import Judge
from edgewright.learn.losses import CLASSIFY, Loss, class_labels
from edgewright.learn.network import Network
from edgewright.learn.options import Training
from edgewright.learn.roles import own_statistics, roles
from edgewright.learn.running import Runner, Teacher
from edgewright.learn.states import State
from edgewright.learn.training import Trainer
from edgewright.model import Model

if TYPE_CHECKING:
    import onnx_ir as ir

#: Bytes of decoded select samples that are held.
_SELECT_BYTES = 256 * 2**20


def distil(
    student: ir.Model,
    teacher: ir.Model,
    options: Training,
    context: Context,
    schedule: Callable[[Network, float], None] | None = None,
) -> dict[str, Any]:
    """Train `student`, in place, to say what `teacher` says on the calibrate samples; returns JSON-ready statistics.

    Shapes must be inferred in both; `teacher` is not changed. `schedule` is given the student before each step, and which
    part of the training is done, 0..1; before the select samples judge it, 1: as it will ship.

    Raises:
        EdgewrightError: E212 for a graph that cannot be trained, E301 without calibrate samples, E305 for labels, E501
            where training meets values that are no numbers, E502 for a saved training that is another one.
    """
    assert context.samples is not None
    calibrate = context.samples.role("calibrate")
    if not len(calibrate):
        raise EdgewrightError("E301", "distillation needs samples of the role calibrate, and there are none")
    _refuse_halves(student)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loss = _loss(student, teacher, options, context)
    own_statistics(student)
    networks = (
        Network(student, keep=options.keep, batch_statistics=options.batch_statistics),
        Network(teacher).requires_grad_(False).eval(),
    )
    if not networks[0].learnt:
        raise EdgewrightError("E212", "the network has no weights that could be learnt")
    names = tuple(value.name or "" for value in student.graph.outputs)
    learner, original = (
        Runner(network.to(device).channels_last(), tuple(dict.fromkeys((*asked, *names))), device)
        for network, asked in zip(networks, (loss.student_names(), loss.teacher_names()), strict=True)
    )
    feed = Feed(calibrate, options.batch, context.seed)
    _probe(learner, original, feed)
    if options.batch_statistics and not learner.batched:
        raise EdgewrightError(
            "E212", "statistics of batch norms cannot be learnt: the graph takes one sample at a time"
        )
    trainer = Trainer(
        learner, Teacher(original), Model(teacher).hash, loss, feed, _judge(loss, names, options, context), context.spec, options,
        augments(context.spec, options.augment), context.progress,
        None if schedule is None else functools.partial(schedule, learner.network),
    )  # fmt: skip
    state = trainer.run()
    if trainer.judge and state.step and not state.kept_step:
        context.progress.note(
            f"none of the weights after {state.step} steps was better on the select samples than those it began with, "
            f"which are kept; a rate below {options.rate:g} may do better"
        )
    written = learner.network.write(student)
    return _report(trainer, state, written, len(calibrate))


def _refuse_halves(student: ir.Model) -> None:
    """Steps of a learning rate are smaller than those of float16, so that its weights would hardly move."""
    halves = roles(student).halves
    if halves:
        raise EdgewrightError(
            "E212",
            f"weight `{halves[0]}` and {len(halves) - 1} more are float16 or bfloat16, which is too coarse to train",
            hint="put the pass distil before to_float16 in the recipe",
        )


def _loss(student: ir.Model, teacher: ir.Model, options: Training, context: Context) -> Loss:
    task = context.spec.task
    chosen = context.spec.options.get("output") if task == CLASSIFY else None
    inner = pairing.features(teacher, student, context.kept) if options.features else ()
    return Loss(
        task,
        pairing.outputs(teacher, student, None if chosen is None else (str(chosen),)),
        inner,
        options.temperature,
        options.features,
    )


def _probe(learner: Runner, original: Runner, feed: Feed) -> None:
    """Whether samples may share a batch: only if both networks give the same for them apart."""
    first = next(feed.batches(0))[:2]
    if len({sample.id for sample in first}) < 2:  # one sample alone, repeated
        learner.batched = original.batched = False
        return
    for runner in (learner, original):
        runner.network.eval()
        runner.probe(tensors(first))
    learner.batched = original.batched = learner.batched and original.batched


def _judge(loss: Loss, names: tuple[str, ...], options: Training, context: Context) -> Judge | None:
    assert context.samples is not None
    samples = tuple(held(context.samples.role("select"), _SELECT_BYTES))
    if not samples:
        context.progress.note("no sample has the role select: the last weights are kept, whatever they say")
        return None
    if options.labels:
        class_labels([sample.label for sample in samples], loss.task, [sample.id for sample in samples])
    return Judge(samples, loss, names, context.agreement, options.labels)


def _report(trainer: Trainer, state: State, written: int, samples: int) -> dict[str, Any]:
    kept_step = state.kept_step if trainer.judge else state.step
    kept = next(point for point in state.curve if point["step"] == kept_step)
    return {
        "steps": state.step,
        "seconds": round(state.seconds, 1),
        "device": str(trainer.student.device),
        "samples": samples,
        "select": len(trainer.judge.samples) if trainer.judge else 0,
        "batched": trainer.student.batched,
        "augmented": trainer.augment,
        "learnt": written,
        "outputs": [pair.student for pair in trainer.loss.outputs],
        "features": [pair.student for pair in trainer.loss.features],
        "before": state.curve[0].get("agreement"),
        "after": kept.get("agreement"),
        "kept_step": kept_step,
        "curve": state.curve,
    }
