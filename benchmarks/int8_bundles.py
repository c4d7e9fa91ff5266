"""The candidates of int8_classification.py as bundles: the float network, ours and the peers' files as they are.

Ours and every peer are made in processes of their own (int8_ours.py, int8_peers.py), from the same calibration samples.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import edgewright as ew
from edgewright.bundle import MANIFEST, Bundle, file_hash, staging
from edgewright.model import Step

HERE = Path(__file__).resolve().parent
RUNTIMES = ("onnxruntime", "openvino")
FLOAT = "fp32"
OURS = "ours"
#: The peers of each runtime; the first one is what ours is held against, the others are further rows.
PEERS: dict[str, tuple[str, ...]] = {"onnxruntime": ("ort-reduced", "ort-full"), "openvino": ("nncf", "nncf-mixed")}


@dataclass(frozen=True)
class Workshop:
    """How candidates are made.

    Attributes:
        network: What `ew.load` takes.
        model: The same, loaded.
        peers_python: Interpreter with the peers, or None: no peers.
        recipe: Our recipe.
        cpu: Target CPU of our file.
        spec: Spec file, where the network brings none.
        peers: Peers by runtime.
    """

    network: str
    model: ew.Model
    peers_python: Path | None
    recipe: str = "int8"
    cpu: str = "host"
    spec: Path | None = None
    peers: dict[str, tuple[str, ...]] = field(default_factory=lambda: PEERS)


@dataclass(frozen=True)
class Made:
    """A bundle and what making it took (seconds, peak_bytes, versions, statistics)."""

    candidate: str
    runtime: str
    bundle: Bundle
    cost: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.candidate}-{self.runtime}"


def names(shop: Workshop) -> list[tuple[str, str]]:
    """(candidate, runtime) of all that `make` makes, in the order of the tables."""
    peers = shop.peers if shop.peers_python else {}
    return [(name, runtime) for runtime in RUNTIMES for name in (FLOAT, OURS, *peers.get(runtime, ()))]


def make(shop: Workshop, samples: Path, work: Path) -> list[Made]:
    """All candidates from the samples below `samples` (see `divide`), as bundles below `work`."""
    network, calibration = work / "network.onnx", work / "calibration.npz"
    floats = {}
    plain = ew.compress(shop.model, "float")
    for runtime in RUNTIMES:
        floats[runtime] = ew.convert(plain, runtime, work / f"{FLOAT}-{runtime}")
    if shop.peers_python:
        plain.save(network)  # a peer that cannot fold what we fold is no measure
        np.savez(calibration, **stacked(samples, shop.model))  # type: ignore[arg-type]
    made = []
    for name, runtime in names(shop):
        out = work / f"{name}-{runtime}"
        if name == FLOAT:
            made.append(Made(name, runtime, floats[runtime]))
        elif name == OURS:
            cost = ours(shop, samples, out, runtime)
            made.append(Made(name, runtime, Bundle.open(out), cost))
        else:
            files = work / f"files-{name}"
            cost = told(str(shop.peers_python), HERE / "int8_peers.py", name, network, calibration, files)
            made.append(Made(name, runtime, foreign(files, floats[runtime], out), cost))
    return made


def ours(shop: Workshop, samples: Path, out: Path, runtime: str) -> dict[str, Any]:
    """Our bundle at `out`; what it took."""
    options = ["--recipe", shop.recipe, "--runtime", runtime, "--cpu", shop.cpu]
    options += ["--spec", str(shop.spec)] if shop.spec else []
    return told(sys.executable, HERE / "int8_ours.py", shop.network, samples, out, *options)


def told(python: str, script: Path, *arguments: str | Path) -> dict[str, Any]:
    """The JSON object on the last line that a script prints, with the seconds of its whole process.

    Raises:
        SystemExit: It failed; its own words are shown.
    """
    start = time.perf_counter()
    command = [python, str(script), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:  # a failing quant_pre_process leaves its files where it runs
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "process_seconds": time.perf_counter() - start}


def foreign(files: Path, like: Bundle, out: Path, *, precision: str = "int8") -> Bundle:
    """A bundle of files that somebody else made of the same network; `like` says what inputs and outputs mean.

    So that all candidates are run and timed by the same code with the same settings. The files are the peer's own; an
    OpenVINO file gets the note that asks for f32 arithmetic, as ours have it.
    """
    if like.runtime == "openvino":
        _ask_for_f32(files)
    with staging(out) as folder:
        for path in files.iterdir():
            shutil.copy(path, folder / path.name)
        contents = {path.name: (file_hash(path), path.stat().st_size) for path in folder.iterdir()}
        bundle = replace(
            like,
            path=folder,
            name=out.name,
            precision=precision,
            files=contents,
            tensor_names={info.name: info.name for info in (*like.inputs, *like.outputs)},
            history=(Step(kind="pass", name=files.name, config={}, lossy=True, samples=(), stats={}),),
        )
        (folder / MANIFEST).write_text(json.dumps(bundle.to_json()), encoding="utf-8")
    return Bundle.open(out)


def _ask_for_f32(files: Path) -> None:
    import openvino

    network = openvino.Core().read_model(files / "model.xml")
    network.set_rt_info("f32", ["edgewright", "inference_precision"])
    noted = files.with_name(f"{files.name}-noted")
    noted.mkdir()
    openvino.save_model(network, noted / "model.xml", compress_to_fp16=False)
    del network  # it maps model.bin
    for path in noted.iterdir():
        path.replace(files / path.name)
    noted.rmdir()


# --- samples ----------------------------------------------------------------------------------------------------------


def divide(photos: Sequence[Path], folder: Path) -> Path:
    """Links to `photos` below `folder`, four fifths in `calibrate` and a fifth in `select`, by content."""
    order = sorted(photos, key=file_hash)
    part = max(1, len(order) // 5)
    for role, chosen in (("select", order[:part]), ("calibrate", order[part:])):
        (folder / role).mkdir(parents=True)
        for path in chosen:
            (folder / role / path.name).symlink_to(path.resolve())
    return folder


def divide_arrays(arrays: dict[str, np.ndarray], folder: Path) -> Path:
    """The same for arrays [n, ...] by input name."""
    folder.mkdir(parents=True)
    part = max(1, len(next(iter(arrays.values()))) // 5)
    np.savez(folder / "select.npz", **{name: array[:part] for name, array in arrays.items()})  # type: ignore[arg-type]
    np.savez(folder / "calibrate.npz", **{name: array[part:] for name, array in arrays.items()})  # type: ignore[arg-type]
    return folder


def stacked(samples: Path, model: ew.Model) -> dict[str, np.ndarray]:
    """All samples below a divided folder as arrays [n, ...]: what peers calibrate on; ours gets no sample more."""
    from int8_ours import open_divided

    items = [sample.arrays for sample in open_divided(samples, model)]
    return {name: np.concatenate([item[name] for item in items]) for name in items[0]}
