"""What the builder of one section is given: the section, its input, and what lies before it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgewright.errors import EdgewrightError, EdgewrightWarning
from edgewright.graph.building import Graph
from edgewright.importers.darknet._cfg import Section
from edgewright.importers.darknet._weights import Shapes, Weights

if TYPE_CHECKING:
    import onnx_ir as ir

#: Values of one layer's output, per image.
_LARGEST_OUTPUT = 2**31 - 1
#: Constants that stand in for what is not in the weights file.
_LARGEST_STANDIN = 64 * 2**20


@dataclass(frozen=True)
class Parameters:
    """Constants of a convolution or connected layer, as graph values.

    Attributes:
        weight: f32[M, C / groups, k, k] or f32[M, C].
        bias: f32[M]; None where `norm` has it.
        norm: Scale, bias, mean and variance, each f32[M]; None without batch-norm.
    """

    weight: ir.Value
    bias: ir.Value | None
    norm: tuple[ir.Value, ...] | None


@dataclass
class Network:
    """What is known of the network so far.

    Attributes:
        graph: Where nodes go.
        weights: The file, at the place of the layer that is being built.
        folder: Where the cfg lies.
        tree: File of class trees, where an option names it.
        steps: Steps of time that one run computes; with more than one, the first axis counts them.
        state: Whether recurrent layers take and give their state, or begin with zeros.
        outputs: Output of every layer so far.
        shared: Parameters of convolutions by layer, for share_index.
        heads: What the task `detect` is told, one for each head.
        parameters: Numbers read from the weights file.
        warnings: What was said so far.
        next_states: Name and value of every state after the last step.
    """

    graph: Graph
    weights: Weights
    folder: Path
    tree: Path | None = None
    steps: int = 1
    state: Literal["inputs", "zero"] = "inputs"
    outputs: list[ir.Value] = field(default_factory=list)
    shared: dict[int, tuple[Parameters, tuple[int, ...]]] = field(default_factory=dict)
    heads: list[dict[str, Any]] = field(default_factory=list)
    parameters: int = 0
    warnings: list[str] = field(default_factory=list)
    next_states: list[tuple[str, ir.Value]] = field(default_factory=list)

    def warn(self, text: str) -> None:
        """Say something that does not stop the work."""
        self.warnings.append(text)
        warnings.warn(text, EdgewrightWarning, stacklevel=2)


@dataclass
class Layer:
    """One layer that is being built.

    Attributes:
        section: Its section of the cfg.
        network: What lies before it.
        x: Output of the layer before, f32[N, C, H, W].
    """

    section: Section
    network: Network
    x: ir.Value

    @property
    def graph(self) -> Graph:
        """Where nodes go."""
        return self.network.graph

    @property
    def index(self) -> int:
        """Number of the layer; [net] is not counted."""
        return self.section.index

    @property
    def name(self) -> str:
        """Name of its output."""
        return f"layer_{self.index:03d}"

    @property
    def chw(self) -> tuple[int, int, int]:
        """Channels, height and width of its input."""
        return chw(self.x)

    def refuse(self, message: str, key: str | None = None, *, code: str = "E214") -> EdgewrightError:
        """An error that names file, line and section."""
        return self.section.refuse(message, key, code=code)

    def warn(self, message: str, key: str | None = None) -> None:
        """A warning that names file, line and section."""
        self.network.warn(self.section.note(message, key))

    def resolve(self, number: int, key: str) -> int:
        """The layer that `number` means: counted from the first, or back from this one.

        Raises:
            EdgewrightError: E203 for a layer that is not before this one.
        """
        index = number if number >= 0 else self.index + number
        if not 0 <= index < self.index:
            raise self.refuse(f"option `{key}` is {number}, layer {index}, but must be a layer before this one", key,
                              code="E203")  # fmt: skip
        return index

    def sources(self, key: str) -> list[ir.Value]:
        """Outputs of the layers that the option names.

        Raises:
            EdgewrightError: E203 for a layer that is not before this one, E214 where none is named.
        """
        numbers = self.section.integers(key)
        if not numbers:
            raise self.refuse(f"option `{key}` must name a layer", key)
        return [self.network.outputs[self.resolve(number, key)] for number in numbers]

    def read(self, shapes: Shapes) -> dict[str, np.ndarray]:
        """The layer's next arrays of the weights file by name; Darknet's initial values where it does not load them.

        Raises:
            EdgewrightError: E202 where the file has too few bytes left.
        """
        if self.section.flag("dontload"):
            self.warn("dontload=1: its weights are not in the file; zeros stand for them", "dontload")
            return {name: self.initial(name, shape) for name, shape in shapes.items()}
        arrays = self.network.weights.take(self.section.label, shapes)
        self.network.parameters += sum(array.size for array in arrays.values())
        return arrays

    def initial(self, name: str, shape: Sequence[int]) -> np.ndarray:
        """What Darknet sets before it loads: ones for scales, zeros for what is not random."""
        if math.prod(shape) > _LARGEST_STANDIN:
            raise self.refuse(f"`{name}` would have {math.prod(shape)} values, at most {_LARGEST_STANDIN}", code="E202")
        return np.full(shape, 1.0 if name == "scale" else 0.0, np.float32)

    def sized(self, channels: int, height: int, width: int) -> tuple[int | str, int, int, int]:
        """The shape of an output of that size.

        Raises:
            EdgewrightError: E214 where it is empty or absurdly large.
        """
        size = f"{channels} x {height} x {width}"
        if min(channels, height, width) < 1:
            c, h, w = self.chw
            raise self.refuse(f"its output would be {size}; its input {c} x {h} x {w} is too small for it")
        if channels * height * width > _LARGEST_OUTPUT:
            raise self.refuse(f"its output would be {size}, more than {_LARGEST_OUTPUT} values")
        return (self.graph.shape(self.x)[0], channels, height, width)


def chw(value: ir.Value) -> tuple[int, int, int]:
    """Channels, height and width of a layer's output f32[N, C, H, W]."""
    assert value.shape is not None
    _, channels, height, width = value.shape
    return int(channels), int(height), int(width)
