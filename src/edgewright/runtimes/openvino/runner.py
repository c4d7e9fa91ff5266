"""A compiled OpenVINO network that takes any batch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.model import Arrays
from edgewright.runtimes.openvino.failures import failure
from edgewright.runtimes.openvino.layers import times_by_tensor

#: A network with a symbolic batch is compiled anew, with fixed sizes, for the first batches it meets (fixed sizes ran
#: 1.0 to 1.3 times as fast); every further one runs on one copy with open sizes, so memory stays bounded.
_FIXED_COPIES = 2


class CompiledRunner:
    """A compiled network with its own `Core`: closing it ends its threads.

    An infer request serves one caller at a time, so runs from several threads take turns.
    """

    def __init__(self, core: Any, network: Any, settings: Mapping[str, Any], outputs: Sequence[str]) -> None:
        self._core: Any = core
        self._network = network
        self._settings = dict(settings)
        self._outputs = tuple(dict.fromkeys(outputs))
        self._lock = threading.Lock()
        self._index = {name: number for number, port in enumerate(network.inputs) for name in port.get_names()}
        self._fixed: dict[tuple[int, ...], Any] = {}
        self._open: Any = None
        self._batched = _only_batch_is_open(network)
        if self._batched:
            with contextlib.suppress(EdgewrightError):  # a network that is only valid for larger batches
                self._request(tuple(1 for port in network.inputs if port.get_partial_shape().is_dynamic))
        if not self._fixed:
            self._open = self._compile(network)

    def run(self, inputs: Arrays, /) -> dict[str, np.ndarray]:
        """All outputs by ONNX name, in memory of their own."""
        feeds = {self._index[name]: np.asarray(array, order="C") for name, array in inputs.items()}
        with self._lock:
            assert self._core is not None, "the runner was closed"
            self._check(inputs, feeds)
            try:
                results = self._request(self._batches(feeds)).infer(feeds, share_inputs=True, share_outputs=False)
            except RuntimeError as problem:
                raise failure("running", problem) from None
        return dict(zip(self._outputs, results.to_tuple(), strict=True))

    def close(self) -> None:
        """Free the compiled copies and end their threads."""
        with self._lock:
            self._fixed.clear()
            self._open = self._network = self._core = None

    def times(self, inputs: Arrays, known: Mapping[str, str]) -> dict[str, float]:
        """Milliseconds of the last run of `inputs`' shape by tensor of `known`; needs PERF_COUNT."""
        request = self._request(self._batches({self._index[name]: array for name, array in inputs.items()}))
        return times_by_tensor(self._network, request, known)

    def _check(self, inputs: Arrays, feeds: Mapping[int, np.ndarray]) -> None:
        import openvino

        for name in inputs:
            array, port = feeds[self._index[name]], self._network.inputs[self._index[name]]
            takes, dtype = port.get_partial_shape(), port.get_element_type().to_dtype()
            if array.dtype != dtype or not takes.compatible(openvino.PartialShape(list(array.shape))):
                given = f"{array.dtype}{list(array.shape)}"
                raise EdgewrightError("E230", f"input `{name}` is {given}, but the network takes {dtype}{takes}")

    def _batches(self, feeds: Mapping[int, np.ndarray]) -> tuple[int, ...]:
        ports = enumerate(self._network.inputs)
        return tuple(feeds[number].shape[0] for number, port in ports if port.get_partial_shape().is_dynamic)

    def _request(self, batches: tuple[int, ...]) -> Any:
        """The infer request for these sizes of the open first axes."""
        if self._batched and batches not in self._fixed and len(self._fixed) < _FIXED_COPIES:
            try:
                network = _with_batches(self._network, batches)
            except RuntimeError as problem:
                raise failure(f"setting the sizes {list(batches)} of", problem) from None
            self._fixed[batches] = self._compile(network)
        if batches in self._fixed:
            return self._fixed[batches]
        if self._open is None:
            self._open = self._compile(self._network)
        return self._open

    def _compile(self, network: Any) -> Any:
        try:
            return self._core.compile_model(network, "CPU", self._settings).create_infer_request()
        except RuntimeError as problem:
            raise failure("compiling", problem) from None


def _only_batch_is_open(network: Any) -> bool:
    """True where some input's first size is symbolic and no other size of any input is."""
    shapes = [port.get_partial_shape() for port in network.inputs]
    if any(shape.rank.is_dynamic for shape in shapes) or all(shape.is_static for shape in shapes):
        return False
    return all(size.is_static for shape in shapes for size in list(shape)[1:])


def _with_batches(network: Any, batches: tuple[int, ...]) -> Any:
    """A copy of `network` whose open first axes have these sizes.

    Not by OpenVINO's `reshape`: that mends operators which do not fit the new sizes, so a batch that the network cannot
    take would get an answer instead of an error.
    """
    copy = network.clone()
    left = list(batches)
    for parameter in copy.get_parameters():
        shape = parameter.get_partial_shape()
        if shape.is_dynamic:
            shape[0] = left.pop(0)
            parameter.set_partial_shape(shape)
    copy.validate_nodes_and_infer_types()
    return copy
