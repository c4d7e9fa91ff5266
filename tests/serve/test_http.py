"""The application without a socket: paths, codes, compression, photos, limits, cancelling, and bad input of every kind."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import random
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgewright as ew
from edgewright.serve import ModelOptions, Server
from edgewright.serve.http import application as applications
from edgewright.serve.http import pages, photos
from edgewright.serve.http.application import Application
from edgewright.serve.http.exchange import COMPRESS_FROM, Patience
from edgewright.serve.protocol.limits import Limits

PHOTO_SPEC = ew.Spec(  # as in conftest.py
    inputs={"image": ew.ImageInput(size=(8, 8), resize="stretch")},
    task="classify",
    options={"labels": ["red", "green", "blue"]},
)
X = np.arange(4, dtype=np.float32)[None]
TOKEN = "correct-horse-battery-staple"
Answer = tuple[int, dict[str, str], bytes]
Call = Callable[..., Answer]


class Request:
    """What a connection hands to an application, without a socket: scope and transport in one."""

    def __init__(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, *, chunked: int = 0
    ) -> None:
        self.method, self.path, self.query_string = method, path, ""
        self.headers = {name.lower(): value for name, value in (headers or {}).items()}
        self.gone = asyncio.Event()
        self.answer: Answer | None = None
        self.sent = 0
        self._body, self._chunked = body, chunked
        if not chunked:
            self.headers.setdefault("content-length", str(len(body)))

    async def __call__(self) -> bytes:
        self.sent = len(self._body)
        return self._body

    async def __aiter__(self) -> Any:
        size = self._chunked or 65536
        for place in range(0, len(self._body), size):
            await asyncio.sleep(0)
            self.sent += len(self._body[place : place + size])
            yield self._body[place : place + size]

    async def client_disconnect(self) -> None:
        await self.gone.wait()

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        assert self.answer is None, "answered twice"
        self.answer = (status, dict(headers), body)


def ask(application: Application, method: str, path: str, body: bytes = b"", **settings: Any) -> Answer:
    async def go() -> Answer:
        request = Request(method, path, body, **settings)
        await application(request, request)
        assert request.answer is not None
        return request.answer

    answer = asyncio.run(go())
    assert application.active == 0
    assert application._bodies.held == 0
    return answer


@pytest.fixture
def call(whole: Server) -> Call:
    """Ask a server of all networks: (status, headers, body)."""
    application = Application(whole)
    return lambda *arguments, **settings: ask(application, *arguments, **settings)


def infer_body(array: np.ndarray = X, **fields: Any) -> tuple[bytes, dict[str, str]]:
    entry = {"name": "x", "shape": array.shape, "datatype": "FP32", "parameters": {"binary_data_size": array.nbytes}}
    head = json.dumps({"inputs": [entry], **fields}).encode()
    return head + array.tobytes(), {"Inference-Header-Content-Length": str(len(head))}


def told(answer: Answer, status: int) -> str:
    """The message of an error with that status."""
    assert answer[0] == status, answer
    assert answer[1]["content-type"] == "application/json"
    document = json.loads(answer[2])
    assert list(document) == ["error"]
    return str(document["error"])


# --- paths --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2", {"name": "edgewright"}),
        ("/v2/", {"name": "edgewright"}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/same", {"name": "same", "versions": ["1"]}),
        ("/v2/models/same/ready", {"name": "same", "ready": True}),
        ("/v2/models/same/versions/1", {"name": "same", "platform": "edgewright_onnxruntime"}),
        ("/v2/models/same/config", {"name": "same", "max_batch_size": 0}),
        ("/v2/models/same/versions/1/stats", {}),
        ("/v2/models/stats", {}),
        ("/openapi.json", {"openapi": "3.1.0"}),
    ],
)
def test_documents(call: Call, path: str, expected: dict[str, Any]) -> None:
    status, headers, body = call("GET", path)
    assert status == 200
    assert headers["content-type"] == "application/json"
    document = json.loads(body)
    assert {key: document[key] for key in expected} == expected
    status, _, body = call("HEAD", path)
    assert (status, body) == (200, b"")


def test_the_index_says_what_there_is(call: Call) -> None:
    status, _, body = call("POST", "/v2/repository/index", b'{"ready": true}')
    assert status == 200
    assert {"name": "same", "version": "1", "state": "READY", "reason": ""} in json.loads(body)


def test_the_page_and_the_document_name_every_path_and_fetch_nothing(call: Call) -> None:
    status, headers, body = call("GET", "/docs")
    assert status == 200
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert b"<script" not in body
    assert b"http:" not in body
    assert b"https:" not in body
    for path in pages.openapi()["paths"]:
        assert path.encode() in body


def test_every_documented_path_exists_and_gives_documented_codes_only(call: Call) -> None:
    for path, verbs in pages.openapi()["paths"].items():
        for verb, about in verbs.items():
            for model in ("same", "nope"):
                status = call(verb.upper(), path.format(model=model, version=1))[0]
                assert str(status) in about["responses"], (path, status)


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v3", 404, "/docs lists what there is"),
        ("GET", "/v2/health", 404, "/docs lists what there is"),
        ("GET", "/v2/models/nope", 404, "model `nope` is not served here"),
        ("GET", "/v2/models/nope/ready", 404, "model `nope` is not served here"),
        ("GET", "/v2/models/same/versions/7", 404, "version 7 of model `same`"),
        ("GET", "/v2/models/same/versions/x", 400, "version 'x' is no number"),
        ("GET", "/v2/models/same/versions", 400, "version '' is no number"),
        ("GET", "/v2/models/same/infer", 405, "takes POST, not GET"),
        ("POST", "/v2/health/live", 405, "takes GET, not POST"),
        ("GET", "/v2/systemsharedmemory/status", 400, "does not offer systemsharedmemory"),
        ("POST", "/v2/repository/models/same/unload", 403, "--admin-token FILE"),
        ("GET", "/../../etc/passwd", 404, "nothing at"),
    ],
)
def test_what_is_not_there(call: Call, method: str, path: str, status: int, message: str) -> None:
    assert message in told(call(method, path), status)


def test_bodies_that_are_held_are_a_figure(whole: Server) -> None:
    application = Application(whole)
    application._bodies.held = 7
    request = Request("GET", "/metrics")
    asyncio.run(application(request, request))
    assert request.answer is not None
    assert b"edgewright_body_bytes 7\n" in request.answer[2]


def test_a_refused_method_is_told_what_is_allowed(call: Call) -> None:
    assert call("GET", "/v2/models/same/infer")[1]["allow"] == "POST"
    assert call("POST", "/v2/health/live")[1]["allow"] == "GET, HEAD"


def test_figures_for_prometheus(call: Call) -> None:
    body, headers = infer_body()
    assert call("POST", "/v2/models/scale/infer", body, headers=headers)[0] == 200
    status, headers, text = call("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = text.decode().splitlines()
    assert {"edgewright_ready 1", "edgewright_active_requests 1", "edgewright_body_bytes 0"} <= {*lines}
    count = next(line for line in lines if line.startswith('edgewright_requests_total{model="scale"'))
    assert int(count.split()[-1]) >= 1
    buckets = [line for line in lines if line.startswith('edgewright_latency_seconds_bucket{model="scale"')]
    values = [int(line.split()[-1]) for line in buckets]
    assert values == sorted(values)  # each holds those below it
    assert f'edgewright_latency_seconds_count{{model="scale",version="1"}} {values[-1]}' in lines


def test_statistics_of_a_version_are_its_own(serve: Any, repository: Any) -> None:
    application = Application(
        serve(repository({"net/1": "same", "net/2": "same"}), options=ModelOptions(versions="all"))
    )
    for path, versions in (("versions/1/stats", ["1"]), ("versions/2/stats", ["2"]), ("stats", ["1", "2"])):
        document = json.loads(ask(application, "GET", f"/v2/models/net/{path}")[2])
        assert sorted(stats["version"] for stats in document["model_stats"]) == versions


# --- inference ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
def test_binary_both_ways_compressed_or_not(call: Call, encoding: str | None) -> None:
    array = np.arange(4000, dtype=np.float32).reshape(1000, 4)
    body, headers = infer_body(array, parameters={"binary_data_output": True})
    if encoding:
        body = (gzip if encoding == "gzip" else zlib).compress(body)
        headers |= {"content-encoding": encoding, "accept-encoding": encoding}
    for chunked in (0, 1000):
        status, found, content = call("POST", "/v2/models/scale/infer", body, headers=headers, chunked=chunked)
        assert status == 200, content
        assert found.get("content-encoding") == encoding
        assert found.get("vary") == ("accept-encoding" if encoding else None)
        if encoding:
            content = (gzip if encoding == "gzip" else zlib).decompress(content)
        length = int(found["inference-header-content-length"])
        np.testing.assert_array_equal(np.frombuffer(content[length:], np.float32).reshape(1000, 4), 2 * array)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("gzip;q=0", None), ("gzip; q=0.0, deflate;q=0.5", "deflate"), ("br, GZIP;q=1", "gzip"), ("*", None)],
)
def test_answers_are_compressed_as_the_client_takes_them(call: Call, accepted: str, encoding: str | None) -> None:
    headers = call("GET", "/openapi.json", headers={"accept-encoding": accepted})[1]
    assert headers.get("content-encoding") == encoding


def test_every_datatype_through_a_network(call: Call) -> None:
    values = {
        "b": ("BOOL", [True, False]), "i": ("INT64", [-(2**63), 2**63 - 1]), "u": ("UINT8", [0, 255]),
        "h": ("FP16", [0.5, -2.0]), "d": ("FP64", [1e300, 0.1]), "s": ("BYTES", ["\u2603", ""]),
    }  # fmt: skip
    inputs = [{"name": n, "shape": [2], "datatype": d, "data": data} for n, (d, data) in values.items()]
    status, _, body = call("POST", "/v2/models/kinds/infer", json.dumps({"inputs": inputs}).encode())
    assert status == 200, body
    assert {out["name"][0]: (out["datatype"], out["data"]) for out in json.loads(body)["outputs"]} == values


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"headers": {"Inference-Header-Content-Length": "x"}}, 400, "is no number"),
        ({"headers": {"Inference-Header-Content-Length": "99999"}}, 400, "is said to have 99999 bytes"),
        ({"headers": {"content-length": "-1"}}, 400, "content-length '-1' is no number"),
        ({"headers": {"content-encoding": "br"}}, 415, "content-encoding 'br' is not known"),
        ({"headers": {"content-encoding": "gzip"}}, 400, "the gzip body is damaged"),
        ({"body": gzip.compress(b"x" * 100)[:-4], "headers": {"content-encoding": "gzip"}}, 400, "cut short"),
        ({"body": gzip.compress(b"{}") * 2, "headers": {"content-encoding": "gzip"}}, 400, "something follows"),
        ({"body": infer_body(X[:, :3])[0], "headers": infer_body(X[:, :3])[1]}, 400, "[1, 3], but the network takes"),
        (
            {"body": infer_body(outputs=[{"name": "z"}])[0], "headers": infer_body(outputs=[{"name": "z"}])[1]},
            400,
            "`z` is not",
        ),
        ({"path": "/v2/models/photo/infer"}, 400, "the network takes: `image`"),
        ({"path": "/v2/models/nope/infer"}, 404, "not served here"),
        ({"path": "/v2/models/same/versions/2/infer"}, 404, "version 2"),
    ],
)
def test_mistakes_of_clients_get_codes_from_400_to_499(
    call: Call, change: dict[str, Any], status: int, message: str
) -> None:
    body, headers = infer_body()
    path = change.get("path", "/v2/models/same/infer")
    answer = call("POST", path, change.get("body", body), headers={**headers, **change.get("headers", {})})
    assert message in told(answer, status)


def test_an_index_beyond_a_table_is_the_clients_mistake(call: Call) -> None:
    entry = {"name": "i", "shape": [1], "datatype": "INT64", "data": [77]}
    answer = call("POST", "/v2/models/pick/infer", json.dumps({"inputs": [entry]}).encode())
    assert answer[0] == 400, answer


def test_full_and_late_and_stopping(serve: Any, repository: Any, gate: Any) -> None:
    server = serve(repository({"net": "scale"}), options=ModelOptions(queue=1))
    application = Application(server)
    body, headers = infer_body()
    late_body, late_headers = infer_body(parameters={"timeout": 20_000})
    server.repository.get("net")._quick_s = 0.0  # nothing runs on the event loop
    held = gate(server, "net")

    async def go() -> list[Answer | None]:
        requests = [Request("POST", "/v2/models/net/infer", body, headers)]
        tasks = [asyncio.create_task(application(requests[0], requests[0]))]
        await asyncio.to_thread(held.wait)
        requests.append(Request("POST", "/v2/models/net/infer", late_body, late_headers))
        tasks.append(asyncio.create_task(application(requests[1], requests[1])))
        await asyncio.sleep(0.001)
        requests.append(Request("POST", "/v2/models/net/infer", body, headers))
        await application(requests[2], requests[2])
        await tasks[1]  # its time is up although the run before it goes on
        held.open()
        await tasks[0]
        return [request.answer for request in requests]

    first, late, full = asyncio.run(go())
    assert first is not None
    assert first[0] == 200
    assert late is not None
    assert "time was up" in told(late, 504)
    assert full is not None
    assert "over capacity" in told(full, 429)
    assert full[1]["retry-after"] == "1"
    server.drain(10)
    answer = ask(application, "POST", "/v2/models/net/infer", body, headers=headers)
    assert "stopping" in told(answer, 503)
    assert answer[1]["retry-after"] == "1"
    assert ask(application, "GET", "/v2/health/ready")[0] == 503
    assert ask(application, "GET", "/v2/models/net/ready")[0] == 503
    assert ask(application, "GET", "/v2/health/live")[0] == 200


def test_a_client_that_goes_away_takes_its_request_with_it(serve: Any, repository: Any, gate: Any) -> None:
    server = serve(repository({"net": "scale"}))
    application = Application(server)
    body, headers = infer_body()
    server.repository.get("net")._quick_s = 0.0
    held = gate(server, "net")

    async def go() -> None:
        requests = [Request("POST", "/v2/models/net/infer", body, headers) for _ in range(2)]
        first = asyncio.create_task(application(requests[0], requests[0]))
        await asyncio.to_thread(held.wait)
        second = asyncio.create_task(application(requests[1], requests[1]))
        await asyncio.sleep(0.01)
        requests[1].gone.set()
        await second
        assert requests[1].answer is not None
        assert requests[1].answer[0] == 499
        held.open()
        await first
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}  # nobody waits any more for a client to go

    asyncio.run(go())
    assert len(held.batches) == 1


# --- limits -------------------------------------------------------------------------------------------------------------


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(whole: Server) -> None:
    application = Application(whole, Limits(body_bytes=1000))

    async def go(chunked: int) -> Request:
        request = Request("POST", "/v2/models/same/infer", bytes(10**6), chunked=chunked)
        await application(request, request)
        return request

    for chunked, most in ((0, 0), (300, 1200)):
        request = asyncio.run(go(chunked))
        assert request.answer is not None
        assert "more than the limit of 1000 bytes" in told(request.answer, 413)
        assert request.sent <= most


def test_a_body_may_have_as_much_as_the_limit(whole: Server) -> None:
    application = Application(whole, Limits(body_bytes=1000))
    for body, settings in (
        (bytes(1000), {}),
        (bytes(1000), {"chunked": 300}),
        (gzip.compress(bytes(1000)), {"headers": {"content-encoding": "gzip"}}),
    ):
        told(ask(application, "POST", "/v2/models/same/infer", body, **settings), 400)  # it is read, and no JSON


def test_a_compressed_body_expands_to_the_limit_at_most(whole: Server) -> None:
    bomb = gzip.compress(bytes(10**7), 9)
    application = Application(whole, Limits(body_bytes=10**6))
    answer = ask(application, "POST", "/v2/models/same/infer", bomb, headers={"content-encoding": "gzip"})
    assert "once it is expanded" in told(answer, 413)


def test_many_bodies_together_are_bounded(whole: Server) -> None:
    application = Application(whole, Limits(bodies_bytes=1500))
    application._bodies.held = 1000
    request = Request("POST", "/v2/models/same/infer", bytes(600))
    asyncio.run(application(request, request))
    assert request.answer is not None
    assert "too many bodies" in told(request.answer, 429)
    assert request.answer[1]["retry-after"] == "1"
    assert application._bodies.held == 1000


def test_what_a_body_expands_to_counts_among_all_bodies(whole: Server) -> None:
    application = Application(whole, Limits(bodies_bytes=1500))
    body, headers = gzip.compress(bytes(2000)), {"content-encoding": "gzip"}
    assert "too many bodies" in told(ask(application, "POST", "/v2/models/same/infer", body, headers=headers), 429)


def test_who_waits_too_long_for_a_body_is_ended_and_nobody_else() -> None:
    async def go() -> None:
        patience, never = Patience(0.02), asyncio.Event()
        for _ in range(2):  # also after a time in which nobody waited
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(20):
                    await patience.wait(never.wait())  # type: ignore[arg-type]
                    pytest.fail("it never comes")
            assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
            assert not patience._since
            assert not patience._ended
            async with asyncio.timeout(20):
                while patience._loop is not None:
                    await asyncio.sleep(0.005)
        patience.limit_s = 1000
        waiting = asyncio.ensure_future(patience.wait(never.wait()))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(go())


def test_a_slow_body_is_not_waited_for(whole: Server) -> None:
    class Slow(Request):
        async def __call__(self) -> bytes:
            await asyncio.sleep(60)
            return b""

    request = Slow("POST", "/v2/models/same/infer", b"123")
    asyncio.run(Application(whole, Limits(body_s=0.01))(request, request))
    assert request.answer is not None
    assert "did not come within 0.01 s" in told(request.answer, 408)


# --- photos -------------------------------------------------------------------------------------------------------------


def photo(colour: tuple[int, int, int] = (200, 0, 0), size: tuple[int, int] = (20, 10), kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(("colour", "label"), [((200, 0, 0), "red"), ((0, 0, 200), "blue")])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_a_photo_gives_a_result(call: Call, colour: tuple[int, int, int], label: str, kind: str) -> None:
    status, headers, body = call("POST", "/v2/models/photo/predict", photo(colour, kind=kind))
    assert status == 200, body
    document = json.loads(body)
    assert document["task"] == "classify"
    assert document["result"]["label"] == label
    assert headers["content-type"] == "application/json"


def test_a_photo_gives_a_picture(call: Call) -> None:
    large = photo(size=(200, 100))
    headers = {"accept": "image/png", "accept-encoding": "gzip"}
    status, headers, body = call("POST", "/v2/models/photo/predict", large, headers=headers)
    assert status == 200
    assert len(body) >= COMPRESS_FROM
    assert "content-encoding" not in headers  # it is compressed already
    assert headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(body)) as picture:
        assert picture.width == 200
        assert picture.height > 100  # a caption below it
        assert picture.getpixel((0, 0)) == (200, 0, 0)


@pytest.mark.parametrize(
    ("model", "content", "message"),
    [
        ("photo", b"", "is not a photo"),
        ("photo", b"GIF89a" + bytes(20), "photo"),
        ("photo", photo()[:-30], "cannot be decoded"),
        ("photo", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a photo"),
        ("same", photo(), "takes no photos"),
    ],
)
def test_what_is_no_photo_is_the_clients_mistake(call: Call, model: str, content: bytes, message: str) -> None:
    assert message in told(call("POST", f"/v2/models/{model}/predict", content), 400)


def test_a_photo_with_too_many_pixels_is_never_decoded(whole: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: Any) -> None:
        pytest.fail("decoded")

    monkeypatch.setattr("edgewright.samples.images.decode", decode)
    application = Application(whole, replace(Limits(), pixels=199))
    assert "20 x 10, more than the limit" in told(ask(application, "POST", "/v2/models/photo/predict", photo()), 400)


def test_photos_that_wait_are_bounded(whole: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    application = Application(whole)
    monkeypatch.setattr(applications, "_MOST_PHOTOS", 1)
    for _ in range(2):  # those that are done wait no more
        assert ask(application, "POST", "/v2/models/photo/predict", photo())[0] == 200
    monkeypatch.setattr(applications, "_MOST_PHOTOS", 0)
    answer = ask(application, "POST", "/v2/models/photo/predict", photo())
    assert "0 photos wait already" in told(answer, 429)


def test_a_photo_prepared_for_a_network_that_was_replaced_is_prepared_again(
    serve: Any, repository: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository({"net": "photo"})
    server = serve(folder, reloads=True)
    ask_red, prepare, calls = photo(), photos.prepare, []

    def meanwhile(version: Any, *arguments: Any) -> Any:
        calls.append(version)
        made = prepare(version, *arguments)
        if len(calls) == 1:
            bundle = folder / "net"
            spec = {**PHOTO_SPEC.inputs, "image": replace(PHOTO_SPEC.inputs["image"], colour="bgr")}
            model = ew.load(bundle / "model.onnx").with_spec(replace(PHOTO_SPEC, inputs=spec))
            ew.convert(model, "onnxruntime", bundle, overwrite=True)
            assert server.repository.refresh() == []
        return made

    monkeypatch.setattr(photos, "prepare", meanwhile)
    status, _, body = ask(Application(server), "POST", "/v2/models/net/predict", ask_red)
    assert status == 200, body
    assert json.loads(body)["result"]["label"] == "blue"  # the new one takes colours the other way round
    assert len(calls) == 2


def test_outputs_that_a_replaced_network_had_are_told_apart(serve: Any, repository: Any) -> None:
    server = serve(repository({"a": "same", "b": "photo"}))
    real = server.repository.get
    answers = iter(["a", "b"])  # the lookup finds one network, the submission another
    body = {
        "inputs": [{"name": "image", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": [0] * 192}],
        "outputs": [{"name": "y"}],
    }
    server.repository.get = lambda name, number=None: real(next(answers), number)
    answer = ask(Application(server), "POST", "/v2/models/a/infer", json.dumps(body).encode())
    assert "output `y` is not known" in told(answer, 400)


# --- administration -----------------------------------------------------------------------------------------------------


def test_loading_needs_the_token(serve: Any, repository: Any) -> None:
    server = serve(repository({"a": "same"}), reloads=True)
    application = Application(server, token=TOKEN)
    path = "/v2/repository/models/a"
    for given in ("", "Bearer wrong", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \u2603"):
        answer = ask(application, "POST", f"{path}/unload", headers={"authorization": given} if given else {})
        assert "token" in told(answer, 401)
        assert answer[1]["www-authenticate"] == "Bearer"
    right = {"authorization": f"Bearer {TOKEN}"}
    assert (
        ask(application, "POST", f"{path}/unload", b'{"parameters": {"unload_dependents": false}}', headers=right)[0]
        == 200
    )
    assert ask(application, "GET", "/v2/models/a")[0] == 404
    index = [ask(application, "POST", "/v2/repository/index", body)[2] for body in (b"", b'{"ready": true}')]
    assert [len(json.loads(entries)) for entries in index] == [1, 0]
    assert ask(application, "POST", f"{path}/load", headers=right)[0] == 200
    assert ask(application, "GET", "/v2/models/a")[0] == 200
    answer = ask(application, "POST", f"{path}/load", b'{"parameters": {"config": "{}"}}', headers=right)
    assert "settings come from the folders only" in told(answer, 400)
    assert "not served" in told(ask(application, "POST", "/v2/repository/models/b/load", headers=right), 404)


# --- everything at once -------------------------------------------------------------------------------------------------


def test_fuzzed_requests_get_an_answer_below_500(whole: Server) -> None:
    """Methods, paths, headers and bodies at random, each with a good one as its start: no 5xx, no exception, no hang."""
    chance = random.Random(0)
    logged: list[Any] = []
    application = Application(whole, Limits(body_bytes=5000, body_s=5), log=lambda *a, **f: logged.append((a, f)))
    body, headers = infer_body()
    paths = [path.format(model="same", version=1) for path in pages.openapi()["paths"]] + ["/v2/models/photo/predict"]
    words = ["", "..", "%00", "same", "v2", "versions", "1", "\u2603", "-1", "infer", "9" * 30, "a" * 5000]
    values = [
        "",
        "-1",
        "gzip",
        "deflate",
        "0",
        "1e3",
        "\u0663",
        "99999999999999999999",
        str(len(body)),
        "a" * 9000,
        "*/*",
    ]
    names = [*headers, "content-length", "content-encoding", "accept-encoding", "accept", "authorization"]
    good = 0

    async def go() -> None:
        nonlocal good
        for _ in range(800):
            path, content = chance.choice(paths), bytearray(chance.choice([body, photo(), b"{}", gzip.compress(body)]))
            given = dict(headers) if chance.random() < 0.7 else {}
            for _ in range(chance.choice([0, 1, 2])):
                content = content[: chance.randrange(len(content) + 1)] if chance.random() < 0.2 else content
                content = content or bytearray(b"0")
                place = chance.randrange(len(content))
                content[place : place + 2] = chance.randbytes(2)
            if chance.random() < 0.3:
                given[chance.choice(names)] = chance.choice(values)
            if chance.random() < 0.2:
                parts = path.split("/")
                parts[chance.randrange(len(parts))] = chance.choice(words)
                path = "/".join(parts)
            method = chance.choice(["GET", "POST", "POST", "PUT", "BREW"])
            request = Request(method, path, bytes(content), given, chunked=chance.choice([0, 0, 7]))
            await asyncio.wait_for(application(request, request), 30)
            assert request.answer is not None
            assert request.answer[0] < 500, (method, path, given, bytes(content), request.answer)
            good += request.answer[0] == 200

    asyncio.run(go())
    assert logged == []
    assert good > 30
