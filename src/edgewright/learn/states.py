"""Training on disk: one file that appears whole or not at all, and is read without trusting its sizes.

Format: the line `edgewright training 1`, one line of JSON, then the arrays that it lists, f32, one after the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.files import read_whole, write_whole
from edgewright.learn.judging import Best

_FILE = "training.state"
_MAGIC = b"edgewright training 1"
#: Bytes of the JSON line at most.
_MOST_JSON = 64 * 2**20


@dataclass
class State:
    """Where a training stands.

    Attributes:
        step: Steps done.
        seconds: Time spent.
        best: What the select samples said of the best weights, None before the first evaluation.
        kept_step: The step after which they were so.
        stale: Evaluations since.
        curve: What evaluations said, JSON-ready.
        arrays: f32 arrays by name: weights as they are (`now/`), as they were best (`best/`), the optimizer's (`moment/`).
        done: True once training has ended.
        rate: Highest learning rate of the steps after `step`; the one thing that may change when training goes on.
    """

    step: int = 0
    seconds: float = 0.0
    best: Best | None = None
    kept_step: int = 0
    stale: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    done: bool = False
    rate: float = 0.0

    def save(self, folder: Path, fingerprint: str) -> None:
        """Write to `folder`, which is made where it is missing.

        Raises:
            EdgewrightError: E105 when it cannot be written; what was there before stays.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise EdgewrightError("E105", f"folder `{folder}` cannot be made: {problem.strerror}") from None
        best = None if self.best is None else astuple(self.best)
        head = {
            "fingerprint": fingerprint, "step": self.step, "seconds": self.seconds, "best": best,
            "kept_step": self.kept_step, "stale": self.stale, "curve": self.curve, "done": self.done,
            "rate": self.rate,
            "arrays": [[name, list(array.shape)] for name, array in self.arrays.items()],
        }  # fmt: skip
        blobs = [np.ascontiguousarray(array, "<f4").tobytes() for array in self.arrays.values()]
        write_whole(folder / _FILE, b"\n".join((_MAGIC, json.dumps(head).encode(), b"")) + b"".join(blobs))

    @classmethod
    def load(cls, folder: Path, fingerprint: str, most_bytes: int, rate: float) -> State | None:
        """The state in `folder`, None where there is none.

        Args:
            folder: Where it was saved.
            fingerprint: Of the training that is to go on.
            most_bytes: What the arrays of that training may take.
            rate: Highest learning rate from here on: a training that broke off may go on with a smaller one.

        Raises:
            EdgewrightError: E502 when the file is damaged, belongs to another training or ended with another rate, E104
                when it cannot be read.
        """
        path = folder / _FILE
        if not path.exists():
            return None

        def refused(reason: str) -> EdgewrightError:
            return EdgewrightError("E502", f"`{path}` cannot be gone on with: {reason}", hint=f"rm {path}")

        content = read_whole(path, "a training state", most_bytes + _MOST_JSON, refused)
        try:
            magic, line, body = content.split(b"\n", 2)
            head = json.loads(line) if magic == _MAGIC else None
        except ValueError:
            head = None
        if not isinstance(head, Mapping):
            raise refused("it is not a training state, or is cut short")
        if head.get("fingerprint") != fingerprint:
            raise refused("network, samples, seed or options are not those that it was begun with")
        try:
            found = cls(**_fields(head), arrays=_arrays(head["arrays"], body))
        except (KeyError, TypeError, ValueError):
            raise refused("it is damaged") from None
        if found.done and found.rate != rate:
            raise refused(f"that training ended, with a rate of {found.rate:g} and not {rate:g}")
        return replace(found, rate=rate)


def _fields(head: Mapping[str, Any]) -> dict[str, Any]:
    best = head["best"]
    return {
        "step": int(head["step"]), "seconds": float(head["seconds"]),
        "best": None if best is None else Best(*map(float, best)), "kept_step": int(head["kept_step"]),
        "stale": int(head["stale"]), "curve": list(head["curve"]), "done": bool(head["done"]),
        "rate": float(head["rate"]),
    }  # fmt: skip


def _arrays(listed: list[Any], body: bytes) -> dict[str, np.ndarray]:
    """The arrays; views of `body`, so that no size is believed that is not there."""
    found, start = {}, 0
    for name, shape in listed:
        count = math.prod(shape)
        found[str(name)] = np.frombuffer(body, "<f4", count, start).reshape(shape)
        start += 4 * count
    if start != len(body):
        raise ValueError("bytes are left over")
    return found
