"""How a graph is handed to a runtime's loader."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.model import EXTERNAL_DATA_BYTES

if TYPE_CHECKING:
    import onnx_ir as ir


@contextmanager
def as_source(ir_model: ir.Model) -> Iterator[bytes | Path]:
    """The graph as bytes; above protobuf's limit as a temporary file with its weights beside it, gone on leaving."""
    import onnx_ir as ir

    values = ir_model.graph.initializers.values()
    if sum(value.const_value.nbytes for value in values if value.const_value is not None) <= EXTERNAL_DATA_BYTES:
        yield ir.to_proto(ir_model).SerializeToString()
        return
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        path = Path(folder) / "model.onnx"
        ir.save(ir_model, path, external_data="model.onnx.data")
        yield path
