"""Session: an opened network. One way to run every runtime, inner tensors included.

with ew.open(bundle, threads=2) as session:
    outputs = session.run({"image": x})
    inner = session.run({"image": x}, outputs=["/stem/conv"])
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from edgewright import registry
from edgewright.bundle import Bundle
from edgewright.contracts import Cut, Runner
from edgewright.errors import EdgewrightError
from edgewright.model import Arrays, Model, TensorInfo


def open(
    network: Bundle | Model | str | Path,
    *,
    runtime: str | None = None,
    threads: int = 1,
    cut: Cut | None = None,
    exact: bool = False,
) -> Session:
    """A Session over a bundle (or its folder), or over a Model through any installed runtime.

    Args:
        network: What to run. A Model is converted into a temporary bundle that goes with the session.
        runtime: For a Model: which runtime; the fastest exact one by default.
        threads: Threads the runtime may use, 1 or more.
        cut: Only this part of the network.
        exact: Where int8 products may saturate on this CPU, compute the same files without, however slowly.

    Raises:
        EdgewrightError: E101 or E102 for the runtime, E220 or E221 for the bundle, E231 for a tensor in `cut`.
    """
    if threads < 1:
        raise EdgewrightError("E103", f"`threads` is {threads}, but must be at least 1")
    temporary: Path | None = None
    if isinstance(network, Model):
        from edgewright.convert import convert_for_session  # who opens bundles alone starts without it

        temporary = Path(tempfile.mkdtemp(prefix="edgewright-"))
        try:
            network = convert_for_session(network, runtime or exact_runtime(), temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    elif not isinstance(network, Bundle):
        network = Bundle.open(network)
    try:
        return Session(network, threads=threads, cut=cut, exact=exact, temporary=temporary)
    except BaseException:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def exact_runtime() -> str:
    """Name of the installed runtime that stands for the original: `exact_float`, onnxruntime before others."""
    exact = [name for name in registry.installed("runtimes") if registry.peek("runtimes", name).TRAITS.exact_float]
    fast = [name for name in exact if registry.peek("runtimes", name).TRAITS.deployable]
    return (fast or exact)[0]


class Network(Protocol):
    """What can be run by somebody who does not care how; a Session is one."""

    def check(self, inputs: Arrays) -> None:
        """Refuse inputs that it does not take (E230)."""

    def run(self, inputs: Arrays, *, checked: bool = False) -> Mapping[str, np.ndarray]:
        """Run once."""

    def close(self) -> None:
        """Free everything."""


class Session:
    """A network ready to run; close it, or use it as a context manager.

    Attributes:
        bundle: What runs.
        threads: Threads the runtime may use.
        inputs: What `run` takes; for a cut, names only are known beforehand.
        outputs: Names that `run` returns by default.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int,
        cut: Cut | None = None,
        exact: bool = False,
        temporary: Path | None = None,
    ) -> None:
        assert not (exact and cut), "a part is never computed exactly: nobody asks for it"
        self.bundle = bundle
        self.threads = threads
        # Also when a session is dropped without close: the folder goes with the object, or with the process.
        self._remove_files = weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True) if temporary else None
        self._closed = False
        self._cut = cut
        self._plugin = registry.get("runtimes", bundle.runtime)
        self._taps: dict[tuple[str, ...], Runner] = {}
        self.inputs = self._describe_inputs()
        self.outputs = cut.outputs if cut else tuple(info.name for info in bundle.outputs)
        slow = exact and bundle.may_saturate and self._plugin.TRAITS.saturates
        self._runner: Runner = (
            self._plugin.exact(bundle, threads=threads) if slow else self._plugin.open(bundle, threads=threads, cut=cut)
        )

    def run(
        self, inputs: Arrays, outputs: Sequence[str] | None = None, *, checked: bool = False
    ) -> dict[str, np.ndarray]:
        """Run once.

        Args:
            inputs: Every input by ONNX name, dtype and shape as the network declares.
            outputs: Names of any tensors the runtime can show; the network's outputs by default. Inner tensors run a
                second, tapped copy of the network, opened on first use.
            checked: True where `check` has seen these inputs, or the parts that they were joined from.

        Raises:
            EdgewrightError: E230 for an input that is missing, unknown or of the wrong dtype or shape, E231 for a
                tensor that the runtime cannot show, E233 after `close`.
        """
        if self._closed:
            raise EdgewrightError("E233", f"the session over `{self.bundle.name}` was closed", hint="open it again")
        if not checked:
            self.check(inputs)
        wanted = self.outputs if outputs is None else (outputs,) if isinstance(outputs, str) else tuple(outputs)
        if wanted == self.outputs:
            return self._runner.run(inputs)
        if set(wanted) <= set(self.outputs):
            results = self._runner.run(inputs)
            return {name: results[name] for name in wanted}
        return self._tapped(wanted).run(inputs)

    def close(self) -> None:
        """Free the runtime's threads and memory and any temporary files; closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            for runner in (self._runner, *self._taps.values()):
                runner.close()
        finally:
            self._taps.clear()
            if self._remove_files:
                self._remove_files()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tapped(self, wanted: tuple[str, ...]) -> Runner:
        if self._plugin.TRAITS.taps == "none":
            raise EdgewrightError("E231", f"runtime `{self.bundle.runtime}` cannot show inner tensors")
        if wanted not in self._taps:
            for runner in self._taps.values():  # one tapped copy at a time bounds the memory
                runner.close()
            self._taps.clear()
            inputs = self._cut.inputs if self._cut else None
            self._taps[wanted] = self._plugin.open(self.bundle, threads=self.threads, cut=Cut(inputs, wanted))
        return self._taps[wanted]

    def _describe_inputs(self) -> tuple[TensorInfo, ...]:
        if self._cut is None or self._cut.inputs is None:
            return self.bundle.inputs
        known = {info.name: info for info in self.bundle.inputs}
        return tuple(known.get(name, TensorInfo(name, "", ())) for name in self._cut.inputs)

    def check(self, inputs: Arrays) -> None:
        """Refuse inputs that the network does not take.

        Raises:
            EdgewrightError: E230 with what is wrong.
        """
        check_inputs(self.inputs, inputs)


def check_inputs(infos: Sequence[TensorInfo], inputs: Arrays) -> None:
    """Refuse inputs that a network with the inputs `infos` does not take.

    Raises:
        EdgewrightError: E230 with what is wrong.
    """
    names = [info.name for info in infos]
    if set(inputs) != set(names):
        raise EdgewrightError(
            "E230",
            f"inputs given: {_list(inputs)}; the network takes: {_list(names)}",
            hint="edgewright inspect BUNDLE",
        )
    batches: dict[str, str] = {}
    for info in infos:
        if not info.dtype:
            continue
        check_array(info, inputs[info.name])
        if info.shape and isinstance(info.shape[0], str):
            first = batches.setdefault(info.shape[0], info.name)
            if len(inputs[first]) != len(inputs[info.name]):  # a runtime may compute something, silently
                raise EdgewrightError(
                    "E230",
                    f"`{info.shape[0]}` is {len(inputs[first])} in input `{first}`, "
                    f"but {len(inputs[info.name])} in `{info.name}`",
                )


def check_array(info: TensorInfo, array: Any) -> None:
    """Refuse an array that does not fit the input `info`.

    Raises:
        EdgewrightError: E230 with what it is and what the network takes.
    """
    if not isinstance(array, np.ndarray) or not _has_type(array, info.dtype):
        got = array.dtype.name if isinstance(array, np.ndarray) else type(array).__name__
        raise EdgewrightError("E230", f"input `{info.name}` is {got}, but the network takes {info.dtype}")
    if not array.dtype.isnative:  # numpy names it like the native type, runtimes read its bytes as they lie
        raise EdgewrightError("E230", f"input `{info.name}` has the byte order of another machine ({array.dtype.str})")
    fits = len(array.shape) == len(info.shape) and all(
        not isinstance(want, int) or want == got for want, got in zip(info.shape, array.shape, strict=True)
    )
    if not fits:
        raise EdgewrightError(
            "E230", f"input `{info.name}` has shape {list(array.shape)}, but the network takes {info}"
        )


def _has_type(array: np.ndarray, name: str) -> bool:
    # numpy puts a type's name together anew each time, which takes longer than a small network
    return array.dtype is _TYPES.get(name) or array.dtype.name == name


_TYPES = {np.dtype(code).name: np.dtype(code) for code in np.typecodes["AllInteger"] + "?efd"}


def _list(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
