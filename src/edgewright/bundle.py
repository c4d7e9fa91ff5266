"""Bundle: a folder that one runtime can run. Right of convert, on disk.

    bundle.json    the manifest: runtime, precision, spec, tensor names, file hashes, CPU features, history
    README.md      how to run the files without edgewright
    ...            the runtime's own files
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

from edgewright.errors import EdgewrightError, EdgewrightWarning
from edgewright.model import Step, TensorInfo
from edgewright.spec import Spec
from edgewright.target import host_features

FORMAT = 1
MANIFEST = "bundle.json"
EVIDENCE = "evidence"
_LARGEST_MANIFEST_BYTES = 64 * 2**20


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
        cpu_features: CPU features that the files need.
        options: The runtime's convert options.
        history: What was done to the network, oldest first.
        origin: Hash of the original Model.
        model_hash: Hash of the Model that was converted.
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
        """True where a step was lossy or the arithmetic is narrower than fp32."""
        return self.precision != "fp32" or any(step.lossy for step in self.history)

    @property
    def samples_used(self) -> frozenset[str]:
        """Group hashes of every sample that was read to make the files."""
        return frozenset(group for step in self.history for group in step.samples)

    def file(self, name: str) -> Path:
        """Path of one of the runtime's files."""
        assert name in self.files, name
        return self.path / name

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """The bundle in the folder `path`, every hash checked.

        Raises:
            EdgewrightError: E104 no such folder, E221 no or a malformed manifest, E220 a file that is missing, altered or
                outside the folder.

        Warns:
            EdgewrightWarning: This CPU lacks a feature that the bundle needs.
        """
        path = Path(path)
        document = _read_manifest(path)
        try:
            bundle = cls._from_manifest(path, document)
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise EdgewrightError("E221", f"manifest `{path / MANIFEST}` is malformed: {problem!r}") from None
        bundle._check_files(str(document.get("hash")))
        absent = sorted(set(bundle.cpu_features) - set(host_features()))
        if absent:
            warnings.warn(
                f"bundle `{path}` was made for a CPU with {', '.join(absent)}, which this one lacks: "
                "its answers or its speed may differ",
                EdgewrightWarning,
                stacklevel=2,
            )
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
        """Results of `kind` that quote this bundle's hash, oldest first."""
        documents = []
        for path in sorted((self.path / EVIDENCE).glob(f"{kind}-*.json")):
            document = json.loads(path.read_text(encoding="utf-8"))
            if document.get("bundle_hash") == self.hash:
                documents.append(document)
        return tuple(documents)

    def to_json(self) -> dict[str, Any]:
        """The manifest."""
        return {
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
            "options": dict(self.options),
            "files": {name: {"sha256": sha, "size_bytes": size} for name, (sha, size) in self.files.items()},
            "inputs": [[t.name, t.dtype, list(t.shape)] for t in self.inputs],
            "outputs": [[t.name, t.dtype, list(t.shape)] for t in self.outputs],
            "spec": self.spec.to_json(),
            "history": [step.to_json() for step in self.history],
            "tensor_names": dict(self.tensor_names),
        }

    @classmethod
    def _from_manifest(cls, path: Path, document: Mapping[str, Any]) -> Bundle:
        return cls(
            path=path,
            name=str(document["name"]),
            runtime=str(document["runtime"]),
            runtime_version=str(document["runtime_version"]),
            precision=str(document["precision"]),
            spec=Spec.from_json(document["spec"], where=str(path / MANIFEST)),
            inputs=tuple(TensorInfo(name, dtype, tuple(shape)) for name, dtype, shape in document["inputs"]),
            outputs=tuple(TensorInfo(name, dtype, tuple(shape)) for name, dtype, shape in document["outputs"]),
            tensor_names=dict(document["tensor_names"]),
            files={name: (entry["sha256"], int(entry["size_bytes"])) for name, entry in document["files"].items()},
            cpu=str(document["cpu"]),
            cpu_features=tuple(document["cpu_features"]),
            options=dict(document["options"]),
            history=tuple(Step.from_json(step) for step in document["history"]),
            origin=str(document["origin"]),
            model_hash=str(document["model_hash"]),
        )

    def _check_files(self, recorded_hash: str) -> None:
        remedy = "make it again: edgewright convert MODEL"
        for name, (sha, size) in self.files.items():
            pure = PurePosixPath(name)
            if pure.is_absolute() or ".." in pure.parts or not (self.path / name).resolve().is_relative_to(self.path.resolve()):
                raise EdgewrightError("E220", f"bundle `{self.path}` names a file outside itself: `{name}`", hint=remedy)
            file = self.path / name
            if not file.is_file():
                raise EdgewrightError("E220", f"bundle `{self.path}` lacks its file `{name}`", hint=remedy)
            if file.stat().st_size != size or file_hash(file) != sha:
                raise EdgewrightError("E220", f"file `{name}` of bundle `{self.path}` was changed after it was made", hint=remedy)
        if recorded_hash != self.hash:
            raise EdgewrightError("E220", f"manifest of bundle `{self.path}` was changed after it was made", hint=remedy)


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
        if path.exists():
            shutil.rmtree(path)
        folder.rename(path)
    except OSError as problem:
        raise EdgewrightError("E105", f"output `{path}` cannot be written: {problem.strerror or problem}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_manifest(path: Path) -> Mapping[str, Any]:
    if not path.is_dir():
        raise EdgewrightError("E104", f"bundle folder `{path}` does not exist", hint="edgewright convert MODEL --out DIR")
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise EdgewrightError("E221", f"folder `{path}` is no bundle: it has no {MANIFEST}")
    if manifest.stat().st_size > _LARGEST_MANIFEST_BYTES:
        raise EdgewrightError("E221", f"manifest `{manifest}` is larger than {_LARGEST_MANIFEST_BYTES} bytes")
    try:
        document = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise EdgewrightError("E221", f"manifest `{manifest}` cannot be read: {problem}") from None
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        got = document.get("format") if isinstance(document, Mapping) else None
        raise EdgewrightError("E221", f"manifest `{manifest}` has format {got!r}, this version reads {FORMAT}")
    return document
