"""Small bundles to serve, and the server over HTTP without a socket."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import edgewright as ew
from edgewright.cli import main
from edgewright.serve import ModelOptions, Server

NETWORKS = {
    "same": "g (float[N,4] x) => (float[N,4] y) { y = Identity (x) }",
    "scale": "g (float[N,4] x) => (float[N,4] y) <float[1] two = {2.0}> { y = Mul (x, two) }",
    # the mean over the batch: a row's answer depends on its neighbours
    "mean": "g (float[N,4] x) => (float[N,4] y) { m = ReduceMean <keepdims = 1> (x) y = Sub (x, m) }",
    # one scale for the whole batch, as networks of `int8-dynamic` have
    "dynamic": """g (float[N,4] x) => (float[N,4] y) {
        q, s, z = DynamicQuantizeLinear (x) y = DequantizeLinear (q, s, z) }""",
    "fixed": "g (float[1,4] x) => (float[1,4] y) { y = Relu (x) }",
    "lengths": "g (float[N,L] x) => (float[N,L] y) { y = Relu (x) }",
    "kinds": """g (bool[N] b, int64[N] i, uint8[N] u, float16[N] h, double[N] d, string[N] s)
        => (bool[N] b2, int64[N] i2, uint8[N] u2, float16[N] h2, double[N] d2, string[N] s2) {
        b2 = Identity (b) i2 = Identity (i) u2 = Identity (u) h2 = Identity (h) d2 = Identity (d) s2 = Identity (s) }""",
    # index 0 or 1 only: a request with another index fails while it runs
    "pick": "g (int64[N] i) => (float[N,2] y) <float[2,2] t = {1.0, 2.0, 3.0, 4.0}> { y = Gather (t, i) }",
    "photo": """g (float[N,3,8,8] image) => (float[N,3] logits) {
        r = Relu (image) p = GlobalAveragePool (r) logits = Flatten (p) }""",
}
#: Of photo: brightness alone, so that a red picture is class 0.
PHOTO_SPEC = ew.Spec(
    inputs={"image": ew.ImageInput(size=(8, 8), resize="stretch")},
    task="classify",
    options={"labels": ["red", "green", "blue"]},
)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of each of NETWORKS, by name; do not change it."""
    import onnx_ir as ir

    folder = tmp_path_factory.mktemp("shelf")
    for name, text in NETWORKS.items():
        graph = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
        spec = PHOTO_SPEC if name == "photo" else ew.Spec()
        ew.convert(ew.Model(graph, spec, name=name), "onnxruntime", folder / name)
    return folder


@pytest.fixture
def repository(shelf: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of bundles: `repository(net="same", other="scale")`; a name may hold a version, `"net/2"`."""

    def make(entries: dict[str, str]) -> Path:
        for place, network in entries.items():
            shutil.copytree(shelf / network, tmp_path / "models" / place, dirs_exist_ok=True)
        return tmp_path / "models"

    return make


@pytest.fixture
def serve(shelf: Path) -> Any:
    """Start servers over folders (`shelf` by default), and drain them at the end."""
    started: list[Server] = []

    def start(*folders: Path, options: ModelOptions | None = None, **settings: Any) -> Server:
        server = Server(folders or [shelf], options, **settings)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.drain(10)


@pytest.fixture(scope="session")
def whole(shelf: Path) -> Iterator[Server]:
    """A server of every network on the shelf, for tests that change nothing."""
    server = Server([shelf])
    server.start()
    yield server
    server.drain(10)


@pytest.fixture
def always_short() -> Callable[[Server], Server]:
    """Make runs count as short ones, however busy the machine is."""

    def short(server: Server) -> Server:
        for version in server.repository.versions():
            version._quick_s = 1e-9
            version._learn = lambda row_s: None  # type: ignore[method-assign]
        return server

    return short


@pytest.fixture
def short(serve: Any, shelf: Path, always_short: Callable[[Server], Server]) -> Server:
    """A server of every network on the shelf whose runs count as short ones."""
    return always_short(serve(shelf))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cert.pem and key.pem for localhost, other.pem (another key), and locked.pem (a key with a password)."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")

    def run(words: str) -> None:
        subprocess.run([openssl, *words.split()], check=True, capture_output=True, cwd=folder)

    san = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    run(f"req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost -addext {san}")
    run("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out other.pem")
    run("rsa -aes128 -passout pass:secret -in key.pem -out locked.pem")
    return folder


class _Held:
    """A lock that is never free at once."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return blocking and timeout < 0

    def release(self) -> None:
        pass

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Make a version say that a run is on whenever somebody wants to run it at once."""
    return lambda version: monkeypatch.setattr(version, "_busy", _Held())


class Gate:
    """Holds a model's runs until it is opened, and counts them."""

    def __init__(self, server: Server, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Semaphore(0)
        self.batches: list[int] = []
        self._open = threading.Event()
        session = server.repository.get(model)._sessions[0]
        run = session.run

        def held(inputs: Any, **settings: Any) -> Any:
            self.batches.append(len(next(iter(inputs.values()))))
            self.entered.release()
            assert self._open.wait(20), "the gate was never opened"
            return run(inputs, **settings)

        monkeypatch.setattr(session, "run", held)

    def open(self) -> None:
        """Let all runs go on."""
        self._open.set()

    def wait(self) -> None:
        """Wait until a run has begun."""
        assert self.entered.acquire(timeout=20)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Gate]:
    """Hold a model's runs: `gate(server, "same")`."""
    return lambda server, model: Gate(server, model, monkeypatch)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run `edgewright serve ...` in this process, in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgewright", "serve", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture
def spans() -> Iterator[tuple[Any, Callable[[], list[Any]]]]:
    """A provider, and the spans that went to it."""
    pytest.importorskip("opentelemetry.sdk", reason="needs the extra `trace`")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, lambda: list(exporter.get_finished_spans())
    provider.shutdown()


@pytest.fixture
def tritonclient(tmp_path: Path) -> Callable[..., None]:
    """Run a script that ends with "done" under EDGEWRIGHT_TRITONCLIENT, a Python that has Triton's client.

    It is another one than ours, since the client wants an older protobuf.
    """
    python = os.environ.get("EDGEWRIGHT_TRITONCLIENT")
    if not python:
        pytest.skip("EDGEWRIGHT_TRITONCLIENT names no Python that has tritonclient[grpc,http]")

    def call(script: str, *arguments: str) -> None:
        path = tmp_path / "client.py"
        path.write_text(script)
        done = subprocess.run([python, str(path), *arguments], check=False, capture_output=True, text=True, timeout=200)
        assert done.stdout == "done\n", done.stderr

    return call
