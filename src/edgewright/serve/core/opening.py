"""How a folder becomes something that runs: a bundle, a bundle with hooks, or a pipeline of bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from edgewright.bundle import PIPELINE, Bundle
from edgewright.errors import EdgewrightError
from edgewright.model import Arrays
from edgewright.serve.core.log import Log, silent
from edgewright.serve.core.options import ModelOptions
from edgewright.session import open as open_session


class Network(Protocol):
    """What a version runs; `Session` is one."""

    def check(self, inputs: Arrays) -> None:
        """Refuse inputs that it does not take (E230)."""

    def run(self, inputs: Arrays, *, checked: bool = False) -> Mapping[str, np.ndarray]:
        """Run once."""

    def close(self) -> None:
        """Free everything."""


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

        pipeline = Pipeline.open(path)
        return Opened(pipeline.face(path), lambda: pipeline.start(threads=options.threads))
    bundle = Bundle.open(path, warn=False)
    if not bundle.hooks:
        return Opened(bundle, lambda: open_session(bundle, threads=options.threads))
    if not allow_hooks:
        # without them it would give other answers than whoever made the bundle meant it to
        raise EdgewrightError(
            "E240",
            f"bundle `{name}` has hooks, which this server does not run",
            hint="edgewright serve DIR --allow-hooks    # for bundles whose code you trust",
        )
    from edgewright.serve.hooks import code
    from edgewright.serve.hooks.running import HookedSession

    hooks = code.load(bundle)
    face = replace(bundle, inputs=hooks.inputs or bundle.inputs, outputs=hooks.outputs or bundle.outputs)

    def told(event: str, **fields: Any) -> None:
        log(event, model=name, **fields)

    def start() -> Network:
        session = open_session(bundle, threads=options.threads)
        return HookedSession(session, hooks, face.inputs, face.outputs, limit_s=options.hook_s, log=told)

    return Opened(face, start)
