"""What this machine can do at most: measured float32 arithmetic and memory bandwidth, the two roofs of a roofline.

Each is measured once per process, in a process of its own (about a second), because the environment may have told this
one's BLAS to be slow. On a shared machine a neighbour lowers both; the best of several tries is taken.

    >>> peak_gflops(1), bandwidth_gbs(1)
    (108.7, 11.9)
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edgewright.bench import telemetry
from edgewright.errors import EdgewrightError
from edgewright.records import Bound

#: Matrices of this many rows and columns: 8 MB of operands stay in the second and third level cache.
_MATRIX = 1024
#: Bytes of each array that is streamed; the caches of one core are far smaller. Where a virtual machine has the whole
#: third-level cache of its host (hundreds of MB), that may serve a part of them: the figure is then an upper bound.
_ARRAY_BYTES = 256 * 2**20
#: Where memory is short, arrays take this part of what is free.
_ARRAY_PART = 0.1
_TRIES_SECONDS = 0.5
#: Variables that choose BLAS kernels or threads: the measuring process must not inherit them.
_BLAS_VARIABLES = ("OPENBLAS_CORETYPE", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "MKL_CBWR")
_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class Roof:
    """Peak in 1e9 float32 operations per second, bandwidth in 1e9 bytes per second."""

    peak_gflops: float
    bandwidth_gbs: float

    def floor_ms(self, macs: int, size_bytes: int) -> tuple[float, Bound]:
        """Least milliseconds for so much work, and whether arithmetic or memory sets them."""
        compute, memory = 2 * macs / self.peak_gflops / 1e6, size_bytes / self.bandwidth_gbs / 1e6
        return max(compute, memory), "compute" if compute >= memory else "memory"


def roof(threads: int) -> Roof:
    """Both roofs on `threads` threads, measured at the first call.

    Raises:
        EdgewrightError: E402 when they cannot be measured.
    """
    return Roof(peak_gflops(threads), bandwidth_gbs(threads))


@functools.cache
def peak_gflops(threads: int) -> float:
    """Highest float32 rate reached, in 1e9 operations per second (a multiply-add is 2), on `threads` threads.

    The best of two libraries' matrix products (numpy's BLAS, and ONNX Runtime where it is installed): what software
    reaches here, a lower bound of what the CPU could do.
    Source: Williams, Waterman and Patterson 2009, "Roofline".

    Raises:
        EdgewrightError: E402 when it cannot be measured.
    """
    return _in_child("peak", threads)


@functools.cache
def bandwidth_gbs(threads: int) -> float:
    """Highest memory bandwidth reached, in 1e9 bytes per second, on `threads` threads.

    The better of copying (bytes read plus bytes written) and of a dot product (bytes read), of arrays that exceed the
    caches.
    Source: McCalpin 1995, STREAM, for what counts as a byte.

    Raises:
        EdgewrightError: E402 when it cannot be measured.
    """
    return _in_child("bandwidth", threads)


def _in_child(what: str, threads: int) -> float:
    environment = {name: value for name, value in os.environ.items() if name not in _BLAS_VARIABLES}
    blas_threads = str(threads if what == "peak" else 1)
    environment |= {
        "OMP_NUM_THREADS": blas_threads,
        "OPENBLAS_NUM_THREADS": blas_threads,
        "MKL_NUM_THREADS": blas_threads,
    }
    command = [sys.executable, "-P", "-m", "edgewright.bench.machine", what, str(threads)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=_TIMEOUT_SECONDS, check=True)
        return float(json.loads(done.stdout.splitlines()[-1]))
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as problem:
        raise EdgewrightError("E402", f"the {what} of this machine cannot be measured: {problem}") from None


def _measure_peak(threads: int) -> float:
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((_MATRIX, _MATRIX), np.float32) for _ in range(2))
    out = np.empty_like(left)
    flops = 2 * _MATRIX**3
    products: list[Callable[[], object]] = [lambda: np.matmul(left, right, out=out)]
    with contextlib.suppress(ImportError):  # another machine has only what its bundles need, and numpy
        products.append(_onnxruntime_product(left, right, threads))
    return max(_best_rate(product, flops) for product in products)


def _onnxruntime_product(left: np.ndarray, right: np.ndarray, threads: int) -> Callable[[], object]:
    import onnx.parser
    import onnxruntime

    matrix = f"float[{_MATRIX},{_MATRIX}]"
    head = '<ir_version: 10, opset_import: ["" : 21]>'
    text = f"{head} product ({matrix} a, {matrix} b) => ({matrix} c) {{ c = MatMul(a, b) }}"
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    model = onnx.parser.parse_model(text).SerializeToString()
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    feed = {"a": left, "b": right}
    return lambda: session.run(None, feed)


def _measure_bandwidth(threads: int) -> float:
    free = telemetry.state()["available_bytes"]
    size = _ARRAY_BYTES if isinstance(free, str) else min(_ARRAY_BYTES, int(free * _ARRAY_PART))
    source = np.ones(size // 4, np.float32)
    target = np.zeros_like(source)
    pieces = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:  # numpy lets go of the interpreter lock while it copies or multiplies
        copy = _best_rate(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pieces)), 2 * source.nbytes)
        dot = _best_rate(lambda: list(pool.map(lambda pair: np.dot(*pair), pieces)), 2 * source.nbytes)
    return max(copy, dot)


def _best_rate(call: Callable[[], object], work: int) -> float:
    """Most work per second of repeated calls, in 1e9 units."""
    call()
    best, end = float("inf"), time.perf_counter() + _TRIES_SECONDS
    while True:
        start = time.perf_counter()
        call()
        stop = time.perf_counter()
        best = min(best, stop - start)
        if stop > end:
            return work / best / 1e9


if __name__ == "__main__":
    print(json.dumps({"peak": _measure_peak, "bandwidth": _measure_bandwidth}[sys.argv[1]](int(sys.argv[2]))))
