"""Files that edgewright writes for phones against those of the usual converters: pnnx for ncnn, litert-torch for LiteRT.

    python3 -m venv peers; peers/bin/pip install torch==2.13.0 litert-torch pnnx onnx
    python benchmarks/phone_converters.py --peers peers/bin/python [--data FOLDER] [--seconds 8] [--restarts 3] [--json FILE]

Both files of a network compute in float32 and are run by the same code on the same runtime, interleaved in random order. The
peers get the network as edgewright has it after recipe `float` (batch norms folded), and their files must give the same
answers before they are timed. Prints time ours / theirs with its 95 % interval over all restarts, and what writing takes:
seconds, and memory beside what is there before, in multiples of the weights. Targets: upper bound at most 1.05, 3 s, 4 times.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from int8_bundles import Made, foreign, told
from int8_classification import filled, scenes
from int8_measures import ratio, time_all

import edgewright as ew
from edgewright.bundle import Bundle
from edgewright.metrics import rel_l2

HERE = Path(__file__).resolve().parent
PEERS = {"ncnn": "pnnx", "litert": "litert-torch"}
NETWORKS = ("efficientnet_lite0", "mobilenet_v2", "resnet18")
THREADS = (1, 2)
LIMIT = 1e-4  # rel-L2 between the answers of two converters' files

_COST = """
import json, sys, time
import psutil, edgewright as ew
from pathlib import Path
model = ew.load(sys.argv[1])
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew; source: proc(5)
before, start = psutil.Process().memory_info().rss, time.perf_counter()
ew.convert(model, sys.argv[2], sys.argv[3])
seconds = time.perf_counter() - start
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "bytes": int(peak.split()[1]) * 1024 - before}))
"""


def network(name: str, data: Path, work: Path) -> tuple[ew.Model, Any]:
    """The network for photos of 224 x 224 after recipe `float`, with float32 samples."""
    model = ew.load(filled(data / "architectures", name, work / f"{name}.onnx"))
    arrays = work / f"{name}.npz"
    np.savez(arrays, **{model.inputs[0].name: scenes(16, seed=0)})
    return ew.compress(model, "float"), ew.Samples.open(arrays, model)


def peer(name: str, runtime: str, python: str, like: Bundle, source: Path, work: Path) -> Bundle:
    """The peer's file of the same network as a bundle that our runner opens."""
    files = work / f"{name}-{runtime}-files"
    told(python, HERE / "phone_peers.py", PEERS[runtime], source, files)
    (ncnn_places if runtime == "ncnn" else litert_notes)(files, like)
    return foreign(files, like, work / f"{name}-{PEERS[runtime]}", precision=like.precision)


def ncnn_places(files: Path, like: Bundle) -> None:
    """pnnx calls the ends in0 and out0; everything else is as in our own file."""
    rows = json.loads((like.path / "tensors.json").read_text(encoding="utf-8"))
    ends = {like.inputs[0].name: "in0", like.outputs[0].name: "out0"}
    found = {name: [blob, *rows[name][1:]] for name, blob in ends.items()}
    (files / "tensors.json").write_text(json.dumps(found), encoding="utf-8")


def litert_notes(files: Path, like: Bundle) -> None:
    """Our runner finds the ends by notes in the file; the operators stay the peer's own."""
    from ai_edge_litert import schema_py_generated as schema

    from edgewright.formats.tflite.writing import pack
    from edgewright.runtimes.litert.network import NOTES, read, text

    path = files / "model.tflite"
    document = read(path)
    graph = document.subgraphs[0]
    tensors = {
        info.name: [text(graph.tensors[places[0]].name), order, "float32"]
        for info, places, order in (
            (like.inputs[0], graph.inputs, [0, 2, 3, 1]),
            (like.outputs[0], graph.outputs, [0, 1]),
        )
    }
    notes = json.dumps({"tensors": tensors, "growing": {}, "batch": {}}).encode()
    document.metadata = [schema.MetadataT(name=NOTES, buffer=len(document.buffers))]
    document.buffers.append(schema.BufferT(data=np.frombuffer(notes, np.uint8)))
    path.write_bytes(pack(document))


def same_answers(bundles: list[Bundle], samples: Any) -> float:
    """Distance of the two files' answers on one sample; timing files that compute different things says nothing."""
    sample = next(iter(samples))
    answers = []
    for bundle in bundles:
        with ew.open(bundle) as session:
            answers.append(next(iter(session.run(sample.arrays).values())))
    return rel_l2(*answers)


def cost(source: Path, runtime: str, out: Path) -> dict[str, float]:
    """Seconds and memory of one conversion in a process of its own."""
    command = [sys.executable, "-c", _COST, str(source), runtime, str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGEWRIGHT_DATA", "../shared/data")))
    parser.add_argument("--peers", required=True, help="Interpreter with the converters.")
    parser.add_argument("--only", choices=NETWORKS, action="append")
    parser.add_argument("--seconds", type=float, default=8.0, help="Of each bundle, thread count and restart.")
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print("| network | runtime | peer | threads | ours ms | ours / theirs (95 %) | s to write | memory / weights |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    records = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or NETWORKS:
            records += compared(name, options, Path(folder))
    if options.json:
        options.json.write_text(json.dumps(records, indent=1), encoding="utf-8")


def compared(name: str, options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """The rows of one network, printed as they come."""
    model, samples = network(name, options.data, work)
    source = work / f"{name}-float.onnx"
    model.save(source)
    weights = source.stat().st_size
    rows = []
    for runtime, peers in PEERS.items():
        took = cost(source, runtime, work / f"{name}-{runtime}-cost")
        ours = ew.convert(model, runtime, work / f"{name}-{runtime}")
        theirs = peer(name, runtime, options.peers, ours, source, work)
        apart = same_answers([ours, theirs], samples)
        if apart > LIMIT:
            raise SystemExit(f"{name}: the files of edgewright and {peers} differ by {apart:.1e}")
        made = [Made("ours", runtime, ours), Made(peers, runtime, theirs)]
        rounds, records = time_all(made, samples, threads=THREADS, restarts=options.restarts, seconds=options.seconds)
        for threads in THREADS:
            own, other = (rounds[bundle.name, threads] for bundle in (ours, theirs))
            row = {"network": name, "runtime": runtime, "peer": peers, "threads": threads, **ratio(own, other), **took}
            row["median_ms"] = float(np.median(np.concatenate(own)))
            noisy = sum(record.trust != "trusted" for record in records if record.threads == threads)
            rows.append({**row, "weights": weights, "apart": apart, "not_trusted": noisy, "records": len(records)})
            print(
                f"| {name} | {runtime} | {peers} | {threads} | {row['median_ms']:.2f} | {row['ratio']:.3f} "
                f"({row['low']:.3f}-{row['high']:.3f}) | {took['seconds']:.2f} | {took['bytes'] / weights:.2f} |",
                flush=True,
            )
    return rows


if __name__ == "__main__":
    main()
