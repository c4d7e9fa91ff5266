"""A failing layer as a case of its own: its network, inputs, expected and actual values, and how to run them.

DIR/model.onnx     the original's nodes of the stretch
DIR/inputs.npz     the original's values at its start, by tensor name
DIR/expected.npz   the original's value at its end
DIR/got.npz        the bundle's value there
DIR/README.md
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from edgewright.bundle import Bundle, staging
from edgewright.locate.stages import fragment
from edgewright.locate.walk import Failure
from edgewright.model import Arrays


def write(folder: Path, failure: Failure, bundle: Bundle, cause: str | None) -> Path:
    """Make `folder` whole or not at all; returns it.

    Raises:
        EdgewrightError: E105 when it exists or cannot be written.
    """
    with staging(folder) as part:
        fragment(failure.model, failure.stage, failure.inputs).save(part / "model.onnx")
        _save(part / "inputs.npz", failure.inputs)
        _save(part / "expected.npz", {failure.stage.name: failure.expected})
        if failure.got is not None:
            _save(part / "got.npz", {failure.stage.name: failure.got})
        (part / "README.md").write_text(_readme(failure, bundle, cause), encoding="utf-8")
    return folder


def _save(path: Path, arrays: Arrays) -> None:
    """An .npz file; `numpy.savez` takes names as keywords, which a tensor called `file` would break."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)


def _readme(failure: Failure, bundle: Bundle, cause: str | None) -> str:
    error = failure.error
    numbers = (
        error.problem or f"rel-L2 {error.rel_l2:.3e}, largest difference {error.max_abs:.4g} at {error.max_abs_index}"
    )
    return f"""# `{failure.stage.name}` ({failure.stage.op_type})

`{bundle.name}` ({bundle.runtime} {bundle.runtime_version}, {bundle.precision}) gives other values than the original:
{numbers}, for sample `{error.worst_sample}`. Likely cause: {cause or "none of the known ones explains it"}.

```python
import numpy, onnxruntime
inputs, expected, got = (dict(numpy.load(f"{{name}}.npz")) for name in ("inputs", "expected", "got"))
outputs = onnxruntime.InferenceSession("model.onnx").run(None, inputs)
print(abs(outputs[0] - expected["{failure.stage.name}"]).max())  # the original: nothing but rounding
print(abs(got["{failure.stage.name}"] - expected["{failure.stage.name}"]).max())  # {bundle.runtime}
```
"""
