"""What serving costs beside the network, and what holds under load. Run on a quiet machine with two cores or more:

    python benchmarks/serving.py [--quick] [--only overhead,grpc,batching,overload,reloads] [--json FILE]
        [--rounds 9] [--seconds 4] [--reloads 1000]
        [--mlserver PYTHON] [--litserve PYTHON]

overhead   Requests a second and latency of an identity network (1 x 64 floats) and a convolutional one (1 x 3 x 224 x 224):
           ours, a bare handler on the same HTTP library that does the same copies and nothing else (`serving_bare.py`), and
           ONNX Runtime in a loop without any server. Servers run on core 0, the load on core 1; servers take turns in every
           round, and a ratio is the median over rounds; those of requests per core-second (the server's processor time) also
           hold on a machine that has other work. With the Python of a venv that has them, MLServer and LitServe too.
           Also: seconds from the start of the process to the first answer; memory, and that of a server without a model to
           speak of.
grpc       The same over gRPC: ours, and a bare grpcio server that does the same copies (`serving_bare_grpc.py`).
batching   Four products with 1024 x 1024 matrices under 32 clients, with and without batches.
overload   Three times the peak for a while: what is answered in time, how fast the rest is refused.
reloads    A bundle replaced again and again under load: failed requests, memory before and after.

`serving_fuzz.py` sends damaged requests.
--quick takes seconds and shows that everything runs; its figures mean little.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from serving_load import Load, closed_loop, grpc_loop, grpc_request, http_request, infer_request, open_loop

import edgewright as ew

HERE = Path(__file__).resolve().parent
SERVER_CORE, LOAD_CORE = 0, 1
IDENTITY = '<ir_version: 10, opset_import: ["" : 21]> g (float[N,64] x) => (float[N,64] y) { y = Identity (x) }'
INPUTS = {"identity": ("x", (1, 64)), "conv": ("image", (1, 3, 224, 224)), "products": ("x", (1, 1024))}


def make_bundles(folder: Path) -> None:
    """identity; a convolutional network (EfficientNet-Lite0); and four matrix products, whose weights are read once a batch."""
    import onnx_ir as ir

    ew.convert(ew.Model(ir.from_onnx_text(IDENTITY)), "onnxruntime", folder / "identity")
    ew.convert(ew.load("zoo:efficientnet-lite0"), "onnxruntime", folder / "conv")
    with tempfile.TemporaryDirectory() as name:
        network = ew.load(matrix_products(Path(name) / "products.onnx", 1024, 4))
        ew.convert(network, "onnxruntime", folder / "products")


def matrix_products(path: Path, width: int, layers: int) -> Path:
    """A network of `layers` products with random matrices: a run reads all of them, however many rows it has."""
    import onnx

    chance = np.random.default_rng(0)
    names = ["x", *(f"h{index}" for index in range(layers - 1)), "y"]
    weights = [
        chance.standard_normal((width, width)).astype(np.float32) / np.float32(width**0.5) for _ in range(layers)
    ]
    shown = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", width]) for name in ("x", "y")]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(layers)],
        "products",
        shown[:1],
        shown[1:],
        [onnx.numpy_helper.from_array(array, f"w{index}") for index, array in enumerate(weights)],
    )
    opset = onnx.helper.make_opsetid("", 21)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


class Served:
    """A server in a process of its own, on one core."""

    def __init__(self, command: Sequence[str], cwd: Path, ready: str) -> None:
        self.port = int(command[-1])
        begun = time.perf_counter()
        with on_core(SERVER_CORE):
            self.process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while time.perf_counter() - begun < 120:
            if self.process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} ended with {self.process.returncode}")
            if _answers(self.port, ready):
                break
            time.sleep(0.01)
        self.start_s = time.perf_counter() - begun

    @property
    def memory_mib(self) -> float:
        return sum(process.memory_info().rss for process in self._tree()) / 2**20

    @property
    def cpu_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._tree())

    def stop(self) -> None:
        for process in self._tree():
            process.terminate()
        self.process.wait(60)

    def _tree(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """What is started here runs on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number % os.cpu_count()})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@contextmanager
def ours(folder: Path, *options: str) -> Iterator[Served]:
    port = str(free_port())
    command = [sys.executable, "-m", "edgewright", "serve", str(folder), "-q", *options, "--http", port]
    served = Served(command, folder, "/v2/health/ready")
    try:
        yield served
    finally:
        served.stop()


@contextmanager
def other(name: str, python: str, folder: Path) -> Iterator[Served]:
    """Another server under an interpreter that has its packages."""
    command = [python, str(HERE / f"serving_{name}.py"), str(folder), str(free_port())]
    served = Served(command, folder, {"litserve": "/health", "mlserver": "/v2/models/conv/ready"}.get(name, "/"))
    try:
        yield served
    finally:
        served.stop()


def in_process(folder: Path, model: str, seconds: float) -> float:
    """Runs a second of ONNX Runtime in a loop, on the server's core."""
    code = (
        "import sys, time, numpy, onnxruntime\n"
        "options = onnxruntime.SessionOptions(); options.intra_op_num_threads = 1\n"
        f"session = onnxruntime.InferenceSession({str(folder / model / 'model.onnx')!r}, options)\n"
        f"feeds = {{{INPUTS[model][0]!r}: numpy.zeros({INPUTS[model][1]}, numpy.float32)}}\n"
        f"session.run(None, feeds); runs, begun = 0, time.perf_counter()\n"
        f"while time.perf_counter() - begun < {seconds}: session.run(None, feeds); runs += 1\n"
        "print(runs / (time.perf_counter() - begun))"
    )
    with on_core(SERVER_CORE):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def overhead(folder: Path, peers: dict[str, str], rounds: int, seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        servers = {
            "ours": stack.enter_context(ours(folder)),
            "bare": stack.enter_context(other("bare", sys.executable, folder)),
        }
        for name, python in peers.items():
            servers[name] = stack.enter_context(other(name, python, folder))
        found["start_s"] = {name: round(server.start_s, 2) for name, server in servers.items()}
        found["memory_mib"] = {name: round(server.memory_mib) for name, server in servers.items()}
        found["memory_beside_models_mib"] = memory_beside_models(folder)
        for model in ("identity", "conv"):
            for clients in (1, 8):
                cell: dict[str, list[tuple[Load, float]]] = {name: [] for name in servers}
                raw = []
                for _ in range(rounds):
                    for name in random.sample(list(servers), len(servers)):
                        server, before = servers[name], servers[name].cpu_s
                        request = _request(name, model)
                        # no warm-up: it would count as time of the core, but not as requests
                        load = closed_loop(server.port, request, clients=clients, seconds=seconds, warm_up_s=0)
                        cell[name].append((load, server.cpu_s - before))
                    raw.append(in_process(folder, model, seconds))
                found[f"{model}, {clients} clients"] = _table(cell, raw)
    return found


def memory_beside_models(folder: Path) -> dict[str, int]:
    """MiB of a server whose one network weighs nothing, after a second of load over HTTP."""
    found = {}
    with tempfile.TemporaryDirectory() as alone:
        shutil.copytree(folder / "identity", Path(alone, "identity"))
        for name, options in {"http": (), "http and grpc": ("--grpc", str(free_port()))}.items():
            with ours(Path(alone), *options) as server:
                closed_loop(server.port, _request("ours", "identity"), clients=8, seconds=1, warm_up_s=0)
                found[name] = round(server.memory_mib)
    return found


def over_grpc(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    port = free_port()
    with ours(folder, "--grpc", str(port)) as own, other("bare_grpc", sys.executable, folder) as bare:
        ports = {"ours": (own, port), "bare": (bare, bare.port + 1)}
        for model, (name, shape) in list(INPUTS.items())[:2]:
            request = grpc_request(model, name, np.random.default_rng(0).standard_normal(shape).astype(np.float32))
            for clients in (1, 8):
                cell: dict[str, list[tuple[Load, float]]] = {name: [] for name in ports}
                for _ in range(rounds):
                    for server, (served, number) in random.sample(list(ports.items()), 2):
                        before = served.cpu_s
                        load = grpc_loop(number, request, clients=clients, seconds=seconds)
                        cell[server].append((load, served.cpu_s - before))
                found[f"{model}, {clients} clients"] = _table(cell)
    return found


def _request(server: str, model: str) -> bytes:
    name, shape = INPUTS[model]
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if server == "litserve":
        body = json.dumps({"input": array.reshape(-1).tolist()}).encode()
        return http_request(f"/{model}", body, b"content-type: application/json\r\n")
    return infer_request(f"/v2/models/{model}/infer", name, array, binary=server != "mlserver")


def _table(cell: dict[str, list[tuple[Load, float]]], raw: list[float] | None = None) -> dict[str, Any]:
    rates = {name: [load.rate() for load, _ in loads] for name, loads in cell.items()}
    by_core = {name: [load.count(200) / (cpu or 1) for load, cpu in loads] for name, loads in cell.items()}
    rows: dict[str, Any] = {"in process": {"per_second": statistics.median(raw)}} if raw else {}
    for name, loads in cell.items():
        failed = sum(load.count(status) for load, _ in loads for status in load.latencies_s if status != 200)
        rows[name] = {
            "per_second": statistics.median(rates[name]),
            "per_core_second": statistics.median(by_core[name]),
            "p50_ms": statistics.median(load.quantile_ms(0.5) for load, _ in loads),
            "p99_ms": statistics.median(load.quantile_ms(0.99) for load, _ in loads),
            "of_bare": _ratio(rates[name], rates["bare"]),
            "of_bare_per_core_second": _ratio(by_core[name], by_core["bare"]),
            "failed": failed,
        }
        if raw:
            rows[name]["of_in_process"] = _ratio(rates[name], raw)
    return rows


def _ratio(found: Sequence[float], others: Sequence[float]) -> float:
    """Median over rounds: what disturbs a round disturbs both."""
    return statistics.median(a / b for a, b in zip(found, others, strict=True))


def batching(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    rates: dict[str, list[float]] = {"alone": [], "batched": []}
    with ours(folder) as alone, ours(folder, "--max-batch", "32", "--max-delay-ms", "0") as batched:
        for _ in range(rounds):
            for name, server in (("alone", alone), ("batched", batched)):
                rates[name].append(
                    closed_loop(server.port, _request("ours", "products"), clients=32, seconds=seconds).rate()
                )
    gains = [b / a for a, b in zip(rates["alone"], rates["batched"], strict=True)]
    return {**{name: statistics.median(found) for name, found in rates.items()}, "gain": statistics.median(gains)}


def overload(folder: Path, seconds: float) -> dict[str, Any]:
    with ours(folder, "--queue", "8") as server:
        peak = closed_loop(server.port, _request("ours", "conv"), clients=4, seconds=min(seconds, 10)).rate()
        load = open_loop(server.port, _request("ours", "conv"), rate=3 * peak, clients=64, seconds=seconds)
    return {
        "peak_per_second": peak,
        "goodput_of_peak": load.rate() / peak,
        "refused": load.count(429),
        "refused_p50_ms": load.quantile_ms(0.5, 429),
        "refused_p99_ms": load.quantile_ms(0.99, 429),
        "answered_p99_ms": load.quantile_ms(0.99),
        "other": {status: load.count(status) for status in load.latencies_s if status not in (200, 429)},
    }


def reloads(folder: Path, count: int, work: Path) -> dict[str, Any]:
    """Bundles in turn, copied file by file over the one that is served."""
    shelf = work / "models"
    shutil.copytree(folder / "conv", shelf / "net")
    other_net = work / "other"
    ew.convert(ew.load("zoo:efficientnet-lite0").with_spec(ew.Spec()), "onnxruntime", other_net)
    with ours(shelf, "--watch", "0.05") as server:
        statuses: Counter[int] = Counter()
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                name, shape = INPUTS["conv"]
                request = infer_request("/v2/models/net/infer", name, np.zeros(shape, np.float32))
                load = closed_loop(server.port, request, clients=2, seconds=1.0, warm_up_s=0)
                statuses.update({status: load.count(status) for status in load.latencies_s})

        client = threading.Thread(target=ask)
        client.start()
        memory, seen = [], set()
        for number in range(count):
            source = (other_net, folder / "conv")[number % 2]
            for path in source.rglob("*"):
                if path.is_file():
                    shutil.copyfile(path, shelf / "net" / path.relative_to(source))
            wanted = ew.Bundle.open(source).hash
            until = time.perf_counter() + 60
            while time.perf_counter() < until and _hash(server.port) != wanted:
                time.sleep(0.01)
            seen.add(_hash(server.port) == wanted)
            if number % max(1, count // 20) == 0 or number == count - 1:
                memory.append(round(server.memory_mib))
        stop.set()
        client.join()
    return {"reloads": count, "all_seen": seen == {True}, "statuses": dict(statuses), "memory_mib": memory}


def _hash(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/v2/models/net")
    return str(json.loads(connection.getresponse().read())["parameters"]["bundle_hash"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="overhead,grpc,batching,overload,reloads")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=4.0, help="Of load, in each round of each server.")
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--mlserver", metavar="PYTHON")
    parser.add_argument("--litserve", metavar="PYTHON")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE % os.cpu_count()})
    rounds, seconds = (1, 0.5) if options.quick else (options.rounds, options.seconds)
    peers = {name: python for name in ("mlserver", "litserve") if (python := getattr(options, name))}
    with tempfile.TemporaryDirectory(prefix="edgewright-serving-") as name:
        folder = Path(name) / "bundles"
        make_bundles(folder)
        parts = {
            "overhead": lambda: overhead(folder, peers, rounds, seconds),
            "grpc": lambda: over_grpc(folder, rounds, seconds),
            "batching": lambda: batching(folder, rounds, seconds),
            "overload": lambda: overload(folder, 3.0 if options.quick else 60.0),
            "reloads": lambda: reloads(folder, 5 if options.quick else options.reloads, Path(name)),
        }
        found = {}
        for part in options.only.split(","):
            found[part] = parts[part]()
            print(json.dumps({part: found[part]}, indent=1), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
