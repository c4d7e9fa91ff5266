"""What clients notice when a server behind a proxy dies, stalls or is replaced. Needs haproxy or envoy; a minute for each:

    python benchmarks/fleet.py [--quick] [--proxies haproxy,envoy] [--envoy PATH] [--python PATH] [--json FILE]

Three `edgewright serve` processes of an identity network (1 x 64 floats) behind a proxy with the configuration that
`edgewright serve haproxy` (or `envoy`) writes, everything on loopback. Eight clients send requests one after the other. Then:

killed    One server is ended by SIGKILL, and started again later.
stalled   One is stopped by SIGSTOP: it accepts connections and answers nothing. It goes on later.
replaced  One gets SIGTERM and drains, and another one takes its place at the same port.

For each: requests, failures (no answer, or one that is not 200), and seconds from the event until the last request that failed
or took more than a second was over. Gate: failures below 0.1 %, recovered within 5 s. A run during which this process itself
did not run for half a second (a busy machine) is repeated.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CLIENTS = 8
NODES = 3
SLOW_S = 1.0
HELD_S = 0.5
MOST_FAILED, MOST_RECOVERY_S = 0.001, 5.0
NETWORK = '<ir_version: 10, opset_import: ["" : 21]> g (float[N,64] x) => (float[N,64] y) { y = Identity (x) }'


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def make_bundle(folder: Path) -> None:
    import onnx_ir as ir

    import edgewright as ew

    ew.convert(ew.Model(ir.from_onnx_text(NETWORK)), "onnxruntime", folder / "same")


def request() -> tuple[bytes, dict[str, str]]:
    array = np.arange(64, dtype=np.float32)
    entry = {"name": "x", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": array.nbytes}}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    return head + array.tobytes(), {"Inference-Header-Content-Length": str(len(head))}


def wait_until_ready(port: int, timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise TimeoutError(f"nothing is ready at port {port}")


class Fleet:
    """Servers and the proxy before them."""

    def __init__(self, folder: Path, proxy: str, program: str, python: str) -> None:
        self.folder, self.python = folder, python
        self.ports = [free_port() for _ in range(NODES)]
        self.port = free_port()
        self.servers = [self._start(port) for port in self.ports]
        for port in self.ports:
            wait_until_ready(port)
        nodes = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        config = folder / (f"{proxy}.json" if proxy == "envoy" else f"{proxy}.cfg")
        settings = [
            "--nodes",
            nodes,
            "--listen",
            f"127.0.0.1:{self.port}",
            "--timeout-ms",
            "3000",
            "--out",
            str(config),
        ]
        subprocess.run(
            [python, "-m", "edgewright", "serve", proxy, *settings],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        command = {
            "haproxy": [program, "-f", str(config), "-db"],
            "envoy": [program, "-c", str(config), "--concurrency", "1", "-l", "error", "--disable-hot-restart"],
        }[proxy]
        self.proxy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until_ready(self.port)
        time.sleep(2.5)  # every node has been checked

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self.python, "-m", "edgewright", "serve", str(self.folder / "same"), "--http", str(port), "--quiet"],
            cwd=self.folder,
        )

    def kill(self, node: int) -> None:
        self.servers[node].kill()
        self.servers[node].wait()

    def start(self, node: int) -> None:
        self.servers[node] = self._start(self.ports[node])

    def replace(self, node: int) -> None:
        self.servers[node].send_signal(signal.SIGTERM)
        self.servers[node].wait(60)
        self.start(node)

    def close(self) -> None:
        for process in (self.proxy, *self.servers):
            process.kill()
            process.wait()


@contextmanager
def fleet(proxy: str, program: str, python: str = sys.executable) -> Iterator[Fleet]:
    with tempfile.TemporaryDirectory() as name:
        make_bundle(Path(name))
        started = Fleet(Path(name), proxy, program, python)
        try:
            yield started
        finally:
            started.close()


@dataclass(frozen=True)
class Outcome:
    """What clients saw of one event."""

    requests: int
    failures: tuple[str, ...]
    recovered_s: float
    slowest_s: float
    held_s: float

    @property
    def ok(self) -> bool:
        return len(self.failures) < MOST_FAILED * self.requests and self.recovered_s <= MOST_RECOVERY_S


class Clients:
    """Threads that send requests, one after the other, and note how each went."""

    def __init__(self, port: int, pause_s: float, *, count: int = CLIENTS) -> None:
        self._port, self._pause_s = port, pause_s
        self._stop = threading.Event()
        self.seen: list[tuple[float, float, str]] = []  # begun, seconds, what went wrong
        self.held_s = 0.0
        self._threads = [threading.Thread(target=self._client) for _ in range(count)]
        self._threads.append(threading.Thread(target=self._watch))
        for thread in self._threads:
            thread.start()

    def _client(self) -> None:
        body, headers = request()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while not self._stop.wait(self._pause_s):
            begun, problem = time.monotonic(), ""
            try:
                connection.request("POST", "/v2/models/same/infer", body, headers)
                answer = connection.getresponse()
                content = answer.read()
                if answer.status != 200:
                    problem = f"{answer.status} {content[:80]!r}"
                elif not content.endswith(body[-256:]):
                    problem = "another answer"
            except (OSError, http.client.HTTPException) as trouble:
                problem = repr(trouble)
                connection.close()
            self.seen.append((begun, time.monotonic() - begun, problem))
        connection.close()

    def _watch(self) -> None:
        """How long this process itself did not run."""
        last = time.monotonic()
        while not self._stop.wait(0.02):
            now = time.monotonic()
            self.held_s, last = max(self.held_s, now - last), now

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def outcome(port: int, event: Callable[[], None], after_s: float, pause_s: float = 0.005) -> Outcome:
    """Load, the event after a while, and load until `after_s` later."""
    clients = Clients(port, pause_s)
    try:
        time.sleep(2.0)
        at = time.monotonic()
        event()
        time.sleep(max(0.0, at + after_s - time.monotonic()))
    finally:
        clients.stop()
    bad = [
        begun + took - at for begun, took, problem in clients.seen if begun + took > at and (problem or took > SLOW_S)
    ]
    return Outcome(
        len(clients.seen),
        tuple(problem for _, _, problem in clients.seen if problem),
        max(bad, default=0.0),
        max(took for _, took, _ in clients.seen),
        clients.held_s,
    )


def trial(name: str, running: Fleet, after_s: float) -> Outcome:
    """One event, and everything as before afterwards."""
    if name == "killed":
        result = outcome(running.port, lambda: running.kill(0), after_s)
        running.start(0)
    elif name == "stalled":
        stalled = running.servers[1]
        result = outcome(running.port, lambda: stalled.send_signal(signal.SIGSTOP), after_s)
        stalled.send_signal(signal.SIGCONT)
    else:
        result = outcome(running.port, lambda: running.replace(2), after_s)
    for port in running.ports:
        wait_until_ready(port)
    time.sleep(3.0)  # the proxy has seen it
    return result


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--proxies", default="haproxy,envoy")
    parser.add_argument("--envoy", default=shutil.which("envoy"))
    parser.add_argument("--python", default=sys.executable, help="runs the servers")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    programs = {"haproxy": shutil.which("haproxy"), "envoy": arguments.envoy}
    found: dict[str, Any] = {}
    for proxy in arguments.proxies.split(","):
        program = programs[proxy]
        if program is None:
            print(f"{proxy}: not installed, left out")
            continue
        with fleet(proxy, program, arguments.python) as running:
            for name in ("killed", "stalled", "replaced"):
                for _ in range(3):
                    result = trial(name, running, 6.0 if arguments.quick else 15.0)
                    if result.held_s < HELD_S:
                        break
                found[f"{proxy} {name}"] = {
                    "requests": result.requests,
                    "failures": len(result.failures),
                    "recovered_s": round(result.recovered_s, 2),
                    "slowest_s": round(result.slowest_s, 2),
                    "held_s": round(result.held_s, 2),
                    "ok": result.ok,
                }
                print(f"{proxy} {name}: {found[f'{proxy} {name}']} {sorted(set(result.failures))[:3]}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"cpus": os.cpu_count(), **found}, indent=1))
    return 0 if found and all(entry["ok"] for entry in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
