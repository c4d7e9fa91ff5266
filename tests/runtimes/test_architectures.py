"""Whole networks through every deployable runtime: a seeded sample; `benchmarks/runtimes_architectures.py` runs all."""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType

import pytest
from tests.conftest import architecture_names

from edgewright import registry, session
from edgewright.contracts import Cut
from edgewright.convert import convert
from edgewright.load import load
from edgewright.metrics import rel_l2

RUNTIMES = [name for name in registry.installed("runtimes") if name not in ("onnxruntime", "reference")]
#: These have no form of some operators, and say so.
PARTIAL = ("native", "ncnn")
#: Quantized: its steps turn rounding differences into whole steps, so fp32 limits do not apply.
SAMPLE = random.Random(3).sample(
    [name for name in architecture_names() if not name.endswith("_qdq")], 8 if architecture_names() else 0
)


# Without a compiler native runs in numpy and says so: the answers are the same.
@pytest.mark.filterwarnings("ignore:edgewright was installed without its C[+][+] kernels")
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", SAMPLE)
def test_gives_the_originals_answers(
    name: str,
    runtime: str,
    architectures: ModuleType,
    data: Path,
    tmp_path: Path,
    tolerance: dict[str, dict[str, float]],
) -> None:
    import onnx

    limit = tolerance["float32"]["rel_l2"]
    proto = architectures.load_filled(data / "architectures" / f"{name}.onnx")
    feeds = architectures.example_inputs(proto)
    onnx.save(proto, tmp_path / "net.onnx")
    model = load(tmp_path / "net.onnx")
    if problems := registry.peek("runtimes", runtime).supports(model.ir):
        assert runtime in PARTIAL, problems
        pytest.skip(f"{runtime}: {problems[0].op_type}: {problems[0].reason}")
    bundle = convert(model, runtime, tmp_path / "bundle")
    surviving = [value.name for node in model.ir.graph for value in node.outputs if value.name in bundle.tensor_names]
    inner = surviving[len(surviving) // 2 :: max(1, len(surviving) // 6)][:3]
    outputs = [info.name for info in model.outputs]
    with session.open(model, runtime="onnxruntime") as original, session.open(bundle) as opened:
        wanted, got = original.run(feeds), opened.run(feeds)
        tapped, expected = opened.run(feeds, inner), original.run(feeds, inner)
    assert list(got) == list(wanted) == outputs
    for tensor, array in wanted.items():
        assert rel_l2(array, got[tensor]) <= limit, tensor
    for tensor, array in expected.items():
        assert rel_l2(array, tapped[tensor]) <= 10 * limit, tensor  # small differences of large values, inside
    with session.open(bundle, cut=Cut(None, (outputs[0],))) as part:
        assert rel_l2(wanted[outputs[0]], part.run(feeds)[outputs[0]]) <= limit
