"""Requests and answers on the wire: remembered heads change nothing, answers are what protobuf would write."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from edgewright.serve import Server
from edgewright.serve.core.jobs import RefusalError
from edgewright.serve.protocol.limits import Limits
from edgewright.serve.protocol.reading import InferRequest

pytest.importorskip("google.protobuf", reason="needs the extra `serve`")

from edgewright.serve.grpc import schema, wire

#: Names, types and shapes of the inputs by each form that a reader gave.
FORMS: dict[object, dict[str, object]] = {}


def request(*arrays: np.ndarray, **fields: Any) -> bytes:
    message = schema.load("inference").messages["ModelInferRequest"](model_name="scale", **fields)
    for index, array in enumerate(arrays):
        message.inputs.add(name=f"x{index}", datatype={"f4": "FP32", "i8": "INT64"}[array.dtype.str[1:]])
        message.inputs[index].shape.extend(array.shape)
        message.raw_input_contents.append(array.tobytes())
    content: bytes = message.SerializeToString()
    return content


def outcome(reader: wire.Reader, data: bytes) -> object:
    """What is read, as something that can be compared."""
    try:
        model, number, asked, form = reader.read(data)
    except RefusalError as problem:
        return problem.reason, problem.message
    arrays = {name: (array.dtype, array.shape, array.tobytes()) for name, array in asked.inputs.items()}
    if form is not None:  # it says what the arrays are, and nothing else
        found = FORMS.setdefault(form, {name: kind[:2] for name, kind in arrays.items()})
        assert found == {name: kind[:2] for name, kind in arrays.items()}
    return model, number, asked._replace(inputs={}), arrays


def test_a_head_that_was_seen_reads_as_it_did_the_first_time() -> None:
    """Damage of all kinds behind and within heads that are remembered: the same arrays, or the same refusal."""
    chance, limits = random.Random(0), Limits()
    numbers = np.random.default_rng(0)
    seeds = [
        request(numbers.random((2, 3), np.float32)),
        request(numbers.random((1, 40), np.float32), numbers.integers(0, 9, (3,)), id="seven", model_version="1"),
        request(numbers.random((200,), np.float32)),  # its length takes two bytes
    ]
    warm = wire.Reader(limits)
    for seed in seeds:
        warm.read(seed)
    read = 0
    for _ in range(3000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice([0, 1, 1, 2])):
            place = chance.randrange(len(data))
            data[place : place + chance.choice([0, 1, 1, 4])] = chance.choice(
                [b"", b"\0", b"\x3a", b"\x3a\0", b"\x80", chance.randbytes(2), bytes(data[:8])]
            )
        found = outcome(warm, bytes(data))
        assert found == outcome(wire.Reader(limits), bytes(data)), bytes(data)
        read += len(found) == 4  # type: ignore[arg-type]
    assert 500 < read < 2900  # both happen


def test_other_tensors_behind_the_same_head_are_read_anew() -> None:
    reader = wire.Reader(Limits())
    for value in (1.0, 2.0, 3.0):
        found = reader.read(request(np.full((2, 2), value, np.float32)))
        assert found.request.inputs["x0"].tolist() == [[value, value]] * 2
        assert (found.form is None) == (value == 1.0)  # at first nothing is known
    with pytest.raises(RefusalError, match="takes 16 bytes, but has 12"):
        reader.read(request(np.zeros((2, 2), np.float32))[:-18] + b"\x3a\x0c" + bytes(12))


@pytest.mark.parametrize("fields", [b"\x2a\0", b"\x32\0", b"\x3a\0"])
def test_many_small_fields_take_no_memory(fields: bytes) -> None:
    """Two bytes of a message become a hundred once protobuf has read them: beyond the limit of JSON it never does."""
    reader = wire.Reader(Limits(json_bytes=2**12))
    with pytest.raises(RefusalError, match="beside raw contents a request may have 4096 bytes"):
        reader.read(fields * 2**12)
    large = request(np.zeros(2**14, np.float32))
    assert reader.read(large).request.inputs["x0"].nbytes == 2**16  # raw contents are no such fields


@pytest.mark.parametrize("name, kind", [("scale", np.float32), ("kinds", None)])
def test_an_answer_is_what_protobuf_writes(whole: Server, name: str, kind: Any) -> None:
    version = whole.repository.get(name)
    outputs = {
        info.name: np.array(["a", "\u00e9"], object)
        if info.dtype in ("object", "str", "string")
        else np.ones(300, info.dtype)
        for info in version.bundle.outputs
    }
    asked = InferRequest(inputs={}, id="seven")
    data = wire.write(asked, version, outputs)
    message = schema.load("inference").methods["ModelInfer"].response.FromString(data)
    assert message.SerializeToString() == data
    assert [output.name for output in message.outputs] == list(outputs)
    assert (message.model_name, message.model_version, message.id) == (name, "1", "seven")
    raw = dict(zip(outputs, message.raw_output_contents, strict=True))
    for output, array in outputs.items():
        if array.dtype.kind != "O":
            assert raw[output] == array.tobytes()
    stream = schema.load("inference").methods["ModelStreamInfer"].response.FromString(wire.in_stream(data))
    assert stream.infer_response == message and not stream.error_message
