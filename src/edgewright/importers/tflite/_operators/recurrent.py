"""LSTM over a sequence.

TFLite's gates are in the order input, forget, cell, output, ONNX's in the order input, output, forget, cell. Where TFLite
couples the input gate to the forget gate, it is 1 - forget: the forget gate's weights with the other sign, since
1 - sigmoid(x) = sigmoid(-x).

Source: tensorflow/lite/kernels/unidirectional_sequence_lstm.cc and lstm_eval.cc; ONNX operator LSTM.
"""

from __future__ import annotations

import numpy as np

from edgewright.importers.tflite._site import Site

#: Numbers of inputs, each for the gates input, forget, cell, output.
_INPUT, _RECURRENT, _PEEPHOLE, _BIAS = (1, 2, 3, 4), (5, 6, 7, 8), (9, 10, None, 11), (12, 13, 14, 15)
_TO_ONNX = (0, 3, 1, 2)


def sequence_lstm(site: Site) -> None:
    """UNIDIRECTIONAL_SEQUENCE_LSTM, beginning from zeros.

    TFLite cuts cells off at `cell_clip`. A cell grows by less than 1 in a step, so over as many steps, or fewer, nothing is
    cut off; over more the graph leaves it out, with a warning.
    """
    _check(site)
    weights, recurrent = _gates(site, _INPUT), _gates(site, _RECURRENT)
    hidden = recurrent.shape[1] // 4
    inputs = [
        weights,
        recurrent,
        np.concatenate([_gates(site, _BIAS)[..., 0], np.zeros((1, 4 * hidden), np.float32)], axis=1),
    ]
    names = ("input_weights", "recurrent_weights", "bias")
    constants = [_constant(site, array, name) for array, name in zip(inputs, names, strict=True)]
    if site.has(10):
        peepholes = _gates(site, _PEEPHOLE)[..., 0].reshape(4, hidden)[:3].reshape(1, -1)
        constants += [None, None, None, _constant(site, peepholes, "peepholes")]
    batch_first = not site.option("time_major")
    value = site.real(0)
    value = site.graph.node("Transpose", value, perm=[1, 0, 2]) if batch_first else value
    made = site.graph.nodes("LSTM", value, *constants, outputs=3, hidden_size=hidden)[0]
    made = site.graph.node("Squeeze", made, site.graph.numbers([1]))
    site.done(site.graph.node("Transpose", made, perm=[1, 0, 2]) if batch_first else made, activation=False)


def _check(site: Site) -> None:
    """Refuse what ONNX's LSTM has not."""
    if site.rank(0) != 3:
        raise site.refuse(f"{site.describe(0)} has {site.rank(0)} axes, but must have 3")
    if site.option("fused_activation_function", 4) != 4:
        raise site.refuse("its activation is not TANH", "E204")
    if any(site.has(number) for number in (16, 17)) or any(site.has(number) for number in range(20, 24)):
        raise site.refuse("a projection or layer normalization inside it has no form in ONNX", "E204")
    if site.network.steps(site.index(0)) is not None:
        raise site.refuse("its state is quantized, which has no form in ONNX", "E204")
    clip = float(site.option("cell_clip"))
    steps = site.shape(0)[0 if site.option("time_major") else 1]
    if clip > 0 and not (isinstance(steps, int) and steps <= clip):
        site.network.warnings.append(
            f"`{site.network.file_name}`: operator {site.operator.index} {site.operator.kind} cuts cells off at {clip:g}, "
            f"which the import leaves out; over {steps or 'any number of'} steps a cell may grow beyond"
        )


def _gates(site: Site, numbers: tuple[int | None, ...]) -> np.ndarray:
    """The four gates' constants one under the other in ONNX's order, f32[1, 4 * hidden, columns]."""
    hidden, width = _sizes(site, numbers)
    found: list[np.ndarray] = []
    for gate, number in enumerate(numbers):
        if number is not None and site.has(number):
            array = _real(site, number)
        elif gate == 0 and not site.has(1):
            array = -_real(site, numbers[1] or 0)  # coupled
        else:
            array = np.zeros((hidden, width), np.float32)
        found.append(array.reshape(array.shape[0] if array.ndim else 1, -1).astype(np.float32))
        if found[-1].shape != (hidden, width):
            raise site.refuse(f"its weights have the shapes {found[-1].shape} and {(hidden, width)}")
    return np.concatenate([found[gate] for gate in _TO_ONNX])[None]


def _sizes(site: Site, numbers: tuple[int | None, ...]) -> tuple[int, int]:
    hidden = _real(site, 6).shape[0] if _real(site, 6).ndim == 2 else 0
    width = _real(site, 2).shape[-1] if numbers == _INPUT else hidden if numbers == _RECURRENT else 1
    if hidden < 1 or width < 1:
        raise site.refuse("its weights have no two axes")
    return hidden, width


def _real(site: Site, number: int) -> np.ndarray:
    array = site.network.real_array(site.index(number))
    if array is None:
        raise site.refuse(f"{site.describe(number)} is computed when it runs, and must be constant", "E209")
    return array


def _constant(site: Site, array: np.ndarray, name: str) -> object:
    return site.graph.constant(array, site.graph.fresh(f"{site.graph.scope}:{name}"))
