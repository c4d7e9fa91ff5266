"""Incidents that befell other servers (docs/security.md), tried here."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import pickle
import re
import shutil
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msgspec", reason="needs the extra `serve`")

import edgewright as ew
from edgewright.errors import EdgewrightError
from edgewright.serve import Server
from edgewright.serve.http.application import Application
from edgewright.serve.protocol.limits import MIB, Limits

ROOT = Path(__file__).resolve().parents[2]
SERVE = ROOT / "src" / "edgewright" / "serve"
TOKEN = "correct-horse-battery-staple"


class Request:
    """Scope and transport in one, as a connection hands them over."""

    def __init__(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        self.method, self.path, self.query_string = method, path, ""
        self.headers = {"content-length": str(len(body)), **headers}
        self.status, self.answer = 0, b""
        self._body = body

    async def __call__(self) -> bytes:
        return self._body

    async def __aiter__(self) -> Any:
        yield self._body

    async def client_disconnect(self) -> None:
        await asyncio.sleep(3600)

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.answer = status, body


def ask(server: Server, method: str, path: str, body: bytes = b"", token: str | None = None, **headers: str) -> Request:
    request = Request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    asyncio.run(Application(server, token=token)(request, request))  # type: ignore[arg-type]
    return request


def infer(server: Server, model: str, entry: dict[str, Any], raw: bytes = b"") -> Request:
    head = json.dumps({"inputs": [entry]}).encode()
    length = {"inference_header_content_length": str(len(head))} if raw else {}
    return ask(server, "POST", f"/v2/models/{model}/infer", head + raw, **length)


class Bomb:
    """Makes a file as soon as it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


# --- code in the data path ------------------------------------------------------------------------------------------------


def test_no_pickle_that_is_sent_is_ever_opened(whole: Server, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    bomb = pickle.dumps(Bomb(mark))
    pickle.loads(bomb)
    assert mark.exists()  # the bomb works
    mark.unlink()
    for model in ("kinds", "same", "photo"):
        for verb in ("infer", "predict"):
            for kind in ("application/octet-stream", "application/vnd.bentoml+pickle", "application/json"):
                answer = ask(whole, "POST", f"/v2/models/{model}/{verb}", bomb, content_type=kind)
                assert 400 <= answer.status < 500
    text = {"name": "s", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(bomb) + 4}}
    infer(whole, "kinds", text, len(bomb).to_bytes(4, "little") + bomb)
    assert not mark.exists()


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_the_server_has_no_means_to_unpickle_fetch_or_start_anything() -> None:
    means = {"pickle", "marshal", "shelve", "dill", "joblib", "torch", "subprocess", "multiprocessing", "shared_memory"}
    means |= {"urllib", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "http.client"}
    for path in sorted(SERVE.rglob("*.py")):
        if path.is_relative_to(SERVE / "check"):
            continue  # a client, which asks the address that it is given
        assert not any(name.startswith("edgewright.serve.check") for name in _imports(path)), path
        own = {name for name in _imports(path) if name in means or name.split(".")[0] in means}
        assert own == set(), path
        called = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        may = {"exec", "compile"} if path == SERVE / "hooks" / "code.py" else set()
        assert called & {"exec", "eval", "compile", "__import__"} <= may, path


# --- paths and links ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../secret",
        "../../etc/passwd",
        "/etc/passwd",
        "same/../../secret",
        "..\\secret",
        "same\0",
        "same@../secret",
        "%2e%2e",
        "~",
        ".",
    ],
)
def test_names_are_looked_up_and_never_become_paths(serve: Any, repository: Any, name: str) -> None:
    folder = repository({"same": "same"})
    (folder.parent / "secret").write_text("canary-3141")
    server = serve(folder, reloads=True)
    for method, path in (
        ("GET", f"/v2/models/{name}"),
        ("GET", f"/v2/models/{name}/config"),
        ("POST", f"/v2/models/{name}/infer"),
        ("POST", f"/v2/models/{name}/predict"),
        ("POST", f"/v2/repository/models/{name}/load"),
        ("POST", f"/v2/repository/models/{name}/unload"),
        ("GET", f"/docs/{name}"),
        ("GET", f"/{name}"),
    ):
        answer = ask(server, method, path, token=TOKEN, authorization=f"Bearer {TOKEN}")
        assert 400 <= answer.status < 500, (path, answer.answer)
        assert b"canary" not in answer.answer
        assert str(folder.parent).encode() not in answer.answer
    assert [version.name for version in server.repository.versions()] == ["same"]


@pytest.mark.parametrize("watched", [None, 3600.0])
def test_links_out_of_a_bundle_are_not_followed(
    serve: Any, repository: Any, tmp_path: Path, watched: float | None
) -> None:
    """Even to a file with the very bytes that the manifest names: the next one may have others."""
    folder = repository({"net": "same", "other": "same"})
    shutil.copy(folder / "net" / "model.onnx", tmp_path / "outside.onnx")
    (folder / "net" / "model.onnx").unlink()
    (folder / "net" / "model.onnx").symlink_to(tmp_path / "outside.onnx")
    if watched is None:
        with pytest.raises(EdgewrightError) as caught:
            serve(folder)
        assert caught.value.code == "E220"
    else:
        server = serve(folder, watch_s=watched)
        assert [version.name for version in server.repository.versions()] == ["other"]


def test_loading_takes_no_files_and_no_settings_from_a_client(serve: Any, repository: Any) -> None:
    """As Triton's load does: `config` and `file:...` write what a client sends into the repository."""
    server = serve(repository({"same": "same"}), reloads=True)
    for parameters in ({"config": "{}"}, {"file:1/model.onnx": "AAAA"}, {"file:../../x": "AAAA"}):
        body = json.dumps({"parameters": parameters}).encode()
        answer = ask(server, "POST", "/v2/repository/models/same/load", body, TOKEN, authorization=f"Bearer {TOKEN}")
        assert answer.status == 400
        assert b"come from the folders only" in answer.answer


# --- memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "datatype"),
    [
        ([2**62, 4], "FP32"),
        ([2**31, 2**31, 2**31, 4], "INT8"),
        ([2**63 - 1], "FP64"),
        ([2**33, 2**31 - 1, 4], "BOOL"),
        ([65536, 65536, 4], "FP32"),  # 2**34 values, 0 in 32 bits
        ([10**9], "BYTES"),
        ([64 * MIB, 1], "FP16"),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_huge_shapes_take_no_memory(whole: Server, shape: list[int], datatype: str, binary: bool) -> None:
    entry: dict[str, Any] = {"name": "x", "shape": shape, "datatype": datatype}
    entry |= {"parameters": {"binary_data_size": 16}} if binary else {"data": [0, 1, 2, 3]}
    tracemalloc.start()
    answer = infer(whole, "same", entry, b"\0" * 16 if binary else b"")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status == 400
    assert peak < 4 * MIB


@pytest.mark.parametrize(
    "open_", [b"[", b'{"a":', b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":' + b"["]
)
def test_deep_json_is_refused(whole: Server, open_: bytes) -> None:
    for path in ("/v2/models/same/infer", "/v2/repository/index"):
        answer = ask(whole, "POST", path, open_ * 100_000)
        assert answer.status == 400


def test_shared_memory_is_not_offered(whole: Server) -> None:
    for kind in ("systemsharedmemory", "cudasharedmemory"):
        for verb in ("status", "region/x/register", "region/x/unregister"):
            assert ask(whole, "POST", f"/v2/{kind}/{verb}", b"{}").status == 400
    entry = {
        "name": "x",
        "shape": [1, 4],
        "datatype": "FP32",
        "parameters": {"shared_memory_region": "triton_python_backend"},
    }
    answer = infer(whole, "same", entry)
    assert answer.status == 400
    assert b"does not offer it" in answer.answer


# --- who reaches what -----------------------------------------------------------------------------------------------------


def test_only_this_machine_is_served_unless_told_otherwise() -> None:
    from edgewright.cli.serve_command import command

    assert inspect.signature(ew.serve).parameters["host"].default == "127.0.0.1"
    assert inspect.signature(ew.serve).parameters["admin_token"].default is None
    assert inspect.signature(ew.serve).parameters["allow_hooks"].default is False
    context = command.make_context("serve", ["folder"])
    assert context.params["host"] == "127.0.0.1"
    assert context.params["admin_token"] is None
    assert context.params["allow_hooks"] is False


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/x.jpg", "file:///etc/passwd", "ftp://127.0.0.1/x", "//127.0.0.1/share"]
)
def test_no_address_that_is_sent_is_fetched(whole: Server, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    reached: list[Any] = []
    # the event loop makes a pair of sockets for itself, which is no fetch
    monkeypatch.setattr(socket.socket, "connect", lambda self, where: reached.append(where))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **_: reached.append(words))
    answer = ask(whole, "POST", "/v2/models/photo/predict", address.encode())
    assert answer.status == 400
    assert b"root:" not in answer.answer
    body = json.dumps({"image_url": address, "url": address, "inputs": [address]}).encode()
    for path in ("/v2/models/photo/predict", "/v2/models/photo/infer"):
        assert ask(whole, "POST", path, body, content_type="application/json").status == 400
    assert reached == []


def test_a_mistake_of_ours_tells_a_client_nothing(whole: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("/secret/path and a value 42")

    monkeypatch.setattr(whole, "submit", broken)
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 1, 2, 3]}]}).encode()
    answer = ask(whole, "POST", "/v2/models/same/infer", body)
    assert (answer.status, json.loads(answer.answer)) == (500, {"error": "the server failed"})


# --- the page -------------------------------------------------------------------------------------------------------------


def test_every_test_that_the_page_names_exists() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    defined = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(named) > 20
    assert named - defined == set()


def test_limits_on_the_page_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    limits = Limits()
    for text in (
        f"{limits.body_bytes // MIB} MiB",
        f"{limits.json_bytes // MIB} MiB",
        f"{limits.pixels // 10**6} megapixels",
    ):
        assert text in page
