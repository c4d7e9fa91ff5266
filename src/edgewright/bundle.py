"""Bundle: a folder that one runtime can run. Right of convert, on disk.

    bundle.json    the manifest: runtime, precision, spec, tensor names, file hashes, CPU features, history
    README.md      how to run the files without edgewright
    ...            the runtime's own files
    processor.py   hooks that a server runs around the network, where the manifest names them (`processor.py` here)
    evidence/      append-only results (verify, locate, bench), each quoting the bundle's hash

Opening a bundle reads the manifest and checks every hash; it never imports onnx_ir.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edgewright.channel_map import Kept, decode
from edgewright.errors import EdgewrightError, EdgewrightWarning
from edgewright.model import EXACT, Step, TensorInfo
from edgewright.spec import Spec
from edgewright.target import EXACT_INT8, any_of, host_features, unmet

FORMAT = 1
MANIFEST = "bundle.json"
EVIDENCE = "evidence"
PIPELINE = "pipeline.toml"  # beside bundles: makes one model of them (`pipeline`)
_LARGEST_MANIFEST_BYTES = 64 * 2**20
_REMEDY = "edgewright convert MODEL --out BUNDLE --overwrite"
_INT8_REMEDY = "edgewright compress MODEL --recipe int8 --samples PHOTOS --cpu host --out FILE.onnx"
_TEXTS = ("name", "runtime", "runtime_version", "precision", "cpu", "origin", "model_hash")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One deployment on disk; every field but `path` is in the manifest.

    Attributes:
        path: The folder.
        name: Short name for reports, usually RECIPE-RUNTIME.
        runtime: Public name of the runtime plugin.
        runtime_version: Version of the library that the files were made with.
        precision: "fp32", "fp16", "bf16", "int8" or "binary".
        spec: What inputs and outputs mean.
        inputs: Graph inputs by ONNX name, layout as in the ONNX graph.
        outputs: Graph outputs.
        tensor_names: ONNX tensor name -> the runtime's name.
        files: Relative path -> (SHA-256 hex, size in bytes).
        cpu: Name of the CPU it was made for, "host" or a key of `target.CPUS`.
        cpu_features: CPU features that the files need; of those with `|` between them, any one.
        options: The runtime's convert options.
        history: What was done to the network, oldest first.
        origin: Hash of the original Model.
        model_hash: Hash of the Model that was converted.
        model_name: The network's name; "" in bundles of before it was recorded, as the next two are None.
        macs: Multiply-adds of one run at batch 1; None where unknown.
        traffic_bytes: Bytes that one run moves at least: weights, inputs and outputs, each once; None where unknown.
        hooks: `processor.py` and the files it reads, as `files`. The seal covers them, `hash` does not: it names the
            network that evidence judged, which hooks leave as it is.
    """

    path: Path
    name: str
    runtime: str
    runtime_version: str
    precision: str
    spec: Spec
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    tensor_names: Mapping[str, str]
    files: Mapping[str, tuple[str, int]]
    cpu: str = "host"
    cpu_features: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Step, ...] = ()
    origin: str = ""
    model_hash: str = ""
    model_name: str = ""
    macs: int | None = None
    traffic_bytes: int | None = None
    hooks: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) over runtime, options, file hashes, spec and tensor names: what decides the answers."""
        content = {
            "runtime": self.runtime,
            "precision": self.precision,
            "options": dict(self.options),
            "files": {name: list(entry) for name, entry in self.files.items()},
            "spec": self.spec.to_json(),
            "tensor_names": dict(self.tensor_names),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Bytes of the runtime's own files."""
        return sum(size for _, size in self.files.values())

    @property
    def lossy(self) -> bool:
        """True where a step was lossy or the arithmetic is less exact than fp32."""
        return self.precision not in EXACT or any(step.lossy for step in self.history)

    @property
    def samples_used(self) -> frozenset[str]:
        """Group hashes of every sample that was read to make the files."""
        return frozenset(group for step in self.history for group in step.samples)

    @property
    def comparable(self) -> frozenset[str]:
        """Tensors of the original that the files have as well, less those that a step rescaled on purpose."""
        rescaled = {name for step in self.history for name in step.stats.get("rescaled", ())}
        return frozenset({*self.tensor_names, *(info.name for info in self.outputs)} - rescaled)

    @property
    def kept(self) -> dict[str, Kept]:
        """Tensors of which the files have some of the original's channels only, and which."""
        return decode(step.stats for step in self.history)

    @property
    def unmet_features(self) -> tuple[str, ...]:
        """Those of `cpu_features` that this CPU has not; empty where the system does not tell what it has."""
        return unmet(self.cpu_features, host_features()) if host_features() else ()

    @property
    def may_saturate(self) -> bool:
        """True where products of the files' int8 weights may saturate on this CPU (or it does not tell what it has)."""
        need = any_of(EXACT_INT8)
        return need in self.cpu_features and need in unmet([need], host_features())

    def file(self, name: str) -> Path:
        """Path of one of the runtime's files."""
        assert name in self.files, name
        return self.path / name

    @classmethod
    def open(cls, path: str | Path, *, warn: bool = True) -> Bundle:
        """The bundle in the folder `path`, every hash checked.

        Args:
            path: The folder.
            warn: Whether to warn where this CPU lacks what the bundle needs; `unmet_features` says it as well.

        Raises:
            EdgewrightError: E104 no such folder, E221 no or a malformed manifest, E220 a manifest that was edited, or
                a file that is missing, altered or outside the folder.

        Warns:
            EdgewrightWarning: This CPU lacks a feature that the bundle needs.
        """
        path = Path(path)
        document = _read_manifest(path)
        try:
            bundle = cls._from_manifest(path, document)
            sealed = document["seal"] == _seal(document) and document["hash"] == bundle.hash
        except EdgewrightError as problem:
            raise EdgewrightError("E221", f"manifest `{path / MANIFEST}` is malformed: {problem.message}") from None
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as problem:
            raise EdgewrightError("E221", f"manifest `{path / MANIFEST}` is malformed: {problem!r}") from None
        if not sealed:
            raise EdgewrightError("E220", f"manifest of bundle `{path}` was changed after it was made", hint=_REMEDY)
        bundle._check_files()
        if warn and bundle.unmet_features:
            warnings.warn(_made_for_another_cpu(bundle), EdgewrightWarning, stacklevel=2)
        return bundle

    def add_evidence(self, kind: str, document: Mapping[str, Any]) -> Path:
        """Append a result to `evidence/`; the record quotes the bundle's hash. Returns the new file's path."""
        folder = self.path / EVIDENCE
        content = json.dumps({"bundle_hash": self.hash, **document}, indent=1, sort_keys=True)
        try:
            folder.mkdir(exist_ok=True)
            number = len(list(folder.glob(f"{kind}-*.json")))
            while True:
                target = folder / f"{kind}-{number:04d}.json"
                try:
                    with target.open("x", encoding="utf-8") as stream:
                        stream.write(content)
                    return target
                except FileExistsError:
                    number += 1
        except OSError as problem:
            raise EdgewrightError("E105", f"evidence in `{folder}` cannot be written: {problem.strerror}") from None

    def evidence(self, kind: str) -> tuple[dict[str, Any], ...]:
        """Results of `kind` that quote this bundle's hash, oldest first.

        Raises:
            EdgewrightError: E221 for a file among them that is no JSON object.
        """
        documents = []
        for path in sorted((self.path / EVIDENCE).glob(f"{kind}-*.json")):
            try:
                document = json.loads(path.read_text(encoding="utf-8"))
                if document.get("bundle_hash") == self.hash:
                    documents.append(document)
            except (OSError, ValueError, RecursionError, AttributeError) as problem:
                raise EdgewrightError(
                    "E221", f"evidence `{path}` is malformed: {problem}", hint=f"rm '{path}'"
                ) from None
        return tuple(documents)

    def to_json(self) -> dict[str, Any]:
        """The manifest, sealed with the hash of its own content (`hash` covers only what decides the answers)."""
        content = {
            "format": FORMAT,
            "hash": self.hash,
            "name": self.name,
            "runtime": self.runtime,
            "runtime_version": self.runtime_version,
            "precision": self.precision,
            "size_bytes": self.size_bytes,
            "cpu": self.cpu,
            "cpu_features": list(self.cpu_features),
            "origin": self.origin,
            "model_hash": self.model_hash,
            "model_name": self.model_name,
            "macs": self.macs,
            "traffic_bytes": self.traffic_bytes,
            "options": dict(self.options),
            "files": _file_table(self.files),
            **({"hooks": _file_table(self.hooks)} if self.hooks else {}),
            "inputs": [[t.name, t.dtype, list(t.shape)] for t in self.inputs],
            "outputs": [[t.name, t.dtype, list(t.shape)] for t in self.outputs],
            "spec": self.spec.to_json(),
            "history": [step.to_json() for step in self.history],
            "tensor_names": dict(self.tensor_names),
        }
        return {"seal": _seal(content), **content}

    @classmethod
    def _from_manifest(cls, path: Path, document: Mapping[str, Any]) -> Bundle:
        return cls(
            path=path,
            **{name: _text(document[name]) for name in _TEXTS},
            spec=Spec.from_json(_table(document["spec"]), where=str(path / MANIFEST)),
            inputs=tuple(_tensor_info(item) for item in document["inputs"]),
            outputs=tuple(_tensor_info(item) for item in document["outputs"]),
            tensor_names={name: _text(other) for name, other in _table(document["tensor_names"]).items()},
            files={name: _file_entry(name, entry) for name, entry in _table(document["files"]).items()},
            cpu_features=tuple(_text(feature) for feature in document["cpu_features"]),
            options=dict(_table(document["options"])),
            history=tuple(Step.from_json(_table(step)) for step in document["history"]),
            model_name=_text(document.get("model_name", "")),
            macs=_count(document.get("macs")),
            traffic_bytes=_count(document.get("traffic_bytes")),
            hooks={name: _file_entry(name, entry) for name, entry in _table(document.get("hooks", {})).items()},
        )

    def _check_files(self) -> None:
        for name, (sha, size) in {**self.files, **self.hooks}.items():
            file = self.path / name
            try:
                if not file.resolve().is_relative_to(self.path.resolve()):
                    raise EdgewrightError(
                        "E220", f"bundle `{self.path}` names a file outside itself: `{name}`", hint=_REMEDY
                    )
                if not file.is_file():
                    raise EdgewrightError("E220", f"bundle `{self.path}` lacks its file `{name}`", hint=_REMEDY)
                changed = file.stat().st_size != size or file_hash(file) != sha
            except (OSError, ValueError) as problem:  # ValueError: a name that no file can have
                raise EdgewrightError(
                    "E220", f"file `{name}` of bundle `{self.path}` cannot be read: {problem}", hint=_REMEDY
                ) from None
            if changed:
                raise EdgewrightError(
                    "E220", f"file `{name}` of bundle `{self.path}` was changed after it was made", hint=_REMEDY
                )


@contextmanager
def staging(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder beside `path` that becomes `path` on success and vanishes on failure.

    Raises:
        EdgewrightError: E105 when `path` exists (and is no bundle to overwrite) or its parent cannot be written.
    """
    path = Path(path)
    if path.exists() and not (overwrite and (path / MANIFEST).is_file()) and (not path.is_dir() or any(path.iterdir())):
        raise EdgewrightError("E105", f"output `{path}` exists already", hint=f"rm -r {path}, or choose another --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as problem:
        raise EdgewrightError("E105", f"output `{path}` cannot be written: {problem.strerror}") from None
    try:
        folder.chmod(0o755)
        yield folder
        _swap(folder, path)
    except OSError as problem:
        raise EdgewrightError("E105", f"output `{path}` cannot be written: {problem.strerror or problem}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(folder: Path, path: Path) -> None:
    """Put `folder` at `path`; what was there goes only once the new one is in place."""
    if not path.exists():
        folder.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    path.rename(old / "old")
    try:
        folder.rename(path)
    except OSError:
        (old / "old").rename(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _made_for_another_cpu(bundle: Bundle) -> str:
    needs = " and ".join(need.replace("|", " or ") for need in bundle.unmet_features)
    text = f"bundle `{bundle.path}` was made for a CPU with {needs}, which this one lacks: "
    if bundle.may_saturate:
        return text + f"products of its 8-bit weights may saturate here, those of 7-bit ones cannot: {_INT8_REMEDY}"
    return text + f"its answers or its speed may differ; for this CPU: {_REMEDY}"


def _read_manifest(path: Path) -> Mapping[str, Any]:
    if not path.is_dir():
        raise EdgewrightError(
            "E104", f"bundle folder `{path}` does not exist", hint="edgewright convert MODEL --out DIR"
        )
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise EdgewrightError("E221", f"folder `{path}` is no bundle: it has no {MANIFEST}")
    if manifest.stat().st_size > _LARGEST_MANIFEST_BYTES:
        raise EdgewrightError("E221", f"manifest `{manifest}` is larger than {_LARGEST_MANIFEST_BYTES} bytes")
    try:
        document = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:  # ValueError: not UTF-8, not JSON, absurd numbers
        raise EdgewrightError("E221", f"manifest `{manifest}` cannot be read: {problem}") from None
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        got = document.get("format") if isinstance(document, Mapping) else None
        raise EdgewrightError("E221", f"manifest `{manifest}` has format {got!r}, this version reads {FORMAT}")
    return document


def _seal(document: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over everything in the manifest but the seal itself."""
    content = {key: value for key, value in document.items() if key != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} must be text")
    return value


def _count(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 0):
        raise TypeError(f"{value!r} must be a number from 0 on, or null")
    return value


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r} must be a table")
    return value


def _tensor_info(item: Any) -> TensorInfo:
    name, dtype, shape = item
    if not isinstance(shape, list) or not all(size is None or type(size) in (int, str) for size in shape):
        raise TypeError(f"shape {shape!r} must be a list of sizes and names")
    return TensorInfo(_text(name), _text(dtype), tuple(shape))


def _file_table(files: Mapping[str, tuple[str, int]]) -> dict[str, dict[str, Any]]:
    return {name: {"sha256": sha, "size_bytes": size} for name, (sha, size) in files.items()}


def _file_entry(name: str, entry: Any) -> tuple[str, int]:
    pure = PurePosixPath(name)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"file name {name!r} leads outside the bundle")
    size = _table(entry)["size_bytes"]
    if type(size) is not int or size < 0:
        raise TypeError(f"size {size!r} of {name!r} must be a number of bytes")
    return _text(entry["sha256"]), size
