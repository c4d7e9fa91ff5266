"""What random networks are built with: a network under way, and the operators that may come next."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

_MOST = 6000  # elements of a tensor

Shape = tuple[int, ...]
Rule = Callable[["Builder"], "str | None"]
RULES: list[tuple[Rule, int]] = []


def rule(weight: int = 1) -> Callable[[Rule], Rule]:
    """A decorator that enters an operator, to be drawn `weight` times as often as others."""

    def register(function: Rule) -> Rule:
        RULES.append((function, weight))
        return function

    return register


@dataclass
class Builder:
    """A network under way.

    Attributes:
        rng: What decides.
        open: Whether the first axis is the batch, of unknown size, which nothing moves.
        shapes: Of every activation.
        unread: Activations that nothing has read.
    """

    rng: np.random.Generator
    open: bool
    shapes: dict[str, Shape] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    # --- drawing ------------------------------------------------------------------------------------------------------

    def draw(self, things: Any) -> Any:
        things = list(things)
        return things[int(self.rng.integers(len(things)))]

    def chance(self, part: float) -> bool:
        return bool(self.rng.random() < part)

    def value(self, least: int = 1, most: int = 6) -> str | None:
        """An activation with that many axes, rather a late one."""
        fits = [name for name, shape in self.shapes.items() if least <= len(shape) <= most]
        if not fits:
            return None
        late = [name for name in fits if name in self.unread]
        return str(self.draw(late if late and self.chance(0.7) else fits))

    def axis(self, name: str, least_size: int = 1) -> int | None:
        axes = [a for a, size in enumerate(self.shapes[name]) if size >= least_size and (a > 0 or not self.open)]
        return self.draw(axes) if axes else None

    # --- writing ------------------------------------------------------------------------------------------------------

    def weight(self, *shape: int, fan: int | None = None, positive: bool = False) -> str:
        """A seeded weight; now and then one that there is, so that layers share it."""
        same = [name for name, array in self.weights.items() if array.shape == shape and name.startswith("w")]
        if same and not positive and self.chance(0.1):
            return str(self.draw(same))
        array = self.rng.standard_normal(shape) / math.sqrt(fan or 1)
        array = np.abs(array) + 0.5 if positive else array
        return self.constant(array.astype(np.float32), "p" if positive else "w")

    def derived(self, weight: str) -> str:
        """A weight that the graph computes from what it holds, now and then; else itself."""
        shape, number = self.weights[weight].shape, len(self.weights)
        name = f"d{number}"
        kind = self.draw(("", "", "", "", "Identity", "Transpose", "Reshape", "DequantizeLinear", "Mul"))
        if not kind:
            return weight
        inputs, attributes = [weight], {}
        if kind == "Transpose":
            inputs = [self.constant(np.ascontiguousarray(self.weights[weight].T))]
        elif kind == "Reshape":
            inputs = [self.constant(self.weights[weight].reshape(-1)), self.sizes(shape)]
        elif kind == "Mul":  # as weights are normed in the graph
            inputs.append(
                self.constant(
                    np.abs(self.rng.standard_normal((shape[0], *([1] * (len(shape) - 1))))).astype(np.float32)
                )
            )
        elif kind == "DequantizeLinear":
            whole = np.clip(np.round(self.weights[weight] * 40), -128, 127).astype(np.int8)
            inputs = [self.constant(whole), self.constant(np.full(shape[0], 1 / 40, np.float32))]
            attributes = {"axis": 0}
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, array: Any, prefix: str = "c") -> str:
        name = f"{prefix}{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name

    def sizes(self, numbers: Any) -> str:
        return self.constant(np.asarray(numbers, np.int64), "i")

    def add(self, op_type: str, inputs: list[str], *shapes: Shape, **attributes: Any) -> str | None:
        """A node that makes tensors of these sizes; None, and nothing is added, where they are too large or empty."""
        if any(math.prod(shape) > _MOST or 0 in shape for shape in shapes):
            return None
        if self.open and any(not shape or shape[0] != 2 for shape in shapes):
            return None
        outputs = [f"v{len(self.shapes) + number}" for number in range(len(shapes))]
        self.nodes.append(helper.make_node(op_type, inputs, outputs, **attributes))
        self.shapes |= dict(zip(outputs, shapes, strict=True))
        self.unread = [name for name in self.unread if name not in inputs] + outputs
        return outputs[0]
