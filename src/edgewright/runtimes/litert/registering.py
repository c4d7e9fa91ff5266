"""The table of rules: ONNX operator -> the function that writes it with operators of LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

Rule = Callable[[Any, "ir.Node"], None]
#: By operator of the standard domain.
RULES: dict[str, Rule] = {}


class Refused(Exception):  # noqa: N818 (it is no error: `supports` collects them)
    """Why a node cannot be written."""


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register the function that writes these operators."""

    def register(function: Rule) -> Rule:
        for name in operators:
            assert name not in RULES, name
            RULES[name] = function
        return function

    return register
