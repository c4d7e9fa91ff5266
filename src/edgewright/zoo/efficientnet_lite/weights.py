"""Where a network's weights come from: a checkpoint in which every tensor is accounted for, or a seed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from edgewright.errors import EdgewrightError

#: Problems of one kind that an error lists.
_SHOWN = 5
_STATISTICS = (".running_mean", ".running_var")


class Weights:
    """Tensors by their state-dict key, each taken once.

    A checkpoint may hold more than the network (an optimizer, averaged weights): the container in which `anchor` is
    found is the network, and within it every tensor must be taken.

    Attributes:
        parameters: Trainable numbers taken so far; batch-norm statistics are not counted.
    """

    def __init__(
        self, tensors: Mapping[str, np.ndarray] | None, *, where: str, anchor: str = "", seed: int = 0
    ) -> None:
        self.parameters = 0
        self._where = where
        self._seed = seed
        self._random = tensors is None
        self._prefix = "" if tensors is None else _container(tensors, anchor, where)
        self._tensors = {} if tensors is None else _inside(tensors, self._prefix)
        self._unused = set(self._tensors)
        self._missing: list[str] = []
        self._misfits: list[str] = []

    def rows(self, key: str) -> int | None:
        """First size of a tensor of the checkpoint; None where there is none."""
        tensor = self._tensors.get(key)
        return tensor.shape[0] if tensor is not None and tensor.ndim else None

    def take(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor as float32 of that shape; a stand-in where it does not fit, which `finish` refuses."""
        if not key.endswith(_STATISTICS):
            self.parameters += int(np.prod(shape))
        if self._random:
            return _random(key, shape, self._seed)
        self._unused.discard(key)
        tensor = self._tensors.get(key)
        if tensor is None:
            self._missing.append(key)
        elif problem := _misfit(key, tensor, shape):
            self._misfits.append(f"`{self._prefix}{key}` {problem}")
        else:
            return np.ascontiguousarray(tensor, np.float32)
        return np.broadcast_to(np.float32(0), shape)

    def skip(self, key: str) -> None:
        """Account for a tensor that inference does not need."""
        self._unused.discard(key)

    def finish(self, network: str) -> None:
        """Check that every tensor was there, fitted and was taken.

        Raises:
            EdgewrightError: E208, naming the first of each kind.
        """
        unused = [self._prefix + key for key in self._tensors if key in self._unused]
        missing = [self._prefix + key for key in self._missing]
        details = [
            *_listed("missing", [f"`{key}`" for key in missing]),
            *_listed("not used", [f"`{key}`" for key in unused]),
            *_listed("misfits", self._misfits),
        ]
        if details:
            raise EdgewrightError(
                "E208",
                f"checkpoint `{self._where}` does not fit `{network}` with these options: {len(missing)} tensors are "
                f"missing, {len(unused)} are not used, {len(self._misfits)} do not fit",
                details=tuple(details),
                hint="choose the network and the options the weights were made for: edgewright list zoo",
            )


def _container(tensors: Mapping[str, np.ndarray], anchor: str, where: str) -> str:
    found = [key.removesuffix(anchor) for key in tensors if key == anchor or key.endswith(f".{anchor}")]
    if not found or "" in found:
        return ""
    if len(found) > 1:
        names = ", ".join(f"`{prefix.rstrip('.')}`" for prefix in found)
        raise EdgewrightError(
            "E208",
            f"checkpoint `{where}` holds {len(found)} networks: {names}",
            hint='save the one you want alone: torch.save(model.state_dict(), "weights.pth")',
        )
    return found[0]


def _inside(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key[len(prefix) :]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _misfit(key: str, tensor: np.ndarray, shape: tuple[int, ...]) -> str | None:
    if tensor.shape != shape:
        return f"is {list(tensor.shape)}, the network takes {list(shape)}"
    if tensor.dtype.kind != "f":
        return f"is {tensor.dtype}, the network takes floats"
    with np.errstate(over="ignore"):
        if not np.isfinite(np.asarray(tensor, np.float32)).all():
            return "holds a value that is no finite float32"
    if key.endswith(".running_var") and tensor.size and tensor.min() < 0:
        return f"holds a negative variance ({tensor.min():g})"
    return None


def _listed(what: str, items: list[str]) -> list[str]:
    if not items:
        return []
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return [f"{what}: {', '.join(items[:_SHOWN])}{more}"]


def _random(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    # Each tensor has a stream of its own, so that its numbers do not depend on what else the network has.
    uniform = np.random.default_rng([seed, zlib.crc32(key.encode())]).random(shape)
    if (
        len(shape) > 1
    ):  # uniform with variance 1 / fan-in; twice that makes deep networks amplify rounding a hundredfold
        return np.asarray((2 * uniform - 1) * np.sqrt(3 / np.prod(shape[1:])), np.float32)
    if key.endswith(("running_var", ".weight")):
        return np.asarray(0.5 + uniform, np.float32)
    return np.asarray(0.2 * uniform - 0.1, np.float32)
