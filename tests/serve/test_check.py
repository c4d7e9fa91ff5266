"""`edgewright serve check`: our own server passes whole, and one with mistakes is found out."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.cli import main
from edgewright.errors import EdgewrightError
from edgewright.serve.check import check
from edgewright.serve.check.cases import Subject, WrongError

pytest.importorskip("httptools", reason="needs the extra `serve`")
pytest.importorskip("grpc", reason="needs the extra `serve`")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command in this process; its exit code."""

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["edgewright", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(str(stopped.value))

    return call


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@pytest.fixture(scope="module")
def ours(shelf: Path) -> Iterator[tuple[str, int]]:
    http_port, grpc_port = free_port(), free_port()
    command = [sys.executable, "-m", "edgewright", "serve", str(shelf), "-q", "--http", str(http_port)]
    process = subprocess.Popen([*command, "--grpc", str(grpc_port)])
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            assert process.poll() is None
            try:
                socket.create_connection(("127.0.0.1", http_port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{http_port}", grpc_port
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize("model", ["scale", "kinds", "photo"])
def test_our_own_server_passes_whole(ours: tuple[str, int], model: str) -> None:
    report = check(ours[0], grpc=ours[1], model=model)
    wrong = [line for line in report.outcomes if not line.ok]
    assert not wrong
    assert len(report.outcomes) > 75


class _Wrong(http.server.BaseHTTPRequestHandler):
    """Answers a plain inference, doubled; and the rest as badly as servers do."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        about = {"name": "net", "inputs": [_TENSOR], "outputs": [{**_TENSOR, "name": "y"}]}
        self._answer(200, about if self.path == "/v2/models/net" else {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            (entry,) = json.loads(body)["inputs"]
            values = [2 * value for value in entry["data"]]
            self._answer(200, {"outputs": [{**entry, "name": "y", "data": values}]})
        except Exception:
            self._answer(500, {"error": "\x1b[31mred"})

    def _answer(self, status: int, document: Any) -> None:
        body = json.dumps(document, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


_TENSOR = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}


@pytest.fixture
def wrong() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Wrong)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_with_mistakes_is_found_out(
    wrong: str, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("serve", "check", wrong, "--model", "net", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    found = {line["case"]: (line["ok"], line["got"]) for line in report["cases"]}
    assert found["infer, JSON"] == (True, "outputs as described")
    assert found["infer, id"][0] is False
    assert found["infer, no JSON"][0] is False and found["infer, no JSON"][1].startswith("500")
    assert found["unknown model"] == (False, "200")
    assert found["infer, an unknown input"] == (False, "200")  # 200 for what should be refused
    assert found["infer, nested lists"][0] is False
    assert not report["ok"] and 0 < report["passed"] < len(report["cases"])


def test_the_table_shows_no_control_characters(
    wrong: str, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("serve", "check", wrong, "--model", "net") == 1
    out = capsys.readouterr().out
    assert "FAILS" in out and "\x1b[31mred" not in out and "cases pass, asked of model net" in out


@pytest.mark.parametrize(
    "url, text", [("ftp://a", "no address"), ("http://", "no address"), ("http://127.0.0.1:1", "does not answer")]
)
def test_what_is_no_server_is_said(url: str, text: str) -> None:
    with pytest.raises(EdgewrightError, match=text) as caught:
        check(url)
    assert caught.value.code == "E103"


def test_a_server_that_names_no_model_is_said(wrong: str) -> None:
    with pytest.raises(EdgewrightError, match="does not describe"):
        check(wrong)


def test_a_model_that_is_described_without_tensors_is_said() -> None:
    with pytest.raises(WrongError, match="without inputs or outputs"):
        Subject.of("net", {"inputs": [], "outputs": []})


@pytest.mark.parametrize(
    "change", [lambda y: y + 1e-2, lambda y: y[:, :2], lambda y: np.full_like(y, np.nan)], ids=["more", "fewer", "nan"]
)
def test_another_answer_is_another(change: Callable[[np.ndarray], np.ndarray]) -> None:
    subject = Subject.of("net", {"inputs": [_TENSOR], "outputs": [{**_TENSOR, "name": "y"}]})
    subject.answer = {"y": np.ones((1, 4), np.float32)}
    assert subject.compare({"y": np.ones((1, 4), np.float32)}) == "the same answer"
    with pytest.raises(WrongError):
        subject.compare({"y": change(np.ones((1, 4), np.float32))})
