"""Putting a `processor.py` into a bundle: the files, and their hashes in the manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgewright.bundle import MANIFEST, Bundle, file_hash, staging
from edgewright.errors import EdgewrightError
from edgewright.serve.hooks import code


def add_processor(bundle: str | Path, processor: str | Path, files: Sequence[str | Path] = ()) -> Bundle:
    """The bundle with hooks: `processor` as its `processor.py`, and beside it the files that this reads.

    The bundle is written anew beside itself and takes its own place in one step, so that a server that watches it sees
    the old one or the new one. What evidence says of the network stays true and stays with it.

    Args:
        bundle: A bundle's folder.
        processor: A Python file that defines any of `preprocess(x, **kw)`, `run_model(model, x, **kw)` and
            `postprocess(x, **kw)`. It is checked, not run.
        files: Further files (a vocabulary); the processor finds them beside itself, under their own names.

    Raises:
        EdgewrightError: E104 for a file that cannot be read, E105 for one whose name is taken, E220 or E221 for the bundle,
            E240 for the processor.
    """
    opened = Bundle.open(bundle, warn=False)
    sources = {code.FILE: Path(processor), **{Path(file).name: Path(file) for file in files}}
    if len(sources) != 1 + len(files):
        raise EdgewrightError("E105", "two of the processor's files have the same name")
    taken = sorted((sources.keys() & opened.files.keys()) | (sources.keys() & {MANIFEST, "README.md"}))
    if taken:
        raise EdgewrightError("E105", f"bundle `{bundle}` has a file `{taken[0]}` already: give yours another name")
    try:
        code.check(sources[code.FILE].read_bytes(), str(processor))
        with staging(opened.path, overwrite=True) as folder:
            shutil.copytree(opened.path, folder, dirs_exist_ok=True)
            for name in opened.hooks:
                (folder / name).unlink(missing_ok=True)
            for name, source in sources.items():
                shutil.copyfile(source, folder / name)
            hooks = {name: (file_hash(folder / name), (folder / name).stat().st_size) for name in sources}
            changed = replace(opened, hooks=hooks)
            (folder / MANIFEST).write_text(json.dumps(changed.to_json(), indent=1), encoding="utf-8")
    except (OSError, shutil.Error) as problem:
        which = getattr(problem, "filename", None) or processor
        reason = getattr(problem, "strerror", None) or problem
        raise EdgewrightError("E104", f"file `{which}` cannot be read: {reason}") from None
    return changed
