"""Channel groups of networks of families that are not in the data folder, as torch's exporters write them.

    pip install torch
    python benchmarks/architectures_unseen.py [--exporters NAME ...] [--subsets N] [--cache DIR] [--json FILE] [NAME ...]

Each family (unseen_vision, unseen_dense, unseen_tokens, unseen_signals) is a small network with seeded random weights and
with what is expected of it, counted by hand: how many positions of layers have to stay, and how many channels can go.
Exporters: `classic` (torch.onnx.export, dynamo=False), `plain` (the same without constant folding, norms kept), `open` (classic,
any batch; proven with two samples), `dynamo` (dynamo=True, any batch). For every group alone N random sets of its channels,
and N times all groups at once, are set to zero in the original and sliced away, as in prune_architectures.py.

Prints one line for each graph: seconds that finding takes, groups, channels that can go (and how many are expected),
positions that stay (and how many are expected), the share of weights that goes with half of all channels, runs, the worst
distance. `cannot be exported` is torch's own refusal. --json appends one line for each graph, and a graph that has its line
there is not run again.

Ends with 1 where a slice differs from its mask, a graph breaks, fewer channels can go or more have to stay than expected.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import prune_architectures as proof
import torch
import unseen_dense
import unseen_signals
import unseen_tokens
import unseen_vision
from unseen_blocks import FAMILIES, Family, fill

if TYPE_CHECKING:
    import onnx_ir as ir

EXPORTERS = ("classic", "plain", "open", "dynamo")
MODULES = (unseen_dense, unseen_signals, unseen_tokens, unseen_vision)


def inputs(family: Family, batch: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {}
    for number, shape in enumerate(family.shapes):
        sizes = (batch, *shape[1:])
        array = rng.standard_normal(sizes) if family.whole is None else rng.integers(0, family.whole, sizes)
        found[f"x{number}"] = array.astype(np.float32 if family.whole is None else np.int64)
    return found


def exported(name: str, exporter: str, seed: int = 0) -> bytes:
    """The ONNX file of a family.

    Raises:
        RuntimeError: torch cannot write it, or the graph gives something else than torch.
    """
    family = FAMILIES[name]
    module = fill(family.build(), seed)
    batch = 2 if exporter in ("open", "dynamo") else 1
    arrays = inputs(family, batch)
    given = tuple(torch.from_numpy(array) for array in arrays.values())
    sink = io.BytesIO()
    options: dict[str, Any] = {"input_names": list(arrays)}
    if exporter == "dynamo":
        axes = tuple({0: torch.export.Dim("batch")} for _ in arrays)
        options |= {"dynamo": True, "dynamic_shapes": axes, "verbose": False, "opset_version": 18}
    else:
        options |= {"dynamo": False, "opset_version": 17}
        options |= {"dynamic_axes": {key: {0: "batch"} for key in arrays}} if exporter == "open" else {}
        if exporter == "plain":
            options |= {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE}
    torch.backends.mha.set_fastpath_enabled(False)  # one operator that no exporter knows
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module, given, sink if exporter != "dynamo" else None, **options)
        expected = module(*given)
    logging.disable(logging.NOTSET)
    data = sink.getvalue() if program is None else program.model_proto.SerializeToString()
    _agree(data, arrays, expected if isinstance(expected, tuple) else (expected,))
    return data


def _agree(data: bytes, arrays: dict[str, np.ndarray], expected: tuple[torch.Tensor, ...]) -> None:
    for got, want in zip(proof.run(opened(data), arrays).values(), expected, strict=True):
        if not np.allclose(got, want.numpy(), rtol=1e-3, atol=1e-3):
            raise RuntimeError(f"the graph differs from torch by {np.abs(got - want.numpy()).max()}")


def opened(data: bytes) -> ir.Model:
    import onnx
    import onnx_ir as ir
    from onnx import version_converter

    return ir.from_proto(version_converter.convert_version(onnx.load_from_string(data), 21))


def graph(name: str, exporter: str, cache: Path | None = None) -> ir.Model:
    """The network of a family, from the cache where it is there."""
    path = None if cache is None else cache / f"{name}.{exporter}.onnx"
    if path is not None and path.is_file():
        return opened(path.read_bytes())
    data = exported(name, exporter)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return opened(data)


def line(name: str, exporter: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    try:
        ir_model = graph(name, exporter, options.cache)
    except Exception as problem:  # whatever torch says
        return {"unsupported": f"{type(problem).__name__}: {str(problem).strip().splitlines()[0][:120]}"}
    family = FAMILIES[name]
    row = proof.measured(
        lambda: (ir_model, inputs(family, 2 if exporter in ("open", "dynamo") else 1)), options.subsets
    )
    row["free"] = sum(row["groups"].values())
    row["bad"] = not row["worst"] <= proof.LIMIT or row["free"] < family.free or row["stays"] > family.stays
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--exporters", nargs="+", choices=EXPORTERS, default=EXPORTERS)
    parser.add_argument("--subsets", type=int, default=2, help="random sets of channels for each group, and for all")
    parser.add_argument("--cache", type=Path, help="folder of exported graphs, made where it is missing")
    parser.add_argument("--json", type=Path, help="append a line for each graph there, and skip those that have one")
    options = parser.parse_args()
    known = proof.known(options.json)
    failed = False
    print("network                 exporter  find s  groups  free (of)  stay (of)   half  runs  worst error")
    for name, family in FAMILIES.items():
        for exporter in options.exporters if not options.names or name in options.names else ():
            label = f"{name} {exporter}"
            row = known.get(label)
            if row is None:
                try:
                    row = line(name, exporter, options)
                except Exception as problem:  # a graph that breaks is a row of the table too
                    row = {"broken": f"{type(problem).__name__}: {str(problem)[:300]}", "bad": True}
                proof.note(options.json, label, row)
            failed |= row.get("bad", False)
            print(f"{name:23} {exporter:8} {text(row, family)}", flush=True)
    return int(failed)


def text(row: dict[str, Any], family: Family) -> str:
    if "unsupported" in row:
        return f" cannot be exported: {row['unsupported']}"
    if "broken" in row:
        return f" BROKEN {row['broken']}"
    return (
        f"{row['find_s']:7.2f} {len(row['groups']):7} {row['free']:4} ({family.free:3}) {row['stays']:5} ({family.stays:3})"
        f" {row['half_removes']:6.0%} {row['runs']:5} {row['worst']:12.1e}{'  BAD ' + row['where'] if row['bad'] else ''}"
    )


if __name__ == "__main__":
    assert all(module.__doc__ for module in MODULES)
    sys.exit(main())
