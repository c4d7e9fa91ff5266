"""load: which importer or zoo family is asked, with which options, and every way of asking wrongly."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

import edgewright as ew
from edgewright import registry
from edgewright.convert import convert
from edgewright.load import load, suffixes, zoo_names
from edgewright.model import HISTORY_KEY, Model, Step
from edgewright.spec import METADATA_KEY, Spec

RELU = '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 3] x) => (float[1, 3] y) { y = Relu (x) }'
SPEC = Spec(task="classify", options={"labels": ["a", "b"]})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "net.onnx"
    onnx.save(onnx.parser.parse_model(RELU), file)
    return file


@dataclass(frozen=True, kw_only=True)
class FakeOptions:
    weights: Path | None = None
    width: int = 1


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """An importer `cfg` (suffixes .cfg and .x.cfg) and a zoo family `nets`; what they are asked is collected."""
    asked: list[tuple[Any, Any]] = []

    def answer(what: Any, options: Any) -> Model:
        asked.append((what, options))
        import onnx_ir as ir

        return Model(ir.from_onnx_text(RELU), name="fake")

    fake = SimpleNamespace(EXTRA=None, SUFFIXES=(".cfg",), NAMES=("net-a", "net-b"), Options=FakeOptions, load=answer)
    names, peek = registry.names, registry.peek
    extra = {"importers": "cfg", "zoo": "nets"}
    monkeypatch.setattr(registry, "names", lambda kind: (*names(kind), extra[kind]) if kind in extra else names(kind))
    monkeypatch.setattr(registry, "peek", lambda kind, name: fake if name in extra.values() else peek(kind, name))
    return asked


def code_of(*args: Any, **kwargs: Any) -> tuple[str, str]:
    with pytest.raises(ew.EdgewrightError) as caught:
        load(*args, **kwargs)
    return caught.value.code, str(caught.value)


def test_the_ending_names_the_importer(path: Path, plugins: list[tuple[Any, Any]], tmp_path: Path) -> None:
    assert suffixes()[".onnx"] == "onnx"
    assert load(path).name == "net"
    assert load(str(path)).name == "net"
    upper = path.rename(tmp_path / "NET.ONNX")
    assert load(upper).name == "NET"
    (tmp_path / "a.cfg").write_text("")
    assert load(tmp_path / "a.cfg", width=3).name == "fake"
    assert plugins == [(tmp_path / "a.cfg", FakeOptions(width=3))]


def test_weights_become_an_option(plugins: list[tuple[Any, Any]], tmp_path: Path, path: Path) -> None:
    (tmp_path / "a.cfg").write_text("")
    load(tmp_path / "a.cfg", weights="w.bin", options={"width": "2"})
    assert plugins[0][1] == FakeOptions(weights=Path("w.bin"), width=2)
    code, text = code_of(path, weights="w.bin")
    assert code == "E103"
    assert "`onnx` takes no separate weights" in text


def test_zoo_names(plugins: list[tuple[Any, Any]]) -> None:
    assert zoo_names()["net-a"] == "nets"
    load("zoo:net-a", width=5)
    assert plugins == [("net-a", FakeOptions(width=5))]
    code, text = code_of("zoo:net-c")
    assert code == "E101"
    assert "`net-c`" in text
    assert "did you mean `net-" in text


def test_unknown_endings_list_the_known(tmp_path: Path) -> None:
    for name in ("net.docx", "net"):
        (tmp_path / name).write_text("x")
        code, text = code_of(tmp_path / name)
        assert code == "E101"
        assert "`.onnx`" in text
        assert name in text
    assert "zoo:NAME" in code_of("efficientnet-lite0")[1]


def test_missing_files_and_folders(tmp_path: Path) -> None:
    assert code_of(tmp_path / "no.onnx")[0] == "E104"
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text("{}")
    assert code_of(tmp_path / "folder.onnx")[0] == "E104"
    assert "folder" in code_of(tmp_path / "folder.onnx")[1]
    code, text = code_of(tmp_path / "bundle")
    assert code == "E104"
    assert "bundle" in text
    assert code_of(tmp_path)[0] == "E104"


def test_unreadable_files(path: Path) -> None:
    path.chmod(0)
    try:
        path.read_bytes()
    except PermissionError:
        assert code_of(path)[0] == "E104"
    path.chmod(0o600)


def test_unknown_options_are_refused(path: Path) -> None:
    code, text = code_of(path, colour="red")
    assert code == "E103"
    assert "`colour`" in text


def test_spec_as_object_and_file(path: Path, tmp_path: Path) -> None:
    assert load(path).spec == Spec()
    assert load(path, spec=SPEC).spec == SPEC
    (tmp_path / "spec.toml").write_text('task = "classify"\noptions = {labels = ["a", "b"]}\n')
    assert load(path, spec=tmp_path / "spec.toml").spec == SPEC
    assert code_of(path, spec=tmp_path / "no.toml")[0] == "E104"


def test_a_model_is_returned(path: Path) -> None:
    model = load(path)
    assert load(model) is model
    assert load(model, spec=SPEC).spec == SPEC
    assert code_of(model, width=3)[0] == "E103"


def test_spec_and_history_travel_in_the_file(path: Path, tmp_path: Path) -> None:
    model = load(path, spec=SPEC)
    step = Step(
        kind="pass", name="prune", config={"ratio": 0.5}, lossy=True, samples=("ab", "cd"), stats={"kept": [1, 2]}
    )
    later = model.with_ir(model.clone_ir(), step)
    again = load(later.save(tmp_path / "later.onnx"))
    assert (again.spec, again.history, again.origin, again.hash) == (SPEC, (step,), model.hash, later.hash)
    assert again.lossy
    assert METADATA_KEY not in again.ir.metadata_props
    assert HISTORY_KEY not in again.ir.metadata_props
    assert load(tmp_path / "later.onnx", spec=Spec()).origin == model.hash  # history keeps its origin


def test_history_of_a_bundles_file_is_in_the_manifest(path: Path, tmp_path: Path) -> None:
    model = load(path, spec=SPEC)
    later = model.with_ir(model.clone_ir(), Step(kind="pass", name="prune", lossy=True, samples=("ab",)))
    bundle = convert(later, "onnxruntime", tmp_path / "bundle")
    again = load(bundle.path / "model.onnx")
    assert (again.history, again.origin, again.hash) == (later.history, model.hash, later.hash)
    stray = shutil.copy(path, bundle.path / "other.onnx")
    assert load(stray).history == ()  # in the folder, but not of the bundle
    shutil.copy(path, bundle.path / "model.onnx")
    assert (load(bundle.path / "model.onnx").history, load(bundle.path / "model.onnx").origin) == ((), load(path).hash)


def test_groups_of_before_they_were_shortened_are_known_again() -> None:
    digest = "0123456789abcdef" * 4
    assert Step.from_json({"kind": "pass", "name": "prune", "samples": [digest]}).samples == ("0123456789abcdef",)


def test_without_steps_the_network_is_its_own_origin(path: Path, tmp_path: Path) -> None:
    saved = load(path).save(tmp_path / "saved.onnx")
    proto = onnx.load(saved)
    proto.graph.node[0].op_type = "Neg"  # another tool changed it and kept the metadata
    onnx.save(proto, saved)
    model = load(saved)
    assert model.origin == model.hash


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (METADATA_KEY, "not json"),
        (METADATA_KEY, "[1]"),
        (METADATA_KEY, "[" * 100_000),
        (METADATA_KEY, '{"inputs": {"x": {"kind": "smell"}}}'),
        (METADATA_KEY, '{"nonsense": 1}'),
        (HISTORY_KEY, "{"),
        (HISTORY_KEY, "{}"),
        (HISTORY_KEY, '{"origin": 5, "steps": []}'),
        (HISTORY_KEY, '{"origin": "a", "steps": {}}'),
        (HISTORY_KEY, '{"origin": "a", "steps": [{"kind": "pass"}]}'),
        (HISTORY_KEY, '{"origin": "a", "steps": [{"kind": "pass", "name": 3}]}'),
        (HISTORY_KEY, '{"origin": "a", "steps": [{"kind": "pass", "name": "x", "lossy": "no"}]}'),
        (HISTORY_KEY, '{"origin": "a", "steps": [{"kind": "pass", "name": "x", "samples": [1]}]}'),
        (HISTORY_KEY, '{"origin": "a", "steps": [{"kind": "pass", "name": "x", "more": 1}]}'),
    ],
)
def test_malformed_metadata_is_refused(key: str, value: str, path: Path) -> None:
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {key: value})
    onnx.save(proto, path)
    code, text = code_of(path)
    assert code == "E303"
    assert key in text
    assert "hint: " in text or "kind" in text or "nonsense" in text


def test_metadata_survive_a_round_trip_as_json(path: Path, tmp_path: Path) -> None:
    saved = load(path, spec=SPEC).save(tmp_path / "saved.onnx")
    props = {prop.key: prop.value for prop in onnx.load(saved).metadata_props}
    assert json.loads(props[METADATA_KEY]) == SPEC.to_json()
    assert json.loads(props[HISTORY_KEY])["steps"] == []


def test_importing_the_verb_does_not_import_onnx() -> None:
    import subprocess

    command = "import sys, edgewright.load; print([m for m in ('onnx', 'onnx_ir', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
