"""locate on Darknet networks: faults in trained nets, and the imported network against what Darknet itself computed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import faults
from tests.conftest import find_data

import edgewright as ew
from edgewright.cli import main
from edgewright.contracts import Sample
from edgewright.errors import EdgewrightError
from edgewright.graph import shapes
from edgewright.locate import thinning
from edgewright.model import Model

DATA = find_data() or Path("absent")
PACKS = DATA / "darknet-oracle"
REAL = "real_yolofastest_1.1"
pytestmark = pytest.mark.skipif(not PACKS.is_dir(), reason="needs the test data folder: set EDGEWRIGHT_DATA")

#: Kinds of fault in the trained net, with a place each; `benchmarks/locate_faults.py` injects all kinds in many places.
KINDS = {
    "epsilon x 10": 0, "leaky slope": 1, "swapped channels": 2, "padding side": 3, "kernel layout": 4, "bgr": 5,
    "upsample mode": 6, "no shift": 7, "route order": 8,
}  # fmt: skip
#: (pack, kind): what YOLO-Fastest does not have.
OTHERS = [
    ("yolov2", "reorg"),
    ("yolov4_tiny", "route group"),
    ("yolov4_tiny", "cell scale"),
    ("yolov3_tiny", "padding side"),
]


class Source:
    """One sample, a judge."""

    groups = ("photo",)

    def __init__(self, x: np.ndarray) -> None:
        self._sample = Sample("photo", "photo", {"image": x})

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Any:
        return iter([self._sample])

    def role(self, *roles: str) -> Source:
        return self


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Source]:
    """YOLO-Fastest with its trained weights and a photo, on a small map to be quick."""
    from PIL import Image

    cfg = tmp_path_factory.mktemp("net") / "net.cfg"
    text = (DATA / "darknet" / "yolo-fastest-1.1.cfg").read_text()
    cfg.write_text(re.sub(r"(?m)^(width|height)\s*=\s*\d+", r"\1=96", text))
    with Image.open(DATA / "darknet" / "photos" / "dog.jpg") as photo:
        x = np.asarray(photo.convert("RGB").resize((96, 96)), np.float32).transpose(2, 0, 1)[None] / 255
    return ew.load(cfg, weights=DATA / "darknet" / "yolo-fastest-1.1.weights"), Source(np.ascontiguousarray(x))


def pack(name: str) -> tuple[Model, Source, Path]:
    x = np.load(PACKS / name / "input.npy")
    x = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
    return ew.load(PACKS / name / "net.cfg"), Source(x[None]), PACKS / name / "outputs.npz"


def damaged(model: Model, kind: str, seed: int = 0) -> tuple[Model, faults.Injected]:
    copy = model.clone_ir()
    injected = faults.FAULTS[kind](copy, np.random.default_rng(seed))
    assert injected is not None
    shapes.infer(copy)
    return replace(model, ir=copy), injected


def failing(report: Any) -> list[str]:
    return [layer.name for layer in report.layers if not layer.passed]


# --- ONNX -> runtime ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_faults_in_a_trained_net_are_found_and_named(trained: tuple[Model, Source], tmp_path: Path, kind: str) -> None:
    model, samples = trained
    wrong, injected = damaged(model, kind, KINDS[kind])
    runtime = "openvino" if KINDS[kind] % 4 == 0 else "onnxruntime"
    report = ew.locate(model, ew.convert(wrong, runtime, tmp_path / "b"), samples, max_samples=1)
    assert report.first == injected.tensor
    assert any(word in report.cause for word in injected.words), report.cause
    assert failing(report)[0] == injected.tensor
    assert report.stage.startswith(f"net -> {runtime} ")


@pytest.mark.parametrize(("name", "kind"), OTHERS)
def test_faults_of_other_heads_and_routes_are_found_and_named(tmp_path: Path, name: str, kind: str) -> None:
    model, samples, _ = pack(name)
    wrong, injected = damaged(model, kind)
    report = ew.locate(model, ew.convert(wrong, "onnxruntime", tmp_path / "b"), samples, max_samples=1)
    assert report.first == injected.tensor
    assert any(word in report.cause for word in injected.words), report.cause


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_wrong_anchors_are_found_at_their_head(trained: tuple[Model, Source], tmp_path: Path, runtime: str) -> None:
    model, samples = trained
    options = json.loads(json.dumps(dict(model.spec.options)))
    options["heads"][1]["anchors"][2] = [10.0, 13.0]
    other = replace(model, spec=replace(model.spec, options=options))
    assert other.origin == model.origin
    report = ew.locate(model, ew.convert(other, runtime, tmp_path / "b"), samples, max_samples=1)
    assert report.first == options["heads"][1]["output"]
    assert failing(report) == [report.first]
    assert "option `heads.1.anchors.2.0` of the task is 10 instead of" in report.cause


@pytest.mark.parametrize("recipe", ["original", "float", "fp16"])
def test_a_healthy_trained_net_raises_no_alarm(trained: tuple[Model, Source], tmp_path: Path, recipe: str) -> None:
    model, samples = trained
    bundle = ew.convert(ew.compress(model, recipe), "onnxruntime", tmp_path / "b")
    assert failing(ew.locate(model, bundle, samples, max_samples=1)) == []


# --- source -> ONNX -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [REAL, "yolov2", "yolov4_tiny", "resnet"])
def test_the_imported_network_gives_what_darknet_computed(name: str) -> None:
    model, samples, stored = pack(name)
    report = ew.locate_source(model, stored, samples)
    assert failing(report) == []
    assert (report.first, report.fused, report.stage) == (None, (), "outputs.npz -> net")
    with np.load(stored) as file:
        assert [layer.name for layer in report.layers] == file.files


#: (pack, kind, words of the cause): the words are what the source has and the damaged network has not.
IMPORTS = [
    (REAL, "epsilon x 10", "`epsilon` of `layer_072.batchnormalization` is 1e-05 instead of 0.0001"),
    ("yolov4_tiny", "leaky slope", "is 0.1 instead of 0.01"),
    ("yolov4_tiny", "bgr", "as RGB for BGR"),
    (REAL, "padding side", "is [1, 1, 1, 1] instead of [0, 0, 2, 2]"),
    (REAL, "kernel layout", "lie in the order OIHW, but are read as HWIO"),
    (REAL, "no shift", "each channel has its own offset"),
    ("yolov4_tiny", "upsample mode", "is nearest instead of linear"),
    ("yolov2", "reorg", "is Darknet's reorg instead of space-to-depth"),
    ("yolov2", "swapped channels", "are swapped"),
    ("yolov2", "route source", "`layer_017` reads `layer_016` instead of `layer_013`"),
    ("yolov4_tiny", "route group", "takes channels 8 to 15 instead of 0 to 7"),
    ("yolov4_tiny", "cell scale", "`scale_x_y` of"),
    ("yolov4_tiny", "route index", "`layer_008` reads `layer_007` instead of `layer_001`"),
    ("yolov3_tiny", "padding side", "is [0, 0, 1, 1] instead of [1, 1, 0, 0]"),
]


@pytest.mark.parametrize(("name", "kind", "words"), IMPORTS)
def test_faults_of_the_import_are_found_against_darknets_own_tensors(name: str, kind: str, words: str) -> None:
    """The fault is in the network, as if the importer had made it; Darknet's tensors are thinned where they are large."""
    model, samples, stored = pack(name)
    wrong, injected = damaged(model, kind, len(kind))
    report = ew.locate_source(wrong, stored, samples)
    assert report.first == injected.tensor.split(".")[0]
    assert failing(report)[0] == report.first
    assert report.cause.startswith("in the source ")
    assert words in report.cause


def test_one_value_for_each_channel_explains_nothing() -> None:
    """A bias forgotten in a fully connected layer: each output has its own offset, which any numbers would have."""
    model, samples, stored = pack("yolov1_local")
    wrong, injected = damaged(model, "no bias")
    report = ew.locate_source(wrong, stored, samples)
    assert (report.first, report.cause) == (injected.tensor.split(".")[0], None)


Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run one command with --json in an empty folder: (exit code, the document, which keeps its schema)."""
    import jsonschema

    schema = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "locate.json").read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, Any]:
        monkeypatch.setattr(sys, "argv", ["edgewright", *arguments, "--json"])
        with pytest.raises(SystemExit) as stopped:
            main()
        document = json.loads(capsys.readouterr().out)
        jsonschema.validate(document, schema)
        return int(stopped.value.code or 0), document

    return call


def test_a_wrong_cfg_on_the_command_line(run: Run) -> None:
    """`relie` (0.01) for `leaky` (0.1) in one layer: exit code 1, and a case that runs by itself."""
    model, samples, stored = pack("yolov4_tiny")
    np.savez("input.npz", image=next(iter(samples)).arrays["image"])
    parts = stored.with_name("net.cfg").read_text().split("activation=leaky")
    text = "activation=leaky".join(parts[:6]) + "activation=relie" + "activation=leaky".join(parts[6:])
    Path("net.cfg").write_text(text)
    Path("net.weights").write_bytes(stored.with_name("net.weights").read_bytes())
    words = ("--against", str(stored), "--samples", "input.npz")
    code, report = run("locate", "net.cfg", *words, "--reproduce", "case")
    assert code == 1
    assert (report["first"], report["reproducer"]) == ("layer_007", "case")
    assert "the slope of `layer_007` is 0.1 instead of 0.01" in report["cause"]
    script = subprocess.run([sys.executable, "reproduce.py"], cwd="case", capture_output=True, text=True, check=True)
    own, came = (float(line.split()[0]) for line in script.stdout.splitlines())
    assert own == pytest.approx(came)
    assert own > 1e-3
    for runtime in ("onnxruntime", "openvino"):
        ew.convert(model, runtime, runtime)
    code, chain = run("locate", str(stored.with_name("net.cfg")), "onnxruntime", "openvino", *words)
    stages = [[part.split(" ")[0] for part in item["stage"].split(" -> ")] for item in chain["reports"]]
    assert (code, stages) == (0, [["outputs.npz", "net"], ["net", "onnxruntime"], ["net", "openvino"]])


# --- stored tensors -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small() -> tuple[Model, Source, dict[str, np.ndarray]]:
    model, samples, stored = pack("vgg_crop")
    with np.load(stored) as file:
        return model, samples, dict(file)


def test_a_folder_of_tensors_with_the_input_needs_no_samples(
    small: tuple[Model, Source, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    model, samples, tensors = small
    tensors["image"] = next(iter(samples)).arrays["image"][0]
    for name, array in tensors.items():
        np.save(tmp_path / f"{name}.npy", array)
    report = ew.locate_source(model, tmp_path)
    assert failing(report) == []
    assert len(report.layers) == len(tensors) - 1


def test_a_tensor_of_another_size_is_a_failure(
    small: tuple[Model, Source, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    model, samples, tensors = small
    tensors["layer_003"] = np.zeros((7, 3), np.float32)
    tensors["layer_002"] = np.full_like(tensors["layer_002"], np.nan)
    np.savez(tmp_path / "o.npz", **tensors)
    report = ew.locate_source(model, tmp_path / "o.npz", samples, reproducer=tmp_path / "case")
    layers = {layer.name: layer for layer in report.layers}
    assert "has shape [7, 3]" in layers["layer_003"].cumulative.problem
    assert failing(report)[:2] == ["layer_002", "layer_003"]
    assert report.first == "layer_002"
    del tensors["layer_002"]
    np.savez(tmp_path / "p.npz", **tensors)
    again = ew.locate_source(model, tmp_path / "p.npz", samples, reproducer=tmp_path / "case2")
    assert again.first == "layer_003"
    assert {path.name for path in (tmp_path / "case2").iterdir()} == {"README.md"}


def test_another_layout_is_named(small: tuple[Model, Source, dict[str, np.ndarray]], tmp_path: Path) -> None:
    model, samples, _ = small
    with ew.open(model, runtime="reference") as session:
        whole = session.run(next(iter(samples)).arrays, outputs=["layer_001"])["layer_001"]
    np.savez(tmp_path / "o.npz", layer_001=whole.transpose(0, 2, 3, 1))
    report = ew.locate_source(model, tmp_path / "o.npz", samples)
    assert report.first == "layer_001"
    assert "the axes are transposed (NHWC instead of NCHW)" in report.cause


def test_refusals(small: tuple[Model, Source, dict[str, np.ndarray]], tmp_path: Path) -> None:
    model, samples, tensors = small

    def refused(code: str, path: Path, *arguments: Any, **options: Any) -> str:
        with pytest.raises(EdgewrightError) as caught:
            ew.locate_source(model, path, *arguments, **options)
        assert caught.value.code == code
        return str(caught.value)

    file = tmp_path / "o.npz"
    np.savez(file, **tensors)
    assert "no sample" in refused("E301", file)
    refused("E103", file, samples, stride=0)
    refused("E104", tmp_path / "absent.npz", samples)
    (tmp_path / "broken.npz").write_bytes(file.read_bytes()[:1000])
    refused("E201", tmp_path / "broken.npz", samples)
    (tmp_path / "empty").mkdir()
    assert "holds no tensors" in refused("E201", tmp_path / "empty", samples)
    np.savez(tmp_path / "other.npz", conv1=np.zeros(3, np.float32))
    assert "`conv1`" in refused("E231", tmp_path / "other.npz", samples)
    np.savez(tmp_path / "text.npz", layer_001=np.array(["a"]))
    refused("E201", tmp_path / "text.npz", samples)


def test_strides_are_found_by_size() -> None:
    for size in (1, 7, 100, 4097):
        for stride in (1, 2, 5, 99, 5000):
            kept = len(range(0, size, stride))
            found = thinning.strides(kept, size)
            assert kept == 1 or stride in found
            assert all(len(range(0, size, other)) == kept for other in found)


def test_thinned_values_are_kept_by_channel() -> None:
    whole = np.arange(2 * 15, dtype=np.float32).reshape(1, 2, 3, 5)
    seen = thinning.by(4, whole.shape)
    assert seen.of(whole).tolist() == [[[0, 4, 8, 12], [16, 20, 24, 28]]]
    kept = whole.reshape(-1)[::4]
    assert seen.of_stored(kept).tolist() == seen.of(whole).tolist()
    assert seen.index((0, 1, 2), whole.shape) == (0, 1, 1, 4)
    assert np.flatnonzero(seen.scattered(seen.of(whole) + 1, whole.shape)).tolist() == list(range(0, 30, 4))
    assert thinning.by(20, whole.shape).of(whole).tolist() == [[[0], [20]]]
    assert thinning.by(16, (1, 30)).of(whole).tolist() == [0, 16]
