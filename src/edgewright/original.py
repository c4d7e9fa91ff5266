"""The original network as the judge: which runtime stands for it, how far float rounding goes, what is within limits.

Owns what `verify` and `locate` must agree on: the limits by precision, the noise floor, the choice of samples.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from edgewright import metrics, registry, session
from edgewright.bundle import Bundle
from edgewright.contracts import Sample, SampleSource
from edgewright.errors import EdgewrightError
from edgewright.model import EXACT, Arrays, Model

#: rel-L2 that float32 rounding alone may reach in one layer. A batch-norm epsilon of 1e-4 for 1e-5 makes 2.8e-5.
FP32_REL_L2 = 1e-5
#: Whole networks amplify rounding: the limit is this often the distance of two exact evaluations of the original.
NOISE_FACTOR = 10.0
#: Two exact evaluations that differ by more than this (60 dB) are no rounding: one of them is wrong.
ORIGINAL_REL_L2 = 1e-3
#: The same where the original is quantized itself (20 dB): a value on the edge of a step may go either way. In resnet18_qdq one
#: value of 4096 does so in the 17th quantized tensor, all before being equal, and the outputs differ by 0.02.
QUANTIZED_REL_L2 = 0.1
#: Differences below this are float32 rounding next to 1, as at the far end of a sigmoid, however large relatively.
ROUNDING_ABS = 1e-6
#: Samples on which the exact runtime is itself checked against the reference.
NOISE_SAMPLES = 2

#: Lowest SQNR in dB by arithmetic: (one layer fed the original's values, whole network). None: only the decoded results
#: judge. Source: docs/architecture.md, "Tolerances"; bf16 has 3 bits less than fp16, 18 dB.
SQNR_MIN_DB: dict[str, tuple[float, float | None]] = {
    "fp16": (50.0, 35.0),
    "bf16": (32.0, 17.0),
    "int8": (25.0, None),
    "int8 per tensor": (20.0, None),
    "lossy": (20.0, None),  # pruned or distilled: other weights on purpose
}

#: Outputs that `Answers` keeps; what is beyond is computed again for every candidate.
_ANSWER_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Limits:
    """Largest rel-L2 of one layer alone and of the whole network; `cumulative` None where only results judge."""

    precision: str
    isolated: float
    cumulative: float | None

    def isolated_at(self, noise: float) -> float:
        """The limit of a layer whose own rounding noise is `noise`: cancellation can exceed any fixed limit."""
        return max(self.isolated, NOISE_FACTOR * noise) if self.exact else self.isolated

    def cumulative_at(self, noise: float) -> float:
        """The limit of the whole network up to a tensor whose noise floor is `noise`."""
        if self.cumulative is None:
            return math.inf
        return max(self.cumulative, NOISE_FACTOR * noise) if self.exact else self.cumulative

    @property
    def exact(self) -> bool:
        """True where float32 rounding is the only excuse."""
        return self.precision in EXACT


def limits(bundle: Bundle) -> Limits:
    """What the bundle's arithmetic and history allow."""
    kind = bundle.precision
    if kind in EXACT:
        if not bundle.lossy:
            return Limits(kind, FP32_REL_L2, FP32_REL_L2)
        kind = "lossy"
    elif kind == "int8" and any(step.config.get("per_channel") is False for step in bundle.history):
        kind = "int8 per tensor"
    layer, network = SQNR_MIN_DB.get(kind, SQNR_MIN_DB["lossy"])
    return Limits(kind, _ratio(layer), None if network is None else _ratio(network))


def decided(bundle: Bundle) -> dict[str, int]:
    """Outputs that give the best class where the original gives scores, and the axis that the classes are along there."""
    return {name: int(axis) for step in bundle.history for name, axis in step.stats.get("decided", {}).items()}


def open_bundle(bundle: Bundle | str | Path) -> Bundle:
    """The bundle as it is on disk now, every hash checked: what is judged is what ships."""
    return Bundle.open(bundle.path if isinstance(bundle, Bundle) else bundle)


def require_origin(model: Model, bundle: Bundle) -> None:
    """Refuse a bundle that was made from another network than `model`.

    Raises:
        EdgewrightError: E222.
    """
    if bundle.origin != model.origin:
        raise EdgewrightError(
            "E222",
            f"bundle `{bundle.path}` was made from the network {bundle.origin[:12]}, "
            f"but `{model.name}` is {model.origin[:12]}",
            hint="give the network and the spec that the bundle was made from: edgewright convert MODEL --out DIR",
        )


def require_original(model: Model, bundle: Bundle) -> None:
    """Refuse to judge `bundle` by anything but the network it comes from, uncompressed and for the same task.

    Raises:
        EdgewrightError: E222 for another network or a compressed copy, E303 for another task.
    """
    require_origin(model, bundle)
    if model.lossy:
        steps = ", ".join(step.name for step in model.history if step.lossy)
        raise EdgewrightError(
            "E222",
            f"`{model.name}` is itself a compressed copy ({steps}) of the network {model.origin[:12]}; "
            "only the original can judge",
        )
    if bundle.spec.task != model.spec.task:
        raise EdgewrightError(
            "E303",
            f"bundle `{bundle.path}` is for the task `{bundle.spec.task}`, `{model.name}` for `{model.spec.task}`",
        )


def judges(samples: SampleSource) -> SampleSource:
    """The judge role of `samples`.

    Raises:
        EdgewrightError: E301 when it is empty.
    """
    chosen = samples.role("judge")
    if not len(chosen):
        raise EdgewrightError(
            "E301",
            f"none of {len(samples)} samples has the role judge",
            hint="give more samples, or let a folder that was split by hand judge as a whole: --roles judge",
        )
    return chosen


def refuse_used(samples: SampleSource, bundle: Bundle) -> None:
    """Refuse samples that the compression has read: they cannot judge its result.

    Raises:
        EdgewrightError: E304, naming how many and the first.
    """
    used = bundle.samples_used.intersection(samples.groups)
    if not used:
        return
    overlapping = [sample.id for sample in samples if sample.group in used]
    first = f", first: `{overlapping[0]}`" if overlapping else ""
    raise EdgewrightError(
        "E304",
        f"{max(len(overlapping), len(used))} of {len(samples)} judge samples were used to make `{bundle.path}`{first}",
        hint="judge with samples that the compression has not seen; roles by content hash keep them apart",
    )


def open_original(model: Model, *, threads: int) -> session.Session:
    """The original on the runtime that stands for it, computed exactly also where int8 products saturate on this CPU."""
    return session.open(model, runtime=session.exact_runtime(), threads=threads, exact=True)


class Answers:
    """The original's outputs, computed once for each sample: every candidate of a deployment is judged by the same ones.

    As a context manager it closes the network, which is opened again when a sample comes that it has no answer to.

    Attributes:
        model: The original.
        threads: Threads that it runs on.
    """

    def __init__(self, model: Model, *, threads: int) -> None:
        self.model = model
        self.threads = threads
        self._session: session.Session | None = None
        self._known: dict[str, Arrays] = {}
        self._free_bytes = _ANSWER_BYTES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def run(self, sample: Sample) -> Arrays:
        """The original's outputs for `sample`, by ONNX name; not to be written to.

        Raises:
            EdgewrightError: E230 for a sample that does not fit, E232 when the runtime fails.
        """
        key = _content(sample)
        if key in self._known:
            return self._known[key]
        if self._session is None:
            self._session = open_original(self.model, threads=self.threads)
        outputs = {name: np.array(value) for name, value in self._session.run(sample.arrays).items()}
        size = sum(value.nbytes for value in outputs.values())
        if size <= self._free_bytes:
            self._free_bytes -= size
            self._known[key] = outputs
        for value in outputs.values():
            value.flags.writeable = False  # the next candidate is judged by the same numbers
        return outputs


def reference_runtime() -> str | None:
    """Name of the installed runtime that defines the operators (exact, never deployed); None where there is none."""
    for name in registry.installed("runtimes"):
        traits = registry.peek("runtimes", name).TRAITS
        if traits.exact_float and not traits.deployable:
            return name
    return None


@dataclass(frozen=True)
class Noise:
    """Distance of two exact evaluations of one output: relative L2, and the largest absolute difference."""

    rel_l2: float = 0.0
    max_abs: float = 0.0

    def worse(self, other: Noise) -> Noise:
        """The larger of both distances."""
        return Noise(max(self.rel_l2, other.rel_l2), max(self.max_abs, other.max_abs))


#: By network and samples.
_floors: dict[tuple[str, ...], Mapping[str, Noise]] = {}
_MOST_FLOORS = 8


def noise_floor(model: Model, samples: Sequence[Sample] | SampleSource, *, threads: int = 1) -> Mapping[str, Noise]:
    """How far two exact evaluations of the original differ, by graph output, the worst of `NOISE_SAMPLES` samples.

    Empty where no second exact runtime can run the network. Remembered: numpy takes its time, and every candidate of a
    deployment is judged by the same samples.
    """
    chosen = list(itertools.islice(samples, NOISE_SAMPLES))
    key = (model.hash, *(_content(sample) for sample in chosen))
    if key not in _floors:
        while len(_floors) >= _MOST_FLOORS:
            _floors.pop(next(iter(_floors)))
        _floors[key] = _measured(model, chosen, threads)
    return _floors[key]


def _content(sample: Sample) -> str:
    found = hashlib.sha256()
    for name, array in sorted(sample.arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape} ".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _measured(model: Model, samples: Sequence[Sample], threads: int) -> Mapping[str, Noise]:
    name = reference_runtime()
    if name is None or name == session.exact_runtime() or registry.peek("runtimes", name).supports(model.ir):
        return {}
    floor: dict[str, Noise] = {}
    with (
        open_original(model, threads=threads) as one,
        session.open(model, runtime=name, threads=threads) as other,
    ):
        for sample in samples:
            first, second = one.run(sample.arrays), other.run(sample.arrays)
            for output, value in first.items():
                error = metrics.tensor_error(output, value, second.get(output))
                distance = Noise(*(math.inf if math.isnan(x) else x for x in (error.rel_l2, error.max_abs)))
                floor[output] = distance.worse(floor.get(output, Noise()))
    return floor


def _ratio(sqnr_db: float) -> float:
    return float(10 ** (-sqnr_db / 20))
