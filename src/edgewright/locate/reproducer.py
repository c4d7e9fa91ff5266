"""A failing layer as a case of its own: its network, inputs, expected and actual values, and a script that runs it.

DIR/model.onnx     the original's nodes of the stretch, or the network's where its source is what it was compared with
DIR/inputs.npz     the values at its start, by tensor name
DIR/expected.npz   the value that is right at its end: the original's, or the source's
DIR/got.npz        the value that came: the bundle's, or the network's
DIR/places.npy     where the source's values were thinned: their indices in the memory of the whole tensor
DIR/reproduce.py   runs model.onnx and prints both distances
DIR/README.md
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from edgewright.bundle import staging
from edgewright.locate.stages import fragment
from edgewright.locate.walk import Failure
from edgewright.model import Arrays

_SCRIPT = """\
import os

import numpy
import onnxruntime

NAME = {name!r}
inputs, expected, got = ({{**numpy.load(f"{{part}}.npz")}} for part in ("inputs", "expected", "got"))
result = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"]).run(None, inputs)[0]
if os.path.exists("places.npy"):  # only these values are known
    result = result.reshape(-1)[numpy.load("places.npy")]
for title, value in (("model.onnx", result), ({other!r}, got[NAME])):
    if value.shape == expected[NAME].shape:
        print(f"{{abs(value - expected[NAME]).max():.9g}}", "is the largest difference of", title)
    else:
        print(f"{{list(value.shape)}} instead of {{list(expected[NAME].shape)}} is the shape of", title)
"""


def write(folder: Path, failure: Failure, compared: tuple[str, str], cause: str | None) -> Path:
    """Make `folder` whole or not at all; returns it. `compared` names what is right and what was examined.

    Raises:
        EdgewrightError: E105 when it exists or cannot be written.
    """
    name, got, expected = failure.stage.name, failure.got, failure.expected
    if failure.source is not None and got is not None:
        got, expected = expected, got  # the source is right by definition
    with staging(folder) as part:
        if failure.inputs:
            fragment(failure.model, failure.stage, failure.inputs).save(part / "model.onnx")
            _save(part / "inputs.npz", failure.inputs)
            _save(part / "expected.npz", {name: expected})
        if got is not None:
            _save(part / "got.npz", {name: got})
            (part / "reproduce.py").write_text(_SCRIPT.format(name=name, other=compared[1]), encoding="utf-8")
        if failure.thinned.places is not None:
            np.save(part / "places.npy", failure.thinned.places)
        (part / "README.md").write_text(_readme(failure, compared, cause), encoding="utf-8")
    return folder


def _save(path: Path, arrays: Arrays) -> None:
    """An .npz file; `numpy.savez` takes names as keywords, which a tensor called `file` would break."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)


def _readme(failure: Failure, compared: tuple[str, str], cause: str | None) -> str:
    error = failure.error
    numbers = (
        error.problem or f"rel-L2 {error.rel_l2:.3e}, largest difference {error.max_abs:.4g} at {error.max_abs_index}"
    )
    run = "`python reproduce.py` runs `model.onnx` in ONNX Runtime and prints how far it and what came are from what is right."
    return f"""# `{failure.stage.name}` ({failure.stage.op_type})

`{compared[1]}` gives other values than `{compared[0]}`: {numbers}, for sample `{error.worst_sample}`.
Likely cause: {cause or "none of the known ones explains it"}.

{run if failure.got is not None else "The values could not be read, so that there is nothing to run."}
"""
