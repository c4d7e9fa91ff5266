"""Rounding layer by layer, each on what the layers before it, already quantized, really hand on.

The network is run in stages. What is alive between two of them is kept for each sample: integers where the tensor is
quantized, so that 64 photos fit into memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.contracts import Context, Cut, QuantFormat, Sample
from edgewright.graph.cut import dependencies, extract
from edgewright.graph.dataflow import Names, constant_array, constant_tensor, is_standard
from edgewright.model import Arrays
from edgewright.passes.quantize_static import _rounding as rounding
from edgewright.passes.quantize_static._assembly import LARGEST_BIAS, Rounded, set_weights, simulated_values
from edgewright.passes.quantize_static._layers import Layer, absorbed
from edgewright.passes.quantize_static._placement import Placement
from edgewright.passes.quantize_static._ranges import Range
from edgewright.passes.quantize_static._statistics import ChannelSums, Lesson

if TYPE_CHECKING:
    import onnx_ir as ir

#: Vectors that the second moments of a layer are made of: 128 for each weight of a row, but so many at least and at most;
#: fewer where they are too many numbers together, but eight for each weight in any case.
_VECTORS, _NUMBERS = (4096, 32768), 2**26
_FOR_EACH_WEIGHT, _LEAST_FOR_EACH_WEIGHT = 128, 8
#: Numbers that go into one matrix product.
_AT_ONCE = 2**22


#: A channel that is active more rarely says too little of its mean.
_LEAST_ACTIVE = 0.02


@dataclass
class _Moments:
    """Of the vectors that a layer sees.

    Attributes:
        second: Second moments in squares of the input's step, f32[G, K, K]; None for very long rows.
        power: The same of each number alone, f64[G, K].
        mean: f64[G, K].
        scale: The input's step.
    """

    second: np.ndarray | None
    power: np.ndarray
    mean: np.ndarray
    scale: float

    def lost(self, error: np.ndarray) -> float:
        """Mean square of what an error of the weights, f32[G, O, K], does to the layer's sums."""
        if self.second is not None:
            steps = rounding.output_power(error, self.second)
        else:
            steps = float(np.einsum("gok,gk->", np.square(error, dtype=np.float64), self.power))
        return steps * self.scale**2


@dataclass
class Learner:
    """Rounds the layers of one network.

    Attributes:
        compensate: Let rounding errors compensate each other; else to nearest.
        correct_bias: Shift biases by what quantization shifts the mean of each channel.
        reports: By layer, what it did, for the statistics of the pass.
        alone: By layer, with a bias that makes up for its own rounding only: as if all others were float.
    """

    ir_model: ir.Model
    placement: Placement
    ranges: Mapping[str, Range]
    lesson: Lesson
    form: QuantFormat
    context: Context
    compensate: bool = True
    correct_bias: bool = True
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    alone: dict[str, Rounded] = field(default_factory=dict)
    _activated: set[str] = field(default_factory=set)

    def learn(self) -> dict[str, Rounded]:
        """Weights and biases of every layer, in graph order."""
        samples = self.lesson.samples
        graph, made = simulated_values(self.ir_model, self.placement, self.ranges, {})
        names = Names(graph)
        values = {value.name: value for node in self.ir_model.graph for value in node.outputs}
        rng = np.random.default_rng(self.context.seed)
        rounded: dict[str, Rounded] = {}
        self._activated = {name for name in self.placement.layers if ceiling(values[name]) is not None}
        stages = _Stages(graph, [made[name].producer() for name in self.placement.layers], samples, self.context)
        for (name, layer), inputs in zip(self.placement.layers.items(), stages, strict=True):
            self.context.progress.update("round weights", len(rounded), len(self.placement.layers))
            moments = _moments(layer, inputs, self.ranges[self.placement.owner(layer.data)], len(samples), rng)
            rounded[name] = self._round(layer, moments)
            node, adder = made[name].producer(), made[layer.adder].producer() if layer.adder else None
            assert node is not None
            set_weights(node, adder, layer, rounded[name], names, None)
            top = ceiling(values[name])
            bias = rounded[name].bias
            if self.correct_bias and top is not None and bias is not None:
                shift = self._activated_shift(layer, top, absorbed(values[name]), stages.made_by(node))
                rounded[name] = replace(rounded[name], bias=bias + shift)
                set_weights(node, adder, layer, rounded[name], names, None)
        self.context.progress.update("round weights", len(rounded), len(self.placement.layers))
        return rounded

    def _round(self, layer: Layer, moments: _Moments) -> Rounded:
        rows = layer.rows(layer.weight)
        room = layer.room(self.form)
        held = self.ranges[self.placement.owner(layer.data)]
        bias = np.zeros(rows.shape[0] * rows.shape[1]) if layer.bias is None else layer.bias.astype(np.float64)
        exact_mean = self.lesson.channels[layer.name].mean
        if layer.op == "MatMul":
            exact_mean = exact_mean + bias
        reach = np.abs(bias) + np.abs(exact_mean) + np.abs(_shift(rows, moments.mean))
        floor = (reach / (held.scale * LARGEST_BIAS)).reshape(rows.shape[:2])
        scales = rounding.weight_scales(rows, moments.power, room, floor)
        if not self.form.per_channel:
            scales = np.full_like(scales, scales.max())
        plain = rounding.nearest(rows, scales, room)
        levels = plain
        if self.compensate and moments.second is not None:
            levels = rounding.compensated(rows, scales, moments.second, room)
        final = levels * scales[..., None]
        shift = exact_mean - (_shift(final, moments.mean) + bias)
        linear = layer.name not in self._activated
        corrected = bias + shift if self.correct_bias and linear else bias
        has_bias = layer.can_shift and (layer.bias is not None or self.correct_bias)
        self.reports[layer.name] = self._report(layer, moments, rows, plain * scales[..., None], final, shift, held)
        own = bias + _shift(rows - final, moments.mean) if self.correct_bias else bias
        made = Rounded(np.ascontiguousarray(layer.from_rows(levels)), scales.reshape(-1), None)
        self.alone[layer.name] = replace(made, bias=own.astype(np.float32)) if has_bias else made
        return replace(made, bias=corrected.astype(np.float32)) if has_bias else made

    def _activated_shift(self, layer: Layer, top: float, result: ir.Value, outputs: Iterator[np.ndarray]) -> np.ndarray:
        """What to add to the bias so that each channel keeps its mean after the activation, f32[O].

        Values that the activation cuts off anyway have no say: one Newton step on the mean of clip(y + shift, 0, top).
        """
        axis = 1 if layer.op == "Conv" else -1
        after, active = ChannelSums(), ChannelSums()
        for made in outputs:
            after.add(np.clip(made, 0, top), axis)
            active.add(((made > 0) & (made < top)).astype(np.float32), axis)
        wanted = self.lesson.channels[result.name or ""].mean
        share = active.mean
        shift: np.ndarray = np.where(
            share > _LEAST_ACTIVE, (wanted - after.mean) / np.maximum(share, _LEAST_ACTIVE), 0.0
        )
        return shift.astype(np.float32)

    def _report(
        self,
        layer: Layer,
        moments: _Moments,
        rows: np.ndarray,
        plain: np.ndarray,
        final: np.ndarray,
        shift: np.ndarray,
        held: Range,
    ) -> dict[str, Any]:
        channels = self.lesson.channels[layer.name]
        variance = np.maximum(channels.power - channels.mean**2, 0.0)
        moved = math.sqrt(float(np.square(shift).sum()) / max(float(variance.sum()), 1e-30))
        power = float(channels.power.sum())
        return {
            "weight_sqnr_db": _db(_squares(rows), _squares(plain - rows)),
            "rounding_before_db": _db(power, moments.lost(plain - rows)),
            "rounding_after_db": _db(power, moments.lost(final - rows)),
            "bias_before": moved,
            "bias_after": 0.0 if self.correct_bias and layer.can_shift else moved,
            "activation_db": _db(power, held.mse * _squares(rows)),
        }


class _Stages:
    """Runs a network up to one layer after another; iterating gives what each layer reads, sample by sample."""

    def __init__(self, graph: ir.Model, layers: Sequence[Any], samples: Sequence[Sample], context: Context) -> None:
        self._graph, self._context = graph, context
        self._layers = layers
        self._alive: list[dict[str, np.ndarray]] = [dict(sample.arrays) for sample in samples]
        self._kept = tuple(self._alive[0]) if samples else ()
        self._order = {node: position for position, node in enumerate(graph.graph)}

    def __iter__(self) -> Iterator[Iterator[np.ndarray]]:
        """For each layer an iterator over the arrays that it reads: integers for a quantized tensor."""
        alive = self._alive
        kept = self._kept
        for layer in self._layers:
            needed = self._alive_before(layer)
            data = _stored(layer.inputs[0]).name
            new = [name for name in needed if name not in kept]
            run = self._runner(Cut(kept, tuple(new))) if new else None
            for state in alive:
                made = run(state) if run else {}
                for name in [name for name in state if name not in needed]:
                    del state[name]
                state.update(made)
            kept = self._kept = tuple(needed)
            yield (state[data] for state in alive)

    def made_by(self, node: ir.Node) -> Iterator[np.ndarray]:
        """What the layer that was given last makes now, sample by sample."""
        output = node.outputs[0].name
        assert output is not None
        run = self._runner(Cut(self._kept, (output,)))
        for state in self._alive:
            yield run(state)[output]

    def _runner(self, cut: Cut) -> Callable[[Arrays], Arrays]:
        """Runs a part of the network on what is alive before it."""
        fragment = extract(self._graph, cut)
        names = [value.name for value in fragment.graph.inputs if value.name]
        run = self._context.runner(fragment)
        return lambda state: run({name: state[name] for name in names})

    def _alive_before(self, layer: ir.Node) -> list[str]:
        """Names of what `layer` and the nodes after it read of the nodes before it and of the graph's inputs."""
        border = self._order[layer]
        found: dict[str, None] = {}
        for node, position in self._order.items():
            if position < border:
                continue
            for value in dependencies(node):
                if self._before(value, border):
                    found[_stored(value).name or ""] = None
        return list(found)

    def _before(self, value: ir.Value, border: int) -> bool:
        producer = value.producer()
        if constant_tensor(value) is not None:
            return False
        if producer is None:
            return value.is_graph_input() and value.graph is self._graph.graph
        return self._order.get(producer, border) < border and not is_constant(value)


def ceiling(value: ir.Value) -> float | None:
    """The largest value that the Relu or Clip fused into the layer that makes `value` lets through; None without one."""
    made = absorbed(value)
    if made is value:
        return None
    node = made.producer()
    assert node is not None
    bound = constant_array(node.inputs[2]) if node.op_type == "Clip" and len(node.inputs) > 2 else None
    return math.inf if bound is None else float(bound.reshape(()))


def is_constant(value: ir.Value) -> bool:
    """True for what is computed from constants alone by one DequantizeLinear."""
    producer = value.producer()
    return (
        producer is not None
        and is_standard(producer, "DequantizeLinear", "Constant")
        and all(constant_tensor(item) is not None for item in producer.inputs if item is not None)
    )


def _stored(value: ir.Value) -> ir.Value:
    """What is kept in place of `value`: the integers that it was made of, where there are."""
    producer = value.producer()
    if producer is not None and is_standard(producer, "DequantizeLinear"):
        source = producer.inputs[0]
        assert source is not None
        return source
    return value


def _moments(layer: Layer, inputs: Iterator[np.ndarray], held: Range, count: int, rng: np.random.Generator) -> _Moments:
    """Moments of what the layer sees, from some of the vectors, the mean from all of them."""
    length = layer.rows(layer.weight).shape[2]
    wanted = min(int(np.clip(_FOR_EACH_WEIGHT * length, *_VECTORS)), _NUMBERS // (layer.groups * length))
    limit = math.ceil(max(wanted, _LEAST_FOR_EACH_WEIGHT * length) / count)
    total: np.ndarray | None = None
    power, mean = np.zeros((layer.groups, length)), np.zeros((layer.groups, length))
    vectors = 0
    for drawn, means in _batches(layer, inputs, held, limit, rng):
        mean += means * (held.scale / count)
        vectors += drawn.shape[1]
        if length <= rounding.LONGEST_ROW:
            product = drawn.transpose(0, 2, 1) @ drawn
            total = product if total is None else np.add(total, product, out=total)
        else:
            power += np.einsum("gpk,gpk->gk", drawn, drawn, dtype=np.float64)
    if total is None:
        return _Moments(None, power / vectors, mean, held.scale)
    total /= np.float32(vectors)
    power = np.einsum("gkk->gk", total).astype(np.float64)
    return _Moments(_shrunk(total, power, vectors), power, mean, held.scale)


def _batches(
    layer: Layer, inputs: Iterator[np.ndarray], held: Range, limit: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Up to `limit` vectors of each array, in steps, several arrays' together f32[G, P, K]; the sum of their means f64[G, K]."""
    parts: list[np.ndarray] = []
    means: Any = 0.0
    for stored in inputs:
        if stored.dtype.kind in "iu":
            data = stored.astype(np.float32) - np.float32(held.unsigned().zero_point)  # as `simulated` stores them
        else:
            data = stored / np.float32(held.scale)
        means = means + layer.mean_patch(data)
        parts.append(layer.patches(data, limit, rng))
        if sum(part.size for part in parts) >= _AT_ONCE:
            yield np.concatenate(parts, axis=1), means
            parts, means = [], 0.0
    if parts:
        yield np.concatenate(parts, axis=1), means


def _shrunk(second: np.ndarray, power: np.ndarray, vectors: int) -> np.ndarray:
    """Second moments drawn towards their diagonal, the more the fewer vectors they come from.

    What few vectors say of how inputs go together does not hold for others, and rounding would rely on it.
    Source: Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".
    """
    share = power.shape[1] / (power.shape[1] + vectors * 0.25)
    second *= np.float32(1 - share)
    np.einsum("gkk->gk", second)[...] = power
    return second


def _shift(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Mean of each output channel without bias, f64[O]."""
    result: np.ndarray = np.einsum("gok,gk->go", rows.astype(np.float64), mean).reshape(-1)
    return result


def _squares(array: np.ndarray) -> float:
    return float(np.square(array, dtype=np.float64).sum())


def _db(power: float, noise: float) -> float | None:
    return 10 * math.log10(power / noise) if noise > 0 and power > 0 else None
