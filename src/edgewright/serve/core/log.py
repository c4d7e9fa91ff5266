"""Log lines with fields, for people (`event=loaded model=net`) or as JSON, one a line on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TextIO

Log = Callable[..., None]  # log("loaded", model="net", version=1)


def lines(*, as_json: bool, stream: TextIO | None = None) -> Log:
    """A log that writes each event with the time and its fields; values are escaped, so that an event is one line."""

    def write(event: str, **fields: object) -> None:
        document = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, **fields}
        if as_json:
            text = json.dumps(document, default=str, ensure_ascii=False)
        else:
            text = " ".join(f"{key}={_quoted(value)}" for key, value in document.items())
        print(text, file=stream or sys.stderr, flush=True)

    return write


def silent(event: str, **fields: object) -> None:
    """A log that keeps nothing."""


def _quoted(value: object) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    plain = text and not any(char in text for char in ' "=\\') and text.isprintable()
    return text if plain else json.dumps(text, ensure_ascii=True)
