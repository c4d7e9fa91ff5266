"""How much one request may ask for."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Limits on requests; what is beyond is refused before memory is taken.

    Attributes:
        body_bytes: Of a request's body, after decompression as well.
        json_bytes: Of the JSON in it: numbers written as text take many times their length once they are read.
        bodies_bytes: Of all bodies that are held at one time.
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
