"""Requests that are answered where their bytes come in: the answers of the usual way, and never more than it would give."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httptools", reason="needs the extra `serve`")

from tests.serve.test_process import Process, running
from tests.serve.test_quick import X, ask, head_of, mixture

from edgewright.serve import Server
from edgewright.serve.http import quick
from edgewright.serve.http.application import Application
from edgewright.serve.http.guard import Guard
from edgewright.serve.http.heads import Head, Heads
from edgewright.serve.protocol.limits import Limits

TOKEN = "correct-horse-battery-staple"


def head_for(model: str, json_length: int, length: int, *more: str, method: str = "POST") -> Head:
    lines = [
        f"{method} /v2/models/{model}/infer HTTP/1.1",
        "host: x",
        f"inference-header-content-length: {json_length}",
        f"content-length: {length}",
        *more,
    ]
    return Heads().read("\r\n".join([*lines, "", ""]).encode())


def at_once(shown: Application | Guard, model: str, head: bytes, tensors: bytes, *more: str) -> Any:
    return shown.at_once(head_for(model, len(head), len(head) + len(tensors), *more), head + tensors)


def test_what_is_answered_at_once_is_what_the_usual_way_answers(short: Server) -> None:
    application, usual = Application(short), Application(short)
    seen = set()
    for model, head, tensors in mixture():
        status, headers, body = ask(usual, model, head, tensors)
        ask(application, model, head, tensors)  # by now the JSON is known, where it can be
        response = at_once(application, model, head, tensors)
        if response is not None:
            assert (response.status, dict(response.headers), response.body) == (status, headers, body)
        seen.add((model, response is not None))
    assert {("same", True), ("same", False), ("none", True)} <= seen


def test_the_short_way_is_for_plain_small_requests_to_infer_alone(
    short: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    application = Application(short, Limits(body_bytes=1000))
    head, tensors = head_of(X), X.tobytes()
    ask(application, "same", head, tensors)
    whole = head + tensors
    assert at_once(application, "same", head, tensors).status == 200
    assert at_once(application, "same", head, tensors, "content-encoding: identity").status == 200
    assert at_once(application, "same", head, tensors, "content-encoding: gzip") is None
    assert application.at_once(head_for("same", len(head), len(whole), method="PUT"), whole) is None
    assert application.at_once(head_for("same", len(head), 1001), whole) is None
    assert (
        application.at_once(head_for("same", len(head), len(whole), "inference-header-content-length: 1"), whole)
        is None
    )
    chunked = Heads().read(b"POST /v2/models/same/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    assert application.at_once(chunked, whole) is None
    assert application._bodies.held == application.active == 0
    monkeypatch.setattr(Server, "ready", False)  # it is stopping, and its networks are still there
    assert at_once(application, "same", head, tensors) is None  # the usual way says 503
    short.drain(10)
    assert at_once(application, "same", head, tensors) is None


def test_no_token_is_passed_by(short: Server) -> None:
    application = Application(short)
    head, tensors = head_of(X), X.tobytes()
    ask(application, "same", head, tensors)
    guard = Guard(application, tokens=(TOKEN,))
    assert at_once(guard, "same", head, tensors, f"authorization: Bearer {TOKEN}").status == 200
    for given in ((), ("authorization: Bearer wrong",), (f"authorization: Bearer {TOKEN}", "authorization: x")):
        assert at_once(guard, "same", head, tensors, *given) is None
    told = Guard(application, log=lambda *_, **__: None, log_requests=True)
    assert at_once(told, "same", head, tensors) is None
    traced: Any = Guard(application, tracer=object())  # type: ignore[arg-type]
    assert at_once(traced, "same", head, tensors) is None
    silent = Guard(application, log=lambda *_, **__: None)
    assert at_once(silent, "same", head, tensors).status == 200


def test_a_mistake_of_ours_tells_nothing_here_either(short: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[Any] = []
    application = Application(short, log=lambda event, **fields: logged.append(fields))

    def broken(*_: Any) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(quick, "answer", broken)
    response = at_once(application, "same", head_of(X), X.tobytes())
    assert (response.status, response.body) == (500, b'{"error":"the server failed"}')
    assert "/secret/path" in str(logged)


@pytest.fixture(scope="module")
def process(shelf: Path) -> Iterator[Process]:
    with running(str(shelf / "same")) as started:
        yield started


def test_over_a_socket_answers_are_the_same_at_once_compressed_and_in_pieces(process: Process) -> None:
    x = np.arange(600, dtype=np.float32).reshape(150, 4)
    head = head_of(x)
    path, length = "/v2/models/same/infer", str(len(head))
    plain = [process.ask("POST", path, head + x.tobytes(), inference_header_content_length=length) for _ in range(3)]
    for status, headers, body in plain:
        assert (status, body[int(headers["inference-header-content-length"]) :]) == (200, x.tobytes())
    for _ in range(2):
        status, headers, body = process.ask(
            "POST", path, head + x.tobytes(), inference_header_content_length=length, accept_encoding="gzip"
        )
        assert (status, headers["content-encoding"]) == (200, "gzip")
        assert gzip.decompress(body) == plain[0][2]
