"""Records of what was measured: bench and inspect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgewright.environment import Environment, Record

Trust = Literal["trusted", "noisy", "invalid"]
Bound = Literal["compute", "memory"]


@dataclass(frozen=True, kw_only=True)
class Timing(Record):
    """Milliseconds of one stage; `low` and `high` bound the median (bootstrap, 95 %)."""

    median_ms: float
    low_ms: float
    high_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class Roofline(Record):
    """How near a whole network comes to what float32 could do at best on the machine that measured it.

    Attributes:
        peak_gflops: Measured float32 peak of as many threads, in 1e9 operations per second (a multiply-add is 2).
        bandwidth_gbs: Measured memory bandwidth, in 1e9 bytes per second.
        floor_ms: Least time at that peak and bandwidth, for the network's multiply-adds and for its weights, inputs and
            outputs moved once.
        bound: Which of the two sets it.
        reached: `floor_ms` over the median: 1 is the float32 roof, and int8 may be above it.
    """

    peak_gflops: float
    bandwidth_gbs: float
    floor_ms: float
    bound: Bound
    reached: float


@dataclass(frozen=True, kw_only=True)
class BenchResult(Record):
    """One bundle at one thread count.

    Attributes:
        bundle_hash: What ran.
        bundle_name: Its name.
        runtime: Its runtime and version.
        precision: Its arithmetic.
        threads: Threads.
        infer: The network alone.
        pre: File to input arrays, where samples are photos.
        post: Outputs to result.
        peak_memory_bytes: Peak resident memory of the worker process.
        load_ms: Opening the bundle in the worker.
        size_bytes: Bytes of the runtime's files.
        trust: trusted, noisy or invalid.
        reasons: Why not trusted.
        telemetry: What the machine did meanwhile; absent values are "unavailable", never 0.
        relative: Median time relative to the fastest of the same call, model and thread count, (ratio, low, high).
        seed: Seed of the random order.
        environment: Where.
        model: Name of the network; "" where the bundle does not say.
        origin: Hash of the original Model: bundles that share it do the same work.
        macs: Multiply-adds of one run, where known.
        roofline: Where it was asked for and the bundle records its costs.
    """

    bundle_hash: str
    bundle_name: str
    runtime: str
    precision: str
    threads: int
    infer: Timing
    pre: Timing | None
    post: Timing | None
    peak_memory_bytes: int
    load_ms: float
    size_bytes: int
    trust: Trust
    reasons: tuple[str, ...]
    telemetry: Mapping[str, Any]
    relative: tuple[float, float, float] = (1.0, 1.0, 1.0)
    seed: int = 0
    environment: Environment = field(default_factory=Environment.here)
    model: str = ""
    origin: str = ""
    macs: int | None = None
    roofline: Roofline | None = None


@dataclass(frozen=True, kw_only=True)
class Fastest(Record):
    """Which bundle of a model is the fastest at a thread count, and how sure that is.

    Attributes:
        model: Name of the network.
        origin: Hash of the original Model.
        threads: Threads.
        bundle_name: The fastest by its median.
        runtime: Its runtime and version.
        precision: Its arithmetic.
        next: Name of the one that comes nearest; None where there is no other.
        ratio: Time of `next` over that of the fastest, with its 95 % interval.
        equal: Names of all from which it cannot be told: their interval holds 1.
    """

    model: str
    origin: str
    threads: int
    bundle_name: str
    runtime: str
    precision: str
    next: str | None = None
    ratio: tuple[float, float, float] | None = None
    equal: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LayerCost(Record):
    """What one node costs.

    Attributes:
        name: The node's first output.
        node: The node's name.
        op_type: Its operator.
        shape: Shape of that output.
        macs: Multiply-adds; 0 for what only moves or compares.
        parameter_bytes: Weights read.
        activation_bytes: Inputs read plus outputs written, without weights.
        time_ms: Measured time, where the runtime gives one.
        bound: "compute" or "memory" by the measured roofline, where known.
        efficiency: Reached part of the roofline, 0..1, where known.
    """

    name: str
    node: str
    op_type: str
    shape: tuple[int | str | None, ...]
    macs: int | None
    parameter_bytes: int
    activation_bytes: int | None
    time_ms: float | None = None
    bound: str | None = None
    efficiency: float | None = None


@dataclass(frozen=True, kw_only=True)
class ChannelGroup(Record):
    """Channels that can be removed, each by itself, from all the tensors that they run through.

    Attributes:
        name: Output of the first layer that makes them.
        channels: How many.
        made_by: Layers that make them, by their first outputs.
        read_by: Layers that read them.
        parameters_per_channel: Weights that go with one of them.
        macs_per_channel: Multiply-adds that go with one of them.
    """

    name: str
    channels: int
    made_by: tuple[str, ...]
    read_by: tuple[str, ...]
    parameters_per_channel: float
    macs_per_channel: float


@dataclass(frozen=True, kw_only=True)
class ChannelBarrier(Record):
    """Channels that must stay.

    Attributes:
        tensor: Output of the layer that makes them.
        axis: Along which.
        reason: Why.
    """

    tensor: str
    axis: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class ChannelReport(Record):
    """What can be removed from a network.

    Attributes:
        groups: Channels that can go.
        barriers: Channels that must stay.
        refusal: Why nothing can be removed, or None.
    """

    groups: tuple[ChannelGroup, ...]
    barriers: tuple[ChannelBarrier, ...]
    refusal: str | None = None


@dataclass(frozen=True, kw_only=True)
class InspectReport(Record):
    """A network's layers and totals.

    Attributes:
        model_hash: Which network.
        name: Its name.
        inputs: As text, `image float32[1, 3, 224, 224]`.
        outputs: As text.
        parameters: Number of weights; None for a bundle whose files do not hold the ONNX graph.
        weight_bytes: Their bytes, or None.
        macs: Multiply-adds of one run at batch 1, or None.
        layers: In graph order.
        operators: Operator -> count.
        runtimes: Runtime -> reasons why it cannot run it (empty: it can).
        peak_gflops: Measured float32 peak of `threads` threads, or None.
        bandwidth_gbs: Measured memory bandwidth, or None.
        channels: Channel groups, where they were asked for.
    """

    model_hash: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: int | None
    weight_bytes: int | None
    macs: int | None
    layers: tuple[LayerCost, ...]
    operators: Mapping[str, int]
    runtimes: Mapping[str, tuple[str, ...]]
    runtime: str | None = None
    threads: int = 1
    peak_gflops: float | None = None
    bandwidth_gbs: float | None = None
    channels: ChannelReport | None = None
    environment: Environment = field(default_factory=Environment.here)
