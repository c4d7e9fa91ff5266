"""Operators in torch, one small function each; importing this package enters all of them in the table."""

from __future__ import annotations

from edgewright.learn.operators import (  # noqa: F401 - each import enters its operators in the table
    activation,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    resizing,
    shape,
)
from edgewright.learn.operators.table import OPERATORS, Operator

__all__ = ["OPERATORS", "Operator"]
