"""Resemblyzer's speaker encoder: three LSTM layers, 40 mel bands in, a voice as 256 numbers of length 1 out.

Built straight as an ONNX graph; torch takes no part, and the package is not imported: only its checkpoint is read.

    pip install --no-deps resemblyzer
    ew.load("zoo:resemblyzer")

Input `mels` f32[N, frames, 40]: power (not its logarithm) in 40 mel bands of 16 kHz speech, windows of 25 ms every 10 ms;
1.6 seconds are 160 frames. Output `embedding` f32[N, 256], no number below 0.

Source: the package Resemblyzer 0.1.4 (Apache-2.0); Wan et al. 2018, "Generalized End-to-End Loss for Speaker Verification".
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgewright import checkpoint
from edgewright.errors import EdgewrightError
from edgewright.model import IR_VERSION, OPSET_VERSION, Model, Step
from edgewright.options import dump
from edgewright.spec import Spec, TensorInput

if TYPE_CHECKING:
    import onnx_ir as ir

#: None: a checkpoint or a seed serves without the package, and `load` says what it lacks.
EXTRA: str | None = None
NAMES = ("resemblyzer",)

INPUT, OUTPUT = "mels", "embedding"
BANDS, HIDDEN, LAYERS, FRAMES = 40, 256, 3, 160
_MOST_FRAMES = 100_000
#: torch stacks the gates as input, forget, cell, output; ONNX wants input, output, forget, cell.
_GATES = (0, 3, 1, 2)
#: What the checkpoint holds for training alone.
_UNUSED = ("similarity_weight", "similarity_bias")


@dataclass(frozen=True)
class Options:
    """How the network is made.

    Attributes:
        weights: A checkpoint (torch or safetensors); None takes the installed package's.
        seed: Fill with seeded random weights instead: enough to measure speed, not to recognise anyone.
        batch: A number, or `symbolic` for any.
        frames: Length of the input in frames of 10 ms, or `symbolic` for any.
    """

    weights: Path | None = None
    seed: int | None = None
    batch: Literal["symbolic"] | int = "symbolic"
    frames: Literal["symbolic"] | int = FRAMES

    def __post_init__(self) -> None:
        for name, value, most in (("batch", self.batch, None), ("frames", self.frames, _MOST_FRAMES)):
            if value != "symbolic" and (value < 1 or (most is not None and value > most)):
                limit = "at least 1" if most is None else f"1 to {most}"
                raise EdgewrightError(
                    "E103", f"option `resemblyzer.{name}` is {value}, but must be {limit}, or symbolic"
                )
        if self.seed is not None and self.seed < 0:
            raise EdgewrightError("E103", f"option `resemblyzer.seed` is {self.seed}, but must be at least 0")
        if self.weights is not None and self.seed is not None:
            raise EdgewrightError("E103", "options `weights` and `seed` exclude each other: give the one or the other")


def load(name: str, options: Options) -> Model:
    """The network called `name`: input `mels` f32[N, frames, 40], output `embedding` f32[N, 256].

    Raises:
        EdgewrightError: E101 unknown name, E102 the package with its weights is not installed, E104 to E207 the checkpoint
            cannot be read, E208 it does not fit.
    """
    if name not in NAMES:
        raise EdgewrightError("E101", f"zoo model `{name}` is not known; known: {', '.join(NAMES)}")
    import onnx_ir as ir

    tensors, stats = _weights(options)
    graph = _Builder(tensors, options).graph()
    stats["parameters"] = sum(tensor.size for tensor in tensors.values())
    step = Step(kind="import", name="resemblyzer", config={"model": name, **dump(options)}, stats=stats)
    network = ir.Model(graph, ir_version=IR_VERSION, producer_name="edgewright")
    return Model(network, Spec({INPUT: TensorInput()}, "embed"), (step,), name)


# --- weights -----------------------------------------------------------------------------------------------------------


def _shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the network by its state-dict key."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(LAYERS):
        shapes[f"lstm.weight_ih_l{layer}"] = (4 * HIDDEN, HIDDEN if layer else BANDS)
        shapes[f"lstm.weight_hh_l{layer}"] = (4 * HIDDEN, HIDDEN)
        shapes[f"lstm.bias_ih_l{layer}"] = shapes[f"lstm.bias_hh_l{layer}"] = (4 * HIDDEN,)
    return {**shapes, "linear.weight": (HIDDEN, HIDDEN), "linear.bias": (HIDDEN,)}


def _weights(options: Options) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    if options.seed is not None:
        rng = np.random.default_rng(options.seed)
        limit = HIDDEN**-0.5  # torch's own initial values
        made = {key: rng.uniform(-limit, limit, shape).astype(np.float32) for key, shape in _shapes().items()}
        return made, {"weights": f"random, seed {options.seed}"}
    path = options.weights or _packaged()
    tensors = _fitting(checkpoint.read(path), path)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return tensors, {"weights": path.name, "weights_sha256": digest}


def _packaged() -> Path:
    location = importlib.util.find_spec("resemblyzer")
    folders = location.submodule_search_locations if location else None
    path = Path(folders[0], "pretrained.pt") if folders else None
    if path is None or not path.is_file():
        raise EdgewrightError(
            "E102",
            "zoo model `resemblyzer` needs the package `resemblyzer`, which is not installed",
            hint="pip install --no-deps resemblyzer",
        )
    return path


def _fitting(found: Mapping[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """The network's tensors, f32, from a checkpoint that may hold them in a container, beside an optimizer's.

    Raises:
        EdgewrightError: E208, naming what is missing, misshapen or left over.
    """
    anchor = "lstm.weight_ih_l0"
    prefixes = [key.removesuffix(anchor) for key in found if key == anchor or key.endswith(f".{anchor}")]
    prefix = min(prefixes, key=len, default="")
    inside = {key.removeprefix(prefix): tensor for key, tensor in found.items() if key.startswith(prefix)}
    problems, tensors = [], {}
    for key, shape in _shapes().items():
        tensor = inside.pop(key, None)
        if tensor is None:
            problems.append(f"missing: `{prefix}{key}`")
        elif tensor.shape != shape or tensor.dtype.kind != "f":
            problems.append(f"`{prefix}{key}` is {tensor.dtype}{list(tensor.shape)}, the network takes {list(shape)}")
        elif not np.isfinite(tensor).all():
            problems.append(f"`{prefix}{key}` holds NaN or infinity")
        else:
            tensors[key] = np.ascontiguousarray(tensor, np.float32)
    problems += [f"not used: `{prefix}{key}`" for key in inside if key not in _UNUSED]
    if problems:
        more = (f"and {len(problems) - 5} more",) if len(problems) > 5 else ()
        raise EdgewrightError("E208", f"checkpoint `{path}` does not fit `resemblyzer`", details=(*problems[:5], *more))
    return tensors


# --- graph -------------------------------------------------------------------------------------------------------------


class _Builder:
    """Adds nodes; each node's output has the node's name, weights are NAME.weight and so on."""

    def __init__(self, tensors: Mapping[str, np.ndarray], options: Options) -> None:
        self._tensors = tensors
        self._batch: int | str = "N" if options.batch == "symbolic" else options.batch
        self._frames: int | str = "frames" if options.frames == "symbolic" else options.frames
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}

    def graph(self) -> ir.Graph:
        """The whole network's graph; call it once."""
        import onnx_ir as ir

        batch, frames = self._batch, self._frames
        mels = _value(INPUT, (batch, frames, BANDS))
        x = self._node("Transpose", "time_first", [mels], (frames, batch, BANDS), attributes={"perm": [1, 0, 2]})
        for layer in range(LAYERS):
            x = self._lstm(layer, x)
        x = self._node("Squeeze", "voice", [x, self._constant("axis.0", [0])], (batch, HIDDEN))
        weight = self._constant("linear.weight", self._tensors["linear.weight"])
        bias = self._constant("linear.bias", self._tensors["linear.bias"])
        x = self._node("Gemm", "linear", [x, weight, bias], (batch, HIDDEN), attributes={"transB": 1})
        x = self._node("Relu", "relu", [x], (batch, HIDDEN))
        length = self._node(
            "ReduceL2", "length", [x, self._constant("axis.1", [1])], (batch, 1), attributes={"keepdims": 1}
        )
        embedding = self._node("Div", "normalize", [x, length], (batch, HIDDEN), output=OUTPUT)
        return ir.Graph(
            [mels],
            [embedding],
            nodes=self._nodes,
            initializers=tuple(self._initializers.values()),
            opset_imports={"": OPSET_VERSION},
            name="resemblyzer",
        )

    def _lstm(self, layer: int, x: ir.Value) -> ir.Value:
        """All steps of a layer, [T, N, H]; of the last one its final state, [1, N, H]."""
        import onnx_ir as ir

        batch, frames, name = self._batch, self._frames, f"lstm.{layer}"
        pairs = (("weight", "weight_ih"), ("recurrence", "weight_hh"))
        inputs: list[ir.Value | None] = [x]
        for part, key in pairs:
            inputs.append(self._constant(f"{name}.{part}", _gates(self._tensors[f"lstm.{key}_l{layer}"])[None]))
        biases = [_gates(self._tensors[f"lstm.{key}_l{layer}"]) for key in ("bias_ih", "bias_hh")]
        inputs.append(self._constant(f"{name}.bias", np.concatenate(biases)[None]))
        last = layer == LAYERS - 1
        states = _value(name, (frames, 1, batch, HIDDEN))
        final = _value(f"{name}.final", (1, batch, HIDDEN))
        outputs = [_value("", ()), final] if last else [states]
        self._nodes.append(ir.node("LSTM", inputs, {"hidden_size": HIDDEN}, outputs=outputs, name=name))
        if last:
            return final
        axis = self._constant("axis.1", [1])
        return self._node("Squeeze", f"{name}.steps", [states, axis], (frames, batch, HIDDEN))

    def _constant(self, name: str, numbers: np.ndarray | Sequence[int]) -> ir.Value:
        import onnx_ir as ir

        if name not in self._initializers:
            array = np.ascontiguousarray(numbers)  # lists of axes become i64
            value = _value(name, array.shape, array.dtype)
            value.const_value = ir.Tensor(array, name=name)
            self._initializers[name] = value
        return self._initializers[name]

    def _node(
        self, kind: str, name: str, inputs: Sequence[ir.Value], shape: Sequence[int | str],
        *, attributes: Mapping[str, Any] | None = None, output: str | None = None,
    ) -> ir.Value:  # fmt: skip
        import onnx_ir as ir

        value = _value(output or name, shape)
        self._nodes.append(ir.node(kind, inputs, attributes, outputs=[value], name=name))
        return value


def _gates(stacked: np.ndarray) -> np.ndarray:
    """torch's gates in ONNX's order, along the first axis."""
    return np.concatenate([np.split(stacked, 4)[gate] for gate in _GATES])


def _value(name: str, shape: Sequence[int | str], dtype: Any = np.float32) -> ir.Value:
    import onnx_ir as ir

    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype))))
