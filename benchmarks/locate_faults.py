"""How often `locate` finds and names a fault: every fault x network x runtime, some random places each.

    EDGEWRIGHT_DATA=DIR python benchmarks/locate_faults.py [--places 3] [--recipe float] [--only resnet18,unet]
    EDGEWRIGHT_DATA=DIR python benchmarks/locate_faults.py --darknet       # trained YOLO-Fastest and the oracle packs
    EDGEWRIGHT_DATA=DIR python benchmarks/locate_faults.py --source        # faults of the import, against Darknet's tensors

For each kind of fault: cases, found (the first failing layer is the one with the fault), named (its words are in the cause),
hidden (the fault changes its layer by less than the limit), and the false alarms of healthy bundles.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir

import edgewright as ew
from edgewright.contracts import Sample
from edgewright.errors import EdgewrightError
from edgewright.graph import shapes
from edgewright.model import Model
from edgewright.original import FP32_REL_L2

ROOT = Path(__file__).resolve().parents[1]


def module(path: Path) -> ModuleType:
    """The Python file at `path`."""
    location = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(location)
    sys.modules[path.stem] = loaded
    location.loader.exec_module(loaded)
    return loaded


class Source:
    """Samples in memory, all judges."""

    def __init__(self, arrays: list[dict[str, np.ndarray]]) -> None:
        self._samples = [Sample(str(i), str(i), item) for i, item in enumerate(arrays)]

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Any:
        return iter(self._samples)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(sample.group for sample in self._samples)

    def role(self, *roles: str) -> Source:
        return self


def examine(model: Model, network: Model, samples: Source, runtime: str, recipe: str) -> Any:
    """The LocateReport of `network` as a bundle."""
    with tempfile.TemporaryDirectory() as folder:
        small = ew.compress(network, recipe) if recipe != "original" else network
        return ew.locate(model, ew.convert(small, runtime, Path(folder) / "b"), samples)


def judge(report: Any, injected: Any) -> str:
    """found and named, found, hidden, missed, or elsewhere."""
    stage = next(
        (layer for layer in report.layers if injected.tensor == layer.name or injected.tensor in layer.covers), None
    )
    if report.first is None:
        return "hidden" if stage is None or stage.isolated.rel_l2 <= FP32_REL_L2 else "missed"
    if stage is None or report.first != stage.name:
        return "hidden" if stage is not None and stage.isolated.rel_l2 <= FP32_REL_L2 else "elsewhere"
    return "named" if any(word in (report.cause or "") for word in injected.words) else "found"


def main() -> int:
    """Run the campaign; exit code 1 for a missed fault, one found elsewhere, or a false alarm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--places", type=int, default=2)
    parser.add_argument("--recipe", default="original")
    parser.add_argument("--runtimes", default="onnxruntime,openvino")
    parser.add_argument("--only", default="")
    parser.add_argument("--darknet", action="store_true")
    parser.add_argument("--source", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    faults = module(ROOT / "tests" / "faults.py")
    data = module(ROOT / "tests" / "conftest.py").find_data()
    networks = (
        _darknet(data, arguments.source)
        if arguments.darknet or arguments.source
        else _architectures(data, arguments.seed)
    )
    counts: dict[str, Counter[str]] = {}
    for name, make in networks.items():
        if arguments.only and name not in arguments.only.split(","):
            continue
        model, samples = make()
        if model.precision != "fp32":
            continue
        stored = data / "darknet-oracle" / name / "outputs.npz"
        for runtime in ("source",) if arguments.source else arguments.runtimes.split(","):
            for fault, inject in {"(healthy)": None, **faults.FAULTS}.items():
                for place in range(arguments.places if inject else 1):
                    rng = np.random.default_rng([arguments.seed, place, *fault.encode()])
                    if arguments.source:
                        verdict, text = _import_case(model, inject, rng, samples, stored)
                    else:
                        verdict, text = _case(model, inject, rng, samples, runtime, arguments.recipe)
                    if verdict:
                        counts.setdefault(fault, Counter())[verdict] += 1
                    if verdict in ("missed", "elsewhere", "false alarm", "error") or (
                        arguments.verbose and verdict == "found"
                    ):
                        print(f"{verdict:11} {name} {runtime} {fault} #{place}: {text}", flush=True)
    verdicts = ("named", "found", "hidden", "missed", "elsewhere", "healthy", "false alarm", "error")
    print(f"{'':18}" + "".join(f"{verdict:>12}" for verdict in verdicts))
    for fault, counted in counts.items():
        print(f"{fault:18}" + "".join(f"{counted[verdict]:12}" for verdict in verdicts))
    total = sum(counts.values(), Counter())
    return int(any(total[verdict] for verdict in ("missed", "elsewhere", "false alarm", "error")))


def _case(model: Model, inject: Any, rng: Any, samples: Source, runtime: str, recipe: str) -> tuple[str, str]:
    copy = model.clone_ir()
    injected = inject(copy, rng) if inject else None
    if inject and injected is None:
        return "", ""
    try:
        shapes.infer(copy)
        report = examine(model, replace(model, ir=copy), samples, runtime, recipe)
    except EdgewrightError as problem:
        return "error", str(problem)
    if injected is None:
        return (
            "false alarm" if any(not layer.passed for layer in report.layers) else "healthy"
        ), f"{report.first}: {report.cause}"
    return judge(report, injected), f"at {injected.tensor}, first {report.first}: {report.cause}"


def _import_case(model: Model, inject: Any, rng: Any, samples: Source, stored: Path) -> tuple[str, str]:
    """A fault in the imported network, as if the importer had made it. The words of a cause say what the source has."""
    copy = model.clone_ir()
    injected = inject(copy, rng) if inject else None
    if inject and injected is None:
        return "", ""
    shapes.infer(copy)
    report = ew.locate_source(replace(model, ir=copy), stored, samples)
    failing = [layer.name for layer in report.layers if not layer.passed]
    if injected is None:
        return "false alarm" if failing else "healthy", str(failing[:3])
    layer, text = injected.tensor.split(".")[0], f"at {injected.tensor}, first {report.first}: {report.cause}"
    if report.first == layer:
        return "named" if report.cause else "found", text
    number = next(index for index, item in enumerate(report.layers) if item.name == layer)
    within = report.layers[number].passed
    return "hidden" if within else "elsewhere", text


def _architectures(data: Path, seed: int) -> dict[str, Any]:
    folder = data / "architectures"
    fill = module(folder / "fill.py")

    def make(name: str) -> tuple[Model, Source]:
        proto = fill.load_filled(folder / f"{name}.onnx", seed=seed)
        return ew.load(_saved(proto, name)), Source([fill.example_inputs(proto, number) for number in (0, 1)])

    return {path.stem: partial(make, path.stem) for path in sorted(folder.glob("*.onnx"))}


def _darknet(data: Path, packs_only: bool) -> dict[str, Any]:
    """Oracle packs with Darknet's own input, and the trained nets on a photo."""
    from PIL import Image

    def pack(folder: Path) -> tuple[Model, Source]:
        x = np.load(folder / "input.npy")
        x = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
        return ew.load(folder / "net.cfg"), Source([{"image": x[None]}])

    def trained(cfg: Path) -> tuple[Model, Source]:
        model = ew.load(cfg)
        height, width = model.inputs[0].shape[2:]
        with Image.open(data / "darknet" / "photos" / "dog.jpg") as photo:
            x = np.asarray(photo.convert("RGB").resize((width, height)), np.float32) / 255
        return model, Source([{"image": np.ascontiguousarray(x.transpose(2, 0, 1)[None])}])

    found = {
        path.parent.name: partial(pack, path.parent) for path in sorted((data / "darknet-oracle").glob("*/net.cfg"))
    }
    if not packs_only:
        del found["real_yolofastest_1.1"]  # the same net as below
        for path in sorted((data / "darknet").glob("*.weights")):
            found[path.stem] = partial(trained, path.with_suffix(".cfg"))
    return found


def _saved(proto: Any, name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="edgewright-"))
    ir.save(ir.from_proto(proto), folder / f"{name}.onnx")
    return folder / f"{name}.onnx"


if __name__ == "__main__":
    sys.exit(main())
