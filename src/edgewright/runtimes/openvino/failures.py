"""What OpenVINO's error messages say, as errors and problems of ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgewright.contracts import Problem
from edgewright.errors import EdgewrightError

if TYPE_CHECKING:
    import onnx_ir as ir


def failure(doing: str, problem: RuntimeError) -> EdgewrightError:
    """The E232 error for an exception of the library."""
    return EdgewrightError("E232", f"OpenVINO failed while {doing} the network: {first_reason(problem)}")


def first_reason(problem: RuntimeError) -> str:
    """The line of OpenVINO's message that says what is wrong; the lines before it are source files and wrappers."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    noise = ("Exception from", "Check '", "FrontEnd API failed", "Model wasn't", "Summary:", "While validating", "--")
    told = [line for line in lines if line.startswith("-- No conversion")]
    told += [line for line in lines if not line.startswith(noise)]
    return str((told or lines or [type(problem).__name__])[0]).removeprefix("-- ")


def frontend_problems(problem: RuntimeError, ir_model: ir.Model) -> tuple[Problem, ...]:
    """Nodes that the ONNX frontend's report is about: it lists operators, with their opset ("Foo-21", "domain.Bar")."""
    pattern = r"(?:No conversion rule found for operations|Conversion is failed for): (.+)"
    listed = re.findall(pattern, str(problem))
    kinds = {re.sub(r"-\d+$", "", item.strip()) for line in listed for item in line.split(",")}
    nodes = [*ir_model.graph.all_nodes(), *(node for function in ir_model.functions.values() for node in function)]
    told = first_reason(problem)
    found = [
        Problem(node.name or (node.outputs[0].name or ""), node.op_type, told)
        for node in nodes
        if (f"{node.domain}.{node.op_type}" if node.domain else node.op_type) in kinds
    ]
    return tuple(found) or (Problem("", "", told),)
