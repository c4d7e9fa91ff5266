"""locate: layer by layer, where does a bundle leave the original, and why?

    report = ew.locate(model, bundle, samples)
    report.first, report.cause   # "/stem/conv", "the output is 0.5 x the original's"

Two errors for each tensor that both networks have by name: *isolated* (this stretch of the bundle alone, fed the
original's values) and *cumulative* (the whole bundle). The first layer that fails isolated is the culprit. Inner
tensors are read in chunks under a memory budget; the bundle's files are never changed.

    report = ew.locate_source(model, "outputs.npz", samples)

is the stage before: does the network that was imported give the tensors of the framework it comes from?
"""

from __future__ import annotations

import itertools
from pathlib import Path

from edgewright import original
from edgewright.bundle import Bundle
from edgewright.contracts import SampleSource
from edgewright.errors import EdgewrightError
from edgewright.locate import causes, parameters
from edgewright.locate import reproducer as cases
from edgewright.locate.source import SourceWalk, Stored
from edgewright.locate.stages import Plan, Stage, plan
from edgewright.locate.walk import Walk
from edgewright.model import Arrays, Model
from edgewright.progress import SILENT, Progress
from edgewright.records import Environment, Layer, LocateReport

_MIB = 2**20


def locate(
    model: Model,
    bundle: Bundle | str | Path,
    samples: SampleSource,
    *,
    max_samples: int = 2,
    memory_bytes: int = 512 * _MIB,
    threads: int = 1,
    reproducer: Path | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> LocateReport:
    """Every comparable layer with its errors, and the first culprit; also appended to the bundle's evidence.

    Args:
        model: The network that the bundle was made from: the original, or the compressed one to examine only what came
            after it.
        bundle: What to examine, or its folder; every file's hash is checked first.
        samples: The first `max_samples` of the role judge are read.
        max_samples: Samples to compare, 1 or more.
        memory_bytes: Memory for inner tensors.
        threads: Threads of each network.
        reproducer: A folder to make for the first failing layer: its network, inputs, expected and actual values.
        seed: Recorded; nothing here is random.
        progress: Told of each chunk of layers.

    Raises:
        EdgewrightError: E103 for a count below 1, E105 when `reproducer` exists, E222 when the bundle was made from
            another network, E301 without judge samples.
    """
    _check(max_samples, memory_bytes, reproducer)
    bundle = original.open_bundle(bundle)
    original.require_origin(model, bundle)
    chosen = tuple(itertools.islice(original.judges(samples), max_samples))
    if not chosen:
        raise EdgewrightError("E301", "none of the judge samples could be read")
    stages = plan(model, bundle.comparable, chosen[0].arrays)
    differences = parameters.compare(model, bundle, stages.stages)
    walk = Walk(
        model, bundle, stages, chosen, differences.values, budget_bytes=memory_bytes, threads=threads, progress=progress
    )
    walk.run()
    report = _report(walk, stages, differences, bundle, reproducer, seed=seed, samples=len(chosen))
    bundle.add_evidence("locate", report.to_json())
    return report


def locate_source(
    model: Model,
    stored: str | Path,
    samples: SampleSource | None = None,
    *,
    stride: int | None = None,
    memory_bytes: int = 512 * _MIB,
    threads: int = 1,
    reproducer: Path | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> LocateReport:
    """Every tensor of `model` that the framework it comes from has computed too, with its errors and the first culprit.

    Args:
        model: The network as it was imported.
        stored: An .npz of tensor name -> the source's values, or a folder of NAME.npy: whole, or thinned by a stride.
        samples: The one input that the source was given; not needed where `stored` has the network's inputs as well.
        stride: Of what is thinned; found by its size where None.
        memory_bytes: Memory for inner tensors.
        threads: Threads of each network.
        reproducer: A folder to make for the first failing layer.
        seed: Recorded; nothing here is random.
        progress: Told of each chunk of layers.

    Raises:
        EdgewrightError: E103 for a stride below 1, E104 and E201 for `stored`, E105 when `reproducer` exists, E231 where
            no tensor has a name of the network, E301 without an input or with several.
    """
    _check(1, memory_bytes, reproducer)
    if stride is not None and stride < 1:
        raise EdgewrightError("E103", f"`stride` is {stride}, but must be at least 1")
    source = Stored(Path(stored), stride)
    sample, inputs = _source_input(model, source, samples)
    walk = SourceWalk(model, source, inputs, sample=sample, threads=threads, progress=progress)
    if not walk.stages.stages:
        few = ", ".join(f"`{name}`" for name in source.names[:3])
        raise EdgewrightError(
            "E231",
            f"`{stored}` has {few}, but `{model.name}` has no tensor of these names",
            hint="edgewright inspect MODEL --layers",
        )
    walk.run(memory_bytes)
    return _report(walk, walk.stages, parameters.Differences(), None, reproducer, seed=seed, samples=1)


def _source_input(model: Model, source: Stored, samples: SampleSource | None) -> tuple[str, Arrays]:
    """(name of the input, its arrays): those that lie with the source's tensors, else the only sample."""
    own = source.inputs(model)
    if own is not None:
        return source.path.name, own
    given = list(itertools.islice(samples or (), 2))
    if len(given) != 1:
        raise EdgewrightError(
            "E301",
            f"`{source.path}` was computed from one input, but {'several samples' if given else 'no sample'} came with it",
            hint="add --samples FILE, a photo or an .npz with the network's input",
        )
    return given[0].id, given[0].arrays


def _report(
    walk: Walk | SourceWalk,
    stages: Plan,
    differences: parameters.Differences,
    bundle: Bundle | None,
    reproducer: Path | None,
    *,
    seed: int,
    samples: int,
) -> LocateReport:
    failure, model = walk.failure, walk.model
    cause = causes.explain(failure, walk.limits) if failure else None
    first = failure.stage.name if failure else None
    if first is not None and cause is None:
        cause = "; ".join(differences.values.get(first, ())) or None
    if first is None and differences.spec:
        first, cause = next(iter(differences.spec.items()))
    if bundle is None:
        assert isinstance(walk, SourceWalk)
        compared, fused = (walk.stored.path.name, model.name), walk.unpaired
    else:
        compared = model.name, f"{bundle.runtime} {bundle.runtime_version} {bundle.precision}"
        fused = stages.fused
    return LocateReport(
        bundle_hash=bundle.hash if bundle else model.hash,
        bundle_name=bundle.name if bundle else model.name,
        stage=" -> ".join(compared),
        layers=tuple(_layer(stage, walk, differences) for stage in stages.stages),
        first=first,
        cause=cause,
        reproducer=str(cases.write(reproducer, failure, compared, cause)) if failure and reproducer else None,
        fused=fused,
        samples=samples,
        seed=seed,
        environment=Environment.here(),
    )


def _layer(stage: Stage, walk: Walk | SourceWalk, differences: parameters.Differences) -> Layer:
    isolated, cumulative = walk.isolated[stage.name], walk.cumulative[stage.name]
    noise = walk.noise.get(stage.name, 0.0)
    within = not cumulative.problem and cumulative.rel_l2 <= walk.limits.cumulative_at(noise)
    found = differences.values.get(stage.name, ())
    if stage.name in walk.failing and stage.name in differences.operators:
        found = (*found, differences.operators[stage.name])
    if stage.name in differences.spec:
        found = (*found, differences.spec[stage.name])
    return Layer(
        name=stage.name,
        node=stage.node,
        op_type=stage.op_type,
        cumulative=cumulative,
        isolated=isolated,
        noise_floor=noise,
        passed=stage.name not in walk.failing and within and stage.name not in differences.spec,
        covers=stage.covers,
        differences=found,
    )


def _check(max_samples: int, memory_bytes: int, reproducer: Path | None) -> None:
    if max_samples < 1:
        raise EdgewrightError("E103", f"`max_samples` is {max_samples}, but must be at least 1")
    if memory_bytes < _MIB:
        raise EdgewrightError("E103", f"`memory_bytes` is {memory_bytes}, but must be at least {_MIB}")
    if reproducer is not None and reproducer.exists() and (not reproducer.is_dir() or any(reproducer.iterdir())):
        raise EdgewrightError("E105", f"reproducer `{reproducer}` exists already", hint=f"rm -r {reproducer}")
