"""Where the configuration goes: to a file that appears whole, or to stdout."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from edgewright.cli.common import Terminal
from edgewright.errors import EdgewrightError


def deliver(terminal: Terminal, text: str, out: str, overwrite: bool, *, secret: bool = False) -> None:
    """Write `text` to the file `out`, or to stdout for "-"; a `secret` file is its owner's alone.

    Raises:
        EdgewrightError: E105.
    """
    if out == "-" or terminal.options.dry_run:
        click.echo(text, nl=False)
        return
    path = Path(out)
    if path.exists() and not overwrite:
        raise EdgewrightError("E105", f"output `{out}` exists already", hint="add --overwrite, or choose another --out")
    try:
        number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(number, "w", encoding="utf-8") as stream:
                stream.write(text)
            Path(name).chmod(0o600 if secret else 0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as problem:
        raise EdgewrightError("E105", f"output `{out}` cannot be written: {problem.strerror}") from None
    terminal.say(f"saved: {out}")
