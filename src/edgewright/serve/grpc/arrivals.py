"""The one message of a call, awaited for so long and no longer: who sends half of it would keep a thread for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Self


class Arrivals:
    """Ends calls whose message does not come. One thread looks after all of them, within a `with`."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since: dict[Any, float] = {}  # by the call's context
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="arrivals", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def first(self, messages: Iterator[bytes], context: Any) -> bytes:
        """The call's message; an empty one where it ends without: nothing is what an empty message consists of.

        Raises:
            grpc.RpcError: The call was ended, by the client or for its slowness.
        """
        self._since[context] = time.monotonic()
        try:
            return next(messages, b"")
        finally:
            del self._since[context]

    def _look(self) -> None:
        while not self._over.wait(min(1.0, self._limit_s / 2)):
            now = time.monotonic()
            for context, since in list(self._since.items()):
                if now - since > self._limit_s:
                    context.cancel()
