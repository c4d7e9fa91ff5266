"""Pipelines of tensors: outputs of one network are inputs of the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.model import Arrays, TensorInfo
from edgewright.pipeline.parts import Part, Start, bundle_of
from edgewright.session import Network, check_inputs


class Wiring:
    """Where each part's inputs come from, checked: types, axes and sizes fit as far as they are known.

    Attributes:
        inputs: Of the pipeline: those of parts that no part makes. Parts with an input of the same name share it.
        outputs: Of the pipeline, by the tensor's name, or PART.TENSOR where two have the same.
        feeds: For each part, own input name -> name of a value.
        given: Output's name -> name of a value.
    """

    def __init__(self, parts: Mapping[str, Part], outputs: Sequence[str]) -> None:
        """The wiring of `parts`; `outputs` are values that it gives, by default those that no part reads.

        Raises:
            EdgewrightError: E103 for values that are not there, or do not fit.
        """
        inputs: dict[str, TensorInfo] = {}
        values: dict[str, TensorInfo] = {}
        self.feeds: dict[str, dict[str, str]] = {}
        for name, part in parts.items():
            if part.each:
                raise EdgewrightError("E103", f"part `{name}` has `each`, but other parts or `outputs` name tensors")
            bundle = bundle_of(part)
            own = {info.name: info for info in bundle.inputs}
            strange = sorted(part.inputs.keys() - own.keys())
            if strange:
                listed = ", ".join(f"`{known}`" for known in own)
                raise EdgewrightError("E103", f"part `{name}` has no input `{strange[0]}`; it takes {listed}")
            for key, info in own.items():
                source = part.inputs.get(key)
                if source is None:
                    _check_fit(inputs.setdefault(key, info), info, f"input `{key}` of two parts")
                elif source not in values:
                    listed = ", ".join(f"`{known}`" for known in values) or "none"
                    raise EdgewrightError("E103", f"part `{name}`: no part before it gives `{source}`; given: {listed}")
                else:
                    _check_fit(values[source], info, f"`{source}` as `{key}` of part `{name}`")
            self.feeds[name] = {key: part.inputs.get(key, key) for key in own}
            values |= {f"{name}.{info.name}": info for info in bundle.outputs}
        read = {value for feed in self.feeds.values() for value in feed.values()}
        chosen = list(outputs) or [value for value in values if value not in read]
        for value in chosen:
            if value not in values:
                listed = ", ".join(f"`{known}`" for known in values)
                raise EdgewrightError("E103", f"no part gives output `{value}`; given: {listed}")
        short = [values[value].name for value in chosen]
        self.given = {
            (short[place] if short.count(short[place]) == 1 else value): value for place, value in enumerate(chosen)
        }
        self.inputs = tuple(inputs.values())
        self.outputs = tuple(
            TensorInfo(name, values[value].dtype, values[value].shape) for name, value in self.given.items()
        )


class TensorSession:
    """A pipeline of tensors, running."""

    def __init__(self, starts: Mapping[str, Start], wiring: Wiring, threads: int) -> None:
        self._wiring = wiring
        with ExitStack() as stack:
            self._sessions: dict[str, Network] = {}
            for name, start in starts.items():
                self._sessions[name] = start(threads)
                stack.callback(self._sessions[name].close)
            self._open = stack.pop_all()

    def check(self, inputs: Arrays) -> None:
        """Refuse inputs that the pipeline does not take.

        Raises:
            EdgewrightError: E230.
        """
        check_inputs(self._wiring.inputs, inputs)

    def run(self, inputs: Arrays, *, checked: bool = False) -> dict[str, np.ndarray]:
        """Run every part once.

        Args:
            inputs: By name.
            checked: True where `check` has seen them.

        Raises:
            EdgewrightError: E230 for inputs, E232 where a part gives what the next one does not take, or fails.
        """
        if not checked:
            self.check(inputs)
        values: dict[str, np.ndarray] = dict(inputs)
        for name, session in self._sessions.items():
            feed = {own: values[value] for own, value in self._wiring.feeds[name].items()}
            try:
                session.check(feed)
            except EdgewrightError as problem:  # the part before made it, not the caller
                raise EdgewrightError("E232", f"part `{name}`: {problem.message}") from None
            try:
                outputs = session.run(feed, checked=True)
            except EdgewrightError as problem:
                raise EdgewrightError(problem.code, f"part `{name}`: {problem.message}") from None
            values |= {f"{name}.{key}": array for key, array in outputs.items()}
        return {name: values[value] for name, value in self._wiring.given.items()}

    def close(self) -> None:
        """Close every part; closing twice does nothing."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_fit(made: TensorInfo, taken: TensorInfo, what: str) -> None:
    fits = made.dtype == taken.dtype and len(made.shape) == len(taken.shape)
    fits = fits and all(
        not (isinstance(a, int) and isinstance(b, int)) or a == b for a, b in zip(made.shape, taken.shape, strict=True)
    )
    if not fits:
        raise EdgewrightError("E103", f"{what}: {made} does not fit {taken}")
