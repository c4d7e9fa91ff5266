"""A file opened by LiteRT's interpreter, for any batch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.contracts import Cut
from edgewright.errors import EdgewrightError
from edgewright.formats.tflite.writing import pack
from edgewright.model import Arrays
from edgewright.runtimes.litert.network import Place, at_batch, cut_to, notes, read, text

#: Interpreters that are kept, each for one batch: memory stays bounded.
_KEPT = 2
_INT32 = np.iinfo(np.int32)


class FileRunner:
    """Runs `path`, or a part of it; the kernels are those that LiteRT takes by itself (XNNPACK where it can).

    The file holds sizes for batch 1. For another batch it is packed anew in memory with that batch's sizes.
    """

    def __init__(self, path: Path, threads: int, cut: Cut | None, outputs: Sequence[str]) -> None:
        self._path, self._threads, self._cut = path, threads, cut
        self._known = notes(path)
        self._outputs = tuple(dict.fromkeys(outputs if cut is None else cut.outputs))
        self._lock = threading.Lock()
        self._open: dict[int, _Opened] = {}
        self._document: Any = None
        self._closed = False
        self._opened(1)

    def run(self, inputs: Arrays, /) -> dict[str, np.ndarray]:
        """All outputs by ONNX name, in ONNX's layout."""
        with self._lock:
            assert not self._closed, "the runner was closed"
            opened = self._opened(self._batch(inputs))
            for name, array in inputs.items():
                opened.feed(name, self._known.places[name], array)
            opened.invoke()
            return {name: opened.fetch(name, self._known.places[name]) for name in self._outputs}

    def close(self) -> None:
        """Free the interpreters."""
        with self._lock:
            self._closed = True
            self._open.clear()
            self._document = None

    def _batch(self, inputs: Arrays) -> int:
        """How many times batch 1 is given."""
        if self._cut is None or self._cut.inputs is None:
            given = [inputs[name].shape[axis] for name, axis in self._known.batch.items() if inputs[name].ndim > axis]
            return max(given[0], 1) if given else 1
        sizes = {text(tensor.name): tensor for tensor in self._network().subgraphs[0].tensors}
        for name, array in inputs.items():
            place = self._known.places[name]
            tensor = sizes[place.tensor]
            if tensor.shapeSignature is not None and len(tensor.shapeSignature) == array.ndim:
                open_ = [at for at, size in enumerate(tensor.shapeSignature) if size < 0]
                if open_ and tensor.shape[open_[0]]:
                    return max(int(array.shape[place.order[open_[0]]]) // int(tensor.shape[open_[0]]), 1)
        return 1

    def _network(self) -> Any:
        """The network as objects; read when a part or another batch of it is asked for."""
        if self._document is None:
            whole = read(self._path)
            self._document = whole if self._cut is None else cut_to(whole, self._known, self._cut)
        return self._document

    def _opened(self, batch: int) -> _Opened:
        if batch not in self._open:
            while len(self._open) >= _KEPT:
                self._open.pop(next(reversed(self._open)))
            self._open[batch] = _Opened(self._source(batch), self._threads)
        return self._open[batch]

    def _source(self, batch: int) -> dict[str, Any]:
        if self._cut is None and batch == 1:
            return {"model_path": str(self._path)}
        network = self._network()
        return {"model_content": bytes(pack(network if batch == 1 else at_batch(network, self._known, batch)))}


class _Opened:
    """An interpreter with its memory."""

    def __init__(self, source: dict[str, Any], threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._interpreter = Interpreter(num_threads=threads, **source)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as problem:
            raise failure("loading", problem) from None
        self._in = {item["name"]: item for item in self._interpreter.get_input_details()}
        self._out = {item["name"]: item for item in self._interpreter.get_output_details()}

    def feed(self, name: str, place: Place, array: np.ndarray) -> None:
        """Copy one input into the interpreter's memory, in the file's layout and type."""
        item = self._in.get(place.tensor)
        if item is None:
            return  # nothing reads it, and the file left it out
        wanted = item["shape"].tolist()
        moved = array.transpose(place.order) if array.ndim == len(place.order) else array
        if list(moved.shape) != wanted or array.dtype != place.dtype:
            sizes = [wanted[place.order.index(axis)] for axis in range(len(wanted))]
            given = f"{array.dtype}{list(array.shape)}"
            raise EdgewrightError("E230", f"input `{name}` is {given}, but the network takes {place.dtype}{sizes}")
        if array.dtype == np.int64 and array.size and (array.min() < _INT32.min or array.max() > _INT32.max):
            raise EdgewrightError("E230", f"input `{name}` has values beyond 32 bits, which LiteRT files here hold")
        scale, zero = item["quantization"]
        if scale and moved.dtype.kind == "f":
            limits = np.iinfo(item["dtype"])
            moved = np.clip(np.rint(moved / np.float32(scale)) + zero, limits.min, limits.max)
        np.copyto(self._interpreter.tensor(item["index"])(), moved, casting="unsafe")

    def invoke(self) -> None:
        """Run once.

        Raises:
            EdgewrightError: E232 where LiteRT fails.
        """
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as problem:
            raise failure("running", problem) from None

    def fetch(self, name: str, place: Place) -> np.ndarray:
        """One output as ONNX has it, in memory of its own."""
        item = self._out[place.tensor]
        view = self._interpreter.tensor(item["index"])()
        moved = view.transpose(np.argsort(place.order)) if view.ndim else view
        scale, zero = item["quantization"]
        if scale and np.dtype(place.dtype).kind == "f":
            moved = (moved.astype(np.float32) - np.float32(zero)) * np.float32(scale)
        made: np.ndarray = np.array(moved, place.dtype, order="C")
        return made


def failure(doing: str, problem: Exception) -> EdgewrightError:
    """The E232 error for an exception of the library."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return EdgewrightError("E232", f"LiteRT failed while {doing} the network: {lines[0] if lines else problem}")
