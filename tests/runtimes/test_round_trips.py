"""What the writers for phones write, the importers read back: the same outputs by the numpy reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tests.unit.test_pass_quantize_static import Drawn, network, quantized

import edgewright as ew
from edgewright.metrics import rel_l2, sqnr_db

pytest.importorskip("ncnn")
pytest.importorskip("ai_edge_litert")
Arrays = dict[str, np.ndarray]
Tolerance = dict[str, dict[str, float]]
FILES = {"ncnn": "model.param", "litert": "model.tflite"}
SCENES = Path(__file__).resolve().parents[2] / "examples" / "segmentation" / "scenes.onnx"
#: LSTMs in both directions, branches that meet, a segmentation network with resizing, a Darknet network.
FLOATS = ("crnn", "squeezenet1_1", "scenes", "resnet")
#: What is quantized here, with the sizes of its input `x`.
INTEGERS = {"crnn": (1, 1, 32, 96), "depthwise": (1, 3, 12, 12)}


@pytest.fixture(scope="module")
def networks(
    data: Path, architectures: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., ew.Model]:
    """The network of a name, with weights."""
    import onnx

    folder = tmp_path_factory.mktemp("networks")

    def load(name: str) -> ew.Model:
        if name in ("scenes", "depthwise"):
            return ew.load(SCENES) if name == "scenes" else network()
        if name == "resnet":
            return ew.load(data / "darknet-oracle" / name / "net.cfg")
        onnx.save(architectures.load_filled(data / "architectures" / f"{name}.onnx"), folder / f"{name}.onnx")
        return ew.load(folder / f"{name}.onnx")

    return load


def run(model: ew.Model, feeds: Arrays) -> Arrays:
    with ew.open(model, runtime="reference") as session:
        return dict(session.run(feeds))


def drawn(model: ew.Model, rng: np.random.Generator) -> Arrays:
    """Values for every input, batch 1."""
    return {
        info.name: rng.uniform(-1, 1, [size if isinstance(size, int) else 1 for size in info.shape]).astype(np.float32)
        for info in model.inputs
    }


def read_back(bundle: ew.Bundle, model: ew.Model, feeds: Arrays) -> Arrays:
    """What `model`, the import of the bundle's file, answers: named and laid out as in the network that was written."""
    order: dict[str, tuple[int, ...]] = {}  # ncnn's blobs hold the axes in ONNX's order
    if bundle.runtime == "litert":
        from edgewright.runtimes.litert.network import notes

        order = {name: place.order for name, place in notes(bundle.path / FILES["litert"]).places.items()}
    names = bundle.tensor_names
    made = run(
        model, {names[name]: array.transpose(order.get(name, range(array.ndim))) for name, array in feeds.items()}
    )
    found = {}
    for info in bundle.outputs:
        array = made[names[info.name]]
        found[info.name] = array.transpose(np.argsort(order[info.name])) if info.name in order else array
        found[info.name] = found[info.name].reshape([size if isinstance(size, int) else 1 for size in info.shape])
    return found


def with_a_channel_off(model: ew.Model) -> ew.Model:
    """The largest weights with their first channel a tenth larger."""
    import onnx_ir as ir

    graph = model.ir.clone()
    value = max(graph.graph.initializers.values(), key=lambda item: item.const_value.size)
    array = value.const_value.numpy().copy()
    array[0] *= 1.1
    value.const_value = ir.Tensor(array, name=value.name)
    return ew.Model(graph)


@pytest.mark.parametrize("runtime", FILES)
@pytest.mark.parametrize("name", FLOATS)
def test_a_float_network_comes_back(
    name: str,
    runtime: str,
    networks: Callable[..., ew.Model],
    tmp_path: Path,
    rng: np.random.Generator,
    tolerance: Tolerance,
) -> None:
    model, limit = networks(name), tolerance["float32"]["rel_l2"]
    bundle = ew.convert(model, runtime, tmp_path / "net")
    again = ew.load(bundle.path / FILES[runtime])
    feeds = drawn(model, rng)
    wanted, found = run(model, feeds), read_back(bundle, again, feeds)
    assert list(found) == list(wanted)
    assert max(rel_l2(array, found[key]) for key, array in wanted.items()) <= limit
    broken = read_back(bundle, with_a_channel_off(again), feeds)
    assert max(rel_l2(array, broken[key]) for key, array in wanted.items()) > limit


@pytest.mark.parametrize("runtime", FILES)
@pytest.mark.parametrize("name", INTEGERS)
def test_an_int8_network_comes_back(name: str, runtime: str, networks: Callable[..., ew.Model], tmp_path: Path) -> None:
    """Nearer to what was written than what was written is to the floats: no scale or zero point is another."""
    samples = Drawn(INTEGERS[name], count=8)
    original = networks(name)
    model = quantized(original, samples, runtime=runtime, search=False)
    bundle = ew.convert(model, runtime, tmp_path / "net")
    again = ew.load(bundle.path / FILES[runtime])
    assert again.precision == "int8"
    feeds = {"x": np.random.default_rng(1000).standard_normal(INTEGERS[name]).astype(np.float32)}
    floats, wanted, found = run(original, feeds), run(model, feeds), read_back(bundle, again, feeds)
    for key, array in wanted.items():
        assert sqnr_db(array, found[key]) > sqnr_db(floats[key], array)
