"""Quantize weights for size: stored in int8 or int4 behind a DequantizeLinear, computed with in float32.

One scale for each output channel (8 bits), or for each block of what a layer sums over (4 bits); scales are those that lose
least. Speed is that of float: runtimes restore the weights when they open the file. Weights that 4 bits would hurt take 8, and
those that 8 bits would hurt stay in float. Source: ONNX operator specification, DequantizeLinear-21, `block_size`.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgewright.contracts import Context
from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import Names, add_initializer, constant_array, is_standard, lift_constants
from edgewright.graph.integers import Narrowed, by_axes, by_blocks
from edgewright.graph.naming import by_reason, names_of, require_float, require_known
from edgewright.graph.selection import take_back_fewest
from edgewright.metrics import sqnr_db

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = None
LOSSY = True
NEEDS_SAMPLES = False
ROUGH = {"select": False}

Operator = Literal["Conv", "ConvTranspose", "GRU", "Gather", "Gemm", "LSTM", "MatMul", "RNN"]
_ALL: tuple[Operator, ...] = ("Conv", "ConvTranspose", "GRU", "Gather", "Gemm", "LSTM", "MatMul", "RNN")
#: Below it the scales, of 32 bits, take more than a quarter of the memory.
_SMALLEST_BLOCK = 16
_RECURRENT = ("GRU", "LSTM", "RNN")


@dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
        bits: Bits of a weight. With 4, tensors that need it take 8.
        block: With 4 bits, most weights that share a scale: the largest divisor of a layer's sum that is no larger.
        min_sqnr_db: Lowest SQNR of a tensor's weights in dB.
        min_weights: Fewest weights of a tensor that is worth it.
        keep: Names of nodes, of tensors that they make or of weights, to leave in float.
        operators: Operators whose weights are stored in integers.
        select: Give more bits, or float, to what the select samples need, where there are some.
    """

    bits: Literal[4, 8] = 8
    block: int = 32
    min_sqnr_db: float = 20.0
    min_weights: int = 1024
    keep: tuple[str, ...] = ()
    operators: tuple[Operator, ...] = _ALL
    select: bool = True


@dataclass(frozen=True, eq=False)
class _Weight:
    """An initializer that may be narrowed: its scales go along `kept` axes, or in blocks along the axis `summed`."""

    name: str
    array: np.ndarray
    operator: str
    kept: tuple[int, ...]
    summed: int


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Narrow in place; returns how many tensors take how many bits, each of them, and what stays in float and why.

    Raises:
        EdgewrightError: E212 for a graph that is quantized already, E103 for an unknown name in `keep` or a `block`
            that is too small.
    """
    require_float(ir_model, step="quantize_weights", recipe="size")
    if config.block < _SMALLEST_BLOCK:
        raise EdgewrightError(
            "E103", f"option `quantize_weights.block` is {config.block}, but must be at least {_SMALLEST_BLOCK}"
        )
    lift_constants(ir_model)
    known = {name for graph in ir_model.graphs() for node in graph for name in names_of(node)}
    known.update(name for graph in ir_model.graphs() for name in graph.initializers)
    require_known(config.keep, known, option="quantize_weights.keep", what="a node, tensor or weight")
    weights, left = _find(ir_model, config)
    narrowed: dict[str, Narrowed] = {}
    for weight in weights:
        found = _narrowest(weight, config.bits, config)
        if found is None:
            left[weight.name] = f"8 bits would be below {config.min_sqnr_db:g} dB"
        else:
            narrowed[weight.name] = found
    stats = _give_more(ir_model, weights, narrowed, config, context) if config.select else {}
    left |= dict.fromkeys(stats.get("given_float", ()), "the select samples need it")
    before = sum(weight.array.nbytes for weight in weights if weight.name in narrowed)
    after = sum(item.integers.size * item.bits // 8 + item.scales.nbytes for item in narrowed.values())
    _write(ir_model, narrowed)
    operators = Counter(weight.operator for weight in weights if weight.name in narrowed)
    return {
        "tensors": {f"{bits} bits": sum(item.bits == bits for item in narrowed.values()) for bits in (4, 8)},
        "operators": dict(sorted(operators.items())),
        "bytes": {"before": before, "after": after},
        "weights": [_described(weight, narrowed[weight.name]) for weight in weights if weight.name in narrowed],
        "float": by_reason(left),
        **stats,
    }


def _described(weight: _Weight, narrowed: Narrowed) -> dict[str, Any]:
    quality = sqnr_db(weight.array, narrowed.restored())
    return {
        "name": weight.name,
        "operator": weight.operator,
        "bits": narrowed.bits,
        "sqnr_db": round(quality, 2) if math.isfinite(quality) else None,  # None: nothing is lost
    }


# --- which weights ----------------------------------------------------------------------------------------------------


def _find(ir_model: ir.Model, config: Config) -> tuple[list[_Weight], dict[str, str]]:
    """Weights to narrow, in the order of their first readers, and why others stay in float, by name."""
    weights: list[_Weight] = []
    left: dict[str, str] = {}
    seen: set[ir.Value] = set()
    for graph in ir_model.graphs():
        for node in graph:
            for index in _positions(node):
                value = node.inputs[index]
                array = constant_array(value)
                if value is None or value in seen or array is None or array.dtype.kind not in "fV":
                    continue
                seen.add(value)
                assert value.name is not None
                found = _weight(value, array, node, index)
                reason = _reason(value, array, node, found, config, ir_model)
                if reason is None and isinstance(found, _Weight):
                    weights.append(found)
                else:
                    left[value.name] = str(reason)
    return weights, left


def _positions(node: ir.Node) -> tuple[int, ...]:
    """Where weights may be among a node's inputs."""
    if not is_standard(node, *_ALL):
        return ()
    if is_standard(node, *_RECURRENT):
        return (1, 2)
    return {"MatMul": (0, 1), "Gather": (0,)}.get(node.op_type, (1,))


def _weight(value: ir.Value, array: np.ndarray, node: ir.Node, index: int) -> _Weight | str:
    """How the scales of a weight go, or why it has none."""
    kind, rank = node.op_type, array.ndim
    kept: tuple[int, ...]
    if rank < 2:
        return "it is a vector"
    if kind == "Conv":
        kept, summed = (0,), 1
    elif kind == "ConvTranspose":
        kept, summed = (1,), 0
    elif kind in _RECURRENT:
        kept, summed = (0, 1), 2
    elif kind == "Gather":
        if node.attributes.get_int("axis", 0) not in (0, -rank):
            return "it is gathered along another axis than the first"
        kept, summed = (0,), 1
    else:
        columns = index == 1 and not (kind == "Gemm" and node.attributes.get_int("transB", 0))
        kept, summed = ((rank - 1,), rank - 2) if columns else ((rank - 2,), rank - 1)
    assert value.name is not None
    return _Weight(value.name, array, kind, kept, summed)


def _reason(
    value: ir.Value, array: np.ndarray, node: ir.Node, found: _Weight | str, config: Config, ir_model: ir.Model
) -> str | None:
    """Why a weight stays in float; None where nothing speaks against integers."""
    readers = [name for use in value.uses() for name in names_of(use.node)]
    reason = found if isinstance(found, str) else None
    if value.graph is not ir_model.graph:
        reason = "it is in a subgraph"
    elif set(config.keep).intersection((value.name, *readers)):
        reason = "asked for"
    elif node.op_type not in config.operators:
        reason = f"{node.op_type} is not in `operators`"
    elif array.dtype != np.float32:
        reason = f"it is {array.dtype}"
    elif value.is_graph_output():
        reason = "the graph returns it"
    elif array.size < max(config.min_weights, 1):
        reason = f"fewer than {config.min_weights} weights"
    elif not np.isfinite(array).all():
        reason = "it holds NaN or infinity"
    return reason


# --- integers ---------------------------------------------------------------------------------------------------------


def _narrowest(weight: _Weight, bits: int, config: Config) -> Narrowed | None:
    """The weight with `bits` bits, or with 8 where these lose too much; None where those do too."""
    for count in (4, 8):
        if count >= bits:
            narrowed = _narrow(weight, count, config.block)
            if sqnr_db(weight.array, narrowed.restored()) >= config.min_sqnr_db:
                return narrowed
    return None


def _narrow(weight: _Weight, bits: int, block: int) -> Narrowed:
    length = weight.array.shape[weight.summed]
    sizes = (size for size in range(min(block, length), _SMALLEST_BLOCK - 1, -1) if length % size == 0)
    size = next(sizes, None) if bits == 4 else None  # OpenVINO takes no block that is cut short
    if size is None:
        return by_axes(weight.array, weight.kept, bits)
    return by_blocks(weight.array, weight.summed, size, bits)


def _give_more(
    ir_model: ir.Model, weights: list[_Weight], narrowed: dict[str, Narrowed], config: Config, context: Context
) -> dict[str, Any]:
    """Give 8 bits to weights with 4, then float to those with 8, as the select samples need; returns statistics.

    What gets float leaves `narrowed`.
    """
    stats: dict[str, Any] = {}
    for bits in (4, 8):
        few = tuple(name for name, item in narrowed.items() if item.bits == bits)
        wide = {w.name: _narrow(w, 8, config.block) for w in weights if w.name in few} if bits == 4 else {}
        changed = functools.partial(_with_few, ir_model, dict(narrowed), few, wide)
        found = take_back_fewest(ir_model, few, changed, context)
        for name in found.taken_back:
            narrowed.pop(name)
        narrowed |= {name: wide[name] for name in found.taken_back if name in wide}
        if found.samples:
            given = {
                name: round(moved, 6) if math.isfinite(moved) else None for name, moved in found.taken_back.items()
            }
            key = "given_8_bits" if bits == 4 else "given_float"
            stats |= {"agreement": found.agreement, "select_samples": found.samples, key: given}
    return stats


def _with_few(
    ir_model: ir.Model,
    narrowed: Mapping[str, Narrowed],
    few: Collection[str],
    wide: Mapping[str, Narrowed],
    names: Collection[str],
) -> ir.Model:
    """A copy in which, of the weights `few`, those of these names are narrow, and others as in `wide`, else float."""
    items = {name: item if name in names or name not in few else wide.get(name) for name, item in narrowed.items()}
    copy = ir_model.clone()
    _write(copy, {name: item for name, item in items.items() if item is not None})
    return copy


# --- the graph --------------------------------------------------------------------------------------------------------


def _write(ir_model: ir.Model, narrowed: Mapping[str, Narrowed]) -> None:
    """Let a DequantizeLinear stand for each of these initializers of the main graph, under its name."""
    import onnx_ir as ir

    graph, names = ir_model.graph, Names(ir_model)
    for name, item in reversed(tuple(narrowed.items())):
        old = graph.initializers[name]
        scales, attributes = _spread(item)
        inputs = [
            _integers(graph, names.fresh(f"{name}:int{item.bits}"), item),
            add_initializer(graph, names.fresh(f"{name}:scale"), scales),
        ]
        given = [ir.AttrInt64(key, value) for key, value in attributes.items()]
        node = ir.Node("", "DequantizeLinear", inputs, given, name=names.fresh_node(f"{name}:dequantize"))
        value = node.outputs[0]
        value.type, value.shape = old.type, old.shape
        graph.insert_before(graph[0], node)
        old.replace_all_uses_with(value)
        del graph.initializers[name]
        value.name = name


def _spread(item: Narrowed) -> tuple[np.ndarray, dict[str, int]]:
    """Scales and attributes as DequantizeLinear takes them: by axis, by block, or one for all."""
    if item.block is not None:
        return item.scales, {"axis": item.block[0], "block_size": item.block[1]}
    axes = [axis for axis, size in enumerate(item.scales.shape) if size > 1]
    if len(axes) > 1:  # two axes have scales of their own: one block is the whole third
        axis = item.scales.shape.index(1)
        return item.scales, {"axis": axis, "block_size": item.integers.shape[axis]}
    return (item.scales.reshape(-1), {"axis": axes[0]}) if axes else (item.scales.reshape(()), {})


def _integers(graph: ir.Graph, name: str, item: Narrowed) -> ir.Value:
    if item.bits == 8:
        return add_initializer(graph, name, item.integers)
    import ml_dtypes

    return add_initializer(graph, name, item.integers.astype(ml_dtypes.int4))
