"""Samples: what networks are calibrated, chosen and judged with. Photos and arrays, with roles by content hash.

    samples = Samples.open("photos/", model)
    for sample in samples.role("judge"):
        session.run(sample.arrays)

Owns layouts (`sources`), labels (`labels`), roles (`roles`), photos (`images`) and `.npz` (`archives`). Nothing is kept
in memory but names and hashes: a sample is decoded when it is asked for.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np

from edgewright.contracts import ROLES, Role, Sample, evenly
from edgewright.errors import EdgewrightError
from edgewright.model import TensorInfo
from edgewright.progress import SILENT, Progress
from edgewright.samples import images
from edgewright.samples.images import BrokenSampleError
from edgewright.samples.loading import Loader
from edgewright.samples.reading import Item, Reading, read, stamp
from edgewright.samples.sources import Entry, Found, LabelSource, display
from edgewright.spec import Spec

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Samples", "preparation"]


class Network(Protocol):
    """What `Samples.open` asks of a Model or a Bundle."""

    @property
    def spec(self) -> Spec: ...
    @property
    def inputs(self) -> tuple[TensorInfo, ...]: ...
    @property
    def outputs(self) -> tuple[TensorInfo, ...]: ...


class Samples:
    """Samples of one source, decoded on demand; iterates `contracts.Sample`. May be pickled.

    Attributes:
        layout: How the source was understood, for people.
        skipped: Samples that cannot be used, (id, reason).
        notes: What a user should know about how the source was understood.
    """

    def __init__(self, loader: Loader, items: Sequence[Item], found: Found) -> None:
        self._loader = loader
        self._items = tuple(items)
        self.layout = found.layout
        self.notes = found.notes
        self.skipped = found.skipped

    @classmethod
    def open(
        cls,
        path: str | Path,
        network: Network | Spec,
        *,
        roles: Literal["hash", "calibrate", "select", "judge"] = "hash",
        labels: LabelSource = None,
        limit: int | None = None,
        min_readable: float = 0.5,
        seed: int = 0,
        progress: Progress = SILENT,
    ) -> Self:
        """The samples at `path`, each read once to the end, so that broken ones are known before the work starts.

        Args:
            path: A photo, a folder, a .txt list, an .npz or a labels.csv; see `samples.sources` for the layouts.
            network: A Model or a Bundle, or a Spec where shapes need no check.
            roles: "hash" divides by content; a role's name forces it, for a folder that was split by hand.
            labels: None looks for them, "none" ignores them, a path is a labels.csv.
            limit: At most so many samples, drawn at random by `seed`.
            min_readable: Smallest part of the samples tried that must be usable, 0..1.
            seed: Decides what `limit` draws.
            progress: Told of each sample.

        Raises:
            EdgewrightError: E103 for an argument, E104 unreadable path, E301 no usable samples, E302 too few, E303 the
                Spec does not fit the network or takes no photos, E305 labels.
        """
        if roles != "hash" and roles not in ROLES:
            raise EdgewrightError("E103", f"`roles` is {roles!r}, but must be hash, {', '.join(ROLES)}")
        if limit is not None and limit < 1:
            raise EdgewrightError("E103", f"`limit` is {limit}, but must be at least 1")
        if not 0 <= min_readable <= 1:
            raise EdgewrightError("E103", f"`min_readable` is {min_readable}, but must be 0..1")
        reading = Reading(roles, labels, limit, min_readable, seed, progress)
        return cls(*read(Path(path), *_facts(network), reading))

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Sample]:
        return (self.load(index) for index in range(len(self._items)))

    def __repr__(self) -> str:
        return f"<Samples {self.layout}: {len(self)} usable, {len(self.skipped)} skipped>"

    def load(self, index: int) -> Sample:
        """Sample number `index`, 0-based: file to input arrays.

        Raises:
            EdgewrightError: E302 when its file has changed or vanished since it was opened.
        """
        item = self._items[index]
        entry = item.entry
        try:
            if stamp(entry.path) != item.stamp:
                raise BrokenSampleError("has changed since the samples were opened")
            return Sample(entry.id, item.group, self._loader.load(entry), item.label)
        except BrokenSampleError as problem:
            raise EdgewrightError("E302", f"sample `{entry.id}` {problem}") from None

    def role(self, *roles: Role) -> Self:
        """The samples of the given roles, as a view."""
        for role in roles:
            if role not in ROLES:
                raise EdgewrightError("E103", f"role `{role}` is not known; known: {', '.join(ROLES)}")
        return self._view([item for item in self._items if item.role in roles])

    def take(self, count: int) -> Self:
        """At most `count` of the samples, those with the lowest content hashes: random, yet always the same."""
        chosen = set(sorted(range(len(self)), key=lambda index: (self._items[index].content, index))[:count])
        return self._view([item for index, item in enumerate(self._items) if index in chosen])

    def spread(self, most: int) -> Self:
        """At most `most` of the samples, evenly spaced in their order, first and last among them."""
        return self._view([self._items[index] for index in evenly(len(self), most)])

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids in order."""
        return tuple(item.entry.id for item in self._items)

    @property
    def groups(self) -> tuple[str, ...]:
        """Group hashes in order of first appearance, each once."""
        return tuple(dict.fromkeys(item.group for item in self._items))

    @property
    def roles(self) -> tuple[Role, ...]:
        """Role of each sample, in order."""
        return tuple(item.role for item in self._items)

    @property
    def counts(self) -> dict[str, int]:
        """Number of samples by role."""
        counted = Counter(item.role for item in self._items)
        return {role: counted[role] for role in ROLES}

    @property
    def labelled(self) -> bool:
        """True where every sample has a label, and there is one."""
        return bool(self._items) and all(item.label is not None for item in self._items)

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over content, groups, roles and labels, independent of names and order."""
        lines = sorted(f"{item.content} {item.group} {item.role} {item.label!r}" for item in self._items)
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def are_photos(self) -> bool:
        """True where samples are photos, which `photo` shows."""
        return bool(self._items) and self._items[0].entry.kind == "photo"

    def raw(self, sample_id: str) -> Path:
        """The file a sample is made from.

        Raises:
            EdgewrightError: E101 where no sample has that id.
        """
        return self._item(sample_id).entry.path

    def photo(self, sample_id: str) -> Image.Image:
        """The sample's photo, upright, RGB, for drawing on; huge JPEGs come smaller.

        Raises:
            EdgewrightError: E101 unknown id, E301 where the sample is no photo, E302 where it cannot be read.
        """
        entry = self._item(sample_id).entry
        if entry.kind != "photo":
            raise EdgewrightError("E301", f"sample `{sample_id}` holds arrays, not a photo")
        try:
            return images.decode(entry.path, self._loader.photo_input()[1]).convert("RGB")
        except BrokenSampleError as problem:
            raise EdgewrightError("E302", f"sample `{sample_id}` {problem}") from None

    def photo_size(self, sample_id: str) -> tuple[int, int]:
        """Width and height in pixels of the upright photo that a sample is made from.

        Raises:
            EdgewrightError: E101 unknown id, E302 where it is no photo that can be read.
        """
        try:
            return images.photo_size(self._item(sample_id).entry.path)
        except BrokenSampleError as problem:
            raise EdgewrightError("E302", f"sample `{sample_id}` {problem}") from None

    def _item(self, sample_id: str) -> Item:
        for item in self._items:
            if item.entry.id == sample_id:
                return item
        raise EdgewrightError("E101", f"sample `{sample_id}` is not known ({len(self)} samples)")

    def _view(self, items: Sequence[Item]) -> Self:
        view = copy.copy(self)
        view.__dict__.pop("hash", None)
        view._items = tuple(items)
        return view


def preparation(network: Network) -> Callable[[Path], dict[str, np.ndarray]]:
    """The function that turns a photo's file into the network's inputs, for timing and for serving.

    Raises:
        EdgewrightError: E303 where the network takes no photos; the function raises E302 for a file it cannot use.
    """
    spec, inputs, _ = _facts(network)
    loader = Loader(spec, inputs)
    loader.photo_input()

    def prepare(path: Path) -> dict[str, np.ndarray]:
        try:
            return loader.load(Entry(display(path.name), path, "photo"))
        except BrokenSampleError as problem:
            raise EdgewrightError("E302", f"photo `{display(path)}` {problem}") from None

    return prepare


def _facts(network: Network | Spec) -> tuple[Spec, tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    if isinstance(network, Spec):
        return network, (), ()
    network.spec.check(network.inputs)
    return network.spec, network.inputs, network.outputs
