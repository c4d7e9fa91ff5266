"""Bytes to requests and answers to bytes: every type both ways, limits, and nothing but refusals for bad input."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from edgewright.serve.core.jobs import RefusalError
from edgewright.serve.core.server import Server
from edgewright.serve.protocol import documents
from edgewright.serve.protocol.datatypes import NUMPY_NAMES, datatype_of, pack_bytes
from edgewright.serve.protocol.limits import Limits
from edgewright.serve.protocol.reading import InferRequest, read_request
from edgewright.serve.protocol.writing import write_response

LIMITS = Limits()
VALUES: dict[str, Any] = {
    "BOOL": np.array([[True, False, True]]),
    **{f"UINT{bits}": np.array([[0, 1, 2**bits - 1]], f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{
        f"INT{bits}": np.array([[-(2 ** (bits - 1)), 0, 2 ** (bits - 1) - 1]], f"int{bits}") for bits in (8, 16, 32, 64)
    },
    "FP16": np.array([[-1.5, 0, 65504]], np.float16),
    "BF16": np.array([[-1.5, 0, 3.0e38]], ml_dtypes.bfloat16),
    "FP32": np.array([[-1.5, 0, 3.0e38]], np.float32),
    "FP64": np.array([[-1.5, 0, 1e300]], np.float64),
    "BYTES": np.array([["", "a", "\u00fc\u2603"]], object),
}


def body(inputs: list[dict[str, Any]], binary: bytes = b"", **fields: Any) -> tuple[bytes, int]:
    head = json.dumps({"inputs": inputs, **fields}).encode()
    return head + binary, len(head)


def tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 3], "datatype": "FP32", **fields}


def test_every_datatype_of_the_protocol_is_tried_here() -> None:
    assert set(VALUES) == set(NUMPY_NAMES)
    assert [datatype_of(array.dtype.name) for array in VALUES.values()] == list(VALUES)


@pytest.mark.parametrize("datatype", VALUES)
@pytest.mark.parametrize("form", ["binary", "flat", "nested"])
def test_values_arrive_as_they_were_sent(datatype: str, form: str) -> None:
    array = VALUES[datatype]
    entry = tensor(datatype=datatype)
    raw = b""
    if form == "binary":
        raw = pack_bytes(array.reshape(-1)) if datatype == "BYTES" else array.tobytes()
        entry["parameters"] = {"binary_data_size": len(raw)}
    else:
        values = (array.astype(np.float64) if datatype in ("FP16", "BF16") else array).tolist()
        entry["data"] = values if form == "nested" else values[0]
    content, length = body([entry], raw)
    found = read_request(content, length, LIMITS).inputs["x"]
    assert found.dtype == array.dtype
    assert found.flags.aligned
    np.testing.assert_array_equal(found, array)


def test_several_tensors_in_binary_come_in_the_order_of_the_inputs() -> None:
    entries = [
        {"name": "a", "shape": [2], "datatype": "INT32", "parameters": {"binary_data_size": 8}},
        {"name": "j", "shape": [1], "datatype": "INT32", "data": [7]},
        {"name": "b", "shape": [3], "datatype": "UINT8", "parameters": {"binary_data_size": 3}},
    ]
    content, length = body(entries, struct.pack("<2i3B", 1, 2, 3, 4, 5))
    found = read_request(content, length, LIMITS).inputs
    assert {name: array.tolist() for name, array in found.items()} == {"a": [1, 2], "j": [7], "b": [3, 4, 5]}


def test_booleans_other_than_0_and_1_become_1() -> None:
    content, length = body([tensor(datatype="BOOL", parameters={"binary_data_size": 3})], bytes([0, 1, 255]))
    found = read_request(content, length, LIMITS).inputs["x"]
    assert found.view(np.uint8).tolist() == [[0, 1, 1]]


def test_what_else_a_request_says() -> None:
    content, length = body(
        [tensor(data=[1, 2, 3])],
        id="mine",
        outputs=[{"name": "y", "parameters": {"binary_data": False}}, {"name": "z"}],
        parameters={"binary_data_output": True, "priority": 3, "timeout": 2_500_000, "other": "ignored"},
    )
    request = read_request(content, None, LIMITS)
    assert length == len(content)
    assert request.id == "mine"
    assert request.wanted == {"y": False, "z": True}
    assert (request.binary, request.priority, request.timeout_s) == (True, 3, 2.5)


BAD: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "cannot be used"),
    "another JSON": (b"[]", "Expected `object`"),
    "nothing": (b"", "cannot be used"),
    "no inputs": (b'{"id": "a"}', "missing required field `inputs`"),
    "not UTF-8": (b'{"inputs": [], "id": "\xff"}', "cannot be used"),
    "deep": (b'{"inputs": [], "more": ' + b"[" * 100_000, "nested too deeply|cannot be used"),
    "deep data": (b'{"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": ' + b"[" * 99_999, "deep|be used"),
    "negative": (tensor(shape=[-1, 3], data=[1]), "negative size"),
    "huge": (tensor(shape=[2**62, 2**62, 4], data=[1]), "more values than a body holds"),
    "large": (tensor(shape=[1000, 1000], data=[1]), "fewer values than 1000000"),
    "axes": (tensor(shape=[1] * 17, data=[1]), "17 axes, at most 16"),
    "datatype": (tensor(datatype="FLOAT", data=[1, 2, 3]), "datatype 'FLOAT' is not known; known: BOOL, UINT8"),
    "few": (tensor(data=[1.0, 2.0]), "takes 3 values, but has 2 values"),
    "many": (tensor(data=[1, 2, 3, 4]), "takes 3 values, but has 4 values"),
    "nested otherwise": (tensor(data=[[1], [2], [3]]), "another nesting"),
    "nested too deeply": (tensor(data=[[[1, 2, 3]]]), "Expected `float`"),
    "ragged": (tensor(shape=[2, 2], data=[[1, 2, 3], [4]]), "another nesting"),
    "text": (tensor(data=["a", "b", "c"]), "Expected `float`"),
    "null": (tensor(data=[1, None, 3]), "Expected `float`"),
    "out of range": (tensor(datatype="UINT8", data=[1, 2, 256]), "value outside UINT8"),
    "below 0": (tensor(datatype="UINT8", data=[1, 2, -1]), "value outside UINT8"),
    "fraction": (tensor(datatype="INT32", data=[1, 2, 2.5]), "Expected `int`"),
    "number for a boolean": (tensor(datatype="BOOL", data=[1, 0, 1]), "Expected `bool`"),
    "no data": (tensor(), "fewer values"),
    "both": (tensor(data=[1, 2, 3], parameters={"binary_data_size": 0}), "both in the JSON and in binary"),
    "parameter": (tensor(data=[1, 2, 3], parameters={"a": {"b": 1}}), "cannot be used"),
    "shared memory": (tensor(parameters={"shared_memory_region": "r"}), "asks for shared memory"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_with_the_reason(name: str) -> None:
    content, message = BAD[name]
    if isinstance(content, dict):
        content = body([content])[0]
    with pytest.raises(RefusalError, match=message) as refused:
        read_request(content, None, LIMITS)
    assert refused.value.reason == "invalid"
    assert len(refused.value.message) < 400


@pytest.mark.parametrize(
    ("entry", "raw", "message"),
    [
        (tensor(parameters={"binary_data_size": 12}), bytes(11), "must be a whole number, 0 to 11"),
        (tensor(parameters={"binary_data_size": 12}), bytes(13), "1 bytes follow the JSON"),
        (tensor(parameters={"binary_data_size": 8}), bytes(8), r"FP32\[1, 3\] takes 12 bytes, but has 8"),
        (tensor(parameters={"binary_data_size": -4}), bytes(4), "must be a whole number"),
        (tensor(parameters={"binary_data_size": True}), bytes(1), "must be a whole number"),
        (tensor(parameters={"binary_data_size": 1.5}), bytes(2), "must be a whole number"),
        (tensor(parameters={"binary_data_size": 1e300}), bytes(2), "must be a whole number"),
        (tensor(datatype="BYTES", parameters={"binary_data_size": 12}), bytes(11) + b"\x01", "is said to have 16777216"),
        (tensor(datatype="BYTES", parameters={"binary_data_size": 13}), bytes(13), "1 bytes more than its 3 values"),
        (tensor(datatype="BYTES", parameters={"binary_data_size": 10}), bytes(10), "fewer values than 3"),
        (tensor(datatype="BYTES", shape=[1], parameters={"binary_data_size": 5}), b"\x01\0\0\0\xff", "not UTF-8"),
        (tensor(datatype="BYTES", shape=[2**40], parameters={"binary_data_size": 4}), bytes(4), "more values than a body"),
    ],
)  # fmt: skip
def test_bad_binary_tensors_are_refused(entry: dict[str, Any], raw: bytes, message: str) -> None:
    content, length = body([entry], raw)
    with pytest.raises(RefusalError, match=message):
        read_request(content, length, LIMITS)


@pytest.mark.parametrize("length", [-1, 10_000])
def test_a_length_of_the_json_outside_the_body_is_refused(length: int) -> None:
    with pytest.raises(RefusalError, match="is said to have"):
        read_request(b"{}", length, LIMITS)


def test_limits_hold() -> None:
    small = Limits(json_bytes=50, tensors=1)
    with pytest.raises(RefusalError, match="more than the limit of 50: send binary"):
        read_request(b" " * 51, None, small)
    content, _ = body([tensor(data=[1, 2, 3])] * 2)
    with pytest.raises(RefusalError, match="1 inputs and outputs at most"):
        read_request(content, None, Limits(tensors=1))
    with pytest.raises(RefusalError, match="given twice"):
        read_request(content, None, LIMITS)


@pytest.mark.parametrize("seed", range(3))
def test_fuzzed_requests_are_read_or_refused(seed: int) -> None:
    """Bytes of good requests changed at random: nothing but a RefusalError ever comes out."""
    chance = random.Random(seed)
    seeds = [body([tensor(data=[1, 2, 3])], id="a", parameters={"timeout": 5, "priority": 1})]
    seeds += [body([tensor(datatype=d, parameters={"binary_data_size": 12})], bytes(12)) for d in ("FP32", "BYTES")]
    seeds += [body([content])[0:2] for content, _ in BAD.values() if isinstance(content, dict)]
    read = 0
    for _ in range(4000):
        content, length = chance.choice(seeds[:3] if chance.random() < 0.5 else seeds)
        data = bytearray(content)
        for _ in range(chance.choice([1, 1, 2, 5])):
            place = chance.randrange(len(data))
            size = chance.choice([0, 1, 1, 8])
            byte = bytes([chance.randrange(256)])
            parts = [b"", b"9", b"-", b"[", b'"', b"e308", b"null", byte, data[:40], byte * size, b"7" * size]
            data[place : place + size] = chance.choice(parts)
        try:
            read_request(bytes(data), chance.choice([length, length, length, None, length - 1, 0]), LIMITS)
            read += 1
        except RefusalError as refusal:
            assert refusal.reason == "invalid"
    assert read > 20  # not everything is thrown away at the first byte


# --- answers ------------------------------------------------------------------------------------------------------------


def test_answers_in_json_and_in_binary(whole: Server) -> None:
    version = whole.repository.get("same")
    outputs = {"y": np.float32([[1, 2], [np.nan, np.inf]])}
    length, content = write_response(InferRequest({}, id="7"), version, outputs)
    assert length is None
    document = json.loads(content)
    assert document["id"] == "7"
    assert document["model_name"] == "same"
    assert document["outputs"] == [{"name": "y", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, None, None]}]
    length, content = write_response(InferRequest({}, binary=True), version, outputs)
    assert length is not None
    assert json.loads(content[:length])["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert content[length:] == outputs["y"].tobytes()


def test_texts_in_answers(whole: Server) -> None:
    version = whole.repository.get("same")
    outputs = {"y": np.array(["a", "\u00fc"], object)}
    length, content = write_response(InferRequest({}, binary=True), version, outputs)
    assert length is not None
    assert content[length:] == b"\1\0\0\0a\2\0\0\0\xc3\xbc"
    assert json.loads(write_response(InferRequest({}), version, outputs)[1])["outputs"][0]["data"] == ["a", "\u00fc"]
    with pytest.raises(RefusalError, match="ask for binary_data"):
        write_response(InferRequest({}), version, {"y": np.array([b"\xff"], object)})


def test_documents_say_what_the_networks_are(whole: Server) -> None:
    version = whole.repository.get("kinds")
    metadata = documents.model_metadata(version, [1])
    assert {entry["name"]: entry["datatype"] for entry in metadata["inputs"]} == {
        "b": "BOOL", "i": "INT64", "u": "UINT8", "h": "FP16", "d": "FP64", "s": "BYTES",
    }  # fmt: skip
    assert {tuple(entry["shape"]) for entry in metadata["inputs"]} == {(-1,)}
    config = documents.model_config(version)
    assert config["input"][5] == {"name": "s", "data_type": "TYPE_STRING", "dims": [-1], "format": "FORMAT_NONE"}
    assert config["max_batch_size"] == 0
