"""The core without a transport: batches, deadlines, versions, reloads, drain."""

from __future__ import annotations

import gc
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgewright as ew
from edgewright import rows
from edgewright.errors import EdgewrightError
from edgewright.serve import ModelOptions, Server
from edgewright.serve.core.jobs import RefusalError, Result, Waiter
from edgewright.serve.core.options import chosen_versions, read_options
from edgewright.serve.core.version import Version

X = np.arange(4, dtype=np.float32)[None]


def submit(server: Server, array: np.ndarray, model: str = "net", **settings: Any) -> tuple[Any, Waiter]:
    """A request in flight, never run on this thread: its ticket and what waits for its answer."""
    waiter = Waiter()
    return server.submit(model, {"x": array}, waiter, inline=False, **settings), waiter


def outcome(waiter: Waiter) -> str:
    answer = waiter.wait(20)
    assert answer is not None, "no answer came"
    return "done" if isinstance(answer, Result) else answer.reason


# --- running ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["same", "scale", "mean", "fixed", "lengths"])
def test_answers_are_those_of_the_session(whole: Server, shelf: Path, name: str) -> None:
    with ew.open(shelf / name) as session:
        expected = session.run({"x": X})
    before = whole.repository.get(name).statistics.requests
    np.testing.assert_array_equal(whole.infer(name, {"x": X}).outputs["y"], expected["y"])
    assert whole.repository.get(name).statistics.requests == before + 1


@pytest.mark.parametrize(
    ("model", "inputs", "reason", "message"),
    [
        ("nope", {"x": X}, "unknown", "model `nope` is not served here"),
        ("same", {"z": X}, "invalid", "inputs given: `z`; the network takes: `x`"),
        ("same", {"x": X.astype(np.float64)}, "invalid", "`x` is float64, but the network takes float32"),
        ("same", {"x": X[:, :3]}, "invalid", r"shape \[1, 3\]"),
        ("same", {"x": X[:0]}, "invalid", "holds nothing"),
    ],
)
def test_requests_that_do_not_fit_are_refused_before_they_are_queued(
    whole: Server, model: str, inputs: Any, reason: str, message: str
) -> None:
    with pytest.raises(RefusalError, match=message) as refused:
        whole.infer(model, inputs)
    assert refused.value.reason == reason


def test_a_short_run_happens_on_the_callers_thread_and_a_long_one_does_not(serve: Any, shelf: Path) -> None:
    server = serve(shelf / "same")
    version = server.repository.get("same")
    for quick_s, inline in ((1e-5, True), (1.0, False), (0.0, False)):
        version._quick_s = quick_s
        seen: list[int] = []
        done = threading.Event()
        server.submit(
            "same", {"x": X}, lambda _, seen=seen, done=done: (seen.append(threading.get_ident()), done.set())
        )
        assert done.wait(20)
        assert (seen == [threading.get_ident()]) == inline


def test_a_runtime_that_fails_is_told_and_the_next_request_runs(
    serve: Any, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(shelf / "same")
    session = server.repository.get("same")._sessions[0]
    with monkeypatch.context() as patch:
        patch.setattr(session, "run", lambda *_, **__: 1 / 0)
        with pytest.raises(RefusalError, match="ZeroDivisionError") as refused:
            server.infer("same", {"x": X})
    assert refused.value.reason == "failed"
    assert isinstance(server.infer("same", {"x": X}), Result)


# --- batching -----------------------------------------------------------------------------------------------------------


def test_requests_run_together_and_each_gets_its_own_rows(
    serve: Any, repository: Any, gate: Callable[..., Any]
) -> None:
    server = serve(repository({"net": "scale"}), options=ModelOptions(max_batch=8))
    held = gate(server, "net")
    _, first = submit(server, X)
    held.wait()
    arrays = [np.full((rows, 4), rows, np.float32) for rows in (1, 3, 2, 4)]
    waiting = [submit(server, array)[1] for array in arrays]
    held.open()
    for array, waiter in zip(arrays, waiting, strict=True):
        answer = waiter.wait(20)
        assert isinstance(answer, Result)
        np.testing.assert_array_equal(answer.outputs["y"], 2 * array)
        assert len(array) == 4 or answer.outputs["y"].base is None  # no view keeps a batch of several
    assert outcome(first) == "done"
    assert held.batches == [1, 6, 4]  # 1 + 3 + 2 rows, then those that no longer fitted
    assert server.repository.get("net").statistics.document()["batch_stats"][1]["batch_size"] == 4


@pytest.mark.parametrize(
    ("network", "why"),
    [
        ("mean", "rows depend on each other"),
        ("dynamic", "rows depend on each other"),
        ("fixed", "batch axis is fixed"),
    ],
)
def test_networks_whose_rows_cannot_run_together_never_do(
    serve: Any, repository: Any, gate: Callable[..., Any], network: str, why: str
) -> None:
    server = serve(repository({"net": network}), options=ModelOptions(max_batch=8))
    assert why in server.repository.get("net").why_alone
    held = gate(server, "net")
    waiting = [submit(server, X + number)[1] for number in range(4)]
    held.open()
    assert [outcome(waiter) for waiter in waiting] == ["done"] * 4
    assert held.batches == [1] * 4


def test_rows_that_depend_on_each_other_are_found_by_what_the_check_compares() -> None:
    alone = {"y": np.float32([[1, 2], [3, 4]])}
    assert rows.distance(alone, alone) == 0
    assert rows.distance({"y": alone["y"] * 1.001}, alone) > rows.SAME_ROWS
    assert rows.distance({"y": np.float32([[np.nan, 2], [3, 4]])}, alone) == float("inf")
    assert rows.distance({"y": alone["y"][:1]}, alone) == float("inf")


def test_one_bad_request_in_a_batch_fails_alone(serve: Any, repository: Any, gate: Callable[..., Any]) -> None:
    server = serve(repository({"net": "pick"}), options=ModelOptions(max_batch=8))
    held = gate(server, "net")
    waiters = []
    for index in (0, 1, 77, 0):  # 77 is beyond the table
        waiters.append(Waiter())
        server.submit("net", {"i": np.array([index])}, waiters[-1], inline=False)
    held.open()
    assert [outcome(waiter) for waiter in waiters] == ["done", "done", "invalid", "done"]


def test_padding_joins_lengths_and_the_answers_are_cut_back(
    serve: Any, repository: Any, gate: Callable[..., Any]
) -> None:
    folder = repository({"net": "lengths"})
    (folder / "serve.toml").write_text("[models.net]\nmax_batch = 8\npad = {L = [4, 8]}\n")
    server = serve(folder)
    held = gate(server, "net")
    _, first = submit(server, X)
    held.wait()
    arrays = [np.full((1, length), length, np.float32) for length in (2, 3, 4, 7)]
    waiting = [submit(server, array)[1] for array in arrays]
    held.open()
    for array, waiter in zip(arrays, waiting, strict=True):
        answer = waiter.wait(20)
        assert isinstance(answer, Result)
        np.testing.assert_array_equal(answer.outputs["y"], array)
    assert outcome(first) == "done"
    assert held.batches == [1, 3, 1]  # 2, 3 and 4 places as 4 each; 7 as 8
    with pytest.raises(RefusalError, match="axis `L` has 9 places, more than the limit of 8"):
        server.infer("net", {"x": np.zeros((1, 9), np.float32)})


# --- queueing -----------------------------------------------------------------------------------------------------------


def test_deadlines_cancels_and_bounds_while_a_run_goes_on(
    serve: Any, repository: Any, gate: Callable[..., Any]
) -> None:
    server = serve(repository({"net": "scale"}), options=ModelOptions(queue=3))
    held = gate(server, "net")
    running, first = submit(server, X)
    held.wait()
    server.repository.get("net")._row_s = 1e-6  # so that a deadline of 20 ms seems in reach
    late, urgent, cancelled = submit(server, X, timeout_s=0.02), submit(server, X, priority=-1), submit(server, X)
    with pytest.raises(RefusalError) as refused:
        submit(server, X)
    assert refused.value.reason == "full"
    assert refused.value.retry_after_s == 1
    assert cancelled[0].cancel()
    assert not cancelled[0].cancel()
    assert not running.cancel()  # what runs is finished
    time.sleep(0.03)
    held.open()
    assert [outcome(waiter) for waiter in (first, late[1], urgent[1], cancelled[1])] == [
        "done", "late", "done", "cancelled",
    ]  # fmt: skip
    assert len(held.batches) == 2  # neither the late nor the cancelled one ran
    refusals = server.repository.get("net").statistics.refused
    assert refusals["full"] == refusals["cancelled"] == 1


def test_infer_gives_up_at_its_deadline(serve: Any, repository: Any, gate: Callable[..., Any]) -> None:
    server = serve(repository({"net": "scale"}))
    held = gate(server, "net")
    submit(server, X)
    held.wait()
    server.repository.get("net")._row_s = 1e-6
    with pytest.raises(RefusalError) as refused:
        server.infer("net", {"x": X}, timeout_s=0.02)
    assert refused.value.reason == "late"
    held.open()


def test_drain_finishes_what_was_accepted_and_refuses_the_rest(
    serve: Any, repository: Any, gate: Callable[..., Any]
) -> None:
    server = serve(repository({"net": "scale"}))
    held = gate(server, "net")
    waiting = [submit(server, X)[1] for _ in range(5)]
    held.wait()
    done: list[bool] = []
    drain = threading.Thread(target=lambda: done.append(server.drain(20)))
    drain.start()
    while server.ready:
        time.sleep(0.001)
    with pytest.raises(RefusalError) as refused:
        submit(server, X)
    assert refused.value.reason == "unavailable"
    held.open()
    drain.join(20)
    assert done == [True]
    assert [outcome(waiter) for waiter in waiting] == ["done"] * 5


def test_a_drain_that_takes_too_long_answers_what_still_waits(
    serve: Any, repository: Any, gate: Callable[..., Any]
) -> None:
    server = serve(repository({"net": "scale"}))
    held = gate(server, "net")
    _, running = submit(server, X)
    held.wait()
    _, waiting = submit(server, X)
    assert not server.drain(0.05)
    assert outcome(waiting) == "unavailable"
    held.open()
    assert outcome(running) == "done"


# --- the repository -----------------------------------------------------------------------------------------------------


def test_names_versions_and_variants(serve: Any, repository: Any) -> None:
    folder = repository(
        {"a": "same", "b/1": "same", "b/3": "scale", "c/2/ort": "same", "c/2/other": "scale", ".new": "same"}
    )
    server = serve(folder, options=ModelOptions(versions="all"))
    assert [(v.name, v.number) for v in server.repository.versions()] == [
        ("a", 1), ("b", 1), ("b", 3), ("c@ort", 2), ("c@other", 2),
    ]  # fmt: skip
    assert server.infer("b", {"x": X}).outputs["y"][0, 3] == 6  # the newest
    assert server.infer("b", {"x": X}, version=1).outputs["y"][0, 3] == 3
    assert server.infer("c", {"x": X}).outputs["y"][0, 3] == 3
    assert server.infer("c@other", {"x": X}).outputs["y"][0, 3] == 6
    with pytest.raises(RefusalError, match="version 2 of model `b` is not served here"):
        server.infer("b", {"x": X}, version=2)


def test_preference_chooses_among_runtimes(serve: Any, repository: Any, shelf: Path) -> None:
    folder = repository({"net/1/a": "same"})
    import onnx_ir as ir

    graph = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x) => (float[N,4] y) { y = Neg (x) }'
    )
    ew.convert(ew.Model(graph, name="net"), "reference", folder / "net" / "1" / "b")
    for prefer, expected in (((), 3), (("reference",), -3)):
        server = serve(folder, options=ModelOptions(prefer=prefer))
        assert server.infer("net", {"x": X}).outputs["y"][0, 3] == expected


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("latest", (9,)), ("latest:2", (3, 9)), ("all", (1, 3, 9)), ("1,9,7", (1, 9)), ("latest:9", (1, 3, 9))],
)
def test_version_policies(policy: str, expected: tuple[int, ...]) -> None:
    assert chosen_versions(policy, (3, 1, 9)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[models.net]\nmax_batsh = 2", "did you mean `max_batch`"),
        ("[models.net]\nmax_batch = 0", "`max_batch` is 0"),
        ("[models.net]\nversions = 'newest'", "must be latest"),
        ("[models.net]\npad = {L = []}", "must list sizes"),
        ("max_batch = 2", "tables named models.NAME"),
        ("[models", "cannot be read"),
        ("models = 3", "tables named models.NAME"),
        ("[models]\nnet = 3", "must be a table"),
    ],
)
def test_a_malformed_serve_toml_names_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "serve.toml").write_text(text)
    with pytest.raises(EdgewrightError, match=message):
        read_options(tmp_path, ModelOptions())


def test_serve_toml_changes_what_it_names_only(tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text("[models.net]\nmax_delay_ms = 2\n")
    assert read_options(tmp_path, ModelOptions(max_batch=4)) == {"net": ModelOptions(max_batch=4, max_delay_ms=2)}


def test_a_folder_without_bundles_or_with_a_bad_one_is_refused_at_the_start(
    serve: Any, repository: Any, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EdgewrightError, match="hold no bundle"):
        serve(tmp_path / "empty")
    with pytest.raises(EdgewrightError, match="cannot be read"):
        serve(tmp_path / "absent")
    folder = repository({"good": "same", "bad": "scale"})
    (folder / "bad" / "model.onnx").write_bytes(b"half")
    with pytest.raises(EdgewrightError, match="was changed after it was made"):
        serve(folder)


def test_the_same_name_in_two_folders_is_refused(serve: Any, repository: Any, shelf: Path) -> None:
    with pytest.raises(EdgewrightError, match="model `same` is in"):
        serve(shelf, repository({"same": "same"}))


# --- reloading ----------------------------------------------------------------------------------------------------------


def replace(target: Path, source: Path) -> None:
    """Copy a bundle over another file by file, as `cp -r` does: half of it is new for a while."""
    for path in sorted(source.rglob("*"), reverse=True):  # the manifest last is the easy order
        if path.is_file():
            shutil.copyfile(path, target / path.relative_to(source))


def test_a_changed_bundle_is_loaded_and_requests_in_flight_finish_on_the_old_one(
    serve: Any, repository: Any, shelf: Path, gate: Callable[..., Any]
) -> None:
    folder = repository({"net": "same"})
    server = serve(folder, reloads=True)
    held = gate(server, "net")
    waiting = [submit(server, X)[1] for _ in range(3)]
    held.wait()
    replace(folder / "net", shelf / "scale")
    assert server.repository.refresh() == []
    assert server.infer("net", {"x": X}).outputs["y"][0, 3] == 6
    held.open()
    for waiter in waiting:
        answer = waiter.wait(20)
        assert isinstance(answer, Result)
        assert answer.outputs["y"][0, 3] == 3


def test_a_half_copied_bundle_is_never_loaded_and_says_why(serve: Any, repository: Any, shelf: Path) -> None:
    folder = repository({"net": "same"})
    events: list[tuple[str, dict[str, Any]]] = []
    server = serve(folder, reloads=True, log=lambda event, **fields: events.append((event, fields)))
    whole = (shelf / "scale" / "model.onnx").read_bytes()
    shutil.copyfile(shelf / "scale" / "bundle.json", folder / "net" / "bundle.json")
    for part in (b"", whole[: len(whole) // 2], whole[:-1]):
        (folder / "net" / "model.onnx").write_bytes(part)
        (problem,) = server.repository.refresh()
        assert "was changed after it was made" in problem.message
        assert server.infer("net", {"x": X}).outputs["y"][0, 3] == 3
    (entry,) = server.repository.index()
    assert entry.state == "READY"
    assert "was changed" in entry.reason
    assert events[-1][0] == "refused"
    assert "what was loaded before goes on" in events[-1][1]["reason"]
    assert server.repository.refresh() == []  # the same files are not hashed again and again
    (folder / "net" / "model.onnx").write_bytes(whole)
    assert server.repository.refresh() == []
    assert server.infer("net", {"x": X}).outputs["y"][0, 3] == 6


def test_a_file_cut_short_in_place_does_not_reach_the_network_that_runs(serve: Any, repository: Any) -> None:
    folder = repository({"net": "same"})
    server = serve(folder, reloads=True)
    copy = server.repository.get("net").bundle.path
    assert not copy.is_relative_to(folder)
    (folder / "net" / "model.onnx").write_bytes(b"")
    assert server.infer("net", {"x": X}).outputs["y"][0, 3] == 3
    server.drain(10)
    assert not copy.exists()  # private copies go with their version


def test_a_bundle_that_is_gone_is_retired_and_a_folder_that_is_gone_is_not(serve: Any, repository: Any) -> None:
    folder = repository({"a": "same", "b": "scale"})
    server = serve(folder, reloads=True)
    shutil.rmtree(folder / "a")
    server.repository.refresh()
    with pytest.raises(RefusalError) as refused:
        server.infer("a", {"x": X})
    assert refused.value.reason == "unknown"
    folder.rename(folder.with_name("away"))
    (problem,) = server.repository.refresh()
    assert problem.code == "E104"
    assert isinstance(server.infer("b", {"x": X}), Result)


def test_unloaded_models_stay_away_until_they_are_loaded(serve: Any, repository: Any) -> None:
    server = serve(repository({"a": "same", "b": "same"}), reloads=True)
    server.repository.unload("a")
    server.repository.refresh()
    with pytest.raises(RefusalError):
        server.infer("a", {"x": X})
    assert [(entry.name, entry.state, entry.reason) for entry in server.repository.index()] == [
        ("a", "UNAVAILABLE", "unloaded"), ("b", "READY", ""),
    ]  # fmt: skip
    server.repository.load("a")
    assert isinstance(server.infer("a", {"x": X}), Result)
    for change in (server.repository.load, server.repository.unload):
        with pytest.raises(RefusalError, match="`nope` is not served"):
            change("nope")


def test_watching_finds_changes_by_itself(serve: Any, repository: Any, shelf: Path) -> None:
    folder = repository({"net": "same"})
    server = serve(folder, watch_s=0.05)
    replace(folder / "net", shelf / "scale")
    shutil.copytree(shelf / "fixed", folder / "new")
    until = time.monotonic() + 30
    while time.monotonic() < until:
        names = {version.name for version in server.repository.versions()}
        if "new" in names and server.infer("net", {"x": X}).outputs["y"][0, 3] == 6:
            return
        time.sleep(0.02)
    pytest.fail("the change was never seen")


def test_fifty_reloads_under_load_lose_no_request(serve: Any, repository: Any, shelf: Path) -> None:
    """Clients ask all the time, and cancel at times, while versions of factor 1 and 2 take turns."""
    folder = repository({"net": "same"})
    server = serve(folder, options=ModelOptions(max_batch=4), reloads=True)
    stop = threading.Event()
    counts = {"done": 0, "cancelled": 0}
    lost: list[str] = []

    def ask(seed: int) -> None:
        random = np.random.default_rng(seed)
        while not stop.is_set():
            array = random.integers(1, 9, (1, 4)).astype(np.float32)
            waiter = Waiter()
            ticket = server.submit("net", {"x": array}, waiter, inline=bool(random.integers(2)))
            if random.integers(5) == 0:
                ticket.cancel()
            answer = waiter.wait(30)
            if isinstance(answer, RefusalError) and answer.reason == "cancelled":
                counts["cancelled"] += 1
            elif isinstance(answer, Result) and np.unique(answer.outputs["y"] / array).tolist() in ([1.0], [2.0]):
                counts["done"] += 1
            else:
                lost.append(repr(answer))

    clients = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for client in clients:
        client.start()
    try:
        for number in range(50):
            replace(folder / "net", shelf / ("scale" if number % 2 == 0 else "same"))
            assert server.repository.refresh() == []
    finally:
        stop.set()
        for client in clients:
            client.join(30)
    assert lost == []
    assert counts["done"] > 50
    for thread in server.repository._retiring:
        thread.join(30)
    gc.collect()
    held = [item for item in gc.get_objects() if type(item) is Version and item.name == "net" and item._sessions]
    assert len(held) == 1  # fifty others are closed and gone
