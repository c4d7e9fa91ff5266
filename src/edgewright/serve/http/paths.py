"""Which model and version a path names."""

from __future__ import annotations

import functools
from contextlib import suppress

from edgewright.serve.http.exchange import HttpError


def version_of(path: list[str]) -> tuple[str, int | None, list[str]]:
    """`NAME[/versions/N][/VERB]` apart.

    Raises:
        HttpError: 400 for a version that is no number.
    """
    name, *rest = path
    if not rest or rest[0] != "versions":
        return name, None, rest
    text = rest[1] if len(rest) > 1 else ""
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 18):
        raise HttpError(400, f"version {text[:40]!r} is no number")
    return name, int(text), rest[2:]


@functools.lru_cache(256)  # which is a dictionary in C: quicker than taking the path apart
def to_infer(path: str) -> tuple[str, int | None] | None:
    """Model and version of a path that ends in `/infer`; None for all others, wrong ones among them."""
    parts = path.strip("/").split("/")
    if parts[:2] != ["v2", "models"] or len(parts) < 4:
        return None
    with suppress(HttpError):
        name, number, rest = version_of(parts[2:])
        return (name, number) if rest == ["infer"] else None
    return None
