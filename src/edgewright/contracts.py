"""The plugin contract: what a file in importers/, zoo/, passes/, runtimes/ and tasks/ defines.

A plugin is a module; its file name is its public name. These protocols type those modules for the verbs and are
checked by `tests/test_contract.py`. Every plugin module has a docstring whose first line says what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from edgewright.channel_map import Kept
from edgewright.model import Arrays, Model, TensorInfo
from edgewright.progress import Progress
from edgewright.spec import Spec
from edgewright.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir
    from PIL import Image

Role = Literal["calibrate", "select", "judge"]
ROLES: tuple[Role, ...] = ("calibrate", "select", "judge")


@dataclass(frozen=True)
class Sample:
    """One thing to run a network on.

    Attributes:
        id: Name for people, such as a file name.
        group: 64 bits (hex) of the hash of the content's source; all samples of one group share a role.
        arrays: Network inputs by ONNX name, batch 1.
        label: What the task's metric compares with, or None.
    """

    id: str
    group: str
    arrays: Arrays
    label: Any = None


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of the positions 0 to `count` - 1, evenly spaced, first and last among them."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()  # type: ignore[no-any-return]


class SampleSource(Protocol):
    """What verbs and passes may ask of `edgewright.samples.Samples`."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Sample]: ...

    @property
    def groups(self) -> tuple[str, ...]:
        """Group hashes, each once."""

    def role(self, *roles: Role) -> SampleSource:
        """Only the samples of these roles."""

    def spread(self, most: int) -> SampleSource:
        """At most so many of the samples, evenly spaced; the others are not read."""


# --- importers and zoo -------------------------------------------------------------------------------------------------


class Importer(Protocol):
    """`importers/NAME.py`: a file of another format -> Model."""

    EXTRA: str | None  # the pip extra this plugin needs, or None
    SUFFIXES: tuple[str, ...]  # file name endings it reads, with the dot
    Options: type  # frozen dataclass, every field with a default

    def load(self, path: Path, options: Any) -> Model:
        """The network in the file at `path`."""


class ZooFamily(Protocol):
    """`zoo/NAME.py`: a family's graph and weights from an installed package."""

    EXTRA: str | None  # the extra that brings weights
    NAMES: tuple[str, ...]  # models, loaded as "zoo:NAME"
    Options: type

    def load(self, name: str, options: Any) -> Model:
        """The network called `name`."""


# --- passes -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QuantFormat:
    """The int8 arithmetic that a runtime really executes on a CPU.

    Attributes:
        activation_dtype: "uint8" or "int8".
        activation_symmetric: True where the zero point is fixed (ncnn).
        weight_bits: 7 where 8-bit weights saturate the multiply-add (x86 without VNNI), else 8.
        pairs: True where 8 bits are exact as well, as long as the two weights of every pair of products that is added in
            16 bits are at most 128 together (`graph/int8.py`); layers whose pairs are not known keep to `weight_bits`.
        per_channel: True where weights may have one scale per output channel.
        layers: Operators with weights that run in int8.
        operators: Further operators that run in int8 where everything they read and make is quantized.
        float_outputs: Of `layers`, those that run in int8 even where they hand on float; the others only if what they
            make is quantized too.
        spatial_axes: How many a convolution in int8 may have.
        grouped: True where convolutions run in int8 that have several groups, each of several channels.
        own_inputs: True where layers quantize for themselves what they read: other readers of a tensor keep it in float.
        reason: One sentence for the report: why this format on this CPU.
    """

    activation_dtype: Literal["uint8", "int8"] = "uint8"
    activation_symmetric: bool = False
    weight_bits: int = 8
    pairs: bool = False
    per_channel: bool = True
    layers: tuple[str, ...] = ("Conv", "Gemm", "MatMul")
    operators: tuple[str, ...] = ()
    float_outputs: tuple[str, ...] = ()
    spatial_axes: tuple[int, ...] = (1, 2, 3)
    grouped: bool = True
    own_inputs: bool = False
    reason: str = ""


@dataclass(frozen=True)
class TimeRatio:
    """Measured time of a network over that of another, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def saved(self) -> float:
        """Share of the time that is saved; 0 where the interval holds 1, since noise saves nothing."""
        return max(1 - self.value, 0.0) if self.high < 1 else 0.0


class Clock(Protocol):
    """Time on the target's runtime, as passes may ask for it: they know neither runtimes nor how one measures."""

    label: str  # what is measured, where and how: equal labels, comparable times

    def ratios(self, ir_model: ir.Model, variants: Mapping[str, ir.Model]) -> dict[str, TimeRatio]:
        """Time of each variant over that of `ir_model`, both as they are after the recipe's further steps.

        Weights need not be right, only the shapes: time does not depend on values.
        """


class Stopwatch(Protocol):
    """The same for whole networks, as they ship: what `compress` makes the passes' `Clock` of."""

    label: str

    def ratios(self, model: Model, variants: Mapping[str, Model]) -> dict[str, TimeRatio]:
        """Time of each variant over that of `model`, measured side by side."""


class Context(Protocol):
    """What `compress` gives a pass. Passes never name or import a runtime."""

    samples: SampleSource | None  # the calibrate and select roles only
    spec: Spec
    target: Target
    quant_format: QuantFormat
    progress: Progress
    seed: int
    original: ir.Model | None  # the network before the recipe's first lossy step; None before one was made
    kept: Mapping[str, Kept]  # by tensor, which of the original's channels are left
    clock: Clock | None  # None where nothing can be measured: the caller gave none

    def remember(self, what: object, make: Callable[[], Any]) -> Any:
        """What `make` returns (JSON-ready), or returned before for the same network, samples, seed and `what`.

        For what is expensive and asked for again and again, such as by a search over one option.
        """

    def required(self, samples: int) -> float:
        """How far so many select samples must agree, 0..1."""

    def agreement(self, reference: Sequence[Arrays], results: Sequence[Arrays]) -> float:
        """How far outputs say the same as the original's by the network's task, 0..1; one `Arrays` for each sample."""

    def run(self, ir_model: ir.Model, inputs: Arrays, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Tensors `outputs` (default: the graph's outputs) of a float graph, on an exact runtime."""

    def runner(self, ir_model: ir.Model, outputs: Sequence[str] | None = None) -> Callable[[Arrays], Arrays]:
        """The same for many inputs; the graph must not change meanwhile, which `run` looks for at every call."""


class Pass(Protocol):
    """`passes/NAME.py`: graph -> smaller or simpler graph."""

    EXTRA: str | None
    LOSSY: bool  # False: outputs stay equal within float rounding
    NEEDS_SAMPLES: bool
    Config: type  # frozen dataclass, every field with a default
    # A pass that changes what the runtime computes, and not only with which weights, may also define `ROUGH`: options
    # with which it makes in seconds, from few samples, a network that takes as long as the real one. Clocks use it.
    # And `EXCLUSIVE`: options of which one counts, so that a caller's takes the place of the recipe's.

    def apply(self, ir_model: ir.Model, config: Any, context: Context) -> dict[str, Any]:
        """Change `ir_model` in place (it is a clone) and return JSON-ready statistics.

        Keep the names of graph inputs and outputs. Replace weights by new tensors: their memory is shared.
        """


# --- runtimes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traits:
    """What a runtime is.

    Attributes:
        precisions: Of "fp32", "fp16", "bf16", "int8", "binary", those that it runs.
        dynamic_shapes: True where symbolic sizes stay symbolic.
        exact_float: True where fp32 graphs run in IEEE float32, so that it may serve as the original.
        taps: How inner tensors are shown: "native", "rebuild" (another compile, may undo fusions) or "none".
        profiles: True where `profile` gives a time per node.
        functions: True where ONNX functions run as they are; else convert inlines them.
        deployable: False for the numpy reference, which `deploy` never proposes.
        proposed_for: Domains of operators for whose sake this runtime is among those that `deploy` tries by itself; empty: for
            every network.
        saturates: True where products of 8-bit weights saturate on x86 CPUs without VNNI (`graph/int8.py`).
    """

    precisions: tuple[str, ...] = ("fp32",)
    dynamic_shapes: bool = True
    exact_float: bool = False
    taps: Literal["native", "rebuild", "none"] = "none"
    profiles: bool = False
    functions: bool = False
    deployable: bool = True
    saturates: bool = False
    proposed_for: tuple[str, ...] = ()

    def arithmetic(self, precision: str) -> str | None:
        """In which arithmetic networks of this precision run here; None where they do not.

        Binary layers have bodies of standard operators, which every runtime runs in float32.
        """
        return precision if precision in self.precisions else "fp32" if precision == "binary" else None


@dataclass(frozen=True)
class Problem:
    """A node that a runtime cannot run."""

    node: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class Conversion:
    """What a runtime's `convert` reports about the files it wrote.

    Attributes:
        tensor_names: ONNX tensor name -> the runtime's name, for every tensor that survives.
        precision: Arithmetic the files will really run in, where it differs from the model's.
        cpu_features: Features the files need; `convert.py` adds what int8 weights need.
        usage: Three lines of code that run the files without edgewright; they go into the bundle's README.
    """

    tensor_names: Mapping[str, str]
    precision: str | None = None
    cpu_features: tuple[str, ...] = ()
    usage: str = ""


@dataclass(frozen=True)
class Cut:
    """A part of a network: from `inputs` (None: the graph's own) to `outputs`, by ONNX tensor name."""

    inputs: tuple[str, ...] | None
    outputs: tuple[str, ...]


class Runner(Protocol):
    """An opened network of one runtime; `session.Session` wraps it with checks and taps."""

    def run(self, inputs: Arrays, /) -> dict[str, np.ndarray]:
        """All outputs by ONNX name, layout as in the ONNX graph."""

    def close(self) -> None:
        """Free threads and memory; running afterwards is an error."""


class OpenedBundle(Protocol):
    """What a runtime may ask of the `Bundle` it opens (read `bundle.Bundle`)."""

    path: Path
    tensor_names: Mapping[str, str]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    options: Mapping[str, Any]
    precision: str


class Runtime(Protocol):
    """`runtimes/NAME.py`: Model -> files -> Runner."""

    EXTRA: str | None
    TRAITS: Traits
    Options: type  # convert options, frozen dataclass, every field with a default

    def version(self) -> str:
        """Version of the installed runtime library."""

    def quant_format(self, target: Target) -> QuantFormat | None:
        """The int8 format that this runtime executes fast on the target's CPU; None where it has no int8."""

    def supports(self, ir_model: ir.Model) -> tuple[Problem, ...]:
        """Nodes this runtime cannot run; empty where it can run all."""

    def convert(self, model: Model, folder: Path, options: Any, target: Target) -> Conversion:
        """Write the runtime's own files into the empty `folder`; `convert.py` adds manifest, hashes and README."""

    def open(self, bundle: Any, *, threads: int, cut: Cut | None = None) -> Runner:
        """The bundle's network, or the part of it that `cut` names, ready to run on `threads` threads.

        A cut is converted with the same options as the whole and must not change the bundle's files.

        Raises:
            EdgewrightError: E231 for a tensor that no longer exists, E232 when the library fails.
        """

    def exact(self, bundle: Any, *, threads: int) -> Runner:
        """The same files computed without saturation on every CPU, however slowly; only where TRAITS.saturates."""

    def profile(self, bundle: Any, inputs: Arrays, *, threads: int, runs: int) -> dict[str, float]:
        """Milliseconds per run for each node, keyed by the node's first output; only where TRAITS.profiles."""


# --- tasks --------------------------------------------------------------------------------------------------------------


class Task(Protocol):
    """`tasks/NAME.py`: what one network's outputs mean. `spec.options` are this task's `Options`.

    A result is what `postprocess` makes of the outputs of one sample (batch 1), a dataclass with `to_json`.
    """

    EXTRA: str | None
    Options: type
    AGREEMENT: str  # what agreement means here, for people: "same top-1 class"
    PROPORTION: bool  # True: a single sample agrees or not (exact binomial bounds); False: bootstrap over samples
    METRIC: str  # name of the primary metric, e.g. "top-1"; "" where there is none, and labels are of no use
    # Where labels are files (`LABEL_FILES = True`), `parse_label` gets the path of one: named by a table inside the
    # samples' folder, or lying beside the photo under the ending `LABEL_SUFFIX`.
    # Where results have places in the network's input (boxes), two more functions map these, `size` being the photo's
    # (width, height): `place_label(label, size, spec)` from the photo into the input, before `metric` sees the label, and
    # `place_result(result, size, spec)` back into the photo, for people. `draw` takes results of both kinds.
    # Where results name classes, `named_classes(result)` gives them as a frozenset of names, for people.

    def classes(self, spec: Spec, outputs: Sequence[TensorInfo]) -> tuple[str, ...] | None:
        """Classes that a label may be, by name: indices where unnamed, () where unknown; None: labels are no classes.

        Where they are, class folders and leading class indices in file names give labels.
        """

    def postprocess(self, outputs: Arrays, spec: Spec) -> Any:
        """The result for one sample."""

    def metric(self, results: Sequence[Any], labels: Sequence[Any], spec: Spec) -> dict[str, float]:
        """Scores against labels, each 0..1, higher is better; contains METRIC."""

    def agreement(self, reference: Sequence[Any], results: Sequence[Any], spec: Spec) -> float:
        """How far `results` say the same as the original's, 0..1. Never called accuracy."""

    def parse_label(self, text: str, spec: Spec) -> Any:
        """A label as `metric` takes it, from a cell of labels.csv or a class folder's name.

        Raises:
            EdgewrightError: E305 when it is none.
        """

    def draw(self, image: Image.Image, result: Any, spec: Spec) -> Image.Image:
        """The photo with the result on it."""
