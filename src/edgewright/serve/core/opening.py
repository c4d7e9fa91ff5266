"""How a folder becomes something that runs: a bundle, a bundle with hooks, or a pipeline of bundles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from edgewright.bundle import PIPELINE, Bundle
from edgewright.errors import EdgewrightError
from edgewright.serve.core.log import Log, silent
from edgewright.serve.core.options import ModelOptions
from edgewright.session import Network
from edgewright.session import open as open_session


class Opened(NamedTuple):
    """What lies in a folder.

    Attributes:
        bundle: What clients see of it: inputs and outputs, Spec, runtime, hash.
        open: Makes one that runs, as often as it is called.
    """

    bundle: Bundle
    open: Callable[[], Network]


def open_place(path: Path, name: str, options: ModelOptions, *, allow_hooks: bool = False, log: Log = silent) -> Opened:
    """The bundle in a folder, every hash checked.

    Args:
        path: The folder.
        name: The model's, for messages.
        options: How it is served.
        allow_hooks: Whether code that lies in bundles may run.
        log: Told of what hooks do wrong.

    Raises:
        EdgewrightError: As `Bundle.open` or `Pipeline.open`, and E240 for a bundle with hooks where they may not run or
            cannot be used.
    """
    if (path / PIPELINE).is_file():
        from edgewright.pipeline import Pipeline  # with what reads photos

        def hooked(part: str, bundle: Bundle) -> tuple[Bundle, Callable[[int], Network]]:
            if not allow_hooks:
                raise _refused(f"part `{part}` of `{name}`")
            return _hooked(bundle, f"{name}/{part}", options, log)

        pipeline = Pipeline.open(path, hooked=hooked)
        return Opened(pipeline.face(path), lambda: pipeline.start(threads=options.threads))
    bundle = Bundle.open(path, warn=False)
    if not bundle.hooks:
        return Opened(bundle, lambda: open_session(bundle, threads=options.threads))
    if not allow_hooks:
        raise _refused(f"bundle `{name}`")
    face, start = _hooked(bundle, name, options, log)
    return Opened(face, lambda: start(options.threads))


def _refused(what: str) -> EdgewrightError:
    # without them it would give other answers than whoever made the bundle meant it to
    return EdgewrightError(
        "E240",
        f"{what} has hooks, which this server does not run",
        hint="edgewright serve DIR --allow-hooks    # for bundles whose code you trust",
    )


def _hooked(bundle: Bundle, name: str, options: ModelOptions, log: Log) -> tuple[Bundle, Callable[[int], Network]]:
    """A bundle with hooks as clients see it, and what opens it with so many threads."""
    from edgewright.serve.hooks import code
    from edgewright.serve.hooks.running import HookedSession

    hooks = code.load(bundle)
    face = replace(bundle, inputs=hooks.inputs or bundle.inputs, outputs=hooks.outputs or bundle.outputs)

    def told(event: str, **fields: Any) -> None:
        log(event, model=name, **fields)

    def start(threads: int) -> Network:
        session = open_session(bundle, threads=threads)
        return HookedSession(session, hooks, face.inputs, face.outputs, limit_s=options.hook_s, log=told)

    return face, start
