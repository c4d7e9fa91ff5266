"""What a server says about itself and its models: metadata, configuration, index, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import edgewright
from edgewright.model import TensorInfo
from edgewright.serve.core.repository import Entry
from edgewright.serve.core.version import Version
from edgewright.serve.protocol.datatypes import datatype_of

#: As Triton names them, so that clients find what they look for.
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics", "schedule_policy")


def server_metadata() -> dict[str, Any]:
    """`GET v2`."""
    return {"name": "edgewright", "version": edgewright.__version__, "extensions": list(EXTENSIONS)}


def model_metadata(version: Version, numbers: Sequence[int]) -> dict[str, Any]:
    """`GET v2/models/NAME`: what goes in and what comes out; open sizes are -1."""
    return {
        "name": version.name,
        "versions": [str(number) for number in numbers],
        "platform": f"edgewright_{version.bundle.runtime}",
        "inputs": [_tensor(info) for info in version.bundle.inputs],
        "outputs": [_tensor(info) for info in version.bundle.outputs],
        "parameters": {
            "task": version.bundle.spec.task,
            "precision": version.bundle.precision,
            "bundle_hash": version.bundle.hash,
        },
    }


def model_config(version: Version) -> dict[str, Any]:
    """`GET v2/models/NAME/config` in the form of Triton's ModelConfig.

    `max_batch_size` is 0 where requests are not batched; then the batch is one of `dims`, else it is left out of them.
    """
    options = version.options
    batched = version.batch is not None and options.max_batch > 1
    first = 1 if batched else 0
    document: dict[str, Any] = {
        "name": version.name,
        "platform": f"edgewright_{version.bundle.runtime}",
        "backend": version.bundle.runtime,
        "version_policy": _policy(options.versions),
        "max_batch_size": options.max_batch if batched else 0,
        "input": [{**_config_tensor(info, first), "format": "FORMAT_NONE"} for info in version.bundle.inputs],
        "output": [_config_tensor(info, first) for info in version.bundle.outputs],
        "instance_group": [{"name": version.name, "kind": "KIND_CPU", "count": options.instances}],
    }
    if batched:
        document["dynamic_batching"] = {"max_queue_delay_microseconds": round(options.max_delay_ms * 1000)}
    return document


def repository_index(entries: Sequence[Entry], *, ready_only: bool) -> list[dict[str, Any]]:
    """`POST v2/repository/index`."""
    return [
        {"name": entry.name, "version": str(entry.version), "state": entry.state, "reason": entry.reason}
        for entry in entries
        if entry.state == "READY" or not ready_only
    ]


def statistics(versions: Sequence[Version]) -> dict[str, Any]:
    """`GET v2/models[/NAME[/versions/N]]/stats`."""
    return {
        "model_stats": [
            {"name": version.name, "version": str(version.number), **version.statistics.document()}
            for version in versions
        ]
    }


def _tensor(info: TensorInfo) -> dict[str, Any]:
    return {"name": info.name, "datatype": datatype_of(info.dtype), "shape": _dims(info)}


def _config_tensor(info: TensorInfo, first: int) -> dict[str, Any]:
    datatype = datatype_of(info.dtype)
    kind = "STRING" if datatype == "BYTES" else datatype
    return {"name": info.name, "data_type": f"TYPE_{kind}", "dims": _dims(info)[first:]}


def _dims(info: TensorInfo) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in info.shape]


def _policy(text: str) -> dict[str, Any]:
    if text == "all":
        return {"all": {}}
    if text.startswith("latest"):
        return {"latest": {"num_versions": int(text.partition(":")[2] or 1)}}
    return {"specific": {"versions": [int(part) for part in text.split(",")]}}
