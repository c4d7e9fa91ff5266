"""What is remembered of binary requests: it changes no answer, and it stays small."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.serve import ModelOptions, Server
from edgewright.serve.http import quick
from edgewright.serve.http.application import Application
from edgewright.serve.http.guard import Guard
from edgewright.serve.protocol import forms
from edgewright.serve.protocol.forms import Form, Forms
from edgewright.serve.protocol.limits import Limits

Answer = tuple[int, dict[str, str], bytes]
X = np.arange(4, dtype=np.float32)[None]


class Request:
    """Scope and transport of one request to infer."""

    method, query_string = "POST", ""

    def __init__(self, path: str, body: bytes, head: int) -> None:
        self.path, self._body = path, body
        self.headers = {"content-length": str(len(body)), "inference-header-content-length": str(head)}
        self.answer: Answer | None = None

    async def __call__(self) -> bytes:
        return self._body

    async def __aiter__(self) -> Any:
        yield self._body

    async def client_disconnect(self) -> None:
        await asyncio.Event().wait()

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.answer = (status, dict(headers), body)


def head_of(array: np.ndarray, name: str = "x", datatype: str = "FP32", **more: Any) -> bytes:
    entry = {
        "name": name,
        "shape": list(array.shape),
        "datatype": datatype,
        "parameters": {"binary_data_size": array.nbytes},
    }
    return json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}, **more}).encode()


def ask(application: Application, model: str, head: bytes, tensors: bytes) -> Answer:
    request = Request(f"/v2/models/{model}/infer", head + tensors, len(head))
    asyncio.run(application(request, request))
    assert request.answer is not None
    assert application._bodies.held == application.active == 0
    return request.answer


def differ(server: Server, requests: list[tuple[str, bytes, bytes]]) -> bool:
    """Whether an application that remembers ever answers otherwise than one that has seen nothing."""
    remembering = Application(server)
    return any(ask(remembering, *request) != ask(Application(server), *request) for request in requests)


def mixture() -> list[tuple[str, bytes, bytes]]:
    """Requests that differ in one thing each: body, model, name, type, shape, outputs, id, timeout."""
    two = np.vstack([X, X])
    heads = [
        (head_of(X), X.tobytes()),
        (head_of(X), (X + 1).tobytes()),
        (head_of(X), X.tobytes() * 2),
        (head_of(X), X.tobytes()[:-1]),
        (head_of(X), b""),
        (head_of(two), two.tobytes()),
        (head_of(X, "z"), X.tobytes()),
        (head_of(X, datatype="INT32"), X.tobytes()),
        (head_of(X.reshape(2, 2)), X.tobytes()),
        (head_of(X[:0]), b""),
        (head_of(X, id="a"), X.tobytes()),
        (head_of(X, id="b"), X.tobytes()),
        (head_of(X, outputs=[{"name": "y"}]), X.tobytes()),
        (head_of(X, outputs=[{"name": "y", "parameters": {"binary_data": False}}]), X.tobytes()),
        (head_of(X, outputs=[{"name": "no"}]), X.tobytes()),
        (head_of(X) + b" ", X.tobytes()),
    ]
    models = ("same", "scale", "fixed", "lengths", "pick", "none")
    return [(model, *head) for _ in range(2) for model in models for head in heads]


def test_what_is_remembered_changes_no_answer(short: Server) -> None:
    assert not differ(short, mixture())


@pytest.mark.parametrize(
    "broken",
    [
        lambda self, body, length: next(iter(self._known.values()), None),
        lambda self, body, length: self._known.get(body[:length]),
        lambda self, body, length: next((form for head, form in self._known.items() if len(head) == length), None),
    ],
    ids=["any form", "of any size", "by the length of the JSON"],
)
def test_a_broken_key_is_seen(short: Server, monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Any]) -> None:
    monkeypatch.setattr(Forms, "find", broken)
    assert differ(short, mixture())


def test_notes_that_versions_share_are_seen(short: Server) -> None:
    shared: dict[Any, Any] = {}
    for version in short.repository.versions():
        version.notes = shared
    assert differ(short, mixture())


def test_a_known_request_goes_the_short_way(short: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    application = Application(short)
    first = ask(application, "scale", head_of(X), X.tobytes())
    before = short.repository.get("scale").statistics.requests
    monkeypatch.setattr(short, "submit", lambda *_, **__: pytest.fail("it was submitted"))
    assert ask(application, "scale", head_of(X), X.tobytes()) == first
    status, headers, body = ask(application, "scale", head_of(X), (X + 1).tobytes())
    assert status == 200
    assert headers == first[1]
    assert body[-X.nbytes :] == (2 * (X + 1)).tobytes()
    assert short.repository.get("scale").statistics.requests == before + 2
    short.drain(10)
    monkeypatch.undo()
    assert ask(application, "scale", head_of(X), X.tobytes())[0] == 503


def test_a_token_is_asked_for_and_the_way_stays_short(short: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    guard: Any = Guard(Application(short), tokens=("correct-horse-battery-staple",))
    head = head_of(X)
    for given, status in (("Bearer correct-horse-battery-staple", 200), ("Bearer wrong", 401)):
        for _ in range(2):
            request = Request("/v2/models/same/infer", head + X.tobytes(), len(head))
            request.headers["authorization"] = given
            asyncio.run(guard(request, request))
            assert request.answer is not None
            assert request.answer[0] == status
            monkeypatch.setattr(short, "submit", lambda *_, **__: pytest.fail("it was submitted"))


@pytest.mark.parametrize("why", ["a run takes long", "it is batched", "another run is on", "its time is limited"])
def test_what_is_not_short_is_submitted(
    serve: Any, shelf: Path, always_short: Any, busy: Any, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    server = always_short(serve(shelf / "scale", options=ModelOptions(max_batch=4 if why == "it is batched" else 1)))
    version = server.repository.get("scale")
    head = head_of(X)
    if why == "a run takes long":
        version._quick_s = 1.0
    if why == "its time is limited":
        head = head.replace(b'{"binary_data_output"', b'{"timeout": 10000000, "binary_data_output"')
    application = Application(server)
    first = ask(application, "scale", head, X.tobytes())
    submitted: list[Any] = []
    real = server.submit

    def noted(*arguments: Any, **settings: Any) -> Any:
        submitted.append(arguments)
        return real(*arguments, **settings)

    monkeypatch.setattr(server, "submit", noted)
    if why == "another run is on":
        busy(version)
    assert ask(application, "scale", head, X.tobytes()) == first
    assert submitted


def test_a_network_that_is_replaced_by_one_of_other_outputs(
    serve: Any, repository: Any, shelf: Path, always_short: Any
) -> None:
    folder = repository({"net": "same"})
    server = serve(folder, reloads=True)
    application = Application(server)
    for network in ("same", "scale", "photo", "same"):
        shutil.rmtree(folder / "net")
        shutil.copytree(shelf / network, folder / "net")
        server.repository.refresh()
        always_short(server)
        for _ in range(2):
            status, _, body = answer = ask(application, "net", head_of(X), X.tobytes())
            assert answer == ask(Application(server), "net", head_of(X), X.tobytes())
            assert (status, body[-16:] == X.tobytes()) == {
                "same": (200, True), "scale": (200, False), "photo": (400, False)
            }[network]  # fmt: skip


def test_a_runtime_that_fails_is_told_and_counted(short: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    application, version = Application(short), short.repository.get("same")
    good = ask(application, "same", head_of(X), X.tobytes())
    with monkeypatch.context() as patch:
        patch.setattr(version._sessions[0], "run", lambda *_, **__: 1 / 0)
        status, _, body = ask(application, "same", head_of(X), X.tobytes())
    assert status == 500
    assert b"ZeroDivisionError" in body
    assert version.statistics.refused["failed"] == 1
    assert ask(application, "same", head_of(X), X.tobytes()) == good


def test_long_json_is_not_remembered_and_all_of_it_stays_small(short: Server) -> None:
    application, version = Application(short), short.repository.get("same")
    longest = head_of(X).ljust(4096)
    assert ask(application, "same", longest, X.tobytes())[0] == 200
    assert longest in application._forms._known
    assert ask(application, "same", longest + b" ", X.tobytes())[0] == 200
    assert len(application._forms._known) == 1

    async def go() -> None:
        for number in range(2000):
            head = head_of(X, id=str(number))
            for _ in range(2):
                request = Request("/v2/models/same/infer", head + X.tobytes(), len(head))
                await application(request, request)
                assert request.answer is not None
                assert f'"id":"{number}"'.encode() in request.answer[2]

    asyncio.run(go())
    assert 0 < len(application._forms._known) <= forms._MOST_FORMS
    assert 0 < len(version.notes) <= quick._MOST_FORMS
    assert 0 < len(version._fitting) <= 64


def test_kinds_of_outputs_stay_few(short: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network may answer one form with outputs of ever other sizes."""
    application, version = Application(short), short.repository.get("same")
    sizes = iter(range(1, 102))
    session = version._sessions[0]
    monkeypatch.setattr(session, "run", lambda inputs, **_: {"y": np.zeros((next(sizes), 4), np.float32)})
    ask(application, "same", head_of(X), X.tobytes())
    for rows in range(2, 102):
        _, headers, body = ask(application, "same", head_of(X), X.tobytes())
        head = json.loads(body[: int(headers["inference-header-content-length"])])
        assert head["outputs"][0]["shape"] == [rows, 4]
    (known,) = version.notes.values()
    assert len(known.heads) <= quick._MOST_KINDS


def test_arrays_of_a_form_are_aligned_and_of_their_own_bytes() -> None:
    array = np.arange(3, dtype=np.float64)
    known = Forms(Limits())
    for padding in range(16):
        head = head_of(array, datatype="FP64") + b" " * padding
        known.read(head + array.tobytes(), len(head))
        form = known.find(head + array.tobytes(), len(head))
        assert isinstance(form, Form)
        found = form.inputs(head + array.tobytes(), len(head))["x"]
        assert found.flags.aligned
        assert np.array_equal(found, array)
