"""locate: every injected fault is found at the right layer and named; healthy bundles raise no alarm."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgewright import registry
from edgewright.bundle import MANIFEST, Bundle
from edgewright.compress import compress
from edgewright.contracts import Sample
from edgewright.convert import convert
from edgewright.graph import shapes
from edgewright.load import load
from edgewright.locate import locate
from edgewright.model import Model
from edgewright.target import host_features

RUNTIMES = ("onnxruntime", "openvino")


def _faults():
    """`tests/faults.py`; the suite runs with importlib mode, so the folder is not on the path."""
    path = Path(__file__).parents[1] / "faults.py"
    location = importlib.util.spec_from_file_location("edgewright_faults", path)
    module = importlib.util.module_from_spec(location)
    sys.modules["edgewright_faults"] = module
    location.loader.exec_module(module)
    return module


faults = _faults()


class Source:
    """Samples in memory, all of the role judge."""

    def __init__(self, arrays):
        self._samples = [Sample(f"sample-{i}", f"group{i}", item) for i, item in enumerate(arrays)]

    def __len__(self):
        return len(self._samples)

    def __iter__(self):
        return iter(self._samples)

    @property
    def groups(self):
        return tuple(sample.group for sample in self._samples)

    def role(self, *roles):
        return self


class Layers:
    """Builds a network of convolutions with the statistics of a trained one."""

    def __init__(self, rng):
        self.rng, self.nodes, self.weights = rng, [], []

    def constant(self, name, array):
        tensor = ir.tensor(np.asarray(array, np.float32), name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
        self.weights.append(value)
        return value

    def node(self, op_type, name, inputs, **attributes):
        made = ir.node(op_type, inputs, attributes, name=name)
        made.outputs[0].name = f"/{name}"
        self.nodes.append(made)
        return made.outputs[0]

    def conv(self, name, x, inputs, outputs, size, *, groups=1, strides=1, pads=None, bias=False):
        fan_in = inputs // groups * size * size
        weight = self.rng.standard_normal((outputs, inputs // groups, size, size)) * np.sqrt(2 / fan_in)
        values = [x, self.constant(f"{name}.weight", weight)]
        if bias:
            values.append(self.constant(f"{name}.bias", self.rng.normal(0, 0.2, outputs)))
        return self.node(
            "Conv",
            name,
            values,
            kernel_shape=[size] * 2,
            strides=[strides] * 2,
            pads=pads or [size // 2] * 4,
            group=groups,
        )

    def norm(self, name, x, count):
        rng = self.rng
        drawn = {"scale": rng.uniform(0.5, 1.5, count), "shift": rng.normal(0, 0.3, count),
                 "mean": rng.normal(0, 0.2, count), "var": np.exp(rng.uniform(-5, 0.5, count))}  # fmt: skip
        values = [self.constant(f"{name}.{key}", array) for key, array in drawn.items()]
        return self.node("BatchNormalization", name, [x, *values], epsilon=1e-5)

    def relu6(self, name, x):
        return self.node("Clip", name, [x, self.constant(f"{name}.low", 0.0), self.constant(f"{name}.high", 6.0)])


@pytest.fixture(scope="module")
def network():
    """Stem with padding on one side, depthwise, projection, a residual block with a leaky slope, and a head."""
    build = Layers(np.random.default_rng(0))
    image = ir.Value(name="image", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 3, 32, 32]))
    x = build.conv("stem", image, 3, 16, 3, strides=2, pads=[0, 0, 1, 1])
    x = build.relu6("stem_act", build.norm("stem_bn", x, 16))
    x = build.conv("dw", x, 16, 16, 3, groups=16)
    x = build.relu6("dw_act", build.norm("dw_bn", x, 16))
    x = build.norm("project_bn", build.conv("project", x, 16, 24, 1), 24)
    y = build.norm("body_bn", build.conv("body", x, 24, 24, 3, bias=True), 24)
    y = build.node("LeakyRelu", "body_act", [y], alpha=0.1)
    y = build.node("Flatten", "flat", [build.node("GlobalAveragePool", "pool", [build.node("Add", "sum", [x, y])])])
    head = [
        build.constant("fc.weight", build.rng.normal(0, 0.3, (10, 24))),
        build.constant("fc.bias", build.rng.normal(0, 1, 10)),
    ]
    out = build.node("Gemm", "fc", [y, *head], transB=1)
    out.name, out.shape, out.type = "logits", ir.Shape([1, 10]), ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([image], [out], nodes=build.nodes, initializers=build.weights, opset_imports={"": 21}, name="net")
    model = ir.Model(graph, ir_version=10)
    shapes.infer(model)
    return Model(model, name="net")


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(1)
    return Source([{"image": rng.standard_normal((1, 3, 32, 32)).astype(np.float32)} for _ in range(2)])


def _node(model, name):
    return next(node for node in model.graph if node.name == name)


def _weight(name, change, index=1):
    def inject(model):
        node = _node(model, name)
        faults.replace_input(node, index, change(faults.constant(node.inputs[index]).copy()))

    return inject


def _attribute(name, attribute):
    return lambda model: _node(model, name).attributes.add(attribute)


def _swap(axis):
    def change(array):
        order = np.arange(array.shape[axis])
        order[[3, 7]] = 7, 3
        return np.take(array, order, axis)

    return change


def _random(fault, name):
    """A fault of `tests/faults.py` at a chosen node: the others are hidden from it."""

    def inject(model):
        hidden = [node for node in model.graph if node.name != name]
        kinds = [node.op_type for node in hidden]
        for node in hidden:
            node.op_type = f"Hidden{node.op_type}"
        try:
            assert fault(model, np.random.default_rng(0)) is not None
        finally:
            for node, kind in zip(hidden, kinds, strict=True):
                node.op_type = kind

    return inject


def _tripled(weight):
    weight[5] *= 3
    return weight


def _bfloat16(weight):
    import ml_dtypes

    return weight.astype(ml_dtypes.bfloat16).astype(np.float32)


#: name -> (change, where it shows, where it shows once batch norms are folded, what the cause says)
CASES = {
    "wrong scale": (_weight("dw", lambda w: w * 0.5), "/dw", "/dw_bn", "0.5 x the original's"),
    "one channel's scale": (_weight("project", _tripled), "/project", "/project_bn", "is 3 x the original's"),
    "swapped channels": (_weight("project", _swap(0)), "/project", "/project_bn", "channels 3 and 7"),
    "swapped depthwise kernels": (_weight("dw", _swap(0)), "/dw", "/dw_bn", "channels 3 and 7 of the weights of `dw`"),
    "swapped input channels": (_weight("body", _swap(1)), "/body", "/body_bn", "input channels 3 and 7"),
    "swapped classes": (_weight("fc", _swap(0)), "logits", "logits", "channels 3 and 7 are swapped, the bias is right"),
    "epsilon 1e-3": (_attribute("body_bn", ir.AttrFloat32("epsilon", 1e-3)), "/body_bn", "/body_bn",
                     "`epsilon` of `body_bn` is 0.001 instead of 1e-05"),
    "epsilon 1e-4": (_attribute("dw_bn", ir.AttrFloat32("epsilon", 1e-4)), "/dw_bn", "/dw_bn",
                     "`epsilon` of `dw_bn` is 0.0001 instead of 1e-05"),
    "swish for relu6": (_random(faults.swish_for_relu, "dw_act"), "/dw_act", "/dw_act", "swish instead of relu6"),
    "relu for relu6": (_weight("dw_act", lambda high: np.float32(1e30), 2), "/dw_act", "/dw_act", "relu instead of relu6"),
    "transposed map": (_random(faults.transposed, "sum"), "/sum", "/sum", "height and width are swapped"),
    "transposed kernels": (_weight("body", lambda w: w.swapaxes(2, 3)), "/body", "/body_bn", "are transposed (width and height"),
    "padding side": (_random(faults.padding, "stem"), "/stem", "/stem_bn", "[1, 1, 0, 0] instead of [0, 0, 1, 1]"),
    "leaky slope": (_attribute("body_act", ir.AttrFloat32("alpha", 0.01)), "/body_act", "/body_act", "0.01 instead of 0.1"),
    "bgr input": (_weight("stem", lambda w: w[:, ::-1]), "/stem", "/stem_bn", "as RGB for BGR"),
    "missing bias": (_weight("body", np.zeros_like, 2), "/body", "/body_bn", "the bias of `body` is missing"),
    "shifted bias": (_weight("fc", lambda b: b + 0.5, 2), "logits", "logits", "plus 0.5"),
    "bfloat16 weights": (_weight("project", _bfloat16), "/project", "/project_bn", "rounded to bfloat16"),
}  # fmt: skip


def damaged(network, case):
    """`network` with a fault, which still claims to be the original."""
    copy = network.clone_ir()
    CASES[case][0](copy)
    shapes.infer(copy)
    model = replace(network, ir=copy)
    assert model.origin == network.origin
    assert model.hash != network.hash
    return model


def failing(report):
    return [layer for layer in report.layers if not layer.passed]


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_found_and_named(network, samples, tmp_path, runtime, case):
    bundle = convert(damaged(network, case), runtime, tmp_path / "b")
    report = locate(network, bundle, samples)
    _, where, _, cause = CASES[case]
    assert report.first == where
    assert cause in report.cause
    order = [layer.name for layer in report.layers]
    assert all(layer.passed for layer in report.layers[: order.index(where)])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_found_and_named_after_folding(network, samples, tmp_path, runtime, case):
    bundle = convert(compress(damaged(network, case), "float"), runtime, tmp_path / "b")
    report = locate(network, bundle, samples)
    _, _, where, cause = CASES[case]
    assert report.first == where
    assert cause in report.cause
    assert "/project" in report.fused
    assert "/project" in next(layer for layer in report.layers if layer.name == "/project_bn").covers


@pytest.mark.parametrize(
    "case", ["wrong scale", "swapped channels", "epsilon 1e-3", "swish for relu6", "transposed map"]
)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_fault_is_found_and_named_in_float16(network, samples, tmp_path, runtime, case):
    bundle = convert(compress(damaged(network, case), "fp16"), runtime, tmp_path / "b")
    report = locate(network, bundle, samples)
    _, _, where, cause = CASES[case]
    assert report.first == where
    assert cause in report.cause


def test_parameters_are_compared_exactly_where_the_file_is_onnx(network, samples, tmp_path):
    report = locate(network, convert(damaged(network, "epsilon 1e-4"), "onnxruntime", tmp_path / "b"), samples)
    differences = {layer.name: layer.differences for layer in report.layers if layer.differences}
    assert differences == {"/dw_bn": ("attribute `epsilon` of `dw_bn` is 0.0001 instead of 1e-05",)}


@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
def test_a_parameter_below_the_numeric_gate_is_still_found(network, samples, tmp_path, tolerance, runtime):
    """An epsilon so near that the 1e-5 gate alone would pass it: it differs, and moves the output beyond rounding."""
    copy = network.clone_ir()
    _node(copy, "body_bn").attributes.add(ir.AttrFloat32("epsilon", 1.01e-5))
    report = locate(network, convert(replace(network, ir=copy), runtime, tmp_path / "b"), samples)
    layer = next(layer for layer in report.layers if layer.name == "/body_bn")
    assert layer.isolated.rel_l2 < tolerance["float32"]["rel_l2"]
    assert not layer.passed
    assert report.first == "/body_bn"


@pytest.mark.skipif(not {"avx512_bf16", "amx_bf16", "bf16"} & set(host_features()), reason="needs a CPU with bf16")
def test_bfloat16_arithmetic_behind_a_claim_of_float32(network, samples, tmp_path):
    """OpenVINO on a CPU with bf16 units, told to use them, in a bundle whose manifest says fp32."""
    bundle = convert(network, "openvino", tmp_path / "b", options={"inference_precision": "bf16"})
    honest = locate(network, bundle, samples)
    assert bundle.precision == "bf16"
    assert not failing(honest)
    claimed = replace(bundle, precision="fp32")
    (bundle.path / MANIFEST).write_text(json.dumps(claimed.to_json()))
    report = locate(network, Bundle.open(bundle.path), samples)
    assert report.first == "/stem"
    assert "runs in bfloat16" in report.cause


def test_float16_overflow_is_named(samples, tmp_path, network):
    copy = network.clone_ir()
    faults.replace_input(_node(copy, "body_bn"), 1, faults.constant(_node(copy, "body_bn").inputs[1]) * 1e5)
    large = Model(copy, name="large")
    bundle = convert(compress(large, "fp16"), "onnxruntime", tmp_path / "b")
    report = locate(large, bundle, samples)
    if report.first is None:  # the pass kept the layer in float32, as it should
        assert not failing(report)
    else:
        assert "float16 overflow" in report.cause


def test_an_unknown_mistake_is_not_explained(network, samples, tmp_path, rng):
    copy = network.clone_ir()
    faults.replace_input(_node(copy, "body"), 1, rng.standard_normal((24, 24, 3, 3)))
    report = locate(network, convert(replace(network, ir=copy), "openvino", tmp_path / "b"), samples)
    assert report.first == "/body"
    assert report.cause is None


# --- no false alarms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["original", "float", "fp16"])
@pytest.mark.parametrize("runtime", [*RUNTIMES, "reference"])
def test_a_healthy_bundle_has_no_failing_layer(network, samples, tmp_path, runtime, recipe):
    if recipe == "fp16" and "fp16" not in registry.peek("runtimes", runtime).TRAITS.precisions:
        pytest.skip(f"{runtime} does not run fp16")
    bundle = convert(compress(network, recipe), runtime, tmp_path / "b")
    report = locate(network, bundle, samples)
    assert failing(report) == []
    assert (report.first, report.cause, report.reproducer) == (None, None, None)
    assert len(report.layers) + len(report.fused) == 15
    assert report.samples == 2


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("name", "recipe"),
    [("resnet18", "original"), ("mobilenet_v2", "original"), ("crnn", "original"), ("cond_net", "original"),
     ("shufflenet_v2_x0_5", "float"), ("unet", "float"), ("convnext_atto", "float"), ("mobilenet_v3_small", "fp16")],
)  # fmt: skip
def test_healthy_architectures_raise_no_alarm(architectures, data, tmp_path, runtime, name, recipe):
    model, samples = architecture(architectures, data, tmp_path, name)
    report = locate(model, convert(compress(model, recipe), runtime, tmp_path / "b"), samples, max_samples=1)
    assert [(layer.name, layer.isolated, layer.cumulative) for layer in failing(report)] == []
    assert report.first is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [("resnet18", "swapped inputs"), ("mobilenetv1_100", "epsilon x 100"), ("mobilenet_v2", "swish for relu"),
     ("unet", "transposed map"), ("squeezenet1_1", "no bias"), ("shufflenet_v2_x0_5", "padding side")],
)  # fmt: skip
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_faults_in_architectures_are_found_and_named(architectures, data, tmp_path, runtime, name, fault):
    model, samples = architecture(architectures, data, tmp_path, name)
    copy = model.clone_ir()
    injected = faults.FAULTS[fault](copy, np.random.default_rng(7))
    shapes.infer(copy)
    report = locate(model, convert(replace(model, ir=copy), runtime, tmp_path / "b"), samples, max_samples=1)
    assert report.first == injected.tensor
    assert any(word in report.cause for word in injected.words)


def architecture(architectures, data, tmp_path, name):
    proto = architectures.load_filled(data / "architectures" / f"{name}.onnx")
    path = tmp_path / f"{name}.onnx"
    ir.save(ir.from_proto(proto), path)
    return load(path), Source([architectures.example_inputs(proto, seed) for seed in (0, 1)])


def test_lite0_at_full_size(tmp_path):
    """The real network; `benchmarks/locate.py` measures its time and memory."""
    if registry.missing("demo"):
        pytest.skip("needs the extra `demo` for the weights")
    model = load("zoo:efficientnet-lite0")
    (info,) = model.inputs
    shape = (1, *info.shape[1:])
    samples = Source([{info.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}])
    copy = model.clone_ir()
    norm = [node for node in copy.graph if node.op_type == "BatchNormalization"][20]
    norm.attributes.add(ir.AttrFloat32("epsilon", 1e-2))
    bundle = convert(compress(replace(model, ir=copy), "float"), "onnxruntime", tmp_path / "b")
    report = locate(model, bundle, samples)
    assert report.first == norm.outputs[0].name
    assert f"`epsilon` of `{norm.name}` is 0.01 instead of 0.001" in report.cause
