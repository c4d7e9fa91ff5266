"""Real ncnn networks: every blob that survives, against ncnn's own."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from tests.ncnn_nets import drawn, ncnn_runs, our_runs, tensors

import edgewright as ew
from edgewright.contracts import Cut
from edgewright.formats.ncnn.reading import Line, read_param
from edgewright.graph.cut import extract
from edgewright.metrics import rel_l2, sqnr_db

Tolerance = dict[str, dict[str, float]]
#: Network -> shape of its input where the .param does not say it, outputs, and how many blobs have nodes of their own.
FLOAT: dict[str, tuple[tuple[int, ...], tuple[str, ...], int]] = {
    "ncnn/squeezenet_v1.1": ((), ("prob",), 39),
    "ncnn/nanodet_m": ((1, 3, 320, 320), ("792", "795", "814", "817", "836", "839"), 161),
    "ncnn/PP_OCRv5_mobile_det.ncnn": ((1, 3, 160, 224), ("out0",), 260),
    "chineseocr-lite/crnn_lite_op": ((0, 3, 32, 160), ("out",), 156),
    "mobile-lpr/float/det1": ((1, 3, 48, 64), ("conv4-2", "prob1"), 10),
    "mobile-lpr/float/det2": ((1, 3, 24, 60), ("conv5-2", "prob1"), 13),
    "mobile-lpr/float/lpc": ((), ("prob",), 15),
    "mobile-lpr/float/lpr": ((), ("fc1x",), 35),
    "mobile-lpr/float/mssd512_voc": ((), ("ssd0_concat1", "flatten0", "concat0"), 112),
}
#: The same in int8, with how large inputs are.
INT8: dict[str, tuple[tuple[int, ...], float]] = {
    "det1-int8": ((1, 3, 48, 64), 127.0),
    "det2-int8": ((1, 3, 24, 60), 127.0),
    "lpc-int8": ((), 127.0),
    "lpr-int8": ((), 1.0),
    "mssd512_voc-int8": ((), 1.0),
}
_INTEGER = ("Convolution", "ConvolutionDepthWise", "InnerProduct")


def loaded(path: Path, shape: tuple[int, ...]) -> ew.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ew.EdgewrightWarning)
        return ew.load(path, **({"input_shape": shape} if shape else {}))


def surviving(path: Path, model: ew.Model) -> list[str]:
    """Blobs that are tensors of the imported network."""
    made = set(tensors(model))
    return [name for line in read_param(path) for name in line.tops if name in made]


@pytest.mark.parametrize("net", FLOAT)
def test_every_blob_is_ncnns(net: str, data: Path, rng: np.random.Generator, tolerance: Tolerance) -> None:
    shape, outputs, count = FLOAT[net]
    path = data / "models" / f"{net}.param"
    model = loaded(path, shape)
    assert tuple(info.name for info in model.outputs) == outputs
    names, feeds = surviving(path, model), drawn(model, rng)
    assert len(names) == count
    theirs, ours = ncnn_runs(path, feeds, names), our_runs(model, feeds, names)
    assert sorted(theirs) == sorted(names)
    for name in names:
        assert ours[name].shape == theirs[name].shape, name
        # A mask that marks nothing is 1e-7 everywhere: such values are held to the absolute limit.
        small = np.abs(theirs[name]).max() < tolerance["float32"]["atol"]
        if small:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=tolerance["float32"]["atol"])
        else:
            assert rel_l2(theirs[name], ours[name]) <= tolerance["float32"]["rel_l2"], name


@pytest.mark.parametrize("net", INT8)
def test_int8_networks_give_what_ncnn_gives(
    net: str, data: Path, rng: np.random.Generator, tolerance: Tolerance
) -> None:
    shape, size = INT8[net]
    path = data / "models" / "mobile-lpr" / "int8" / f"{net}.param"
    model = loaded(path, shape)
    assert model.precision == "int8"
    feeds = drawn(model, rng, size)
    names = surviving(path, model)
    theirs, ours = ncnn_runs(path, feeds, names), our_runs(model, feeds, names)
    worst = min((sqnr_db(theirs[name], ours[name]), name) for name in names)
    assert worst[0] >= tolerance["int8"]["sqnr_db"], worst


@pytest.mark.parametrize("net", INT8)
def test_each_int8_layer_rounds_as_ncnn_does(
    net: str, data: Path, rng: np.random.Generator, tolerance: Tolerance
) -> None:
    """Each layer is given ncnn's own input, so that only its own rounding is seen."""
    shape, size = INT8[net]
    path = data / "models" / "mobile-lpr" / "int8" / f"{net}.param"
    model = loaded(path, shape)
    feeds, lines = drawn(model, rng, size), read_param(path)
    layers = [line for line in lines if line.kind in _INTEGER]
    first = _first_names(lines)
    blobs = ncnn_runs(path, feeds, [name for line in lines for name in line.tops])
    assert len(layers) > 3
    for line in layers:
        entry, (top,) = first[line.bottoms[0]], line.tops
        part = ew.Model(extract(model.ir, Cut((entry,), (top,))))
        ours = our_runs(part, {entry: blobs[line.bottoms[0]]}, [top])[top]
        step = np.abs(blobs[top]).max() / 127
        assert np.abs(ours - blobs[top]).mean() / step <= tolerance["int8"]["steps"], line.label


def _first_names(lines: list[Line]) -> dict[str, str]:
    """Blob -> the name under which the importer keeps it: what Split hands on keeps its first."""
    first: dict[str, str] = {}
    for line in lines:
        for top in line.tops:
            first[top] = first[line.bottoms[0]] if line.kind == "Split" else top
    return first


def test_a_network_that_ncnn_itself_no_longer_takes(data: Path, rng: np.random.Generator, tolerance: Tolerance) -> None:
    """angle_op has axes of an old style and weights in half precision; its ONNX file is beside it, with the same names."""
    folder = data / "models" / "chineseocr-lite"
    with pytest.warns(ew.EdgewrightWarning, match="line 109: Reduction `611`: its axes are of a file from before 2023"):
        model = ew.load(folder / "angle_op.param", input_shape=(1, 3, 32, 192))
    original = ew.load(folder / "angle_net.onnx")
    common = [name for name in tensors(original) if name in set(tensors(model))]
    assert len(common) > 100
    image = rng.uniform(-1, 1, (1, 3, 32, 192)).astype(np.float32)
    theirs = our_runs(original, {original.inputs[0].name: image}, common)
    ours = our_runs(model, {model.inputs[0].name: image}, common)
    assert min(sqnr_db(theirs[name], ours[name]) for name in common if name != "612") >= tolerance["int8"]["sqnr_db"]
    np.testing.assert_allclose(ours["out"], theirs["out"], atol=tolerance["float16"]["rtol"])
