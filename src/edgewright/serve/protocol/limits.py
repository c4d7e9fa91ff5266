"""How much one request may ask for, and all of them together."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from edgewright.serve.core.jobs import RefusalError

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Limits on requests; what is beyond is refused before memory is taken.

    Attributes:
        body_bytes: Of a request's body, after decompression as well.
        json_bytes: Of the JSON in it: numbers written as text take many times their length once they are read.
        bodies_bytes: Of all bodies that are held at one time, over HTTP and gRPC together.
        tensors: Of inputs and of outputs of a request.
        rank: Axes of a tensor.
        pixels: Of a photo.
        body_s: Seconds in which a body must have come.
    """

    body_bytes: int = 64 * MIB
    json_bytes: int = 16 * MIB
    bodies_bytes: int = 512 * MIB
    tensors: int = 256
    rank: int = 16
    pixels: int = 64_000_000
    body_s: float = 30.0


class Bodies:
    """The bytes of all bodies that are held now: many small requests may not take what one large one may not.

    Attributes:
        held: How many.
    """

    def __init__(self, limits: Limits) -> None:
        self.held = 0
        self._most = limits.bodies_bytes
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Take `size` bytes; `give` gives them back. On any thread.

        Raises:
            RefusalError: "full" beyond the limit of all bodies.
        """
        with self._lock:
            if self.held + size > self._most:
                raise RefusalError("full", "over capacity: too many bodies are held at once", retry_after_s=1)
            self.held += size

    def give(self, size: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self.held -= size
