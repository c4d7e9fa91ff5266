"""Which layers read a group's channels, and the second moments of what these read on the calibrate samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewright.contracts import Context
from edgewright.graph.channels import Group, Member
from edgewright.graph.linear import Linear, find_linear
from edgewright.graph.observing import calibrating, chunks, require_finite
from edgewright.passes.prune_channels._elimination import Reader

if TYPE_CHECKING:
    import onnx_ir as ir

#: Second moments that are held at once.
_HELD_BYTES = 512 * 2**20
#: Longer rows would take too long to eliminate from; other groups' criterion is used.
LONGEST_ROW = 2400


@dataclass(frozen=True, eq=False)
class Reading:
    """A layer that reads a group's channels.

    Attributes:
        layer: The layer.
        units: For each of the group's channels, its inputs in a row of the layer, i64[channels, m].
    """

    layer: Linear
    units: np.ndarray


def readings(ir_model: ir.Model, groups: Sequence[Group]) -> dict[str, list[Reading] | None]:
    """By group the layers that read it; None where one of them is no linear map with rows short enough."""
    layers = {layer.node.inputs[1].name: layer for layer in find_linear(ir_model).values()}
    found: dict[str, list[Reading] | None] = {}
    for group in groups:
        members = [member for member in group.members if member.role == "read"]
        parts = [_reading(layers.get(member.tensor), member) for member in members]
        whole = [part for part in parts if part is not None]
        found[group.name] = whole if whole and len(whole) == len(parts) else None
    return found


def _reading(layer: Linear | None, member: Member) -> Reading | None:
    if layer is None or layer.rows.shape[2] > LONGEST_ROW:
        return None
    if len({len(place) for place in member.places}) != 1:
        return None
    if layer.node.op_type == "Conv":
        kernel = int(np.prod(layer.weight.shape[2:], dtype=np.int64))
        if member.axis != 1:
            return None
    else:
        kernel = 1
        if member.axis != (1 if layer.transposed else 0):
            return None
    places = np.array(member.places, np.int64)  # [channels, places]
    units = (places[:, :, None] * kernel + np.arange(kernel)).reshape(len(places), -1)
    return Reading(layer, units)


def batches(found: Mapping[str, list[Reading] | None]) -> Iterator[list[str]]:
    """Groups whose readers' second moments fit into memory together."""
    batch: list[str] = []
    size = 0
    for name, parts in found.items():
        need = sum(8 * part.layer.groups * (part.layer.rows.shape[2] + 1) ** 2 for part in parts or ())
        if batch and size + need > _HELD_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += need
    if batch:
        yield batch


def moments(
    ir_model: ir.Model, layers: Sequence[Linear], max_samples: int, max_vectors: int, context: Context
) -> dict[str, np.ndarray]:
    """Mean second moments of what layers read, and a constant 1, by layer, f64[G, K + 1, K + 1].

    Raises:
        EdgewrightError: E212 where a tensor is not finite, E301 without calibrate samples.
    """
    samples = calibrating(context, step="prune_channels")
    sums = {layer.name: np.zeros((layer.groups, layer.rows.shape[2] + 1, layer.rows.shape[2] + 1)) for layer in layers}
    counts = dict.fromkeys(sums, 0)
    by_data: dict[str, list[Linear]] = {}
    for layer in layers:
        by_data.setdefault(layer.data.name or "", []).append(layer)
    rng = np.random.default_rng(context.seed)
    limit = max(1, max_vectors // min(max_samples, len(samples)))
    fed = {value.name for value in ir_model.graph.inputs}
    for chunk in chunks(ir_model, by_data):
        inner = [name for name in chunk if name not in fed]
        run = context.runner(ir_model, inner) if inner else None
        for sample in samples.spread(max_samples):
            shown = dict(sample.arrays) | (dict(run(sample.arrays)) if run is not None else {})
            for name in chunk:
                require_finite(name, shown[name], sample, step="prune_channels")
                for layer in by_data[name]:
                    count = layer.places(shown[name])
                    picked = np.arange(count) if count <= limit else rng.integers(0, count, limit)
                    rows = layer.patches(shown[name], picked)
                    full = np.concatenate([rows, np.ones((*rows.shape[:2], 1), np.float32)], axis=2)
                    sums[layer.name] += full.transpose(0, 2, 1) @ full
                    counts[layer.name] += len(picked)
    return {name: total / max(counts[name], 1) for name, total in sums.items()}


def reader(part: Reading, second: np.ndarray) -> Reader:
    """The state that elimination starts from."""
    rows = part.layer.rows
    offsets = part.layer.offsets.reshape(rows.shape[0], rows.shape[1], 1)
    return Reader.of(part.layer.name, np.concatenate([rows, offsets], axis=2), second, part.units)
