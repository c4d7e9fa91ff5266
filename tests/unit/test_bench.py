"""bench with real workers on real bundles: the protocol, failures, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewright.bench import BenchPlan, bench, inputs, machine, schedule
from edgewright.bench import process as process_module
from edgewright.bench.pairs import winners
from edgewright.bench.process import WorkerProcess
from edgewright.bench.table import markdown, to_json, verdict
from edgewright.bundle import Bundle
from edgewright.contracts import Role, Sample
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.model import Model
from edgewright.records import BenchResult
from edgewright.samples import Samples
from edgewright.spec import ImageInput, Spec

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
RELU = HEAD + "g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"
QUICK = BenchPlan(min_runs=5, max_runs=40, min_seconds=0.01, max_seconds=0.2, timeout_seconds=60)


@pytest.fixture
def bundle(model_from_text: Callable[..., Model], tmp_path: Path) -> Bundle:
    return convert(model_from_text(RELU), "onnxruntime", tmp_path / "relu")


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    before = workers()
    yield
    assert not workers() - before


def workers(parent: int | None = None) -> set[int]:
    """Process ids of the living benchmark workers of one parent (this process), zombies excluded."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().split(b"\0")
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if b"edgewright.bench.worker" in command and state != "Z" and str(parent or os.getpid()).encode() in command:
            found.add(int(path.name))
    return found


class Arrays:
    """Samples of given arrays, all judges but the last."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(sample.group for sample in self.samples)

    def role(self, *roles: Role) -> Arrays:
        return Arrays(self.samples[:-1] if "judge" in roles else self.samples[-1:])


def samples_of(*arrays: np.ndarray) -> Arrays:
    return Arrays([Sample(f"s{index}", str(index), {"x": array}) for index, array in enumerate(arrays)])


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_results_in_order_with_everything_in_them(bundle: Bundle) -> None:
    results = bench([bundle, str(bundle.path)], None, QUICK)
    assert [result.bundle_name for result in results] == ["relu", "relu #2"]
    for result in results:
        assert 0 < result.infer.low_ms <= result.infer.median_ms <= result.infer.high_ms
        assert result.infer.median_ms <= result.infer.p90_ms <= result.infer.p99_ms
        assert result.infer.runs >= QUICK.min_runs
        assert result.bundle_hash == bundle.hash
        assert result.runtime.startswith("onnxruntime ")
        assert result.peak_memory_bytes > 10_000_000
        assert result.load_ms > 0
        assert "random" in result.telemetry["inputs"]
        assert (result.trust == "trusted") == (not result.reasons)
        assert result.pre is None
        assert result.post is None
        json.dumps(result.to_json())
    assert min(result.relative for result in results) == (1, 1, 1)
    kept = bundle.evidence("bench")
    assert [document["bundle_name"] for document in kept] == ["relu", "relu #2"]
    assert BenchResult.from_json(results[0].to_json()).to_json() == results[0].to_json()


def test_threads_are_groups_of_their_own(bundle: Bundle) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    results = bench(bundle, None, BenchPlan(**{**vars(QUICK), "threads": (2, 1)}))
    assert [result.threads for result in results] == [2, 1]
    assert all(result.relative == (1, 1, 1) for result in results)


def test_peak_memory_is_the_workers_own(bundle: Bundle) -> None:
    ballast = np.ones(200_000_000, np.uint8)  # a child's getrusage would inherit this process's peak
    (result,) = bench(bundle, None, QUICK)
    assert result.peak_memory_bytes < ballast.nbytes


def test_samples_are_used_in_rotation_and_only_the_judges(bundle: Bundle) -> None:
    samples = samples_of(*(np.full((1, 4), value, np.float32) for value in range(4)))
    (result,) = bench(bundle, samples, QUICK)
    assert result.telemetry["inputs"] == "3 samples in rotation"


def test_photos_are_prepared_and_judged_apart(model_from_text: Callable[..., Model], tmp_path: Path) -> None:
    spec = Spec(inputs={"x": ImageInput(size=(8, 8))}, task="classify")
    text = HEAD + "g (float[N,3,8,8] x) => (float[N,3] y) { p = GlobalAveragePool(x) y = Flatten(p) }"
    model = model_from_text(text, spec=spec)
    (tmp_path / "photos").mkdir()
    for value in range(4):
        Image.new("RGB", (20, 30), (40 * value, 9, 9)).save(tmp_path / "photos" / f"{value} ü.png")
    samples = Samples.open(tmp_path / "photos", model, roles="judge")
    (result,) = bench(convert(model, "onnxruntime", tmp_path / "net"), samples, QUICK)
    assert result.telemetry["inputs"] == "4 samples in rotation"
    for stage in (result.pre, result.post):
        assert stage is not None
        assert 0 < stage.low_ms <= stage.median_ms <= stage.high_ms
    assert "pre ms" in markdown([result])
    plan = BenchPlan(**{**vars(QUICK), "pre_post": False})
    (result,) = bench(tmp_path / "net", samples, plan)
    assert (result.pre, result.post) == (None, None)


def test_a_tiny_time_limit_still_gives_a_number(bundle: Bundle) -> None:
    (result,) = bench(bundle, None, BenchPlan(max_seconds=1e-9))
    assert result.infer.runs >= 1
    assert result.trust != "trusted"
    assert any("more seconds" in reason for reason in result.reasons)


def test_libraries_may_print(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, os\nprint('hello from a library')\nos.write(1, b'{\"not\": \"ours\"}\\n')\n", encoding="utf-8"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert len(bench(bundle, None, QUICK)) == 1


def test_modules_in_the_working_directory_are_not_imported(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise RuntimeError('shadowed')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert len(bench(bundle, None, QUICK)) == 1


def test_odd_names(model_from_text: Callable[..., Model], tmp_path: Path) -> None:
    model = model_from_text(RELU)
    model.ir.graph.inputs[0].name = "file/ü .0"
    (result,) = bench(convert(model, "onnxruntime", tmp_path / "schön | klein"), None, QUICK)
    assert "schön \\| klein" in markdown([result])


def test_integer_and_boolean_inputs(model_from_text: Callable[..., Model], tmp_path: Path) -> None:
    text = HEAD + "g (int64[2] i, bool[3] b, float t) => (int64[2] j, bool[3] c, float u)"
    text += "{ j = Abs(i) c = Not(b) u = Relu(t) }"
    assert len(bench(convert(model_from_text(text), "onnxruntime", tmp_path / "mixed"), None, QUICK)) == 1


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_no_bundles_and_too_many_threads(bundle: Bundle) -> None:
    with pytest.raises(EdgewrightError, match=r"E103.*no bundles"):
        bench([])
    with pytest.raises(EdgewrightError, match=r"E103.*cores"):
        bench(bundle, None, BenchPlan(threads=(100_000,)))


def test_samples_that_do_not_fit(bundle: Bundle) -> None:
    good = np.zeros((1, 4), np.float32)
    for bad in (np.zeros((1, 5), np.float32), np.zeros((1, 4)), np.zeros(4, np.float32)):
        with pytest.raises(EdgewrightError, match=r"E230.*`s1`"):
            bench(bundle, samples_of(good, bad, good), QUICK)
    with pytest.raises(EdgewrightError, match=r"E230.*no array for the input `x`"):
        bench(bundle, Arrays([Sample("a", "0", {"z": good}), Sample("b", "1", {})]), QUICK)
    with pytest.raises(EdgewrightError, match="E301"):
        bench(bundle, samples_of(good), QUICK)


def test_a_bundle_that_vanished_names_itself(bundle: Bundle) -> None:
    shutil.rmtree(bundle.path)
    with pytest.raises(EdgewrightError, match=r"E104.*`relu`"):
        bench(bundle, None, QUICK)


def test_a_bundle_whose_file_was_changed(bundle: Bundle) -> None:
    (bundle.path / "model.onnx").write_bytes(b"")
    with pytest.raises(EdgewrightError, match=r"E220.*`relu`"):
        bench(bundle, None, QUICK)


def test_the_others_go_on_without_a_broken_one(
    bundle: Bundle, model_from_text: Callable[..., Model], tmp_path: Path
) -> None:
    other = convert(model_from_text(RELU), "onnxruntime", tmp_path / "other")
    (other.path / "model.onnx").write_bytes(b"")
    told: list[tuple[str, int, str]] = []
    results = bench([other, bundle], None, QUICK, on_failure=lambda b, n, error: told.append((b.name, n, error.code)))
    assert told == [("other", 1, "E220")]
    assert [result.bundle_name for result in results] == ["relu"]
    assert bench(other, None, QUICK, on_failure=lambda b, n, error: told.append((b.name, n, error.code))) == ()


def test_evidence_that_cannot_be_written_costs_no_measurement(bundle: Bundle) -> None:
    (bundle.path / "evidence").write_text("a file in the way", encoding="utf-8")
    notes: list[str] = []

    class Notes:
        def update(self, task: str, done: int, total: int | None) -> None:
            assert total is None or 0 <= done <= total

        def note(self, message: str) -> None:
            notes.append(message)

    assert len(bench(bundle, None, QUICK, progress=Notes())) == 1
    assert "relu" in notes[0]


# --- workers that die -------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_midway(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    step = schedule._block

    def kill_in_third_round(entry: schedule.Entry, plan: BenchPlan) -> None:
        if len(entry.rounds) == 2 and entry.name == "relu #2":
            assert entry.worker is not None
            os.kill(entry.worker.pid, signal.SIGKILL)
        step(entry, plan)

    monkeypatch.setattr(schedule, "_block", kill_in_third_round)
    with pytest.raises(EdgewrightError, match=r"E401.*`relu #2` at 1 thread.*SIGKILL"):
        bench([bundle, bundle], None, QUICK)
    told = []
    results = bench([bundle, bundle], None, QUICK, on_failure=lambda _, __, error: told.append(error.code))
    assert told == ["E401"]
    assert [result.bundle_name for result in results] == ["relu"]
    assert results[0].relative == (1, 1, 1)


def test_a_worker_that_does_not_answer_is_killed(bundle: Bundle, tmp_path: Path) -> None:
    worker = WorkerProcess("slow", threads=1, folder=tmp_path)
    try:
        os.kill(worker.pid, signal.SIGSTOP)
        worker._signal = lambda name: None  # type: ignore[method-assign]
        with pytest.raises(EdgewrightError, match=r"E401.*`slow`.*within 0 s"):
            worker.ask({"do": "block", "runs": 1}, timeout=0.2)
    finally:
        worker.close()


def test_what_a_worker_prints_last_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'edgewright.bench.worker' in sys.orig_argv:\n"
        "    print('cannot find libfoo.so')\n    sys.stdout.flush()\n    os._exit(3)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = WorkerProcess("net", threads=1, folder=tmp_path)
    try:
        with pytest.raises(EdgewrightError, match=r"E401.*exit code 3") as caught:
            worker.ask({"do": "block", "runs": 1}, timeout=30)
        assert "cannot find libfoo.so" in str(caught.value)
    finally:
        worker.close()


def test_an_error_inside_the_worker_comes_with_its_traceback(tmp_path: Path) -> None:
    worker = WorkerProcess("net", threads=1, folder=tmp_path)
    try:
        with pytest.raises(EdgewrightError, match="E401") as caught:
            worker.ask({"do": "no such thing"}, timeout=30)
        assert "KeyError" in str(caught.value)
    finally:
        worker.close()


def test_a_waiting_worker_is_stopped(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    inputs.prepare(bundle.inputs, None, path, limit=1, seed=0)
    worker = WorkerProcess("net", threads=1, folder=tmp_path)
    try:
        worker.ask({"do": "open", "bundle": str(bundle.path), "threads": 1, "inputs": str(path)}, timeout=30)
        assert wait_for(lambda: state_of(worker.pid) == "T")
        assert worker.ask({"do": "block", "runs": 3}, timeout=30)["times_ms"]
        assert wait_for(lambda: state_of(worker.pid) == "T")
    finally:
        worker.close()
    assert worker.pid not in workers()


SCRIPT = """
import signal, sys
from edgewright.bench import BenchPlan, bench
signal.signal(signal.SIGINT, signal.default_int_handler)  # what starts the tests in the background may have it ignored
try:
    bench(sys.argv[1:], None, BenchPlan(min_runs=10**6, max_runs=10**7, max_seconds=600.0))
except KeyboardInterrupt:
    sys.exit(42)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_parent(bundle: Bundle, how: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(bundle.path), str(bundle.path)]
    parent = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(tmp_path)})
    try:
        assert wait_for(lambda: len(workers(parent.pid)) == 2)
        time.sleep(0.5)  # in the middle of the rounds
        parent.send_signal(how)
        code = parent.wait(30)
        assert code == (42 if how == signal.SIGINT else -how)
        assert wait_for(lambda: not workers(parent.pid))
    finally:
        parent.kill()
        parent.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# --- names, table, machine --------------------------------------------------------------------------------------------


def test_table(bundle: Bundle) -> None:
    results = bench([bundle, bundle], None, QUICK)
    lines = markdown(results, baseline="relu").splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert "x relu" in lines[0]
    assert "| 1.00 |" in lines[2]
    assert any("p99 of fewer than 100 runs" in line for line in lines)
    assert len(json.loads(to_json(results))["results"]) == 2
    with pytest.raises(EdgewrightError, match="E101"):
        markdown(results, baseline="nobody")
    assert "| bundle |" in markdown([])


def test_bundles_are_compared_within_their_model(
    bundle: Bundle, model_from_text: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "peak_gflops", lambda threads: 100.0)
    monkeypatch.setattr(machine, "bandwidth_gbs", lambda threads: 10.0)
    text = HEAD + "g (float[N,64] x, float[64,64] w) => (float[N,64] y) { y = MatMul(x, w) }"
    other = convert(model_from_text(text, name="product"), "onnxruntime", tmp_path / "product-ort")
    plan = BenchPlan(**{**vars(QUICK), "roofline": True})
    results = bench([other, bundle, bundle.path], None, plan)
    assert [result.model for result in results] == ["product", "model", "model"]
    assert results[0].relative == (1, 1, 1)
    assert min(result.relative for result in results[1:]) == (1, 1, 1)
    found = results[0].roofline
    assert found is not None
    assert results[0].macs == 64 * 64
    assert found.floor_ms == pytest.approx(max(2 * 64 * 64 / 100e6, (64 * 64 + 2 * 64) * 4 / 10e6))
    assert (found.bound, found.reached) == ("memory", found.floor_ms / results[0].infer.median_ms)
    table = markdown(results)
    assert "| model | bundle |" in table
    assert "of fp32 roof" in table
    assert "product, 1 thread: product-ort (onnxruntime" in table
    assert table.count("- model, 1 thread: ") == 1
    assert [item["model"] for item in json.loads(to_json(results))["fastest"]] == ["product", "model"]


def test_the_fastest_is_named_only_where_it_is_proven(bundle: Bundle) -> None:
    (first,) = bench([bundle], None, QUICK)
    slow = replace(first, bundle_name="slow", relative=(1.5, 1.4, 1.6))
    near = replace(first, bundle_name="near", relative=(1.01, 0.99, 1.03))
    (alone,) = winners([first])
    assert (alone.bundle_name, alone.next, alone.ratio) == ("relu", None, None)
    assert "alone was measured" in verdict(alone)
    (sure,) = winners([slow, first])
    assert (sure.bundle_name, sure.next, sure.ratio, sure.equal) == ("relu", "slow", (1.5, 1.4, 1.6), ())
    assert "fastest is relu" in verdict(sure)
    (unsure,) = winners([slow, near, first])
    assert (unsure.next, unsure.equal) == ("near", ("near",))
    assert "no difference proven between relu" in verdict(unsure)
    assert len(winners([first, replace(first, threads=2), replace(first, origin="other")])) == 3


def test_a_roof_that_cannot_be_measured_costs_only_its_column(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(threads: int) -> float:
        raise EdgewrightError("E402", "no")

    monkeypatch.setattr(machine, "peak_gflops", fail)
    (result,) = bench(bundle, None, BenchPlan(**{**vars(QUICK), "roofline": True}))
    assert result.roofline is None
    assert "roof" not in markdown([result])


def test_longest_reply_is_bounded(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    monkeypatch.setattr(process_module, "_LONGEST_REPLY_BYTES", 10)
    monkeypatch.setattr(process_module, "_GRACE_SECONDS", 0.01)
    monkeypatch.setattr(process_module, "_READ_BYTES", 11)
    with pytest.raises(EdgewrightError, match="E401"):
        bench(bundle, None, QUICK)
