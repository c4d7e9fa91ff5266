"""Imports the ncnn networks of the test data and compares every blob that survives with ncnn's own, as a Markdown table.

    python benchmarks/import_ncnn.py [--photos N]

Float networks: the largest relative L2 distance of any blob, but of those that are below 1e-5 everywhere (a mask that marks
nothing), where ONNX Runtime's sigmoid has no digits. int8 networks: the lowest SQNR of any blob, and of the outputs; a
value that lies on the edge of a step may be rounded the other way, and what follows differs with it. With --photos,
squeezenet_v1.1 also classifies every second one of N ImageNet photos (500: all that have a class here).
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.ncnn_nets import drawn, ncnn_runs, our_runs  # noqa: E402
from tests.unit.test_importer_ncnn_nets import FLOAT, INT8, loaded, surviving  # noqa: E402

import edgewright as ew  # noqa: E402
from edgewright.metrics import rel_l2, sqnr_db  # noqa: E402
from edgewright.spec import ImageInput, Spec  # noqa: E402

NOTHING = 1e-5
#: Caffe's preparation, from the whole short side.
CAFFE = ImageInput(
    size=(227, 227), crop_fraction=1.0, interpolation="bilinear", antialias=False, colour="bgr",
    mean=(104.0, 117.0, 123.0), std=(1.0,),
)  # fmt: skip


def compare(path: Path, shape: tuple[int, ...], size: float) -> str:
    """A row of the table."""
    model = loaded(path, shape)
    feeds, names = drawn(model, np.random.default_rng(0), size), surviving(path, model)
    theirs, ours = ncnn_runs(path, feeds, names), our_runs(model, feeds, names)
    if model.precision == "int8":
        outputs = [info.name for info in model.outputs]
        worst, last = (min(sqnr_db(theirs[name], ours[name]) for name in some) for some in (names, outputs))
        distance = f"SQNR {worst:.0f} dB, of the outputs {last:.0f} dB"
    else:
        some = [name for name in names if np.abs(theirs[name]).max() > NOTHING]
        distance = f"rel-L2 {max(rel_l2(theirs[name], ours[name]) for name in some):.1e}"
    return f"| {path.stem} | {model.precision} | {len(names)} | {distance} |"


def classify(data: Path, photos: int) -> str:
    """Top-1 and top-5 of squeezenet_v1.1."""
    model = ew.load(data / "models" / "ncnn" / "squeezenet_v1.1.param", spec=Spec({"data": CAFFE}, "classify"))
    samples = sorted(ew.Samples.open(data / "imagenet-sample", model), key=lambda sample: sample.id)[:photos:2]
    hits = np.zeros(2, int)
    with ew.open(model, runtime="onnxruntime", threads=2) as session:
        for sample in samples:
            order = np.argsort(-session.run(sample.arrays)["prob"][0])[:5].tolist()
            label = int(Path(sample.id).stem)
            hits += [order[0] == label, label in order]
    first, five = 100 * hits / len(samples)
    return f"squeezenet_v1.1, {len(samples)} photos: {first:.1f} % top-1, {five:.1f} % top-5"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=0)
    arguments = parser.parse_args()
    data = Path(os.environ.get("EDGEWRIGHT_DATA", "../shared/data"))
    warnings.simplefilter("ignore", ew.EdgewrightWarning)
    print("| network | arithmetic | blobs | worst against ncnn |\n|---|---|---|---|")
    for name, (shape, _, _) in FLOAT.items():
        print(compare(data / "models" / f"{name}.param", shape, 1.0))
    for name, (shape, size) in INT8.items():
        print(compare(data / "models" / "mobile-lpr" / "int8" / f"{name}.param", shape, size))
    if arguments.photos:
        print(f"\n{classify(data, arguments.photos)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
