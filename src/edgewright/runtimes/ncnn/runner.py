"""An opened ncnn network: arrays in, arrays out, one sample after the other."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.contracts import Cut
from edgewright.errors import EdgewrightError
from edgewright.graph.cut import unknown_tensor
from edgewright.model import Arrays

PARAM, WEIGHTS, TENSORS = "model.param", "model.bin", "tensors.json"


@dataclass(frozen=True)
class Place:
    """Where a tensor lies, as `tensors.json` says.

    Attributes:
        blob: Name of the blob.
        dims: Its sizes, outermost first.
        shape: The tensor's in ONNX, for one sample.
        axis: Axis of the batch; None where there is none.
        dtype: numpy's name.
        scale: Step of a blob of integers; None where it holds floats.
    """

    blob: str
    dims: tuple[int, ...]
    shape: tuple[int, ...]
    axis: int | None
    dtype: str
    scale: float | None = None

    def to_json(self) -> list[Any]:
        """As a row of `tensors.json`."""
        return [self.blob, list(self.dims), list(self.shape), self.axis, self.dtype, self.scale]

    def part(self, array: np.ndarray, number: int) -> np.ndarray:
        """Sample `number` of a tensor as the floats that the blob takes, those of integers by what they mean."""
        if self.axis is not None:
            length = self.shape[self.axis]
            array = array.take(range(number * length, (number + 1) * length), axis=self.axis)
        values: np.ndarray = np.array(array, np.float32, order="C").reshape(self.dims)
        return values * np.float32(self.scale) if self.dtype == "int8" and self.scale else values

    def shaped(self, array: np.ndarray) -> np.ndarray:
        """The tensor of one sample from the blob's numbers."""
        array = array.reshape(self.shape)
        if self.scale and self.dtype != "int8":
            array = array * np.float32(self.scale)
        return array.astype(self.dtype)


def read_places(path: Path) -> dict[str, Place]:
    """The rows of `tensors.json` by ONNX tensor name.

    Raises:
        EdgewrightError: E232 when the file is not what `convert` writes.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {name: Place(row[0], tuple(row[1]), tuple(row[2]), *row[3:]) for name, row in rows.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as problem:
        raise EdgewrightError("E232", f"`{path}` cannot be read: {problem}") from None


def load(folder: Path, *, threads: int, half: bool) -> Any:
    """The network in `folder`, ready to run.

    Without `half` every layer computes in float32: by default ncnn narrows activations and weights to float16 on CPUs
    that have it. int8 layers are those that the file says.

    Raises:
        EdgewrightError: E232 when ncnn rejects the files.
    """
    import ncnn

    net = ncnn.Net()
    options = net.opt
    options.num_threads = threads
    options.use_vulkan_compute = False
    options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = half
    options.use_bf16_storage = options.use_bf16_packed = False
    if net.load_param(str(folder / PARAM)) != 0:
        raise EdgewrightError("E232", f"ncnn rejects `{folder / PARAM}`")
    if net.load_model(str(folder / WEIGHTS)) != 0:
        raise EdgewrightError("E232", f"ncnn rejects `{folder / WEIGHTS}`")
    return net


class NetRunner:
    """A loaded net and the tensors that go in and come out."""

    def __init__(
        self, net: Any, places: Mapping[str, Place], inputs: Sequence[str], outputs: Sequence[str], *, light: bool
    ) -> None:
        self._net: Any = net
        self._light = light
        self._lock = threading.Lock()
        self._inputs = {name: places[name] for name in inputs}
        order = {blob.name: number for number, blob in enumerate(net.blobs())}
        self._outputs = {name: places[name] for name in dict.fromkeys(outputs)}
        #: What is made first is taken first: the layer that reads a blob may change it in place.
        self._blobs = sorted({place.blob for place in self._outputs.values()}, key=lambda name: order[name])

    def run(self, inputs: Arrays, /) -> dict[str, np.ndarray]:
        """All outputs by ONNX name, in memory of their own.

        Raises:
            EdgewrightError: E230 for an array of another type or shape, E232 when ncnn fails.
        """
        count = self._count(inputs)
        with self._lock:
            assert self._net is not None, "the runner was closed"
            samples = [self._sample(inputs, number) for number in range(count)]
        return {name: _joined([sample[name] for sample in samples], place) for name, place in self._outputs.items()}

    def close(self) -> None:
        """Free the net."""
        with self._lock:
            if self._net is not None:
                self._net.clear()
            self._net = None

    def _count(self, inputs: Arrays) -> int:
        """Samples in `inputs`."""
        counts = set()
        for name, place in self._inputs.items():
            shape, axis = inputs[name].shape, place.axis
            if inputs[name].dtype != place.dtype:
                raise EdgewrightError(
                    "E230", f"input `{name}` is {inputs[name].dtype.name}, but the network takes {place.dtype}"
                )
            one = (
                shape if axis is None or axis >= len(shape) else (*shape[:axis], place.shape[axis], *shape[axis + 1 :])
            )
            if one != place.shape or (axis is not None and shape[axis] % place.shape[axis]):
                raise EdgewrightError(
                    "E230",
                    f"input `{name}` has shape {list(shape)}, but the network takes {list(place.shape)} a sample",
                )
            if axis is not None:
                counts.add(shape[axis] // place.shape[axis])
        if len(counts) > 1:
            raise EdgewrightError("E230", f"inputs hold different numbers of samples: {sorted(counts)}")
        return counts.pop() if counts else 1

    def _sample(self, inputs: Arrays, number: int) -> dict[str, np.ndarray]:
        import ncnn

        extractor = self._net.create_extractor()
        extractor.set_light_mode(self._light)
        for name, place in self._inputs.items():
            array = place.part(inputs[name], number)  # held by name: a Mat over an array does not keep it alive
            # A copy in memory of ncnn's own: layers that work in place ask how many hold it.
            if extractor.input(place.blob, ncnn.Mat(array).clone()) != 0:
                raise EdgewrightError("E232", f"ncnn takes no input `{name}`")
        results = {}
        for blob in self._blobs:
            code, mat = extractor.extract(blob)
            if code != 0:
                raise EdgewrightError("E232", f"ncnn failed while computing `{blob}` (code {code})")
            results[blob] = np.array(mat)
        return {name: place.shaped(results[place.blob]) for name, place in self._outputs.items()}


def cut_net(net: Any, places: Mapping[str, Place], cut: Cut, inputs: Sequence[str]) -> NetRunner:
    """The part of the net that `cut` names: any blob can be fed, and any be taken.

    Raises:
        EdgewrightError: E231 for a tensor that is not there, or inputs that do not determine the outputs.
    """
    if not cut.outputs:
        raise EdgewrightError("E231", "a cut must name at least one output tensor")
    for name in (*(cut.inputs or ()), *cut.outputs):
        if name not in places:
            raise unknown_tensor(name, places, where="the ncnn network")
    fed = tuple(dict.fromkeys(inputs if cut.inputs is None else cut.inputs))
    missing = _missing(net, {places[name].blob for name in fed}, [places[name].blob for name in cut.outputs])
    if missing:
        names = ", ".join(f"`{name}`" for name in sorted(missing))
        raise EdgewrightError(
            "E231", f"the cut's {len(fed)} inputs do not determine its outputs: {names} must be given too"
        )
    return NetRunner(net, places, fed, cut.outputs, light=False)


def _missing(net: Any, fed: set[str], outputs: Sequence[str]) -> set[str]:
    """Inputs of the net that `outputs` depend on and that are not fed."""
    blobs, layers = net.blobs(), net.layers()
    number = {blob.name: index for index, blob in enumerate(blobs)}
    stack, seen, missing = [number[name] for name in outputs], set(), set()
    while stack:
        index = stack.pop()
        if index in seen or blobs[index].name in fed:
            continue
        seen.add(index)
        layer = layers[blobs[index].producer]
        if layer.type == "Input":
            missing.add(blobs[index].name)
        stack.extend(layer.bottoms)
    return missing


def _joined(parts: list[np.ndarray], place: Place) -> np.ndarray:
    return parts[0] if place.axis is None or len(parts) == 1 else np.concatenate(parts, axis=place.axis)
