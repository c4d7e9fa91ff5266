"""The core as a Ray Serve application, as far as it goes without Ray; benchmarks/fleet_ray.py runs it on a real one."""

from __future__ import annotations

import asyncio
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("msgspec", reason="needs the extra `serve`")

from edgewright.errors import EdgewrightError
from edgewright.serve import ModelOptions
from edgewright.serve.on_ray import Placement, Replica, application, run

BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 1, 2, 3]}]}).encode()
TOKEN = "correct-horse-battery-staple"


class Request:
    """Of a request of Starlette's, what is used."""

    def __init__(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        self.method, self.scope, self.client = method, {"path": path, "query_string": b""}, None
        self.headers = {"content-length": str(len(body)), **headers}
        self._body = body

    async def body(self) -> bytes:
        return self._body

    async def stream(self) -> Any:
        yield self._body


@pytest.fixture(autouse=True)
def starlette(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starlette's answer, in its place."""

    class Response:
        def __init__(self, content: bytes, status_code: int, headers: dict[str, str]) -> None:
            self.body, self.status_code, self.headers = content, status_code, headers

    module = types.ModuleType("starlette.responses")
    module.Response = Response  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "starlette", types.ModuleType("starlette"))
    monkeypatch.setitem(sys.modules, "starlette.responses", module)


def test_a_replica_answers_as_the_server_does(shelf: Path) -> None:
    replica = Replica([str(shelf / "scale")], ModelOptions(), TOKEN, False, True)
    replica.check_health()

    async def ask(*words: Any, **headers: str) -> Any:
        return await replica(Request(*words, **headers))

    answer = asyncio.run(ask("POST", "/v2/models/scale/infer", BODY, authorization=f"Bearer {TOKEN}"))
    assert (answer.status_code, json.loads(answer.body)["outputs"][0]["data"]) == (200, [0, 2, 4, 6])
    assert answer.headers["content-type"] == "application/json"
    assert asyncio.run(ask("POST", "/v2/models/scale/infer", BODY)).status_code == 401
    assert asyncio.run(ask("GET", "/v2/health/ready")).status_code == 200
    assert asyncio.run(ask("POST", "/v2/models/scale/infer", b"{", authorization=f"Bearer {TOKEN}")).status_code == 400
    replica._server.drain(10)
    with pytest.raises(RuntimeError, match="not ready"):
        replica.check_health()


def test_a_client_that_goes_away_takes_its_request_out_of_the_queue(shelf: Path, gate: Any) -> None:
    replica = Replica([str(shelf / "scale")], ModelOptions(), None, False, True)
    version = replica._server.repository.get("scale")
    held = gate(replica._server, "scale")

    async def scenario() -> None:
        first = asyncio.ensure_future(replica(Request("POST", "/v2/models/scale/infer", BODY)))
        while not held.batches:
            await asyncio.sleep(0.01)
        second = asyncio.ensure_future(replica(Request("POST", "/v2/models/scale/infer", BODY)))
        while not version.waiting:
            await asyncio.sleep(0.01)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert version.waiting == 0
        held.open()
        assert (await first).status_code == 200

    version._quick_s = 0.0  # nothing runs on the loop's own thread
    asyncio.run(scenario())
    assert np.sum(held.batches) == 1
    replica._server.drain(10)


@pytest.mark.parametrize(
    "wrong", [{"replicas": 0}, {"replicas": 3, "most": 2}, {"cpus": -1.0}, {"gpus": 100.0}, {"requests": 0}]
)
def test_a_placement_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(EdgewrightError) as caught:
        Placement(**wrong)
    assert caught.value.code == "E103"


def test_without_ray_the_pip_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for call in (lambda: application(["x"]), lambda: run(None)):
        with pytest.raises(EdgewrightError, match="which is not installed") as caught:
            call()
        assert caught.value.code == "E102"


def test_rays_own_door_is_locked_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """ShadowRay came in where Ray asked for nothing."""
    import os

    from edgewright.serve import on_ray

    monkeypatch.setitem(sys.modules, "ray", None)
    for name in on_ray._ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EdgewrightError):
        on_ray._require()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(EdgewrightError):
        on_ray._require()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    for name in on_ray._ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
