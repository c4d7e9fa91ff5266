"""One peer's int8 file of a network: ONNX Runtime's quantize_static, or NNCF's post-training quantization.

    python int8_peers.py ort-reduced MODEL.onnx CALIBRATION.npz OUT_FOLDER

Runs in an environment of its own, because no peer is a dependency: onnxruntime, onnx, sympy, openvino, nncf (which does
without torch for OpenVINO networks). Imports nothing of edgewright. CALIBRATION.npz holds one array [n, ...] for each
input of the network. OUT_FOLDER gets `model.onnx`, or `model.xml` and `model.bin`. The last line on standard output is
a JSON object: seconds of the quantization itself, peak memory of the process, versions.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

#: What runs each peer's file, and what the peer calls the settings used.
PEERS = {
    "ort-reduced": ("onnxruntime", "quantize_static QDQ U8S8 per_channel reduce_range, after quant_pre_process"),
    "ort-full": ("onnxruntime", "quantize_static QDQ U8S8 per_channel, full range, after quant_pre_process"),
    "nncf": ("openvino", "nncf.quantize, defaults (preset PERFORMANCE), target CPU"),
    "nncf-mixed": ("openvino", "nncf.quantize, preset MIXED, target CPU"),
}


def rows(path: Path) -> Iterator[dict[str, np.ndarray]]:
    """One calibration sample after the other, batch 1."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for index in range(len(next(iter(arrays.values())))):
        yield {name: array[index : index + 1] for name, array in arrays.items()}


def quantize_ort(network: Path, calibration: Path, out: Path, *, reduce_range: bool) -> None:
    """As ONNX Runtime's documentation tells users to: pre-processing, then static QDQ by channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.samples = rows(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.samples, None)

    with tempfile.TemporaryDirectory() as name:
        prepared = Path(name) / "prepared.onnx"
        try:
            quant_pre_process(str(network), str(prepared))
        except Exception as problem:  # "Incomplete symbolic shape inference": its documentation says to skip that
            print(f"without symbolic shapes: {problem}", file=sys.stderr)
            quant_pre_process(str(network), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(out / "model.onnx"),
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=reduce_range,
        )


def quantize_nncf(network: Path, calibration: Path, out: Path, *, mixed: bool) -> None:
    """As NNCF's documentation tells users to: its defaults on the OpenVINO network, all calibration samples."""
    import nncf
    import openvino
    from openvino._offline_transformations import apply_moc_transformations

    samples = list(rows(calibration))
    original = openvino.Core().read_model(network)
    # What `openvino.convert_model` does after reading: folds batch norms and the shapes of grouped weights. Without it
    # NNCF quantizes a network whose depthwise layers then run in float.
    apply_moc_transformations(original, cf=False)
    quantized = nncf.quantize(
        original,
        nncf.Dataset(samples),
        preset=nncf.QuantizationPreset.MIXED if mixed else None,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(samples),
    )
    openvino.save_model(quantized, out / "model.xml", compress_to_fp16=False)


def quantize(peer: str, network: Path, calibration: Path, out: Path) -> None:
    if PEERS[peer][0] == "onnxruntime":
        quantize_ort(network, calibration, out, reduce_range=peer == "ort-reduced")
    else:
        quantize_nncf(network, calibration, out, mixed=peer == "nncf-mixed")


def versions(peer: str) -> dict[str, str]:
    names = ("onnxruntime", "onnx") if PEERS[peer][0] == "onnxruntime" else ("openvino", "nncf")
    return {name: importlib.metadata.version(name) for name in (*names, "numpy")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("network", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    quantize(options.peer, options.network, options.calibration, options.out)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss; source: getrusage(2)
    result: dict[str, Any] = {
        "peer": options.peer,
        "seconds": time.perf_counter() - start,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "versions": versions(options.peer),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
