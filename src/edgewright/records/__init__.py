"""Records: what the verbs return. Frozen, JSON-ready, each with the surroundings that give its numbers a meaning.

A number without host, CPU features, versions, seed and the bundle's hash is not printable: `Environment` is part of
every record that holds a measurement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgewright.environment import Environment, Record
from edgewright.records.measuring import (
    BenchResult,
    Bound,
    ChannelBarrier,
    ChannelGroup,
    ChannelReport,
    Fastest,
    InspectReport,
    LayerCost,
    Roofline,
    Timing,
    Trust,
)
from edgewright.records.searching import Frontier, SearchPoint

__all__ = [
    "BenchResult",
    "Bound",
    "Candidate",
    "ChannelBarrier",
    "ChannelGroup",
    "ChannelReport",
    "Coverage",
    "Decision",
    "DeployOutcome",
    "Environment",
    "Fastest",
    "Frontier",
    "Gate",
    "InspectReport",
    "Layer",
    "LayerCost",
    "LocateReport",
    "Record",
    "Roofline",
    "Saturation",
    "SearchPoint",
    "TensorError",
    "Timing",
    "Trust",
    "VerifyReport",
]

Decision = Literal["pass", "fail", "undecided"]


# --- verify and locate ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TensorError(Record):
    """How far one tensor is from the original's, over all samples compared.

    Attributes:
        name: ONNX tensor name.
        rel_l2: Worst relative L2 distance over the samples.
        sqnr_db: The same in dB (lowest over the samples).
        cosine: Lowest cosine.
        max_abs: Largest absolute difference, and where.
        max_abs_index: Its index in the tensor.
        worst_sample: Id of the sample with the worst rel_l2.
        nans: NaNs and infinities in the other tensor that the original does not have.
        zero_fraction: Part of the other tensor that is exactly 0 (a dead layer shows here).
        problem: Why it could not be compared ("shape [1, 8] instead of [1, 9]"); a failure, never a perfect 0.
    """

    name: str
    rel_l2: float = math.nan
    sqnr_db: float = math.nan
    cosine: float = math.nan
    max_abs: float = math.nan
    max_abs_index: tuple[int, ...] = ()
    worst_sample: str = ""
    nans: int = 0
    zero_fraction: float = 0.0
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Gate(Record):
    """One question with its answer.

    Attributes:
        name: "agreement", "numeric" or "metric drop".
        decision: pass, fail or undecided.
        value: Point estimate.
        low: Lower confidence bound (equal to value where none applies).
        high: Upper confidence bound.
        required: The limit.
        message: One sentence for people, with value, bounds, limit and number of samples.
    """

    name: str
    decision: Decision
    value: float
    low: float
    high: float
    required: float
    message: str


@dataclass(frozen=True, kw_only=True)
class Saturation(Record):
    """What saturating int8 kernels do to a bundle's answers on this CPU.

    Attributes:
        rel_l2: Median over the samples, the bundle's files on this CPU's kernels against the same files without saturation.
        exact_agreement: Agreement with the original without saturation.
        agreement: Agreement with the original on this CPU's kernels, on the same samples.
        exact_sqnr_db: Median distance from the original without saturation, as SQNR.
        sqnr_db: The same on this CPU's kernels.
        samples: Judge samples compared.
        message: One sentence for people, with the weights to use instead and the command that makes them.
        command: That command.
    """

    rel_l2: float
    exact_agreement: float
    agreement: float
    exact_sqnr_db: float
    sqnr_db: float
    samples: int
    message: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Coverage(Record):
    """Whether the calibrate samples that compression learnt from cover the judges, by the original's outputs for both.

    Attributes:
        decision: "not covered" where judges lie apart, beyond chance and by much; "unknown" where it cannot be told.
        message: One sentence for people.
        calibrate: Sources compared that compression learnt from.
        judges: Sources compared that judge.
        beyond: Part of the judges farther from every calibrate sample than `limit`, 0..1.
        low: Its lower confidence bound.
        high: Its upper confidence bound.
        p_value: Chance of such distances where both kinds are drawn alike.
        limit: Distance to the nearest other one that 95 % of the calibrate samples keep.
        unseen_classes: Part of the judges given a class that no calibrate sample was given, and the same of each calibrate
            sample against the others; None where the task names no classes.
        edges: Edges of bins of nearest distances.
        calibrate_shares: Part of the calibrate samples in each bin, by the distance to the nearest other one.
        judge_shares: Part of the judges in each bin, by the distance to the nearest calibrate sample.
    """

    decision: Literal["covered", "not covered", "unknown"]
    message: str
    calibrate: int
    judges: int
    beyond: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p_value: float = math.nan
    limit: float = math.nan
    unseen_classes: tuple[float, float] | None = None
    edges: tuple[float, ...] = ()
    calibrate_shares: tuple[float, ...] = ()
    judge_shares: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VerifyReport(Record):
    """Whether a bundle gives the original's answers, judged on the shipped files untouched.

    Attributes:
        bundle_hash: What was judged.
        origin: Hash of the original Model.
        decision: fail if a required gate fails, undecided if one is, else pass.
        gates: In the order they were asked.
        outputs: Distance of each graph output.
        samples: Number of judge samples.
        samples_needed: How many more would decide, at the agreement seen so far; 0 where decided, -1 where none would.
        agreement: What agreement means for this task.
        metric: The task's metric for the original and the bundle, where labels exist: {"top-1": [original, bundle]}.
        disagreements: Ids of samples on which they differ, at most 50.
        seed: Seed of every random choice.
        environment: Where.
        saturation: What saturating int8 kernels do to the answers here; None where nothing.
        coverage: Whether what compression learnt from covers the judges; None where it learnt nothing from samples.
    """

    bundle_hash: str
    bundle_name: str
    origin: str
    decision: Decision
    gates: tuple[Gate, ...]
    outputs: tuple[TensorError, ...]
    samples: int
    samples_needed: int
    agreement: str
    metric: Mapping[str, tuple[float, float]]
    disagreements: tuple[str, ...]
    seed: int
    environment: Environment
    saturation: Saturation | None = None
    coverage: Coverage | None = None


@dataclass(frozen=True, kw_only=True)
class Layer(Record):
    """One comparable tensor of a located network.

    Attributes:
        name: ONNX tensor name: the producer's last output.
        node: Name of the node that makes it, in the original.
        op_type: Its operator.
        cumulative: Whole network against whole network.
        isolated: This stretch alone, fed the original's inputs.
        noise_floor: rel-L2 between two exact evaluations of the original, up to this tensor.
        passed: True where both are within the limits of the bundle's precision.
        covers: Tensors that were fused away since the layer before.
        differences: Parameters and attributes that are not equal, in words.
    """

    name: str
    node: str
    op_type: str
    cumulative: TensorError
    isolated: TensorError
    noise_floor: float
    passed: bool
    covers: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LocateReport(Record):
    """Layer by layer, with the first culprit.

    Attributes:
        bundle_hash: What was examined: the bundle, or the network where its source is what it was compared with.
        layers: In graph order.
        first: Name of the first layer that fails isolated, or None.
        cause: The likely cause of the first failure, in words, or None.
        reproducer: Folder with a one-layer reproducer, or None.
        fused: Tensors of the original (or the source) that no longer exist, or that equalization rescaled.
        samples: Samples compared.
        seed: Seed.
        environment: Where.
        stage: What was compared with what: "outputs.npz -> net" (source and import) or "net -> onnxruntime 1.23 fp32".
    """

    bundle_hash: str
    bundle_name: str
    layers: tuple[Layer, ...]
    first: str | None
    cause: str | None
    reproducer: str | None
    fused: tuple[str, ...]
    samples: int
    seed: int
    environment: Environment
    stage: str = ""  # absent in evidence of before


# --- deploy -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Candidate(Record):
    """One recipe on one runtime, and what became of it.

    Attributes:
        name: RECIPE-RUNTIME.
        recipe: The recipe's name; "original" is the unmodified network.
        runtime: The runtime's public name.
        state: "chosen", "verified" (within the budget, slower), "rejected" or "failed" (could not be made).
        reason: Why it was not chosen, in one sentence; for the chosen one, why it was.
        bundle: Folder, relative to the run's folder, where one was made.
        verify: The verdict, where it came that far.
        bench: Measurements, one per thread count, where it came that far.
    """

    name: str
    recipe: str
    runtime: str
    state: Literal["chosen", "verified", "rejected", "failed"]
    reason: str
    bundle: str | None = None
    size_bytes: int | None = None
    precision: str | None = None
    verify: VerifyReport | None = None
    bench: tuple[BenchResult, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DeployOutcome(Record):
    """What `deploy` tried and what it hands back.

    Attributes:
        model_name: The network.
        origin: Hash of the original Model.
        chosen: Name of the chosen candidate, or None where none is within the budget.
        candidates: All of them, fastest first, then rejected, then failed.
        speedup: Time of the fastest unmodified candidate over the chosen one's, (ratio, low, high).
        budget: The limits that were asked for: {"min_agreement": 0.98, ...}.
        threads: Thread count that decided.
        samples: Role -> number of samples.
        skipped: Unreadable samples, (id, reason).
        command: The command line that reproduces this.
        seed: Seed.
        environment: Where.
        notes: What should be known about the measurement.
        frontier: What a search found, where there was one.
    """

    model_name: str
    origin: str
    chosen: str | None
    candidates: tuple[Candidate, ...]
    speedup: tuple[float, float, float] | None
    budget: Mapping[str, Any]
    threads: int
    samples: Mapping[str, int]
    skipped: tuple[tuple[str, str], ...]
    command: str
    seed: int
    environment: Environment
    notes: tuple[str, ...] = ()
    frontier: Frontier | None = None
