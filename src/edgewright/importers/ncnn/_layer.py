"""What the builder of one layer is given: its line, the blobs it reads, and the weights that follow."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.errors import EdgewrightError, EdgewrightWarning
from edgewright.formats.ncnn.reading import Line, Value, Weights
from edgewright.graph.building import Graph

if TYPE_CHECKING:
    import onnx_ir as ir

#: Values of one blob, per sample: what ncnn's int counts.
_LARGEST_OUTPUT = 2**31 - 1
#: ncnn's sign for "not given" among sizes.
UNSET = -233
#: Parameters of every layer: hints for the device, which say nothing about what is computed.
_HINTS = {30, 31}

Sizes = tuple[int, ...]


@dataclass
class Network:
    """What is known of the network so far.

    Attributes:
        graph: Where nodes go.
        weights: The .bin, at the place of the layer that is being built.
        input_sizes: Sizes of the input without the batch, where an option says them.
        blobs: Value of every blob so far.
        cut: Blobs that a layer without a standard form would have read: they become outputs.
        gone: Blobs that such a layer would have made, with its line.
        positive: Values that are never below 0.
        integers: Value -> its int8 form, where a layer hands on int8.
        quantized: Value and scale -> the value after rounding to int8.
        parameters: Numbers read from the .bin.
        warnings: What was said so far.
    """

    graph: Graph
    weights: Weights
    input_sizes: Sizes = ()
    blobs: dict[str, ir.Value] = field(default_factory=dict)
    cut: dict[str, Line] = field(default_factory=dict)
    gone: dict[str, Line] = field(default_factory=dict)
    positive: set[ir.Value] = field(default_factory=set)
    integers: dict[ir.Value, ir.Value] = field(default_factory=dict)
    quantized: dict[tuple[ir.Value, float], ir.Value] = field(default_factory=dict)
    parameters: int = 0
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        """Say something that does not stop the work."""
        self.warnings.append(text)
        warnings.warn(text, EdgewrightWarning, stacklevel=2)


@dataclass
class Layer:
    """One layer that is being built.

    Attributes:
        line: Its line of the .param.
        network: What lies before it.
        inputs: Values of the blobs that it reads.
        asked: Parameters that were asked for.
    """

    line: Line
    network: Network
    inputs: Sequence[ir.Value]
    asked: set[int] = field(default_factory=set)

    @property
    def graph(self) -> Graph:
        """Where nodes go."""
        return self.network.graph

    @property
    def x(self) -> ir.Value:
        """The first blob that it reads."""
        return self.inputs[0]

    @property
    def sizes(self) -> Sizes:
        """Sizes of that blob without the batch, outermost first: ncnn's c, d, h, w."""
        return self.sizes_of(self.x)

    def sizes_of(self, value: ir.Value) -> Sizes:
        """Sizes without the batch."""
        return tuple(int(size) for size in self.graph.shape(value)[1:])

    def shaped(self, *sizes: int) -> tuple[int | str, ...]:
        """The shape of an output: `sizes` behind the batch of the inputs.

        Raises:
            EdgewrightError: E215 where it is empty or absurdly large.
        """
        size = " x ".join(str(number) for number in sizes)
        if min(sizes) < 1:
            given = ", ".join(" x ".join(str(number) for number in self.sizes_of(value)) for value in self.inputs)
            raise self.refuse(f"its output would be {size}; its input {given} does not fit it")
        if math.prod(sizes) > _LARGEST_OUTPUT:
            raise self.refuse(f"its output would be {size}, more than {_LARGEST_OUTPUT} values")
        batches = [self.graph.shape(value)[0] for value in self.inputs]
        # Constants have a batch of 1, whatever the others' is.
        return (next((batch for batch in batches if batch != 1), 1), *sizes)

    def reshape(self, value: ir.Value, *sizes: int) -> ir.Value:
        """`value` with other sizes behind its batch; itself where it has them."""
        return value if self.sizes_of(value) == sizes else self.graph.reshape(value, *sizes)

    def refuse(self, message: str, *, code: str = "E215") -> EdgewrightError:
        """An error that names file, line and layer."""
        return self.line.refuse(message, code=code)

    def unsupported(self, what: str) -> EdgewrightError:
        """An error for what has no form here."""
        return self.line.refuse(f"{what} is not supported", code="E204")

    def warn(self, message: str) -> None:
        """A warning that names file, line and layer."""
        self.network.warn(self.line.note(message))

    # --- parameters -----------------------------------------------------------------------------------------------------

    def has(self, key: int) -> bool:
        """True where the parameter is given."""
        self.asked.add(key)
        return key in self.line.values

    def integer(self, key: int, default: int, *, low: int = -(2**31), high: int = 2**31 - 1) -> int:
        """The parameter as a whole number from `low` to `high`; the default may lie outside.

        Raises:
            EdgewrightError: E215 where it is none.
        """
        if not self.has(key):
            return default
        number = self._whole(key, self.line.values[key])
        if not low <= number <= high:
            raise self.refuse(f"parameter {key} is {number}, but must be {low} to {high}")
        return number

    def count(self, key: int) -> int:
        """The parameter as a number of things, at least one, which must be given.

        Raises:
            EdgewrightError: E215 where it is none.
        """
        if not self.has(key):
            raise self.refuse(f"parameter {key} is missing")
        return self.integer(key, 0, low=1)

    def flag(self, key: int, default: bool = False) -> bool:
        """True where the parameter is not 0."""
        return self.integer(key, int(default)) != 0

    def number(self, key: int, default: float) -> float:
        """The parameter as a number.

        Raises:
            EdgewrightError: E215 where it is none.
        """
        return self._real(key, self.line.values[key]) if self.has(key) else default

    def integers(self, key: int) -> tuple[int, ...]:
        """The parameter's whole numbers; empty where it is not given."""
        return tuple(self._whole(key, item) for item in self._items(key))

    def numbers(self, key: int) -> tuple[float, ...]:
        """The same with fractions."""
        return tuple(self._real(key, item) for item in self._items(key))

    def axis(self, key: int, default: int, rank: int) -> int:
        """The parameter as an axis of a blob of `rank` sizes; counted from the end where it is negative."""
        return self.as_axis(self.integer(key, default), rank)

    def as_axis(self, axis: int, rank: int) -> int:
        """`axis` counted from the first size of a blob.

        Raises:
            EdgewrightError: E215 for one that the blob does not have.
        """
        if not -rank <= axis < rank:
            raise self.refuse(f"axis {axis} of a blob with {rank} sizes")
        return axis % rank

    @property
    def unknown(self) -> list[int]:
        """Parameters that nobody asked for."""
        return sorted(set(self.line.values) - self.asked - _HINTS)

    def _items(self, key: int) -> tuple[Any, ...]:
        if not self.has(key):
            return ()
        value = self.line.values[key]
        return value if isinstance(value, tuple) else (value,)

    def _whole(self, key: int, value: Value) -> int:
        if not isinstance(value, int):
            raise self.refuse(f"parameter {key} is {value!r:.40}, but must be a whole number")
        return value

    def _real(self, key: int, value: Value) -> float:
        if not isinstance(value, (int, float)):
            raise self.refuse(f"parameter {key} is {value!r:.40}, but must be a number")
        if isinstance(value, int) and value:
            self.warn(
                f"parameter {key} is the whole number {value}; ncnn would take its bits for a fraction: write {value}.0"
            )
        return float(value)

    # --- weights --------------------------------------------------------------------------------------------------------

    def plain(self, *shape: int) -> np.ndarray:
        """The next weights, f32, stored without a tag.

        Raises:
            EdgewrightError: E202 where the file has too few bytes left.
        """
        return self._counted(self.network.weights.plain(self.line, math.prod(self._positive(shape)))).reshape(shape)

    def stored(self, *shape: int) -> np.ndarray:
        """The next weights behind their tag, f32, or i8 where they are stored so.

        Raises:
            EdgewrightError: E202 where the file has too few bytes left.
        """
        return self._counted(self.network.weights.tagged(self.line, math.prod(self._positive(shape)))).reshape(shape)

    def tagged(self, *shape: int) -> np.ndarray:
        """The same, but int8 is refused: the layer has no scales for them."""
        array = self.stored(*shape)
        if array.dtype == np.int8:
            raise self.unsupported("int8 weights")
        return array

    def per_channel(self, part: str, array: np.ndarray) -> ir.Value:
        """One number for each channel (or each value, of a blob with one size), as a constant that lies right."""
        return self.graph.weight(part, array.reshape(-1, *[1] * (len(self.sizes) - 1)))

    def require_channels(self, count: int, what: str) -> None:
        """Refuse parameters for another number of channels than the input has.

        Raises:
            EdgewrightError: E215.
        """
        if self.sizes[0] != count:
            raise self.refuse(f"it has {what} for {count} channels, its input {self.sizes[0]}")

    def _positive(self, shape: Sequence[int]) -> Sequence[int]:
        if min(shape) < 1:
            raise self.refuse(f"its weights would be {' x '.join(str(size) for size in shape)}")
        return shape

    def _counted(self, array: np.ndarray) -> np.ndarray:
        self.network.parameters += array.size
        return array
