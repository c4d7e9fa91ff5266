"""Causes: which known mistake turns the first failing layer's expected values into those that came.

Every hypothesis is computed and leaves a residual. Those that leave no more than rounding explain the failure; of
these the one with the fewest fitted numbers is named, and where several are as good, that is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright import original, registry, session
from edgewright.contracts import Cut
from edgewright.errors import EdgewrightError
from edgewright.graph.cut import extract
from edgewright.graph.dataflow import constant_array
from edgewright.locate.alternatives import (
    alternatives,
    mixes_channels,
    rounded,
    rounded_weight,
    scaled_weight,
    swapped_inputs,
    swapped_rows,
)
from edgewright.locate.changes import Alternative, attribute, bias_of, label_of, weight_of
from edgewright.locate.patterns import (
    ACTIVATIONS,
    FLOAT16_MAX,
    Hypothesis,
    added_activations,
    before_activation,
    patterns,
    rounded_to,
    slopes,
    without_bias,
    wrong_channels,
)
from edgewright.locate.stages import declare, fragment
from edgewright.locate.swaps import likely_input_swaps
from edgewright.locate.walk import Failure
from edgewright.metrics import rel_l2
from edgewright.model import Arrays, Model

if TYPE_CHECKING:
    import onnx_ir as ir

#: A hypothesis explains an error of which it leaves at most this part, and at most the layer's limit.
_LEFT = 0.2
#: Hypotheses whose residuals are within this factor are as good as each other.
_AS_GOOD = 10.0
_MOST_NAMED = 3
#: Fitted factors and channels that differ by less are the same in float32; else the layer's limit.
_SAME = 1e-4
#: In longer stretches a single wrong node is not looked for.
_MOST_NODES = 24
#: Tensors that are tried in the place of another are held at once.
_OTHER_BYTES = 64 * 2**20
_NONLINEAR = frozenset({"Celu", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Mish",
    "Min", "PRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh"})  # fmt: skip
_ELEMENTWISE = _NONLINEAR | {"Mul", "Add", "Sub", "Div", "Identity", "Pow"}


def explain(failure: Failure, limits: original.Limits) -> str | None:
    """The likely cause of `failure` in words, with its evidence; None where no hypothesis explains it."""
    cause = _explain(failure, limits)
    if cause is None or failure.source is None:
        return cause
    return f"in the source {cause.replace('the original', 'this network')}"


def _explain(failure: Failure, limits: original.Limits) -> str | None:
    expected, got = failure.expected, failure.got
    if got is None or expected.dtype.kind not in "fiu" or not expected.size:
        return None
    broken = np.isfinite(expected) & ~np.isfinite(got) if expected.shape == got.shape else ~np.isfinite(got)
    if broken.any():
        return _overflow(failure, got, broken)
    if not (np.isfinite(expected).all() and np.isfinite(got).all()):
        return None
    error = rel_l2(expected, got) if expected.shape == got.shape else math.inf
    narrow = rounded_to(np.asarray(got, np.float32)) if expected.dtype == np.float32 else None
    if narrow and limits.exact and rounded_to(expected) != narrow and error < 0.05:
        return f"every value is a {narrow} number: this layer runs in {narrow}, not in float32 (rel-L2 {error:.1e})"
    most = min(limits.isolated_at(failure.noise), _LEFT * error)
    explaining = [h for h in _hypotheses(failure, limits.isolated) if h.residual <= most]
    return (
        _choose(explaining, error)
        or (_narrow_weights(failure) if failure.source else None)
        or _choose([h for h in _Stretch(failure, limits.isolated).other_inputs(failure) if h.residual <= most], error)
        or _few_channels(expected, got, max(limits.isolated, _SAME))
    )


def _choose(explaining: Sequence[Hypothesis], error: float) -> str | None:
    if not explaining:
        return None
    fewest = min(h.fitted for h in explaining)
    ranked = sorted((h for h in explaining if h.fitted == fewest), key=lambda h: h.residual)
    best = ranked[0]
    equal = [h for h in ranked if h.residual <= _AS_GOOD * max(best.residual, 1e-7)][:_MOST_NAMED]
    texts = list(dict.fromkeys(h.text for h in equal))
    evidence = f"leaves rel-L2 {best.residual:.1e}" + (f" of {error:.1e}" if math.isfinite(error) else "")
    if len(texts) == 1:
        return f"{texts[0]} ({evidence})"
    return f"{'; or '.join(texts)} (each {evidence})"


def _few_channels(expected: np.ndarray, got: np.ndarray, tolerance: float) -> str | None:
    """Words for an unexplained failure of one to three channels out of many."""
    if expected.shape != got.shape or expected.ndim < 2:
        return None
    wrong = wrong_channels(expected, got, tolerance)
    if not 0 < wrong.size <= min(_MOST_NAMED, expected.shape[1] // 4):
        return None
    which = ", ".join(str(i) for i in wrong)
    return f"only channel {which} of {expected.shape[1]} differs: its parameters are others"


def _narrow_weights(failure: Failure) -> str | None:
    """Words for a network that has lost digits of its weights, which the source cannot have had from it."""
    for node in fragment(failure.model, failure.stage, failure.inputs).ir.graph:
        weight = weight_of(node)
        narrow = rounded_to(weight) if weight is not None else None
        if narrow:
            return f"the weights of `{label_of(node)}` may have more digits: the original's are all {narrow} numbers"
    return None


def _overflow(failure: Failure, got: np.ndarray, broken: np.ndarray) -> str:
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(broken)), broken.shape))
    where = f"{int(broken.sum())} of {broken.size} values are NaN or infinite, first at {list(index)}"
    tensors = {failure.stage.name: failure.expected, **failure.inputs}
    for name, array in tensors.items():
        largest = (
            float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array))) if array.dtype.kind == "f" else 0.0
        )
        if largest > FLOAT16_MAX:
            return f"float16 overflow: `{name}` reaches {largest:.4g}, float16 ends at {FLOAT16_MAX:.0f}; {where}"
    return (
        f"{where}, where the original has {failure.expected[index]:.4g}"
        if failure.expected.shape == got.shape
        else where
    )


def _hypotheses(failure: Failure, most: float) -> Iterator[Hypothesis]:
    assert failure.got is not None
    yield from patterns(failure.expected, failure.got, most)
    if failure.stage.op_type not in _NONLINEAR:
        yield from added_activations(failure.expected, failure.got)
    stretch = _Stretch(failure, max(most, _SAME))
    if stretch.size <= _MOST_NODES:
        yield from stretch.narrow()
        yield from stretch.last_weights()
        yield from stretch.last_activation()
        yield from stretch.activations()
        yield from stretch.node_alternatives()


class _Stretch:
    """The original's nodes of the failing stretch, ready to run with changes."""

    def __init__(self, failure: Failure, tolerance: float) -> None:
        assert failure.got is not None
        self._inputs, self._end = failure.inputs, failure.stage.name
        self._expected, self._got, self._tolerance = failure.expected, failure.got, tolerance
        self._thinned = failure.thinned
        self._part = fragment(failure.model, failure.stage, failure.inputs)
        reference = original.reference_runtime()
        if reference is None or registry.peek("runtimes", reference).supports(self._part.ir):
            reference = session.exact_runtime()
        self._runtime = reference
        self._inner: dict[str, np.ndarray] = {}

    @property
    def size(self) -> int:
        """Number of nodes."""
        return len(self._part.ir.graph)

    def node_alternatives(self) -> Iterator[Hypothesis]:
        """Each alternative of each node, run."""
        for number, node in enumerate(self._part.ir.graph):
            tried = [(alternative, 0) for alternative in alternatives(node)]
            tried += [(alternative, fitted) for alternative, fitted in self._suggested(node)]
            for (text, change), fitted in tried:
                copy = self._part.clone_ir()
                change(copy.graph.node(number))
                result = self._run(Model(copy), self._inputs)
                if result is not None:
                    yield Hypothesis(text, rel_l2(self._got, result), fitted)

    def narrow(self) -> Iterator[Hypothesis]:
        """Inputs and weights rounded to a narrower type, sums in float32: how CPUs multiply in bfloat16."""
        for name in ("bfloat16", "float16"):
            copy = self._part.clone_ir()
            found = False
            for node in copy.graph:
                weight = weight_of(node)
                if weight is not None:
                    rounded_weight(weight, name)(node)
                    found = True
            if not found:
                return
            inputs = {
                key: rounded(value, name) if value.dtype == np.float32 else value for key, value in self._inputs.items()
            }
            result = self._run(Model(copy), inputs)
            if result is not None:
                yield Hypothesis(
                    f"the values and weights are rounded to {name}: this layer runs in {name}",
                    rel_l2(self._got, result),
                )

    def last_weights(self) -> Iterator[Hypothesis]:
        """What happened to the weights of the last node, under a bias that is right."""
        node = next(node for node in self._part.ir.graph if self._end in [value.name for value in node.outputs])
        bias = bias_of(node)
        if bias is not None and np.any(bias) and self._expected.ndim > 1:
            axis = self._expected.ndim - 1 if node.op_type == "Gemm" else 1
            yield from without_bias(self._expected, self._got, bias, axis, label_of(node), self._tolerance)

    def last_activation(self) -> Iterator[Hypothesis]:
        """What happened before a leaky rectifier at the end, which can be undone."""
        before, got = self._undone()
        if before is not None and got is not None:
            yield from before_activation(before, got, self._end, self._tolerance)

    def _undone(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """(the original's, what came) before a leaky rectifier at the end; None where there is another node."""
        node = next(node for node in self._part.ir.graph if self._end in [value.name for value in node.outputs])
        slope = attribute(node, "alpha", 0.01)
        source = self._value(str(node.inputs[0].name)) if node.op_type == "LeakyRelu" and node.inputs[0] else None
        if source is None or slope <= 0:
            return None, None
        return self._thinned.of(source), np.where(self._got < 0, self._got / slope, self._got)

    def activations(self) -> Iterator[Hypothesis]:
        """Another activation in the place of each one in the stretch."""
        for node in self._part.ir.graph:
            source = _activation_source(node)
            if source is None or not source.name or not node.outputs[0].name:
                continue
            before, after = self._value(source.name), self._value(node.outputs[0].name)
            if before is None or after is None or before.shape != after.shape:
                continue
            wide = np.asarray(before, np.float64)
            rest = self._after(node.outputs[0])
            with np.errstate(all="ignore"):
                tried = {name: function(wide) for name, function in ACTIVATIONS.items()}
            tried["none"] = wide
            now = next(
                (name for name, value in tried.items() if rel_l2(after, value) < original.FP32_REL_L2), node.op_type
            )
            for name, value in tried.items():
                if name != now and not (node.op_type == "LeakyRelu" and name.startswith("leaky")):
                    result = self._finish(rest, node.outputs[0].name, value.astype(after.dtype))
                    if result is not None:
                        text = f"the activation `{node.outputs[0].name}` is {name} instead of {now}"
                        yield Hypothesis(text, rel_l2(self._got, result))

    def other_inputs(self, failure: Failure) -> Iterator[Hypothesis]:
        """An earlier tensor of the same size in the place of one that the stretch reads, as by a wrong index."""
        if self.size > _MOST_NODES:
            return
        for name, value in self._inputs.items():
            names = _same_size(failure, value)
            if name not in failure.sample and names:
                with session.open(failure.model, runtime=session.exact_runtime()) as opened:
                    others = opened.run(failure.sample, names)
                for other in names:
                    if other in self._inputs or others[other].shape != value.shape:
                        continue
                    for part, place in ((self._part, name), *self._apart(name)):
                        result = self._run(part, {**self._inputs, place: others[other]})
                        if result is not None:
                            text = f"`{self._end}` reads `{other}` instead of `{name}`"
                            yield Hypothesis(text, rel_l2(self._got, result))

    def _apart(self, name: str) -> Iterator[tuple[Model, str]]:
        """The stretch with an input of its own for each place where one node reads `name`, if it does so twice."""
        import onnx_ir as ir

        for number, node in enumerate(self._part.ir.graph):
            places = [place for place, value in enumerate(node.inputs) if value is not None and value.name == name]
            for place in places if len(places) > 1 else ():
                copy = self._part.clone_ir()
                value = ir.Value(name=f"{name}:other", type=node.inputs[place].type, shape=node.inputs[place].shape)
                copy.graph.inputs.append(value)
                copy.graph.node(number).replace_input_with(place, value)
                yield Model(copy), value.name or ""

    def _suggested(self, node: ir.Node) -> Iterator[tuple[Alternative, int]]:
        """Changes of the weights that the numbers suggest, with how many numbers they fit: factors, exchanged channels."""
        if self._expected.shape != self._got.shape or self._expected.ndim < 2 or weight_of(node) is None:
            return
        error = np.asarray(self._got, np.float64) - np.asarray(self._expected, np.float64)
        source = self._value(str(node.inputs[0].name)) if node.inputs[0] is not None else None
        end, own = self._value(self._end), self._value(str(node.outputs[0].name))
        if source is not None and end is not None and own is not None and own.size == end.size:
            error = self._thinned.scattered(error, end.shape).reshape(own.shape)
            for pair in likely_input_swaps(node, source, error, _MOST_NAMED):
                yield swapped_inputs(node, *pair), 0
        wrong = wrong_channels(self._expected, self._got, self._tolerance)
        if self.size == 1 and mixes_channels(node):
            return  # such a node's output shows the rest by itself
        swapped = swapped_rows(node, int(wrong[0]), int(wrong[1])) if wrong.size == 2 else None
        if swapped:
            yield swapped, 0
        before, came = self._undone()
        if before is None or came is None:
            before, came = self._expected, self._got
        found = slopes(before, came, 1) if self.size > 1 else None
        scaled = scaled_weight(node, found[0], self._tolerance) if found else None
        if scaled and found:
            uniform = np.ptp(found[0]) < self._tolerance
            yield scaled, 1 if uniform else wrong.size

    def _value(self, name: str) -> np.ndarray | None:
        """A tensor of the stretch in the original."""
        if name in self._inputs:
            return self._inputs[name]
        if not self._inner:
            names = tuple(str(v.name) for node in self._part.ir.graph for v in node.outputs if v.name)
            try:
                with session.open(self._part, runtime=self._runtime) as opened:
                    self._inner = opened.run(self._inputs, names)
            except EdgewrightError:
                return None
        return self._inner.get(name)

    def _after(self, value: ir.Value) -> Model | None:
        """The rest of the stretch from `value` on; None where it is the end."""
        if value.name == self._end:
            return None
        copy = self._part.clone_ir()
        array = self._value(str(value.name))
        assert array is not None
        for node in copy.graph:
            for output in node.outputs:
                if output.name == value.name:
                    declare(output, array)
        return Model(extract(copy, Cut((*self._inputs, str(value.name)), (self._end,))))

    def _finish(self, rest: Model | None, name: str, value: np.ndarray) -> np.ndarray | None:
        return self._thinned.of(value) if rest is None else self._run(rest, {**self._inputs, name: value})

    def _run(self, model: Model, inputs: Arrays) -> np.ndarray | None:
        """The stretch's end; None where the change makes no valid network, or another shape."""
        try:
            with session.open(model, runtime=self._runtime) as opened:
                result = opened.run(inputs)[self._end]
        except EdgewrightError:
            return None
        places = self._thinned.places
        if places is not None and places.max() >= result.size:
            return None
        result = self._thinned.of(result)
        return result if result.shape == self._got.shape else None


def _same_size(failure: Failure, value: np.ndarray) -> tuple[str, ...]:
    """Names of float tensors before the failing stretch with the sizes of `value`, the batch left out."""
    found: list[str] = []
    for node in failure.model.ir.graph:
        names = [output.name for output in node.outputs]
        if failure.stage.name in names:
            break
        for output in node.outputs:
            sizes = tuple(output.shape) if output.shape is not None else ()
            if output.name and sizes[1:] == value.shape[1:] and len(sizes) == value.ndim and output.dtype is not None:
                found += [output.name] if output.dtype.numpy() == value.dtype else []
    return tuple(found[-max(1, _OTHER_BYTES // max(value.nbytes, 1)) :])


def _activation_source(node: ir.Node) -> ir.Value | None:
    """The one tensor that `node` applies an activation to, through element-wise nodes alone; None where it does not."""
    group: set[ir.Node] = set()
    frontier: set[ir.Value] = {node.outputs[0]}
    while frontier:
        for value in sorted(frontier, key=lambda v: v.name or ""):
            producer = value.producer()
            if producer is not None and producer.op_type in _ELEMENTWISE:
                group.add(producer)
                frontier.remove(value)
                read = producer.inputs[:1] if producer.op_type == "Clip" else producer.inputs  # its bounds are no data
                frontier |= {v for v in read if v is not None and constant_array(v) is None}
                break
        else:
            return None
        if len(frontier) == 1 and any(member.op_type in _NONLINEAR for member in group):
            return next(iter(frontier))
    return None
