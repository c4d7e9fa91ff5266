"""convert: the files of one runtime, whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgewright import registry
from edgewright.bundle import Bundle
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.model import Model, Step
from edgewright.target import Target

TEXT = """<ir_version: 10, opset_import: ["" : 21]> net (float[N,3] image) => (float[N,2] scores)
<float[3,2] weight = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}> { scores = MatMul(image, weight) }"""


@pytest.fixture
def model(model_from_text: Callable[..., Model]) -> Model:
    return model_from_text(TEXT, name="net", history=(Step(kind="import", name="onnx", samples=("abc",)),))


@pytest.mark.parametrize("runtime", registry.installed("runtimes"))
class TestEveryRuntime:
    def test_writes_a_bundle_that_says_what_it_is(self, model: Model, runtime: str, tmp_path: Path) -> None:
        bundle = convert(model, runtime, tmp_path / "net")
        assert (bundle.runtime, bundle.precision, bundle.name) == (runtime, "fp32", "net")
        assert bundle.runtime_version == registry.get("runtimes", runtime).version()
        assert (bundle.origin, bundle.model_hash) == (model.origin, model.hash)
        assert bundle.samples_used == {"abc"}
        assert {"image", "scores"} <= set(bundle.tensor_names)
        readme = (tmp_path / "net" / "README.md").read_text(encoding="utf-8")
        assert "image float32[N, 3]" in readme
        assert "scores float32[N, 2]" in readme

    def test_is_deterministic(self, model: Model, runtime: str, tmp_path: Path) -> None:
        assert convert(model, runtime, tmp_path / "a").hash == convert(model, runtime, tmp_path / "b").hash

    def test_files_do_not_grow_with_the_samples_that_were_read(
        self, model: Model, runtime: str, tmp_path: Path
    ) -> None:
        step = Step(kind="pass", name="distil", lossy=True, samples=tuple(f"{n:016x}" for n in range(10_000)))
        few, many = (
            convert(replace(model, history=steps), runtime, tmp_path / str(len(steps))) for steps in ((), (step,))
        )
        assert many.size_bytes == few.size_bytes
        assert Bundle.open(many.path).samples_used == set(step.samples)

    def test_does_not_change_the_model(self, model: Model, runtime: str, tmp_path: Path) -> None:
        import onnx_ir as ir

        before = ir.to_proto(model.ir).SerializeToString(deterministic=True)
        convert(model, runtime, tmp_path / "net")
        assert ir.to_proto(model.ir).SerializeToString(deterministic=True) == before

    def test_readme_lines_run_without_edgewright(self, model: Model, runtime: str, tmp_path: Path) -> None:
        convert(model, runtime, tmp_path / "net")
        readme = (tmp_path / "net" / "README.md").read_text(encoding="utf-8")
        code = readme.partition("```python\n")[2].partition("```")[0]
        code = code.replace(": ...", ": x").replace(": image", ": x")
        code = f"import numpy\nx = numpy.ones((1, 3), 'float32')\n{code}\nprint(outputs)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path / "net", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "9" in done.stdout
        assert "12" in done.stdout

    def test_names_of_any_language(self, model_from_text: Callable[..., Model], runtime: str, tmp_path: Path) -> None:
        model = model_from_text(TEXT)
        renamed = model.clone_ir()
        renamed.graph.inputs[0].name = 'Bild, „ä" <1>/:0'
        renamed.graph.outputs[0].name = "输出"
        bundle = convert(model.with_ir(renamed), runtime, tmp_path / "nätz ü")
        assert [info.name for info in Bundle.open(bundle.path).inputs] == ['Bild, „ä" <1>/:0']
        assert {'Bild, „ä" <1>/:0', "输出"} <= set(bundle.tensor_names)

    def test_leaves_nothing_where_the_disk_is_full(self, model: Model, runtime: str, tmp_path: Path) -> None:
        """A file may not grow beyond 300 bytes, which is less than any runtime's file."""
        model.save(tmp_path / "net.onnx")
        script = f"""
import resource, sys
import onnx_ir, {"openvino" if runtime == "openvino" else "onnxruntime"}
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.model import Model
model = Model(onnx_ir.load({str(tmp_path / "net.onnx")!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
try:
    convert(model, {runtime!r}, {str(tmp_path / "out" / "net")!r})
except EdgewrightError as problem:
    print(problem.code)
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "E105", done.stdout + done.stderr
        assert list((tmp_path / "out").iterdir()) == []

    def test_refuses_an_existing_output_and_overwrites_on_demand(
        self, model: Model, runtime: str, tmp_path: Path
    ) -> None:
        first = convert(model, runtime, tmp_path / "net")
        with pytest.raises(EdgewrightError, match="exists already") as caught:
            convert(model, runtime, tmp_path / "net")
        assert caught.value.code == "E105"
        assert convert(model, runtime, tmp_path / "net", overwrite=True).hash == first.hash
        Bundle.open(tmp_path / "net")

    def test_refuses_an_operator_that_nobody_knows(
        self, model_from_text: Callable[..., Model], runtime: str, tmp_path: Path
    ) -> None:
        model = model_from_text(
            '<ir_version: 10, opset_import: ["" : 21, "made.up" : 1]> g (float[2] x) => (float[2] y)'
            " { a = Relu(x) [odd] b = made.up.Frobnicate(a) y = Relu(b) }"
        )
        with pytest.raises(EdgewrightError, match=r"cannot run 1 of 3 nodes: `Frobnicate` \(`odd`\)") as caught:
            convert(model, runtime, tmp_path / "out")
        assert caught.value.code == "E210"
        assert list(tmp_path.iterdir()) == []


def test_options_are_checked_and_kept(model: Model, tmp_path: Path) -> None:
    bundle = convert(model, "onnxruntime", tmp_path / "net", options={"graph_optimization": "none"})
    assert Bundle.open(tmp_path / "net").options["graph_optimization"] == "none"
    assert bundle.hash != convert(model, "onnxruntime", tmp_path / "other").hash
    for options in ({"graph_optimization": "most"}, {"graph_optimisation": "all"}):
        with pytest.raises(EdgewrightError) as caught:
            convert(model, "onnxruntime", tmp_path / "wrong", options=options)
        assert caught.value.code == "E103"


def test_target_names_the_cpu(model: Model, tmp_path: Path) -> None:
    assert convert(model, Target("onnxruntime", cpu="x86-64-v3"), tmp_path / "net").cpu == "x86-64-v3"


@pytest.mark.parametrize(("runtime", "code"), [("onnxruntim", "E101"), ("", "E101"), ("../reference", "E101")])
def test_unknown_runtime(model: Model, tmp_path: Path, runtime: str, code: str) -> None:
    with pytest.raises(EdgewrightError) as caught:
        convert(model, runtime, tmp_path / "net")
    assert caught.value.code == code


def test_a_runtime_that_raises_leaves_nothing(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = registry.get("runtimes", "onnxruntime")

    def explode(model: Model, folder: Path, options: Any, target: Target) -> Any:
        (folder / "half").write_text("x", encoding="utf-8")
        raise RuntimeError("no luck")

    monkeypatch.setattr(plugin, "convert", explode)
    with pytest.raises(RuntimeError, match="no luck"):
        convert(model, "onnxruntime", tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_no_space_left(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = registry.get("runtimes", "onnxruntime")

    def explode(model: Model, folder: Path, options: Any, target: Target) -> Any:
        (folder / "half").write_text("x", encoding="utf-8")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plugin, "convert", explode)
    with pytest.raises(EdgewrightError, match="No space left on device") as caught:
        convert(model, "onnxruntime", tmp_path / "net")
    assert caught.value.code == "E105"
    assert list(tmp_path.iterdir()) == []


def test_a_precision_the_runtime_does_not_run(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model.__dict__, "precision", "bf16")
    with pytest.raises(
        EdgewrightError, match="does not run bf16 networks such as `net`; it runs: fp32, fp16, int8"
    ) as caught:
        convert(model, "onnxruntime", tmp_path / "net")
    assert caught.value.code == "E210"


def test_the_manifest_is_plain_json(model: Model, tmp_path: Path) -> None:
    convert(model, "onnxruntime", tmp_path / "net")
    document = json.loads((tmp_path / "net" / "bundle.json").read_text(encoding="utf-8"))
    assert document["files"]["model.onnx"]["size_bytes"] == (tmp_path / "net" / "model.onnx").stat().st_size
