"""One int8 bundle of ours, made in a process of its own, with what that took.

    python int8_ours.py NETWORK SAMPLES OUT_FOLDER [--recipe int8] [--runtime onnxruntime] [--cpu host]

SAMPLES is a folder with `calibrate` and `select`, each a folder of photos, or with `calibrate.npz` and `select.npz`.
Nothing else is read. The last line on standard output is a JSON object: seconds from reading the network to the written
bundle, peak memory of the process, the statistics of the last pass.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import edgewright as ew
from edgewright.contracts import ROLES, Role, Sample


class Divided:
    """Samples that were divided by hand: `contracts.SampleSource` over one `Samples` for each role."""

    def __init__(self, parts: dict[Role, ew.Samples]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts.values())

    def __iter__(self) -> Iterator[Sample]:
        for part in self.parts.values():
            yield from part

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(group for part in self.parts.values() for group in part.groups))

    def role(self, *roles: Role) -> Divided:
        return Divided({role: part for role, part in self.parts.items() if role in roles})


def open_divided(folder: Path, model: ew.Model) -> Divided:
    """The samples below `folder`, one part for each role that is there."""
    parts: dict[Role, ew.Samples] = {}
    for role in ROLES:
        for path in (folder / role, folder / f"{role}.npz"):
            if path.exists():
                parts[role] = ew.Samples.open(path, model, roles=role, labels="none")
    return Divided(parts)


def quantize(options: argparse.Namespace) -> dict[str, Any]:
    """Make the bundle; the pass's statistics."""
    model = ew.load(options.network, spec=options.spec)
    samples = open_divided(options.samples, model)
    target = ew.Target(options.runtime, cpu=options.cpu)
    small = ew.compress(model, options.recipe, samples, target=target)
    ew.convert(small, target, options.out, name=options.out.name)
    return {"pass": small.history[-1].name, "stats": dict(small.history[-1].stats)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--spec", type=Path)
    parser.add_argument("--recipe", default="int8")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--cpu", default="host")
    options = parser.parse_args()
    start = time.perf_counter()
    done = quantize(options)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss; source: getrusage(2)
    result = {
        "seconds": time.perf_counter() - start,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        **done,
    }
    print(json.dumps(result, default=str))


if __name__ == "__main__":
    main()
