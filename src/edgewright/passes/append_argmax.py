"""Append ArgMax: the network gives the class of every pixel instead of scores, so that these never leave the runtime.

The output keeps its name and becomes int64[N, H, W]; equal scores go to the lowest class, as in task `segment`. Make it
the last step of a recipe. Answers stay the same, but scores are gone for good, so the step counts as lossy and `verify`
judges by agreement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewright.contracts import Context
from edgewright.errors import EdgewrightError
from edgewright.graph.dataflow import Names
from edgewright.graph.naming import require_known
from edgewright.graph.shapes import infer

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA: str | None = None
LOSSY = True
NEEDS_SAMPLES = False

_AXIS = 1  # of the classes
_FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")


@dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
        output: Name of the output with the scores, where there are several.
    """

    output: str | None = None


def apply(ir_model: ir.Model, config: Config, context: Context) -> dict[str, Any]:
    """Append in place; returns `decided`: the output, and the axis of the original's output that went (see `model.Step`).

    Raises:
        EdgewrightError: E103 for an output that there is not, or where several ask for a choice; E212 where the output
            holds no scores [N, classes, H, W] of two classes or more.
    """
    import onnx_ir as ir

    infer(ir_model)
    number = _chosen(ir_model, config)
    scores = ir_model.graph.outputs[number]
    shape = _require_scores(scores)
    name, names = scores.name, Names(ir_model)
    assert name is not None
    scores.name = names.fresh(f"{name}:scores")
    node = ir.node(
        "ArgMax",
        [scores],
        {"axis": _AXIS, "keepdims": 0, "select_last_index": 0},
        name=names.fresh_node(f"{name}:argmax"),
    )
    made = node.outputs[0]
    made.name, made.dtype = name, ir.DataType.INT64
    made.shape = ir.Shape([size for axis, size in enumerate(shape) if axis != _AXIS])
    ir_model.graph.append(node)
    ir_model.graph.outputs[number] = made
    return {"decided": {name: _AXIS}, "rescaled": [name], "classes": shape[_AXIS]}


def _chosen(ir_model: ir.Model, config: Config) -> int:
    """Number of the output to work on."""
    known = [value.name or "" for value in ir_model.graph.outputs]
    if config.output is not None:
        require_known((config.output,), set(known), option="append_argmax.output", what="an output")
        return known.index(config.output)
    if len(known) != 1:
        raise EdgewrightError(
            "E103",
            f"option `append_argmax.output` must name one of the outputs: {', '.join(f'`{name}`' for name in known)}",
            hint=f"--set append_argmax.output={known[0]}" if known else "",
        )
    return 0


def _require_scores(value: ir.Value) -> tuple[int | str | None, ...]:
    """The sizes of an output that holds scores of classes.

    Raises:
        EdgewrightError: E212 where it does not.
    """
    sizes = () if value.shape is None else tuple(size if isinstance(size, int) else size.value for size in value.shape)
    kind = "?" if value.dtype is None else value.dtype.name
    shown = f"`{value.name}` is {kind.lower()}[{', '.join(map(str, sizes))}]"
    if value.producer() is None or kind not in _FLOATS or len(sizes) != 4:
        raise EdgewrightError("E212", f"`append_argmax` needs scores [N, classes, H, W], but output {shown}")
    classes = sizes[_AXIS]
    if not isinstance(classes, int) or classes < 2:
        raise EdgewrightError(
            "E212", f"`append_argmax` needs two classes or more, known before the network runs, but output {shown}"
        )
    return sizes
