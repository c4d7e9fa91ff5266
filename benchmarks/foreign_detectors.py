"""Detectors for `foreign_networks.py`, their one output cut into boxes and scores, so that each is judged by itself.

Boxes are large numbers and scores small ones: over both together, a network whose scores are all zero, which finds
nothing, is still within 24 to 36 dB of the original.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper


def cut(network: onnx.ModelProto, axis: int, parts: Mapping[str, int]) -> onnx.ModelProto:
    """A copy whose only output, of known shape, is cut along `axis` into outputs of the given names and lengths.

    Raises:
        ValueError: The network has several outputs, or already a value of such a name, or the lengths do not fill the axis.
    """
    made = onnx.ModelProto()
    made.CopyFrom(network)
    graph = made.graph
    if len(graph.output) != 1:
        raise ValueError(f"the network has {len(graph.output)} outputs, but must have one to be cut")
    whole = graph.output.pop()
    shape = [item.dim_value for item in whole.type.tensor_type.shape.dim]
    if sum(parts.values()) != shape[axis]:
        raise ValueError(f"the parts fill {sum(parts.values())} of {shape[axis]} places of axis {axis}")
    taken = {name for node in graph.node for name in node.output} | {item.name for item in graph.initializer}
    start = 0
    for name, length in parts.items():
        if name in taken:
            raise ValueError(f"the network has a value `{name}` already")
        bounds = {f"{name}.start": start, f"{name}.stop": start + length, f"{name}.axis": axis}
        graph.initializer.extend(numpy_helper.from_array(np.array([value]), key) for key, value in bounds.items())
        graph.node.append(helper.make_node("Slice", [whole.name, *bounds], [name], name=f"cut.{name}"))
        sides = [*shape[:axis], length, *shape[axis + 1 :]]
        graph.output.append(helper.make_tensor_value_info(name, whole.type.tensor_type.elem_type, sides))
        start += length
    return made


def multiply(network: onnx.ModelProto, first: str, second: str, product: str) -> onnx.ModelProto:
    """A copy that gives the product of two of its outputs, of one shape, in their place."""
    made = onnx.ModelProto()
    made.CopyFrom(network)
    kept = [item for item in made.graph.output if item.name not in (first, second)]
    shaped = onnx.ValueInfoProto()
    shaped.CopyFrom(next(item for item in made.graph.output if item.name == first))
    shaped.name = product
    made.graph.node.append(helper.make_node("Mul", [first, second], [product], name=f"multiply.{product}"))
    del made.graph.output[:]
    made.graph.output.extend([*kept, shaped])
    return made


def captcha_detector(path: Path) -> onnx.ModelProto:
    """ddddocr's detector: `boxes` f32[1, 3549, 4] (centre, logarithm of the size), `scores` f32[1, 3549, 1].

    A score is objectness times the class's probability, as ddddocr takes it before it leaves out those below 0.1.
    """
    apart = cut(onnx.load(path), 2, {"boxes": 4, "objectness": 1, "probability": 1})
    return multiply(apart, "objectness", "probability", "scores")


def yolo(architectures: Path) -> onnx.ModelProto:
    """`yolo_dfl`, seeded weights: `boxes` f32[1, 4, 336] in pixels, `scores` f32[1, 20, 336] by class."""
    location = importlib.util.spec_from_file_location("fill", architectures / "fill.py")
    assert location is not None
    assert location.loader is not None
    fill = importlib.util.module_from_spec(location)
    location.loader.exec_module(fill)
    return cut(fill.load_filled(architectures / "yolo_dfl.onnx", seed=0), 1, {"boxes": 4, "scores": 20})
