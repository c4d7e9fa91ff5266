"""Which tensor of the network an executed node of OpenVINO belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Time of nodes that only change the memory layout, and of nodes that no tensor of the network belongs to.
REORDER, OTHER = "(reorder)", "(other)"


def times_by_tensor(network: Any, request: Any, known: Mapping[str, str]) -> dict[str, float]:
    """Milliseconds of the request's last run by tensor of `known`; the network was compiled with PERF_COUNT."""
    origins = _origins(request.get_compiled_model().get_runtime_model(), _owners(network, known))
    times: dict[str, float] = {}
    for entry in request.get_profiling_info():
        spent = entry.real_time.total_seconds() * 1000
        if spent > 0:
            key = REORDER if entry.node_type == "Reorder" else origins.get(entry.node_name, OTHER)
            times[key] = times.get(key, 0.0) + spent
    return times


def _owners(network: Any, known: Mapping[str, str]) -> dict[str, tuple[int, str]]:
    """Operation name -> (position, tensor of `known` it belongs to): its own, else that of what reads it first."""
    owners: dict[str, tuple[int, str]] = {}
    for position, operation in reversed(list(enumerate(network.get_ordered_ops()))):
        own = [name for port in operation.outputs() for name in sorted(port.get_names()) if name in known]
        inherited = [owners[name][1] for name in _readers(operation) if name in owners]
        if operation.get_type_name() != "Result" and (own or inherited):
            owners[operation.get_friendly_name()] = (position, (own or inherited)[0])
    return owners


def _origins(runtime_network: Any, owners: Mapping[str, tuple[int, str]]) -> dict[str, str]:
    """Executed node's name -> the last tensor, in graph order, of the operations fused into it.

    OpenVINO lists those in the node's `originalLayersNames`. Nodes that it made itself (of a bidirectional LSTM, say)
    belong to the tensor of what reads them.
    """
    origins: dict[str, str] = {}
    for node in reversed(runtime_network.get_ordered_ops()):
        names = str(node.get_rt_info()["originalLayersNames"].value).split(",")
        found = [owners[name] for name in names if name in owners]
        inherited = [origins[name] for name in _readers(node) if name in origins]
        if found or inherited:
            origins[node.get_friendly_name()] = max(found)[1] if found else inherited[0]
    return origins


def _readers(operation: Any) -> list[str]:
    return [
        reader.get_node().get_friendly_name() for port in operation.outputs() for reader in port.get_target_inputs()
    ]
