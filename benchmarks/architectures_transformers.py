"""Channel groups of networks that others wrote: small ones of the package transformers, as torch's exporters write them.

    pip install torch transformers onnxscript
    python benchmarks/architectures_transformers.py [--subsets N] [--passes] [--cache DIR] [--json FILE] [NAME ...]

Each network (transformers_networks.py) has seeded random weights and nothing from a hub. Exporters: `classic` and `dynamo` of
torch.onnx.export. For every group alone N random sets of its channels, and N times all groups at once, are set to zero in the
original and sliced away, as in prune_architectures.py. With --passes the network is also pruned and refitted, pruned and
distilled for two steps, and quantized, each on random samples: `ok`, or the code of a refusal.

Prints one line for each graph: seconds that finding takes, groups, channels that can go, the share of weights that goes with
half of all channels, runs, the worst distance. `cannot be exported` is torch's own refusal, or a graph that ONNX Runtime refuses
or answers otherwise than torch. --json appends one line for each graph, and a graph that has its line there is not run again.

Ends with 1 where a slice differs from its mask, a graph breaks, or a pass ends with anything but a network or an E-code.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import prune_architectures as proof
import torch
from architectures_unseen import opened
from transformers_networks import NETWORKS, TEXT, Entry, First
from unseen_blocks import fill

import edgewright as ew
from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    import onnx_ir as ir

EXPORTERS = ("classic", "dynamo")
FOLDS = [{"pass": "fold_constants"}, {"pass": "remove_dead"}, {"pass": "fold_batchnorm"}]
PRUNED = {"pass": "prune_channels", "macs": 0.8, "multiple": 2}
PASSES = {
    "prune": [*FOLDS, PRUNED, {"pass": "refit"}],
    "distil": [*FOLDS, PRUNED, {"pass": "distil", "steps": 2, "batch": 2}],
    "int8": [*FOLDS, {"pass": "quantize_static"}],
}
SAMPLES = 24


def inputs(entry: Entry, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    if entry.shape == TEXT:
        return {"x": rng.integers(5, 95, entry.shape)}
    return {"x": rng.standard_normal(entry.shape).astype(np.float32)}


def exported(entry: Entry, exporter: str) -> bytes:
    """The ONNX file of a network.

    Raises:
        Exception: torch or transformers cannot make it; RuntimeError where the graph gives something else than torch.
    """
    import transformers

    config = getattr(transformers, entry.config)(**entry.settings)
    config._attn_implementation = "eager"
    module = First(fill(getattr(transformers, entry.kind)(config), seed=0)).eval()
    given = torch.from_numpy(inputs(entry)["x"])
    sink = io.BytesIO()
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), torch.no_grad(), silent():
        warnings.simplefilter("ignore")
        expected = module(given).numpy()
        if exporter == "classic":
            torch.onnx.export(module, (given,), sink, dynamo=False, opset_version=18, input_names=["x"])
            data = sink.getvalue()
        else:
            program = torch.onnx.export(module, (given,), dynamo=True, input_names=["x"], verbose=False)
            data = program.model_proto.SerializeToString()
    logging.disable(logging.NOTSET)
    (got,) = proof.run(opened(data), {"x": given.numpy()}).values()
    if not np.allclose(got, expected, rtol=1e-3, atol=1e-3):
        raise RuntimeError(f"the graph differs from torch by {np.abs(got - expected).max()}")
    return data


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing on standard output, also from torch's C++, which prints whole graphs where it refuses one."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def graph(entry: Entry, exporter: str, cache: Path | None) -> bytes:
    """The ONNX file of a network, from the cache where it is there."""
    path = None if cache is None else cache / f"{entry.kind}.{exporter}.onnx"
    if path is not None and path.is_file():
        return path.read_bytes()
    data = exported(entry, exporter)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return data


def line(entry: Entry, exporter: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    try:
        data = graph(entry, exporter, options.cache)
    except Exception as problem:  # whatever torch, transformers or ONNX Runtime says
        said = str(problem).strip().splitlines() or [""]
        return {"unsupported": f"{type(problem).__name__}: {said[0][:120]}"}
    network: ir.Model = opened(data)
    row = proof.measured(lambda: (network, inputs(entry)), options.subsets)
    row["free"] = sum(row["groups"].values())
    row["bad"] = not row["worst"] <= proof.LIMIT
    if options.passes:
        row["passes"] = passed(entry, data)
        row["bad"] |= any(said.startswith("BROKEN") for said in row["passes"].values())
    return row


def passed(entry: Entry, data: bytes) -> dict[str, str]:
    """What becomes of a network with each of PASSES."""
    found = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        onnx.save(onnx.load_from_string(data), folder / "net.onnx")
        model = ew.load(folder / "net.onnx")
        (folder / "samples").mkdir()
        for seed in range(SAMPLES):
            np.savez(folder / "samples" / f"{seed:02}.npz", **inputs(entry, seed))
        samples = ew.Samples.open(folder / "samples", model)
        for name, steps in PASSES.items():
            try:
                small = ew.compress(model, ew.Recipe.from_mapping(name, {"steps": steps}), samples)
                with ew.open(small, runtime="onnxruntime", threads=1) as session:
                    finite = all(np.isfinite(array).all() for array in session.run(inputs(entry)).values())
                found[name] = "ok" if finite else "BROKEN not finite"
            except EdgewrightError as problem:
                found[name] = problem.code
            except Exception as problem:  # what a user would see as a traceback
                found[name] = f"BROKEN {type(problem).__name__}: {str(problem)[:200]}"
    return found


def text(row: dict[str, Any]) -> str:
    if "unsupported" in row:
        return f" cannot be exported: {row['unsupported']}"
    if "broken" in row:
        return f" BROKEN {row['broken']}"
    passes = "  ".join(f"{name} {said}" for name, said in row.get("passes", {}).items())
    return (
        f"{row['find_s']:7.2f} {len(row['groups']):7} {row['free']:6} {row['half_removes']:6.0%} {row['runs']:5}"
        f" {row['worst']:12.1e}  {passes}{'  BAD ' + row['where'] if row['bad'] else ''}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of names")
    parser.add_argument("--subsets", type=int, default=1, help="random sets of channels for each group, and for all")
    parser.add_argument("--passes", action="store_true", help="prune, distil and quantize them as well")
    parser.add_argument("--cache", type=Path, help="folder of exported graphs, made where it is missing")
    parser.add_argument("--json", type=Path, help="append a line for each graph there, and skip those that have one")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    known, failed = proof.known(options.json), False
    print(
        "network                                     exporter  find s  groups   free   half  runs  worst error  passes"
    )
    for entry in NETWORKS:
        for exporter in EXPORTERS if not options.names or any(name in entry.kind for name in options.names) else ():
            label = f"{entry.kind} {exporter}"
            row = known.get(label)
            if row is None:
                try:
                    row = line(entry, exporter, options)
                except Exception as problem:  # a graph that breaks is a row of the table too
                    row = {"broken": f"{type(problem).__name__}: {str(problem)[:300]}", "bad": True}
                proof.note(options.json, label, row)
            failed |= row.get("bad", False)
            print(f"{entry.kind:43} {exporter:8} {text(row)}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
