"""What clients notice when a replica of `edgewright serve ray` dies. Needs the extra `ray`, psutil; about two minutes:

    python benchmarks/fleet_ray.py [--python PATH] [--json FILE]

Two replicas of an identity network (1 x 64 floats) on a Ray of this machine alone, Ray's HAProxy before them. Eight clients as in
`fleet.py`; one replica is ended by SIGKILL. Then one client alone for its latency, and SIGTERM for the whole. Gate: failures
below 0.1 %, recovered within 5 s, exit code 0.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from fleet import Clients, free_port, make_bundle, outcome, wait_until_ready


def replicas() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if "ServeReplica:edgewright" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", default=sys.executable, help="has the extra `ray`")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        make_bundle(Path(name))
        command = [arguments.python, "-m", "edgewright", "serve", "ray", str(Path(name) / "same"), "--http", str(port)]
        begun = time.monotonic()
        process = subprocess.Popen([*command, "--replicas", "2", "--cpus", "0.5", "--quiet"], stderr=subprocess.DEVNULL)
        try:
            wait_until_ready(port, 120)
            start_s = time.monotonic() - begun
            memory = sum(item.memory_info().rss for item in replicas())
            result = outcome(port, replicas()[0].kill, 15.0)
            clients = Clients(port, 0.001, count=1)
            time.sleep(5)
            clients.stop()
            latency_ms = statistics.median(took for _, took, problem in clients.seen if not problem) * 1e3
            process.send_signal(signal.SIGTERM)
            code = process.wait(120)
        finally:
            process.kill()
    found = {
        "cpus": os.cpu_count(),
        "requests": result.requests,
        "failures": len(result.failures),
        "recovered_s": round(result.recovered_s, 2),
        "slowest_s": round(result.slowest_s, 2),
        "one_client_median_ms": round(latency_ms, 2),
        "start_s": round(start_s, 1),
        "replicas_memory_mib": round(memory / 2**20),
        "exit_code": code,
    }
    print(found, sorted(set(result.failures))[:3])
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    return 0 if result.ok and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
