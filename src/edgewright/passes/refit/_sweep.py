"""One way through the layers of a compressed network, each refitted toward the original."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgewright.channel_map import Kept
from edgewright.contracts import Context
from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import Names, constant_array, is_standard, replace_constant, sole_consumer
from edgewright.graph.linear import Linear, find_linear
from edgewright.graph.observing import calibrating, require_finite
from edgewright.passes.refit._equations import Solution, Sums, solve
from edgewright.passes.refit._front import Front

if TYPE_CHECKING:
    import onnx_ir as ir

#: Of the values that lie at the fronts of both networks, together.
_HELD_BYTES = 800 * 2**20
#: Normal equations of a layer with more inputs would take a gigabyte.
_LONGEST_ROW = 4608
#: A batch norm's variance changes by this factor at most: beyond it, channels that were still have begun to move.
_MOST_SPREAD = 16.0
_SHARED = "its weights are shared: only its bias was corrected"
_LONG = f"it has more than {_LONGEST_ROW} inputs: only its bias was corrected"
_ONLY_BIAS = (_SHARED, _LONG)
_UNPAIRED = "what it makes has other sizes than what is left of the original's"

_Kind = Literal["layer", "bias", "norm"]


@dataclass
class Moments:
    """Sums over one tensor's channels, f64[C]."""

    count: int = 0
    total: np.ndarray = field(default_factory=lambda: np.zeros(1))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(1))

    def add(self, array: np.ndarray, axis: int) -> None:
        """Count one array."""
        rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
        self.count += rows.shape[1]
        self.total = self.total + rows.sum(axis=1, dtype=np.float64)
        self.squares = self.squares + np.einsum("cp,cp->c", rows, rows, dtype=np.float64)

    @property
    def mean(self) -> np.ndarray:
        """Mean of each channel."""
        return self.total / max(self.count, 1)

    @property
    def variance(self) -> np.ndarray:
        """Variance of each channel."""
        spread: np.ndarray = np.maximum(self.squares / max(self.count, 1) - np.square(self.mean), 0.0)
        return spread


class Sweep:
    """Refits what changed, in graph order; `run` fills the attributes.

    Attributes:
        samples: Calibrate samples that were read.
        skipped: Layers that were left alone, and why.
    """

    def __init__(
        self,
        ir_model: ir.Model,
        original: ir.Model,
        max_samples: int,
        max_vectors: int,
        keep: frozenset[str],
        context: Context,
    ) -> None:
        self._ir_model, self._original, self._keep, self._context = ir_model, original, keep, context
        self._samples = calibrating(context, step="refit").spread(max_samples)
        self.samples = len(self._samples)
        if self.samples < 2:
            raise EdgewrightError(
                "E302",
                "`refit` needs 2 calibrate samples, one to learn from and one to judge by, but there is 1",
                hint="give more samples: roles are drawn by content, about a quarter calibrates",
            )
        self._per_sample = max(1, max_vectors // self.samples)
        self._names = Names(ir_model)
        self._shapes, self._original_shapes = _shapes(ir_model), _shapes(original)
        self.skipped: dict[str, str] = {}

    def run(self, title: str) -> list[dict[str, Any]]:
        """Go through all that changed; a report for each layer that was refitted."""
        work = self._changed()
        current = Front(self._ir_model, self._samples, _HELD_BYTES // 2, self._context)
        original = Front(self._original, self._samples, _HELD_BYTES // 2, self._context)
        reports = []
        for done, (node, kind) in enumerate(work):
            self._context.progress.update(title, done, len(work))
            if kind == "norm":
                self._move_statistics(node, current, original)
                continue
            layer = next(layer for layer in find_linear(self._ir_model).values() if layer.node is node)
            if kind == "bias":
                self._shift_bias(layer, current, original)
            else:
                reports.append(self._refit(layer, current, original))
        self._context.progress.update(title, len(work), len(work))
        return reports

    # --- which layers -------------------------------------------------------------------------------------------------

    def _changed(self) -> list[tuple[ir.Node, _Kind]]:
        """Nodes to learn anew, because they or what they read is not the original's, in graph order."""
        before = find_linear(self._original)
        shared = _shared(self._ir_model)
        changed: set[int] = set()
        found: list[tuple[ir.Node, _Kind]] = []
        layers = {id(layer.node): layer for layer in find_linear(self._ir_model).values()}
        originals = {value.name: node for node in self._original.graph for value in node.outputs}
        for node in self._ir_model.graph:
            other = originals.get(node.outputs[0].name)
            if not (other is None or not _same(node, other) or any(id(v) in changed for v in node.inputs if v)):
                continue
            changed.update(id(value) for value in node.outputs)
            layer = layers.get(id(node))
            if layer is not None:
                reason = self._reason(layer, before, shared)
                if reason is None:
                    found.append((node, "layer"))
                    continue
                self.skipped[layer.name] = reason
                if reason in _ONLY_BIAS and layer.can_take_bias:
                    found.append((node, "bias"))
            elif other is not None and _is_norm(node) and not set(self._names_of(node)) & self._keep:
                found += (
                    [(node, "norm")] if all(self._pairs(value.name or "") for value in node.inputs[:1] if value) else []
                )
        return found

    @staticmethod
    def _names_of(node: ir.Node) -> list[str]:
        return [value.name for value in node.outputs if value.name]

    def _reason(self, layer: Linear, before: dict[str, Linear], shared: set[str]) -> str | None:
        """Why a layer cannot be refitted."""
        if {layer.name, layer.node.outputs[0].name} & self._keep:
            return "asked for"
        if layer.name not in before:
            return "the original has no such layer"
        if not self._pairs(layer.name):
            return _UNPAIRED
        weight = layer.node.inputs[1]
        if weight is not None and weight.name in shared:
            return _SHARED
        if layer.rows.shape[2] > _LONGEST_ROW:
            return _LONG
        return None

    # --- one layer ----------------------------------------------------------------------------------------------------

    def _refit(self, layer: Linear, current: Front, original: Front) -> dict[str, Any]:
        halves = self._sums(layer, current, original)
        rows, offsets = layer.rows.astype(np.float64), layer.offsets.astype(np.float64)
        groups, outputs, _ = rows.shape
        before = np.concatenate([rows, offsets.reshape(groups, outputs, 1)], axis=2).transpose(0, 2, 1)
        found: Solution = solve(halves, before)
        maps = found.maps.transpose(0, 2, 1)
        layer.write(maps[..., :-1], maps[..., -1].reshape(-1), self._names)
        return {
            "layer": layer.name,
            "ridge": found.strength if np.isfinite(found.strength) else None,
            "error_before": found.before,
            "error_after": found.after,
        }

    def _sums(self, layer: Linear, current: Front, original: Front) -> tuple[Sums, Sums]:
        """Normal equations over the even and over the odd samples."""
        rows = layer.rows
        halves = tuple(Sums.empty(rows.shape[0], rows.shape[2], rows.shape[1]) for _ in range(2))
        shortcut = self._shortcut(layer)
        here, there = self._place(layer.node), self._place_in_original(layer.name) + 1
        rng = np.random.default_rng(self._context.seed)
        seen, made = layer.data.name or "", layer.name
        extra = () if shortcut is None else (shortcut,)
        walks = zip(
            self._samples, current.walk(here, (seen, *extra)), original.walk(there, (made, *extra)), strict=True
        )
        for number, (sample, now, then) in enumerate(walks):
            require_finite(seen, now[seen], sample, step="refit")
            target = self._kept(made, then[made])
            if shortcut is not None:
                target = target + self._kept(shortcut, then[shortcut]) - now[shortcut]
            count = layer.positions(target.shape)
            picked = np.arange(count) if count <= self._per_sample else rng.integers(0, count, self._per_sample)
            wanted = layer.outputs(target, picked)
            wanted = wanted.reshape(len(picked), rows.shape[0], rows.shape[1]).transpose(1, 0, 2)
            halves[number % 2].add(layer.patches(now[seen], picked), wanted)
        return halves[0], halves[1]

    def _shift_bias(self, layer: Linear, current: Front, original: Front) -> None:
        """Let every channel of what a layer makes have the original's mean."""
        here, there = self._place(layer.node), self._place_in_original(layer.name) + 1  # it is run anew once changed
        now, then = self._moments(layer.name, layer.axis, (current, here), (original, there))
        layer.write_bias(layer.offsets + then.mean - now.mean, self._names)

    def _move_statistics(self, node: ir.Node, current: Front, original: Front) -> None:
        """Move a batch norm's mean and variance by as much as those of what it reads have moved.

        Not to what the samples show: they are few, and the original's statistics come from many.
        """
        source, made = node.inputs[0], node.outputs[0].name
        means, spreads = constant_array(node.inputs[3]), constant_array(node.inputs[4])
        if source is None or source.name is None or made is None or means is None or spreads is None:
            return
        places = (current, self._place(node)), (original, self._place_in_original(made))
        now, then = self._moments(source.name, 1, *places)
        ratio = np.divide(now.variance, then.variance, out=np.ones_like(now.variance), where=then.variance > 0)
        moved = means + now.mean - then.mean, spreads * np.clip(ratio, 1 / _MOST_SPREAD, _MOST_SPREAD)
        for index, array in zip((3, 4), moved, strict=True):
            replace_constant(node, index, array.astype(np.float32), names=self._names)

    def _moments(
        self, name: str, axis: int, current: tuple[Front, int], original: tuple[Front, int]
    ) -> tuple[Moments, Moments]:
        """Of the channels of one tensor, as it is now and in the original."""
        now, then = Moments(), Moments()
        walks = (front.walk(place, (name,)) for front, place in (current, original))
        for sample, mine, others in zip(self._samples, *walks, strict=True):
            require_finite(name, mine[name], sample, step="refit")
            now.add(mine[name], axis)
            then.add(self._kept(name, others[name]), axis)
        return now, then

    def _place(self, node: ir.Node | None) -> int:
        return next(at for at, other in enumerate(self._ir_model.graph) if other is node)

    def _place_in_original(self, made: str) -> int:
        """The node that makes this tensor."""
        return next(at for at, node in enumerate(self._original.graph) if made in self._names_of(node))

    def _kept(self, name: str, array: np.ndarray) -> np.ndarray:
        kept: Kept | None = self._context.kept.get(name)
        return array if kept is None else kept.take(array)

    def _pairs(self, name: str) -> bool:
        """True where a tensor has the sizes that the channel map leaves of the original's; sizes that are open count as equal."""
        now, then = self._shapes.get(name, []), self._original_shapes.get(name, [])
        kept: Kept | None = self._context.kept.get(name)
        left = then if kept is None else kept.sizes(then)
        return all(one == other or None in (one, other) for one, other in zip(now, left, strict=False))

    def _shortcut(self, layer: Linear) -> str | None:
        """What an Add brings to the layer's output, where that is computed before the layer and in the original too."""
        adder = sole_consumer(layer.result)
        if adder is None or not is_standard(adder, "Add"):
            return None
        other = adder.inputs[1] if adder.inputs[0] is layer.result else adder.inputs[0]
        if other is None or constant_array(other) is not None or other.shape != layer.result.shape:
            return None
        order = {id(node): at for at, node in enumerate(self._ir_model.graph)}
        producer = other.producer()
        if producer is not None and order.get(id(producer), len(order)) > order[id(layer.node)]:
            return None
        known = {value.name for node in self._original.graph for value in node.outputs}
        known |= {value.name for value in self._original.graph.inputs}
        return other.name if other.name in known and self._pairs(other.name) else None


def _shapes(ir_model: ir.Model) -> dict[str, list[int | None]]:
    """Sizes of what nodes make and the graph reads, by name; None for an open one."""
    values = [*ir_model.graph.inputs, *(value for node in ir_model.graph for value in node.outputs)]
    shapes = {value.name: value.shape for value in values if value.name and value.shape is not None}
    return {name: [size if isinstance(size, int) else None for size in shape] for name, shape in shapes.items()}


def _shared(ir_model: ir.Model) -> set[str]:
    """Weights that several nodes read."""
    return {name for name, value in ir_model.graph.initializers.items() if len(tuple(value.uses())) > 1}


def _is_norm(node: ir.Node) -> bool:
    return is_standard(node, "BatchNormalization") and not node.attributes.get_int("training_mode", 0)


def _same(node: ir.Node, other: ir.Node) -> bool:
    """True where two nodes have equal constants and read tensors of the same names."""
    if node.op_type != other.op_type or len(node.inputs) != len(other.inputs):
        return False
    for value, counterpart in zip(node.inputs, other.inputs, strict=True):
        if (value is None) != (counterpart is None):
            return False
        array, before = constant_array(value), constant_array(counterpart)
        if array is not None and before is not None:
            if array is not before and not np.array_equal(array, before):
                return False
        elif value is not None and counterpart is not None and value.name != counterpart.name:
            return False
    return True
