"""gRPC's short way: a head that came before, a network that runs at once. Nothing but time may tell it from the usual way."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.serve import ModelOptions, Server
from edgewright.serve.core.log import silent
from edgewright.serve.protocol.limits import Bodies, Limits
from edgewright.serve.tracing import RUNS

pytest.importorskip("grpc", reason="needs the extra `serve`")

from edgewright.serve.grpc import schema, service
from edgewright.serve.grpc.arrivals import Arrivals

X = np.arange(4, dtype=np.float32)[None]


class Context:
    """A call as its handler sees it."""

    def __init__(self, left_s: float | None = None) -> None:
        self._left_s = left_s

    def time_remaining(self) -> float | None:
        return self._left_s

    def add_callback(self, _: Any) -> bool:
        return True

    def set_trailing_metadata(self, _: Any) -> None:
        pass

    def abort(self, code: Any, message: str) -> None:
        raise RuntimeError(code.name, message)


class Asked:
    """Asks a server over gRPC, without a connection."""

    def __init__(self, server: Server) -> None:
        limits = Limits()
        self._bodies = Bodies(limits)
        served = service.Service(server, limits, self._bodies, Arrivals(limits.body_s), token=None, log=silent)
        self._call = served._unary("ModelInfer", schema.load("inference").methods["ModelInfer"])

    def __call__(self, model: str, array: np.ndarray, *, left_s: float | None = None, **fields: Any) -> np.ndarray:
        message = schema.load("inference").messages["ModelInferRequest"](model_name=model, **fields)
        message.inputs.add(name="x", datatype="FP32", shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
        try:
            content = self._call(iter([message.SerializeToString()]), Context(left_s))
        finally:
            assert self._bodies.held == 0
        response = schema.load("inference").methods["ModelInfer"].response.FromString(content)
        return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(response.outputs[0].shape)


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Models whose requests were submitted, the usual way."""
    models: list[str] = []
    real = Server.submit

    def noted(self: Server, model: str, *arguments: Any, **settings: Any) -> Any:
        models.append(model)
        return real(self, model, *arguments, **settings)

    monkeypatch.setattr(Server, "submit", noted)
    yield models


def test_a_head_that_came_before_goes_the_short_way(short: Server, submitted: list[str]) -> None:
    ask = Asked(short)
    statistics = short.repository.get("scale").statistics
    before = statistics.requests
    for count, array in enumerate((X, X, X + 1, -X)):
        assert ask("scale", array).tolist() == (2 * array).tolist()
        assert submitted == ["scale"]  # the first alone
        assert statistics.requests == before + count + 1


class _Ending:
    """The lock of a run that ends as soon as somebody waits for it."""

    def acquire(self, timeout: float) -> bool:
        return timeout > 0.0

    def release(self) -> None:
        pass


def test_a_call_waits_for_another_short_run(
    short: Server, submitted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Asked(short)
    ask("scale", X)
    monkeypatch.setattr(short.repository.get("scale"), "_busy", _Ending())
    assert ask("scale", X + 1).tolist() == (2 * (X + 1)).tolist()
    assert submitted == ["scale"]  # the second call had nothing else to do


def test_the_same_head_for_another_network_is_its_own(short: Server, submitted: list[str]) -> None:
    ask = Asked(short)
    for _ in range(3):
        assert ask("scale", X).tolist() == (2 * X).tolist()
        assert ask("same", X).tolist() == X.tolist()
    for _ in range(2):  # "fixed" takes one row and not two
        with pytest.raises(RuntimeError, match="INVALID_ARGUMENT"):
            ask("fixed", np.concatenate([X, X]))
    assert ask("fixed", X).tolist() == X.tolist()


def test_a_wrong_output_is_refused_on_both_ways(short: Server) -> None:
    ask = Asked(short)
    wanted = schema.load("inference").messages["ModelInferRequest"].InferRequestedOutputTensor
    for name in ("y", "z") * 2:
        fields = {"outputs": [wanted(name=name)]}
        if name == "y":
            assert ask("scale", X, **fields).tolist() == (2 * X).tolist()
        else:
            with pytest.raises(RuntimeError, match="INVALID_ARGUMENT"):
                ask("scale", X, **fields)


def test_a_runtime_that_fails_is_told_and_counted(short: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Asked(short)
    ask("scale", X)
    version = short.repository.get("scale")
    before = version.statistics.refused.get("failed", 0)

    def fail(*_: Any, **__: Any) -> Any:
        raise MemoryError("no memory for it")

    monkeypatch.setattr(version._sessions[0], "run", fail)
    with pytest.raises(RuntimeError, match="INTERNAL"):
        ask("scale", X)
    assert version.statistics.refused["failed"] == before + 1
    monkeypatch.undo()
    assert ask("scale", X).tolist() == (2 * X).tolist()


def test_a_drained_server_refuses(short: Server) -> None:
    ask = Asked(short)
    ask("scale", X)
    short.drain(10)
    with pytest.raises(RuntimeError, match="UNAVAILABLE"):
        ask("scale", X)


@pytest.mark.parametrize(
    "why", ["a run takes long", "it is batched", "another run is on", "it is watched", "its time is up"]
)
def test_what_is_not_short_is_submitted(
    serve: Any, shelf: Path, always_short: Any, busy: Any, submitted: list[str], why: str
) -> None:
    server = always_short(serve(shelf / "scale", options=ModelOptions(max_batch=4 if why == "it is batched" else 1)))
    version = server.repository.get("scale")
    ask = Asked(server)
    ask("scale", X)
    submitted.clear()
    if why == "a run takes long":
        version._quick_s = 1.0
    if why == "another run is on":
        busy(version)
    token = RUNS.set([] if why == "it is watched" else None)
    try:
        if why == "its time is up":
            with pytest.raises(RuntimeError, match="DEADLINE_EXCEEDED"):
                ask("scale", X, left_s=0.0)
        else:
            assert ask("scale", X).tolist() == (2 * X).tolist()
    finally:
        RUNS.reset(token)
    assert submitted == ["scale"]


def test_a_network_that_is_replaced_by_one_of_other_outputs(
    serve: Any, repository: Any, shelf: Path, always_short: Any
) -> None:
    folder = repository({"net": "same"})
    server = serve(folder, reloads=True)
    ask = Asked(server)
    for network, factor in (("same", 1), ("scale", 2), ("same", 1)):
        shutil.rmtree(folder / "net")
        shutil.copytree(shelf / network, folder / "net")
        server.repository.refresh()
        always_short(server)
        for _ in range(2):
            assert ask("net", X).tolist() == (factor * X).tolist()
