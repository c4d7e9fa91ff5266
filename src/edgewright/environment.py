"""Environment: where numbers were made, and Record, the base of everything that carries them."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from edgewright.options import build
from edgewright.target import host_cpu_name, host_features


class Record:
    """Base of all records: `to_json` gives nested plain values; nan and infinities become strings."""

    def to_json(self) -> dict[str, Any]:
        """This record as JSON-ready values."""
        assert dataclasses.is_dataclass(self)
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The record that `to_json` wrote.

        Raises:
            EdgewrightError: E103 when the document is not such a record.
        """
        return build(cls, document, where=cls.__name__)


def _plain(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


@dataclass(frozen=True)
class Environment(Record):
    """Where numbers were made."""

    host: str
    system: str
    cpu: str
    cpu_features: tuple[str, ...]
    cores: int
    memory_bytes: int
    python: str
    versions: Mapping[str, str]

    @classmethod
    def here(cls) -> Environment:
        """The environment of this process."""
        return _environment()


@functools.cache
def _environment() -> Environment:
    versions = {}
    for name in ("edgewright", "numpy", "onnx", "onnx-ir", "onnxruntime", "openvino", "ncnn", "ai-edge-litert"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Environment(
        host=platform.node(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=host_cpu_name(),
        cpu_features=host_features(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        python=platform.python_version(),
        versions=versions,
    )


def _memory_bytes() -> int:
    """Physical memory."""
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    import psutil  # where POSIX is not

    return int(psutil.virtual_memory().total)
