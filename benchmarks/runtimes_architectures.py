"""Every architecture graph through every deployable runtime, fp32 and fp16: the full run behind the tests.

    python benchmarks/runtimes_architectures.py [--data DIR] [NAME ...]

For each graph and runtime, against the unmodified network on `onnxruntime`: rel-L2 of the outputs, of the inner tensors
(largest over a sample of taps), and of the second half of the network run as a fragment on the original's tensors; then
the SQNR of the fp16 network, and which part of a profile could be told apart by tensor. Names what misses a limit of
tests/conftest.py and ends with 1 then.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgewright import registry, session
from edgewright.compress import compress
from edgewright.contracts import Cut
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.load import load
from edgewright.metrics import rel_l2, sqnr_db
from edgewright.model import Arrays, Model

ROOT = Path(__file__).resolve().parents[1]
TAPS = 12


def module(path: Path) -> Any:
    location = importlib.util.spec_from_file_location(path.stem, path)
    assert location is not None
    assert location.loader is not None
    made = importlib.util.module_from_spec(location)
    location.loader.exec_module(made)
    return made


def worst(wanted: Arrays, got: Arrays) -> float:
    """Largest rel-L2 over tensors; not a number counts as infinite."""
    distances = [rel_l2(array, got[name]) for name, array in wanted.items()]
    return max((float(np.nan_to_num(distance, nan=np.inf)) for distance in distances), default=0.0)


@dataclass
class Row:
    """What one network did on one runtime."""

    outputs: float
    taps: float
    fragment: float | None
    profiled: float
    fp16_db: float | None
    note: str = ""


def half_way(model: Model, known: Mapping[str, str]) -> Cut | None:
    """A cut at a tensor behind which nothing reads anything before it, nearest to the middle; None where there is none."""
    nodes = list(model.ir.graph)
    place = {value.name: number for number, node in enumerate(nodes) for value in node.outputs}
    last_read = {
        value.name: max((place.get(user.outputs[0].name, len(nodes)) for user, _ in value.uses()), default=-1)
        for node in nodes
        for value in node.outputs
    }
    outputs = tuple(info.name for info in model.outputs)
    alone = [
        name
        for number, node in enumerate(nodes)
        for name in (node.outputs[0].name,)
        if name in known
        and name not in outputs
        and all(read <= number for other, read in last_read.items() if place[other] < number)
        and not any(value.name and place.get(value.name, -1) == number for value in node.outputs[1:])
    ]
    alone.sort(key=lambda name: abs(place[name] - len(nodes) // 2))
    for name in alone[:20]:
        try:
            from edgewright.graph.cut import extract

            extract(model.ir, Cut((name,), outputs))
        except EdgewrightError:
            continue
        return Cut((name,), outputs)
    return None


def examine(model: Model, half: Model | None, runtime: str, feeds: Arrays, folder: Path) -> Row:
    plugin = registry.get("runtimes", runtime)
    bundle = convert(model, runtime, folder / runtime)
    made = [v.name for node in model.ir.graph for v in node.outputs if v.name in bundle.tensor_names]
    taps = tuple(made[:: max(1, len(made) // TAPS)])
    cut = half_way(model, bundle.tensor_names)
    with session.open(model, runtime="onnxruntime") as original, session.open(bundle) as opened:
        wanted = original.run(feeds)
        row = Row(
            worst(wanted, opened.run(feeds)), worst(original.run(feeds, taps), opened.run(feeds, taps)), None, 0, None
        )
        if cut is not None and cut.inputs is not None:
            inner = original.run(feeds, cut.inputs)
            with session.open(bundle, cut=cut) as fragment:
                row.fragment = worst(wanted, fragment.run(inner))
    times = plugin.profile(bundle, feeds, threads=1, runs=2)
    row.profiled = 1 - times.get("(other)", 0.0) / sum(times.values())
    if half is not None:
        with session.open(convert(half, runtime, folder / f"{runtime}-fp16")) as opened:
            got = opened.run(feeds)
        row.fp16_db = min(sqnr_db(array, got[name]) for name, array in wanted.items())
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments = parser.parse_args()
    limits = module(ROOT / "tests" / "conftest.py").TOLERANCE
    fill = module(arguments.data / "architectures" / "fill.py")
    names = arguments.names or sorted(path.stem for path in (arguments.data / "architectures").glob("*.onnx"))
    runtimes = [n for n in registry.installed("runtimes") if registry.peek("runtimes", n).TRAITS.deployable]
    failures = []
    print(f"{'network':24} {'runtime':12} {'outputs':>8} {'taps':>8} {'fragment':>8} {'profiled':>8} {'fp16 dB':>8}")
    for name in names:
        proto = fill.load_filled(arguments.data / "architectures" / f"{name}.onnx")
        feeds = fill.example_inputs(proto)
        with tempfile.TemporaryDirectory() as folder:
            onnx.save(proto, Path(folder) / "net.onnx")
            model = load(Path(folder) / "net.onnx")
            half = compress(model, "fp16") if model.precision == "fp32" else None
            for runtime in runtimes:
                try:
                    row = examine(model, half, runtime, feeds, Path(folder))
                except EdgewrightError as problem:
                    print(f"{name:24} {runtime:12} {problem.code}: {problem.message}")
                    failures.append(f"{name} on {runtime}: {problem.code}")
                    continue
                fragment = "-" if row.fragment is None else f"{row.fragment:8.1e}"
                half_db = "-" if row.fp16_db is None else f"{row.fp16_db:8.1f}"
                print(
                    f"{name:24} {runtime:12} {row.outputs:8.1e} {row.taps:8.1e} {fragment:>8} {row.profiled:8.0%} {half_db:>8}"
                )
                sys.stdout.flush()
                limit = limits["float32"]["rel_l2"]
                if model.precision == "fp32" and max(row.outputs, row.fragment or 0.0) > limit:
                    failures.append(
                        f"{name} on {runtime}: outputs differ by {max(row.outputs, row.fragment or 0.0):.1e}"
                    )
                if row.fp16_db is not None and row.fp16_db < limits["float16"]["sqnr_db"]:
                    failures.append(f"{name} on {runtime}: fp16 SQNR {row.fp16_db:.1f} dB")
    print("\n".join(["", *failures]) if failures else "\nall within limits")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
