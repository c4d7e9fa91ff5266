"""The head of an answer as bytes."""

from __future__ import annotations

import functools
import re
from http import HTTPStatus

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: No control characters: a line break would begin a header of the client's own, or another answer.
_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@functools.lru_cache(256)  # answers of one kind have the same, or few different ones
def beginning(status: int, headers: tuple[tuple[str, str], ...]) -> tuple[bytes, bool]:
    """Status line and headers without the empty line, and whether they end the connection.

    Raises:
        ValueError: A name or value could not stand in a header.
    """
    for name, value in headers:
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            raise ValueError(f"header {name[:40]!r} cannot be sent")
    closes = ("connection", "close") in headers
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = [
        f"HTTP/1.1 {status} {phrase}",
        *[f"{name}: {value}" for name, value in headers if name != "connection"],
        "",
    ]
    return "\r\n".join(lines).encode("latin-1"), closes
