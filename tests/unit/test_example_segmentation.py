"""examples/segmentation: the scenes, the demo network deployed on what is installed, the training from end to end."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import edgewright as ew
from edgewright import registry

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "segmentation"
NETWORK = EXAMPLE / "scenes.onnx"
SIZE = (96, 128)
LEARN, JUDGE = 40, 64
#: 64 samples cannot prove more, even where all answers are the same.
MIN_AGREEMENT, MAX_DROP = 0.9, 0.06
RUNTIMES = ("onnxruntime", "openvino", "ncnn", "litert")


def module(name: str) -> ModuleType:
    """A script of the example, which imports nothing of its folder."""
    location = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLE / f"{name}.py")
    assert location is not None
    assert location.loader is not None
    made = importlib.util.module_from_spec(location)
    sys.modules[made.__name__] = made  # dataclasses look their module up
    location.loader.exec_module(made)
    return made


scenes = module("scenes")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes that the demo network has not seen: `learn` without a use for labels, and the judges."""
    folder = tmp_path_factory.mktemp("scenes")
    scenes.write(folder / "learn", LEARN, SIZE, seed=2_000_000)
    scenes.write(folder / "judge", JUDGE, SIZE, seed=scenes._VAL_SEED)
    return folder


def judged(model: ew.Model, small: ew.Model, runtime: str, drawn: Path, out: Path) -> ew.records.VerifyReport:
    judges = ew.Samples.open(drawn / "judge" / "images", model, roles="judge")
    return ew.verify(model, ew.convert(small, runtime, out), judges, min_agreement=MIN_AGREEMENT, max_drop=MAX_DROP)


def test_a_seed_gives_one_scene() -> None:
    (photo, labels), (again, same) = scenes.scene(SIZE, 7), scenes.scene(SIZE, 7)
    assert np.array_equal(photo, again)
    assert np.array_equal(labels, same)
    assert not np.array_equal(labels, scenes.scene(SIZE, 8)[1])
    assert (photo.size, photo.mode, labels.mode) == ((SIZE[1], SIZE[0]), "RGB", "L")


def test_scenes_hold_every_class_and_little_void(drawn: Path) -> None:
    maps = np.stack([np.asarray(Image.open(path)) for path in sorted((drawn / "judge" / "labels").iterdir())])
    shares = np.bincount(maps.ravel(), minlength=scenes.VOID + 1) / maps.size
    assert len(shares) == scenes.VOID + 1 == len(scenes.LABELS) + 1
    assert shares[:-1].min() > 0.003
    assert 0 < shares[-1] < 0.06


def test_no_class_is_told_by_its_colour(drawn: Path) -> None:
    """The best guess from a pixel's colour alone is far from what a network reaches: the set is not trivial."""

    def pixels(part: str) -> tuple[np.ndarray, np.ndarray]:
        paths = sorted((drawn / part / "images").iterdir())
        colours = np.stack([np.asarray(Image.open(path)) for path in paths]) // 32
        maps = np.stack([np.asarray(Image.open(path.parents[1] / "labels" / path.name)) for path in paths])
        return (colours.astype(np.int64) @ [64, 8, 1]).ravel(), maps.ravel().astype(np.int64)

    table = np.zeros((512, scenes.VOID + 1))
    np.add.at(table, pixels("learn"), 1)
    bins, truth = pixels("judge")
    found = table[:, :-1].argmax(axis=1)[bins]
    unions = [np.sum(((found == k) | (truth == k)) & (truth != scenes.VOID)) for k in range(scenes.VOID)]
    ious = [np.sum((found == k) & (truth == k)) / union for k, union in enumerate(unions)]
    assert np.mean(ious) < 0.35


@pytest.mark.parametrize(("recipe", "runtime"), [*(("float", name) for name in RUNTIMES), ("int8", "onnxruntime")])
def test_the_demo_network_keeps_its_answers(recipe: str, runtime: str, drawn: Path, tmp_path: Path) -> None:
    if runtime not in registry.installed("runtimes"):
        pytest.skip(f"{runtime} is not installed")
    model = ew.load(NETWORK)
    learn = ew.Samples.open(drawn / "learn" / "images", model, labels="none")
    small = ew.compress(model, recipe, learn, target=ew.Target(runtime), min_agreement=MIN_AGREEMENT)
    report = judged(model, small, runtime, drawn, tmp_path / "bundle")
    assert report.decision == "pass", report.gates
    before, after = report.metric["mIoU"]
    assert before > 0.6
    assert before - after < 0.02


def test_one_wrong_scale_fails(drawn: Path, tmp_path: Path) -> None:
    """The verdicts above can fail: the scores of one class with the wrong sign are seen."""
    import onnx_ir as ir

    model = ew.load(NETWORK)
    small = ew.compress(model, "fp16")
    broken = small.clone_ir()
    weight = [node for node in broken.graph if node.op_type == "Conv"][-1].inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    values = weight.const_value.numpy().copy()
    values[scenes.ROAD] *= -1
    weight.const_value = ir.tensor(values)
    report = judged(model, small.with_ir(broken, small.history[-1]), "onnxruntime", drawn, tmp_path / "bundle")
    assert report.decision == "fail"


def test_the_committed_network_is_small_and_says_what_it_is() -> None:
    assert NETWORK.stat().st_size < 1_000_000
    spec = ew.load(NETWORK).spec
    assert spec.task == "segment"
    assert tuple(spec.options["labels"]) == scenes.LABELS
    assert spec.options["ignore"] == scenes.VOID
    assert spec.inputs["image"].size == SIZE


def train(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE / "train.py"), "--data", str(folder), "--out", str(folder / "out")]
    settings = ("--size", "32x48", "--width", "0.25", "--batch", "4", "--threads", "1")
    return subprocess.run([*command, *settings, *options], capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.slow
def test_training_goes_on_where_it_was_left_and_exports(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    scenes.write(tmp_path / "train", 20, (32, 48), seed=0)
    scenes.write(tmp_path / "val", 4, (32, 48), seed=100)
    (tmp_path / "labels.txt").write_text("\n".join(scenes.LABELS))
    first = train(tmp_path, "--epochs", "1")
    assert first.returncode == 0, first.stderr
    assert "18 pictures train, 2 choose the epoch, 7 classes" in first.stdout
    scored = json.loads((tmp_path / "out" / "result.json").read_text())
    assert 0 <= scored["mIoU"] <= 1
    model = ew.load(tmp_path / "out" / "model.onnx")
    assert model.outputs[0].shape == (1, 7, 32, 48)
    again = train(tmp_path, "--epochs", "1")
    assert "going on after epoch 1" in again.stdout
    assert json.loads((tmp_path / "out" / "result.json").read_text())["mIoU"] == scored["mIoU"]
    other = train(tmp_path, "--epochs", "2")
    assert other.returncode != 0
    assert "is of another plan" in other.stderr


def test_an_onnx_network_is_trained_further(tmp_path: Path) -> None:
    """From the file alone, in batches larger than the graph says; scores of the pictures held back never fall."""
    pytest.importorskip("torch")
    scenes.write(tmp_path / "train", 20, SIZE, seed=0)
    command = [sys.executable, str(EXAMPLE / "finetune.py"), str(NETWORK), "--data", str(tmp_path)]
    settings = ("--out", str(tmp_path / "out"), "--epochs", "1", "--threads", "1")
    run = subprocess.run([*command, *settings], capture_output=True, text=True, check=False, timeout=280)
    assert run.returncode == 0, run.stderr
    model, tuned = ew.load(NETWORK), ew.load(tmp_path / "out" / "model.onnx")
    step = tuned.history[-1]
    assert (step.name, step.lossy, tuned.origin) == ("finetune", True, model.origin)
    before, after = step.stats["held_miou"]
    assert 0.5 < before <= after
    assert [node.op_type for node in tuned.ir.graph] == [node.op_type for node in model.ir.graph]


def test_a_batch_gives_what_its_pictures_give_alone(
    monkeypatch: pytest.MonkeyPatch, tolerance: dict[str, dict[str, float]]
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(EXAMPLE))
    graph = module("finetune").Graph(ew.load(NETWORK)).eval()
    for name in ("train", "pictures", "export", "fast_scnn"):
        sys.modules.pop(name, None)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 3, *SIZE), np.float32))
    with torch.no_grad():
        together, apart = graph(x), torch.cat([graph(one) for one in x.split(1)])
    assert together.shape == (3, len(scenes.LABELS), *SIZE)
    assert float((together - apart).norm() / apart.norm()) <= tolerance["float32"]["rel_l2"]


def test_the_benchmark_selects_by_what_the_training_held_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbouring frames show one street: a photo of a training sequence must not select in one place only."""
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(EXAMPLE.parents[1] / "benchmarks"))
    import segment_camvid

    names = [f"a_{n:03d}" for n in range(25)] + [f"b_{n:03d}" for n in range(7)]
    (tmp_path / "images").mkdir()
    for name in names:
        (tmp_path / "images" / f"{name}.jpg").touch()
    pictures = module("pictures")
    empty = torch.zeros(len(names), 1)
    train, held = pictures.divide(pictures.Pictures(tuple(names), empty, empty))
    folder = segment_camvid.divided(tmp_path / "images", tmp_path / "links")
    rows = dict(line.split(",") for line in (folder / "labels.csv").read_text().splitlines()[1:])
    assert rows == {f"{n}.jpg": "calibrate" for n in train.names} | {f"{n}.jpg": "select" for n in held.names}
    assert held.names == ("a_023", "a_024", "b_006")
    sys.modules.pop("segment_camvid", None)
