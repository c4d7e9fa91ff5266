"""What a builder sees of one operator: its inputs in the layout it wants, its options, and where its results go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.formats.tflite.reading import Operator
from edgewright.formats.tflite.schema import ACTIVATIONS, TYPES
from edgewright.importers.tflite._graph import Size, shape_of
from edgewright.importers.tflite._network import TO_NCHW, Layout, Network

if TYPE_CHECKING:
    import onnx_ir as ir


class Site:
    """One operator, its place in the network, and the graph to add nodes to.

    Attributes:
        operator: As stored.
        network: The tensors so far.
        graph: The graph so far.
    """

    def __init__(self, operator: Operator, network: Network) -> None:
        self.operator, self.network, self.graph = operator, network, network.graph
        self.graph.scope = network.names[operator.outputs[0]] if operator.outputs else f"operator_{operator.index}"

    # --- inputs ---------------------------------------------------------------------------------------------------------

    def index(self, number: int) -> int:
        """Index of the tensor that is input `number`.

        Raises:
            EdgewrightError: E216 where there is none.
        """
        if not self.has(number):
            raise self.refuse(f"it needs input {number}, and has {len(self.operator.inputs)}")
        return self.operator.inputs[number]

    def has(self, number: int) -> bool:
        """True where the input is there."""
        return number < len(self.operator.inputs) and self.operator.inputs[number] >= 0

    @property
    def count(self) -> int:
        """How many inputs there are."""
        return len(self.operator.inputs)

    def real(self, number: int = 0, layout: Layout = "file") -> ir.Value:
        """The input's real numbers, whether it is quantized or not."""
        return self.network.real(self.index(number), self._allowed(number, layout))

    def stored(self, number: int = 0) -> ir.Value:
        """The input as it is stored."""
        return self.network.stored(self.index(number))

    def shape(self, number: int = 0) -> tuple[Size, ...]:
        """Sizes in the order of the file.

        Raises:
            EdgewrightError: E209 where not even the number of axes is known.
        """
        sizes = self.network.shape(self.index(number))
        if sizes is None:
            raise self.refuse(f"the number of axes of {self.describe(number)} is not known before it runs", "E209")
        return sizes

    def rank(self, number: int = 0) -> int:
        """Number of axes."""
        return len(self.shape(number))

    def array(self, number: int) -> np.ndarray:
        """A constant input as stored, not to be written to.

        Raises:
            EdgewrightError: E209 where it is computed.
        """
        array = self.network.array(self.index(number))
        if array is None:
            raise self.refuse(f"{self.describe(number)} is computed when it runs, and must be constant", "E209")
        return array

    def integers(self, number: int) -> list[int]:
        """A constant input of whole numbers, in one row."""
        array = self.array(number)
        if array.dtype.kind not in "iu":
            raise self.refuse(f"{self.describe(number)} is {array.dtype}, but must be of whole numbers")
        if array.size > 1024:
            raise self.refuse(f"{self.describe(number)} has {array.size} numbers")
        return [int(value) for value in array.reshape(-1)]

    def integer(self, number: int) -> int:
        """A constant input that is one whole number."""
        values = self.integers(number)
        if len(values) != 1:
            raise self.refuse(f"{self.describe(number)} has {len(values)} numbers, but must be one")
        return values[0]

    def indices(self, number: int) -> ir.Value:
        """An input of whole numbers as i64: what ONNX wants of shapes and positions."""
        array = self.network.array(self.index(number))
        if array is not None:
            return self.graph.numbers(array.astype(np.int64)) if array.size <= 1024 else self._cast_constant(array)
        return self.graph.node("Cast", self.stored(number), to=7)

    def axis(self, value: int, rank: int) -> int:
        """An axis counted from the front.

        Raises:
            EdgewrightError: E216 where there is none of that number.
        """
        if not -rank <= value < rank:
            raise self.refuse(f"axis {value} is outside of {rank} axes")
        return value % rank

    def describe(self, number: int) -> str:
        """What messages call an input."""
        return f"input {number} {self.network.file.tensors[self.index(number)]}"

    # --- layout ---------------------------------------------------------------------------------------------------------

    def layout(self, *numbers: int) -> Layout:
        """The layout in which inputs of four axes are there already; of the file where they disagree about nothing."""
        chosen = [self.index(number) for number in numbers]
        found = any(self.network.prefers_nchw(index) for index in chosen)
        return "nchw" if found and all(self._is_image(index) for index in chosen) else "file"

    def aligned(self, number: int, layout: Layout, rank: int) -> ir.Value:
        """An operand whose last axes meet those of a tensor of `rank` axes in `layout`."""
        if layout == "file" or not self.shape(number):
            return self.real(number)
        sizes = self.shape(number)
        if len(sizes) == rank:
            return self.real(number, layout)
        value = self.real(number)
        wide = self.graph.node("Unsqueeze", value, self.graph.numbers(list(range(rank - len(sizes)))))
        return self.graph.node("Transpose", wide, perm=list(TO_NCHW))

    @staticmethod
    def place(axis: int, layout: Layout) -> int:
        """Where an axis of the file is in `layout`."""
        return TO_NCHW.index(axis) if layout == "nchw" else axis

    def _is_image(self, index: int) -> bool:
        sizes = self.network.shape(index)
        return sizes is not None and len(sizes) <= 4

    def _allowed(self, number: int, layout: Layout) -> Layout:
        if layout == "nchw" and self.rank(number) != 4:
            raise self.refuse(f"{self.describe(number)} has {self.rank(number)} axes, but must have 4")
        return layout

    # --- options --------------------------------------------------------------------------------------------------------

    def option(self, name: str, default: Any = 0) -> Any:
        """A field of the operator's options; `default` where it has none at all.

        Raises:
            EdgewrightError: E216 where it has those of another operator.
        """
        if self.operator.options_name and name not in self.operator.options:
            if not self.operator.options:
                return default
            raise self.refuse(f"it has {self.operator.options_name}, which lack `{name}`")
        return self.operator.options.get(name, default)

    def positive(self, name: str, default: int = 1) -> int:
        """An option that is a size or a step.

        Raises:
            EdgewrightError: E216 where it is below 1 or larger than any network has.
        """
        value = int(self.option(name, default))
        if not 1 <= value <= 2**20:
            raise self.refuse(f"option `{name}` is {value}, but must be at least 1")
        return value

    def dtype(self, name: str) -> int:
        """An option that names an element type, as ONNX numbers it."""
        import onnx

        number = int(self.option(name))
        kind = TYPES[number] if 0 <= number < len(TYPES) else str(number)
        if kind not in ("bool", "float16", "float32", "float64", "int16", "int32", "int64", "int8", "uint8", "uint16"):
            raise self.refuse(f"option `{name}` is the type {kind}, which is not read", "E204")
        return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    # --- results --------------------------------------------------------------------------------------------------------

    def done(self, value: ir.Value, layout: Layout = "file", *, output: int = 0, activation: bool = True) -> None:
        """Make `value` an output of the operator, behind its fused activation."""
        if output >= len(self.operator.outputs):
            raise self.refuse(f"it makes output {output}, and has {len(self.operator.outputs)}")
        index = self.operator.outputs[output]
        if activation and "fused_activation_function" in self.operator.options:
            value = self._activated(value, index)
        sizes = shape_of(value) or ()
        if any(isinstance(size, int) and size < 0 for size in sizes):
            raise self.refuse(f"its output would have the shape {list(sizes)}")
        self.network.put(index, value, layout)

    def activate(self, value: ir.Value, name: str) -> ir.Value:
        """`value` behind an activation of TFLite.

        Raises:
            EdgewrightError: E204 for one that ONNX has not.
        """
        clips = {"RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}
        if name in clips:
            low, high = (self.graph.numbers(limit, np.float32) for limit in clips[name])
            return self.graph.node("Clip", value, low, high)
        if name not in ("RELU", "TANH"):
            raise self.refuse(f"its activation {name} has no form in ONNX", "E204")
        return self.graph.node(name.capitalize(), value)

    def refuse(self, message: str, code: str = "E216") -> EdgewrightError:
        """The error, with the operator's number and name."""
        operator = self.operator
        return EdgewrightError(
            code, f"`{self.network.file_name}`: operator {operator.index} {operator.kind}: {message}"
        )

    def _activated(self, value: ir.Value, index: int) -> ir.Value:
        number = int(self.option("fused_activation_function"))
        name = ACTIVATIONS[number] if 0 <= number < len(ACTIVATIONS) else str(number)
        if name in ("TANH", "SIGN_BIT"):
            raise self.refuse(f"its activation {name} is in the schema, but LiteRT's own kernels leave it out", "E204")
        if name == "NONE" or self._is_implied(name, index):
            return value
        return self.activate(value, name)

    def _is_implied(self, name: str, index: int) -> bool:
        """True where the range of the output's steps cuts off what the activation would."""
        steps = self.network.steps(index)
        if steps is None or len(steps.scale) != 1 or name not in ("RELU", "RELU6"):
            return False
        limits = np.iinfo(np.dtype(self.network.file.tensors[index].dtype))
        scale, zero = float(steps.scale[0]), int(steps.zero_point[0])
        # Half a step above 6 rounds down to the same integer as 6 itself.
        return zero == limits.min and (name == "RELU" or (limits.max - zero - 0.5) * scale <= 6.0)

    def _cast_constant(self, array: np.ndarray) -> ir.Value:
        return self.graph.constant(array.astype(np.int64), self.graph.fresh(f"{self.graph.scope}:indices"))
