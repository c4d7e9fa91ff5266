"""Random small networks: operators put together as no hand would, with the sizes of what each makes.

    network, feeds = random_network(seed)

Each network has one input, 6 to 24 operators with seeded weights, and layers at its ends, so that channels in front of these
can go. Half of the networks leave the batch open and are fed with two samples.
"""

from __future__ import annotations

import numpy as np
import onnx
import random_elements
import random_layers
import random_moves
from onnx import TensorProto, helper, numpy_helper
from random_blocks import RULES, Builder, Shape

OPSET = 21
_INPUTS = ((2, 6, 8, 8), (2, 6, 4, 12), (2, 8, 12), (2, 6, 5), (2, 12))
_MODULES = (random_layers, random_elements, random_moves)  # each enters its operators in RULES


def random_network(seed: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A network, and an input for it."""
    rng = np.random.default_rng(seed)
    shape = _INPUTS[int(rng.integers(len(_INPUTS)))]
    b = Builder(rng, open=bool(rng.random() < 0.5), shapes={"x": shape}, unread=["x"])
    rules, weights = zip(*RULES, strict=True)
    part = np.array(weights) / sum(weights)
    (random_layers.conv if len(shape) > 2 else random_layers.gemm)(b)
    for _ in range(int(rng.integers(6, 25))):
        rules[int(rng.choice(len(rules), p=part))](b)
    ends = [name for name in b.unread if name != "x"] or [next(reversed(b.shapes))]
    outputs = [_end(b, name) for name in ends]
    return _model(b, outputs, shape), {"x": rng.standard_normal(shape).astype(np.float32)}


def _end(b: Builder, name: str) -> str:
    """Mostly a layer behind what nothing has read."""
    shape = b.shapes[name]
    if len(shape) < 2 or b.chance(0.1):
        return name
    if 2 < len(shape) < 6 and b.chance(0.5):
        w = b.weight(3, shape[1], *([1] * (len(shape) - 2)), fan=shape[1])
        return b.add("Conv", [name, w], (shape[0], 3, *shape[2:])) or name
    return b.add("MatMul", [name, b.weight(shape[-1], 3, fan=shape[-1])], (*shape[:-1], 3)) or name


def _model(b: Builder, outputs: list[str], shape: Shape) -> onnx.ModelProto:
    first = ["N", *shape[1:]] if b.open else list(shape)
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in dict.fromkeys(outputs)]
    read = helper.make_tensor_value_info("x", TensorProto.FLOAT, first)
    held = [numpy_helper.from_array(array, name) for name, array in b.weights.items()]
    graph = helper.make_graph(b.nodes, "random", [read], made, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
