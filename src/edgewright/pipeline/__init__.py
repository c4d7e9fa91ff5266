"""pipeline: several bundles as one model. Tensors handed from network to network, or boxes found in a photo and looked at.

    reader = ew.Pipeline({"find": "detector/", "read": ew.Part("reader/", each="find")})
    with reader.start(threads=1) as session:
        print(session.look("street.jpg"))

A pipeline of tensors names where inputs come from (`Part.inputs`); any other one is of photos. What a part hands on is the
array that it made: nothing is copied between them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgewright.bundle import Bundle
from edgewright.pipeline.parts import FILE, Hooked, Part, bundle_of, opened, read
from edgewright.pipeline.photos import PHOTO, RESULT, Findings, PhotoSession, check_photo_parts
from edgewright.pipeline.tensors import TensorSession, Wiring
from edgewright.spec import Spec

__all__ = ["FILE", "Findings", "Part", "PhotoSession", "Pipeline", "TensorSession"]

#: `Spec.task` of pipelines of photos: no plugin, their parts have tasks of their own.
TASK = "pipeline"


class Pipeline:
    """Several bundles as one model, ready to be started.

    Attributes:
        parts: By name, in the order in which they run; their bundles are open.
        inputs: What it takes. A pipeline of photos takes `photo`, uint8[height, width, 3] in RGB.
        outputs: What it gives; of photos `result`, a JSON text.
        name: For messages and reports.
    """

    def __init__(
        self,
        parts: Mapping[str, Part | Bundle | str | Path],
        *,
        outputs: Sequence[str] = (),
        name: str = "pipeline",
        hooked: Hooked | None = None,
    ) -> None:
        """A pipeline of `parts`, in their order.

        Args:
            parts: Networks by name: a Part, or a bundle (or its folder) where nothing more is to be said.
            outputs: For pipelines of tensors: "PART.TENSOR" of those that it gives; by default those that no part reads.
            name: For messages and reports.
            hooked: Opens bundles with hooks, for whoever may run them; None refuses them.

        Raises:
            EdgewrightError: E103 for parts that do not fit each other, E303 for one that takes no photo and should.
        """
        self.parts, self._starts = opened(parts, hooked)
        self.name = name
        self._wiring: Wiring | None = None
        if outputs or any(part.inputs for part in self.parts.values()):
            self._wiring = Wiring(self.parts, outputs)
            self.inputs, self.outputs = self._wiring.inputs, self._wiring.outputs
        else:
            check_photo_parts(self.parts)
            self.inputs, self.outputs = (PHOTO,), (RESULT,)

    @classmethod
    def open(cls, folder: str | Path, *, hooked: Hooked | None = None) -> Pipeline:
        """The pipeline that `pipeline.toml` in a folder describes; every hash of its bundles is checked.

        Raises:
            EdgewrightError: E103 for the file, E104, E220, E221 for a bundle, E240 for one with hooks that may not run.
        """
        parts, outputs = read(Path(folder))
        return cls(parts, outputs=outputs, name=Path(folder).resolve().name, hooked=hooked)

    @property
    def of_photos(self) -> bool:
        """Whether it looks at photos, else it computes tensors."""
        return self._wiring is None

    @property
    def hash(self) -> str:
        """SHA-256 (hex) over the bundles' hashes and how they are put together."""
        content = {
            name: {
                **{key: value for key, value in vars(part).items() if key != "bundle"},
                "hash": bundle_of(part).hash,
                **({"hooks": bundle_of(part).hooks} if bundle_of(part).hooks else {}),
            }
            for name, part in self.parts.items()
        }
        text = json.dumps([content, [info.name for info in self.outputs]], default=dict)
        return hashlib.sha256(text.encode()).hexdigest()

    def start(self, *, threads: int = 1) -> PhotoSession | TensorSession:
        """A session: every network open, ready to run. Close it, or use it as a context manager.

        Raises:
            EdgewrightError: As `ew.open`.
        """
        if self._wiring is None:
            return PhotoSession(self.parts, self._starts, threads)
        return TensorSession(self._starts, self._wiring, threads)

    def face(self, folder: Path) -> Bundle:
        """The pipeline as a bundle looks from outside: for whoever serves both. It has no files of its own."""
        precisions = {bundle_of(part).precision for part in self.parts.values()}
        return Bundle(
            path=folder,
            name=self.name,
            runtime=TASK,
            runtime_version="",
            precision=precisions.pop() if len(precisions) == 1 else "mixed",
            spec=Spec(task=TASK if self.of_photos else "tensor"),
            inputs=self.inputs,
            outputs=self.outputs,
            tensor_names={},
            files={},
            hooks={
                f"{name}/{file}": entry
                for name, part in self.parts.items()
                for file, entry in bundle_of(part).hooks.items()
            },
            cpu_features=tuple(
                dict.fromkeys(need for part in self.parts.values() for need in bundle_of(part).cpu_features)
            ),
            options={"pipeline": self.hash},
        )
