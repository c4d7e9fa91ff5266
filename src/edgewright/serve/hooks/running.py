"""Hooks around a network: the same calls as a session's, with a time limit."""

from __future__ import annotations

import inspect
import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.model import Arrays, TensorInfo
from edgewright.serve.core.jobs import RefusalError
from edgewright.serve.core.log import Log, silent
from edgewright.serve.hooks.code import FILE, Hooks, place
from edgewright.session import Session, check_array, check_inputs

#: Threads that hooks may hold beyond their time before the model takes no more requests.
_MOST_STUCK = 8


class HookedSession:
    """A session whose runs go through hooks: `preprocess`, then `run_model` or the network, then `postprocess`.

    Python cannot end a function from outside. A hook that takes longer than its time is left alone on its thread, its
    caller is told, and the next request gets another thread.
    """

    def __init__(
        self,
        session: Session,
        hooks: Hooks,
        inputs: tuple[TensorInfo, ...],
        outputs: tuple[TensorInfo, ...],
        *,
        limit_s: float,
        log: Log = silent,
    ) -> None:
        """Hooks around `session`.

        Args:
            session: The network; closed with this object.
            hooks: What runs around it.
            inputs: What clients send.
            outputs: What they get.
            limit_s: Seconds for one run, hooks and network together.
            log: Told of failures, with what clients are not told.
        """
        self._session = session
        self._network = threading.Lock()  # a hook that was given up may still be inside
        self._hooks = {name: _calling(function) for name, function in hooks.functions.items()}
        self._path = hooks.path
        self._inputs = inputs
        self._outputs = outputs
        self._limit_s = limit_s
        self._log = log
        self._hand: _Hand | None = None
        self._stuck: list[_Hand] = []

    def check(self, inputs: Arrays) -> None:
        """Refuse what the hooks' INPUTS, or else the network's inputs, do not allow.

        Raises:
            EdgewrightError: E230.
        """
        check_inputs(self._inputs, inputs)

    def run(
        self,
        inputs: Arrays,
        *,
        parameters: Mapping[str, Any] = MappingProxyType({}),
        deadline: float | None = None,
        checked: bool = False,
    ) -> dict[str, np.ndarray]:
        """Run once, through the hooks.

        Args:
            inputs: By name.
            parameters: The request's own, given to hooks by keyword.
            deadline: Clock time (`time.monotonic`) after which nobody waits; None is never.
            checked: True where `check` has seen these inputs.

        Raises:
            EdgewrightError: E230 where a hook refuses what was sent, E240 where a hook fails, E232 for the network.
            RefusalError: "late" where time ran out.
        """
        if not checked:
            self.check(inputs)
        until = time.monotonic() + self._limit_s
        until = until if deadline is None else min(until, deadline)
        hand = self._free_hand()
        call = _Call(lambda call: self._through(call, inputs, parameters, until))
        hand.take(call)
        if not call.done.wait(max(0.0, until - time.monotonic())):
            call.given_up = True
            self._stuck.append(hand)
            self._hand = None
            self._log("stuck", hook=call.stage, threads=len(self._stuck))
            raise RefusalError("late", f"the time was up in `{call.stage}`")
        if call.problem is not None:
            raise call.problem
        assert call.outputs is not None
        return call.outputs

    def close(self) -> None:
        """Free the network and the thread; closing twice does nothing."""
        if self._hand:
            self._hand.take(None)
            self._hand = None
        with self._network:
            self._session.close()

    def _free_hand(self) -> _Hand:
        self._stuck = [hand for hand in self._stuck if hand.busy]
        if len(self._stuck) >= _MOST_STUCK:
            raise RefusalError("failed", f"hooks of {len(self._stuck)} requests before do not end")
        if self._hand is None:
            self._hand = _Hand()
        return self._hand

    def _through(self, call: _Call, inputs: Arrays, parameters: Mapping[str, Any], until: float) -> None:
        """All stages of one run, on the hand's thread; what it gives, or what is wrong, lies in `call`."""

        def keywords() -> dict[str, Any]:
            return {**parameters, "timeout_s": max(0.0, until - time.monotonic())}

        def network(x: Any) -> Any:
            return _plain(self._compute(call, x))

        try:
            x: Any = _plain(inputs)
            if "preprocess" in self._hooks:
                x = self._stage(call, "preprocess", until, x, keywords)
            if "run_model" in self._hooks:
                call.enter("run_model", until)
                x = self._hooks["run_model"](network, x, keywords=keywords())
            else:
                call.enter("the network", until)
                x = network(x)
            if "postprocess" in self._hooks:
                x = self._stage(call, "postprocess", until, x, keywords)
            call.enter("the answer", until)
            call.outputs = self._answer(x)
        except (EdgewrightError, RefusalError) as problem:
            call.problem = problem
        except BaseException as problem:
            text = "".join(traceback.format_exception(problem))
            self._log("hook", hook=call.stage, problem=text)
            call.problem = EdgewrightError("E240", f"`{call.stage}` failed: {place(problem, self._path)}")

    def _stage(self, call: _Call, name: str, until: float, x: Any, keywords: Callable[[], dict[str, Any]]) -> Any:
        call.enter(name, until)
        return self._hooks[name](x, keywords=keywords())

    def _compute(self, call: _Call, x: Any) -> dict[str, np.ndarray]:
        arrays = _named(x, self._session.inputs, f"`{FILE}`")
        try:
            self._session.check(arrays)
        except EdgewrightError as problem:  # the hooks made these inputs, not the client
            raise EdgewrightError("E240", f"`{FILE}` makes what the network does not take: {problem.message}") from None
        with self._network:
            if call.given_up:
                raise RefusalError("late", "nobody waits any more")
            return self._session.run(arrays, checked=True)

    def _answer(self, x: Any) -> dict[str, np.ndarray]:
        """What `postprocess` (or the network) gave, held to what clients are promised."""
        arrays = _named(x, self._outputs, f"`{FILE}`")
        missing = [info.name for info in self._outputs if info.name not in arrays]
        if missing:
            raise EdgewrightError("E240", f"`{FILE}` gives no output `{missing[0]}`")
        for info in self._outputs:
            try:
                check_array(info, arrays[info.name])
            except EdgewrightError:
                got = f"{arrays[info.name].dtype}{list(arrays[info.name].shape)}"
                raise EdgewrightError(
                    "E240", f"`{FILE}` gives {got} for `{info}`: OUTPUTS in it says what it gives"
                ) from None
        return {info.name: arrays[info.name] for info in self._outputs}


class _Call:
    """One run: which stage it is in, and what became of it."""

    def __init__(self, work: Callable[[_Call], None]) -> None:
        self.work = work
        self.done = threading.Event()
        self.stage = "preprocess"
        self.given_up = False
        self.outputs: dict[str, np.ndarray] | None = None
        self.problem: Exception | None = None

    def enter(self, stage: str, until: float) -> None:
        """Begin a stage, unless nobody waits for it any more."""
        if self.given_up or time.monotonic() >= until:
            raise RefusalError("late", f"the time was up before `{stage}`")
        self.stage = stage


class _Hand:
    """A thread that runs one call after another."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="hooks", daemon=True)
        self._thread.start()
        self.busy = False

    def take(self, call: _Call | None) -> None:
        """Run `call`; None ends the thread."""
        self.busy = True
        self._calls.put(call)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call.work(call)
            self.busy = False
            call.done.set()
            if call.given_up:
                return
            del call  # its arrays would stay until the next one comes


def _calling(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, called with those of the keywords that it takes."""
    kinds = inspect.signature(function).parameters.values()
    every = any(kind.kind is inspect.Parameter.VAR_KEYWORD for kind in kinds)
    known = {kind.name for kind in kinds if kind.kind is not inspect.Parameter.POSITIONAL_ONLY} - {"x", "model"}

    def call(*arguments: Any, keywords: Mapping[str, Any]) -> Any:
        names = keywords.keys() - {"x", "model"}
        return function(*arguments, **{name: keywords[name] for name in names if every or name in known})

    return call


def _plain(arrays: Mapping[str, np.ndarray]) -> Any:
    """As hooks see tensors: the array where there is one, else all of them by name."""
    return next(iter(arrays.values())) if len(arrays) == 1 else dict(arrays)


def _named(x: Any, infos: tuple[TensorInfo, ...], who: str) -> dict[str, np.ndarray]:
    """What a hook gave, by name. Numbers and lists become arrays of the type that is wanted.

    Raises:
        EdgewrightError: E240 where that cannot be.
    """
    if not isinstance(x, Mapping):
        if len(infos) != 1:
            names = ", ".join(f"`{info.name}`" for info in infos)
            raise EdgewrightError("E240", f"{who} gives {type(x).__name__}, but arrays by name are needed: {names}")
        x = {infos[0].name: x}
    try:
        types = {info.name: info.dtype for info in infos}
        return {
            name: value if isinstance(value, np.ndarray) else np.asarray(value, types.get(name))
            for name, value in x.items()
        }
    except (TypeError, ValueError, OverflowError) as problem:
        raise EdgewrightError("E240", f"{who} gives what is no array: {type(problem).__name__}") from None
