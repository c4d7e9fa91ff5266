"""Calls over a real gRPC connection: tensors in every form, errors by status, streams, cancelling, limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.serve import ModelOptions, Server
from edgewright.serve.core.jobs import RefusalError
from edgewright.serve.core.log import silent
from edgewright.serve.protocol.limits import Bodies, Limits

grpc = pytest.importorskip("grpc", reason="needs the extra `serve`")

from edgewright.serve.grpc import schema, service  # noqa: E402
from edgewright.serve.grpc.running import running  # noqa: E402

TOKEN = "a-token-of-the-tests"


class Client:
    """Calls by name, messages as keyword arguments."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def __call__(self, call: str, *, service: str = "inference", timeout: float = 20, **fields: Any) -> Any:
        protocol = schema.load(service)
        return self.send(call, protocol.methods[call].request(**fields), service=service, timeout=timeout)

    def send(self, call: str, message: Any, *, service: str = "inference", timeout: float = 20, **settings: Any) -> Any:
        return self.prepared(call, service)(message, timeout=timeout, **settings)

    def prepared(self, call: str, service: str = "inference") -> Any:
        protocol = schema.load(service)
        method = protocol.methods[call]
        kind = (
            self.channel.stream_stream
            if method.takes_stream
            else self.channel.unary_stream
            if method.gives_stream
            else self.channel.unary_unary
        )

        def to_bytes(message: Any) -> bytes:
            return message if isinstance(message, bytes) else message.SerializeToString()

        return kind(f"/{protocol.service}/{call}", to_bytes, method.response.FromString)


def request(model: str, array: np.ndarray, datatype: str = "FP32", name: str = "x", **fields: Any) -> Any:
    message = schema.load("inference").messages["ModelInferRequest"](model_name=model, **fields)
    message.inputs.add(name=name, datatype=datatype, shape=array.shape)
    message.raw_input_contents.append(array.tobytes())
    return message


def values_of(response: Any, dtype: Any = np.float32) -> np.ndarray:
    return np.frombuffer(response.raw_output_contents[0], dtype).reshape(response.outputs[0].shape)


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    opened: list[Any] = []

    def start(
        server: Server, limits: Limits | None = None, token: str | None = None, bodies: Bodies | None = None
    ) -> Client:
        context = running(
            server, limits or Limits(), host="127.0.0.1", port=0, token=token, bodies=bodies, log=silent, drain_s=5
        )
        client = Client(context.__enter__())
        opened.append((context, client))
        return client

    yield start
    for context, client in opened:
        client.channel.close()
        context.__exit__(None, None, None)


@pytest.fixture
def client(whole: Server, connect: Callable[..., Client]) -> Client:
    return connect(whole)


def status(call: Callable[[], Any]) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return str(caught.value.code().name)


def test_raw_tensors_come_back_doubled(client: Client) -> None:
    array = np.arange(8, dtype=np.float32).reshape(2, 4)
    answer = client.send("ModelInfer", request("scale", array, id="seven"))
    assert np.array_equal(values_of(answer), 2 * array)
    assert (answer.model_name, answer.model_version, answer.id) == ("scale", "1", "seven")
    assert answer.outputs[0].datatype == "FP32"


def test_values_of_every_type(client: Client) -> None:
    message = schema.load("inference").messages["ModelInferRequest"](model_name="kinds")
    given: list[tuple[str, str, str, list[Any]]] = [
        ("b", "BOOL", "bool_contents", [True, False]),
        ("i", "INT64", "int64_contents", [-(2**62), 7]),
        ("u", "UINT8", "uint_contents", [0, 255]),
        ("d", "FP64", "fp64_contents", [0.1, -1e300]),
        ("s", "BYTES", "bytes_contents", [b"a", "\u00e9".encode()]),
    ]
    for name, datatype, field, values in given:
        getattr(message.inputs.add(name=name, datatype=datatype, shape=[2]).contents, field).extend(values)
    message.inputs.add(name="h", datatype="FP16", shape=[2])
    assert status(lambda: client.send("ModelInfer", message)) == "INVALID_ARGUMENT"  # 16-bit floats come raw only
    message.ClearField("inputs")
    for name, datatype, _, values in given:
        message.inputs.add(name=name, datatype=datatype, shape=[2])
        packed = b"".join(len(value).to_bytes(4, "little") + value for value in values) if name == "s" else None
        message.raw_input_contents.append(
            packed or np.array(values, {"b": "?", "i": "i8", "u": "u1", "d": "f8"}[name]).tobytes()
        )
    message.inputs.add(name="h", datatype="FP16", shape=[2])
    message.raw_input_contents.append(np.arange(1, 3, dtype=np.float16).tobytes())
    answer = client.send("ModelInfer", message)
    found = {output.name: raw for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)}
    assert np.frombuffer(found["i2"], np.int64).tolist() == [-(2**62), 7]
    assert np.frombuffer(found["h2"], np.float16).tolist() == [1, 2]
    assert found["s2"] == b"\1\0\0\0a\2\0\0\0\xc3\xa9"


@pytest.mark.parametrize("values, outcome", [([1.0, 2, 3, 4], None), ([1.0, 2, 3], "INVALID_ARGUMENT")])
def test_values_must_be_as_many_as_the_shape_says(client: Client, values: list[float], outcome: str | None) -> None:
    message = schema.load("inference").messages["ModelInferRequest"](model_name="scale")
    message.inputs.add(name="x", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend(values)
    if outcome:
        assert status(lambda: client.send("ModelInfer", message)) == outcome
    else:
        assert values_of(client.send("ModelInfer", message)).tolist() == [[2, 4, 6, 8]]


def test_values_outside_the_type_are_refused_and_not_wrapped(client: Client) -> None:
    message = schema.load("inference").messages["ModelInferRequest"](model_name="kinds")
    message.inputs.add(name="u", datatype="UINT8", shape=[1]).contents.uint_contents.append(256)
    with pytest.raises(grpc.RpcError, match="outside UINT8"):
        client.send("ModelInfer", message)


def _wrong() -> Iterator[tuple[str, Any, str]]:
    array = np.zeros((1, 4), np.float32)
    yield "model", request("nothing", array), "NOT_FOUND"
    yield "version", request("scale", array, model_version="9"), "NOT_FOUND"
    yield "no version", request("scale", array, model_version="x"), "INVALID_ARGUMENT"
    yield "name", request("scale", array, name="z"), "INVALID_ARGUMENT"
    yield "type", request("scale", array, "FP64"), "INVALID_ARGUMENT"
    yield "unknown type", request("scale", array, "FP31"), "INVALID_ARGUMENT"
    yield "shape", request("scale", np.zeros((1, 5), np.float32)), "INVALID_ARGUMENT"
    yield "nothing", request("scale", np.zeros((0, 4), np.float32)), "INVALID_ARGUMENT"
    message = request("scale", array)
    message.inputs[0].shape[0] = 2**62
    yield "huge", message, "INVALID_ARGUMENT"
    message = request("scale", array)
    message.inputs[0].shape[0] = -1
    yield "negative", message, "INVALID_ARGUMENT"
    message = request("scale", array)
    message.raw_input_contents.append(b"")
    yield "more raw", message, "INVALID_ARGUMENT"
    message = request("scale", array)
    message.inputs[0].contents.fp32_contents.append(1)
    yield "both", message, "INVALID_ARGUMENT"
    message = request("scale", array)
    message.outputs.add(name="z")
    yield "output", message, "INVALID_ARGUMENT"
    message = request("scale", array)
    message.parameters["sequence_id"].int64_param = 3
    yield "sequence", message, "INVALID_ARGUMENT"
    message = request("scale", array)
    message.parameters["timeout"].string_param = "soon"
    yield "timeout", message, "INVALID_ARGUMENT"
    yield "bytes", b"\xff\xff\xff", "INVALID_ARGUMENT"


@pytest.mark.parametrize("message, code", [pytest.param(*rest, id=name) for name, *rest in _wrong()])
def test_what_the_client_did_wrong_is_said_by_status(client: Client, message: Any, code: str) -> None:
    assert status(lambda: client.send("ModelInfer", message)) == code


def test_what_the_server_says_of_itself(client: Client) -> None:
    assert client("ServerLive").live and client("ServerReady").ready and client("ModelReady", name="scale").ready
    assert client("ServerMetadata").name == "edgewright"
    about = client("ModelMetadata", name="scale")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in about.inputs] == [("x", "FP32", [-1, 4])]
    config = client("ModelConfig", name="scale").config
    assert (config.input[0].data_type, list(config.input[0].dims), config.instance_group[0].kind) == (11, [-1, 4], 2)
    assert {entry.name for entry in client("RepositoryIndex", ready=True).models} >= {"scale", "photo"}
    before = client("ModelStatistics", name="scale").model_stats[0].inference_stats.success.count
    client.send("ModelInfer", request("scale", np.zeros((1, 4), np.float32)))
    assert client("ModelStatistics", name="scale").model_stats[0].inference_stats.success.count == before + 1
    assert len(client("ModelStatistics").model_stats) >= 9
    assert status(lambda: client("ModelMetadata", name="nothing")) == "NOT_FOUND"


def test_health_of_the_server_and_of_models(client: Client) -> None:
    assert client("Check", service="health").status == 1
    health = schema.load("health").messages["HealthCheckRequest"]
    assert client.send("Check", health(service="scale"), service="health").status == 1
    assert status(lambda: client.send("Check", health(service="nothing"), service="health")) == "NOT_FOUND"
    assert next(client.send("Watch", health(), service="health")).status == 1
    assert next(client.send("Watch", health(service="nothing"), service="health")).status == 3


def test_calls_that_are_not_offered(client: Client) -> None:
    call = client.channel.unary_unary("/inference.GRPCInferenceService/CudaSharedMemoryRegister")
    assert status(lambda: call(b"", timeout=20)) == "UNIMPLEMENTED"


def test_a_stream_answers_in_order_and_goes_on_after_an_error(client: Client) -> None:
    sizes = [1, 2, 0, 3]  # 0 is an error
    sent = [request("scale", np.full((size, 4), size, np.float32), id=f"n{size}") for size in sizes]
    answers = list(client.send("ModelStreamInfer", iter(sent)))
    assert [answer.infer_response.id for answer in answers] == ["n1", "n2", "n0", "n3"]
    assert [bool(answer.error_message) for answer in answers] == [False, False, True, False]
    assert values_of(answers[3].infer_response).tolist() == [[6] * 4] * 3


def test_streams_beyond_the_limit_are_refused(whole: Server, connect: Callable[..., Client], monkeypatch: Any) -> None:
    monkeypatch.setattr(service, "MOST_STREAMS", 1)
    client, held = connect(whole), threading.Event()

    def requests() -> Iterator[Any]:
        yield request("scale", np.zeros((1, 4), np.float32))
        held.wait(20)

    first = client.send("ModelStreamInfer", requests())
    next(first)
    second = client.send("ModelStreamInfer", iter([request("scale", np.zeros((1, 4), np.float32))]))
    assert status(lambda: list(second)) == "RESOURCE_EXHAUSTED"
    held.set()
    assert not list(first)
    third = client.send("ModelStreamInfer", iter([request("scale", np.zeros((1, 4), np.float32))]))
    assert len(list(third)) == 1


def test_a_cancelled_call_leaves_the_queue(
    repository: Callable[..., Path], serve: Any, connect: Callable[..., Client], gate: Any
) -> None:
    server = serve(repository({"net": "scale"}))
    client, held = connect(server), gate(server, "net")
    array = np.zeros((1, 4), np.float32)
    first = client.prepared("ModelInfer").future(request("net", array), timeout=20)
    held.wait()
    others = [client.prepared("ModelInfer").future(request("net", array), timeout=20) for _ in range(3)]
    late = client.prepared("ModelInfer").future(request("net", array), timeout=0.3)
    version = server.repository.get("net")
    _until(lambda: version.waiting >= 2)
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    for call in others:
        call.cancel()
    _until(lambda: version.waiting == 0)
    held.open()
    assert first.result().model_name == "net"
    assert client.send("ModelInfer", request("net", array)).model_name == "net"
    assert len(held.batches) <= 3  # the first, the last, and one that may have left the queue before it was cancelled


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_full_queue_is_said_at_once(
    repository: Callable[..., Path], serve: Any, connect: Callable[..., Client], gate: Any
) -> None:
    server = serve(repository({"net": "scale"}), options=ModelOptions(queue=1))
    client, held = connect(server), gate(server, "net")
    array = np.zeros((1, 4), np.float32)
    calls = [client.prepared("ModelInfer").future(request("net", array), timeout=20)]
    held.wait()
    calls += [client.prepared("ModelInfer").future(request("net", array), timeout=20) for _ in range(6)]
    done = threading.Event()
    for call in calls:
        call.add_done_callback(lambda _: done.set())
    assert done.wait(20)  # refused while the first still runs
    held.open()
    codes = [call.code().name for call in calls]
    assert codes[0] == "OK" and "RESOURCE_EXHAUSTED" in codes and set(codes) == {"OK", "RESOURCE_EXHAUSTED"}
    refused = calls[codes.index("RESOURCE_EXHAUSTED")]
    assert dict(refused.trailing_metadata())["retry-after"] == "1"


@pytest.mark.parametrize("compression", [None, "Gzip"])
def test_messages_beyond_the_limit_are_refused(
    whole: Server, connect: Callable[..., Client], compression: str | None
) -> None:
    client = connect(whole, Limits(body_bytes=2**16))
    big = request("scale", np.zeros((2**14, 4), np.float32))
    settings = {"compression": getattr(grpc.Compression, compression)} if compression else {}
    assert status(lambda: client.send("ModelInfer", big, **settings)) == "RESOURCE_EXHAUSTED"
    small = request("scale", np.zeros((2**10, 4), np.float32))
    assert len(client.send("ModelInfer", small, **settings).raw_output_contents[0]) == 2**14


def test_a_message_that_does_not_come_ends_its_call(whole: Server, connect: Callable[..., Client]) -> None:
    """Else whoever sends half a message, two hundred times, keeps all threads."""
    client, held = connect(whole, Limits(body_s=0.2)), threading.Event()

    def never() -> Iterator[bytes]:
        held.wait(20)
        yield from ()

    begun = time.monotonic()
    for name in ("inference.GRPCInferenceService/ModelInfer", "grpc.health.v1.Health/Check"):
        call = client.channel.stream_unary(f"/{name}")
        assert status(lambda call=call: call(never(), timeout=20)) == "CANCELLED"  # type: ignore[misc]
    assert time.monotonic() - begun < 10
    held.set()
    empty = client.channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
    assert status(lambda: empty(iter(()), timeout=20)) == "NOT_FOUND"  # as an empty message, which names no model


def test_messages_and_bodies_have_one_bound_together(
    repository: Callable[..., Path], serve: Any, connect: Callable[..., Client], gate: Any
) -> None:
    server = serve(repository({"net": "scale"}))
    limits = Limits(bodies_bytes=3 * 2**14)
    bodies = Bodies(limits)
    client, held = connect(server, limits, bodies=bodies), gate(server, "net")
    large = request("net", np.zeros((2**10, 4), np.float32))
    calls = [client.prepared("ModelInfer").future(large, timeout=20) for _ in range(2)]
    _until(lambda: bodies.held > 2**15)
    assert status(lambda: client.send("ModelInfer", large)) == "RESOURCE_EXHAUSTED"
    with pytest.raises(RefusalError, match="too many bodies"):  # what HTTP takes its room from
        bodies.take(2**14)
    stream = list(client.send("ModelStreamInfer", iter([large])))
    assert "too many bodies" in stream[0].error_message
    held.open()
    assert [call.result().model_name for call in calls] == ["net", "net"]
    _until(lambda: bodies.held == 0)
    assert client.send("ModelInfer", large).model_name == "net"


def test_load_and_unload_need_the_token(
    repository: Callable[..., Path], serve: Any, connect: Callable[..., Client]
) -> None:
    server = serve(repository({"net": "scale"}), reloads=True)
    unload = schema.load("inference").messages["RepositoryModelUnloadRequest"](model_name="net")
    load = schema.load("inference").messages["RepositoryModelLoadRequest"](model_name="net")
    assert status(lambda: connect(server).send("RepositoryModelUnload", unload)) == "PERMISSION_DENIED"
    client = connect(server, token=TOKEN)
    assert status(lambda: client.send("RepositoryModelUnload", unload)) == "UNAUTHENTICATED"
    right: dict[str, Any] = {"metadata": (("authorization", f"Bearer {TOKEN}"),)}
    client.send("RepositoryModelUnload", unload, **right)
    assert status(lambda: client("ModelReady", name="net")) == "NOT_FOUND"
    load.parameters["config"].string_param = "{}"
    assert status(lambda: client.send("RepositoryModelLoad", load, **right)) == "INVALID_ARGUMENT"
    load.ClearField("parameters")
    client.send("RepositoryModelLoad", load, **right)
    assert client("ModelReady", name="net").ready


def test_a_drained_server_refuses(repository: Callable[..., Path], serve: Any, connect: Callable[..., Client]) -> None:
    server = serve(repository({"net": "scale"}))
    client = connect(server)
    server.drain(5)
    assert status(lambda: client.send("ModelInfer", request("net", np.zeros((1, 4), np.float32)))) == "UNAVAILABLE"
    assert client("Check", service="health").status == 2


def test_damaged_messages_get_an_answer_and_never_internal(client: Client) -> None:
    chance = np.random.default_rng(0)
    good = request("scale", np.zeros((1, 4), np.float32), id="a").SerializeToString()
    call = client.prepared("ModelInfer")
    found = set()
    for _ in range(400):
        data = bytearray(good)
        for _ in range(chance.integers(1, 5)):
            data[chance.integers(len(data))] = chance.integers(256)
        data = data[: chance.integers(1, len(data) + 1)] if chance.random() < 0.3 else data
        try:
            call(bytes(data), timeout=20)
            found.add("OK")
        except grpc.RpcError as problem:
            found.add(problem.code().name)
    assert found <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "DEADLINE_EXCEEDED"} and len(found) >= 3


_TRITONCLIENT = """
import asyncio, sys
import numpy as np
import tritonclient.grpc as client, tritonclient.grpc.aio as aio

array = np.float32([[1, 2, 3, 4]])

def given(module):
    tensor = module.InferInput("x", array.shape, "FP32")
    tensor.set_data_from_numpy(array)
    return [tensor]

plain = client.InferenceServerClient(sys.argv[1])
assert plain.is_server_live() and plain.is_server_ready() and plain.is_model_ready("scale")
assert plain.get_server_metadata().name == "edgewright"
assert plain.get_model_metadata("scale").inputs[0].datatype == "FP32"
assert plain.get_model_config("scale").config.input[0].name == "x"
assert plain.get_inference_statistics("scale").model_stats[0].name == "scale"
assert {model.name for model in plain.get_model_repository_index().models} >= {"scale"}
assert np.array_equal(plain.infer("scale", given(client)).as_numpy("y"), 2 * array)
assert np.array_equal(plain.infer("scale", given(client), compression_algorithm="gzip").as_numpy("y"), 2 * array)
try:
    plain.infer("scale", given(client), sequence_id=3)
    raise SystemExit("a sequence was accepted")
except client.InferenceServerException as problem:
    assert "sequences" in problem.message(), problem
answers = []
plain.start_stream(lambda result, error: answers.append((result, error)))
for index in range(5):
    plain.async_stream_infer("scale", given(client), request_id=str(index))
plain.stop_stream()
assert [result.get_response().id for result, error in answers if not error] == list("01234"), answers

async def later():
    async with aio.InferenceServerClient(sys.argv[1]) as other:
        assert np.array_equal((await other.infer("scale", given(aio))).as_numpy("y"), 2 * array)

asyncio.run(later())
print("done")
"""


def test_tritonclient_with_its_defaults(client: Client, whole: Server, tritonclient: Callable[..., None]) -> None:
    with running(whole, Limits(), host="127.0.0.1", port=0, token=None, log=silent) as port:
        tritonclient(_TRITONCLIENT, f"127.0.0.1:{port}")
