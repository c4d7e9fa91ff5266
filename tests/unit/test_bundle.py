"""Bundles: whole or absent, never silently altered, never a traceback."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewright import bundle as bundles
from edgewright.bundle import EVIDENCE, MANIFEST, Bundle, staging
from edgewright.convert import convert
from edgewright.errors import EdgewrightError, EdgewrightWarning
from edgewright.model import Model

TEXT = """<ir_version: 10, opset_import: ["" : 21]> net (float[N,3] image) => (float[N,2] scores)
<float[3,2] weight = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}> { scores = MatMul(image, weight) }"""
OPEN_SECONDS = 1.0  # what opening a bundle of lite0's size may take: loading the runtime itself is half of it


@pytest.fixture
def made(tmp_path: Path, model_from_text: Callable[..., Model]) -> Bundle:
    return convert(model_from_text(TEXT, name="net"), "onnxruntime", tmp_path / "out" / "net")


def refused(path: Path) -> EdgewrightError:
    with pytest.raises(EdgewrightError) as caught:
        Bundle.open(path)
    return caught.value


def edit(path: Path, change: Callable[[dict[str, Any]], Any], *, seal: bool = False) -> None:
    """Change the manifest; `seal` writes the seal anew, as somebody would who knows how it is made."""
    manifest = path / MANIFEST
    document = json.loads(manifest.read_text(encoding="utf-8"))
    change(document)
    if seal:
        content = {key: value for key, value in document.items() if key != "seal"}
        document["seal"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    manifest.write_text(json.dumps(document), encoding="utf-8")


class TestOpen:
    def test_gives_back_what_was_made(self, made: Bundle) -> None:
        again = Bundle.open(made.path)
        assert again == made
        assert again.hash == made.hash
        assert again.size_bytes == sum(path.stat().st_size for path in made.path.glob("model*"))
        assert [str(info) for info in again.inputs] == ["image float32[N, 3]"]

    def test_a_manifest_of_before_costs_were_recorded(self, made: Bundle) -> None:
        def strip(document: dict[str, Any]) -> None:
            for name in ("model_name", "macs", "traffic_bytes"):
                del document[name]

        assert (made.model_name, made.macs, made.traffic_bytes) == ("net", 6, 4 * (6 + 3 + 2))
        edit(made.path, strip, seal=True)
        again = Bundle.open(made.path)
        assert (again.model_name, again.macs, again.traffic_bytes) == ("", None, None)
        edit(made.path, lambda document: document.update(macs="many"), seal=True)
        assert refused(made.path).code == "E221"

    def test_moved_folder_stays_the_same_bundle(self, made: Bundle, tmp_path: Path) -> None:
        moved = shutil.move(made.path, tmp_path / "elsewhere")
        assert Bundle.open(moved).hash == made.hash

    def test_absent_folder(self, tmp_path: Path) -> None:
        assert refused(tmp_path / "nowhere").code == "E104"

    def test_file_instead_of_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x", encoding="utf-8")
        assert refused(tmp_path / "file").code == "E104"

    def test_folder_that_is_no_bundle(self, tmp_path: Path) -> None:
        assert refused(tmp_path).code == "E221"

    def test_is_fast_and_needs_no_graph_library(self, tmp_path: Path, model_from_text: Callable[..., Model]) -> None:
        pytest.importorskip("openvino")
        model = efficientnet()
        for runtime in ("onnxruntime", "openvino"):
            convert(model, runtime, tmp_path / runtime)
            script = (
                "import sys, time; start = time.process_time(); import edgewright\n"
                f"edgewright.open({str(tmp_path / runtime)!r})\n"
                "print(time.process_time() - start, [name for name in ('onnx', 'onnx_ir') if name in sys.modules])"
            )
            runs = [
                subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
                for _ in range(5)
            ]
            assert all("[]" in run.stdout for run in runs)
            # Processor time of the fastest run: what the code needs, whatever else the machine is doing.
            assert min(float(run.stdout.split()[0]) for run in runs) < OPEN_SECONDS, runtime


def efficientnet() -> Model:
    """EfficientNet-Lite0's size: 4.7 million weights, from the package where it is installed."""
    from edgewright.load import load

    try:
        return load("zoo:efficientnet-lite0")
    except EdgewrightError as problem:
        if problem.code != "E102":
            raise
        pytest.skip("needs the extra `demo`")


class TestTampering:
    @pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
    def test_a_flipped_bit_in_any_file(self, made: Bundle, where: float) -> None:
        for name in made.files:
            file = made.path / name
            content = bytearray(file.read_bytes())
            position = int(where * (len(content) - 1))
            content[position] ^= 1
            file.write_bytes(content)
            problem = refused(made.path)
            assert (problem.code, name in problem.message) == ("E220", True)
            content[position] ^= 1
            file.write_bytes(content)
        Bundle.open(made.path)

    def test_cut_short_grown_and_missing_files(self, made: Bundle) -> None:
        file = made.path / "model.onnx"
        content = file.read_bytes()
        for altered in (b"", content[:-1], content + b"\0"):
            file.write_bytes(altered)
            assert refused(made.path).code == "E220"
        file.unlink()
        assert "lacks its file `model.onnx`" in refused(made.path).message

    def test_folder_in_the_place_of_a_file(self, made: Bundle) -> None:
        (made.path / "model.onnx").unlink()
        (made.path / "model.onnx").mkdir()
        assert refused(made.path).code == "E220"

    def test_any_edit_of_the_manifest(self, made: Bundle) -> None:
        original = (made.path / MANIFEST).read_text(encoding="utf-8")
        document = json.loads(original)
        for key in document:
            edit(made.path, lambda it, key=key: it.__setitem__(key, changed(it[key])))
            assert refused(made.path).code in ("E220", "E221"), key
            (made.path / MANIFEST).write_text(original, encoding="utf-8")
        edit(made.path, lambda it: it.__setitem__("more", 1))
        assert refused(made.path).code == "E220"

    def test_a_precision_that_was_sealed_again_still_lacks_its_hash(self, made: Bundle) -> None:
        edit(made.path, lambda it: it.__setitem__("precision", "int8"), seal=True)
        assert refused(made.path).code == "E220"

    @pytest.mark.parametrize(
        "name", ["../secret", "/etc/hostname", "a/../../secret", "", ".", "nul\0", "\ud800", "x" * 5000]
    )
    def test_file_names_that_lead_outside_or_nowhere(self, made: Bundle, name: str) -> None:
        (made.path.parent / "secret").write_text("x", encoding="utf-8")

        def change(document: dict[str, Any]) -> None:
            document["files"][name] = {"sha256": hashlib.sha256(b"x").hexdigest(), "size_bytes": 1}
            content = {
                "files": {key: [entry["sha256"], entry["size_bytes"]] for key, entry in document["files"].items()}
            }
            content |= {key: document[key] for key in ("runtime", "precision", "options", "spec", "tensor_names")}
            document["hash"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

        edit(made.path, change, seal=True)
        assert refused(made.path).code in ("E220", "E221")

    def test_link_that_leads_outside(self, made: Bundle, tmp_path: Path) -> None:
        outside = tmp_path / "outside.onnx"
        shutil.move(made.path / "model.onnx", outside)
        (made.path / "model.onnx").symlink_to(outside)
        problem = refused(made.path)
        assert problem.code == "E220"
        assert "outside" in problem.message


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool | int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [*value, "avx2"] if all(isinstance(item, str) for item in value) else value[:-1]
    return {**value, "more": "x"}


class TestMalformedManifest:
    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"\xff\xfe", b"[]", b"null", b"7", b'"text"', b"{}", b'{"format": 99}', b'{"format": "1"}',
         b'{"format": 1}', b"[" * 100_000, b'{"format": 1, "name": ' + b"9" * 5000 + b"}", b'{"format": NaN}', b"\0" * 64],
    )  # fmt: skip
    def test_content(self, made: Bundle, content: bytes) -> None:
        (made.path / MANIFEST).write_bytes(content)
        problem = refused(made.path)
        assert problem.code == "E221"
        assert MANIFEST in problem.message

    def test_absurd_size(self, made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bundles, "_LARGEST_MANIFEST_BYTES", 10)
        assert "larger than 10 bytes" in refused(made.path).message

    def test_fuzzed(self, made: Bundle) -> None:
        """Any part of the manifest replaced by something else is refused, with or without a new seal."""
        original = (made.path / MANIFEST).read_text(encoding="utf-8")
        rng = random.Random(0)
        odd = [None, True, -1, 0, 1e400, float("nan"), "", "\0", "x", [], {}, [[]], {"a": 1}, ["a", 1], 10**30]
        for number in range(400):
            document = json.loads(original)
            holder, key = rng.choice(list(places(document)))
            if rng.random() < 0.2:
                del holder[key]
            else:
                holder[key] = rng.choice(odd)
            if json.dumps(document) == json.dumps(json.loads(original)):
                continue
            if number % 2:
                content = {key: value for key, value in document.items() if key != "seal"}
                document["seal"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
            (made.path / MANIFEST).write_text(json.dumps(document), encoding="utf-8")
            try:
                with warnings.catch_warnings():  # CPU features are text, any text
                    warnings.simplefilter("ignore", EdgewrightWarning)
                    Bundle.open(made.path)  # a fresh seal over another valid text is another valid manifest
            except EdgewrightError as problem:
                assert problem.code in ("E220", "E221"), problem
            else:
                assert number % 2, document

    def test_random_bytes_in_it(self, made: Bundle) -> None:
        original = (made.path / MANIFEST).read_bytes()
        rng = random.Random(1)
        for _ in range(400):
            content = bytearray(original)
            position = rng.randrange(len(content))
            content[position : position + rng.randrange(3)] = rng.randbytes(rng.randrange(1, 4))
            (made.path / MANIFEST).write_bytes(content)
            try:
                Bundle.open(made.path)
            except EdgewrightError as problem:
                assert problem.code in ("E220", "E221"), problem
            else:
                assert json.loads(content) == json.loads(original)


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a JSON document."""
    keys: Any = list(document) if isinstance(document, dict) else range(len(document))
    for key in keys:
        yield document, key
        if isinstance(document[key], dict | list):
            yield from places(document[key])


class TestCpuFeatures:
    def test_warns_where_one_is_missing(self, made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        edit(made.path, lambda it: it.__setitem__("cpu_features", ["amx_bf16", "avx2"]), seal=True)
        monkeypatch.setattr(bundles, "host_features", lambda: ("avx2",))
        with pytest.warns(EdgewrightWarning, match="made for a CPU with amx_bf16, which this one lacks"):
            Bundle.open(made.path)

    @pytest.mark.parametrize("host", [("amx_bf16", "avx2"), ()])
    def test_is_silent_where_all_are_there_or_nothing_is_known(
        self, made: Bundle, monkeypatch: pytest.MonkeyPatch, host: tuple[str, ...]
    ) -> None:
        edit(made.path, lambda it: it.__setitem__("cpu_features", ["amx_bf16"]), seal=True)
        monkeypatch.setattr(bundles, "host_features", lambda: host)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Bundle.open(made.path)


class TestEvidence:
    def test_is_appended_and_quotes_the_hash(self, made: Bundle) -> None:
        first = made.add_evidence("verify", {"decision": "pass"})
        second = made.add_evidence("verify", {"decision": "fail"})
        made.add_evidence("bench", {"median_ms": 1.0})
        assert (first.name, second.name) == ("verify-0000.json", "verify-0001.json")
        assert json.loads(first.read_text(encoding="utf-8"))["bundle_hash"] == made.hash
        assert [found["decision"] for found in made.evidence("verify")] == ["pass", "fail"]
        assert made.evidence("locate") == ()

    def test_never_overwrites(self, made: Bundle) -> None:
        made.add_evidence("verify", {"n": 0})
        made.add_evidence("verify", {"n": 1})
        (made.path / EVIDENCE / "verify-0000.json").unlink()
        made.add_evidence("verify", {"n": 2})
        assert [found["n"] for found in made.evidence("verify")] == [1, 2]

    def test_does_not_change_the_bundle(self, made: Bundle) -> None:
        made.add_evidence("verify", {})
        assert Bundle.open(made.path).hash == made.hash

    def test_of_another_bundle_is_not_shown(self, made: Bundle) -> None:
        path = made.add_evidence("verify", {})
        path.write_text(json.dumps({"bundle_hash": "0" * 64}), encoding="utf-8")
        assert made.evidence("verify") == ()

    @pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
    def test_that_is_malformed_is_named(self, made: Bundle, content: bytes) -> None:
        path = made.add_evidence("verify", {})
        path.write_bytes(content)
        with pytest.raises(EdgewrightError, match=r"verify-0000\.json") as caught:
            made.evidence("verify")
        assert caught.value.code == "E221"

    def test_that_cannot_be_written(self, made: Bundle) -> None:
        (made.path / EVIDENCE).write_text("a file is in the way", encoding="utf-8")
        with pytest.raises(EdgewrightError) as caught:
            made.add_evidence("verify", {})
        assert caught.value.code == "E105"


class TestStaging:
    def test_leaves_nothing_when_the_work_fails(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError), staging(tmp_path / "out") as folder:
            (folder / "half").write_text("x", encoding="utf-8")
            raise ZeroDivisionError
        assert list(tmp_path.iterdir()) == []

    def test_leaves_nothing_when_it_is_interrupted(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt), staging(tmp_path / "out") as folder:
            (folder / "half").write_text("x", encoding="utf-8")
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []

    def test_a_failed_replacement_keeps_the_old(self, made: Bundle) -> None:
        with pytest.raises(ZeroDivisionError), staging(made.path, overwrite=True):
            raise ZeroDivisionError
        assert Bundle.open(made.path).hash == made.hash
        assert list(made.path.parent.iterdir()) == [made.path]

    def test_replaces_a_bundle_and_leaves_nothing_beside_it(self, made: Bundle) -> None:
        with staging(made.path, overwrite=True) as folder:
            (folder / "new").write_text("x", encoding="utf-8")
        assert [path.name for path in made.path.iterdir()] == ["new"]
        assert list(made.path.parent.iterdir()) == [made.path]

    def test_a_folder_that_cannot_be_swapped_keeps_the_old(self, made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        rename = Path.rename

        def refuse(self: Path, target: Path) -> Path:
            if target == made.path and self.name != "old":
                raise OSError(28, "No space left on device")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", refuse)
        with pytest.raises(EdgewrightError, match="No space left"), staging(made.path, overwrite=True):
            pass
        monkeypatch.undo()
        assert Bundle.open(made.path).hash == made.hash
        assert list(made.path.parent.iterdir()) == [made.path]

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_never_replaces_what_is_no_bundle(self, tmp_path: Path, overwrite: bool) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("years of work", encoding="utf-8")
        for path in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
            with pytest.raises(EdgewrightError, match="exists already") as caught, staging(path, overwrite=overwrite):
                pass
            assert caught.value.code == "E105"
        assert (tmp_path / "mine" / "thesis.txt").read_text(encoding="utf-8") == "years of work"

    def test_uses_an_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        with staging(tmp_path / "out") as folder:
            (folder / "file").write_text("x", encoding="utf-8")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]

    def test_parent_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x", encoding="utf-8")
        with pytest.raises(EdgewrightError) as caught, staging(tmp_path / "file" / "out"):
            pass
        assert caught.value.code == "E105"
