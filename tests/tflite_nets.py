"""Small .tflite files made in tests, by the classes that LiteRT's package generates from the schema, and LiteRT's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Steps = tuple[Any, Any] | tuple[Any, Any, int]  # scale, zero point, axis


@dataclass
class Feed:
    """A tensor that is fed."""

    shape: Sequence[int]
    dtype: str = "float32"
    steps: Steps | None = None
    signature: Sequence[int] | None = None


@dataclass
class Variable:
    """A state that begins with zeros."""

    shape: Sequence[int]


@dataclass
class Constant:
    """A constant that is quantized."""

    array: np.ndarray
    steps: Steps


@dataclass
class Op:
    """One operator: operands (a Feed, an array, a Constant, an earlier Op, None), options and what it makes."""

    kind: str
    inputs: Sequence[Any]
    options: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[str] = ("float32",)
    steps: Steps | None = None
    shape: Sequence[int] = ()
    signature: Sequence[int] | None = None
    custom: str = ""
    version: int = 1


def op(kind: str, *inputs: Any, options: str = "", outputs: Sequence[str] = ("float32",), **fields: Any) -> Op:
    """An Op; `steps`, `shape` and `signature` are its own, other keywords the options' fields."""
    own = {key: fields.pop(key) for key in ("steps", "shape", "signature", "custom", "version") if key in fields}
    return Op(kind, inputs, options, fields, outputs, **own)


class Net:
    """A file in the making."""

    def __init__(self) -> None:
        import ai_edge_litert.schema_py_generated as schema

        self.schema = schema
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version = 3
        self.model.subgraphs, self.model.buffers, self.model.operatorCodes = [self.graph], [schema.BufferT()], []
        self.graph.tensors, self.graph.operators, self.graph.inputs, self.graph.outputs = [], [], [], []
        self._known: dict[int, int] = {}
        self._keep: list[Any] = []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        *,
        data: bytes | None = None,
        steps: Steps | None = None,
        signature: Sequence[int] | None = None,
    ) -> int:
        """A new tensor; its number."""
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), getattr(self.schema.TensorType, dtype.upper())
        tensor.shapeSignature = list(signature) if signature is not None else None
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(data, np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        if steps is not None:
            quantization = self.schema.QuantizationParametersT()
            quantization.scale = np.atleast_1d(np.array(steps[0], np.float32))
            quantization.zeroPoint = np.atleast_1d(np.array(steps[1], np.int64))
            quantization.quantizedDimension = steps[2] if len(steps) > 2 else 0
            tensor.quantization = quantization
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def add(self, operand: Any) -> int:
        """Number of an operand's tensor, made where it is new."""
        if operand is None:
            return -1
        if id(operand) not in self._known:
            self._keep.append(operand)
            self._known[id(operand)] = self._new(operand)
        return self._known[id(operand)]

    def operator(self, made: Op) -> list[int]:
        """A new operator; the numbers of its outputs."""
        inputs = [self.add(operand) for operand in made.inputs]
        code = self.schema.OperatorCodeT()
        number = getattr(self.schema.BuiltinOperator, made.kind)
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), made.version
        code.customCode = made.custom or None
        self.model.operatorCodes.append(code)
        operator = self.schema.OperatorT()
        operator.opcodeIndex, operator.inputs = len(self.model.operatorCodes) - 1, inputs
        place = len(self.graph.operators)
        operator.outputs = [
            self.tensor(
                f"op{place}:{n}" if n else f"op{place}", made.shape, dtype, steps=made.steps, signature=made.signature
            )
            for n, dtype in enumerate(made.outputs)
        ]
        if made.options:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, made.options)
            operator.builtinOptions = getattr(self.schema, f"{made.options}T")()
            for key, value in made.fields.items():
                camel = key.split("_")[0] + "".join(part.capitalize() for part in key.split("_")[1:])
                assert hasattr(operator.builtinOptions, camel), f"{made.options} has no {camel}"
                setattr(operator.builtinOptions, camel, value)
        self.graph.operators.append(operator)
        return list(operator.outputs)

    def _new(self, operand: Any) -> int:
        if isinstance(operand, Feed):
            name = f"in{len(self.graph.inputs)}"
            index = self.tensor(name, operand.shape, operand.dtype, steps=operand.steps, signature=operand.signature)
            self.graph.inputs.append(index)
            return index
        if isinstance(operand, Op):
            return self.operator(operand)[0]
        if isinstance(operand, Variable):
            index = self.tensor(f"state{len(self.graph.tensors)}", operand.shape, "float32")
            self.graph.tensors[index].isVariable = True
            return index
        array, steps = (operand.array, operand.steps) if isinstance(operand, Constant) else (np.asarray(operand), None)
        name = f"constant{len(self.graph.tensors)}"
        return self.tensor(name, array.shape, array.dtype.name, data=array.tobytes(), steps=steps)

    def bytes(self, *outputs: int) -> bytes:
        """The file with these tensors as outputs."""
        import flatbuffers

        self.graph.outputs = list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def write(path: Path, *results: Op) -> Path:
    """The file at `path` with all outputs of `results`."""
    net = Net()
    outputs: list[int] = []
    for result in results:
        first = net.add(result)
        outputs += range(first, first + len(result.outputs))
    path.write_bytes(net.bytes(*outputs))
    return path


def interpreter(path: Path) -> Any:
    """LiteRT's own kernels without delegates; all tensors can be read afterwards."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    made = Interpreter(
        model_path=str(path),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    made.allocate_tensors()
    return made


def answers(path: Path, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """LiteRT's outputs by name."""
    made = interpreter(path)
    for detail in made.get_input_details():
        made.set_tensor(detail["index"], feeds[detail["name"]])
    made.invoke()
    return {detail["name"]: made.get_tensor(detail["index"]) for detail in made.get_output_details()}


def random_feeds(model: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random arrays for a network's inputs; symbolic sizes are 2."""
    found = {}
    for info in model.inputs:
        shape = [size if isinstance(size, int) else 2 for size in info.shape]
        dtype = np.dtype(info.dtype)
        if dtype.kind == "f":
            found[info.name] = rng.standard_normal(shape).astype(dtype)
        elif dtype.kind == "b":
            found[info.name] = rng.integers(0, 2, shape).astype(bool)
        else:
            low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.itemsize == 1 else (-5, 6)
            found[info.name] = rng.integers(low, high, shape, dtype=dtype, endpoint=dtype.itemsize == 1)
    return found


def classifier(model: Any) -> Op:
    """A network of Conv, Clip, Add, GlobalAveragePool, Flatten and Gemm as TFLite operators, of float32 and channels last."""
    made: dict[str, Any] = {}
    graph = model.ir.graph
    (image,) = graph.inputs
    made[image.name] = Feed((1, *(image.shape[axis] for axis in (2, 3, 1))))
    arrays = {name: value.const_value.numpy() for name, value in graph.initializers.items()}
    for node in graph:
        operands = [made.get(value.name) for value in node.inputs if value is not None]
        constants = [arrays.get(value.name) for value in node.inputs if value is not None]
        made[node.outputs[0].name] = _layer(node, operands, constants)
    return made[graph.outputs[0].name]


def _layer(node: Any, operands: Sequence[Any], constants: Sequence[np.ndarray]) -> Op:
    if node.op_type == "Conv":
        weights, bias = constants[1], constants[2]
        top, left, bottom, right = node.attributes["pads"].value
        border = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        x = op("PAD", operands[0], border) if border.any() else operands[0]
        stride_h, stride_w = node.attributes["strides"].value
        fields = {"padding": 1, "stride_w": stride_w, "stride_h": stride_h}
        if node.attributes["group"].value == 1:
            return op("CONV_2D", x, weights.transpose(0, 2, 3, 1).copy(), bias, options="Conv2DOptions", **fields)
        weights = weights.transpose(1, 2, 3, 0).copy()
        return op("DEPTHWISE_CONV_2D", x, weights, bias, options="DepthwiseConv2DOptions", depth_multiplier=1, **fields)
    if node.op_type == "Clip":
        return op("RELU6", operands[0])
    if node.op_type == "Add":
        return op("ADD", *operands, options="AddOptions")
    if node.op_type == "GlobalAveragePool":
        return op("MEAN", operands[0], np.array([1, 2], np.int32), options="ReducerOptions", keep_dims=False)
    if node.op_type == "Flatten":
        return operands[0]
    assert node.op_type == "Gemm"
    return op("FULLY_CONNECTED", operands[0], constants[1], constants[2], options="FullyConnectedOptions")
