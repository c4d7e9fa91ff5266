"""The ONNX functions of the domain `edgewright`: runtimes that know nothing of it give what numpy defines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import edgewright as ew
from edgewright import kernels
from edgewright.errors import EdgewrightError
from edgewright.model import Model
from edgewright.ops import functions, packing
from edgewright.ops.binary import Affine, Window

CHANNELS, HIDDEN, GROUP, PLACES = 70, 66, 2, (7, 6)
WINDOW = Window((2, 1), (1, 2), (1, 2, 2, 1), -1, GROUP)
ATTRIBUTES = f"""channels = [{CHANNELS}], group = {GROUP}, strides = [2, 1], dilations = [1, 2], pads = [1, 2, 2, 1],
    pad_value = -1.0"""


@dataclass(frozen=True)
class Network:
    """Signs, a convolution to signs, one to floats, and the same again for linear layers."""

    stored: dict[str, np.ndarray]

    @classmethod
    def random(cls, rng: np.random.Generator) -> Network:
        """Seeded weights; dot products meet their thresholds often, where < and <= differ."""

        def bits(*shape: int) -> np.ndarray:
            return packing.pack_bits(rng.integers(0, 2, shape).astype(bool))

        def floats(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape).astype(np.float32)

        return cls(
            {
                "low": floats(CHANNELS),
                "w1": bits(HIDDEN, 3, 2, CHANNELS // GROUP),
                "t1": rng.integers(-8, 9, HIDDEN).astype(np.int32),
                "f1": rng.integers(0, 2, HIDDEN).astype(bool),
                "w2": bits(5, 2, 2, HIDDEN),
                "a2": floats(5),
                "b2": floats(5),
                "zero": np.zeros(1, np.float32),
                "w3": bits(9, CHANNELS),
                "t3": rng.integers(-8, 9, 9).astype(np.int32),
                "f3": rng.integers(0, 2, 9).astype(bool),
                "w4": bits(3, 9),
                "a4": floats(3),
                "b4": floats(3),
            }
        )

    def model(self) -> Model:
        """The graph, its weights as initializers, with the functions that it uses."""
        import onnx_ir as ir

        names = {np.dtype(np.float32): "float", np.dtype(np.uint8): "uint8", np.dtype(np.int32): "int32"}
        declared = ", ".join(
            f"{names.get(array.dtype, 'bool')}{list(array.shape)} {name}" for name, array in self.stored.items()
        )
        made = ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["" : 21, "edgewright" : 1]>
            net (float[2, {CHANNELS}, 7, 6] x, float[4, {CHANNELS}] v, {declared}) => (float[2, 5, N, M] y, float[4, 3] z) {{
                s0 = edgewright.PackSigns (x, low)
                s1 = edgewright.BinaryConvSigns <{ATTRIBUTES}> (s0, w1, t1, f1)
                y = edgewright.BinaryConv <channels = [{HIDDEN}], group = 1, strides = [1, 1], dilations = [1, 1],
                    pads = [0, 0, 0, 0], pad_value = 1.0> (s1, w2, a2, b2)
                s2 = edgewright.PackSigns (v, zero)
                s3 = edgewright.BinaryLinearSigns <channels = [{CHANNELS}]> (s2, w3, t3, f3)
                z = edgewright.BinaryLinear <channels = [9]> (s3, w4, a4, b4)
            }}""")
        for value in [value for value in made.graph.inputs if value.name in self.stored]:
            made.graph.inputs.remove(value)
            value.const_value = ir.tensor(self.stored[str(value.name)], name=value.name)
            made.graph.register_initializer(value)
        functions.attach(made)
        return Model(made, name="binary")

    def run(self, x: np.ndarray, v: np.ndarray, variant: str) -> dict[str, np.ndarray]:
        """What the network gives by our kernels, and the signs on the way."""
        of = self.stored
        s0 = kernels.pack_signs(x, of["low"], variant=variant)
        first = kernels.BinaryConv(
            of["w1"], channels=CHANNELS, input_shape=(2, *PLACES), window=WINDOW, variant=variant
        )
        first.set_thresholds(of["t1"], of["f1"])
        s1 = first.signs(s0)
        second = kernels.BinaryConv(of["w2"], channels=HIDDEN, input_shape=s1.shape[:3], variant=variant)  # type: ignore[arg-type]
        second.set_affine(Affine(of["a2"], of["b2"]))
        third = kernels.BinaryLinear(of["w3"], channels=CHANNELS, batch=4, variant=variant)
        third.set_thresholds(of["t3"], of["f3"])
        s3 = third.signs(kernels.pack_signs(v, variant=variant)[None, None])
        fourth = kernels.BinaryLinear(of["w4"], channels=9, batch=4, variant=variant)
        fourth.set_affine(Affine(of["a4"], of["b4"]))
        return {
            "s0": s0,
            "s1": s1,
            "y": np.moveaxis(second.floats(s1), -1, 1),
            "s3": s3[0, 0],
            "z": fourth.floats(s3)[0, 0],
        }


def inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    given = {"x": (2, CHANNELS, *PLACES), "v": (4, CHANNELS)}
    return {name: rng.integers(-2, 3, shape).astype(np.float32) for name, shape in given.items()}


@pytest.mark.parametrize("runtime", ["reference", "onnxruntime", "openvino"])
def test_runtimes_give_what_the_kernels_give(
    runtime: str, rng: np.random.Generator, tolerance: dict[str, dict[str, float]]
) -> None:
    network, fed = Network.random(rng), inputs(rng)
    close = {key: tolerance["float32"][key] for key in ("rtol", "atol")}
    with ew.open(network.model(), runtime=runtime) as session:
        given = session.run(fed)
    for variant in kernels.variants():
        made = network.run(fed["x"], fed["v"], variant)
        for name in ("y", "z"):
            np.testing.assert_allclose(given[name], made[name], **close)


def test_onnxruntime_runs_the_file_as_it_is(
    rng: np.random.Generator, tmp_path: Path, tolerance: dict[str, dict[str, float]]
) -> None:
    import onnxruntime

    network, fed = Network.random(rng), inputs(rng)
    made = network.run(fed["x"], fed["v"], kernels.NUMPY)
    file = tmp_path / "binary.onnx"
    network.model().save(file)
    loaded = ew.load(file)  # edgewright's own importer takes it, too
    assert {node.op_type for node in loaded.ir.graph} <= set(functions.OPERATORS)
    session = onnxruntime.InferenceSession(file)
    given = dict(zip(("y", "z"), session.run(["y", "z"], fed), strict=True))
    for name in ("y", "z"):
        np.testing.assert_allclose(
            given[name], made[name], **{key: tolerance["float32"][key] for key in ("rtol", "atol")}
        )
    assert file.stat().st_size < 16_000  # packed: one bit a weight, and the bodies


def test_signs_are_equal_bit_for_bit(rng: np.random.Generator) -> None:
    import onnx_ir as ir
    import onnxruntime

    network, fed = Network.random(rng), inputs(rng)
    made = network.run(fed["x"], fed["v"], kernels.NUMPY)
    graph = network.model().ir.clone()
    shown = {value.name: value for node in graph.graph for value in node.outputs}
    for name in ("s0", "s1", "s3"):
        shown[name].type = ir.TensorType(ir.DataType.UINT8)
        graph.graph.outputs.append(shown[name])
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())
    for name, array in zip(("s0", "s1", "s3"), session.run(["s0", "s1", "s3"], fed), strict=True):
        np.testing.assert_array_equal(array, made[name])
        channels = {"s0": CHANNELS, "s1": HIDDEN, "s3": 9}[name]
        assert 0.2 < packing.unpack_bits(array, channels).mean() < 0.8  # signs of both kinds


def test_unknown_operator() -> None:
    with pytest.raises(EdgewrightError, match="there are PackSigns") as raised:
        functions.function("BinaryPool")
    assert raised.value.code == "E101"
