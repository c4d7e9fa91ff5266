"""Pipelines of photos: networks that look at a photo, and networks that look at each box that one of them found."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from edgewright import registry
from edgewright.bundle import Bundle
from edgewright.errors import EdgewrightError
from edgewright.model import Arrays, TensorInfo
from edgewright.pipeline.parts import Part, Start, bundle_of
from edgewright.rows import SAME_ROWS, dependence, example_inputs
from edgewright.samples import images
from edgewright.samples.images import BrokenSampleError
from edgewright.samples.loading import Loader
from edgewright.session import Network, check_inputs
from edgewright.spec import Spec

if TYPE_CHECKING:
    from PIL import Image

PHOTO = TensorInfo("photo", "uint8", (None, None, 3))
RESULT = TensorInfo("result", "object", (1,))


@dataclass(frozen=True)
class Findings:
    """What a pipeline found in a photo.

    Attributes:
        results: By part. A part that looks at the photo has one result of its task; one that looks at each box has as many
            as there are boxes, in their order, None for those that it did not look at.
        each: For parts of the second kind, the part whose boxes they are.
        specs: What each part's network expects and gives.
    """

    results: Mapping[str, Any]
    each: Mapping[str, str]
    specs: Mapping[str, Spec]

    def to_json(self) -> dict[str, Any]:
        """Results by part."""
        return {
            name: [None if one is None else _finite(one.to_json()) for one in result]
            if name in self.each
            else _finite(result.to_json())
            for name, result in self.results.items()
        }

    def __str__(self) -> str:
        lines = []
        for name, result in self.results.items():
            if name in self.each:
                lines += [f"{name} {place}: {one}" for place, one in enumerate(result) if one is not None]
            else:
                lines.append(f"{name}: {result}")
        return "\n".join(lines)

    def draw(self, photo: Image.Image) -> Image.Image:
        """The photo with what was found: each box with what other parts say of it."""
        for name, result in self.results.items():
            if name in self.each:
                continue
            said = [self.results[other] for other, source in self.each.items() if source == name]
            task = registry.get("tasks", self.specs[name].task)
            photo = task.draw(photo, _captioned(result, said) if said else result, self.specs[name])
        return photo


class Text(str):
    """Findings as the JSON text that is sent, for whoever is in the same process the findings themselves."""

    __slots__ = ("findings",)

    def __new__(cls, findings: Findings) -> Self:
        """The text of `findings`."""
        made = super().__new__(cls, json.dumps(findings.to_json(), ensure_ascii=False, default=str))
        made.findings = findings  # type: ignore[attr-defined]
        return made


def check_photo_parts(parts: Mapping[str, Part]) -> None:
    """Refuse parts that no photo can feed, or that should look at boxes which nobody finds.

    Raises:
        EdgewrightError: E103, E303.
    """
    for name, part in parts.items():
        bundle = bundle_of(part)
        try:
            Loader(bundle.spec, bundle.inputs).photo_input()
        except EdgewrightError as problem:
            raise EdgewrightError(problem.code, f"part `{name}`: {problem.message}", hint=problem.hint) from None
        if not part.each:
            continue
        before = list(parts)[: list(parts).index(name)]
        if part.each not in before or parts[part.each].each:
            raise EdgewrightError(
                "E103",
                f"part `{name}` looks at each box of `{part.each}`, which is no part before it that sees the photo",
            )
        if not hasattr(registry.get("tasks", bundle_of(parts[part.each]).spec.task), "place_result"):
            raise EdgewrightError("E103", f"part `{name}` looks at each box of `{part.each}`, which finds no boxes")


class PhotoSession:
    """A pipeline of photos, running."""

    def __init__(self, parts: Mapping[str, Part], starts: Mapping[str, Start], threads: int) -> None:
        with ExitStack() as stack:
            self._looks = {
                name: _Look(part, stack, functools.partial(starts[name], threads)) for name, part in parts.items()
            }
            self._open = stack.pop_all()
        self._parts = parts

    @property
    def alone(self) -> dict[str, str]:
        """Parts that look at boxes one by one although they may run together, and why."""
        return {name: look.why_alone for name, look in self._looks.items() if look.why_alone}

    def look(self, photo: str | Path | Image.Image) -> Findings:
        """What the pipeline finds in a photo: a file, or an image of Pillow's.

        Raises:
            EdgewrightError: E302 where the photo cannot be read, E232 where a part fails, E303 where its Spec does not fit.
        """
        if isinstance(photo, str | Path):
            try:
                photo = images.decode(Path(photo))
            except BrokenSampleError as problem:
                raise EdgewrightError("E302", f"photo `{photo}` {problem}") from None
        results: dict[str, Any] = {}
        for name, look in self._looks.items():
            part = self._parts[name]
            try:
                results[name] = look.boxes(photo, results[part.each], part) if part.each else look.whole(photo)
            except EdgewrightError as problem:
                raise EdgewrightError(problem.code, f"part `{name}`: {problem.message}") from None
        return Findings(
            results,
            {name: part.each for name, part in self._parts.items() if part.each},
            {name: bundle_of(part).spec for name, part in self._parts.items()},
        )

    def check(self, inputs: Arrays) -> None:
        """Refuse what is no photo.

        Raises:
            EdgewrightError: E230.
        """
        check_inputs((PHOTO,), inputs)
        if 0 in inputs["photo"].shape:
            raise EdgewrightError("E230", "the photo has no pixels")

    def run(self, inputs: Arrays, *, checked: bool = False) -> dict[str, np.ndarray]:
        """`look` with arrays: `photo`, uint8[height, width, 3], to `result`, object[1], a JSON text.

        Raises:
            EdgewrightError: E230 for what is no photo, else as `look`.
        """
        if not checked:
            self.check(inputs)
        from PIL import Image

        result = np.empty(1, object)
        result[0] = Text(self.look(Image.fromarray(inputs["photo"])))
        return {"result": result}

    def close(self) -> None:
        """Close every part; closing twice does nothing."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Look:
    """One part: from pixels to its task's result."""

    def __init__(self, part: Part, stack: ExitStack, start: Callable[[], Network]) -> None:
        bundle = bundle_of(part)
        self._session = start()
        stack.callback(self._session.close)
        self._spec = bundle.spec
        self._task = registry.get("tasks", bundle.spec.task)
        self._loader = Loader(bundle.spec, bundle.inputs)
        self._input, self._item = self._loader.photo_input()
        self.why_alone = ""
        self._batch = 1
        if part.each and part.max_batch > 1:
            self.why_alone = self._dependent(bundle)
            self._batch = 1 if self.why_alone else part.max_batch

    def whole(self, photo: Image.Image) -> Any:
        """The result for a photo, places in its own pixels."""
        outputs = self._session.run({self._input: self._loader.from_picture(photo, self._item)})
        result = self._task.postprocess(outputs, self._spec)
        if hasattr(self._task, "place_result"):
            return self._task.place_result(result, photo.size, self._spec)
        return result

    def boxes(self, photo: Image.Image, found: Any, part: Part) -> tuple[Any, ...]:
        """Results for the boxes that were found, None for those that are not looked at."""
        results: list[Any] = [None] * found.found
        wanted = [
            place
            for place in range(found.found)
            if not part.labels or found.name(int(found.classes[place])) in part.labels
        ]
        cuts = ((place, _corners(found.boxes[place], photo.size, part.margin)) for place in wanted[: part.most])
        seen = [(place, corners) for place, corners in cuts if corners]
        for start in range(0, len(seen), self._batch):
            group = seen[start : start + self._batch]
            arrays = [self._loader.from_picture(photo.crop(corners), self._item) for _, corners in group]
            outputs = self._session.run({self._input: arrays[0] if len(arrays) == 1 else np.concatenate(arrays)})
            for row, (place, _) in enumerate(group):
                own = outputs if len(group) == 1 else {name: array[row : row + 1] for name, array in outputs.items()}
                results[place] = self._task.postprocess(own, self._spec)
        return tuple(results)

    def _dependent(self, bundle: Bundle) -> str:
        """Why rows may not run together; "" where they may."""
        first = bundle.inputs[0].shape[0]
        if isinstance(first, int) or any(not info.shape or isinstance(info.shape[0], int) for info in bundle.outputs):
            return "its batch axis is fixed"
        try:
            examples = [example_inputs(bundle.inputs, bundle.spec, seed) for seed in (1, 2)]
            found = dependence(self._session.run, examples[0], examples[1])
        except EdgewrightError as problem:
            return problem.message
        return (
            ""
            if found <= SAME_ROWS
            else f"its rows depend on each other: together they differ by {found:.1e} from alone"
        )


def _corners(box: np.ndarray, size: tuple[int, int], margin: float) -> tuple[int, int, int, int] | None:
    """A box (corners in parts of the photo's sides) in whole pixels, wider by `margin`, within the photo; None if empty."""
    x1, y1, x2, y2 = (float(value) for value in box)
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        return None
    across, down = (x2 - x1) * margin, (y2 - y1) * margin
    left, top = max(0, math.floor((x1 - across) * size[0])), max(0, math.floor((y1 - down) * size[1]))
    right, bottom = min(size[0], math.ceil((x2 + across) * size[0])), min(size[1], math.ceil((y2 + down) * size[1]))
    return (left, top, right, bottom) if right > left and bottom > top else None


def _captioned(found: Any, said: Sequence[Sequence[Any]]) -> Any:
    """Boxes with what others say of each in its name: a class of its own for each, so that each has one."""
    captions = [
        ", ".join([found.name(int(found.classes[place])), *(_short(one[place]) for one in said if one[place])])
        for place in range(found.found)
    ]
    classes = np.arange(len(found.classes), dtype=found.classes.dtype)
    return replace(found, classes=classes, names=tuple(captions))


def _short(result: Any) -> str:
    """A result in a few letters: its text or label, where it has one."""
    return str(getattr(result, "text", None) or getattr(result, "label", None) or result)[:40]


def _finite(value: Any) -> Any:
    """A document without NaN and infinity, which JSON does not have: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
