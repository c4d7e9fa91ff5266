"""Tokens, TLS, a log line for each request, and traces."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools", reason="needs the extra `serve`")

from tests.serve.test_quick import X, head_of

from edgewright.cli import main
from edgewright.errors import EdgewrightError
from edgewright.serve import Access, Server
from edgewright.serve.access import may_pass, read_token
from edgewright.serve.http.application import Application
from edgewright.serve.http.guard import Guard
from edgewright.serve.tracing import Tracer, route, trace_id

TOKEN = "correct-horse-battery-staple"
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 1, 2, 3]}]}).encode()
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Request:
    """Scope and transport in one, as a connection hands them over."""

    def __init__(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        self.method, self.path, self.query_string = method, path, ""
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.headers["content-length"] = str(len(body))
        self.client = "127.0.0.1:1"
        self.status, self.answer, self.told = 0, b"", {}
        self._body = body

    async def __call__(self) -> bytes:
        return self._body

    async def __aiter__(self) -> Any:
        yield self._body

    async def client_disconnect(self) -> None:
        await asyncio.sleep(3600)

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.told, self.answer = status, dict(headers), body


def ask(guard: Guard, request: Request) -> Request:
    asyncio.run(guard(request, request))  # type: ignore[arg-type]
    return request


@pytest.fixture
def application(whole: Server) -> Application:
    return Application(whole)


# --- tokens ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/v2", "/v2/models/same", "/v2/models/same/infer", "/metrics", "/docs", "/", "/v2/health"]
)
@pytest.mark.parametrize(
    "given", ["", TOKEN, f"bearer {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", "Bearer ü"]
)
def test_nothing_but_health_is_told_without_the_token(application: Application, path: str, given: str) -> None:
    guard = Guard(application, tokens=(TOKEN,))
    for method in ("GET", "HEAD", "POST"):
        refused = ask(guard, Request(method, path, authorization=given))
        assert (refused.status, refused.told["www-authenticate"]) == (401, "Bearer")
        assert b"same" not in refused.answer


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
def test_probes_need_no_token(application: Application, path: str) -> None:
    assert ask(Guard(application, tokens=(TOKEN,)), Request("GET", path)).status == 200


@pytest.mark.parametrize("path", ["/v2/health/live/../../models/same", "//v2/health/live", "/v2/health/live/x"])
def test_paths_that_look_like_probes_are_none(application: Application, path: str) -> None:
    assert ask(Guard(application, tokens=(TOKEN,)), Request("GET", path)).status == 401


def test_the_token_lets_requests_pass_and_one_of_several_is_enough(application: Application) -> None:
    guard = Guard(application, tokens=("another-token-of-this-server", TOKEN))
    request = Request("POST", "/v2/models/same/infer", BODY, authorization=f"Bearer {TOKEN}")
    assert ask(guard, request).status == 200
    assert json.loads(request.answer)["outputs"][0]["data"] == [0, 1, 2, 3]


def test_a_token_is_compared_as_a_whole() -> None:
    assert may_pass(f"Bearer {TOKEN}", [TOKEN])
    assert not may_pass(f"Bearer {TOKEN}", [])
    assert not may_pass("Bearer \udcff", [TOKEN])


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"short", "E103"),
        (b"two words of some length", "E103"),
        (b"", "E103"),
        (b"x" * 5000, "E103"),
        ("ü".encode() * 20, "E104"),
        (None, "E104"),
    ],
)
def test_a_token_file_that_holds_no_token_is_refused(tmp_path: Path, content: bytes | None, code: str) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    with pytest.raises(EdgewrightError) as caught:
        read_token(tmp_path / "token")
    assert caught.value.code == code


def test_an_empty_file_name_does_not_mean_no_token(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--token-file "$UNSET"` must not open the server."""
    monkeypatch.setattr(sys, "argv", ["edgewright", "serve", str(shelf), "--token-file", ""])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "error[E104]" in capsys.readouterr().err


# --- TLS ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cert", "key"),
    [
        ("absent.pem", "key.pem"),
        ("cert.pem", "absent.pem"),
        ("cert.pem", "other.pem"),
        ("key.pem", "key.pem"),
        ("cert.pem", "locked.pem"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_refused_before_anything_listens(
    certificate: Path, cert: str, key: str
) -> None:
    with pytest.raises(EdgewrightError) as caught:
        Access(tls_cert=certificate / cert, tls_key=certificate / key).check_tls()
    assert caught.value.code == "E104"


def test_a_certificate_without_its_key_is_refused(certificate: Path) -> None:
    with pytest.raises(EdgewrightError, match="go together") as caught:
        Access(tls_cert=certificate / "cert.pem")
    assert caught.value.code == "E103"


@pytest.fixture(scope="module")
def secure(certificate: Path, shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, list[str]]]:
    """A server over TLS with a token and request lines: its port and its log."""
    import socket
    import threading

    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = int(trial.getsockname()[1])
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(TOKEN + "\n")
    command = [
        sys.executable,
        "-m",
        "edgewright",
        "serve",
        str(shelf / "same"),
        "--http",
        str(port),
        "--json",
        "--log-requests",
    ]
    command += [
        "--token-file",
        str(token),
        "--tls-cert",
        str(certificate / "cert.pem"),
        "--tls-key",
        str(certificate / "key.pem"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if '"listening"' in line:
            break
    reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    reader.start()
    yield port, lines
    process.terminate()
    assert process.wait(30) == 0
    reader.join(30)
    process.stderr.close()


def over_tls(
    port: int, certificate: Path, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    for _ in range(100):
        connection = http.client.HTTPSConnection("localhost", port, timeout=30, context=context)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ConnectionRefusedError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise AssertionError("nothing listens")


def test_tls_and_token_over_a_real_socket(secure: tuple[int, list[str]], certificate: Path) -> None:
    port, lines = secure
    path = "/v2/models/same/infer"
    assert over_tls(port, certificate, "GET", "/v2/health/ready")[0] == 200
    assert over_tls(port, certificate, "POST", path, BODY)[0] == 401
    headers = {"authorization": f"Bearer {TOKEN}", "traceparent": PARENT}
    status, body = over_tls(port, certificate, "POST", path, BODY, **headers)
    assert (status, json.loads(body)["outputs"][0]["data"]) == (200, [0, 1, 2, 3])
    listening = next(json.loads(line) for line in lines if '"listening"' in line)
    assert listening["address"] == f"https://127.0.0.1:{port}"
    until = time.monotonic() + 20  # a line is written once the answer was sent
    while not any(TRACE in line for line in lines) and time.monotonic() < until:
        time.sleep(0.01)
    told = [json.loads(line) for line in lines if '"request"' in line]
    assert [(line["status"], line.get("trace")) for line in told][-2:] == [(401, None), (200, TRACE)]
    assert not any(TOKEN in line for line in lines)


def test_a_server_with_tls_answers_nothing_in_the_clear(secure: tuple[int, list[str]]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", secure[0], timeout=10)
    connection.request("GET", "/v2/health/live")
    with pytest.raises((http.client.HTTPException, OSError)):
        connection.getresponse()
    connection.close()


# --- request lines and traces ---------------------------------------------------------------------------------------------


def test_each_request_is_a_line_whatever_becomes_of_it(application: Application) -> None:
    lines: list[dict[str, Any]] = []
    guard = Guard(application, log=lambda event, **fields: lines.append({"event": event, **fields}), log_requests=True)
    ask(guard, Request("POST", "/v2/models/same/infer", BODY, traceparent=PARENT))
    ask(guard, Request("POST", "/v2/models/same/infer", b"{"))
    ask(guard, Request("GET", "/nothing" + "x" * 1000))
    assert [(line["event"], line["status"], line.get("trace")) for line in lines] == [
        ("request", 200, TRACE),
        ("request", 400, None),
        ("request", 404, None),
    ]
    assert all(len(line["path"]) <= 200 and line["seconds"] >= 0 and line["bytes"] > 0 for line in lines)
    assert {line["client"] for line in lines} == {"127.0.0.1:1"}
    lines.clear()
    ask(Guard(application, log=lambda event, **fields: lines.append(fields)), Request("GET", "/v2"))
    assert lines == []  # nobody asked for them


def test_what_is_under_way_behind_a_guard_is_counted(application: Application) -> None:
    seen: list[int] = []
    guard = Guard(application)

    class Counting(Request):
        async def __call__(self) -> bytes:
            seen.append(guard.active)
            return await super().__call__()

    ask(guard, Counting("POST", "/v2/models/same/infer", BODY))
    assert (seen, guard.active) == ([1], 0)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (PARENT, TRACE),
        (PARENT.replace("00-", "01-", 1) + "-more", TRACE),
        (None, None),
        ("", None),
        (PARENT.upper(), None),
        (PARENT.replace("00-", "ff-", 1), None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-00f067aa0ba902b7", None),
        (PARENT + "\nevent=forged", None),
    ],
)
def test_traceparent_is_read_as_the_standard_says(header: str | None, expected: str | None) -> None:
    assert trace_id(header) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/models/net/infer", "/v2/models/{model}/infer"),
        ("/v2/models/net/versions/3/predict", "/v2/models/{model}/versions/{version}/predict"),
        ("/v2/repository/models/net/load", "/v2/repository/models/{model}/load"),
        ("/v2/health/live", "/v2/health/live"),
        ("/", "/"),
    ],
)
def test_routes_hold_no_names(path: str, expected: str) -> None:
    assert route(path) == expected


def test_a_request_is_a_span_of_the_callers_trace_with_its_time_in_the_queue(
    application: Application, spans: Any
) -> None:
    provider, finished = spans
    guard = Guard(application, tracer=Tracer(provider))
    ask(guard, Request("POST", "/v2/models/same/infer", BODY, traceparent=PARENT))
    by_name = {span.name: span for span in finished()}
    assert sorted(by_name) == ["POST /v2/models/{model}/infer", "queue", "run"]
    server = by_name["POST /v2/models/{model}/infer"]
    assert {f"{span.context.trace_id:032x}" for span in by_name.values()} == {TRACE}
    assert f"{server.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert server.attributes["http.response.status_code"] == 200
    for name in ("queue", "run"):
        span = by_name[name]
        assert span.parent.span_id == server.context.span_id
        assert span.start_time <= span.end_time <= server.end_time


def test_each_traced_request_has_its_run_however_short(short: Server, spans: Any) -> None:
    provider, finished = spans
    guard = Guard(Application(short), tracer=Tracer(provider))
    for _ in range(3):  # by the second its JSON is known
        request = Request(
            "POST",
            "/v2/models/same/infer",
            head_of(X) + X.tobytes(),
            inference_header_content_length=str(len(head_of(X))),
        )
        assert ask(guard, request).status == 200
    assert [span.name for span in finished()].count("run") == 3


def test_a_request_that_fails_has_a_span_as_well(application: Application, spans: Any) -> None:
    provider, finished = spans
    guard = Guard(application, tokens=(TOKEN,), tracer=Tracer(provider))
    ask(guard, Request("POST", "/v2/models/nope/infer", BODY, authorization=f"Bearer {TOKEN}"))
    ask(guard, Request("GET", "/metrics"))
    assert [span.attributes["http.response.status_code"] for span in finished()] == [404, 401]
    assert all(span.parent is None for span in finished())


def test_without_opentelemetry_the_pip_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewright.serve.tracing import otlp

    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    for make in (Tracer, otlp):
        with pytest.raises(EdgewrightError, match="which is not installed") as caught:
            make()
        assert caught.value.code == "E102"
        assert 'pip install "edgewright[trace]"' in str(caught.value.hint)
