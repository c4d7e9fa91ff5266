"""Network: an ONNX graph as a torch module, its weights as parameters under their ONNX names.

    network = Network(ir_model)
    outputs = network({"image": x}, ("scores",))        # any tensor of the graph, with gradients
    network.write(ir_model)                             # what was learnt, into the same graph

Float weights are parameters; integer weights behind DequantizeLinear are parameters too, as the floats they stand for,
and are quantized at every run by the formula of QuantizeLinear, so that what is trained is what ships. The graph runs node
by node as it is written. Shapes are those of the inputs: a batch may be larger than the graph says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import constant_tensor, is_standard
from edgewright.learn import integers
from edgewright.learn.operators import OPERATORS
from edgewright.learn.operators.table import key_of
from edgewright.learn.roles import Roles, roles

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class _Step:
    """One node, ready to run; `frees` are tensors that nobody reads afterwards."""

    name: str
    op_type: str
    function: Callable[..., Any]
    inputs: tuple[str | None, ...]
    host: frozenset[int]
    outputs: tuple[str | None, ...]
    attributes: Mapping[str, Any]
    frees: tuple[str, ...] = ()


class Network(torch.nn.Module):  # type: ignore[misc]  # torch is not typed for us
    """The graph as a module.

    Attributes:
        integers: Integer constants that are learnt as floats, by name.
        learnt: Names of the constants that are parameters, in graph order.
        statistics: Names of running statistics, which change while `batch_statistics` is on.
    """

    def __init__(self, ir_model: ir.Model, *, keep: Iterable[str] = (), batch_statistics: bool = False) -> None:
        """Read the graph; it is not changed.

        Args:
            ir_model: The network, functions inlined.
            keep: Names of constants that are not learnt.
            batch_statistics: In training mode, let batch norms standardize by the batch and learn new statistics.

        Raises:
            EdgewrightError: E212 naming the first node that cannot be trained through.
        """
        super().__init__()
        require_operators(ir_model)
        found = roles(ir_model)
        self._batch_statistics = batch_statistics
        self._slots: dict[str, str] = {}  # torch takes no dots in names
        self._constants: dict[str, Tensor] = {}  # integers: on the CPU, where sizes are computed
        self._host: dict[str, Any] = {}
        self._plans: dict[tuple[str, ...], tuple[_Step, ...]] = {}
        self.integers: dict[str, integers.Integers] = {}
        self.statistics = tuple(found.statistics)
        self.inputs = tuple(v.name for v in ir_model.graph.inputs if v.name not in ir_model.graph.initializers)
        for value in _constants(ir_model.graph):
            self._enter(value, found, frozenset(keep))
        self.learnt = tuple(name for name in (*found.floats, *found.integers) if name not in set(keep))
        self._steps = tuple(self._step(node) for node in ir_model.graph if not is_standard(node, "Constant"))

    def _enter(self, value: ir.Value, found: Roles, keep: frozenset[str]) -> None:
        name, tensor = value.name or "", constant_tensor(value)
        assert tensor is not None
        if name in found.integers and name not in keep:
            held = self.integers[name] = integers.Integers.of(tensor, found.integers[name])
            self._register(name, torch.from_numpy(held.floats()), learnt=True)
            return
        constant = _tensor(tensor)
        if constant.is_floating_point():
            self._register(name, constant, learnt=name in found.floats and name not in keep)
        else:
            self._constants[name] = constant

    def _register(self, name: str, value: Tensor, *, learnt: bool) -> None:
        slot = self._slots[name] = f"constant{len(self._slots)}"
        if learnt:
            self.register_parameter(slot, torch.nn.Parameter(value))
        else:
            self.register_buffer(slot, value)

    def _step(self, node: ir.Node) -> _Step:
        found = OPERATORS[key_of(node)]
        attributes = {name: _value(attribute) for name, attribute in node.attributes.items()}
        outputs = tuple(value.name or None for value in node.outputs)
        if found.counts_outputs:
            attributes["output_count"] = len(outputs)
        if node.op_type == "QuantizeLinear":
            attributes["limits"] = integers.limits_of(node)
        names = tuple(None if value is None else value.name or None for value in node.inputs)
        function = found.function
        if node.op_type == "DequantizeLinear" and names[0] in self.integers:
            function = self.integers[str(names[0])].dequantized
        return _Step(
            node.name or next(filter(None, outputs), "?"),
            node.op_type, function, names, found.host, outputs, attributes,
        )  # fmt: skip

    # --- running ------------------------------------------------------------------------------------------------------

    def forward(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> dict[str, Tensor]:
        """Tensors `outputs` of the graph for a batch of `inputs`.

        Raises:
            EdgewrightError: E212 naming the node that cannot be evaluated, E231 for a tensor that does not exist.
        """
        wanted = tuple(outputs)
        plan = self._plans.get(wanted)
        if plan is None:
            plan = self._plans[wanted] = self._planned(wanted)
        scope = dict(inputs)
        for step in plan:
            self._evaluate(step, scope)
            for name in step.frees:
                scope.pop(name, None)
        return {name: self._read(scope, name) for name in wanted}

    def _evaluate(self, step: _Step, scope: dict[str, Tensor]) -> None:
        attributes = step.attributes
        if step.op_type == "BatchNormalization" and self.training and self._batch_statistics:
            attributes = {**attributes, "training_mode": 1}
        try:
            arguments = [
                None if name is None else self._listed(scope, name) if i in step.host else self._read(scope, name)
                for i, name in enumerate(step.inputs)
            ]
            results = step.function(*arguments, **attributes)
        except (ValueError, RuntimeError, IndexError, TypeError, KeyError) as problem:
            raise EdgewrightError(
                "E212", f"node `{step.name}` (`{step.op_type}`) cannot be trained through: {problem}"
            ) from problem
        for name, result in zip(step.outputs, results if isinstance(results, tuple) else (results,), strict=False):
            if name is not None:
                scope[name] = result

    def _read(self, scope: Mapping[str, Tensor], name: str) -> Tensor:
        found = scope.get(name)
        if found is None:
            found = self._constants.get(name)
        if found is None:
            found = getattr(self, self._slots[name])
        return found

    def _listed(self, scope: Mapping[str, Tensor], name: str) -> Any:
        if name in scope:
            return scope[name].tolist()
        if name not in self._host:  # constants that operators ask for as numbers are never learnt
            self._host[name] = self._read(scope, name).tolist()
        return self._host[name]

    def _planned(self, outputs: tuple[str, ...]) -> tuple[_Step, ...]:
        known = {*self.inputs, *self._slots, *self._constants, *(n for step in self._steps for n in step.outputs)}
        for name in outputs:
            if name not in known:
                raise EdgewrightError("E231", f"tensor `{name}` is not in the network", hint="edgewright inspect MODEL")
        wanted, kept = set(outputs), []
        seen = set(outputs)
        for step in reversed(self._steps):
            if wanted.isdisjoint(step.outputs):
                continue
            names = {name for name in (*step.inputs, *step.outputs) if name}
            kept.append(replace(step, frees=tuple(sorted(names - seen))))
            seen |= names
            wanted.update(name for name in step.inputs if name)
        return tuple(kept[::-1])

    def channels_last(self) -> Network:
        """The network with weights of two spatial axes laid out as convolutions are fastest; values stay the same."""
        for value in (*self.parameters(), *self.buffers()):
            if value.ndim == 4:
                value.data = value.data.contiguous(memory_format=torch.channels_last)
        return self

    def set_constant(self, name: str, values: Sequence[float]) -> None:
        """Give a float vector of the graph, which is not learnt, other values while it is trained."""
        with torch.no_grad():
            getattr(self, self._slots[name]).copy_(torch.tensor(values))

    # --- weights ------------------------------------------------------------------------------------------------------

    def weights(self) -> dict[str, Tensor]:
        """Everything that training changes, by ONNX name: parameters, and statistics where they are learnt."""
        names = (*self.learnt, *(self.statistics if self._batch_statistics else ()))
        return {name: getattr(self, self._slots[name]) for name in names}

    def quantized(self) -> dict[str, np.ndarray]:
        """The integers that the learnt floats are rounded to, by ONNX name."""
        result = {}
        with torch.no_grad():
            for name, held in self.integers.items():
                result[name] = held.quantized(getattr(self, self._slots[name]))
        return result

    def hold(self) -> None:
        """Pull weights back to where their integers fit the kernels (`graph/int8.py`); call after each step."""
        with torch.no_grad():
            for name, held in self.integers.items():
                held.hold(getattr(self, self._slots[name]))

    def write(self, ir_model: ir.Model) -> int:
        """Write what was learnt into the graph that was read, as new tensors of the same types; returns how many."""
        import onnx_ir as ir

        whole = self.quantized()
        for name, weight in self.weights().items():
            value = ir_model.graph.initializers[name]
            old = value.const_value
            assert old is not None
            array = whole[name] if name in whole else weight.detach().cpu().contiguous().numpy().copy()
            value.const_value = ir.tensor(array.astype(old.numpy().dtype, copy=False), dtype=old.dtype, name=name)
        return len(self.weights())


def require_operators(ir_model: ir.Model) -> None:
    """Refuse a graph with a node that cannot be trained through.

    Raises:
        EdgewrightError: E212 naming the first such node.
    """
    found = [(node, reason) for node in ir_model.graph if (reason := _problem(node)) is not None]
    if found:
        node, reason = found[0]
        more = f"; {len(found) - 1} more such nodes" if len(found) > 1 else ""
        name = node.name or node.outputs[0].name
        raise EdgewrightError("E212", f"node `{name}` (`{node.op_type}`) cannot be trained through: {reason}{more}")


def _problem(node: ir.Node) -> str | None:
    if is_standard(node, "Constant"):
        return None if constant_tensor(node.outputs[0]) is not None else "its constant is no tensor of numbers"
    found = OPERATORS.get(key_of(node))
    if found is None:
        kind = "control flow has no rule" if node.op_type in ("If", "Loop", "Scan") else "this operator has no rule"
        return f"{kind} in `learn`"
    unknown = sorted(set(node.attributes) - found.attributes)
    return f"attribute `{unknown[0]}` is not known" if unknown else None


def _constants(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from (value for value in graph.initializers.values() if value.const_value is not None)
    yield from (node.outputs[0] for node in graph if is_standard(node, "Constant"))


def _value(attribute: ir.Attr) -> Any:
    import onnx_ir as ir

    return _tensor(attribute.as_tensor()) if attribute.type == ir.AttributeType.TENSOR else attribute.value


def _tensor(tensor: ir.TensorProtocol) -> Tensor:
    """A copy in torch; integers of less than a byte become bytes."""
    array = tensor.numpy()
    if tensor.dtype.name in integers.NARROW:
        array = array.astype(np.int8 if tensor.dtype.name.startswith("INT") else np.uint8)
    try:
        return torch.from_numpy(np.array(array))
    except TypeError:
        raise EdgewrightError(
            "E212", f"constant `{tensor.name}` is {tensor.dtype.name}, which cannot be trained through"
        ) from None
